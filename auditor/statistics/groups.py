"""Estimates over groups' rates: the worst difference, the worst ratio, and other extremes over groups."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import scipy
from pydantic import Field, model_validator

from auditor.core.number_types import Count
from auditor.core.rows import FloatArray, IntArray
from auditor.statistics.combined_tails import Contrast, Pairs, margins
from auditor.statistics.estimate import (
    TESTS_OF_PARTS,
    Z_POWER,
    EachBound,
    Estimate,
    Side,
    first_size,
    smallest_level,
    smallest_p,
)
from auditor.statistics.intervals import (
    clopper_pearson,
    corner_radius,
    difference_bounds,
    rate_limits,
    ratio_bounds,
    ratios_to_each,
)
from auditor.statistics.rate_pairs import (
    largest_lower_bound,
    largest_p_value,
    ordered_pairs,
    pairs_apart,
    smallest_lower_bound,
    smallest_p_value,
)
from auditor.statistics.rates import (
    MOST_GROUPS,
    Difference,
    RateTable,
    WeightedSum,
    counted_on,
    odds_of,
    pairs_of_sizes,
    probability_missed,
)

# Groups beyond which pairs are bounded by corners.
MOST_TESTED = 100
_TESTS_OF_PAIRS = "exact tests of every pair of groups, inverted together"
_TESTS_OF_GROUPS = "Clopper and Pearson's exact binomial tests of all groups together"


class WorstOfGroups(Estimate):
    tables: Annotated[tuple[RateTable, ...], Field(min_length=1)]

    def critical_value(self, alpha: float) -> float:
        return corner_radius(alpha)

    @property
    def comparisons(self) -> int:
        return sum(table.n_pairs for table in self.tables)

    @property
    def complete(self) -> bool:
        """Whether there are groups to compare, and every rate of every group is defined."""
        return all(table.complete and len(table.n) > 1 for table in self.tables)


class WorstOfPairs(WorstOfGroups, EachBound):
    """The worst pair of groups over several rates, from the exact tests of its pairs.

    That the worst lies beyond a value: any pair does, each at alpha / n_pairs (union bound), pairs without an order,
    because two groups differ by more in one direction only and their test is of both directions at once. That it lies
    within: all ordered pairs do, each at alpha: to miss, the pair that truly is the worst must miss, and that is one.
    """

    contrast: ClassVar[Contrast]

    def critical_value(self, alpha: float) -> float:
        return float(-scipy.special.ndtri(alpha))

    @property
    def _crowded(self) -> bool:
        """Whether there are so many groups that testing every two of them takes its time."""
        return any(len(table.n) > MOST_TESTED for table in self.tables)

    def _corner(self, k: IntArray, n: IntArray, alpha: float) -> FloatArray:
        """(n_pairs,) lower bounds of every ordered pair from the corner of a joint region: wider, at no time."""
        bounds = difference_bounds if self.contrast == "difference" else ratio_bounds
        return np.asarray(bounds(k, n=n, alpha=alpha)[0][~np.eye(len(n), dtype=bool)], np.float64)

    def _table_arrays(self) -> list[tuple[IntArray, IntArray]]:
        return [table.arrays() for table in self.tables if table.n_pairs]

    def _beyond(self, alpha: float) -> float:
        """A lower bound of the largest difference or ratio of any two groups, at least no difference."""
        none = 0.0 if self.contrast == "difference" else 1.0
        if not self.comparisons:
            return none
        if self._crowded:
            return max(none, *(float(self._corner(*of, alpha / self.comparisons).max()) for of in self._table_arrays()))
        return max(
            largest_lower_bound(pairs_apart(self._table_arrays(), self.contrast), 2.0 * alpha / self.comparisons), none
        )

    def _smallest_contrast(self, alpha: float) -> float:
        """A lower bound of the smallest difference or ratio of any two groups, at most no difference."""
        none = 0.0 if self.contrast == "difference" else 1.0
        if not self.comparisons:
            return none
        if self._crowded:
            return min(none, *(float(self._corner(*of, alpha).min()) for of in self._table_arrays()))
        return min(smallest_lower_bound(ordered_pairs(self._table_arrays(), self.contrast), alpha), none)

    def _p_beyond(self, value: float) -> float:
        if not self.comparisons:
            return 1.0
        if self._crowded:
            return smallest_level(lambda alpha: self._beyond(alpha) > value)
        p = smallest_p_value(pairs_apart(self._table_arrays(), self.contrast), value)
        return smallest_p(0.5 * self.comparisons * p)

    def _p_within(self, value: float) -> float:
        if not self.complete:
            return 1.0
        if self._crowded:
            return smallest_level(lambda alpha: self._smallest_contrast(alpha) >= value)
        return largest_p_value(ordered_pairs(self._table_arrays(), self.contrast), value)


class _PlannedOnTests(WorstOfPairs):
    """A headline whose planning asks its own tests what they would say, instead of a normal approximation of them."""

    def growth(self, *, bound: float, alpha: float, ideal: float, miss: float) -> float:
        """Solved on the tests themselves: expected counts in every group, and ``miss`` shared out over all pairs."""
        if not self.complete or not self._leaves_room(ideal=ideal, bound=bound):
            return math.nan
        return first_size(
            lambda times: (
                sum(self._risk(t.pooled(), n=counted_on(t, times), bound=bound, alpha=alpha) for t in self.tables)
                <= miss
            )
        )

    def detectable(self, *, bound: float, alpha: float, ideal: float, sign: int) -> float:
        """Solved on the tests themselves, for a gap between the two smallest groups of the rate that shows it last.

        The pooled rate is known, where the gap lies around it is not: the worst of three places and two directions.
        """
        if not self.complete or not self._leaves_room(ideal=ideal, bound=bound):
            return math.nan
        level = 2.0 * alpha / self.comparisons

        def is_detected(effect: float) -> bool:
            return all(self._is_detected(table, effect=effect, bound=bound, alpha=level) for table in self.tables)

        near, far = bound, float(sign > 0)
        if not is_detected(far):
            return sign * math.inf
        for _ in range(20):
            middle = 0.5 * (near + far)
            near, far = (near, middle) if is_detected(middle) else (middle, far)
        return far

    def p_value(self, bound: float, side: Side) -> float:
        """As for every estimate, from the tests themselves; of values in [0, 1]."""
        if side in ("greater", "at_least"):
            if bound < 0.0 or (bound == 0.0 and side == "at_least"):
                return smallest_p(0.0)
            return 1.0 if bound >= 1.0 else smallest_p(self._p_tested(bound, above=True))
        if bound > 1.0 or (bound == 1.0 and side == "at_most"):
            return smallest_p(0.0)
        return 1.0 if bound <= 0.0 else smallest_p(self._p_tested(bound, above=False))

    def _p_tested(self, value: float, *, above: bool) -> float:
        """The p-value of a headline larger, or smaller, than a value in [0, 1] that is not its limit."""
        raise NotImplementedError

    def _leaves_room(self, *, ideal: float, bound: float) -> bool:
        """Whether a value of ``ideal`` meets the bound with room to spare: else there is nothing to plan."""
        raise NotImplementedError

    def _risk(self, p: float, *, n: FloatArray, bound: float, alpha: float) -> float:
        """At most how probable it is that some pair of equal rates ``p`` is not shown to lie within ``bound``."""
        raise NotImplementedError

    def _pairs(self, p: float, *, effect: float) -> tuple[FloatArray, FloatArray]:
        """Higher and lower rates, each (3,), ``effect`` apart around ``p``."""
        raise NotImplementedError

    def _pull(self, *, high: FloatArray, low: FloatArray) -> FloatArray:
        """How much the headline moves with the higher rate for each unit that it moves with the lower one."""
        raise NotImplementedError

    def _is_detected(self, table: RateTable, *, effect: float, bound: float, alpha: float) -> bool:
        first, second = sorted(table.n)[:2]
        high, low = (np.tile(rates, 2) for rates in self._pairs(table.pooled(), effect=effect))
        n_high, n_low = (np.repeat(np.asarray(n, np.float64), 3) for n in ((first, second), (second, first)))
        error_high, error_low = (np.sqrt(p * (1.0 - p) / n) for p, n in ((high, n_high), (low, n_low)))
        pull = self._pull(high=high, low=low) * error_high
        size = np.maximum(np.hypot(pull, error_low), 1e-300)
        # The counts that one audit in five falls short of: 80 % power is the bound being cleared even there.
        observed_high = np.clip(high - Z_POWER * error_high * pull / size, 0.0, 1.0)
        # One count more, because a count near 0 is skewed.
        observed_low = np.clip(low + Z_POWER * error_low * error_low / size + 1.0 / n_low, 0.0, 1.0)
        pairs = Pairs(
            contrast=self.contrast,
            k_1=observed_high * n_high,
            n_1=n_high,
            k_2=observed_low * n_low,
            n_2=n_low,
            either=True,
        )
        value = bound if self.contrast == "difference" else 1.0 / bound
        return bool((margins(pairs, value, alpha) >= 0.0).all())


class WorstDifference(_PlannedOnTests):
    """Largest difference of a rate between any two groups, over one or several rates.

    ``max over tables, i, j of p_i - p_j``, in [0, 1], ideal 0: ``demographic_parity_difference`` with one table,
    ``equalized_odds_difference`` with the true and the false positive rate.

    A maximum of noisy differences is biased away from 0, so it is judged from exact tests of its parts, as
    :class:`WorstOfPairs` says. A group where a rate is undefined (0/0) makes the value NaN and the upper bound 1, since
    nothing is known there; the lower bound still holds, because a maximum over all groups is no smaller than one over
    some.
    """

    kind_limits = (0.0, 1.0)
    contrast = "difference"
    interval_test = _TESTS_OF_PAIRS

    kind: Literal["worst_difference"] = "worst_difference"

    @property
    def value(self) -> float:
        if not self.complete:
            return math.nan
        rates = [np.divide(*table.arrays()) for table in self.tables]
        return max(float(r.max() - r.min()) for r in rates)

    def lower(self, alpha: float) -> float:
        return min(self._beyond(alpha), 1.0)

    def upper(self, alpha: float) -> float:
        return min(-self._smallest_contrast(alpha), 1.0) if self.complete else 1.0

    def _p_tested(self, value: float, *, above: bool) -> float:
        return self._p_beyond(value) if above else self._p_within(-value)

    def _leaves_room(self, *, ideal: float, bound: float) -> bool:
        return ideal < bound < 1.0

    def _risk(self, p: float, *, n: FloatArray, bound: float, alpha: float) -> float:
        pairs, often = pairs_of_sizes(p, n, self.contrast)
        # Margins are in standard errors at the bound. Counts are skewed: what misses it lies between the rate and it.
        edge, q = (p + math.copysign(min(by * bound, abs(0.5 - p)), 0.5 - p) for by in (0.5, 0.25))
        times = min(math.sqrt(edge * (1.0 - edge) / (q * (1.0 - q))), 1.1)
        return probability_missed(times * margins(pairs, -bound, alpha, expected=True), pairs, p, often)

    def _pairs(self, p: float, *, effect: float) -> tuple[FloatArray, FloatArray]:
        low = np.clip([p, p - 0.5 * effect, p - effect], 0.0, 1.0 - effect)
        return low + effect, low

    def _pull(self, *, high: FloatArray, low: FloatArray) -> FloatArray:
        return np.ones_like(high)


class WorstRatio(_PlannedOnTests):
    """Smallest ratio of a rate between any two groups, ``min over i, j of p_i / p_j``, in [0, 1], ideal 1.

    ``demographic_parity_ratio`` with one table. Bounds mirror :class:`WorstDifference`. All rates 0 is 0/0: NaN.
    """

    kind_limits = (0.0, 1.0)
    contrast = "ratio"
    interval_test = _TESTS_OF_PAIRS

    kind: Literal["worst_ratio"] = "worst_ratio"

    @property
    def value(self) -> float:
        if not self.complete:
            return math.nan
        rates = [np.divide(*table.arrays()) for table in self.tables]
        if any(r.max() == 0.0 for r in rates):
            return math.nan
        return min(float(r.min() / r.max()) for r in rates)

    def lower(self, alpha: float) -> float:
        return max(self._smallest_contrast(alpha), 0.0) if self.complete else 0.0

    def upper(self, alpha: float) -> float:
        return 1.0 / self._beyond(alpha)

    def _p_tested(self, value: float, *, above: bool) -> float:
        return self._p_within(value) if above else self._p_beyond(1.0 / value)

    def _leaves_room(self, *, ideal: float, bound: float) -> bool:
        return 0.0 < bound < ideal

    def _risk(self, p: float, *, n: FloatArray, bound: float, alpha: float) -> float:
        pairs, often = pairs_of_sizes(p, n, self.contrast)
        return probability_missed(margins(pairs, bound, alpha, expected=True), pairs, p, often)

    def _pairs(self, p: float, *, effect: float) -> tuple[FloatArray, FloatArray]:
        widest = p / effect if effect > p else 1.0
        high = np.array([p, 0.5 * (p + widest), widest])
        return high, effect * high

    def _pull(self, *, high: FloatArray, low: FloatArray) -> FloatArray:
        return low / high


class _ExtremeRate(Estimate):
    """The most extreme rate of any group. The bound on the extreme's own side is each group's at alpha: to miss, the
    group that truly is the extreme must miss. The other one is each group's at alpha / n_groups (union bound).
    """

    kind_limits = (0.0, 1.0)
    largest: ClassVar[bool]

    # Named here for its place in the record.
    kind: Literal["smallest_rate", "largest_rate"]
    table: RateTable

    def _extreme(self, rates: FloatArray) -> float:
        return float(rates.max() if self.largest else rates.min())

    @property
    def value(self) -> float:
        known = self.table.complete and self.table.n
        return self._extreme(np.divide(*self.table.arrays())) if known else math.nan

    @property
    def comparisons(self) -> int:
        return sum(m > 0 for m in self.table.n)

    def bounds(self, alpha: float) -> tuple[float, float]:
        if not self.comparisons:
            return 0.0, 1.0
        k, n = self.table.arrays()
        of_any = alpha / self.comparisons
        low, _ = clopper_pearson(k, n=n, alpha=of_any if self.largest else alpha)
        _, high = clopper_pearson(k, n=n, alpha=alpha if self.largest else of_any)
        # Nothing is known of a group without rows, which may be the extreme itself.
        return (
            self._extreme(low) if self.largest or self.table.complete else 0.0,
            self._extreme(high) if not self.largest or self.table.complete else 1.0,
        )

    def standard_error_at(self, ideal: float) -> float:
        p = self.table.pooled()
        return math.sqrt(p * (1.0 - p) / min(m for m in self.table.n if m)) if self.comparisons else math.nan


class SmallestRate(_ExtremeRate):
    """The smallest rate of any group, ``min_g p_g``, in [0, 1], ideal 1: worst-group accuracy.

    A minimum of noisy rates is biased down. Upper: the smallest upper bound, each at alpha / n_groups (union bound).
    Lower: the smallest lower bound, each at alpha: to miss, the group that truly is the worst must miss.
    """

    largest = False
    interval_test = _TESTS_OF_GROUPS

    kind: Literal["smallest_rate"] = "smallest_rate"


class LargestRate(_ExtremeRate):
    """The largest rate of any group, ``max_g p_g``, in [0, 1], ideal 0: the flip rate of the worst category.

    A maximum of noisy rates is biased up. Lower: the largest lower bound, each at alpha / n_groups (union bound).
    Upper: the largest upper bound, each at alpha: to miss, the group that truly is the worst must miss.
    """

    largest = True
    interval_test = _TESTS_OF_GROUPS

    kind: Literal["largest_rate"] = "largest_rate"


class LargestDisparity(Estimate):
    """The largest of several groups' disparities, which sum to 0 and are bounded each by itself; in [0, 1], ideal 0.

    ``max over g of theta_g``, biased upward. Lower: the largest lower bound, each at alpha / n_groups (union bound), at
    least 0, since numbers that sum to 0 have one that is no less. Upper: the largest upper bound, each at alpha: to
    miss, the group that truly is the largest must miss. An undefined part makes the value NaN and the upper bound 1.
    """

    kind_limits = (0.0, 1.0)
    interval_test = TESTS_OF_PARTS

    kind: Literal["largest_disparity"] = "largest_disparity"
    parts: Annotated[
        tuple[Annotated[Difference | WeightedSum, Field(discriminator="kind")], ...],
        Field(min_length=1, max_length=MOST_GROUPS),
    ]

    def _defined(self) -> list[Difference | WeightedSum]:
        return [part for part in self.parts if not math.isnan(part.value)]

    @property
    def value(self) -> float:
        values = [part.value for part in self.parts]
        return math.nan if any(map(math.isnan, values)) else max(values)

    @property
    def comparisons(self) -> int:
        return len(self._defined())

    def bounds(self, alpha: float) -> tuple[float, float]:
        parts = self._defined()
        if not parts:
            return 0.0, 1.0
        low = max(part.lower(alpha / len(parts)) for part in parts)
        high = max(part.upper(alpha) for part in parts) if len(parts) == len(self.parts) else 1.0
        return max(low, 0.0), min(max(high, 0.0), 1.0)

    def p_value(self, bound: float, side: Side) -> float:
        """As for every estimate, from the parts."""
        parts = self._defined()
        if side in ("greater", "at_least"):
            if bound < 0.0 or (bound == 0.0 and side == "at_least"):
                return smallest_p(0.0)
            return smallest_p(len(parts) * min(p.p_value(bound, side) for p in parts)) if parts else 1.0
        if bound > 1.0 or (bound == 1.0 and side == "at_most"):
            return smallest_p(0.0)
        if bound < 0.0 or not parts or len(parts) < len(self.parts):
            return 1.0
        return max(part.p_value(bound, side) for part in parts)

    def critical_value(self, alpha: float) -> float:
        return max((part.critical_value(alpha) for part in self._defined()), default=math.nan)

    def standard_error_at(self, ideal: float) -> float:
        return max((part.standard_error_at(ideal) for part in self._defined()), default=math.nan)


class _OfLogarithms(Estimate):
    """A ratio, which is normal, if at all, on the scale of logarithms."""

    def detectable(self, *, bound: float, alpha: float, ideal: float, sign: int) -> float:
        if bound <= 0.0:
            return math.nan
        reach = self.critical_value(alpha / max(self.comparisons, 1)) + Z_POWER
        return bound * math.exp(sign * reach * self.standard_error_at(ideal))


class RatioToLargest(_OfLogarithms):
    """One group's rate over the largest rate of any group, ``p_c / max_g p_g``, in [0, 1], ideal 1: impact ratio.

    Which group has the largest rate is itself an estimate, so the ratio is read as ``min over g of p_c / p_g``. Upper:
    the smallest upper bound, each at alpha / (n_groups - 1) (union bound). Lower: the smallest lower bound, each at
    alpha: to miss, the ratio to the group that truly is the largest must miss. All rates 0 is 0/0: NaN.
    """

    kind_limits = (0.0, 1.0)
    interval_test = f"{_TESTS_OF_PAIRS}, over every group that may be the largest"

    kind: Literal["ratio_to_largest"] = "ratio_to_largest"
    table: RateTable
    index: Count

    @model_validator(mode="after")
    def _one_of_the_groups(self) -> Self:
        if self.index >= len(self.table.n):
            raise ValueError(f"group {self.index} of {len(self.table.n)}")
        return self

    @property
    def value(self) -> float:
        if not self.table.complete:
            return math.nan
        p = np.divide(*self.table.arrays())
        return float(p[self.index] / p.max()) if p.max() > 0 else math.nan

    def critical_value(self, alpha: float) -> float:
        return corner_radius(alpha)

    @property
    def comparisons(self) -> int:
        return max(len(self.table.n) - 1, 1)

    def bounds(self, alpha: float) -> tuple[float, float]:
        if not self.table.complete or len(self.table.n) < 2:
            return 0.0, 1.0
        rivals = self._rivals()
        return float(self._lowers(rivals, alpha).min()), float(self._uppers(rivals, alpha).min())

    def _other_groups(self) -> IntArray:
        return np.flatnonzero(np.arange(len(self.table.n)) != self.index)

    def _rivals(self) -> IntArray:
        """The other groups that may decide a bound: a group with fewer successes and more failures has lower limits."""
        k, n = self.table.arrays()
        # Most successes first and, of those, fewest failures: who is beaten is so by one that stands before.
        order = np.lexsort((n - k, -k))
        order = order[order != self.index]
        failures = (n - k)[order]
        fewest_before = np.minimum.accumulate(np.r_[np.iinfo(np.int64).max, failures[:-1]])
        return np.asarray(order[failures < fewest_before], np.int64)

    def _lowers(self, others: IntArray, alpha: float) -> FloatArray:
        k, n = self.table.arrays()
        own = float(k[self.index]), float(n[self.index])
        return np.clip(ratios_to_each(own, successes=k[others], n=n[others], alpha=alpha, side="lower"), 0.0, 1.0)

    def _uppers(self, others: IntArray, alpha: float) -> FloatArray:
        k, n = self.table.arrays()
        own, alpha = (float(k[self.index]), float(n[self.index])), alpha / self.comparisons
        return np.minimum(ratios_to_each(own, successes=k[others], n=n[others], alpha=alpha, side="upper"), 1.0)

    def p_value(self, bound: float, side: Side) -> float:
        """As for every estimate; pairs decided at one level are not tested again at the next."""
        if not self.table.complete or len(self.table.n) < 2:
            return super().p_value(bound, side)
        # The upper bound is beyond a requirement where some pair's is, the lower one where every pair's is.
        upper = side in ("less", "at_most")
        compare = {"less": np.less, "at_most": np.less_equal, "greater": np.greater, "at_least": np.greater_equal}[side]
        open_pairs = self._rivals()

        def is_significant(alpha: float) -> bool:
            nonlocal open_pairs
            ends = (self._uppers if upper else self._lowers)(open_pairs, alpha)
            there = np.asarray(compare(ends, bound), bool)
            found = bool(there.any() if upper else there.all())
            # A pair that is not shown at a level is not at a stricter one, and one that is, is at a laxer one.
            if found == upper:
                open_pairs = open_pairs[there == upper]
            return found

        return smallest_level(is_significant)

    def standard_error_at(self, ideal: float) -> float:
        n = [m for g, m in enumerate(self.table.n) if g != self.index and m]
        if not n or not self.table.n[self.index]:
            return math.nan
        p = self.table.pooled()
        return math.sqrt((1.0 - p) / p * (1.0 / min(n) + 1.0 / self.table.n[self.index]))

    def growth(self, *, bound: float, alpha: float, ideal: float, miss: float) -> float:
        """Solved on the bounds themselves: expected counts in every group, and ``miss`` over all other groups."""
        if not self.table.complete or len(self.table.n) < 2 or not 0.0 < bound < ideal:
            return math.nan
        p, others = self.table.pooled(), self._other_groups()
        # As for WorstRatio: counts are skewed, and what misses the bound lies between it and the rate.
        q = p * (1.0 - 0.25 * (1.0 - bound))

        def is_within_bound(times: float) -> bool:
            n = times * np.asarray(self.table.n, np.float64)
            with np.errstate(divide="ignore"):
                own = p * float(n[self.index]), float(n[self.index])
                lowers = ratios_to_each(own, successes=p * n[others], n=n[others], alpha=alpha, side="lower")
                slack = np.log(lowers) - math.log(bound)
            spread = np.sqrt(1.0 / n[others] + 1.0 / n[self.index])
            return float(scipy.special.ndtr(-slack / (math.sqrt((1.0 - q) / q) * spread)).sum()) <= miss

        return first_size(is_within_bound)


class WorstOddsRatio(_OfLogarithms, WorstOfGroups):
    """Smallest ratio of the odds ``p / (1 - p)`` between any two groups, in [0, 1], ideal 1.

    Bounds as in :class:`WorstRatio`. 0/0 and inf/inf are NaN.
    """

    kind_limits = (0.0, 1.0)
    interval_test = _TESTS_OF_PAIRS

    kind: Literal["worst_odds_ratio"] = "worst_odds_ratio"

    @property
    def value(self) -> float:
        if not self.complete:
            return math.nan
        odds = [odds_of(np.divide(*table.arrays())) for table in self.tables]
        return min(float(o.min() / o.max()) if o.max() > 0 and np.isfinite(o.min()) else math.nan for o in odds)

    def bounds(self, alpha: float) -> tuple[float, float]:
        low, high = 1.0 if self.complete else 0.0, 1.0
        for table in self.tables:
            k, n = table.arrays()
            if k.size < 2:
                continue
            high = min(high, float(_odds_ratio_upper(k, n, alpha / self.comparisons).min()))
            upper = _odds_ratio_upper(k, n, alpha)
            np.fill_diagonal(upper, 1.0)
            low = min(low, 1.0 / float(upper.max()))
        return low, high

    def standard_error_at(self, ideal: float) -> float:
        parts = [t.hardest_pair() / math.sqrt(t.pooled() * (1.0 - t.pooled())) for t in self.tables]
        return max(parts) if self.comparisons else math.nan

    def growth(self, *, bound: float, alpha: float, ideal: float, miss: float) -> float:
        if bound <= 0.0:
            return math.nan
        reach = self.critical_value(alpha) + float(-scipy.special.ndtri(miss / max(self.comparisons, 1)))
        return (reach * self.standard_error_at(ideal) / math.log(bound / ideal)) ** 2


def _odds_ratio_upper(successes: IntArray, n: IntArray, alpha: float) -> FloatArray:
    lower, upper = rate_limits(successes, n=n, alpha=alpha)
    above, below = odds_of(upper)[:, :, None], odds_of(lower)[::-1][:, None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(below > 0, above / below, np.inf).max(axis=0), np.float64)
