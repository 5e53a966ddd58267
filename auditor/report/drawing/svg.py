"""A figure as inline SVG: no style attributes, no fixed ids, one set of colours for light and dark mode.

Matplotlib draws, with its object interface only. What it writes is then rewritten: its style attributes become
presentation attributes, which a strict content security policy allows, every colour also becomes a class, which the
page's style sheet gives its dark value, every id is made the figure's own, and the texts are put in.

A number over the dates of audits has named lines in colour, and the others grey behind them.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.etree import ElementTree

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.text import Text

from auditor.judging.figure_types import BESIDE, CELLS, MOST_NAMED, Figure, Series
from auditor.report.drawing import attribution_plots, plots
from auditor.report.drawing.canvas import (
    ALLOWED,
    BOUND,
    BROKEN,
    CHANCE,
    CLASSES,
    DASHES,
    FOOT,
    GRID,
    INK,
    MARKERS,
    MUTED,
    OUTCOME_MARKERS,
    SERIES,
    SMALL,
    STYLE,
    TONES,
    WIDTH,
    Sheet,
    drawable,
    fitting,
    text_width,
    ticks,
    value_range,
)
from auditor.report.drawing.plots import Key, Spot, criterion_line, nan, plane, spots_of
from auditor.report.record.number_text import count, moment_of, visible

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


_MOST_TICKS, _DAY = 6, 86_400.0


def trend(figure: Figure) -> Sheet:
    """The first ``MOST_NAMED`` lines in colour with a legend, all others in grey; marks on the days of audits."""
    lines = [_moments(s) for s in figure.series]
    moments = sorted({at for line in lines for at, _, _, _ in line})
    first, last = (moments[0], moments[-1]) if moments else (0.0, _DAY)
    pad = (last - first) * 0.04 or _DAY
    bound = drawable(figure.criterion)
    values = [v for line in lines for _, *ends in line for v in ends]
    named = figure.series[:MOST_NAMED]
    legend = [Key(s.name, SERIES[i % 6], DASHES[i % len(DASHES)]) for i, s in enumerate(named)]
    drawn = plane(
        figure.x_label,
        figure.y_label,
        (first - pad, last + pad),
        value_range([*values, bound]),
        legend=legend if len(lines) > 1 else (),
        places=_dates(moments),
    )
    for i in reversed(range(len(lines))):
        line, grey = lines[i], i >= MOST_NAMED
        colour = MUTED if grey else SERIES[i % 6]
        x, y = [at for at, _, _, _ in line], [nan(v) for _, v, _, _ in line]
        if not grey:
            low, high = [nan(v) for _, _, v, _ in line], [nan(v) for _, _, _, v in line]
            drawn.axes.vlines(x, low, high, color=colour, linewidth=2.2, alpha=0.4)
            drawn.axes.plot(x, y, MARKERS[i % 6], color=colour, markersize=6.0, clip_on=False)
        dashes = DASHES[0] if grey else DASHES[i % len(DASHES)]
        width, alpha = (0.8, 0.5) if grey else (2.0, 1.0)
        drawn.axes.plot(x, y, color=colour, linewidth=width, linestyle=dashes, alpha=alpha)
    if bound is not None:
        criterion_line(drawn, bound, f"criterion {bound:g}")
    return drawn.sheet


def _moments(series: Series) -> list[tuple[float, float | None, float | None, float | None]]:
    """(seconds, value, low, high) of each point whose place is a moment."""
    kept = []
    for point in spots_of(series):
        when = moment_of(str(point.x))
        if when is not None:
            kept.append((when.timestamp(), point.y, point.low, point.high))
    return kept


def _dates(moments: Sequence[float]) -> list[tuple[float, str]]:
    """Marks at audits, as many as have room: days, or hours where all were made within two days."""
    if not moments:
        return []
    span = moments[-1] - moments[0]
    form = "%Y-%m-%d" if span >= 2.0 * _DAY or len(moments) == 1 else "%d %b %H:%M"
    kept = [moments[0]]
    for at in moments[1:]:
        if at - kept[-1] >= span / (_MOST_TICKS - 1.5):
            kept.append(at)
    if kept[-1] != moments[-1]:
        # The last audit is always told: the mark before it gives way where both have no room.
        kept = [at for at in kept if moments[-1] - at >= span / (_MOST_TICKS - 1.5)] + [moments[-1]]
    return [(at, datetime.fromtimestamp(at, UTC).strftime(form)) for at in kept]


_DRAW = {
    "rates": plots.rates,
    "bars": plots.bars,
    "curve": plots.curve,
    "roc": plots.roc,
    "forest": plots.forest,
    "text": attribution_plots.text,
    "heatmap": attribution_plots.heatmap,
    "table": attribution_plots.table,
    "beeswarm": attribution_plots.beeswarm,
    "judged": judgements,
    "confusion": confusion,
    "calibration": calibration,
    "scores": scores,
    "threshold": threshold,
    "trend": trend,
    "pairs": attribution_plots.pairs,
}
_METADATA = ("Date", "Creator", "Format", "Type")
_DOTS_PER_INCH = 144

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_PICTURE = "data:image/png;base64,"
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
ElementTree.register_namespace("", _SVG)


def draw_svg(figure: Figure, *, dom_id: str, words: Mapping[str, str] | None = None) -> str:
    """The figure as an ``<svg>`` element with ids that begin with ``dom_id``; deterministic.

    It has a title and a description, is ``WIDTH`` units wide (twice that for a table of grades or a text) with text of
    9.5 units and more, and scales to its container. Text of the data is drawn as it is: no mathematical notation, no
    control characters. Pictures are embedded. ``words``: the tool's own by their names, in another language.
    """

    def draw() -> Sheet:
        sheet = _DRAW[figure.kind](figure)
        for i, name in sheet.own.items():
            sheet.texts[i] = visible((words or {}).get(name, sheet.texts[i]))
        return sheet

    return sheet_svg(draw, title=figure.title, alt=figure.alt, dom_id=dom_id)


def sheet_svg(draw: Callable[[], Sheet], *, title: str, alt: str, dom_id: str) -> str:
    """A sheet as such an ``<svg>`` element; ``draw`` is called in the style that figures are drawn in."""
    with style.context(["default", {**STYLE, "svg.hashsalt": dom_id}]):
        sheet = draw()
        FigureCanvasSVG(sheet.drawing)
        out = io.StringIO()
        sheet.drawing.savefig(out, format="svg", transparent=True, metadata=dict.fromkeys(_METADATA))
    return _rewritten(out.getvalue(), title, alt, dom_id, sheet)


def svg_file(figure: Figure) -> str:
    """The figure as a separate SVG file: white background, natural size, light colours."""
    return as_file(draw_svg(figure, dom_id="figure"))


def as_file(svg: str) -> str:
    """An ``<svg>`` element as a separate file."""
    root = ElementTree.fromstring(svg)
    width, height = root.attrib["viewBox"].split()[2:]
    root.attrib |= {"width": width, "height": height}
    ground = ElementTree.Element(f"{{{_SVG}}}rect", {"width": "100%", "height": "100%", "fill": "#ffffff"})
    # After the title and the description, which must come first to be read.
    root.insert(2, ground)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def draw_png(figure: Figure) -> bytes:
    """The figure as a PNG file on white, two pixels a unit; same figure, same bytes on one machine.

    Letters that matplotlib's font lacks are boxes in it; the SVG leaves them to the viewer's fonts.
    """
    with style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        sheet = _DRAW[figure.kind](figure)
        FigureCanvasAgg(sheet.drawing)
        for written in sheet.drawing.findobj(Text):
            if token := written.get_text():
                written.set_text(sheet.texts[int(token.removeprefix("T"))])
        out = io.BytesIO()
        sheet.drawing.savefig(out, format="png", dpi=_DOTS_PER_INCH, facecolor="white", metadata={"Software": None})
    return out.getvalue()


_TEXT_TAG = f"{{{_SVG}}}text"
_DROPPED_PROPERTIES = frozenset({"font-family", "font"})
_DROPPED_ELEMENTS = frozenset({f"{{{_SVG}}}style", f"{{{_SVG}}}metadata"})


def _rewritten(markup: str, title: str, alt: str, dom_id: str, sheet: Sheet) -> str:
    root = ElementTree.fromstring(markup)
    root.attrib.clear()
    root.attrib |= {
        "viewBox": f"0 0 {sheet.width:g} {sheet.height:g}",
        "role": "img",
        "class": "figure-svg",
        "aria-labelledby": f"{dom_id}-title {dom_id}-desc",
        "font-family": "system-ui, sans-serif",
        "stroke-linejoin": "round",
        "stroke-linecap": "butt",
    }
    for parent in list(root.iter()):
        for child in [c for c in parent if c.tag in _DROPPED_ELEMENTS]:
            parent.remove(child)
    used = {ref for e in root.iter() for ref in _references(e)}
    new_ids = {old: f"{dom_id}-{i}" for i, old in enumerate(sorted(used))}
    for element in root.iter():
        _rewrite(element, new_ids)
        if element.tag == _TEXT_TAG:
            element.text = sheet.texts[int((element.text or "").removeprefix("T"))]
    for tag, text in (("desc", alt), ("title", title)):
        node = ElementTree.Element(f"{{{_SVG}}}{tag}", {"id": f"{dom_id}-{tag}"})
        node.text = visible(text)
        root.insert(0, node)
    return ElementTree.tostring(root, encoding="unicode")


def _references(element: ElementTree.Element) -> list[str]:
    found = [m for value in element.attrib.values() for m in _REFERENCE.findall(value)]
    linked = element.attrib.get(_XLINK, "")
    return [*found, linked.removeprefix("#")] if linked.startswith("#") else found


def _rewrite(element: ElementTree.Element, new_ids: dict[str, str]) -> None:
    attributes = element.attrib
    if "id" in attributes:
        old = attributes.pop("id")
        if old in new_ids:
            attributes["id"] = new_ids[old]
    if _XLINK in attributes:
        linked = attributes.pop(_XLINK)
        attributes["href"] = "#" + new_ids[linked.removeprefix("#")] if linked.startswith("#") else _embedded(linked)
    for name in [n for n, value in attributes.items() if "url(#" in value]:
        attributes[name] = _REFERENCE.sub(lambda m: f"url(#{new_ids[m.group(1)]})", attributes[name])
    classes: list[str] = []
    for declaration in filter(None, (d.strip() for d in attributes.pop("style", "").split(";"))):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name in _DROPPED_PROPERTIES:
            continue
        attributes[name] = value.removesuffix("px")
        if name in ("fill", "stroke") and value in CLASSES:
            classes.append(f"{name[0]}-{CLASSES[value]}")
    if classes:
        attributes["class"] = " ".join(classes)
    if attributes.get("transform", "").startswith("rotate(-0 "):
        del attributes["transform"]
    element.text = element.text if element.tag == _TEXT_TAG else None
    element.tail = None


def _embedded(linked: str) -> str:
    """A picture as matplotlib embeds it, which is the only thing that a drawing may refer to."""
    if not linked.startswith(_PICTURE):
        raise ValueError("a figure may embed pictures and refer to nothing else")
    return _PICTURE + "".join(linked.removeprefix(_PICTURE).split())
