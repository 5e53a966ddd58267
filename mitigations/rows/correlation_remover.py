"""Correlation remover: removal of the linearly predictable group information from the features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import DataError, ModelError
from auditor.core.rows import FloatArray
from auditor.run.mitigation import Mitigated, Training
from mitigations.selection_guide import MeasuredExperience
from mitigations.training.fairlearn_reductions import NetworkOrEstimator, refit
from mitigations.training.retraining import (
    Labelled,
    labelled_rows,
    refuse_bins,
    refuse_one_class,
    run,
    trainable,
    training_set,
    untrained,
)

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.data.audit_data import AuditData
    from auditor.data.preprocessing import TabularPreprocessing
    from auditor.models.audited_model import AuditedModel, Recipe
    from auditor.models.model_wrappers import Removal
    from auditor.models.torch_model import TorchModel


class CorrelationRemover(NetworkOrEstimator):
    """Retrain the same network on encoded features uncorrelated with the sensitive ones.

    With z the encoded columns of the features that are not sensitive, s the indicators of the groups and s_bar their
    means over the training rows, the network sees ``z - alpha (s - s_bar) B``, where B minimises the squared error of
    ``z ~ (s - s_bar) B``. Sensitive columns are not seen themselves. What is removed is linear: a network may still
    read the group from products of features, which the audit's probes of proxies tell.

    The new model is an ordinary bundle: the subtraction is a part of its first layer, whose input has the groups'
    indicators too, so every prediction needs the sensitive columns. Nothing is subtracted from a row whose group is
    missing or was not among the training rows. For the architecture ``mlp`` on a table.

    An estimator of scikit-learn, or boosted trees, is fitted anew on the table's own columns of numbers; a sensitive
    feature that it takes is held at one value. What is subtracted is written beside it, as data, in a folder.

    alpha: in [0, 1]; 1 removes all correlation. hyperparameters: of an estimator, those that are to be otherwise than
    they were. Raises ModelError for a model that cannot be trained anew or is no mlp on a table; DataError where a
    sensitive feature has one group, or no other feature is left.

    Source: fairlearn.preprocessing.CorrelationRemover (Bird et al., Microsoft MSR-TR-2020-32).
    """

    name = "correlation_remover"
    pillar = "fairness"
    goal = "Take out of the features what correlates with the group"
    citation = "Bird et al., Fairlearn, MSR-TR-2020-32 (2020)"
    methods = ("correlation_remover",)
    stage = "pre-processing"
    needs = "an mlp bundle with its recipe, or an estimator; labelled rows; the group at prediction"
    experience = MeasuredExperience()

    # Before an estimator, the subtraction is written beside it.
    keeps_kind = False

    def __init__(self, *, alpha: float = 1.0, hyperparameters: dict[str, Any] | None = None) -> None:
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f"alpha must lie in [0, 1], not {alpha!r}")
        self.alpha = alpha
        self.hyperparameters = hyperparameters

    def _fit_estimator(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> Mitigated:
        """An estimator fitted anew on the table's own columns of numbers, with the subtraction put before it."""
        from auditor.models.model_wrappers import PreparedModel

        refuse_bins(data)
        rows = labelled_rows(data, groups=True)
        removal, share, left = removal_of(rows, model, self.alpha)
        table = _with_groups(rows.data).X
        features = list(map(str, rows.data.X.columns))  # type: ignore[union-attr]
        found = refit(
            model,
            rows,
            rng,
            X=removal.apply(table, features),  # type: ignore[arg-type]
            hyperparameters=self.hyperparameters,
        )
        new = PreparedModel(found.model, removal, features=features)
        refuse_one_class(new, model, _with_groups(rows.data), instead="give a smaller alpha")
        names = f" Names stay as they are: {', '.join(left[:6])}." if left else ""
        return Mitigated(
            model=new,
            notes=(
                f"Correlation remover, alpha {self.alpha:g}: the groups of {', '.join(rows.features)} explained "
                f"{share:.1%} of the variance of the {len(removal.numbers)} columns of numbers. What is not linear "
                f"stays.{names}",
                f"The new model reads {', '.join(rows.features)} at every prediction, to subtract what goes with it.",
                *found.notes,
            ),
        )

    def _train_network(
        self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training
    ) -> Mitigated:
        import torch
        from torch.nn.functional import cross_entropy

        from auditor.training.training_loop import PlainStep, optimizer_of

        old = trainable(model)
        assert old.recipe is not None
        refuse_bins(data)
        rows = training_set(old, data, training.device, groups=True)
        columns = _columns(old, rows.features, rows.levels)
        encoded = old.encode(data.take(rows.rows).X).cpu().numpy().astype(np.float64)
        z = encoded[:, columns.kept]
        s = _indicators(rows.s.cpu().numpy(), rows.levels)
        mean, B = fit_removal(z, s, tuple(map(len, rows.levels)))
        x = torch.from_numpy((z - self.alpha * (s - mean) @ B).astype(np.float32)).to(training.device)
        inner = _narrower(old, z.shape[1], rng, training.device, old.recipe)

        def loss(batch: Sequence[Tensor]) -> Tensor:
            return cross_entropy(inner.logits(batch[0]), batch[1])

        step = PlainStep(inner.module, optimizer_of(old.recipe, list(inner.module.parameters())), loss)
        prints: dict[str, object] = {"mitigation": self.name, "alpha": self.alpha}
        run(step, (x, rows.y), old.recipe, rng, training, fingerprint=prints)
        new = _with_subtraction(inner, old, columns.preprocessing, self.alpha * B, mean, training.device)
        refuse_one_class(new, old, _with_groups(data.take(rows.rows)), instead="give a smaller alpha")
        share = 1.0 - float(np.square(z - z.mean(axis=0) - (s - mean) @ B).sum() / np.square(z - z.mean(axis=0)).sum())
        return Mitigated(
            model=new,
            notes=(
                f"Correlation remover, alpha {self.alpha:g}: the groups of {', '.join(rows.features)} explained "
                f"{share:.1%} of the variance of the {z.shape[1]} encoded columns. What is not linear stays.",
                f"The new model reads {', '.join(rows.features)} at every prediction, to subtract what goes with it.",
            ),
        )


