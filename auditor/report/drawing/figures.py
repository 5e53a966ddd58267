"""Report figures as data, made from judged findings, also in the format of earlier records.

Of groups one of each kind per set of sensitive features, across all probes: ``rates``, what was decided for each group
and how rightly, with the line that a headline's criterion draws through it; ``confusion``, its rows by label and
decision; ``calibration``, what its scores mean. ``forest``: all gaps of a pillar, and all
ratios. ``bars``: global importance per feature. ``curve``: a number along one numeric coordinate, such as a noise
level. Whatever else a probe has to show, such as a ROC curve, it hands over with its measurement.

A figure of rates for each probe and method rather than one for each set of features, and the gaps first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from auditor.judging.criterion import Criterion
from auditor.judging.figure_types import CELLS, Figure, Series, title_of
from auditor.judging.judgement import Judgement
from auditor.judging.measurement import ProbeResult
from auditor.report.drawing.figure_data import Point, capital, gather, in_words, intervals_said, said_of, series_of
from auditor.statistics.distribution_distances import CalibrationError
from auditor.statistics.groups import WorstDifference, WorstRatio
from auditor.statistics.intervals import clopper_pearson
from auditor.statistics.rates import Proportion

MOST_GROUPS = 30
MOST_ROWS = 36
MOST_CONFUSIONS = 12
MOST_CALIBRATED = 4
_ERROR = 0.05
# Of what these measure, one picture for each set of features; elsewhere the same name may mean something else.
_TOGETHER = ("fairness", "performance")
# What is decided first, then how rightly; what is none of these comes last.
_ORDER = (
    "selection_rate", "scoring_rate", "impact_ratio", "true_positive_rate", "false_negative_rate",
    "false_positive_rate", "accuracy", "balanced_accuracy", "precision", "roc_auc", "expected_calibration_error",
)  # fmt: skip


def of_groups(points: Sequence[Point]) -> list[Figure]:
    """The figures of each set of features in turn."""
    groups = [p for p in points if p.measurement.group and not p.measurement.at]
    together = [p for p in groups if p.finding.pillar in _TOGETHER]
    figures: list[Figure] = []
    for features, own in gather(together, lambda p: tuple(p.measurement.group)).items():
        figures += [*_rates(points, features, own), *_confusion(features, own), *_calibration(features, own)]
    rest = [p for p in groups if p.finding.pillar not in _TOGETHER]
    for (_, features), own in gather(rest, lambda p: (p.finding.probe, tuple(p.measurement.group))).items():
        figures += _rates(points, features, own)
    return figures


def group_label(group: Mapping[str, str]) -> str:
    """A group's name in a figure whose ``features`` name its columns: the group's values only."""
    return BETWEEN.join(str(v) for v in group.values())


BETWEEN = " × "


# ---- rates ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """The position of a criterion among the groups' rates, with texts for the line and for the caption."""

    at: float
    label: str
    place: str
    metric: str


