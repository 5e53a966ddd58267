"""A document as a file: one HTML page, PDF or Markdown, by the file extension; the report as PDF.

A PDF is PDF/A-2a and PDF/UA-1, typeset by typst from our template. What comes from the record reaches the template as
JSON values, never as markup. Nothing is fetched: the fonts are those that typst and matplotlib bring along.
"""

from __future__ import annotations

import json
import re
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Literal
from urllib.parse import quote
from xml.etree import ElementTree

from markupsafe import Markup

from auditor.core.errors import DataError, MissingExtraError, first_line
from auditor.report import report_view
from auditor.report.document import (
    Beside,
    Block,
    Bullets,
    Document,
    Heading,
    Line,
    PageBreak,
    Paragraph,
    Picture,
    Span,
    Table,
    external_text,
    line,
    own_text,
    paragraph,
)
from auditor.report.html import content_policy, environment, moment, resource, title_of
from auditor.report.markdown import to_markdown
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.number_text import moment_of
from auditor.report.record.translations import ENGLISH, Catalogue
from auditor.report.report_document import report_document
from auditor.report.report_view import language_tag

_TEMPLATE = "document.typ"
STANDARDS: tuple[Literal["a-2a"], Literal["ua-1"]] = ("a-2a", "ua-1")
_FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf")


def render_pdf(report: AuditReport, say: Catalogue | None = None, *, appendix: bool = False) -> bytes:
    """The report as PDF/A-2a and PDF/UA-1; same record, same fonts, same bytes.

    Three pages, unless findings are many: the verdict, the scope, what is to be done and who signs. ``appendix``: with
    figures, every number, rule packs and what they rest on. ``say``: words other than the record's own. A letter that
    no font at hand has is written as its code, and the report says so. Raises MissingExtraError without typst.
    """
    words = report.catalogue(say)
    blocks = report_document(report, say)
    if not appendix:
        blocks = tuple(takewhile(lambda block: not (isinstance(block, PageBreak) and block.appendix), blocks))
    id_ = report_view.document_id(report)
    document = Document(title_of(report), id_, report.created, report.tool.get("version", ""), blocks)
    return _typeset_document(document, id_, words.say("page.document", id=id_), words)


def render_pdf_with_appendix(report: AuditReport, say: Catalogue | None = None) -> bytes:
    """The report as PDF with its appendix."""
    return render_pdf(report, say, appendix=True)


def render_document_pdf(document: Document) -> bytes:
    """The document as PDF; same document, same fonts, same bytes.

    Links lead nowhere on paper, so findings are named by their number. Raises MissingExtraError without typst.
    """
    id_ = document.digest[:16]
    made_of = f"dossier of the record {id_}, {moment(document.created)}"
    return _typeset_document(document, id_, made_of, Catalogue.for_language(ENGLISH))


def _typeset_document(document: Document, id_: str, made_of: str, say: Catalogue) -> bytes:
    author = f"auditor {document.version}".strip()
    with tempfile.TemporaryDirectory(prefix="auditor-pdf-") as name:
        folder = Path(name)
        data: dict[str, object] = {
            "title": number_text.visible(document.title),
            "author": number_text.visible(author),
            # A break within the id would hide it from whoever looks for it.
            "id": number_text.visible(id_),
            "footer": worded(f"{author}, {made_of}. {say.say('limit.no_advice')}"),
            "numbered": re.split(r"(\{\w+\})", say.say("rest.page_of", page="{page}", of="{of}")),
            "language": language_tag(say.language),
            "fonts_note": "",
            "fonts_said": say.say("rest.fonts", code="\\u4e2d"),
            "blocks": _blocks(document.blocks, folder, say),
        }
        return _typeset(data, folder, document.created)


