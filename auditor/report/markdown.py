"""Documents and reports as Markdown, for a pull request or a chat."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from urllib.parse import quote

from auditor.report.document import (
    Beside,
    Block,
    Bullets,
    Heading,
    Line,
    PageBreak,
    Paragraph,
    Picture,
    Span,
    Table,
    code,
    external_text,
    joined,
    line,
    paragraph,
)
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.translations import Catalogue
from auditor.report.report_document import report_document

_MOST, _DEEPEST = 10, 3
_LONGEST_NAME, _LONGEST_SENTENCE = 80, 400
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~&$]|:(?=//)|(?<=www)\.)")
_CALLS = re.compile(r"[@#]")


def render_markdown(report: AuditReport, say: Catalogue | None = None) -> str:
    """The report in brief; ``say``: other words than the record's own.

    Names stand in code spans and sentences are escaped, so that data can neither format, link, embed nor mention.
    """
    words = report.catalogue(say)
    body = takewhile(lambda block: block != PageBreak(columns=2), report_document(report, say))
    return to_markdown([part for block in body for part in _in_brief(block, words)], above=1)


def _in_brief(block: Block, say: Catalogue) -> Iterator[Block]:
    """The first rows of tables and lists; names and values as one sentence, and nothing to fill in by hand."""
    match block:
        case Table(shape="field"):
            pass
        case Table(rows=rows, shape="facts"):
            stated = [line(*name, ": ", *value) for name, value in rows if value[0].kind != "blank"]
            absent = [line(code(value[0].text)) for _, value in rows if value[0].kind == "blank" and value[0].text]
            yield paragraph(*joined(stated, "; "))
            if absent:
                yield paragraph(f"{say.say('scope.absent')}: ", *joined(absent, ", "), ".")
        case Table(head, rows, align, shape, most):
            # Reasons of findings are left to the full report.
            end = -1 if shape == "findings" else len(head)
            shown = rows[:most] if most else rows
            yield Table(head[:end], tuple(row[:end] for row in shown), align[:end])
            yield from _left_out(len(rows) - len(shown), say)
        case Bullets(items):
            yield replace(block, items=items[:_MOST])
            yield from _left_out(len(items) - _MOST, say)
        case Beside(parts):
            yield from (short for part in parts for each in part for short in _in_brief(each, say))
        case Picture(_, drawn, words) if words:
            yield Heading(3, (external_text(drawn.title),))
            yield from (short for each in words for short in _in_brief(each, say))
        case Picture() | PageBreak():
            pass
        case _:
            yield block


def _left_out(n: int, say: Catalogue) -> Iterator[Block]:
    if n > 0:
        yield paragraph(say.say("rest.more_in_full", n=say.count(n)))


def to_markdown(blocks: Sequence[Block], *, above: int = 0) -> str:
    """The document as Markdown; ``above``: levels of headings that it leaves to what surrounds it."""
    lines = [line for block in blocks for line in _block(block, above)]
    return "\n".join(lines).rstrip() + "\n"


def _block(block: Block, above: int) -> Iterator[str]:
    match block:
        case Heading(level, line):
            yield f"{'#' * min(level + above, _DEEPEST)} {_words(line)}"
        case Paragraph(line, note):
            yield f"{'> ' if note else ''}{_words(line)}"
        case Bullets(items, numbered):
            yield from (f"{f'{i}.' if numbered else '-'} {_words(item)}" for i, item in enumerate(items, 1))
        case Table(head, rows, align):
            yield _row(head)
            yield "|" + "|".join(" ---: " if side == "r" else " --- " for side in align) + "|"
            yield from map(_row, rows)
        case _:
            return
    yield ""


def _row(cells: Sequence[Line]) -> str:
    shown = [_words(cell, cell=True) for cell in cells]
    return "|" + "|".join(f" {words} " if words else " " for words in shown) + "|"


def _words(line: Line, *, cell: bool = False) -> str:
    return "".join(_span(span, cell=cell) for span in line)


def _span(span: Span, *, cell: bool) -> str:
    match span.kind:
        case "code" | "command":
            words = code_span(span.text, cell=cell, limit=span.longest)
        case "strong":
            words = f"**{escaped(span.text, span.longest)}**"
        case "blank":
            words = "\\_" * 4
        case "axis":
            words = ""
        case _:
            words = escaped(span.text, span.longest)
    return words if span.href is None else f"[{words}](<{quote(span.href[0])}#{span.href[1]}>)"


def code_span(name: str, *, cell: bool = False, limit: int = _LONGEST_NAME) -> str:
    """A name in a code span with a fence longer than any in it; a bare pipe would end a table cell."""
    shown = number_text.shortened(number_text.visible(name), limit)
    shown = shown.replace("|", "\\|") if cell else shown
    if not shown.strip():
        return "(empty)"
    fence = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    pad = " " if shown.startswith(("`", " ")) or shown.endswith(("`", " ")) else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def escaped(sentence: str, limit: int = _LONGEST_SENTENCE) -> str:
    """A sentence with Markdown escaped; an empty comment prevents @name and #1 from becoming links."""
    shown = _SPECIAL.sub(r"\\\1", number_text.shortened(number_text.visible(sentence), limit))
    return _CALLS.sub(lambda call: f"{call.group()}<!-- -->", shown)
