"""Bounds of a rate at an estimated threshold: by the slow way, by their promise, and by how narrow they are."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import optimize, stats
from scipy.stats import norm

from auditor.statistics import threshold_bounds
from auditor.statistics.rank_estimates import TruePositiveRateAt, true_positive_rate_at
from tests.quantifiers import all_of
from tests.statistics.worlds import most_misses

Q = 1.5


def slow_refused(above: list[int], m: int, n: int, f: float, p: float, c: float) -> bool:
    """Whether p is too small for every number of negatives that may lie at the threshold or above."""
    weight = min(max((n / (2.0 * m)) ** 0.2, 0.5), 2.0)
    for j in range(n + 1):
        z = max(0.0, float(-norm.ppf(stats.binom.cdf(j, n, f) - 0.5 * stats.binom.pmf(j, n, f))))
        k = 0 if j == 0 else above[j - 1]
        u = max(0.0, float(-norm.ppf(stats.binom.sf(k - 1, m, p))))
        if (z / weight) ** Q + u**Q < c:
            return False
    return True


def slow_level(m: int, n: int, f: float, c: float) -> float:
    weight = min(max((n / (2.0 * m)) ** 0.2, 0.5), 2.0)
    total = 0.0
    for j in range(n + 1):
        z = max(0.0, float(-norm.ppf(stats.binom.cdf(j, n, f) - 0.5 * stats.binom.pmf(j, n, f))))
        left = c - (z / weight) ** Q
        total += stats.binom.pmf(j, n, f) * (norm.sf(left ** (1 / Q)) if left > 0.0 else 1.0)
    return total


@pytest.mark.parametrize(("m", "n", "f"), [(15, 30, 0.3), (40, 12, 0.25), (8, 40, 0.2)])
def test_the_lower_bound_is_that_of_the_slow_way(m: int, n: int, f: float) -> None:
    rng, alpha = np.random.default_rng([m, n]), 0.1
    x, y = rng.normal(2.5, 1.0, m), np.sort(rng.normal(0.0, 1.0, n))[::-1]
    found = true_positive_rate_at(positives=x, negatives=y, false_positive_rate=f)
    c = optimize.brentq(lambda c: slow_level(m, n, f, c) - alpha, 1e-6, 60.0)
    above = [int((x > t).sum()) for t in y]
    low = found.bounds(alpha)[0]
    assert 0.0 < low < found.value
    assert slow_refused(above, m, n, f, low - 1e-6, c) and not slow_refused(above, m, n, f, low + 1e-6, c)


def test_the_upper_bound_is_the_lower_one_of_those_that_are_not_found() -> None:
    """With scores turned round, those above the threshold are those below it, and its rate is 1 - f."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(1.0, 1.0, 150), rng.normal(0.0, 1.0, 200)
    for f, alpha in product((0.1, 0.3), (0.2, 0.025, 1e-4)):
        here = true_positive_rate_at(positives=x, negatives=y, false_positive_rate=f).bounds(alpha)
        there = true_positive_rate_at(positives=-x, negatives=-y, false_positive_rate=1.0 - f).bounds(alpha)
        assert here == pytest.approx((1.0 - there[1], 1.0 - there[0]), abs=1e-6)


@pytest.mark.parametrize(
    ("m", "n", "f", "shift", "levels"),
    [
        (5, 8, 0.1, 1.0, None),
        (20, 50, 0.01, 5.0, None),
        (200, 1_000, 0.01, -2.0, None),
        (1_000, 1_000, 0.01, 1.0, None),
        (300, 3_000, 0.001, 1.0, None),
        (300, 1_000, 0.01, 2.0, 4),
        (300, 1_000, 0.01, 5.0, 1),
        (60, 3_000, 0.01, 1.0, None),
    ],
)  # fmt: skip
def test_bounds_are_missed_no_more_often_than_promised(
    m: int, n: int, f: float, shift: float, levels: int | None
) -> None:
    """Smaller than benchmarks/threshold_widths.py, which has 2,000 worlds of each of 135 cells."""
    rng, alpha, worlds = np.random.default_rng([m, n]), 0.05, 400
    threshold = float(norm.isf(f))
    if levels:
        threshold = math.ceil(threshold * levels) / levels
    truth = float(norm.sf(threshold - shift))
    low = high = 0
    for x, y in zip(rng.normal(shift, 1.0, (worlds, m)), rng.normal(0.0, 1.0, (worlds, n)), strict=True):
        if levels:
            x, y = np.floor(x * levels) / levels, np.floor(y * levels) / levels
        ends = true_positive_rate_at(positives=x, negatives=y, false_positive_rate=f).bounds(alpha)
        low, high = low + (ends[0] > truth), high + (ends[1] < truth)
    assert low <= most_misses(alpha, worlds) and high <= most_misses(alpha, worlds)


