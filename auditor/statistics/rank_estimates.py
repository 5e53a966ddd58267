"""Rank-based estimates: quantiles, areas under a curve, rates at a threshold."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import scipy
from pydantic import Field

from auditor.core.number_types import Count, NonNegative, Share
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.statistics.estimate import Estimate, Side, Undefined, first_size, smallest_p
from auditor.statistics.intervals import area_reach, clopper_pearson
from auditor.statistics.threshold_bounds import rate_bounds, rate_level

_NO_AREA = Undefined(reason="an AUC needs at least two finite scores on either side")


class AreaUnderCurve(Estimate):
    """``P(positive > negative) + P(tie) / 2`` of two independent samples, in [0, 1], ideal 0.5 for an attack.

    ``centre``: the Mann-Whitney share; ``standard_error``: DeLong's; ``third_cumulant``: of the share, the placements'
    mean cubed deviations over m^2 and n^2; records of earlier versions have none. Bounds by
    :func:`~auditor.statistics.intervals.area_reach`, which allows for rows that were not seen. Student's on the logit
    scale would not do: of 20 against 20 rows with a true value of 0.98 a lower bound at 0.0125 misses in up to 46 % of
    samples, and of 100 against 100 with scores of two values and a true value of 0.99 an upper bound at 0.005 misses
    more than three times too often.

    ``grid``: how far the share of the rows may lie from ``centre`` where their scores were counted on a grid, which
    hides the order of those in one bin; ``cubed_error``: how far the third cumulant may, the standard error being the
    largest that there can be. The bounds are the outermost of all such orders.
    """

    kind_limits = (0.0, 1.0)
    interval_test = "DeLong's test, with room for rows that were not seen"

    kind: Literal["area_under_curve"] = "area_under_curve"
    centre: Share
    standard_error: NonNegative
    n_positive: Annotated[int, Field(ge=2)]
    n_negative: Annotated[int, Field(ge=2)]
    # Left out where there is none, so that older evidence keeps its digests.
    third_cumulant: Annotated[float, Field(exclude_if=operator.not_)] = 0.0
    grid: Annotated[float, Field(ge=0.0, exclude_if=operator.not_)] = 0.0
    cubed_error: Annotated[float, Field(ge=0.0, exclude_if=operator.not_)] = 0.0

    @property
    def value(self) -> float:
        return self.centre

    def many_bounds(self, alphas: FloatArray) -> FloatArray:
        low, high = max(self.centre - self.grid, 0.0), min(self.centre + self.grid, 1.0)
        down, up = area_reach(
            standard_error=self.standard_error,
            third_cumulant=np.asarray([[-self.third_cumulant], [self.third_cumulant]]) + self.cubed_error,
            n_positive=self.n_positive,
            n_negative=self.n_negative,
            room=np.asarray([[low], [1.0 - high]]),
            alpha=alphas,
        )
        return np.stack([np.maximum(low - down, 0.0), np.minimum(high + up, 1.0)], axis=1)

    def critical_value(self, alpha: float) -> float:
        error = self.standard_error_at(0.5)
        reach = area_reach(
            standard_error=error,
            third_cumulant=0.0,
            n_positive=self.n_positive,
            n_negative=self.n_negative,
            room=0.5,
            alpha=alpha,
        )
        return float(reach) / error

    def standard_error_at(self, ideal: float) -> float:
        return math.sqrt(_hanley_mcneil(ideal, m=self.n_positive, n=self.n_negative)) if 0.0 < ideal < 1.0 else math.nan


def _hanley_mcneil(auc: float, *, m: int, n: int) -> float:
    """Variance of an AUC of exponential scores; ``(m + n + 1) / (12 m n)`` at 0.5, whatever the scores are."""
    q1, q2 = auc / (2.0 - auc), 2.0 * auc**2 / (1.0 + auc)
    return (auc * (1 - auc) + (m - 1) * (q1 - auc**2) + (n - 1) * (q2 - auc**2)) / (m * n)


class Quantile(Estimate):
    """The ``level`` quantile of independent values, with the exact order-statistic bounds of any distribution.

    ``values`` sorted ascending, (n,). The lower bound is the largest order statistic x_(k) with
    P(Bin(n, level) <= k - 1) <= alpha, the upper the smallest x_(k) with P(Bin(n, level) >= k) <= alpha; infinite where
    n is too small for one: a 95 % quantile needs n >= log(alpha) / log(0.95). ``ceiling``: the largest value that could
    have been measured, where there is one, so that a bound beyond it is no requirement. Source: David and Nagaraja,
    Order Statistics (2003), 7.1.
    """

    unplanned = "What else it would take depends on how the values are distributed, which is not assumed."
    interval_test = "the sign test of order statistics, exact for any distribution"

    kind: Literal["quantile"] = "quantile"
    level: Annotated[float, Field(gt=0.0, lt=1.0)]
    values: tuple[float, ...]
    ceiling: float | None = None

    @property
    def limits(self) -> tuple[float, float]:
        return -math.inf, math.inf if self.ceiling is None else self.ceiling

    @property
    def value(self) -> float:
        n = len(self.values)
        return self.values[min(max(math.ceil(self.level * n), 1), n) - 1] if n else math.nan

    def bounds(self, alpha: float) -> tuple[float, float]:
        n = len(self.values)
        if not n:
            return -math.inf, math.inf
        k = np.arange(1, n + 1, dtype=np.float64)
        lower_ok = np.flatnonzero(scipy.special.bdtr(k - 1.0, n, self.level) <= alpha)
        upper_ok = np.flatnonzero(scipy.special.bdtrc(k - 1.0, n, self.level) <= alpha)
        low = self.values[lower_ok[-1]] if lower_ok.size else -math.inf
        high = self.values[upper_ok[0]] if upper_ok.size else math.inf
        return low, high

    def growth(self, *, bound: float, alpha: float, ideal: float, miss: float) -> float:
        """The smallest size with a bound at all: values at the ideal are then within it."""
        if not self.values:
            return math.nan
        level = self.level if bound > ideal else 1.0 - self.level
        return math.ceil(math.log(alpha) / math.log(level)) / len(self.values)


class TruePositiveRateAt(Estimate):
    """True positive rate of a score at a false positive rate, with the threshold's own uncertainty.

    ``members_above[j]``: how many of ``n_positive`` score above the (j+1)-th largest of ``n_negative`` negatives, for
    as many j as the bounds may need. The threshold is an estimated quantile of the negatives: with ``joint``, the
    bounds are those of the exact region of threshold and rate together (:mod:`~auditor.statistics.threshold_bounds`).
    In records of earlier versions alpha is split in two: half lets the threshold range over the order statistics that
    may hold the true quantile, half is the Clopper-Pearson bound of the rate there. In [0, 1]; ideal: the false
    positive rate itself.
    """

    kind_limits = (0.0, 1.0)
    interval_test = "exact tests of the threshold and of the rate, as one joint region"

    kind: Literal["true_positive_rate_at"] = "true_positive_rate_at"
    false_positive_rate: Annotated[float, Field(gt=0.0, lt=1.0)]
    members_above: tuple[Count, ...]
    n_positive: Count
    n_negative: Count
    # Left out where it is not so, so that older evidence keeps its digests and its intervals.
    joint: Annotated[bool, Field(exclude_if=operator.not_)] = False

    def _count_above(self, rank: int) -> int:
        return self.members_above[rank] if rank < len(self.members_above) else self.n_positive

    @property
    def value(self) -> float:
        if not self.n_positive or self.n_negative * self.false_positive_rate < 1.0:
            return math.nan
        return self._count_above(math.floor(self.n_negative * self.false_positive_rate + 1e-9)) / self.n_positive

    def bounds(self, alpha: float) -> tuple[float, float]:
        if not self.n_positive or not self.n_negative:
            return 0.0, 1.0
        n, f = self.n_negative, self.false_positive_rate
        if self.joint:
            kept = np.asarray(self.members_above, np.float64)
            return rate_bounds(kept, n_positive=self.n_positive, n_negative=n, f=f, alpha=alpha)
        # No bound reaches beyond the counts that are kept; there a rank gives n_positive, as _above does.
        j = np.arange(0, min(n, len(self.members_above)) + 1, dtype=np.float64)
        # N ~ Bin(n, f) negatives lie above the true threshold; the (j+1)-th largest is below it unless N > j, and
        # above it unless N <= j.
        below = np.flatnonzero(scipy.special.bdtrc(j, n, f) <= alpha / 2.0)
        above = np.flatnonzero(scipy.special.bdtr(j, n, f) <= alpha / 2.0)
        above_high = self._count_above(int(above[-1])) if above.size else 0
        above_low = self._count_above(int(below[0])) if below.size else self.n_positive
        low, _ = clopper_pearson(above_high, n=self.n_positive, alpha=alpha / 2.0)
        _, high = clopper_pearson(above_low, n=self.n_positive, alpha=alpha / 2.0)
        return float(low), float(high)

    def p_value(self, bound: float, side: Side) -> float:
        if not (self.joint and self.n_positive and self.n_negative and 0.0 < bound < 1.0):
            return super().p_value(bound, side)
        return smallest_p(
            rate_level(
                np.asarray(self.members_above, np.float64),
                n_positive=self.n_positive,
                n_negative=self.n_negative,
                f=self.false_positive_rate,
                value=bound,
                end="low" if side in ("greater", "at_least") else "high",
                strictly=side in ("greater", "less"),
            )
        )

    def standard_error_at(self, ideal: float) -> float:
        if not self.n_positive or not self.n_negative:
            return math.nan
        p = self.false_positive_rate
        return math.sqrt(p * (1.0 - p) * (1.0 / self.n_positive + 1.0 / self.n_negative))

    def growth(self, *, bound: float, alpha: float, ideal: float, miss: float) -> float:
        """Solved on the bounds, for scores that tell nothing: no more positives above than those but for ``miss``."""
        if not (self.joint and self.n_positive and self.n_negative and ideal == self.false_positive_rate < bound):
            return super().growth(bound=bound, alpha=alpha, ideal=ideal, miss=miss)

        def is_within_bound(times: float) -> bool:
            m, n = math.ceil(times * self.n_positive), math.ceil(times * self.n_negative)
            above = np.arange(1, _kept_ranks(n, ideal) + 1)
            # Of negatives in their place among positives of the same distribution: negative hypergeometric.
            spread = np.sqrt(m * above * (n + 1.0 - above) * (m + n + 1.0) / ((n + 1.0) ** 2 * (n + 2.0)))
            # The bound is the largest over thresholds near each other, which are not all as far off: half of ``miss``.
            beyond = float(-scipy.special.ndtri(0.5 * miss))
            most = np.minimum(np.ceil(m * above / (n + 1.0) + beyond * spread), m)
            return rate_bounds(most, n_positive=m, n_negative=n, f=ideal, alpha=alpha)[1] <= bound

        return first_size(is_within_bound)


def _kept_ranks(n: int, f: float) -> int:
    """How many of the largest of n negatives a bound at the false positive rate f may need, down to 1e-16."""
    return min(n, int(n * f + 12.0 * math.sqrt(n * f)) + 100)


def quantile(values: npt.ArrayLike, level: float, *, ceiling: float | None = None) -> Quantile:
    """The ``level`` quantile of independent values, (n,), none of which can exceed ``ceiling``."""
    return Quantile(level=level, values=tuple(np.sort(np.asarray(values, np.float64)).tolist()), ceiling=ceiling)


@dataclass(frozen=True, eq=False)
class Ranked:
    """Values sorted once: ``ranks`` (n,), the index of each among the ``different`` (r,) values, ascending."""

    different: FloatArray
    ranks: IntArray

    @classmethod
    def from_values(cls, values: FloatArray) -> Ranked:
        """Values (n,), none of them NaN."""
        values = np.ascontiguousarray(values, np.float64)
        order = ascending(values)
        found = values[order]
        new = np.ones(found.size, bool)
        np.not_equal(found[1:], found[:-1], out=new[1:])
        ranks = np.empty(found.size, np.int64)
        ranks[order] = np.cumsum(new) - 1
        return cls(found[new], ranks)

    @property
    def values(self) -> FloatArray:
        """(n,) the values as given."""
        return self.different[self.ranks]

    def shares_below(self, n: IntArray) -> FloatArray:
        """(n,) the share of others below each value, ties half; ``n`` counts the others by value."""
        by_rank = np.bincount(self.ranks, weights=n, minlength=self.different.size).astype(np.int64)
        return np.asarray(_twice(by_rank)[self.ranks] / (2.0 * n.sum()), np.float64)

    def area(self, *, positives: IntArray | BoolArray, negatives: IntArray | BoolArray) -> AreaUnderCurve | Undefined:
        """:func:`area_under_curve` of some values against others, each by mask or positions; all finite."""
        x, y = (self.ranks[np.flatnonzero(at) if at.dtype == np.bool_ else at] for at in (positives, negatives))
        return area_of_ranks(positives=x, negatives=y, n_ranks=self.different.size)


def ascending(values: FloatArray) -> IntArray:
    """(n,) positions of values (n,) in ascending order, none of them NaN, in half the time of comparing them.

    The bits of a number, as an integer, are in its order, but for the sign.
    """
    bits = values.view(np.int64)
    return ascending_integers((bits ^ ((bits >> 63) | np.iinfo(np.int64).min)).view(np.uint64))


def ascending_integers(values: npt.NDArray[np.uint64]) -> IntArray:
    """(n,) positions of integers (n,) in ascending order, equal ones in that of their positions.

    The leading 32 of the bits in which they differ are sorted by counting, sixteen at a time, and a merge puts right
    what differs in those behind them.
    """
    if not values.size:
        return np.empty(0, np.int64)
    lowest = values.min()
    behind = max(int(values.max() - lowest).bit_length() - 32, 0)
    leading = (values - lowest) >> np.uint64(behind)
    order = np.argsort(leading.astype(np.uint16), kind="stable")
    order = order[np.argsort((leading >> np.uint64(16)).astype(np.uint16)[order], kind="stable")]
    found = values[order]
    return order[np.argsort(found, kind="stable")] if (found[1:] < found[:-1]).any() else order


# Of members that lie among so many times as many others hardly two have the same share of them below.
_MOST_TIMES = 4


@dataclass(frozen=True, eq=False)
class Placements:
    """The share of one sample below, or above, each member of another: ``table`` (t,): the distinct shares, ``at``
    (m,): the index of each member's share; None if all are distinct."""

    table: FloatArray
    at: IntArray | None

    @cached_property
    def shares(self) -> FloatArray:
        """(m,) by member."""
        return self.table if self.at is None else self.table[self.at]

    def mean_cube(self, centre: float) -> float:
        """The mean cubed deviation from a centre, computed on as few distinct numbers as possible."""
        if self.at is not None:
            return float(((self.table - centre) ** 3)[self.at].mean())
        cubes = self.shares - centre
        cubes **= 3
        return float(cubes.mean())


