"""The report's figures in display order: all judged numbers first, with the display names of groups."""

from __future__ import annotations

from dataclasses import replace

from auditor.judging.figure_types import Figure, Series
from auditor.report.drawing.figure_data import said_of
from auditor.report.drawing.group_figures import BETWEEN
from auditor.report.judged_figure import judged_figure
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.display_labels import Labels
from auditor.report.record.report_metadata import About
from auditor.report.record.translations import Catalogue

# What a reader looks at before any table, in this order, of so many sets of features.
IN_FRONT = ("judged", "rates", "threshold", "confusion")
MOST_FEATURES = 2
_LONGEST_NAME = 60


def pictures_of(report: AuditReport, say: Catalogue | None = None) -> list[Figure]:
    """Every figure of a record, that of all judged numbers first; ``say``: its wording, else the record's own."""
    about = report.about or About()
    own = say or about.catalogue
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
