"""Estimates of detector performance: equal error rate, average precision, differences of areas."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
import scipy
from pydantic import BaseModel, ConfigDict, Field, model_validator

from auditor.core.number_types import Count, NonNegative, PositiveCount, Share
from auditor.core.rows import FloatArray, IntArray
from auditor.statistics.estimate import TESTS_OF_PARTS, EachBound, Estimate, Undefined, first_size
from auditor.statistics.intervals import BINOMIAL_TEST, bounded_mean_reach, corner_radius
from auditor.statistics.rank_estimates import (
    AreaUnderCurve,
    TruePositiveRateAt,
    area_under_curve,
    true_positive_rate_at,
)
from auditor.statistics.rates import MOST_GROUPS, Proportion

# Thresholds that an equal error rate keeps; between two of them its bounds take the worse one.
_MOST_STATES = 400
_BISECTIONS = 40


class EqualErrorRate(EachBound):
    """The rate at which a score's false alarms among negatives equal its misses among positives, [0, 1], ideal 0.

    ``alarms[k]`` of ``n_negative`` negatives score at least the k-th threshold, ``misses[k]`` of ``n_positive``
    positives below it, thresholds ascending. ``value``: where the ROC curve, drawn straight between thresholds, meets
    ``FPR = FNR``. Bounds hold at every size: at the unknown threshold where both rates are e, false alarms and misses
    are two independent binomial counts of rate e, so the pair lies in the joint region of
    :func:`~auditor.statistics.intervals.corner_radius` but for ``alpha``; a rate e is refused where no threshold of
    the sample, ties split any way, has its pair in that region. Thinned thresholds only widen the bounds.
    """

    kind_limits = (0.0, 1.0)
    interval_test = "exact tests of false alarms and misses, as one joint region"

    kind: Literal["equal_error_rate"] = "equal_error_rate"
    alarms: Annotated[tuple[Count, ...], Field(min_length=2, max_length=2 * _MOST_STATES)]
    misses: Annotated[tuple[Count, ...], Field(min_length=2, max_length=2 * _MOST_STATES)]
    n_positive: PositiveCount
    n_negative: PositiveCount

    @model_validator(mode="after")
    def _a_staircase(self) -> Self:
        falls = all(a >= b for a, b in zip(self.alarms, self.alarms[1:], strict=False))
        rises = all(a <= b for a, b in zip(self.misses, self.misses[1:], strict=False))
        whole = (self.alarms[0], self.alarms[-1], self.misses[0], self.misses[-1])
        if not (falls and rises and len(self.alarms) == len(self.misses)):
            raise ValueError("false alarms fall and misses rise with the threshold")
        if whole != (self.n_negative, 0, 0, self.n_positive):
            raise ValueError("thresholds reach from below every score to above every one")
        return self

    @property
    def value(self) -> float:
        alarm = np.asarray(self.alarms, np.float64) / self.n_negative
        miss = np.asarray(self.misses, np.float64) / self.n_positive
        gap = alarm - miss
        k = int(np.flatnonzero(gap >= 0.0)[-1])
        share = gap[k] / (gap[k] - gap[k + 1])
        return float(miss[k] + share * (miss[k + 1] - miss[k]))

    def lower(self, alpha: float) -> float:
        return self._bound(alpha, end=0.0)

    def upper(self, alpha: float) -> float:
        return self._bound(alpha, end=1.0)

    def _bound(self, alpha: float, *, end: float) -> float:
        alarms, misses = np.asarray(self.alarms, np.float64), np.asarray(self.misses, np.float64)
        square = corner_radius(alpha) ** 2
        n, m = self.n_negative, self.n_positive

        # Between two thresholds ties may go either way: for "no larger than" the larger counts are the doubt's benefit.
        def holds(e: float, k: IntArray) -> IntArray:
            if end:
                tails = scipy.special.bdtr(alarms[:-1][k], n, e), scipy.special.bdtr(misses[1:][k], m, e)
            else:
                tails = scipy.special.bdtrc(alarms[1:][k] - 1.0, n, e), scipy.special.bdtrc(misses[:-1][k] - 1.0, m, e)
            return k[_square(tails) <= square]

        return _last(holds, np.arange(alarms.size - 1), start=self.value, end=end)

    def standard_error_at(self, ideal: float) -> float:
        e = min(max(ideal, 0.5 / min(self.n_positive, self.n_negative)), 0.5)
        # Of the mean of the two rates at a fixed threshold, which is no more than that of the rate where they meet.
        return 0.5 * math.sqrt(e * (1.0 - e) * (1.0 / self.n_positive + 1.0 / self.n_negative))

    def growth(self, *, bound: float, alpha: float, ideal: float, miss: float) -> float:
        """The smallest size at which scores without an error are significantly within the bound."""
        if ideal != 0.0 or not bound > 0.0:
            return math.nan

        def is_within_bound(times: float) -> bool:
            n, m = math.ceil(times * self.n_negative), math.ceil(times * self.n_positive)
            faultless = EqualErrorRate(alarms=(n, 0, 0), misses=(0, 0, m), n_negative=n, n_positive=m)
            return faultless.bounds(alpha)[1] <= bound

        return first_size(is_within_bound)


def _square(tails: tuple[FloatArray, FloatArray]) -> FloatArray:
    """``max(z_1, 0)^2 + max(z_2, 0)^2`` of two tail probabilities' normal quantiles."""
    first, second = (np.minimum(scipy.special.ndtri(np.maximum(tail, 1e-300)), 0.0) for tail in tails)
    return np.asarray(first * first + second * second, np.float64)


