"""The statistics, each held to an independent computation, and every bound's promise enumerated outcome by outcome."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from auditor.core.rows import FloatArray, IntArray
from auditor.statistics import intervals
from auditor.statistics.combined_tails import Contrast, Pairs, lower_bounds
from auditor.statistics.estimate import (
    POWER,
    Z_POWER,
    Estimate,
    Exact,
    Side,
    Undefined,
    minimum_detectable_effect,
    n_required,
)
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.groups import WorstDifference, WorstRatio
from auditor.statistics.intervals import (
    clopper_pearson,
    corner_radius,
    difference_bounds,
    rate_limits,
    ratio_bounds,
)
from auditor.statistics.means import StudentT, mean, ratio_of_means
from auditor.statistics.rank_estimates import Quantile, quantile
from auditor.statistics.rate_pairs import MOST_PAIRS, TwoRates
from auditor.statistics.rates import Proportion, RateTable
from auditor.statistics.significance_tests import Multiplicity, adjusted_levels

ANY: TypeAdapter[AnyEstimate] = TypeAdapter(AnyEstimate)
ALPHAS = (0.05, 0.01, 0.001, 0.0001)
PAIRS = ((1, 50), (5, 5), (5, 200), (20, 500), (50, 50), (100, 1000), (339, 2041))


# ---- one proportion ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7, 50, 2380])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_proportion_bounds_are_those_of_statsmodels(n: int, alpha: float) -> None:
    k = np.unique(np.linspace(0, n, 30).astype(int))
    theirs = proportion_confint(k, n, alpha=2 * alpha, method="beta")
    np.testing.assert_allclose(clopper_pearson(k, n=n, alpha=alpha), theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("k", "n"), [(0, 9), (3, 9), (9, 9), (70, 200)])
def test_clopper_pearson_inverts_the_exact_test(k: int, n: int) -> None:
    interval = stats.binomtest(k, n).proportion_ci(0.998, method="exact")
    np.testing.assert_allclose(Proportion(successes=k, n=n).interval(0.998), interval, rtol=1e-9)
    for p0 in (0.01, 0.2, 0.34, 0.6, 0.99):
        above = stats.binomtest(k, n, p0, alternative="greater").pvalue
        ours = Proportion(successes=k, n=n).p_value(p0, "greater")
        assert ours == (1.0 if above > 0.5 else pytest.approx(max(above, 1e-16), rel=1e-5))


def test_nothing_is_known_of_no_rows() -> None:
    assert math.isnan(Proportion(successes=0, n=0).value)
    assert Proportion(successes=0, n=0).bounds(0.001) == (0.0, 1.0)


# ---- two proportions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.4, *ALPHAS, 1e-8])
def test_corner_radius_is_a_chi_bar_square_quantile(alpha: float) -> None:
    t2 = corner_radius(alpha) ** 2
    tail = 0.5 * stats.chi2.sf(t2, 1) + 0.25 * stats.chi2.sf(t2, 2)
    assert tail == pytest.approx(alpha, rel=1e-9)


def test_corner_radius_is_what_it_says_of_two_normals() -> None:
    z = np.maximum(np.random.default_rng(0).standard_normal((2, 400_000)), 0.0)
    for alpha in (0.2, 0.05):
        assert (np.square(z).sum(axis=0) > corner_radius(alpha) ** 2).mean() == pytest.approx(alpha, rel=0.03)


@cache
def exact_matrices(n1: int, n2: int, alpha: float) -> tuple[np.ndarray, ...]:
    """Bounds (n1 + 1, n2 + 1) of the difference and the ratio for every outcome."""
    n = np.concatenate([np.full(n1 + 1, n1), np.full(n2 + 1, n2)])
    lower, upper = rate_limits(np.concatenate([np.arange(n1 + 1), np.arange(n2 + 1)]), n=n, alpha=alpha)
    (l1, l2), (u1, u2) = (np.split(x, [n1 + 1], axis=1) for x in (lower, upper))
    low, high = np.full((n1 + 1, n2 + 1), np.inf), np.full((n1 + 1, n2 + 1), -np.inf)
    ratio_low, ratio_high = low.copy(), high.copy()
    with np.errstate(divide="ignore", invalid="ignore"):
        for a in range(len(lower)):
            high = np.maximum(high, u1[a][:, None] - l2[-1 - a])
            low = np.minimum(low, l1[a][:, None] - u2[-1 - a])
            ratio_high = np.maximum(ratio_high, np.where(l2[-1 - a] > 0, u1[a][:, None] / l2[-1 - a], np.inf))
            ratio_low = np.minimum(ratio_low, l1[a][:, None] / u2[-1 - a])
    return low, high, ratio_low, ratio_high


def test_the_enumerated_bounds_are_the_functions_own() -> None:
    low, high, ratio_low, ratio_high = exact_matrices(5, 200, 0.01)
    for k1, k2 in ((0, 0), (0, 200), (5, 3), (2, 77), (5, 200)):
        k, n = np.array([k1, k2]), np.array([5, 200])
        assert [b[0, 1] for b in difference_bounds(k, n=n, alpha=0.01)] == pytest.approx([low[k1, k2], high[k1, k2]])
        assert [b[0, 1] for b in ratio_bounds(k, n=n, alpha=0.01)] == pytest.approx(
            [ratio_low[k1, k2], ratio_high[k1, k2]]
        )


def miss_rate(n1: int, n2: int, missed: np.ndarray, p1: float, p2: float) -> float:
    """Exact probability of an outcome in ``missed`` (n1 + 1, n2 + 1)."""
    first = stats.binom.pmf(np.arange(n1 + 1), n1, p1)
    return float(first @ missed @ stats.binom.pmf(np.arange(n2 + 1), n2, p2))


def rate_pairs(difference: float, points: int) -> list[tuple[float, float]]:
    return [(p, p - difference) for p in np.linspace(max(0.0, difference), min(1.0, 1.0 + difference), points)]


@pytest.mark.grid
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(("n1", "n2"), PAIRS)
def test_difference_and_ratio_bounds_miss_no_more_than_they_may(n1: int, n2: int, alpha: float) -> None:
    low, high, ratio_low, ratio_high = exact_matrices(n1, n2, alpha)
    points = 31 if n2 > 1000 else 61
    worst = 0.0
    for d in (-0.1, 0.0, 0.1):
        for p1, p2 in rate_pairs(d, points):
            for missed in (high < d - 1e-12, low > d + 1e-12):
                worst = max(worst, miss_rate(n1, n2, missed, p1, p2))
    for ratio in (1.25, 1.0, 0.8):
        for p1 in np.linspace(0.0, min(1.0, ratio), points):
            for missed in (ratio_high < ratio * (1 - 1e-12), ratio_low > ratio * (1 + 1e-12)):
                worst = max(worst, miss_rate(n1, n2, missed, p1, min(p1 / ratio, 1.0)))
    # The grid of angles and the discreteness of counts both have room in this, and more.
    assert worst <= 0.4 * alpha


def wilson(k: IntArray, *, n: int, alpha: float) -> tuple[FloatArray, FloatArray]:
    low, high = proportion_confint(k, n, alpha=2 * alpha, method="wilson")
    return np.asarray(low, np.float64), np.asarray(high, np.float64)


def mover(n1: int, n2: int, alpha: float, limits: Callable[..., Any]) -> tuple[np.ndarray, np.ndarray]:
    """Newcombe's construction with any limits of one proportion, for every outcome."""
    (l1, u1), (l2, u2) = limits(np.arange(n1 + 1), n=n1, alpha=alpha), limits(np.arange(n2 + 1), n=n2, alpha=alpha)
    p1, p2 = np.arange(n1 + 1) / n1, np.arange(n2 + 1) / n2
    d = p1[:, None] - p2
    return d - np.hypot((p1 - l1)[:, None], u2 - p2), d + np.hypot((u1 - p1)[:, None], p2 - l2)


