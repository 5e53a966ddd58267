"""The report's figures in display order and by pillar, with the papers behind the probes that ran.

The judged numbers stand on one axis: the ideal at 0, the limit at 1, independent of units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from auditor.judging.figure_types import BESIDE, Figure, Series
from auditor.judging.measurement import Outcome
from auditor.report.drawing.figure_data import said_of
from auditor.report.drawing.figures import BETWEEN
from auditor.report.record import finding_text, number_text
from auditor.report.record.audit_report import INTAKE, AuditReport, Finding
from auditor.report.record.configuration import About, Labels
from auditor.report.record.translations import Catalogue
from auditor.report.report_view import PILLARS, Drawn, Row, drawn_as

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
            caption.append(say.count_text(f"picture.{key}", n))
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


# What a reader looks at before any table, in this order, of so many sets of features.
IN_FRONT = ("judged", "rates", "threshold", "confusion")
MOST_FEATURES = 2
_LONGEST_NAME = 60


def pictures_of(report: AuditReport, say: Catalogue | None = None) -> list[Figure]:
    """Every figure of a record, that of all judged numbers first; ``say``: its wording, else the record's own."""
    about = report.about or About()
    own = report.catalogue(say)
    chief = judged_figure(report, own, lambda f: place_of(f, report, own))
    return [*([chief] if chief is not None else []), *(label_groups(f, about.display_labels) for f in report.figures)]


Numbered = list[tuple[int, Figure]]


def front_and_rest(report: AuditReport, say: Catalogue | None = None) -> tuple[Numbered, Numbered]:
    """The figures before the tables (judged numbers, first features' groups), and all others.

    Each with its number in the report, and once.
    """
    numbered = list(enumerate(pictures_of(report, say), 1))
    told = list(dict.fromkeys(f.features for _, f in numbered if _of_groups(f)))[:MOST_FEATURES]
    front = [(i, f) for i, f in numbered if f.kind == "judged" or (_of_groups(f) and f.features in told)]
    rest = [pair for pair in numbered if pair not in front]
    front.sort(key=lambda pair: (told.index(pair[1].features) + 1 if pair[1].features else 0, _place(pair[1])))
    return front, rest


def _place(figure: Figure) -> int:
    return IN_FRONT.index(figure.kind)


def _of_groups(figure: Figure) -> bool:
    # A figure of one rate is of one probe's own number, not of what was decided for the groups.
    whole = figure.kind != "rates" or len(figure.series) > 1
    return figure.kind in IN_FRONT and bool(figure.features) and whole


