"""The AUC and the true positive rate at a false positive rate: against slow arithmetic, sklearn, and the truth."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import TypeAdapter
from scipy.optimize import brentq
from scipy.stats import binom, norm
from sklearn.metrics import roc_auc_score

from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.intervals import area_reach
from auditor.statistics.rank_estimates import (
    AreaUnderCurve,
    Ranked,
    TruePositiveRateAt,
    area_under_curve,
    areas_of_groups,
    ascending,
    ascending_integers,
    placements,
    true_positive_rate_at,
)
from tests.statistics.worlds import WORLDS, areas, areas_of, most_misses

Scores = npt.NDArray[np.float64]
Shape = tuple[int, int]
World = Callable[[np.random.Generator, Shape, Shape], tuple[Scores, Scores]]

ALPHA = 0.05 / 4


def area_of(x: Scores, y: Scores) -> AreaUnderCurve | Undefined:
    return area_under_curve(positives=x, negatives=y)


def slow_auc(x: Scores, y: Scores) -> float:
    """The definition, one pair at a time."""
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in x for b in y) / (len(x) * len(y))


def slow_delong_variance(x: Scores, y: Scores) -> float:
    """DeLong's variance from the placements of single rows."""
    over = [slow_auc(np.asarray([a]), y) for a in x]
    under = [slow_auc(x, np.asarray([b])) for b in y]
    return float(np.var(over, ddof=1) / len(x) + np.var(under, ddof=1) / len(y))


@pytest.mark.parametrize("levels", [None, 2, 5])
def test_auc_agrees_with_the_double_loop_and_with_sklearn(levels: int | None) -> None:
    rng = np.random.default_rng(0)
    for m, n in ((2, 2), (7, 30), (60, 40)):
        x, y = rng.normal(0.5, 1.0, m), rng.normal(0.0, 1.0, n)
        if levels:
            x, y = np.floor(x * levels), np.floor(y * levels)
        estimate = area_under_curve(positives=x, negatives=y)
        assert isinstance(estimate, AreaUnderCurve)
        assert estimate.value == pytest.approx(slow_auc(x, y), abs=1e-12)
        assert estimate.value == pytest.approx(roc_auc_score(np.r_[np.ones(m), np.zeros(n)], np.r_[x, y]), abs=1e-12)
        assert estimate.standard_error**2 >= slow_delong_variance(x, y) - 1e-12


def searched(x: Scores, y: Scores) -> tuple[Scores, Scores]:
    """Placements by searching in the sorted other sample."""
    xs, ys = np.sort(x), np.sort(y)
    over = (np.searchsorted(ys, x, "left") + np.searchsorted(ys, x, "right")) / (2.0 * y.size)
    return over, 1.0 - (np.searchsorted(xs, y, "left") + np.searchsorted(xs, y, "right")) / (2.0 * x.size)


