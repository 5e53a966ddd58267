"""Bounds over many groups and many strata: the same numbers as the slow obvious way, in a time that people wait."""

from __future__ import annotations

import time

import numpy as np
import pytest

from auditor.core.rows import FloatArray, IntArray
from auditor.data.group_counts import coded_texts
from auditor.statistics.estimate import Estimate, Side
from auditor.statistics.groups import RatioToLargest
from auditor.statistics.intervals import (
    clopper_pearson,
    divided_radius,
    orthant_radius,
    radius_shares,
    ratio_bounds,
    sum_bounds,
)
from auditor.statistics.rates import RateTable
from probes.fairness.adverse_impact import AdverseImpact, Table


def ratio(k: IntArray, n: IntArray, index: int) -> RatioToLargest:
    table = RateTable(rate="selection_rate", successes=tuple(k.tolist()), n=tuple(n.tolist()))
    return RatioToLargest(table=table, index=index)


def slow_bounds(k: IntArray, n: IntArray, index: int, alpha: float) -> tuple[float, float]:
    """From the tables of every pair of groups."""
    others = np.arange(k.size) != index
    low = float(ratio_bounds(k, n=n, alpha=alpha)[0][index][others].min())
    high = float(ratio_bounds(k, n=n, alpha=alpha / (k.size - 1))[1][index][others].min())
    return min(max(low, 0.0), 1.0), min(high, 1.0)


class SlowRatio(Estimate):
    """The p-value by the bisection that every estimate has, on the slow bounds."""

    k: tuple[int, ...]
    n: tuple[int, ...]
    index: int

    def bounds(self, alpha: float) -> tuple[float, float]:
        return slow_bounds(np.asarray(self.k), np.asarray(self.n), self.index, alpha)


def tables(g: int, rng: np.random.Generator) -> list[tuple[IntArray, IntArray]]:
    n = np.maximum(rng.lognormal(4.0, 1.5, g).astype(np.int64), 1)
    found = [(rng.binomial(n, p), n) for p in (0.5, rng.uniform(0.05, 0.95, g), 0.02, 0.98)]
    # Alike groups, groups where all or none are selected, and one of a single row.
    found.append((np.asarray([3] * g), np.asarray([9] * g)))
    found.append((n * (np.arange(g) % 2), n))
    found.append((np.r_[0, n[1:] // 2], np.r_[1, n[1:]]))
    return found


@pytest.mark.parametrize("g", [2, 3, 7])
def test_an_impact_ratio_has_the_bounds_of_all_pairs(g: int) -> None:
    for k, n in tables(g, np.random.default_rng(g)):
        for index in range(g):
            for alpha in (0.5, 0.05, 1e-4, 1e-12):
                assert ratio(k, n, index).bounds(alpha) == pytest.approx(slow_bounds(k, n, index, alpha), rel=1e-12)


@pytest.mark.parametrize("side", ["less", "at_most", "greater", "at_least"])
def test_an_impact_ratio_has_the_p_value_of_all_pairs(side: Side) -> None:
    for k, n in tables(6, np.random.default_rng(9)):
        for index in range(6):
            slow = SlowRatio(k=tuple(k.tolist()), n=tuple(n.tolist()), index=index)
            for bound in (0.8, 1.0):
                assert ratio(k, n, index).p_value(bound, side) == pytest.approx(slow.p_value(bound, side), rel=2e-6)


def slow_sum_bounds(w: FloatArray, k: IntArray, n: IntArray, alpha: float) -> tuple[float, float]:
    """Every division of the radius over all parts, one part after another."""
    tails, total = radius_shares(orthant_radius(alpha, w.size), w.size)
    lower, upper = clopper_pearson(k[:, None], n=n[:, None], alpha=tails)
    highest = divided_radius(np.where(w[:, None] > 0, w[:, None] * upper, w[:, None] * lower), total)[-1]
    lowest = divided_radius(-np.where(w[:, None] > 0, w[:, None] * lower, w[:, None] * upper), total)[-1]
    return -float(lowest), float(highest)


@pytest.mark.parametrize("parts", [1, 2, 5, 16, 40])
@pytest.mark.parametrize("alpha", [0.3, 0.05, 1e-3, 1e-8])
def test_sums_over_strata_have_the_bounds_of_every_division(parts: int, alpha: float) -> None:
    rng = np.random.default_rng([parts, 1])
    for p in (0.01, 0.5, 0.97):
        n = np.maximum(rng.lognormal(3.0, 2.0, parts).astype(np.int64), 1)
        k = rng.binomial(n, p)
        w = rng.normal(size=parts) * rng.lognormal(0.0, 2.0, parts)
        assert sum_bounds(w, successes=k, n=n, alpha=alpha) == pytest.approx(
            slow_sum_bounds(w, k, n, alpha), rel=1e-10, abs=1e-12
        )


def test_exact_bounds_are_concave_in_the_shares_of_the_squared_radius() -> None:
    """What the fast sum rests on, over counts from none to all of few and of many rows."""
    tails, _ = radius_shares(orthant_radius(1e-9, 30), 30)
    n = np.repeat([1, 2, 5, 30, 1000, 100_000], 7)
    k = np.asarray([[0, 1, m // 10, m // 2, m - m // 10, m - 1, m] for m in (1, 2, 5, 30, 1000, 100_000)]).ravel()
    lower, upper = clopper_pearson(k[:, None], n=n[:, None], alpha=tails)
    assert np.diff(upper, n=2, axis=1).max() < 1e-13
    assert np.diff(-lower, n=2, axis=1).max() < 1e-13


def test_a_hundred_categories_and_a_hundred_strata_are_quick() -> None:
    rng = np.random.default_rng(0)
    groups = coded_texts(rng.integers(0, 100, 5000).astype(str))
    start = time.process_time()
    found = AdverseImpact().tables(
        "selection_rate", ("category",), Table.from_rows(groups, rng.random(5000) < 0.5, None), ""
    )
    assert len(found) == 202
    n = np.maximum(rng.lognormal(3.0, 1.0, 200).astype(np.int64), 1)
    sum_bounds(rng.normal(size=200), successes=rng.binomial(n, 0.5), n=n, alpha=1e-4)
    assert time.process_time() - start < 2.0
