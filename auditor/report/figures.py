"""The figures of a report as data, made from the judged findings so that the intervals drawn are the findings' own.

``forest``: all gaps of a pillar, and all ratios. ``rates``: one rate per group, with the line that a headline's
criterion draws through them. ``bars``: global importance per feature. ``curve``: a number along one numeric
coordinate, such as a noise level. Whatever else a probe has to show, such as a ROC curve, it hands over with its
measurement.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from auditor.finding.display import title_of
from auditor.finding.figure import Figure, Series
from auditor.finding.judgement import Judgement
from auditor.finding.measurement import Measurement, ProbeResult
from auditor.record.text import UNDEFINED, confidence, number
from auditor.statistics.groups import WorstDifference, WorstRatio

MOST_BARS = 20
MOST_GROUPS = 30
MOST_ROWS = 36
MOST_GAPS = 40
_FEWEST_POINTS = 3

_T = TypeVar("_T")
_K = TypeVar("_K")


@dataclass(frozen=True)
class _Point:
    """A finding with the measurement it is known to have."""

    finding: Judgement
    measurement: Measurement

    @property
    def value(self) -> float | None:
        return _finite(self.measurement.estimate.value)

    @property
    def low(self) -> float | None:
        return _finite(self.finding.interval[0]) if self.finding.interval else None

    @property
    def high(self) -> float | None:
        return _finite(self.finding.interval[1]) if self.finding.interval else None

    @property
    def in_unit_range(self) -> bool:
        return all(x is None or 0.0 <= x <= 1.0 for x in (self.value, self.low, self.high))


def figures_of(findings: Sequence[Judgement], results: Sequence[ProbeResult]) -> list[Figure]:
    """All figures of an audit, in the order of its probes, each with a distinct id.

    A measurement held to several criteria is drawn once, with the interval of its first finding.
    """
    points: dict[int, _Point] = {}
    for finding in findings:
        if finding.measurement is not None:
            points.setdefault(id(finding.measurement), _Point(finding, finding.measurement))
    figures = _forests(list(points.values()))
    for probe in dict.fromkeys([r.probe for r in results] + [p.finding.probe for p in points.values()]):
        own = [p for p in points.values() if p.finding.probe == probe]
        measured = [m for r in results if r.probe == probe for m in r.measurements]
        drawn = {id(m.figure): m.figure for m in [*measured, *(p.measurement for p in own)] if m.figure is not None}
        figures += [*_rates(probe, own), *_bars(probe, own), *_curves(probe, own), *drawn.values()]
    return distinct(figures)


# ---- all gaps ------------------------------------------------------------------------------------------------------


def _forests(points: Sequence[_Point]) -> list[Figure]:
    """The headlines that compare groups, each pillar's differences in one figure and its ratios in another."""
    figures: list[Figure] = []
    headlines = [p for p in points if p.measurement.sensitive and not p.measurement.group and not p.measurement.at]
    for pillar, own in _gather(headlines, lambda p: p.finding.pillar).items():
        for kind, ideal, words in (("differences", 0.0, {"difference", "gap"}), ("ratios", 1.0, {"ratio"})):
            named = [p for p in own if p.measurement.ideal == ideal]
            named = [p for p in named if words & set(p.measurement.metric.split("_"))]
            drawn = [p for p in named if p.value is not None and p.in_unit_range]
            if len(drawn) >= _FEWEST_POINTS:
                figures.append(_forest_figure(f"{pillar}/forest/{kind}", kind, ideal, drawn, len(named) - len(drawn)))
    return figures


def _forest_figure(id_: str, kind: str, ideal: float, points: Sequence[_Point], not_drawn: int) -> Figure:
    # What is required first, then the largest gaps: what is cut is the least telling.
    ranked = sorted(points, key=lambda p: (p.finding.criterion is None, -abs((p.value or 0.0) - ideal)))
    kept, left_out = ranked[:MOST_GAPS], len(ranked) - MOST_GAPS
    panels = _gather(kept, lambda p: (p.measurement.sensitive, _bound_of(p), p.finding.criterion is None))
    series = []
    for (features, bound, _), own in sorted(panels.items(), key=lambda item: (item[0][0], item[0][1] is None)):
        words = own[0].finding.criterion.describe() if bound is not None and own[0].finding.criterion else ""
        names = [_words(p.measurement.metric) + _method_of(p, own) for p in own]
        required = (
            "" if bound is not None else ", nothing required" if own[0].finding.criterion is None else ", a range"
        )
        made = _series(f"by {' × '.join(features)}{required}", own, names)
        series.append(made.model_copy(update={"criterion": bound, "criterion_label": words}))
    caption = f"{_intervals(kept)} Solid line: {ideal:g}, no gap at all. Dashed line: what is required."
    if left_out > 0:
        caption += f" {left_out} smaller ones are in the tables."
    if not_drawn:
        caption += (
            f" {not_drawn} undefined, or on another scale, {'is' if not_drawn == 1 else 'are'} only in the tables."
        )
    return Figure(
        id=id_,
        probe=points[0].finding.probe,
        kind="forest",
        title=f"All {kind} between groups",
        series=tuple(series),
        alt=" ".join(f"{s.name}: {_said(s)}." for s in series) + f" {caption}",
        x_label="headline",
        y_label=f"{kind.removesuffix('s')} between groups",
        caption=caption,
    )


