"""``auditor gate``: recorded audits as a step of a pipeline that lets nothing pass but a pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import typer

from auditor.errors import DataError
from auditor.finding.measurement import Outcome
from auditor.record.audit_report import AuditReport, ExitCode, Finding, Summary
from cli.output import print_report
from cli.rendering import read_report

_GRAVEST_FIRST = (ExitCode.REFUSED, ExitCode.FAILED, ExitCode.INCONCLUSIVE, ExitCode.PASSED)


def gate_reports(paths: Sequence[Path], *, allow_inconclusive: bool) -> int:
    """Prints recorded audits and returns the gravest of the exit codes that their findings come to.

    Raises DataError where a record contradicts itself: its findings do not come to the exit code or the counts that it
    states.
    """
    reports = [consistent(path) for path in paths]
    verdicts = [report.verdict(allow_inconclusive=allow_inconclusive) for report in reports]
    for i, (path, report, verdict) in enumerate(zip(paths, reports, verdicts, strict=True)):
        if len(paths) > 1:
            typer.echo(f"{'' if i == 0 else chr(10)}gate    {path}")
        update = {"exit_code": int(verdict), "allow_inconclusive": allow_inconclusive}
        print_report(report.model_copy(update=update), [])
    return int(next(code for code in _GRAVEST_FIRST if code in verdicts))


def consistent(path: Path) -> AuditReport:
    """A recorded audit. Raises DataError where it contradicts itself."""
    report = read_report(path)
    stated = int(report.verdict(allow_inconclusive=report.allow_inconclusive))
    if stated != report.exit_code or Summary.of(f.outcome for f in report.findings) != report.summary:
        raise DataError(
            f"The record in {str(path)!r} contradicts itself: its findings come to exit code {stated}, and it states "
            f"{report.exit_code}, or other counts of outcomes. Run the audit again."
        )
    judged = {Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE}
    hidden = next((f for f in report.findings if f.p_fail is not None and f.outcome not in judged), None)
    if hidden is not None:
        raise DataError(
            f"The record in {str(path)!r} contradicts itself: {hidden.id} was judged, since it has a p-value, and is "
            f"said to be {hidden.outcome.value}. Run the audit again."
        )
    foreign = next((f for f in report.findings if f.criterion is not None and f.criterion not in report.criteria), None)
    if foreign is not None:
        raise DataError(
            f"The record in {str(path)!r} contradicts itself: {foreign.id} is held to a criterion that is none of the "
            "record's own. Run the audit again."
        )
    wrong = next((f for f in report.findings if not _follows(f)), None)
    if wrong is not None:
        raise DataError(
            f"The record in {str(path)!r} contradicts itself: {wrong.id} is a {wrong.outcome.value}, and its interval "
            "says otherwise. Run the audit again."
        )
    return report


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
