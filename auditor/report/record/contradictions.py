"""Contradictions within a record: values outside their interval, outcomes against their limit, wrong counts."""

from __future__ import annotations

import math
from collections.abc import Iterator

from auditor.judging.measurement import Outcome
from auditor.report.record.audit_report import AuditReport, Finding, Summary

# Values and bounds are computed apart, and on another machine.
_SLACK = 1e-6


def contradictions(report: AuditReport) -> Iterator[tuple[str, str]]:
    """The contradictions in a record: the finding's id, or the field, and the reason in words."""
    stated = int(report.verdict(allow_inconclusive=report.allow_inconclusive))
    if stated != report.exit_code or Summary.from_outcomes(f.outcome for f in report.findings) != report.summary:
        yield (
            "summary",
            f"its findings come to exit code {stated}, and it states {report.exit_code}, or other counts of outcomes",
        )
    judged = {Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE}
    for f in report.findings:
        if f.p_fail is not None and f.outcome not in judged:
            yield f.id, f"{f.id} was judged, since it has a p-value, and is said to be {f.outcome.value}"
        if f.criterion is not None and f.criterion not in report.criteria:
            yield f.id, f"{f.id} is held to a criterion that is none of the record's own"
        if not _follows(f):
            yield f.id, f"{f.id} is a {f.outcome.value}, and its interval says otherwise"
        if not _holds_its_value(f):
            yield f.id, f"the value of {f.id} lies outside its own interval"


def _holds_its_value(finding: Finding) -> bool:
    if finding.value is None or finding.interval is None:
        return True
    low, high = _ends(finding.interval)
    slack = _SLACK * max(1.0, abs(finding.value))
    return low - slack <= finding.value <= high + slack


def _follows(finding: Finding) -> bool:
    """Whether the outcome is what the finding's own interval says of its criterion, where no more is said of it."""
    doubted = bool(finding.vacuous or finding.doubtful)
    if finding.outcome is Outcome.PASS and doubted:
        return False
    if finding.outcome is Outcome.INCONCLUSIVE:
        return doubted or finding.p_fail_adjusted is None or not _beyond(finding)
    if finding.outcome not in (Outcome.PASS, Outcome.FAIL):
        return True
    if finding.criterion is None or finding.interval is None:
        # A check of the file, or of a probe's own arithmetic.
        return finding.metric is None or finding.criterion is None
    if finding.outcome is Outcome.FAIL:
        return _beyond(finding)
    (low, high), (floor, ceiling) = _ends(finding.interval), finding.criterion.required
    return floor <= low and high <= ceiling


def _beyond(finding: Finding) -> bool:
    """Whether the whole interval lies beyond what is required."""
    if finding.criterion is None or finding.interval is None:
        return False
    (low, high), (floor, ceiling) = _ends(finding.interval), finding.criterion.required
    return low > ceiling or high < floor


def _ends(interval: tuple[float | None, float | None]) -> tuple[float, float]:
    low, high = interval
    return -math.inf if low is None else low, math.inf if high is None else high
