"""Bounds from guesses: against the paper's loop, a linear program, closed forms, and the chance of being wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.stats import beta, binom

from auditor.core.errors import UsageError
from auditor.privacy.one_run import (
    MultiRun,
    f_dp_lower_bound,
    f_dp_lower_mu,
    inverse_of_curve,
    inverse_of_epsilon_delta,
    inverse_of_gaussian,
    is_refuted,
    one_run_lower_bound,
    one_run_p_value,
)


def as_printed_in_the_paper(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    q = 1 / (1 + math.exp(-epsilon))
    reached = float(binom.sf(v - 1, r, q))
    worst = total = 0.0
    for i in range(1, v + 1):
        total += float(binom.pmf(v - i, r, q))
        worst = max(worst, total / i)
    return min(reached + worst * delta * 2 * m, 1.0)


@pytest.mark.parametrize("m, r, v", [(1000, 1000, 570), (1000, 100, 80), (50, 20, 20), (10, 10, 0), (200, 1, 1)])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-3])
def test_the_p_value_is_that_of_the_paper(m: int, r: int, v: int, delta: float) -> None:
    for epsilon in (0.0, 0.3, 1.0, 4.0):
        if 2 * m * delta <= 1.0:
            expected = as_printed_in_the_paper(m, r, v, epsilon, delta)
            assert one_run_p_value(m, r, v, epsilon, delta) == pytest.approx(expected, abs=1e-12)
        else:
            assert one_run_p_value(m, r, v, epsilon, delta) >= as_printed_in_the_paper(m, r, v, epsilon, delta) - 1e-12


@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-3, 0.05])
def test_the_p_value_rises_with_epsilon(delta: float) -> None:
    values = [one_run_p_value(100, 60, 45, e, delta) for e in np.linspace(0.0, 8.0, 200)]
    assert np.all(np.diff(values) >= -1e-12)


def test_a_thousand_perfect_guesses_prove_at_most_5_8() -> None:
    proven = one_run_lower_bound(1000, 1000, 1000)
    assert proven == pytest.approx(5.81, abs=0.005)
    # By hand: q^1000 = 0.05.
    q = 0.05 ** (1 / 1000)
    assert proven == pytest.approx(math.log(q / (1 - q)), abs=1e-5)
    assert f_dp_lower_bound(1000, 1000, 1000) == pytest.approx(proven, abs=1e-4)
    assert one_run_lower_bound(1000, 1000, 1000, delta=1e-5) < proven


@pytest.mark.parametrize("r, epsilon", [(20, 0.5), (100, 1.0), (400, 2.0)])
def test_randomised_response_is_wronged_at_most_in_alpha(r: int, epsilon: float) -> None:
    # The worst case of the theorem at delta 0: guesses right with chance e^eps / (1 + e^eps), exactly.
    wrong = [v for v in range(r + 1) if one_run_lower_bound(r, r, v, alpha=0.05) > epsilon + 1e-6]
    chance = float(binom.sf(wrong[0] - 1, r, 1 / (1 + math.exp(-epsilon))))
    assert 0.0 < chance <= 0.05


def by_linear_program(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """The largest P[at least v right] under every tail constraint, each written as its three straight lines."""
    e = math.exp(epsilon)
    # 1 - f(t) = min(1, delta + e^eps t, 1 - e^-eps (1 - delta - t)), as (intercept, slope).
    lines = [(1.0, 0.0), (delta, e), (1.0 - (1.0 - delta) / e, 1.0 / e)]
    rows, limits = [], []
    for i in range(r):
        right = np.array([k / m if k >= i + 1 else 0.0 for k in range(r + 1)])
        wrong = np.array([(r - k) / m if k >= i else 0.0 for k in range(r + 1)])
        for intercept, slope in lines:
            rows.append(right - slope * wrong)
            limits.append(intercept)
    reached = np.array([-1.0 if k >= v else 0.0 for k in range(r + 1)])
    found = linprog(reached, np.array(rows), np.array(limits), np.ones((1, r + 1)), [1.0], bounds=(0, 1))
    return float(-found.fun)


@pytest.mark.parametrize("m, r, v", [(12, 12, 10), (12, 8, 8), (30, 20, 14), (5, 1, 1), (20, 20, 11)])
@pytest.mark.parametrize("epsilon, delta", [(0.2, 0.0), (0.5, 0.01), (1.5, 0.05)])
def test_the_recursion_finds_what_a_linear_program_finds(m: int, r: int, v: int, epsilon: float, delta: float) -> None:
    exact = by_linear_program(m, r, v, epsilon, delta)
    inverse = inverse_of_epsilon_delta(epsilon, delta)
    assert not is_refuted(inverse, m, r, v, alpha=exact * 0.997)
    if exact < 0.997:
        assert is_refuted(inverse, m, r, v, alpha=exact * 1.003)


def test_a_curve_is_at_least_as_strict_as_each_of_its_points() -> None:
    points = [(0.0, 0.3), (1.0, 0.05), (2.0, 1e-3)]
    curve = inverse_of_curve(points)
    for x in np.linspace(0.0, 1.0, 41):
        assert curve(x) == pytest.approx(max(inverse_of_epsilon_delta(*point)(x) for point in points), abs=1e-12)
    assert inverse_of_curve([(0.0, 1.0)])(0.9) == 0.0  # (0, 1) is kept by anything, and refuted by nothing
    assert not is_refuted(inverse_of_curve([(0.0, 1.0)]), 1000, 1000, 1000)
    assert inverse_of_curve([(0.7, 0.01)])(0.4) == pytest.approx(inverse_of_epsilon_delta(0.7, 0.01)(0.4))


def test_the_gaussian_inverse_undoes_the_gaussian_trade_off() -> None:
    from scipy.stats import norm

    inverse = inverse_of_gaussian(0.8)
    for t in (0.01, 0.3, 0.9):
        assert inverse(float(norm.cdf(norm.ppf(t) + 0.8))) == pytest.approx(t)
    assert inverse(0.0) == 0.0


def test_gaussian_canaries_are_wronged_at_most_in_alpha_and_seen_at_twice_mu() -> None:
    rng = np.random.default_rng(3)
    m, r, mu = 300, 60, 0.4

    def right(shift: float) -> int:
        coins = rng.random(m) < 0.5
        order = np.argsort(np.where(coins, shift, 0.0) + rng.normal(size=m))
        return int(coins[order[m - r // 2 :]].sum() + (~coins[order[: r // 2]]).sum())

    inverse = inverse_of_gaussian(mu)
    least = next(v for v in range(r + 1) if is_refuted(inverse, m, r, v))
    wrong = sum(right(mu) >= least for _ in range(2000))
    assert wrong <= 0.05 * 2000 + 3 * math.sqrt(2000 * 0.05 * 0.95)
    assert sum(right(3 * mu) >= least for _ in range(200)) >= 190
    assert f_dp_lower_mu(m, r, least - 1) <= mu <= f_dp_lower_mu(m, r, least)


def test_lower_bounds_grow_with_right_guesses_and_fall_with_delta() -> None:
    grown = [one_run_lower_bound(100, 50, v) for v in range(25, 51)]
    assert grown == sorted(grown) and grown[0] == 0.0 < grown[-1]
    assert f_dp_lower_bound(100, 50, 50, delta=0.01) < f_dp_lower_bound(100, 50, 50)
    assert one_run_lower_bound(10, 4, 2) == 0.0


def test_many_runs_by_hand() -> None:
    runs = MultiRun(n_with=50, hits=48, n_without=50, false_alarms=2)
    tpr, fpr = beta.ppf(0.025, 48, 3), beta.ppf(0.975, 3, 48)
    assert runs.lower_bound() == pytest.approx(math.log(tpr / fpr))
    assert runs.lower_bound(delta=0.1) == pytest.approx(math.log((tpr - 0.1) / fpr))
    # Few misses of many with a hit rate near 1: the other direction is the stronger one.
    other = MultiRun(n_with=1000, hits=1000, n_without=1000, false_alarms=500)
    miss, quiet = 1 - 0.025 ** (1 / 1000), 1 - beta.ppf(0.975, 501, 500)
    assert other.lower_bound() == pytest.approx(math.log(quiet / miss))
    assert MultiRun(n_with=5, hits=2, n_without=5, false_alarms=3).lower_bound() == 0.0
    assert runs.largest_provable() > runs.lower_bound()
    assert MultiRun(n_with=0, hits=0, n_without=4, false_alarms=0).lower_bound() == 0.0


def test_many_runs_are_wronged_at_most_in_alpha() -> None:
    rng = np.random.default_rng(0)
    epsilon, n = 1.0, 60
    p = math.exp(epsilon) / (1 + math.exp(epsilon))
    wrong = 0
    for _ in range(1000):
        hits, alarms = rng.binomial(n, p), rng.binomial(n, 1 - p)
        wrong += MultiRun(n_with=n, hits=hits, n_without=n, false_alarms=alarms).lower_bound() > epsilon
    assert wrong <= 50 + 21


@pytest.mark.parametrize("counts", [(10, 11, 5), (10, 5, 6), (10, 0, 0), (10, 5, -1)])
def test_impossible_counts_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="cannot be"):
        one_run_p_value(*counts, 1.0)
    with pytest.raises(UsageError, match="delta"):
        one_run_p_value(10, 5, 5, 1.0, 1.0)
