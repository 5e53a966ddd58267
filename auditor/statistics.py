"""Estimates that know their uncertainty at every level, and the exact arithmetic behind them.

A probe measures before anybody knows how many findings a scan will have, so it cannot print an interval: it returns an
:class:`Estimate`, which keeps the sufficient statistics and answers ``bounds(alpha)`` later, at the level that the
whole family of findings allows. Everything else (``interval``, ``p_value``) inverts ``bounds``, so an interval and a
judgement made from the same estimate cannot disagree.

Proportions and their differences and ratios are bounded by **exact** methods. The score intervals of Wilson and
Newcombe are the usual choice at 95 %, and are here for display; at the levels a family of findings needs they are not
safe. Enumerated over all outcomes, Newcombe's one-sided bound at alpha = 0.001 with groups of 5 and 200 misses the
truth 33 times as often as promised, and with 100 and 1,000 five times; with Clopper-Pearson limits in it, 8 and 2.4
times. The bounds used here miss at most 0.4 times as often as allowed (``tests/test_statistics.py`` shows it all).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.special import bdtr, bdtrc, bdtrik, betaincinv, chdtrc, chdtri, gammainccinv, nctdtr, ndtr, ndtri, stdtrit

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Counts = IntArray | FloatArray
Side = Literal["greater", "less", "at_most", "at_least"]
Multiplicity = Literal["bonferroni", "holm", "bh", "none"]

POWER = 0.80
MOST_GROUPS = 1_000
_Z_POWER = float(ndtri(POWER))
_SMALLEST_P = 1e-16
_ANGLES = np.linspace(0.0, np.pi / 2, 25)


class Power(NamedTuple):
    """What a metric can see: the true value ``effect`` is FAILed in at least 80 % of audits with ``n`` rows a group."""

    n: int
    effect: float


# ---- one proportion ------------------------------------------------------------------------------------------------


def clopper_pearson(successes: npt.ArrayLike, n: npt.ArrayLike, alpha: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """One-sided exact bounds of a binomial proportion, each missed with probability at most ``alpha``.

    ``lower = Beta^-1(alpha; k, n - k + 1)``, ``upper = Beta^-1(1 - alpha; k + 1, n - k)``; arguments broadcast.
    ``n = 0`` gives [0, 1]. Source: Clopper and Pearson, Biometrika 26 (1934).
    """
    k, m, a = np.broadcast_arrays(
        np.asarray(successes, np.float64), np.asarray(n, np.float64), np.asarray(alpha, np.float64)
    )
    lower = np.where(k > 0, betaincinv(np.maximum(k, 1.0), np.maximum(m - k, 0.0) + 1.0, a), 0.0)
    upper = np.where(k < m, betaincinv(k + 1.0, np.maximum(m - k, 1.0), 1.0 - a), 1.0)
    return lower, upper


def wilson(successes: npt.ArrayLike, n: npt.ArrayLike, alpha: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """One-sided score bounds of a binomial proportion, each missed with probability about ``alpha``: for display.

    Centre ``(p + z^2/2n) / (1 + z^2/n)``, half width ``z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n)``.
    ``n = 0`` gives [0, 1]. Source: Wilson, JASA 22 (1927).
    """
    k, m, a = np.broadcast_arrays(
        np.asarray(successes, np.float64), np.asarray(n, np.float64), np.asarray(alpha, np.float64)
    )
    z = ndtri(1.0 - a)
    safe = np.maximum(m, 1.0)
    p = k / safe
    denominator = 1.0 + z * z / safe
    centre = (p + z * z / (2.0 * safe)) / denominator
    half = z * np.sqrt(p * (1.0 - p) / safe + z * z / (4.0 * safe * safe)) / denominator
    lower = np.where(m > 0, np.clip(centre - half, 0.0, 1.0), 0.0)
    upper = np.where(m > 0, np.clip(centre + half, 0.0, 1.0), 1.0)
    return lower, upper


def newcombe(k1: int, n1: int, k2: int, n2: int, alpha: float) -> tuple[float, float]:
    """One-sided hybrid score bounds of ``k1/n1 - k2/n2``: for display; see the module's note on its tails.

    ``lower = d - sqrt((p1 - l1)^2 + (u2 - p2)^2)`` with Wilson limits. Source: Newcombe, Stat. Med. 17 (1998), method
    10.
    """
    (l1, l2), (u1, u2) = wilson([k1, k2], [n1, n2], alpha)
    p1, p2 = k1 / n1, k2 / n2
    d = p1 - p2
    return float(d - math.hypot(p1 - l1, u2 - p2)), float(d + math.hypot(u1 - p1, p2 - l2))


# ---- two independent proportions -----------------------------------------------------------------------------------


def corner_radius(alpha: float) -> float:
    """Radius ``t`` with ``P(max(Z1, 0)^2 + max(Z2, 0)^2 > t^2) = alpha`` for independent standard normals.

    ``exp(-t^2 / 2) / 4 + (1 - Phi(t)) = alpha`` (a chi-bar-square tail); 2.05 at 0.05, 3.43 at 0.001.
    """
    low, high = 0.0, 40.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        tail = 0.25 * math.exp(-0.5 * middle * middle) + float(ndtr(-middle))
        low, high = (middle, high) if tail > alpha else (low, middle)
    return high


def rate_limits(successes: Counts, n: Counts, alpha: float) -> tuple[FloatArray, FloatArray]:
    """Clopper-Pearson limits along the boundary of the exact joint region of two independent proportions.

    Returns ``lower`` and ``upper``, each (n_angles, n_groups). For groups i and j the region
    ``{max(z_i, 0)^2 + max(z_j, 0)^2 <= t^2}``, with ``z`` the normal quantile of each exact binomial tail and ``t``
    from :func:`corner_radius`, holds the true pair with probability at least 1 - alpha whatever the rates and sizes,
    because each tail probability is stochastically no smaller than uniform. So any function that rises in p_i and
    falls in p_j is at most its largest value over ``(upper[a, i], lower[-1 - a, j])``. The grid's 25 angles understate
    a smooth maximum by less than 0.15 % of the interval's half width. Counts need not be whole:
    planning uses expected ones.
    """
    tails = ndtr(-corner_radius(alpha) * np.cos(_ANGLES))
    return clopper_pearson(successes[None, :], n[None, :], tails[:, None])


def difference_bounds(successes: Counts, n: Counts, alpha: float) -> tuple[FloatArray, FloatArray]:
    """One-sided exact bounds (n_groups, n_groups) of ``p_i - p_j`` for every ordered pair, each at level ``alpha``."""
    lower, upper = rate_limits(successes, n, alpha)
    high = (upper[:, :, None] - lower[::-1][:, None, :]).max(axis=0)
    return -high.T, high


def ratio_bounds(successes: Counts, n: Counts, alpha: float) -> tuple[FloatArray, FloatArray]:
    """One-sided exact bounds (n_groups, n_groups) of ``p_i / p_j`` for every ordered pair, each at level ``alpha``."""
    lower, upper = rate_limits(successes, n, alpha)
    with np.errstate(divide="ignore", invalid="ignore"):
        high = np.where(lower[::-1][:, None, :] > 0, upper[:, :, None] / lower[::-1][:, None, :], np.inf).max(axis=0)
        low = (lower[:, :, None] / upper[::-1][:, None, :]).min(axis=0)
    return low, high


# ---- the estimates -------------------------------------------------------------------------------------------------


class Estimate(BaseModel):
    """A number with its uncertainty at any level; subclasses say what it is made of.

    ``value``: the point estimate, NaN where undefined. ``bounds(alpha)``: a lower and an upper bound, each missed with
    probability at most alpha, nested in alpha for 0 < alpha <= 0.5. The fields are the sufficient statistics: an
    estimate survives a round trip through JSON, and a stranger can recompute every interval from the report.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # Whether the value may exceed 1, so that an ideal of 0 does not mean a share.
    unbounded: ClassVar[bool] = False

    @property
    def value(self) -> float:
        """The point estimate; NaN where it is undefined."""
        raise NotImplementedError

    def bounds(self, alpha: float) -> tuple[float, float]:
        """Lower and upper one-sided bound, each missed with probability at most ``alpha``."""
        raise NotImplementedError

    def many_bounds(self, alphas: FloatArray) -> FloatArray:
        """(n, 2) bounds at every level of ``alphas``, (n,)."""
        return np.asarray([self.bounds(float(alpha)) for alpha in alphas], np.float64)

    def interval(self, confidence: float) -> tuple[float, float]:
        """Two-sided interval made of the one-sided bounds at ``(1 - confidence) / 2`` each."""
        if not 0.0 <= confidence < 1.0:
            raise ValueError(f"confidence must lie in [0, 1), not {confidence}")
        return self.bounds((1.0 - confidence) / 2.0)

    def p_value(self, bound: float, side: Side) -> float:
        """Smallest alpha at which the one-sided bound shows the value to be ``side`` than ``bound``.

        ``greater`` and ``less`` are strict, ``at_least`` and ``at_most`` are not: a count known to be 0 is at most 0.
        Inverts :meth:`bounds` by bisection in log alpha to a relative 1e-6. Range [1e-16, 1]; anything above 0.5 is
        given as 1, because no judgement reads it.
        """

        def shown(alpha: float) -> bool:
            low, high = self.bounds(alpha)
            return {"greater": low > bound, "at_least": low >= bound, "less": high < bound, "at_most": high <= bound}[
                side
            ]

        if not shown(0.5):
            return 1.0
        if shown(_SMALLEST_P):
            return _SMALLEST_P
        low, high = math.log(_SMALLEST_P), math.log(0.5)
        while high - low > 1e-6:
            middle = 0.5 * (low + high)
            low, high = (low, middle) if shown(math.exp(middle)) else (middle, high)
        return math.exp(high)

    def standard_error_at(self, ideal: float) -> float:
        """Standard error of the hardest part of the estimate if the true value were ``ideal``; NaN where unknown."""
        return math.nan

    def critical_value(self, alpha: float) -> float:
        """Half width of a one-sided bound at ``alpha`` in standard errors, for planning."""
        return float(-ndtri(alpha))

    @property
    def comparisons(self) -> int:
        """How many parts a headline is the worst of; 1 for a plain estimate."""
        return 1

    def detectable(self, bound: float, alpha: float, *, ideal: float, sign: int) -> float:
        """The nearest value beyond ``bound`` that is shown to be so with 80 % power at this n; above it for ``sign`` 1.

        NaN where unknown, infinite where no value would be.
        """
        reach = self.critical_value(alpha / max(self.comparisons, 1)) + _Z_POWER
        return bound + sign * reach * self.standard_error_at(ideal)

    def growth(self, bound: float, alpha: float, *, ideal: float, miss: float) -> float:
        """How many times this n shows a true value ``ideal`` to lie within ``bound``, but for a probability ``miss``.

        Every comparison must come out, so each is given its share of ``miss``. NaN where unknown.
        """
        reach = self.critical_value(alpha) + float(-ndtri(miss / max(self.comparisons, 1)))
        return (reach * self.standard_error_at(ideal) / abs(bound - ideal)) ** 2


