"""The severity of a finding by one rule: the distance of its interval from the required range.

There are no scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from auditor.judging.measurement import Outcome
from auditor.report.record.audit_report import Finding

Kind = Literal["beyond", "not_run", "open", "unbounded", "met"]
_ORDER: tuple[Kind, ...] = ("beyond", "not_run", "open", "unbounded", "met")


@dataclass(frozen=True)
class Severity:
    """Distance of a finding beyond its limit, in the metric's own units; ``by`` is None if unknown.

    ``beyond``: it FAILs, and the nearer end of its interval lies ``by`` beyond the bound, so that at least this much is
    shown. ``open``: it is INCONCLUSIVE, and the farther end does, so that this much is not excluded. ``unbounded``:
    nobody set a bound, and the nearer end lies ``by`` from the ideal. ``share``: ``by`` in units of the bound's
    distance from the ideal, or of the bound itself where there is none, by which findings of one kind are ordered.
    """

    kind: Kind
    by: float | None = None
    share: float = 0.0

    @property
    def rank(self) -> tuple[int, float]:
        """The gravest first."""
        return _ORDER.index(self.kind), -self.share


def severity_of(finding: Finding) -> Severity:
    """The severity of a finding, by the rule of :class:`Severity`."""
    if finding.outcome is Outcome.PASS:
        return Severity("met")
    if finding.outcome is Outcome.NOT_RUN:
        return Severity("not_run")
    first, last = finding.interval or (None, None)
    low, high = -math.inf if first is None else first, math.inf if last is None else last
    fails = finding.outcome is Outcome.FAIL
    kind: Kind = "beyond" if fails else "open"
    if finding.criterion is None:
        if fails or finding.outcome is Outcome.INCONCLUSIVE:
            return Severity(kind)
        if finding.ideal is None:
            return Severity("unbounded")
        by = max(low - finding.ideal, finding.ideal - high)
        return Severity("unbounded", by, by) if math.isfinite(by) and by > 0.0 else Severity("unbounded")
    least, most = finding.criterion.required
    ends = (low - most, least - high) if fails else (high - most, least - low)
    by = max(end for end in ends if not math.isnan(end))
    if not math.isfinite(by) or by <= 0.0:
        return Severity(kind)
    bound = most if by == ends[0] else least
    room = abs(bound - (finding.ideal or 0.0)) or abs(bound) or 1.0
    return Severity(kind, by, by / room)