@pytest.mark.parametrize(("m", "n", "end"), list(product((20, 100), (8, 100, 2_000), ("low", "high"))))
def test_a_pair_beyond_the_region_is_as_improbable_as_said(m: int, n: int, end: threshold_bounds.End) -> None:
    """Of all pairs of counts, at the worst rate of a grid, the probability of those that are refused."""
    for f, alpha in product((0.01, 0.2), (0.3, 0.05, 1e-4)):
        weight = threshold_bounds._weight(n, m)
        counts, c = threshold_bounds._counts(n, f, end, weight), threshold_bounds._radius(n, f, alpha, end, weight)
        tails, worst, k = counts.tails(c), 0.0, np.arange(m + 1)
        for p in np.linspace(0.005, 0.995, 67):
            own = stats.binom.sf(k - 1, m, p) if end == "low" else stats.binom.cdf(k, m, p)
            mass = stats.binom.pmf(k, m, p)
            refused = (own[None, :] <= tails[:, None]) @ mass
            worst = max(worst, float(counts.probability @ refused) + counts.rest)
        assert worst <= alpha + 1e-12
        assert counts.probability.sum() + counts.rest == pytest.approx(1.0)


def test_samples_of_like_sizes_have_bounds_a_fifth_narrower_than_halves_of_the_level() -> None:
    """Mean widths of 95 % intervals over those of somebody who knows the curve: 1.3 and below, against 1.5 and more."""
    for m, n, f, shift in ((4_000, 4_000, 0.01, 1.0), (4_000, 1_000, 0.05, 1.0), (1_000, 4_000, 0.02, 2.0)):
        rng = np.random.default_rng([m, n])
        threshold = float(norm.isf(f))
        true, slope = float(norm.sf(threshold - shift)), float(norm.pdf(threshold - shift) / norm.pdf(threshold))
        efficient = 2.0 * norm.isf(0.025) * math.sqrt(true * (1.0 - true) / m + slope**2 * f * (1.0 - f) / n)
        now, before = [], []
        for _ in range(60):
            found = true_positive_rate_at(
                positives=rng.normal(shift, 1.0, m), negatives=rng.normal(0.0, 1.0, n), false_positive_rate=f
            )
            now.append(np.ptp(found.bounds(0.025)))
            before.append(np.ptp(found.model_copy(update={"joint": False}).bounds(0.025)))
        assert np.mean(now) < 1.3 * efficient
        assert np.mean(now) < 0.87 * np.mean(before)


def test_records_of_earlier_versions_keep_their_fields_and_their_intervals() -> None:
    old = TruePositiveRateAt(false_positive_rate=0.1, members_above=tuple(range(60)), n_positive=90, n_negative=100)
    assert "joint" not in old.model_dump() and not old.joint
    new = old.model_copy(update={"joint": True})
    assert TruePositiveRateAt.model_validate_json(new.model_dump_json()) == new
    assert new.bounds(0.025) != old.bounds(0.025)
    ranks = np.arange(60)
    strict = int(ranks[stats.binom.cdf(ranks, 100, 0.1) <= 0.0125][-1])
    assert old.bounds(0.025)[0] == pytest.approx(stats.beta.ppf(0.0125, strict, 91 - strict))


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 500), (300, 1), (50, 5)])
def test_next_to_nothing_is_known_of_next_to_nothing(m: int, n: int) -> None:
    found = true_positive_rate_at(positives=np.zeros(m), negatives=np.ones(n), false_positive_rate=0.01)
    low, high = found.bounds(0.025)
    assert low == 0.0 and 0.0 < high <= 1.0
    assert all_of(found.p_value(0.5, side) > 0.01 for side in ("greater", "at_least"))
