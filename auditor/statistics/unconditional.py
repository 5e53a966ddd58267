"""Exact unconditional tests of a difference or a ratio of two rates, by enumeration of every table.

Tables are ordered by one number: the lower limit of the difference or ratio, made of Wilson's limits of the two rates
(:func:`_place`) at so many standard errors as ``_ORDERS`` has for the level; the order depends on no hypothesis. The
p-value of "no more than ``value``" is the largest probability, over the second parameter, of a table that stands no
lower than the one seen: no more than the level whatever the rates (Buehler, JASA 52 (1957); Kabaila and Lloyd, Aust. N.
Z. J. Stat. 45 (2003)). Because the set of tables is fixed and only loses by fewer successes in the first group or more
in the second, it is most probable on the edge of the hypothesis, p-values rise with ``value``, and the bounds that they
invert to are nested. The second parameter is the larger group's rate, over its Clopper-Pearson interval at ``GIVEN`` of
the level, which is paid for (Berger and Boos, JASA 89 (1994)); it is looked at in places a quarter of a standard error
apart. Chan and Zhang (Biometrics 55 (1999)) have the same test with another order.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import scipy

from auditor.rows import FloatArray, IntArray
from auditor.statistics.combined_tails import Contrast, falling_zero
from auditor.statistics.intervals import exact_lower, exact_upper

Counted = tuple[int, int]

GIVEN = 0.02
# Standard errors of the order of tables, for levels from the first number of each up to that of the one before.
_ORDERS = ((2e-4, 2.5), (0.0, 4.2))
_SMALLEST_P = 1e-16
_LEAST_RATIO = 1e-9
# Tails of the larger group at which its rate is looked at, on either side; those above 0.5 lie within all intervals.
_TAILS = scipy.special.ndtr(-np.concatenate([np.arange(-1.25, 5.0, 0.25), np.arange(5.0, 10.5, 0.5)]))


class TwoRates:
    """The exact test of one ordered pair of groups: is the first one's rate higher, and by how much.

    ``first`` and ``second`` are (successes, n). ``either``: what was asked is which of the two is higher, and the pair
    was turned round to fit; p-values are those of both directions together.
    """

    def __init__(self, first: Counted, second: Counted, *, contrast: Contrast, either: bool = False) -> None:
        self._of = first, second, contrast, either

    def p_value(self, value: float) -> float:
        """Smallest level at which the difference or ratio is shown to be greater than ``value``; 1 above 0.5."""
        highest = 0.5
        for lowest, order in _ORDERS:
            p = _ordered(*self._of, lowest, order).p_value(value)
            if p > lowest:
                break
            highest = lowest
        return 1.0 if p > 0.5 else max(min(p, highest), _SMALLEST_P)

    def lower_bound(self, alpha: float) -> float:
        """The largest value above which it is shown to lie at ``alpha``; with ``either`` at least no difference.

        At a level below those of an order the bound is no higher than that order's at its lowest level, so that bounds
        are nested over all orders.
        """
        own = next(i for i, (lowest, _) in enumerate(_ORDERS) if alpha >= lowest)
        found = _ordered(*self._of, *_ORDERS[own]).lower_bound(alpha)
        for lowest, order in _ORDERS[:own]:
            laxer = _ordered(*self._of, lowest, order)
            if laxer.p_value(found) > lowest:
                found = min(found, laxer.lower_bound(lowest))
        return found


class _OrderedTables:
    """The test under one order of tables, for levels from ``lowest`` up."""

    def __init__(
        self, first: Counted, second: Counted, contrast: Contrast, either: bool, lowest: float, order: float
    ) -> None:
        self.contrast, self.either, self.order = contrast, either, order
        tails = _TAILS[: int(np.count_nonzero(_paid(_TAILS) > lowest)) + 1]
        self.paid = _paid(tails)
        rates = first[0] / first[1], second[0] / second[1]
        # A rate of 0 has no logarithm; where the search starts is no matter of exactness.
        self.seen = rates[0] - rates[1] if contrast == "difference" else math.log((rates[0] or 0.5) / (rates[1] or 0.5))
        self.first_is_larger = first[1] >= second[1]
        larger, self.smaller_n = (first, second[1]) if self.first_is_larger else (second, first[1])
        self.rates = np.concatenate(_limits(*larger, tails))
        ordered = np.sort(self.rates)
        at = np.searchsorted(ordered, self.rates)
        self.next_lower = np.pad(ordered, (1, 0), constant_values=0.0)[at]
        self.next_higher = np.append(ordered, 1.0)[np.searchsorted(ordered, self.rates, side="right")]
        of_larger = _probabilities(larger[1], self.rates)
        no_more = np.pad(np.cumsum(of_larger, axis=1), ((0, 0), (1, 0)))
        no_fewer = np.pad(np.cumsum(of_larger[:, ::-1], axis=1)[:, ::-1], ((0, 0), (0, 1)))
        beyond, reverse = self._set(first, second)
        if not self.first_is_larger:
            # (n_places, n_smaller + 1) how probable it is that the larger group completes a table of the set.
            self.completed = no_more[:, beyond + 1]
            if either:
                self.completed = self.completed + no_fewer[:, reverse]
        else:
            seconds = np.arange(self.smaller_n + 1)
            self.completed = no_fewer[:, np.searchsorted(beyond, seconds)]
            if either:
                self.completed = self.completed + no_more[:, np.searchsorted(reverse, seconds, side="right")]
        self.completed = np.minimum(self.completed, 1.0)

    def _set(self, first: Counted, second: Counted) -> tuple[IntArray, IntArray]:
        """For each count of the first group the most of the second with which a table stands no lower, -1 for none.

        And the fewest with which it does so in the other direction; each (n_first + 1,).
        """
        (k_1, n_1), (k_2, n_2) = first, second
        # Ties are the same number computed twice.
        seen = float(_place(self.order, self.contrast, np.asarray([k_1]), n_1, np.asarray([k_2]), n_2)[0])
        seen -= 1e-9 * max(abs(seen), 1e-3)
        k = np.arange(n_1 + 1)
        low, high = np.full(n_1 + 1, -1), np.full(n_1 + 1, n_2)
        while (low < high).any():
            middle = (low + high + 1) // 2
            stands = _place(self.order, self.contrast, k, n_1, np.maximum(middle, 0), n_2) >= seen
            low, high = np.where(stands, middle, low), np.where(stands, high, np.maximum(middle - 1, low))
        beyond = np.maximum.accumulate(low)
        if not self.either:
            return beyond, beyond
        low, high = np.full(n_1 + 1, 0), np.full(n_1 + 1, n_2 + 1)
        while (low < high).any():
            middle = (low + high) // 2
            stands = _place(self.order, self.contrast, np.minimum(middle, n_2), n_2, k, n_1) >= seen
            low, high = np.where(stands, low, np.minimum(middle + 1, high)), np.where(stands, middle, high)
        return beyond, np.maximum.accumulate(low)

    def _most_probable(self, value: float) -> FloatArray:
        """(n_tails,) how probable the set is at most with the larger group's rate within its limits at each tail."""
        found = self._probable(value)
        if self.either:
            # The set is probable at both ends and less so between: a table of it is beyond one of them.
            found = np.maximum(found, self._probable(-value if self.contrast == "difference" else 1.0 / value))
        return np.maximum.accumulate(found.reshape(2, -1).max(axis=0))

    def _probable(self, value: float) -> FloatArray:
        """(n_places,) how probable the set is on the edge; 0 where no rate of the smaller group makes it one.

        Between such a place and the next one there is an end of the edge, for which the place stands.
        """
        if self.contrast == "difference":
            other = self.rates - value if self.first_is_larger else self.rates + value
            none = self.next_lower - value > 1.0 if self.first_is_larger else self.next_higher + value < 0.0
        elif not self.first_is_larger:
            other, none = self.rates * value, np.zeros(len(self.rates), bool)
        else:
            with np.errstate(divide="ignore", invalid="ignore"):
                other, none = np.nan_to_num(self.rates / value, nan=1.0, posinf=1.0), self.next_lower > value
        of_smaller = _probabilities(self.smaller_n, np.clip(other, 0.0, 1.0))
        return np.where(none, 0.0, np.asarray((of_smaller * self.completed).sum(axis=1), np.float64))

    def p_value(self, value: float) -> float:
        return float(np.maximum(self._most_probable(value) / (1.0 - GIVEN), self.paid).min())

    def lower_bound(self, alpha: float) -> float:
        ratio, tail = self.contrast == "ratio", int(np.searchsorted(-self.paid, -alpha))
        least = (1.0 if ratio else 0.0) if self.either else (0.0 if ratio else -1.0)
        if tail == len(self.paid) or self._excess(least, alpha, tail) < 0.0:
            return least
        low, high = (math.log(max(least, _LEAST_RATIO)), -math.log(_LEAST_RATIO)) if ratio else (least, 1.0)
        if ratio and self._excess(math.exp(low), alpha, tail) < 0.0:
            return least

        def excess(x: float) -> float:
            return self._excess(math.exp(x) if ratio else x, alpha, tail)

        # The bound lies some standard errors below what was seen, which keeps the search short.
        seen = min(max(self.seen, low), high)
        step = 0.02
        while seen - step > low and excess(seen - step) < 0.0:
            high, step = seen - step, 2.0 * step
        low = max(low, seen - step)
        [zero] = falling_zero(lambda x, _: np.asarray([excess(float(x[0]))]), np.asarray([low]), np.asarray([high]))
        return math.exp(zero) if ratio else float(zero)

    def _excess(self, value: float, alpha: float, tail: int) -> float:
        """By how much the level exceeds the p-value, as a ratio of logarithm: at least 0 where it is shown."""
        return math.log((1.0 - GIVEN) * alpha) - math.log(max(float(self._most_probable(value)[tail]), 1e-300))