def placements(*, positives: IntArray, negatives: IntArray, n_ranks: int) -> tuple[Placements, Placements]:
    """(m,) the share of negatives below each positive and (n,) of positives above each negative, ties counted half.

    From ranks (m,) and (n,) in ``range(n_ranks)``: two counts and two look-ups, however many of them there are.
    """
    over = shares_below(positives, negatives, n_ranks)
    return over, _complement(shares_below(negatives, positives, n_ranks))


def _complement(placements: Placements) -> Placements:
    return Placements(1.0 - placements.table, placements.at)


def shares_below(ranks: IntArray, others: IntArray, n_ranks: int) -> Placements:
    """(m,) the share of others (n,) below each of ``ranks``, by their ranks in ``range(n_ranks)``, ties counted
    half."""
    doubled = _twice_below(others, n_ranks)
    if n_ranks <= ranks.size:
        return Placements(doubled / (2.0 * others.size), ranks)
    return _shares(doubled[ranks], others.size)


def _twice_below(ranks: IntArray, n_ranks: int) -> IntArray:
    """(n_ranks,) twice how many of some ranks lie below each, a tie being half of one: twice, so that it is whole."""
    return _twice(np.bincount(ranks, minlength=n_ranks))


def _twice(n: IntArray) -> IntArray:
    doubled: IntArray = np.cumsum(n)
    doubled *= 2
    doubled -= n
    return doubled


