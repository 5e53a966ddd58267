"""Changes between two models on the same rows: bounds that keep their promise, enumerated and simulated."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from scipy.special import gammaln, ndtri, xlogy
from scipy.stats import beta, multinomial

from auditor.core.rows import FloatArray
from auditor.statistics.changes import GapChange, PairedRates, RateChange, change_bounds
from auditor.statistics.groups import WorstDifference
from auditor.statistics.intervals import change_upper, sum_upper
from auditor.statistics.rates import RateTable
from tests.quantifiers import all_of
from tests.statistics.worlds import misses, most_misses

LEVELS = (0.05, 0.0125, 1e-3, 1e-4, 1e-5)


@cache
def states(n: int) -> tuple[FloatArray, FloatArray]:
    """(3, n_states) how many of n rows were gained, lost and neither, and how often (logarithm)."""
    gained, lost = (v.ravel().astype(float) for v in np.meshgrid(np.arange(n + 1), np.arange(n + 1)))
    k = np.stack([gained, lost, n - gained - lost])[:, gained + lost <= n]
    return k, gammaln(n + 1) - gammaln(k + 1).sum(axis=0)


def chances(n: int, p: tuple[float, float]) -> FloatArray:
    """(n_states,) the probability of each of :func:`states` where shares ``p`` are gained and lost."""
    k, often = states(n)
    logarithm = often + sum(xlogy(x, max(q, 0.0)) for x, q in zip(k, (*p, 1.0 - sum(p)), strict=True))
    return np.asarray(np.exp(logarithm), np.float64)


def shares(n: int, few: tuple[float, ...], many: tuple[float, ...]) -> list[tuple[float, float]]:
    """Shares gained and lost: ``few`` in counts of n, near 0 and near 1, and ``many``."""
    values = sorted({*(x / n for x in few), *(1.0 - x / n for x in few), *many})
    return [(p, q) for p in values for q in values if p + q <= 1.0 and 0.0 <= min(p, q)]


@pytest.mark.parametrize("n", [4, 30, 200])
def test_no_change_is_missed_more_often_than_promised(n: int) -> None:
    """Every table of n rows, at shares near every edge: two models' rows that changed are few, and many of one kind."""
    (gained, lost, _), _ = states(n)
    found = {alpha: change_upper(gained=gained, lost=lost, n=n, alpha=alpha) for alpha in LEVELS}
    worst = dict.fromkeys(LEVELS, 0.0)
    for p in shares(n, (0.0, 0.5, 1.0, 1.5, 3.0, 10.0), (0.05, 0.2, 0.5)):
        chance = chances(n, p)
        for alpha, high in found.items():
            worst[alpha] = max(worst[alpha], float(chance[high < p[0] - p[1] - 1e-12].sum()) / alpha)
    assert all_of(w <= 1.0 for w in worst.values()), worst
    # No room is left where a change is a plain rate.
    if n >= 200:
        assert max(worst.values()) > 0.9


# What the samples' values may be: a change of one group less that of the other; their differences after and before.
CHANGES = ((1.0, -1.0, 0.0), (-1.0, 1.0, 0.0))
GAPS = ((1.0, 2.0, 0.0), (-1.0, -2.0, 0.0))


@pytest.mark.parametrize("values", [CHANGES, GAPS])
@pytest.mark.parametrize("n", [(10, 10), (4, 30)])
def test_no_sum_of_two_samples_is_missed_more_often_than_promised(
    n: tuple[int, int], values: tuple[tuple[float, ...], tuple[float, ...]]
) -> None:
    (first, _), (second, _) = (states(m) for m in n)
    counts = np.stack([first[:, :, None] + 0 * second[:, None, :], second[:, None, :] + 0 * first[:, :, None]])
    v = np.asarray(values)[:, :, None, None]
    worst = dict.fromkeys(LEVELS, 0.0)
    high = {alpha: sum_upper(counts, values=v, alpha=alpha) for alpha in LEVELS}
    for p in shares(n[0], (0.0, 1.0), (0.2, 0.5)):
        for q in shares(n[1], (0.0, 1.0), (0.2, 0.5)):
            truth = sum(a[0] * x[0] + a[1] * x[1] + a[2] * (1.0 - sum(x)) for a, x in zip(values, (p, q), strict=True))
            for alpha in LEVELS:
                missed = (high[alpha] < truth - 1e-12).astype(float)
                worst[alpha] = max(worst[alpha], float(chances(n[0], p) @ missed @ chances(n[1], q)) / alpha)
    assert 0.0 < worst[0.05] and all_of(w <= 1.0 for w in worst.values()), worst


@pytest.mark.parametrize("alpha", [0.05, 1e-3, 1e-6])
@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 30), (3, 30), (29, 30), (30, 30), (400, 1_000)])
def test_a_change_without_losses_is_a_rate(k: int, n: int, alpha: float) -> None:
    exact = beta.isf(alpha, k + 1, n - k) if k < n else 1.0
    # The saddlepoint's tail is up to a tenth too large, never too small.
    assert (
        exact - 1e-9 <= change_upper(gained=k, lost=0, n=n, alpha=alpha) <= beta.isf(0.9 * alpha, k + 1, n - k + 1e-9)
    )


def normal_width(change: float, moved: float, n: float, alpha: float) -> float:
    return float(-2.0 * ndtri(alpha) * math.sqrt((moved - change**2) / n))


