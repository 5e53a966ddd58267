"""Estimates of numbers in a unit: bounds of means on a stated range, worst gaps, worst groups and distances."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from scipy.special import stdtrit
from scipy.stats import binom

from auditor.statistics.distribution_distances import WorstDistance
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.intervals import bounded_mean_reach, clopper_pearson
from auditor.statistics.means import mean
from auditor.statistics.values import (
    BoundedMean,
    LargestGap,
    LargestValue,
    WorstValueDistance,
    WorstValueGap,
    bounded_mean,
)

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def limit(n_worlds: int, alpha: float) -> int:
    """More misses than this would be seen in one test of a thousand, were the promise just kept."""
    return int(binom.ppf(0.999, n_worlds, alpha))


def rare(r: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return np.where(r.random(shape) < 0.01, r.uniform(0.9, 1.0, shape), np.clip(r.normal(0.1, 0.01, shape), 0.0, 1.0))


SKEWED: dict[str, tuple[Draw, float]] = {
    "one in a hundred far above": (rare, 0.99 * 0.1 + 0.01 * 0.95),
    "mass at zero": (lambda r, shape: r.beta(0.05, 5.0, shape), 0.05 / 5.05),
    "almost two values": (lambda r, shape: r.beta(0.1, 0.9, shape), 0.1),
    "uniform": (lambda r, shape: r.random(shape), 0.5),
    "mass at one": (lambda r, shape: r.beta(5.0, 1.0, shape), 5.0 / 6.0),
}


@pytest.mark.grid
@pytest.mark.parametrize("name", SKEWED)
@pytest.mark.parametrize("n", [2, 5, 30, 200])
def test_bounds_of_a_bounded_mean_hold_whatever_the_distribution(name: str, n: int) -> None:
    draw, truth = SKEWED[name]
    worlds = 20_000
    x = draw(np.random.default_rng(n), (worlds, n))
    centre, error = x.mean(axis=1), x.std(axis=1, ddof=1) / math.sqrt(n)
    third = ((x - centre[:, None]) ** 3).mean(axis=1)
    for alpha in (0.05, 0.005, 0.0005):
        high = centre + bounded_mean_reach(
            standard_error=error, third_moment=third, n=n, room=1.0 - centre, alpha=alpha
        )
        low = centre - bounded_mean_reach(standard_error=error, third_moment=-third, n=n, room=centre, alpha=alpha)
        assert (high < truth).sum() <= limit(worlds, alpha), (alpha, "high")
        assert (low > truth).sum() <= limit(worlds, alpha), (alpha, "low")


def test_student_would_break_the_promise_a_thousand_times_over() -> None:
    draw, truth = SKEWED["one in a hundred far above"]
    x = draw(np.random.default_rng(0), (20_000, 30))
    high = x.mean(axis=1) - stdtrit(29, 0.0005) * x.std(axis=1, ddof=1) / math.sqrt(30)
    assert (high < truth).mean() > 1_000 * 0.0005


def test_a_bounded_mean_is_the_arithmetic_it_says_on_any_range() -> None:
    x = np.random.default_rng(0).beta(2.0, 5.0, 40)
    plain = bounded_mean(x, low=0.0, high=1.0)
    moved = bounded_mean(50_000.0 + 1_000.0 * x, low=50_000.0, high=51_000.0)
    assert isinstance(plain, BoundedMean) and isinstance(moved, BoundedMean)
    assert plain.value == pytest.approx(x.mean(), abs=1e-12)
    for alpha in (0.5, 0.05, 1e-3, 1e-9):
        third = ((x - x.mean()) ** 3).mean()
        error = x.std(ddof=1) / math.sqrt(40)
        low = x.mean() - bounded_mean_reach(standard_error=error, third_moment=-third, n=40, room=x.mean(), alpha=alpha)
        high = x.mean() + bounded_mean_reach(
            standard_error=error, third_moment=third, n=40, room=1.0 - x.mean(), alpha=alpha
        )
        assert plain.bounds(alpha) == pytest.approx((max(low, 0.0), min(high, 1.0)), abs=1e-12)
        assert moved.bounds(alpha) == pytest.approx([50_000 + 1_000 * b for b in plain.bounds(alpha)], abs=1e-6)
    nested = plain.many_bounds(np.geomspace(0.5, 1e-12, 40))
    assert (np.diff(nested[:, 0]) <= 1e-12).all() and (np.diff(nested[:, 1]) >= -1e-12).all()


def test_a_bounded_mean_of_zeros_and_ones_is_near_clopper_pearson_and_outside_it() -> None:
    for k, n in ((0, 50), (3, 50), (25, 50), (50, 50), (10, 400)):
        part = bounded_mean(np.r_[np.ones(k), np.zeros(n - k)], low=0.0, high=1.0)
        exact = clopper_pearson(k, n=n, alpha=0.001)
        low, high = part.bounds(0.001)
        assert low <= exact[0] + 0.01 and high >= exact[1] - 0.01
        assert (low, high) == pytest.approx((float(exact[0]), float(exact[1])), abs=0.06)


def test_few_rows_say_little_and_none_say_nothing() -> None:
    one = bounded_mean([3.0], low=0.0, high=10.0)
    assert one.value == 3.0 and one.bounds(0.05) == (0.0, 10.0)
    assert isinstance(bounded_mean([], low=0.0, high=1.0), Undefined)
    same = bounded_mean([7.0] * 20, low=0.0, high=10.0)
    low, high = same.bounds(0.05)
    assert low < 7.0 < high, "equal values are no certainty"
    assert high == pytest.approx(7.0 + 3.0 * math.log(20.0) / 20.0, abs=0.02)


def test_a_root_is_the_root_of_its_bounds() -> None:
    x = np.random.default_rng(1).exponential(2.0, 60).clip(0.0, 25.0)
    square, root = bounded_mean(x, low=0.0, high=25.0), bounded_mean(x, low=0.0, high=25.0, root=True)
    assert root.value == pytest.approx(math.sqrt(x.mean()))
    assert root.bounds(0.01) == pytest.approx([math.sqrt(b) for b in square.bounds(0.01)])
    assert root.limits == (0.0, 5.0)


def test_a_record_that_contradicts_itself_is_refused() -> None:
    good = {"centre": 1.0, "standard_error": 0.1, "third_moment": 0.0, "n": 3, "low": 0.0, "high": 2.0}
    BoundedMean.model_validate(good)
    for bad in (
        {"centre": 3.0},
        {"low": 5.0},
        {"n": 0},
        {"standard_error": -1.0},
        {"low": -1.0, "root": True},
        {"low": 1.0, "high": 1.0},
    ):
        with pytest.raises(ValidationError):
            BoundedMean.model_validate(good | bad)


def test_the_worst_gap_is_the_largest_of_its_pairs() -> None:
    rng = np.random.default_rng(0)
    parts = tuple(bounded_mean(rng.beta(2, 2, 80), low=0.0, high=1.0) for _ in range(3))
    gap = WorstValueGap(parts=parts)
    assert gap.value == pytest.approx(max(p.value for p in parts) - min(p.value for p in parts))
    low, high = gap.bounds(0.01)
    pairs = [WorstValueGap(parts=(a, b)) for a in parts for b in parts if a is not b]
    # Two groups are two ordered pairs, three are six: the same level for each pair of the union bound.
    assert low == pytest.approx(max(p.bounds(0.01 / 3)[0] for p in pairs))
    assert high == pytest.approx(max(p.bounds(0.01)[1] for p in pairs))
    assert gap.limits == (0.0, 1.0)
    holed = WorstValueGap(parts=(*parts, Undefined(reason="no rows")))
    assert math.isnan(holed.value) and holed.bounds(0.01)[1] == math.inf
    assert WorstValueGap(parts=parts[:1]).bounds(0.01) == (0.0, math.inf)


def test_the_largest_value() -> None:
    parts = tuple(bounded_mean(np.full(200, x) + np.tile([0.0, 0.2], 100), low=0.0, high=1.0) for x in (0.1, 0.4))
    worst = LargestValue(parts=parts)
    assert worst.value == pytest.approx(0.5)
    assert worst.bounds(0.01) == pytest.approx(
        (parts[1].bounds(0.005)[0], max(p.bounds(0.01)[1] for p in parts)), abs=1e-12
    )
    holed = LargestValue(parts=(parts[0], Undefined(reason="no rows")))
    assert math.isnan(holed.value)
    assert holed.bounds(0.01)[0] == pytest.approx(parts[0].bounds(0.01)[0]) and holed.bounds(0.01)[1] == math.inf


def test_the_worst_distance_has_the_bounds_of_one_on_the_unit_range() -> None:
    d = WorstValueDistance(distances=(3.0, 1.0, 2.0), n=(100, 200, 50), span=10.0)
    unit = WorstDistance(distances=(0.3, 0.1, 0.2), n=(100, 200, 50)).bounds(0.01)
    assert 0.0 < unit[0] < 0.3 < unit[1] < 1.0
    assert d.bounds(0.01) == pytest.approx((10.0 * unit[0], 10.0 * unit[1]))
    plan = {"alpha": 0.01, "ideal": 0.0}
    assert d.growth(bound=5.0, miss=0.2, **plan) == pytest.approx(
        WorstDistance(distances=(0.3, 0.1, 0.2), n=(100, 200, 50)).growth(bound=0.5, miss=0.2, **plan)
    )
    assert d.detectable(bound=5.0, sign=1, **plan) == pytest.approx(
        10.0 * WorstDistance(distances=(0.3, 0.1, 0.2), n=(100, 200, 50)).detectable(bound=0.5, sign=1, **plan)
    )
    assert d.limits == (0.0, 10.0) and d.value == 3.0
    loose = WorstValueDistance(distances=(3.0,), n=(5, 5), span=None)
    assert loose.bounds(0.01) == (0.0, math.inf) and math.isnan(
        loose.growth(bound=1.0, alpha=0.01, ideal=0.0, miss=0.2)
    )


def test_they_survive_a_record() -> None:
    part = bounded_mean([1.0, 2.0, 4.0], low=0.0, high=5.0)
    adapter: TypeAdapter[object] = TypeAdapter(AnyEstimate)
    for estimate in (
        part,
        WorstValueGap(parts=(part, mean([1.0, 2.0]), Undefined(reason="-"))),
        LargestValue(parts=(part,)),
        WorstValueDistance(distances=(1.0,), n=(3, 4), span=None),
    ):
        assert adapter.validate_json(adapter.dump_json(estimate)) == estimate


def test_a_wide_table_has_a_gap_a_column() -> None:
    one = WorstValueGap(parts=(bounded_mean(np.linspace(0.0, 1.0, 50), low=0.0, high=1.0),) * 2)
    assert LargestGap(gaps=(one,) * 2_500).comparisons == 5_000
