"""``auditor compare``, and the end of ``auditor mitigate``: two audits side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import typer

from auditor.core.files import write_beside
from auditor.core.writable_paths import claim
from auditor.evidence.comparison_evidence import comparison_evidence
from auditor.evidence.container import is_bundle
from auditor.evidence.derived_evidence import EnclosedAudit
from auditor.report.comparing.compare_audits import MARGIN, Comparison, compare
from auditor.report.comparing.comparison_report import (
    STANDINGS,
    in_order,
    interval_names,
    promise,
    render_comparison_html,
    render_comparison_json,
    render_comparison_markdown,
)
from auditor.report.comparing.side_by_side import Row
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport
from cli.history import report_of
from cli.signed_outputs import Sealed
from cli.terminal import paragraph, print_table

_MOST_DETAILS = 20
_COLUMNS = ("verdict", "number", "before", "after", "difference", "interval", "how")


def compare_reports(
    before: Path,
    after: Path,
    out: Path | None,
    *,
    error_rate: float,
    margin: float = MARGIN,
    db: str | None = None,
    evidence: Sealed | None = None,
) -> int:
    """Compare two recorded audits; return the exit code."""
    if out is not None:
        claim_comparison(out)
    earlier, later = report_of(before, db), report_of(after, db)
    comparison = compare(earlier, later, error_rate=error_rate, margin=margin)
    print_comparison(comparison)
    if out is not None:
        for path in write_comparison(comparison, out):
            typer.echo(f"report  {path}")
    if evidence is not None:
        evidence.write(comparison_evidence(comparison, _enclosed_audit(before, earlier), _enclosed_audit(after, later)))
        typer.echo(f"report  {evidence.bundle}")
        evidence.raise_if_undated()
    return comparison.exit_code


def _enclosed_audit(path: Path, report: AuditReport) -> EnclosedAudit:
    """The audit as it was given: with its evidence, where that is what was named."""
    return EnclosedAudit(report=report, bundle=path.read_bytes() if is_bundle(path) else None)


def print_comparison(comparison: Comparison) -> None:
    """Print the usefulness, the headlines (judged ones first), and common pitfalls that occurred."""
    useful = comparison.usefulness
    judged, family = interval_names(comparison)
    typer.echo(f"usefulness  {STANDINGS[useful.standing]}")
    if useful.rows:
        typer.echo(f"\nusefulness, with the {family} of each difference")
        print_table(_COLUMNS, [_cells(row) for row in useful.rows])
    typer.echo(f"\njudged, with the {judged} of each difference")
    print_table(_COLUMNS, [_cells(row) for row in in_order(comparison.rows)])
    apart = [
        row for row in comparison.others if row.interval is not None and not row.interval[0] <= 0.0 <= row.interval[1]
    ]
    if apart:
        typer.echo(
            f"\nNot judged, and apart by more than their own 95 % intervals, {len(apart)} of {len(comparison.others)}:"
        )
        print_table(_COLUMNS, [_cells(row) for row in apart[:_MOST_DETAILS]])
    for remark in comparison.remarks:
        typer.echo()
        typer.echo(paragraph(number_text.visible(f"warning  {remark}"), 0))
    for words in filter(None, (promise(comparison), comparison.trade, comparison.conclusion)):
        typer.echo()
        typer.echo(paragraph(number_text.visible(words), 0))


def _cells(row: Row) -> Sequence[str]:
    return (
        row.verdict,
        row.name,
        number_text.number(_finite_or_none(row.before.value)),
        number_text.number(_finite_or_none(row.after.value)),
        number_text.number(_finite_or_none(row.difference)),
        ""
        if row.interval is None
        else number_text.interval((_finite_or_none(row.interval[0]), _finite_or_none(row.interval[1]))),
        row.difference_method,
    )


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def claim_comparison(out: Path, flag: str = "--out") -> None:
    """Declare, before any work, the output path of :func:`write_comparison`."""
    for suffix in ("json", "html", "md"):
        claim(out / f"comparison.{suffix}", f"{flag}/comparison.{suffix}")


def write_comparison(comparison: Comparison, out: Path) -> list[str]:
    """Write the comparison as JSON, HTML and Markdown; return the paths."""
    written = []
    for name, content in (
        ("comparison.json", render_comparison_json(comparison)),
        ("comparison.html", render_comparison_html(comparison)),
        ("comparison.md", render_comparison_markdown(comparison)),
    ):
        write_beside(out / name, content.encode())
        written.append(str(out / name))
    return written
