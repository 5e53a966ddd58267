"""Means over clusters with shares: against matrices, over every outcome there is, and in made-up populations."""

from __future__ import annotations

import csv
import math
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from auditor.core.rows import FloatArray
from auditor.statistics.clusters import (
    FEWEST_EFFECTIVE,
    ClusteredMean,
    ClusteredRates,
    SmallestClusteredRate,
    WorstClusteredDifference,
    WorstClusteredRatio,
    clustered_mean,
    mean_of_clusters,
    rates_of_groups,
    too_few,
)
from auditor.statistics.estimate import Undefined
from auditor.statistics.intervals import weighted_mean_reach
from auditor.statistics.values import bounded_mean
from tests.quantifiers import all_of

LEVELS = (0.05, 0.05 / 24, 1e-4)


def by_matrices(values: FloatArray, clusters: FloatArray) -> tuple[float, float]:
    """CR2's standard error and Satterthwaite's degrees of freedom for rows that are independent, as published.

    A mean is a regression on a constant: residuals ``(I - H) x``, each cluster's times ``(I - H_cc)^(-1/2)``.
    """
    n = len(values)
    residual_maker = np.eye(n) - np.full((n, n), 1.0 / n)
    quadratic = np.zeros((n, n))
    for c in np.unique(clusters):
        own = (clusters == c).astype(float)
        m = own.sum()
        # (I - 11'/n)^(-1/2) 1 = 1 / sqrt(1 - m / n) 1 for a block of m.
        part = residual_maker.T @ own / math.sqrt(1.0 - m / n) / n
        quadratic += np.outer(part, part)
    trace = np.trace(quadratic)
    return math.sqrt(float(values @ quadratic @ values)), float(trace**2 / np.trace(quadratic @ quadratic))


def test_clusters_of_one_size_are_those_of_cr2_as_published() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(12), 5)
    values = (rng.normal(size=12)[clusters] + rng.normal(size=60) > 0).astype(float)
    found = clustered_mean(values, clusters)
    assert isinstance(found, ClusteredMean)
    error, degrees = by_matrices(values, clusters)
    assert found.standard_error == pytest.approx(error, rel=1e-9)
    assert found.degrees_of_freedom == pytest.approx(degrees, rel=1e-9) == pytest.approx(11.0)
    assert found.effective == pytest.approx(12.0) and found.largest_share == pytest.approx(1 / 12)


def test_clusters_of_several_sizes_are_no_surer_than_cr2_and_have_its_degrees_of_freedom_by_matrices() -> None:
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 30, 25)
    clusters = np.repeat(np.arange(25), sizes)
    values = (rng.random(len(clusters)) < rng.random(25)[clusters]).astype(float)
    found = clustered_mean(values, clusters)
    assert isinstance(found, ClusteredMean)
    assert found.standard_error >= by_matrices(values, clusters)[0] * (1.0 - 1e-12)
    s = sizes / sizes.sum()
    away = np.eye(25) - np.outer(np.ones(25), s)
    a = np.diag(s**2 / np.minimum(1.0 - s, 1.0 - 2.0 * s + s @ s))
    product = a @ away @ away.T
    expected = np.trace(product) ** 2 / np.trace(product @ product)
    assert found.degrees_of_freedom == pytest.approx(float(expected), rel=1e-9)
    means = np.bincount(clusters, weights=values) / sizes
    slow = sum(w**2 * (y - values.mean()) ** 2 / min(1 - w, 1 - 2 * w + s @ s) for w, y in zip(s, means, strict=True))
    assert found.standard_error == pytest.approx(math.sqrt(slow), rel=1e-9)


def test_rows_that_are_clusters_of_their_own_have_the_bounds_of_a_bounded_mean() -> None:
    values = np.random.default_rng(2).random(40)
    found, usual = clustered_mean(values, np.arange(40)), bounded_mean(values, low=0.0, high=1.0)
    for alpha in LEVELS:
        assert found.bounds(alpha) == pytest.approx(usual.bounds(alpha), rel=1e-9)


