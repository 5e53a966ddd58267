"""Distances of distributions: values against scipy's, error rates by simulation."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

import probes.language.generation_bias
from auditor.core.rows import FloatArray
from auditor.statistics.estimate import Undefined
from auditor.statistics.means import BracketedMean, paired_difference
from probes.language.generation_bias import (
    GenerationBias,
    _cross_fitted,
    group_distance,
    group_fairness,
    individual_distances,
    individual_fairness,
)
from tests.statistics.worlds import WORLDS, misses, most_misses

# ---- distances -----------------------------------------------------------------------------------------------------


def test_plain_distances_are_scipys() -> None:
    scores = np.random.default_rng(0).random((5, 3, 6))
    _, plain = individual_distances(scores)
    slow = [np.mean([wasserstein_distance(row[i], row[j]) for i, j in combinations(range(3), 2)]) for row in scores]
    np.testing.assert_allclose(plain, slow)
    _, group, _ = group_distance(scores)
    everything = scores.ravel()
    assert group == pytest.approx(np.mean([wasserstein_distance(scores[:, i].ravel(), everything) for i in range(3)]))


@pytest.mark.parametrize("n", [2, 7])
def test_the_held_out_distance_is_the_slow_obvious_one(n: int) -> None:
    """Beginning by beginning, pair by pair, with scores that tie within and between identities."""
    scores = np.random.default_rng(4).integers(0, 8, (30, 3, n)) / 8
    scores[:10] += np.random.default_rng(5).random((10, 3, n)) / 16
    halves = scores[..., : n // 2], scores[..., n // 2 :]
    slow = []
    for t in range(len(scores)):
        grid = sorted(set(scores[t].ravel()))
        total = 0.0
        for i, j in combinations(range(3), 2):
            for at, after in zip(grid, grid[1:], strict=False):
                a, b = (np.mean(half[t, i] <= at) - np.mean(half[t, j] <= at) for half in halves)
                total += 0.5 * (np.sign(a) * b + np.sign(b) * a) * (after - at)
        slow.append(total / 3)
    np.testing.assert_allclose(individual_distances(scores)[0], slow, atol=1e-12)


def test_pseudo_values_are_leave_one_out(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(1).random((4, 2, 3))
    _, plain, pseudo = group_distance(scores)
    monkeypatch.setattr(probes.language.generation_bias, "_AT_ONCE", 7)
    np.testing.assert_array_equal(group_distance(scores)[2], pseudo, "however many are held at once")
    slow = [4 * plain - 3 * group_distance(np.delete(scores, t, axis=0))[1] for t in range(4)]
    np.testing.assert_allclose(pseudo, slow)


def test_the_held_out_distance_of_separate_scores_is_the_distance() -> None:
    scores = np.stack([np.full((6, 4), 0.2), np.full((6, 4), 0.7)], axis=1)
    held_out, plain = individual_distances(scores)
    np.testing.assert_allclose(held_out, 0.5)
    np.testing.assert_allclose(plain, 0.5)
    np.testing.assert_allclose(group_distance(scores)[0], 0.25)


def test_held_out_estimates_are_not_biased_upward_and_plain_ones_are() -> None:
    rng = np.random.default_rng(2)
    scores = rng.random((4000, 2, 4))
    held_out, plain = individual_distances(scores)
    assert abs(held_out.mean()) < 4 * held_out.std() / np.sqrt(4000)
    assert plain.mean() > 0.15
    assert abs(np.mean([group_distance(s)[0].mean() for s in scores.reshape(200, 20, 2, 4)])) < 0.006


@pytest.fixture
def without_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The level of chance is for planning and for the detail; it takes most of the time and judges nothing."""
    monkeypatch.setattr(probes.language.generation_bias, "by_chance", lambda *arguments: 0.0)


def no_effect(kind: str, rng: np.random.Generator, m: int, k: int, n: int) -> FloatArray:
    if kind == "sparse":
        return np.asarray(rng.random((m, k, n)) < 0.1 * rng.uniform(0, 2, (m, 1, 1)), np.float64)
    scores = np.clip(rng.uniform(0.3, 0.6, (m, 1, 1)) + rng.normal(0, 0.2, (m, k, n)), 0, 1)
    return np.where(rng.random((m, k, n)) < 0.5, 0.5, scores) if kind == "half neutral" else scores


@pytest.mark.grid
@pytest.mark.parametrize("kind", ["plain", "half neutral", "sparse"])
@pytest.mark.parametrize(("m", "k", "n"), [(40, 2, 2), (10, 3, 8)])
@pytest.mark.usefixtures("without_chance")
def test_false_fails_where_there_is_no_effect(kind: str, m: int, k: int, n: int) -> None:
    """Even against a bound of 0 itself."""
    rng = np.random.default_rng(m)
    worlds = [no_effect(kind, rng, m, k, n) for _ in range(WORLDS)]
    for fairness in (individual_fairness, group_fairness):
        fails, _ = misses((fairness(scores, rng)[0] for scores in worlds), 0.0)
        assert fails <= most_misses()