@pytest.mark.parametrize(
    ("n1", "n2", "alpha", "limits", "times"),
    [
        (5, 200, 0.001, wilson, 33.0),
        (100, 1000, 0.001, wilson, 5.0),
        (5, 200, 0.001, clopper_pearson, 8.0),
        (100, 1000, 0.001, clopper_pearson, 2.4),
    ],
)
def test_newcombe_misses_as_often_as_the_module_says(
    n1: int, n2: int, alpha: float, limits: Callable[..., Any], times: float
) -> None:
    low, high = mover(n1, n2, alpha, limits)
    if limits is wilson:
        theirs = confint_proportions_2indep(2, n1, 7, n2, method="newcomb", compare="diff", alpha=2 * alpha)
        assert theirs == pytest.approx((low[2, 7], high[2, 7]), abs=1e-12)
    worst = max(
        miss_rate(n1, n2, missed, p1, p2)
        for d in (0.0, 0.1)
        for p1, p2 in rate_pairs(d, 201)
        for missed in (high < d - 1e-12, low > d + 1e-12)
    )
    assert worst / alpha == pytest.approx(times, rel=0.05)


def test_twenty_five_angles_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    k, n = np.array([0, 1, 3, 40, 77, 150, 995]), np.array([5, 9, 50, 100, 77, 1000, 1000])
    few = {alpha: difference_bounds(k, n=n, alpha=alpha)[1] for alpha in ALPHAS}
    monkeypatch.setattr(intervals, "ANGLES", np.linspace(0.0, np.pi / 2, 4801))
    for alpha, high in few.items():
        fine = difference_bounds(k, n=n, alpha=alpha)[1]
        half_width = fine - (k / n)[:, None] + (k / n)
        off = ~np.eye(k.size, dtype=bool)
        assert (fine >= high).all()
        assert ((fine - high)[off] <= 0.0015 * half_width[off]).all()