def _last(of_whom: Callable[[float, IntArray], IntArray], indices: IntArray, *, start: float, end: float) -> float:
    """The point nearest to ``end`` at which it still holds of any, going from ``start``, on the safe side."""
    # Of whom it does not hold at one point it holds at none farther on: nobody asks of them again.
    asked = of_whom(start, indices)
    if of_whom(end, asked).size:
        return end
    inner, outer = start, end
    for _ in range(_BISECTIONS):
        middle = 0.5 * (inner + outer)
        still = of_whom(middle, asked)
        inner, outer, asked = (middle, outer, still) if still.size else (inner, middle, asked)
    return outer


def equal_error_rate(*, positives: npt.ArrayLike, negatives: npt.ArrayLike) -> EqualErrorRate | Undefined:
    """Equal error rate of scores, positives (m,) and negatives (n,); undefined where either side has none.

    Keeps the thresholds that its bounds may need, at most some hundreds of them.
    """
    x, y = (np.sort(np.asarray(v, np.float64)) for v in (positives, negatives))
    if not (x.size and y.size) or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return Undefined(reason="an equal error rate needs finite scores on either side")
    thresholds = np.r_[np.unique(np.r_[x, y]), np.inf]
    alarms = np.asarray(y.size - np.searchsorted(y, thresholds, "left"), np.int64)
    misses = np.asarray(np.searchsorted(x, thresholds, "left"), np.int64)
    kept = _thin_thresholds(alarm=alarms / y.size, miss=misses / x.size, n=min(x.size, y.size))
    return EqualErrorRate(
        alarms=tuple(alarms[kept].tolist()),
        misses=tuple(misses[kept].tolist()),
        n_positive=x.size,
        n_negative=y.size,
    )


def _thin_thresholds(*, alarm: FloatArray, miss: FloatArray, n: int) -> IntArray:
    """Indices of the thresholds around the crossing, evenly thinned, with both ends and both sides of the crossing."""
    if alarm.size <= _MOST_STATES:
        return np.arange(alarm.size)
    crossing = int(np.flatnonzero(alarm >= miss)[-1])
    rate = max(alarm[crossing], miss[crossing])
    # No bound down to 1e-16 reaches farther: 9 standard errors, and what a rate of 0 may hide.
    reach = 12.0 * math.sqrt(rate * (1.0 - rate) / n) + 100.0 / n
    near = np.flatnonzero(np.minimum(np.abs(alarm - rate), np.abs(miss - rate)) <= reach)
    few = near[np.unique(np.linspace(0, near.size - 1, _MOST_STATES).astype(np.int64))]
    return np.unique(np.r_[0, few, crossing, crossing + 1, alarm.size - 1]).astype(np.int64)