def _bound_of(point: _Point) -> float | None:
    criterion = point.finding.criterion
    return None if criterion is None or isinstance(criterion.bound, tuple) else criterion.bound


def _method_of(point: _Point, others: Sequence[_Point]) -> str:
    """The method in words where one metric has several in a panel."""
    same = [p for p in others if p.measurement.metric == point.measurement.metric]
    return f", {_words(point.measurement.method)}" if len(same) > 1 and point.measurement.method else ""


# ---- rates ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Line:
    """Where a criterion lies among the rates of the groups, in words for the line and for the caption."""

    at: float
    label: str
    place: str
    metric: str


def group_label(group: Mapping[str, str]) -> str:
    """A group's name on an axis: its values alone, since the figure names the features."""
    return " × ".join(str(v) for v in group.values())


def _rates(probe: str, points: Sequence[_Point]) -> list[Figure]:
    groups = [p for p in points if p.measurement.group and not p.measurement.at]
    figures: list[Figure] = []
    by_features = _gather(groups, lambda p: (p.measurement.method, tuple(p.measurement.group)))
    for (method, features), own in by_features.items():
        lines = _lines(points, features, own)
        by_metric = _gather(own, lambda p: p.measurement.metric)
        together = [m for m, ps in by_metric.items() if all(p.in_unit_range for p in ps)]
        apart = [[m] for m in by_metric if m not in together]
        n_groups = min(max(len(by_metric[m]) for m in by_metric), MOST_GROUPS)
        panels = [together] if n_groups * len(together) <= MOST_ROWS else [[m] for m in together]
        for metrics in [p for p in panels if p] + apart:
            name = "" if metrics == together and not apart else "+".join(metrics)
            figures.append(
                _rates_figure(
                    "/".join(part for part in (probe, "rates", method, "+".join(features), name) if part),
                    probe,
                    features,
                    {m: by_metric[m] for m in metrics},
                    lines,
                )
            )
    return figures


def _rates_figure(
    id_: str, probe: str, features: tuple[str, ...], panels: Mapping[str, list[_Point]], lines: Mapping[str, _Line]
) -> Figure:
    kept = {metric: _most_telling(points) for metric, points in panels.items()}
    left_out = max(len(panels[m]) - len(kept[m]) for m in panels)
    by = " × ".join(features)
    series = tuple(
        Series(
            name=metric,
            x=tuple(group_label(p.measurement.group) for p in points),
            y=tuple(p.value for p in points),
            low=tuple(p.low for p in points),
            high=tuple(p.high for p in points),
            criterion=lines[metric].at if metric in lines else None,
            criterion_label=lines[metric].label if metric in lines else "",
        )
        for metric, points in kept.items()
    )
    everything = [p for points in kept.values() for p in points]
    caption = [_intervals(everything)]
    for place, drawn in _gather([lines[m] for m in kept if m in lines], lambda line: line.place).items():
        caption.append(f"Dashed line: {place}, the bound of {' and '.join(dict.fromkeys(d.metric for d in drawn))}.")
    if any(m in lines for m in kept):
        caption.append("Verdicts rest on the findings' own intervals.")
    if left_out:
        caption.append(f"{left_out} groups between the extremes are not drawn; the tables have them all.")
    metrics = list(kept)
    title = f"{_words(metrics[0])} by {by}" if len(metrics) == 1 else f"Rates by {by}"
    numbers = " ".join(f"{s.name}: {_said(s)}." for s in series)
    return Figure(
        id=id_,
        probe=probe,
        kind="rates",
        title=_capital(title),
        series=series,
        alt=f"{', '.join(metrics)} of each group by {by}. {numbers} {' '.join(caption)}",
        x_label=by,
        y_label="rate" if len(metrics) > 1 else _words(metrics[0]),
        caption=" ".join(caption),
    )


