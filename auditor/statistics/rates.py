"""Estimates of one proportion, and of sums and differences of several; how many rows pairs of equal rates need."""

from __future__ import annotations

import math
import operator
from functools import lru_cache
from typing import Annotated, Literal, Self

import numpy as np
import scipy
from pydantic import BaseModel, ConfigDict, Field, model_validator

from auditor.core.number_types import Count, PositiveCount
from auditor.core.rows import FloatArray, IntArray
from auditor.statistics.combined_tails import Contrast, Pairs
from auditor.statistics.estimate import POWER, EachBound, Estimate, Side, first_size, smallest_p
from auditor.statistics.intervals import (
    BINOMIAL_TEST,
    clopper_pearson,
    exact_lower,
    exact_upper,
    orthant_radius,
    sum_bounds,
)
from auditor.statistics.rate_pairs import lower_bounds, smallest_p_value

MOST_GROUPS = 1_000


class Proportion(EachBound):
    """``successes / n`` of independent rows, in [0, 1], with Clopper-Pearson bounds; NaN at n = 0."""

    kind_limits = (0.0, 1.0)
    interval_test = BINOMIAL_TEST

    kind: Literal["proportion"] = "proportion"
    successes: Count
    n: Count

    @property
    def value(self) -> float:
        return self.successes / self.n if self.n else math.nan

    def lower(self, alpha: float) -> float:
        return _lower(self.successes, self.n, alpha)

    def upper(self, alpha: float) -> float:
        return _upper(self.successes, self.n, alpha)

    @model_validator(mode="after")
    def _no_more_than_n(self) -> Self:
        if self.successes > self.n:
            raise ValueError(f"{self.successes} successes of {self.n}")
        return self

    def detectable(self, *, bound: float, alpha: float, ideal: float, sign: int) -> float:
        """Exact: the rate at which enough successes to clear ``bound`` come with 80 % probability."""
        if sign < 0:
            return 1.0 - Proportion(successes=0, n=self.n).detectable(
                bound=1.0 - bound, alpha=alpha, ideal=1.0 - ideal, sign=1
            )
        return _detectable(self.n, bound, alpha)

    def growth(self, *, bound: float, alpha: float, ideal: float, miss: float) -> float:
        """The first n, to 1 %, at which the largest likely count of successes is significantly within ``bound``."""
        if bound < ideal:
            bound, ideal = 1.0 - bound, 1.0 - ideal
        if not self.n or bound == ideal:
            return math.nan

        def is_within_bound(n: float) -> bool:
            likely = math.ceil(float(scipy.special.bdtrik(1.0 - miss, n, ideal)) - 1e-9) if ideal > 0.0 else 0
            return likely < n and float(clopper_pearson(likely, n=n, alpha=alpha)[1]) <= bound

        return first_size(lambda n: is_within_bound(math.ceil(n))) / self.n


# Many a rate is asked the same again: groups are as large as they were, and each look at a training asks anew.
@lru_cache(maxsize=16_384)
def _lower(k: int, n: int, alpha: float) -> float:
    return float(exact_lower(*(np.asarray(x, np.float64) for x in (k, n, alpha))))


@lru_cache(maxsize=16_384)
def _upper(k: int, n: int, alpha: float) -> float:
    return float(exact_upper(*(np.asarray(x, np.float64) for x in (k, n, alpha))))


@lru_cache(maxsize=1_024)
def _detectable(n: int, bound: float, alpha: float) -> float:
    k = np.arange(n + 1, dtype=np.float64)
    enough = np.flatnonzero(clopper_pearson(k, n=n, alpha=alpha)[0] > bound)
    return float(scipy.special.betaincinv(enough[0], n - enough[0] + 1.0, POWER)) if enough.size else math.inf


