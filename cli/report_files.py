"""Report files: each rendering complete or absent, with no files of an earlier run beside them."""

from __future__ import annotations

import fcntl
import os
import shlex
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.core.errors import AuditorError, UsageError
from auditor.core.files import write_beside
from auditor.core.writable_paths import claim, remove
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.redact_urls import arguments_without_passwords
from auditor.report.record.translations import Catalogue
from cli.report_formats import FILE_NAMES, render

if TYPE_CHECKING:
    from auditor.evidence.pades import Seal


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
            pdf = out / FILE_NAMES["pdf"]
            drawn = [(path, seal.sign(content) if path == pdf else content) for path, content in drawn]
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