def place_of(finding: Finding, report: AuditReport, say: Catalogue) -> str:
    """The location of a number, with the report's display names: ``by African-American``."""
    called = called_in(report)
    by = BETWEEN.join(column(called, name) for name in finding.sensitive)
    parts = [say.say("page.by", feature=by)] if by else []
    parts += [group(called, name, level) for name, level in finding.group.items()]
    parts += [f"{k.replace('_', ' ')} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in finding.at.items()]
    return ", ".join(parts)


def called_in(report: AuditReport) -> Labels:
    """The display names of a report's columns and values."""
    return (report.about or About()).display_labels


def column(labels: Labels, name: str) -> str:
    """The display name of a column, shortened to the available space."""
    return number_text.shortened(labels.column(name), _LONGEST_NAME)


def group(labels: Labels, name: str, level: str) -> str:
    """A group with its feature, such as ``sex: female``; a display name is followed by the feature."""
    return number_text.shortened(labels.group(name, level), _LONGEST_NAME)


def label_groups(figure: Figure, labels: Labels) -> Figure:
    """A figure with display names of columns and groups, and groups with their features.

    Its words for those who do not see it are made anew where a name is another, so that they name what is drawn.
    """
    series = tuple(_label_series(s, i, figure, labels) for i, s in enumerate(figure.series))
    swarms = tuple(replace(s, feature=column(labels, s.feature)) for s in figure.swarms)
    title, x_label = figure.title, figure.x_label
    for features in (figure.features, _own_column(figure)):
        by = BETWEEN.join(column(labels, name) for name in features)
        for spelled in dict.fromkeys((BETWEEN.join(features), " x ".join(features))):
            if features and title.endswith(f" by {spelled}"):
                title = title.removesuffix(spelled) + by
            if features and x_label == spelled:
                x_label = by
    for name in _own_column(figure):
        title = title.replace(f"What {name} does", f"What {column(labels, name)} does")
    changed = {"series": series, "swarms": swarms, "title": title, "x_label": x_label}
    if all(getattr(figure, key) == value for key, value in changed.items()):
        return figure
    told = figure.model_copy(update=changed)
    return told if not series else told.model_copy(update={"alt": _alt(told)})


def _own_column(figure: Figure) -> tuple[str, ...]:
    """The column that a curve runs along, as those of what one column does to the score."""
    alone = figure.kind == "curve" and len(figure.series) == 1 and figure.series[0].name == figure.x_label
    return (figure.x_label,) if alone else ()


def _label_series(series: Series, i: int, figure: Figure, labels: Labels) -> Series:
    def level(name: str) -> str:
        apart = [name] if len(figure.features) == 1 else name.split(BETWEEN if BETWEEN in name else " x ")
        if len(apart) != len(figure.features):
            return name
        return BETWEEN.join(group(labels, feature, part) for feature, part in zip(figure.features, apart, strict=True))

    match figure.kind:
        case "rates" | "confusion" if figure.features:
            return series.model_copy(update={"x": tuple(level(str(x)) for x in series.x)})
        case "calibration" | "scores" | "threshold" if figure.features:
            # The last line over thresholds is that of no group.
            last = figure.kind == "threshold" and i == len(figure.series) - 1
            return series if last else series.model_copy(update={"name": level(series.name)})
        case "bars" if figure.x_label == "feature":
            return series.model_copy(update={"x": tuple(column(labels, str(x)) for x in series.x)})
        case "curve" if _own_column(figure):
            return series.model_copy(update={"name": column(labels, series.name)})
        case "forest" if series.name.startswith("by "):
            features, comma, rest = series.name.removeprefix("by ").partition(",")
            by = BETWEEN.join(column(labels, name) for name in features.split(BETWEEN))
            return series.model_copy(update={"name": f"by {by}{comma}{rest}"})
        case _:
            return series


def _alt(figure: Figure) -> str:
    """What a figure shows, in words: every number, and of curves those at the model's own threshold."""
    series, own = figure.series, 0.5 if figure.marked is None else figure.marked
    if figure.kind == "scores":
        below = [(s.name, sum(y or 0.0 for x, y in zip(s.x, s.y, strict=True) if float(x) < own)) for s in series]
        told = (
            f"Share below {own:.3g}: " + ", ".join(f"{name} {number_text.number(share)}" for name, share in below) + "."
        )
    elif figure.kind == "threshold" and series and series[0].x:
        at = min(range(len(series[0].x)), key=lambda i: abs(float(series[0].x[i]) - own))
        found = [
            f"{s.name} {number_text.number(s.y[at])} ({number_text.interval((s.low[at], s.high[at]))})"
            for s in series
            if at < min(len(s.y), len(s.low), len(s.high))
        ]
        told = f"At a threshold of {float(series[0].x[at]):.3g}: {', '.join(found)}."
    else:
        told = " ".join(f"{s.name}: {said_of(s)}." for s in series)
    return f"{figure.title}. {told} {figure.caption}"


@dataclass(frozen=True)
class Source:
    """A probe that ran, its methods, and its paper."""

    probe: str
    methods: str
    citation: str


@dataclass(frozen=True)
class PillarView:
    """One pillar and its figures, without those that come before all pillars."""

    name: str
    figures: tuple[Drawn, ...]


def pillars_of(report: AuditReport, say: Catalogue) -> list[PillarView]:
    """The pillars that have figures, the file's own checks last."""
    pillar_of_probe = {f.probe: f.pillar for f in report.findings}
    drawn = [(pillar_of_probe.get(f.probe, INTAKE), drawn_as(i, f, say)) for i, f in front_and_rest(report, say)[1]]
    views = [PillarView(name, tuple(d for pillar, d in drawn if pillar == name)) for name in PILLARS]
    return [view for view in views if view.figures]


def sources_of(rows: Sequence[Row]) -> tuple[Source, ...]:
    """The papers of the probes that ran."""
    ran = [r.finding for r in rows if r.outcome not in (Outcome.NOT_APPLICABLE, Outcome.NOT_RUN)]
    return tuple(
        Source(
            probe=probe,
            methods=", ".join(dict.fromkeys(f.method for f in own if f.method)),
            citation=next((f.citation for f in own if f.citation), ""),
        )
        for probe in dict.fromkeys(f.probe for f in ran)
        for own in [[f for f in ran if f.probe == probe]]
    )