def _with_groups(data: AuditData) -> AuditData:
    """The rows with the columns that the new model reads beside the old one's."""
    groups = data.sensitive_features
    # Only tables with named columns come this far.
    assert groups is not None
    missing = {name: groups[name].to_numpy() for name in groups.columns if name not in data.X}
    return replace(data, X=data.X.assign(**missing))  # type: ignore[union-attr]


def removal_of(rows: Labelled, model: AuditedModel, alpha: float) -> tuple[Removal, float, list[str]]:
    """The subtracted part of an estimator's rows, its share of their variance, and the names of its columns.

    A sensitive feature that the estimator takes is held at its commonest value.
    """
    from auditor.models.model_wrappers import Removal

    X = rows.data.X
    if isinstance(X, np.ndarray):
        raise ModelError("The correlation remover is for tables: use reweighing, which takes texts too.")
    own = [str(c) for c in X.columns if str(c) not in rows.features]
    numbers = [c for c in own if X[c].dtype.kind in "iuf" and c not in model.group_columns]
    if not numbers:
        raise DataError("No feature that is not sensitive is a column of numbers: use reweighing, which takes names.")
    z = X[numbers].to_numpy(np.float64)
    # A gap says nothing of the group here, and stays a gap in the rows.
    z = np.where(np.isnan(z), np.nanmean(z, axis=0), z)
    s = _indicators(rows.s, rows.levels)
    mean, B = fit_removal(z, s, tuple(map(len, rows.levels)))
    spread = np.square(z - z.mean(axis=0)).sum(axis=0)
    left = np.square(z - z.mean(axis=0) - (s - mean) @ B).sum(axis=0)
    explained = 1.0 - left[spread > 0.0] / spread[spread > 0.0]
    commonest = {name: X[name].mode().iloc[0] for name in rows.features if name in X.columns}
    removal = Removal(
        columns=rows.features,
        levels=rows.levels,
        means=tuple(mean.tolist()),
        numbers=tuple(numbers),
        weights=tuple(tuple(row) for row in (alpha * B).tolist()),
        held={name: getattr(value, "item", lambda v=value: v)() for name, value in commonest.items()},
    )
    return removal, float(explained.mean()) if explained.size else 0.0, [c for c in own if c not in numbers]


