"""Remarks of a comparison: each where every group's own rates show it, and hardly ever where nothing is so."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import pytest

from auditor.report.comparing.gap_warnings import remarks
from auditor.report.comparing.side_by_side import Both
from tests.quantifiers import none_of
from tests.report.paired_counts import paired_counts, some_audit
from tests.statistics.together import together
from tests.statistics.worlds import most_misses

LEVEL = 0.05
Array = npt.NDArray[np.int64]


def said(both: Both) -> list[str]:
    return remarks(both, [], some_audit(), LEVEL)


def named(both: Both, kind: str) -> list[str]:
    return [remark for remark in said(both) if remark.startswith(kind)]


def of_rates(
    rng: np.random.Generator,
    sizes: tuple[int, ...],
    before: tuple[float, ...],
    after: tuple[float, ...],
    *,
    again: float = 0.1,
    rightly: bool = False,
) -> Both:
    """Groups decided favourably at these rates, or ``rightly``, a share ``again`` of their rows decided anew."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    y, u = rng.choice(2, group.size), rng.random(group.size)
    v = np.where(rng.random(group.size) < again, rng.random(group.size), u)
    first, second = u < np.asarray(before)[group], v < np.asarray(after)[group]
    if rightly:
        first, second = np.where(first, y, 1 - y), np.where(second, y, 1 - y)
    names = np.asarray(["a", "b", "c", "d"])[group]
    return paired_counts(y, first.astype(np.int64), second.astype(np.int64), {"sex": names})


# ---- levelling down --------------------------------------------------------------------------------------------------


def test_levelling_down_is_named_although_one_group_gains_by_noise() -> None:
    """The better group falls by 20 points to the others, of which one has gained .3 points in the sample."""
    rng = np.random.default_rng(1)
    for _ in range(12):
        both = of_rates(rng, (1200, 1200, 1200), (0.9, 0.7, 0.7), (0.7, 0.7, 0.7), rightly=True)
        gained = [
            f.value for f in both.changes.values() if f.metric == "accuracy_change" and f.group.get("sex") in ("b", "c")
        ]
        (remark,) = named(both, "Levelling down: accuracy_difference")
        assert "fallen in 1 of 3 groups" in remark and "risen in none" in remark
        if max(gained) >= 0.003:
            return
    pytest.fail("no group gained anything in any sample")


def test_levelling_down_is_named_although_a_crumb_is_surely_gained() -> None:
    """One group gains 4 points, which is shown, while the best loses 25 and is all that the gap has closed by."""
    both = of_rates(np.random.default_rng(2), (4000, 4000), (0.9, 0.6), (0.65, 0.64), again=0.0, rightly=True)
    (remark,) = named(both, "Levelling down: accuracy_difference")
    assert "to have risen in 1 by less than half of that" in remark


def test_a_gap_that_closed_from_both_sides_is_not_levelled_down() -> None:
    both = of_rates(np.random.default_rng(3), (3000, 3000), (0.6, 0.2), (0.4, 0.4), again=0.0)
    assert not named(both, "Levelling down")
    (cost,) = named(both, "The cost falls on some")
    assert "selection_rate of sex=a" in cost and "true_positive_rate of sex=a" in cost


def test_fewer_favoured_in_every_group_is_levelling_down() -> None:
    both = of_rates(np.random.default_rng(4), (3000, 3000), (0.6, 0.3), (0.1, 0.05), again=0.0)
    found = named(both, "Levelling down: demographic_parity_difference")
    assert len(found) == 1 and "selection_rate is shown to have fallen in 2 of 2 groups" in found[0]


def test_more_favoured_wrongly_in_every_group_is_no_way_out() -> None:
    """Nearly everybody is approved: true positive rates rise, and so do false ones, in every group."""
    rng = np.random.default_rng(5)
    both = of_rates(rng, (3000, 3000), (0.7, 0.3), (0.97, 0.96), again=0.0)
    found = named(both, "Levelling down: false_positive_rate_difference")
    assert len(found) == 1 and "false_positive_rate is shown to have risen in 2 of 2 groups" in found[0]


def test_a_rate_whose_gap_did_not_close_has_levelled_nothing_down() -> None:
    """True positive rates meet because the lower one rose; false ones rise a little in both groups, as far apart."""
    rng, n = np.random.default_rng(13), 8000
    y, sex, u = rng.choice(2, n), rng.choice(2, n), rng.random(n)
    before = u < np.where(y == 1, np.where(sex == 0, 0.6, 0.9), 0.05)
    after = u < np.where(y == 1, 0.9, 0.1)
    groups = {"sex": np.asarray(["f", "m"])[sex]}
    both = paired_counts(y, before.astype(np.int64), after.astype(np.int64), groups)
    assert not named(both, "Levelling down") and not named(both, "Reversed")


