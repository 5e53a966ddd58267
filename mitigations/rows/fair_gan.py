"""FairGAN: training on generated rows that resemble the real ones without revealing the group.

Encoded table rows as categories and back, so that a generator only draws categories.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from auditor.core.errors import DataError, ModelError
from auditor.core.rows import IntArray
from auditor.run.mitigation import BaseMitigation, Mitigated, Training
from auditor.run.option_parsers import check_not_negative
from mitigations.selection_guide import MeasuredExperience
from mitigations.training.retraining import (
    TrainingSet,
    refuse_one_class,
    refuse_several_devices,
    run,
    trainable,
    training_set,
    untrained,
)

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel, Recipe
    from auditor.models.torch_model import TorchModel
    from mitigations.rows.fair_gan_networks import Networks, Sizes

Encoded = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False, kw_only=True)
class CodedColumn:
    """One raw column as categories, each with the encoded values of its real rows.

    ``span``: its encoded columns. ``edges``: (k - 1,) lower ends of all bins but the first, of a number; None where
    the column is categorical already. ``kinds``: (k, width of the span) the encoded values of each category where they
    are known by it alone. ``held``: of a number's bins, the values of the real rows in each, sorted.
    """

    name: str
    span: slice
    edges: npt.NDArray[np.float32] | None = None
    kinds: Encoded | None = None
    held: tuple[npt.NDArray[np.float32], ...] = ()

    @property
    def n_categories(self) -> int:
        """Number of categories."""
        return len(self.held) if self.kinds is None else len(self.kinds)

    def codes(self, x: Encoded) -> IntArray:
        """(n,) category of each encoded row x (n, width)."""
        values = x[:, self.span]
        if self.edges is not None:
            return np.searchsorted(self.edges, values[:, 0], side="right").astype(np.int64)
        assert self.kinds is not None
        # The nearest kind: an indicator column is met exactly.
        return np.asarray(((values[:, None] - self.kinds[None]) ** 2).sum(axis=2).argmin(axis=1), np.int64)

    def values(self, codes: IntArray, rng: np.random.Generator) -> Encoded:
        """(n, width of the span) encoded values of categories; within a bin, a real row's value is sampled."""
        if self.kinds is not None:
            return self.kinds[codes]
        out = np.zeros((len(codes), 1), np.float32)
        for code, own in enumerate(self.held):
            where = np.flatnonzero(codes == code)
            out[where, 0] = own[rng.integers(len(own), size=len(where))]
        return out


def coded_columns(x: Encoded, names: Sequence[str], spans: Sequence[slice], bins: int) -> tuple[CodedColumn, ...]:
    """The columns of encoded rows x (n, width): numbers in at most ``bins`` bins of about as many rows each.

    A number of at most ``bins`` different values keeps each of them. A column of indicators has a category for each
    level that occurs, and one for rows of which none is set (a missing value).
    """
    columns = []
    for name, span in zip(names, spans, strict=True):
        values = x[:, span]
        kinds = np.unique(values, axis=0)
        if values.shape[1] > 1 or len(kinds) <= bins:
            columns.append(CodedColumn(name=name, span=span, kinds=kinds))
            continue
        number = np.sort(values[:, 0])
        edges = np.unique(np.quantile(number, np.arange(1, bins) / bins, method="lower"))
        edges = edges[edges > number[0]]
        ends = np.searchsorted(number, edges, side="left")
        held = tuple(np.split(number, ends))
        columns.append(CodedColumn(name=name, span=span, edges=edges, held=held))
    return tuple(columns)


def one_hot(codes: Sequence[IntArray], sizes: Sequence[int]) -> Encoded:
    """(n, sum of sizes) float32 indicators of the categories of several columns, each (n,)."""
    return np.concatenate([np.eye(k, dtype=np.float32)[c] for c, k in zip(codes, sizes, strict=True)], axis=1)


def total_variation(first: IntArray, second: IntArray, n_categories: int) -> float:
    """``1/2 sum_k |p_k - q_k|`` of the shares of categories in two samples, in [0, 1]; 0 if they are equal."""
    p, q = (np.bincount(codes, minlength=n_categories) / len(codes) for codes in (first, second))
    return float(np.abs(p - q).sum() / 2.0)


FEWEST_ROWS = 200
_STEPS = 2400
_FEWEST_EPOCHS = 20
_BATCHES = 15
_LARGEST_BATCH = 500
_AUTOENCODER_STEPS = 600
_LEARNING_RATE = 1e-3
_PENALTY = 1.0
_GUESSED = 20_000


