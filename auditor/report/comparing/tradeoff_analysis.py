"""One mitigation at several strengths: the points on the Pareto front, and the significant alternatives."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from pydantic import JsonValue

from auditor.core.errors import UsageError
from auditor.judging.criterion import MOST_RATE
from auditor.report.comparing.compare_audits import Comparison
from auditor.report.comparing.prior_tradeoff import LEAKAGE, PARITY, RATIO, Disparity, Evidence, Gap
from auditor.report.record.number_text import number, signed
from auditor.statistics.changes import RateChange
from auditor.statistics.tradeoff_statistics import Largest, Measured, dominating, rows_needed, shown_dominated

PRESENT = "unmitigated"
Verdict = Literal[
    "present model",
    "less discriminatory alternative",
    "trades one gap for another",
    "decides alike for all",
    "not useful",
    "fails a criterion",
    "costs more than the tolerance",
    "no less disparate",
    "not shown",
    "undefined",
    "not made",
]
Standing = Literal["less", "more", "not shown", "undefined"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A point of a sweep: its name, options and evidence; no evidence if it ``failed``.

    ``barred``: why it is no alternative, whatever gap closed, in a word and in sentences: see :func:`why_barred`.
    """

    name: str
    settings: Mapping[str, JsonValue] = field(default_factory=dict)
    evidence: Evidence | None = None
    failed: str = ""
    barred: tuple[Verdict, str] | None = None
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    folder: str = ""


def why_barred(comparison: Comparison) -> tuple[Verdict, str] | None:
    """The reason why a model is no alternative, from its comparison with the present one, or None.

    It is of no use, as :class:`~auditor.report.comparing.usefulness.Usefulness` has it, or FAILs a criterion that it
    did not, or is not shown to know anything of the rows.
    """
    useful = comparison.usefulness
    if useful.standing == "failed":
        return "not useful", " ".join(useful.reasons)
    if comparison.crossed:
        return "fails a criterion", f"FAILs its criterion now: {'; '.join(comparison.crossed)}."
    return ("not shown", useful.unskilled) if useful.unskilled else None