def _typeset(data: dict[str, object], folder: Path, created: str) -> bytes:
    """A document typeset from our template with values from ``report-data.json`` and figures in ``folder``.

    ``created``: the date that the document bears. Raises MissingExtraError without typst, DataError where it cannot be
    set.
    """
    try:
        import typst
    except ImportError:
        raise MissingExtraError(
            "A PDF needs typst: pip install 'responsible-auditor[pdf]', or choose --format html."
        ) from None
    foreign = _foreign(data, folder)
    fonts = _font_folder(folder)

    def compiled(*, system: bool) -> bytes:
        (folder / "report-data.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
        compiler = typst.Compiler(
            font_paths=[str(fonts)], ignore_system_fonts=not system, root=str(folder), package_path=str(folder)
        )
        made = compiler.compile(
            input=str(folder / _TEMPLATE), format="pdf", pdf_standards=list(STANDARDS), timestamp=_timestamp(created)
        )
        assert isinstance(made, bytes)
        return made

    (folder / _TEMPLATE).write_text(resource(_TEMPLATE), encoding="utf-8")
    try:
        return compiled(system=bool(foreign))
    except typst.TypstError:
        data = _escaped(data, foreign)
        for figure in folder.glob("*.svg"):
            drawn = unicodedata.normalize("NFC", figure.read_text(encoding="utf-8"))
            # Typst loses the letters of a drawing that carry several marks.
            marks = frozenset(c for c in drawn if unicodedata.category(c).startswith("M"))
            figure.write_text(_escape(drawn, foreign | marks), encoding="utf-8")
    try:
        return compiled(system=False)
    except typst.TypstError as error:
        raise DataError(
            f"This document cannot be typeset as {' and '.join(STANDARDS)} ({first_line(error)}): take --format html."
        ) from None


def _timestamp(created: str) -> int:
    when = moment_of(created)
    return 0 if when is None else max(0, int(when.timestamp()))


# ---- fonts ---------------------------------------------------------------------------------------------------------


def _font_folder(folder: Path) -> Path:
    """The fonts of matplotlib that the template names, alone: its last-resort font would draw boxes for letters."""
    from matplotlib import get_data_path

    fonts = folder / "fonts"
    fonts.mkdir()
    for name in _FONTS:
        (fonts / name).symlink_to(Path(get_data_path()) / "fonts" / "ttf" / name)
    return fonts


@cache
def _known_letters() -> frozenset[int]:
    from matplotlib import get_data_path
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(Path(get_data_path()) / "fonts" / "ttf" / _FONTS[0])).get_charmap())


def _foreign(data: object, folder: Path) -> frozenset[str]:
    """Characters of the document that the fonts brought along lack."""
    used = set(json.dumps(data, ensure_ascii=False)).union(*(p.read_text("utf-8") for p in folder.glob("*.svg")))
    return frozenset(c for c in used if ord(c) not in _known_letters() and c not in ("\n", BREAK))


def _escape(words: str, foreign: frozenset[str]) -> str:
    return "".join(
        (f"\\u{ord(c):04x}" if ord(c) <= 0xFFFF else f"\\U{ord(c):08x}") if c in foreign else c for c in words
    )


def _escaped(data: dict[str, object], foreign: frozenset[str]) -> dict[str, object]:
    def walk(value: object) -> object:
        if isinstance(value, str):
            return breaking(_escape(value.replace(BREAK, ""), foreign))
        if isinstance(value, dict):
            return {k: walk(v) for k, v in value.items()}
        return [walk(v) for v in value] if isinstance(value, (list, tuple)) else value

    return {**{key: walk(value) for key, value in data.items()}, "fonts_note": data.get("fonts_said", "")}


# ---- words, which may break, and figures ----------------------------------------------------------------------------

_LONGEST_RUN = 22
BREAK = "\N{ZERO WIDTH SPACE}"
_RUN = re.compile(rf"\S{{{_LONGEST_RUN},}}")


def breaking(words: str) -> str:
    """Text with break points after underscores and slashes, and finally anywhere, so that no cell overflows."""

    def run(match: re.Match[str]) -> str:
        parts = re.sub(r"([_/=,.+-])", rf"\1{BREAK}", match.group()).split(BREAK)
        pieces = [p[i : i + _LONGEST_RUN] for p in parts for i in range(0, len(p), _LONGEST_RUN)]
        return BREAK.join(pieces)

    return _RUN.sub(run, words)


