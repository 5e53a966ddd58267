"""Exact tests of two rates: their size enumerated outcome by outcome, their bounds held to the tests they invert."""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from auditor.statistics.combined_tails import Contrast, Pairs, margins
from auditor.statistics.combined_tails import lower_bounds as bounds_of_tails
from auditor.statistics.groups import WorstDifference, WorstRatio
from auditor.statistics.intervals import corner_radius, difference_bounds, ratio_bounds
from auditor.statistics.rate_pairs import (
    GIVEN,
    TwoRates,
    difference_lower_bounds,
    largest_lower_bound,
    largest_p_value,
    lower_bounds,
    ordered_pairs,
    pairs_apart,
    smallest_lower_bound,
    smallest_p_value,
)
from auditor.statistics.rates import Difference, RateTable
from tests.quantifiers import all_of

ALPHAS = (0.3, 0.05, 0.01, 0.001, 1e-4, 1e-5)
VALUES: dict[Contrast, tuple[float, ...]] = {
    "difference": (-0.1, 0.0, 0.02, 0.1, 0.5),
    "ratio": (0.5, 0.8, 1.0, 1.25, 3.0),
}
SMALL = ((1, 1), (3, 7), (7, 3), (12, 12), (5, 30), (30, 5), (20, 20), (17, 23))


def pairs_of(k_1: Any, n_1: Any, k_2: Any, n_2: Any, contrast: Contrast, *, either: bool = False) -> Pairs:
    of = np.broadcast_arrays(*(np.atleast_1d(np.asarray(x, np.float64)) for x in (k_1, n_1, k_2, n_2)))
    return Pairs(contrast=contrast, k_1=of[0], n_1=of[1], k_2=of[2], n_2=of[3], either=either)


