"""Verification that a rendering belongs to a bundle: it has the record's id, and the record reproduces it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from itertools import product
from os.path import commonprefix
from pathlib import Path

from auditor.core.errors import AuditorError, UsageError
from auditor.evidence.verify.checks import Check
from auditor.report import report_view
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.configuration import About
from auditor.report.record.number_text import visible
from auditor.report.record.translations import SHIPPED, Catalogue

NAME = "report"
_MOST_BYTES = 256 << 20
_SHORT = 16
# A record drawn in a format, in a catalogue's words; None for its own.
Draw = Callable[[AuditReport, str, Catalogue | None], bytes]
# By the beginning of their content.
_BEGINNINGS = (
    (rb"%PDF", "pdf"),
    (rb"(?i)\s*<!doctype html", "html"),
    (rb"\s*<\?xml", "junit"),
    (rb'\s*\{\s*"\$schema": *"[^"]*sarif', "sarif"),
    (rb'\s*\{\s*"components"', "ml-bom"),
    (rb'\s*\{\s*"evaluation_id"', "eee"),
    (rb'\s*\{\s*"schema_version": *"0', "model-card-json"),
    (rb'\s*\{\s*"@context"', "croissant"),
    (rb"\s*\{", "json"),
    (rb"# Datasheet", "datasheet"),
    (rb"---", "model-card"),
    (rb"document,", "csv"),
    (rb"", "markdown"),
)
_TOLD = ("html", "markdown", "pdf")
# What fonts and libraries of the machine shape too where it is made.
_NOT_BY_RECORD_ALONE = ("pdf", "ml-bom")


def tied(
    path: Path, report: AuditReport | None, draw: Draw, *, say: Catalogue | None = None, same_code: bool = False
) -> Check:
    """Check that a rendering belongs to this record, and equals its regenerated form byte for byte.

    ``say``: the words that it was told in, where those are neither the record's own nor shipped. ``same_code``: the
    code here is the code that measured, so that it draws what that one drew. Raises UsageError where there is no file.
    """
    content = _read_report(path)
    if report is None:
        return _open("the bundle's record could not be read")
    name = next(name for start, name in _BEGINNINGS if re.match(start, content))
    drawn, lacking = _render_all(report, name, draw, say, content)
    if content in drawn:
        if say is None and name in _TOLD and _in_own_words(report) and content in drawn[: 2 if name == "pdf" else 1]:
            return _open(
                "drawn anew from the bundle's record it is the same, in words that the record brings with it and that "
                "are not the tool's: give words that you have read, --lang FILE, or draw it anew in the tool's"
            )
        return Check(name=NAME, state="ok", detail="drawn anew from the bundle's record it is the same, byte for byte")
    id_ = report_view.document_id(report)
    if name == "json" and _is_record(content):
        return _wrong(f"it is the record {hashlib.sha256(content).hexdigest()}, and the bundle's is {id_}")
    if id_.encode() not in content:
        if id_[:_SHORT].encode() in content:
            return _open(f"it bears only the first {_SHORT} digits of the record's id, as earlier versions wrote it")
        return _wrong(f"it does not bear the id of the bundle's record, {id_}")
    if same_code and not lacking and name not in _NOT_BY_RECORD_ALONE:
        return _wrong(
            "it bears the id of the bundle's record and says something else than that comes to, "
            f"{_place(content, drawn)}: it was changed, or is told in a catalogue of its own (--lang FILE)"
        )
    why = lacking or f"which makes something else here, {_place(content, drawn)}"
    return _open(f"the id is that of the bundle's record; that its words are, only drawing it anew shows: {why}")


def _render_all(
    report: AuditReport, name: str, draw: Draw, say: Catalogue | None, until: bytes
) -> tuple[list[bytes], str]:
    """The record in the languages that it can have been told in, and why it could not be drawn in one.

    ``until``: what no more need be drawn after.
    """
    own = (report.about or About()).catalogue
    shipped = [Catalogue.for_language(language) for language in SHIPPED if language != own.language]
    made: list[bytes] = []
    told = (say,) if say is not None else (None, *shipped) if name in _TOLD else (None,)
    for words, form in product(told, ("pdf", "pdf-appendix") if name == "pdf" else (name,)):
        try:
            made.append(draw(report, form, words))
        except AuditorError as error:
            return made, visible(str(error).rstrip("."))
        if made[-1] == until:
            break
    return made, ""


def _in_own_words(report: AuditReport) -> bool:
    return report.about is not None and bool(report.about.words)


def _read_report(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"The report {visible(str(path))!r} cannot be read: {error.strerror}.") from None
    if len(content) > _MOST_BYTES:
        raise UsageError(f"{visible(path.name)!r} is larger than {_MOST_BYTES >> 20} MiB: it is no report.")
    return content


def _is_record(content: bytes) -> bool:
    try:
        AuditReport.from_json(content)
        return True
    except (AuditorError, ValueError, RecursionError):
        return False


def _place(content: bytes, renderings: Sequence[bytes]) -> str:
    """The first line where a text is not any of those that could be drawn, in words."""
    same = max((len(commonprefix([content, made])) for made in renderings), default=0)
    return f"from line {content[:same].count(10) + 1:,} on"


def _wrong(detail: str) -> Check:
    return Check(name=NAME, state="wrong", detail=detail)


def _open(detail: str) -> Check:
    return Check(name=NAME, state="not checked", detail=detail)
