"""All judged numbers on one axis: the ideal at 0, the limit at 1, independent of units."""

from __future__ import annotations

import math
from collections.abc import Callable

from auditor.judging.figure_content import BESIDE
from auditor.judging.figure_types import Figure, Series
from auditor.judging.measurement import Outcome
from auditor.report.record import finding_text
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.translations import Catalogue

MOST_JUDGED = 24
_OUTCOMES = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)


def judged_figure(report: AuditReport, say: Catalogue, where: Callable[[Finding], str]) -> Figure | None:
    """The judged numbers in units of the distance from ideal to limit, worst first; None if there are none.

    ``where``: the place of a finding in words. A number without an ideal, or whose bound is its ideal, has no such
    unit: it is counted, not drawn. At most ``MOST_JUDGED`` are drawn.
    """
    required = [f for f in report.findings if f.criterion is not None]
    judged = [f for f in required if f.outcome in _OUTCOMES and f.value is not None]
    placed = [(f, ends) for f in judged if (ends := scaled(f)) is not None]
    if not placed:
        return None
    placed.sort(key=lambda pair: (_OUTCOMES.index(pair[0].outcome), -pair[1][1]))
    drawn = placed[:MOST_JUDGED]
    series = [
        Series(
            name=outcome.value,
            x=tuple(_name(f, where, say) for f, _ in own),
            y=tuple(ends[1] for _, ends in own),
            low=tuple(ends[0] for _, ends in own),
            high=tuple(ends[2] for _, ends in own),
        )
        for outcome in _OUTCOMES
        if (own := [pair for pair in drawn if pair[0].outcome is outcome])
    ]
    caption = [say.say("picture.judged", ideal=0, bound=1)]
    unplaced, unrun = len(judged) - len(placed), sum(f.outcome is Outcome.NOT_RUN for f in required)
    for key, n in (("more", len(placed) - len(drawn)), ("unplaced", unplaced), ("unrun", unrun)):
        if n:
            caption.append(say.counted(f"picture.{key}", n))
    exact = say.say("form.exact")
    told = "; ".join(
        f"{f.outcome.value} {_name(f, where, say).replace(BESIDE, ' ')} ({say.ends(f.interval) or exact})"
        for f, _ in drawn
    )
    return Figure(
        id="judged",
        probe="audit",
        kind="judged",
        title=say.say("picture.title"),
        series=tuple(series),
        alt=f"{told}. {' '.join(caption)}",
        x_label=say.say("picture.number"),
        y_label=say.say("picture.axis"),
        caption=" ".join(caption),
    )


def _name(f: Finding, where: Callable[[Finding], str], say: Catalogue) -> str:
    assert f.criterion is not None
    place = where(f)
    between = " " if f.sensitive else ", "
    name = (f.metric or f.probe).replace("_", " ") + (between + place if place else "")
    return f"{name}{BESIDE}{say.spelled(finding_text.value(f))}, {say.required(f.criterion)}"


def scaled(f: Finding) -> tuple[float, float, float] | None:
    """(low, value, high) in units of the distance from ideal to limit; None without such a unit.

    Of a range about the ideal the unit on either side is the room on that side. An end that is not known lies beyond
    all others.
    """
    if f.criterion is None or f.value is None or f.ideal is None or not math.isfinite(f.value):
        return None
    ideal, bound = f.ideal, f.criterion.bound
    below, above = bound if isinstance(bound, tuple | list) else (bound, bound)
    ranged = below < ideal < above
    if not ranged and (below != above or below == ideal):
        return None

    def unit(value: float) -> float:
        edge = above if value >= ideal or not ranged else below
        return (value - ideal) / (edge - ideal)

    low, high = f.interval or (f.value, f.value)
    ends = [unit(f.value), *(unit(x) for x in (low, high) if x is not None)]
    if ranged and (low is None or low <= ideal) and (high is None or high >= ideal):
        ends.append(0.0)
    return min(ends), unit(f.value), math.inf if None in (low, high) else max(ends)
