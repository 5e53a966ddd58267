"""A comparison of two audits as JSON, Markdown and one self-contained HTML page."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from auditor.report.comparing.compare_audits import Comparison
from auditor.report.comparing.side_by_side import Row
from auditor.report.comparing.tradeoff_report import Plot, Spot, plot_svg
from auditor.report.comparing.usefulness import Usefulness
from auditor.report.drawing.figure_data import in_words, without_ids
from auditor.report.html import content_policy, environment, resource
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport
from auditor.report.report_figures import called_in, column, group
from auditor.statistics.tradeoff_statistics import Measured

COMPARISON_VERSION = "1.1"
MOST_DETAILS = 200
_WORDS = {
    "worse": "is shown to be worse",
    "better": "is shown to be better",
    "no change shown": "is not shown to have changed",
    "undefined": "is undefined on one side",
    "not judged": "is shown without a verdict",
}

_COUNTED = ("better", "worse", "no change shown", "undefined", "not judged")

STANDINGS = {
    "kept": "kept: the model is shown to be as useful as before",
    "failed": "failed: the model is of less use than before, or of none",
    "not shown": "not shown: the model may be of less use than before",
}


def _finite_or_none(x: float) -> float | None:
    return x if math.isfinite(x) else None


def _ends(interval: tuple[float, float] | None) -> list[float | None] | None:
    return None if interval is None else [_finite_or_none(x) for x in interval]


def render_comparison_json(comparison: Comparison) -> str:
    """The comparison as indented JSON: the audits, the confidence level, every row."""
    return json.dumps(comparison_content(comparison), indent=2, allow_nan=False) + "\n"


def comparison_content(comparison: Comparison) -> dict[str, Any]:
    """The JSON content of a comparison."""
    return {
        "comparison_version": COMPARISON_VERSION,
        "before": _audit(comparison.before),
        "after": _audit(comparison.after),
        "made_by": list(comparison.made_by),
        "error_rate": comparison.error_rate,
        "m": comparison.m,
        "exit_code": comparison.exit_code,
        "conclusion": comparison.conclusion,
        "crossed": list(comparison.crossed),
        "dropped": list(comparison.dropped),
        "usefulness": _usefulness(comparison.usefulness),
        "remarks": list(comparison.remarks),
        "rows": [_as_json(row) for row in comparison.rows],
        "others": [_as_json(row) for row in comparison.others],
        "details": [_as_json(row) for row in comparison.details],
        "only_before": list(comparison.only_before),
        "only_after": list(comparison.only_after),
    }


def _audit(report: AuditReport) -> dict[str, Any]:
    return {
        "model": {"path": report.model.path, "sha256": report.model.sha256},
        "data": {"path": report.data.path, "sha256": report.data.sha256, "n_rows": report.data.n_rows},
        "created": report.created,
        "exit_code": report.exit_code,
    }


def _usefulness(useful: Usefulness) -> dict[str, Any]:
    return {
        "standing": useful.standing,
        "margin": useful.margin,
        "reasons": list(useful.reasons),
        "same_answer": useful.same_answer,
        "worth": None if useful.worth is None else _as_json(useful.worth),
        "rows": [_as_json(row) for row in useful.rows],
    }


def _as_json(row: Row) -> dict[str, Any]:
    sides = {
        name: {"value": _finite_or_none(side.value), "interval": _ends(side.interval), "outcome": side.outcome.value}
        for name, side in (("before", row.before), ("after", row.after))
    }
    return {
        "pillar": row.pillar,
        "probe": row.probe,
        "method": row.method,
        "metric": row.metric,
        "of": dict(row.of),
        "ideal": row.ideal,
        **sides,
        "difference": _finite_or_none(row.difference),
        "interval": _ends(row.interval),
        "paired": row.paired,
        "verdict": row.verdict,
    }


def interval_names(comparison: Comparison) -> list[str]:
    """The intervals of judged differences and of usefulness, each by its confidence level."""
    return [f"{number_text.confidence(level)} interval" for level in comparison.levels]


def promise(comparison: Comparison) -> str:
    """The error guarantee of the verdicts, in one or two sentences."""
    judged, useful = interval_names(comparison)
    return (
        f"{comparison.m} numbers are judged, each by a {judged}, and {len(comparison.usefulness.rows)} of usefulness, "
        f"each by a {useful}. The chance of any false "
        f"'better' is at most {100 * comparison.error_rate:.3g} %, and so is that of any false 'worse', and that of "
        "any false remark (Bonferroni)."
    )


def in_order(rows: Sequence[Row]) -> list[Row]:
    """The rows, those with a verdict first."""
    order = {verdict: i for i, verdict in enumerate(_WORDS)}
    return sorted(rows, key=lambda row: order[row.verdict])


def headline(comparison: Comparison) -> str:
    """The number of judged improvements and deteriorations, in a sentence."""
    n = {verdict: sum(row.verdict == verdict for row in comparison.all) for verdict in _WORDS}
    parts = [
        f"{n['better']} {_are(n['better'])} shown to be better",
        f"{n['worse']} {_are(n['worse'])} shown to be worse",
        f"for {n['no change shown']} the data show no change",
        f"{n['undefined']} {_are(n['undefined'])} undefined on one side",
        f"{n['not judged']} {_are(n['not judged'])} without a verdict, having no ideal value to be nearer to",
    ]
    # What is none is left out, but for the two that are asked for first.
    told = [part for i, (part, verdict) in enumerate(zip(parts, _COUNTED, strict=True)) if i < 2 or n[verdict]]
    return f"Of {number_text.plural(len(comparison.all), 'judged number')}, {'; '.join(told)}."


def row_name(row: Row, after: AuditReport) -> str:
    """A number and what it was taken of, in the words of the later audit's people."""
    method = [] if row.method in (None, "between_groups", "paired") else [in_words(row.method)]
    where = ", ".join(filter(None, (_location_text(row, after), *method)))
    return in_words(row.metric) + (f" ({where})" if where else "")


