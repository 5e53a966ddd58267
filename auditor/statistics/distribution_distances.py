"""Estimates of distances between groups' distributions, and of calibration errors."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import scipy
from pydantic import Field

from auditor.core.number_types import Count, Positive, PositiveCount, Share
from auditor.core.rows import FloatArray
from auditor.statistics.estimate import POWER, TESTS_OF_PARTS, Z_POWER, EachBound, Estimate, Undefined, first_size
from auditor.statistics.intervals import (
    ANGLES,
    BINOMIAL_TEST,
    bounded_mean_reach,
    clopper_pearson,
    corner_radius,
    summed_reach,
)
from auditor.statistics.means import StudentT
from auditor.statistics.rank_estimates import AreaUnderCurve
from auditor.statistics.rates import Proportion

# Divisions of the angle whose tangent squared is the smaller sample's size over the larger's.
_GRID = 256


class BenefitInequality(Estimate):
    """Generalized entropy of the benefits ``b = y_pred - y_true + 1``, in [0, inf), ideal 0; order 1 is Theil's index.

    ``below``, ``equal``, ``above``: rows with b = 0 (false negatives), 1 and 2 (false positives).
    ``GE(a) = (mean((b / mu)^a) - 1) / (a (a - 1))``, ``GE(1) = mean((b / mu) ln(b / mu))``. Bounds: the extremes over
    the Clopper-Pearson box of the two error shares, each side at alpha / 4. Undefined where every benefit is 0.
    Source: Speicher et al., KDD 2018.
    """

    unbounded = True
    kind_limits = (0.0, math.inf)
    interval_test = f"{BINOMIAL_TEST} of every kind of error, over the extremes of all"

    kind: Literal["benefit_inequality"] = "benefit_inequality"
    order: Positive
    below: Count
    equal: Count
    above: Count

    def _entropy(self, *, share_below: FloatArray, share_above: FloatArray) -> FloatArray:
        mean_benefit = 1.0 - share_below + share_above
        with np.errstate(divide="ignore", invalid="ignore"):
            one, two = 1.0 / mean_benefit, 2.0 / mean_benefit
            if self.order == 1.0:
                found = (1.0 - share_below - share_above) * one * np.log(one) + share_above * two * np.log(two)
            else:
                found = (1.0 - share_below - share_above) * one**self.order + share_above * two**self.order - 1.0
                found = found / (self.order * (self.order - 1.0))
        return np.where(mean_benefit > 0, np.maximum(found, 0.0), np.nan)

    @property
    def value(self) -> float:
        n = self.below + self.equal + self.above
        return (
            float(self._entropy(share_below=np.asarray(self.below / n), share_above=np.asarray(self.above / n)))
            if n
            else math.nan
        )

    def bounds(self, alpha: float) -> tuple[float, float]:
        n = self.below + self.equal + self.above
        (below_low, above_low), (below_high, above_high) = clopper_pearson(
            [self.below, self.above], n=n, alpha=alpha / 4.0
        )
        if not n or below_high >= 1.0:
            return 0.0, math.inf
        below, above = np.meshgrid(np.linspace(below_low, below_high, 33), np.linspace(above_low, above_high, 33))
        possible = below + above <= 1.0
        found = self._entropy(share_below=below[possible], share_above=above[possible])
        return float(found.min()), float(found.max())

    def _with_counts(self, n: float, *, n_below: float, n_above: float) -> BenefitInequality:
        whole = round(n), math.floor(n_below), math.floor(n_above)
        return self.model_copy(update={"equal": whole[0] - sum(whole[1:]), "below": whole[1], "above": whole[2]})

    def growth(self, *, bound: float, alpha: float, ideal: float, miss: float) -> float:
        """The smallest size at which decisions without an error are significantly within the bound."""
        n = self.below + self.equal + self.above
        if not n or not ideal < bound:
            return math.nan
        return (
            first_size(
                lambda size: self._with_counts(math.ceil(size), n_below=0.0, n_above=0.0).bounds(alpha)[1] <= bound
            )
            / n
        )

    def detectable(self, *, bound: float, alpha: float, ideal: float, sign: int) -> float:
        """Solved on the bounds themselves, for errors of the kind that is detected last."""
        n = self.below + self.equal + self.above

        def is_detected(rate: float, kind: int) -> bool:
            # The count that one audit in five falls short of.
            least = max(n * rate - Z_POWER * math.sqrt(n * rate * (1.0 - rate)), 0.0)
            return (
                self._with_counts(n, n_below=least if kind == 0 else 0.0, n_above=0.0 if kind == 0 else least).bounds(
                    alpha
                )[0]
                > bound
            )

        effects = []
        for kind, most in ((0, 1.0 - 1.0 / max(n, 1)), (1, 0.5)):
            if not n or not is_detected(most, kind):
                continue
            low, high = 0.0, most
            for _ in range(30):
                middle = 0.5 * (low + high)
                low, high = (low, middle) if is_detected(middle, kind) else (middle, high)
            shares = (high, 0.0) if kind == 0 else (0.0, high)
            effects.append(float(self._entropy(share_below=np.asarray(shares[0]), share_above=np.asarray(shares[1]))))
        return max(effects, default=math.inf)


class CalibrationError(Estimate):
    """Binned expected calibration error of the population, ``sum_b |E[(y - s) 1_b]|``, in [0, 1], ideal 0.

    ``successes[b]`` of the ``n[b]`` rows of bin b are positive, ``mean_scores[b]`` is their mean score, and
    ``squared_error`` the mean of ``(y - s)^2`` over all rows; without it, as in records of before, the largest that the
    bins allow. The value is the sample's own sum, which is biased upward.

    Labels and scores are drawn: the error is the largest mean of ``d_b (y - s)`` over all signs d of the bins, each the
    mean of independent values in [-1, 1]. The upper bound is that of the sample's largest mean, since the signs that
    truly are the largest must miss; the lower one is at alpha over the number of sign patterns. Each by
    :func:`~auditor.statistics.intervals.bounded_mean_reach`, with the largest third moment that the variance allows.
    Source: Naeini et al., AAAI 2015.
    """

    kind_limits = (0.0, 1.0)
    interval_test = "tests of bounded means, of every sign of the bins"

    kind: Literal["calibration_error"] = "calibration_error"
    successes: tuple[Count, ...]
    n: tuple[PositiveCount, ...]
    mean_scores: tuple[Share, ...]
    # Left out where it is not known, so that older evidence keeps its digests.
    squared_error: Annotated[Share | None, Field(exclude_if=lambda squared: squared is None)] = None

    @property
    def value(self) -> float:
        if not self.n:
            return math.nan
        k, n, s = self._bins()
        return float((np.abs(k / n - s) * n).sum() / n.sum())

    def _bins(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(b,) positive rows, rows and mean scores of the bins."""
        k, n, s = (np.asarray(x, np.float64) for x in (self.successes, self.n, self.mean_scores))
        return k, n, s

    def _squares(self) -> float:
        k, n, s = self._bins()
        most = float(n @ np.minimum(k / n + s, 2.0 - k / n - s) / n.sum())
        return most if self.squared_error is None else max(min(self.squared_error, most), self.value**2)

    def _reach(self, value: float, *, squares: float, n: float, room: float, alpha: npt.ArrayLike) -> FloatArray:
        """How far a bound lies from a sum of ``value`` over ``n`` rows with these mean squares."""
        variance = max(squares - value**2, 0.0)
        error = math.sqrt(variance / max(n - 1.0, 1.0))
        return bounded_mean_reach(standard_error=error, third_moment=room * variance, n=n, room=room, alpha=alpha)

    def many_bounds(self, alphas: FloatArray) -> FloatArray:
        if not self.n:
            return np.tile([0.0, 1.0], (len(alphas), 1))
        value, squares, n = self.value, self._squares(), sum(self.n)
        low = value - self._reach(value, squares=squares, n=n, room=1.0 + value, alpha=alphas / self._patterns)
        high = value + self._reach(value, squares=squares, n=n, room=1.0 - value, alpha=alphas)
        return np.stack([np.maximum(low, 0.0), np.minimum(high, 1.0)], axis=1)

    @property
    def _patterns(self) -> float:
        """How many patterns the signs of the bins can have."""
        return 2.0 ** len(self.n)

    def growth(self, *, bound: float, alpha: float, ideal: float, miss: float) -> float:
        """Solved on the bounds: a model that is calibrated has this plain sum or a smaller one, but for ``miss``."""
        if not self.n or not ideal < bound:
            return math.nan
        _, n, s = self._bins()
        weight, variance = n / n.sum(), s * (1.0 - s)

        def is_within_bound(times: float) -> bool:
            error = weight * np.sqrt(variance / (times * n))
            # A sum of absolute deviations: its mean, and what it is above that but for ``miss``.
            spread = math.sqrt(float(error @ error) * (1.0 - 2.0 / math.pi))
            plain = min(math.sqrt(2.0 / math.pi) * float(error.sum()) - float(scipy.special.ndtri(miss)) * spread, 1.0)
            squares = max(float(weight @ variance), plain**2)
            reach = self._reach(plain, squares=squares, n=times * n.sum(), room=1.0 - plain, alpha=alpha)
            return plain + float(reach) <= bound

        return first_size(is_within_bound)

    def detectable(self, *, bound: float, alpha: float, ideal: float, sign: int) -> float:
        """Solved on the bounds, for scores with an equal offset in every bin that allows it."""
        if not self.n:
            return math.nan
        _, n, s = self._bins()
        weight, inward = n / n.sum(), np.where(s < 0.5, 1.0, -1.0)

        def effect_of(shift: float) -> tuple[float, float]:
            rates = np.clip(s + inward * shift, 0.0, 1.0)
            return float(weight @ np.abs(rates - s)), float(weight @ (rates * (1.0 - s) ** 2 + (1.0 - rates) * s**2))

        def is_detected(shift: float) -> bool:
            value, squares = effect_of(shift)
            seen = max(value - Z_POWER * math.sqrt(max(squares - value**2, 0.0) / n.sum()), 0.0)
            reach = self._reach(seen, squares=squares, n=n.sum(), room=1.0 + seen, alpha=alpha / self._patterns)
            return seen - float(reach) > bound

        if not is_detected(1.0):
            return math.inf
        low, high = 0.0, 1.0
        for _ in range(20):
            middle = 0.5 * (low + high)
            low, high = (low, middle) if is_detected(middle) else (middle, high)
        return effect_of(high)[0]