def worded(words: str | None) -> str:
    """Text from any source."""
    return breaking(number_text.visible(words or ""))


def narrow(words: str) -> str:
    """A name for narrow columns, with a break point after every underscore."""
    said = worded(words)
    return re.sub(r"(?<=_)(?=[^_])", BREAK, said.replace(BREAK, "")) if len(words) < _LONGEST_RUN else said


_PAGE_WIDTH, _COLUMN_WIDTH = 493.0, 238.0  # of the text, in points
_TALLEST = 680.0
# What is smaller on paper, in points, is read by nobody.
_SMALLEST = 7.05
_SIZE = re.compile(r'font-size="([\d.]+)(?:px)?"')
_SCALE, _NARROW = 0.63, 400.0
_LONGEST_REPEATED = 80


def _in_columns(pictures: Sequence[Picture], folder: Path, say: Catalogue) -> dict[str, object]:
    """Figures that fit into one of two columns, and those that are wider; drawn into ``folder`` as SVG."""
    captions: dict[str, str] = {}
    drawn: dict[bool, list[dict[str, object]]] = {True: [], False: []}
    for picture in (picture for picture in pictures if picture.drawn.figure.table is None):
        caption, called = picture.drawn.figure.caption, picture.drawn.title
        if len(caption) > _LONGEST_REPEATED and captions.setdefault(caption, called) != called:
            caption = say.say("paper.read_as", title=captions[caption])
        made, slim = _figure(picture, caption, folder, say)
        drawn[slim].append(made)
    return {"wide": drawn[False], "slim": drawn[True]}


def _figure(picture: Picture, caption: str, folder: Path, say: Catalogue) -> tuple[dict[str, object], bool]:
    """A figure, and whether it fits into a column."""
    # A document without figures needs no matplotlib.
    from auditor.report.drawing.svg import as_file, draw_svg

    view = picture.drawn
    name, markup = f"{view.dom_id}.svg", as_file(draw_svg(view.figure, dom_id=view.dom_id, words=say.section("drawn")))
    markup = markup.replace("system-ui, sans-serif", "DejaVu Sans")
    drawing = ElementTree.fromstring(markup).attrib
    width, height = float(drawing["width"]), float(drawing["height"])
    slim = width <= _NARROW
    scale = min(_SCALE, (_COLUMN_WIDTH if slim else _PAGE_WIDTH) / width, _TALLEST / height)
    markup = _SIZE.sub(lambda size: f'font-size="{max(float(size[1]), _SMALLEST / scale):.3g}"', markup)
    (folder / name).write_text(markup, encoding="utf-8")
    made: dict[str, object] = {
        "file": name,
        "of": worded(picture.heading),
        "title": worded(view.title),
        "alt": number_text.visible(view.figure.alt) or say.say("rest.figure_unsaid"),
        "caption": worded(caption),
        "width": width * scale,
    }
    return made, slim


# ---- blocks as values -----------------------------------------------------------------------------------------------

_SHORT, _LONG = 14, 60
# Letters that would take as much room as what is drawn, and as a line to fill in.
_DRAWN = {"axis": 24, "blank": 20}
# A table of so many letters fits a page, and is not torn apart.
_ONE_PAGE = 2_000


def _blocks(blocks: Sequence[Block], folder: Path, say: Catalogue) -> list[dict[str, object]]:
    """The blocks as values for the template; figures stand in columns, and are drawn into the folder as SVG."""
    pictures = [block for block in blocks if isinstance(block, Picture)]
    made, drawn = list[dict[str, object]](), False
    for block in blocks:
        match block:
            case Picture() if not drawn:
                drawn = True
                made += [{"kind": "break", "columns": 1}, _block(Heading(2, line(say.say("paper.figures"))))]
                made.append({"kind": "pictures", **_in_columns(pictures, folder, say)})
                for picture in (p for p in pictures if p.drawn.figure.table is not None):
                    title = Heading(3, line(f"{picture.heading}: {picture.drawn.title}"))
                    caption = paragraph(external_text(picture.drawn.figure.caption))
                    made += _blocks((title, *picture.words, caption), folder, say)
            case Picture():
                pass
            case Beside(parts):
                made.append({"kind": "beside", "parts": [_blocks(part, folder, say) for part in parts]})
            case PageBreak(columns=columns):
                made.append({"kind": "break", "columns": columns})
            case _:
                made.append(_block(block))
    return made


