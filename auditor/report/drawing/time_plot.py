"""A number over the dates of audits: named lines in colour, the others grey behind them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from auditor.judging.figure_content import MOST_NAMED
from auditor.judging.figure_types import Figure, Series
from auditor.report.drawing.canvas import DASHES, MARKERS, MUTED, SERIES, Sheet, drawable, value_range
from auditor.report.drawing.plots import Key, criterion_line, nan, plane, spots_of
from auditor.report.record.durations import moment_of

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