def fit_removal(z: FloatArray, s: FloatArray, sizes: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
    """Means (k,) of indicators s (n, k), and the least-squares B (k, d) of columns z (n, d) on ``s - means``.

    ``sizes``: how many of the k columns belong to each sensitive feature. The indicators of one feature sum to 1, so B
    is not unique; this one has ``means B = 0`` for each feature, so that nothing is subtracted where all are 0.
    """
    mean = s.mean(axis=0)
    B, *_ = np.linalg.lstsq(s - mean, z, rcond=None)
    starts = np.cumsum([0, *sizes])
    for start, stop in zip(starts[:-1], starts[1:], strict=True):
        B[start:stop] -= mean[start:stop] @ B[start:stop]
    return mean, B


@dataclass(frozen=True, eq=False)
class _Columns:
    """``kept``: encoded columns of the old model that are not sensitive. ``preprocessing``: the new model's: features
    that are not sensitive in their order, then the sensitive ones by level."""

    kept: np.ndarray[tuple[int], np.dtype[np.int64]]
    preprocessing: TabularPreprocessing


def _columns(old: TorchModel, features: tuple[str, ...], levels: tuple[tuple[str, ...], ...]) -> _Columns:
    from auditor.data.preprocessing import CategoricalColumn, TabularPreprocessing

    preprocessing = old.preprocessing
    if not isinstance(preprocessing, TabularPreprocessing) or (old.architecture or {}).get("name") != "mlp":
        raise ModelError(
            "The correlation remover is for the architecture mlp on a table's rows, whose first layer takes it in: "
            "use adversarial_debiasing for other networks."
        )
    stay = [
        (column, span)
        for column, span in zip(preprocessing.columns, preprocessing.spans, strict=True)
        if column.name not in features
    ]
    if not stay:
        raise DataError("Every feature of the model is a sensitive one: nothing is left to learn from.")
    groups = [CategoricalColumn(name=name, levels=names) for name, names in zip(features, levels, strict=True)]
    return _Columns(
        np.concatenate([np.arange(span.start, span.stop) for _, span in stay]).astype(np.int64),
        TabularPreprocessing(columns=(*(column for column, _ in stay), *groups)),
    )


def _indicators(
    codes: np.ndarray[tuple[int, ...], np.dtype[np.int64]], levels: tuple[tuple[str, ...], ...]
) -> FloatArray:
    return np.concatenate([np.eye(len(names))[codes[:, j]] for j, names in enumerate(levels)], axis=1)


def _narrower(old: TorchModel, width: int, rng: np.random.Generator, device: str, recipe: Recipe) -> TorchModel:
    """The old model's network, untrained, on inputs (n, width) that are encoded already."""
    from auditor.models.torch_model import TorchModel

    args = dict((old.architecture or {}).get("args", {})) | {"n_features": width}
    shaped = TorchModel(
        old.module,
        classes=old.classes,
        outputs=old.output_kind,
        threshold=old.threshold,
        architecture={"name": "mlp", "args": args},
    )
    return untrained(shaped, rng, device, recipe)


def _with_subtraction(
    inner: TorchModel,
    old: TorchModel,
    preprocessing: TabularPreprocessing,
    B: FloatArray,
    mean: FloatArray,
    device: str,
) -> TorchModel:
    """The network on (z, s) that answers as ``inner`` does on ``z - (s - mean) B``."""
    import torch

    from auditor.models.networks.architectures import ARCHITECTURES
    from auditor.models.torch_model import TorchModel

    args = dict((inner.architecture or {}).get("args", {})) | {"n_features": preprocessing.width}
    state = {k: v.detach().cpu().clone() for k, v in inner.module.state_dict().items()}
    first = next(iter(state))
    W = state[first].double()
    minus = -W @ torch.from_numpy(B).T
    state[first] = torch.cat([W, minus], dim=1).float()
    bias = first.removesuffix("weight") + "bias"
    state[bias] = (state[bias].double() - minus @ torch.from_numpy(mean)).float()
    # Without memory first, so that nothing is drawn from the global generator.
    with torch.device("meta"):
        module = ARCHITECTURES["mlp"](**args)
    module.load_state_dict(state, assign=True)
    module.eval()
    return TorchModel(
        module,
        classes=old.classes,
        preprocessing=preprocessing,
        outputs=old.output_kind,
        threshold=old.threshold,
        device=device,
        architecture={"name": "mlp", "args": args},
        recipe=inner.recipe,
    )