def edge(contrast: Contrast, value: float, points: int) -> tuple[np.ndarray, np.ndarray]:
    """First and second rates whose difference or ratio is ``value``, dense near 0 and 1 and on all scales between."""
    tails = 10.0 ** -np.linspace(0.2, 5.0, points // 4)
    second = np.unique(np.concatenate([np.linspace(0.0, 1.0, points), tails, 1.0 - tails]))
    first = second + value if contrast == "difference" else second * value
    there = (first >= 0.0) & (first <= 1.0)
    return first[there], second[there]


def probability(shown: np.ndarray, n_1: int, n_2: int, rates: tuple[np.ndarray, np.ndarray]) -> float:
    """The largest probability of a shown table (n_1 + 1, n_2 + 1) over pairs of rates."""
    first = stats.binom.pmf(np.arange(n_1 + 1)[:, None], n_1, rates[0][None])
    second = stats.binom.pmf(np.arange(n_2 + 1)[:, None], n_2, rates[1][None])
    return float(((shown @ second) * first).sum(axis=0).max(initial=0.0))


def within(contrast: Contrast, value: float, points: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rates on both edges of "no more than ``value`` apart in either direction", and between them."""
    if contrast == "difference":
        return [edge(contrast, share * value, points) for share in (1.0, -1.0, 0.9, -0.5, 0.0)]
    return [edge(contrast, value**share, points) for share in (1.0, -1.0, 0.9, -0.5, 0.0)]


def enumerated(n_1: int, n_2: int, contrast: Contrast, value: float, either: bool) -> np.ndarray:
    """(n_1 + 1, n_2 + 1) p-values of every table; with ``either`` the smaller of both directions."""
    p = np.ones((n_1 + 1, n_2 + 1))
    for a, b in itertools.product(range(n_1 + 1), range(n_2 + 1)):
        p[a, b] = TwoRates((a, n_1), (b, n_2), contrast=contrast, either=either).p_value(value)
        if either:
            turned = TwoRates((b, n_2), (a, n_1), contrast=contrast, either=True).p_value(value)
            p[a, b] = min(p[a, b], turned)
    return p


def shown_by_tails(n_1: int, n_2: int, contrast: Contrast, value: float, alpha: float, either: bool) -> np.ndarray:
    a, b = (x.ravel() for x in np.meshgrid(np.arange(n_1 + 1.0), np.arange(n_2 + 1.0), indexing="ij"))
    shown = margins(pairs_of(a, n_1, b, n_2, contrast, either=either), value, alpha) >= 0.0
    if either:
        shown |= margins(pairs_of(b, n_2, a, n_1, contrast, either=True), value, alpha) >= 0.0
    return shown.reshape(n_1 + 1, n_2 + 1).astype(np.float64)


# ---- the size is at most the level ---------------------------------------------------------------------------------


@pytest.mark.grid
@pytest.mark.parametrize("contrast", ["difference", "ratio"])
@pytest.mark.parametrize(("n_1", "n_2"), SMALL)
def test_enumeration_shows_no_more_often_than_its_level(n_1: int, n_2: int, contrast: Contrast) -> None:
    spent = {alpha: 0.0 for alpha in ALPHAS}
    for value in VALUES[contrast]:
        p = enumerated(n_1, n_2, contrast, value, either=False)
        for alpha in ALPHAS:
            size = probability((p <= alpha).astype(np.float64), n_1, n_2, edge(contrast, value, 400))
            assert size <= alpha, (value, alpha, size)
            spent[alpha] = max(spent[alpha], size / alpha)
    # The exact test is nearly of its level where there are tables enough to choose from.
    if min(n_1, n_2) >= 12:
        assert min(spent.values()) > 0.7, spent


@pytest.mark.grid
@pytest.mark.parametrize("contrast", ["difference", "ratio"])
@pytest.mark.parametrize(("n_1", "n_2"), SMALL[1:5])
def test_enumeration_of_either_direction_shows_no_more_often_than_its_level(
    n_1: int, n_2: int, contrast: Contrast
) -> None:
    for value in [v for v in VALUES[contrast] if v >= (0.0 if contrast == "difference" else 1.0)]:
        p = enumerated(n_1, n_2, contrast, value, either=True)
        for alpha in ALPHAS:
            shown = (p <= alpha).astype(np.float64)
            for rates in within(contrast, value, 120):
                assert probability(shown, n_1, n_2, rates) <= alpha


@pytest.mark.grid
@pytest.mark.parametrize("contrast", ["difference", "ratio"])
@pytest.mark.parametrize(("n_1", "n_2"), [(5, 200), (200, 5), (20, 20), (60, 60), (120, 40), (40, 120)])
def test_combined_tails_show_no_more_often_than_their_level(n_1: int, n_2: int, contrast: Contrast) -> None:
    for value, alpha in itertools.product(VALUES[contrast][1:4:2], ALPHAS[1::2]):
        shown = shown_by_tails(n_1, n_2, contrast, value, alpha, either=False)
        assert probability(shown, n_1, n_2, edge(contrast, value, 100)) <= alpha
        if value >= (0.0 if contrast == "difference" else 1.0):
            shown = shown_by_tails(n_1, n_2, contrast, value, alpha, either=True)
            assert max(probability(shown, n_1, n_2, rates) for rates in within(contrast, value, 40)) <= alpha


def most_of_second(n_1: int, n_2: int, contrast: Contrast, value: float, alpha: float) -> np.ndarray:
    """(n_1 + 1,) the most of the second group with which the first is shown to be above it by ``value``."""
    k = np.arange(n_1 + 1)
    low, high = np.full(n_1 + 1, -1), np.full(n_1 + 1, n_2)
    while (low < high).any():
        middle = (low + high + 1) // 2
        shown = margins(pairs_of(k, n_1, np.maximum(middle, 0), n_2, contrast), value, alpha) >= 0.0
        low, high = np.where(shown, middle, low), np.where(shown, high, np.maximum(middle - 1, low))
    return low


@pytest.mark.grid
@pytest.mark.parametrize(
    ("n_1", "n_2", "contrast", "value"),
    [
        (2_000, 2_000, "difference", 0.1),
        (3_000, 400, "difference", 0.1),
        (400, 3_000, "difference", 0.0),
        (3_000, 400, "difference", -0.1),
        (2_000, 2_000, "ratio", 1.25),
        (400, 3_000, "ratio", 1.25),
        (3_000, 400, "ratio", 0.8),
    ],
)
def test_combined_tails_of_large_groups_show_no_more_often_than_their_level(
    n_1: int, n_2: int, contrast: Contrast, value: float
) -> None:
    first, second = edge(contrast, value, 60)
    spent = []
    for alpha in (0.05, 1e-3, 1e-5):
        most = most_of_second(n_1, n_2, contrast, value, alpha)
        of_first = stats.binom.pmf(np.arange(n_1 + 1)[:, None], n_1, first[None])
        size = float((of_first * stats.binom.cdf(most[:, None], n_2, second[None])).sum(axis=0).max())
        assert size <= alpha
        spent.append(size / alpha)
    # The corner of the joint region spends a quarter of 0.05 and a half of 1e-5.
    assert spent[0] > 0.75 and spent[2] > 0.3


# ---- by slower and by other arithmetic -----------------------------------------------------------------------------


def wilson_place(k_1: int, n_1: int, k_2: int, n_2: int, z: float) -> float:
    """Newcombe's lower limit of a difference, written out."""

    def limit(k: int, n: int, side: int) -> float:
        p = k / n
        return (p + z * z / (2 * n) + side * z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))) / (1 + z * z / n)

    low, high = max(limit(k_1, n_1, -1), 0.0), min(limit(k_2, n_2, 1), 1.0)
    return k_1 / n_1 - k_2 / n_2 - math.sqrt((k_1 / n_1 - low) ** 2 + (high - k_2 / n_2) ** 2)