# Several questions are asked of the same table.
_ordered = lru_cache(maxsize=32)(_OrderedTables)


def _paid(tails: FloatArray) -> FloatArray:
    """The smallest levels at which the larger group's rate is taken to lie within its limits at these tails."""
    return 2.0 * tails / GIVEN


def _limits(k: int, n: int, tails: FloatArray) -> tuple[FloatArray, FloatArray]:
    of = np.asarray(k, np.float64), np.asarray(n, np.float64), tails
    return exact_lower(*of), exact_upper(*of)


def _probabilities(n: int, p: FloatArray) -> FloatArray:
    """(n_places, n + 1) binomial probabilities of every count."""
    k = np.arange(n + 1, dtype=np.float64)
    ways = _log_ways(n)
    return np.asarray(
        np.exp(ways + scipy.special.xlogy(k, p[:, None]) + scipy.special.xlog1py(n - k, -p[:, None])), np.float64
    )


@lru_cache(maxsize=64)
def _log_ways(n: int) -> FloatArray:
    k = np.arange(n + 1, dtype=np.float64)
    return np.asarray(
        scipy.special.gammaln(n + 1.0) - scipy.special.gammaln(k + 1.0) - scipy.special.gammaln(n - k + 1.0), np.float64
    )


def _place(z: float, contrast: Contrast, k_1: IntArray, n_1: int, k_2: IntArray, n_2: int) -> FloatArray:
    """Where a table stands: the lower limit of the difference or ratio, made of Wilson's limits of the two rates.

    Sources: Newcombe, Stat. Med. 17 (1998), method 10; Donner and Zou, Stat. Methods Med. Res. 21 (2012) for ratios.
    """
    p_1, p_2 = k_1 / n_1, k_2 / n_2
    below, above = _wilson(p_1, n_1, -z), _wilson(p_2, n_2, z)
    if contrast == "difference":
        return np.asarray(p_1 - p_2 - np.hypot(p_1 - below, above - p_2), np.float64)
    product = p_1 * p_2
    inside = np.maximum(product**2 - below * above * (2.0 * p_1 - below) * (2.0 * p_2 - above), 0.0)
    return np.asarray((product - np.sqrt(inside)) / (above * (2.0 * p_2 - above)), np.float64)


def _wilson(p: FloatArray, n: int, z: float) -> FloatArray:
    half = z * np.sqrt(p * (1.0 - p) / n + z * z / (4.0 * n * n))
    return np.asarray(np.clip((p + z * z / (2.0 * n) + half) / (1.0 + z * z / n), 0.0, 1.0), np.float64)