def _block(block: Block) -> dict[str, object]:
    match block:
        case Heading(level, line):
            return {"kind": "heading", "level": level, "line": _line(line)}
        case Paragraph(line, note, tone):
            return {"kind": "note" if note else "paragraph", "line": _line(line), "tone": tone}
        case Bullets(items, numbered):
            return {"kind": "list", "items": [_line(item) for item in items], "numbered": numbered}
        case Table(head, rows, align, shape):
            # A head of nothing is none that a reader could be told.
            heads = head if any(head) else ((own_text("Name"),), (own_text("Value"),))
            columns = heads[:-1] if shape == "findings" else heads
            return {
                "kind": shape,
                "head": [_line(cell) for cell in heads],
                "rows": [[_line(cell) for cell in row] for row in rows],
                "align": list(align),
                "widths": _widths(columns, rows),
                "whole": sum(len(span.text) for cells in (heads, *rows) for cell in cells for span in cell) < _ONE_PAGE,
                "tone": next((span.tone for cell in heads for span in cell if span.tone), ""),
            }
    raise AssertionError(block)


def _widths(heads: Sequence[Line], rows: Sequence[Sequence[Line]]) -> list[int]:
    """The share of the page that each column takes, by its longest cell; 0 for one that needs no more than its own."""
    columns = ([cells[i] for cells in (heads, *rows)] for i in range(len(heads)))
    longest = [max(sum(_DRAWN.get(span.kind, len(span.text)) for span in cell) for cell in own) for own in columns]
    return [0 if n <= _SHORT and any(n > _SHORT for n in longest) else min(max(n, 1), _LONG) for n in longest]


def _line(line: Line) -> list[dict[str, object]]:
    return [_span(span) for span in line]


def _span(span: Span) -> dict[str, object]:
    words = number_text.shortened(span.text, span.longest)
    shown: dict[str, object] = {
        "text": narrow(words) if span.kind == "code" else worded(words),
        "kind": span.kind,
        "tone": span.tone,
    }
    return shown if span.axis is None else shown | {"axis": asdict(span.axis) | {"alt": worded(span.axis.alt)}}


@dataclass(frozen=True)
class _Entry:
    """A line of the contents; ``under``: the lines below it."""

    anchor: str
    line: Line
    under: list[_Entry]


def render_document_html(document: Document) -> str:
    """The document as HTML.

    Everything that is not ours is escaped and shown with its control characters visible.
    """
    style = Markup(resource("report.css") + resource("document.css"))
    anchors, contents = _anchored(document.blocks)
    return (
        environment()
        .get_template("document.html.j2")
        .render(
            policy=content_policy(style, "", pictures=False),
            style=style,
            document=document,
            created=moment(document.created),
            blocks=[(b, type(b).__name__, anchor) for b, anchor in zip(document.blocks, anchors, strict=True)],
            contents=contents,
            words=_html_line,
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


def _html_line(line: Line) -> Markup:
    return Markup("").join(_html_span(span) for span in line)


def _html_span(span: Span) -> Markup:
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


def render_document(document: Document, name: str) -> bytes:
    """The bytes of the file of this name: HTML, PDF, and Markdown for every other ending.

    Raises MissingExtraError for a PDF without typst.
    """
    match PurePath(name).suffix.lower():
        case ".pdf":
            return render_document_pdf(document)
        case ".html":
            return render_document_html(document).encode()
    return to_markdown(document.blocks).encode()