def slow_p_value(k_1: int, n_1: int, k_2: int, n_2: int, value: float, z: float) -> float:
    """Every table's place one by one, and the rate of the larger group at thousands of places of its exact interval."""
    seen = wilson_place(k_1, n_1, k_2, n_2, z)
    k, n, sign = (k_1, n_1, -1) if n_1 >= n_2 else (k_2, n_2, 1)
    of_larger = np.linspace(0.0, 1.0, 4_001)
    other = of_larger + sign * value
    p_1, p_2 = (np.clip(p, 0.0, 1.0) for p in ((of_larger, other) if n_1 >= n_2 else (other, of_larger)))
    total = np.zeros(of_larger.size)
    for a, b in itertools.product(range(n_1 + 1), range(n_2 + 1)):
        if wilson_place(a, n_1, b, n_2, z) >= seen - 1e-9:
            total += stats.binom.pmf(a, n_1, p_1) * stats.binom.pmf(b, n_2, p_2)
    total[(other < 0.0) | (other > 1.0)] = 0.0
    least, most = 0.0, 0.5
    for _ in range(30):
        level = 0.5 * (least + most)
        low, high = stats.binomtest(k, n).proportion_ci(1.0 - GIVEN * level, method="exact")
        enough = total[(of_larger >= low) & (of_larger <= high)].max() <= (1.0 - GIVEN) * level
        least, most = (least, level) if enough else (level, most)
    return most


@pytest.mark.parametrize(
    ("first", "second", "value"),
    [((14, 20), (6, 20), 0.1), ((9, 12), (8, 31), 0.0), ((25, 30), (3, 9), 0.2), ((4, 15), (5, 22), -0.25)],
)
def test_the_p_value_is_that_of_the_slow_way(first: tuple[int, int], second: tuple[int, int], value: float) -> None:
    ours = TwoRates(first, second, contrast="difference").p_value(value)
    slow = slow_p_value(*first, *second, value, 2.1 if ours > 5e-3 else 3.1)
    # The fast way looks at fewer places, and for the interval's ends at the next beyond them.
    assert 0.995 * slow <= ours <= 1.03 * slow


