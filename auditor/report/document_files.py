"""A document as a file: its ending says in which format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Protocol

from auditor.report.document import Block, to_markdown


class Drawable(Protocol):
    """What a document is drawn from."""

    @property
    def title(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def created(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def blocks(self) -> Sequence[Block]: ...


def drawn(found: Drawable, name: str) -> bytes:
    """The bytes of the file of this name: HTML, PDF, and Markdown for every other ending.

    Raises MissingExtraError for a PDF without typst.
    """
    match PurePath(name).suffix.lower():
        case ".pdf":
            from auditor.report.document_pdf import render_document_pdf

            return render_document_pdf(found.title, found.digest, found.created, found.version, found.blocks)
        case ".html":
            from auditor.report.document_html import render_document_html

            return render_document_html(found.title, found.digest, found.created, found.version, found.blocks).encode()
    return to_markdown(found.blocks).encode()
