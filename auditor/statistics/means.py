"""Estimates of means: of samples, of pairs, between groups, and of bounded values."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import scipy
from pydantic import BaseModel, ConfigDict, Field

from auditor.core.number_types import NonNegative, Positive
from auditor.core.rows import BoolArray, FloatArray
from auditor.statistics.estimate import EachBound, Estimate, Undefined
from auditor.statistics.groups import WorstOfGroups
from auditor.statistics.intervals import (
    bounded_mean_reach,
    clopper_pearson,
    divided_radius,
    orthant_radius,
    radius_shares,
)


class StudentT(Estimate):
    """An approximately normal estimate with a standard error: ``centre -+ t(df) * standard_error``, cut at its limits.

    With ``scale="logit"`` the interval is symmetric in ``log(p / (1 - p))`` (delta method), for quantities in (0, 1)
    such as an AUC; ``centre`` stays on the natural scale.

    Without any spread Student's interval would be a point, and equal values do not make the next one certain: the
    share of values that are others is then at most ``1 - alpha^(1/n)``, n = degrees_of_freedom + 1 (Clopper and
    Pearson's bound of none in n), and they may lie as far off as the limits, or anywhere where there are none.
    """

    unjudgeable = (
        "Student's interval is shown and holds for nearly normal values alone, so no criterion may rest on it."
    )
    interval_test = "Student's t test; for display, and not judged"

    kind: Literal["student_t"] = "student_t"
    centre: float
    standard_error: NonNegative
    degrees_of_freedom: Positive
    scale: Literal["identity", "logit"] = "identity"
    lower_limit: float | None = None
    upper_limit: float | None = None

    @property
    def value(self) -> float:
        return self.centre

    def critical_value(self, alpha: float) -> float:
        return -float(scipy.special.stdtrit(self.degrees_of_freedom, alpha))

    @property
    def limits(self) -> tuple[float, float]:
        low, high = self.lower_limit, self.upper_limit
        return -math.inf if low is None else low, math.inf if high is None else high

    def _without_spread(self, alpha: float) -> tuple[float, float]:
        unseen = -math.expm1(math.log(alpha) / (self.degrees_of_freedom + 1.0))
        low, high = self.limits
        return (
            min(self.centre, self.centre - unseen * (self.centre - low)),
            max(self.centre, self.centre + unseen * (high - self.centre)),
        )

    def bounds(self, alpha: float) -> tuple[float, float]:
        # Equal numbers differ from their mean by rounding.
        if self.standard_error <= 1e-13 * max(1.0, abs(self.centre)):
            return self._without_spread(alpha)
        reach = self.critical_value(alpha) * self.standard_error
        if self.scale == "logit" and 0.0 < self.centre < 1.0:
            middle = math.log(self.centre / (1.0 - self.centre))
            half = reach / (self.centre * (1.0 - self.centre))
            low, high = (1.0 / (1.0 + math.exp(-min(max(x, -700.0), 700.0))) for x in (middle - half, middle + half))
        else:
            low, high = self.centre - reach, self.centre + reach
        if self.lower_limit is not None:
            low, high = max(low, self.lower_limit), max(high, self.lower_limit)
        if self.upper_limit is not None:
            low, high = min(low, self.upper_limit), min(high, self.upper_limit)
        return low, high

    def standard_error_at(self, ideal: float) -> float:
        return self.standard_error if self.standard_error > 0.0 else math.nan


class WorstMeanDifference(WorstOfGroups, EachBound):
    """Largest difference between two groups in the mean of several rates measured on different rows.

    ``max over i, j of mean_t p_ti - mean_t p_tj``, in [0, 1], ideal 0: balanced accuracy with the true positive and the
    true negative rate, macro recall with every class's. Each pair is bounded over the joint region of all its rates'
    exact tails (:func:`sum_bounds`); the maximum is bounded as in :class:`WorstDifference`.
    """

    kind_limits = (0.0, 1.0)
    interval_test = "exact binomial tests of all rates of a pair, as one joint region, over all pairs"

    kind: Literal["worst_mean_difference"] = "worst_mean_difference"

    def _whole(self) -> BoolArray:
        return np.asarray([all(n) for n in zip(*(table.n for table in self.tables), strict=True)], bool)

    @property
    def comparisons(self) -> int:
        g = int(self._whole().sum())
        return g * (g - 1)

    def critical_value(self, alpha: float) -> float:
        return orthant_radius(alpha, 2 * len(self.tables))

    @property
    def value(self) -> float:
        if not self.complete:
            return math.nan
        means = np.mean([np.divide(*table.arrays()) for table in self.tables], axis=0)
        return float(means.max() - means.min())

    def _upper(self, alpha: float) -> FloatArray:
        """(n_pairs,) upper bounds of every ordered pair."""
        whole = self._whole()
        k = np.asarray([t.successes for t in self.tables], np.float64)[:, whole]
        n = np.asarray([t.n for t in self.tables], np.float64)[:, whole]
        tails, total = radius_shares(orthant_radius(alpha, 2 * len(self.tables)), 2 * len(self.tables))
        lower, upper = clopper_pearson(k[..., None], n=n[..., None], alpha=tails)
        up, down = (
            divided_radius(upper / len(self.tables), total),
            divided_radius(-lower / len(self.tables), total)[:, ::-1],
        )
        found = np.asarray([(own + down).max(axis=-1) for own in up], np.float64)
        return np.asarray(found[~np.eye(len(found), dtype=bool)], np.float64)

    def lower(self, alpha: float) -> float:
        if not self.comparisons:
            return 0.0
        return max(0.0, float((-self._upper(alpha / self.comparisons)).max()))

    def upper(self, alpha: float) -> float:
        if not self.complete or not self.comparisons:
            return 0.0 if self.complete else 1.0
        return min(max(0.0, float(self._upper(alpha).max())), 1.0)

    def standard_error_at(self, ideal: float) -> float:
        parts = [math.sqrt(t.pooled() * (1.0 - t.pooled())) * t.hardest_pair() for t in self.tables]
        return math.hypot(*parts) / len(parts) if self.comparisons else math.nan


class PairedDifference(BaseModel):
    """Mean difference between two conditions measured on the same ``n`` independent clusters, in [-1, 1].

    ``first``, ``second``: their names; ``centre``: mean of first minus second; ``standard_error``: sd / sqrt(n);
    ``third_moment``: mean cubed deviation of a cluster's difference from their mean.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    first: str
    second: str
    centre: Annotated[float, Field(ge=-1.0, le=1.0)]
    standard_error: NonNegative
    third_moment: float
    n: Annotated[int, Field(ge=2)]


def paired_difference(*, first: str, second: str, differences: npt.ArrayLike) -> PairedDifference:
    """The paired difference of independent clusters, (n,) of first minus second in [-1, 1], n at least 2."""
    d = np.asarray(differences, np.float64)
    centre = float(d.mean())
    return PairedDifference(
        first=first,
        second=second,
        centre=min(max(centre, -1.0), 1.0),
        standard_error=float(d.std(ddof=1) / math.sqrt(d.size)),
        third_moment=float(((d - centre) ** 3).mean()),
        n=d.size,
    )


class WorstPairedDifference(Estimate):
    """Largest absolute mean difference between any two conditions measured on the same clusters, ideal 0.

    ``max over pairs of |mean_t (x_ti - x_tj)|`` of values in [0, 1]; in [0, 1]. A pair is bounded by
    :func:`bounded_mean_reach`; the maximum as in :class:`WorstDifference`: lower end the largest of the lower ends,
    each at alpha over twice the number of pairs, since either may be the larger; upper end the largest of the upper
    ends, each at alpha. ``uncompared``: whether some two conditions were not compared: the value is NaN then, and
    the upper bound 1, since nothing is known there; the lower bound still holds.
    """

    kind_limits = (0.0, 1.0)
    interval_test = "tests of bounded paired differences of every pair, together"

    kind: Literal["worst_paired_difference"] = "worst_paired_difference"
    pairs: Annotated[tuple[PairedDifference, ...], Field(min_length=1)]
    uncompared: bool = False

    @property
    def value(self) -> float:
        return math.nan if self.uncompared else max(abs(pair.centre) for pair in self.pairs)

    @property
    def comparisons(self) -> int:
        return 2 * len(self.pairs)

    def bounds(self, alpha: float) -> tuple[float, float]:
        signs = np.asarray([-1.0 if pair.centre < 0.0 else 1.0 for pair in self.pairs])
        centre = signs * np.asarray([pair.centre for pair in self.pairs])
        third = signs * np.asarray([pair.third_moment for pair in self.pairs])
        error = np.asarray([pair.standard_error for pair in self.pairs])
        n = np.asarray([pair.n for pair in self.pairs], np.float64)
        down = centre - bounded_mean_reach(
            standard_error=error, third_moment=-third, n=n, room=1.0 + centre, alpha=alpha / self.comparisons
        )
        up = centre + bounded_mean_reach(standard_error=error, third_moment=third, n=n, room=1.0 - centre, alpha=alpha)
        # The smaller of the two may truly be the larger, and then lead by more than it was seen to be behind.
        other = -centre + bounded_mean_reach(
            standard_error=error, third_moment=-third, n=n, room=1.0 + centre, alpha=alpha
        )
        high = 1.0 if self.uncompared else min(float(np.maximum(up, other).max()), 1.0)
        return max(float(down.max()), 0.0), high

    def _hardest(self) -> PairedDifference:
        return max(self.pairs, key=lambda pair: math.hypot(pair.standard_error, 1.0 / pair.n))

    def standard_error_at(self, ideal: float) -> float:
        pair = self._hardest()
        return math.hypot(pair.standard_error, 1.0 / pair.n)

    def critical_value(self, alpha: float) -> float:
        pair = self._hardest()
        reach = bounded_mean_reach(
            standard_error=pair.standard_error, third_moment=abs(pair.third_moment), n=pair.n, room=1.0, alpha=alpha
        )
        return float(reach) / self.standard_error_at(0.0)


class BracketedMean(Estimate):
    """A quantity in [0, 1], ideal 0, between the expectations of two means over the same clusters.

    For distances of distributions, whose plain estimate is biased upward: ``below`` is the mean of a held-out estimate,
    whose expectation is at most the distance, ``above`` that of the plain one, whose expectation is at least the
    distance. So ``value`` is ``below`` cut at 0; the lower bound is that of the first mean, the upper bound that of the
    second, each by :func:`bounded_mean_reach`. ``chance``: what the plain estimate comes to at this size where the
    distance is 0, for planning alone.
    """

    kind_limits = (0.0, 1.0)
    interval_test = "tests of two bounded means, one below and one above"

    kind: Literal["bracketed_mean"] = "bracketed_mean"
    below: PairedDifference
    above: PairedDifference
    chance: NonNegative = 0.0

    @property
    def value(self) -> float:
        return max(self.below.centre, 0.0)

    def bounds(self, alpha: float) -> tuple[float, float]:
        down, up = self.below, self.above
        low = bounded_mean_reach(
            standard_error=down.standard_error,
            third_moment=-down.third_moment,
            n=down.n,
            room=1.0 + down.centre,
            alpha=alpha,
        )
        high = bounded_mean_reach(
            standard_error=up.standard_error, third_moment=up.third_moment, n=up.n, room=1.0 - up.centre, alpha=alpha
        )
        return max(down.centre - float(low), 0.0), min(max(up.centre + float(high), self.value), 1.0)

    def standard_error_at(self, ideal: float) -> float:
        return math.hypot(self.below.standard_error, 1.0 / self.below.n)

    def critical_value(self, alpha: float) -> float:
        part = self.below
        reach = bounded_mean_reach(
            standard_error=part.standard_error, third_moment=abs(part.third_moment), n=part.n, room=1.0, alpha=alpha
        )
        return float(reach) / self.standard_error_at(0.0)

    def growth(self, *, bound: float, alpha: float, ideal: float, miss: float) -> float:
        """Chance level and standard error both fall with the root of the size: more clusters, and more in each."""
        reach = self.critical_value(alpha) + float(-scipy.special.ndtri(miss))
        error = math.hypot(self.above.standard_error, 1.0 / self.above.n)
        return ((self.chance + reach * error) / abs(bound - ideal)) ** 2


class StandardizedDifference(Estimate):
    """Difference of two means in standard deviations of both samples together, ideal 0, as WEAT's effect size.

    ``d = (mean(x) - mean(y)) / sd(x and y together)``, the standard deviation with n - 1; for samples of equal size d
    and the quantity estimated lie in [-2, 2]. That is ``delta / sqrt(1 + p q delta^2)``, with p and q the samples'
    shares and delta the difference in standard deviations within: d fixes Student's t, whose noncentral distribution
    (independent values, normal with one variance) bounds delta exactly. Without a spread within, d says nothing of
    how sure it is, and the bounds are as wide as can be. Source: Hedges and Olkin, Statistical Methods for
    Meta-Analysis (1985), 5.

    ``within``: in standard deviations within the samples instead, delta itself: Cohen's d with the pooled standard
    deviation, any number.
    """

    unjudgeable = (
        "Its interval is shown and holds for normal values of one variance alone, so no criterion may rest on it."
    )
    interval_test = "the noncentral t test; for display, and not judged"

    kind: Literal["standardized_difference"] = "standardized_difference"
    centre: float
    n_first: Annotated[int, Field(ge=2)]
    n_second: Annotated[int, Field(ge=2)]
    within: bool = False

    @property
    def value(self) -> float:
        return self.centre

    @property
    def limits(self) -> tuple[float, float]:
        return (-math.inf, math.inf) if self.within else (-self._limit, self._limit)

    @property
    def _limit(self) -> float:
        total = self.n_first + self.n_second
        return total / math.sqrt(self.n_first * self.n_second)

    def bounds(self, alpha: float) -> tuple[float, float]:
        total = self.n_first + self.n_second
        harmonic = self.n_first * self.n_second / total
        if self.within:
            t = self.centre * math.sqrt(harmonic)
            low = -_noncentrality_above(-t, df=total - 2.0, alpha=alpha) / math.sqrt(harmonic)
            high = _noncentrality_above(t, df=total - 2.0, alpha=alpha) / math.sqrt(harmonic)
            return min(low, self.centre), max(high, self.centre)
        within = (total - 1.0) - harmonic * self.centre**2
        if within <= 1e-9:
            return -self._limit, self._limit
        t = self.centre * math.sqrt((total - 2.0) * harmonic / within)
        low = self._pooled(-_noncentrality_above(-t, df=total - 2.0, alpha=alpha) / math.sqrt(harmonic))
        high = self._pooled(_noncentrality_above(t, df=total - 2.0, alpha=alpha) / math.sqrt(harmonic))
        return min(low, self.centre), max(high, self.centre)

    def _pooled(self, delta: float) -> float:
        return delta / math.sqrt(1.0 + (delta / self._limit) ** 2)

    def standard_error_at(self, ideal: float) -> float:
        return math.sqrt(1.0 / self.n_first + 1.0 / self.n_second)


def _noncentrality_above(t: float, *, df: float, alpha: float) -> float:
    """Upper bound of the noncentrality of an observed Student's t: where ``P(T <= t) = alpha``, by bisection."""
    low, high = t - 10.0 - abs(t), t + 10.0 + abs(t)
    while scipy.special.nctdtr(df, high, t) > alpha:
        high += high - low
    while scipy.special.nctdtr(df, low, t) <= alpha:
        low -= high - low
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if scipy.special.nctdtr(df, middle, t) > alpha else (low, middle)
    return high


def mean(values: npt.ArrayLike, *, low: float | None = None, high: float | None = None) -> StudentT | Undefined:
    """Mean of independent values, (n,), with Student's interval cut at ``low`` and ``high``; undefined below n = 2."""
    x = np.asarray(values, np.float64)
    if x.size < 2 or not np.isfinite(x).all():
        return Undefined(reason="a mean with an interval needs at least two finite values")
    return StudentT(
        centre=float(x.mean()),
        standard_error=float(x.std(ddof=1) / math.sqrt(x.size)),
        degrees_of_freedom=x.size - 1,
        lower_limit=low,
        upper_limit=high,
    )


def ratio_of_means(*, numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> StudentT | Undefined:
    """``sum(numerator) / sum(denominator)`` over independent rows, both (n,), numerator part of a positive denominator.

    In [0, 1]. Standard error by the delta method: ``sd(numerator - r * denominator) / (sqrt(n) mean(denominator))``.
    Source: Cochran, Sampling Techniques (1977), 6.4.
    """
    a, b = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    if a.size < 2 or not b.sum() > 0:
        return Undefined(reason="a ratio of means needs at least two rows and a positive denominator")
    r = float(a.sum() / b.sum())
    error = float((a - r * b).std(ddof=1) / (math.sqrt(a.size) * b.mean()))
    return StudentT(
        centre=r, standard_error=error, degrees_of_freedom=a.size - 1, scale="logit", lower_limit=0.0, upper_limit=1.0
    )
