"""``auditor publish`` and ``auditor scan --publish``: a report where a team looks for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from auditor.evidence.publishing import parsed, publish, published
from auditor.record.audit_report import AuditReport
from auditor.report.view import document_id
from cli.gate import consistent
from cli.rendering import FILE_NAMES


def check_places(places: Sequence[str]) -> None:
    """Raises UsageError for a place that is none, before anything is measured."""
    for where in places:
        parsed(where)


def publish_report(report: AuditReport, folder: Path, places: Sequence[str]) -> list[str]:
    """Publishes the record and the renderings that lie in a folder; says where."""
    if not places:
        return []
    # The record first: what there is beside it is drawn from it.
    files = tuple(folder / name for name in FILE_NAMES.values() if (folder / name).is_file())
    audit = published(report, document_id(report), files)
    return [publish(audit, where) for where in places]


def publish_recorded(run: Path, places: Sequence[str]) -> None:
    """Publishes what an audit has written."""
    check_places(places)
    folder = run if run.is_dir() else run.parent
    for where in publish_report(consistent(run), folder, places):
        typer.echo(f"published {where}")