def plainly(comparison: Comparison, text: str) -> str:
    """A sentence of a comparison with numbers called as people call them, not by their ids."""
    rows = {row.name: row_name(row, comparison.after) for row in comparison.all if row.name != row.metric}
    for name in sorted(rows, key=len, reverse=True):
        text = text.replace(name, rows[name])
    ids = (*(row.metric for row in comparison.all), *(f.metric for f in comparison.after.findings))
    text = without_ids(text, ids)
    return re.sub(r"(?<=\. )[a-z]", lambda found: found[0].upper(), text)


def _are(n: int) -> str:
    return "is" if n == 1 else "are"


def render_comparison_markdown(comparison: Comparison) -> str:
    """The headlines as a table, for a pull request."""
    before, after = comparison.before.model, comparison.after.model
    lines = [
        "# What changed",
        "",
        f"Before: `{_plain(before.path or before.display_name)}`. After: `{_plain(after.path or after.display_name)}`.",
        "",
    ]
    if comparison.made_by:
        lines += [f"Made by {_plain(comparison.made_by[0])}.", ""]
    lines += [
        f"**{_plain(plainly(comparison, comparison.conclusion))}** Exit code {comparison.exit_code}.",
        "",
        headline(comparison),
        "",
    ]
    lines += [_plain(plainly(comparison, words)) for words in (comparison.trade, comparison.fixed) if words] + [""]
    for remark in comparison.remarks:
        lines += [f"> **Warning.** {_plain(plainly(comparison, remark))}", ""]
    useful, (judged, family) = comparison.usefulness, interval_names(comparison)
    lines += ["## Usefulness", "", f"{STANDINGS[useful.standing]}.".capitalize(), "", *_table(useful.rows, family)]
    lines += ["## Judged", "", *_table(in_order(comparison.rows), judged)]
    return "\n".join([*lines, promise(comparison), ""])


