"""The renderings of a record by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from auditor.errors import DataError, UsageError
from auditor.report.record import AuditReport
from auditor.suggest import did_you_mean

FILE_NAMES = {"html": "report.html", "json": "report.json", "markdown": "report.md"}


def known_formats(names: Sequence[str]) -> list[str]:
    """The names without repeats. Raises UsageError for one that is no format."""
    for name in names:
        if name not in FILE_NAMES:
            raise UsageError(
                f"There is no format {name!r}{did_you_mean(name, FILE_NAMES) or '.'} Known: {', '.join(FILE_NAMES)}."
            )
    return list(dict.fromkeys(names))


def render(report: AuditReport, name: str) -> str:
    """The record in one format."""
    if name == "json":
        return report.to_json()
    if name == "markdown":
        from auditor.report.markdown import render_markdown

        return render_markdown(report)
    from auditor.report.html import render_html

    return render_html(report)


def read_report(path: Path) -> AuditReport:
    """The record in a file, or in a folder's report.json. Raises UsageError or DataError."""
    where = path / FILE_NAMES["json"] if path.is_dir() else path
    try:
        return AuditReport.from_json(where.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"There is no report at {str(where)!r}.") from None
    except OSError as error:
        raise UsageError(f"{str(where)!r} cannot be read: {error.strerror}.") from None
    except DataError as error:
        raise UsageError(f"{str(where)!r}: {error}") from None