# ---- the worst of several groups -----------------------------------------------------------------------------------


def table(k: Any, n: Any) -> RateTable:
    return RateTable(rate="r", successes=tuple(map(int, k)), n=tuple(map(int, n)))


groups = st.lists(
    st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=2, max_size=6
)
tables = groups.map(lambda g: table(*zip(*g, strict=True)))
worst = st.one_of(
    tables.map(lambda t: WorstDifference(tables=(t,))),
    tables.map(lambda t: WorstRatio(tables=(t,))),
    tables.map(lambda t: WorstDifference(tables=(t, table(reversed(t.successes), reversed(t.n))))),
)
estimates: st.SearchStrategy[Estimate] = st.one_of(
    worst,
    st.integers(0, 60).flatmap(lambda n: st.builds(Proportion, successes=st.integers(0, n), n=st.just(n))),
    st.builds(
        StudentT,
        centre=st.floats(0.01, 0.99),
        standard_error=st.floats(0.0, 0.3),
        degrees_of_freedom=st.floats(1.0, 200.0),
        scale=st.sampled_from(["identity", "logit"]),
        lower_limit=st.just(0.0),
        upper_limit=st.just(1.0),
    ),
    st.lists(st.floats(0.0, 1.0), max_size=40).map(lambda v: quantile(v, 0.9)),
    st.floats(0.0, 1.0).map(lambda x: Exact(known=x)),
    st.just(Undefined(reason="nothing there")),
)


@pytest.mark.parametrize("n_groups", [2, 3, 10])
def test_the_worst_is_found_by_looking_at_every_pair(n_groups: int) -> None:
    rng = np.random.default_rng(n_groups)
    for _ in range(5 if n_groups < 10 else 1):
        n = rng.integers(1, 300, n_groups)
        k = rng.binomial(n, rng.uniform(0.1, 0.9))
        p = k / n
        difference, ratio = WorstDifference(tables=(table(k, n),)), WorstRatio(tables=(table(k, n),))
        assert difference.value == pytest.approx(max(a - b for a in p for b in p), abs=1e-15)
        if p.max() > 0:
            assert ratio.value == pytest.approx(min(a / b for a in p for b in p if b > 0), abs=1e-15)
        ordered = [(i, j) for i in range(n_groups) for j in range(n_groups) if i != j]
        for alpha in (0.05, 0.001):
            of_both = alpha / (len(ordered) / 2)
            low = max(lower(k, n, i, j, "difference", of_both, either=True) for i, j in ordered if p[i] >= p[j])
            high = max(-lower(k, n, j, i, "difference", alpha) for i, j in ordered)
            assert difference.bounds(alpha) == pytest.approx((max(low, 0.0), min(max(high, 0.0), 1.0)), abs=1e-9)
            low = min(lower(k, n, i, j, "ratio", alpha) for i, j in ordered)
            high = min(1.0 / lower(k, n, i, j, "ratio", of_both, either=True) for i, j in ordered if p[i] >= p[j])
            assert ratio.bounds(alpha) == pytest.approx((min(low, 1.0), min(high, 1.0)), abs=1e-9)


