"""Numbers of estimates as they were recorded once, and by arithmetic of scipy's own.

A report is signed, and every interval in it can be recomputed from its fields: what they give must not change unseen.
`python -m tests.statistics.test_recorded` writes the record anew, for a change that is meant.
"""

from __future__ import annotations

import json
import math
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from auditor.core.rows import FloatArray
from auditor.statistics.attack_estimates import Exposure
from auditor.statistics.changes import RateChange
from auditor.statistics.detection import ExcessShare
from auditor.statistics.distribution_distances import BenefitInequality, WorstDistance
from auditor.statistics.estimate import Estimate, minimum_detectable_effect, n_required
from auditor.statistics.groups import LargestRate, SmallestRate
from auditor.statistics.means import StandardizedDifference, StudentT, mean, paired_difference, ratio_of_means
from auditor.statistics.rank_estimates import TruePositiveRateAt
from auditor.statistics.rates import Odds
from auditor.statistics.values import BoundedMean, bounded_mean
from tests.statistics.estimate_examples import EVERY, EXAMPLES, table

RECORD = Path(__file__).with_name("recorded.json")
LEVELS = (0.2, 0.0125, 1e-6)


def finite(x: float) -> float | str:
    return x if math.isfinite(x) else str(x)


def said_by(estimate: Estimate) -> dict[str, Any]:
    """All numbers that a finding shows of an estimate."""
    x = EXAMPLES[estimate.kind]  # type: ignore[attr-defined]
    plan: dict[str, Any] = {"bound": x.bound, "alpha": 0.0125, "ideal": x.ideal}
    return {
        "value": finite(estimate.value),
        "limits": [finite(end) for end in estimate.limits],
        "bounds": [[finite(end) for end in estimate.bounds(alpha)] for alpha in LEVELS],
        "comparisons": estimate.comparisons,
        "effects": [finite(minimum_detectable_effect(estimate, sign=sign, **plan)) for sign in (1, -1)],
        "sizes": [n_required(estimate, n=10_000, sides=sides, **plan) for sides in (1, 2)],
        "standard_error": finite(estimate.standard_error_at(x.ideal)),
        "critical_value": finite(estimate.critical_value(0.0125)),
        "unbounded": estimate.unbounded,
    }


def alike(now: Any, then: Any) -> bool:
    if isinstance(then, dict):
        return now.keys() == then.keys() and not [key for key in then if not alike(now[key], then[key])]
    if isinstance(then, list):
        return len(now) == len(then) and not [pair for pair in zip(now, then, strict=True) if not alike(*pair)]
    if isinstance(then, bool | str) or then is None:
        return bool(now == then)
    return bool(now == pytest.approx(then, rel=1e-6, abs=1e-9))


@pytest.mark.grid
@pytest.mark.parametrize("name", EVERY)
def test_an_estimate_says_what_it_said(name: str) -> None:
    now, then = said_by(EVERY[name]), json.loads(RECORD.read_text(encoding="utf-8"))[name]
    assert {key for key in then if not alike(now[key], then[key])} == set(), (now, then)


# ---- by another's arithmetic ---------------------------------------------------------------------------------------


def exact(k: int, n: int, alpha: float) -> tuple[float, float]:
    low, high = stats.binomtest(k, n).proportion_ci(1.0 - 2.0 * alpha, method="exact")
    return float(low), float(high)


@pytest.mark.parametrize("alpha", [0.05, 0.0125, 1e-4])
def test_bounds_of_counts_are_made_of_exact_ones(alpha: float) -> None:
    low, high = exact(30, 120, alpha)
    assert Odds(successes=30, failures=90).bounds(alpha) == pytest.approx((low / (1 - low), high / (1 - high)))
    assert ExcessShare(successes=30, n=120, promised=0.2).bounds(alpha) == pytest.approx((low - 0.2, high - 0.2))
    exposure = Exposure(at_least_as_likely=30, n=120, bits=9.0)
    assert exposure.bounds(alpha) == pytest.approx((-math.log2(high), -math.log2(low)))
    each, all_of_them = ([exact(k, n, a) for k, n in ((30, 120), (20, 60), (5, 30))] for a in (alpha, alpha / 3))
    rates = table((30, 20, 5), (120, 60, 30))
    assert SmallestRate(table=rates).bounds(alpha) == pytest.approx(
        (min(low for low, _ in each), min(high for _, high in all_of_them))
    )
    assert LargestRate(table=rates).bounds(alpha) == pytest.approx(
        (max(low for low, _ in all_of_them), max(high for _, high in each))
    )