class Undefined(Estimate):
    """A number that does not exist for these data: 0/0, an empty group. It is never shown as a number.

    ``failed``: it does not exist because the model failed, which no further rows would mend.
    """

    kind: Literal["undefined"] = "undefined"
    reason: str
    failed: bool = False

    @property
    def value(self) -> float:
        return math.nan

    def bounds(self, alpha: float) -> tuple[float, float]:
        return -math.inf, math.inf


class Exact(Estimate):
    """A count or a quantity known without sampling error, such as the number of non-finite weights in a file."""

    kind: Literal["exact"] = "exact"
    known: float

    @property
    def value(self) -> float:
        return self.known

    def bounds(self, alpha: float) -> tuple[float, float]:
        return self.known, self.known

    def standard_error_at(self, ideal: float) -> float:
        return 0.0


class Proportion(Estimate):
    """``successes / n`` of independent rows, in [0, 1], with Clopper-Pearson bounds; NaN at n = 0."""

    kind: Literal["proportion"] = "proportion"
    successes: Annotated[int, Field(ge=0)]
    n: Annotated[int, Field(ge=0)]

    @property
    def value(self) -> float:
        return self.successes / self.n if self.n else math.nan

    def bounds(self, alpha: float) -> tuple[float, float]:
        low, high = clopper_pearson(self.successes, self.n, alpha)
        return float(low), float(high)

    @model_validator(mode="after")
    def _no_more_than_n(self) -> Self:
        if self.successes > self.n:
            raise ValueError(f"{self.successes} successes of {self.n}")
        return self

    def detectable(self, bound: float, alpha: float, *, ideal: float, sign: int) -> float:
        """Exact: the rate at which enough successes to clear ``bound`` come with 80 % probability."""
        if sign < 0:
            return 1.0 - Proportion(successes=0, n=self.n).detectable(1.0 - bound, alpha, ideal=1.0 - ideal, sign=1)
        k = np.arange(self.n + 1, dtype=np.float64)
        enough = np.flatnonzero(clopper_pearson(k, self.n, alpha)[0] > bound)
        return float(betaincinv(enough[0], self.n - enough[0] + 1.0, POWER)) if enough.size else math.inf

    def growth(self, bound: float, alpha: float, *, ideal: float, miss: float) -> float:
        """The first n, to 1 %, at which the largest likely count of successes is shown to be within ``bound``."""
        if bound < ideal:
            bound, ideal = 1.0 - bound, 1.0 - ideal
        if not self.n or bound == ideal:
            return math.nan

        def within(n: float) -> bool:
            likely = math.ceil(float(bdtrik(1.0 - miss, n, ideal)) - 1e-9) if ideal > 0.0 else 0
            return likely < n and float(clopper_pearson(likely, n, alpha)[1]) <= bound

        return _first_size(lambda n: within(math.ceil(n))) / self.n


