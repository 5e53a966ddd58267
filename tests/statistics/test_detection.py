"""The equal error rate and the average precision of scores, against slow versions and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from auditor.statistics.detection import EqualErrorRate, average_precision, equal_error_rate


def test_equal_error_rate_by_hand() -> None:
    # Threshold between 0.4 and 0.6: one of four fakes missed, one of four real ones called fake.
    found = equal_error_rate(positives=[0.3, 0.7, 0.8, 0.9], negatives=[0.1, 0.2, 0.4, 0.75])
    assert found.value == pytest.approx(0.25)
    assert equal_error_rate(positives=[2.0, 3.0], negatives=[0.0, 1.0]).value == 0.0
    assert equal_error_rate(positives=[0.0, 1.0], negatives=[2.0, 3.0]).value == 1.0
    assert equal_error_rate(positives=[1.0, 1.0, 1.0], negatives=[1.0, 1.0]).value == pytest.approx(0.5)
    assert np.isnan(equal_error_rate(positives=[], negatives=[1.0]).value)


def test_equal_error_rate_agrees_with_the_curve_of_scikit_learn() -> None:
    from sklearn.metrics import roc_curve

    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y = np.round(rng.normal(1, 1, 37), 1), np.round(rng.normal(0, 1, 53), 1)
        fpr, tpr, _ = roc_curve([1] * 37 + [0] * 53, np.concatenate([x, y]), drop_intermediate=False)
        grid = np.linspace(0, 1, 200_001)
        slow = grid[np.argmin(np.abs(np.interp(grid, fpr, tpr) - (1 - grid)))]
        assert equal_error_rate(positives=x, negatives=y).value == pytest.approx(slow, abs=2e-5)


def test_equal_error_rate_bounds_are_narrow_enough_to_be_of_use_and_nested() -> None:
    rng = np.random.default_rng(2)
    found = equal_error_rate(positives=rng.normal(3, 1, 500), negatives=rng.normal(0, 1, 500))
    low, high = found.bounds(0.025)
    assert high - low < 0.09
    wider = found.bounds(0.001)
    assert wider[0] <= low and high <= wider[1]


def test_a_score_that_says_nothing_has_bounds_around_a_half() -> None:
    low, high = equal_error_rate(positives=[0.5] * 30, negatives=[0.5] * 30).bounds(0.025)
    assert low <= 0.5 <= high


def test_equal_error_rate_survives_json() -> None:
    found = equal_error_rate(positives=[0.3, 0.7], negatives=[0.1, 0.5])
    assert isinstance(found, EqualErrorRate)
    again = EqualErrorRate.model_validate_json(found.model_dump_json())
    assert again.bounds(0.05) == found.bounds(0.05)


def test_average_precision_by_hand_and_its_interval_holds_it() -> None:
    # Ranked fake, real, fake: precision 1 at recall 1/2, 2/3 at recall 1.
    found = average_precision(positives=[0.9, 0.5], negatives=[0.7, 0.1])
    assert found.value == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    perfect = average_precision(positives=np.linspace(2, 3, 30), negatives=np.linspace(0, 1, 30))
    low, high = perfect.bounds(0.025)
    assert perfect.value == 1.0 and high == 1.0 and 0.8 < low < 0.95
    assert np.isnan(average_precision(positives=[1.0], negatives=[0.0, 0.1]).value)
