"""Recorded audits, checked against themselves, and ``auditor report publish``, into a team's tracker or hub."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer

from auditor.core.errors import DataError, MissingExtraError
from auditor.core.files import write_beside
from auditor.evidence.container import is_bundle
from auditor.evidence.publishing import parsed, publish, published
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.contradictions import contradictions
from auditor.report.record.number_text import visible
from auditor.report.record.report_formats import FILE_NAMES, render
from auditor.report.report_view import document_id, rule_warning
from cli.report_outputs import read_report


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


RECORD = FILE_NAMES["json"]


def check_places(places: Sequence[str]) -> None:
    """Raise UsageError for an invalid place, before anything is measured."""
    for where in places:
        parsed(where)


def publish_report(report: AuditReport, files: Sequence[Path], places: Sequence[str]) -> list[str]:
    """Publish the record with its renderings; return the places."""
    if not places:
        return []
    audit = published(report, document_id(report), tuple(files))
    return [publish(audit, where) for where in places]


def _drawn_from(report: AuditReport, folder: Path) -> tuple[list[Path], list[Path]]:
    """The renderings in a folder that are this record's, and those that are not: of another audit, or edited since."""
    own: list[Path] = []
    others: list[Path] = []
    for kind, name in FILE_NAMES.items():
        path = folder / name
        if kind == "json" or not path.is_file():
            continue
        try:
            same = path.read_bytes() == render(report, kind)
        except MissingExtraError:
            same = False
        (own if same else others).append(path)
    return own, others


def publish_recorded(run: Path, places: Sequence[str]) -> None:
    """Publish the output of an audit."""
    check_places(places)
    folder, record = (run, run / RECORD) if run.is_dir() else (run.parent, run)
    report = consistent(run)
    own, others = _drawn_from(report, folder)
    for path in others:
        typer.echo(
            f"auditor: {visible(str(path))!r} is left out: it is not what this record renders as here, since it is "
            "another audit's, signed, in another language, or was edited.",
            err=True,
        )
    with _as_record(report, record) as published_record:
        for where in publish_report(report, [published_record, *own], places):
            typer.echo(f"published {where}")


@contextmanager
def _as_record(report: AuditReport, source: Path) -> Iterator[Path]:
    """The record as a file of its own: an evidence bundle may hold rows, and those are not for everybody."""
    if not is_bundle(source):
        yield source
        return
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / RECORD
        write_beside(own, report.to_json().encode())
        yield own