class RateTable(BaseModel):
    """One rate in every group: ``successes[g]`` of ``n[g]`` rows; ``rate`` is its name, such as ``selection_rate``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: str
    # Judging compares all pairs, and the judge does not trust the process that measured.
    successes: Annotated[tuple[Count, ...], Field(max_length=MOST_GROUPS)]
    n: Annotated[tuple[Count, ...], Field(max_length=MOST_GROUPS)]

    @model_validator(mode="after")
    def _no_more_than_n(self) -> Self:
        if len(self.successes) != len(self.n) or any(k > n for k, n in zip(self.successes, self.n, strict=True)):
            raise ValueError("successes and n are of the same groups, and no group has more successes than rows")
        return self

    def arrays(self) -> tuple[IntArray, IntArray]:
        """Successes and sizes of the groups where the rate is defined (n > 0), each (n_defined,)."""
        k, n = np.asarray(self.successes, np.int64), np.asarray(self.n, np.int64)
        return k[n > 0], n[n > 0]

    @property
    def complete(self) -> bool:
        """Whether every group has rows for the rate."""
        return all(m > 0 for m in self.n)

    @property
    def n_pairs(self) -> int:
        """Ordered pairs of groups with a defined rate."""
        g = sum(m > 0 for m in self.n)
        return g * (g - 1)

    def pooled(self) -> float:
        """Rate over all groups, shrunk half a count from 0 and 1, so that a variance from it is positive."""
        return (sum(self.successes) + 0.5) / (sum(self.n) + 1.0)

    def hardest_pair(self) -> float:
        """``sqrt(1/n_i + 1/n_j)`` of the two smallest groups."""
        smallest = sorted(m for m in self.n if m > 0)[:2]
        return math.sqrt(sum(1.0 / m for m in smallest)) if len(smallest) == 2 else math.nan


class Difference(EachBound):
    """``p_1 - p_2`` of two independent proportions, in [-1, 1], ideal 0.

    ``family``: how many differences the one was picked from; its bounds hold for all of them together (Bonferroni), so
    the picking does no harm.
    """

    kind_limits = (-1.0, 1.0)
    interval_test = "an exact test of two binomial counts"

    kind: Literal["difference"] = "difference"
    successes: tuple[Count, Count]
    n: tuple[Count, Count]
    family: PositiveCount = 1

    @property
    def value(self) -> float:
        return self.successes[0] / self.n[0] - self.successes[1] / self.n[1] if min(self.n) else math.nan

    @property
    def comparisons(self) -> int:
        return self.family

    def lower(self, alpha: float) -> float:
        return float(lower_bounds(self._pair(False), alpha / self.family)[0]) if min(self.n) else -1.0

    def upper(self, alpha: float) -> float:
        return -float(lower_bounds(self._pair(True), alpha / self.family)[0]) if min(self.n) else 1.0

    def _pair(self, turned: bool) -> Pairs:
        """The one pair, turned round to ask for the upper bound of its difference."""
        (k_1, k_2), (n_1, n_2) = np.asarray(self.successes, np.float64), np.asarray(self.n, np.float64)
        first, second = ((k_2, n_2), (k_1, n_1)) if turned else ((k_1, n_1), (k_2, n_2))
        of = (np.asarray([x]) for x in (*first, *second))
        k_1, n_1, k_2, n_2 = of
        return Pairs(contrast="difference", k_1=k_1, n_1=n_1, k_2=k_2, n_2=n_2)

    def p_value(self, bound: float, side: Side) -> float:
        """As for every estimate, from the test itself."""
        value = bound if side in ("greater", "at_least") else -bound
        if value < -1.0 or (value == -1.0 and side in ("at_least", "at_most")):
            return smallest_p(0.0)
        if value >= 1.0 or not min(self.n):
            return 1.0
        return smallest_p(self.family * smallest_p_value(self._pair(side in ("less", "at_most")), value))

    def standard_error_at(self, ideal: float) -> float:
        if not min(self.n):
            return math.nan
        p = (sum(self.successes) + 0.5) / (sum(self.n) + 1.0)
        return math.sqrt(p * (1.0 - p) * (1.0 / self.n[0] + 1.0 / self.n[1]))


class WeightedSum(Estimate):
    """``constant + sum_m w_m p_m`` of independent proportions with fixed weights, with exact bounds
    (:func:`sum_bounds`).
    """

    interval_test = "exact binomial tests of all shares, as one joint region"

    kind: Literal["weighted_sum"] = "weighted_sum"
    weights: tuple[float, ...]
    table: RateTable
    # Left out where there is none, so that older evidence keeps its digests.
    constant: Annotated[float, Field(exclude_if=operator.not_)] = 0.0

    @property
    def limits(self) -> tuple[float, float]:
        least, most = (sum(w for w in self.weights if sign * w > 0.0) for sign in (-1, 1))
        return self.constant + least, self.constant + most

    @property
    def value(self) -> float:
        if not self.table.complete:
            return math.nan
        return self.constant + float(np.asarray(self.weights) @ np.divide(*self.table.arrays()))

    def critical_value(self, alpha: float) -> float:
        return orthant_radius(alpha, len(self.weights))

    def bounds(self, alpha: float) -> tuple[float, float]:
        low, high = sum_bounds(self.weights, successes=self.table.successes, n=self.table.n, alpha=alpha)
        return self.constant + low, self.constant + high

    def standard_error_at(self, ideal: float) -> float:
        if not self.table.complete:
            return math.nan
        k, n = self.table.arrays()
        p = (k + 0.5) / (n + 1.0)
        return math.sqrt(float(np.square(self.weights) @ (p * (1.0 - p) / n)))


class Odds(Estimate):
    """Ratio of two counts, ``successes / failures``, in [0, inf): treatment equality's FN / FP.

    Given their sum the first count is binomial, so its Clopper-Pearson bounds q give ``q / (1 - q)``. 0/0 is NaN.
    """

    unbounded = True
    kind_limits = (0.0, math.inf)
    interval_test = f"{BINOMIAL_TEST} of the first count given the sum of both"

    kind: Literal["odds"] = "odds"
    successes: Count
    failures: Count

    @property
    def value(self) -> float:
        if not self.failures:
            return math.inf if self.successes else math.nan
        return self.successes / self.failures

    def bounds(self, alpha: float) -> tuple[float, float]:
        low, high = clopper_pearson(self.successes, n=self.successes + self.failures, alpha=alpha)
        return float(odds_of(low)), float(odds_of(high))


def odds_of(p: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore"):
        return np.asarray(p / (1.0 - p), np.float64)


# Rows over the variance of one that planning leaves out, for every e-fold of pairs; simulated plans are honest with it.
_LOST = 0.15


def counted_on(table: RateTable, times: float) -> FloatArray:
    """The guaranteed number of rows of every group at ``times`` the present size: rates near 0 or 1 are known from few
    of them, and in steps of whole rows, which affects the worst of many pairs."""
    p = table.pooled()
    lost = _LOST * math.log(max(table.n_pairs, 1)) / (p * (1.0 - p))
    return np.maximum(times * np.asarray(table.n, np.float64) - lost, 1e-3)


def pairs_of_sizes(p: float, n: FloatArray, contrast: Contrast) -> tuple[Pairs, FloatArray]:
    """Pairs of groups with equal rates, (n_pairs,), one per pair of sizes, and the number of such pairs."""
    sizes, counts = np.unique(n, return_counts=True)
    i, j = (place.ravel() for place in np.indices((sizes.size, sizes.size)))
    often = (counts[i] * (counts[j] - (i == j))).astype(np.float64)
    i, j, often = i[often > 0], j[often > 0], often[often > 0]
    first, second = sizes[i], sizes[j]
    return Pairs(contrast=contrast, k_1=p * first, n_1=first, k_2=p * second, n_2=second), often


def probability_missed(z: FloatArray, pairs: Pairs, p: float, often: FloatArray) -> float:
    """Upper bound on the probability that any pair is ``z`` standard errors short, (n_pairs,).

    Rates of few rows have heavier tails than a normal's, which tells far out, where there are many pairs: by their
    fourth cumulant to first order.
    """
    spread = p * (1.0 - p)
    kurtosis = (1.0 - 6.0 * spread) / spread * (1.0 / pairs.n_1**3 + 1.0 / pairs.n_2**3)
    kurtosis /= (1.0 / pairs.n_1 + 1.0 / pairs.n_2) ** 2
    heavier = np.exp(np.clip(kurtosis * z**4 / 24.0, 0.0, 3.0))
    return float((often * heavier * scipy.special.ndtr(-z)).sum())
