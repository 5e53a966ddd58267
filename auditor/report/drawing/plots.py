"""Plots of series: rates and bars with one row per name, curves and ROC on two numeric axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from auditor.judging.figure_types import Figure, Series
from auditor.report.drawing.canvas import (
    BOUND,
    BROKEN,
    CHANCE,
    DASHES,
    FOOT,
    GRID,
    HEAD,
    INK,
    MARKERS,
    MUTED,
    RIGHT,
    ROW,
    SERIES,
    SMALL,
    WIDTH,
    Dashes,
    Sheet,
    drawable,
    fitting,
    text_width,
    ticks,
    value_range,
)
from auditor.report.drawing.figure_data import in_words
from auditor.report.record.number_text import UNDEFINED, number, visible

RATIO = "ratio between groups"
FOREST = 400.0


@dataclass(frozen=True)
class Spot:
    """A point of a plot with its known values."""

    x: str | float
    y: float | None
    low: float | None
    high: float | None


def spots_of(series: Series) -> list[Spot]:
    """The drawable points of a series."""

    def drawable_at(values: Sequence[float | None], i: int) -> float | None:
        return drawable(values[i]) if i < len(values) else None

    return [
        Spot(x, drawable_at(series.y, i), drawable_at(series.low, i), drawable_at(series.high, i))
        for i, x in enumerate(series.x)
    ]


# ---- rates and bars: one row per name ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    """A sheet of rows: names on the left, a value axis in the middle, values on the right."""

    sheet: Sheet
    axes: Axes
    left: float
    low: float
    high: float
    total: float = WIDTH

    @property
    def width(self) -> float:
        return self.total - RIGHT - self.left

    def x(self, value: float) -> float:
        return self.left + (value - self.low) / (self.high - self.low) * self.width

    def name(self, y: float, text: str, value: float | None) -> None:
        self.sheet.text(self.left - 10.0, y, fitting(text, self.left - 10.0), align="right")
        shown = UNDEFINED if value is None else number(value)
        colour, size = (MUTED, 9.5) if value is None else (INK, SMALL)
        self.sheet.text(self.total - 1.0, y, shown, align="right", colour=colour, size=size)


def _row_sheet(
    height: float,
    names: Sequence[str],
    heads: Sequence[str],
    low: float,
    high: float,
    label: str,
    *,
    total: float = WIDTH,
    widest: float = 138.0,
    top: float = 6.0,
) -> _Rows:
    sheet = Sheet(height, total)
    longest = max(
        [text_width(visible(n)) + 14.0 for n in names] + [text_width(visible(h)) * 1.06 for h in heads], default=0.0
    )
    left = min(max(longest, 44.0), widest)
    bottom = height - FOOT
    axes = sheet.axes(left, 0.0, total - RIGHT - left, bottom)
    axes.set_xlim(low, high)
    axes.set_ylim(bottom, 0.0)
    rows = _Rows(sheet, axes, left, low, high, total)
    for tick in ticks(low, high):
        sheet.line([rows.x(tick)] * 2, [top, bottom], colour=GRID)
        sheet.text(rows.x(tick), bottom + 10.0, f"{tick:g}", align="center", colour=MUTED, size=SMALL)
    sheet.line([left, left + rows.width], [bottom, bottom], colour=MUTED, width=0.8)
    sheet.text(left + rows.width / 2, bottom + 27.0, fitting(label, rows.width + RIGHT), align="center", colour=MUTED)
    return rows


def _bound_line(rows: _Rows, limit: float, label: str, top: float, bottom: float, *, clear_of: float) -> None:
    if not rows.low <= limit <= rows.high:
        return
    x, label = rows.x(limit), fitting(label, WIDTH * 0.45, SMALL)
    rows.sheet.line([x, x], [top + 3.0, bottom], colour=BOUND, width=1.3, dashes=BROKEN)
    size = text_width(label, SMALL)
    if x + 4.0 + size <= rows.total:
        rows.sheet.text(max(x + 4.0, clear_of), top + 5.0, label, colour=BOUND, size=SMALL)
    else:
        rows.sheet.text(x - 4.0, top + 5.0, label, align="right", colour=BOUND, size=SMALL)


def _criterion_of(figure: Figure, series: Series) -> tuple[float, str] | None:
    if (own := drawable(series.criterion)) is not None:
        return own, series.criterion_label or "criterion"
    shared = drawable(figure.criterion)
    return None if shared is None else (shared, f"criterion {shared:g}")


MOST_BESIDE = 4
WIDEST = 176.0
_DOT_ROW = 14.0


def rates(figure: Figure) -> Sheet:
    """One row per group and a panel per rate; a row per rate if there are few groups, equal for all rates."""
    places = {s.x for s in figure.series}
    few = len(places) == 1 and 0 < len(next(iter(places))) <= MOST_BESIDE
    if few and (len(figure.series) > 1 or any(text_width(visible(str(x))) > WIDEST - 14.0 for x in next(iter(places)))):
        return _dots(figure)
    panels = [(s, spots_of(s), _criterion_of(figure, s)) for s in figure.series]
    titled = len(panels) > 1
    heads = [HEAD if titled or criterion else 8.0 for _, _, criterion in panels]
    height = sum(heads) + ROW * sum(len(points) for _, points, _ in panels) + 4.0 + FOOT
    values = [v for _, points, _ in panels for p in points for v in (p.y, p.low, p.high)]
    low, high = value_range([*values, *(c[0] for _, _, c in panels if c)])
    names = [str(p.x) for _, points, _ in panels for p in points]
    heads_of = [s.name for s in figure.series] if titled else []
    rows = _row_sheet(height, names, heads_of, low, high, figure.y_label, widest=WIDEST)
    y = 0.0
    for i, ((series, points, criterion), head) in enumerate(zip(panels, heads, strict=True)):
        colour, top = SERIES[i % len(SERIES)], y
        if titled:
            rows.sheet.text(0.0, y + 13.0, fitting(series.name, WIDTH * 0.5), bold=True)
        y += head
        if criterion:
            clear = text_width(fitting(series.name, WIDTH * 0.5)) * 1.06 + 4.0 if titled else 0.0
            _bound_line(rows, *criterion, top + (8.0 if titled else 2.0), y + ROW * len(points), clear_of=clear)
        for point in points:
            _interval_row(rows, point, y + ROW / 2, colour, MARKERS[i % len(MARKERS)])
            y += ROW
    return rows.sheet


def _dots(figure: Figure) -> Sheet:
    """A row for each rate with a mark for each group, which a legend names."""
    lines = [(s, spots_of(s), _criterion_of(figure, s)) for s in figure.series]
    groups = [str(x) for x in figure.series[0].x]
    legend = 17.0 * len(groups) + 6.0
    each = [_DOT_ROW * len(groups) + (22.0 if criterion else 9.0) for _, _, criterion in lines]
    values = [v for _, points, _ in lines for p in points for v in (p.y, p.low, p.high)]
    low, high = value_range([*values, *(c[0] for _, _, c in lines if c)])
    names = [in_words(s.name) for s in figure.series]
    rows = _row_sheet(legend + sum(each) + 4.0 + FOOT, names, [], low, high, figure.y_label, top=legend)
    canvas, y = rows.sheet.canvas(), legend
    for g, group in enumerate(groups):
        at = 8.0 + 17.0 * g
        canvas.plot([5.0], [at], MARKERS[g], color=SERIES[g], markersize=6.5)
        rows.sheet.text(16.0, at, fitting(group, WIDTH - 20.0))
    for (_, points, criterion), name, height in zip(lines, names, each, strict=True):
        rows.sheet.line([0.0, WIDTH], [y, y], colour=GRID)
        first = y + height - _DOT_ROW * len(groups) - 4.0
        middle = first + _DOT_ROW * len(groups) / 2.0
        told = _in_lines(name, rows.left - 10.0)
        for k, line in enumerate(told):
            rows.sheet.text(rows.left - 10.0, middle + 13.0 * (k - (len(told) - 1) / 2.0), line, align="right")
        if criterion:
            _bound_line(rows, *criterion, y + 3.0, y + height, clear_of=0.0)
        for g, point in enumerate(points):
            at = first + _DOT_ROW * (g + 0.5)
            shown = UNDEFINED if point.y is None else number(point.y)
            rows.sheet.text(WIDTH - 1.0, at, shown, align="right", colour=MUTED if point.y is None else INK, size=SMALL)
            _interval(rows, point, at, SERIES[g], MARKERS[g])
        y += height
    return rows.sheet


def _in_lines(name: str, width: float) -> list[str]:
    """A name in one line, or in two where it has no room in one."""
    words = visible(name).split(" ")
    if text_width(visible(name)) <= width or len(words) < 2:
        return [fitting(name, width)]
    first = 1
    while first < len(words) - 1 and text_width(" ".join(words[: first + 1])) <= width:
        first += 1
    return [fitting(" ".join(part), width) for part in (words[:first], words[first:])]


def _interval_row(rows: _Rows, point: Spot, y: float, colour: str, marker: str) -> None:
    rows.name(y, str(point.x), point.y)
    _interval(rows, point, y, colour, marker)


def _interval(rows: _Rows, point: Spot, y: float, colour: str, marker: str) -> None:
    if point.y is None:
        return
    if point.low is not None and point.high is not None:
        rows.axes.plot([point.low, point.high], [y, y], color=colour, linewidth=2.6, alpha=0.55)
    rows.axes.plot([point.y], [y], marker, color=colour, markersize=6.5, clip_on=False)


def forest(figure: Figure) -> Sheet:
    """One row per headline, a panel per sensitive feature and requirement, one axis with the ideal value on it."""
    panels = [(s, spots_of(s), _criterion_of(figure, s)) for s in figure.series]
    height = sum(HEAD + ROW * len(points) for _, points, _ in panels) + 4.0 + FOOT
    ideal = 1.0 if figure.y_label == RATIO else 0.0
    values = [v for _, points, _ in panels for p in points for v in (p.y, p.low, p.high)]
    low, high = value_range([ideal, *values, *(c[0] for _, _, c in panels if c)])
    names = [str(p.x) for _, points, _ in panels for p in points]
    rows = _row_sheet(height, names, [], low, high, figure.y_label, total=FOREST, widest=FOREST * 0.55)
    if low <= ideal <= high:
        rows.sheet.line([rows.x(ideal)] * 2, [6.0, height - FOOT], colour=MUTED, width=1.2)
    y = 0.0
    for i, (series, points, criterion) in enumerate(panels):
        top, title = y, fitting(series.name, FOREST * 0.6)
        rows.sheet.text(0.0, y + 13.0, title, bold=True)
        y += HEAD
        if criterion:
            clear = text_width(title) * 1.06 + 4.0
            _bound_line(rows, *criterion, top + 8.0, y + ROW * len(points), clear_of=clear)
        for point in points:
            _interval_row(rows, point, y + ROW / 2, SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)])
            y += ROW
    return rows.sheet


def bars(figure: Figure) -> Sheet:
    """One bar per name."""
    bars = [p for s in figure.series for p in spots_of(s)]
    criterion = next((c for s in figure.series if (c := _criterion_of(figure, s))), None)
    head = HEAD if criterion else 8.0
    height = head + ROW * len(bars) + 4.0 + FOOT
    values = [v for p in bars for v in (p.y, p.low, p.high)] + ([criterion[0]] if criterion else [])
    low, high = value_range(values, zero=True)
    rows = _row_sheet(height, [str(p.x) for p in bars], [], low, high, figure.y_label, widest=WIDTH * 0.5)
    for i, bar in enumerate(bars):
        y = head + ROW * (i + 0.5)
        rows.name(y, str(bar.x), bar.y)
        if bar.y is None:
            continue
        rows.axes.barh([y], [bar.y], height=11.0, color=SERIES[0], linewidth=0)
        if bar.low is not None and bar.high is not None:
            rows.axes.plot([bar.low, bar.high], [y, y], color=INK, linewidth=1.3)
    if criterion:
        _bound_line(rows, *criterion, 2.0, height - FOOT, clear_of=0.0)
    return rows.sheet


# ---- curves: two numeric axes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Key:
    """One line of a legend."""

    name: str
    colour: str
    dashes: Dashes
    width: float = 2.0
    marker: str = ""


def _legend(figure: Figure) -> list[Key]:
    return [Key(s.name, SERIES[i % len(SERIES)], DASHES[i % len(DASHES)]) for i, s in enumerate(figure.series)]


@dataclass(frozen=True)
class Plane:
    """A sheet with two numeric axes."""

    sheet: Sheet
    axes: Axes


_LEFT, _PLOT = 56.0, 210.0


def plane(
    x_label: str,
    y_label: str,
    x: tuple[float, float],
    y: tuple[float, float],
    *,
    log_x: bool = False,
    log_y: bool = False,
    legend: Sequence[Key] = (),
    places: Sequence[tuple[float, str]] | None = None,
) -> Plane:
    """An empty plot over ranges of x and y: grid, numbers, labels, legend; ``places``: its own marks along x."""
    top = 10.0 + (17.0 * len(legend) + 4.0 if legend else 0.0)
    sheet = Sheet(top + _PLOT + FOOT)
    width = WIDTH - _LEFT - 14.0
    axes = sheet.axes(_LEFT, top, width, _PLOT)
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    axes.set_xlim(*x)
    axes.set_ylim(*y)

    def share(value: float, ends: tuple[float, float], log: bool) -> float:
        low, high, at = (math.log10(v) for v in (*ends, value)) if log else (*ends, value)
        return (at - low) / (high - low)

    plain = [(tick, f"{tick:g}") for tick in (_decades(*x) if log_x else ticks(*x))] if places is None else places
    for tick, words in plain:
        at = _LEFT + share(tick, x, log_x) * width
        sheet.line([at, at], [top, top + _PLOT], colour=GRID)
        edge = at + text_width(words, SMALL) / 2.0 > WIDTH
        x_at, align = (WIDTH, "right") if edge else (at, "center")
        sheet.text(x_at, top + _PLOT + 10.0, words, align=align, colour=MUTED, size=SMALL)
    for tick in _decades(*y) if log_y else ticks(*y):
        at = top + _PLOT * (1.0 - share(tick, y, log_y))
        sheet.line([_LEFT, _LEFT + width], [at, at], colour=GRID)
        sheet.text(_LEFT - 6.0, at, f"{tick:g}", align="right", colour=MUTED, size=SMALL)
    sheet.line([_LEFT, _LEFT + width], [top + _PLOT] * 2, colour=MUTED, width=0.8)
    sheet.text(_LEFT + width / 2, top + _PLOT + 27.0, fitting(x_label, width), align="center", colour=MUTED)
    told = fitting(y_label, _PLOT, SMALL)
    sheet.text(8.0, top + _PLOT / 2, told, align="center", colour=MUTED, size=SMALL, turned=True)
    for i, key in enumerate(legend):
        at = 8.0 + 17.0 * i
        if key.marker:
            sheet.canvas().plot([_LEFT + 13.0], [at], key.marker, color=key.colour, markersize=6.5)
        else:
            sheet.line([_LEFT, _LEFT + 26.0], [at, at], colour=key.colour, width=key.width, dashes=key.dashes)
        sheet.text(_LEFT + 33.0, at, fitting(key.name, WIDTH - _LEFT - 45.0))
    return Plane(sheet, axes)


def _decades(low: float, high: float) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    every = max(1, math.ceil((last - first + 1) / 5))
    return [10.0**k for k in range(first, last + 1) if (last - k) % every == 0]


def _placed(series: Series, *, positive_x: bool, positive_y: bool) -> list[tuple[float, Spot]]:
    kept: list[tuple[float, Spot]] = []
    for point in spots_of(series):
        x = drawable(point.x) if isinstance(point.x, (int, float)) else None
        if x is None or (positive_x and x <= 0.0) or (positive_y and (point.y is None or point.y <= 0.0)):
            continue
        kept.append((x, point))
    return kept


def nan(x: float | None) -> float:
    """A number for matplotlib, NaN if missing."""
    return math.nan if x is None else x


def curve(figure: Figure) -> Sheet:
    """Lines along a numeric coordinate."""
    lines = [_placed(s, positive_x=False, positive_y=False) for s in figure.series]
    places = [x for line in lines for x, _ in line]
    log_x = bool(places) and min(places) > 0.0 and max(places) / min(places) >= 50.0
    if log_x:
        x_range = (min(places) / 1.3, max(places) * 1.3)
    else:
        low, high = (min(places), max(places)) if places else (0.0, 1.0)
        pad = (high - low) * 0.04 or abs(high) * 0.1 or 0.5
        x_range = (low - pad, high + pad)
    criteria = [c for s in figure.series if (c := _criterion_of(figure, s))]
    values = [v for line in lines for _, p in line for v in (p.y, p.low, p.high)] + [c[0] for c in criteria]
    y_range = value_range(values)
    legend = _legend(figure) if len(lines) > 1 else ()
    drawn = plane(figure.x_label, figure.y_label, x_range, y_range, log_x=log_x, legend=legend)
    for i, line in enumerate(lines):
        colour, x = SERIES[i % len(SERIES)], [x for x, _ in line]
        drawn.axes.fill_between(
            x, [nan(p.low) for _, p in line], [nan(p.high) for _, p in line], color=colour, alpha=0.16, linewidth=0
        )
        drawn.axes.plot(x, [nan(p.y) for _, p in line], color=colour, linewidth=2.0, linestyle=DASHES[i % len(DASHES)])
        drawn.axes.plot(
            x, [nan(p.y) for _, p in line], MARKERS[i % len(MARKERS)], color=colour, markersize=6.0, clip_on=False
        )
    for at, label in dict.fromkeys(criteria):
        criterion_line(drawn, at, label)
    return drawn.sheet


def criterion_line(plane: Plane, limit: float, label: str) -> None:
    """Draw the requirement on the value axis, in words."""
    plane.axes.axhline(limit, color=BOUND, linewidth=1.3, linestyle=BROKEN)
    plane.axes.annotate(
        plane.sheet.token(fitting(label, 140.0, SMALL)),
        (1.0, limit),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 4),
        textcoords="offset points",
        ha="right",
        color=BOUND,
        fontsize=SMALL,
    )


def roc(figure: Figure) -> Sheet:
    """ROC curves on logarithmic axes."""
    lines = [_placed(s, positive_x=True, positive_y=True) for s in figure.series]
    seen = [v for line in lines for x, p in line for v in (x, nan(p.y))]
    lowest = 10.0 ** math.floor(math.log10(min(seen)) + 1e-9) if seen else 0.01
    ends = (min(max(lowest, 1e-6), 0.1), 1.0)
    legend = [*_legend(figure), Key("chance", MUTED, CHANCE, 1.4)]
    drawn = plane(figure.x_label, figure.y_label, ends, ends, log_x=True, log_y=True, legend=legend)
    drawn.axes.plot(ends, ends, color=MUTED, linewidth=1.4, linestyle=CHANCE)
    for i, line in enumerate(lines):
        colour, x = SERIES[i % len(SERIES)], [x for x, _ in line]
        if any(p.low is not None and p.high is not None for _, p in line):
            floor = ends[0]
            drawn.axes.fill_between(
                x,
                [max(nan(p.low), floor) for _, p in line],
                [max(nan(p.high), floor) for _, p in line],
                color=colour,
                alpha=0.16,
                linewidth=0,
            )
        drawn.axes.plot(x, [nan(p.y) for _, p in line], color=colour, linewidth=2.0, linestyle=DASHES[i % len(DASHES)])
    return drawn.sheet