# ---- the record ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FeaturePoint:
    """One sensitive feature, or the intersection of all, at one point.

    ``standing`` is what the whole interval of the paired ``change`` shows.
    """

    feature: str
    own: Measured
    change: Measured
    ratio: Measured
    standing: Standing
    alternative: bool


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a trade-off.

    ``performance_change`` and each feature's ``change`` are paired with the present model and have the intervals that
    ``verdict`` rests on. ``on_front``: no other point is at least as good on every axis and better on one, by the
    values; None where a value is undefined. ``dominated_by``: one that is. ``shown_dominated``: by simultaneous
    intervals too. ``rows_needed``: about how many rows would show that a model whose performance has not changed is
    within the tolerance, with 80 % power, where these do not.
    """

    name: str
    settings: Mapping[str, JsonValue]
    verdict: Verdict
    reason: str
    performance: Measured
    performance_change: Measured
    features: tuple[FeaturePoint, ...]
    leakage: Measured | None
    on_front: bool | None
    dominated_by: str
    shown_dominated: bool
    rows_needed: int | None
    notes: tuple[str, ...]
    remarks: tuple[str, ...]
    folder: str

    @property
    def has_model(self) -> bool:
        """Whether a model and its audit exist."""
        return self.verdict != "not made"


@dataclass(frozen=True, kw_only=True)
class Tradeoff:
    """A sweep: the present model and the points, all audited on the same rows.

    ``n_tried``: the models that these rows have graded, ``m``: the paired differences that are bounded: one of
    performance, and one of the disparity of each feature and of their intersection, for each of them. Each interval of
    a change misses with at most ``error_rate / m`` on either side, so that over all points the chance of any false
    alternative is at most ``error_rate``, whichever of them are looked at. ``own_alpha``: the level of either side of
    the points' own intervals, which hold together with ``1 - error_rate``.
    """

    made_by: str
    metric: str
    disparity: Disparity
    tolerance: float
    error_rate: float
    n_tried: int
    m: int
    own_alpha: float
    axes: tuple[str, ...]
    present: Point
    points: tuple[Point, ...]

    @property
    def alternatives(self) -> tuple[Point, ...]:
        """The points that are significantly less discriminatory alternatives."""
        return tuple(p for p in self.points if p.verdict == "less discriminatory alternative")

    @property
    def all(self) -> tuple[Point, ...]:
        """The present model, then the points."""
        return (self.present, *self.points)

    @property
    def alpha(self) -> float:
        """The level of either side of each change's interval."""
        return self.error_rate / self.m

    @property
    def exit_code(self) -> int:
        """0 if an alternative is significant, 1 if every model that was made is useless or fails, else 3."""
        if self.alternatives:
            return 0
        made = [p.verdict for p in self.points if p.has_model]
        return 1 if made and set(made) <= {"decides alike for all", "not useful", "fails a criterion"} else 3

    @property
    def headline(self) -> str:
        """The conclusions and the open questions of the sweep, in a few sentences."""
        n = len(self.points)
        counted = {v: sum(p.verdict == v for p in self.points) for v in get_args(Verdict)}
        shown = self.alternatives
        terms = f"at most {self.tolerance:g} lower in {self.metric}, and less disparate by {self.disparity}"
        if shown:
            named = "is shown to be a less discriminatory alternative"
            if len(shown) > 1:
                named = "are shown to be less discriminatory alternatives"
            first = f"{len(shown)} of {n} points {named} to the present model, {terms}: "
            first += f"{', '.join(p.name for p in shown)}."
        else:
            first = (
                f"None of {n} points is shown to be a less discriminatory alternative to the present model, {terms}. "
                "That is not to say that there is none."
            )
        said = {
            "not shown": "these rows leave it open",
            "costs more than the tolerance": "the cost is shown to be larger than the tolerance",
            "no less disparate": "it is shown to be no less disparate",
            "decides alike for all": "every row gets the same decision, which closes any gap and is no model",
            "not useful": "the model is shown to be of less use, or of none",
            "fails a criterion": "something now FAILs its criterion that did not",
            "trades one gap for another": "one gap closes and another is shown to open",
            "undefined": "a number is undefined",
            "not made": "there is no model, or no audit of it",
        }
        rest = [f"for {counted[v]} {words}" for v, words in said.items() if counted[v]]
        second = f" Of the others, {'; '.join(rest)}." if shown and rest else f" {_capital('; '.join(rest))}."
        needed = [p.rows_needed for p in self.points if p.verdict == "not shown" and p.rows_needed]
        third = (
            f" That a model whose {self.metric} has not changed is within the tolerance would take about "
            f"{min(needed):,} rows to show, at the fewest of these points."
            if needed
            else ""
        )
        return first + (second if rest else "") + third


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def weigh(
    present: Candidate,
    candidates: Sequence[Candidate],
    *,
    made_by: str = "",
    metric: str = "accuracy",
    disparity: Disparity = PARITY,
    tolerance: float = 0.01,
    error_rate: float = 0.05,
    n_tried: int | None = None,
) -> Tradeoff:
    """Compare every candidate with the present model, and all candidates with each other.

    A candidate is called a less discriminatory alternative where the whole interval of its change in ``metric`` lies at
    or above ``-tolerance``, the whole interval of its change in ``disparity`` says less for at least one sensitive
    feature or the intersection of all, and for none says more; a model that decides alike for all rows is none,
    nor is one that is ``barred``. Choosing the best of many on the rows that grade them is paid for: the error rate is
    shared over all differences of all ``n_tried`` candidates, which is at least their number (Bonferroni).

    Raises UsageError for a tolerance or an error rate that is none, or a present model without evidence.
    """
    if not (tolerance >= 0.0 and math.isfinite(tolerance)):
        raise UsageError(f"--tolerance must be a number of at least 0, such as 0.01, not {tolerance}.")
    if not 0.0 < error_rate <= MOST_RATE:
        raise UsageError(f"The error rate must be above 0 and at most {MOST_RATE:g}, not {error_rate}.")
    own = present.evidence
    if own is None or not candidates:
        raise UsageError("A trade-off needs an audit of the present model, and at least one point.")
    tried = max(n_tried or 0, len(candidates))
    m = tried * (1 + len(own.gaps))
    audited = [c.evidence for c in (present, *candidates) if c.evidence is not None]
    attacks = [
        name for name in own.attacks if all(name in e.attacks and math.isfinite(e.attacks[name].value) for e in audited)
    ]
    axes = (metric, *(f"{disparity} by {gap.feature}" for gap in own.gaps), *([LEAKAGE] if attacks else []))
    own_alpha = error_rate / (2 * (tried + 1) * len(axes))
    directions = [1.0, *([1.0 if disparity == RATIO else -1.0] * len(own.gaps)), -1.0][: len(axes)]
    places = {
        c.name: _coordinates(c.evidence, attacks, own_alpha) for c in (present, *candidates) if c.evidence is not None
    }

    points = []
    for candidate in (present, *candidates):
        found = _Judged.from_candidate(candidate, present, disparity, metric, tolerance, error_rate / m)
        better = dominating(candidate.name, places, directions)
        dominated = shown_dominated(candidate.name, places, directions)
        at = places.get(candidate.name, ())
        points.append(_point(candidate, found, at, own_alpha, leaks=bool(attacks), better=better, dominated=dominated))
    unweighed = (own.unweighed,) if own.unweighed else ()
    points[0] = replace(points[0], remarks=(*points[0].remarks, *unweighed))
    return Tradeoff(
        made_by=made_by,
        metric=metric,
        disparity=disparity,
        tolerance=tolerance,
        error_rate=error_rate,
        n_tried=tried,
        m=m,
        own_alpha=own_alpha,
        axes=axes,
        present=points[0],
        points=tuple(points[1:]),
    )


