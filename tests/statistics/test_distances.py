"""Distances of two samples: what they may be off by, against two bands, by integration and in simulated worlds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from auditor.core.rows import FloatArray
from auditor.statistics.distribution_distances import WorstDistance, beyond_own, short_of_own
from tests.quantifiers import all_of
from tests.statistics.worlds import WORLDS, misses, most_misses

ALPHAS = (0.05, 0.01, 1e-3, 1e-4, 1e-6)
SIZES = [(100, 100), (50, 200), (20, 2_000), (1, 1)]


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("n", SIZES)
def test_two_samples_move_a_distance_by_less_than_two_bands(n: tuple[int, int], alpha: float) -> None:
    bands = math.sqrt(math.log(4.0 / alpha) / 2.0) * sum(m**-0.5 for m in n)
    assert float(beyond_own(n, alpha)[0]) < bands / (1.28 if n[0] == n[1] else 1.05)
    assert float(short_of_own(n, alpha)[0]) < bands / (1.45 if n[0] == n[1] else 1.1)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("n", SIZES)
def test_what_a_distance_may_be_beyond_is_the_tail_of_two_independent_deviations(
    n: tuple[int, int], alpha: float
) -> None:
    """The tail by summation over one deviation; the grid of sizes makes it at most 1 % of the reach too small."""
    reach = float(beyond_own(n, alpha)[0])
    least = math.sqrt(math.log(2.0) / (2.0 * n[1]))
    x = np.concatenate([[least], np.linspace(least, 8.0 / math.sqrt(n[1]), 200_001)])
    survival = np.exp(-2.0 * n[1] * x * x)
    survival[0] = 1.0

    def tail(r: float) -> float:
        left = r - (x[1:] + x[:-1]) / 2.0
        own = np.exp(-2.0 * n[0] * np.maximum(left, 0.0) ** 2)
        return float(-np.diff(survival) @ np.where(own <= 0.5, own, 1.0))

    assert 2.0 * tail(reach) <= alpha * 1.001
    assert 2.0 * tail(0.99 * reach) > alpha


def two_values(rng: np.random.Generator, p: float, q: float, n: tuple[int, int]) -> FloatArray:
    """(n_worlds,) either distance of samples of 0 and 1, which is the difference of their shares."""
    return np.abs(rng.binomial(n[0], p, WORLDS) / n[0] - rng.binomial(n[1], q, WORLDS) / n[1])


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize(("p", "q"), [(0.5, 0.5), (0.55, 0.45), (0.05, 0.0), (0.9, 0.6), (1.0, 0.5)])
@pytest.mark.parametrize("n", [(40, 40), (15, 300)])
def test_samples_of_two_values_keep_both_promises(p: float, q: float, n: tuple[int, int], alpha: float) -> None:
    found = two_values(np.random.default_rng(1), p, q, n).tolist()
    estimates = [WorstDistance(distances=(d,), n=n) for d in found]
    assert max(misses(estimates, abs(p - q), alpha)) <= most_misses(alpha)


@pytest.mark.parametrize("n", [(60, 60), (30, 240)])
def test_equal_groups_are_accused_no_more_often_than_promised(n: tuple[int, int]) -> None:
    """No effect, continuous scores: where a sample's distance is farthest beyond the true one."""
    rng = np.random.default_rng(2)
    both = np.sort(rng.random((WORLDS, sum(n))), axis=1)
    labels = np.argsort(rng.random(both.shape), axis=1) < n[0]
    above = np.abs(np.cumsum(np.where(labels, 1.0 / n[0], -1.0 / n[1]), axis=1)).max(axis=1)
    estimates = [WorstDistance(distances=(min(d, 1.0),), n=n) for d in above.tolist()]
    accused, _ = misses(estimates, 0.0)
    assert 0 < accused <= most_misses()


def test_a_larger_sample_or_a_laxer_level_never_widens() -> None:
    levels = (0.5, 0.3, 0.05, 1e-4, 1e-12)
    for reach in (beyond_own, short_of_own):
        by_level = [float(reach((80, 90), a)[0]) for a in levels]
        assert by_level == sorted(by_level)
        by_size = [float(reach((80, m), 0.01)[0]) for m in (10, 40, 79, 80, 81, 300, 10_000)]
        assert all_of(b <= a * 1.002 for a, b in zip(by_size, by_size[1:], strict=False))
