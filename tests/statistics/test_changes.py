"""Changes between two models on the same rows: bounds that keep their promise, enumerated and simulated."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import multinomial

from auditor.statistics.changes import GapChange, PairedRates, RateChange, change_bounds
from auditor.statistics.groups import WorstDifference
from auditor.statistics.rates import RateTable


@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.001])
@pytest.mark.parametrize("p", [(0.0, 0.0), (0.1, 0.1), (0.3, 0.05), (0.02, 0.5), (0.9, 0.1)])
def test_the_bounds_of_a_change_miss_no_more_often_than_they_may(p: tuple[float, float], alpha: float) -> None:
    n = 25
    gained, lost = (v.ravel() for v in np.meshgrid(np.arange(n + 1), np.arange(n + 1)))
    possible = gained + lost <= n
    gained, lost = gained[possible], lost[possible]
    chance = multinomial.pmf(np.stack([gained, lost, n - gained - lost], axis=1), n, [*p, max(1.0 - sum(p), 0.0)])
    low, high = change_bounds(gained=gained, lost=lost, n=n, alpha=alpha)
    assert chance[low > p[0] - p[1] + 1e-12].sum() <= alpha
    assert chance[high < p[0] - p[1] - 1e-12].sum() <= alpha


def test_a_change_by_hand() -> None:
    change = RateChange(before=200, gained=30, lost=10, n=400)
    assert change.value == pytest.approx(0.05)
    low, high = change.interval(0.95)
    assert 0.0 < low < 0.05 < high < 0.12  # McNemar's exact p is 0.002
    assert math.isnan(RateChange(before=0, gained=0, lost=0, n=0).value)
    assert RateChange(before=0, gained=0, lost=0, n=0).bounds(0.05) == (-1.0, 1.0)
    low, high = RateChange(before=500, gained=0, lost=0, n=1000).bounds(0.05)
    assert -0.006 < low < 0.0 < high < 0.006
    with pytest.raises(ValueError, match="gains and"):
        RateChange(before=3, gained=3, lost=3, n=5)


def test_a_gap_change_is_the_difference_of_the_two_gaps() -> None:
    rate = PairedRates(rate="selection_rate", before=(600, 300), gained=(0, 250), lost=(50, 0), n=(1000, 1000))
    change = GapChange(rates=(rate,))
    assert change.value == pytest.approx(abs(0.55 - 0.55) - 0.30)
    low, high = change.bounds(0.025)
    assert low <= change.value <= high < 0.0
    assert change.gap(after=False) == WorstDifference(
        tables=(RateTable(rate="selection_rate", successes=(600, 300), n=(1000, 1000)),)
    )
    with pytest.raises(ValueError, match="no more losses"):
        PairedRates(rate="r", before=(1,), gained=(0,), lost=(2,), n=(5,))


def test_few_changed_rows_bound_the_change_tightly() -> None:
    rate = PairedRates(rate="r", before=(500, 400), gained=(0, 1), lost=(1, 0), n=(1000, 1000))
    low, high = GapChange(rates=(rate,)).bounds(0.05)
    assert high - low < 0.04  # the two gaps on their own know it to 0.2


def test_a_gap_that_closed_is_shown_by_the_rows_that_changed() -> None:
    """Of 1,000 rows in each group 60 went one way in one and none in the other: that says less, whatever the gaps."""
    rate = PairedRates(rate="r", before=(600, 400), gained=(0, 60), lost=(0, 0), n=(1000, 1000))
    low, high = GapChange(rates=(rate,)).bounds(0.025)
    assert -0.10 < low < -0.06 < high < -0.02
    apart = [GapChange(rates=(rate,)).gap(after=after).bounds(0.0125) for after in (False, True)]
    assert apart[1][1] - apart[0][0] > 0.0  # the two gaps on their own do not even know the sign
    opened = PairedRates(rate="r", before=(600, 400), gained=(60, 0), lost=(0, 0), n=(1000, 1000))
    assert GapChange(rates=(opened,)).bounds(0.025)[0] > 0.02


def test_a_gap_that_turned_round_is_not_taken_for_closed() -> None:
    """From 0.2 to -0.2: the change of the rates is -0.4, that of the gap is nothing."""
    rate = PairedRates(rate="r", before=(600, 400), gained=(0, 400), lost=(0, 0), n=(1000, 1000))
    assert GapChange(rates=(rate,)).value == pytest.approx(0.0, abs=1e-12)
    low, high = GapChange(rates=(rate,)).bounds(0.025)
    assert low < 0.0 < high