def _shares(doubled: IntArray, n: int) -> Placements:
    """The shares that are such counts (m,) among n; those that several members have stand in a table."""
    if 16 * n < doubled.size:
        return Placements(np.arange(2 * n + 1) / (2.0 * n), doubled)
    if n > _MOST_TIMES * doubled.size:
        return Placements(doubled / (2.0 * n), None)
    occurs = np.zeros(2 * n + 1, bool)
    occurs[doubled] = True
    found = np.flatnonzero(occurs)
    place = np.empty(2 * n + 1, np.int64)
    place[found] = np.arange(found.size)
    return Placements(found / (2.0 * n), place[doubled])


@dataclass(frozen=True, eq=False)
class GroupAreas:
    """The three areas of a group by :func:`area_of_ranks`: its own positives against its own negatives, positives
    outside it against its negatives, and its positives against negatives outside it."""

    own: AreaUnderCurve | Undefined
    outside_against_own: AreaUnderCurve | Undefined
    own_against_outside: AreaUnderCurve | Undefined


def areas_of_groups(
    *, positives: IntArray, negatives: IntArray, of_positives: IntArray, of_negatives: IntArray, groups: int, ranks: int
) -> Iterator[GroupAreas]:
    """The areas of each of some ``groups``: from ranks (m,) and (n,) in ``range(ranks)``, and their groups.

    What lies below a rank is counted twice a group, for its positives and for its negatives; of those outside it is the
    difference to all.
    """
    all_x, all_y = _twice_below(positives, ranks), _twice_below(negatives, ranks)
    first: GroupAreas | None = None
    for g in range(groups):
        here_x, here_y = of_positives == g, of_negatives == g
        # Brackets take four times as long over a mask.
        x, y = positives.compress(here_x), negatives.compress(here_y)
        other_x, other_y = positives.compress(~here_x), negatives.compress(~here_y)
        below_x, below_y = _twice_below(x, ranks), _twice_below(y, ranks)
        over, under = below_y[x], below_x[y]
        own = _area_of_counts(over, under)
        if groups == 2 and first is not None:
            # Outside the second of two groups is the first.
            yield GroupAreas(own, first.own_against_outside, first.outside_against_own)
            return
        first = GroupAreas(
            own=own,
            outside_against_own=_area_of_counts(below_y[other_x], all_x[y] - under),
            own_against_outside=_area_of_counts(all_y[x] - over, below_x[other_y]),
        )
        yield first


