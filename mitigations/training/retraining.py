"""Shared parts of training mitigations: rows as tensors, untrained network, training, refusal of constant models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from auditor.core.errors import DataError, ModelError, UsageError
from auditor.core.rows import IntArray
from mitigations.selection_guide import instead, is_known, why_untrainable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel, Recipe
    from auditor.models.torch_model import TorchModel
    from auditor.run.mitigation import Training
    from auditor.training.training_loop import History, Step

Constraint = Literal["demographic_parity", "equalized_odds", "equal_opportunity"]
AlphaSchedule = Literal["constant", "linear", "sqrt"]


_AT_ONCE = 4096


def refuse_one_class(new: AuditedModel, old: AuditedModel, data: AuditData, *, instead: str) -> None:
    """Raise ModelError if ``new`` decides one class for all rows of ``data`` and ``old`` does not.

    instead: what the user can do about it, as an imperative such as ``lower weight``.
    """
    only = only_class(new, data)
    if only is None or only_class(old, data) is not None:
        return
    raise ModelError(
        f"The new model decides {new.classes[only]!r} for all {len(data):,} training rows, and the old one does not: a "
        f"model that answers everybody alike is of no use, so none is made; {instead}."
    )


def only_class(model: AuditedModel, data: AuditData) -> int | None:
    """The class that the model decides for every row of ``data``; None if there are two, or no rows."""
    seen: set[int] = set()
    for start in range(0, len(data), _AT_ONCE):
        part = data.take(slice(start, start + _AT_ONCE))
        decided = model.decide_rows(part.X, model.predict_proba(part.X), part.positive)
        seen |= set(np.unique(decided).tolist())
        # Most models are known by their first rows, and a large network is asked about no more of them.
        if len(seen) > 1:
            return None
    return seen.pop() if seen else None


VALIDATION_SHARE = 0.15


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainingSet:
    """Labelled rows on the device: ``x`` (n, ...) inputs, ``y`` (n,) labels, ``s`` (n, k) group of each feature.

    ``levels``: the group names of each of the k sensitive features; k is 0 where none is given. ``positive``: index of
    the favourable label, or None. ``rows``: (n,) their positions in the data.
    """

    x: Tensor
    y: Tensor
    s: Tensor
    levels: tuple[tuple[str, ...], ...]
    features: tuple[str, ...]
    positive: int | None
    rows: IntArray

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: IntArray) -> TrainingSet:
        """A subset of the rows."""
        import torch

        where = torch.from_numpy(index).to(self.y.device)
        return TrainingSet(
            x=self.x[where],
            y=self.y[where],
            s=self.s[where],
            levels=self.levels,
            features=self.features,
            positive=self.positive,
            rows=self.rows[index],
        )


def trainable(model: AuditedModel, advice: str | None = None) -> TorchModel:
    """The model as a retrainable one.

    Raises ModelError where it cannot, and says what would do: ``advice``, or a mitigation that takes it.
    """
    from auditor.models.networks.architectures import ARCHITECTURES
    from auditor.models.torch_model import TorchModel

    check_classifier(model)
    why = why_untrainable(model)
    if why is not None or not isinstance(model, TorchModel):
        raise ModelError(f"{why}: {advice or instead(model)}.")
    if not is_known(model):
        raise ModelError(
            f"The network {type(model.module).__name__} is none of {', '.join(ARCHITECTURES)}, so it cannot be made "
            f"anew: {advice or instead(model)}."
        )
    if model.recipe is None:
        raise ModelError(
            "The model says nothing of how it was trained, so it cannot be trained anew the same way (save it with "
            f"recipe=Recipe(...)): {advice or instead(model)}."
        )
    return model


def check_classifier(model: AuditedModel) -> None:
    """Raise ModelError for a model that returns no class, whatever it was trained for."""
    if model.kind != "classifier":
        raise ModelError(
            f"This mitigation is for classifiers, and this is a {model.kind.replace('_', ' ')}: {instead(model)}."
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Labelled:
    """Rows with a label: ``y`` (n,), ``s`` (n, k) group of each feature, ``levels`` the group names of each of the k.

    ``rows``: (n,) their positions in the data that they were taken from.
    """

    data: AuditData
    y: IntArray
    s: IntArray
    levels: tuple[tuple[str, ...], ...]
    features: tuple[str, ...]
    rows: IntArray

    def __len__(self) -> int:
        return len(self.y)


def labelled_rows(data: AuditData, *, groups: bool) -> Labelled:
    """The labelled rows. Raises DataError or UsageError for what learning cannot do without.

    groups: whether sensitive features are needed: then each must have two groups, and every group rows of two classes.
    """
    if data.y_true is None:
        raise UsageError("Training needs true labels: add --target COLUMN.")
    rows = np.flatnonzero(data.y_true >= 0).astype(np.int64)
    labelled = data.take(rows)
    assert labelled.y_true is not None
    if not len(rows):
        raise DataError("No training row has a label: fill the target column of --train.")
    if len(np.unique(labelled.y_true)) < 2:
        raise DataError("The training rows hold one class only: there is nothing to tell apart.")
    codes, levels, features = _codes(labelled)
    if groups:
        _check_groups(labelled.y_true, codes, levels, features)
    return Labelled(data=labelled, y=labelled.y_true, s=codes, levels=levels, features=features, rows=rows)


def training_set(model: TorchModel, data: AuditData, device: str, *, groups: bool) -> TrainingSet:
    """The labelled rows as tensors. Raises what :func:`labelled_rows` raises."""
    import torch

    found = labelled_rows(data, groups=groups)
    return TrainingSet(
        x=model.encode(found.data.X).to(device),
        y=torch.from_numpy(found.y).to(device),
        s=torch.from_numpy(found.s).to(device),
        levels=found.levels,
        features=found.features,
        positive=found.data.positive,
        rows=found.rows,
    )


def refuse_bins(data: AuditData) -> None:
    """Raise UsageError for binned groups, for mitigations whose new model reads groups from the table."""
    if data.binned:
        raise UsageError(
            f"The new model reads {data.binned[0]!r} from the table at every prediction, and its bins stand in none: "
            "add a column of the bins to the tables, and name that with --sensitive."
        )


def _codes(data: AuditData) -> tuple[IntArray, tuple[tuple[str, ...], ...], tuple[str, ...]]:
    groups = data.sensitive_features
    if groups is None:
        return np.zeros((len(data), 0), np.int64), (), ()
    levels, columns = [], []
    for name in groups.columns:
        values = groups[name].astype(str).to_numpy()
        found, code = np.unique(values, return_inverse=True)
        levels.append(tuple(str(v) for v in found))
        columns.append(code.astype(np.int64))
    return np.stack(columns, axis=1), tuple(levels), tuple(str(c) for c in groups.columns)


def _check_groups(y: IntArray, codes: IntArray, levels: tuple[tuple[str, ...], ...], features: tuple[str, ...]) -> None:
    if not features:
        raise UsageError("This mitigation needs a sensitive feature: add --sensitive COLUMN.")
    for j, (feature, names) in enumerate(zip(features, levels, strict=True)):
        if len(names) < 2:
            raise DataError(f"The sensitive feature {feature!r} has one group only ({names[0]}): nothing to even out.")
        for g, name in enumerate(names):
            held = np.unique(y[codes[:, j] == g])
            if len(held) < 2:
                raise DataError(
                    f"All training rows of {feature} = {name} have one label: its errors cannot be told apart. "
                    "Merge it with another group, or add rows."
                )


def untrained(model: TorchModel, rng: np.random.Generator, device: str, recipe: Recipe) -> TorchModel:
    """The model's own architecture, initialised from ``rng``; global generators are unchanged."""
    from auditor.core.randomness import seeded_globals
    from auditor.models.networks.architectures import ARCHITECTURES
    from auditor.models.torch_model import TorchModel as Torch

    named = model.architecture or {}
    with seeded_globals(rng):
        module: nn.Module = ARCHITECTURES[str(named["name"])](**dict(named.get("args", {})))
    return Torch(
        module,
        classes=model.classes,
        preprocessing=model.preprocessing,
        outputs=model.output_kind,
        threshold=model.threshold,
        device=device,
        architecture=named,
        recipe=recipe,
    )


