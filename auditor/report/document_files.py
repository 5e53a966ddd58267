"""A document as a file: the file extension selects the format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Protocol

from auditor.report.document import Block, to_markdown


class Drawable(Protocol):
    """The input of a document."""

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


def render_document(document: Drawable, name: str) -> bytes:
    """The bytes of the file of this name: HTML, PDF, and Markdown for every other ending.

    Raises MissingExtraError for a PDF without typst.
    """
    match PurePath(name).suffix.lower():
        case ".pdf":
            from auditor.report.document_pdf import render_document_pdf

            return render_document_pdf(
                document.title, document.digest, document.created, document.version, document.blocks
            )
        case ".html":
            from auditor.report.document_html import render_document_html

            return render_document_html(
                document.title, document.digest, document.created, document.version, document.blocks
            ).encode()
    return to_markdown(document.blocks).encode()
