"""The renderings of a record by name: their files, and the function that draws each."""

from __future__ import annotations

import html
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Protocol

from auditor.core.errors import MissingExtraError, UsageError, did_you_mean
from auditor.core.files import write_beside

if TYPE_CHECKING:
    from auditor.report.record.translations import Catalogue

# Of one stem, so that clearing away an earlier run's renderings touches no file of anybody else's.
FILE_NAMES = {
    "html": "report.html",
    "json": "report.json",
    "markdown": "report.md",
    "pdf": "report.pdf",
    "pdf-appendix": "report.appendix.pdf",
    "sarif": "report.sarif",
    "junit": "report.junit.xml",
    "csv": "report.csv",
    "model-card": "report.model-card.md",
    "model-card-json": "report.model-card.json",
    "ml-bom": "report.cdx.json",
    "eee": "report.eee.json",
    "croissant": "report.croissant.json",
    "datasheet": "report.datasheet.md",
}
FORMATS = ",".join(FILE_NAMES)
# By name, since each imports much, and a record alone needs none of it.
_RENDERERS = {
    "html": "html:render_html",
    "markdown": "markdown:render_markdown",
    "pdf": "document_files:render_pdf",
    "pdf-appendix": "document_files:render_pdf_with_appendix",
    "sarif": "machine_formats:render_sarif",
    "junit": "machine_formats:render_junit",
    "csv": "machine_formats:render_csv",
    "model-card": "model_card_and_bom:render_model_card",
    "model-card-json": "model_card_and_bom:render_toolkit_json",
    "ml-bom": "model_card_and_bom:render_ml_bom",
    "eee": "every_eval_ever:render_eee",
    "croissant": "data_documentation:render_croissant",
    "datasheet": "data_documentation:render_datasheet",
}
# Those whose words are a catalogue's.
TOLD = ("html", "markdown", "pdf", "pdf-appendix")
# The module that a format needs, the extra that brings it.
_EXTRAS = {"pdf": ("typst", "pdf"), "pdf-appendix": ("typst", "pdf"), "ml-bom": ("cyclonedx", "bom")}


def known_formats(names: Sequence[str]) -> list[str]:
    """The names without repeats. Raises UsageError for one that is no format, MissingExtraError where it needs one."""
    for name in names:
        if name not in FILE_NAMES:
            raise UsageError(
                f"There is no format {name!r}{did_you_mean(name, FILE_NAMES) or '.'} Known: {', '.join(FILE_NAMES)}."
            )
        module, extra = _EXTRAS.get(name, ("", ""))
        if module and find_spec(module) is None:
            raise MissingExtraError(
                f"The format {name!r} needs an extra: pip install 'responsible-auditor[{extra}]', or leave it out."
            )
    return list(dict.fromkeys(names))


def format_of(file_name: str) -> str:
    """The format whose files end as this name does. Raises UsageError for an ending that is none's, and as above."""
    endings = {own.removeprefix("report"): name for name, own in FILE_NAMES.items()}
    for ending in sorted(endings, key=len, reverse=True):
        if file_name.lower().endswith(ending):
            return known_formats([endings[ending]])[0]
    raise UsageError(
        f"A report is saved by the ending of its file, and {file_name!r} has none of {', '.join(endings)}."
    )


class Record(Protocol):
    """What is rendered: an :class:`auditor.report.record.audit_report.AuditReport`."""

    def to_json(self) -> str:
        """The record as JSON."""
        ...


def render(report: Record, name: str, say: Catalogue | None = None) -> bytes:
    """The record in one format; ``say``: other wording than its own, if the format has text (``TOLD``)."""
    if name == "json":
        return report.to_json().encode()
    module, _, function = _RENDERERS[name].partition(":")
    draw: Callable[..., str | bytes] = getattr(import_module(f"auditor.report.{module}"), function)
    drawn = draw(report, say) if name in TOLD else draw(report)
    return drawn if isinstance(drawn, bytes) else drawn.encode()


def show_page(page: str) -> None:
    """Show an HTML page: below the cell in a notebook, else in the browser."""
    in_notebook = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if in_notebook is not None and hasattr(in_notebook, "kernel"):
        frame = f'<iframe width="100%" height="800" srcdoc="{html.escape(page)}"></iframe>'
        sys.modules["IPython.display"].display(sys.modules["IPython.display"].HTML(frame))
        return
    from webbrowser import open_new_tab

    path = f"{mkdtemp(prefix='auditor-report-')}/{FILE_NAMES['html']}"
    write_beside(path, page.encode())
    print(path)
    open_new_tab(f"file://{path}")
