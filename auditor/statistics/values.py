"""Estimates of numbers with a unit, such as predicted prices: means, gaps, distances on a stated range."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
import scipy
from pydantic import Field, model_validator

from auditor.core.number_types import NonNegative, Positive, PositiveCount
from auditor.core.rows import BoolArray, FloatArray
from auditor.statistics.distribution_distances import WorstDistance, beyond_own, short_of_own
from auditor.statistics.estimate import POWER, TESTS_OF_PARTS, EachBound, Estimate, Undefined
from auditor.statistics.intervals import ANGLES, bounded_mean_reach, corner_radius, summed_reach
from auditor.statistics.means import StudentT
from auditor.statistics.rates import MOST_GROUPS

# Of the search for the ends of a ratio: each step looks at so many places between two, and there are so many steps.
_STEPS, _ZOOMS = 65, 5

# Gaps of one number between groups: one a column, where a table may be wide.
MOST_GAPS = 20_000


class BoundedMean(Estimate):
    """Mean of ``n`` independent values in [low, high], or its square root with ``root``.

    ``standard_error``: sd / sqrt(n), 0 for one value; ``third_moment``: mean cubed deviation. Bounds by
    :func:`~auditor.statistics.intervals.bounded_mean_reach`, which allows for values that were not seen and lie at the
    limits, so they hold at every level and size, however skewed the values are; a single value says nothing, and its
    bounds are the limits.
    """

    unbounded = True
    interval_test = "tests of a mean of bounded values that hold at every size and skew"

    kind: Literal["bounded_mean"] = "bounded_mean"
    centre: float
    standard_error: NonNegative
    third_moment: float
    n: PositiveCount
    low: float
    high: float
    root: bool = False

    @model_validator(mode="after")
    def _inside(self) -> Self:
        if not self.low <= self.centre <= self.high or (self.root and self.low < 0.0):
            raise ValueError(f"a mean of {self.centre:g} of values in [{self.low:g}, {self.high:g}]")
        # Its cube is divided by.
        if not 1e-100 <= self.high - self.low <= 1e100:
            raise ValueError(f"a range of values from {self.low:g} to {self.high:g}")
        return self

    @property
    def limits(self) -> tuple[float, float]:
        return (math.sqrt(self.low), math.sqrt(self.high)) if self.root else (self.low, self.high)

    @property
    def value(self) -> float:
        return math.sqrt(self.centre) if self.root else self.centre

    def many_bounds(self, alphas: FloatArray) -> FloatArray:
        return _bounds_of_means([self], alphas)[:, 0]

    def standard_error_at(self, ideal: float) -> float:
        error = math.hypot(self.standard_error, (self.high - self.low) / self.n)
        return error / (2.0 * self.value) if self.root and self.value > 0.0 else error


def _bounds_of_means(parts: Sequence[BoundedMean], alphas: FloatArray) -> FloatArray:
    """(n_alphas, n_parts, 2) bounds of many means at many levels, in one pass."""
    columns = np.asarray([(p.centre, p.standard_error, p.third_moment, p.n, p.low, p.high) for p in parts], np.float64)
    centre, error, third, n, low, high = columns.T
    # The reach is scale-free but for rounding: it is taken on the unit range.
    span = high - low
    error, third, at, levels = error / span, third / span**3, (centre - low) / span, alphas[:, None]
    reach = bounded_mean_reach(
        standard_error=error,
        third_moment=np.stack([-third, third])[:, None],
        n=n,
        room=np.stack([at, 1.0 - at])[:, None],
        alpha=levels,
    )
    down, up = at - reach[0], at + reach[1]
    # A bound taken off the unit range and put back may be a rounding error past the mean itself.
    found = np.stack(
        [
            np.minimum(low + span * np.clip(down, 0.0, 1.0), centre),
            np.maximum(low + span * np.clip(up, 0.0, 1.0), centre),
        ],
        axis=-1,
    )
    rooted = np.asarray([p.root for p in parts], bool)[None, :, None]
    return np.asarray(np.where(rooted, np.sqrt(np.maximum(found, 0.0)), found), np.float64)


def _means_apart(means: Sequence[BoundedMean], alphas: FloatArray) -> FloatArray:
    """(n_alphas, n_pairs) upper bounds of the differences of every ordered pair of means of different rows."""
    columns = np.asarray([(p.centre, p.standard_error, p.third_moment, p.n, p.low, p.high) for p in means], np.float64)
    centre, error, third, n, low, high = columns.T
    # On the largest range, so that numbers are of the order of 1.
    span = float((high - low).max())
    error, cumulant, rise, fall = error / span, third / span**3 / n**2, (high - centre) / span, (centre - low) / span
    i, j = np.nonzero(~np.eye(len(means), dtype=bool))
    reach = summed_reach(
        standard_error=error[[i, j]][:, None],
        third_cumulant=np.stack([cumulant[i], -cumulant[j]])[:, None],
        degrees_of_freedom=n[[i, j]][:, None] - 1.0,
        unseen=np.stack([rise[i] / n[i], fall[j] / n[j]])[:, None],
        alpha=alphas[:, None],
    )
    return np.asarray(np.minimum(centre[i] - centre[j] + span * reach, high[i] - low[j]), np.float64)


ValuePart = Annotated[Undefined | BoundedMean | StudentT, Field(discriminator="kind")]


class _OfParts(Estimate):
    unbounded = True

    # Judging compares all pairs, and the judge does not trust the process that measured.
    parts: Annotated[tuple[ValuePart, ...], Field(min_length=1, max_length=MOST_GROUPS)]

    def _defined(self) -> list[ValuePart]:
        return [part for part in self.parts if not math.isnan(part.value)]

    def _bounds_of_parts(self, alphas: FloatArray) -> FloatArray:
        """(n_alphas, n_defined, 2) bounds of every part that is defined."""
        defined = self._defined()
        means = [part for part in defined if isinstance(part, BoundedMean)]
        if len(means) == len(defined):
            return _bounds_of_means(means, alphas)
        return np.stack([part.many_bounds(alphas) for part in defined], axis=1)

    def _range_of_parts(self) -> tuple[float, float]:
        ends = [part.limits for part in self._defined()]
        return min((low for low, _ in ends), default=-math.inf), max((high for _, high in ends), default=math.inf)


class WorstValueGap(_OfParts):
    """Largest difference between two groups in a number from each group's own rows; [0, inf), ideal 0.

    ``max over i, j of theta_i - theta_j``, in the unit of the parts. A pair of means is bounded by
    :func:`~auditor.statistics.intervals.summed_reach`, one of other parts, such as roots of means, over the corner
    region of :func:`~auditor.statistics.intervals.rate_limits`; the maximum as in
    :class:`~auditor.statistics.groups.WorstDifference`. An undefined part makes the value NaN.

    ``uncompared``: groups besides the parts, of which too little is known to compare them. The value is then that of
    the parts alone, which the largest of all is at least, so the lower bound holds; the upper one is the limit.
    """

    interval_test = TESTS_OF_PARTS

    kind: Literal["worst_value_gap"] = "worst_value_gap"
    # Left out where there are none, so that older evidence keeps its digests.
    uncompared: Annotated[int, Field(ge=0, exclude_if=operator.not_)] = 0

    @property
    def limits(self) -> tuple[float, float]:
        low, high = self._range_of_parts()
        return 0.0, high - low

    @property
    def value(self) -> float:
        values = [part.value for part in self.parts]
        return math.nan if any(map(math.isnan, values)) or len(values) < 2 else max(values) - min(values)

    @property
    def comparisons(self) -> int:
        g = len(self._defined())
        return g * (g - 1)

    def _means(self) -> list[BoundedMean]:
        """The parts that are defined, if all of those are means of two values or more; else none."""
        parts = self._defined()
        means = [part for part in parts if isinstance(part, BoundedMean) and part.n > 1 and not part.root]
        return means if len(means) == len(parts) else []

    def critical_value(self, alpha: float) -> float:
        return float(-scipy.special.ndtri(alpha)) if self._means() else corner_radius(alpha)

    def _upper(self, alphas: FloatArray) -> FloatArray:
        """(n, n_pairs) upper bounds of every ordered pair at each level."""
        if means := self._means():
            return _means_apart(means, alphas)
        radii = np.asarray([corner_radius(float(alpha)) for alpha in alphas])
        tails = scipy.special.ndtr(-radii[:, None] * np.cos(ANGLES))
        ends = self._bounds_of_parts(tails.ravel())
        ends = ends.reshape(*tails.shape, *ends.shape[1:])
        gaps = (ends[:, :, :, None, 1] - ends[:, ::-1, None, :, 0]).max(axis=1)
        return np.asarray(gaps[:, ~np.eye(ends.shape[2], dtype=bool)], np.float64)

    def many_bounds(self, alphas: FloatArray) -> FloatArray:
        return self.bounds_at(alphas, alphas)

    def bounds_at(self, of_lower: FloatArray, of_upper: FloatArray) -> FloatArray:
        """(n, 2) lower and upper bounds, each at its own level, (n,)."""
        known = self.comparisons and len(self._defined()) == len(self.parts)
        most = np.full(of_upper.size, self.limits[1] if self.uncompared else math.inf)
        if not self.comparisons:
            return np.stack([np.zeros(of_lower.size), most], axis=1)
        asked = of_lower / self.comparisons
        if self.uncompared or not known:
            return np.stack([np.maximum(0.0, -self._upper(asked).min(axis=1)), most], axis=1)
        gaps = self._upper(np.concatenate([asked, of_upper]))
        lower, upper = gaps[: asked.size], gaps[asked.size :]
        return np.stack([np.maximum(0.0, -lower.min(axis=1)), upper.max(axis=1)], axis=1)

    def standard_error_at(self, ideal: float) -> float:
        parts = self._defined()
        if len(parts) < 2:
            return math.nan
        return math.hypot(*sorted((part.standard_error_at(ideal) for part in parts), reverse=True)[:2])

    def growth(self, *, bound: float, alpha: float, ideal: float, miss: float) -> float:
        """As for every estimate; NaN if more of these rows would not inform about the omitted groups."""
        return math.nan if self.uncompared else super().growth(bound=bound, alpha=alpha, ideal=ideal, miss=miss)


class LargestGap(Estimate):
    """The largest of several gaps between groups, such as of each feature's share in the explanations; ideal 0.

    Bounded for all of them together as :class:`LargestValue` is: lower, the largest lower bound, each at alpha over the
    number of gaps; upper, the largest upper bound, each at alpha. An undefined gap makes the upper one infinite.
    """

    unbounded = True
    interval_test = TESTS_OF_PARTS

    kind: Literal["largest_gap"] = "largest_gap"
    gaps: Annotated[tuple[WorstValueGap, ...], Field(min_length=1, max_length=MOST_GAPS)]

    @property
    def value(self) -> float:
        values = [gap.value for gap in self.gaps]
        return math.nan if any(map(math.isnan, values)) else max(values)

    @property
    def comparisons(self) -> int:
        return sum(gap.comparisons for gap in self.gaps)

    def critical_value(self, alpha: float) -> float:
        return corner_radius(alpha)

    def many_bounds(self, alphas: FloatArray) -> FloatArray:
        each = np.asarray([gap.bounds_at(alphas / len(self.gaps), alphas) for gap in self.gaps], np.float64)
        largest: FloatArray = each.max(axis=0, initial=0.0)
        return largest

    def standard_error_at(self, ideal: float) -> float:
        return max(gap.standard_error_at(ideal) for gap in self.gaps)


class LargestValue(_OfParts):
    """The largest of a number over all groups, such as the worst group's mean loss; of the amounts if ``absolute``.

    A maximum of noisy numbers is biased up. Lower: the largest lower bound, each at alpha over their number (union
    bound). Upper: the largest upper bound, each at alpha: to miss, the group that truly is the worst must miss. An
    amount has two of either kind, those of the number and of its negative.
    """

    interval_test = TESTS_OF_PARTS

    kind: Literal["largest_value"] = "largest_value"
    # Left out where it is not, so that older evidence keeps its digests.
    absolute: Annotated[bool, Field(exclude_if=operator.not_)] = False

    @property
    def limits(self) -> tuple[float, float]:
        low, high = self._range_of_parts()
        return (0.0, max(-low, high)) if self.absolute else (low, high)

    @property
    def value(self) -> float:
        values = [abs(part.value) if self.absolute else part.value for part in self.parts]
        return math.nan if any(map(math.isnan, values)) else max(values)

    @property
    def comparisons(self) -> int:
        return len(self._defined()) * (2 if self.absolute else 1)

    def many_bounds(self, alphas: FloatArray) -> FloatArray:
        if not self.comparisons:
            return np.broadcast_to([0.0 if self.absolute else -math.inf, math.inf], (alphas.size, 2))
        ends = self._bounds_of_parts(np.concatenate([alphas / self.comparisons, alphas]))
        if self.absolute:
            ends = np.concatenate([ends, -ends[:, :, ::-1], np.zeros((len(ends), 1, 2))], axis=1)
        low, high = ends[: alphas.size, :, 0].max(axis=1), ends[alphas.size :, :, 1].max(axis=1)
        known = len(self._defined()) == len(self.parts)
        return np.stack([low, high if known else np.full(alphas.size, math.inf)], axis=1)

    def standard_error_at(self, ideal: float) -> float:
        return max((part.standard_error_at(ideal) for part in self._defined()), default=math.nan)


class WorstValueDistance(Estimate):
    """Largest Wasserstein-1 distance between any two groups of values on a range ``span`` wide; [0, span], ideal 0.

    ``span`` None: no range is known, and a distance, which one value far off may stretch at will, has no bounds.

    ``distances``: of every pair i < j in order, in the unit of the values. The bounds are those of
    :class:`~auditor.statistics.distribution_distances.WorstDistance`, ``span`` times as far away.
    """

    unbounded = True
    interval_test = WorstDistance.interval_test

    kind: Literal["worst_value_distance"] = "worst_value_distance"
    distances: Annotated[tuple[NonNegative, ...], Field(min_length=1)]
    n: Annotated[tuple[PositiveCount, ...], Field(min_length=2, max_length=MOST_GROUPS)]
    span: Positive | None

    @property
    def limits(self) -> tuple[float, float]:
        return 0.0, math.inf if self.span is None else max(self.span, self.value)

    @property
    def value(self) -> float:
        return max(self.distances)

    @property
    def comparisons(self) -> int:
        return len(self.distances)

    def bounds(self, alpha: float) -> tuple[float, float]:
        if self.span is None:
            return 0.0, math.inf
        d = np.asarray(self.distances)
        low = float((d - self.span * beyond_own(self.n, alpha / self.comparisons)).max())
        high = float((d + self.span * short_of_own(self.n, alpha)).max())
        return max(low, 0.0), min(high, max(self.span, self.value))

    def detectable(self, *, bound: float, alpha: float, ideal: float, sign: int) -> float:
        """As for :class:`~auditor.statistics.distribution_distances.WorstDistance`; NaN without a range."""
        if self.span is None or sign < 0:
            return math.nan
        reach = beyond_own(self.n, alpha / self.comparisons) + short_of_own(self.n, 1.0 - POWER)
        return bound + self.span * float(reach.max())

    def growth(self, *, bound: float, alpha: float, ideal: float, miss: float) -> float:
        """As for :class:`~auditor.statistics.distribution_distances.WorstDistance`; NaN without a range."""
        if self.span is None or not bound > ideal:
            return math.nan
        reach = short_of_own(self.n, alpha) + beyond_own(self.n, miss / self.comparisons)
        return (self.span * float(reach.max()) / (bound - ideal)) ** 2


class RatioOfTotals(EachBound):
    """``sum a_c / sum b_c`` over n independent clusters, ``low b_c <= a_c <= high b_c`` and ``0 <= b_c <= most``.

    A ratio r is ruled out where the mean of ``a_c - r b_c``, values in [(low - r) most, (high - r) most], is shown not
    to be 0 by :func:`~auditor.statistics.intervals.bounded_mean_reach`; the bounds are the outermost ratios that are
    not. So nothing is taken for normal, neither the ratio nor the clusters, however few rows some of them have.
    ``first``: means of a and b; ``second``: sample variance of a, covariance, variance of b; ``third``: mean products
    of three deviations, (aaa, aab, abb, bbb). The limits are ``low`` and ``high``.
    """

    interval_test = "tests of bounded means over clusters, of every ratio that none of them rules out"

    kind: Literal["ratio_of_totals"] = "ratio_of_totals"
    first: tuple[float, Positive]
    second: tuple[NonNegative, float, NonNegative]
    third: tuple[float, float, float, float]
    n: Annotated[int, Field(ge=2)]
    most: Positive
    low: float
    high: float

    @model_validator(mode="after")
    def _inside(self) -> Self:
        if not self.low < self.high or not self.low <= self.value <= self.high:
            raise ValueError(f"a ratio of {self.value:g} in [{self.low:g}, {self.high:g}]")
        if self.first[1] > self.most * (1.0 + 1e-9):
            raise ValueError(f"a mean of {self.first[1]:g} of sizes up to {self.most:g}")
        return self

    @property
    def limits(self) -> tuple[float, float]:
        return self.low, self.high

    @property
    def value(self) -> float:
        return self.first[0] / self.first[1]

    def _ruled_out(self, ratios: FloatArray, sign: int, alpha: float) -> BoolArray:
        """Whether each ratio is shown to be too small, for ``sign`` 1, or too large, for -1."""
        r = ratios
        mean = sign * (self.first[0] - r * self.first[1]) / self.most
        error = self._error(r) / self.most
        aaa, aab, abb, bbb = self.third
        cubed = -sign * (aaa - 3.0 * r * aab + 3.0 * r**2 * abb - r**3 * bbb) / self.most**3
        room = mean + (r - self.low if sign > 0 else self.high - r)
        reach = bounded_mean_reach(standard_error=error, third_moment=cubed, n=self.n, room=room, alpha=alpha)
        return np.asarray(mean > reach, np.bool_)

    def _error(self, ratios: npt.ArrayLike) -> FloatArray:
        r = np.asarray(ratios, np.float64)
        aa, ab, bb = self.second
        return np.asarray(np.sqrt(np.maximum(aa - 2.0 * r * ab + r**2 * bb, 0.0) / self.n), np.float64)

    def _end(self, end: float, sign: int, alpha: float) -> float:
        inward = np.linspace(end, self.value, _STEPS)
        for _ in range(_ZOOMS):
            kept = np.flatnonzero(~self._ruled_out(inward, sign, alpha))
            if not kept.size or kept[0] == 0:
                # The sample's own ratio is never ruled out but by rounding.
                return float(inward[0 if kept.size else -1])
            inward = np.linspace(inward[kept[0] - 1], inward[kept[0]], _STEPS)
        return float(inward[0])

    def lower(self, alpha: float) -> float:
        return min(self._end(self.low, 1, alpha), self.value)

    def upper(self, alpha: float) -> float:
        return max(self._end(self.high, -1, alpha), self.value)

    def standard_error_at(self, ideal: float) -> float:
        return math.hypot(float(self._error(ideal)), self.most * (self.high - self.low) / self.n) / self.first[1]

    def critical_value(self, alpha: float) -> float:
        reach = bounded_mean_reach(
            standard_error=self._error(self.value) / self.most,
            third_moment=0.0,
            n=self.n,
            room=self.high - self.low,
            alpha=alpha,
        )
        return float(reach) * self.most / self.first[1] / self.standard_error_at(self.value)


def ratio_of_totals(
    *, numerators: npt.ArrayLike, denominators: npt.ArrayLike, most: float, low: float, high: float
) -> RatioOfTotals | Undefined:
    """``sum above / sum below`` of clusters, (n,) each; undefined for fewer than two or zero totals."""
    a, b = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    if a.size < 2 or not b.sum() > 0.0:
        return Undefined(reason="a ratio needs at least two clusters and something to divide by")
    x, y = a - a.mean(), b - b.mean()
    second, third = [(x * x).sum(), (x * y).sum(), (y * y).sum()], [x * x * x, x * x * y, x * y * y, y * y * y]
    return RatioOfTotals(
        first=(float(a.mean()), float(b.mean())),
        second=tuple(float(v) / (a.size - 1) for v in second),
        third=tuple(float(v.mean()) for v in third),
        n=a.size,
        most=most,
        low=low,
        high=high,
    )


class RatioBetween(Estimate):
    """A ratio of totals over the same clusters with missing answers: bounded by two such ratios.

    ``below`` counts every row without an answer as what makes the ratio least, ``above`` as what makes it largest;
    whatever those rows would have been, the ratio lies between. ``value`` is the middle of both. Bounds: the lower
    bound of the one and the upper bound of the other, since of either only that on its own side can miss.
    """

    interval_test = "tests of two ratios of totals, one below and one above"

    kind: Literal["ratio_between"] = "ratio_between"
    unplanned = "More rows do not decide the rows that have no answer."
    below: RatioOfTotals
    above: RatioOfTotals
    n_open: PositiveCount
    n: PositiveCount

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        same = (self.below.low, self.below.high, self.below.n) == (self.above.low, self.above.high, self.above.n)
        if not same or self.below.value > self.above.value + 1e-9 or self.n_open > self.n:
            raise ValueError("both ratios are of the same clusters, and the one below is the smaller one")
        return self

    @property
    def limits(self) -> tuple[float, float]:
        return self.below.limits

    @property
    def value(self) -> float:
        return (self.below.value + self.above.value) / 2.0

    def bounds(self, alpha: float) -> tuple[float, float]:
        return self.below.lower(alpha), self.above.upper(alpha)

    def undecided(self) -> str:
        return f"{self.n_open:,} of {self.n:,} rows have no answer."


class IdealizedAssociation(Estimate):
    """ICAT, ``100 lms min(ss, 1 - ss) / 0.5``, in [0, 100], ideal 100; both scores are means over the same terms.

    The extremes over a box of both scores: half of alpha for ``modelling``; half for ``stereotype``, at the lower end,
    where of its two bounds only that on the side of the truth can make a miss, and a quarter for either bound at the
    upper end. So nothing is assumed of how the two scores depend on each other, nor of the kink at ss = 0.5.
    """

    unbounded = True
    kind_limits = (0.0, 100.0)
    unplanned = "How many target terms would decide it depends on two scores, and is not planned for."
    interval_test = "tests of two bounded means together, over the extremes of both"

    kind: Literal["idealized_association"] = "idealized_association"
    modelling: BoundedMean
    stereotype: BoundedMean

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if any(part.limits != (0.0, 1.0) or part.root for part in (self.modelling, self.stereotype)):
            raise ValueError("both scores are means of values in [0, 1]")
        return self

    @property
    def value(self) -> float:
        return 200.0 * self.modelling.value * min(self.stereotype.value, 1.0 - self.stereotype.value)

    def bounds(self, alpha: float) -> tuple[float, float]:
        knows, side, sides = (
            self.modelling.bounds(alpha / 2.0),
            self.stereotype.bounds(alpha / 2.0),
            self.stereotype.bounds(alpha / 4.0),
        )
        low, high = min(side[0], 1.0 - side[1]), min(sides[1], 1.0 - sides[0], 0.5)
        return 200.0 * knows[0] * low, 200.0 * knows[1] * high


def bounded_mean(values: npt.ArrayLike, *, low: float, high: float, root: bool = False) -> BoundedMean | Undefined:
    """Mean of independent values, (n,), in [low, high]; undefined without values."""
    x = np.asarray(values, np.float64)
    if not x.size:
        return Undefined(reason="there are no rows to take a mean over")
    centre = float(x.mean())
    return BoundedMean(
        # A mean of equal numbers may be a rounding error beyond them.
        centre=min(max(centre, low), high),
        standard_error=float(x.std(ddof=1) / math.sqrt(x.size)) if x.size > 1 else 0.0,
        third_moment=float(((x - centre) ** 3).mean()),
        n=x.size,
        low=low,
        high=high,
        root=root,
    )
