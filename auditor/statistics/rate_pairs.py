"""Exact unconditional tests and bounds of a difference or a ratio of two rates, for one or the worst pair.

Tables are ordered by one number: the lower limit of the difference or ratio, made of Wilson's limits of the two rates
(:class:`_Order`) at so many standard errors as ``_ORDERS`` has for the level; the order depends on no hypothesis. The
p-value of "no more than ``value``" is the largest probability, over the second parameter, of a table that stands no
lower than the one seen: no more than the level whatever the rates (Buehler, JASA 52 (1957); Kabaila and Lloyd, Aust. N.
Z. J. Stat. 45 (2003)). Because the set of tables is fixed and only loses by fewer successes in the first group or more
in the second, it is most probable on the edge of the hypothesis, p-values rise with ``value``, and the bounds that they
invert to are nested. The second parameter is the larger group's rate, over its Clopper-Pearson interval at ``GIVEN`` of
the level, which is paid for (Berger and Boos, JASA 89 (1994)); it is looked at in places a quarter of a standard error
apart. Chan and Zhang (Biometrics 55 (1999)) have the same test with another order.

By enumeration of all tables, where there are at most ``MOST_PAIRS`` pairs
of groups and they have at most ``MOST_ENUMERATED`` rows together, else by
:mod:`~auditor.statistics.combined_tails`. Which of them is a matter of the groups' sizes alone. A p-value is the
smallest level at which the bound shows what is asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy

from auditor.core.rows import BoolArray, Counts, FloatArray, IntArray
from auditor.statistics import combined_tails
from auditor.statistics.combined_tails import Contrast, Pairs, falling_zero, margins
from auditor.statistics.intervals import exact_lower, exact_upper

Counted = tuple[int, int]

GIVEN = 0.02
# Standard errors of the order of tables, for levels from the first number of each up to that of the one before.
_ORDERS = ((5e-3, 2.1), (1e-4, 3.1), (0.0, 4.2))
_SMALLEST_P_VALUE = 1e-16
# Of the smaller group.
_FEW_ROWS = 200
_LEAST_RATIO = 1e-9
# Its logarithm is finite, and no count but 0 is probable with it.
_NO_RATE = 1e-300
# Standard errors of the larger group at which its rate is looked at, on either side; those below 0 lie within all
# intervals.
_REACHES = np.concatenate([np.arange(-1.25, 5.0, 0.25), np.arange(5.0, 10.5, 0.5)])


class TwoRates:
    """The exact test of one ordered pair of groups: by how much the first one's rate is higher.

    ``first`` and ``second`` are (successes, n). ``either``: what was asked is which of the two is higher, and the pair
    was turned round to fit; p-values are those of both directions together.
    """

    def __init__(self, first: Counted, second: Counted, *, contrast: Contrast, either: bool = False) -> None:
        self._of = first, second, contrast, either

    def p_value(self, value: float) -> float:
        """Smallest level at which the difference or ratio is significantly greater than ``value``; 1 above 0.5."""
        highest = 0.5
        for lowest, order in _ORDERS:
            p = _order_tables(*self._of, lowest, order).p_value(value)
            # A bound that is this order's at its lowest level has that for its p-value, but for rounding.
            if p > lowest * (1.0 + 1e-9):
                break
            highest = lowest
        return 1.0 if p > 0.5 else max(min(p, highest), _SMALLEST_P_VALUE)

    def lower_bound(self, alpha: float) -> float:
        """The largest value significantly exceeded at ``alpha``; with ``either`` at least no difference.

        At a level below those of an order the bound is no higher than that order's at its lowest level, so that bounds
        are nested over all orders.
        """
        return _lower_bound(*self._of, alpha)


@lru_cache(maxsize=8_192)
def _lower_bound(first: Counted, second: Counted, contrast: Contrast, either: bool, alpha: float) -> float:
    own = next(i for i, (lowest, _) in enumerate(_ORDERS) if alpha >= lowest)
    found = _order_tables(first, second, contrast, either, *_ORDERS[own]).lower_bound(alpha)
    for lowest, order in _ORDERS[:own]:
        laxer = _order_tables(first, second, contrast, either, lowest, order)
        if laxer.p_value(found) > lowest * (1.0 + 1e-9):
            found = min(found, laxer.lower_bound(lowest))
    return found


class _OrderedTables:
    """The test under one order of tables, for levels from ``lowest`` up."""

    def __init__(
        self, first: Counted, second: Counted, contrast: Contrast, either: bool, lowest: float, order: float
    ) -> None:
        self.contrast, self.either, self.order = contrast, either, order
        tails = scipy.special.ndtr(-_REACHES)
        tails = tails[: int(np.count_nonzero(_tail_levels(tails) > lowest)) + 1]
        self.paid = _tail_levels(tails)
        # Where the search for a bound starts, and its step: no matter of exactness.
        p_1, p_2 = ((k + 0.5) / (n + 1.0) for k, n in (first, second))
        of_1, of_2 = (p * (1.0 - p) / n for p, (_, n) in ((p_1, first), (p_2, second)))
        ratio = contrast == "ratio"
        self.seen = math.log(p_1 / p_2) if ratio else p_1 - p_2
        self.error = math.sqrt(of_1 / p_1**2 + of_2 / p_2**2 if ratio else of_1 + of_2)
        self.first_is_larger = first[1] >= second[1]
        larger, smaller_n = (first, second[1]) if self.first_is_larger else (second, first[1])
        self.larger_n, self.smaller_n = larger[1], smaller_n
        self.rates = np.concatenate(_limits(*larger, tails))
        # Which counts of the larger group complete a table of the set, for each of the smaller one: at most so many, at
        # least so many, or with ``either`` both.
        beyond, reverse = self._set(first, second)
        smaller = np.arange(self.smaller_n + 1)
        none = np.full(smaller.size, -1), np.full(smaller.size, self.larger_n + 1)
        if self.first_is_larger:
            self.fewest = np.searchsorted(beyond, smaller)
            self.most = np.searchsorted(reverse, smaller, side="right") - 1 if either else none[0]
        else:
            self.most = beyond
            self.fewest = reverse if either else none[1]
        # (n_places, n_smaller + 1) how probable it is that the larger group does.
        self.completed = np.zeros((len(self.rates), smaller.size))
        start, found = _probabilities(self.larger_n, self.rates)
        of_larger = np.pad(found, ((0, 0), (1, 1)))
        if either or not self.first_is_larger:
            self.completed += np.cumsum(of_larger[:, :-1], axis=1)[:, np.clip(self.most - start + 1, 0, found.shape[1])]
        if either or self.first_is_larger:
            at_least = np.cumsum(of_larger[:, :0:-1], axis=1)[:, ::-1]
            self.completed += at_least[:, np.clip(self.fewest - start, 0, found.shape[1])]

    def _set(self, first: Counted, second: Counted) -> tuple[IntArray, IntArray]:
        """For each count of the first group the most of the second with which a table stands no lower, -1 for none.

        And the fewest with which it does so in the other direction; each (n_first + 1,).
        """
        (k_1, n_1), (k_2, n_2) = first, second
        ahead = _Order(self.contrast, n_1, n_2, self.order)
        seen = float(ahead.place(np.asarray([k_1]), np.asarray([k_2]))[0])
        # Ties are the same number computed twice.
        seen -= 1e-9 * max(abs(seen), 1e-3)
        k = np.arange(n_1 + 1)
        low, high = np.full(n_1 + 1, -1), np.full(n_1 + 1, n_2)
        while (low < high).any():
            middle = (low + high + 1) // 2
            stands = ahead.place(k, np.maximum(middle, 0)) >= seen
            low, high = np.where(stands, middle, low), np.where(stands, high, np.maximum(middle - 1, low))
        beyond = np.maximum.accumulate(low)
        if not self.either:
            return beyond, beyond
        back = _Order(self.contrast, n_2, n_1, self.order)
        low, high = np.full(n_1 + 1, 0), np.full(n_1 + 1, n_2 + 1)
        while (low < high).any():
            middle = (low + high) // 2
            stands = back.place(np.minimum(middle, n_2), k) >= seen
            low, high = np.where(stands, low, np.minimum(middle + 1, high)), np.where(stands, middle, high)
        return beyond, np.maximum.accumulate(low)

    def _most_probable(self, value: float) -> FloatArray:
        """(n_tails,) how probable the set is at most with the larger group's rate within its limits at each tail."""
        found = self._probable(value)
        if self.either:
            # The set is probable at both ends and less so between: a table of it is beyond one of them.
            found = np.maximum(found, self._probable(-value if self.contrast == "difference" else 1.0 / value))
        return np.maximum.accumulate(found)

    def _probable(self, value: float) -> FloatArray:
        """(n_tails,) how probable the set is on the edge of the hypothesis, with the larger group's rate at its limits.

        Where the smaller group would need a rate outside [0, 1] to reach the edge, there is none; where it needs 0 or
        1, the edge ends, and that end is looked at too.
        """
        ratio, end, last = self.contrast == "ratio", math.nan, 0
        if not self.first_is_larger:
            other = self.rates * value if ratio else self.rates + value
            end = math.nan if ratio else -value
            outside = self.rates < end
        else:
            with np.errstate(divide="ignore", invalid="ignore"):
                other = np.nan_to_num(self.rates / value, nan=1.0, posinf=1.0) if ratio else self.rates - value
            end, last = value if ratio else 1.0 + value, self.smaller_n
            outside = self.rates > end
        start, of_smaller = _probabilities(self.smaller_n, np.minimum(np.maximum(other, 0.0), 1.0))
        of_smaller *= self.completed[:, start : start + of_smaller.shape[1]]
        at_limits = np.where(outside, 0.0, of_smaller.sum(axis=1)).reshape(2, -1)
        found = at_limits.max(axis=0)
        if 0.0 < end < 1.0:
            low, high = self.rates.reshape(2, -1)
            completed = _no_more(int(self.most[last]), self.larger_n, end)
            completed += 1.0 - _no_more(int(self.fewest[last]) - 1, self.larger_n, end)
            found = np.where((low <= end) & (end <= high), np.maximum(found, completed), found)
        return np.asarray(found, np.float64)

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

        # The bound lies about so far below what was seen, which keeps the search short.
        seen = min(max(self.seen - self.error * float(-scipy.special.ndtri(alpha)), low), high)
        step = 0.1 * self.error
        if excess(seen) < 0.0:
            high = seen
            while seen - step > low and excess(seen - step) < 0.0:
                high, step = seen - step, 2.0 * step
            low = max(low, seen - step)
        else:
            low = seen
            while seen + step < high and excess(seen + step) >= 0.0:
                low, step = seen + step, 2.0 * step
            high = min(high, seen + step)
        [zero] = falling_zero(lambda x, _: np.asarray([excess(float(x[0]))]), np.asarray([low]), np.asarray([high]))
        return math.exp(zero) if ratio else float(zero)

    def _excess(self, value: float, alpha: float, tail: int) -> float:
        """By how much the level exceeds the p-value, as a ratio of logarithm: at least 0 where it is shown."""
        return math.log((1.0 - GIVEN) * alpha) - math.log(max(float(self._most_probable(value)[tail]), 1e-300))


