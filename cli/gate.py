"""``auditor gate``: recorded audits as a pipeline step that accepts only a PASS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from auditor.core.errors import DataError
from auditor.report.record.audit_report import AuditReport, ExitCode
from auditor.report.record.contradictions import contradictions
from auditor.report.record.number_text import visible
from auditor.report.report_view import rule_warning
from cli.report_formats import read_report
from cli.terminal import print_report

_GRAVEST_FIRST = (ExitCode.REFUSED, ExitCode.FAILED, ExitCode.INCONCLUSIVE, ExitCode.PASSED)


def gate_reports(paths: Sequence[Path], *, allow_inconclusive: bool) -> int:
    """Print recorded audits and return the worst exit code of their findings.

    Raises DataError where a record contradicts itself, as where its findings do not come to the exit code that it
    states.
    """
    reports = [consistent(path) for path in paths]
    verdicts = [_verdict(report, allow_inconclusive=allow_inconclusive) for report in reports]
    for i, (path, report, verdict) in enumerate(zip(paths, reports, verdicts, strict=True)):
        if len(paths) > 1:
            typer.echo(f"{'' if i == 0 else chr(10)}gate    {path}")
        update = {"exit_code": int(verdict), "allow_inconclusive": allow_inconclusive}
        print_report(report.model_copy(update=update), [])
    return int(next(code for code in _GRAVEST_FIRST if code in verdicts))


def _verdict(report: AuditReport, *, allow_inconclusive: bool) -> ExitCode:
    """What the findings come to; outcomes of a rule that this version does not know are no pass."""
    verdict = report.verdict(allow_inconclusive=allow_inconclusive)
    return ExitCode.INCONCLUSIVE if verdict is ExitCode.PASSED and report.family.other_rule else verdict


def consistent(path: Path) -> AuditReport:
    """A recorded audit, with a separate note if it was judged by another rule.

    Raises DataError where it contradicts itself.
    """
    report = read_report(path)
    _, wrong = next(contradictions(report), ("", ""))
    if wrong:
        raise DataError(f"The record in {str(path)!r} contradicts itself: {wrong}. Run the audit again.")
    if report.family.other_rule:
        typer.echo(f"note     {visible(str(path))}: {rule_warning(report)}", err=True)
    return report
