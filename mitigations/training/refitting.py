"""Refitting of scikit-learn estimators and boosted trees, with equal type and hyperparameters.

A fitted scikit-learn estimator holds all of its hyperparameters, and so do the files of LightGBM and CatBoost. A file
of XGBoost holds the trees and nothing of how they were grown: what is not said is the library's default, which the
notes say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import ModelError, UsageError
from auditor.core.rows import FloatArray, IntArray, Rows
from auditor.run.mitigation import BaseMitigation, Mitigated, Training
from mitigations.selection_guide import is_estimator
from mitigations.training.retraining import Labelled, check_classifier, refuse_one_class

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

Settings = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Refitted:
    """The new model, and notes on its fitting."""

    model: AuditedModel
    notes: tuple[str, ...]


def refit(
    model: AuditedModel,
    rows: Labelled,
    rng: np.random.Generator,
    *,
    weights: FloatArray | None = None,
    places: IntArray | None = None,
    X: Rows | None = None,
    y: IntArray | None = None,
    hyperparameters: Settings | None = None,
    guard: bool = True,
) -> Refitted:
    """An estimator of the same kind fitted on labelled rows.

    weights: (n,) of the rows, by ``sample_weight``. places: those of the rows that are learned from, with repeats; all
    of them once where it is None. X, y: other features and labels of the same rows. hyperparameters: what is to be
    otherwise than it was, as its library names it. guard: whether a model that decides one class for all is refused.

    Raises ModelError for an estimator that cannot be fitted so, and says what can be done with it; UsageError for a
    hyperparameter that it does not have.
    """
    check_classifier(model)
    inputs: Rows = rows.data.X if X is None else X
    labels = rows.y if y is None else y
    if places is not None:
        from auditor.core.rows import take_rows

        inputs, labels = take_rows(inputs, places), labels[places]
        weights = None if weights is None else weights[places]
    try:
        new = model.fitted_anew(inputs, labels, weights, rng, hyperparameters or {})
    except ModelError as error:
        raise ModelError(f"{error} {_otherwise(weights)}", code=error.code) from error
    new.said = model.said
    if guard and X is None:
        refuse_one_class(new, model, rows.data, instead="use threshold_optimizer")
    return Refitted(new, new.provenance.notes)


def only_for_networks(**options: object) -> None:
    """Raise UsageError for network training options given for an estimator, which has none of them."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(
                f"{name} is for networks, and this is an estimator, which is fitted with the hyperparameters that it "
                "had: leave it out, or say --with 'hyperparameters={\"max_depth\": 3}' in the words of its library."
            )


def only_for_estimators(model: AuditedModel, hyperparameters: Settings | None) -> None:
    """Raise UsageError if hyperparameters are given for a network, which is trained by its recipe."""
    if hyperparameters is not None and not is_estimator(model):
        raise UsageError("hyperparameters are an estimator's, and this is a network: leave them out.")


class NetworkOrEstimator(BaseMitigation):
    """A mitigation that trains a network in one way, and refits an estimator in another."""

    hyperparameters: Settings | None

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """A new model of the same kind."""
        only_for_estimators(model, self.hyperparameters)
        if is_estimator(model):
            return self._fit_estimator(model, data, rng)
        return self._train_network(model, data, rng, training)

    def _fit_estimator(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> Mitigated:
        raise NotImplementedError

    def _train_network(
        self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training
    ) -> Mitigated:
        raise NotImplementedError


def _otherwise(weights: FloatArray | None) -> str:
    """What takes an estimator that cannot be fitted as asked."""
    if weights is None:
        return "Use threshold_optimizer, a post-processing mitigation, which asks for its scores alone."
    return "Use balanced_resampling, which fits it on rows drawn instead, or threshold_optimizer."
