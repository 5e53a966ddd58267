"""Threshold optimizer: group-specific thresholds that equalise a rate between groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from auditor.core.errors import DataError, first_line
from auditor.core.rows import FloatArray
from auditor.run.mitigation import BaseMitigation, Mitigated, Training
from auditor.run.option_parsers import check_choice
from mitigations.scores.scored_rows import ScoredRows, old_decision, scored_rows
from mitigations.selection_guide import MeasuredExperience

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.models.postprocessing import Steps

Constraints = Literal[
    "demographic_parity",
    "equalized_odds",
    "true_positive_rate_parity",
    "false_positive_rate_parity",
    "true_negative_rate_parity",
    "false_negative_rate_parity",
]
Objective = Literal["accuracy_score", "balanced_accuracy_score"]


class ThresholdOptimizer(BaseMitigation):
    """A decision rule per group on the old model's score that satisfies ``constraints`` with the best objective.

    The rule of fairlearn's ``ThresholdOptimizer`` is a mixture of two thresholds, and for equalized odds of a constant
    too, so that some decisions are drawn at random: their share stands in the notes, the outputs are the chances, and
    the same row always gets the same draw (see :class:`auditor.models.postprocessing.PostprocessedModel`).

    constraints, objective: as fairlearn names them. deterministic: one threshold for each group instead, with nothing
    drawn. Each of ``grid_size`` quantiles of the pooled scores sets the rates that all groups aim at, and each group
    takes the threshold of its own that comes nearest (by the largest of the differences of rates). Of the candidates
    whose gap on these rows is at most ``tolerance`` the best objective wins, else the one with the smallest gap. Single
    thresholds cannot equal both rates of equalized odds in general, and where the groups' ROC curves lie apart a small
    tolerance costs much accuracy; both stand in the notes.

    Raises ModelError for what is no classifier of two classes, of tables or texts; UsageError without labels,
    favourable label or sensitive feature; DataError where there is one group, or a group has one label.

    Source: Hardt, Price and Srebro, NeurIPS 2016.
    """

    name = "threshold_optimizer"
    pillar = "fairness"
    goal = "Decide by thresholds of each group's own, so that a rate is equal over the groups"
    citation = "Hardt, Price and Srebro, NeurIPS 2016"
    methods = get_args(Constraints)
    stage = "post-processing"
    needs = "a classifier of two classes; labelled rows with sensitive features; the group at prediction"
    experience = MeasuredExperience()

    def __init__(
        self,
        *,
        constraints: Constraints = "equalized_odds",
        objective: Objective = "accuracy_score",
        deterministic: bool = False,
        tolerance: float = 0.05,
        grid_size: int = 1000,
    ) -> None:
        check_choice("constraints", constraints, Constraints)
        check_choice("objective", objective, Objective)
        if not isinstance(deterministic, bool):
            raise ValueError(f"deterministic must be true or false, not {deterministic!r}")
        if not 0.0 <= tolerance <= 1.0:
            raise ValueError(f"tolerance must lie in [0, 1], not {tolerance!r}")
        if not 2 <= grid_size <= 100_000:
            raise ValueError(f"grid_size must lie between 2 and 100,000, not {grid_size!r}")
        self.constraints: Constraints = constraints
        self.objective: Objective = objective
        self.deterministic = deterministic
        self.tolerance = tolerance
        self.grid_size = grid_size

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """The old model with the decision rules."""
        rows = scored_rows(model, data)
        rules = self._thresholds(rows) if self.deterministic else self._interpolated(rows)
        new, notes = rows.postprocessed(rules, old_decision(rows), rng)
        gap = rate_gap(rows, {i: rule(rows.scores) for i, rule in rules.items()}, self.constraints)
        how = "one threshold a group" if self.deterministic else "fairlearn's interpolated thresholds"
        said = (
            f"Threshold optimizer for {self.constraints} by {how}: the gap left on the rows it was fitted on is "
            f"{gap:.4f}, and {self.objective} there {_objective(rows, rules, self.objective):.4f}."
        )
        return Mitigated(model=new, notes=(said, *notes))

    def _interpolated(self, rows: ScoredRows) -> dict[int, Steps]:
        from fairlearn.postprocessing import ThresholdOptimizer as Fairlearn

        optimizer = Fairlearn(
            estimator=_scores_as_estimator(),
            constraints=self.constraints,
            objective=self.objective,
            grid_size=self.grid_size,
            prefit=True,
            predict_method="predict_proba",
        )
        try:
            optimizer.fit(rows.scores.reshape(-1, 1), rows.y.astype(int), sensitive_features=rows.codes)
        except ValueError as error:
            raise DataError(f"fairlearn finds no thresholds for these rows: {first_line(error)}.") from error
        found = optimizer.interpolated_thresholder_.interpolation_dict
        return {int(group): as_steps(rule) for group, rule in found.items()}

    def _thresholds(self, rows: ScoredRows) -> dict[int, Steps]:
        from auditor.models.postprocessing import Steps

        levels = np.linspace(0.0, 1.0, min(self.grid_size, len(rows)) + 1)
        pooled = np.unique(np.r_[-1.0, np.quantile(rows.scores, levels)])
        aims = _rates(rows.scores, rows.y, pooled, self.constraints)
        choices, reached, cuts = [], [], []
        for _, mask in rows.iter_groups():
            held = rows.scores[mask]
            fine = np.linspace(0.0, 1.0, min(2 * self.grid_size, len(held)) + 1)
            own = np.unique(np.r_[-1.0, np.quantile(held, fine, method="nearest")])
            rates = _rates(held, rows.y[mask], own, self.constraints)
            nearest = _nearest(rates, aims)
            cuts.append(own)
            choices.append(nearest)
            reached.append(rates[nearest])
        gaps = np.ptp(np.stack(reached), axis=0).max(axis=1)
        worth = self._objective_values(rows, cuts, choices)
        allowed = gaps <= max(self.tolerance, float(gaps.min()))
        best = int(np.flatnonzero(allowed)[worth[allowed].argmax()])
        return {
            i: Steps(thresholds=(_midpoint_above(rows.scores[mask], float(cut[choice[best]])),), chances=(0.0, 1.0))
            for i, ((_, mask), cut, choice) in enumerate(zip(rows.iter_groups(), cuts, choices, strict=True))
        }

    def _objective_values(self, rows: ScoredRows, cuts: list[FloatArray], choices: list[Any]) -> FloatArray:
        """(candidates,) the objective over all rows."""
        right = np.zeros((2, len(choices[0])))
        for (_, mask), cut, choice in zip(rows.iter_groups(), cuts, choices, strict=True):
            above = [np.sort(rows.scores[mask & where]) for where in (~rows.y, rows.y)]
            right[0] += np.searchsorted(above[0], cut, side="right")[choice]
            right[1] += (len(above[1]) - np.searchsorted(above[1], cut, side="right"))[choice]
        totals = np.array([(~rows.y).sum(), rows.y.sum()])
        worth: FloatArray = (
            right.sum(axis=0) / totals.sum()
            if self.objective == "accuracy_score"
            else (right / totals[:, None]).mean(axis=0)
        )
        return worth


def _scores_as_estimator() -> Any:
    """Scores that look to fairlearn like the estimator that made them."""
    from sklearn.base import BaseEstimator

    class Scores(BaseEstimator):  # type: ignore[misc]
        def fit(self, X: Any, y: Any) -> Scores:
            return self

        def __sklearn_is_fitted__(self) -> bool:
            return True

        def predict_proba(self, X: Any) -> FloatArray:
            scores = np.asarray(X, np.float64)[:, 0]
            return np.column_stack([1.0 - scores, scores])

    return Scores()


def as_steps(rule: Any) -> Steps:
    """fairlearn's mixture of two threshold operations (and a constant) as one step function of the score.

    fairlearn compares strictly: for ``<`` the two differ at a score equal to the threshold, and nowhere else.
    """
    from auditor.models.postprocessing import Steps

    ways = [(rule.p0, rule.operation0), (rule.p1, rule.operation1)]
    finite = sorted({float(way.threshold) for p, way in ways if p > 0.0 and np.isfinite(way.threshold)})
    inside = [-np.inf, *finite, np.inf]
    # A score within each interval: any will do, since nothing changes there.
    scores = [
        (b - 1.0 if np.isfinite(b) else 0.0) if not np.isfinite(a) else (a + 1.0 if not np.isfinite(b) else (a + b) / 2)
        for a, b in zip(inside[:-1], inside[1:], strict=True)
    ]
    chances = np.zeros(len(scores))
    for p, way in ways:
        chances += p * np.asarray(way(np.asarray(scores)), np.float64)
    if "p_ignore" in rule:
        chances = rule.p_ignore * rule.prediction_constant + (1.0 - rule.p_ignore) * chances
    # Sums of shares that should be 0 or 1 are so up to rounding.
    chances = np.where(np.abs(chances - np.round(chances)) < 1e-12, np.round(chances), chances)
    return Steps(thresholds=tuple(finite), chances=tuple(float(c) for c in np.clip(chances, 0.0, 1.0)))


def _objective(rows: ScoredRows, rules: dict[int, Steps], objective: Objective) -> float:
    chances = np.empty(len(rows))
    for i, (_, mask) in enumerate(rows.iter_groups()):
        chances[mask] = rules[i](rows.scores[mask])
    right = np.where(rows.y, chances, 1.0 - chances)
    if objective == "accuracy_score":
        return float(right.mean())
    return float((right[rows.y].mean() + right[~rows.y].mean()) / 2.0)


def rate_gap(rows: ScoredRows, chances: dict[int, FloatArray], constraints: Constraints) -> float:
    """The largest difference between two groups, in [0, 1], of the rate (or either rate) that is to be equal."""
    rates = []
    for i, (_, mask) in enumerate(rows.iter_groups()):
        chosen = chances[i]
        parts = _parts(rows.y[mask], constraints)
        rates.append([float(chosen[mask][part].mean()) for part in parts])
    return float(np.ptp(np.asarray(rates), axis=0).max())


def _parts(y: Any, constraints: Constraints) -> list[Any]:
    """The rows over which the share of favourable decisions is to be equal."""
    if constraints == "demographic_parity":
        return [np.ones(len(y), bool)]
    if constraints == "equalized_odds":
        return [y, ~y]
    return [y] if constraints in ("true_positive_rate_parity", "false_negative_rate_parity") else [~y]


def _rates(scores: FloatArray, y: Any, cuts: FloatArray, constraints: Constraints) -> FloatArray:
    """(cuts, rates) share of favourable decisions ``score > cut`` over each part of the rows."""
    columns = []
    for part in _parts(y, constraints):
        held = np.sort(scores[part])
        columns.append(1.0 - np.searchsorted(held, cuts, side="right") / len(held))
    return np.stack(columns, axis=1)


def _nearest(rates: FloatArray, aims: FloatArray) -> Any:
    """(aims,) place of the rates (cuts, r) nearest to each aim (aims, r), by the largest difference; in portions."""
    portions = max(1, 4_000_000 // max(len(rates), 1))
    return np.concatenate(
        [
            np.abs(aims[i : i + portions, None, :] - rates[None, :, :]).max(axis=2).argmin(axis=1)
            for i in range(0, len(aims), portions)
        ]
    )


def _midpoint_above(scores: FloatArray, threshold: float) -> float:
    """Half way from the cut to the next score, so that rounding of a score at the cut does not change its decision."""
    higher = scores[scores > threshold]
    return float((threshold + higher.min()) / 2.0) if len(higher) else threshold
