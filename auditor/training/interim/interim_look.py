"""One interim look at a model during training, and figures of all looks over the course of training."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from auditor.judging.budgets import Family
from auditor.judging.figure_types import Figure, Series
from auditor.judging.judgement import Judgement
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.judging.training_looks import LookRecord
from auditor.training.interim.interim_state import Spending

# Ways of measuring that say nothing beyond the metric's own name.
_PLAIN = ("", "between_groups")
_OTHERS = re.compile(r"[^A-Za-z0-9_\-. ]")


@dataclass(frozen=True, kw_only=True)
class Peek:
    """The result of a look: ``at`` counts epochs or steps, ``error_rate`` is the level of its judgements.

    ``look``: its number in the plan, those that were left out counted; 0 of the closing one.
    ``judged``: whether it was held to the criteria; what lies beyond the plan, or was spent before, is not.
    ``weights``: a digest of the network's parameters and buffers, "" of what is no network. ``faults``: what went wrong
    in taking it, where anything did; the probes it concerns are NOT_RUN. ``family``: as it was judged.
    """

    at: float
    results: tuple[ProbeResult, ...]
    findings: tuple[Judgement, ...]
    error_rate: float
    seconds: float
    look: int = 0
    judged: bool = True
    weights: str = ""
    faults: tuple[str, ...] = ()
    family: Family = field(default_factory=Family)

    @property
    def failures(self) -> tuple[Judgement, ...]:
        """Judgements significantly beyond their limits."""
        return tuple(f for f in self.findings if f.outcome is Outcome.FAIL)

    @property
    def record(self) -> LookRecord:
        """The look's record for a report."""
        failed = tuple(dict.fromkeys(f.measurement.metric for f in self.failures if f.measurement))
        return LookRecord(
            look=self.look, at=self.at, error_rate=self.error_rate, judged=self.judged, weights=self.weights,
            failed=failed,
        )  # fmt: skip

    @property
    def settled(self) -> bool:
        """Whether something was judged, and every requested probe ran."""
        outcomes = {f.outcome for f in self.findings}
        return bool(outcomes & {Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE}) and Outcome.NOT_RUN not in outcomes

    @property
    def has_passed(self) -> bool:
        """Whether something was judged and all of it passed; undecided numbers and probes not run are no pass."""
        judged = [f.outcome for f in self.findings if f.outcome not in (Outcome.NOT_JUDGED, Outcome.NOT_APPLICABLE)]
        return bool(judged) and all(outcome is Outcome.PASS for outcome in judged)


def metric_name(probe: str, measurement: Measurement) -> str:
    """``audit/<probe>/<metric>``, then method, features, group and place, where there are any, such as ``sex.f``.

    Of letters, digits and ``_-. /`` only, which is what trackers take; whatever else a name holds is ``_``.
    """
    parts = ["audit", probe, measurement.metric]
    if measurement.method not in _PLAIN:
        parts.append(measurement.method)
    if measurement.sensitive:
        parts.append("-".join(measurement.sensitive))
    parts += ["-".join(f"{k}.{v}" for k, v in sorted(where.items())) for where in (measurement.group, measurement.at)]
    return "/".join(_OTHERS.sub("_", part) for part in parts if part)


def logged(results: Sequence[ProbeResult], findings: Sequence[Judgement]) -> dict[str, float]:
    """Every finite number by its name, its interval as ``/low`` and ``/high``, and the count of each outcome."""
    numbers = {
        metric_name(result.probe, m): float(m.estimate.value)
        for result in results
        for m in result.measurements
        if math.isfinite(m.estimate.value)
    }
    for finding in findings:
        if finding.measurement is not None and finding.interval is not None:
            name = metric_name(finding.probe, finding.measurement)
            ends = zip(("low", "high"), finding.interval, strict=True)
            numbers |= {f"{name}/{end}": float(value) for end, value in ends if math.isfinite(value)}
    counts = {
        f"audit/outcomes/{outcome.value.lower()}": float(sum(f.outcome is outcome for f in findings))
        for outcome in Outcome
    }
    return numbers | counts


_MOST_SERIES = 8
_FEWEST_POINTS = 2
# Of what nothing is required: two points of many planned say little, and drawing them costs more than taking them.
_FEWEST_OF_MANY = 3


@dataclass(frozen=True)
class _Line:
    probe: str
    method: str
    metric: str
    sensitive: tuple[str, ...]
    of_groups: tuple[str, ...]