def _point(
    candidate: Candidate,
    judgement: _Judged,
    coordinates: Sequence[Measured],
    own_alpha: float,
    *,
    leaks: bool,
    better: str,
    dominated: bool,
) -> Point:
    """``coordinates``: the candidate's place on every axis, the last of them its leakage where one ``leaks``."""
    return Point(
        name=candidate.name,
        settings=candidate.settings,
        verdict=judgement.verdict,
        reason=judgement.reason,
        performance=coordinates[0] if coordinates else _UNKNOWN,
        performance_change=judgement.performance_change,
        features=tuple(
            FeaturePoint(
                feature=gap.feature,
                own=coordinates[1 + i],
                change=change,
                ratio=Measured.from_estimate(gap.ratio, own_alpha),
                standing=standing,
                alternative=judgement.cheap and standing == "less" and judgement.verdict != "present model",
            )
            for i, (gap, change, standing) in enumerate(judgement.gaps)
        ),
        leakage=coordinates[-1] if coordinates and leaks else None,
        on_front=None if not coordinates or any(p.interval is None for p in coordinates) else not better,
        dominated_by=better,
        shown_dominated=dominated,
        rows_needed=judgement.rows_needed,
        notes=candidate.notes,
        remarks=(*candidate.remarks, *judgement.remarks),
        folder=candidate.folder,
    )


_UNKNOWN = Measured(value=math.nan, interval=None)


# ---- the judgement of one point ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Judged:
    verdict: Verdict
    reason: str = ""
    performance_change: Measured = _UNKNOWN
    gaps: tuple[tuple[Gap, Measured, Standing], ...] = ()
    cheap: bool = False
    rows_needed: int | None = None
    remarks: tuple[str, ...] = ()

    @classmethod
    def from_candidate(
        cls,
        candidate: Candidate,
        present: Candidate,
        disparity: Disparity,
        metric: str,
        tolerance: float,
        alpha: float,
    ) -> _Judged:
        evidence = candidate.evidence
        if evidence is None:
            return cls(verdict="not made", reason=candidate.failed)
        if candidate is present:
            unchanged = Measured(value=0.0, interval=(0.0, 0.0))
            gaps = tuple((gap, unchanged, _change_direction(unchanged, disparity)) for gap in evidence.gaps)
            return cls(verdict="present model", performance_change=unchanged, gaps=gaps, cheap=True)
        change = Measured.from_estimate(evidence.performance_change, alpha)
        gaps = tuple(
            (gap, moved, _change_direction(moved, disparity))
            for gap in evidence.gaps
            for moved in [Measured.from_estimate(gap.change, alpha)]
        )
        cheap = change.interval is not None and change.interval[0] >= -tolerance
        verdict = _verdict(change, [standing for _, _, standing in gaps], tolerance)
        if verdict in ("less discriminatory alternative", "not shown") and evidence.constant:
            verdict = "decides alike for all"
        barred = candidate.barred if verdict in ("less discriminatory alternative", "not shown") else None
        needed = None
        if not cheap and isinstance(evidence.performance_change, RateChange):
            needed = rows_needed(evidence.performance_change, tolerance, alpha)
            # Where these are enough, it is what the model did that leaves it open.
            needed = needed if needed is not None and needed > evidence.performance_change.n else None
        return cls(
            verdict=barred[0] if barred else verdict,
            reason=barred[1] if barred else _reason(verdict, change, gaps, metric, disparity, tolerance),
            performance_change=change,
            gaps=gaps,
            cheap=cheap and not evidence.constant and barred is None,
            rows_needed=needed,
            remarks=tuple(_levelled(gaps, present.evidence, disparity, alpha)),
        )


