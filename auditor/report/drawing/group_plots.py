"""Group and judgement figures: confusion, calibration, scores, thresholds, and all judged numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from auditor.judging.figure_types import BESIDE, CELLS, Figure, Series
from auditor.report.drawing.canvas import (
    ALLOWED,
    BOUND,
    BROKEN,
    CHANCE,
    DASHES,
    FOOT,
    GRID,
    INK,
    MARKERS,
    MUTED,
    OUTCOME_MARKERS,
    SERIES,
    SMALL,
    TONES,
    WIDTH,
    Sheet,
    drawable,
    fitting,
    text_width,
    ticks,
)
from auditor.report.drawing.plots import Key, Spot, nan, plane, spots_of
from auditor.report.record.number_text import count, visible

_NEAREST, _FARTHEST = -1.0, 5.0


# ---- all that was judged -------------------------------------------------------------------------------------------

_HEAD, _ROW, _LINE = 28.0, 36.0, 15.0


@dataclass(frozen=True)
class _Scale:
    """From units of the room between ideal and bound to places on the sheet."""

    low: float
    high: float
    left: float = 6.0
    right: float = WIDTH - 6.0

    def place(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.left + share * (self.right - self.left)

    @property
    def marks(self) -> range:
        return range(math.floor(self.high) + 1)


def judgements(figure: Figure) -> Sheet:
    """A line per judged number under its outcome, on one axis: the ideal at 0, the limit at 1."""
    panels = [(s.name, [(p, *_fit_label(str(p.x))) for p in spots_of(s)]) for s in figure.series]
    points = [p for _, rows in panels for p, *_ in rows if p.y is not None]
    ends = [end for p in points for end in _ends(p)]
    scale = _Scale(max(min([0.0, *ends]), _NEAREST) - 0.06, min(max([2.0, *ends]), _FARTHEST) + 0.06)
    bottom = 4.0 + sum(_HEAD + sum(_ROW + _LINE * apart for *_, apart in rows) for _, rows in panels)
    sheet, y = Sheet(bottom + FOOT), 0.0
    canvas = sheet.canvas()
    for name, rows in panels:
        colour, marker = TONES.get(name, MUTED), OUTCOME_MARKERS.get(name, "o")
        canvas.plot([scale.left + 5.0], [y + 15.0], marker, color=colour, markersize=8.0, markeredgewidth=0)
        sheet.text(scale.left + 16.0, y + 15.0, fitting(name, WIDTH - 30.0), bold=True)
        y += _HEAD
        for point, called, words, apart in rows:
            sheet.text(scale.left, y + 8.0, called)
            y += _LINE * apart
            x, align = (scale.left, "left") if apart else (scale.right, "right")
            sheet.text(x, y + 8.0, words, align=align, colour=MUTED, size=SMALL)
            _ground(sheet, scale, y + 16.0, 16.0)
            if point.y is not None:
                _judged_line(canvas, scale, y + 24.0, (point.y, *_ends(point)), colour, marker)
            y += _ROW
    sheet.line([scale.left, scale.right], [bottom, bottom], colour=MUTED, width=0.8)
    for tick in scale.marks:
        own = {0: "ideal", 1: "bound"}.get(tick, "")
        sheet.text(
            scale.place(tick), bottom + 10.0, own or str(tick), align="center", colour=MUTED, size=SMALL, phrase_key=own
        )
    sheet.text(WIDTH / 2.0, bottom + 27.0, fitting(figure.y_label, WIDTH), align="center", colour=MUTED)
    return sheet


def _fit_label(name: str) -> tuple[str, str, bool]:
    """A number's name, what it is and must be, and whether both need a line each."""
    called, _, words = name.rpartition(BESIDE)
    apart = text_width(visible(called)) + 12.0 + text_width(visible(words), SMALL) > WIDTH - 12.0
    return fitting(called, WIDTH - 12.0), fitting(words, WIDTH - 12.0, SMALL), apart


def _ends(point: Spot) -> tuple[float, float]:
    """The ends of an interval; one that is not known lies beyond the axis."""
    return (-math.inf if point.low is None else point.low, math.inf if point.high is None else point.high)


def _ground(sheet: Sheet, scale: _Scale, top: float, height: float) -> None:
    """What is allowed, and the marks of the axis, behind one number."""
    sheet.box(scale.left, top, scale.place(1.0) - scale.left, height, colour=ALLOWED)
    for tick in scale.marks:
        colour, dashes = (BOUND, BROKEN) if tick == 1 else (MUTED if tick == 0 else GRID, (0.0, None))
        ends = [top, top + height]
        sheet.line([scale.place(tick)] * 2, ends, colour=colour, width=1.3 if tick == 1 else 1.0, dashes=dashes)