class RateTable(BaseModel):
    """One rate in every group: ``successes[g]`` of ``n[g]`` rows; ``rate`` is its name, such as ``selection_rate``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: str
    # Judging compares all pairs, and the judge does not trust the process that measured.
    successes: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=MOST_GROUPS)]
    n: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=MOST_GROUPS)]

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
        """Whether every group has rows to take the rate over."""
        return all(m > 0 for m in self.n)

    @property
    def n_pairs(self) -> int:
        """Ordered pairs of groups with a defined rate."""
        g = sum(m > 0 for m in self.n)
        return g * (g - 1)

    def pooled(self) -> float:
        """Rate over all groups, shrunk half a count from 0 and 1 so that a variance made of it is positive."""
        return (sum(self.successes) + 0.5) / (sum(self.n) + 1.0)

    def hardest_pair(self) -> float:
        """``sqrt(1/n_i + 1/n_j)`` of the two smallest groups."""
        smallest = sorted(m for m in self.n if m > 0)[:2]
        return math.sqrt(sum(1.0 / m for m in smallest)) if len(smallest) == 2 else math.nan


class _WorstOfGroups(Estimate):
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


class _PlannedOnBounds(_WorstOfGroups):
    """A headline whose planning asks its own bounds what they would be, instead of a normal approximation of them."""

    def growth(self, bound: float, alpha: float, *, ideal: float, miss: float) -> float:
        """Solved on the bounds themselves: expected counts in every group, and ``miss`` shared out over all pairs."""
        if not self.complete or not self._within(ideal, bound):
            return math.nan
        return _first_size(
            lambda times: (
                sum(self._risk(t.pooled(), times * np.asarray(t.n, np.float64), bound, alpha) for t in self.tables)
                <= miss
            )
        )

    def detectable(self, bound: float, alpha: float, *, ideal: float, sign: int) -> float:
        """Solved on the bounds themselves, for a gap between the two smallest groups of the rate that shows it last.

        The pooled rate is known, where the gap lies around it is not: the worst of three places and two directions.
        """
        if not self.complete or not self._within(ideal, bound):
            return math.nan

        def seen(effect: float) -> bool:
            return all(self._seen(table, effect, bound, alpha / self.comparisons) for table in self.tables)

        near, far = bound, float(sign > 0)
        if not seen(far):
            return sign * math.inf
        for _ in range(20):
            middle = 0.5 * (near + far)
            near, far = (near, middle) if seen(middle) else (middle, far)
        return far

    def _within(self, ideal: float, bound: float) -> bool:
        """Whether a value of ``ideal`` meets the bound with room to spare: else there is nothing to plan."""
        raise NotImplementedError

    def _risk(self, p: float, n: FloatArray, bound: float, alpha: float) -> float:
        """At most how probable it is that some pair of equal rates ``p`` is not shown to lie within ``bound``."""
        raise NotImplementedError

    def _pairs(self, p: float, effect: float) -> tuple[FloatArray, FloatArray]:
        """Higher and lower rates, each (3,), ``effect`` apart around ``p``."""
        raise NotImplementedError

    def _clears(self, k: FloatArray, n: FloatArray, bound: float, alpha: float) -> npt.NDArray[np.bool_]:
        """(n_groups, n_groups) whether group i is shown to be beyond ``bound`` above group j."""
        raise NotImplementedError

    def _pull(self, high: FloatArray, low: FloatArray) -> FloatArray:
        """How much the headline moves with the higher rate for each unit that it moves with the lower one."""
        raise NotImplementedError

    def _seen(self, table: RateTable, effect: float, bound: float, alpha: float) -> bool:
        first, second = sorted(table.n)[:2]
        high, low = (np.tile(rates, 2) for rates in self._pairs(table.pooled(), effect))
        n_high, n_low = (np.repeat(np.asarray(n, np.float64), 3) for n in ((first, second), (second, first)))
        error_high, error_low = (np.sqrt(p * (1.0 - p) / n) for p, n in ((high, n_high), (low, n_low)))
        pull = self._pull(high, low) * error_high
        size = np.maximum(np.hypot(pull, error_low), 1e-300)
        # The counts that one audit in five falls short of: 80 % power is the bound being cleared even there.
        observed_high = np.clip(high - _Z_POWER * error_high * pull / size, 0.0, 1.0)
        # One count more, because a count near 0 is skewed.
        observed_low = np.clip(low + _Z_POWER * error_low * error_low / size + 1.0 / n_low, 0.0, 1.0)
        n = np.concatenate([n_high, n_low])
        cleared = self._clears(np.concatenate([observed_high, observed_low]) * n, n, bound, alpha)
        return bool(np.diagonal(cleared, offset=6).all())


def _first_size(holds: Callable[[float], bool]) -> float:
    """The smallest size, to 1 %, from which ``holds`` was found to hold; infinite beyond 1e12."""
    low, high = 0.0, 1.0
    while not holds(high):
        low, high = high, 2.0 * high
        if high > 1e12:
            return math.inf
    while low < 0.99 * high and high > 1e-6:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _spread(n: FloatArray) -> FloatArray:
    """(n_groups, n_groups) ``sqrt(1/n_i + 1/n_j)``."""
    return np.sqrt(1.0 / n[:, None] + 1.0 / n[None, :])


class WorstDifference(_PlannedOnBounds):
    """Largest difference of a rate between any two groups, over one or several rates.

    ``max over tables, i, j of p_i - p_j``, in [0, 1], ideal 0: ``demographic_parity_difference`` with one table,
    ``equalized_odds_difference`` with the true and the false positive rate.

    A maximum of noisy differences is biased away from 0, so it is judged from exact bounds of its parts. Lower: the
    largest lower bound, each at alpha / n_pairs (union bound). Upper: the largest upper bound, each at alpha: to miss,
    the pair that truly is the worst must miss, and that is one pair. A group where a rate is undefined (0/0) makes the
    value NaN and the upper bound 1, since nothing is known there; the lower bound still holds, because a maximum over
    all groups is no smaller than one over some.
    """

    kind: Literal["worst_difference"] = "worst_difference"

    @property
    def value(self) -> float:
        if not self.complete:
            return math.nan
        rates = [np.divide(*table.arrays()) for table in self.tables]
        return max(float(r.max() - r.min()) for r in rates)

    def bounds(self, alpha: float) -> tuple[float, float]:
        low, high = 0.0, 0.0 if self.complete else 1.0
        for table in self.tables:
            k, n = table.arrays()
            if k.size < 2:
                continue
            low = max(low, float(difference_bounds(k, n, alpha / self.comparisons)[0].max()))
            upper = difference_bounds(k, n, alpha)[1]
            np.fill_diagonal(upper, 0.0)
            high = max(high, float(upper.max()))
        return low, min(high, 1.0)

    def _within(self, ideal: float, bound: float) -> bool:
        return ideal < bound < 1.0

    def _risk(self, p: float, n: FloatArray, bound: float, alpha: float) -> float:
        slack = bound - difference_bounds(p * n, n, alpha)[1]
        # Counts are skewed: what misses the bound lies between the rate and it, where the variance is another.
        q = p + math.copysign(min(0.25 * bound, abs(0.5 - p)), 0.5 - p)
        return float(ndtr(-slack / (math.sqrt(q * (1.0 - q)) * _spread(n))).sum(where=~np.eye(n.size, dtype=bool)))

    def _pairs(self, p: float, effect: float) -> tuple[FloatArray, FloatArray]:
        low = np.clip([p, p - 0.5 * effect, p - effect], 0.0, 1.0 - effect)
        return low + effect, low

    def _clears(self, k: FloatArray, n: FloatArray, bound: float, alpha: float) -> npt.NDArray[np.bool_]:
        return difference_bounds(k, n, alpha)[0] > bound

    def _pull(self, high: FloatArray, low: FloatArray) -> FloatArray:
        return np.ones_like(high)


class WorstRatio(_PlannedOnBounds):
    """Smallest ratio of a rate between any two groups, ``min over i, j of p_i / p_j``, in [0, 1], ideal 1.

    ``demographic_parity_ratio`` with one table. Bounds mirror :class:`WorstDifference`. All rates 0 is 0/0: NaN.
    """

    kind: Literal["worst_ratio"] = "worst_ratio"

    @property
    def value(self) -> float:
        if not self.complete:
            return math.nan
        rates = [np.divide(*table.arrays()) for table in self.tables]
        if any(r.max() == 0.0 for r in rates):
            return math.nan
        return min(float(r.min() / r.max()) for r in rates)

    def bounds(self, alpha: float) -> tuple[float, float]:
        low, high = 1.0 if self.complete else 0.0, 1.0
        for table in self.tables:
            k, n = table.arrays()
            if k.size < 2:
                continue
            high = min(high, float(ratio_bounds(k, n, alpha / self.comparisons)[1].min()))
            lower = ratio_bounds(k, n, alpha)[0]
            np.fill_diagonal(lower, 1.0)
            low = min(low, float(lower.min()))
        return max(low, 0.0), high

    def _within(self, ideal: float, bound: float) -> bool:
        return 0.0 < bound < ideal

    def _risk(self, p: float, n: FloatArray, bound: float, alpha: float) -> float:
        with np.errstate(divide="ignore"):
            slack = np.log(ratio_bounds(p * n, n, alpha)[0]) - math.log(bound)
        q = p * (1.0 - 0.25 * (1.0 - bound))
        return float(ndtr(-slack / (math.sqrt((1.0 - q) / q) * _spread(n))).sum(where=~np.eye(n.size, dtype=bool)))

    def _pairs(self, p: float, effect: float) -> tuple[FloatArray, FloatArray]:
        widest = p / effect if effect > p else 1.0
        high = np.array([p, 0.5 * (p + widest), widest])
        return high, effect * high

    def _clears(self, k: FloatArray, n: FloatArray, bound: float, alpha: float) -> npt.NDArray[np.bool_]:
        return ratio_bounds(k, n, alpha)[1].T < bound

    def _pull(self, high: FloatArray, low: FloatArray) -> FloatArray:
        return low / high


class StudentT(Estimate):
    """An approximately normal estimate with a standard error: ``centre -+ t(df) * standard_error``, cut at its limits.

    With ``scale="logit"`` the interval is symmetric in ``log(p / (1 - p))`` (delta method), for quantities in (0, 1)
    such as an AUC; ``centre`` stays on the natural scale.
    """

    kind: Literal["student_t"] = "student_t"
    centre: float
    standard_error: Annotated[float, Field(ge=0.0)]
    degrees_of_freedom: Annotated[float, Field(gt=0.0)]
    scale: Literal["identity", "logit"] = "identity"
    lower_limit: float | None = None
    upper_limit: float | None = None

    @property
    def value(self) -> float:
        return self.centre

    def critical_value(self, alpha: float) -> float:
        return -float(stdtrit(self.degrees_of_freedom, alpha))

    def bounds(self, alpha: float) -> tuple[float, float]:
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
        return self.standard_error


class AreaUnderCurve(Estimate):
    """``P(positive > negative) + P(tie) / 2`` of two independent samples, in [0, 1], ideal 0.5 for an attack.

    ``centre``: the Mann-Whitney share; ``standard_error``: DeLong's. Bounds are Student's on the logit scale with
    min(n_positive, n_negative) - 1 degrees of freedom. Within two rows of 0 or 1 that approximation fails: of 20
    against 20 rows with a true value of 0.98, a lower bound at 0.0125 would miss in up to 46 % of samples. There the
    bounds are also at least as wide as Clopper-Pearson's of the smaller sample, as if each of its rows were one trial,
    since the variance is at most ``A (1 - A) / min(n_positive, n_negative)`` (Birnbaum and Klose, Ann. Math. Statist.
    28, 1957).
    """

    kind: Literal["area_under_curve"] = "area_under_curve"
    centre: Annotated[float, Field(ge=0.0, le=1.0)]
    standard_error: Annotated[float, Field(ge=0.0)]
    n_positive: Annotated[int, Field(ge=2)]
    n_negative: Annotated[int, Field(ge=2)]

    @property
    def value(self) -> float:
        return self.centre

    @property
    def _approximation(self) -> StudentT:
        return StudentT(
            centre=self.centre,
            standard_error=self.standard_error,
            degrees_of_freedom=min(self.n_positive, self.n_negative) - 1,
            scale="logit",
            lower_limit=0.0,
            upper_limit=1.0,
        )

    def critical_value(self, alpha: float) -> float:
        return self._approximation.critical_value(alpha)

    def bounds(self, alpha: float) -> tuple[float, float]:
        low, high = self._approximation.bounds(alpha)
        n = min(self.n_positive, self.n_negative)
        if min(self.centre, 1.0 - self.centre) * n >= 2.0:
            return low, high
        exact_low, _ = clopper_pearson(math.floor(self.centre * n), n, alpha)
        _, exact_high = clopper_pearson(math.ceil(self.centre * n), n, alpha)
        return min(low, float(exact_low)), max(high, float(exact_high))

    def standard_error_at(self, ideal: float) -> float:
        return math.sqrt(_hanley_mcneil(ideal, self.n_positive, self.n_negative)) if 0.0 < ideal < 1.0 else math.nan


def _hanley_mcneil(auc: float, m: int, n: int) -> float:
    """Variance of an AUC of exponential scores; ``(m + n + 1) / (12 m n)`` at 0.5, whatever the scores are."""
    q1, q2 = auc / (2.0 - auc), 2.0 * auc**2 / (1.0 + auc)
    return (auc * (1 - auc) + (m - 1) * (q1 - auc**2) + (n - 1) * (q2 - auc**2)) / (m * n)


class Quantile(Estimate):
    """The ``level`` quantile of independent values, with the exact order-statistic bounds of any distribution.

    ``values`` sorted ascending, (n,). The lower bound is the largest order statistic x_(k) with
    P(Bin(n, level) <= k - 1) <= alpha, the upper the smallest x_(k) with P(Bin(n, level) >= k) <= alpha; infinite where
    n is too small for one: a 95 % quantile needs n >= log(alpha) / log(0.95). Source: David and Nagaraja, Order
    Statistics (2003), 7.1.
    """

    kind: Literal["quantile"] = "quantile"
    level: Annotated[float, Field(gt=0.0, lt=1.0)]
    values: tuple[float, ...]

    @property
    def value(self) -> float:
        n = len(self.values)
        return self.values[min(max(math.ceil(self.level * n), 1), n) - 1] if n else math.nan

    def bounds(self, alpha: float) -> tuple[float, float]:
        n = len(self.values)
        if not n:
            return -math.inf, math.inf
        k = np.arange(1, n + 1, dtype=np.float64)
        lower_ok = np.flatnonzero(bdtr(k - 1.0, n, self.level) <= alpha)
        upper_ok = np.flatnonzero(bdtrc(k - 1.0, n, self.level) <= alpha)
        low = self.values[lower_ok[-1]] if lower_ok.size else -math.inf
        high = self.values[upper_ok[0]] if upper_ok.size else math.inf
        return low, high


class TruePositiveRateAt(Estimate):
    """True positive rate of a score at a false positive rate, with the threshold's own uncertainty.

    ``members_above[j]``: how many of ``n_positive`` score above the (j+1)-th largest of ``n_negative`` negatives, for
    as many j as the bounds may need. The threshold is an estimated quantile of the negatives, so alpha is split in
    two: half lets the threshold range over the order statistics that may hold the true quantile, half is the
    Clopper-Pearson bound of the rate there. In [0, 1]; ideal: the false positive rate itself.
    """

    kind: Literal["true_positive_rate_at"] = "true_positive_rate_at"
    false_positive_rate: Annotated[float, Field(gt=0.0, lt=1.0)]
    members_above: tuple[Annotated[int, Field(ge=0)], ...]
    n_positive: Annotated[int, Field(ge=0)]
    n_negative: Annotated[int, Field(ge=0)]

    def _above(self, rank: int) -> int:
        return self.members_above[rank] if rank < len(self.members_above) else self.n_positive

    @property
    def value(self) -> float:
        if not self.n_positive or self.n_negative * self.false_positive_rate < 1.0:
            return math.nan
        return self._above(math.floor(self.n_negative * self.false_positive_rate + 1e-9)) / self.n_positive

    def bounds(self, alpha: float) -> tuple[float, float]:
        if not self.n_positive or not self.n_negative:
            return 0.0, 1.0
        n, f = self.n_negative, self.false_positive_rate
        # No bound reaches beyond the counts that are kept; there a rank gives n_positive, as _above does.
        j = np.arange(0, min(n, len(self.members_above)) + 1, dtype=np.float64)
        # N ~ Bin(n, f) negatives lie above the true threshold; the (j+1)-th largest is below it unless N > j, and
        # above it unless N <= j.
        below = np.flatnonzero(bdtrc(j, n, f) <= alpha / 2.0)
        above = np.flatnonzero(bdtr(j, n, f) <= alpha / 2.0)
        above_high = self._above(int(above[-1])) if above.size else 0
        above_low = self._above(int(below[0])) if below.size else self.n_positive
        low, _ = clopper_pearson(above_high, self.n_positive, alpha / 2.0)
        _, high = clopper_pearson(above_low, self.n_positive, alpha / 2.0)
        return float(low), float(high)

    def standard_error_at(self, ideal: float) -> float:
        if not self.n_positive or not self.n_negative:
            return math.nan
        p = self.false_positive_rate
        return math.sqrt(p * (1.0 - p) * (1.0 / self.n_positive + 1.0 / self.n_negative))


# ---- sums, means and distances of several parts --------------------------------------------------------------------


def orthant_radius(alpha: float, parts: int) -> float:
    """Radius ``t`` with ``P(sum of max(Z_m, 0)^2 > t^2) = alpha`` over ``parts`` independent standard normals.

    The chi-bar-square tail ``sum_k C(parts, k) 2^-parts P(chi2_k > t^2)``; :func:`corner_radius` is the case of two.
    """
    k = np.arange(1, parts + 1, dtype=np.float64)
    weights = np.asarray([math.comb(parts, int(i)) * 0.5**parts for i in k])
    low, high = 0.0, 40.0 + 2.0 * math.sqrt(parts)
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if float(weights @ chdtrc(k, middle * middle)) > alpha else (low, middle)
    return high


def _shares(radius: float, parts: int) -> tuple[FloatArray, int]:
    """Tail probabilities (n_shares,) when a part takes q of ``n_shares - 1`` equal shares of the squared radius.

    Returned with the shares that may be given out in all. Shares rounded up cover every real division of the squared
    radius once ``parts - 1`` more are given out, so a maximum over whole shares is never an understatement.
    """
    steps = 64 + 8 * parts
    return ndtr(-radius * np.sqrt(np.arange(steps + 1) / steps)), steps + parts - 1


def _divided(curves: FloatArray, total: int) -> FloatArray:
    """(..., total + 1) largest ``sum_m curves[m, ..., q_m]`` over whole shares that add up to at most each q.

    curves: (parts, ..., n_shares), each rising along the last axis; a part takes no more than n_shares - 1.
    """
    q = np.arange(total + 1)
    left = q[:, None] - q[None, : curves.shape[-1]]
    best: FloatArray = curves[0][..., np.minimum(q, curves.shape[-1] - 1)]
    for curve in curves[1:]:
        best = np.where(left >= 0, best[..., np.maximum(left, 0)] + curve[..., None, :], -np.inf).max(axis=-1)
    return best


def sum_bounds(weights: npt.ArrayLike, successes: npt.ArrayLike, n: npt.ArrayLike, alpha: float) -> tuple[float, float]:
    """One-sided exact bounds of ``sum_m w_m p_m`` over independent proportions, all arguments (parts,).

    The extremes over the joint region ``{sum of max(z_m, 0)^2 <= t^2}`` of :func:`rate_limits`, in as many dimensions
    as there are parts, with ``t`` from :func:`orthant_radius`.
    """
    w, k, m = (np.asarray(x, np.float64) for x in (weights, successes, n))
    tails, total = _shares(orthant_radius(alpha, w.size), w.size)
    lower, upper = clopper_pearson(k[:, None], m[:, None], tails)
    rising, falling = np.where(w[:, None] > 0, upper, lower), np.where(w[:, None] > 0, lower, upper)
    return -float(_divided(-w[:, None] * falling, total)[-1]), float(_divided(w[:, None] * rising, total)[-1])


class Difference(Estimate):
    """``p_1 - p_2`` of two independent proportions, in [-1, 1], ideal 0.

    ``family``: how many differences the one was picked from; its bounds hold for all of them together (Bonferroni), so
    the picking does no harm.
    """

    kind: Literal["difference"] = "difference"
    successes: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
    n: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
    family: Annotated[int, Field(ge=1)] = 1

    @property
    def value(self) -> float:
        return self.successes[0] / self.n[0] - self.successes[1] / self.n[1] if min(self.n) else math.nan

    def critical_value(self, alpha: float) -> float:
        return corner_radius(alpha)

    @property
    def comparisons(self) -> int:
        return self.family

    def bounds(self, alpha: float) -> tuple[float, float]:
        k, n = np.asarray(self.successes, np.int64), np.asarray(self.n, np.int64)
        low, high = difference_bounds(k, n, alpha / self.family)
        return float(low[0, 1]), float(high[0, 1])

    def standard_error_at(self, ideal: float) -> float:
        if not min(self.n):
            return math.nan
        p = (sum(self.successes) + 0.5) / (sum(self.n) + 1.0)
        return math.sqrt(p * (1.0 - p) * (1.0 / self.n[0] + 1.0 / self.n[1]))


class WeightedSum(Estimate):
    """``sum_m w_m p_m`` of independent proportions with fixed weights, with exact bounds (:func:`sum_bounds`)."""

    kind: Literal["weighted_sum"] = "weighted_sum"
    weights: tuple[float, ...]
    table: RateTable

    @property
    def value(self) -> float:
        if not self.table.complete:
            return math.nan
        return float(np.asarray(self.weights) @ np.divide(*self.table.arrays()))

    def critical_value(self, alpha: float) -> float:
        return orthant_radius(alpha, len(self.weights))

    def bounds(self, alpha: float) -> tuple[float, float]:
        return sum_bounds(self.weights, self.table.successes, self.table.n, alpha)

    def standard_error_at(self, ideal: float) -> float:
        if not self.table.complete:
            return math.nan
        k, n = self.table.arrays()
        p = (k + 0.5) / (n + 1.0)
        return math.sqrt(float(np.square(self.weights) @ (p * (1.0 - p) / n)))


class SmallestRate(Estimate):
    """The smallest rate of any group, ``min_g p_g``, in [0, 1], ideal 1: worst-group accuracy.

    A minimum of noisy rates is biased down. Upper: the smallest upper bound, each at alpha / n_groups (union bound).
    Lower: the smallest lower bound, each at alpha: to miss, the group that truly is the worst must miss.
    """

    kind: Literal["smallest_rate"] = "smallest_rate"
    table: RateTable

    @property
    def value(self) -> float:
        return float(np.divide(*self.table.arrays()).min()) if self.table.complete and self.table.n else math.nan

    @property
    def comparisons(self) -> int:
        return sum(m > 0 for m in self.table.n)

    def bounds(self, alpha: float) -> tuple[float, float]:
        if not self.comparisons:
            return 0.0, 1.0
        k, n = self.table.arrays()
        low = float(clopper_pearson(k, n, alpha)[0].min()) if self.table.complete else 0.0
        return low, float(clopper_pearson(k, n, alpha / self.comparisons)[1].min())

    def standard_error_at(self, ideal: float) -> float:
        p = self.table.pooled()
        return math.sqrt(p * (1.0 - p) / min(m for m in self.table.n if m)) if self.comparisons else math.nan


class RatioToLargest(Estimate):
    """One group's rate over the largest rate of any group, ``p_c / max_g p_g``, in [0, 1], ideal 1: an impact ratio.

    Which group has the largest rate is itself an estimate, so the ratio is read as ``min over g of p_c / p_g``. Upper:
    the smallest upper bound, each at alpha / (n_groups - 1) (union bound). Lower: the smallest lower bound, each at
    alpha: to miss, the ratio to the group that truly is the largest must miss. All rates 0 is 0/0: NaN.
    """

    kind: Literal["ratio_to_largest"] = "ratio_to_largest"
    table: RateTable
    index: Annotated[int, Field(ge=0)]

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
        k, n = self.table.arrays()
        others = np.arange(k.size) != self.index
        low = float(ratio_bounds(k, n, alpha)[0][self.index][others].min())
        high = float(ratio_bounds(k, n, alpha / self.comparisons)[1][self.index][others].min())
        return min(max(low, 0.0), 1.0), min(high, 1.0)

    def standard_error_at(self, ideal: float) -> float:
        n = [m for g, m in enumerate(self.table.n) if g != self.index and m]
        if not n or not self.table.n[self.index]:
            return math.nan
        p = self.table.pooled()
        return math.sqrt((1.0 - p) / p * (1.0 / min(n) + 1.0 / self.table.n[self.index]))


class Odds(Estimate):
    """Ratio of two counts, ``successes / failures``, in [0, inf): treatment equality's FN / FP.

    Given their sum the first count is binomial, so its Clopper-Pearson bounds q give ``q / (1 - q)``. 0/0 is NaN.
    """

    unbounded: ClassVar[bool] = True

    kind: Literal["odds"] = "odds"
    successes: Annotated[int, Field(ge=0)]
    failures: Annotated[int, Field(ge=0)]

    @property
    def value(self) -> float:
        if not self.failures:
            return math.inf if self.successes else math.nan
        return self.successes / self.failures

    def bounds(self, alpha: float) -> tuple[float, float]:
        low, high = clopper_pearson(self.successes, self.successes + self.failures, alpha)
        return float(_odds(low)), float(_odds(high))


def _odds(p: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore"):
        return np.asarray(p / (1.0 - p), np.float64)


class WorstOddsRatio(_WorstOfGroups):
    """Smallest ratio of the odds ``p / (1 - p)`` between any two groups, in [0, 1], ideal 1.

    Bounds as in :class:`WorstRatio`. 0/0 and inf/inf are NaN.
    """

    kind: Literal["worst_odds_ratio"] = "worst_odds_ratio"

    @property
    def value(self) -> float:
        if not self.complete:
            return math.nan
        odds = [_odds(np.divide(*table.arrays())) for table in self.tables]
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


def _odds_ratio_upper(successes: IntArray, n: IntArray, alpha: float) -> FloatArray:
    lower, upper = rate_limits(successes, n, alpha)
    above, below = _odds(upper)[:, :, None], _odds(lower)[::-1][:, None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(below > 0, above / below, np.inf).max(axis=0), np.float64)


class WorstMeanDifference(_WorstOfGroups):
    """Largest difference between any two groups of the mean of several rates taken over different rows.

    ``max over i, j of mean_t p_ti - mean_t p_tj``, in [0, 1], ideal 0: balanced accuracy with the true positive and the
    true negative rate, macro recall with every class's. Each pair's bounds are exact over the joint region of all its
    rates (:func:`sum_bounds`); the maximum is bounded as in :class:`WorstDifference`.
    """

    kind: Literal["worst_mean_difference"] = "worst_mean_difference"

    def _whole(self) -> npt.NDArray[np.bool_]:
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
        whole = self._whole()
        k = np.asarray([t.successes for t in self.tables], np.float64)[:, whole]
        n = np.asarray([t.n for t in self.tables], np.float64)[:, whole]
        tails, total = _shares(orthant_radius(alpha, 2 * len(self.tables)), 2 * len(self.tables))
        lower, upper = clopper_pearson(k[..., None], n[..., None], tails)
        up, down = _divided(upper / len(self.tables), total), _divided(-lower / len(self.tables), total)[:, ::-1]
        return np.asarray([(own + down).max(axis=-1) for own in up], np.float64)

    def bounds(self, alpha: float) -> tuple[float, float]:
        low, high = 0.0, 0.0 if self.complete else 1.0
        if not self.comparisons:
            return low, high
        off = ~np.eye(int(self._whole().sum()), dtype=bool)
        low = max(low, float((-self._upper(alpha / self.comparisons))[off].max()))
        return low, min(max(high, float(self._upper(alpha)[off].max())), 1.0)

    def standard_error_at(self, ideal: float) -> float:
        parts = [math.sqrt(t.pooled() * (1.0 - t.pooled())) * t.hardest_pair() for t in self.tables]
        return math.hypot(*parts) / len(parts) if self.comparisons else math.nan


class DifferentialFairness(_WorstOfGroups):
    """``epsilon = max over outcomes y and groups i, j of |ln P(y | i) / P(y | j)|``, in [0, inf), ideal 0.

    One table per outcome. The value is the smoothed empirical one, ``(N_yg + s) / (N_g + s |Y|)`` for each probability;
    the bounds are of the unsmoothed epsilon of the population, from exact bounds of every ratio, lower end with
    alpha / n_pairs, upper end with alpha; infinite where an outcome was never seen in a group.
    Source: Foulds, Islam, Keya and Pan, ICDE 2020.
    """

    unbounded: ClassVar[bool] = True

    kind: Literal["differential_fairness"] = "differential_fairness"
    smoothing: Annotated[float, Field(gt=0.0)] = 1.0

    @property
    def value(self) -> float:
        if not self.complete:
            return math.nan
        parts = []
        for table in self.tables:
            k, n = table.arrays()
            p = np.log((k + self.smoothing) / (n + self.smoothing * len(self.tables)))
            parts.append(float(p.max() - p.min()))
        return max(parts)

    def bounds(self, alpha: float) -> tuple[float, float]:
        low, high = 0.0, 0.0 if self.complete else math.inf
        for table in self.tables:
            k, n = table.arrays()
            if k.size < 2:
                continue
            lower = float(ratio_bounds(k, n, alpha / self.comparisons)[0].max())
            upper = ratio_bounds(k, n, alpha)[1]
            np.fill_diagonal(upper, 1.0)
            low, high = max(low, math.log(max(lower, 1.0))), max(high, math.log(float(upper.max())))
        return low, high

    def standard_error_at(self, ideal: float) -> float:
        parts = [math.sqrt((1.0 - t.pooled()) / t.pooled()) * t.hardest_pair() for t in self.tables]
        return max(parts) if self.comparisons else math.nan


class BenefitInequality(Estimate):
    """Generalized entropy of the benefits ``b = y_pred - y_true + 1``, in [0, inf), ideal 0; order 1 is Theil's index.

    ``below``, ``equal``, ``above``: rows with b = 0 (false negatives), 1 and 2 (false positives).
    ``GE(a) = (mean((b / mu)^a) - 1) / (a (a - 1))``, ``GE(1) = mean((b / mu) ln(b / mu))``. Bounds: the extremes over
    the Clopper-Pearson box of the two error shares, each side at alpha / 4. Undefined where every benefit is 0.
    Source: Speicher et al., KDD 2018.
    """

    unbounded: ClassVar[bool] = True

    kind: Literal["benefit_inequality"] = "benefit_inequality"
    order: Annotated[float, Field(gt=0.0)]
    below: Annotated[int, Field(ge=0)]
    equal: Annotated[int, Field(ge=0)]
    above: Annotated[int, Field(ge=0)]

    def _entropy(self, below: FloatArray, above: FloatArray) -> FloatArray:
        mean_benefit = 1.0 - below + above
        with np.errstate(divide="ignore", invalid="ignore"):
            one, two = 1.0 / mean_benefit, 2.0 / mean_benefit
            if self.order == 1.0:
                found = (1.0 - below - above) * one * np.log(one) + above * two * np.log(two)
            else:
                found = (1.0 - below - above) * one**self.order + above * two**self.order - 1.0
                found = found / (self.order * (self.order - 1.0))
        return np.where(mean_benefit > 0, np.maximum(found, 0.0), np.nan)

    @property
    def value(self) -> float:
        n = self.below + self.equal + self.above
        return float(self._entropy(np.asarray(self.below / n), np.asarray(self.above / n))) if n else math.nan

    def bounds(self, alpha: float) -> tuple[float, float]:
        n = self.below + self.equal + self.above
        (below_low, above_low), (below_high, above_high) = clopper_pearson([self.below, self.above], n, alpha / 4.0)
        if not n or below_high >= 1.0:
            return 0.0, math.inf
        below, above = np.meshgrid(np.linspace(below_low, below_high, 33), np.linspace(above_low, above_high, 33))
        possible = below + above <= 1.0
        found = self._entropy(below[possible], above[possible])
        return float(found.min()), float(found.max())


class CalibrationError(Estimate):
    """Binned expected calibration error, ``sum_b (n_b / n) |k_b / n_b - s_b|``, in [0, 1], ideal 0.

    ``successes[b]`` of the ``n[b]`` rows of bin b are positive, and ``mean_scores[b]`` is their mean score; what is
    estimated is the same sum with the true rate of each bin, given the rows' scores. The plain sum is biased upward, so
    the bounds are its extremes over the joint region ``{sum_b z_b^2 <= chi2(B)}`` of all bins' exact tails: 0 is below
    the lower bound only where the bins together contradict it. Rows of a bin need not share one probability: the
    binomial tails still hold (Hoeffding, Ann. Math. Statist. 27, 1956). Source: Naeini et al., AAAI 2015.
    """

    kind: Literal["calibration_error"] = "calibration_error"
    successes: tuple[Annotated[int, Field(ge=0)], ...]
    n: tuple[Annotated[int, Field(ge=1)], ...]
    mean_scores: tuple[Annotated[float, Field(ge=0.0, le=1.0)], ...]

    @property
    def value(self) -> float:
        if not self.n:
            return math.nan
        k, n, s = (np.asarray(x, np.float64) for x in (self.successes, self.n, self.mean_scores))
        return float((np.abs(k / n - s) * n).sum() / n.sum())

    def bounds(self, alpha: float) -> tuple[float, float]:
        low, high = self.many_bounds(np.asarray([alpha]))[0]
        return float(low), float(high)

    def many_bounds(self, alphas: FloatArray) -> FloatArray:
        if not self.n:
            return np.tile([0.0, 1.0], (len(alphas), 1))
        k, n, s = (np.asarray(x, np.float64)[:, None] for x in (self.successes, self.n, self.mean_scores))
        squares = chdtri(len(self.n), alphas)
        # One division of the largest squared radius serves all: a smaller one is so many of its shares, rounded up.
        tails, total = _shares(math.sqrt(squares.max()), len(self.n))
        shares = np.ceil(squares / squares.max() * (len(tails) - 1) - 1e-9).astype(np.int64) + total - len(tails) + 1
        lower, upper = clopper_pearson(k, n, tails)
        weight = n / n.sum()
        farthest = weight * np.maximum(upper - s, s - lower)
        nearest = weight * np.maximum(np.maximum(lower - s, s - upper), 0.0)
        low, high = -_divided(-nearest, total)[shares], _divided(farthest, total)[shares]
        return np.stack([np.maximum(low, 0.0), np.minimum(high, 1.0)], axis=1)


Part = Annotated[
    Undefined | Proportion | StudentT | AreaUnderCurve | CalibrationError,
    Field(discriminator="kind"),
]


class WorstGap(Estimate):
    """Largest difference between any two groups of an estimate made of each group's own rows, ideal 0.

    ``max over i, j of theta_i - theta_j``, in [0, ``largest``]. Each part's one-sided bounds turn into a normal
    quantile, and a pair is bounded over the corner region of :func:`rate_limits`, exactly where the parts' bounds are
    exact; the maximum as in :class:`WorstDifference`. An undefined part makes the value NaN.
    """

    kind: Literal["worst_gap"] = "worst_gap"
    parts: Annotated[tuple[Part, ...], Field(min_length=1)]
    largest: Annotated[float, Field(gt=0.0)] | None = 1.0

    def _defined(self) -> list[Part]:
        return [part for part in self.parts if not math.isnan(part.value)]

    @property
    def value(self) -> float:
        values = [part.value for part in self.parts]
        return math.nan if any(map(math.isnan, values)) or len(values) < 2 else max(values) - min(values)

    @property
    def comparisons(self) -> int:
        g = len(self._defined())
        return g * (g - 1)

    def critical_value(self, alpha: float) -> float:
        return corner_radius(alpha)

    def _upper(self, alpha: float) -> FloatArray:
        parts = self._defined()
        tails = ndtr(-corner_radius(alpha) * np.cos(_ANGLES))
        limits = np.stack([part.many_bounds(tails) for part in parts], axis=1)
        gaps = (limits[:, :, None, 1] - limits[::-1, None, :, 0]).max(axis=0)
        return np.asarray(gaps[~np.eye(len(parts), dtype=bool)], np.float64)

    def bounds(self, alpha: float) -> tuple[float, float]:
        most = math.inf if self.largest is None else self.largest
        if not self.comparisons:
            return 0.0, most
        low = max(0.0, -float(self._upper(alpha / self.comparisons).min()))
        high = float(self._upper(alpha).max()) if len(self._defined()) == len(self.parts) else most
        return low, min(high, most)

    def standard_error_at(self, ideal: float) -> float:
        parts = self._defined()
        if len(parts) < 2:
            return math.nan
        common = sum(part.value for part in parts) / len(parts)
        return math.hypot(*sorted((part.standard_error_at(common) for part in parts), reverse=True)[:2])


class WorstDistance(Estimate):
    """Largest distance between the distributions of any two groups on [0, 1], in [0, 1], ideal 0.

    ``distances``: of every pair i < j in order, Kolmogorov-Smirnov or Wasserstein-1, of samples of ``n[g]``. Both are
    metrics, and neither is moved by more than the band ``sqrt(ln(2 / a) / 2n)`` that holds a sample's distribution with
    probability 1 - a, so a pair's bounds are its distance -+ both bands at alpha / 2 each; the maximum is bounded as in
    :class:`WorstDifference`. Sources: Dvoretzky, Kiefer and Wolfowitz (1956); Massart, Ann. Probab. 18 (1990).
    """

    kind: Literal["worst_distance"] = "worst_distance"
    distances: Annotated[tuple[Annotated[float, Field(ge=0.0, le=1.0)], ...], Field(min_length=1)]
    n: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=2)]

    @property
    def value(self) -> float:
        return max(self.distances)

    @property
    def comparisons(self) -> int:
        return len(self.distances)

    def _reach(self, alpha: float) -> FloatArray:
        i, j = np.triu_indices(len(self.n), 1)
        band = np.sqrt(math.log(4.0 / alpha) / (2.0 * np.asarray(self.n, np.float64)))
        return np.asarray(band[i] + band[j], np.float64)

    def bounds(self, alpha: float) -> tuple[float, float]:
        d = np.asarray(self.distances)
        low = float((d - self._reach(alpha / self.comparisons)).max())
        return max(low, 0.0), min(float((d + self._reach(alpha)).max()), 1.0)


class ConfirmedCount(Estimate):
    """How many of a fixed number of hypotheses are confirmed: Holm's rejections among ``p_values`` at 5 %.

    The lower bound at alpha is Holm's count at alpha: with probability 1 - alpha, at least so many hypotheses are
    true effects. There is no upper bound: what was not confirmed may still be there, so a bound of 0 is never PASSed.
    """

    kind: Literal["confirmed_count"] = "confirmed_count"
    p_values: tuple[Annotated[float, Field(ge=0.0, le=1.0)], ...]

    @property
    def value(self) -> float:
        return float(self.confirmed(0.05).sum())

    def confirmed(self, alpha: float) -> npt.NDArray[np.bool_]:
        """(k,) which hypotheses Holm's procedure rejects at ``alpha``."""
        levels = adjusted_levels(self.p_values, alpha, "holm")
        return np.asarray([p <= level for p, level in zip(self.p_values, levels, strict=True)], bool)

    def bounds(self, alpha: float) -> tuple[float, float]:
        return float(self.confirmed(alpha).sum()), math.inf


