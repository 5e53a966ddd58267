"""A trade-off as JSON, Markdown and one HTML page, with plots of its points and Pareto front."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Literal
from urllib.parse import quote

from markupsafe import Markup

from auditor.report.comparing.tradeoff_analysis import FeaturePoint, Point, Tradeoff, Verdict
from auditor.report.drawing.canvas import BOUND, BROKEN, INK, MUTED, SERIES, SMALL, WIDTH, Sheet, fitting
from auditor.report.drawing.figure_data import without_ids
from auditor.report.drawing.plots import Plane, plane
from auditor.report.drawing.svg import as_file, sheet_svg
from auditor.report.html import content_policy, environment, resource
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.configuration import Labels
from auditor.report.report_figures import called_in, column
from auditor.statistics.tradeoff_statistics import Measured

UNCALLED = Labels()
Role = Literal["present", "front", "other", "shown"]
_NEAR = 0.03


@dataclass(frozen=True, kw_only=True)
class Spot:
    """One point of a plot: its number in the tables, its position and its mark."""

    number: int
    x: Measured
    y: Measured
    role: Role


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot as data. ``smaller_x``: whether less is better along x. ``floor``: the least y that is tolerated.

    ``staircase``: whether the front of the two axes is drawn. ``origin``: whether the axes of no change are.
    """

    id: str
    title: str
    alt: str
    caption: str
    x_label: str
    y_label: str
    spots: tuple[Spot, ...]
    smaller_x: bool = True
    staircase: bool = False
    origin: bool = False
    floor: float | None = None


def plots_of(tradeoff: Tradeoff, labels: Labels = UNCALLED) -> list[Plot]:
    """For each sensitive feature the front and the paired changes; performance against leakage if known.

    ``labels``: what features are called.
    """
    plots = []
    smaller = tradeoff.disparity != "demographic_parity_ratio"
    feature_names = [called_feature(labels, f.feature) for f in tradeoff.present.features]
    for i, feature in enumerate(feature_names):
        measure = f"{tradeoff.disparity} by {feature}"
        plots.append(
            _front(
                tradeoff,
                f"front-{i}",
                measure,
                [p.features[i].own if p.features else None for p in tradeoff.all],
                smaller,
            )
        )
        spots = tuple(
            Spot(
                number=number,
                x=p.features[i].change,
                y=p.performance_change,
                role="present" if not number else "shown" if p.features[i].alternative else "other",
            )
            for number, p in enumerate(tradeoff.all)
            if p.features and p.features[i].change.interval is not None and p.performance_change.interval is not None
        )
        plots.append(
            Plot(
                id=f"change-{i}",
                title=f"Change since the present model, by {feature}",
                alt=f"Paired changes of {tradeoff.metric} and of {measure}. {_points_text(spots, tradeoff)}",
                caption=(
                    "Paired row by row with the present model, the square. An alternative by this feature, a filled "
                    "circle, lies with its whole cross in the shaded region: less disparate, and above the dashed "
                    f"line, a loss of {tradeoff.tolerance:g}. All crosses hold together."
                ),
                x_label=f"change of {tradeoff.disparity}",
                y_label=f"change of {tradeoff.metric}",
                spots=spots,
                smaller_x=smaller,
                origin=True,
                floor=-tradeoff.tolerance,
            )
        )
    if any(p.leakage for p in tradeoff.all):
        plots.append(_front(tradeoff, "leakage", tradeoff.axes[-1], [p.leakage for p in tradeoff.all], True))
    return plots


def called_feature(labels: Labels, feature: str) -> str:
    """The display name of a feature, or of an intersection of features."""
    return " x ".join(column(labels, name) for name in feature.split(" x "))


def _front(tradeoff: Tradeoff, id_: str, measure: str, x: Sequence[Measured | None], smaller: bool) -> Plot:
    spots = tuple(
        Spot(number=number, x=at, y=p.performance, role=_role(number, p))
        for number, (p, at) in enumerate(zip(tradeoff.all, x, strict=True))
        if at is not None and at.interval is not None and p.performance.interval is not None
    )
    return Plot(
        id=id_,
        title=f"{tradeoff.metric} against {measure}",
        alt=f"{tradeoff.metric} and {measure} of each point. {_points_text(spots, tradeoff)}",
        caption=(
            "Numbers are those of the tables. Square: the present model. Filled: on the front over all axes "
            f"({', '.join(tradeoff.axes)}), hollow: dominated, both by the values alone. Dashed: the front of the two "
            "axes drawn. Crosses: intervals that hold together, of each point by itself; differences between points "
            "are known better than these."
        ),
        x_label=measure,
        y_label=tradeoff.metric,
        spots=spots,
        smaller_x=smaller,
        staircase=True,
    )


