"""Statistics of trade-offs between models: changes combined from several estimates, and the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from auditor.core.rows import BoolArray, FloatArray
from auditor.statistics.changes import RateChange, change_bounds
from auditor.statistics.estimate import POWER, EachBound, Estimate, Side, smallest_level, smallest_p
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.intervals import clopper_pearson, sum_upper
from auditor.statistics.rates import RateTable, WeightedSum

# Of a level, what the changes themselves have, what differences of two decisions, and which may be the commonest.
_OWN_SHARE, _OTHER_SHARE = 0.8, 0.1


class MeanChange(Estimate):
    """The mean of several changes of rates over different rows, ``mean_i c_i``, in [-1, 1], bounded as one sum."""

    parts: tuple[RateChange, ...]

    @property
    def value(self) -> float:
        return sum(part.value for part in self.parts) / len(self.parts)

    def mean(self, *, after: bool) -> WeightedSum:
        """The mean of the rates under either model: of recalls, balanced accuracy."""
        rates = [part.rate(after=after) for part in self.parts]
        table = RateTable(rate="recall", successes=tuple(r.successes for r in rates), n=tuple(r.n for r in rates))
        return WeightedSum(weights=(1.0 / len(rates),) * len(rates), table=table)

    def bounds(self, alpha: float) -> tuple[float, float]:
        if not all(part.n for part in self.parts):
            return -1.0, 1.0
        counts = np.asarray([(p.gained, p.lost, p.n - p.gained - p.lost) for p in self.parts], np.float64)
        values = np.asarray([1.0, -1.0, 0.0]) / len(self.parts)
        high, low = (float(sum_upper(counts, values=sign * values, alpha=alpha)) for sign in (1.0, -1.0))
        return -low, high


class CommonestChange(Estimate):
    """``max_k p_k after - max_k p_k before`` of the shares p of decisions, on the same rows; in [-1, 1].

    Above: let a be the commonest decision after. Before, the commonest was no rarer than a, nor than any other c, so
    that the change is at most that of a, and at most ``p_a after - p_c before``, which is known row by row where there
    are two decisions. A tenth of alpha says which decisions a may be, by Clopper and Pearson's bounds of all shares
    together; eight tenths bound the change of each of those, a tenth the other difference, and the smaller of both
    holds for a. Below: the same with before and after exchanged.
    """

    parts: tuple[RateChange, ...]

    @property
    def value(self) -> float:
        return self.commonest(after=True) - self.commonest(after=False)

    def commonest(self, *, after: bool) -> float:
        """The share of the commonest decision under either model."""
        return max(part.rate(after=after).value for part in self.parts)

    def commonest_bounds(self, alpha: float, *, after: bool) -> tuple[float, float]:
        """Bounds of the commonest rate: largest lower bound, each at its share of alpha; largest upper, at alpha."""
        successes, n = self._counts(after=after)
        low, _ = clopper_pearson(successes, n=n, alpha=alpha / len(self.parts))
        _, high = clopper_pearson(successes, n=n, alpha=alpha)
        return float(low.max()), float(high.max())

    def bounds(self, alpha: float) -> tuple[float, float]:
        held, gained, lost, n = np.asarray([(p.before, p.gained, p.lost, p.n) for p in self.parts], np.float64).T
        low, high = change_bounds(gained=gained, lost=lost, n=n, alpha=_OWN_SHARE * alpha)
        if len(self.parts) == 2:
            # Of a and the other decision c, p_a after - p_c before = p_a after + p_a before - 1.
            _, most = change_bounds(gained=held - lost, lost=n - held - gained, n=n, alpha=_OTHER_SHARE * alpha)
            low, high = np.maximum(low, -most), np.minimum(high, most)
        before, after = (self._candidates(alpha, after=after) for after in (False, True))
        return float(low[before].min()), float(high[after].max())

    def _counts(self, *, after: bool) -> tuple[FloatArray, int]:
        return np.asarray([part.rate(after=after).successes for part in self.parts], np.float64), self.parts[0].n

    def _candidates(self, alpha: float, *, after: bool) -> BoolArray:
        """(n_decisions,) which may be the commonest."""
        successes, n = self._counts(after=after)
        low, high = clopper_pearson(successes, n=n, alpha=_OTHER_SHARE * alpha / len(self.parts))
        return np.asarray(high >= low.max(), np.bool_)


class PreferenceChange(Estimate):
    """A share of preferences after less before, over the same pairs of sentences, in [-1, 1].

    Of each pair it is known which sentence either model prefers, 0, 1/2 or 1: ``shift`` is the mean of ``(1 + after -
    before) / 2``, ``midpoint`` that of ``(after + before) / 2``, both with the variance between clusters of pairs. Of
    values on a range of their own, put on [0, 1] for that, ``span`` is its width, and ``ideal`` the middle of it.
    """

    shift: AnyEstimate
    midpoint: AnyEstimate
    span: float = 1.0
    ideal: float = 0.5

    @property
    def value(self) -> float:
        return self.span * (2.0 * self.shift.value - 1.0)

    def bounds(self, alpha: float) -> tuple[float, float]:
        low, high = self.shift.bounds(alpha)
        return self.span * (2.0 * low - 1.0), self.span * (2.0 * high - 1.0)

    def distance_bounds(self, alpha: float) -> tuple[float, float]:
        """Bounds of ``|after - 1/2| - |before - 1/2|``, times the span: the increase in distance from no preference.

        Above: let s be the sign of ``after - 1/2``, so that its distance is ``s (after - 1/2)``. That of before is no
        less than ``s (before - 1/2)``, nor than ``-s (before - 1/2)``: the change is at most ``s (after - before)``,
        and at most ``s (after + before - 1)``, each bounded at half of alpha. The larger of both signs' smaller bounds
        holds, whichever sign is true. Below: the same with before and after exchanged.
        """
        moved, both = self.bounds(alpha / 2.0), self.midpoint.bounds(alpha / 2.0)
        off = self.span * (2.0 * both[0] - 1.0), self.span * (2.0 * both[1] - 1.0)
        high = max(min(moved[1], off[1]), min(-moved[0], -off[0]))
        low = -max(min(-moved[0], off[1]), min(moved[1], -off[0]))
        return low, high


class Apart(EachBound):
    """``after - before`` of two estimates, from each one's bounds at alpha / 2, for any dependence."""

    before: AnyEstimate
    after: AnyEstimate

    @property
    def value(self) -> float:
        return self.after.value - self.before.value

    def lower(self, alpha: float) -> float:
        return self.after.lower(alpha / 2.0) - self.before.upper(alpha / 2.0)

    def upper(self, alpha: float) -> float:
        return self.after.upper(alpha / 2.0) - self.before.lower(alpha / 2.0)

    def p_value(self, bound: float, side: Side) -> float:
        """As for every estimate, to 1/1000: each level needs four bounds of enumerated tables."""
        return smallest_level(lambda alpha: self.shows(alpha, bound, side), tolerance=1e-3)


