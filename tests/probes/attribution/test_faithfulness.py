"""Grades of attributions: numbers counted by hand, error rates by simulation, and what must be refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
from scipy.stats import spearmanr

from auditor.statistics.estimate import Undefined
from auditor.statistics.values import BoundedMean, bounded_mean
from probes.attribution.attribution_units import Units
from probes.attribution.faithfulness import (
    FRACTIONS,
    OCCLUSION,
    RANDOM,
    Curves,
    curves,
    ends,
    gain,
    grade,
    graded,
    group_gaps,
    occlusion,
    random_attribution,
    rank_agreement,
    rank_correlations,
    ranking,
    shares,
)
from probes.attribution.method_selection import TAIL
from tests.probes.attribution.graded_worlds import random_gains
from tests.statistics.worlds import WORLDS, misses, most_misses


def game(
    value: Callable[[np.ndarray], np.ndarray], n: int, d: int, present: np.ndarray | None = None
) -> tuple[Units, list[int]]:
    """Units whose score is a function of (rows, keep) alone; the list counts what was asked."""
    there = np.ones((n, d), bool) if present is None else present
    asked: list[int] = []

    def score(rows: np.ndarray, keep: np.ndarray) -> np.ndarray:
        asked.append(len(rows))
        assert not (keep & ~there[rows]).any()
        return np.asarray(value_of(rows, keep), float)

    def value_of(rows: np.ndarray, keep: np.ndarray) -> np.ndarray:
        return value(keep) if rows.size else np.zeros(0)

    units = Units(
        kind="feature",
        present=there,
        names=(tuple(f"u{j}" for j in range(d)),) * n,
        score=score,
        infill="nothing",
        in_distribution=True,
        output="a sum",
    )
    return units, asked


def linear(contributions: np.ndarray, present: np.ndarray | None = None) -> Units:
    """A score that is the sum of what is kept: (n, d) contributions."""
    n, d = contributions.shape
    there = np.ones((n, d), bool) if present is None else present
    return Units(
        kind="feature",
        present=there,
        names=(tuple(f"u{j}" for j in range(d)),) * n,
        score=lambda rows, keep: (contributions[rows] * keep).sum(axis=1),
        infill="nothing",
        in_distribution=True,
        output="a sum",
    )


ROWS1 = np.zeros(1, np.int64)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---- the numbers ---------------------------------------------------------------------------------------------------


def test_grades_of_a_linear_game_are_those_counted_by_hand() -> None:
    """Units of 4, 3, 2 and 1: f = 10; shares 0.25, 0.5 and 0.75 are one, two and three units."""
    units = linear(np.array([[4.0, 3.0, 2.0, 1.0]]))
    own = grade(units, ROWS1, {"own": np.array([[4.0, 3.0, 2.0, 1.0]])}, rng(), (0.25, 0.5, 0.75))["own"]
    # Without the top one 6, without the top two 3: drops of 4 and 7; of them alone 4 and 7 are left: 6 and 3 less.
    assert own.comprehensiveness[0] == pytest.approx((4 + 7) / 2 / 10)
    assert own.sufficiency[0] == pytest.approx((6 + 3) / 2 / 10)
    # 10, 6, 3, 1, 0 and 0, 4, 7, 9, 10 at quarters.
    assert own.deletion_auc[0] == pytest.approx((10 / 2 + 6 + 3 + 1) / 4 / 10)
    assert own.insertion_auc[0] == pytest.approx((4 + 7 + 9 + 10 / 2) / 4 / 10)


def test_the_wrong_order_has_the_mirrored_grades() -> None:
    units = linear(np.array([[4.0, 3.0, 2.0, 1.0]]))
    attributions = {"right": np.array([[4.0, 3.0, 2.0, 1.0]]), "wrong": np.array([[1.0, 2.0, 3.0, 4.0]])}
    found = grade(units, ROWS1, attributions, rng(), (0.25, 0.5, 0.75))
    assert found["wrong"].comprehensiveness[0] == pytest.approx((1 + 3) / 2 / 10)
    assert found["wrong"].deletion_auc[0] == pytest.approx(found["right"].insertion_auc[0])
    assert gain(found, "right", "wrong").value == pytest.approx(0.35)


def test_curves_are_those_of_the_slow_obvious_way() -> None:
    """Texts of different lengths under a score with interactions; every share by a loop over samples."""
    generator = rng(3)
    n, d = 17, 13
    present = np.arange(d)[None, :] < generator.integers(1, d + 1, n)[:, None]
    weights = generator.standard_normal((n, d))

    def f(i: int, keep: np.ndarray) -> float:
        kept = weights[i] * keep
        return float(np.tanh(kept.sum()) + 0.3 * kept[::2].sum() * kept[1::2].sum())

    units = Units(
        kind="word",
        present=present,
        names=((),) * n,
        score=lambda rows, keep: np.asarray([f(i, k) for i, k in zip(rows, keep, strict=True)]),
        infill="nothing",
        in_distribution=False,
        output="a score",
    )
    rows = np.arange(n)
    values = generator.standard_normal((n, d))
    order = ranking(values, present, np.ones(n), rng())
    full, empty = ends(units, rows)
    found = curves(units, rows, {"a": order}, full, empty)["a"]
    for i in range(n):
        m = int(present[i].sum())
        by_hand = [int(j) for j in np.argsort(-np.where(present[i], values[i], -np.inf), kind="stable")[:m]]
        for at, q in enumerate((0.0, *FRACTIONS, 1.0)):
            k = int(np.ceil(q * m - 1e-9))
            gone = np.isin(np.arange(d), by_hand[:k])
            assert found.x[i, at] == pytest.approx(k / m)
            assert found.deletion[i, at] == pytest.approx(f(i, present[i] & ~gone))
            assert found.insertion[i, at] == pytest.approx(f(i, present[i] & gone))


def test_no_score_is_asked_for_twice() -> None:
    """Of 3 units the six shares are 1, 1, 1, 2, 2 and all: two questions each way, beside the two ends."""
    units, asked = game(lambda keep: keep @ np.array([1.0, 2.0, 3.0]), 5, 3)
    grade(units, np.arange(5), {"a": np.ones((5, 3)), "b": np.ones((5, 3))}, rng())
    assert asked == [10, 5 * 2 * 2 * 2]


def test_a_low_score_is_explained_by_what_holds_it_low() -> None:
    """The same game upside down has the same grades: signed attributions are turned with the score."""
    values = np.array([[4.0, 3.0, -2.0, 1.0]])
    up = grade(linear(values), ROWS1, {"own": values}, rng())["own"]
    down = grade(linear(-values), ROWS1, {"own": -values}, rng())["own"]
    assert up.comprehensiveness[0] == pytest.approx(down.comprehensiveness[0])
    assert up.deletion_auc[0] == pytest.approx(down.deletion_auc[0])
    unsigned = grade(linear(-np.abs(values)), ROWS1, {"own": np.abs(values)}, rng())["own"]
    assert unsigned.comprehensiveness[0] > 0.4


def test_units_that_are_not_there_are_never_graded_nor_first() -> None:
    present = np.array([[True, True, False, False]])
    units = linear(np.array([[1.0, 2.0, 50.0, 50.0]]), present)
    values = np.array([[1.0, 2.0, 99.0, 99.0]])
    assert ranking(values, present, np.ones(1), rng()).tolist()[0][:2] == [1, 0]
    assert grade(units, ROWS1, {"own": values}, rng())["own"].comprehensiveness[0] == pytest.approx(2 / 3)
    assert occlusion(units, ROWS1).tolist() == [[1.0, 2.0, 0.0, 0.0]]


def test_ties_are_no_order_of_the_columns() -> None:
    present = np.ones((4_000, 3), bool)
    first = ranking(np.zeros((4_000, 3)), present, np.ones(4_000), rng())[:, 0]
    assert np.bincount(first) / 4_000 == pytest.approx(1 / 3, abs=0.04)


def test_occlusion_of_a_linear_game_is_its_contributions() -> None:
    values = rng().standard_normal((6, 5))
    np.testing.assert_allclose(occlusion(linear(values), np.arange(6)), values)


def test_constant_score_and_single_units_have_no_grade() -> None:
    flat, _ = game(lambda keep: np.full(len(keep), 3.0), 4, 5)
    rows = np.arange(4)
    found = grade(flat, rows, {"own": rng().random((4, 5)), RANDOM: rng(1).random((4, 5))}, rng())
    assert isinstance(gain(found, "own"), Undefined)
    one = linear(np.ones((4, 1)))
    assert isinstance(
        gain(grade(one, rows, {"own": np.ones((4, 1)), RANDOM: np.ones((4, 1))}, rng()), "own"), Undefined
    )


def test_rounding_is_no_span() -> None:
    noisy, _ = game(lambda keep: 1000.0 + 1e-5 * keep[:, 0], 4, 5)
    found = grade(noisy, np.arange(4), {"own": rng().random((4, 5)), RANDOM: rng(1).random((4, 5))}, rng())
    assert isinstance(gain(found, "own"), Undefined)


def test_grades_lie_in_their_ranges() -> None:
    generator = rng(5)
    for _ in range(20):
        table = generator.standard_normal(2**6) * 10.0
        units, _ = game(lambda keep, t=table: t[keep @ (1 << np.arange(6))], 30, 6)  # type: ignore[misc]
        attributions = {name: generator.standard_normal((30, 6)) for name in "abc"}
        for own in grade(units, np.arange(30), attributions, generator).values():
            assert np.abs(own.comprehensiveness).max() <= 1.0 and np.abs(own.sufficiency).max() <= 1.0
            for area in (own.deletion_auc, own.insertion_auc):
                assert 0.0 <= area.min() and area.max() <= 1.0 + 1e-12


def test_exchanging_two_methods_exchanges_their_grades() -> None:
    """What makes the true gain of a random attribution exactly 0."""
    units = linear(rng().standard_normal((9, 6)))
    rows = np.arange(9)
    full, empty = ends(units, rows)
    orders = {name: ranking(rng(i).random((9, 6)), units.present, np.ones(9), rng()) for i, name in enumerate("ab")}
    found = curves(units, rows, orders, full, empty)
    signs, sizes = np.sign(full - empty), np.full(9, 6)
    there = graded({"a": found["a"], "b": found["b"]}, signs, sizes)
    back = graded({"a": found["b"], "b": found["a"]}, signs, sizes)
    np.testing.assert_allclose(there["a"].comprehensiveness, back["b"].comprehensiveness)
    assert gain(there, "a", "b").value == pytest.approx(-gain(back, "a", "b").value)


# ---- error rates ---------------------------------------------------------------------------------------------------


def xor_like(n: int, d: int, generator: np.random.Generator) -> Units:
    """Contributions of very different sizes, and interactions."""
    weights = generator.standard_normal((n, d)) * np.exp(generator.standard_normal((n, d)))

    def score(rows: np.ndarray, keep: np.ndarray) -> np.ndarray:
        kept = weights[rows] * keep
        return np.asarray(kept.sum(axis=1) + kept[:, 0] * kept[:, 1], float)

    return Units(
        kind="feature",
        present=np.ones((n, d), bool),
        names=((),) * n,
        score=score,
        infill="",
        in_distribution=True,
        output="",
    )


@pytest.mark.grid
@pytest.mark.parametrize(("n", "alpha"), [(16, 0.05), (64, 0.05), (64, 0.0025)])
def test_random_attributions_gain_nothing_no_oftener_than_promised(n: int, alpha: float) -> None:
    """True gain 0, the worst case of both judgements: its bounds miss it with probability at most alpha each."""
    generator = rng(n)
    found = random_gains(xor_like(WORLDS * n, 8, generator), ["own"], n, generator)
    above, below = misses(_defined(world["own"] for world in found), 0.0, alpha)
    assert max(above, below) <= most_misses(alpha)


def _defined(found: Iterable[BoundedMean | Undefined]) -> list[BoundedMean]:
    """Every gain, all of which must be numbers."""
    known = [estimate for estimate in found if isinstance(estimate, BoundedMean)]
    assert len(known) == WORLDS
    return known


def test_true_attributions_are_confirmed() -> None:
    generator = rng(1)
    confirmed = 0
    for _ in range(50):
        values = generator.standard_normal((64, 8))
        attributions = {"own": values, RANDOM: random_attribution(linear(values), np.arange(64), generator)}
        found = gain(grade(linear(values), np.arange(64), attributions, generator), "own")
        confirmed += found.bounds(0.0025)[0] > 0.0
    assert confirmed >= 0.95 * 50


def test_the_best_of_ten_random_methods_is_confirmed_no_oftener_than_promised() -> None:
    """And choosing it on the samples that grade it is cheating, which the same simulation shows.

    A random attribution is as random on samples that did not choose it, whichever of the ten it is.
    """
    generator, n = rng(11), 64
    chosen = random_gains(xor_like(WORLDS * n // 2, 8, generator), ["best"], n // 2, generator)
    confirmed = _defined(world["best"] for world in chosen)
    for alpha in (0.05, TAIL):
        assert misses(confirmed, 0.0, alpha)[0] <= most_misses(alpha)
    ten, worlds = [f"m{i}" for i in range(10)], 400
    graded_by_all = random_gains(xor_like(worlds * n, 8, generator), ten, n, generator)
    best = [max(world.values(), key=lambda estimate: estimate.value) for world in graded_by_all]
    cheating = sum(estimate.bounds(0.05)[0] > 0.0 for estimate in best if isinstance(estimate, BoundedMean))
    assert cheating > 0.05 * worlds


# ---- agreement -----------------------------------------------------------------------------------------------------


def test_rank_correlation_is_scipys() -> None:
    generator = rng(2)
    first, second = generator.standard_normal((7, 9)), generator.standard_normal((7, 9)).round(0)
    found = rank_correlations(first, second, np.ones((7, 9), bool))
    expected = [spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_rank_correlation_leaves_out_what_is_not_there() -> None:
    present = np.array([[True, True, True, False]])
    first, second = np.array([[1.0, -2.0, 3.0, 100.0]]), np.array([[10.0, -20.0, 30.0, -100.0]])
    assert rank_correlations(first, second, present) == pytest.approx(1.0)
    # A method of magnitudes alone is compared by magnitudes: -2 is larger than 1.
    assert rank_correlations(first, np.array([[1.0, 2.0, 3.0, 0.0]]), present) == pytest.approx(1.0)


def test_agreement_is_one_of_a_method_with_itself_and_none_by_chance() -> None:
    generator = rng(4)
    values, other = generator.standard_normal((2, 300, 12))
    present = np.ones((300, 12), bool)
    assert rank_agreement(values, values, present).bounds(0.01)[0] > 0.96
    low, high = rank_agreement(values, other, present).bounds(0.01)
    assert low < 0.0 < high
    assert rank_agreement(values, -values, present).bounds(0.01)[1] < -0.96
    assert isinstance(rank_agreement(values, np.ones_like(values), present), Undefined)


def test_group_gap_is_the_difference_of_mean_shares() -> None:
    values = np.array([[1.0, -3.0], [1.0, 1.0], [4.0, 0.0], [2.0, 2.0], [0.0, 0.0]])
    largest, gaps = group_gaps(values, ["m", "m", "w", "w", "w"], ["p", "q"])
    np.testing.assert_allclose(shares(values)[:4, 0], [0.25, 0.5, 1.0, 0.5])
    assert gaps["p"].value == pytest.approx((1.0 + 0.5) / 2 - (0.25 + 0.5) / 2)
    assert not isinstance(largest, Undefined) and largest.value == pytest.approx(0.375)
    assert isinstance(group_gaps(values, ["m"] * 5, ["p", "q"])[0], Undefined)


@pytest.mark.slow
def test_largest_group_gap_misses_no_oftener_than_promised() -> None:
    """No gap in any of 10 features between 3 groups (true value 0); and one of 0.3, which is found."""
    generator = rng(8)
    worlds, beyond, found, missed = 80, 0, 0, 0
    for _ in range(worlds):
        groups = generator.choice(["a", "b", "c"], 150).tolist()
        values = generator.exponential(size=(150, 10)) ** 2
        largest, _ = group_gaps(values, groups, [str(j) for j in range(10)])
        beyond += largest.bounds(0.05)[0] > 0.0
        # Group a rests on feature 0 by 0.4 and the others not at all: mean shares of 0.4 and of 0.
        own = np.where(np.asarray(groups) == "a", 0.4, 0.0) + 1e-9
        rest = generator.dirichlet(np.ones(9), 150) * (1.0 - own[:, None])
        low, high = group_gaps(np.column_stack([own, rest]), groups, [str(j) for j in range(10)])[0].bounds(0.05)
        found += low > 0.1
        missed += not low <= 0.4 <= high
    assert beyond <= 10 and missed <= 10 and found >= 0.8 * worlds


def test_bounded_mean_of_one_sample_says_nothing() -> None:
    estimate = bounded_mean([0.3], low=-1.0, high=1.0)
    assert estimate.bounds(0.05) == (-1.0, 1.0)


def test_curves_hold_their_ends() -> None:
    units = linear(np.array([[4.0, 3.0, 2.0, 1.0]]))
    full, empty = ends(units, ROWS1)
    assert (full[0], empty[0]) == (10.0, 0.0)
    found: Curves = curves(units, ROWS1, {OCCLUSION: np.array([[0, 1, 2, 3]])}, full, empty)[OCCLUSION]
    assert found.deletion[0, [0, -1]].tolist() == [10.0, 0.0]
    assert found.insertion[0, [0, -1]].tolist() == [0.0, 10.0]