def test_weights_are_repeated_rows_of_one_cluster() -> None:
    rng = np.random.default_rng(3)
    values, weights, clusters = rng.random(50), rng.integers(1, 5, 50), np.arange(50) // 2
    weighed = clustered_mean(values, clusters, weights)
    repeated = clustered_mean(np.repeat(values, weights), np.repeat(clusters, weights))
    assert isinstance(weighed, ClusteredMean) and isinstance(repeated, ClusteredMean)
    for name in ClusteredMean.model_fields:
        if name != "kind":
            assert getattr(weighed, name) == pytest.approx(getattr(repeated, name), rel=1e-9)
    # What weighs nothing is not there.
    assert clustered_mean([1.0, *values], [99, *clusters], [0, *weights]) == weighed


def test_copies_of_all_rows_change_nothing_within_their_clusters() -> None:
    rng = np.random.default_rng(4)
    values, clusters = rng.integers(0, 2, 60).astype(float), np.arange(60) // 3
    once, twelve = clustered_mean(values, clusters), clustered_mean(np.tile(values, 12), np.tile(clusters, 12))
    for alpha in LEVELS:
        assert twelve.bounds(alpha) == pytest.approx(once.bounds(alpha), rel=1e-9)


def test_no_rows_and_one_cluster_say_nothing() -> None:
    assert "0/0" in str(getattr(clustered_mean([], []), "reason", ""))
    alone = clustered_mean([1.0, 0.0], [7, 7])
    assert isinstance(alone, Undefined) and "one cluster" in alone.reason
    few = clustered_mean([1.0, 0.0, 1.0, 0.0], [0, 1, 2, 3])
    assert isinstance(few, ClusteredMean) and few.bounds(0.4) == (0.0, 1.0)
    assert "count as 4 " in too_few(few, "4 clusters") and f"at least {FEWEST_EFFECTIVE:g}" in too_few(
        few, "4 clusters"
    )


SHARES = {
    "six": np.ones(6),
    "ten": np.ones(10),
    "one of 1000 and five of 50": np.asarray([1000.0] + [50.0] * 5),
    "falling by a tenth": 0.9 ** np.arange(10),
    "falling by a fourth": 0.75 ** np.arange(10),
    "one of four": np.asarray([4.0] + [1.0] * 9),
    "half of them large": np.asarray([5.0] * 5 + [1.0] * 5),
}


@pytest.mark.grid
@pytest.mark.parametrize("shares", SHARES)
def test_neither_bound_is_missed_too_often_over_all_outcomes_of_clusters_that_agree_within(shares: str) -> None:
    """Every outcome there is, at rates from near 0 to near 1: each cluster's rows are all alike."""
    s = SHARES[shares] / SHARES[shares].sum()
    outcomes = (np.arange(2**s.size)[:, None] >> np.arange(s.size)) & 1
    won = outcomes.sum(axis=1)
    estimates = [mean_of_clusters(row, s) for row in outcomes.astype(float)]
    rates = np.concatenate(
        [np.geomspace(0.002, 0.1, 12), np.linspace(0.12, 0.88, 20), 1 - np.geomspace(0.1, 0.002, 12)]
    )
    chances = rates[:, None] ** won * (1.0 - rates[:, None]) ** (s.size - won)
    for alpha in LEVELS:
        low, high = np.asarray([e.bounds(alpha) for e in estimates]).T
        for missed in (high < rates[:, None] - 1e-12, low > rates[:, None] + 1e-12):
            assert float((chances * missed).sum(axis=1).max()) <= alpha


