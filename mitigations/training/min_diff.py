"""MinDiff: training with a penalty on differences between the score distributions of two groups.

A setting is chosen on held-out training rows, never on those of a reported result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from auditor.core.errors import UsageError
from auditor.core.rows import IntArray
from auditor.run.mitigation import BaseMitigation, Mitigated, Training
from auditor.run.option_parsers import check_choice, check_positive
from mitigations.selection_guide import MeasuredExperience
from mitigations.training.retraining import (
    VALIDATION_SHARE,
    TrainingSet,
    decide_rows,
    numbered,
    refuse_one_class,
    run,
    training_set,
)
from mitigations.training.starting_network import Tuning, begin, recipe_for, trainable_from_somewhere

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.core.rows import IntArray
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel, Recipe
    from auditor.models.torch_model import TorchModel

ACCURACY_LOST = 0.02
BALANCED_ACCURACY_LOST = 0.05
FEWEST_COMPARED = 10


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The results of a model on held-out rows: ``gap`` is the largest difference between groups' rates of a decision,
    None if no two groups have enough rows."""

    accuracy: float
    balanced_accuracy: float
    gap: float | None
    one_class: bool

    def is_useful_beside(self, plain: Seen) -> bool:
        """Whether the model is useful beside one made the same way without the mitigation: at most 2 points less
        accurate (5 by balanced accuracy), and with more than one class in its decisions if that model has."""
        return (
            self.accuracy >= plain.accuracy - ACCURACY_LOST
            and self.balanced_accuracy >= plain.balanced_accuracy - BALANCED_ACCURACY_LOST
            and (plain.one_class or not self.one_class)
        )