@pytest.mark.parametrize(
    ("first", "second", "value"),
    [
        ((230, 300), (2_160, 2_700), -0.1),
        ((2_160, 2_700), (230, 300), -0.1),
        ((1_000, 2_000), (900, 2_000), 0.0),
        ((40, 300), (90, 3_000), 0.05),
    ],
)
def test_the_p_value_of_large_groups_is_that_of_all_their_tables(
    first: tuple[int, int], second: tuple[int, int], value: float
) -> None:
    """No count is left out, and the larger group's rate is looked at in 300 places of its exact interval."""
    ours = TwoRates(first, second, contrast="difference").p_value(value)
    z = 2.1 if ours > 5e-3 else 3.1 if ours > 1e-4 else 4.2
    (k_1, n_1), (k_2, n_2) = first, second

    def limits(k: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        p = k / n
        half = z * np.sqrt(p * (1.0 - p) / n + z * z / (4 * n * n))
        return p, *((p + z * z / (2 * n) + side * half) / (1.0 + z * z / n) for side in (-1.0, 1.0))

    (p_1, low, _), (p_2, _, high) = limits(np.arange(n_1 + 1), n_1), limits(np.arange(n_2 + 1), n_2)
    below, above = (p_1 - np.maximum(low, 0.0))[:, None], (np.minimum(high, 1.0) - p_2)[None]
    place = p_1[:, None] - p_2[None] - np.hypot(below, above)
    larger, n, sign = (k_1, n_1, -1) if n_1 >= n_2 else (k_2, n_2, 1)
    rates = np.linspace(*stats.binomtest(larger, n).proportion_ci(1.0 - GIVEN * ours, method="exact"), 300)
    rates = rates[(rates + sign * value >= 0.0) & (rates + sign * value <= 1.0)]
    of = (rates, rates + sign * value) if n_1 >= n_2 else (rates + sign * value, rates)
    slow = probability((place >= place[k_1, k_2] - 1e-9).astype(np.float64), n_1, n_2, of) / (1.0 - GIVEN)
    assert 0.999 * slow <= ours <= 1.1 * slow


@pytest.mark.parametrize("n", [(20, 20), (30, 12), (15, 40)])
def test_p_values_are_near_those_of_boschloo_and_barnard(n: tuple[int, int]) -> None:
    """Other orders of the same tables, without an interval for the rate: each exact, none better everywhere."""
    of_boschloo, of_barnard = [], []
    for k_1, k_2 in itertools.product(range(2, n[0], 4), range(1, n[1], 3)):
        ours = TwoRates((k_1, n[0]), (k_2, n[1]), contrast="difference").p_value(0.0)
        if not 1e-4 < ours < 0.1:
            continue
        table = [[k_1, k_2], [n[0] - k_1, n[1] - k_2]]
        of_boschloo.append(ours / stats.boschloo_exact(table, alternative="greater", n=64).pvalue)
        # Its sign is the other way round: of the columns' difference.
        of_barnard.append(ours / stats.barnard_exact(table, alternative="greater", n=64).pvalue)
    for ratios in (of_boschloo, of_barnard):
        assert len(ratios) > 5
        assert 0.8 < float(np.median(ratios)) < 1.5
        assert min(ratios) < 1.0 and max(ratios) < 3.0


def test_the_table_of_the_mortgages() -> None:
    """578 of 602 against 83 of 112: whether they differ by more than 0.10."""
    corner = difference_bounds(np.asarray([578, 83]), n=np.asarray([602, 112]), alpha=0.00655 / 2)[0][0, 1]
    assert corner == pytest.approx(0.1, abs=1e-3)
    for estimate in (
        Difference(successes=(578, 83), n=(602, 112)),
        WorstDifference(tables=(RateTable(rate="r", successes=(578, 83), n=(602, 112)),)),
    ):
        assert 0.0006 < estimate.p_value(0.1, "greater") < 0.0009


# ---- rows needed ---------------------------------------------------------------------------------------------------


def power(n: int, rates: tuple[float, float], alpha: float, *, asked: str) -> float:
    """Exact probability that two groups of n rows are shown to differ by more than 0.10, or by at most that."""
    tables: dict[tuple[int, int], bool] = {}

    def shown(a: int, b: int) -> bool:
        if (a, b) not in tables:
            estimate = WorstDifference(tables=(RateTable(rate="r", successes=(a, b), n=(n, n)),))
            tables[a, b] = estimate.p_value(0.1, "greater" if asked == "FAIL" else "at_most") <= alpha
        return tables[a, b]

    def last(a: int, b: int, way: int) -> int:
        """The last count of the second group, from one that is shown, that way."""
        while 0 <= b + way <= n and shown(a, b + way):
            b += way
        return b

    found, ends = 0.0, None
    for a in range(*(int(stats.binom.ppf(tail, n, rates[0])) for tail in (1e-4, 1 - 1e-4))):
        if ends is None:
            ends = (0, 0) if asked == "FAIL" else (a, a)
        # From one count of the first group to the next the ends move by a count or two.
        start = max(ends[1] - 2, 0)
        ends = 0 if asked == "FAIL" else last(a, min(ends[0] + 2, a), -1), last(a, start if shown(a, start) else a, 1)
        found += stats.binom.pmf(a, n, rates[0]) * (
            stats.binom.cdf(ends[1], n, rates[1]) - stats.binom.cdf(ends[0] - 1, n, rates[1])
        )
    return float(found)


@pytest.mark.grid
@pytest.mark.parametrize(
    ("asked", "rates", "m", "rows"),
    [
        ("FAIL", (0.6, 0.4), 1, 656),
        ("FAIL", (0.6, 0.4), 8, 1187),
        ("FAIL", (0.95, 0.75), 8, 556),
        pytest.param("PASS", (0.5, 0.5), 1, 871, marks=pytest.mark.slow),
        pytest.param("PASS", (0.5, 0.5), 6, 1371, marks=pytest.mark.slow),
        pytest.param("PASS", (0.5, 0.5), 24, 1731, marks=pytest.mark.slow),
    ],
)
def test_so_many_rows_are_enough_for_eighty_percent(asked: str, rates: tuple[float, float], m: int, rows: int) -> None:
    assert power(math.floor(1.05 * rows / 2), rates, 0.05 / m, asked=asked) >= 0.80


# ---- the interval is the inverted test -----------------------------------------------------------------------------

counted = st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
contrasts: st.SearchStrategy[Contrast] = st.sampled_from(["difference", "ratio"])


@settings(max_examples=12, deadline=None, derandomize=True)
@example((13, 21), (15, 41), "ratio", False)
@given(counted, counted, contrasts, st.booleans())
def test_bounds_are_nested_and_p_values_rise_with_the_value(
    first: tuple[int, int], second: tuple[int, int], contrast: Contrast, either: bool
) -> None:
    test = TwoRates(first, second, contrast=contrast, either=either)
    one = pairs_of(*first, *second, contrast, either=either)
    none, least = (0.0, -1.0) if contrast == "difference" else (1.0, 0.0)
    least = none if either else least
    # The levels of both orders of tables, and those where the one ends and the other begins.
    levels = (0.5, 0.05, 5e-3, 4.9e-3, 1e-4, 9.9e-5, 1e-9)
    for bounds in ([test.lower_bound(a) for a in levels], [float(bounds_of_tails(one, a)[0]) for a in levels]):
        assert bounds == sorted(bounds, reverse=True)
        assert min(bounds) >= least
    values = np.linspace(least, 1.0 if contrast == "difference" else 4.0, 15)[either:-1]
    p = [test.p_value(float(v)) for v in values]
    assert p == sorted(p)
    for alpha in (0.05, 1e-3, 1e-5):
        shown = [bool(margins(one, v, alpha)[0] >= 0.0) for v in values]
        by_tails = float(bounds_of_tails(one, alpha)[0])
        assert shown == [bool(by_tails > v) for v in values]
        low = test.lower_bound(alpha)
        if low > least:
            assert test.p_value(low) <= alpha * (1 + 1e-6)
            assert test.p_value(low * (1 + 1e-6) + 1e-6) > alpha * (1 - 1e-6)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(counted, counted, st.sampled_from([0.05, 0.001]))
def test_a_difference_is_that_of_the_failures_turned_round(
    first: tuple[int, int], second: tuple[int, int], alpha: float
) -> None:
    (k_1, n_1), (k_2, n_2) = first, second
    turned = (n_2 - k_2, n_2), (n_1 - k_1, n_1)
    ours, theirs = (TwoRates(*pair, contrast="difference").lower_bound(alpha) for pair in ((first, second), turned))
    # Where the groups are of one size either's rate may be the second parameter.
    assert ours == pytest.approx(theirs, abs=1e-8 if n_1 != n_2 else 0.05)
    both = (pairs_of(*a, *b, "difference") for a, b in ((first, second), turned))
    ours, theirs = (float(bounds_of_tails(pair, alpha)[0]) for pair in both)
    assert ours == pytest.approx(theirs, abs=1e-8)


def tables_of(rng: np.random.Generator, rows: int, groups: int) -> list[tuple[np.ndarray, np.ndarray]]:
    found = []
    for _ in range(2):
        n = rng.multinomial(rows - groups, rng.dirichlet(np.full(groups, 3.0))) + 1
        found.append((rng.binomial(n, rng.uniform(0.3, 0.6, groups)), n))
    return found


@pytest.mark.parametrize("contrast", ["difference", "ratio"])
@pytest.mark.parametrize(("rows", "groups"), [(300, 3), (400, 8), (30_000, 6)])
def test_the_worst_of_many_pairs_is_found_among_all_of_them(rows: int, groups: int, contrast: Contrast) -> None:
    tables = tables_of(np.random.default_rng([rows, groups]), rows, groups)
    apart, ordered = pairs_apart(tables, contrast), ordered_pairs(tables, contrast)
    assert len(ordered) == 2 * len(apart) == 2 * groups * (groups - 1)
    null, value = (0.0, 0.05) if contrast == "difference" else (1.0, 1.1)
    for alpha in (0.05, 1e-3):
        assert largest_lower_bound(apart, alpha) == pytest.approx(lower_bounds(apart, alpha).max(), abs=1e-9)
        assert smallest_lower_bound(ordered, alpha) == pytest.approx(lower_bounds(ordered, alpha).min(), abs=1e-9)
    p = smallest_p_value(apart, value)
    if 1e-15 < p < 0.5:
        laxer, stricter = (float(lower_bounds(apart, p * (1.0 + by)).max()) for by in (1e-5, -1e-5))
        assert stricter - 1e-9 <= value <= laxer + 1e-9
    low = float(lower_bounds(ordered, 0.01).min())
    assert low < null
    assert largest_p_value(ordered, low) == pytest.approx(0.01, rel=1e-5)


@pytest.mark.parametrize("rows", [900, 60_000])
@pytest.mark.parametrize("make", [WorstDifference, WorstRatio])
def test_the_p_value_of_a_headline_is_where_its_bounds_reach(make: type[Any], rows: int) -> None:
    tables = tables_of(np.random.default_rng(rows), rows, 3)
    estimate = make(tables=tuple(RateTable(rate="r", successes=tuple(k), n=tuple(n)) for k, n in tables))
    for alpha in (0.05, 1e-3):
        low, high = estimate.bounds(alpha)
        for bound, side in ((low, "greater"), (low, "at_least"), (high, "less"), (high, "at_most")):
            if 0.0 < bound < 1.0:
                assert estimate.p_value(bound, side) == pytest.approx(alpha, rel=2e-6)


# ---- once for the one direction ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [300, 6_000])
def test_a_failure_pays_once_where_the_other_direction_is_out_of_reach(n: int) -> None:
    tables = [(np.asarray([round(0.75 * n), round(0.25 * n)]), np.asarray([n, n]))]
    apart, ordered = pairs_apart(tables, "difference"), ordered_pairs(tables, "difference").subset(np.arange(1))
    for value in (0.4, 0.42):
        assert smallest_p_value(apart, value) == pytest.approx(smallest_p_value(ordered, value), rel=2e-3)
    # Of no difference at all both directions are at the bound.
    level = smallest_p_value(ordered, 0.0)
    if level > 1e-15:
        assert smallest_p_value(apart, 0.0) == pytest.approx(2.0 * level, rel=0.25)


# ---- never wider, and quick ----------------------------------------------------------------------------------------


@pytest.mark.grid
@pytest.mark.parametrize("contrast", ["difference", "ratio"])
@pytest.mark.parametrize("alpha", [0.05, 0.002, 2e-4])
def test_bounds_are_narrower_than_the_corner_of_the_joint_region(contrast: Contrast, alpha: float) -> None:
    sizes = (60, 100, 300, 1000, 20_000)
    cases = [
        (round(n_1 * p), n_1, round(n_2 * q), n_2)
        for n_1, n_2 in itertools.product(sizes, sizes)
        for p, q in ((0.5, 0.5), (0.6, 0.4), (0.95, 0.75), (0.3, 0.1), (0.9, 0.9))
    ]
    of_corner = difference_bounds if contrast == "difference" else ratio_bounds
    widths: dict[str, list[float]] = {"enumerated": [], "tails": []}
    for k_1, n_1, k_2, n_2 in cases:
        corner = float(of_corner(np.asarray([k_1, k_2]), n=np.asarray([n_1, n_2]), alpha=alpha)[0][0, 1])
        bounds = {"tails": float(bounds_of_tails(pairs_of(k_1, n_1, k_2, n_2, contrast), alpha)[0])}
        if n_1 + n_2 <= 1_300:
            bounds["enumerated"] = TwoRates((k_1, n_1), (k_2, n_2), contrast=contrast).lower_bound(alpha)
        for way, low in bounds.items():
            ends = np.asarray([k_1 / n_1 - k_2 / n_2, low, corner])
            seen, ours, theirs = ends if contrast == "difference" else np.log([k_1 * n_2 / (n_1 * k_2), low, corner])
            widths[way].append((seen - ours) / (seen - theirs))
    # What the quantile of a normal is to that of the corner: 0.80 at 0.05, 0.88 at 0.002.
    least = float(-stats.norm.ppf(alpha)) / corner_radius(alpha)
    assert max(widths["enumerated"]) < (1.0 if alpha > 1e-3 else 1.06) and max(widths["tails"]) < 1.01
    assert float(np.median(widths["enumerated"])) < least + 0.03
    assert min(widths["tails"]) < least + 0.02


@pytest.mark.parametrize("rows", [100_000, 6_000_000])
def test_all_pairs_of_sixty_groups_take_no_more_than_a_second(rows: int) -> None:
    rng = np.random.default_rng(0)
    n = rng.multinomial(rows, rng.dirichlet(np.full(60, 3.0)))
    k = rng.binomial(n, 0.5)
    started = time.process_time()
    low = difference_lower_bounds(k, n=n, alpha=0.05 / 1_770)
    assert time.process_time() - started < 1.0
    assert low.shape == (60, 60) and all_of((low + low.T < 0.0)[~np.eye(60, dtype=bool)])