def _lines(points: Sequence[_Point], features: tuple[str, ...], rates: Sequence[_Point]) -> dict[str, _Line]:
    """For each rate, the tightest line that a judged headline over the same features draws through its groups."""
    found: dict[str, _Line] = {}
    for point in points:
        criterion, estimate = point.finding.criterion, point.measurement.estimate
        if criterion is None or isinstance(criterion.bound, tuple) or set(point.measurement.sensitive) != set(features):
            continue
        if not isinstance(estimate, (WorstDifference, WorstRatio)):
            continue
        for rate in [table.rate for table in estimate.tables]:
            values = [p.value for p in rates if p.measurement.metric == rate]
            highest = max((v for v in values if v is not None), default=None)
            if highest is None:
                continue
            if isinstance(estimate, WorstDifference) and criterion.direction == "at_most":
                line = _Line(
                    at=highest - criterion.bound,
                    label=f"highest − {criterion.bound:g}",
                    place=f"{criterion.bound:g} below the highest group",
                    metric=criterion.metric,
                )
            elif isinstance(estimate, WorstRatio) and criterion.direction == "at_least":
                line = _Line(
                    at=highest * criterion.bound,
                    label=f"{criterion.bound:g} × highest",
                    place=f"{criterion.bound:g} times the highest group",
                    metric=criterion.metric,
                )
            else:
                continue
            if rate not in found or line.at > found[rate].at:
                found[rate] = line
    for point in rates:
        own = point.finding.criterion
        if own is not None and not isinstance(own.bound, tuple):
            found[point.measurement.metric] = _Line(own.bound, own.describe(), own.describe(), own.metric)
    return {metric: line for metric, line in found.items() if math.isfinite(line.at)}


def _most_telling(points: list[_Point]) -> list[_Point]:
    """All groups where they are few, else the lowest and the highest in their own order."""
    if len(points) <= MOST_GROUPS:
        return points
    known = sorted((p for p in points if p.value is not None), key=lambda p: p.value or 0.0)
    half = MOST_GROUPS // 2
    ends = known if len(known) <= MOST_GROUPS else known[:half] + known[-half:]
    kept = {id(p) for p in ends}
    return [p for p in points if id(p) in kept] or points[:MOST_GROUPS]


# ---- bars ----------------------------------------------------------------------------------------------------------


def _bars(probe: str, points: Sequence[_Point]) -> list[Figure]:
    bars = [p for p in points if p.measurement.metric == "global_importance" and set(p.measurement.at) == {"feature"}]
    figures: list[Figure] = []
    for method, own in _gather(bars, lambda p: p.measurement.method).items():
        ranked = sorted(own, key=lambda p: -math.inf if p.value is None else p.value, reverse=True)
        shown, rest = ranked[:MOST_BARS], len(ranked) - MOST_BARS
        series = _series("global_importance", shown, [str(p.measurement.at["feature"]) for p in shown])
        caption = _intervals(shown)
        if rest > 0:
            caption += f" The {MOST_BARS} largest of {len(ranked)}; the other {rest} are in the table of numbers."
        note = next((p.measurement.detail for p in own if title_of(p.measurement.detail)), "")
        caption += f" {note}." if note else ""
        figures.append(
            Figure(
                id="/".join(part for part in (probe, "bars", method, "global_importance") if part),
                probe=probe,
                kind="bars",
                title=f"Global importance{f' by {_words(method)}' if method else ''}{title_of(note)}",
                series=(series,),
                alt=f"Global importance of {len(shown)} features, largest first: {_said(series)}. {caption}",
                x_label="feature",
                y_label="global importance",
                caption=caption,
            )
        )
    return figures


# ---- curves --------------------------------------------------------------------------------------------------------


def _coordinate(point: _Point) -> str | None:
    at = point.measurement.at
    if len(at) != 1 or point.measurement.group:
        return None
    name, place = next(iter(at.items()))
    numeric = isinstance(place, (int, float)) and not isinstance(place, bool) and math.isfinite(place)
    return name if numeric else None


