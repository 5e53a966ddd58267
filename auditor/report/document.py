"""A document model of headings, sentences, lists and tables, rendered as Markdown, HTML or PDF.

Every piece of it says whether its words are ours or came from a model, data or a pack: those of others are drawn so
that they can neither format nor link, in each of the formats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import quote

from auditor.report.markdown import code_span, escaped

LONGEST = 4_000
LONGEST_NAME = 80
_LONGEST_TITLE = 400


@dataclass(frozen=True)
class Span:
    """A piece of a line.

    ``kind``: "said" came from elsewhere, "own" are our words, "strong" are our words that stand out, "code" a name from
    elsewhere. ``tone``: slug of the outcome in whose colour it stands. ``href``: where it leads, a path and a fragment.
    """

    text: str
    kind: Literal["said", "own", "strong", "code"] = "said"
    tone: str = ""
    href: tuple[str, str] | None = None
    longest: int = LONGEST


Line: TypeAlias = tuple[Span, ...]


@dataclass(frozen=True)
class Heading:
    """A heading; ``level`` 1 is the title."""

    level: Literal[1, 2, 3]
    line: Line


@dataclass(frozen=True)
class Paragraph:
    """One paragraph; a ``note`` has a separate style."""

    line: Line
    note: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: tuple[Line, ...]


@dataclass(frozen=True)
class Table:
    """A table; ``align`` has an l or an r for each column.

    ``shape``: "rows" under heads, "facts" of names and values, or a "field" to fill in, whose head says by whom.
    """

    head: tuple[Line, ...]
    rows: tuple[tuple[Line, ...], ...]
    align: str
    shape: Literal["rows", "facts", "field"] = "rows"


Block: TypeAlias = Heading | Paragraph | Bullets | Table


def external_text(text: str, longest: int = LONGEST) -> Span:
    """Words from elsewhere."""
    return Span(text, longest=longest)


def titled(text: str) -> Span:
    """Words from elsewhere in a heading."""
    return Span(text, longest=_LONGEST_TITLE)


def own_text(text: str, tone: str = "") -> Span:
    """Our words."""
    return Span(text, "own", tone)


def strong(text: str, tone: str = "") -> Span:
    """Emphasised text of this tool."""
    return Span(text, "strong", tone)


def code(name: str) -> Span:
    """A name from elsewhere."""
    return Span(name, "code")


def paragraph(*spans: Span) -> Paragraph:
    """A paragraph of these spans."""
    return Paragraph(spans)


def facts(fields: Sequence[tuple[str, str | None]], *, unknown: str) -> Table:
    """Names and values; None is omitted, empty is shown as ``unknown``."""
    rows = tuple(
        ((own_text(name),), (external_text(value) if value else own_text(unknown),))
        for name, value in fields
        if value is not None
    )
    return Table(((), ()), rows, "ll", "facts")


def to_markdown(blocks: Sequence[Block]) -> str:
    """The document as Markdown."""
    lines = [line for block in blocks for line in _markdown(block)]
    return "\n".join(lines).rstrip() + "\n"


def _markdown(block: Block) -> Iterator[str]:
    match block:
        case Heading(level, line):
            yield f"{'#' * level} {_words(line)}"
        case Paragraph(line, note):
            yield f"{'> ' if note else ''}{_words(line)}"
        case Bullets(items):
            yield from (f"- {_words(item)}" for item in items)
        case Table(head, rows, align):
            yield _row(head)
            yield "|" + "|".join(" ---: " if side == "r" else " --- " for side in align) + "|"
            yield from map(_row, rows)
    yield ""


def _row(cells: Sequence[Line]) -> str:
    shown = [_words(cell, cell=True) for cell in cells]
    return "|" + "|".join(f" {words} " if words else " " for words in shown) + "|"


def _words(line: Line, *, cell: bool = False) -> str:
    return "".join(_span(span, cell=cell) for span in line)


def _span(span: Span, *, cell: bool) -> str:
    match span.kind:
        case "code":
            words = code_span(span.text, cell=cell)
        case "said":
            words = escaped(span.text, span.longest)
        case "strong":
            words = f"**{span.text}**"
        case _:
            words = span.text
    return words if span.href is None else f"[{words}](<{quote(span.href[0])}#{span.href[1]}>)"
