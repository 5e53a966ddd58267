"""Figures and text in the PDF: columns of figures, visible control characters, and break points in long names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from auditor.judging.figure_types import GradedMethod, GradeTable
from auditor.report import report_view
from auditor.report.drawing.svg import as_file, draw_svg
from auditor.report.record import number_text
from auditor.report.record.audit_report import INTAKE, AuditReport
from auditor.report.record.translations import Catalogue
from auditor.report.report_figures import PillarView, front_and_rest

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


def figures_of(report: AuditReport, say: Catalogue, pillars: Sequence[PillarView], folder: Path) -> dict[str, object]:
    """Every figure of a report, those that come first before those of each pillar; drawn into ``folder`` as SVG."""
    front = [report_view.drawn_as(i, figure, say) for i, figure in front_and_rest(report, say)[0]]
    named = [(say.say("picture.heading"), d) for d in front]
    named += [(pillar_title(p.name, say), d) for p in pillars for d in p.figures]
    captions: dict[str, str] = {}
    wide: list[dict[str, object]] = []
    slim: list[tuple[dict[str, object], float]] = []
    for of, drawn in named:
        caption, called = drawn.figure.caption, drawn.title
        if len(caption) > _LONGEST_REPEATED and captions.setdefault(caption, called) != called:
            caption = say.say("paper.read_as", title=captions[caption])
        made, height = _figure(of, drawn, caption, folder, say)
        if height is None:
            wide.append(made)
        else:
            slim.append((made, height))
    return {"wide": wide, "columns": [column.figures for column in _in_columns(slim)]}


def pillar_title(name: str, say: Catalogue) -> str:
    """A pillar as a heading."""
    return say.say("rest.the_file") if name == INTAKE else say.pillar(name).capitalize()


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
    in_column = width <= _NARROW and figure_view.figure.table is None
    scale = min(_SCALE, (_COLUMN_WIDTH if in_column else _PAGE_WIDTH) / width, _TALLEST / height)
    title = len(heading) + len(figure_view.title) + 2
    lines = -(-title // _TITLE_LINE) * 11.5 + -(-len(caption) // _CAPTION_LINE) * 9.5
    made: dict[str, object] = {
        "file": name,
        "of": worded(heading),
        "title": worded(figure_view.title),
        "alt": number_text.visible(figure_view.figure.alt) or say.say("rest.figure_unsaid"),
        "caption": worded(caption),
        "grades": _grades(figure_view.figure.table, say),
        "width": width * scale,
    }
    return made, height * scale + lines + 18.0 if in_column else None


def _grades(table: GradeTable | None, say: Catalogue) -> list[dict[str, object]]:
    """A table of grades with a row per method, since its many columns are wider than a page."""
    if table is None:
        return []
    return [
        {
            "method": narrow(m.method),
            "standing": say.say(f"standing.{m.standing}"),
            "reason": worded(m.reason),
            "grades": [worded(told) for told in _graded(table, m, say)],
        }
        for m in table.methods
    ]


def _graded(table: GradeTable, method: GradedMethod, say: Catalogue) -> Iterator[str]:
    """Each grade with its interval, then those that were not measured together."""
    absent: dict[str, list[str]] = {}
    for name, own in zip((name.replace("_", " ") for name in table.grades), method.grades, strict=True):
        if own.value is None:
            absent.setdefault(say.grade(own), []).append(name)
        else:
            bounds = say.ends((own.low, own.high)) if number_text.grade_interval(own) else ""
            yield f"{name} {say.grade(own)}" + (f" ({bounds})" if bounds else "")
    for why, names in absent.items():
        yield f"{why}: {', '.join(names)}"