class FairGan(BaseMitigation):
    """Retrain the same network on synthetic rows (x, y, s) with (x, y) independent of the group s.

    A generator G draws (x, y) given noise and s, two discriminators read what it draws, and they play
    ``min_G max_D1,D2 V1 + weight V2`` with

    - ``V1 = E_real[log D1(x, y, s)] + E_G[log(1 - D1(x, y, s))]``: is a row real?
    - ``V2 = sum_s E_G[log D2(s | x, y) | s]``: of which group is a drawn row?

    s keeps its real shares. For the first ``warm_up`` of the epochs D1 plays alone. G ends in the decoder of an
    autoencoder of real rows, as in the paper (medGAN), and in a softmax for each column from which a category is drawn
    (Gumbel, straight-through). Numbers are drawn as bins of about as many rows each, and within a bin one of the
    real rows' values is taken. A sensitive feature that the network reads is not generated: it is that of a real row of
    the same group. Beyond the paper: G maximises log D1 (the non-saturating form), D1 has a gradient penalty (R1), rows
    are drawn by averaged weights, and more than two groups, or features, are one V2 over all their combinations.

    weight: at least 0, the paper's lambda; 0 is a GAN that keeps the dependence. share: of synthetic rows among those
    trained on, in (0, 1], the rest being real rows drawn at random. rows: how many are trained on; None means as many
    as there are real ones. bins: at least 2, of each number. warm_up: in [0, 1). epochs: None means some 2,400 steps of
    the generator, and 20 epochs at least.

    That synthetic columns and groups are independent does not make real columns so: where these stand in for the group,
    a gap remains on real rows, and the audit tells how much. Values within bins are real ones, and a GAN can repeat
    rows: nothing here is private.

    Raises ModelError for texts, images and a model that cannot be trained anew; DataError for fewer than 200 rows,
    where a group has one label, and where the sensitive features are all that the network reads.

    Sources: Xu, Yuan, Zhang and Wu, IEEE Big Data 2018; medGAN: Choi et al., MLHC 2017; R1: Mescheder, Geiger and
    Nowozin, ICML 2018; averaged weights: Yazici et al., ICLR 2019.
    """

    name = "fair_gan"
    pillar = "fairness"
    goal = "Learn from synthetic rows that look like the real ones and do not give the group away"
    citation = "Xu, Yuan, Zhang and Wu, IEEE Big Data 2018"
    methods = ("fair_gan",)
    stage = "pre-processing"
    needs = "a bundle for tables with its recipe; training rows with labels and sensitive features"
    experience = MeasuredExperience()

    def __init__(
        self,
        *,
        weight: float = 1.0,
        share: float = 1.0,
        rows: int | None = None,
        bins: int = 16,
        warm_up: float = 0.5,
        epochs: int | None = None,
    ) -> None:
        check_not_negative("weight", weight)
        if not 0.0 < share <= 1.0:
            raise ValueError(f"share must lie in (0, 1], not {share!r}")
        if not 0.0 <= warm_up < 1.0:
            raise ValueError(f"warm_up must lie in [0, 1), not {warm_up!r}")
        if bins < 2:
            raise ValueError(f"bins must be at least 2, not {bins!r}")
        if (epochs is not None and epochs < 1) or (rows is not None and rows < 1):
            raise ValueError("epochs and rows must be at least 1")
        self.weight = weight
        self.share = share
        self.rows = rows
        self.bins = bins
        self.warm_up = warm_up
        self.epochs = epochs

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """A new model of the same architecture, by the same recipe, on the synthetic rows."""
        import torch
        from torch.nn.functional import cross_entropy

        from auditor.training.training_loop import PlainStep, optimizer_of

        refuse_several_devices(training, self.name)
        old = trainable(model)
        assert old.recipe is not None
        if data.modality != "tabular":
            raise ModelError(f"FairGAN draws rows of a table, and these data are of kind {data.modality}.")
        real = training_set(old, data, training.device, groups=True)
        table = _table(old, real, self.bins)
        networks, epochs = self._generator(table, rng, training)
        n = self.rows or len(real)
        drawn = draw(networks, table, max(1, round(self.share * n)), rng, training.device)
        kept = rng.choice(len(real), n - len(drawn.y), replace=n - len(drawn.y) > len(real))
        x = torch.from_numpy(np.concatenate([drawn.x, table.x[kept]])).to(training.device)
        y = torch.from_numpy(np.concatenate([drawn.y, table.y[kept]])).to(training.device)
        if len(torch.unique(y)) < 2:
            raise ModelError("The synthetic rows are of one class only: raise epochs, or lower weight.")
        new = untrained(old, rng, training.device, old.recipe)

        def loss(batch: Sequence[Tensor]) -> Tensor:
            return cross_entropy(new.logits(batch[0]), batch[1])

        step = PlainStep(new.module, optimizer_of(old.recipe, list(new.module.parameters())), loss)
        run(step, (x, y), old.recipe, rng, training, fingerprint=self._prints())
        refuse_one_class(new, old, data.take(real.rows), instead="give a smaller share, or more epochs")
        mixed = f" and {len(kept):,} real ones" if len(kept) else ""
        return Mitigated(
            model=new,
            notes=(
                f"FairGAN: trained on {len(drawn.y):,} synthetic rows{mixed}, of a generator that learned from "
                f"{len(real):,} rows in {epochs} epochs, from {self.warm_up:.0%} of them on against a second "
                f"discriminator of weight {self.weight:g} that guesses {' and '.join(real.features)}.",
                *_describe_sample(table, drawn),
            ),
        )

    def _prints(self) -> dict[str, object]:
        return {"mitigation": self.name, "options": sorted(vars(self).items())}

    def _generator(self, table: Table, rng: np.random.Generator, training: Training) -> tuple[Networks, int]:
        """The trained networks, and for how many epochs."""
        import torch

        from auditor.core.randomness import seeded_globals
        from auditor.models.audited_model import Recipe
        from mitigations.rows.fair_gan_networks import Autoencoder, AutoencoderStep, FairGanStep, Networks

        n = len(table.y)
        batch_size = min(max(n // _BATCHES, 64), _LARGEST_BATCH)
        n_batches = -(-n // batch_size)
        epochs = self.epochs or max(-(-_STEPS // n_batches), _FEWEST_EPOCHS)
        recipe = Recipe(batch_size=batch_size, epochs=epochs, learning_rate=_LEARNING_RATE)
        sizes = _sizes(table)
        rows = torch.from_numpy(one_hot(table.codes, table.sizes)).to(training.device)
        groups = torch.from_numpy(table.group).to(training.device)
        with seeded_globals(rng):
            autoencoder = Autoencoder(sizes).to(training.device)
        self._stage(
            "autoencoder",
            AutoencoderStep(autoencoder, sizes, _LEARNING_RATE),
            (rows,),
            replace(recipe, epochs=max(1, min(epochs, -(-_AUTOENCODER_STEPS // n_batches)))),
            rng,
            training,
        )
        with seeded_globals(rng):
            networks = Networks(sizes, autoencoder.decoder).to(training.device)
        step = FairGanStep(
            networks,
            weight=self.weight,
            quiet_steps=int(self.warm_up * epochs * n_batches),
            learning_rate=_LEARNING_RATE,
            penalty=_PENALTY,
        )
        self._stage("generator", step, (rows, groups), recipe, rng, training)
        return networks, epochs

    def _stage(
        self,
        stage: str,
        step: object,
        tensors: Sequence[Tensor],
        recipe: Recipe,
        rng: np.random.Generator,
        training: Training,
    ) -> None:
        checkpoint = training.checkpoint
        if checkpoint is not None:
            checkpoint = checkpoint.with_name(f"{checkpoint.name}.{stage}")
        told = replace(training, checkpoint=checkpoint, progress=_stage_progress(training.progress, stage))
        run(step, tensors, recipe, rng, told, fingerprint=self._prints() | {"stage": stage})  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False, kw_only=True)
class Table:
    """Real rows in the form of a generator's input.

    ``x`` (n, width) encoded, ``y`` (n,) labels, ``group`` (n,) the combination of all sensitive features. ``columns``:
    the generated ones; ``codes``: each column's categories (n,), the label's last, ``sizes``: how many these are.
    ``held``: the encoded columns that belong to sensitive features.
    """

    x: Encoded
    y: IntArray
    group: IntArray
    columns: tuple[CodedColumn, ...]
    codes: tuple[IntArray, ...]
    sizes: tuple[int, ...]
    held: tuple[slice, ...]

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return int(self.group.max()) + 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Drawn:
    """Synthetic rows, in the form of :class:`Table`."""

    x: Encoded
    y: IntArray
    group: IntArray
    codes: tuple[IntArray, ...]


def _table(model: TorchModel, rows: TrainingSet, bins: int) -> Table:
    from auditor.data.preprocessing import TabularPreprocessing

    if len(rows) < FEWEST_ROWS:
        raise DataError(f"FairGAN learns a distribution, and {len(rows):,} training rows are fewer than {FEWEST_ROWS}.")
    x = rows.x.cpu().numpy()
    if x.ndim != 2:
        raise ModelError(f"FairGAN draws rows of numbers (n, width), and the network reads {x.shape}.")
    if isinstance(model.preprocessing, TabularPreprocessing):
        names, spans = model.preprocessing.features, model.preprocessing.spans
    else:
        names = model.features or tuple(f"column {j + 1}" for j in range(x.shape[1]))
        spans = tuple(slice(j, j + 1) for j in range(x.shape[1]))
    read = [name in rows.features for name in names]
    if all(read):
        raise DataError("The network reads the sensitive features alone: there is no other column to generate.")
    own = [(name, span) for name, span, is_read in zip(names, spans, read, strict=True) if not is_read]
    columns = coded_columns(x, [name for name, _ in own], [span for _, span in own], bins)
    y = rows.y.cpu().numpy()
    _, group = np.unique(rows.s.cpu().numpy(), axis=0, return_inverse=True)
    return Table(
        x=x,
        y=y,
        group=group.reshape(-1).astype(np.int64),
        columns=columns,
        codes=(*(column.codes(x) for column in columns), y),
        sizes=(*(column.n_categories for column in columns), model.n_outputs),
        held=tuple(span for span, is_read in zip(spans, read, strict=True) if is_read),
    )


def _sizes(table: Table) -> Sizes:
    from mitigations.rows.fair_gan_networks import Sizes

    return Sizes(
        columns=table.sizes,
        n_groups=table.n_groups,
        embedding=min(max(sum(table.sizes), 32), 128),
        noise=64,
        hidden=128,
    )


def draw(networks: Networks, table: Table, n: int, rng: np.random.Generator, device: str = "cpu") -> Drawn:
    """``n`` synthetic rows, their groups in the proportions of the real rows."""
    import torch
    from torch.nn.functional import one_hot as indicators

    from auditor.core.randomness import seeded_globals

    like = rng.permutation(np.resize(rng.permutation(len(table.y)), n))
    group = table.group[like]
    with seeded_globals(rng):
        rows = networks.draw(indicators(torch.from_numpy(group), table.n_groups).float().to(device))
    codes = tuple(part.argmax(dim=1).cpu().numpy() for part in torch.split(rows, list(table.sizes), dim=1))
    x = np.zeros((n, table.x.shape[1]), np.float32)
    for column, code in zip(table.columns, codes, strict=False):
        x[:, column.span] = column.values(code, rng)
    for span in table.held:
        x[:, span] = table.x[like, span]
    return Drawn(x=x, y=codes[-1], group=group, codes=codes)


def label_gap(y: IntArray, group: IntArray) -> float:
    """``max over labels y and groups g, h of P(y | g) - P(y | h)``: for two labels the risk difference; ideal 0."""
    counts = np.zeros((group.max() + 1, y.max() + 1))
    np.add.at(counts, (group, y), 1.0)
    shares = counts[counts.sum(axis=1) > 0]
    shares = shares / shares.sum(axis=1, keepdims=True)
    return float((shares.max(axis=0) - shares.min(axis=0)).max())


def group_guessed(rows: Encoded, group: IntArray) -> float:
    """Mean over groups of the accuracy of a linear classifier of rows (n, width) on the unseen half; chance is one over
    the number of groups.

    (The paper's epsilon-fairness is one minus this.)
    """
    from sklearn.linear_model import RidgeClassifier

    rows, group = rows[:_GUESSED], group[:_GUESSED]
    half = len(rows) // 2
    if len(np.unique(group[:half])) < 2:
        return float("nan")
    guess = RidgeClassifier(class_weight="balanced").fit(rows[:half], group[:half]).predict(rows[half:])
    return float(np.mean([(guess[group[half:] == g] == g).mean() for g in np.unique(group[half:])]))


def _describe_sample(table: Table, synthetic_rows: Drawn) -> tuple[str, str]:
    names = [*(column.name for column in table.columns), "the label"]
    apart = [total_variation(a, b, k) for a, b, k in zip(table.codes, synthetic_rows.codes, table.sizes, strict=True)]
    worst = int(np.argmax(apart))
    order = np.random.default_rng(0).permutation(len(table.y))
    guessed = [
        group_guessed(one_hot(codes, table.sizes)[order], group[order])
        for codes, group, order in (
            (table.codes, table.group, order),
            (synthetic_rows.codes, synthetic_rows.group, np.arange(len(synthetic_rows.group))),
        )
    ]
    return (
        f"Columns of synthetic and real rows differ by a total variation distance of {np.mean(apart):.3f} on average, "
        f"at most {apart[worst]:.3f} ({names[worst]}).",
        f"Shares of labels differ between groups by up to {label_gap(table.y, table.group):.3f} in the real rows and "
        f"{label_gap(synthetic_rows.y, synthetic_rows.group):.3f} in the synthetic ones; from the other columns and "
        f"the label a linear "
        f"classifier guesses the group of {guessed[0]:.3f} of the real rows and {guessed[1]:.3f} of the synthetic ones "
        f"(mean over groups; chance {1.0 / table.n_groups:.3f}).",
    )


def _stage_progress(progress: Callable[[str], None] | None, stage: str) -> Callable[[str], None] | None:
    return None if progress is None else lambda words: progress(f"{stage}, {words}")
