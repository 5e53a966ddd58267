"""Changes of balanced accuracy and of the commonest decision, and what follows of many groups' rates: enumerated."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.special import gammaln, xlogy

from auditor.core.rows import FloatArray
from auditor.statistics.changes import Moved, RateChange, grown_apart, moved_rates, turned_round
from auditor.statistics.intervals import sum_upper
from auditor.statistics.rates import Proportion
from auditor.statistics.tradeoff_statistics import CommonestChange, MeanChange, PreferenceChange
from tests.quantifiers import all_of
from tests.statistics.worlds import most_misses

LEVELS = (0.05, 0.0125, 1e-3)


def tables(n: int, cells: int) -> tuple[FloatArray, FloatArray]:
    """(n_tables, cells) every way to sort n rows into cells, and the logarithm of how many ways there are to it."""
    found = np.asarray([k for k in itertools.product(range(n + 1), repeat=cells) if sum(k) == n], np.float64)
    return found, gammaln(n + 1.0) - gammaln(found + 1.0).sum(axis=1)


def chances(found: FloatArray, often: FloatArray, p: tuple[float, ...]) -> FloatArray:
    return np.asarray(np.exp(often + xlogy(found, np.asarray(p)).sum(axis=1)), np.float64)


def change(gained: int, lost: int, n: int) -> RateChange:
    return RateChange(before=n - gained, gained=gained, lost=lost, n=n)


@pytest.mark.parametrize(
    "shares",
    [
        ((0.1, 0.1), (0.1, 0.1), (0.1, 0.1)),
        ((0.0, 0.1), (0.3, 0.3), (0.02, 0.0)),
        ((0.5, 0.0), (0.0, 0.5), (0.05, 0.05)),
        ((0.9, 0.05), (0.0, 0.02), (0.0, 0.0)),
    ],
)
def test_a_mean_of_three_classes_changes_is_missed_no_more_often_than_promised(
    shares: tuple[tuple[float, float], ...],
) -> None:
    """Every table of three classes of 4, 6 and 8 rows, which are gained and lost with these probabilities."""
    sizes = (4, 6, 8)
    parts = [tables(n, 3) for n in sizes]
    places = np.stack(np.meshgrid(*(np.arange(len(found)) for found, _ in parts), indexing="ij")).reshape(3, -1)
    chance = np.prod(
        [
            chances(found, often, (*p, 1.0 - sum(p)))[i]
            for (found, often), p, i in zip(parts, shares, places, strict=True)
        ],
        axis=0,
    )
    kept = chance > 1e-9
    counts = np.stack([found[i[kept]].T for (found, _), i in zip(parts, places, strict=True)])
    truth = sum(g - lost for g, lost in shares) / 3.0
    for alpha in LEVELS:
        high = sum_upper(counts, values=np.asarray([1.0, -1.0, 0.0])[None, :, None] / 3.0, alpha=alpha)
        assert chance[kept][high < truth - 1e-9].sum() <= alpha
        some = int(np.argmax(chance[kept]))
        own = MeanChange(
            parts=tuple(change(int(c[0, some]), int(c[1, some]), n) for c, n in zip(counts, sizes, strict=True))
        )
        assert own.bounds(alpha)[1] == pytest.approx(float(high[some]), abs=1e-9)
        assert own.bounds(alpha)[0] <= own.value <= own.bounds(alpha)[1]


# Shares of rows decided (0, 0), (0, 1), (1, 0) and (1, 1) before and after.
@pytest.mark.grid(every=3)
@pytest.mark.parametrize(
    "shares",
    [
        (0.4, 0.1, 0.1, 0.4),
        (0.25, 0.25, 0.25, 0.25),
        (0.5, 0.0, 0.1, 0.4),
        (0.3, 0.4, 0.0, 0.3),
        (0.95, 0.03, 0.02, 0.0),
    ],
)
def test_a_change_of_the_commonest_decision_is_missed_no_more_often_than_promised(shares: tuple[float, ...]) -> None:
    """Every table of 11 rows: the commonest decision of the sample may be the other one before, after or both times."""
    n = 11
    found, often = tables(n, 4)
    chance = chances(found, often, shares)
    before, after = shares[0] + shares[1], shares[0] + shares[2]
    truth = max(after, 1.0 - after) - max(before, 1.0 - before)
    made = [commonest([(int(k[0] + k[1]), int(k[2]), int(k[1])), (int(k[2] + k[3]), int(k[1]), int(k[2]))], n)
            for k in found]  # fmt: skip
    for alpha in LEVELS[:2]:
        bounds = np.asarray([own.bounds(alpha) for own in made])
        assert chance[bounds[:, 0] > truth + 1e-9].sum() <= alpha
        assert chance[bounds[:, 1] < truth - 1e-9].sum() <= alpha
        assert all_of(low - 1e-12 <= own.value <= high + 1e-12 for own, (low, high) in zip(made, bounds, strict=True))


def commonest(parts: list[tuple[int, int, int]], n: int) -> CommonestChange:
    """Of every decision: rows that got it before, and that it gained and lost."""
    return CommonestChange(
        parts=tuple(RateChange(before=before, gained=gained, lost=lost, n=n) for before, gained, lost in parts)
    )


def test_one_decision_that_takes_over_is_seen_and_which_are_rare_costs_nothing() -> None:
    """From 60 % to all: of a thousand rows the bounds lie at most four points from the truth, not at the limits."""
    own = commonest([(600, 400, 0), (300, 0, 300), (100, 0, 100)], 1000)
    low, high = own.bounds(0.01)
    assert own.value == pytest.approx(0.4) and 0.36 < low < 0.4 < high < 0.44
    least, most = own.commonest_bounds(0.01, after=True)
    assert least > 0.99 and most == 1.0


# ---- many groups -----------------------------------------------------------------------------------------------------


def test_a_change_of_preferences_is_bounded_by_its_shift_on_its_own_range() -> None:
    shift, midpoint = Proportion(successes=60, n=100), Proportion(successes=55, n=100)
    low, high = shift.bounds(0.05)
    for span in (1.0, 8.0):
        found = PreferenceChange(shift=shift, midpoint=midpoint, span=span)
        assert found.value == pytest.approx(0.2 * span)
        assert found.bounds(0.05) == pytest.approx((span * (2 * low - 1), span * (2 * high - 1)))


def test_what_is_said_of_groups_follows_from_their_bounds() -> None:
    far = [Moved((0.2, 0.3), (0.1, 0.2), (0.35, 0.45)), Moved((-0.01, 0.01), (0.1, 0.2), (0.1, 0.2))]
    assert grown_apart(far) == (1, 0, pytest.approx(0.05)) and turned_round(far) is None
    # The first was above the second by 0.3 to 0.5, and is below it by at least 0.1.
    turned = [Moved((-0.6, -0.4), (0.7, 0.8), (0.2, 0.3)), Moved((-0.01, 0.01), (0.3, 0.4), (0.4, 0.5))]
    assert turned_round(turned) == (1, 0, pytest.approx(0.1))
    # They are now nearer to each other than they were, on the other side.
    assert grown_apart(turned) is None
    assert grown_apart(far[:1]) is None and turned_round([]) is None and moved_rates([], 0.05) == []


@pytest.mark.parametrize("apart", [0.0, 0.3])
def test_nothing_is_said_of_groups_more_often_than_promised(apart: float) -> None:
    """Three groups whose rates are as before, equal or apart, and of which some rows change; 5 % for all 18 sides."""
    rng = np.random.default_rng([2, int(10 * apart)])
    wrong, worlds, n = 0, 400, 80
    shares = [(0.45 + a, 0.1, 0.1, 0.35 - a) for a in (apart, 0.0, 0.0)]
    for _ in range(worlds):
        drawn = [rng.multinomial(n, p).tolist() for p in shares]
        changes = [RateChange(before=kept + lost, gained=gained, lost=lost, n=n) for kept, lost, gained, _ in drawn]
        moved = moved_rates(changes, 0.05 / 18)
        wrong += grown_apart(moved) is not None or turned_round(moved) is not None
    assert wrong <= most_misses(0.05, worlds)
