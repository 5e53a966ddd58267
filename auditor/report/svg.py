"""A figure of the record as inline SVG: no style attributes, no fixed ids, one set of colours for light and for dark.

Matplotlib draws, with its object interface only. What it writes is then rewritten: its style attributes become
presentation attributes, which a strict content security policy allows, every colour also becomes a class, which the
page's style sheet gives its dark value, every id is made the figure's own, and the texts are put in.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D

from auditor.report.record import FigureRecord, SeriesRecord
from auditor.report.text import UNDEFINED, number, shortened, visible

# Okabe and Ito's palette, in an order whose first four are told apart in greyscale too; the light ink is the default of
# the markup, the dark ink comes from the style sheet by class.
INK, MUTED, GRID, BOUND = "#20262d", "#5a646e", "#dfe3e6", "#20262e"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
MARKERS = ("o", "s", "^", "D", "v", "P")
_Dashes = tuple[float, tuple[float, ...] | None]
_CHANCE: _Dashes = (0.0, (1.0, 2.0))
_BROKEN: _Dashes = (0.0, (4.0, 3.0))
DASHES: tuple[_Dashes, ...] = (
    (0.0, None),
    (0.0, (6.0, 2.0)),
    (0.0, (2.0, 2.0)),
    (0.0, (8.0, 2.0, 2.0, 2.0)),
)
CLASSES = {INK: "ink", MUTED: "muted", GRID: "grid", BOUND: "bound"} | {c: f"s{i}" for i, c in enumerate(SERIES, 1)}

WIDTH = 380.0
_SMALL, _TEXT = 10.5, 11.5
_ROW, _HEAD, _FOOT = 20.0, 24.0, 38.0
_RIGHT = 46.0
_PER_CHAR = 0.56
_LARGEST = 1e100
_STYLE = {"svg.fonttype": "none", "text.parse_math": False, "text.usetex": False, "path.simplify": True}

_SVG = "http://www.w3.org/2000/svg"
_HREF = "{http://www.w3.org/1999/xlink}href"
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
ElementTree.register_namespace("", _SVG)


@dataclass(frozen=True)
class _Point:
    x: str | float
    y: float | None
    low: float | None
    high: float | None


def draw_svg(figure: FigureRecord, *, dom_id: str) -> str:
    """The figure as an ``<svg>`` element whose ids all begin with ``dom_id``; same figure, same text.

    It has a title and a description, is ``WIDTH`` units wide with text of 10.5 units and more, and scales to its
    container. Text of the data is drawn as it is: no mathematical notation, no control characters.
    """
    draw = {"rates": _rates, "bars": _bars, "curve": _curve, "roc": _roc}[figure.kind]
    with style.context(["default", {**_STYLE, "svg.hashsalt": dom_id}]):
        sheet = draw(figure)
        out = io.StringIO()
        sheet.drawing.savefig(out, format="svg", transparent=True, metadata=dict.fromkeys(_METADATA))
    return _rewritten(out.getvalue(), figure, dom_id, sheet)


_METADATA = ("Date", "Creator", "Format", "Type")


# ---- a sheet to draw on, in units from its top left corner ---------------------------------------------------------


@dataclass
class _Sheet:
    """``texts`` holds what to write: matplotlib only places a token for each, and so never reads text of the data."""

    height: float
    texts: list[str] = field(default_factory=list)
    drawing: Drawing = field(init=False)

    def __post_init__(self) -> None:
        self.drawing = Drawing(figsize=(WIDTH / 72.0, self.height / 72.0), dpi=72)
        FigureCanvasSVG(self.drawing)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        box = (left / WIDTH, 1.0 - (top + height) / self.height, width / WIDTH, height / self.height)
        axes = self.drawing.add_axes(box)
        axes.set_axis_off()
        axes.set_zorder(3)
        return axes

    def token(self, text: str) -> str:
        self.texts.append(visible(text))
        return f"T{len(self.texts) - 1}"

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        align: str = "left",
        colour: str = INK,
        size: float = _TEXT,
        bold: bool = False,
        turned: bool = False,
    ) -> None:
        self.drawing.text(
            x / WIDTH,
            1.0 - y / self.height,
            self.token(text),
            ha=align,
            va="center_baseline",
            color=colour,
            fontsize=size,
            fontweight="bold" if bold else "normal",
            rotation=90 if turned else 0,
        )

    def line(
        self,
        x: Sequence[float],
        y: Sequence[float],
        *,
        colour: str,
        width: float = 1.0,
        dashes: _Dashes = (0.0, None),
    ) -> None:
        self.drawing.add_artist(
            Line2D(
                [v / WIDTH for v in x],
                [1.0 - v / self.height for v in y],
                color=colour,
                linewidth=width,
                linestyle=dashes,
            )
        )


def _width(text: str, size: float = _TEXT) -> float:
    return len(text) * size * _PER_CHAR


def _fitting(text: str, width: float, size: float = _TEXT) -> str:
    return shortened(visible(text), max(4, int(width / (size * _PER_CHAR))))


# ---- numbers and scales --------------------------------------------------------------------------------------------


def _drawable(x: float | None) -> float | None:
    return x if x is not None and math.isfinite(x) and abs(x) < _LARGEST else None


def _points(series: SeriesRecord) -> list[_Point]:
    def at(values: Sequence[float | None], i: int) -> float | None:
        return _drawable(values[i]) if i < len(values) else None

    return [_Point(x, at(series.y, i), at(series.low, i), at(series.high, i)) for i, x in enumerate(series.x)]


def _ticks(low: float, high: float, about: int = 5) -> list[float]:
    raw = (high - low) / about
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(m * size for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * size >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, first + about + 2) if i * step <= high + step * 1e-9]


def _range(values: Sequence[float | None], *, zero: bool = False) -> tuple[float, float]:
    """The axis for some values; rates get at least 0.4 of [0, 1], so that noise does not look like a gap."""
    known = [v for v in values if v is not None] + ([0.0] if zero else [])
    if not any(known):
        return 0.0, 1.0
    low, high = min(known), max(known)
    if low >= 0.0 and high <= 1.0 and not zero:
        low, high = math.floor(low * 10.0 - 0.2) / 10.0, math.ceil(high * 10.0 + 0.2) / 10.0
        if high - low < 0.4:
            middle = min(max((low + high) / 2.0, 0.2), 0.8)
            low, high = middle - 0.2, middle + 0.2
        return max(low, 0.0), min(high, 1.0)
    pad = (high - low) * 0.06 or abs(high) * 0.1 or 0.5
    return (0.0 if zero and low == 0.0 else low - pad), (0.0 if zero and high == 0.0 else high + pad)


# ---- rates and bars: one row per name ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    """A sheet of rows: names on the left, a value axis in the middle, values on the right."""

    sheet: _Sheet
    axes: Axes
    left: float
    low: float
    high: float

    @property
    def width(self) -> float:
        return WIDTH - _RIGHT - self.left

    def x(self, value: float) -> float:
        return self.left + (value - self.low) / (self.high - self.low) * self.width

    def name(self, y: float, text: str, value: float | None) -> None:
        self.sheet.text(self.left - 10.0, y, _fitting(text, self.left - 10.0), align="right")
        shown = UNDEFINED if value is None else number(value)
        colour, size = (MUTED, 9.5) if value is None else (INK, _SMALL)
        self.sheet.text(WIDTH - 1.0, y, shown, align="right", colour=colour, size=size)


def _row_sheet(
    height: float, names: Sequence[str], heads: Sequence[str], low: float, high: float, label: str
) -> _Rows:
    sheet, top = _Sheet(height), 6.0
    longest = max([_width(visible(n)) + 14.0 for n in names] + [_width(visible(h)) * 1.06 for h in heads], default=0.0)
    left = min(max(longest, 44.0), 138.0)
    bottom = height - _FOOT
    axes = sheet.axes(left, 0.0, WIDTH - _RIGHT - left, bottom)
    axes.set_xlim(low, high)
    axes.set_ylim(bottom, 0.0)
    rows = _Rows(sheet, axes, left, low, high)
    for tick in _ticks(low, high):
        sheet.line([rows.x(tick)] * 2, [top, bottom], colour=GRID)
        sheet.text(rows.x(tick), bottom + 10.0, f"{tick:g}", align="center", colour=MUTED, size=_SMALL)
    sheet.line([left, left + rows.width], [bottom, bottom], colour=MUTED, width=0.8)
    sheet.text(left + rows.width / 2, bottom + 27.0, _fitting(label, rows.width + _RIGHT), align="center", colour=MUTED)
    return rows


def _bound_line(rows: _Rows, at: float, label: str, top: float, bottom: float, *, clear_of: float) -> None:
    if not rows.low <= at <= rows.high:
        return
    x, label = rows.x(at), _fitting(label, WIDTH * 0.45, _SMALL)
    rows.sheet.line([x, x], [top + 3.0, bottom], colour=BOUND, width=1.3, dashes=_BROKEN)
    size = _width(label, _SMALL)
    if x + 4.0 + size <= WIDTH:
        rows.sheet.text(max(x + 4.0, clear_of), top + 5.0, label, colour=BOUND, size=_SMALL)
    else:
        rows.sheet.text(x - 4.0, top + 5.0, label, align="right", colour=BOUND, size=_SMALL)


def _criterion_of(figure: FigureRecord, series: SeriesRecord) -> tuple[float, str] | None:
    if (own := _drawable(series.criterion)) is not None:
        return own, series.criterion_label or "criterion"
    shared = _drawable(figure.criterion)
    return None if shared is None else (shared, f"criterion {shared:g}")


def _rates(figure: FigureRecord) -> _Sheet:
    panels = [(s, _points(s), _criterion_of(figure, s)) for s in figure.series]
    titled = len(panels) > 1
    heads = [_HEAD if titled or criterion else 8.0 for _, _, criterion in panels]
    height = sum(heads) + _ROW * sum(len(points) for _, points, _ in panels) + 4.0 + _FOOT
    values = [v for _, points, _ in panels for p in points for v in (p.y, p.low, p.high)]
    low, high = _range([*values, *(c[0] for _, _, c in panels if c)])
    names = [str(p.x) for _, points, _ in panels for p in points]
    rows = _row_sheet(height, names, [s.name for s in figure.series] if titled else [], low, high, figure.y_label)
    y = 0.0
    for i, ((series, points, criterion), head) in enumerate(zip(panels, heads, strict=True)):
        colour, top = SERIES[i % len(SERIES)], y
        if titled:
            rows.sheet.text(0.0, y + 13.0, _fitting(series.name, WIDTH * 0.5), bold=True)
        y += head
        if criterion:
            clear = _width(_fitting(series.name, WIDTH * 0.5)) * 1.06 + 4.0 if titled else 0.0
            _bound_line(rows, *criterion, top + (8.0 if titled else 2.0), y + _ROW * len(points), clear_of=clear)
        for point in points:
            _interval_row(rows, point, y + _ROW / 2, colour, MARKERS[i % len(MARKERS)])
            y += _ROW
    return rows.sheet


def _interval_row(rows: _Rows, point: _Point, y: float, colour: str, marker: str) -> None:
    rows.name(y, str(point.x), point.y)
    if point.y is None:
        return
    if point.low is not None and point.high is not None:
        rows.axes.plot([point.low, point.high], [y, y], color=colour, linewidth=2.6, alpha=0.55)
    rows.axes.plot([point.y], [y], marker, color=colour, markersize=6.5, clip_on=False)


def _bars(figure: FigureRecord) -> _Sheet:
    bars = [p for s in figure.series for p in _points(s)]
    criterion = next((c for s in figure.series if (c := _criterion_of(figure, s))), None)
    head = _HEAD if criterion else 8.0
    height = head + _ROW * len(bars) + 4.0 + _FOOT
    values = [v for p in bars for v in (p.y, p.low, p.high)] + ([criterion[0]] if criterion else [])
    low, high = _range(values, zero=True)
    rows = _row_sheet(height, [str(p.x) for p in bars], [], low, high, figure.y_label)
    for i, bar in enumerate(bars):
        y = head + _ROW * (i + 0.5)
        rows.name(y, str(bar.x), bar.y)
        if bar.y is None:
            continue
        rows.axes.barh([y], [bar.y], height=11.0, color=SERIES[0], linewidth=0)
        if bar.low is not None and bar.high is not None:
            rows.axes.plot([bar.low, bar.high], [y, y], color=INK, linewidth=1.3)
    if criterion:
        _bound_line(rows, *criterion, 2.0, height - _FOOT, clear_of=0.0)
    return rows.sheet


# ---- curves: two numeric axes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Key:
    """One line of a legend."""

    name: str
    colour: str
    dashes: _Dashes
    width: float = 2.0


def _legend(figure: FigureRecord) -> list[_Key]:
    return [_Key(s.name, SERIES[i % len(SERIES)], DASHES[i % len(DASHES)]) for i, s in enumerate(figure.series)]


@dataclass(frozen=True)
class _Plane:
    sheet: _Sheet
    axes: Axes


_LEFT, _PLOT = 56.0, 210.0


def _plane(
    figure: FigureRecord,
    x: tuple[float, float],
    y: tuple[float, float],
    *,
    log_x: bool,
    log_y: bool,
    legend: Sequence[_Key],
) -> _Plane:
    top = 10.0 + (17.0 * len(legend) + 4.0 if legend else 0.0)
    sheet = _Sheet(top + _PLOT + _FOOT)
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

    for tick in _decades(*x) if log_x else _ticks(*x):
        at = _LEFT + share(tick, x, log_x) * width
        sheet.line([at, at], [top, top + _PLOT], colour=GRID)
        sheet.text(at, top + _PLOT + 10.0, f"{tick:g}", align="center", colour=MUTED, size=_SMALL)
    for tick in _decades(*y) if log_y else _ticks(*y):
        at = top + _PLOT * (1.0 - share(tick, y, log_y))
        sheet.line([_LEFT, _LEFT + width], [at, at], colour=GRID)
        sheet.text(_LEFT - 6.0, at, f"{tick:g}", align="right", colour=MUTED, size=_SMALL)
    sheet.line([_LEFT, _LEFT + width], [top + _PLOT] * 2, colour=MUTED, width=0.8)
    sheet.text(_LEFT + width / 2, top + _PLOT + 27.0, _fitting(figure.x_label, width), align="center", colour=MUTED)
    sheet.text(8.0, top + _PLOT / 2, _fitting(figure.y_label, _PLOT), align="center", colour=MUTED, turned=True)
    for i, key in enumerate(legend):
        at = 8.0 + 17.0 * i
        sheet.line([_LEFT, _LEFT + 26.0], [at, at], colour=key.colour, width=key.width, dashes=key.dashes)
        sheet.text(_LEFT + 33.0, at, _fitting(key.name, WIDTH - _LEFT - 45.0))
    return _Plane(sheet, axes)


def _decades(low: float, high: float) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    every = max(1, math.ceil((last - first + 1) / 5))
    return [10.0**k for k in range(first, last + 1) if (last - k) % every == 0]


def _placed(series: SeriesRecord, *, positive_x: bool, positive_y: bool) -> list[tuple[float, _Point]]:
    kept: list[tuple[float, _Point]] = []
    for point in _points(series):
        x = _drawable(point.x) if isinstance(point.x, (int, float)) else None
        if x is None or (positive_x and x <= 0.0) or (positive_y and (point.y is None or point.y <= 0.0)):
            continue
        kept.append((x, point))
    return kept


def _nan(x: float | None) -> float:
    return math.nan if x is None else x


def _curve(figure: FigureRecord) -> _Sheet:
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
    y_range = _range(values)
    plane = _plane(figure, x_range, y_range, log_x=log_x, log_y=False, legend=_legend(figure) if len(lines) > 1 else ())
    for i, line in enumerate(lines):
        colour, x = SERIES[i % len(SERIES)], [x for x, _ in line]
        plane.axes.fill_between(
            x, [_nan(p.low) for _, p in line], [_nan(p.high) for _, p in line], color=colour, alpha=0.16, linewidth=0
        )
        plane.axes.plot(x, [_nan(p.y) for _, p in line], color=colour, linewidth=2.0, linestyle=DASHES[i % len(DASHES)])
        plane.axes.plot(
            x, [_nan(p.y) for _, p in line], MARKERS[i % len(MARKERS)], color=colour, markersize=6.0, clip_on=False
        )
    for at, label in dict.fromkeys(criteria):
        plane.axes.axhline(at, color=BOUND, linewidth=1.3, linestyle=_BROKEN)
        plane.axes.annotate(
            plane.sheet.token(_fitting(label, 140.0, _SMALL)),
            (1.0, at),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 4),
            textcoords="offset points",
            ha="right",
            color=BOUND,
            fontsize=_SMALL,
        )
    return plane.sheet


def _roc(figure: FigureRecord) -> _Sheet:
    lines = [_placed(s, positive_x=True, positive_y=True) for s in figure.series]
    seen = [v for line in lines for x, p in line for v in (x, _nan(p.y))]
    lowest = 10.0 ** math.floor(math.log10(min(seen)) + 1e-9) if seen else 0.01
    ends = (min(max(lowest, 1e-6), 0.1), 1.0)
    legend = [*_legend(figure), _Key("chance", MUTED, _CHANCE, 1.4)]
    plane = _plane(figure, ends, ends, log_x=True, log_y=True, legend=legend)
    plane.axes.plot(ends, ends, color=MUTED, linewidth=1.4, linestyle=_CHANCE)
    for i, line in enumerate(lines):
        colour, x = SERIES[i % len(SERIES)], [x for x, _ in line]
        if any(p.low is not None and p.high is not None for _, p in line):
            floor = ends[0]
            plane.axes.fill_between(
                x,
                [max(_nan(p.low), floor) for _, p in line],
                [max(_nan(p.high), floor) for _, p in line],
                color=colour,
                alpha=0.16,
                linewidth=0,
            )
        plane.axes.plot(x, [_nan(p.y) for _, p in line], color=colour, linewidth=2.0, linestyle=DASHES[i % len(DASHES)])
    return plane.sheet


# ---- rewriting what matplotlib wrote -------------------------------------------------------------------------------

_TEXT_TAG = f"{{{_SVG}}}text"
_DROPPED_PROPERTIES = frozenset({"font-family", "font"})
_DROPPED_ELEMENTS = frozenset({f"{{{_SVG}}}style", f"{{{_SVG}}}metadata"})


def _rewritten(markup: str, figure: FigureRecord, dom_id: str, sheet: _Sheet) -> str:
    root = ElementTree.fromstring(markup)
    root.attrib.clear()
    root.attrib |= {
        "viewBox": f"0 0 {WIDTH:g} {sheet.height:g}",
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
    for tag, text in (("desc", figure.alt), ("title", figure.title)):
        node = ElementTree.Element(f"{{{_SVG}}}{tag}", {"id": f"{dom_id}-{tag}"})
        node.text = visible(text)
        root.insert(0, node)
    return ElementTree.tostring(root, encoding="unicode")


def _references(element: ElementTree.Element) -> list[str]:
    found = [m for value in element.attrib.values() for m in _REFERENCE.findall(value)]
    return found + [element.attrib[_HREF].removeprefix("#")] if _HREF in element.attrib else found


def _rewrite(element: ElementTree.Element, new_ids: dict[str, str]) -> None:
    attributes = element.attrib
    if "id" in attributes:
        old = attributes.pop("id")
        if old in new_ids:
            attributes["id"] = new_ids[old]
    if _HREF in attributes:
        attributes["href"] = "#" + new_ids[attributes.pop(_HREF).removeprefix("#")]
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
