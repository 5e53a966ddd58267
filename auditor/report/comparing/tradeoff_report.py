"""A trade-off as JSON, as Markdown and as one self-contained HTML page with its plots."""

from __future__ import annotations

import json
import math
from functools import lru_cache, partial
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from auditor.report.comparing.pareto_plots import Plot, called_feature, draw, plots_of
from auditor.report.comparing.tradeoff_analysis import FeaturePoint, Point, Tradeoff, Verdict
from auditor.report.drawing.svg import as_file, sheet_svg
from auditor.report.html import content_policy, environment, resource
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport
from auditor.report.report_figures import called_in
from auditor.statistics.pareto import Measured

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
    return as_file(_plot_svg(plot))


@lru_cache(maxsize=64)
def _plot_svg(plot: Plot) -> str:
    return sheet_svg(partial(draw, plot), title=plot.title, alt=plot.alt, dom_id=f"plot-{plot.id}")


def render_tradeoff_html(tradeoff: Tradeoff, audit: AuditReport) -> str:
    """The trade-off as one HTML page: the conclusions, the plots, a table per sensitive feature, the points."""
    style = Markup(resource("report.css"))
    called = called_in(audit)
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
            plots=[(plot, Markup(_plot_svg(plot))) for plot in plots_of(tradeoff, called)],
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