Part = Annotated[
    Undefined | Proportion | StudentT | AreaUnderCurve | CalibrationError,
    Field(discriminator="kind"),
]


class WorstGap(EachBound):
    """Largest difference between any two groups in an estimate from each group's own rows, ideal 0.

    ``max over i, j of theta_i - theta_j``, in [0, ``largest``]. A pair of areas under curves is bounded by
    :func:`~auditor.statistics.intervals.summed_reach`. Of others each part's one-sided bounds turn into a normal
    quantile, and a pair is bounded over the corner region of :func:`rate_limits`, which holds where the parts'
    bounds hold; the maximum as in :class:`WorstDifference`. An undefined part makes the value NaN.

    ``uncompared``: groups besides the parts, of which too little is known to compare them. The value is then that of
    the parts alone, which the largest of all is at least, so the lower bound holds; the upper one is ``largest``.
    """

    unplanned = (
        "How many rows would decide it depends on how the scores of each group spread over the bins, which is not "
        "planned for."
    )
    interval_test = TESTS_OF_PARTS

    kind: Literal["worst_gap"] = "worst_gap"
    parts: Annotated[tuple[Part, ...], Field(min_length=1)]
    largest: Positive | None = 1.0
    uncompared: Count = 0

    def _defined(self) -> list[Part]:
        return [part for part in self.parts if not math.isnan(part.value)]

    @property
    def value(self) -> float:
        values = [part.value for part in self.parts]
        return math.nan if any(map(math.isnan, values)) or len(values) < 2 else max(values) - min(values)

    @property
    def limits(self) -> tuple[float, float]:
        return 0.0, math.inf if self.largest is None else self.largest

    @property
    def comparisons(self) -> int:
        g = len(self._defined())
        return g * (g - 1)

    def _areas(self) -> list[AreaUnderCurve]:
        """The parts that are defined, if all of those are areas; else none."""
        parts = self._defined()
        areas = [part for part in parts if isinstance(part, AreaUnderCurve)]
        return areas if len(areas) == len(parts) else []

    def critical_value(self, alpha: float) -> float:
        return float(-scipy.special.ndtri(alpha)) if self._areas() else corner_radius(alpha)

    def _upper(self, alpha: float) -> FloatArray:
        """(n_pairs,) upper bounds of every ordered pair."""
        parts = self._defined()
        if areas := self._areas():
            return _areas_apart(areas, alpha)
        tails = scipy.special.ndtr(-corner_radius(alpha) * np.cos(ANGLES))
        limits = np.stack([part.many_bounds(tails) for part in parts], axis=1)
        gaps = (limits[:, :, None, 1] - limits[::-1, None, :, 0]).max(axis=0)
        return np.asarray(gaps[~np.eye(len(parts), dtype=bool)], np.float64)

    def lower(self, alpha: float) -> float:
        return max(0.0, -float(self._upper(alpha / self.comparisons).min())) if self.comparisons else 0.0

    def upper(self, alpha: float) -> float:
        most = math.inf if self.largest is None else self.largest
        known = self.comparisons and len(self._defined()) == len(self.parts) and not self.uncompared
        return min(float(self._upper(alpha).max()), most) if known else most

    def standard_error_at(self, ideal: float) -> float:
        parts = self._defined()
        if len(parts) < 2:
            return math.nan
        common = sum(part.value for part in parts) / len(parts)
        return math.hypot(*sorted((part.standard_error_at(common) for part in parts), reverse=True)[:2])

    def growth(self, *, bound: float, alpha: float, ideal: float, miss: float) -> float:
        """As for every estimate; NaN if more of these rows would not inform about the omitted groups."""
        return math.nan if self.uncompared else super().growth(bound=bound, alpha=alpha, ideal=ideal, miss=miss)