def _area_of_counts(positive_counts: IntArray, negative_counts: IntArray) -> AreaUnderCurve | Undefined:
    """The area by twice how many negatives lie below each positive, (m,), and positives below each negative, (n,)."""
    if min(positive_counts.size, negative_counts.size) < 2:
        return _NO_AREA
    return area_of_placements(
        _shares(positive_counts, negative_counts.size), _complement(_shares(negative_counts, positive_counts.size))
    )


def area_of_ranks(*, positives: IntArray, negatives: IntArray, n_ranks: int) -> AreaUnderCurve | Undefined:
    """:func:`area_under_curve` of scores known by their ranks among all those compared: see :class:`Ranked`."""
    if min(positives.size, negatives.size) < 2:
        return _NO_AREA
    return area_of_placements(*placements(positives=positives, negatives=negatives, n_ranks=n_ranks))


def area_of_placements(positive_placements: Placements, negative_placements: Placements) -> AreaUnderCurve:
    """The area and its uncertainty from the placements (m,) of positives and (n,) of negatives, two at least of each.

    The variance is DeLong's, never below Hanley and McNeil's at the estimate shrunk by half a pair, so a separation of
    few rows is not certain.
    Sources: DeLong et al., Biometrics 44 (1988); Hanley and McNeil, Radiology 143 (1982).
    """
    m, n = positive_placements.shares.size, negative_placements.shares.size
    auc = float(positive_placements.shares.mean())
    delong = float(positive_placements.shares.var(ddof=1) / m + negative_placements.shares.var(ddof=1) / n)
    shrunk = (auc * m * n + 0.5) / (m * n + 1.0)
    return AreaUnderCurve(
        centre=auc,
        standard_error=math.sqrt(max(delong, _hanley_mcneil(shrunk, m=m, n=n))),
        n_positive=m,
        n_negative=n,
        third_cumulant=float(positive_placements.mean_cube(auc) / m**2 + negative_placements.mean_cube(auc) / n**2),
    )


