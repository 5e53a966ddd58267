"""Distances of two samples: what they may be off by, against two bands, by integration and in simulated worlds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, multinomial

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


@pytest.mark.parametrize("n", [(2, 2), (3, 200), (5, 40), (12, 12), (40, 40), (15, 300), (150, 150)])
def test_a_distance_falls_short_no_more_often_than_its_level(n: tuple[int, int]) -> None:
    """Every pair of samples of zeros and ones, at rates all over; and the reach is no Hoeffding's from 40 rows on."""
    first = np.arange(n[0] + 1)
    for alpha in (0.45, 0.3, 0.05, 0.05 / 24, 1e-4, 1e-6):
        reach, spent = float(short_of_own(n, alpha)[0]), 0.0
        for p in np.linspace(0.0, 1.0, 21):
            for q in np.linspace(0.0, p, 9):
                # So far apart that the second's share would have to be above this.
                least = np.floor((first / n[0] - (p - q) + reach) * n[1] + 1e-9)
                spent = max(spent, float(binom.pmf(first, n[0], p) @ binom.sf(least, n[1], q)))
        assert spent <= alpha
        if alpha == 0.05 and min(n) >= 40:
            assert spent > 0.02 and reach < 0.86 * math.sqrt(0.5 * math.log(1.0 / alpha) * (1.0 / n[0] + 1.0 / n[1]))


def test_values_between_the_ends_fall_short_no_more_often() -> None:
    """A function's values need not be zeros and ones: three of them, in two samples of 14, each sample weighed."""
    counts = np.asarray([(a, b, 14 - a - b) for a in range(15) for b in range(15 - a)])
    for middle, weights in (
        (0.5, (0.5, 0.1)),
        (0.3, (0.4, 0.2)),
        (0.9, (0.5, 0.3)),
        (0.5, (0.2, 0.6)),
        (0.1, (0.45, 0.1)),
    ):
        p, values = np.asarray([*weights, 1.0 - sum(weights)]), np.asarray([0.0, middle, 1.0])
        weight, means = multinomial.pmf(counts, 14, p), counts @ values / 14.0
        order = np.argsort(means)
        for q in (p, p[::-1]):
            other = multinomial.pmf(counts, 14, q)[order]
            above = np.concatenate([np.cumsum(other[::-1])[::-1], [0.0]])
            for alpha in (0.3, 0.05, 0.05 / 24, 1e-4):
                reach = float(short_of_own((14, 14), alpha)[0])
                least = means - float((p - q) @ values) + reach
                spent = weight @ above[np.searchsorted(means[order], least + 1e-12, side="right")]
                assert spent <= alpha