def lower(
    k: np.ndarray, n: np.ndarray, i: int, j: int, contrast: Contrast, alpha: float, *, either: bool = False
) -> float:
    """A lower bound of the difference or ratio of two groups, by the test that their number calls for."""
    if len(n) * (len(n) - 1) // 2 <= MOST_PAIRS:
        test = TwoRates((int(k[i]), int(n[i])), (int(k[j]), int(n[j])), contrast=contrast, either=either)
        return test.lower_bound(alpha)
    counts = (np.asarray([float(x)]) for x in (k[i], n[i], k[j], n[j]))
    k_1, n_1, k_2, n_2 = counts
    pair = Pairs(contrast=contrast, k_1=k_1, n_1=n_1, k_2=k_2, n_2=n_2, either=either)
    return float(lower_bounds(pair, alpha)[0])


def test_one_group_compares_with_nothing() -> None:
    for estimate in (WorstDifference(tables=(table([3], [9]),)), WorstRatio(tables=(table([3], [9]),))):
        assert math.isnan(estimate.value)
        assert estimate.bounds(0.05) == (0.0, 1.0)
        assert estimate.p_value(0.5, "less") == estimate.p_value(0.5, "greater") == 1.0


def test_an_empty_group_is_unknown_and_hides_nothing() -> None:
    whole, holed = table([200, 40], [400, 400]), table([200, 40, 0], [400, 400, 0])
    estimate = WorstDifference(tables=(holed,))
    assert math.isnan(estimate.value)
    low, high = estimate.bounds(0.001)
    assert high == 1.0
    # A maximum over all groups is no smaller than one over those with rows.
    assert low == WorstDifference(tables=(whole,)).bounds(0.001)[0] > 0.1
    ratio = WorstRatio(tables=(holed,))
    assert math.isnan(ratio.value)
    assert ratio.bounds(0.001) == (0.0, WorstRatio(tables=(whole,)).bounds(0.001)[1])


def test_no_successes_anywhere() -> None:
    t = table([0, 0], [300, 500])
    assert WorstDifference(tables=(t,)).value == 0.0
    assert math.isnan(WorstRatio(tables=(t,)).value)
    assert WorstRatio(tables=(t,)).bounds(0.01) == (0.0, 1.0)
    # whichever table it is that has no ratio
    other = table([10, 20], [300, 500])
    assert math.isnan(WorstRatio(tables=(t, other)).value)
    assert math.isnan(WorstRatio(tables=(other, t)).value)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(estimates, st.floats(1e-6, 0.25), st.floats(1.1, 2.0))
def test_bounds_are_nested_and_hold_the_estimate(estimate: Estimate, alpha: float, factor: float) -> None:
    low, high = estimate.bounds(alpha)
    closer_low, closer_high = estimate.bounds(alpha * factor)
    assert low <= closer_low + 1e-12
    assert high >= closer_high - 1e-12
    if not math.isnan(estimate.value):
        assert low <= estimate.value + 1e-12
        assert estimate.value - 1e-12 <= high


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    estimates, st.floats(0.02, 0.98), st.floats(1e-5, 0.4), st.sampled_from(["greater", "less", "at_most", "at_least"])
)
def test_p_value_is_at_most_alpha_where_the_bound_excludes(
    estimate: Estimate, bound: float, alpha: float, side: Side
) -> None:
    low, high = estimate.bounds(alpha)
    shown = {"greater": low > bound, "at_least": low >= bound, "less": high < bound, "at_most": high <= bound}[side]
    p = estimate.p_value(bound, side)
    assert 1e-16 <= p <= 1.0
    if p != pytest.approx(alpha, rel=2e-6):
        assert shown == (p <= alpha)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(estimates)