class PairedDifference(BaseModel):
    """Mean difference between two conditions measured on the same ``n`` independent clusters, in [-1, 1].

    ``first``, ``second``: their names; ``centre``: mean of first minus second; ``standard_error``: sd / sqrt(n);
    ``third_moment``: mean cubed deviation of a cluster's difference from their mean.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    first: str
    second: str
    centre: Annotated[float, Field(ge=-1.0, le=1.0)]
    standard_error: Annotated[float, Field(ge=0.0)]
    third_moment: float
    n: Annotated[int, Field(ge=2)]


def paired_difference(first: str, second: str, differences: npt.ArrayLike) -> PairedDifference:
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
    ends, each at alpha.
    """

    kind: Literal["worst_paired_difference"] = "worst_paired_difference"
    pairs: Annotated[tuple[PairedDifference, ...], Field(min_length=1)]

    @property
    def value(self) -> float:
        return max(abs(pair.centre) for pair in self.pairs)

    @property
    def comparisons(self) -> int:
        return 2 * len(self.pairs)

    def bounds(self, alpha: float) -> tuple[float, float]:
        signs = np.asarray([-1.0 if pair.centre < 0.0 else 1.0 for pair in self.pairs])
        centre = signs * np.asarray([pair.centre for pair in self.pairs])
        third = signs * np.asarray([pair.third_moment for pair in self.pairs])
        error = np.asarray([pair.standard_error for pair in self.pairs])
        n = np.asarray([pair.n for pair in self.pairs], np.float64)
        down = centre - bounded_mean_reach(error, -third, n, 1.0 + centre, alpha / self.comparisons)
        up = centre + bounded_mean_reach(error, third, n, 1.0 - centre, alpha)
        # The smaller of the two may truly be the larger, and then lead by more than it was seen to be behind.
        other = -centre + bounded_mean_reach(error, -third, n, 1.0 + centre, alpha)
        return max(float(down.max()), 0.0), min(float(np.maximum(up, other).max()), 1.0)

    def _hardest(self) -> PairedDifference:
        return max(self.pairs, key=lambda pair: math.hypot(pair.standard_error, 1.0 / pair.n))

    def standard_error_at(self, ideal: float) -> float:
        pair = self._hardest()
        return math.hypot(pair.standard_error, 1.0 / pair.n)

    def critical_value(self, alpha: float) -> float:
        pair = self._hardest()
        reach = bounded_mean_reach(pair.standard_error, abs(pair.third_moment), pair.n, 1.0, alpha)
        return float(reach) / self.standard_error_at(0.0)