def area_of_counts(*, positives: IntArray, negatives: IntArray, blurred: BoolArray) -> AreaUnderCurve | Undefined:
    """:func:`area_under_curve` of scores counted per bin of a grid, (b,) each, in ascending order.

    ``blurred``: (b,) bins whose scores are not all one, so that their order is hidden. Half of a row's share of the
    other sample in its own such bin is how far its placement may be off, ``e``. So the area is off by the mean of e at
    most, the standard deviation of the placements by the root of its mean square, and their mean cubed deviation by
    ``6 h sd^2 + 12 h^2 sd + 8 h^3``, h the largest e.
    """
    m, n = int(positives.sum()), int(negatives.sum())
    if min(m, n) < 2:
        return _NO_AREA
    # Twice the place among the others, a whole number.
    over = (2 * np.cumsum(negatives) - negatives) / (2.0 * n)
    under = 1.0 - (2 * np.cumsum(positives) - positives) / (2.0 * m)
    auc = min(float((positives * over).sum() / m), 1.0)
    variance = cubed = error = 0.0
    for own, at, others in ((positives, over, negatives / n), (negatives, under, positives / m)):
        size = int(own.sum())
        off = np.where(blurred & (own > 0), others / 2.0, 0.0)
        spread = math.sqrt(float((own * (at - auc) ** 2).sum()) / size)
        stretched = spread + math.sqrt(float((own * off**2).sum()) / size)
        variance += stretched**2 / (size - 1)
        cubed += float((own * (at - auc) ** 3).sum()) / size / size**2
        most = float(off.max())
        error += (6.0 * most * spread**2 + 12.0 * most**2 * spread + 8.0 * most**3) / size**2
    grid = float((positives * np.where(blurred, negatives / n, 0.0)).sum()) / m / 2.0
    nearest = min(max(0.5, auc - grid), auc + grid)
    shrunk = (nearest * m * n + 0.5) / (m * n + 1.0)
    return AreaUnderCurve(
        centre=auc,
        standard_error=math.sqrt(max(variance, _hanley_mcneil(shrunk, m=m, n=n))),
        n_positive=m,
        n_negative=n,
        third_cumulant=cubed,
        grid=grid,
        cubed_error=error,
    )