def detection_figures(
    fakes: npt.ArrayLike, reals: npt.ArrayLike, false_positive_rate: float = 0.01
) -> dict[str, AreaUnderCurve | EqualErrorRate | AveragePrecision | TruePositiveRateAt | Undefined]:
    """The estimates by which a detector's scores are judged, by their metric."""
    return {
        "auc": area_under_curve(positives=fakes, negatives=reals),
        "equal_error_rate": equal_error_rate(positives=fakes, negatives=reals),
        "average_precision": average_precision(positives=fakes, negatives=reals),
        "tpr_at_fpr": true_positive_rate_at(positives=fakes, negatives=reals, false_positive_rate=false_positive_rate),
    }


class MeanPart(BaseModel):
    """One of two independent samples whose means together give an estimate's error.

    ``standard_error``: sd / sqrt(n); ``third_moment``: mean cubed deviation; n values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    standard_error: NonNegative
    third_moment: float
    n: Annotated[int, Field(ge=2)]


def _mean_part(values: FloatArray) -> MeanPart:
    return MeanPart(
        standard_error=float(values.std(ddof=1) / math.sqrt(values.size)),
        third_moment=float(((values - values.mean()) ** 3).mean()),
        n=values.size,
    )


def _reach(parts: tuple[MeanPart, MeanPart], room: float, sign: int, alpha: float) -> float:
    """How far a bound of the sum of two means lies from it, each part's own reach taken as a standard deviation is."""
    first, second = (
        float(
            bounded_mean_reach(
                standard_error=p.standard_error, third_moment=sign * p.third_moment, n=p.n, room=room, alpha=alpha
            )
        )
        for p in parts
    )
    return math.hypot(first, second)


class AveragePrecision(EachBound):
    """Mean over the positives of the precision at each one's score, in (0, 1], ideal 1; chance is their share.

    The share of positives is the sample's own and taken as fixed. ``positives`` and ``negatives``: the rows' influence
    on the value (delta method); a bound is off by the two means' own reaches
    (:func:`~auditor.statistics.intervals.bounded_mean_reach`), combined as independent ones are (Zou and Donner, Stat.
    Med. 27, 2008). Source: Davis and Goadrich, ICML 2006; Boyd, Eng and Page, ECML 2013 on its intervals.
    """

    kind_limits = (0.0, 1.0)
    interval_test = "tests of two means of bounded values, combined"

    kind: Literal["average_precision"] = "average_precision"
    centre: Share
    positives: MeanPart
    negatives: MeanPart

    @property
    def value(self) -> float:
        return self.centre

    def lower(self, alpha: float) -> float:
        return max(self.centre - _reach((self.positives, self.negatives), self.centre, -1, alpha), 0.0)

    def upper(self, alpha: float) -> float:
        return min(self.centre + _reach((self.positives, self.negatives), 1.0 - self.centre, 1, alpha), 1.0)

    def standard_error_at(self, ideal: float) -> float:
        return math.hypot(
            self.positives.standard_error, self.negatives.standard_error, 1.0 / self.positives.n, 1.0 / self.negatives.n
        )


def average_precision(*, positives: npt.ArrayLike, negatives: npt.ArrayLike) -> AveragePrecision | Undefined:
    """Average precision of scores, positives (m,) and negatives (n,), equal scores ranked together.

    ``mean over positives x of m G(x) / (m G(x) + n F(x))`` with the shares G of positives and F of negatives that score
    at least x. Undefined below two rows on either side.
    """
    x, y = (np.sort(np.asarray(v, np.float64)) for v in (positives, negatives))
    m, n = x.size, y.size
    if min(m, n) < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return Undefined(reason="an average precision needs at least two finite scores on either side")
    share = m / (m + n)
    above = (m - np.searchsorted(x, x, "left")) / m
    beyond = (n - np.searchsorted(y, x, "left")) / n
    total = share * above + (1.0 - share) * beyond
    precision = share * above / total
    weight = share * (1.0 - share) / total**2
    own, other = weight * beyond / m, -weight * above / m
    # A row that scores v stands above every positive up to v: sums of the slopes there.
    own_sum, other_sum = np.cumsum(own), np.cumsum(other)
    of_positives = precision + own_sum[np.searchsorted(x, x, "right") - 1]
    reached = np.searchsorted(x, y, "right")
    of_negatives = np.where(reached > 0, other_sum[np.maximum(reached - 1, 0)], 0.0)
    return AveragePrecision(
        centre=float(np.clip(precision.mean(), 0.0, 1.0)),
        positives=_mean_part(of_positives),
        negatives=_mean_part(of_negatives),
    )