def bounded_mean_reach(
    standard_error: npt.ArrayLike, third_moment: npt.ArrayLike, n: npt.ArrayLike, room: npt.ArrayLike, alpha: float
) -> FloatArray:
    """How far a one-sided bound of the mean of ``n`` independent bounded values lies from the sample mean.

    ``room``: from the sample mean to the limit on that side; ``third_moment``: about the mean, positive where the long
    tail is on that side. The bound is the 1 - alpha quantile of the values and their limit averaged with random
    Dirichlet weights, by a gamma distribution with its mean ``e = room / n``, variance ``s^2 + e^2`` and third cumulant
    ``2 max(m3, 0) / n^2 + 2 e^3``, where ``s`` is the standard error stretched from the normal to Student's quantile.
    So it allows for a value that was not seen and lies at the limit: without any spread it is ``room ln(1/alpha) / n``,
    Clopper and Pearson's bound but for terms in 1 / n^2, where Student's claims certainty. Enumerated for values of 0
    and 1 it is missed at most as often as promised, from n = 10 to 2,000 and alpha = 0.05 to 1e-6; Student's 9 times at
    n = 80 and 0.05, 1,800 times at 2.5e-4. Arguments broadcast; alpha below 0.5, at which it is a little wide; infinite
    below n = 2. Sources: Gaffke, Math. Methods Statist. 14 (2005); Learned-Miller and Thomas, arXiv:1905.06208 (2019).
    """
    error, third, m, r = np.broadcast_arrays(
        *(np.asarray(x, np.float64) for x in (standard_error, third_moment, n, room))
    )
    z, size = float(-ndtri(alpha)), np.maximum(m, 2.0)
    # At alpha = 0.5 both quantiles are 0, and Student's excess over the normal has the limit 1.
    stretch = -stdtrit(size - 1.0, alpha) / z if z > 1e-6 else np.ones_like(m)
    e = np.maximum(r / size, 1e-12)
    second = (stretch * error) ** 2 + e**2
    cubed = 2.0 * stretch**3 * np.maximum(third, 0.0) / size**2 + 2.0 * e**3
    shape, scale = 4.0 * second**3 / cubed**2, 0.5 * cubed / second
    # Beyond this shape a gamma is normal to more digits than its quantile is computed to.
    deviation = np.where(
        shape < 1e10, scale * (gammainccinv(np.minimum(shape, 1e10), alpha) - shape), z * np.sqrt(second)
    )
    return np.where(m >= 2, np.maximum(e + deviation, 0.0), np.inf)


