"""A document as a file: one HTML page, PDF or Markdown, by the file extension."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Protocol
from urllib.parse import quote

from markupsafe import Markup

from auditor.report.document import Block, Heading, Line, Span
from auditor.report.html import content_policy, environment, moment, resource
from auditor.report.markdown import to_markdown
from auditor.report.record import number_text


@dataclass(frozen=True)
class _Entry:
    """A line of the contents; ``under``: the lines below it."""

    anchor: str
    line: Line
    under: list[_Entry]


def render_document_html(title: str, digest: str, created: str, version: str, blocks: Sequence[Block]) -> str:
    """The document as HTML; ``digest`` is that of the record it was made from, ``created`` the day of the audit.

    Everything that is not ours is escaped and shown with its control characters visible.
    """
    style = Markup(resource("report.css") + resource("document.css"))
    anchors, contents = _anchored(blocks)
    return (
        environment()
        .get_template("document.html.j2")
        .render(
            title=title,
            policy=content_policy(style, "", pictures=False),
            style=style,
            digest=digest,
            created=moment(created),
            version=version,
            blocks=[(block, type(block).__name__, anchor) for block, anchor in zip(blocks, anchors, strict=True)],
            contents=contents,
            words=_words,
        )
    )


def _anchored(blocks: Sequence[Block]) -> tuple[list[str], list[_Entry]]:
    """An anchor for each heading, and the headings of level 2 with those of level 3 under them."""
    anchors: list[str] = []
    contents: list[_Entry] = []
    for block in blocks:
        anchor = ""
        if isinstance(block, Heading) and block.level == 2:
            anchor = f"part-{len(contents) + 1}"
            contents.append(_Entry(anchor, block.line, []))
        elif isinstance(block, Heading) and block.level == 3 and contents:
            anchor = f"{contents[-1].anchor}-{len(contents[-1].under) + 1}"
            contents[-1].under.append(_Entry(anchor, block.line, []))
        anchors.append(anchor)
    return anchors, contents


def _words(line: Line) -> Markup:
    return Markup("").join(_span(span) for span in line)


def _span(span: Span) -> Markup:
    shown = number_text.visible(span.text)
    match span.kind:
        case "said":
            words = Markup("<bdi>{}</bdi>").format(number_text.shortened(shown, span.longest))
        case "code":
            words = Markup("<code><bdi>{}</bdi></code>").format(number_text.shortened(shown, span.longest))
        case "strong":
            words = Markup("<strong>{}</strong>").format(shown)
        case _:
            words = Markup("{}").format(shown)
    if span.tone:
        words = Markup('<span class="tone is-{}">{}</span>').format(span.tone, words)
    if span.href is None:
        return words
    return Markup('<a href="{}#{}">{}</a>').format(quote(span.href[0]), span.href[1], words)


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
            from auditor.report.pdf import render_document_pdf

            return render_document_pdf(
                document.title, document.digest, document.created, document.version, document.blocks
            )
        case ".html":
            return render_document_html(
                document.title, document.digest, document.created, document.version, document.blocks
            ).encode()
    return to_markdown(document.blocks).encode()
