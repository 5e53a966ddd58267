"""A figure as inline SVG: no style attributes, no fixed ids, one set of colours for light and dark mode.

Matplotlib draws, with its object interface only. What it writes is then rewritten: its style attributes become
presentation attributes, which a strict content security policy allows, every colour also becomes a class, which the
page's style sheet gives its dark value, every id is made the figure's own, and the texts are put in.

A number over the dates of audits has named lines in colour, and the others grey behind them.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from xml.etree import ElementTree

from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.text import Text

from auditor.judging.figure_types import MOST_NAMED, Figure, Series
from auditor.report.drawing import attribution_plots, group_plots, plots
from auditor.report.drawing.canvas import CLASSES, DASHES, MARKERS, MUTED, SERIES, STYLE, Sheet, drawable, value_range
from auditor.report.drawing.plots import Key, criterion_line, nan, plane, spots_of
from auditor.report.record.number_text import moment_of, visible

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
    "judged": group_plots.judgements,
    "confusion": group_plots.confusion,
    "calibration": group_plots.calibration,
    "scores": group_plots.scores,
    "threshold": group_plots.threshold,
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