@cache
def legendre() -> tuple[FloatArray, FloatArray]:
    """Where to look and with what weight, to integrate over [-1, 1]."""
    return np.polynomial.legendre.leggauss(2_000)


@pytest.mark.grid
@pytest.mark.parametrize("alpha", [0.05, 0.0125, 1e-4])
@pytest.mark.parametrize("counts", [(50, 20, 400), (3, 9, 60), (1, 2, 2_000)])
def test_bounds_of_a_change_are_those_of_a_share_of_rows_times_a_share_of_gains(
    alpha: float, counts: tuple[int, int, int]
) -> None:
    """The tail at either bound, by integration over the share of rows that changed; the saddlepoint is within 5 %."""
    gained, lost, n = counts

    def beyond(bound: float, up: int, down: int) -> float:
        changed = stats.beta(up + 1 + down, n - up - down)
        gains = stats.beta(up + 1, down)
        x, weight = legendre()
        ends = changed.ppf(1e-13), changed.isf(1e-13)
        d = ends[0] + (ends[1] - ends[0]) * (x + 1.0) / 2.0
        return float((weight * changed.pdf(d) * gains.sf((1.0 + bound / d) / 2.0)).sum() * (ends[1] - ends[0]) / 2.0)

    low, high = RateChange(before=lost, gained=gained, lost=lost, n=n).bounds(alpha)
    assert beyond(high, gained, lost) == pytest.approx(alpha, rel=0.05)
    assert beyond(-low, lost, gained) == pytest.approx(alpha, rel=0.05)


@pytest.mark.parametrize("counts", [(20, 250, 30), (3, 1, 4), (1, 1, 5)])
@pytest.mark.parametrize("order", [1.0, 2.0, 0.5])
def test_bounds_of_an_inequality_are_extremes_over_two_exact_shares(order: float, counts: tuple[int, int, int]) -> None:
    """Of few rows the two shares' largest come to more than all rows, which is nothing that can be."""
    alpha, n = 0.05, sum(counts)
    below, above = exact(counts[0], n, alpha / 4), exact(counts[2], n, alpha / 4)

    def entropy(b: float, a: float) -> float:
        benefits, weights = np.array([0.0, 1.0, 2.0]), np.array([b, 1.0 - a - b, a])
        x = benefits / (weights @ benefits)
        if order == 1.0:
            return float(weights @ np.where(x > 0, x * np.log(np.maximum(x, 1e-300)), 0.0))
        return float((weights @ x**order - 1.0) / (order * (order - 1.0)))

    shares = [(b, a) for b in np.linspace(*below, 33) for a in np.linspace(*above, 33) if b + a <= 1.0]
    values = [entropy(b, a) for b, a in shares]
    found = BenefitInequality(order=order, below=counts[0], equal=counts[1], above=counts[2]).bounds(alpha)
    assert found == pytest.approx((min(values), max(values)), rel=1e-9)


def test_bounds_of_a_true_positive_rate_split_the_level_between_threshold_and_rate() -> None:
    rng, alpha, f = np.random.default_rng(0), 0.05, 0.1
    x, y = rng.normal(1.0, 1.0, 80), np.sort(rng.normal(0.0, 1.0, 150))[::-1]
    above = tuple(int((x > t).sum()) for t in y)
    found = TruePositiveRateAt(false_positive_rate=f, members_above=above, n_positive=80, n_negative=150)
    ranks = np.arange(150)
    strict = int(ranks[stats.binom.cdf(ranks, 150, f) <= alpha / 2][-1])
    lenient = int(ranks[stats.binom.sf(ranks, 150, f) <= alpha / 2][0])
    expected = exact(above[strict], 80, alpha / 2)[0], exact(above[lenient], 80, alpha / 2)[1]
    assert found.bounds(alpha) == pytest.approx(expected)


@pytest.mark.parametrize("within", [False, True])
def test_bounds_of_a_standardized_difference_are_those_of_a_noncentral_t(within: bool) -> None:
    alpha, m, n, d = 0.05, 12, 20, 0.7
    root = math.sqrt(m * n / (m + n))
    delta = d if within else d * math.sqrt((m + n - 2) / (m + n - 1 - (root * d) ** 2))
    found = StandardizedDifference(centre=d, n_first=m, n_second=n, within=within).bounds(alpha)
    share = m * n / (m + n) ** 2
    for end, level in zip(found, (1.0 - alpha, alpha), strict=True):
        true = end if within else end / math.sqrt(1.0 - share * end**2)
        assert stats.nct.cdf(delta * root, m + n - 2, true * root) == pytest.approx(level, abs=1e-6)