@pytest.mark.grid
@pytest.mark.parametrize(("centre", "spread"), [(0.1, 0.0), (0.1, 0.1), (0.3, 0.2)])
@pytest.mark.parametrize(("m", "n"), [(40, 2), (10, 8)])
@pytest.mark.usefixtures("without_chance")
def test_error_rates_with_the_truth_at_the_bound(m: int, n: int, centre: float, spread: float) -> None:
    """Scores of the second identity are shifted by an amount that varies between beginnings; W1 is its mean."""
    rng = np.random.default_rng(m)
    scores = rng.uniform(0.2, 0.4, (WORLDS, m, 1, 1)) + rng.uniform(-0.15, 0.15, (WORLDS, m, 2, n))
    scores[:, :, 1] += rng.uniform(centre - spread, centre + spread, (WORLDS, m, 1))
    for fairness, true in ((individual_fairness, centre), (group_fairness, centre / 2)):
        assert max(misses((fairness(world, rng)[0] for world in scores), true)) <= most_misses()


def interacting(rng: np.random.Generator, m: int, k: int, n: int, shift: float) -> FloatArray:
    """Each beginning has identities of its own that it speaks well of; over all beginnings only the first differs."""
    likes = np.where(rng.random((m, k, 1)) < 0.5, 0.4, -0.4)
    score = 0.45 + likes + rng.normal(0.0, 0.01, (m, k, n)).round(2)
    score[:, 0] += shift
    return np.asarray(score, np.float64)


@pytest.mark.grid
@pytest.mark.parametrize(
    ("m", "k", "n"),
    [
        pytest.param(100, 10, 2, marks=pytest.mark.slow),
        pytest.param(60, 8, 4, marks=pytest.mark.slow),
        (8, 3, 2),
        (4, 2, 8),
    ],
)
@pytest.mark.usefixtures("without_chance")
def test_what_differs_within_beginnings_alone_is_no_difference_between_groups(m: int, k: int, n: int) -> None:
    """A rule that is learned on the beginnings it is applied to FAILs up to 30 % of these worlds."""
    rng = np.random.default_rng([m, k])
    estimates = []
    for _ in range(WORLDS):
        estimate = group_fairness(interacting(rng, m, k, n, 0.0), rng)[0]
        assert isinstance(estimate, BracketedMean)
        estimates.append(estimate)
    fails, _ = misses(estimates, 0.0)
    assert fails <= most_misses()
    values = [estimate.below.centre for estimate in estimates]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(WORLDS)


@pytest.mark.parametrize(("m", "n"), [(100, 2), (12, 6)])
@pytest.mark.usefixtures("without_chance")
def test_error_rates_of_the_group_distance_with_both(m: int, n: int) -> None:
    """Of two identities the first is 0.1 higher throughout, so each is W1 = 0.05 from both together."""
    rng = np.random.default_rng(m)
    estimates = (group_fairness(interacting(rng, m, 2, n, 0.1), rng)[0] for _ in range(WORLDS))
    assert max(misses(estimates, 0.05)) <= most_misses()


@pytest.mark.usefixtures("without_chance")
def test_folds_that_made_each_others_rule_are_not_taken_as_independent() -> None:
    """By hand: values 0.1, 0.3 of one fold and 0.2, 0.4 of the other; the standard errors 0.1 and 0.1 are averaged."""
    fitted = _cross_fitted(np.asarray([0.1, 0.2, 0.3, 0.4]))
    assert fitted.centre == pytest.approx(0.25)
    assert (fitted.standard_error, fitted.n) == (pytest.approx(0.1), 2)
    undefined, _ = group_fairness(np.random.default_rng(0).random((3, 2, 2)), np.random.default_rng(0))
    assert isinstance(undefined, Undefined) and "3 beginnings, and at least 4" in undefined.reason


@pytest.mark.usefixtures("without_chance")
def test_the_stated_power() -> None:
    rng = np.random.default_rng(3)
    m, effect = GenerationBias.power
    found = 0
    for _ in range(60):
        scores = rng.normal(0.3, 0.2, (m, 2, GenerationBias().n_samples)) + np.asarray([0.0, effect])[None, :, None]
        # Not cut to [0, 1], which would shorten the distance.
        found += individual_fairness(scores, rng)[0].bounds(0.05)[0] > 0.1
    assert found >= 48 - 8


def test_without_spread_nothing_is_certain() -> None:
    part = paired_difference(first="held out", second="", differences=np.zeros(20))
    low, high = BracketedMean(below=part, above=part).bounds(0.05)
    assert low == 0.0 and 0.1 < high < 0.2