class Largest(EachBound):
    """``max_i theta_i``. Lower: the largest lower bound, each at its share of alpha (union bound). Upper: the largest
    upper bound, each at alpha: to miss, the one that truly is the largest must miss."""

    parts: tuple[AnyEstimate, ...]

    @property
    def value(self) -> float:
        values = [part.value for part in self.parts]
        return max(values) if all(math.isfinite(v) for v in values) else math.nan

    def lower(self, alpha: float) -> float:
        return max(part.lower(alpha / len(self.parts)) for part in self.parts)

    def upper(self, alpha: float) -> float:
        return max(part.upper(alpha) for part in self.parts)

    def p_value(self, bound: float, side: Side) -> float:
        """As for every estimate, from the parts."""
        of_parts = [part.p_value(bound, side) for part in self.parts]
        return smallest_p(len(of_parts) * min(of_parts)) if side in ("greater", "at_least") else max(of_parts)


def rows_needed(change: RateChange, tolerance: float, alpha: float) -> int | None:
    """Approximate rows needed to show, with 80 % power, that an unchanged rate is at most ``tolerance`` lower.

    As large a share of rows is taken to go either way as these rows have, half a row at least. None where no number of
    rows would.
    """
    if not change.n or tolerance <= 0.0:
        return None
    times = change.growth(bound=-tolerance, alpha=alpha, ideal=0.0, miss=1.0 - POWER)
    return math.ceil(times * change.n) if math.isfinite(times) else None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A number and its interval; NaN and None if undefined."""

    value: float
    interval: tuple[float, float] | None

    @classmethod
    def from_estimate(cls, estimate: Estimate, alpha: float) -> Measured:
        """A number with one-sided bounds at ``alpha`` each."""
        value = estimate.value
        low, high = estimate.bounds(alpha)
        known = math.isfinite(value) and math.isfinite(low) and math.isfinite(high)
        return cls(value=value if known else math.nan, interval=(low, high) if known else None)


def dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether the first is at least as good on all axes and better on one (larger is better); never with NaN."""
    a, b = np.asarray(first, float), np.asarray(second, float)
    return bool((a >= b).all() and (a > b).any())


def dominating(name: str, places: Mapping[str, tuple[Measured, ...]], directions: Sequence[float]) -> str:
    """The name of a point that dominates this one, on the front itself if possible; else ""."""
    if name not in places:
        return ""
    values = {other: [sign * p.value for sign, p in zip(directions, at, strict=True)] for other, at in places.items()}
    better = [other for other in values if dominates(values[other], values[name])]
    front = [o for o in better if not any(dominates(values[k], values[o]) for k in values)]
    return next(iter(front or better), "")


def shown_dominated(name: str, places: Mapping[str, tuple[Measured, ...]], directions: Sequence[float]) -> bool:
    """Whether another point's whole interval is better on every axis."""
    if name not in places:
        return False

    def clear(best: Measured, worst: Measured, sign: float) -> bool:
        if best.interval is None or worst.interval is None:
            return False
        return best.interval[0] > worst.interval[1] if sign > 0.0 else best.interval[1] < worst.interval[0]

    return any(
        all(clear(p, q, sign) for p, q, sign in zip(at, places[name], directions, strict=True))
        for other, at in places.items()
        if other != name
    )