def _areas_apart(areas: Sequence[AreaUnderCurve], alpha: float) -> FloatArray:
    """(n_pairs,) upper bounds of the differences of every ordered pair of areas of different rows."""
    i, j = np.nonzero(~np.eye(len(areas), dtype=bool))
    high, low = (np.asarray([min(max(a.centre + side * a.grid, 0.0), 1.0) for a in areas]) for side in (1.0, -1.0))
    third, off = (np.asarray([getattr(a, name) for a in areas]) for name in ("third_cumulant", "cubed_error"))
    error = np.asarray([a.standard_error for a in areas])
    n = np.asarray([(a.n_positive, a.n_negative) for a in areas], np.float64)
    reach = summed_reach(
        standard_error=error[[i, j]],
        third_cumulant=[third[i] + off[i], off[j] - third[j]],
        degrees_of_freedom=n.min(axis=1)[[i, j]] - 1.0,
        unseen=np.concatenate([(1.0 - high[i]) / n[i].T, low[j] / n[j].T]),
        alpha=alpha,
    )
    return np.asarray(high[i] - low[j] + reach, np.float64)


def short_of_own(n: Sequence[int], alpha: float) -> FloatArray:
    """(n_pairs,) the amount by which a sample distance is below the true one, at level ``alpha``.

    For every pair i < j of samples of ``n`` rows, of Kolmogorov and Smirnov's distance and of Wasserstein's on [0, 1].
    Either is the largest of the differences of a function's means under the two distributions, over functions with
    values in an interval of length 1: steps for the first, by Kantorovich and Rubinstein those of slope at most 1 for
    the second. The samples' distance is at least the difference of their means of the one function that attains (or,
    within any error, nears) the distributions' distance, which is fixed; so it falls short by no more than the
    deviation of a sum of independent bounded values. That is a normal's of the largest variance that there can be, 1/4
    of either sample, with a row of each for its steps, which is enumerated (``tests/statistics/test_distances.py``),
    or Hoeffding's ``sqrt(ln(1 / alpha) (1 / n_i + 1 / n_j) / 2)`` where that is nearer: of few rows, and far out.
    Source: Hoeffding, JASA 58 (1963), theorem 2.
    """
    scale = _pair_scale(n)
    normal = -0.5 * float(scipy.special.ndtri(alpha)) * scale + scale**2
    return np.asarray(np.minimum(math.sqrt(0.5 * math.log(1.0 / alpha)) * scale, normal), np.float64)