def _judged_line(
    canvas: Axes, scale: _Scale, y: float, estimate: tuple[float, float, float], colour: str, marker: str
) -> None:
    value, low, high = estimate
    canvas.plot([scale.place(low), scale.place(high)], [y, y], color=colour, linewidth=2.6, alpha=0.55)
    # Where it goes on beyond the axis, an arrow says so.
    for end, beyond, arrow in ((scale.left, low < scale.low, "<"), (scale.right, high > scale.high, ">")):
        if beyond:
            canvas.plot([end], [y], arrow, color=colour, markersize=6.0, markeredgewidth=0)
    canvas.plot([scale.place(value)], [y], marker, color=colour, markersize=7.0, markeredgewidth=0, clip_on=False)


# ---- confusion -----------------------------------------------------------------------------------------------------

# What is wrong is half as tall, so that it is told apart without its colour.
_WRONG = ("false negatives", "false positives")
_CELL_COLOURS = dict(zip(CELLS, (SERIES[0], SERIES[1], SERIES[5], SERIES[4]), strict=True))
_SHORT = dict(zip(CELLS, ("TP", "FN", "FP", "TN"), strict=True))
_GROUP = 54.0


def confusion(figure: Figure) -> Sheet:
    """A bar per group, with its rows by true label and by decision."""
    cells = [(s.name, spots_of(s)) for s in figure.series]
    groups = [str(p.x) for p in cells[0][1]] if cells else []
    sheet = Sheet(44.0 + _GROUP * len(groups) + 4.0)
    for i, (name, _) in enumerate(cells):
        x, y = (WIDTH / 2.0) * (i % 2), 10.0 + 18.0 * (i // 2)
        tall = 7.0 if name in _WRONG else 13.0
        sheet.box(x, y - tall / 2.0, 13.0, tall, colour=_CELL_COLOURS.get(name, MUTED))
        sheet.text(x + 19.0, y, fitting(f"{name} ({_SHORT.get(name, '')})", WIDTH / 2.0 - 24.0))
    for g, group in enumerate(groups):
        top = 44.0 + _GROUP * g
        found = [(name, (points[g].y or 0.0) if g < len(points) else 0.0) for name, points in cells]
        total = sum(n for _, n in found)
        sheet.text(0.0, top + 9.0, fitting(group, WIDTH - 90.0), bold=True)
        sheet.text(WIDTH, top + 9.0, f"{count(round(total))} rows", align="right", colour=MUTED, size=SMALL)
        x, said = 0.0, []
        for name, n in found:
            width = WIDTH * n / total if total > 0.0 else 0.0
            tall = 8.0 if name in _WRONG else 16.0
            if width > 0.0:
                sheet.box(x, top + 26.0 - tall / 2.0, width, tall, colour=_CELL_COLOURS.get(name, MUTED))
            x += width
            said.append(f"{_SHORT.get(name, name)} {count(round(n))}")
        sheet.text(0.0, top + 43.0, fitting(", ".join(said), WIDTH, SMALL), colour=MUTED, size=SMALL)
    return sheet


# ---- calibration ---------------------------------------------------------------------------------------------------


def calibration(figure: Figure) -> Sheet:
    """The share of favourable rows against the mean score of their bin, with the line on which both agree."""
    keys = [Key(s.name, SERIES[i % 6], (0.0, None), marker=MARKERS[i % 6]) for i, s in enumerate(figure.series)]
    ends = (-0.02, 1.02)
    agree = Key("as the score says", MUTED, CHANCE, 1.4)
    drawn = plane(figure.x_label, figure.y_label, ends, ends, legend=[*keys, agree])
    drawn.axes.plot([0.0, 1.0], [0.0, 1.0], color=MUTED, linewidth=1.4, linestyle=CHANCE)
    for i, series in enumerate(figure.series):
        # Groups of one bin lie about the same score: beside each other they can be read.
        aside = 0.008 * (i - (len(figure.series) - 1) / 2.0)
        for point in spots_of(series):
            at = drawable(point.x) if isinstance(point.x, int | float) else None
            if at is None or point.y is None:
                continue
            if point.low is not None and point.high is not None:
                ends_of = [point.low, point.high]
                drawn.axes.plot([at + aside] * 2, ends_of, color=SERIES[i % 6], linewidth=2.2, alpha=0.5)
            drawn.axes.plot([at + aside], [point.y], MARKERS[i % 6], color=SERIES[i % 6], markersize=6.0, clip_on=False)
    return drawn.sheet


# ---- scores --------------------------------------------------------------------------------------------------------

_PANEL, _LEFT = 74.0, 40.0


def scores(figure: Figure) -> Sheet:
    """The distribution of each group's scores, one below the other, on one scale."""
    panels = [(s.name, [p for p in spots_of(s) if isinstance(p.x, int | float)]) for s in figure.series]
    tallest = max([p.y or 0.0 for _, points in panels for p in points], default=0.0) or 1.0
    bottom = _PANEL * len(panels)
    sheet, width = Sheet(bottom + FOOT), WIDTH - _LEFT - 8.0
    for i, (name, points) in enumerate(panels):
        top, colour = _PANEL * i, SERIES[i % 6]
        sheet.text(0.0, top + 10.0, fitting(name, WIDTH), bold=True)
        axes = sheet.axes(_LEFT, top + 20.0, width, _PANEL - 24.0)
        axes.set_xlim(0.0, 1.0)
        axes.set_ylim(0.0, tallest * 1.25)
        places = [float(p.x) for p in points]
        step = min((b - a for a, b in zip(places, places[1:], strict=False)), default=1.0)
        axes.bar(places, [p.y or 0.0 for p in points], width=step * 0.92, color=colour, alpha=0.75, linewidth=0)
        for at, point in zip(places, points, strict=True):
            if point.y and point.low is not None and point.high is not None:
                axes.plot([at, at], [point.low, min(point.high, tallest * 1.25)], color=INK, linewidth=0.9)
        sheet.line([_LEFT, _LEFT + width], [top + _PANEL - 4.0] * 2, colour=MUTED, width=0.8)
        _mark(sheet, figure, _LEFT, width, top + 20.0, top + _PANEL - 4.0)
        at_top = top + 20.0 + (_PANEL - 24.0) * (1.0 - 1.0 / 1.25)
        sheet.text(_LEFT - 5.0, at_top, f"{tallest:.2g}", align="right", colour=MUTED, size=SMALL)
    for tick in ticks(0.0, 1.0):
        at = _LEFT + tick * width
        sheet.text(at, bottom + 8.0, f"{tick:g}", align="center", colour=MUTED, size=SMALL)
    sheet.text(_LEFT + width / 2.0, bottom + 25.0, fitting(figure.x_label, width), align="center", colour=MUTED)
    return sheet


def _mark(sheet: Sheet, figure: Figure, left: float, width: float, top: float, bottom: float) -> None:
    """The threshold that the model decides at."""
    at = drawable(figure.marked)
    if at is not None and 0.0 <= at <= 1.0:
        x = left + at * width
        sheet.line([x, x], [top, bottom], colour=BOUND, width=1.3, dashes=BROKEN)


# ---- thresholds ----------------------------------------------------------------------------------------------------

_RATES, _APART, _BETWEEN = 180.0, 90.0, 26.0


def threshold(figure: Figure) -> Sheet:
    """The groups' rates over the threshold with their band; below it the largest difference between any two."""
    groups, apart = figure.series[:-1], figure.series[-1:]
    legend = 17.0 * len(groups) + 8.0
    left, width = 44.0, WIDTH - 52.0
    top_below = legend + _RATES + _BETWEEN
    sheet = Sheet(top_below + _APART + FOOT)
    for i, series in enumerate(groups):
        y = 8.0 + 17.0 * i
        sheet.line([left, left + 26.0], [y, y], colour=SERIES[i % 6], width=2.0, dashes=DASHES[i % len(DASHES)])
        sheet.text(left + 33.0, y, fitting(series.name, width - 40.0))
    _panel(sheet, figure, groups, (left, legend, width, _RATES), SERIES, figure.y_label)
    _panel(sheet, figure, apart, (left, top_below, width, _APART), (INK,), "difference")
    foot = top_below + _APART
    for tick in ticks(0.0, 1.0):
        at = left + tick * width
        sheet.text(at, foot + 10.0, f"{tick:g}", align="center", colour=MUTED, size=SMALL)
    sheet.text(left + width / 2.0, foot + 27.0, fitting(figure.x_label, width), align="center", colour=MUTED)
    if (own := drawable(figure.marked)) is not None:
        _mark(sheet, figure, left, width, legend, foot)
        words = f"decides at {own:.3g}"
        # Beside its line on the side where there is room for it.
        fits = left + own * width + 5.0 + text_width(words, SMALL) < WIDTH
        x = left + own * width + (5.0 if fits else -5.0)
        sheet.text(x, foot - 8.0, words, align="left" if fits else "right", colour=BOUND, size=SMALL)
    return sheet


def _panel(
    sheet: Sheet,
    figure: Figure,
    lines: Sequence[Series],
    box: tuple[float, float, float, float],
    colours: Sequence[str],
    label: str,
) -> None:
    left, top, width, height = box
    for tick in (0.0, 0.5, 1.0):
        at = top + height * (1.0 - tick)
        sheet.line([left, left + width], [at, at], colour=GRID)
        sheet.text(left - 6.0, at, f"{tick:g}", align="right", colour=MUTED, size=SMALL)
    for tick in ticks(0.0, 1.0):
        at = left + tick * width
        sheet.line([at, at], [top, top + height], colour=GRID)
    sheet.line([left, left + width], [top + height] * 2, colour=MUTED, width=0.8)
    sheet.text(8.0, top + height / 2.0, fitting(label, height, SMALL), align="center", colour=MUTED, turned=True)
    axes = sheet.axes(left, top, width, height)
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(0.0, 1.0)
    for i, series in enumerate(lines):
        points = [p for p in spots_of(series) if isinstance(p.x, int | float)]
        if not points:
            continue
        x, colour = [float(p.x) for p in points], colours[i % len(colours)]
        low, high, y = ([nan(v) for v in of] for of in zip(*((p.low, p.high, p.y) for p in points), strict=True))
        axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
        axes.plot(x, y, color=colour, linewidth=2.0, linestyle=DASHES[i % len(DASHES)])
