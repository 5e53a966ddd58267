"""Differences of areas, their extremes, and average precision, against slow versions."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from auditor.statistics.detection import (
    AreaDifference,
    AveragePrecision,
    EqualErrorRate,
    ExcessShare,
    LargestDrop,
    LowestArea,
    area_difference,
    average_precision,
    equal_error_rate,
)
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.rank_estimates import area_under_curve


def paired(
    rng: np.random.Generator, n: tuple[int, int], auc: tuple[float, float], rho: float
) -> tuple[np.ndarray, ...]:
    """Two normal scores of the same rows, n positives and negatives, with these areas and this correlation."""
    z = rng.standard_normal((sum(n), 2))
    z[:, 1] = rho * z[:, 0] + np.sqrt(1.0 - rho**2) * z[:, 1]
    positive = np.arange(sum(n)) < n[0]
    z[positive] += norm.ppf(auc) * 2**0.5
    return z[:, 0], z[:, 1], positive


def test_a_difference_of_areas_has_delongs_variance() -> None:
    a, b, own = paired(np.random.default_rng(0), (30, 40), (0.8, 0.7), 0.5)
    found = area_difference(first=a, second=b, positive=own)
    assert isinstance(found, AreaDifference)
    assert found.value == pytest.approx(roc_auc_score(own, a) - roc_auc_score(own, b))

    def placements(scores: Any) -> tuple[Any, Any]:
        beats = scores[own][:, None] > scores[~own][None, :]
        return beats.mean(axis=1), beats.mean(axis=0)

    (over_a, under_a), (over_b, under_b) = placements(a), placements(b)
    ten, one = np.cov(over_a, over_b), np.cov(under_a, under_b)
    contrast = np.array([1.0, -1.0])
    delong = contrast @ ten @ contrast / 30 + contrast @ one @ contrast / 40
    ours = found.positives.standard_error**2 + found.negatives.standard_error**2
    assert ours == pytest.approx(delong)


def test_equal_scores_are_not_known_to_be_equal_everywhere() -> None:
    scores, own = np.arange(100.0), np.arange(100) % 2 == 0
    low, high = area_difference(first=scores, second=scores, positive=own).bounds(0.05)
    assert low == pytest.approx(-high) and 0.03 < high < 0.15


def test_the_floor_keeps_a_bad_second_from_being_a_merit() -> None:
    a, b, own = paired(np.random.default_rng(1), (80, 80), (0.7, 0.3), 0.0)
    plain, floored = (
        area_difference(first=a, second=b, positive=own),
        area_difference(first=a, second=b, positive=own, floor=0.5),
    )
    assert plain.value > 0.3 and floored.value == pytest.approx(roc_auc_score(own, a) - 0.5)
    assert floored.bounds(0.05)[0] <= floored.value <= floored.bounds(0.05)[1]


def test_an_undefined_part_leaves_an_extreme_open() -> None:
    known = area_under_curve(positives=np.arange(20.0) + 5.0, negatives=np.arange(20.0))
    nothing = Undefined(reason="no files")
    lowest = LowestArea(parts=(known, nothing))
    assert np.isnan(lowest.value) and lowest.bounds(0.05)[0] == 0.0 and lowest.bounds(0.05)[1] < 1.0
    drop = LargestDrop(
        parts=(area_difference(first=np.arange(8.0), second=np.arange(8.0), positive=np.arange(8) > 3), nothing)
    )
    assert np.isnan(drop.value) and drop.bounds(0.05)[1] == 1.0


def test_influences_on_average_precision_are_those_of_a_row_that_counts_a_little_more() -> None:
    rng = np.random.default_rng(2)
    x, y = np.round(rng.normal(1, 1, 25), 1), np.round(rng.normal(0, 1, 35), 1)
    found = average_precision(positives=x, negatives=y)
    assert isinstance(found, AveragePrecision)
    labels, scores = np.r_[np.ones(25), np.zeros(35)], np.r_[x, y]
    step, influence = 1e-5, []
    for i in range(60):
        # The share of positives is held, so a row's weight is taken from the others of its class.
        size = 25 if i < 25 else 35
        weight = np.where(labels == labels[i], 1.0 - step / size, 1.0)
        weight[i] += step
        moved = average_precision_score(labels, scores, sample_weight=weight)
        influence.append((moved - found.value) / step * size)
    for part, own in ((found.positives, influence[:25]), (found.negatives, influence[25:])):
        assert part.standard_error == pytest.approx(np.std(own, ddof=1) / len(own) ** 0.5, rel=2e-3)


def test_thinning_the_thresholds_only_widens_the_bounds() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(1.5, 1, 900), rng.normal(0, 1, 700)
    thin = equal_error_rate(positives=x, negatives=y)
    assert isinstance(thin, EqualErrorRate) and len(thin.alarms) <= 410
    at = np.r_[np.unique(np.r_[x, y]), np.inf]
    whole = thin.model_copy(
        update={
            "alarms": tuple((y[None, :] >= at[:, None]).sum(axis=1).tolist()),
            "misses": tuple((x[None, :] < at[:, None]).sum(axis=1).tolist()),
        }
    )
    assert thin.value == pytest.approx(whole.value, abs=1e-12)
    for alpha in (0.05, 1e-6):
        (low, high), (thin_low, thin_high) = whole.bounds(alpha), thin.bounds(alpha)
        assert thin_low <= low + 1e-9 and high <= thin_high + 1e-9
        assert thin_high - thin_low < 1.1 * (high - low)


def test_planning_names_the_size_at_which_no_error_is_enough() -> None:
    found = equal_error_rate(positives=np.arange(10.0) + 20.0, negatives=np.arange(10.0))
    n = int(np.ceil(10 * found.growth(bound=0.1, alpha=0.05, ideal=0.0, miss=0.1)))
    enough, few = (
        equal_error_rate(positives=np.arange(k) + 1e6, negatives=np.arange(k)).bounds(0.05)[1]
        for k in (n + 1, int(0.9 * n))
    )
    assert enough <= 0.1 < few


@pytest.mark.parametrize(
    "estimate",
    [
        equal_error_rate(positives=[2.0, 3.0, 4.0], negatives=[0.0, 2.5]),
        average_precision(positives=[2.0, 3.0, 4.0], negatives=[0.0, 2.5]),
        area_difference(first=np.arange(9.0), second=np.arange(9.0)[::-1], positive=np.arange(9) > 3),
        LowestArea(parts=(area_under_curve(positives=[1.0, 2.0], negatives=[0.0, 1.5]), Undefined(reason="none"))),
        LargestDrop(
            parts=(area_difference(first=np.arange(9.0), second=np.arange(9.0)[::-1], positive=np.arange(9) > 3),)
        ),
        ExcessShare(successes=2, n=9, promised=0.05),
    ],
)
def test_estimates_survive_json_and_nest(estimate: AnyEstimate) -> None:
    adapter: TypeAdapter[AnyEstimate] = TypeAdapter(AnyEstimate)
    again = adapter.validate_json(estimate.model_dump_json())
    assert again == estimate
    bounds = [again.bounds(alpha) for alpha in (0.5, 0.1, 0.05, 0.01, 1e-4, 1e-8)]
    for (low, high), (wider_low, wider_high) in pairwise(bounds):
        assert wider_low <= low and high <= wider_high


def test_a_staircase_that_is_none_is_refused() -> None:
    for alarms, misses in (((2, 3, 0), (0, 1, 2)), ((3, 1, 0), (0, 2, 1)), ((3, 1, 1), (0, 1, 2))):
        with pytest.raises(ValueError, match="threshold"):
            EqualErrorRate(alarms=alarms, misses=misses, n_positive=2, n_negative=3)


def test_too_few_or_impossible_scores_are_undefined() -> None:
    assert isinstance(average_precision(positives=[1.0], negatives=[1.0, 2.0]), Undefined)
    assert isinstance(equal_error_rate(positives=[np.nan], negatives=[1.0]), Undefined)
    assert isinstance(area_difference(first=[1.0, 2.0], second=[1.0, 2.0], positive=[True, False]), Undefined)
