"""fairlearn's reductions over scikit-learn estimators and boosted trees: refitted for each multiplier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from auditor.core.errors import ModelError
from auditor.core.rows import FloatArray, IntArray, take_rows
from mitigations.training.network_reduction import places
from mitigations.training.refitting import Settings, refit
from mitigations.training.retraining import Labelled, labelled_rows

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel


@dataclass
class Fitter:
    """A fitter of the estimator on relabelled and weighted rows, with the same random draws every time.

    ``positive``: the class that the label 1 of a reduction means. ``trained``: how many were fitted so far.
    """

    old: AuditedModel
    rows: Labelled
    seed: int
    positive: int
    hyperparameters: Settings | None
    trained: int = 0

    def __call__(self, rows: IntArray, y: IntArray, weights: FloatArray) -> AuditedModel:
        """An estimator for labels y (n,) in {0, 1} and weights (n,) of rows (n,), which are scaled to mean 1."""
        found = refit(
            self.old,
            self.rows,
            np.random.default_rng(self.seed),
            X=take_rows(self.rows.data.X, rows),
            y=np.where(y == 1, self.positive, 1 - self.positive),
            weights=weights / weights.mean(),
            hyperparameters=self.hyperparameters,
        )
        self.trained += 1
        return found.model


class FittedEstimator:
    """The estimator with ``fit`` and ``predict`` for a reduction; X (n, 1) are positions of rows.

    Copies of it, which reductions make, share the fitter.
    """

    def __init__(self, fitter: Fitter) -> None:
        self.fitter = fitter
        self.model: AuditedModel | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> FittedEstimator:
        return FittedEstimator(self.fitter)

    def fit(self, X: Any, y: Any, sample_weight: Any) -> Self:
        """Fit an estimator."""
        self.model = self.fitter(places(X), np.asarray(y, np.int64), np.asarray(sample_weight, np.float64))
        return self

    def predict(self, X: Any) -> IntArray:
        """(n,) decisions, 1 for the favourable class, at the model's own threshold."""
        assert self.model is not None
        chosen = self.fitter.positive
        rows = take_rows(self.fitter.rows.data.X, places(X))
        decided = self.model.decide(self.model.predict_proba(rows), chosen, rows)
        found: IntArray = (decided == chosen).astype(np.int64)
        return found


@dataclass(frozen=True, eq=False)
class ReducibleEstimator:
    """fairlearn's reduction input: ``X`` (n, 1) positions of rows, ``y`` (n,) in {0, 1}, ``groups`` (n,)."""

    trainer: Fitter
    X: IntArray
    y: IntArray
    groups: IntArray
    features: tuple[str, ...]


def reducible_estimator(
    model: AuditedModel, data: AuditData, rng: np.random.Generator, hyperparameters: Settings | None
) -> ReducibleEstimator:
    """The labelled rows and a fitter for them; several sensitive features count as their combinations.

    Raises ModelError for a model that has not two classes; DataError as labelled_rows does.
    """
    if model.n_outputs != 2:
        raise ModelError(
            f"fairlearn's reductions are for two classes, and this model has {model.n_outputs}: use reweighing."
        )
    rows = labelled_rows(data, groups=True)
    positive = 1 if rows.data.positive is None else rows.data.positive
    _, groups = np.unique(rows.s, axis=0, return_inverse=True)
    fitter = Fitter(
        old=model, rows=rows, seed=int(rng.integers(2**62)), positive=positive, hyperparameters=hyperparameters
    )
    y = (rows.y == positive).astype(np.int64)
    return ReducibleEstimator(fitter, np.arange(len(rows))[:, None], y, groups.astype(np.int64), rows.features)