def _role(number: int, point: Point) -> Role:
    return "present" if not number else "front" if point.on_front else "other"


def _points_text(spots: Sequence[Spot], tradeoff: Tradeoff) -> str:
    names = [p.name for p in tradeoff.all]
    return " ".join(f"{spot.number} ({names[spot.number]}): {spot.x.value:.3f}, {spot.y.value:.3f}." for spot in spots)


def draw(plot: Plot) -> Sheet:
    """The plot on a sheet."""
    ends = [(spot.x.interval or (0.0, 0.0), spot.y.interval or (0.0, 0.0)) for spot in plot.spots]
    x = _range([v for ends_x, _ in ends for v in ends_x] + [0.0] * plot.origin)
    y = _range([v for _, ends_y in ends for v in ends_y] + ([plot.floor] if plot.floor is not None else []))
    drawn = plane(plot.x_label, plot.y_label, x, y)
    if plot.origin:
        drawn.axes.axvline(0.0, color=MUTED, linewidth=1.0)
        drawn.axes.axhline(0.0, color=MUTED, linewidth=1.0)
    if plot.floor is not None:
        side = [x[0], 0.0] if plot.smaller_x else [0.0, x[1]]
        drawn.axes.fill_between(side, plot.floor, y[1], color=SERIES[2], alpha=0.1, linewidth=0)
        drawn.axes.axhline(plot.floor, color=BOUND, linewidth=1.3, linestyle=BROKEN)
    if plot.staircase:
        corners = _staircase(plot.spots, smaller=plot.smaller_x)
        drawn.axes.plot(
            [cx for cx, _ in corners],
            [cy for _, cy in corners],
            color=MUTED,
            linewidth=1.2,
            linestyle=BROKEN,
            drawstyle="steps-post" if plot.smaller_x else "steps-pre",
        )
    for spot in plot.spots:
        _mark(drawn, spot)
    _number(drawn, plot.spots, x, y)
    return drawn.sheet


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    pad = 0.07 * (high - low) or 0.05
    return low - pad, high + pad


def _staircase(spots: Sequence[Spot], *, smaller: bool) -> list[tuple[float, float]]:
    """The places that no other one betters on both axes, from left to right."""
    sign = 1.0 if smaller else -1.0
    kept: list[tuple[float, float]] = []
    for spot in sorted(spots, key=lambda s: (sign * s.x.value, -s.y.value)):
        if not kept or spot.y.value > kept[-1][1]:
            kept.append((spot.x.value, spot.y.value))
    return kept if smaller else kept[::-1]


def _mark(plane: Plane, spot: Spot) -> None:
    colour = INK if spot.role == "present" else SERIES[2] if spot.role == "shown" else SERIES[0]
    for ends, at, upright in ((spot.x.interval, spot.y.value, False), (spot.y.interval, spot.x.value, True)):
        if ends is None:
            continue
        line = ([at, at], list(ends)) if upright else (list(ends), [at, at])
        plane.axes.plot(*line, color=colour, linewidth=1.4, alpha=0.35)
    plane.axes.plot(
        [spot.x.value],
        [spot.y.value],
        "s" if spot.role == "present" else "o",
        color=colour,
        markerfacecolor="none" if spot.role == "other" else colour,
        markersize=7.0,
        clip_on=False,
    )


def _number(plane: Plane, spots: Sequence[Spot], x: tuple[float, float], y: tuple[float, float]) -> None:
    """The numbers beside the marks; marks that lie on one another share a text."""
    clusters: list[list[Spot]] = []
    for spot in spots:
        near = (
            c
            for c in clusters
            if abs(c[0].x.value - spot.x.value) < _NEAR * (x[1] - x[0])
            and abs(c[0].y.value - spot.y.value) < 2.0 * _NEAR * (y[1] - y[0])
        )
        found = next(near, None)
        if found is None:
            clusters.append([spot])
        else:
            found.append(spot)
    for cluster in clusters:
        first = cluster[0]
        right = first.x.value < x[0] + 0.8 * (x[1] - x[0])
        plane.axes.annotate(
            plane.sheet.token(fitting(", ".join(str(s.number) for s in cluster), WIDTH * 0.4, SMALL)),
            (first.x.value, first.y.value),
            xytext=(6 if right else -6, 5),
            textcoords="offset points",
            ha="left" if right else "right",
            color=INK,
            fontsize=SMALL,
        )