def test_an_estimate_survives_the_report(estimate: Estimate) -> None:
    again = ANY.validate_json(ANY.dump_json(estimate))  # type: ignore[arg-type]
    assert type(again) is type(estimate)
    for alpha in (0.05, 0.001):
        assert again.bounds(alpha) == estimate.bounds(alpha)
    assert again.value == pytest.approx(estimate.value, rel=0.0, abs=0.0, nan_ok=True)


@pytest.mark.parametrize(
    "impossible",
    [
        {"kind": "proportion", "successes": 3, "n": 2},
        {"kind": "proportion", "successes": -1, "n": 2},
        {"kind": "exact", "known": "nan"},
        {"kind": "worst_difference", "tables": []},
        {"kind": "worst_difference", "tables": [{"rate": "r", "successes": [1, 5], "n": [4, 4]}]},
        {"kind": "worst_difference", "tables": [{"rate": "r", "successes": [1], "n": [4, 4]}]},
        {"kind": "quantile", "level": 0.5, "values": [1.0], "extra": 1},
        {"kind": "ratio_to_largest", "table": {"rate": "r", "successes": [1, 2], "n": [4, 4]}, "index": 2},
        {"kind": "no such kind"},
    ],
)
def test_an_impossible_estimate_is_refused(impossible: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ANY.validate_python(impossible)


def test_what_is_known_is_known_at_every_level() -> None:
    zero = Exact(known=0.0)
    assert zero.p_value(0.0, "at_most") == 1e-16
    assert zero.p_value(0.0, "greater") == 1.0
    assert Exact(known=1.0).p_value(0.0, "greater") == 1e-16


def test_a_confidence_is_a_share() -> None:
    with pytest.raises(ValueError, match="confidence"):
        Exact(known=0.0).interval(1.0)
    assert Proportion(successes=3, n=9).interval(0.9) == pytest.approx(Proportion(successes=3, n=9).bounds(0.05))


# ---- means and quantiles -------------------------------------------------------------------------------------------


def test_mean_is_student_s() -> None:
    x = np.random.default_rng(0).exponential(size=23)
    theirs = stats.ttest_1samp(x, 0.7).confidence_interval(0.98)
    assert mean(x).interval(0.98) == pytest.approx(tuple(theirs), rel=1e-9)
    p = stats.ttest_1samp(x, 0.7, alternative="greater").pvalue
    assert mean(x).p_value(0.7, "greater") == pytest.approx(p, rel=1e-5)
    assert mean([0.1, 0.9], low=0.0, high=1.0).bounds(0.001) == (0.0, 1.0)
    assert isinstance(mean([1.0]), Undefined)
    assert isinstance(mean([1.0, math.nan]), Undefined)


def test_ratio_of_means_agrees_with_the_jackknife() -> None:
    rng = np.random.default_rng(1)
    whole = rng.exponential(size=800)
    part = whole * rng.beta(2, 5, size=800)
    ours = ratio_of_means(numerator=part, denominator=whole)
    assert isinstance(ours, StudentT)
    left_out = (part.sum() - part) / (whole.sum() - whole)
    jackknife = math.sqrt((799 / 800) * np.square(left_out - left_out.mean()).sum())
    assert ours.value == pytest.approx(part.sum() / whole.sum(), rel=1e-12)
    assert ours.standard_error == pytest.approx(jackknife, rel=0.01)
    low, high = ours.bounds(0.001)
    assert 0.0 < low < ours.value < high < 1.0
    assert isinstance(ratio_of_means(numerator=[0.0, 0.0], denominator=[0.0, 0.0]), Undefined)


def slow_quantile_bounds(values: np.ndarray, level: float, alpha: float) -> tuple[float, float]:
    """By adding up binomial probabilities, one order statistic after another."""
    n, x = len(values), np.sort(values)
    at_most = np.cumsum([math.comb(n, i) * level**i * (1 - level) ** (n - i) for i in range(n + 1)])
    low, high = -math.inf, math.inf
    for k in range(1, n + 1):
        if at_most[k - 1] <= alpha:
            low = x[k - 1]
        if 1.0 - at_most[k - 1] <= alpha and high == math.inf:
            high = x[k - 1]
    return low, high


@pytest.mark.parametrize("n", [1, 5, 30, 90, 200])
@pytest.mark.parametrize("level", [0.5, 0.95])
def test_quantile_bounds_by_counting(n: int, level: float) -> None:
    x = np.random.default_rng(n).standard_normal(n)
    for alpha in (0.05, 0.004):
        assert quantile(x, level).bounds(alpha) == slow_quantile_bounds(x, level, alpha)
    assert quantile(x, level).value in x
    assert (x <= quantile(x, level).value).mean() >= level


def test_quantile_bounds_miss_no_more_than_they_may() -> None:
    rng, alpha, worlds = np.random.default_rng(3), 0.05, 2_000
    truth = stats.expon.ppf(0.95)
    bounds = np.array([quantile(rng.exponential(size=100), 0.95).bounds(alpha) for _ in range(worlds)])
    limit = stats.binom.isf(0.001, worlds, alpha)
    assert (bounds[:, 0] > truth).sum() <= limit
    assert (bounds[:, 1] < truth).sum() <= limit
    assert Quantile(level=0.95, values=()).bounds(0.05) == (-math.inf, math.inf)
    assert quantile(np.arange(58), 0.95).bounds(0.05)[1] == math.inf
    assert math.isfinite(quantile(np.arange(59), 0.95).bounds(0.05)[1])


# ---- families ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "theirs"), [("bonferroni", "bonferroni"), ("holm", "holm"), ("by", "fdr_by"), ("bh", "fdr_bh")]
)
def test_families_decide_as_statsmodels_does(
    method: Multiplicity, theirs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After each Holm statsmodels looks for garbage, among all objects that there are.
    monkeypatch.setattr(gc, "collect", lambda: 0)
    rng = np.random.default_rng(7)
    for _ in range(300):
        m = int(rng.integers(1, 30))
        p = rng.beta(0.3, 4.0, m)
        if rng.random() < 0.3:
            p = np.round(p, 2)
        levels = adjusted_levels(p.tolist(), 0.05, method)
        np.testing.assert_array_equal(p <= np.array(levels), multipletests(p, 0.05, method=theirs)[0])


def test_false_shares_hold_where_dependence_is_the_worst_there_is() -> None:
    """Of m true hypotheses, k at once have p-values near k q / m, k of them at random, so that every one is uniform.

    So any rejection is false, and Benjamini and Hochberg's share of false ones is q (1 + 1/2 + ... + 1/m).
    """
    m, q = 8, 0.05
    rng = np.random.default_rng(0)
    worlds = 20_000
    kept = dict.fromkeys(("by", "bh"), 0)
    # A p-value lies in the k-th step (k - 1, k] q / m with probability q / m: k of m at once, with chance q / k.
    steps = rng.choice(
        m + 1, worlds, p=[*(q / k for k in range(1, m + 1)), 1.0 - q * sum(1 / k for k in range(1, m + 1))]
    )
    for step, u in zip(steps.tolist(), rng.random(worlds).tolist(), strict=True):
        k = step + 1
        p = [q + (1.0 - q) * u] * m if k > m else [(k - 1 + u) * q / m] * k + [q + (1.0 - q) * u] * (m - k)
        for method in kept:
            levels = adjusted_levels(p, q, method)  # type: ignore[arg-type]
            kept[method] += any(x <= level for x, level in zip(p, levels, strict=True))
    limit = stats.binom.isf(0.001, worlds, q)
    assert kept["by"] <= limit < kept["bh"]
    assert kept["bh"] / worlds == pytest.approx(q * sum(1 / k for k in range(1, m + 1)), rel=0.05)


def test_holm_by_hand() -> None:
    assert adjusted_levels([0.001, 0.02, 0.03, 0.2], 0.05, "holm") == pytest.approx(
        [0.0125, 0.05 / 3, 0.05 / 3, 0.05 / 3]
    )
    assert adjusted_levels([0.9, 0.9], 0.05, "none") == [0.05, 0.05]
    assert adjusted_levels([], 0.05, "bonferroni") == adjusted_levels([], 0.05, "holm") == []


# ---- planning ------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(20, 300), st.integers(0, 20), st.sampled_from(["difference", "ratio"]))
def test_planning_does_not_look_at_the_effect(n: int, shift: int, kind: str) -> None:
    """Same sizes and the same rate over all, another gap: the same plan, so a noisy estimate cannot excuse itself."""
    half, shift = n // 2, min(shift, n // 2)
    make = WorstDifference if kind == "difference" else WorstRatio
    bound, ideal, sign = (0.1, 0.0, 1) if kind == "difference" else (0.8, 1.0, -1)
    even, uneven = (make(tables=(table([half + s, half - s], [n, n]),)) for s in (0, shift))
    plans = [
        (
            minimum_detectable_effect(e, bound=bound, alpha=0.01, ideal=ideal, sign=sign),
            n_required(e, bound=bound, alpha=0.01, ideal=ideal, n=2 * n),
        )
        for e in (even, uneven)
    ]
    assert plans[0] == plans[1]
    proportions = [Proportion(successes=k, n=n) for k in (0, half)]
    assert len({minimum_detectable_effect(p, bound=0.1, alpha=0.01, ideal=0.0, sign=1) for p in proportions}) == 1
    assert len({n_required(p, bound=0.1, alpha=0.01, ideal=0.0, n=n) for p in proportions}) == 1


@pytest.mark.parametrize("n", [30, 200, 1_000])
@pytest.mark.parametrize("bound", [0.05, 0.3])
def test_proportion_plans_are_exact(n: int, bound: float) -> None:
    estimate, alpha = Proportion(successes=0, n=n), 0.01
    k = np.arange(n + 1)
    found_beyond = clopper_pearson(k, n=n, alpha=alpha)[0] > bound
    rate = minimum_detectable_effect(estimate, bound=bound, alpha=alpha, ideal=0.0, sign=1)
    assert stats.binom.pmf(k, n, rate) @ found_beyond == pytest.approx(0.80, abs=1e-6)
    found_below = clopper_pearson(k, n=n, alpha=alpha)[1] < 1 - bound
    rate = minimum_detectable_effect(estimate, bound=1 - bound, alpha=alpha, ideal=1.0, sign=-1)
    assert stats.binom.pmf(k, n, rate) @ found_below == pytest.approx(0.80, abs=1e-6)
    needed = n_required(estimate, bound=bound, alpha=alpha, ideal=0.0, n=n)
    # With no success at all the upper bound is 1 - alpha^(1/n).
    assert needed == pytest.approx(math.log(alpha) / math.log(1 - bound), rel=0.02, abs=1)
    needed = n_required(estimate, bound=0.55, alpha=alpha, ideal=0.5, n=n)
    assert needed is not None
    power = stats.binom.pmf(np.arange(needed + 1), needed, 0.5) @ (
        clopper_pearson(np.arange(needed + 1), n=needed, alpha=alpha)[1] <= 0.55
    )
    assert 0.78 <= power <= 0.85


def test_plans_that_cannot_be_made() -> None:
    tiny = WorstDifference(tables=(table([1, 1], [3, 3]),))
    assert minimum_detectable_effect(tiny, bound=0.1, alpha=0.001, ideal=0.0, sign=1) == math.inf
    assert n_required(tiny, bound=0.0, alpha=0.001, ideal=0.0, n=6) is None
    one = WorstDifference(tables=(table([1], [3]),))
    assert math.isnan(minimum_detectable_effect(one, bound=0.1, alpha=0.001, ideal=0.0, sign=1))
    assert n_required(one, bound=0.1, alpha=0.001, ideal=0.0, n=3) is None
    # what the ideal value itself would break cannot be passed at any size
    assert n_required(WorstRatio(tables=(table([5, 5], [9, 9]),)), bound=1.2, alpha=0.01, ideal=1.0, n=18) is None


def test_the_quantile_of_the_power_is_written_out_to_its_last_digit() -> None:
    from scipy.special import ndtri

    assert float(ndtri(POWER)) == Z_POWER