@pytest.mark.parametrize("m, n", [(2, 2), (3, 400), (400, 3), (200, 300)])
@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_placements_by_rank_are_those_by_searching_to_the_last_digit(m: int, n: int, decimals: int) -> None:
    rng = np.random.default_rng([m, n, decimals])
    values = rng.normal(size=m + n + 50).round(decimals)
    ranked = Ranked.from_values(values)
    np.testing.assert_array_equal(ranked.values, values)
    chosen = rng.permutation(len(values))
    first, second = chosen[:m], chosen[m : m + n]
    over, under = placements(
        positives=ranked.ranks[first], negatives=ranked.ranks[second], n_ranks=ranked.different.size
    )
    for found, slow in zip((over, under), searched(values[first], values[second]), strict=True):
        np.testing.assert_array_equal(found.shares, slow)
        assert found.mean_cube(0.3) == float(((slow - 0.3) ** 3).mean())
    assert ranked.area(positives=first, negatives=second) == area_of(values[first], values[second])


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_areas_of_groups_are_those_of_their_rows_to_the_last_digit(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    ranked = Ranked.from_values(rng.normal(size=700).round(decimals))
    # The second group is large, the third has a single positive, the fourth nobody.
    group = np.where(np.arange(700) < 650, rng.integers(0, 2, 700) | (rng.random(700) < 0.9), 2)
    favourable = np.append(rng.random(650) < 0.4, np.arange(50) < 1)
    found = areas_of_groups(
        positives=ranked.ranks[favourable], negatives=ranked.ranks[~favourable],
        of_positives=group[favourable], of_negatives=group[~favourable], groups=4, ranks=ranked.different.size,
    )  # fmt: skip
    for g, here in enumerate(found):
        own = group == g
        x, y, others, rest = own & favourable, own & ~favourable, ~own & favourable, ~own & ~favourable
        assert here.own == ranked.area(positives=x, negatives=y)
        assert here.outside_against_own == ranked.area(positives=others, negatives=y)
        assert here.own_against_outside == ranked.area(positives=x, negatives=rest)
    assert g == 3 and isinstance(here.own, Undefined)


def _near(rng: np.random.Generator) -> Scores:
    """Numbers that differ in their last bits alone, in two crowds far apart."""
    return np.asarray((1.0 + rng.integers(0, 300, 4_000) * 2.0**-52) * rng.choice([1e-300, -1e300], 4_000))


@pytest.mark.parametrize(
    "drawn",
    [
        _near,
        lambda rng: 1.0 / (1.0 + np.exp(-rng.normal(size=4_000))),
        lambda rng: rng.integers(-2, 3, 4_000) / 2.0,
        lambda rng: np.asarray([np.inf, 0.0, -0.0, -np.inf, 5e-324, -5e-324, 1.0, 0.0]),
        lambda rng: np.full(3, 0.25),
        lambda rng: np.empty(0),
    ],
)
def test_ranks_by_counting_bits_are_those_of_a_sort(drawn: Callable[[np.random.Generator], Scores]) -> None:
    values = drawn(np.random.default_rng(0))
    different, ranks = np.unique(values, return_inverse=True)
    ranked = Ranked.from_values(values)
    assert np.array_equal(ranked.different, different) and np.array_equal(ranked.ranks, ranks)
    order = ascending(values)
    assert np.array_equal(values[order], np.sort(values)) and np.array_equal(np.sort(order), np.arange(values.size))


def test_standard_error_is_delongs_where_that_is_the_larger() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(0.3, 3.0, 80), rng.normal(0.0, 1.0, 80)
    estimate = area_under_curve(positives=x, negatives=y)
    assert isinstance(estimate, AreaUnderCurve)
    assert estimate.standard_error**2 == pytest.approx(slow_delong_variance(x, y), rel=1e-9)


def test_planning_uses_the_exact_variance_of_the_null() -> None:
    estimate = area_under_curve(positives=np.arange(30.0), negatives=np.arange(20.0) + 0.5)
    assert estimate.standard_error_at(0.5) == pytest.approx(math.sqrt((30 + 20 + 1) / (12 * 30 * 20)))


def test_fewer_than_two_rows_or_scores_that_are_no_numbers_are_undefined() -> None:
    assert isinstance(area_under_curve(positives=[], negatives=[1.0, 2.0]), Undefined)
    assert isinstance(area_under_curve(positives=[1.0], negatives=[1.0, 2.0]), Undefined)
    assert isinstance(area_under_curve(positives=[1.0, math.nan], negatives=[1.0, 2.0]), Undefined)


@pytest.mark.parametrize(
    "estimate",
    [
        area_under_curve(positives=[1.0, 2.0, 4.0], negatives=[0.0, 2.0]),
        true_positive_rate_at(positives=np.arange(9.0), negatives=np.arange(200.0), false_positive_rate=0.01),
    ],
)
def test_estimates_survive_json_and_nest(estimate: AreaUnderCurve | TruePositiveRateAt) -> None:
    adapter: TypeAdapter[AnyEstimate] = TypeAdapter(AnyEstimate)
    again = adapter.validate_json(estimate.model_dump_json())
    assert again == estimate
    bounds = [again.bounds(alpha) for alpha in (0.5, 0.1, 0.05, 0.01, 1e-4, 1e-8)]
    for (low, high), (wider_low, wider_high) in pairwise(bounds):
        assert wider_low <= low and high <= wider_high


# ---- worlds whose true AUC is known ---------------------------------------------------------------------------------


@cache
def _five_levels(auc: float) -> float:
    """The power k at which ``floor(5 U^(1/k))`` beats ``floor(5 U)`` with this AUC, ties counted half."""

    def of(k: float) -> float:
        p = np.diff((np.arange(6) / 5) ** k)
        return float((p * (np.arange(5) + 0.5) / 5).sum())

    return float(brentq(lambda k: of(k) - auc, 0.1, 100.0))


def worlds(auc: float) -> dict[str, World]:
    """Pairs of samples with P(x > y) + P(tie) / 2 = auc: skewed, of unequal spread, mixed, and tied."""
    d, gap = float(norm.ppf(auc)), 2.0 * auc - 1.0
    k = auc / (1.0 - auc)
    found: dict[str, World] = {
        "normal": lambda r, m, n: (r.normal(d * 2**0.5, 1.0, m), r.normal(0.0, 1.0, n)),
        "members spread": lambda r, m, n: (r.normal(d * 10**0.5, 3.0, m), r.normal(0.0, 1.0, n)),
        "members narrow": lambda r, m, n: (r.normal(d * (10 / 9) ** 0.5, 1 / 3, m), r.normal(0.0, 1.0, n)),
        "skewed (Lehmann)": lambda r, m, n: (r.random(m) ** (1 / k), r.random(n)),
        "few victims": lambda r, m, n: (r.random(m) + 10.0 * (r.random(m) < gap), r.random(n)),
    }
    if auc < 0.7:
        found |= {
            "decisions": lambda r, m, n: ((r.random(m) < 0.5 + gap) * 1.0, (r.random(n) < 0.5) * 1.0),
            "decisions, accurate": lambda r, m, n: ((r.random(m) < 0.97) * 1.0, (r.random(n) < 0.97 - gap) * 1.0),
            "five levels": lambda r, m, n: (
                np.floor(5 * r.random(m) ** (1 / _five_levels(auc))),
                np.floor(5 * r.random(n)),
            ),
        }
    return found


def bounds_in_worlds(draw: World, rng: np.random.Generator, m: int, n: int, *alphas: float) -> Scores:
    """(n_worlds, n_alphas, 2): what the estimates of all worlds say, computed at once and compared with some."""
    found = []
    for _ in range(4):
        x, y = draw(rng, (WORLDS // 4, m), (WORLDS // 4, n))
        auc, error, third = (column[:, None] for column in areas(x, y))
        size = {"n_positive": m, "n_negative": n, "alpha": np.asarray(alphas)}
        down, up = (
            area_reach(standard_error=error, third_cumulant=sign * third, room=room, **size)
            for sign, room in ((-1.0, auc), (1.0, 1.0 - auc))
        )
        bounds = np.stack([np.maximum(auc - down, 0.0), np.minimum(auc + up, 1.0)], axis=2)
        said = [estimate.many_bounds(np.asarray(alphas)) for estimate in areas_of(x[:10], y[:10])]
        np.testing.assert_allclose(bounds[:10], said, rtol=1e-12, atol=1e-12)
        found.append(bounds)
    return np.concatenate(found)


def assert_kept(bounds: Scores, truth: float, *alphas: float) -> None:
    assert bounds.shape == (WORLDS, len(alphas), 2)
    for a, alpha in enumerate(alphas):
        assert (bounds[:, a, 0] > truth).sum() <= most_misses(alpha)
        assert (bounds[:, a, 1] < truth).sum() <= most_misses(alpha)


@pytest.mark.grid
@pytest.mark.parametrize(("m", "n"), [(100, 100), (300, 700), pytest.param(2000, 2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("world", worlds(0.55))
@pytest.mark.parametrize("auc", [0.5, 0.55])
def test_auc_bounds_keep_their_promise(auc: float, world: str, m: int, n: int) -> None:
    rng = np.random.default_rng([m, n, *world.encode()])
    assert_kept(bounds_in_worlds(worlds(auc)[world], rng, m, n, ALPHA), auc, ALPHA)


@pytest.mark.grid
@pytest.mark.parametrize(("auc", "m", "n"), [(0.9, 100, 100), (0.95, 400, 40), (0.98, 20, 20), (0.98, 40, 400)])
@pytest.mark.parametrize("world", worlds(0.98))
def test_a_separation_of_few_rows_is_not_certain(auc: float, world: str, m: int, n: int) -> None:
    """Without the exact bounds near 1, up to 46 % of these lower bounds lie above the truth."""
    rng = np.random.default_rng([m, n, *world.encode()])
    assert_kept(bounds_in_worlds(worlds(auc)[world], rng, m, n, ALPHA), auc, ALPHA)


def test_a_perfect_separation_is_bounded_by_the_smaller_side() -> None:
    low, high = area_under_curve(positives=np.arange(20.0) + 100, negatives=np.arange(400.0) / 10).bounds(ALPHA)
    # Clopper and Pearson's bound of 20 trials, and a little for the other side.
    assert ALPHA ** (1 / 20) - 0.03 < low < ALPHA ** (1 / 20)
    assert high == 1.0


@cache
def _of_two_values(m: int, n: int, alphas: tuple[float, ...]) -> tuple[Scores, Scores]:
    """Both bounds, each (m + 1, n + 1, n_alphas), of every sample of scores of 0 and 1: i of m positives, j of n."""
    found = np.empty((m + 1, n + 1, len(alphas), 2))
    for i in range(m + 1):
        for j in range(n + 1):
            scores = (np.arange(m) < i).astype(float), (np.arange(n) < j).astype(float)
            found[i, j] = area_of(*scores).many_bounds(np.asarray(alphas))
    return found[..., 0], found[..., 1]


@pytest.mark.grid
@pytest.mark.parametrize(("m", "n"), [(5, 100), (20, 20), (15, 150), (100, 20), (60, 60)])
@pytest.mark.parametrize("auc", [0.5, 0.7, 0.9, 0.97, 0.99, 1.0])
def test_scores_of_two_values_are_enumerated(auc: float, m: int, n: int) -> None:
    """The exact probability of a miss, at the level of one judgement and of one among m, wherever ties may lie."""
    alphas = (0.05, 0.05 / 10, 0.05 / 100)
    low, high = _of_two_values(m, n, alphas)
    gap = 2.0 * auc - 1.0
    for q in np.unique(np.r_[np.linspace(0.0, 1.0 - gap, 31), (1.0 - gap) * np.asarray([0.003, 0.01, 0.99, 0.997])]):
        weight = np.outer(binom.pmf(np.arange(m + 1), m, min(q + gap, 1.0)), binom.pmf(np.arange(n + 1), n, q))
        for a, alpha in enumerate(alphas):
            assert weight[low[..., a] > auc + 1e-12].sum() <= alpha
            assert weight[high[..., a] < auc - 1e-12].sum() <= alpha


@pytest.mark.grid
@pytest.mark.parametrize(("m", "n"), [(20, 400), (100, 100), (400, 20)])
@pytest.mark.parametrize(("auc", "world"), [(auc, world) for auc in (0.5, 0.9, 0.99) for world in worlds(auc)])
def test_few_rows_of_either_side_at_the_level_of_many_judgements(auc: float, world: str, m: int, n: int) -> None:
    rng = np.random.default_rng([m, n, int(auc * 100), *world.encode()])
    assert_kept(bounds_in_worlds(worlds(auc)[world], rng, m, n, 0.05, 0.005), auc, 0.05, 0.005)


def test_many_rows_pay_little_for_what_was_not_seen() -> None:
    """Within 6 % of the width of a normal interval with the exact variance of the null."""
    rng = np.random.default_rng(5)
    low, high = area_under_curve(positives=rng.normal(size=2000), negatives=rng.normal(size=2000)).bounds(0.005)
    assert high - low < 1.06 * 2.0 * float(norm.isf(0.005)) * math.sqrt(4001 / (12 * 2000 * 2000))


# ---- the true positive rate at a false positive rate ---------------------------------------------------------------


@pytest.mark.parametrize("levels", [None, 40])
def test_tpr_value_agrees_with_a_slow_search(levels: int | None) -> None:
    rng = np.random.default_rng(3)
    for m, n, f in ((50, 100, 0.01), (80, 1000, 0.01), (80, 3000, 0.001), (80, 250, 0.1)):
        x, y = rng.normal(1.0, 1.0, m), rng.normal(0.0, 1.0, n)
        if levels:
            x, y = np.floor(x * levels), np.floor(y * levels)
        best = max(
            (float((x > t).mean()) for t in np.r_[y, -np.inf] if (y > t).sum() <= n * f + 1e-9),
            default=math.nan,
        )
        assert true_positive_rate_at(positives=x, negatives=y, false_positive_rate=f).value == pytest.approx(best)


def test_tpr_is_undefined_where_less_than_one_negative_is_expected() -> None:
    assert math.isnan(
        true_positive_rate_at(positives=np.arange(50.0), negatives=np.arange(99.0), false_positive_rate=0.01).value
    )
    assert true_positive_rate_at(positives=[], negatives=np.arange(200.0), false_positive_rate=0.01).bounds(0.05) == (
        0.0,
        1.0,
    )
    assert true_positive_rate_at(positives=np.arange(50.0), negatives=[], false_positive_rate=0.01).bounds(0.05) == (
        0.0,
        1.0,
    )


def test_tpr_keeps_as_many_counts_as_any_bound_reaches() -> None:
    rng = np.random.default_rng(4)
    for n, f in ((500, 0.001), (1000, 0.01), (40_000, 0.01), (2000, 0.3)):
        x, y = rng.normal(0.5, 1.0, 300), rng.normal(0.0, 1.0, n)
        kept = true_positive_rate_at(positives=x, negatives=y, false_positive_rate=f)
        everything = kept.model_copy(update={"members_above": tuple(int((x > t).sum()) for t in np.sort(y)[::-1])})
        for alpha in (0.4, 0.05, 0.0125, 1e-6, 1e-16):
            assert kept.bounds(alpha) == everything.bounds(alpha)


@pytest.mark.grid
@pytest.mark.parametrize(("m", "n", "f"), [(200, 1000, 0.01), (1000, 2000, 0.01), (200, 300, 0.01), (500, 3000, 0.001)])
@pytest.mark.parametrize("levels", [None, 4])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_tpr_bounds_keep_their_promise(m: int, n: int, f: float, levels: int | None, shift: float) -> None:
    """Scores floored to quarters are tied; the true threshold is the smallest that at most f of negatives exceed."""
    rng = np.random.default_rng([m, n, levels or 0, int(shift)])
    threshold = float(norm.isf(f))
    if levels:
        threshold = math.ceil(threshold * levels) / levels
    truth = float(norm.sf(threshold - shift))
    low_misses = high_misses = 0
    for _ in range(WORLDS):
        x, y = rng.normal(shift, 1.0, m), rng.normal(0.0, 1.0, n)
        if levels:
            x, y = np.floor(x * levels) / levels, np.floor(y * levels) / levels
        low, high = true_positive_rate_at(positives=x, negatives=y, false_positive_rate=f).bounds(ALPHA)
        low_misses += low > truth
        high_misses += high < truth
    assert low_misses <= most_misses(ALPHA)
    assert high_misses <= most_misses(ALPHA)


@pytest.mark.parametrize("largest", [1, 70_000, 1 << 40, (1 << 64) - 1])
def test_integers_are_ordered_as_a_stable_sort_orders_them(largest: int) -> None:
    values = np.random.default_rng(0).integers(0, largest, 3_000, np.uint64, endpoint=True)
    values[::7] = values[5]
    assert np.array_equal(ascending_integers(values), np.argsort(values, kind="stable"))


@pytest.mark.parametrize("groups", [2, 3])
def test_areas_of_groups_are_those_of_their_rows(groups: int) -> None:
    """Of two groups the second's areas are the first's, the other way round."""
    rng = np.random.default_rng(2)
    x, y, of_x, of_y = (rng.integers(0, k, n) for k, n in ((40, 300), (40, 500), (groups, 300), (groups, 500)))
    found = areas_of_groups(positives=x, negatives=y, of_positives=of_x, of_negatives=of_y, groups=groups, ranks=40)
    for g, own in enumerate(found):
        assert own.outside_against_own == area_under_curve(positives=x[of_x != g], negatives=y[of_y == g])
        assert own.own_against_outside == area_under_curve(positives=x[of_x == g], negatives=y[of_y != g])
        assert own.own == area_under_curve(positives=x[of_x == g], negatives=y[of_y == g])
    assert g == groups - 1