def held_back(rows: TrainingSet, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Training positions and held-out positions: ``VALIDATION_SHARE`` of the rows of every group and label."""
    cells = np.unique(np.column_stack([rows.s.cpu().numpy(), rows.y.cpu().numpy()]), axis=0, return_inverse=True)[1]
    order = rng.permutation(len(rows))
    # The place of each row among those of its cell, in the order drawn.
    cell = cells.reshape(-1)[order]
    by_cell = np.argsort(cell, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(cell))])[:-1]
    rank = np.empty(len(rows), np.int64)
    rank[by_cell] = np.arange(len(rows)) - starts[cell[by_cell]]
    back = rank < np.floor(VALIDATION_SHARE * np.bincount(cell)[cell] + 0.5)
    return np.sort(order[~back]).astype(np.int64), np.sort(order[back]).astype(np.int64)


def evaluate_held_back(model: TorchModel, rows: TrainingSet, parts: Sequence[Tensor]) -> Seen:
    """The results of a model on held-out rows; ``parts``: masks (n,) within which groups are compared.

    A group with fewer than 10 rows in a part is left out of the gap there: its rate says little.
    """
    y, s, found = rows.y.cpu().numpy(), rows.s.cpu().numpy(), decide_rows(model, rows)
    gaps = []
    for part in parts:
        held = part.cpu().numpy()
        for j in range(s.shape[1]):
            groups = [held & (s[:, j] == code) for code in np.unique(s[:, j])]
            rates = [np.eye(model.n_outputs)[found[g]].mean(axis=0) for g in groups if g.sum() >= FEWEST_COMPARED]
            if len(rates) > 1:
                gaps.append(float(np.ptp(rates, axis=0).max()))
    return Seen(
        accuracy=float((found == y).mean()),
        balanced_accuracy=float(np.mean([(found[y == label] == label).mean() for label in np.unique(y)])),
        gap=max(gaps, default=None),
        one_class=len(np.unique(found)) < 2,
    )


Over = Literal["unfavourable", "favourable", "both", "all"]
WEIGHTS = (0.3, 1.0, 3.0, 10.0)
_DRAWN = 256


class MinDiff(BaseMitigation):
    """Train the network on ``cross-entropy + weight MMD^2``, the second over the scores of groups.

    ``MMD^2(P, Q) = E k(p, p') + E k(q, q') - 2 E k(p, q)`` with the kernel ``k(a, b) = exp(-|a - b|^2 / (2 width^2))``
    of scores, the probabilities of all classes but the first. It is taken between each group and all other rows, and
    summed over groups and sensitive features, as an unbiased statistic of some 256 rows that each step draws for
    it, as many of each group and label as of any other: a biased one is least where everybody has the same score, and
    the more so the smaller the groups.

    over: the rows it is taken over. ``unfavourable`` (the paper's: of true negatives, which evens out false positive
    rates), ``favourable`` (true positive rates), ``both`` (the sum of the two: equalized odds), ``all`` (demographic
    parity). weight: at least 0; None means that one of 0.3, 1, 3 and 10 is chosen on 15 % of the training rows, held
    back of every group and label: the one with the smallest gap in decisions among those that cost at most 2 points of
    accuracy and 5 of balanced accuracy there, against the same training without the penalty; the network that was
    chosen is the one that is returned. width: of the kernel, above 0.

    A bundle's own network is drawn anew and trained by its recipe; any other torch module, such as a transformers
    classifier, is fine-tuned from its own weights: epochs, batch_size, learning_rate: None means the recipe's, and
    without one 4, 32 and 5e-5. lora: rank of adapters, which are then learned with the head alone, at 5e-4.

    Raises ModelError for a model that cannot be trained, and where the new one would decide the same for all
    training rows and the old one did not; DataError where a group has one label; UsageError where no label is
    favourable and ``over`` speaks of one.

    Source: Prost, Qian, Chen, Chi, Chen and Beutel, arXiv:1910.11779 (2019); MMD: Gretton et al., JMLR 13 (2012).
    """

    name = "min_diff"
    pillar = "fairness"
    goal = "Train so that the scores of the groups are distributed alike"
    citation = "Prost et al., arXiv:1910.11779 (2019)"
    methods = get_args(Over)
    stage = "in-processing"
    needs = "a bundle with its recipe, or a torch module; training rows with labels and groups"
    experience = MeasuredExperience()

    def __init__(
        self,
        *,
        over: Over = "both",
        weight: float | None = None,
        width: float = 0.3,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        lora: int | None = None,
    ) -> None:
        check_choice("over", over, Over)
        if weight is not None and not (weight >= 0.0 and np.isfinite(weight)):
            raise ValueError(f"weight must be a number of at least 0, not {weight!r}")
        check_positive("width", width)
        self.over: Over = over
        self.weight = weight
        self.width = width
        self.tuning = Tuning(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, lora=lora)

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """A new model of the same architecture, trained with the penalty."""
        old = trainable_from_somewhere(model)
        rows = training_set(old, data, training.device, groups=True)
        if self.over != "all" and rows.positive is None:
            raise UsageError(f"over={self.over} is about the favourable label: add --positive LABEL.")
        recipe = recipe_for(old, self.tuning)
        recipe = replace(recipe, batch_size=min(recipe.batch_size, len(rows)))
        if self.weight is not None:
            made, small = self._train_with_weight(old, rows, self.weight, recipe, int(rng.integers(2**62)), training)
            how = f"weight {self.weight:g}"
        else:
            made, small, how = self._choose_weight(old, rows, recipe, rng, training)
        refuse_one_class(made, old, data.take(rows.rows), instead="give a smaller weight, such as --with weight=0.1")
        too_small = f" Too few training rows to compare: {', '.join(dict.fromkeys(small))}." if small else ""
        return Mitigated(
            model=made,
            notes=(
                f"MinDiff over {self.over} rows of {', '.join(rows.features)}: {how}, kernel width {self.width:g}, "
                f"{recipe.epochs} epochs of batches of {recipe.batch_size:,} rows.{too_small}",
            ),
        )

    def _choose_weight(
        self, old: TorchModel, rows: TrainingSet, recipe: Recipe, rng: np.random.Generator, training: Training
    ) -> tuple[TorchModel, list[str], str]:
        """The network of the weight that rows held back speak for, what was too small to compare, and how it went."""
        learn, back = held_back(rows, rng)
        kept, held, seed = rows.take(learn), rows.take(back), int(rng.integers(2**62))
        recipe = replace(recipe, batch_size=min(recipe.batch_size, len(kept)))
        tried = []
        for number, weight in enumerate((0.0, *WEIGHTS), 1):
            made, small = self._train_with_weight(old, kept, weight, recipe, seed, numbered(training, number))
            tried.append(_Tried(weight, made, evaluate_held_back(made, held, self._parts(held))))
        plain, *others = tried
        useful = [t for t in others if t.seen.is_useful_beside(plain.seen)]
        best = min(useful or others[:1], key=lambda t: t.seen.gap or 0.0)
        how = (
            f"weight {best.weight:g} of {', '.join(f'{w:g}' for w in WEIGHTS)}, chosen on {len(back):,} training rows "
        )
        return best.model, small, f"{how}held back: {_choice_text(plain.seen, best.seen, bool(useful))}"

    def _train_with_weight(
        self, old: TorchModel, rows: TrainingSet, weight: float, recipe: Recipe, seed: int, training: Training
    ) -> tuple[TorchModel, list[str]]:
        """A network trained with that weight, and the groups that have too few rows to be compared."""
        from mitigations.training.training_steps import FEWEST_ROWS, MinDiffStep, contrasts

        rng = np.random.default_rng(seed)
        begun = begin(old, recipe, rng, training.device, lora=self.tuning.lora)
        compared, small = contrasts(rows, self._parts(rows))
        step = MinDiffStep(
            begun.new,
            begun.optimizer(),
            rows,
            compared,
            weight=weight,
            width=self.width,
            n_each=max(FEWEST_ROWS, _DRAWN // max(2 * len(compared), 1)),
            seed=int(rng.integers(2**62)),
        )
        options = sorted((vars(self) | {"weight": weight}).items())
        prints: dict[str, object] = {"mitigation": self.name, "options": options}
        run(begun.step(step, len(rows)), (rows.x, rows.y), recipe, rng, training, fingerprint=prints)
        return begun.finished(), small

    def _parts(self, rows: TrainingSet) -> list[Tensor]:
        """Masks (n,) of the rows over which groups are compared."""
        favourable = rows.y.eq(-1 if rows.positive is None else rows.positive)
        return {
            "unfavourable": [~favourable],
            "favourable": [favourable],
            "both": [~favourable, favourable],
            "all": [rows.y.ge(0)],
        }[self.over]


@dataclass(frozen=True, eq=False)
class _Tried:
    """A network trained with one weight, and what rows held back show of it."""

    weight: float
    model: TorchModel
    seen: Seen


def _choice_text(plain: Seen, best: Seen, useful: bool) -> str:
    words = (
        f"accuracy {best.accuracy:.3f} (without the penalty {plain.accuracy:.3f}), balanced accuracy "
        f"{best.balanced_accuracy:.3f} ({plain.balanced_accuracy:.3f})"
    )
    if best.gap is None or plain.gap is None:
        return f"{words}; no two groups have {FEWEST_COMPARED} of these rows, so it is the smallest that costs no more"
    words = f"gap {best.gap:.3f} ({plain.gap:.3f}), {words}"
    if not useful:
        return f"{words}; every weight cost more accuracy than is allowed, and this is the smallest"
    return words if best.gap < plain.gap else f"{words}; no weight narrowed the gap there"
