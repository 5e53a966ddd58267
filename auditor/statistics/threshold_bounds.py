"""Bounds over thresholds: of a rate at an estimated quantile, and simultaneous bands for groups' curves.

The threshold t is the smallest that at most a share f of negatives exceed. Neither it nor ``N``, how many of the n
negatives lie above it, is known; but N is no larger than binomial (n, f), stochastically, and the number of negatives
at t or above no smaller, however many scores are tied. ``K``, how many of the m positives exceed t, is binomial
(m, p), p being the rate that is asked for, and independent of N. Given ``N = j`` the negatives' order bounds K: it is
at most the number of positives above the (j+1)-th largest negative, and at least that above the j-th, where j are at t
or above.

A value of p is refused where for every j the pair is improbable: for the lower bound, that j is low and K high. With
``z(j)`` the normal quantile of j's own tail, ties of the distribution split in half, and ``u`` that of K's exact tail,
both at least 0, the pair is improbable where ``(z / w)^q + u^q >= c``. Because K's tail is stochastically no smaller
than uniform whatever p is, the probability of that is at most ``sum_j P(N = j) Phi(-(c - (z(j) / w)^q)^(1/q))``, a tail
being 1 where c is less than the term of j; c is where this is alpha. It depends on n, m, f and alpha alone, so the
bounds hold at every sample size and are nested; no distribution of scores is assumed, and nothing is estimated.

The shape decides how wide the bounds are and nothing else. Where the curve is about straight they lie from 1.1 to 1.26
times as far away (q = 1.5, w = 1, at 0.025) as those of somebody who knows its slope; halving alpha between threshold
and rate, each with its own bound, comes to from 1.14 to 1.62 times. w goes with the part that the threshold has of the
error: the more positives there are for a negative, the larger it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import scipy

from auditor.core.rows import FloatArray, IntArray
from auditor.statistics.intervals import exact_lower, exact_upper

End = Literal["low", "high"]
_ENDS: tuple[End, ...] = ("low", "high")
# 2 would do as well for every share that the threshold has of the error; less than 2 favours the shares in between.
_POWER = 1.5
# Where an attack finds something the threshold's share is larger than the sizes of the samples alone would have it.
_FAVOUR, _BEND, _MOST = 2.0, 0.2, 2.0
_BISECTIONS = 60
# Of a tail of no more than 1e-300.
_FARTHEST = math.pow(40.0 * _MOST, _POWER)
_SMALLEST_TAIL = 1e-300
_ROUNDING = 3e-8


class _Counts(NamedTuple):
    """Numbers j of negatives that may lie above the threshold, (k,), how probable each is, and ``(z(j) / w)^q``.

    ``rest``: the probability of those that are left out, which count as improbable.
    """

    j: FloatArray
    probability: FloatArray
    term: FloatArray
    rest: float

    def level(self, c: float) -> float:
        """What a pair beyond ``c`` has for probability, at most."""
        return float(self.probability @ self.tails(c)) + self.rest

    def tails(self, c: float) -> FloatArray:
        """(k,) the largest tail of K with which each j is refused."""
        left = c - self.term
        return np.where(left > 0.0, scipy.special.ndtr(-(np.maximum(left, 0.0) ** (1.0 / _POWER))), 1.0)


def _weight(n_negative: int, n_positive: int) -> float:
    return min(max(math.pow(n_negative / (_FAVOUR * n_positive), _BEND), 1.0 / _MOST), _MOST)


@lru_cache(maxsize=256)
def _counts(n: int, f: float, end: End, weight: float) -> _Counts:
    reach = 12.0 * math.sqrt(n * f * (1.0 - f)) + 100.0
    j = np.arange(max(0, math.floor(n * f - reach)), min(n, math.ceil(n * f + reach)) + 1, dtype=np.float64)
    log = (
        scipy.special.gammaln(n + 1.0) - scipy.special.gammaln(j + 1.0) - scipy.special.gammaln(n - j + 1.0)
    ) + scipy.special.xlogy(j, f) + scipy.special.xlog1py(n - j, -f)  # fmt: skip
    probability = np.exp(log)
    tail = scipy.special.bdtr(j, n, f) if end == "low" else scipy.special.bdtrc(j - 1.0, n, f)
    z = np.maximum(-scipy.special.ndtri(np.maximum(tail - 0.5 * probability, _SMALLEST_TAIL)), 0.0)
    # Of those that are not improbable at all one has the worst count, and it stands for them.
    if end == "low":
        last = int(np.flatnonzero(z == 0.0)[0])
        probability = np.append(probability[:last], scipy.special.bdtrc(j[last] - 1.0, n, f))
        kept, outside = slice(None, last + 1), float(scipy.special.bdtr(j[0] - 1.0, n, f)) if j[0] > 0.0 else 0.0
    else:
        first = int(np.flatnonzero(z == 0.0)[-1])
        probability = np.append(scipy.special.bdtr(j[first], n, f), probability[first + 1 :])
        kept, outside = slice(first, None), float(scipy.special.bdtrc(j[-1], n, f))
    return _Counts(j=j[kept], probability=probability, term=(z[kept] / weight) ** _POWER, rest=outside)


@lru_cache(maxsize=4_096)
def _radius(n: int, f: float, alpha: float, end: End, weight: float) -> float:
    """The c of alpha, on the safe side."""
    counts = _counts(n, f, end, weight)
    low, high = 0.0, _FARTHEST
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if counts.level(middle) > alpha else (low, middle)
    return high


def rate_bounds(
    counts_above: FloatArray, *, n_positive: int, n_negative: int, f: float, alpha: float
) -> tuple[float, float]:
    """Bounds of the share of positives above the threshold, each missed with probability at most ``alpha``.

    above[j]: how many positives exceed the (j+1)-th largest negative; beyond its end, all of them.
    """
    found, weight = [], _weight(n_negative, n_positive)
    for end in _ENDS:
        counts, c = _counts(n_negative, f, end, weight), _radius(n_negative, f, alpha, end, weight)
        probable = counts.term < c
        tails = scipy.special.ndtr(-((c - counts.term[probable]) ** (1.0 / _POWER)))
        k = _limits(counts_above, counts.j[probable], n_positive, end)
        m = np.full(k.size, float(n_positive))
        found.append(float(exact_lower(k, m, tails).min() if end == "low" else exact_upper(k, m, tails).max()))
    return found[0], found[1]


def rate_level(
    counts_above: FloatArray, *, n_positive: int, n_negative: int, f: float, value: float, end: End, strictly: bool
) -> float:
    """The smallest alpha at which the lower or the upper bound is at or beyond ``value``, which is in (0, 1).

    ``strictly``: at which it is beyond, which is another one where the bound is the same at many levels.
    """
    counts = _counts(n_negative, f, end, _weight(n_negative, n_positive))
    k = _limits(counts_above, counts.j, n_positive, end)
    tails = (
        np.where(k > 0.0, scipy.special.bdtrc(np.maximum(k, 1.0) - 1.0, n_positive, value), 1.0)
        if end == "low"
        else scipy.special.bdtr(k, n_positive, value)
    )
    u = np.maximum(-scipy.special.ndtri(np.maximum(tails, _SMALLEST_TAIL)), 0.0)
    # Rounding must not decide on which side of a leap it is.
    return counts.level(float((counts.term + u**_POWER).min()) * (1.0 + (-_ROUNDING if strictly else _ROUNDING)))


def _limits(counts_above: FloatArray, j: FloatArray, n_positive: int, end: End) -> FloatArray:
    """(k,) the least or the most positives that can exceed the threshold, given j."""
    padded = np.concatenate([[0.0], counts_above, [float(n_positive)]])
    at = j if end == "low" else j + 1.0
    return np.asarray(padded[np.minimum(at, padded.size - 1.0).astype(np.int64)], np.float64)


@dataclass(frozen=True)
class JointShares:
    """Shares (g, t) of g groups at or above t thresholds, the largest difference of any two (t,), and their bands."""

    shares: FloatArray
    low: FloatArray
    high: FloatArray
    difference: FloatArray
    difference_low: FloatArray
    difference_high: FloatArray


def joint_shares(counts: IntArray, *, error: float) -> JointShares:
    """Shares of each group at or above each threshold, with simultaneous confidence bands.

    ``counts`` (g, t): rows of a group with a score at or above a threshold and below the next; no group is empty. The
    band about group i is ``sqrt(ln(2 g / error) / (2 n_i))``, Dvoretzky, Kiefer and Wolfowitz's with Massart's
    constant: whatever the scores' distributions, and however many thresholds, the chance that any group's true share
    lies outside its band at any threshold is at most ``error``. Where they hold, the largest difference lies between
    ``max(0, max low - min high)`` and ``max high - min low``, so that its band holds together with them.

    Source: Massart, Annals of Probability 18 (1990).
    """
    n = counts.sum(axis=1, keepdims=True)
    shares = counts[:, ::-1].cumsum(axis=1)[:, ::-1] / n
    width = np.sqrt(math.log(2.0 * len(counts) / error) / (2.0 * n))
    low, high = np.maximum(shares - width, 0.0), np.minimum(shares + width, 1.0)
    return JointShares(
        shares=shares,
        low=low,
        high=high,
        difference=shares.max(axis=0) - shares.min(axis=0),
        difference_low=np.maximum(low.max(axis=0) - high.min(axis=0), 0.0),
        difference_high=high.max(axis=0) - low.min(axis=0),
    )