def courses(peeks: Sequence[Peek], unit: str, spending: Spending | None) -> list[Figure]:
    """One figure per number and feature set, with a line per group, over the looks.

    The band of each point has the level at which its peek was judged. Over all planned peeks and all numbers that are
    held to a criterion, the chance that any band lies above the value of its model is at most what the looks on the way
    share, and so is that of any band below it: a confidence sequence over the models of the run. Bands of other numbers
    have the same level each and do not hold together; a look beyond the plan has none.

    Numbers with further coordinates, such as a noise level, and groups beyond eight are left to the report's tables,
    and so is what nothing is required of where only two of more planned looks were taken.
    What is held to a criterion comes first.
    """
    lines: dict[_Line, dict[str, list[tuple[float, Judgement]]]] = {}
    for peek in peeks:
        seen: set[tuple[_Line, str]] = set()
        for finding in peek.findings:
            m = finding.measurement
            if m is None or m.at:
                continue
            line = _Line(finding.probe, m.method, m.metric, m.sensitive, tuple(m.group))
            group = " × ".join(m.group.values())
            # A number that is held to several criteria is drawn once.
            if (line, group) not in seen:
                seen.add((line, group))
                lines.setdefault(line, {}).setdefault(group, []).append((peek.at, finding))
    figures = [
        _figure(line, groups, unit, spending, {p.at for p in peeks if p.judged} if spending else set())
        for line, groups in lines.items()
        if max(len(points) for points in groups.values()) >= _fewest(groups, spending)
    ]
    drawn = [f for f in figures if any(y is not None for s in f.series for y in s.y)]
    return sorted(drawn, key=lambda f: f.criterion is None)


def _fewest(groups: dict[str, list[tuple[float, Judgement]]], spending: Spending | None) -> int:
    required = any(finding.criterion is not None for points in groups.values() for _, finding in points)
    few = spending is None or spending.n_peeks < _FEWEST_OF_MANY
    return _FEWEST_POINTS if required or few else _FEWEST_OF_MANY


def _figure(
    line: _Line,
    groups: dict[str, list[tuple[float, Judgement]]],
    unit: str,
    spending: Spending | None,
    planned: set[float],
) -> Figure:
    """``planned``: the places of the looks that were judged."""
    shown = dict(list(groups.items())[:_MOST_SERIES])
    name = line.metric.replace("_", " ")
    series = tuple(_series(group or name, points, planned) for group, points in shown.items())
    features = line.sensitive or line.of_groups
    by = f" by {' × '.join(features)}" if features else ""
    method = f", {line.method.replace('_', ' ')}" if line.method not in ("", "between_groups") else ""
    criterion = next((f.criterion for points in shown.values() for _, f in points if f.criterion is not None), None)
    bound = criterion.bound if criterion is not None and not isinstance(criterion.bound, tuple) else None
    required = f" Dashed line: {criterion.describe()}, as is required." if criterion and bound is not None else ""
    caption = required.strip()
    if spending is not None and any(f.interval for points in shown.values() for _, f in points):
        caption = _band_words(shown, spending, with_criterion=criterion is not None) + required
    if len(groups) > len(shown):
        caption += f" {len(groups) - len(shown)} more groups are not drawn."
    words = "; ".join(f"{s.name} {_words(s)}" for s in series)
    return Figure(
        id="/".join(p for p in ("course", line.probe, line.method, line.metric, "+".join(features)) if p),
        probe=line.probe,
        kind="curve",
        title=f"{name[:1].upper()}{name[1:]}{by}{method}, over training",
        series=series,
        alt=f"{name}{by} over {unit}s: {words}. {caption}",
        x_label=unit,
        y_label="value",
        criterion=bound,
        caption=caption,
    )


def _series(name: str, points: Sequence[tuple[float, Judgement]], planned: set[float]) -> Series:
    """The points of a group, with bands at the ``planned`` looks."""

    def end(at: float, finding: Judgement, which: int) -> float | None:
        return finding.interval[which] if finding.interval and at in planned else None

    return Series(
        name=name,
        x=tuple(at for at, _ in points),
        y=tuple(f.measurement.estimate.value if f.measurement else None for _, f in points),
        low=tuple(end(at, f, 0) for at, f in points),
        high=tuple(end(at, f, 1) for at, f in points),
    )


def _band_words(groups: dict[str, list[tuple[float, Judgement]]], spending: Spending, *, with_criterion: bool) -> str:
    """What the bands of a figure promise."""
    if not with_criterion:
        return f"Each band holds with {1.0 - 2.0 * _level(groups):.4g} by itself, not all of them together."
    share = spending.error_rate * (1.0 - spending.closing_share)
    return (
        f"Over all looks, the chance that any band of a number with a criterion lies above the truth is at most "
        f"{share:.3g}, and so is that of any below it."
    )


def _level(series: dict[str, list[tuple[float, Judgement]]]) -> float:
    """The level of either side of the widest band."""
    levels = [(1.0 - f.confidence) / 2.0 for points in series.values() for _, f in points if f.confidence is not None]
    return min(levels, default=0.0)


def _words(series: Series) -> str:
    known = [(x, y) for x, y in zip(series.x, series.y, strict=True) if y is not None]
    if not known:
        return "is undefined throughout"
    (first, begins), (last, ends) = known[0], known[-1]
    return f"goes from {begins:.4g} at {first:g} to {ends:.4g} at {last:g}"