def _change_direction(change: Measured, disparity: Disparity) -> Standing:
    if change.interval is None:
        return "undefined"
    low, high = change.interval
    if disparity == RATIO:
        low, high = -high, -low
    return "less" if high < 0.0 else "more" if low > 0.0 else "not shown"


def _verdict(change: Measured, standings: Sequence[Standing], tolerance: float) -> Verdict:
    if change.interval is None or "undefined" in standings:
        return "undefined"
    if change.interval[1] < -tolerance:
        return "costs more than the tolerance"
    if "less" not in standings:
        return "no less disparate" if all(s == "more" for s in standings) else "not shown"
    if change.interval[0] < -tolerance:
        return "not shown"
    return "trades one gap for another" if "more" in standings else "less discriminatory alternative"


def _reason(
    verdict: Verdict,
    change: Measured,
    gaps: Sequence[tuple[Gap, Measured, Standing]],
    metric: str,
    disparity: Disparity,
    tolerance: float,
) -> str:
    """What decided, or what the rows could not tell."""
    if change.interval is None:
        return f"The change of {metric} is undefined on these rows."
    unknown = [gap.feature for gap, _, standing in gaps if standing == "undefined"]
    if unknown:
        return f"{disparity} by {', '.join(unknown)} is undefined on these rows."
    if verdict == "decides alike for all":
        return "Every row gets the same decision: no gap is left between groups, and nothing is decided."
    if verdict == "costs more than the tolerance":
        return f"{metric} is shown to be lower by at least {number(-change.interval[1])}; {tolerance:g} is allowed."
    parts = []
    if change.interval[0] < -tolerance:
        parts.append(f"{metric} may be lower by up to {number(-change.interval[0])}, and {tolerance:g} is allowed")
    else:
        parts.append(f"{metric} is shown to be lower by at most {number(max(0.0, -change.interval[0]))}")
    for gap, moved, standing in gaps:
        assert moved.interval is not None
        words = {
            "less": "is shown to be less disparate",
            "more": "is shown to be more disparate",
            "not shown": "may have changed either way",
        }[standing]
        parts.append(f"{gap.feature} {words} ({signed(moved.interval[0])} to {signed(moved.interval[1])})")
    return _capital("; ".join(parts)) + "."


def _levelled(
    gaps: Sequence[tuple[Gap, Measured, Standing]], present: Evidence | None, disparity: Disparity, alpha: float
) -> Iterator[str]:
    """A gap in selection rates that is shown to have closed while the impact ratio is shown to have fallen.

    Then fewer are selected, in every group. Over all points the chance of any that is false is at most the error rate
    that the changes share, and once more that for the ratios.
    """
    before = {gap.feature: gap.ratio.value for gap in (present.gaps if present else ())}
    for gap, moved, standing in gaps:
        if disparity == RATIO or standing != "less" or not gap.ratio_change.bounds(alpha)[1] < 0.0:
            continue
        yield (
            f"{disparity} by {gap.feature} closed by {-moved.value:.3f}, and the impact ratio fell from "
            f"{before.get(gap.feature, math.nan):.3f} to {gap.ratio.value:.3f}: both are shown."
        )


# ---- the front -----------------------------------------------------------------------------------------------------


def _coordinates(evidence: Evidence, attacks: Sequence[str], alpha: float) -> tuple[Measured, ...]:
    estimates = [evidence.performance, *(gap.own for gap in evidence.gaps)]
    if attacks:
        estimates.append(Largest(parts=tuple(evidence.attacks[name] for name in attacks)))
    return tuple(Measured.from_estimate(estimate, alpha) for estimate in estimates)