# Several questions are asked of the same table, and many of others in between. 512 tables of 200 rows take up to 60 MB.
_of_few_rows, _of_many_rows = (lru_cache(maxsize=size)(_OrderedTables) for size in (512, 32))


def _order_tables(
    first: Counted, second: Counted, contrast: Contrast, either: bool, lowest: float, order: float
) -> _OrderedTables:
    made = _of_few_rows if min(first[1], second[1]) <= _FEW_ROWS else _of_many_rows
    return made(first, second, contrast, either, lowest, order)


def _tail_levels(tails: FloatArray) -> FloatArray:
    """The smallest levels at which the larger group's rate is taken to lie within its limits at these tails."""
    return 2.0 * tails / GIVEN


def _limits(k: int, n: int, tails: FloatArray) -> tuple[FloatArray, FloatArray]:
    of = np.asarray(k, np.float64), np.asarray(n, np.float64), tails
    return exact_lower(*of), exact_upper(*of)


def _probabilities(n: int, p: FloatArray) -> tuple[int, FloatArray]:
    """The first of a run of counts, and their binomial probabilities (n_places, n_counts).

    All other counts together have a probability below 1e-20 at every place, by Bernstein's inequality.
    """
    reach = 10.0 * np.sqrt(n * p * (1.0 - p)) + 50.0
    start = max(math.floor(float((n * p - reach).min())), 0)
    k = np.arange(start, min(math.ceil(float((n * p + reach).max())), n) + 1, dtype=np.float64)
    yes, no = (np.log(np.maximum(q, _NO_RATE))[:, None] for q in (p, 1.0 - p))
    # Each step in the place of the one before: what is large is slow to make room for.
    logs = k * yes
    logs += _log_ways(n)[start : start + k.size]
    logs += (n - k) * no
    return start, np.asarray(np.exp(logs, out=logs), np.float64)


