"""Reject option: near the threshold, where the model is least certain, the group determines the decision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from auditor.core.rows import BoolArray, FloatArray
from auditor.run.mitigation import BaseMitigation, Mitigated, Training
from mitigations.scores.scored_rows import ScoredRows, old_decision, scored_rows
from mitigations.selection_guide import MeasuredExperience

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.models.postprocessing import Steps

_WIDTHS = 200


class RejectOption(BaseMitigation):
    """Within ``width`` of the threshold t, deprived groups get the favourable decision and favoured ones do not.

    That is, a deprived group's decision is ``score >= t - width``, a favoured group's ``score >= t + width``; in the
    paper's terms, with t = 1/2, the critical region is ``max(p, 1 - p) < theta`` with ``theta = 1/2 + width``. Deprived
    are the groups that the old model selects less often than it selects all rows together.

    width: at least 0; None takes, of 200 widths up to where the threshold would leave [0, 1], the smallest that brings
    the ``demographic_parity_difference`` on these rows to at most ``bound``, or else the one where it is smallest.

    Raises ModelError for what is no classifier of two classes, of tables or texts; UsageError without labels,
    favourable label or sensitive feature; DataError where there is one group, or a group has one label.

    Source: Kamiran, Karim and Zhang, ICDM 2012.
    """

    name = "reject_option"
    pillar = "fairness"
    goal = "Decide for the deprived group where the model is least sure"
    citation = "Kamiran, Karim and Zhang, ICDM 2012"
    methods = ("reject_option_classification",)
    stage = "post-processing"
    needs = "a classifier of two classes; labelled rows with sensitive features; the group at prediction"
    experience = MeasuredExperience()

    def __init__(self, *, width: float | None = None, bound: float = 0.02) -> None:
        if width is not None and not 0.0 <= width <= 1.0:
            raise ValueError(f"width must lie in [0, 1], not {width!r}")
        if not 0.0 <= bound <= 1.0:
            raise ValueError(f"bound must lie in [0, 1], not {bound!r}")
        self.width = width
        self.bound = bound

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """The old model with two thresholds."""
        rows = scored_rows(model, data)
        deprived = deprived_groups(rows)
        width, gap = self._choose_width(rows, deprived)
        rules = {i: _rule(rows.threshold, width, is_below=bool(low)) for i, low in enumerate(deprived)}
        new, notes = rows.postprocessed(rules, old_decision(rows), rng)
        chosen = [name for (name, _), low in zip(rows.iter_groups(), deprived, strict=True) if low]
        within = np.abs(rows.scores - rows.threshold) <= width
        said = (
            f"Reject option: within {width:.4f} of the threshold {rows.threshold:g} ({within.mean():.1%} of the "
            f"rows) {', '.join(chosen[:6]) or 'nobody'} get the favourable decision, others do not; the gap in "
            f"selection rates left on the rows it was fitted on is {gap:.4f}."
        )
        return Mitigated(model=new, notes=(said, *notes))

    def _choose_width(self, rows: ScoredRows, deprived: BoolArray) -> tuple[float, float]:
        if self.width is not None:
            return self.width, selection_gap(rows, deprived, self.width)
        t = rows.threshold
        widths = np.linspace(0.0, max(t, 1.0 - t), _WIDTHS + 1)
        gaps = [selection_gap(rows, deprived, float(width)) for width in widths]
        enough = [i for i, gap in enumerate(gaps) if gap <= self.bound]
        best = enough[0] if enough else int(np.argmin(gaps))
        return float(widths[best]), gaps[best]


def deprived_groups(rows: ScoredRows) -> BoolArray:
    """(groups,) whether the old model selects the group less often than all rows together."""
    selected = rows.scores >= rows.threshold
    rates = np.array([selected[mask].mean() for _, mask in rows.iter_groups()])
    return np.asarray(rates < selected.mean(), bool)


def selection_gap(rows: ScoredRows, deprived: BoolArray, width: float) -> float:
    """The largest difference of two groups' selection rates, in [0, 1], with this width."""
    t = rows.threshold
    rates: list[FloatArray] = [
        (rows.scores[mask] >= (t - width if low else t + width)).mean()
        for (_, mask), low in zip(rows.iter_groups(), deprived, strict=True)
    ]
    return float(max(rates) - min(rates))


def _rule(threshold: float, width: float, *, is_below: bool) -> Steps:
    from auditor.models.postprocessing import Steps

    # Steps compare strictly, and the paper's decision is favourable at the threshold itself.
    cut = np.nextafter(threshold - width if is_below else threshold + width, -np.inf)
    return Steps(thresholds=(float(cut),), chances=(0.0, 1.0))
