"""Exact bounds and p-values of a difference or a ratio of two rates, for one or the worst of many pairs.

By :mod:`~auditor.statistics.unconditional`, which enumerates all tables, where there are at most ``MOST_PAIRS`` pairs
of groups and they have at most ``MOST_ENUMERATED`` rows together, else by
:mod:`~auditor.statistics.combined_tails`. Which of them is a matter of the groups' sizes alone. A p-value is the
smallest level at which the bound shows what is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from auditor.core.rows import BoolArray, Counts, FloatArray
from auditor.statistics import combined_tails
from auditor.statistics.combined_tails import Contrast, Pairs, falling_zero, margins
from auditor.statistics.unconditional import TwoRates

MOST_ENUMERATED, MOST_PAIRS = 2_400, 6
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
