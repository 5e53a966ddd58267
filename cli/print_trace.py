"""``auditor report --finding``: the provenance of one number in a recorded audit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from cli.terminal import coloured, paragraph

if TYPE_CHECKING:
    from auditor.report.record.audit_report import AuditReport


def print_trace(report: AuditReport, name: str) -> None:
    """The outcome of a finding, and its trace as the report shows it. Raises UsageError where there is none of the
    name."""
    from auditor.report.record.glossary import definitions_of
    from auditor.report.record.number_text import visible
    from auditor.report.record.provenance_of_number import finding_named, trace_of

    found = finding_named(report, name)
    outcome = coloured(found.outcome.words, found.outcome.value)
    typer.echo(paragraph(f"{outcome}  {visible(found.reason or found.detail)}".rstrip(), 0))
    for part in trace_of(report, found).parts:
        line = f"{part.label}: {visible(part.said)}"
        # What is to be copied stays on one line.
        typer.echo(line if part.code else paragraph(line, 0))
    if found.metric is not None:
        definitions = definitions_of(report)
        own = next(m for m in definitions.metrics if m.is_of(found.probe, found.metric))
        typer.echo(paragraph(f"{definitions.label('definition')}: {definitions.metric_text(own)}", 0))