def _no_more(k: int, n: int, p: float) -> float:
    """How probable it is that there are no more than ``k`` of ``n``."""
    if not 0 <= k < n:
        return float(k >= n)
    return float(scipy.special.betaincc(k + 1.0, float(n - k), p))


@lru_cache(maxsize=64)
def _log_ways(n: int) -> FloatArray:
    k = np.arange(n + 1, dtype=np.float64)
    return np.asarray(
        scipy.special.gammaln(n + 1.0) - scipy.special.gammaln(k + 1.0) - scipy.special.gammaln(n - k + 1.0), np.float64
    )


class _Order:
    """Where tables stand: at the lower limit of their difference or ratio, made of Wilson's limits of the two rates.

    Sources: Newcombe, Stat. Med. 17 (1998), method 10; Donner and Zou, Stat. Methods Med. Res. 21 (2012) for ratios.
    """

    def __init__(self, contrast: Contrast, n_1: int, n_2: int, z: float) -> None:
        self.contrast = contrast
        (self.p_1, below, _), (self.p_2, _, above) = _wilson(n_1, z), _wilson(n_2, z)
        if contrast == "difference":
            self.of_1, self.of_2 = self.p_1 - below, above - self.p_2
        else:
            self.of_1, self.of_2 = below * (2.0 * self.p_1 - below), above * (2.0 * self.p_2 - above)

    def place(self, k_1: IntArray, k_2: IntArray) -> FloatArray:
        p_1, p_2, of_1, of_2 = self.p_1[k_1], self.p_2[k_2], self.of_1[k_1], self.of_2[k_2]
        if self.contrast == "difference":
            return np.asarray(p_1 - p_2 - np.hypot(of_1, of_2), np.float64)
        product = p_1 * p_2
        size = product + np.sqrt(np.maximum(product**2 - of_1 * of_2, 0.0))
        # Without successes in the first group nothing is above a ratio of 0.
        return np.asarray(np.divide(of_1, size, out=np.zeros_like(size), where=k_1 > 0), np.float64)