def vectorised(means: FloatArray, s: FloatArray, alpha: float) -> tuple[FloatArray, FloatArray]:
    """Both bounds of many worlds at once, (n_worlds, n_clusters); the first is held against the estimate itself."""
    first = mean_of_clusters(means[0], s)
    centre = means @ s
    e = means - centre[:, None]
    error = np.sqrt(e**2 @ (s**2 / np.minimum(1.0 - s, 1.0 - 2.0 * s + s @ s)))
    third = e**3 @ s**3

    def reach(sign: float, room: FloatArray) -> FloatArray:
        return weighted_mean_reach(
            standard_error=error, third_moment=sign * third, degrees_of_freedom=first.degrees_of_freedom,
            unseen=s.max() * room, alpha=alpha,
        )  # fmt: skip

    low, high = np.maximum(centre - reach(-1.0, centre), 0.0), np.minimum(centre + reach(1.0, 1.0 - centre), 1.0)
    assert (low[0], high[0]) == pytest.approx(first.bounds(alpha), rel=1e-9)
    return low, high


def populations(rng: np.random.Generator, s: FloatArray, mean: float, worlds: int) -> dict[str, FloatArray]:
    """Cluster means of one expectation: alike or not within, rare and skewed, and of a few clusters that vary alone."""
    shape = (worlds, s.size)
    alike = (rng.random(shape) < mean).astype(float)
    large = s >= 0.5 * s.max()
    often = min(mean / 0.97, 1.0)
    rare = np.where(rng.random(shape) < 0.03, (mean - 0.97 * often) / 0.03, often)
    rows = np.maximum(np.rint(3.0 * s / s.min()), 1.0).astype(int)
    return {
        "alike": alike,
        "hardly alike": rng.beta(3.0 * mean, 3.0 * (1.0 - mean), shape),
        "independent rows": rng.binomial(rows, mean, shape) / rows,
        "rarely low": rare,
        "large ones vary": np.where(large, alike, mean),
        "small ones vary": np.where(large, mean, alike),
        "three vary": np.where(np.arange(s.size) < 3, alike, mean),
        "large ones are rarely low": np.where(large, rare, mean),
    }


def writers() -> FloatArray:
    """How many of the 1,508 pairs of CrowS-Pairs each of its 77 writers wrote."""
    folder = os.environ.get("AUDITOR_TEST_DATA")
    if folder is None:
        pytest.skip("AUDITOR_TEST_DATA is not set")
    with (Path(folder) / "crows_pairs" / "crows_pairs_anonymized.csv").open(encoding="utf-8") as file:
        return np.asarray(list(Counter(row["anon_writer"] for row in csv.DictReader(file)).values()), np.float64)


