"""Report figures as data, made from judged findings, also in the format of earlier records.

Those of groups come from :mod:`~auditor.report.drawing.group_figures`. ``forest``: all gaps of a pillar, and all
ratios. ``bars``: global importance per feature. ``curve``: a number along one numeric coordinate, such as a noise
level. Whatever else a probe has to show, such as a ROC curve, it hands over with its measurement.

A figure of rates for each probe and method rather than one for each set of features, and the gaps first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from auditor.judging.figure_types import Figure, title_of
from auditor.judging.judgement import Judgement
from auditor.judging.measurement import ProbeResult
from auditor.report.drawing.figure_data import Point, capital, gather, in_words, intervals_said, said_of, series_of
from auditor.report.drawing.group_figures import MOST_GROUPS, MOST_ROWS, lines_through, of_groups, rates_figure

MOST_BARS = 20
MOST_GAPS = 40
_FEWEST_POINTS = 3


def figures_of(findings: Sequence[Judgement], results: Sequence[ProbeResult]) -> list[Figure]:
    """All figures of an audit: groups, gaps, then its probes in order, each with a distinct id.

    A measurement held to several criteria is drawn once, with the interval of its first finding.
    """
    points = points_of(findings)
    figures = [*of_groups(points), *forests(points)]
    for probe, own, drawn in by_probe(points, results):
        whole = any(f.kind == "threshold" for f in drawn)
        told = [f for f in curves(probe, own) if not (whole and f.x_label == "threshold")]
        figures += [*bars(probe, own), *told, *drawn]
    return distinct(figures)


def points_of(findings: Sequence[Judgement]) -> list[Point]:
    """Each measurement once, with its first finding."""
    points: dict[int, Point] = {}
    for finding in findings:
        if finding.measurement is not None:
            points.setdefault(id(finding.measurement), Point(finding, finding.measurement))
    return list(points.values())


def by_probe(
    points: Sequence[Point], results: Sequence[ProbeResult]
) -> Iterator[tuple[str, list[Point], list[Figure]]]:
    """Each probe with its points, and with the figures that it provided."""
    for probe in dict.fromkeys([r.probe for r in results] + [p.finding.probe for p in points]):
        own = [p for p in points if p.finding.probe == probe]
        measured = [m for r in results if r.probe == probe for m in r.measurements]
        drawn = {id(m.figure): m.figure for m in [*measured, *(p.measurement for p in own)] if m.figure is not None}
        yield probe, own, list(drawn.values())


# ---- all gaps ------------------------------------------------------------------------------------------------------


def forests(points: Sequence[Point]) -> list[Figure]:
    """The headlines that compare groups, each pillar's differences in one figure and its ratios in another."""
    figures: list[Figure] = []
    headlines = [p for p in points if p.measurement.sensitive and not p.measurement.group and not p.measurement.at]
    for pillar, own in gather(headlines, lambda p: p.finding.pillar).items():
        for kind, ideal, words in (("differences", 0.0, {"difference", "gap"}), ("ratios", 1.0, {"ratio"})):
            named = [p for p in own if p.measurement.ideal == ideal]
            named = [p for p in named if words & set(p.measurement.metric.split("_"))]
            drawn = [p for p in named if p.value is not None and p.in_unit_range]
            if len(drawn) >= _FEWEST_POINTS:
                figures.append(_forest_figure(f"{pillar}/forest/{kind}", kind, ideal, drawn, len(named) - len(drawn)))
    return figures