TRADEOFF_VERSION = "1.0"
_TONES: dict[Verdict, str] = {
    "less discriminatory alternative": "pass",
    "trades one gap for another": "fail",
    "decides alike for all": "fail",
    "not useful": "fail",
    "fails a criterion": "fail",
    "costs more than the tolerance": "fail",
    "no less disparate": "fail",
    "not shown": "inconclusive",
    "undefined": "inconclusive",
    "not made": "not-run",
    "present model": "not-applicable",
}


def render_tradeoff_json(tradeoff: Tradeoff, audit: AuditReport) -> str:
    """The trade-off as indented JSON; ``audit`` is the present model's, for the audited rows and model."""
    return json.dumps(tradeoff_content(tradeoff, audit), indent=2, allow_nan=False) + "\n"


def tradeoff_content(tradeoff: Tradeoff, audit: AuditReport) -> dict[str, Any]:
    """The JSON content of a trade-off."""
    return {
        "tradeoff_version": TRADEOFF_VERSION,
        "made_by": tradeoff.made_by,
        "model": {"path": audit.model.path, "sha256": audit.model.sha256},
        "data": {"path": audit.data.path, "sha256": audit.data.sha256, "n_rows": audit.data.n_rows},
        "metric": tradeoff.metric,
        "disparity": tradeoff.disparity,
        "tolerance": tradeoff.tolerance,
        "error_rate": tradeoff.error_rate,
        "n_tried": tradeoff.n_tried,
        "m": tradeoff.m,
        "confidence_of_changes": 1.0 - 2.0 * tradeoff.alpha,
        "confidence_of_points": 1.0 - 2.0 * tradeoff.own_alpha,
        "axes": list(tradeoff.axes),
        "headline": tradeoff.headline,
        "points": [_point(point) for point in tradeoff.all],
    }


def _point(point: Point) -> dict[str, Any]:
    return {
        "name": point.name,
        "settings": dict(point.settings),
        "verdict": point.verdict,
        "reason": point.reason,
        "performance": _number_content(point.performance),
        "performance_change": _number_content(point.performance_change),
        "features": [
            {
                "feature": f.feature,
                "disparity": _number_content(f.own),
                "disparity_change": _number_content(f.change),
                "impact_ratio": _number_content(f.ratio),
                "standing": f.standing,
                "alternative": f.alternative,
            }
            for f in point.features
        ],
        "leakage": None if point.leakage is None else _number_content(point.leakage),
        "on_front": point.on_front,
        "dominated_by": point.dominated_by,
        "shown_dominated": point.shown_dominated,
        "rows_needed": point.rows_needed,
        "notes": list(point.notes),
        "remarks": list(point.remarks),
        "folder": point.folder,
    }


def _number_content(number: Measured) -> dict[str, Any]:
    return {
        "value": number.value if math.isfinite(number.value) else None,
        "interval": None if number.interval is None else list(number.interval),
    }


def promise(tradeoff: Tradeoff) -> str:
    """The error guarantee of the verdicts, in one or two sentences."""
    return (
        f"The {tradeoff.m} differences, one of {tradeoff.metric} and one of {tradeoff.disparity} by each feature"
        f"{' and, where it is weighed, their intersection,' if len(tradeoff.present.features) > 1 else ''} for each of "
        f"{tradeoff.n_tried} models that these rows have graded, share one error rate: each interval of a change holds "
        f"with {number_text.confidence(1.0 - 2.0 * tradeoff.alpha)}, so that the chance of any false alternative among "
        f"all of "
        f"them is at most {100 * tradeoff.error_rate:.3g} % (Bonferroni), however the points are picked. Models tried "
        "elsewhere on the same rows, and other measures they were weighed by, are not counted, and would have to be."
    )


def front_words(point: Point) -> str:
    """The position of a point relative to the Pareto front, in words."""
    if not point.has_model:
        return ""
    if point.on_front is None:
        return "undefined"
    if point.on_front:
        return "on it"
    return f"{'shown to be dominated' if point.shown_dominated else 'dominated'} by {point.dominated_by}"