class AreaDifference(EachBound):
    """Difference of two areas under curves over the same rows, ``first - max(second, floor)``, in [-1, 1].

    ``positives`` and ``negatives``: the rows' differences in placement, whose two means carry the difference's error
    (DeLong); a bound is off by their reaches (:func:`~auditor.statistics.intervals.bounded_mean_reach`), which stay
    apart from 0 for scores that agree on every row seen, combined as independent ones are. ``floor``: below which the
    second area counts for no less, such as 0.5 for what a guess is worth; it moves the upper ends only down.
    Sources: DeLong et al., Biometrics 44 (1988); Zou and Donner, Stat. Med. 27 (2008).
    """

    kind_limits = (-1.0, 1.0)
    interval_test = "DeLong's paired test, with room for rows that were not seen"

    kind: Literal["area_difference"] = "area_difference"
    first: Share
    second: Share
    positives: MeanPart
    negatives: MeanPart
    floor: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0

    @property
    def value(self) -> float:
        return self.first - max(self.second, self.floor)

    def lower(self, alpha: float) -> float:
        difference = self.first - self.second
        low = difference - _reach((self.positives, self.negatives), 1.0 + difference, -1, alpha)
        return max(min(low, self.value), -1.0)

    def upper(self, alpha: float) -> float:
        difference = self.first - self.second
        high = difference + _reach((self.positives, self.negatives), 1.0 - difference, 1, alpha)
        return min(max(high, self.value), 1.0)

    def standard_error_at(self, ideal: float) -> float:
        return math.hypot(
            self.positives.standard_error, self.negatives.standard_error, 1.0 / self.positives.n, 1.0 / self.negatives.n
        )


