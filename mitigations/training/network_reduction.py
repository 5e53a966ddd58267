"""Shared parts of fairlearn's reductions: the network as an estimator that learns from weighted rows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from auditor.core.errors import ModelError
from auditor.core.rows import FloatArray, IntArray
from mitigations.applicability import instead
from mitigations.training.retraining import TrainingSet, decide_rows, numbered, run, trainable, training_set, untrained

if TYPE_CHECKING:
    from torch import Tensor, nn

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel, Recipe
    from auditor.models.torch_model import TorchModel
    from auditor.run.mitigation import Training

Parity = Literal["demographic_parity", "equalized_odds", "true_positive_rate_parity", "false_positive_rate_parity"]


@dataclass
class Trainer:
    """Train the network by its recipe on relabelled and weighted rows, always from the same start.

    ``positive``: the class that the label 1 of a reduction means. ``trained``: how many were trained so far.
    """

    old: TorchModel
    rows: TrainingSet
    recipe: Recipe
    seed: int
    training: Training
    positive: int
    fingerprint: dict[str, object]
    trained: int = 0

    def __call__(self, rows: IntArray, y: IntArray, weights: FloatArray) -> TorchModel:
        """A network for labels y (n,) in {0, 1} and weights (n,) of rows (n,), which are scaled to mean 1."""
        import torch
        from torch.nn.functional import cross_entropy

        from auditor.training.training_loop import PlainStep, optimizer_of

        rng = np.random.default_rng(self.seed)
        new = untrained(self.old, rng, self.training.device, self.recipe)

        def loss(batch: Sequence[Tensor]) -> Tensor:
            x, labels, w = batch
            return (w * cross_entropy(new.logits(x), labels, reduction="none")).mean()

        chosen = self.rows.take(rows)
        labels = torch.from_numpy(np.where(y == 1, self.positive, 1 - self.positive)).to(chosen.y.device)
        w = torch.from_numpy((weights / weights.mean()).astype(np.float32)).to(chosen.y.device)
        step = PlainStep(new.module, optimizer_of(self.recipe, list(new.module.parameters())), loss)
        own = numbered(self.training, self.trained + 1)
        run(step, (chosen.x, labels, w), self.recipe, rng, own, fingerprint=self.fingerprint)
        self.trained += 1
        return new


class NetworkEstimator:
    """The network with scikit-learn's ``fit`` and ``predict``, for a reduction; X (n, 1) are positions of rows.

    Copies of it, which reductions make, share the trainer.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.model: TorchModel | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> NetworkEstimator:
        return NetworkEstimator(self.trainer)

    def fit(self, X: Any, y: Any, sample_weight: Any) -> Self:
        """Train a network."""
        weights = np.asarray(sample_weight, np.float64)
        self.model = self.trainer(places(X), np.asarray(y, np.int64), weights)
        return self

    def predict(self, X: Any) -> IntArray:
        """(n,) decisions, 1 for the favourable class, at the model's own threshold."""
        assert self.model is not None
        rows = replace(self.trainer.rows.take(places(X)), positive=self.trainer.positive)
        chosen: IntArray = (decide_rows(self.model, rows) == self.trainer.positive).astype(np.int64)
        return chosen

    def member(self) -> nn.Module:
        """The network."""
        assert self.model is not None
        return self.model.module


@dataclass(frozen=True, eq=False)
class Reducible:
    """fairlearn's reduction input: ``X`` (n, 1) positions of rows, ``y`` (n,) in {0, 1}, ``groups`` (n,)."""

    trainer: Trainer
    X: IntArray
    y: IntArray
    groups: IntArray
    features: tuple[str, ...]


def reducible(
    model: AuditedModel,
    data: AuditData,
    rng: np.random.Generator,
    training: Training,
    *,
    epochs: int | None,
    fingerprint: dict[str, object],
) -> Reducible:
    """The labelled rows and a trainer for them; several sensitive features count as their combinations.

    Raises ModelError for a model that cannot be trained anew or has not two classes; DataError as training_set does.
    """
    old = trainable(model)
    assert old.recipe is not None
    if old.n_outputs != 2:
        raise ModelError(
            f"fairlearn's reductions are for two classes, and this model has {old.n_outputs}: {instead(old)}."
        )
    rows = training_set(old, data, training.device, groups=True)
    positive = 1 if rows.positive is None else rows.positive
    _, groups = np.unique(rows.s.cpu().numpy(), axis=0, return_inverse=True)
    trainer = Trainer(
        old=old,
        rows=rows,
        recipe=replace(old.recipe, epochs=epochs or old.recipe.epochs),
        seed=int(rng.integers(2**62)),
        training=training,
        positive=positive,
        fingerprint=fingerprint,
    )
    y = (rows.y.cpu().numpy() == positive).astype(np.int64)
    return Reducible(trainer, np.arange(len(rows))[:, None], y, groups.astype(np.int64), rows.features)


@contextmanager
def reducing() -> Iterator[None]:
    """Context for fairlearn that silences pandas warnings about setting values, which users cannot change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield


def moment(constraint: Parity, difference_bound: float) -> Any:
    """fairlearn's moment of that constraint."""
    from fairlearn import reductions

    kind = {
        "demographic_parity": reductions.DemographicParity,
        "equalized_odds": reductions.EqualizedOdds,
        "true_positive_rate_parity": reductions.TruePositiveRateParity,
        "false_positive_rate_parity": reductions.FalsePositiveRateParity,
    }[constraint]
    return kind(difference_bound=difference_bound)


def places(X: Any) -> IntArray:
    """(n,) positions of rows from fairlearn's argument, a table or an array (n, 1)."""
    found: IntArray = np.asarray(X, np.int64).reshape(-1)
    return found
