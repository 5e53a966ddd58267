"""Scores that were counted on a grid, against the scores themselves."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest

from auditor.core.errors import DataError
from auditor.core.rows import FloatArray, IntArray
from auditor.data.score_counts import (
    FAVOURABLE,
    LOSS_SCALE,
    OTHER,
    Asked,
    ScoreCounts,
    Scored,
    grid,
    log_losses,
)
from auditor.statistics.rank_estimates import AreaUnderCurve, area_of_counts, area_under_curve
from probes.fairness.score_fairness import pairwise_distances, streamed_distances
from tests.quantifiers import all_of

N, NAMES = 3_000, ["a", "b", "c"]
ASKED = Asked(cuts=(0.3, 0.5), bins=(10,), median=True)


class Rows:
    """Scores of three groups whose labels and decisions follow them, of a kind; some rows have no label."""

    def __init__(self, kind: str, n: int = N) -> None:
        rng = np.random.default_rng(0)
        self.group = rng.integers(0, 3, n)
        scores = rng.beta(2.0, 3.0 + self.group)
        self.scores = {
            "smooth": scores,
            "tiny": scores * 1e-6,
            "saturated": 1.0 - scores * 1e-5,
            "few": np.round(scores * 4) / 4,
            "one bin": 0.3 + scores * 1e-5,
        }[kind]
        self.truth = np.where(rng.random(n) < 0.1, -1, (rng.random(n) < scores).astype(int))
        self.decided = (self.scores >= np.median(self.scores)).astype(int)

    @property
    def probabilities(self) -> FloatArray:
        return np.column_stack([1.0 - self.scores, self.scores])

    def counted(self, parts: Sequence[IntArray], asked: Asked = ASKED) -> ScoreCounts:
        found = ScoreCounts(["g"], 1, 2, asked)
        for i in parts:
            found.add([(self.group[i], NAMES)], self.truth[i], self.decided[i], self.probabilities[i])
        return found

    def own(self, g: int, label: int) -> FloatArray:
        return self.scores[(self.group == g) & (self.truth == label)]


KINDS = ["smooth", "tiny", "saturated", "few", "one bin"]


def area(of: Scored, positives: int, negatives: int) -> AreaUnderCurve:
    found = area_of_counts(
        positives=of.counts[positives, FAVOURABLE], negatives=of.counts[negatives, OTHER], blurred=of.blurred
    )
    assert isinstance(found, AreaUnderCurve)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_an_area_of_counts_lies_within_its_error_and_its_interval_holds_the_exact_one(kind: str) -> None:
    rows = Rows(kind)
    of = rows.counted([np.arange(N)]).group_by(["g"])
    alphas = np.asarray([0.05, 0.01, 1e-4])
    for i, j in product(range(3), repeat=2):
        exact = area_under_curve(positives=rows.own(i, 1), negatives=rows.own(j, 0))
        found = area(of, i, j)
        assert isinstance(exact, AreaUnderCurve)
        assert abs(found.centre - exact.centre) <= found.grid + 1e-12
        assert found.standard_error >= exact.standard_error * (1.0 - 1e-12)
        assert abs(found.third_cumulant - exact.third_cumulant) <= found.cubed_error + 1e-15
        assert (found.many_bounds(alphas) - exact.many_bounds(alphas) <= [1e-12, np.inf]).all()
        assert (exact.many_bounds(alphas) - found.many_bounds(alphas) <= [np.inf, 1e-12]).all()
        # Where few scores occur nothing is hidden, and where all lie in one bin nothing is known.
        assert (found.grid < 1e-12) == (kind == "few")
        if kind == "one bin":
            assert found.grid > 0.1


def test_the_worst_order_within_a_bin_is_as_far_off_as_is_said() -> None:
    """All favourable rows of a bin above, or below, all others of it."""
    scores, truth = np.asarray([0.3, 0.3, 0.30001, 0.30001, 0.9, 0.1]), np.asarray([0, 0, 1, 1, 1, 0])
    for y in (truth, np.r_[1 - truth[:4], truth[4:]]):
        counts = ScoreCounts([], 1, 2, Asked())
        counts.add([], y, y, np.column_stack([1 - scores, scores]))
        found = area(counts.group_by([]), 0, 0)
        exact = area_under_curve(positives=scores[y == 1], negatives=scores[y == 0])
        assert isinstance(exact, AreaUnderCurve) and found.grid == pytest.approx(abs(found.centre - exact.centre))


@pytest.mark.parametrize("kind", KINDS)
def test_distances_of_counts_lie_within_their_error(kind: str) -> None:
    rows = Rows(kind)
    exact = pairwise_distances([rows.scores[rows.group == g] for g in range(3)])
    found, errors = streamed_distances(rows.counted([np.arange(N)]).group_by(["g"]))
    assert found.shape == exact.shape == (3, 2)
    assert (np.abs(found - exact) <= errors + 1e-12).all()
    if kind != "one bin":
        assert errors.max() < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_counts_and_the_median_are_exact(kind: str) -> None:
    rows = Rows(kind)
    counts = rows.counted(np.array_split(np.arange(N), 3))
    assert (counts.median is None) == (counts.unsettled() is not None) == (kind == "one bin")
    parts = np.array_split(np.arange(N), 2)
    counts.settle(([(rows.group[i], NAMES)], rows.probabilities[i]) for i in parts)
    of = counts.group_by(["g"])
    assert of.median == np.median(rows.scores)
    above = [int(((rows.scores > np.median(rows.scores)) & (rows.group == g)).sum()) for g in range(3)]
    assert of.above_median().tolist() == above
    for cut in ASKED.cuts:
        expected = np.bincount(rows.group[rows.scores >= cut], minlength=3)
        assert of.at_least(cut).sum(axis=1).tolist() == expected.tolist()
    known = rows.truth >= 0
    (loss,) = of.whole().moments("loss", LOSS_SCALE)
    losses = log_losses(rows.probabilities[known], rows.truth[known])
    assert loss is not None and loss.n == known.sum()
    assert loss.mean == pytest.approx(losses.mean(), abs=1e-8)
    assert losses.var(ddof=1) - 1e-15 <= loss.variance <= losses.var(ddof=1) + 1e-6


def test_rows_that_are_others_when_they_are_read_again_are_refused() -> None:
    rows = Rows("one bin")
    counts = rows.counted([np.arange(N)])
    with pytest.raises(DataError, match="not the same when they were read again"):
        counts.settle([([(rows.group[:9], NAMES)], rows.probabilities[:9])])


def same(a: ScoreCounts, b: ScoreCounts) -> bool:
    mine, theirs = a.group_by(["g"]), b.group_by(["g"])
    return all_of(
        [
            mine.groups == theirs.groups,
            *(np.array_equal(getattr(mine, k), getattr(theirs, k)) for k in ("counts", "edges", "least", "most")),
            *(np.array_equal(mine.sums[k], theirs.sums[k]) for k in mine.sums),
            (a.below, a.above, a.graded, a.n_values) == (b.below, b.above, b.graded, b.n_values),
        ]
    )


@pytest.mark.parametrize("most", [1 << 24, 1 << 13])
def test_order_parts_and_merging_change_nothing(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the groups are so many that the grid is made coarser on the way."""
    monkeypatch.setattr("auditor.data.score_counts._MOST_COUNTERS", most)
    rows = Rows("smooth")
    whole = rows.counted([np.arange(N)])
    assert (whole.edges.size < 1_000) == (most < 1 << 20)
    shuffled = np.random.default_rng(1).permutation(N)
    by_group = np.argsort(rows.group, kind="stable")
    assert same(whole, rows.counted(np.array_split(shuffled, 7)))
    assert same(whole, rows.counted(np.array_split(by_group, 50)))
    first, second = rows.counted([by_group[:500]]), rows.counted([by_group[500:]])
    first.update(second)
    assert same(whole, first)
    assert not same(whole, rows.counted([shuffled[1:]]))
    with pytest.raises(ValueError, match="only scores of the same class"):
        first.update(rows.counted([shuffled], Asked()))