@pytest.mark.grid
@pytest.mark.parametrize("mean", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("sizes", ["writers of CrowS-Pairs", "six large and a hundred small", "1 / k"])
def test_neither_bound_is_missed_too_often_in_populations_made_to_fool_it(sizes: str, mean: float) -> None:
    known = {"six large and a hundred small": np.asarray([25.0] * 6 + [1.0] * 100), "1 / k": 1.0 / np.arange(1, 41)}
    w = writers() if sizes not in known else known[sizes]
    s, worlds = w / w.sum(), 4_000
    for name, means in populations(np.random.default_rng(5), s, mean, worlds).items():
        for alpha in (0.05, 0.05 / 24):
            low, high = vectorised(means, s, alpha)
            allowed = alpha * worlds + 3.1 * math.sqrt(alpha * worlds) + 1.0
            assert max((low > mean + 1e-12).sum(), (high < mean - 1e-12).sum()) <= allowed, (name, alpha)


def test_the_writers_of_crows_pairs_count_as_25() -> None:
    w = writers()
    s = w / w.sum()
    assert (w.size, round(1.0 / float(s @ s))) == (77, 25)


# ---- of several groups ---------------------------------------------------------------------------------------------


def rates(*centres: float, n: int = 200) -> ClusteredRates:
    parts = [clustered_mean(np.arange(n) < round(c * n), np.arange(n)) for c in centres]
    return ClusteredRates(rate="r", parts=tuple(parts))


def test_a_gap_a_ratio_and_the_smallest_rate_by_hand() -> None:
    table = rates(0.2, 0.5, 0.4)
    low, high = zip(*(part.bounds(0.01) for part in table.defined_rates), strict=True)
    gap, ratio, least = (
        WorstClusteredDifference(tables=(table,)),
        WorstClusteredRatio(tables=(table,)),
        SmallestClusteredRate(tables=(table,)),
    )
    assert (gap.value, ratio.value, least.value) == pytest.approx((0.3, 0.4, 0.2))
    assert gap.bounds(0.06)[0] == pytest.approx(low[1] - high[0])
    assert gap.bounds(0.02)[1] == pytest.approx(high[1] - low[0])
    assert ratio.bounds(0.06)[1] == pytest.approx(high[0] / low[1])
    assert ratio.bounds(0.02)[0] == pytest.approx(low[0] / high[1])
    assert least.bounds(0.03)[1] == pytest.approx(high[0]) and least.bounds(0.01)[0] == pytest.approx(low[0])


def test_a_group_without_the_rate_leaves_the_upper_end_open() -> None:
    holed = ClusteredRates(rate="r", parts=(*rates(0.2, 0.9).parts, Undefined(reason="no rows")))
    for kind in (WorstClusteredDifference, WorstClusteredRatio):
        found = kind(tables=(holed,))
        assert math.isnan(found.value)
    assert WorstClusteredDifference(tables=(holed,)).bounds(0.05)[0] > 0.5
    assert WorstClusteredDifference(tables=(holed,)).bounds(0.05)[1] == 1.0
    assert WorstClusteredRatio(tables=(holed,)).bounds(0.05)[0] == 0.0
    assert SmallestClusteredRate(tables=(holed,)).bounds(0.05)[0] == 0.0


def test_a_ratio_of_two_tables_is_that_of_the_worse_whichever_stands_first() -> None:
    worse, better = rates(0.2, 0.5), rates(0.4, 0.5)
    ends = worse.ends(0.01)
    for tables in ((worse, better), (better, worse)):
        found = WorstClusteredRatio(tables=tables)
        assert found.bounds(0.02)[0] == pytest.approx(float(ends[0][0] / ends[1][1]))
        assert found.bounds(0.02 * found.comparisons)[1] == pytest.approx(float(ends[1].min() / ends[0].max()))


def test_groups_whose_rates_may_all_be_0_have_any_ratio() -> None:
    assert WorstClusteredRatio(tables=(rates(0.0, 0.0),)).bounds(0.05) == (0.0, 1.0)


def test_the_error_of_a_ratio_is_relative_to_the_mean_rate() -> None:
    tables = (rates(0.2, 0.5), rates(0.3, 0.6))
    gap, ratio = WorstClusteredDifference(tables=tables), WorstClusteredRatio(tables=tables)
    assert ratio.standard_error_at(1.0) == pytest.approx(gap.standard_error_at(1.0) / 0.4)
    absent = ClusteredRates(rate="r", parts=(Undefined(reason="no rows"),) * 2)
    assert math.isnan(WorstClusteredRatio(tables=(absent,)).standard_error_at(1.0))


def test_rates_of_groups_are_those_of_their_own_rows() -> None:
    rng = np.random.default_rng(6)
    won, groups, clusters, weights = (
        rng.random(300) < 0.4,
        rng.integers(-1, 3, 300),
        rng.integers(0, 40, 300),
        rng.random(300),
    )
    found = rates_of_groups("r", won, groups, 3, clusters, weights)
    assert len(found.parts) == 3
    for g, part in enumerate(found.parts):
        own = groups == g
        assert part.value == pytest.approx(np.average(won[own], weights=weights[own]))


def test_clusters_that_cross_the_groups_do_not_miss_the_gap() -> None:
    """Each person has rows in both groups, and what one group gains the other loses: the worst for two bounds."""
    rng = np.random.default_rng(7)
    missed = np.zeros(2)
    for _ in range(400):
        person = np.repeat(np.arange(40), 10)
        group = np.tile(np.arange(2), 200)
        own = rng.random(40) < 0.6
        won = np.where(group == 0, own[person], ~own[person])
        table = rates_of_groups("r", won, group, 2, person, None)
        low, high = WorstClusteredDifference(tables=(table,)).bounds(0.05)
        missed += (low > 0.2, high < 0.2)
    assert all_of((missed <= 33).tolist())