def beyond_own(n: Sequence[int], alpha: float) -> FloatArray:
    """(n_pairs,) the amount by which a sample distance exceeds the true one, at level ``alpha``.

    For every pair i < j of samples of ``n`` rows, of Kolmogorov and Smirnov's distance, and of Wasserstein's on [0, 1].
    With A the most that one sample's distribution function lies above its own and B the most that the other's lies
    below its own, the excess is at most A + B, or that with above and below exchanged: ``P(excess > r) <= 2 P(A + B >
    r)``. A and B are independent, and ``P(A > x) <= exp(-2 n x^2)`` where that is at most 1/2 (Massart), so the sum's
    tail is at most that of two variables with just these tails, 1 below (:func:`_tail_of_sum`). Two bands at alpha / 2
    each, as the union bound has them, are 1.2 to 1.35 times as wide. Wasserstein's distance exceeds its own by at most
    the integral of ``|(F' - F) - (G' - G)|`` over [0, 1], which is at most the larger of the two sums. Sources:
    Dvoretzky, Kiefer and Wolfowitz (1956); Massart, Ann. Probab. 18 (1990).
    """
    i, j = np.triu_indices(len(n), 1)
    sizes = np.asarray(n, np.float64)
    # A pair of other sizes than those of the grid takes the next more even one's quantile, which is larger.
    angle = np.arctan(np.sqrt(np.minimum(sizes[i], sizes[j]) / np.maximum(sizes[i], sizes[j])))
    place = np.ceil(angle / (0.25 * np.pi) * _GRID - 1e-9).astype(np.int64)
    return np.asarray(_quantiles_of_sum(alpha)[np.minimum(place, _GRID)] * _pair_scale(n), np.float64)