@pytest.mark.parametrize(
    ("gained", "lost", "n", "most"),
    [(10, 5, 200, 1.2), (30, 10, 200, 1.1), (40, 40, 200, 1.06), (20, 20, 1000, 1.11), (300, 200, 1000, 1.03)],
)
@pytest.mark.parametrize("alpha", [0.025, 1e-3])
def test_a_change_is_hardly_wider_than_a_paired_normal_interval(
    gained: int, lost: int, n: int, most: float, alpha: float
) -> None:
    low, high = RateChange(before=n // 2, gained=gained, lost=lost, n=n).bounds(alpha)
    assert high - low <= most * normal_width((gained - lost) / n, (gained + lost) / n, n, alpha)


@pytest.mark.parametrize("alpha", [0.025, 1e-3])
@pytest.mark.parametrize(
    ("gained", "lost", "n", "most"),
    [((10, 40), (40, 10), 1000, 1.15), ((5, 20), (5, 20), 1000, 1.2), ((15, 15), (15, 15), 300, 1.2)],
)
def test_a_gap_change_is_hardly_wider_than_a_paired_normal_interval(
    gained: tuple[int, int], lost: tuple[int, int], n: int, most: float, alpha: float
) -> None:
    """Two groups whose order is beyond doubt: 70 and 30 per cent."""
    before = (7 * n // 10, 3 * n // 10)
    low, high = GapChange(rates=(PairedRates(rate="r", before=before, gained=gained, lost=lost, n=(n, n)),)).bounds(
        alpha
    )
    variance = sum((g + k) / n - ((g - k) / n) ** 2 for g, k in zip(gained, lost, strict=True))
    assert high - low <= most * normal_width(0.0, variance, n, alpha)


def moved_rates(
    rng: np.random.Generator, before: list[float], gain: list[float], loss: list[float], n: list[int]
) -> PairedRates:
    k = rng.binomial(n, before)
    columns = {"before": k, "gained": rng.binomial(np.asarray(n) - k, gain), "lost": rng.binomial(k, loss)}
    return PairedRates(rate="r", **{c: tuple(x.tolist()) for c, x in columns.items()}, n=tuple(n))


WORLDS_OF_GAPS = {
    "two groups": ([([0.7, 0.3], [0.1, 0.1], [0.1, 0.1])], [200, 200]),
    "few changes": ([([0.6, 0.3], [0.01, 0.0], [0.0, 0.02])], [400, 150]),
    "another pair is the worst after": ([([0.8, 0.2, 0.5], [0.0, 0.6, 0.0], [0.05, 0.0, 0.2])], [150, 150, 150]),
    "turned round": ([([0.6, 0.4], [0.0, 0.5], [0.5, 0.0])], [150, 250]),
    "two rates": ([([0.8, 0.5], [0.1, 0.1], [0.1, 0.1]), ([0.3, 0.6], [0.1, 0.1], [0.1, 0.2])], [150, 150]),
    "small groups": ([([0.9, 0.2, 0.5], [0.2, 0.2, 0.2], [0.2, 0.2, 0.2])], [12, 25, 40]),
}


@pytest.mark.grid
@pytest.mark.parametrize("case", WORLDS_OF_GAPS)
@pytest.mark.parametrize("worlds", [150, pytest.param(2_000, marks=pytest.mark.slow)])
def test_no_gap_change_is_missed_more_often_than_promised(case: str, worlds: int) -> None:
    rates, n = WORLDS_OF_GAPS[case]
    spans = [
        [np.ptp(x) for x in (b, b + (1.0 - b) * up - b * down)]
        for b, up, down in ((np.asarray(v) for v in rate) for rate in rates)
    ]
    truth = float(max(after for _, after in spans) - max(before for before, _ in spans))
    rng = np.random.default_rng([len(case), *case.encode()])
    drawn = [GapChange(rates=tuple(moved_rates(rng, *rate, n) for rate in rates)) for _ in range(worlds)]
    assert max(misses(drawn, truth)) <= most_misses(worlds=worlds)


def test_many_groups_are_bounded_in_bounded_time() -> None:
    """70 groups are 4,830 pairs, of which some are bounded by their groups' own changes: no tighter than alone."""
    rng = np.random.default_rng(5)
    n = rng.integers(30, 300, 70).tolist()
    rate = moved_rates(rng, [0.5] * 70, [0.1] * 70, [0.1] * 70, n)
    low, high = GapChange(rates=(rate,)).bounds(0.05)
    fewer = {c: getattr(rate, c)[:60] for c in ("before", "gained", "lost", "n")}
    less = GapChange(rates=(PairedRates(rate="r", **fewer),)).bounds(0.05)
    assert -1.0 < low <= less[0] < 0.0 < less[1] <= high < 1.0


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


def test_the_widest_pair_of_all_rates_is_what_a_gap_was() -> None:
    """One rate's gap closes from 0.6 to 0, the other's stays at 0.2: the larger of them went from 0.6 to 0.2."""
    closed = PairedRates(rate="a", before=(400, 100), gained=(0, 300), lost=(0, 0), n=(500, 500))
    stayed = PairedRates(rate="b", before=(300, 200), gained=(5, 5), lost=(5, 5), n=(500, 500))
    for rates in ((closed, stayed), (stayed, closed)):
        change = GapChange(rates=rates)
        low, high = change.bounds(0.025)
        assert change.value == pytest.approx(-0.4) and low < -0.4 < high < -0.25