def _forest_figure(id_: str, kind: str, ideal: float, points: Sequence[Point], not_drawn: int) -> Figure:
    # What is required first, then the largest gaps: what is cut is the least telling.
    ranked = sorted(points, key=lambda p: (p.finding.criterion is None, -abs((p.value or 0.0) - ideal)))
    kept, left_out = ranked[:MOST_GAPS], len(ranked) - MOST_GAPS
    panels = gather(kept, lambda p: (p.measurement.sensitive, _bound_of(p), p.finding.criterion is None))
    series = []
    for (features, bound, _), own in sorted(panels.items(), key=lambda item: (item[0][0], item[0][1] is None)):
        words = own[0].finding.criterion.describe() if bound is not None and own[0].finding.criterion else ""
        names = [in_words(p.measurement.metric) + _method_of(p, own) for p in own]
        required = (
            "" if bound is not None else ", nothing required" if own[0].finding.criterion is None else ", a range"
        )
        made = series_of(f"by {' × '.join(features)}{required}", own, names)
        series.append(made.model_copy(update={"criterion": bound, "criterion_label": words}))
    caption = f"{intervals_said(kept)} Solid line: {ideal:g}, no gap at all. Dashed line: what is required."
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
        alt=" ".join(f"{s.name}: {said_of(s)}." for s in series) + f" {caption}",
        x_label="headline",
        y_label=f"{kind.removesuffix('s')} between groups",
        caption=caption,
    )


def _bound_of(point: Point) -> float | None:
    criterion = point.finding.criterion
    return None if criterion is None or isinstance(criterion.bound, tuple) else criterion.bound


def _method_of(point: Point, others: Sequence[Point]) -> str:
    """The method in words where one metric has several in a panel."""
    same = [p for p in others if p.measurement.metric == point.measurement.metric]
    return f", {in_words(point.measurement.method)}" if len(same) > 1 and point.measurement.method else ""


# ---- bars ----------------------------------------------------------------------------------------------------------


def bars(probe: str, points: Sequence[Point]) -> list[Figure]:
    """The largest importances of features, of each method."""
    placed = [p for p in points if p.measurement.metric == "global_importance" and set(p.measurement.at) == {"feature"}]
    figures: list[Figure] = []
    for method, own in gather(placed, lambda p: p.measurement.method).items():
        ranked = sorted(own, key=lambda p: -math.inf if p.value is None else p.value, reverse=True)
        shown, rest = ranked[:MOST_BARS], len(ranked) - MOST_BARS
        series = series_of("global_importance", shown, [str(p.measurement.at["feature"]) for p in shown])
        caption = intervals_said(shown)
        if rest > 0:
            caption += f" The {MOST_BARS} largest of {len(ranked)}; the other {rest} are in the table of numbers."
        note = next((p.measurement.detail for p in own if title_of(p.measurement.detail)), "")
        caption += f" {note}." if note else ""
        figures.append(
            Figure(
                id="/".join(part for part in (probe, "bars", method, "global_importance") if part),
                probe=probe,
                kind="bars",
                title=f"Global importance{f' by {in_words(method)}' if method else ''}{title_of(note)}",
                series=(series,),
                alt=f"Global importance of {len(shown)} features, largest first: {said_of(series)}. {caption}",
                x_label="feature",
                y_label="global importance",
                caption=caption,
            )
        )
    return figures


# ---- curves --------------------------------------------------------------------------------------------------------


def _coordinate(point: Point) -> str | None:
    at = point.measurement.at
    if len(at) != 1 or point.measurement.group:
        return None
    name, place = next(iter(at.items()))
    numeric = isinstance(place, (int, float)) and not isinstance(place, bool) and math.isfinite(place)
    return name if numeric else None


def curves(probe: str, points: Sequence[Point]) -> list[Figure]:
    """Numbers along one numeric coordinate."""
    placed = [(p, name) for p in points if (name := _coordinate(p)) is not None]
    figures: list[Figure] = []
    by_features = gather(placed, lambda pair: (pair[0].measurement.method, pair[1], pair[0].measurement.sensitive))
    for (method, name, features), pairs in by_features.items():
        by_metric = gather([p for p, _ in pairs], lambda p: p.measurement.metric)
        # Two rates at two thresholds are a pair of numbers, not a curve, except where a probe degrades its inputs.
        drawable = {
            metric: sorted(own, key=lambda p: float(p.measurement.at[name]))
            for metric, own in by_metric.items()
            if len(own) >= (2 if own[0].finding.pillar == "robustness" else _FEWEST_POINTS)
        }
        together = [m for m, own in drawable.items() if all(p.in_unit_range for p in own)]
        for metrics in [ms for ms in [together, *([m] for m in drawable if m not in together)] if ms]:
            suffix = "" if metrics == together else metrics[0]
            id_ = "/".join(part for part in (probe, "curve", method, name, "+".join(features), suffix) if part)
            figures.append(_curve_figure(id_, probe, name, features, {m: drawable[m] for m in metrics}))
    return figures


