"""Group calibration: scores with the same meaning (probability) in every group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from auditor.core.errors import DataError
from auditor.core.rows import BoolArray, FloatArray
from auditor.run.mitigation import BaseMitigation, Mitigated, Training
from auditor.run.option_parsers import check_choice
from mitigations.scores.scored_rows import scored_rows

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.models.postprocessing import IsotonicMap, PlattScaling

Method = Literal["platt", "isotonic"]
_FEWEST_ROWS = 50


class GroupCalibration(BaseMitigation):
    """Map each group's scores to the share of favourable labels at that score, by a separate map per group.

    - ``platt``: ``sigmoid(a log(s / (1 - s)) + b)`` with a and b by maximum likelihood, on the targets
      ``(n_1 + 1) / (n_1 + 2)`` and ``1 / (n_0 + 2)`` of Platt, which keep them finite
    - ``isotonic``: the ascending map with the least squared error; it needs more rows and is surer of itself

    Decisions are then made by the model's threshold on the calibrated probabilities. Calibration within groups and
    equal error rates exclude one another where base rates differ (Kleinberg et al. 2016; Chouldechova 2017), so the
    gap in error rates may well grow.

    method: as above. Raises ModelError for what is no classifier of two classes, of tables or texts; UsageError without
    labels, favourable label or sensitive feature; DataError where a group has one label, or fewer than 50 rows.

    Sources: Platt, Advances in Large Margin Classifiers (1999); Zadrozny and Elkan, KDD 2002; Pleiss et al., NeurIPS
    2017, for calibration within groups.
    """

    name = "group_calibration"
    pillar = "fairness"
    goal = "Make a score mean the same probability in every group"
    citation = "Platt 1999; Zadrozny and Elkan, KDD 2002; Pleiss et al., NeurIPS 2017"
    methods = get_args(Method)
    stage = "post-processing"
    needs = "a classifier of two classes; labelled rows with sensitive features; the group at prediction"

    def __init__(self, *, method: Method = "platt") -> None:
        check_choice("method", method, Method)
        self.method: Method = method

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """The old model with a score map for each group."""
        rows = scored_rows(model, data)
        for name, mask in rows.iter_groups():
            if mask.sum() < _FEWEST_ROWS:
                raise DataError(
                    f"{' x '.join(rows.columns)} = {name} has {int(mask.sum())} labelled rows, and a calibration "
                    f"of its own needs {_FEWEST_ROWS}: merge it with another group, or add rows."
                )
        fit = platt if self.method == "platt" else isotonic
        rules = {i: fit(rows.scores[mask], rows.y[mask]) for i, (_, mask) in enumerate(rows.iter_groups())}
        new, notes = rows.postprocessed(rules, fit(rows.scores, rows.y), rng)
        said = f"Calibrated by {self.method} within each of {len(rows.groups)} groups of {' x '.join(rows.columns)}."
        return Mitigated(model=new, notes=(said, *notes))


def platt(scores: FloatArray, y: BoolArray) -> PlattScaling:
    """Platt's maximum-likelihood slope and intercept over the log-odds of scores (n,), by Newton's method."""
    from scipy.optimize import minimize
    from scipy.special import expit

    from auditor.models.postprocessing import PlattScaling, log_odds

    z = log_odds(scores)
    n1 = int(y.sum())
    target = np.where(y, (n1 + 1.0) / (n1 + 2.0), 1.0 / (len(y) - n1 + 2.0))
    design = np.column_stack([z, np.ones(len(z))])

    def loss(w: FloatArray) -> tuple[float, FloatArray]:
        u = design @ w
        gradient: FloatArray = design.T @ (expit(u) - target) / len(u)
        return float((np.logaddexp(0.0, u) - target * u).mean()), gradient

    def hessian(w: FloatArray) -> FloatArray:
        p = expit(design @ w)
        second: FloatArray = (design * (p * (1.0 - p) / len(p))[:, None]).T @ design
        return second

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, hess=hessian, method="trust-exact")
    return PlattScaling(slope=float(found.x[0]), intercept=float(found.x[1]))


def isotonic(scores: FloatArray, y: BoolArray) -> IsotonicMap:
    """The ascending least-squares map, as the points between which it is linear."""
    from sklearn.isotonic import IsotonicRegression

    from auditor.models.postprocessing import IsotonicMap

    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(scores, y.astype(float))
    return IsotonicMap(
        scores=tuple(float(s) for s in fitted.X_thresholds_), values=tuple(float(v) for v in fitted.y_thresholds_)
    )
