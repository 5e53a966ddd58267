"""A document model of headings, sentences, lists, tables and figures, rendered as Markdown, HTML or PDF.

Every piece of it says whether its words are ours or came from a model, data or a pack: those of others are drawn so
that they can neither format nor link, in each of the formats.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from auditor.report.first_page_parts import Axis
from auditor.report.report_view import Drawn

LONGEST = 4_000
LONGEST_NAME = 80
_LONGEST_TITLE = 400


@dataclass(frozen=True)
class Span:
    """A piece of a line.

    ``kind``: "said" came from elsewhere, "own" are our words, "strong" are our words that stand out, "small" are our
    words that stand back, "code" is a name from elsewhere, "command" is one to copy, "blank" is a line to fill in with
    the key that states it, "axis" is a drawn interval. ``tone``: slug of the outcome in whose colour it stands.
    ``href``: where it leads, a path and a fragment.
    """

    text: str
    kind: Literal["said", "own", "strong", "small", "code", "command", "blank", "axis"] = "said"
    tone: str = ""
    href: tuple[str, str] | None = None
    longest: int = LONGEST
    axis: Axis | None = None


Line: TypeAlias = tuple[Span, ...]
Shape: TypeAlias = Literal["rows", "findings", "facts", "field"]


@dataclass(frozen=True)
class Heading:
    """A heading; ``level`` 1 is the title."""

    level: Literal[1, 2, 3]
    line: Line


@dataclass(frozen=True)
class Paragraph:
    """One paragraph; a ``note`` has a separate style, and so has one with the ``tone`` of an outcome."""

    line: Line
    note: bool = False
    tone: str = ""


@dataclass(frozen=True)
class Bullets:
    """A list; ``numbered``: its items have an order."""

    items: tuple[Line, ...]
    numbered: bool = False


@dataclass(frozen=True)
class Table:
    """A table; ``align`` has an l or an r for each column.

    ``shape``: "rows" under heads, "findings" whose last cell stands below its row on paper, "facts" of names and
    values, or a "field" to fill in by hand, whose head says by whom. ``brief``: rows that are enough in brief; 0: all.
    """

    head: tuple[Line, ...]
    rows: tuple[tuple[Line, ...], ...]
    align: str
    shape: Shape = "rows"
    brief: int = 0


@dataclass(frozen=True)
class Picture:
    """A figure under a heading; ``words``: what is written where nothing is drawn, or where it is a table itself."""

    heading: str
    drawn: Drawn
    words: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Beside:
    """Parts that stand beside each other where there is room."""

    parts: tuple[tuple[Block, ...], ...]


@dataclass(frozen=True)
class PageBreak:
    """The beginning of a new page on paper; ``columns``: of small print, until the end.

    ``appendix``: what follows is left out of a report on paper, unless it is asked for.
    """

    columns: int = 1
    appendix: bool = False


Block: TypeAlias = Heading | Paragraph | Bullets | Table | Picture | Beside | PageBreak


@dataclass(frozen=True)
class Document:
    """Blocks under a title; ``digest`` is that of the record it was made from, ``created`` the day of the audit."""

    title: str
    digest: str
    created: str
    version: str
    blocks: tuple[Block, ...]


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


def small(text: str) -> Span:
    """Text of this tool that stands back."""
    return Span(text, "small")


def code(name: str) -> Span:
    """A name from elsewhere."""
    return Span(name, "code", longest=LONGEST_NAME)


def line(*pieces: str | Span) -> Line:
    """A line of our words and of spans; an empty piece is left out."""
    spans = (own_text(piece) if isinstance(piece, str) else piece for piece in pieces)
    return tuple(span for span in spans if span.text or span.kind in ("code", "blank", "axis"))


def paragraph(*pieces: str | Span, note: bool = False, tone: str = "") -> Paragraph:
    """A paragraph of our words and of spans."""
    return Paragraph(line(*pieces), note, tone)


Cell: TypeAlias = str | Span | Line


def _cell(cell: Cell) -> Line:
    return cell if isinstance(cell, tuple) else line(cell)


def bullets(items: Iterable[Cell], *, numbered: bool = False) -> Bullets:
    """A list of lines."""
    return Bullets(tuple(map(_cell, items)), numbered)


def table(
    head: Iterable[Cell], rows: Iterable[Sequence[Cell]], align: str, shape: Shape = "rows", *, brief: int = 0
) -> Table:
    """A table whose cells are our words, spans, or lines of both."""
    return Table(tuple(map(_cell, head)), tuple(tuple(map(_cell, row)) for row in rows), align, shape, brief)


def joined(lines: Sequence[Line], between: str) -> Line:
    """Lines as one."""
    return tuple(span for i, own in enumerate(lines) for span in ((own_text(between),) if i else ()) + own)


def facts(fields: Sequence[tuple[str, str | None]], *, unknown: str) -> Table:
    """Names and values; None is omitted, empty is shown as ``unknown``."""
    rows = tuple(
        ((own_text(name),), (external_text(value) if value else own_text(unknown),))
        for name, value in fields
        if value is not None
    )
    return Table(((), ()), rows, "ll", "facts")
