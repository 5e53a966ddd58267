"""A document as PDF/A-2a and PDF/UA-1, in the report's layout, with every string as a value, never as markup."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from auditor.report.document import LONGEST_NAME, Block, Bullets, Heading, Line, Paragraph, Span, Table, own_text
from auditor.report.html import moment
from auditor.report.pdf import typeset
from auditor.report.pdf_text import narrow, worded
from auditor.report.record import number_text
from auditor.report.record.translations import ENGLISH, Catalogue

_SHORT, _LONG = 14, 60
# A table of so many letters fits a page, and is not torn apart.
_ONE_PAGE = 2_000


def render_document_pdf(title: str, digest: str, created: str, version: str, blocks: Sequence[Block]) -> bytes:
    """The document as PDF; same document, same fonts, same bytes.

    ``digest`` is that of the record it was made from, ``created`` the day of the audit. Links lead nowhere on paper, so
    findings are named by their number. Raises MissingExtraError without typst.
    """
    data: dict[str, object] = {
        "title": worded(title),
        "author": worded(f"auditor {version}".strip()),
        "id": digest[:16],
        "created": worded(moment(created)),
        "blocks": [_block(block) for block in blocks],
        "fonts_note": "",
        "fonts_said": Catalogue.for_language(ENGLISH).say("rest.fonts", code="\\u4e2d"),
    }
    with tempfile.TemporaryDirectory(prefix="auditor-pdf-") as name:
        return typeset("document.typ", data, Path(name), created)


def _block(block: Block) -> dict[str, object]:
    match block:
        case Heading(level, line):
            return {"kind": "heading", "level": level, "line": _line(line)}
        case Paragraph(line, note):
            return {"kind": "note" if note else "paragraph", "line": _line(line)}
        case Bullets(items):
            return {"kind": "list", "items": [_line(item) for item in items]}
        case Table(head, rows, align, shape):
            # A head of nothing is none that a reader could be told.
            heads = head if shape != "facts" else ((own_text("Name"),), (own_text("Value"),))
            return {
                "kind": shape,
                "head": [_line(cell) for cell in heads],
                "rows": [[_line(cell) for cell in row] for row in rows],
                "align": list(align),
                "widths": _widths(heads, rows),
                "whole": sum(len(span.text) for cells in (heads, *rows) for cell in cells for span in cell) < _ONE_PAGE,
                "tone": next((span.tone for cell in heads for span in cell if span.tone), ""),
            }


def _widths(heads: Sequence[Line], rows: Sequence[Sequence[Line]]) -> list[int]:
    """The share of the page that each column takes, by its longest cell; 0 for one that needs no more than its own."""
    columns = ([cells[i] for cells in (heads, *rows)] for i in range(len(heads)))
    longest = (max(sum(len(span.text) for span in cell) for cell in column) for column in columns)
    return [0 if n <= _SHORT else min(n, _LONG) for n in longest]


def _line(line: Line) -> list[dict[str, str]]:
    return [_span(span) for span in line]


def _span(span: Span) -> dict[str, str]:
    is_name = span.kind == "code"
    words = number_text.shortened(span.text, LONGEST_NAME if is_name else span.longest)
    return {
        "text": narrow(words) if is_name else worded(words),
        "kind": span.kind,
        "tone": span.tone,
    }