def _pair_scale(n: Sequence[int]) -> FloatArray:
    """(n_pairs,) ``sqrt(1 / n_i + 1 / n_j)``."""
    i, j = np.triu_indices(len(n), 1)
    shares = 1.0 / np.asarray(n, np.float64)
    return np.asarray(np.sqrt(shares[i] + shares[j]), np.float64)


def _tail_of_sum(r: FloatArray, *, angle: FloatArray) -> FloatArray:
    """``P(cos(angle) A + sin(angle) B > r)`` for independent A and B with ``P(A > x) = exp(-2 x^2)`` where that is at
    most 1/2, and 1 below: (k,), by integration over B, which is 1/2 at its least."""
    c, s = np.cos(angle), np.sin(angle)
    least = math.sqrt(0.5 * math.log(2.0))

    def beyond(x: FloatArray) -> FloatArray:
        return np.asarray(np.where(x >= least, np.exp(-2.0 * np.maximum(x, 0.0) ** 2), 1.0), np.float64)

    # The weight of B between its least and where A alone is beyond, with the square completed about r sin(angle).
    end = np.maximum((r - c * least) / s, least)
    from_, to = (math.sqrt(2.0) * (x - r * s) / c for x in (least, end))
    square = c * c * (np.exp(-from_ * from_) - np.exp(-to * to))
    line = math.sqrt(2.0 * math.pi) * r * s * c * (scipy.special.erf(to) - scipy.special.erf(from_))
    between = np.exp(-2.0 * r * r) * (square + line)
    return np.asarray(0.5 * beyond((r - s * least) / c) + beyond(end) + between, np.float64)


