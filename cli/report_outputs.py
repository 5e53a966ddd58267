"""The files of a report: each complete or absent, with no files of an earlier run."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from auditor.core.errors import AuditorError, DataError, UsageError, did_you_mean
from auditor.core.files import write_beside
from auditor.core.writable_paths import claim, remove
from auditor.evidence.container import is_bundle
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.number_text import visible
from auditor.report.record.redact_urls import arguments_without_passwords
from auditor.report.record.report_formats import FILE_NAMES, TOLD, render
from auditor.report.record.translations import Catalogue, words_of

if TYPE_CHECKING:
    from auditor.evidence.signing import Seal

FIGURE_FORMATS = ("svg", "png")
_LONGEST_NAME = 80


def catalogue_of(language: str | None, formats: Sequence[str]) -> Catalogue | None:
    """The wording that ``--lang`` names, None without one.

    Raises UsageError where no format has words.
    """
    if language is None:
        return None
    if not set(formats) & set(TOLD):
        raise UsageError(f"--lang is of no use here: only {', '.join(TOLD)} have words, so name one in --format.")
    return Catalogue.for_language(language, words_of(language))


def make_page_ready(formats: Sequence[str]) -> None:
    """Compile the templates of every page in a thread, during the wait for the measurements."""
    if "html" not in formats:
        return

    def load_templates() -> None:
        from auditor.report.html import OF_EVERY_PAGE, environment

        for name in OF_EVERY_PAGE:
            environment().get_template(name)

    threading.Thread(target=load_templates, daemon=True).start()


def known_figure_formats(names: Sequence[str]) -> list[str]:
    """The names without repeats. Raises UsageError for one that figures are not drawn as."""
    for name in names:
        if name not in FIGURE_FORMATS:
            known = ", ".join(FIGURE_FORMATS)
            raise UsageError(
                f"Figures are not drawn as {name!r}{did_you_mean(name, FIGURE_FORMATS) or '.'} Known: {known}."
            )
    return list(dict.fromkeys(names))


def write_figures(report: AuditReport, folder: Path, formats: Sequence[str]) -> list[str]:
    """Write every figure of the report as a separate file in each format; return their paths.

    Files are numbered in the order of the report and named after the figure's id. Raises UsageError where the folder
    cannot be written to.
    """
    from auditor.report.drawing.svg import draw_png, svg_file
    from auditor.report.report_figures import pictures_of

    places = []
    for i, figure in enumerate(pictures_of(report), 1):
        name = re.sub(r"[^a-z0-9]+", "-", figure.id.lower()).strip("-")[:_LONGEST_NAME].rstrip("-")
        places += [(folder / f"{i:02d}-{name or figure.kind}.{suffix}", figure) for suffix in formats]
    for path, _ in places:
        claim(path, f"--figures/{path.name}")
    for path, figure in places:
        write_beside(path, draw_png(figure) if path.suffix == ".png" else svg_file(figure).encode())
    return [str(path) for path, _ in places]


def read_report(path: Path) -> AuditReport:
    """The record in a file, in a folder's report.json, or in an evidence bundle. Raises UsageError or DataError.

    Of a bundle it is said aside that reading is not verifying.
    """
    where = path / FILE_NAMES["json"] if path.is_dir() else path
    if is_bundle(where):
        from auditor.evidence.verify.bundle_parts import record_in

        report = record_in(where)
        typer.echo(
            f"note     {visible(str(where))}: its parts agree with its manifest. Reading it is not verifying it: no "
            "number was recomputed, and whose the signature is was not asked, which auditor evidence verify does.",
            err=True,
        )
        return report
    try:
        return AuditReport.from_json(where.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"There is no report at {str(where)!r}.") from None
    except OSError as error:
        raise UsageError(f"{str(where)!r} cannot be read: {error.strerror}.") from None
    except DataError as error:
        raise UsageError(f"{str(where)!r}: {error}") from None


def command_line() -> str:
    """The command line of this process, in shell syntax, without passwords."""
    return shlex.join(["auditor", *arguments_without_passwords(sys.argv[1:])])


def claim_report(out: Path, formats: Iterable[str] = FILE_NAMES, flag: str = "--out") -> None:
    """Declare, before any work, the renderings written into a folder; UsageError if one is not allowed."""
    for name in formats:
        claim(out / FILE_NAMES[name], f"{flag}/{FILE_NAMES[name]}")


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Context with exclusive publishing into the folder, so that its files are of one audit."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        # Whoever writes there says what is wrong, and keeps the record elsewhere.
        yield
        return
    try:
        # Some network folders know no locks; an audit that is done is written there all the same.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def drop_stale(out: Path, paths: list[str]) -> None:
    """Remove renderings of an earlier run, which would look like files of this audit."""
    for name in FILE_NAMES.values():
        if str(out / name) not in paths:
            remove(out / name)


def write_report(
    report: AuditReport, out: Path, formats: list[str], say: Catalogue | None = None, seal: Seal | None = None
) -> list[str]:
    """Render every format, then write each atomically; on failure the record is kept elsewhere.

    ``say``: other words than the record's own. ``seal``: what the PDF is signed with.
    """
    try:
        drawn = [(out / FILE_NAMES[name], render(report, name, say)) for name in formats]
        if seal is not None:
            drawn = [(path, seal.sign(content) if path.suffix == ".pdf" else content) for path, content in drawn]
        for path, content in drawn:
            write_beside(path, content)
    except Exception as error:
        why = error.strerror or error if isinstance(error, OSError) else error
        raise UsageError(f"The report could not be written into {str(out)!r} ({why}); {_rescued(report)}.") from None
    return [str(path) for path, _ in drawn]


def _rescued(report: AuditReport) -> str:
    """Where the record lies that could not be written where it should."""
    rescue = Path(tempfile.gettempdir())
    try:
        rescue = Path(tempfile.mkdtemp(prefix="auditor-rescued-")) / "report.json"
        write_beside(rescue, report.to_json().encode())
        return f"the record lies in {rescue}"
    except (OSError, AuditorError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        if rescue.name == "report.json":
            rescue.parent.rmdir()
        return (
            f"nor could the record be kept in {str(Path(tempfile.gettempdir()))!r} ({why}): make room and run it again"
        )