def test_each_grid_has_the_ends_of_the_coarser_ones_and_of_the_cuts() -> None:
    grids = [grid(level, ASKED.cuts) for level in range(12)]
    assert all_of(set(a) < set(b) for a, b in zip(grids, grids[1:], strict=False))
    assert all_of({0.0, 0.3, 0.5, 1.0} <= set(g) for g in grids)
    assert np.diff(grids[-1]).max() <= 2.0**-12
    widths = np.diff(grids[-1])[1:]
    assert (widths[: widths.size // 2] / grids[-1][1 : 1 + widths.size // 2]).max() <= 2.0**-11


def test_how_far_the_third_cumulant_may_be_off_by_hand() -> None:
    """One bin of three is blurred: a row's place in it is off by half of the other side's share of the bin."""
    positives, negatives, blurred = np.asarray([2, 3, 1]), np.asarray([1, 4, 2]), np.asarray([False, True, False])
    found = area_of_counts(positives=positives, negatives=negatives, blurred=blurred)
    assert isinstance(found, AreaUnderCurve)
    over = np.repeat([0.5 / 7, 3 / 7, 6 / 7], positives)
    under = np.repeat([1 - 1 / 6, 1 - 3.5 / 6, 1 - 5.5 / 6], negatives)
    expected = 0.0
    for places, off in ((over, 4 / 7 / 2), (under, 3 / 6 / 2)):
        sd = float(places.std())
        expected += (6 * off * sd**2 + 12 * off**2 * sd + 8 * off**3) / places.size**2
    assert found.cubed_error == pytest.approx(expected, rel=1e-12)
