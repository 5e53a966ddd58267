"""Plans of planted controls: for each judged number the value at which its fault is planted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import scipy
from pydantic import TypeAdapter

from auditor.judging.budgets import Family, Levels, Pair, levels_of
from auditor.judging.criterion import Criterion
from auditor.judging.judging import bound_to_plan_for, decide, may_be_judged, pairs_of, tail_of, worst_value
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.statistics.estimate import Z_POWER, minimum_detectable_effect
from auditor.statistics.estimate_kinds import AnyEstimate

# How far beyond the bound, in smallest effects that the rows at hand can show.
TIMES = 1.5


@dataclass(frozen=True)
class Planting:
    """What planted controls follow from beside the answers: the criteria, the error rate, and the audit's seed."""

    criteria: tuple[Criterion, ...]
    family: Family
    seed: int = 0

    def to_json(self) -> str:
        """The planting as text, for a process that reads its job without numpy."""
        return TypeAdapter(Planting).dump_json(self).decode()

    @staticmethod
    def from_json(text: str) -> Planting:
        """The planting of such a text."""
        return TypeAdapter(Planting).validate_json(text)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The fault to plant for a number held to a criterion: its true ``value``, or ``why`` there is none.

    ``level``: of its FAIL, before other judgements of its budget leave theirs to it.
    """

    result: ProbeResult
    measurement: Measurement
    criterion: Criterion
    level: float
    value: float = math.nan
    why: str = ""

    def is_failed_by(self, estimate: AnyEstimate) -> bool:
        """Whether a twin's number FAILs, by the test that judges the model's own."""
        alpha, bound = tail_of(self.criterion, self.level), self.criterion.bound
        if isinstance(bound, tuple):
            return decide(estimate.bounds(alpha), self.criterion) is Outcome.FAIL
        # The end that FAIL rests on, alone.
        return estimate.shows(alpha, bound, "greater" if self.criterion.direction == "at_most" else "less")

    def with_value_by(self, estimate: AnyEstimate) -> Plan:
        """The plan with its fault put where a twin's own interval can show it, if that is farther out.

        Spreads that were planned at the ideal, or at the model's own value, may be larger where the fault lies.
        """
        bound, sign = bound_to_plan_for(self.criterion, self.measurement.ideal or 0.0)
        effect = _by_width(estimate, tail_of(self.criterion, self.level), bound, sign)
        worst = worst_value(estimate, sign)
        if math.isnan(effect) or sign * (bound + TIMES * (effect - bound) - self.value) <= 0.0:
            return self
        return replace(self, value=sign * min(sign * (bound + TIMES * (effect - bound)), sign * worst))


def plans_of(results: Sequence[ProbeResult], planting: Planting) -> list[Plan]:
    """The faults to plant for the judged numbers that have an interval."""
    _, _, sampled = pairs_of(results, planting.criteria, planting.family)
    pairs = [pair for pair in sampled if may_be_judged(pair[1]) and not math.isnan(pair[1].estimate.value)]
    # What others do not need of their budget comes on top of these levels: a FAIL takes no more than it does by them.
    levels, _ = levels_of(pairs, [(1.0, 1.0)] * len(pairs), planting.criteria, planting.family)
    return [_plan(pair, own) for pair, own in zip(pairs, levels, strict=True)]


def _plan(pair: Pair, levels: Levels) -> Plan:
    result, measurement, criterion = pair
    value, why = math.nan, ""
    ideal = measurement.ideal
    if ideal is None or decide((ideal, ideal), criterion) is not Outcome.PASS:
        why = "no value of this number is without a fault"
    else:
        bound, sign = bound_to_plan_for(criterion, ideal)
        effect = _smallest_effect(measurement, criterion, levels.fail, bound, sign)
        worst = worst_value(measurement.estimate, sign)
        if math.isnan(effect):
            why = "the smallest fault that these rows can show is not known for a number of this kind"
        elif sign * (effect - worst) > 0.0:
            why = "these rows can show no fault of it, however large"
        else:
            value = sign * min(sign * (bound + TIMES * (effect - bound)), sign * worst)
    return Plan(result=result, measurement=measurement, criterion=criterion, level=levels.fail, value=value, why=why)


def _smallest_effect(measurement: Measurement, criterion: Criterion, level: float, bound: float, sign: int) -> float:
    """The nearest value beyond the bound that is found with 80 % power; by the width of the interval where it is not
    planned."""
    estimate, ideal = measurement.estimate, measurement.ideal
    alpha = tail_of(criterion, level)
    effect = minimum_detectable_effect(estimate, bound=bound, alpha=alpha, ideal=ideal or 0.0, sign=sign)
    return effect if not math.isnan(effect) else _by_width(estimate, alpha, bound, sign)


def _by_width(estimate: AnyEstimate, alpha: float, bound: float, sign: int) -> float:
    """The same, of an estimate as far from its bound as its value is from the end of its interval."""
    end = estimate.lower(alpha) if sign > 0 else estimate.upper(alpha)
    half = abs(estimate.value - end)
    if not math.isfinite(half) or not 0.0 < alpha < 0.5:
        return math.nan
    return bound + sign * half * (1.0 + Z_POWER / float(-scipy.special.ndtri(alpha)))
