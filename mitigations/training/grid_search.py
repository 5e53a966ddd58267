"""Grid search: training on relabelled and weighted rows for each multiplier of a grid; the best is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from auditor.core.errors import ModelError
from auditor.run.mitigation import BaseMitigation, Mitigated, Training
from auditor.run.option_parsers import check_choice, check_positive
from mitigations.selection_guide import MeasuredExperience, is_estimator
from mitigations.training.fairlearn_reductions import (
    FittedEstimator,
    LastLayer,
    LastLayerEstimator,
    Learner,
    NetworkEstimator,
    Parity,
    Reducible,
    ReducibleEstimator,
    is_simple,
    moment,
    only_for_estimators,
    only_for_networks,
    reducible,
    reducible_estimator,
    reducing,
)
from mitigations.training.retraining import refuse_one_class

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel


_GRID_SIZE, _SMALL_GRID = 100, 10


class GridSearch(BaseMitigation):
    """The best network, by error and violation, of those trained for each Lagrange multiplier of a grid.

    A multiplier turns the constraint into a cost of either decision for each row, and the network learns the cheaper
    one, weighted by the difference (fairlearn's ``GridSearch`` decides the multipliers, labels and weights). Kept is
    the network with the least ``(1 - constraint_weight) error + constraint_weight violation`` on the training rows,
    violation being the largest deviation of a group's rate from that of all. It is one network, decides nothing at
    random, and reads no group that the old one did not read.

    constraint: as fairlearn names it. grid_size: how many networks are learned, at least 2; None means 100, or 10 of
    ``learner=network``: two rates of two groups make a grid of few values each. grid_limit: largest
    multiplier, above 0. constraint_weight: in [0, 1]. learner: ``last_layer``, of an MLP, by weighted logistic
    regression on the layer below, in a fraction of a second; ``network``, all of it anew by its recipe; None means the
    first where it can be and epochs are not given. epochs: of each network, None means the recipe's. Interrupted, it
    goes on at the network that it was at: each has a checkpoint of its own, numbered.

    An estimator of scikit-learn, or boosted trees, is fitted anew by ``sample_weight`` in the network's place, and
    written in the format of its own library. hyperparameters: those that are to be otherwise than they were.

    Several sensitive features count as their combinations. Raises ModelError for a model that cannot be trained anew,
    has not two classes, or where every multiplier asks for the same decision for all; DataError where a group has one
    label.

    Source: Agarwal, Beygelzimer, Dudik, Langford and Wallach, ICML 2018, section 3.4.
    """

    name = "grid_search"
    pillar = "fairness"
    goal = "Of many weightings of the rows, find the one that costs least for parity"
    citation = "Agarwal et al., ICML 2018"
    methods = get_args(Parity)
    stage = "in-processing"
    needs = "a bundle with its recipe or an estimator, of two classes; rows with labels and groups"
    experience = MeasuredExperience()

    def __init__(
        self,
        *,
        constraint: Parity = "equalized_odds",
        grid_size: int | None = None,
        grid_limit: float = 2.0,
        constraint_weight: float = 0.5,
        learner: Learner | None = None,
        epochs: int | None = None,
        hyperparameters: dict[str, Any] | None = None,
    ) -> None:
        check_choice("constraint", constraint, Parity)
        if (grid_size is not None and grid_size < 2) or (epochs is not None and epochs < 1):
            raise ValueError("grid_size must be at least 2, and epochs at least 1")
        check_positive("grid_limit", grid_limit)
        if not 0.0 <= constraint_weight <= 1.0:
            raise ValueError(f"constraint_weight must lie in [0, 1], not {constraint_weight!r}")
        if learner is not None and learner not in get_args(Learner):
            raise ValueError(f"learner must be one of {', '.join(get_args(Learner))}, not {learner!r}")
        if epochs is not None and learner == "last_layer":
            raise ValueError("epochs is for learner=network, which trains")
        self.constraint: Parity = constraint
        self.learner: Learner | None = learner
        self.grid_size = grid_size
        self.grid_limit = grid_limit
        self.constraint_weight = constraint_weight
        self.epochs = epochs
        self.hyperparameters = hyperparameters

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """The best network of the grid."""
        from fairlearn.reductions import GridSearch as Fairlearn

        task, learner = self._task(model, data, rng, training)
        search = Fairlearn(
            learner,
            moment(self.constraint, difference_bound=0.01),
            constraint_weight=self.constraint_weight,
            grid_size=self.grid_size or (_GRID_SIZE if isinstance(learner, LastLayerEstimator) else _SMALL_GRID),
            grid_limit=self.grid_limit,
        )
        with reducing():
            search.fit(task.X, task.y, sensitive_features=task.groups)
        violations = search.gammas_.max(axis=0).to_numpy()
        costs = [
            (1.0 - self.constraint_weight) * float(error) + self.constraint_weight * float(violation)
            # Where all rows cost less the same way, fairlearn puts a constant in the network's place.
            if isinstance(made, NetworkEstimator | LastLayerEstimator | FittedEstimator)
            else np.inf
            for made, error, violation in zip(search.predictors_, search.objectives_, violations, strict=True)
        ]
        best = int(np.argmin(costs))
        kept = search.predictors_[best]
        if not isinstance(kept, NetworkEstimator | LastLayerEstimator | FittedEstimator) or kept.model is None:
            raise ModelError("Every multiplier of the grid asks for the same decision for all: lower grid_limit.")
        made = kept.model
        refuse_one_class(
            made,
            task.trainer.old,
            data.take(task.trainer.rows.rows),
            instead="give a smaller grid_limit or constraint_weight",
        )
        return Mitigated(
            model=made,
            notes=(
                f"Grid search for {self.constraint} of {' x '.join(task.features)}: network {best + 1} of "
                f"{len(search.predictors_)} ({task.trainer.trained} learned), error "
                f"{float(search.objectives_[best]):.4f} and violation {violations[best]:.4f} on the training rows.",
            ),
        )

    def _task(
        self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training
    ) -> tuple[Reducible | ReducibleEstimator, NetworkEstimator | LastLayerEstimator | FittedEstimator]:
        """What is reduced, and what learns for each multiplier."""
        only_for_estimators(model, self.hyperparameters)
        if is_estimator(model):
            only_for_networks(epochs=self.epochs)
            estimators = reducible_estimator(model, data, rng, self.hyperparameters)
            return estimators, FittedEstimator(estimators.trainer)
        prints: dict[str, object] = {"mitigation": self.name, "options": sorted(vars(self).items())}
        task = reducible(model, data, rng, training, epochs=self.epochs, fingerprint=prints)
        simple = is_simple(task.trainer.old)
        if self.learner == "last_layer" and not simple:
            raise ModelError("learner=last_layer is for MLPs with two logits: use learner=network.")
        anew = self.learner == "network" or not simple or self.epochs is not None
        return task, NetworkEstimator(task.trainer) if anew else LastLayer(task.trainer).estimator()
