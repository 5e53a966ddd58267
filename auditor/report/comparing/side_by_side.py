"""The shared numbers of two audits side by side, with differences and their statistical significance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from auditor.judging.measurement import Outcome, Pillar
from auditor.report.record.audit_report import INTAKE, AuditReport, Finding
from auditor.report.record.earlier_audits import Key, key_of
from auditor.report.record.finding_text import answers
from auditor.statistics.changes import GapChange, RateChange
from auditor.statistics.clusters import ClusteredValue
from auditor.statistics.estimate import Estimate
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.tradeoff_statistics import PreferenceChange

Verdict = Literal["better", "worse", "no change shown", "not judged", "undefined"]
SHOWN = ("better", "worse")
SUFFIX, SHIFT, MIDPOINT = "_change", "_shift", "_midpoint"
# The questions of which the paired changes of both models' answers are measured.
_OF_BOTH = ("ranking", "skill", "selection", "errors", "groups", "recorded")
Bounds = tuple[float, float]
# A difference within it is an error of arithmetic.
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class Side:
    """One number of one audit with its interval at the comparison's level; NaN and None if undefined."""

    value: float
    interval: Bounds | None
    outcome: Outcome = Outcome.NOT_JUDGED

    @classmethod
    def from_estimate(cls, estimate: Estimate, alpha: float, outcome: Outcome = Outcome.NOT_JUDGED) -> Side:
        """A side with one-sided bounds at ``alpha`` each."""
        value = estimate.value
        return cls(value=value, interval=estimate.bounds(alpha) if math.isfinite(value) else None, outcome=outcome)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number before and after, and the difference ``after - before`` with its interval.

    ``paired``: the difference was taken row by row on the same data (the ``change`` probe) or pair by pair on the same
    sentences, and is much better known than that of the two numbers. ``same``: both audits say the same of the same
    model and rows, so that there is no difference at all, and nothing to be uncertain of. ``verdict`` is about the
    distance from ``ideal``, is "better" or "worse" only where the whole interval says so, and is given for judged
    numbers only.
    """

    pillar: Pillar
    probe: str
    method: str | None
    metric: str
    of: tuple[tuple[str, str | float], ...]
    ideal: float | None
    before: Side
    after: Side
    difference: float
    interval: Bounds | None
    paired: bool
    verdict: Verdict
    same: bool = False

    @property
    def difference_method(self) -> str:
        """The method of the difference, in words."""
        return "the same audit" if self.same else "paired" if self.paired else "apart"

    @property
    def name(self) -> str:
        """The metric and its location, on one line."""
        where = [f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.of]
        if self.method not in (None, "between_groups", "paired"):
            where.append(str(self.method))
        return f"{self.metric} ({', '.join(where)})" if where else self.metric


@dataclass(frozen=True)
class Both:
    """The numbers of both audits by key, and the paired changes between them.

    ``report``: the later one, whose paired changes they are. ``same``: both are of the same model and rows.
    """

    report: AuditReport
    first: dict[Key, Finding]
    second: dict[Key, Finding]
    changes: dict[Key, Finding]
    same: bool = False

    @classmethod
    def from_reports(cls, before: AuditReport, after: AuditReport) -> Both:
        """All numbers of two audits."""
        return cls(after, numbers(before), numbers(after), numbers(after, changes=True), of_the_same(before, after))

    @property
    def shared_keys(self) -> list[Key]:
        """The numbers that both audits have."""
        return [key for key in self.first if key in self.second]

    @property
    def change_probe(self) -> str:
        """The probe that measured the paired changes; "" without any."""
        return next((f.probe for f in self.changes.values() if is_paired_change(self.report, f)), "")

    def gaps(self) -> list[Key]:
        """The gaps by a sensitive feature or by an intersection that both audits have, with the ideal 0."""
        return [key for key in self.shared_keys if self.second[key].ideal == 0.0 and dict(key[3]).get("by")]

    def paired_change(self, key: Key) -> Estimate | None:
        """The paired change of a number, if it exists."""
        probe, method, metric, of = key
        if answers(self.report, probe, metric, *_OF_BOTH):
            found = self._finite_change((self.change_probe, "paired", metric + SUFFIX, of))
            return self._finite_change((probe, method, metric + SUFFIX, of)) if found is None else found
        shift, midpoint = (self._finite_change((probe, method, metric + ending, of)) for ending in (SHIFT, MIDPOINT))
        if shift is None or midpoint is None:
            return None
        own = self.second[key].estimate
        if isinstance(own, ClusteredValue):
            middle, span = 0.5 * (own.low + own.high), own.high - own.low
            return PreferenceChange(shift=shift, midpoint=midpoint, span=span, ideal=middle)
        return PreferenceChange(shift=shift, midpoint=midpoint)

    def _finite_change(self, key: Key) -> AnyEstimate | None:
        found = self.changes.get(key)
        known = found is not None and found.estimate is not None and math.isfinite(found.estimate.value)
        return found.estimate if known and found is not None else None

    def of_all(self, metric: str) -> list[Finding]:
        """The paired changes of a metric that are of no group."""
        own = [f for f in self.changes.values() if f.metric == metric + SUFFIX and not f.group]
        return [f for f in own if is_paired_change(self.report, f)]

    def row_for(self, key: Key, alpha: float, *, with_verdict: bool = True, whole: bool = True) -> Row:
        """One number before and after; if ``with_verdict``, with the verdict of its interval at this level.

        Not ``whole``: a gap whose change was paired has no intervals of its own, which take longest to find.
        """
        before, after = self.first[key], self.second[key]
        assert before.estimate is not None and after.estimate is not None
        change = self.paired_change(key)
        if isinstance(change, GapChange) and not whole:
            sides = tuple(Side(value=f.estimate.value, interval=None) for f in (before, after) if f.estimate)
        else:
            sides = tuple(Side.from_estimate(f.estimate, alpha / 2.0, f.outcome) for f in (before, after) if f.estimate)
        found = row(
            key, after.pillar, sides=sides, ideal=after.ideal, change=change, alpha=alpha, with_verdict=with_verdict
        )
        if self.same and before.estimate == after.estimate and math.isfinite(found.difference):
            # One number of one model and one set of rows: whatever it truly is, it is the same on either side.
            unchanged: Verdict = "no change shown" if found.verdict in (*SHOWN, "undefined") else found.verdict
            return replace(found, interval=(0.0, 0.0), paired=True, same=True, verdict=unchanged)
        if found.verdict == "better" and after.vacuous:
            # A model that tells no rows apart has nothing to be the better for.
            return replace(found, verdict="no change shown")
        return found


def of_the_same(before: AuditReport, after: AuditReport) -> bool:
    """Whether two audits are one, or of the same bytes of a model and of rows."""
    digests = [(r.model.sha256, r.data.sha256) for r in (before, after)]
    return before == after or (digests[0] == digests[1] and None not in digests[0])


def numbers(report: AuditReport, *, changes: bool = False) -> dict[Key, Finding]:
    """The findings with a number, by key; the first one if a number has several criteria."""
    found: dict[Key, Finding] = {}
    for finding in report.findings:
        if finding.metric is None or finding.estimate is None or _is_change(report, finding) != changes:
            continue
        if finding.pillar != INTAKE:
            found.setdefault(key_of(finding), finding)
    return found


def is_paired_change(report: AuditReport, finding: Finding) -> bool:
    """Whether it is about how the answers to the same rows changed since a reference model."""
    return answers(report, finding.probe, finding.metric, "change")


def _is_change(report: AuditReport, finding: Finding) -> bool:
    """Whether the finding compares two models on the same rows or sentences."""
    metric = str(finding.metric)
    own = metric.endswith(SUFFIX) and answers(report, finding.probe, metric, *_OF_BOTH)
    return is_paired_change(report, finding) or own or metric.endswith((SHIFT, MIDPOINT))


def row(
    key: Key,
    pillar: Pillar,
    *,
    sides: tuple[Side, ...],
    ideal: float | None,
    change: Estimate | None,
    alpha: float,
    with_verdict: bool,
) -> Row:
    """A number before and after; the interval of the difference is that of the paired ``change`` if it exists."""
    before, after = sides
    difference, bounds = after.value - before.value, difference_bounds(before.interval, after.interval)
    if change is not None:
        difference, bounds = change.value, change.bounds(alpha)
    distance = None
    if isinstance(change, PreferenceChange) and ideal == change.ideal:
        distance = change.distance_bounds(alpha)
    verdict = _verdict(ideal, sides, bounds, change, distance, with_verdict=with_verdict)
    return Row(
        pillar=pillar,
        probe=key[0],
        method=key[1],
        metric=key[2],
        of=key[3],
        ideal=ideal,
        before=before,
        after=after,
        difference=difference,
        interval=bounds,
        paired=change is not None,
        verdict=verdict,
    )


def of_rate(change: Finding, alpha: float, *, with_verdict: bool = True) -> Row:
    """A rate before and after, such as accuracy, from its paired change alone."""
    known = change.estimate if isinstance(change.estimate, RateChange) else None
    sides = (Side(value=math.nan, interval=None),) * 2
    if known is not None:
        sides = Side.from_estimate(known.rate(after=False), alpha), Side.from_estimate(known.rate(after=True), alpha)
    key = (change.probe, "paired", str(change.metric).removesuffix(SUFFIX), key_of(change)[3])
    return row(key, change.pillar, sides=sides, ideal=1.0, change=known, alpha=alpha, with_verdict=with_verdict)


def difference_bounds(before: Bounds | None, after: Bounds | None) -> Bounds | None:
    """Bounds of a difference from the bounds of both numbers, for any dependence between them."""
    return None if before is None or after is None else (after[0] - before[1], after[1] - before[0])


def _distance(interval: Bounds, ideal: float) -> Bounds:
    """The least and the largest distance from the ideal within an interval."""
    low, high = interval
    return max(0.0, ideal - high, low - ideal), max(abs(low - ideal), abs(high - ideal))


def _verdict(
    ideal: float | None,
    sides: Sequence[Side],
    bounds: Bounds | None,
    paired_change: Estimate | None,
    distance: Bounds | None,
    *,
    with_verdict: bool,
) -> Verdict:
    before, after = sides
    if bounds is None:
        return "undefined"
    if isinstance(paired_change, GapChange) and ideal is not None and with_verdict:
        return "better" if bounds[1] < 0.0 else "worse" if bounds[0] > 0.0 else "no change shown"
    if before.interval is None or after.interval is None:
        return "undefined"
    if ideal is None or not with_verdict:
        return "not judged"
    if max(map(abs, bounds)) < _ROUNDING:
        return "no change shown"
    if distance is not None:
        closer, further = distance[1] < 0.0, distance[0] > 0.0
    elif ideal <= min(before.interval[0], after.interval[0]):
        closer, further = bounds[1] < 0.0, bounds[0] > 0.0
    elif ideal >= max(before.interval[1], after.interval[1]):
        closer, further = bounds[0] > 0.0, bounds[1] < 0.0
    else:
        was, now = _distance(before.interval, ideal), _distance(after.interval, ideal)
        closer, further = now[1] < was[0], now[0] > was[1]
    return "better" if closer else "worse" if further else "no change shown"