class BracketedMean(Estimate):
    """A quantity in [0, 1], ideal 0, that lies between the expectations of two means over the same clusters.

    For distances of distributions, whose plain estimate is biased upward: ``below`` is the mean of a held-out estimate,
    whose expectation is at most the distance, ``above`` that of the plain one, whose expectation is at least the
    distance. So ``value`` is ``below`` cut at 0; the lower bound is that of the first mean, the upper bound that of the
    second, each by :func:`bounded_mean_reach`. ``chance``: what the plain estimate comes to at this size where the
    distance is 0, for planning alone.
    """

    kind: Literal["bracketed_mean"] = "bracketed_mean"
    below: PairedDifference
    above: PairedDifference
    chance: Annotated[float, Field(ge=0.0)] = 0.0

    @property
    def value(self) -> float:
        return max(self.below.centre, 0.0)

    def bounds(self, alpha: float) -> tuple[float, float]:
        down, up = self.below, self.above
        low = bounded_mean_reach(down.standard_error, -down.third_moment, down.n, 1.0 + down.centre, alpha)
        high = bounded_mean_reach(up.standard_error, up.third_moment, up.n, 1.0 - up.centre, alpha)
        return max(down.centre - float(low), 0.0), min(max(up.centre + float(high), self.value), 1.0)

    def standard_error_at(self, ideal: float) -> float:
        return math.hypot(self.below.standard_error, 1.0 / self.below.n)

    def critical_value(self, alpha: float) -> float:
        part = self.below
        reach = bounded_mean_reach(part.standard_error, abs(part.third_moment), part.n, 1.0, alpha)
        return float(reach) / self.standard_error_at(0.0)

    def growth(self, bound: float, alpha: float, *, ideal: float, miss: float) -> float:
        """Chance level and standard error both fall with the root of the size: more clusters, and more in each."""
        reach = self.critical_value(alpha) + float(-ndtri(miss))
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
    """

    kind: Literal["standardized_difference"] = "standardized_difference"
    centre: float
    n_first: Annotated[int, Field(ge=2)]
    n_second: Annotated[int, Field(ge=2)]

    @property
    def value(self) -> float:
        return self.centre

    @property
    def _limit(self) -> float:
        total = self.n_first + self.n_second
        return total / math.sqrt(self.n_first * self.n_second)

    def bounds(self, alpha: float) -> tuple[float, float]:
        total = self.n_first + self.n_second
        harmonic = self.n_first * self.n_second / total
        within = (total - 1.0) - harmonic * self.centre**2
        if within <= 1e-9:
            return -self._limit, self._limit
        t = self.centre * math.sqrt((total - 2.0) * harmonic / within)
        low = self._pooled(-_noncentrality_above(-t, total - 2.0, alpha) / math.sqrt(harmonic))
        high = self._pooled(_noncentrality_above(t, total - 2.0, alpha) / math.sqrt(harmonic))
        return min(low, self.centre), max(high, self.centre)

    def _pooled(self, delta: float) -> float:
        return delta / math.sqrt(1.0 + (delta / self._limit) ** 2)

    def standard_error_at(self, ideal: float) -> float:
        return math.sqrt(1.0 / self.n_first + 1.0 / self.n_second)


def _noncentrality_above(t: float, df: float, alpha: float) -> float:
    """Upper bound of the noncentrality of an observed Student's t: where ``P(T <= t) = alpha``, by bisection."""
    low, high = t - 10.0 - abs(t), t + 10.0 + abs(t)
    while nctdtr(df, high, t) > alpha:
        high += high - low
    while nctdtr(df, low, t) <= alpha:
        low -= high - low
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if nctdtr(df, middle, t) > alpha else (low, middle)
    return high