@lru_cache(maxsize=64)
def _wilson(n: int, z: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(n + 1,) rates of every count, and their score limits."""
    p = np.arange(n + 1) / n
    centre, half = p + z * z / (2.0 * n), z * np.sqrt(p * (1.0 - p) / n + z * z / (4.0 * n * n))
    size = 1.0 + z * z / n
    return p, np.maximum((centre - half) / size, 0.0), np.minimum((centre + half) / size, 1.0)


MOST_ENUMERATED, MOST_PAIRS = 20_000, 6
_SMALLEST_P = 1e-16
# Pairs whose bounds are found together, at the cost of one.
_AT_ONCE = 32
# Two bounds no further apart are the same.
_APART = 1e-10
Tables = Sequence[tuple[Counts, Counts]]
Index = npt.NDArray[np.intp]


def ordered_pairs(tables: Tables, contrast: Contrast) -> Pairs:
    """Every ordered pair of groups of a table, (successes, n) each, of groups with rows."""
    return _pairs_of_tables(tables, contrast, lambda g: np.nonzero(~np.eye(g, dtype=bool)))


def pairs_apart(tables: Tables, contrast: Contrast) -> Pairs:
    """Every two groups of a table, the one with the higher rate first, to test for a difference."""
    found = _pairs_of_tables(tables, contrast, lambda g: np.triu_indices(g, 1))
    turn = found.k_1 * found.n_2 < found.k_2 * found.n_1
    k_1, k_2 = np.where(turn, found.k_2, found.k_1), np.where(turn, found.k_1, found.k_2)
    n_1, n_2 = np.where(turn, found.n_2, found.n_1), np.where(turn, found.n_1, found.n_2)
    return Pairs(contrast=contrast, k_1=k_1, n_1=n_1, k_2=k_2, n_2=n_2, either=True)


def _pairs_of_tables(tables: Tables, contrast: Contrast, indices: Callable[[int], tuple[Index, ...]]) -> Pairs:
    parts: list[list[FloatArray]] = [[np.empty(0)], [np.empty(0)], [np.empty(0)], [np.empty(0)]]
    for successes, sizes in tables:
        k, n = np.asarray(successes, np.float64), np.asarray(sizes, np.float64)
        i, j = indices(k.size)
        for part, values in zip(parts, (k[i], n[i], k[j], n[j]), strict=True):
            part.append(values)
    k_1, n_1, k_2, n_2 = (np.concatenate(part) for part in parts)
    return Pairs(contrast=contrast, k_1=k_1, n_1=n_1, k_2=k_2, n_2=n_2)


def lower_bounds(pairs: Pairs, alpha: float) -> FloatArray:
    """(n_pairs,) one-sided exact lower bounds, each wrong with probability at most ``alpha``."""
    return _lower_bounds(pairs, alpha, _enumerable(pairs))


def difference_lower_bounds(successes: Counts, *, n: Counts, alpha: float) -> FloatArray:
    """One-sided exact lower bounds (n_groups, n_groups) of ``p_i - p_j`` for every ordered pair, each at ``alpha``.

    The upper bound of ``p_i - p_j`` is less the lower one of ``p_j - p_i``. Every group has rows.
    """
    low = np.zeros((len(n), len(n)))
    low[~np.eye(len(n), dtype=bool)] = lower_bounds(ordered_pairs([(successes, n)], "difference"), alpha)
    return low


def largest_lower_bound(pairs: Pairs, alpha: float) -> float:
    """The largest of the pairs' lower bounds, each at ``alpha``."""
    enumerated = _enumerable(pairs)
    return _extreme(
        pairs,
        -1.0,
        lambda some: float(_lower_bounds(pairs.subset(some), alpha, enumerated).max()),
        lambda rest, found: _is_significant(pairs.subset(rest), found + _APART, alpha, enumerated),
        at_once=1 if enumerated else _AT_ONCE,
    )


def smallest_lower_bound(pairs: Pairs, alpha: float) -> float:
    """The smallest of the pairs' lower bounds, each at ``alpha``."""
    enumerated = _enumerable(pairs)
    return _extreme(
        pairs,
        1.0,
        lambda some: float(_lower_bounds(pairs.subset(some), alpha, enumerated).min()),
        lambda rest, found: ~_is_significant(pairs.subset(rest), found - _APART, alpha, enumerated),
        at_once=1 if enumerated else _AT_ONCE,
    )


def smallest_p_value(pairs: Pairs, value: float) -> float:
    """The smallest level at which any pair is significantly above ``value``; 1 above 0.5."""
    if _enumerable(pairs):
        return min(_test(pairs, i).p_value(value) for i in range(len(pairs)))
    return _extreme(
        pairs,
        -1.0,
        lambda one: _level(pairs.subset(one), value),
        lambda rest, found: margins(pairs.subset(rest), value, min(found, 0.5) * (1.0 - 1e-7)) >= 0.0,
    )


def largest_p_value(pairs: Pairs, value: float) -> float:
    """The smallest level at which all pairs are significantly above ``value``; 1 above 0.5."""
    if _enumerable(pairs):
        return max(_test(pairs, i).p_value(value) for i in range(len(pairs)))
    return _extreme(
        pairs,
        1.0,
        lambda one: _level(pairs.subset(one), value),
        lambda rest, found: (margins(pairs.subset(rest), value, min(found * (1.0 + 1e-7), 0.5)) < 0.0) & (found <= 0.5),
    )


def _enumerable(pairs: Pairs) -> bool:
    rows = float(pairs.n_1.sum() + pairs.n_2.sum())
    whole = all(bool((counts == np.floor(counts)).all()) for counts in (pairs.k_1, pairs.n_1, pairs.k_2, pairs.n_2))
    both = 1 if pairs.either else 2
    return whole and rows <= both * MOST_ENUMERATED and len(pairs) <= both * MOST_PAIRS


def _test(pairs: Pairs, i: int) -> TwoRates:
    first, second = (int(pairs.k_1[i]), int(pairs.n_1[i])), (int(pairs.k_2[i]), int(pairs.n_2[i]))
    return TwoRates(first, second, contrast=pairs.contrast, either=pairs.either)


def _lower_bounds(pairs: Pairs, alpha: float, enumerated: bool) -> FloatArray:
    if not enumerated:
        return combined_tails.lower_bounds(pairs, alpha)
    return np.asarray([_test(pairs, i).lower_bound(alpha) for i in range(len(pairs))], np.float64)


def _is_significant(pairs: Pairs, value: float, alpha: float, enumerated: bool) -> BoolArray:
    if not enumerated:
        return margins(pairs, value, alpha) >= 0.0
    return np.asarray([_test(pairs, i).p_value(value) <= alpha for i in range(len(pairs))], np.bool_)


def _extreme(
    pairs: Pairs,
    side: float,
    solve: Callable[[Index], float],
    beats: Callable[[Index, float], BoolArray],
    at_once: int = 1,
) -> float:
    """What ``solve`` says of the pairs that nothing ``beats``; the likeliest are tried first, so many at once."""
    spread = np.sqrt(_variance(pairs.k_1, pairs.n_1) + _variance(pairs.k_2, pairs.n_2))
    likely = pairs.k_1 / pairs.n_1 - pairs.k_2 / pairs.n_2 - 2.5 * spread
    left = np.argsort(side * likely, kind="stable")
    found = solve(left[:at_once])
    left = left[at_once:]
    while left.size:
        left = left[beats(left, found)]
        if left.size:
            found, left = solve(left[:at_once]), left[at_once:]
    return found


def _variance(k: FloatArray, n: FloatArray) -> FloatArray:
    p = (k + 1.0) / (n + 2.0)
    return np.asarray(p * (1.0 - p) / n, np.float64)


def _level(one: Pairs, value: float) -> float:
    """The smallest level at which a pair is shown by its combined tails to lie above ``value``; 1 above 0.5."""

    def margin(x: FloatArray, _: Index) -> FloatArray:
        return margins(one, value, np.exp(-x))

    low, high = -np.log([0.5]), -np.log([_SMALLEST_P])
    if margin(low, np.arange(1))[0] < 0.0:
        return 1.0
    return float(np.exp(-falling_zero(margin, low, high))[0])