def _curves(probe: str, points: Sequence[_Point]) -> list[Figure]:
    placed = [(p, name) for p in points if (name := _coordinate(p)) is not None]
    figures: list[Figure] = []
    by_features = _gather(placed, lambda pair: (pair[0].measurement.method, pair[1], pair[0].measurement.sensitive))
    for (method, name, features), pairs in by_features.items():
        by_metric = _gather([p for p, _ in pairs], lambda p: p.measurement.metric)
        # Two rates at two thresholds are a pair of numbers, not a curve, except where a probe degrades its inputs.
        curves = {
            metric: sorted(own, key=lambda p: float(p.measurement.at[name]))
            for metric, own in by_metric.items()
            if len(own) >= (2 if own[0].finding.pillar == "robustness" else _FEWEST_POINTS)
        }
        together = [m for m, own in curves.items() if all(p.in_unit_range for p in own)]
        for metrics in [ms for ms in [together, *([m] for m in curves if m not in together)] if ms]:
            suffix = "" if metrics == together else metrics[0]
            id_ = "/".join(part for part in (probe, "curve", method, name, "+".join(features), suffix) if part)
            figures.append(_curve_figure(id_, probe, name, features, {m: curves[m] for m in metrics}))
    return figures


def _stressed(metrics: Sequence[str], name: str) -> str:
    """``accuracy and flip rate under noise`` for metrics named ``x_under_noise``, else ``x and y along name``."""
    stresses = {m.partition("_under_")[2] for m in metrics}
    stress = next(iter(stresses))
    if len(stresses) > 1 or not stress:
        return f"{' and '.join(map(_words, metrics))} along {_words(name)}"
    what = " and ".join(_words(m.partition("_under_")[0]) for m in metrics)
    acronym = stress.upper() if stress == "pgd" else _words(stress)
    return f"{what} under {acronym}" + ("" if stress == name else f", along {_words(name)}")


def _curve_figure(
    id_: str, probe: str, name: str, features: Sequence[str], curves: Mapping[str, list[_Point]]
) -> Figure:
    everything = [p for own in curves.values() for p in own]
    series = tuple(_series(m, own, [float(p.measurement.at[name]) for p in own]) for m, own in curves.items())
    bounds = {
        (p.finding.criterion.bound, p.finding.criterion.metric, p.finding.criterion.describe())
        for p in everything
        if p.finding.criterion is not None and not isinstance(p.finding.criterion.bound, tuple)
    }
    caption, criterion = _intervals(everything), None
    if len(bounds) == 1:
        criterion, metric, words = next(iter(bounds))
        caption += f" Dashed line: {words}, required of {metric}."
    what = _stressed(list(curves), name) + (f", by {' × '.join(features)}" if features else "")
    return Figure(
        id=id_,
        probe=probe,
        kind="curve",
        title=_capital(what),
        series=series,
        alt=" ".join(f"{s.name} at {name}: {_said(s)}." for s in series) + f" {caption}",
        x_label=_words(name),
        y_label=what if len(curves) == 1 else "rate",
        criterion=criterion,
        caption=caption,
    )


# ---- what all share ------------------------------------------------------------------------------------------------


def _gather(items: Iterable[_T], key: Callable[[_T], _K]) -> dict[_K, list[_T]]:
    gathered: dict[_K, list[_T]] = {}
    for item in items:
        gathered.setdefault(key(item), []).append(item)
    return gathered


def _finite(x: float | None) -> float | None:
    return x if x is not None and math.isfinite(x) else None


def _series(name: str, points: Sequence[_Point], x: Sequence[str | float]) -> Series:
    return Series(
        name=name,
        x=tuple(x),
        y=tuple(p.value for p in points),
        low=tuple(p.low for p in points),
        high=tuple(p.high for p in points),
    )


def _intervals(points: Sequence[_Point]) -> str:
    levels = sorted({p.finding.confidence for p in points if p.finding.confidence is not None and p.low is not None})
    if not levels:
        return "No intervals are known."
    if confidence(levels[0]) == confidence(levels[-1]):
        return f"Intervals at {confidence(levels[0])} confidence."
    return f"Intervals at {confidence(levels[0])} to {confidence(levels[-1])} confidence, as decided for each."


def _said(series: Series) -> str:
    parts: list[str] = []
    for i, (x, y) in enumerate(zip(series.x, series.y, strict=True)):
        name = f"{x:g}" if isinstance(x, float) else str(x)
        low, high = (ends[i] if i < len(ends) else None for ends in (series.low, series.high))
        bounds = f" ({number(low)} to {number(high)})" if y is not None and low is not None and high is not None else ""
        parts.append(f"{name} {UNDEFINED if y is None else number(y)}{bounds}")
    return ", ".join(parts)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def distinct(figures: Iterable[Figure]) -> list[Figure]:
    """The figures with a number after an id that is taken."""
    taken: dict[str, int] = {}
    named: list[Figure] = []
    for figure in figures:
        taken[figure.id] = taken.get(figure.id, 0) + 1
        n = taken[figure.id]
        named.append(figure if n == 1 else figure.model_copy(update={"id": f"{figure.id}#{n}"}))
    return named
