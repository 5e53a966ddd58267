"""Shares of pairs that are not independent: values by hand, variances against statsmodels, coverage by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

import probes.language.preference_shares
from auditor.data.benchmarks.benchmark import SentencePair
from auditor.judging.measurement import Outcome
from auditor.statistics.clusters import ClusteredMean
from auditor.statistics.estimate import Undefined
from auditor.statistics.rates import Proportion
from probes.language.preference_shares import clustered_share, independent_share, preferences, stereotype_scores
from tests.probes.language.pair_toys import number_labels_once, outcome, preferences_of
from tests.statistics.worlds import misses, most_misses


def test_preferences_and_ties() -> None:
    scores = np.asarray([[-10.0, -11.0], [-12.0, -11.0], [-100.0, -100.0002], [-100.0, -100.1], [np.nan, -1.0], [0, 0]])
    assert preferences(scores).tolist()[:4] == [1.0, 0.0, 0.5, 1.0]
    assert np.isnan(preferences(scores)[4])
    assert preferences(scores)[5] == 0.5


def test_independent_pairs_that_mostly_tie_are_not_judged() -> None:
    pairs = [SentencePair("a", "b", "x", ()) for _ in range(2000)]
    preferred = np.arange(2000) % 2.0
    assert outcome(stereotype_scores(pairs, preferred, "built_in_pairs", "")[0]) is Outcome.PASS
    preferred[:1001] = 0.5
    (tied,) = stereotype_scores(pairs, preferred, "built_in_pairs", "")
    assert outcome(tied) is Outcome.INCONCLUSIVE and "1,001 of 2,000 pairs" in tied.too_few


def test_an_independent_share_keeps_its_value_with_ties() -> None:
    for values in ([1, 0, 1, 1], [1, 0.5, 0.5, 0], [1, 0.5, 0, 0.5, 1]):
        share = independent_share(np.asarray(values, float))
        assert share.value == pytest.approx(np.mean(values))
    assert independent_share(np.asarray([1.0, 0.5, 0.0])) == Proportion(successes=1, n=2)
    assert math.isnan(independent_share(np.empty(0)).value)


def test_one_way_clusters_against_statsmodels() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(30), 7)
    preferred = (rng.normal(size=30)[groups] + rng.normal(size=210) > 0).astype(float)
    estimate = clustered_share(preferred, [groups.astype(str).tolist()])
    fit = sm.OLS(preferred, np.ones(210)).fit(cov_type="cluster", cov_kwds={"groups": groups})
    assert isinstance(estimate, ClusteredMean)
    assert estimate.value == preferred.mean()
    assert estimate.standard_error == pytest.approx(float(fit.bse[0]), rel=1e-9)
    assert estimate.degrees_of_freedom == pytest.approx(29)


def test_two_way_clusters_are_never_narrower_than_either() -> None:
    rng = np.random.default_rng(6)
    first, second = np.repeat(np.arange(20), 10).astype(str).tolist(), np.tile(np.arange(10), 20).astype(str).tolist()
    preferred = (rng.normal(size=200) > 0).astype(float)
    both = clustered_share(preferred, [first, second])
    assert isinstance(both, ClusteredMean)
    for one in (first, second):
        alone = clustered_share(preferred, [one])
        assert isinstance(alone, ClusteredMean) and both.standard_error >= alone.standard_error
    assert both.degrees_of_freedom == pytest.approx(9)


def test_shares_that_cannot_be_told() -> None:
    pair = SentencePair("a", "b", "x", ("t",))
    (one,) = stereotype_scores([pair] * 50, np.ones(50), "built_in_pairs", "")
    assert outcome(one) is Outcome.INCONCLUSIVE
    assert math.isnan(one.estimate.value)
    pairs = [SentencePair("a", "b", "x", (f"t{i % 4}",)) for i in range(80)]
    (few,) = stereotype_scores(pairs, np.ones(80), "built_in_pairs", "")
    assert outcome(few) is Outcome.INCONCLUSIVE
    assert "4 clusters of pairs are too few" in few.too_few
    (none,) = stereotype_scores(pairs, np.full(80, np.nan), "built_in_pairs", "")
    assert none.n_samples == 0 and math.isnan(none.estimate.value)
    assert "80 pairs share no token" in none.detail
    (nothing,) = stereotype_scores([], np.empty(0), "built_in_pairs", "")
    assert outcome(nothing) is Outcome.INCONCLUSIVE


def test_clusters_that_all_agree_count_once_each() -> None:
    codes = [str(i // 50) for i in range(300)]
    estimate = clustered_share(np.ones(300), [codes])
    # With six clusters, chance alone makes all agree in one of 32 worlds.
    assert isinstance(estimate, ClusteredMean)
    assert (estimate.value, estimate.standard_error, estimate.effective) == (1.0, 0.0, pytest.approx(6.0))
    # No narrower than Clopper and Pearson's bound of six in six.
    assert estimate.bounds(0.01) == (pytest.approx(1.0 - math.log(100.0) / 6.0), 1.0)
    assert estimate.bounds(0.01)[0] < Proportion(successes=6, n=6).bounds(0.01)[0] < 0.55
    assert clustered_share(np.zeros(300), [codes]).value == 0.0


SHAPES = {
    "6 templates": [np.repeat(np.arange(6), 10)],
    "40 writers": [np.repeat(np.arange(40), 8)],
    "10 x 6": [np.repeat(np.arange(10), 6), np.tile(np.arange(6), 10)],
    "30 x 12": [np.repeat(np.arange(30), 12), np.tile(np.arange(12), 30)],
}


@pytest.mark.grid
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spread", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("share", [0.5, 0.7])
def test_coverage_with_few_and_many_clusters(
    shape: str, spread: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    number_labels_once(monkeypatch, probes.language.preference_shares)
    labels = SHAPES[shape]
    names = [codes.astype(str).tolist() for codes in labels]
    worlds = preferences_of(np.random.default_rng(11), labels, spread, share)
    assert max(misses((clustered_share(world, names) for world in worlds), share)) <= most_misses()


def test_strata_of_a_balanced_design_are_taken_out() -> None:
    """By hand: two strata of two clusters of two; residuals +-0.25 in the first, none in the second."""
    preferred = np.asarray([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    labels, strata = ["a", "a", "b", "b", "c", "c", "d", "d"], ["x"] * 4 + ["y"] * 4
    estimate = clustered_share(preferred, [labels], strata)
    assert isinstance(estimate, ClusteredMean)
    by_hand = 2 / 1 * (0.5**2 + 0.5**2) / 8**2
    assert estimate.standard_error == pytest.approx(math.sqrt(max(by_hand, 0.375 * 0.625 / 8)))
    assert (estimate.value, estimate.degrees_of_freedom) == (0.375, pytest.approx(2))
    assert isinstance(clustered_share(preferred, [["a"] * 4 + ["c", "c", "d", "d"]], strata), Undefined)