def area_under_curve(*, positives: npt.ArrayLike, negatives: npt.ArrayLike) -> AreaUnderCurve | Undefined:
    """``P(positive > negative) + P(tie) / 2`` of scores, positives (m,) and negatives (n,), with its uncertainty.

    Undefined below two finite scores on either side; see :func:`area_of_placements`.
    """
    x, y = np.asarray(positives, np.float64), np.asarray(negatives, np.float64)
    both = np.concatenate([x, y])
    if min(x.size, y.size) < 2 or not np.isfinite(both).all():
        return _NO_AREA
    own = np.arange(both.size) < x.size
    return Ranked.from_values(both).area(positives=own, negatives=~own)


def true_positive_rate_at(
    *, positives: npt.ArrayLike, negatives: npt.ArrayLike, false_positive_rate: float
) -> TruePositiveRateAt:
    """True positive rate of scores, positives (m,) and negatives (n,), at ``false_positive_rate``."""
    x = np.sort(np.asarray(positives, np.float64))
    y = np.sort(np.asarray(negatives, np.float64))[::-1]
    kept = y[: _kept_ranks(y.size, false_positive_rate)]
    above = x.size - np.searchsorted(x, kept, "right")
    return TruePositiveRateAt(
        false_positive_rate=false_positive_rate,
        members_above=tuple(int(k) for k in above),
        n_positive=x.size,
        n_negative=y.size,
        joint=True,
    )
