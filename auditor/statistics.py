"""Estimates that know their uncertainty at every level, and the exact arithmetic behind them.

A probe measures before anybody knows how many findings a scan will have, so it cannot print an interval: it returns an
:class:`Estimate`, which keeps the sufficient statistics and answers ``bounds(alpha)`` later, at the level that the
whole family of findings allows. Everything else (``interval``, ``p_value``) inverts ``bounds``, so an interval and a
judgement made from the same estimate cannot disagree.

Proportions and their differences and ratios are bounded by **exact** methods. The score intervals of Wilson and
Newcombe are the usual choice at 95 %, and are here for display; at the levels a family of findings needs they are not
safe. Enumerated over all outcomes, Newcombe's one-sided bound at alpha = 0.001 with groups of 5 and 200 misses the
truth 23 times as often as promised, and with 100 and 1,000 five times (``tests/test_statistics.py`` shows it).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import bdtr, bdtrc, betaincinv, ndtr, ndtri, stdtrit

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Side = Literal["greater", "less"]
Multiplicity = Literal["bonferroni", "holm", "bh", "none"]

POWER = 0.80
_SMALLEST_P = 1e-16
_ANGLES = np.linspace(0.0, np.pi / 2, 25)


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


def rate_limits(successes: IntArray, n: IntArray, alpha: float) -> tuple[FloatArray, FloatArray]:
    """Clopper-Pearson limits along the boundary of the exact joint region of two independent proportions.

    Returns ``lower`` and ``upper``, each (n_angles, n_groups). For groups i and j the region
    ``{max(z_i, 0)^2 + max(z_j, 0)^2 <= t^2}``, with ``z`` the normal quantile of each exact binomial tail and ``t``
    from :func:`corner_radius`, holds the true pair with probability at least 1 - alpha whatever the rates and sizes,
    because each tail probability is stochastically no smaller than uniform. So any function that rises in p_i and
    falls in p_j is at most its largest value over ``(upper[a, i], lower[-1 - a, j])``. The grid's 25 angles understate
    a smooth maximum by less than 0.06 % of the interval's half width.
    """
    tails = ndtr(-corner_radius(alpha) * np.cos(_ANGLES))
    return clopper_pearson(successes[None, :], n[None, :], tails[:, None])


def difference_bounds(successes: IntArray, n: IntArray, alpha: float) -> tuple[FloatArray, FloatArray]:
    """One-sided exact bounds (n_groups, n_groups) of ``p_i - p_j`` for every ordered pair, each at level ``alpha``."""
    lower, upper = rate_limits(successes, n, alpha)
    high = (upper[:, :, None] - lower[::-1][:, None, :]).max(axis=0)
    return -high.T, high


def ratio_bounds(successes: IntArray, n: IntArray, alpha: float) -> tuple[FloatArray, FloatArray]:
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

    @property
    def value(self) -> float:
        """The point estimate; NaN where it is undefined."""
        raise NotImplementedError

    def bounds(self, alpha: float) -> tuple[float, float]:
        """Lower and upper one-sided bound, each missed with probability at most ``alpha``."""
        raise NotImplementedError

    def interval(self, confidence: float) -> tuple[float, float]:
        """Two-sided interval made of the one-sided bounds at ``(1 - confidence) / 2`` each."""
        if not 0.0 <= confidence < 1.0:
            raise ValueError(f"confidence must lie in [0, 1), not {confidence}")
        return self.bounds((1.0 - confidence) / 2.0)

    def p_value(self, bound: float, side: Side) -> float:
        """Smallest alpha at which the one-sided bound shows the value to be ``side`` than ``bound``.

        Inverts :meth:`bounds` by bisection in log alpha to a relative 1e-6. Range [1e-16, 1]; anything above 0.5 is
        given as 1, because no judgement reads it.
        """

        def excluded(alpha: float) -> bool:
            low, high = self.bounds(alpha)
            return low > bound if side == "greater" else high < bound

        if math.isnan(self.value) and not excluded(0.5):
            return 1.0
        if not excluded(0.5):
            return 1.0
        if excluded(_SMALLEST_P):
            return _SMALLEST_P
        low, high = math.log(_SMALLEST_P), math.log(0.5)
        while high - low > 1e-6:
            middle = 0.5 * (low + high)
            low, high = (low, middle) if excluded(math.exp(middle)) else (middle, high)
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


class Undefined(Estimate):
    """A number that does not exist for these data: 0/0, an empty group. It is never shown as a number."""

    kind: Literal["undefined"] = "undefined"
    reason: str

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

    def standard_error_at(self, ideal: float) -> float:
        p = ideal if 0.0 < ideal < 1.0 else (self.successes + 0.5) / (self.n + 1.0)
        return math.sqrt(p * (1.0 - p) / self.n) if self.n else math.nan


class RateTable(BaseModel):
    """One rate in every group: ``successes[g]`` of ``n[g]`` rows; ``rate`` is its name, such as ``selection_rate``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: str
    successes: tuple[Annotated[int, Field(ge=0)], ...]
    n: tuple[Annotated[int, Field(ge=0)], ...]

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
        """Whether every rate of every group is defined."""
        return all(table.complete for table in self.tables)