def test_bounds_of_a_mean_are_student_s_on_its_scale_and_within_its_limits() -> None:
    t = float(stats.t.isf(0.0125, 7))
    plain = StudentT(centre=0.3, standard_error=0.1, degrees_of_freedom=7)
    assert plain.bounds(0.0125) == pytest.approx((0.3 - 0.1 * t, 0.3 + 0.1 * t))
    limited = StudentT(centre=0.3, standard_error=0.1, degrees_of_freedom=7, lower_limit=0.2, upper_limit=0.4)
    assert limited.bounds(0.0125) == (0.2, 0.4)
    logit = StudentT(centre=0.3, standard_error=0.1, degrees_of_freedom=7, scale="logit")
    half = 0.1 * t / (0.3 * 0.7)
    ends = (stats.logistic.cdf(stats.logistic.ppf(0.3) + side * half) for side in (-1, 1))
    assert logit.bounds(0.0125) == pytest.approx(tuple(ends))


def test_bounds_of_a_distance_are_one_deviation_below_and_two_above() -> None:
    d, n, alpha = (0.3, 0.5, 0.4), (300, 400, 250), 0.05

    def tail(rows: int, x: float) -> float:
        found = math.exp(-2.0 * rows * x * x)
        return found if x > 0.0 and found <= 0.5 else 1.0

    def beyond(r: float, i: int, j: int) -> float:
        least = math.sqrt(math.log(2.0) / (2.0 * j))
        x = np.linspace(least, 1.0, 100_001)
        middle = (x[1:] + x[:-1]) / 2.0
        mass = -np.diff(np.exp(-2.0 * j * x * x))
        return 0.5 * tail(i, r - least) + float(mass @ [tail(i, r - m) for m in middle])

    found = WorstDistance(distances=d, n=n).bounds(alpha)
    pairs = [(x, n[i], n[j]) for x, (i, j) in zip(d, ((0, 1), (0, 2), (1, 2)), strict=True)]
    # A normal of the largest variance, and a row of each sample.
    high = max(x + stats.norm.isf(alpha) * math.sqrt(0.25 / i + 0.25 / j) + 1.0 / i + 1.0 / j for x, i, j in pairs)
    assert found[1] == pytest.approx(high)
    # The lower bound is that of the second pair, whose sum of deviations has the tail alpha over three pairs.
    assert 2.0 * beyond(0.5 - found[0], 300, 250) == pytest.approx(alpha / 3.0, rel=0.02)


def test_estimates_are_made_of_the_samples_own_statistics() -> None:
    rng = np.random.default_rng(3)
    x = rng.beta(2.0, 5.0, 17)
    centre, error, third = x.mean(), stats.sem(x), stats.moment(x, 3)
    pair = paired_difference(first="a", second="b", differences=x)
    assert (pair.first, pair.second, pair.n) == ("a", "b", 17)
    assert (pair.centre, pair.standard_error, pair.third_moment) == pytest.approx((centre, error, third))
    part = bounded_mean(x, low=0.0, high=2.0)
    assert isinstance(part, BoundedMean) and (part.n, part.low, part.high, part.root) == (17, 0.0, 2.0, False)
    assert (part.centre, part.standard_error, part.third_moment) == pytest.approx((centre, error, third))
    student = mean(x, low=0.0, high=1.0)
    assert isinstance(student, StudentT) and student.degrees_of_freedom == 16 and student.limits == (0.0, 1.0)
    assert (student.centre, student.standard_error) == pytest.approx((centre, error))
    whole = x + rng.random(17)
    ratio = ratio_of_means(numerator=x, denominator=whole)
    assert isinstance(ratio, StudentT) and ratio.degrees_of_freedom == 16 and ratio.scale == "logit"
    assert ratio.limits == (0.0, 1.0)
    r = x.sum() / whole.sum()
    assert (ratio.centre, ratio.standard_error) == pytest.approx((r, stats.sem(x - r * whole) / whole.mean()))


if __name__ == "__main__":
    json.dump({name: said_by(estimate) for name, estimate in EVERY.items()}, sys.stdout, indent=1)
