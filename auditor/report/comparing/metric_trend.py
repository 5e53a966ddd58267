"""One metric over the dates of several audits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from auditor.core.errors import UsageError, did_you_mean
from auditor.judging.figure_types import MOST_NAMED, Figure, Series
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.number_text import moment_of
from auditor.report.record.translations import ENGLISH, Catalogue
from auditor.report.report_figures import place_of

MOST_DRAWN = 60


@dataclass(frozen=True)
class Line:
    """A metric at one place of one model: its findings by the moment of their audits, earliest first."""

    name: str
    points: tuple[tuple[datetime, Finding], ...]

    @property
    def last(self) -> Finding:
        """The latest finding."""
        return self.points[-1][1]

    @property
    def badness(self) -> float:
        """Distance of the last value beyond its bound, or from its ideal if there is no requirement."""
        value, criterion = self.last.value, self.last.criterion
        if value is None:
            return -math.inf
        if criterion is not None and not isinstance(criterion.bound, tuple | list):
            return value - criterion.bound if criterion.direction == "at_most" else criterion.bound - value
        return abs(value - self.last.ideal) if self.last.ideal is not None else 0.0


def model_called(report: AuditReport) -> str:
    """The identifier of a model: its given id, independent of its file name."""
    return (report.about.model.id if report.about else "") or report.model.path or "in memory"


def lines_of(audits: Sequence[tuple[str, AuditReport]], metric: str) -> list[Line]:
    """A line per location of the metric, and per model if there are several, the worst one first.

    ``audits``: (moment of recording, record); the audit's own moment counts where it is one. Raises UsageError where
    no audit measured the metric, with the nearest that was measured.
    """
    lines: dict[str, list[tuple[datetime, Finding]]] = {}
    known: set[str] = set()
    models = {model_called(audit) for _, audit in audits}
    for recorded, audit in audits:
        when = moment_of(audit.created) or moment_of(recorded) or datetime.fromtimestamp(0, UTC)
        for finding in audit.findings:
            known.add(finding.metric or "")
            if finding.metric == metric and not finding.group:
                method = "" if finding.method in (None, "between_groups") else finding.method
                of = model_called(audit) if len(models) > 1 else ""
                name = " ".join(
                    part for part in (of, method, place_of(finding, audit, Catalogue.for_language(ENGLISH))) if part
                )
                lines.setdefault(name or metric, []).append((when, finding))
    if not lines:
        raise UsageError(f"No audit of this history measured {metric!r}{did_you_mean(metric, known - {''}) or '.'}")
    made = [Line(name, tuple(sorted(points, key=lambda p: p[0]))) for name, points in lines.items()]
    return sorted(made, key=lambda line: -line.badness)


def trend(audits: Sequence[tuple[str, AuditReport]], metric: str) -> Figure:
    """A metric over audits, a line for each place of each model, with intervals and criterion, by date.

    The ``MOST_NAMED`` worst lines are named, at most ``MOST_DRAWN`` are drawn at all; what is left out is said. Raises
    UsageError as :func:`lines_of` does.
    """
    lines = lines_of(audits, metric)
    judged = next((f.criterion for line in lines for _, f in line.points if f.criterion), None)
    bound = None if judged is None or isinstance(judged.bound, tuple | list) else judged.bound
    n = len({when for line in lines for when, _ in line.points})
    caption = [] if judged is None else [f"Dashed line: {judged.describe()} ({judged.source})."]
    if len(lines) > MOST_NAMED:
        caption.append(f"Named: the {MOST_NAMED} worst of {len(lines)} by their last audit; grey: the others.")
    if len(lines) > MOST_DRAWN:
        caption.append(f"{len(lines) - MOST_DRAWN} of these are not drawn.")
    first, last = (f(when for line in lines for when, _ in line.points) for f in (min, max))
    said = "; ".join(
        f"{line.name} {number_text.number(line.points[0][1].value)} at first and {number_text.number(line.last.value)} "
        f"({number_text.interval(line.last.interval)}) at last"
        for line in lines[:MOST_NAMED]
    )
    return Figure(
        id=f"trend/{metric}",
        probe="history",
        kind="trend",
        title=f"{metric.replace('_', ' ')} over {number_text.plural(n, 'audit')}",
        series=tuple(_series(line) for line in lines[:MOST_DRAWN]),
        alt=f"{metric} from {first.date()} to {last.date()}, by the dates of {n} audits. {said}. {' '.join(caption)}",
        x_label="date of the audit",
        y_label=metric.replace("_", " "),
        criterion=bound,
        caption=" ".join(["Each with the interval of its audit.", *caption]),
    )


def _series(line: Line) -> Series:
    ends = [f.interval or (None, None) for _, f in line.points]
    return Series(
        name=line.name,
        x=tuple(when.isoformat() for when, _ in line.points),
        y=tuple(f.value for _, f in line.points),
        low=tuple(low for low, _ in ends),
        high=tuple(high for _, high in ends),
    )