def _table(rows: Sequence[Row], interval: str) -> list[str]:
    if not rows:
        return ["Nothing of it was measured in both audits.", ""]
    lines = [
        f"| verdict | number | before | after | difference | {interval} |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = (
            row.verdict,
            f"`{_plain(row.name)}`",
            number_text.number(_finite_or_none(row.before.value)),
            number_text.number(_finite_or_none(row.after.value)),
            number_text.number(_finite_or_none(row.difference)),
            _bounds(row),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _bounds(row: Row) -> str:
    """The interval of a difference and how it was taken."""
    if row.same:
        return row.difference_method
    return _interval_text(row.interval) + (f" {row.difference_method}" if row.paired else "")


def _location_text(row: Row, after: AuditReport) -> str:
    """What a number was taken of, in the words of the later audit's people."""
    called, parts = called_in(after), []
    for name, value in row.of:
        if name == "by":
            parts.append("by " + " × ".join(column(called, feature) for feature in str(value).split(" x ")))
        elif name in after.data.sensitive:
            parts.append(group(called, name, str(value)))
        else:
            parts.append(f"{name.replace('_', ' ')} {value:g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(parts)


def _interval_text(interval: tuple[float, float] | None) -> str:
    """An interval in words; an end that does not exist is said to be none."""
    return (
        "" if interval is None else number_text.interval((_finite_or_none(interval[0]), _finite_or_none(interval[1])))
    )


def _plain(name: str) -> str:
    return number_text.visible(name).replace("|", "\\|").replace("`", "'")


@dataclass(frozen=True)
class _Drawn:
    """A row with its difference drawn on the axis that all rows of its table share."""

    row: Row
    words: str
    bar: Markup


def _trade_plot(comparison: Comparison) -> Plot | None:
    """The smaller gap against what it costs, as changes since the earlier model; None where nothing was traded."""
    if not comparison.trade:
        return None
    gap, cost = comparison.gains[0], comparison.costs[0]
    none = Measured(value=0.0, interval=(0.0, 0.0))
    x, y = (Measured(value=row.difference, interval=row.interval) for row in (gap, cost))
    return Plot(
        id="trade",
        title=f"{row_name(gap, comparison.after)} against {in_words(cost.metric)}",
        alt=plainly(comparison, comparison.trade),
        caption=(
            "Square: the earlier model. Dot: the new one, with its intervals. Shaded: a smaller gap within the margin."
        ),
        x_label=f"change of {in_words(gap.metric)}",
        y_label=f"change of {in_words(cost.metric)}",
        spots=(Spot(number=1, x=none, y=none, role="present"), Spot(number=2, x=x, y=y, role="front")),
        origin=True,
        floor=-comparison.usefulness.margin,
    )


def render_comparison_html(comparison: Comparison) -> str:
    """The comparison as one page: verdict, warnings, a forest of differences, every number before and after."""
    style = Markup(resource("report.css"))
    scale = _scale(comparison)
    rows, useful = in_order(comparison.rows), comparison.usefulness
    return (
        environment()
        .get_template("comparison.html.j2")
        .render(
            policy=content_policy(style, Markup(""), pictures=False),
            style=style,
            comparison=comparison,
            plot=(plot := _trade_plot(comparison)),
            svg=None if plot is None else Markup(plot_svg(plot)),
            headline=headline(comparison),
            promise=promise(comparison),
            levels=interval_names(comparison),
            standing=STANDINGS[useful.standing],
            useful=[_Drawn(row, _WORDS[row.verdict], _bar(row, scale)) for row in useful.rows],
            rows=[_Drawn(row, _WORDS[row.verdict], _bar(row, scale)) for row in rows],
            others=[_Drawn(row, _WORDS[row.verdict], _bar(row, scale)) for row in comparison.others],
            details=[_Drawn(row, _WORDS[row.verdict], _bar(row, scale)) for row in comparison.details[:MOST_DETAILS]],
            n_details=len(comparison.details),
            scale=scale,
            tone=lambda row: {"better": "pass", "worse": "fail"}.get(row.verdict, "not-applicable"),
            known=_finite_or_none,
            plainly=lambda words: plainly(comparison, words),
            in_words=in_words,
            bounds=_bounds,
            where=lambda row: _location_text(row, comparison.after),
            between=_interval_text,
        )
    )


def _scale(comparison: Comparison) -> float:
    """Half the width of the axis: the largest end of an interval of a bounded number, at most 1."""
    drawn = (*comparison.usefulness.rows, *comparison.rows)
    ends = [abs(x) for row in drawn if row.interval is not None for x in row.interval if math.isfinite(x)]
    return min(max([0.05, *(x for x in ends if x <= 1.0)]), 1.0)


def _bar(row: Row, scale: float) -> Markup:
    """The interval of the difference as a line, its value as a dot; clipped ends are drawn as arrows."""
    if row.interval is None or not math.isfinite(row.difference):
        return Markup('<span class="absent">–</span>')
    low, high = (max(-scale, min(scale, x)) for x in row.interval)
    value = max(-scale, min(scale, row.difference))
    at = [f"{100.0 + 95.0 * x / scale:.1f}" for x in (low, high, value)]
    clipped = "".join(
        f'<path d="M{x:.1f} 6 l{-5 * side} -4 v8 z"/>'
        for x, side, out in ((5.0, -1, row.interval[0] < -scale), (195.0, 1, row.interval[1] > scale))
        if out
    )
    words = f"difference {number_text.number(row.difference)}, interval {number_text.interval(row.interval)}"
    return Markup(
        '<svg class="forest" viewBox="0 0 200 12" width="200" height="12" role="img" aria-label="{words}">'
        '<path class="zero" d="M100 0v12"/><path class="range" d="M{low} 6H{high}"/>'
    ).format(words=words, low=at[0], high=at[1]) + Markup(
        f'<g class="ends">{clipped}</g><circle cx="{at[2]}" cy="6" r="3.5"/></svg>'
    )