def _placements(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Shares of y below each x, and of x above each y, ties half: (m,), (n,)."""
    xs, ys = np.sort(x), np.sort(y)
    over = (np.searchsorted(ys, x, "left") + np.searchsorted(ys, x, "right")) / (2.0 * y.size)
    under = 1.0 - (np.searchsorted(xs, y, "left") + np.searchsorted(xs, y, "right")) / (2.0 * x.size)
    return over, under


def area_difference(
    *, first: npt.ArrayLike, second: npt.ArrayLike, positive: npt.ArrayLike, floor: float = 0.0
) -> AreaDifference | Undefined:
    """Difference of areas under the curve, ``first`` minus ``second`` scores, on the same rows.

    first, second (n,) scores; positive (n,) booleans. Undefined below two rows on either side.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    own = np.asarray(positive, np.bool_)
    if min(int(own.sum()), int((~own).sum())) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return Undefined(reason="a difference of areas needs at least two finite scores on either side")
    over_a, under_a = _placements(a[own], a[~own])
    over_b, under_b = _placements(b[own], b[~own])
    return AreaDifference(
        first=float(over_a.mean()),
        second=float(over_b.mean()),
        positives=_mean_part(over_a - over_b),
        negatives=_mean_part(under_a - under_b),
        floor=floor,
    )


AreaPart = Annotated[Undefined | AreaUnderCurve | AreaDifference, Field(discriminator="kind")]


class _OfAreas(Estimate):
    parts: Annotated[tuple[AreaPart, ...], Field(min_length=1, max_length=MOST_GROUPS)]

    @property
    def _whole(self) -> bool:
        return not any(isinstance(part, Undefined) for part in self.parts)

    @property
    def comparisons(self) -> int:
        return len(self.parts)

    def standard_error_at(self, ideal: float) -> float:
        known = [part.standard_error_at(ideal) for part in self.parts if not isinstance(part, Undefined)]
        known = [error for error in known if math.isfinite(error)]
        return max(known, default=math.nan)


class LowestArea(_OfAreas):
    """The smallest of several areas under curves, in [0, 1], ideal 1; the parts may share rows.

    Lower end the smallest of the lower ends, each at alpha: the part that truly is the smallest is among them. Upper
    end the smallest of the upper ends, each at alpha over the number of parts. An undefined part makes the value NaN.

    ``uncompared``: areas besides the parts of which nothing is known. The value is then that of the parts alone, which
    the smallest of all is at most, so the upper bound holds; the lower one is 0.
    """

    kind_limits = (0.0, 1.0)
    interval_test = TESTS_OF_PARTS

    kind: Literal["lowest_area"] = "lowest_area"
    uncompared: Annotated[int, Field(ge=0, exclude_if=operator.not_)] = 0

    @property
    def value(self) -> float:
        return min(part.value for part in self.parts) if self._whole else math.nan

    def many_bounds(self, alphas: FloatArray) -> FloatArray:
        levels = np.concatenate([alphas, alphas / len(self.parts)])
        known = [part.many_bounds(levels) for part in self.parts if not isinstance(part, Undefined)]
        whole = self._whole and not self.uncompared
        found = np.asarray(known, np.float64).reshape(len(known), 2, alphas.size, 2)
        low = found[:, 0, :, 0].min(axis=0) if whole else np.zeros(alphas.size)
        return np.stack([low, found[:, 1, :, 1].min(axis=0, initial=1.0)], axis=1)

    def growth(self, *, bound: float, alpha: float, ideal: float, miss: float) -> float:
        """As for every estimate; NaN if more of these rows would not inform about the omitted areas."""
        return math.nan if self.uncompared else super().growth(bound=bound, alpha=alpha, ideal=ideal, miss=miss)


class LargestDrop(_OfAreas, EachBound):
    """The largest of several differences of areas under curves, in [-1, 1], ideal 0; the parts may share rows.

    Bounded as :class:`LowestArea` is, with the ends exchanged. An undefined part makes the value NaN.
    """

    kind_limits = (-1.0, 1.0)
    interval_test = TESTS_OF_PARTS

    kind: Literal["largest_drop"] = "largest_drop"

    @property
    def value(self) -> float:
        return max(part.value for part in self.parts) if self._whole else math.nan

    def lower(self, alpha: float) -> float:
        known = [part for part in self.parts if not isinstance(part, Undefined)]
        return max((part.lower(alpha / len(self.parts)) for part in known), default=-1.0)

    def upper(self, alpha: float) -> float:
        return max(part.upper(alpha) for part in self.parts) if self._whole else 1.0


class ExcessShare(Estimate):
    """``successes / n - promised``: how much more often something happens than was promised, NaN at n = 0.

    In [-promised, 1 - promised], ideal at most 0; Clopper-Pearson bounds of the share, moved.
    """

    interval_test = f"{BINOMIAL_TEST}, moved by the promise"

    kind: Literal["excess_share"] = "excess_share"
    successes: Count
    n: Count
    promised: Share

    @model_validator(mode="after")
    def _no_more_than_n(self) -> Self:
        if self.successes > self.n:
            raise ValueError(f"{self.successes} successes of {self.n}")
        return self

    @property
    def limits(self) -> tuple[float, float]:
        return -self.promised, 1.0 - self.promised

    @property
    def _share(self) -> Proportion:
        return Proportion(successes=self.successes, n=self.n)

    @property
    def value(self) -> float:
        return self._share.value - self.promised

    def bounds(self, alpha: float) -> tuple[float, float]:
        low, high = self._share.bounds(alpha)
        return low - self.promised, high - self.promised

    def detectable(self, *, bound: float, alpha: float, ideal: float, sign: int) -> float:
        share = self._share.detectable(bound=bound + self.promised, alpha=alpha, ideal=ideal + self.promised, sign=sign)
        return share - self.promised

    def growth(self, *, bound: float, alpha: float, ideal: float, miss: float) -> float:
        return self._share.growth(bound=bound + self.promised, alpha=alpha, ideal=ideal + self.promised, miss=miss)
