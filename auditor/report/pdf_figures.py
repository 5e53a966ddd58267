"""Figures and text in the PDF: columns of figures, visible control characters, and break points in long names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from auditor.report import report_view
from auditor.report.document import Picture
from auditor.report.drawing.svg import as_file, draw_svg
from auditor.report.record import number_text
from auditor.report.record.translations import Catalogue

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
_PAGE_HEIGHT = 749.0
_TALLEST = 600.0
_SCALE, _NARROW = 0.63, 400.0
_TITLE_LINE, _CAPTION_LINE = 50, 72  # letters on a line of a column
_LONGEST_REPEATED = 80
_AHEAD = (1, 2, 4, 8, 16)  # figures that may go before their turn


@dataclass
class _Column:
    """Figures below each other, and where on the column of all pages the next one would stand."""

    figures: list[dict[str, object]] = field(default_factory=list)
    at: float = 0.0

    @property
    def remaining_height(self) -> float:
        """What is left of its page."""
        return _PAGE_HEIGHT - self.at % _PAGE_HEIGHT

    def begins(self, height: float) -> float:
        """Where a figure of that height would begin, which stays on one page."""
        return self.at if height <= self.remaining_height else self.at + self.remaining_height

    def add(self, figure: dict[str, object], height: float) -> None:
        """A figure below the others."""
        self.at = self.begins(height) + height
        self.figures.append(figure)


def _in_columns(figures: Sequence[tuple[dict[str, object], float]]) -> tuple[_Column, _Column]:
    """Two columns of about the same height, in the fewest pages that a few ways of filling holes come to."""
    filled = [_filled(figures, ahead) for ahead in _AHEAD]
    return min(filled, key=lambda columns: max(column.at for column in columns))


def _filled(figures: Sequence[tuple[dict[str, object], float]], ahead: int) -> tuple[_Column, _Column]:
    """Where the next figure leaves a hole, one of the ``ahead`` next that fits in goes before it."""
    columns, pending = (_Column(), _Column()), list(figures)
    while pending:
        fits = [
            (c, i) for i, (_, height) in enumerate(pending[:ahead]) for c in columns if height <= c.remaining_height
        ]
        places = fits + [(c, 0) for c in columns]
        column, i = min(places, key=lambda place: (place[0].begins(pending[place[1]][1]), place[1]))
        column.add(*pending.pop(i))
    return columns


def in_columns(pictures: Sequence[Picture], folder: Path, say: Catalogue) -> dict[str, object]:
    """Figures in two columns, and those that are wider than one; drawn into ``folder`` as SVG."""
    captions: dict[str, str] = {}
    wide: list[dict[str, object]] = []
    slim: list[tuple[dict[str, object], float]] = []
    for picture in pictures:
        drawn = picture.drawn
        if drawn.figure.table is not None:
            continue
        caption, called = drawn.figure.caption, drawn.title
        if len(caption) > _LONGEST_REPEATED and captions.setdefault(caption, called) != called:
            caption = say.say("paper.read_as", title=captions[caption])
        made, height = _figure(picture.heading, drawn, caption, folder, say)
        if height is None:
            wide.append(made)
        else:
            slim.append((made, height))
    return {"wide": wide, "columns": [column.figures for column in _in_columns(slim)]}


def _figure(
    heading: str, figure_view: report_view.Drawn, caption: str, folder: Path, say: Catalogue
) -> tuple[dict[str, object], float | None]:
    """A figure, and about how tall it stands in a column with its title and caption; None of what is wider."""
    name = f"{figure_view.dom_id}.svg"
    markup = as_file(draw_svg(figure_view.figure, dom_id=figure_view.dom_id, words=say.section("drawn"))).replace(
        "system-ui, sans-serif", "DejaVu Sans"
    )
    (folder / name).write_text(markup, encoding="utf-8")
    drawing = ElementTree.fromstring(markup).attrib
    width, height = float(drawing["width"]), float(drawing["height"])
    in_column = width <= _NARROW
    scale = min(_SCALE, (_COLUMN_WIDTH if in_column else _PAGE_WIDTH) / width, _TALLEST / height)
    title = len(heading) + len(figure_view.title) + 2
    lines = -(-title // _TITLE_LINE) * 11.5 + -(-len(caption) // _CAPTION_LINE) * 9.5
    made: dict[str, object] = {
        "file": name,
        "of": worded(heading),
        "title": worded(figure_view.title),
        "alt": number_text.visible(figure_view.figure.alt) or say.say("rest.figure_unsaid"),
        "caption": worded(caption),
        "width": width * scale,
    }
    return made, height * scale + lines + 18.0 if in_column else None