@pytest.mark.parametrize("fall", [0.008, 0.0])
def test_a_fall_within_noise_is_not_levelling_down(fall: float) -> None:
    """Of 500 rows a group; the gap does close, because the others gain."""
    rng = np.random.default_rng([6, int(1e3 * fall)])
    worlds = [of_rates(rng, (500, 500), (0.8, 0.5), (0.8 - fall, 0.78), rightly=True) for _ in range(60)]
    wrong = sum(map(bool, together([partial(named, both, "Levelling down") for both in worlds])))
    assert wrong <= most_misses(LEVEL, 60)


# ---- moved and reversed ----------------------------------------------------------------------------------------------


def test_a_gap_that_flips_its_sign_is_named_whether_it_closed_or_not() -> None:
    rng = np.random.default_rng(7)
    for after in ((0.35, 0.5), (0.2, 0.7)):
        both = of_rates(rng, (2500, 2500), (0.6, 0.3), after, again=0.0)
        (remark, *_) = named(both, "Reversed: selection_rate")
        assert "of sex=a was above that of sex=b" in remark
    assert not named(of_rates(rng, (2500, 2500), (0.6, 0.3), (0.45, 0.45), again=0.0), "Reversed")


def test_a_gap_within_noise_of_nothing_has_not_flipped() -> None:
    """The rates are equal before and after, so that the sample's sign is a coin's."""
    rng = np.random.default_rng(8)
    worlds = [of_rates(rng, (400, 400), (0.5, 0.5), (0.5, 0.5), again=1.0) for _ in range(60)]
    assert none_of(together([partial(named, both, "Reversed") for both in worlds]))


def test_bias_that_moved_to_another_group_of_the_same_feature_is_named() -> None:
    """The lowest group rises to the highest, and another falls to where two groups are farther apart than before."""
    both = of_rates(np.random.default_rng(9), (2500, 2500, 2500), (0.6, 0.2, 0.55), (0.6, 0.55, 0.35), again=0.0)
    (remark,) = named(both, "Bias moved: demographic_parity_difference")
    assert "closed by sex" in remark and "sex=c and sex=a" in remark


def test_bias_that_moved_to_an_intersection_is_named() -> None:
    """By either feature the gap closes; two of the four groups that both make are farther apart than any were."""
    n, rng = 8000, np.random.default_rng(10)
    sex, race, y = rng.choice(2, n), rng.choice(2, n), rng.choice(2, n)
    u = rng.random(n)
    before = u < 0.35 + 0.15 * (sex + race)
    after = u < np.where(sex == race, 0.8, 0.2)
    both = paired_counts(
        y, before.astype(np.int64), after.astype(np.int64),
        {"sex": np.asarray(["f", "m"])[sex], "race": np.asarray(["p", "q"])[race]},
    )  # fmt: skip
    (remark,) = named(both, "Bias moved: demographic_parity_difference")
    assert "opened by sex x race" in remark and "closed by sex" in remark


# ---- how often they are wrong --------------------------------------------------------------------------------------


@pytest.mark.grid
@pytest.mark.parametrize("again", [0.1, 1.0])
@pytest.mark.parametrize("rates", [(0.5, 0.5, 0.5), (0.8, 0.5, 0.5), (0.95, 0.9, 0.1)])
def test_where_nothing_changed_nothing_is_said(rates: tuple[float, ...], again: float) -> None:
    """Of any kind: in at most the level of all remarks together, by how many rows ever are decided anew."""
    rng = np.random.default_rng([11, int(10 * again), int(100 * sum(rates))])
    worlds = [of_rates(rng, (150, 150, 60), rates, rates, again=again) for _ in range(50)]
    wrong = sum(map(bool, together([partial(said, both) for both in worlds])))
    assert wrong <= most_misses(LEVEL, 50)


def test_of_groups_whose_rates_fell_by_nothing_none_has_cost() -> None:
    """One group of two surely loses, the other nothing: the remark is right, and names the group that lost."""
    rng = np.random.default_rng(12)
    for _ in range(10):
        both = of_rates(rng, (1500, 1500), (0.6, 0.6), (0.4, 0.6), again=0.02)
        (cost,) = named(both, "The cost falls on some")
        assert "sex=a" in cost and "sex=b" not in cost