AnyEstimate = Annotated[
    Undefined
    | Exact
    | Proportion
    | WorstDifference
    | WorstRatio
    | StudentT
    | AreaUnderCurve
    | Quantile
    | TruePositiveRateAt
    | Difference
    | WeightedSum
    | SmallestRate
    | RatioToLargest
    | Odds
    | WorstOddsRatio
    | WorstMeanDifference
    | DifferentialFairness
    | BenefitInequality
    | CalibrationError
    | WorstGap
    | WorstDistance
    | ConfirmedCount
    | WorstPairedDifference
    | BracketedMean
    | StandardizedDifference,
    Field(discriminator="kind"),
]


# ---- estimates from samples ----------------------------------------------------------------------------------------


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


def ratio_of_means(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> StudentT | Undefined:
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


def quantile(values: npt.ArrayLike, level: float) -> Quantile:
    """The ``level`` quantile of independent values, (n,)."""
    return Quantile(level=level, values=tuple(np.sort(np.asarray(values, np.float64)).tolist()))


def area_under_curve(positives: npt.ArrayLike, negatives: npt.ArrayLike) -> AreaUnderCurve | Undefined:
    """``P(positive > negative) + P(tie) / 2`` of scores, positives (m,) and negatives (n,), with its uncertainty.

    The variance is DeLong's, never below Hanley and McNeil's at the estimate shrunk by half a pair, so a separation of
    few rows is not certain. Undefined below two rows on either side.
    Sources: DeLong et al., Biometrics 44 (1988); Hanley and McNeil, Radiology 143 (1982).
    """
    x, y = np.asarray(positives, np.float64), np.asarray(negatives, np.float64)
    m, n = x.size, y.size
    if min(m, n) < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return Undefined(reason="an AUC needs at least two finite scores on either side")
    xs, ys = np.sort(x), np.sort(y)
    over = (np.searchsorted(ys, x, "left") + np.searchsorted(ys, x, "right")) / (2.0 * n)
    under = 1.0 - (np.searchsorted(xs, y, "left") + np.searchsorted(xs, y, "right")) / (2.0 * m)
    auc = float(over.mean())
    delong = float(over.var(ddof=1) / m + under.var(ddof=1) / n)
    shrunk = (auc * m * n + 0.5) / (m * n + 1.0)
    return AreaUnderCurve(
        centre=auc,
        standard_error=math.sqrt(max(delong, _hanley_mcneil(shrunk, m, n))),
        n_positive=m,
        n_negative=n,
    )


def true_positive_rate_at(
    positives: npt.ArrayLike, negatives: npt.ArrayLike, false_positive_rate: float
) -> TruePositiveRateAt:
    """True positive rate of scores, positives (m,) and negatives (n,), at ``false_positive_rate``.

    Keeps the counts at the largest ``n f + 12 sqrt(n f) + 100`` negatives, beyond which no bound down to 1e-16 reaches.
    """
    x = np.sort(np.asarray(positives, np.float64))
    y = np.sort(np.asarray(negatives, np.float64))[::-1]
    expected = y.size * false_positive_rate
    kept = y[: min(y.size, int(expected + 12.0 * math.sqrt(expected)) + 100)]
    above = x.size - np.searchsorted(x, kept, "right")
    return TruePositiveRateAt(
        false_positive_rate=false_positive_rate,
        members_above=tuple(int(k) for k in above),
        n_positive=x.size,
        n_negative=y.size,
    )


# ---- permutation ---------------------------------------------------------------------------------------------------


def draws_needed(alpha: float) -> int:
    """Fewest random draws that may support a tail at ``alpha``: ``100 / alpha``."""
    return math.ceil(100.0 / alpha)


def permutation_p_value(
    statistic: Callable[[IntArray], float],
    labels: npt.ArrayLike,
    *,
    n_draws: int,
    alpha: float,
    rng: np.random.Generator,
) -> float:
    """``(1 + #{draws with statistic >= observed}) / (1 + n_draws)`` over random permutations of ``labels``, (n,).

    Valid at every sample size where the labels are exchangeable under the null. Raises ValueError where ``n_draws`` is
    too few for a tail at ``alpha``. Source: Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010).
    """
    if n_draws < draws_needed(alpha):
        raise ValueError(f"a tail at {alpha:g} needs at least {draws_needed(alpha)} draws, not {n_draws}")
    x = np.asarray(labels, np.int64)
    observed = statistic(x)
    exceed = sum(statistic(rng.permutation(x)) >= observed - 1e-12 for _ in range(n_draws))
    return (1 + exceed) / (1 + n_draws)


# ---- families of findings ------------------------------------------------------------------------------------------


def adjusted_levels(p_values: Sequence[float], error_rate: float, method: Multiplicity) -> list[float]:
    """Level at which each hypothesis is decided: it is rejected where its p-value is at most its level.

    ``bonferroni``: error_rate / m. ``holm``: error_rate / (m - i) at step i of the step-down, and the level of the
    first step that fails for it and all after it. ``bh``: i * error_rate / m up to the last i that holds.
    ``none``: error_rate. Sources: Holm, Scand. J. Statist. 6 (1979); Benjamini and Hochberg, JRSS B 57 (1995).
    """
    m = len(p_values)
    if method == "none":
        return [error_rate] * m
    if method == "bonferroni":
        return [error_rate / max(m, 1)] * m
    order = sorted(range(m), key=lambda i: p_values[i])
    levels = [0.0] * m
    if method == "bh":
        passing = [i for i in range(m) if p_values[order[i]] <= (i + 1) * error_rate / m]
        cut = (passing[-1] + 1 if passing else 1) * error_rate / m
        return [cut] * m
    level = error_rate / max(m, 1)
    stopped = False
    for step, index in enumerate(order):
        if not stopped:
            level = error_rate / (m - step)
            stopped = p_values[index] > level
        levels[index] = level
    return levels


# ---- planning ------------------------------------------------------------------------------------------------------


def minimum_detectable_effect(estimate: Estimate, bound: float, alpha: float, *, ideal: float, sign: int) -> float:
    """Smallest value beyond ``bound`` that would be shown to be beyond it with 80 % power at the present n.

    ``sign`` is +1 for an upper bound. Planned from the ideal value and the group sizes, never from the observed effect,
    so a noisy estimate cannot excuse itself. NaN where unknown, infinite where no value would be seen.
    """
    return estimate.detectable(bound, alpha, ideal=ideal, sign=sign)


def n_required(estimate: Estimate, bound: float, alpha: float, *, ideal: float, n: int, sides: int = 1) -> int | None:
    """Sample size at which an ideal model would be shown to lie within ``bound`` with 80 % power, same group shares.

    ``sides``: 2 where it must be shown on both sides of the ideal. None where that is unknown, out of reach, or the
    bound is the ideal itself.
    """
    if bound == ideal:
        return None
    times = estimate.growth(bound, alpha, ideal=ideal, miss=(1.0 - POWER) / sides)
    return math.ceil(n * times - 1e-6) if math.isfinite(times) else None