def _stressed(metrics: Sequence[str], name: str) -> str:
    """``accuracy and flip rate under noise`` for metrics named ``x_under_noise``, else ``x and y along name``."""
    stresses = {m.partition("_under_")[2] for m in metrics}
    stress = next(iter(stresses))
    if len(stresses) > 1 or not stress:
        return f"{' and '.join(map(in_words, metrics))} along {in_words(name)}"
    what = " and ".join(in_words(m.partition("_under_")[0]) for m in metrics)
    acronym = stress.upper() if stress == "pgd" else in_words(stress)
    return f"{what} under {acronym}" + ("" if stress == name else f", along {in_words(name)}")


def _curve_figure(id_: str, probe: str, name: str, features: Sequence[str], lines: Mapping[str, list[Point]]) -> Figure:
    everything = [p for own in lines.values() for p in own]
    series = tuple(series_of(m, own, [float(p.measurement.at[name]) for p in own]) for m, own in lines.items())
    bounds = {
        (p.finding.criterion.bound, p.finding.criterion.metric, p.finding.criterion.describe())
        for p in everything
        if p.finding.criterion is not None and not isinstance(p.finding.criterion.bound, tuple)
    }
    caption, criterion = intervals_said(everything), None
    if len(bounds) == 1:
        criterion, metric, words = next(iter(bounds))
        caption += f" Dashed line: {words}, required of {metric}."
    what = _stressed(list(lines), name) + (f", by {' × '.join(features)}" if features else "")
    return Figure(
        id=id_,
        probe=probe,
        kind="curve",
        title=capital(what),
        series=series,
        alt=" ".join(f"{s.name} at {name}: {said_of(s)}." for s in series) + f" {caption}",
        x_label=in_words(name),
        y_label=what if len(lines) == 1 else "rate",
        criterion=criterion,
        caption=caption,
        features=tuple(features),
    )


def distinct(figures: Iterable[Figure]) -> list[Figure]:
    """The figures with a number appended to each id that is already used."""
    taken: dict[str, int] = {}
    named: list[Figure] = []
    for figure in figures:
        taken[figure.id] = taken.get(figure.id, 0) + 1
        n = taken[figure.id]
        named.append(figure if n == 1 else figure.model_copy(update={"id": f"{figure.id}#{n}"}))
    return named


def figures_as_before(findings: Sequence[Judgement], results: Sequence[ProbeResult]) -> list[Figure]:
    """The output of :func:`~auditor.report.drawing.figures.figures_of` before groups had separate figures."""
    points = points_of(findings)
    figures = forests(points)
    for probe, own, drawn in by_probe(points, results):
        figures += [*_rates(probe, own), *bars(probe, own), *map(_without_features, curves(probe, own)), *drawn]
    return distinct(figures)


def _rates(probe: str, points: Sequence[Point]) -> list[Figure]:
    groups = [p for p in points if p.measurement.group and not p.measurement.at]
    figures: list[Figure] = []
    by_features = gather(groups, lambda p: (p.measurement.method, tuple(p.measurement.group)))
    for (method, features), own in by_features.items():
        lines = lines_through(points, features, own)
        by_metric = gather(own, lambda p: p.measurement.metric)
        together = [m for m, ps in by_metric.items() if all(p.in_unit_range for p in ps)]
        apart = [[m] for m in by_metric if m not in together]
        n_groups = min(max(len(by_metric[m]) for m in by_metric), MOST_GROUPS)
        panels = [together] if n_groups * len(together) <= MOST_ROWS else [[m] for m in together]
        for metrics in [p for p in panels if p] + apart:
            name = "" if metrics == together and not apart else "+".join(metrics)
            id_ = "/".join(part for part in (probe, "rates", method, "+".join(features), name) if part)
            panel = {m: by_metric[m] for m in metrics}
            figures.append(_without_features(rates_figure(id_, probe, features, panel, lines, ())))
    return figures


def _without_features(figure: Figure) -> Figure:
    return figure.model_copy(update={"features": ()})
