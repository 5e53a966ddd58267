"""The judgement of a measurement against a criterion."""

from __future__ import annotations

from dataclasses import dataclass

from auditor.judging.criterion import Criterion
from auditor.judging.measurement import Measurement, Outcome, Pillar


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A measurement judged against a criterion.

    ``interval``: two one-sided bounds, the one that FAIL rests on at the level of FAIL, the other at that of PASS.
    ``p_fail_adjusted``, ``p_pass_adjusted``: p-values times what the level was divided by, to be held against the
    error rate of the ``budget``. ``alone``: what it would be if nothing else were judged in its budget, where that is
    more than INCONCLUSIVE; ``said_alone`` in words. ``padding``: why the requirement could hardly be missed, or "".
    ``vacuous``: why a PASS of it would say nothing of this model, or "". ``doubtful``: why nothing is judged of its
    rows, or "". ``other_kind``: whether it is not applicable since it asks about another kind of model or rows.
    """

    id: str
    probe: str
    pillar: Pillar
    citation: str
    outcome: Outcome
    measurement: Measurement | None = None
    criterion: Criterion | None = None
    interval: tuple[float, float] | None = None
    confidence: float | None = None
    p_fail: float | None = None
    p_pass: float | None = None
    minimum_detectable_effect: float | None = None
    n_required: int | None = None
    reason: str = ""
    vacuous: str = ""
    doubtful: str = ""
    budget: str = ""
    p_fail_adjusted: float | None = None
    p_pass_adjusted: float | None = None
    alone: Outcome | None = None
    said_alone: str = ""
    padding: str = ""
    other_kind: bool = False

    @property
    def chance(self) -> float | None:
        """The value of a model without skill, for a number that measures skill."""
        return None if self.measurement is None else self.measurement.chance

    @property
    def metric(self) -> str | None:
        """The metric of the measurement, None without one."""
        return None if self.measurement is None else self.measurement.metric