class WorstDifference(_WorstOfGroups):
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
        if not self.comparisons:
            return low, high
        for table in self.tables:
            k, n = table.arrays()
            if k.size < 2:
                continue
            low = max(low, float(difference_bounds(k, n, alpha / self.comparisons)[0].max()))
            upper = difference_bounds(k, n, alpha)[1]
            np.fill_diagonal(upper, 0.0)
            high = max(high, float(upper.max()))
        return low, min(high, 1.0)

    def standard_error_at(self, ideal: float) -> float:
        parts = [math.sqrt(t.pooled() * (1.0 - t.pooled())) * t.hardest_pair() for t in self.tables]
        return max(parts) if self.comparisons else math.nan


class WorstRatio(_WorstOfGroups):
    """Smallest ratio of a rate between any two groups, ``min over i, j of p_i / p_j``, in [0, 1], ideal 1.

    ``demographic_parity_ratio`` with one table. Bounds mirror :class:`WorstDifference`. All rates 0 is 0/0: NaN.
    """

    kind: Literal["worst_ratio"] = "worst_ratio"

    @property
    def value(self) -> float:
        if not self.complete:
            return math.nan
        rates = [np.divide(*table.arrays()) for table in self.tables]
        return min(float(r.min() / r.max()) if r.max() > 0 else math.nan for r in rates)

    def bounds(self, alpha: float) -> tuple[float, float]:
        low, high = 1.0 if self.complete else 0.0, 1.0
        if not self.comparisons:
            return low, high
        for table in self.tables:
            k, n = table.arrays()
            if k.size < 2:
                continue
            high = min(high, float(ratio_bounds(k, n, alpha / self.comparisons)[1].min()))
            lower = ratio_bounds(k, n, alpha)[0]
            np.fill_diagonal(lower, 1.0)
            low = min(low, float(lower.min()))
        return max(low, 0.0), high

    def standard_error_at(self, ideal: float) -> float:
        parts = [math.sqrt((1.0 - t.pooled()) / t.pooled()) * t.hardest_pair() for t in self.tables]
        return max(parts) if self.comparisons else math.nan


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


AnyEstimate = Annotated[
    Undefined
    | Exact
    | Proportion
    | WorstDifference
    | WorstRatio
    | StudentT
    | AreaUnderCurve
    | Quantile
    | TruePositiveRateAt,
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

    ``bound + sign * (c(alpha / comparisons) + z(0.80)) * se(ideal)``, with ``sign`` +1 for an upper bound. The standard
    error is the one at the ideal value, never at the observed one, so a noisy estimate cannot excuse itself.
    """
    reach = estimate.critical_value(alpha / max(estimate.comparisons, 1)) - float(ndtri(1.0 - POWER))
    return bound + sign * reach * estimate.standard_error_at(ideal)


def n_required(estimate: Estimate, bound: float, alpha: float, *, ideal: float, n: int) -> int | None:
    """Sample size at which an ideal model would be shown to lie within ``bound`` with 80 % power, same group shares.

    ``n * ((c(alpha) + z(power each)) * se(ideal) / |bound - ideal|)^2`` where every comparison must come out, so each
    is given power ``1 - 0.20 / comparisons``. None where the standard error is unknown or the bound is the ideal
    itself.
    """
    gap = abs(bound - ideal)
    error = estimate.standard_error_at(ideal)
    if gap == 0.0 or not math.isfinite(error):
        return None
    each = float(-ndtri((1.0 - POWER) / max(estimate.comparisons, 1)))
    return math.ceil(n * ((estimate.critical_value(alpha) + each) * error / gap) ** 2)