def run(
    step: Step,
    tensors: Sequence[Tensor],
    recipe: Recipe,
    rng: np.random.Generator,
    training: Training,
    *,
    validate: Callable[[], float] | None = None,
    patience: int = 10,
    fingerprint: dict[str, object] | None = None,
) -> History:
    """Train by the shared loop, for the recipe's epochs and batches, with the row order drawn from ``rng``."""
    from auditor.training.training_loop import Schedule, train

    schedule = Schedule(
        epochs=recipe.epochs, batch_size=recipe.batch_size, seed=int(rng.integers(2**62)), patience=patience
    )
    return train(
        step,
        tensors,
        schedule,
        validate=validate,
        checkpoint=training.checkpoint,
        fingerprint=fingerprint,
        progress=training.progress,
        devices=training.devices,
    )


def decide_rows(model: TorchModel, rows: TrainingSet) -> IntArray:
    """(n,) classes that the model decides for encoded rows, at its own threshold."""
    import torch

    with torch.inference_mode(), model.evaluating():
        logits = torch.cat([model.logits(part) for part in torch.split(rows.x, model.batch_rows)])
        chances = torch.softmax(logits.double(), dim=1).cpu().numpy()
    return model.decide(chances, rows.positive)


def numbered(training: Training, number: int) -> Training:
    """The same training for one of several networks, with a separate checkpoint and progress."""
    say, path = training.progress, training.checkpoint
    return replace(
        training,
        checkpoint=None if path is None else path.with_name(f"{path.name}.{number}"),
        progress=None if say is None else lambda words: say(f"network {number}: {words}"),
    )


def refuse_several_devices(training: Training, name: str) -> None:
    """Raise UsageError in a multi-process job, for mitigations without multi-device support."""
    if training.devices is not None and training.devices.size > 1:
        raise UsageError(f"{name} trains on one device: start one process, without torchrun or accelerate launch.")