def _rates(points: Sequence[Point], features: tuple[str, ...], group_points: Sequence[Point]) -> list[Figure]:
    lines = lines_through(
        [p for p in points if p.finding.pillar in {q.finding.pillar for q in group_points}], features, group_points
    )
    by_metric = _by_metric(group_points)
    probe = _chief([p for ps in by_metric.values() for p in ps])
    id_ = f"{probe}/rates/{'+'.join(features)}"
    together = [m for m, ps in by_metric.items() if all(p.in_unit_range for p in ps)]
    if not together:
        # Numbers on scales of their own share no axis.
        return [
            rates_figure(f"{id_}/{metric}", probe, features, {metric: ps}, lines, ())
            for metric, ps in by_metric.items()
        ]
    n_groups = min(max(len(by_metric[m]) for m in together), MOST_GROUPS)
    ranked = sorted(together, key=lambda m: m not in lines)[: max(1, MOST_ROWS // n_groups)]
    kept = [m for m in together if m in ranked]
    # What a probe has no rates beside has a picture of its own: of a regression it is what the groups are compared by.
    of_rates = {p.finding.probe for m in together for p in by_metric[m]}
    alone = [m for m, ps in by_metric.items() if ps[0].finding.probe not in of_rates and _is_fairness(ps)]
    left_out = [m for m in by_metric if m not in (*kept, *alone)]
    return [
        rates_figure(id_, probe, features, {m: by_metric[m] for m in kept}, lines, left_out),
        *(rates_figure(f"{id_}/{m}", _chief(by_metric[m]), features, {m: by_metric[m]}, lines, ()) for m in alone),
    ]


def _is_fairness(points: Sequence[Point]) -> bool:
    return points[0].finding.pillar == "fairness"


def _by_metric(points: Sequence[Point]) -> dict[str, list[Point]]:
    """The points of each metric in the order in which they are shown; what two probes measured alike is there once."""
    found: dict[str, list[Point]] = {}
    for metric, measured in gather(points, lambda p: p.measurement.metric).items():
        by_source = gather(measured, lambda p: (p.finding.probe, p.measurement.method))
        told: list[list[tuple[str, float | None]]] = []
        for (probe, method), ps in by_source.items():
            values = [(group_label(p.measurement.group), p.value) for p in ps]
            if values in told:
                continue
            told.append(values)
            found[metric if len(told) == 1 else f"{metric}, {in_words(method or probe)}"] = ps
    place = {metric: i for i, metric in enumerate(_ORDER)}
    return dict(sorted(found.items(), key=lambda item: place.get(item[0].partition(",")[0], len(_ORDER))))


def _chief(points: Sequence[Point]) -> str:
    """The probe that a figure is filed under: of fairness before others, and that with the most to show."""
    counts = {probe: len(ps) for probe, ps in gather(points, lambda p: p.finding.probe).items()}
    fair = {p.finding.probe for p in points if p.finding.pillar == "fairness"}
    return max(counts, key=lambda probe: (probe in fair, counts[probe]))


def rates_figure(
    id_: str,
    probe: str,
    features: tuple[str, ...],
    panels: Mapping[str, list[Point]],
    lines: Mapping[str, Line],
    elsewhere: Sequence[str],
) -> Figure:
    """A panel per rate; ``elsewhere``: rates without room, found in the tables only."""
    kept = {metric: _most_telling(points) for metric, points in panels.items()}
    left_out = max(len(panels[m]) - len(kept[m]) for m in panels)
    by = BETWEEN.join(features)
    series = tuple(
        series_of(metric, points, [group_label(p.measurement.group) for p in points]).model_copy(
            update={"criterion": lines[metric].at, "criterion_label": lines[metric].label} if metric in lines else {}
        )
        for metric, points in kept.items()
    )
    caption = [intervals_said([p for points in kept.values() for p in points])]
    for place, drawn in gather([lines[m] for m in kept if m in lines], lambda line: line.place).items():
        caption.append(f"Dashed line: {place}, the bound of {' and '.join(dict.fromkeys(d.metric for d in drawn))}.")
    if any(m in lines for m in kept):
        caption.append("Verdicts rest on the findings' own intervals.")
    if left_out:
        caption.append(f"{left_out} groups between the extremes are not drawn; the tables have them all.")
    if elsewhere:
        caption.append(f"In the tables alone: {', '.join(map(in_words, elsewhere))}.")
    metrics = list(kept)
    title = f"{in_words(metrics[0])} by {by}" if len(metrics) == 1 else f"Rates by {by}"
    numbers = " ".join(f"{s.name}: {said_of(s)}." for s in series)
    return Figure(
        id=id_,
        probe=probe,
        kind="rates",
        title=capital(title),
        series=series,
        alt=f"{', '.join(metrics)} of each group by {by}. {numbers} {' '.join(caption)}",
        x_label=by,
        y_label="rate" if len(metrics) > 1 else in_words(metrics[0]),
        caption=" ".join(caption),
        features=features,
    )


def lines_through(points: Sequence[Point], features: tuple[str, ...], rates: Sequence[Point]) -> dict[str, Line]:
    """For each rate, the tightest limit line that a judged headline over the same features implies for its groups."""
    lines: dict[str, Line] = {}
    for point in points:
        criterion, estimate = point.finding.criterion, point.measurement.estimate
        if criterion is None or isinstance(criterion.bound, tuple) or set(point.measurement.sensitive) != set(features):
            continue
        if not isinstance(estimate, (WorstDifference, WorstRatio)):
            continue
        for rate in [table.rate for table in estimate.tables]:
            values = [p.value for p in rates if p.measurement.metric == rate]
            highest = max((v for v in values if v is not None), default=None)
            line = None if highest is None else _line_below(highest, estimate, criterion, criterion.bound)
            if line is not None and (rate not in lines or line.at > lines[rate].at):
                lines[rate] = line
    for point in rates:
        own = point.finding.criterion
        if own is not None and not isinstance(own.bound, tuple):
            lines[point.measurement.metric] = Line(own.bound, own.describe(), own.describe(), own.metric)
    return {metric: line for metric, line in lines.items() if math.isfinite(line.at)}


def _line_below(
    highest: float, estimate: WorstDifference | WorstRatio, criterion: Criterion, bound: float
) -> Line | None:
    """How far below the highest group the others may lie; None where the criterion says nothing of that."""
    if isinstance(estimate, WorstDifference) and criterion.direction == "at_most":
        return Line(
            at=highest - bound,
            label=f"highest − {bound:g}",
            place=f"{bound:g} below the highest group",
            metric=criterion.metric,
        )
    if isinstance(estimate, WorstRatio) and criterion.direction == "at_least":
        return Line(
            at=highest * bound,
            label=f"{bound:g} × highest",
            place=f"{bound:g} times the highest group",
            metric=criterion.metric,
        )
    return None


def _most_telling(points: list[Point]) -> list[Point]:
    """All groups where they are few, else the lowest and the highest in their own order."""
    if len(points) <= MOST_GROUPS:
        return points
    known = sorted((p for p in points if p.value is not None), key=lambda p: p.value or 0.0)
    half = MOST_GROUPS // 2
    ends = known if len(known) <= MOST_GROUPS else known[:half] + known[-half:]
    kept = {id(p) for p in ends}
    return [p for p in points if id(p) in kept] or points[:MOST_GROUPS]


# ---- confusion -----------------------------------------------------------------------------------------------------


def _confusion(features: tuple[str, ...], group_points: Sequence[Point]) -> list[Figure]:
    """Each group's labelled rows by label and decision, where the rates are plain counts of them."""
    rates: dict[str, dict[str, Proportion]] = {}
    probe = ""
    for point in group_points:
        metric, estimate = point.measurement.metric, point.measurement.estimate
        if metric in ("true_positive_rate", "false_positive_rate") and isinstance(estimate, Proportion):
            rates.setdefault(group_label(point.measurement.group), {}).setdefault(metric, estimate)
            probe = probe or point.finding.probe
    cells = {
        group: (tpr.successes, tpr.n - tpr.successes, fpr.successes, fpr.n - fpr.successes)
        for group, both in rates.items()
        if len(both) == 2 and (tpr := both["true_positive_rate"]) and (fpr := both["false_positive_rate"])
    }
    if len(cells) < 2:
        return []
    largest = sorted(cells, key=lambda group: -sum(cells[group]))[:MOST_CONFUSIONS]
    drawn = {group: found for group, found in cells.items() if group in largest}
    by = BETWEEN.join(features)
    caption = (
        "Counts of the labelled rows of these data: positive is the favourable label. The rates that they make, with "
        "their intervals, are in the picture of rates."
    )
    if len(cells) > len(drawn):
        caption += f" The {len(drawn)} largest of {len(cells)} groups are drawn."
    series = tuple(
        Series(name=name, x=tuple(drawn), y=tuple(float(found[i]) for found in drawn.values()))
        for i, name in enumerate(CELLS)
    )
    return [
        Figure(
            id=f"{probe}/confusion/{'+'.join(features)}",
            probe=probe,
            kind="confusion",
            title=f"Right and wrong decisions by {by}",
            series=series,
            alt=" ".join(f"{s.name}: {said_of(s)}." for s in series) + f" {caption}",
            x_label=by,
            y_label="rows",
            caption=caption,
            features=features,
        )
    ]


# ---- calibration ---------------------------------------------------------------------------------------------------


def _calibration(features: tuple[str, ...], group_points: Sequence[Point]) -> list[Figure]:
    """The share of favourable rows in each bin of each group's scores, with intervals that hold for all of them."""
    found: dict[str, tuple[Point, CalibrationError]] = {}
    for point in group_points:
        if isinstance(point.measurement.estimate, CalibrationError) and point.measurement.estimate.n:
            level = group_label(point.measurement.group)
            # The same of two probes: that of fairness, which has the other pictures of groups.
            if level not in found or point.finding.pillar == "fairness":
                found[level] = point, point.measurement.estimate
    if len(found) < 2:
        return []
    largest = sorted(found, key=lambda group: -sum(found[group][1].n))[:MOST_CALIBRATED]
    alpha = _ERROR / 2.0 / sum(len(estimate.n) for _, estimate in found.values())
    series = []
    for group, (_, estimate) in found.items():
        if group in largest:
            k, n = np.asarray(estimate.successes, np.float64), np.asarray(estimate.n, np.float64)
            low, high = clopper_pearson(k, n=n, alpha=alpha)
            series.append(
                Series(
                    name=group,
                    x=estimate.mean_scores,
                    y=tuple((k / n).tolist()),
                    low=tuple(low.tolist()),
                    high=tuple(high.tolist()),
                )
            )
    by = BETWEEN.join(features)
    probe = _chief([point for point, _ in found.values()])
    caption = (
        "Each mark is a bin of scores. The intervals (exact, Bonferroni) hold for all bins and groups together at 95 % "
        "confidence. Above the dotted line rows turn out favourable more often than their score says."
    )
    if len(found) > len(series):
        caption += f" The {len(series)} largest of {len(found)} groups are drawn."
    return [
        Figure(
            id=f"{probe}/calibration/{'+'.join(features)}",
            probe=probe,
            kind="calibration",
            title=f"What a score means by {by}",
            series=tuple(series),
            alt=" ".join(f"{s.name}: share favourable at mean score {said_of(s)}." for s in series) + f" {caption}",
            x_label="mean score of the bin",
            y_label="share favourable",
            caption=caption,
            features=features,
        )
    ]


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
        figures += [*_rate_bars(probe, own), *bars(probe, own), *map(_without_features, curves(probe, own)), *drawn]
    return distinct(figures)


def _rate_bars(probe: str, points: Sequence[Point]) -> list[Figure]:
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