@lru_cache(maxsize=4_096)
def _quantiles_of_sum(alpha: float) -> FloatArray:
    """(_GRID + 1,) the r at which :func:`_tail_of_sum` is alpha / 2, from one sample without end to two of a size."""
    angle = np.linspace(0.0, 0.25 * np.pi, _GRID + 1)
    angle[0] = angle[1] * 1e-3
    low, high = np.zeros(angle.shape), np.full(angle.shape, 2.0 * math.sqrt(math.log(4.0 / alpha)))
    for _ in range(60):
        middle = 0.5 * (low + high)
        over = _tail_of_sum(middle, angle=angle) > 0.5 * alpha
        low, high = np.where(over, middle, low), np.where(over, high, middle)
    high.flags.writeable = False
    return high


class WorstDistance(Estimate):
    """Largest distance between the distributions of any two groups on [0, 1], in [0, 1], ideal 0.

    ``distances``: of every pair i < j in order, Kolmogorov-Smirnov or Wasserstein-1, of samples of ``n[g]``. A pair is
    bounded above by what its distance may fall short of the distributions' (:func:`short_of_own`), below by what it may
    be beyond (:func:`beyond_own`); the maximum as in :class:`~auditor.statistics.groups.WorstDifference`. ``grid``:
    how far the samples' distances may lie from these where values were counted on a grid.
    """

    kind_limits = (0.0, 1.0)
    interval_test = (
        "tests of bounded means above and Massart's of distribution functions below, over every pair of groups"
    )

    kind: Literal["worst_distance"] = "worst_distance"
    distances: Annotated[tuple[Share, ...], Field(min_length=1)]
    n: Annotated[tuple[PositiveCount, ...], Field(min_length=2)]
    grid: Annotated[float, Field(ge=0.0, exclude_if=operator.not_)] = 0.0

    @property
    def value(self) -> float:
        return max(self.distances)

    @property
    def comparisons(self) -> int:
        return len(self.distances)

    def bounds(self, alpha: float) -> tuple[float, float]:
        d = np.asarray(self.distances)
        low = float((d - beyond_own(self.n, alpha / self.comparisons)).max()) - self.grid
        return max(low, 0.0), min(float((d + short_of_own(self.n, alpha)).max()) + self.grid, 1.0)

    def detectable(self, *, bound: float, alpha: float, ideal: float, sign: int) -> float:
        """A sufficient value, not the smallest, for the two smallest groups: their sample distance is below the true
        one by no more than is allowed at 20 %."""
        if sign < 0:
            return math.nan
        reach = beyond_own(self.n, alpha / self.comparisons) + short_of_own(self.n, 1.0 - POWER)
        return bound + float(reach.max())

    def growth(self, *, bound: float, alpha: float, ideal: float, miss: float) -> float:
        """A sufficient size: no pair's distance exceeds its own by more than allowed at its share of ``miss``."""
        if not bound > ideal:
            return math.nan
        reach = short_of_own(self.n, alpha) + beyond_own(self.n, miss / self.comparisons)
        return (float(reach.max()) / (bound - ideal)) ** 2
