"""Uniform numbers, and means of means: against another library or by simulation, at their stated rates of error."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy

from auditor.statistics.significance_tests import largest_mean, least_mean, p_of_uniform
from tests.quantifiers import all_of

N = 685


def test_the_parts_are_fishers_and_kolmogorovs() -> None:
    rng = np.random.default_rng(0)
    for shape in (0.8, 1.0, 1.3):
        u = rng.random(50) ** shape
        parts = [float(scipy.stats.kstest(u, "uniform", method="exact").pvalue)]
        for side in (u, 1.0 - u):
            p = float(scipy.stats.combine_pvalues(side, method="fisher").pvalue)
            parts.append(2.0 * min(p, 1.0 - p))
        assert p_of_uniform(u) == pytest.approx(min(1.0, 3.0 * min(parts)), rel=1e-9)
    assert p_of_uniform([]) == 1.0


def test_uniform_numbers_are_rejected_as_seldom_as_stated() -> None:
    """With `benchmarks/served_model.py` as the larger one; 4,000 of these come to 0.040 at 0.05."""
    rng = np.random.default_rng(1)
    p = np.asarray([p_of_uniform(rng.random(N)) for _ in range(500)])
    # 500 at 0.05 come to 25 at most by the mean, and to more than 40 once in 500.
    assert 8 <= int((p <= 0.05).sum()) <= 40


@pytest.mark.parametrize(
    "change",
    [
        lambda u: u * 0.93,  # a tail of 7 % that is never drawn
        lambda u: u**1.25,
        lambda u: 1.0 - (1.0 - u) ** 1.25,
        lambda u: np.abs(u - 0.5) * 1.6 % 1.0,
        lambda u: np.zeros_like(u),
        lambda u: np.ones_like(u),
        lambda u: np.full_like(u, 0.5),
    ],
)
def test_what_is_not_uniform_is_rejected(change: object) -> None:
    u = np.random.default_rng(2).random(N)
    assert p_of_uniform(change(u)) < 5e-4  # type: ignore[operator]


@pytest.mark.parametrize("share", [0.005, 0.3])
def test_bounds_of_a_mean_hold_where_each_value_depends_on_those_before(share: float) -> None:
    rng = np.random.default_rng(3)
    runs, n, alpha = 400, 200, 0.05
    values, means, last = np.zeros((n, runs)), np.zeros(runs), np.zeros(runs)
    for t in range(n):
        # After a success another one is three times as likely.
        mean = np.where(last > 0.0, 3.0 * share, share)
        values[t] = last = (rng.random(runs) < mean).astype(float)
        means = means + mean / n
    least = np.asarray([least_mean(x, alpha) for x in values.T])
    largest = np.asarray([largest_mean(x, alpha) for x in values.T])
    assert np.mean(means < least) <= alpha and np.mean(means > largest) <= alpha
    assert np.mean(largest - least) < 0.3


def test_bounds_of_a_mean_enclose_it_and_shrink() -> None:
    assert (least_mean([], 0.05), largest_mean([], 0.05)) == (0.0, 1.0)
    # Five slopes share the level, and the steepest is the one that is used up.
    assert math.log(20.0) < 0.9 * 768 * largest_mean(np.zeros(768), 0.05) < math.log(20.0) + math.log(5.0)
    assert largest_mean(np.ones(200), 0.05) == 1.0 and 0.95 < least_mean(np.ones(200), 0.05) < 1.0
    found = [(least_mean(x, 0.05), largest_mean(x, 0.05)) for x in (np.tile([0.0, 0.2], k) for k in (25, 250, 2_500))]
    assert all_of(low <= 0.1 <= high for low, high in found)
    assert all_of(b[1] - b[0] < a[1] - a[0] for a, b in zip(found, found[1:], strict=False))


def test_values_that_hardly_spread_are_bounded_closely() -> None:
    """As of a model that is served rounded: each token a little off."""
    x = np.random.default_rng(4).random(768) * 0.08
    assert least_mean(x, 5e-4) > 0.02 and largest_mean(x, 0.05) < 0.05