def verdict_by(point: Point, feature_point: FeaturePoint | None) -> Verdict:
    """A point's verdict for one sensitive feature: an alternative for another feature does not count."""
    if feature_point is None or point.verdict != "less discriminatory alternative" or feature_point.alternative:
        return point.verdict
    return "not shown"


def render_tradeoff_markdown(tradeoff: Tradeoff) -> str:
    """The table of each sensitive feature, for a pull request."""
    lines = ["# Trade-off", "", f"Made by {_plain(tradeoff.made_by)}.", "", _plain(tradeoff.headline), ""]
    for i, feature in enumerate(f.feature for f in tradeoff.present.features):
        lines += [
            f"## By {_plain(feature)}",
            "",
            f"| point | verdict | {tradeoff.metric} | change | {tradeoff.disparity} | change | impact ratio | front |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for point in tradeoff.all:
            own = point.features[i] if point.features else None
            numbers = [point.performance, point.performance_change]
            numbers += [own.own, own.change, own.ratio] if own is not None else []
            shown = [cell(number) for number in numbers] + [""] * (5 - len(numbers))
            words = (f"`{_plain(point.name)}`", verdict_by(point, own), *shown, _plain(front_words(point)))
            lines.append(f"| {' | '.join(words)} |")
        lines.append("")
    lines += [f"- `{_plain(p.name)}`: {_plain(p.reason)}" for p in tradeoff.points if p.reason]
    lines += [f"- **{_plain(p.name)}**: {_plain(remark)}" for p in tradeoff.all for remark in p.remarks]
    return "\n".join([*lines, "", promise(tradeoff), "", "Nothing here is legal advice.", ""])


def cell(number: Measured) -> str:
    """A number and its interval, such as ``0.898 (0.860 to 0.930)``."""
    if number.interval is None:
        return number_text.UNDEFINED
    if number.value == 0.0 and number.interval == (0.0, 0.0):
        return "0"
    return f"{number_text.number(number.value)} ({number_text.interval(number.interval)})"


def _plain(words: str) -> str:
    return number_text.visible(words).replace("|", "\\|").replace("`", "'")


def tradeoff_svg(plot: Plot) -> str:
    """A plot as a separate SVG file."""
    return as_file(plot_svg(plot))


@lru_cache(maxsize=64)
def plot_svg(plot: Plot) -> str:
    return sheet_svg(partial(draw, plot), title=plot.title, alt=plot.alt, dom_id=f"plot-{plot.id}")


def render_tradeoff_html(tradeoff: Tradeoff, audit: AuditReport) -> str:
    """The trade-off as one HTML page: the conclusions, the plots, a table per sensitive feature, the points."""
    style = Markup(resource("report.css"))
    called = called_in(audit)
    ids = [tradeoff.metric, tradeoff.disparity, tradeoff.made_by, *tradeoff.axes, *(f.metric for f in audit.findings)]
    plain = partial(without_ids, names=ids)
    plots = [
        replace(
            p,
            title=plain(p.title),
            alt=plain(p.alt),
            caption=plain(p.caption),
            x_label=plain(p.x_label),
            y_label=plain(p.y_label),
        )
        for p in plots_of(tradeoff, called)
    ]
    features: list[tuple[str, list[tuple[Point, FeaturePoint | None]]]] = [
        (feature, [(p, p.features[i] if p.features else None) for p in tradeoff.all])
        for i, feature in enumerate(called_feature(called, f.feature) for f in tradeoff.present.features)
    ]
    return (
        environment()
        .get_template("tradeoff.html.j2")
        .render(
            policy=content_policy(style, Markup(""), pictures=False),
            style=style,
            found=tradeoff,
            audit=audit,
            promise=promise(tradeoff),
            plain=plain,
            plots=[(plot, Markup(plot_svg(plot))) for plot in plots],
            features=features,
            tones=_TONES,
            own_level=1.0 - 2.0 * tradeoff.own_alpha,
            change_level=1.0 - 2.0 * tradeoff.alpha,
            level=number_text.confidence,
            front_words=front_words,
            verdict_by=verdict_by,
            link=lambda path: quote(path),
            tone="pass" if tradeoff.alternatives else "inconclusive",
        )
    )
