"""GroupCounts: one table, and everything else a sum over it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.data.group_counts import MISSING, GroupCounts, count_groups, rates

CLASSES = ("no", "yes", "maybe")
SEX, RACE = ("f", "m"), ("a", "b", "c")


def world(n: int, seed: int = 0, *, missing: float = 0.2) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "pred": rng.integers(0, 3, n),
            "true": np.where(rng.random(n) < missing, -1, rng.integers(0, 3, n)),
            "sex": rng.choice([0, 1], n, p=[0.8, 0.2]),
            "race": rng.choice([0, 1, 2], n, p=[0.7, 0.2, 0.1]),
        }
    )


def count(frame: pd.DataFrame, *, positive: int | None = 1, labelled: bool = True) -> GroupCounts:
    return count_groups(
        frame["pred"].to_numpy(),
        frame["true"].to_numpy() if labelled else None,
        [(frame["sex"].to_numpy(), SEX), (frame["race"].to_numpy(), RACE)],
        features=("sex", "race"),
        classes=CLASSES,
        positive=positive,
    )


def as_dict(counts: GroupCounts) -> dict[tuple[str, ...], list[list[int]]]:
    return {group: table.tolist() for group, table in zip(counts.groups, counts.table, strict=True)}


def test_every_cell_is_what_a_loop_counts() -> None:
    frame = world(300)
    counts = count(frame)
    assert counts.n == 300
    slow: dict[tuple[str, ...], np.ndarray] = {}
    for row in frame.itertuples():
        cell = slow.setdefault((SEX[row.sex], RACE[row.race]), np.zeros((4, 3), int))
        cell[row.true if row.true >= 0 else 3, row.pred] += 1
    assert as_dict(counts) == {group: table.tolist() for group, table in slow.items()}


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 120), st.integers(0, 120), st.integers(0, 5))
def test_parts_add_up_to_the_whole(first: int, second: int, seed: int) -> None:
    frame = world(first + second, seed)
    parts = count(frame[:first]) + count(frame[first:])
    assert as_dict(parts) == as_dict(count(frame))
    assert parts.n == first + second


def test_only_like_counts_add() -> None:
    frame = world(50)
    with pytest.raises(ValueError, match="same features"):
        count(frame) + count(frame, positive=0)
    with pytest.raises(ValueError, match="same features"):
        count(frame) + count(frame).group_by(["sex"])


@pytest.mark.parametrize("features", [["sex"], ["race"], ["race", "sex"]])
def test_by_is_a_crosstab(features: list[str]) -> None:
    frame = world(500, missing=0.0)
    names = frame.assign(sex=frame["sex"].map(dict(enumerate(SEX))), race=frame["race"].map(dict(enumerate(RACE))))
    theirs = pd.crosstab([names[f] for f in features], [names["true"], names["pred"]])
    ours = count(frame).group_by(features)
    assert ours.features == tuple(features)
    assert list(ours.groups) == sorted(ours.groups)
    for group, table in zip(ours.groups, ours.table, strict=True):
        row = theirs.loc[group if len(features) > 1 else group[0]]
        for t in range(3):
            for p in range(3):
                assert table[t, p] == row.get((t, p), 0)


def test_missing_labels_count_for_selection_only() -> None:
    frame = world(400)
    counts = count(frame).group_by(["sex"])
    for i, code in enumerate((0, 1)):
        rows = frame[frame["sex"] == code]
        assert counts.sizes()[i] == len(rows)
        assert counts.selected()[i] == (rows["pred"] == 1).sum()
        known = rows[rows["true"] >= 0]
        expected = [
            [int((((known["true"] == 1) == t) & ((known["pred"] == 1) == p)).sum()) for p in (False, True)]
            for t in (False, True)
        ]
        assert counts.binary()[i].tolist() == expected
    unlabelled = count(frame, labelled=False)
    assert not unlabelled.labelled
    assert unlabelled.binary().sum() == 0
    assert unlabelled.selected().tolist() == count(frame).selected().tolist()


def test_a_positive_label_is_needed_for_what_needs_one() -> None:
    counts = count(world(20), positive=None)
    for needs_one in (counts.binary, counts.selected):
        with pytest.raises(ValueError, match="favourable"):
            needs_one()


def test_a_resample_is_a_draw_of_the_rows() -> None:
    frame = world(200)
    counts = count(frame)
    draws = counts.resample(4_000, np.random.default_rng(0))
    assert draws.shape == (4_000, *counts.table.shape)
    assert (draws.sum(axis=(1, 2, 3)) == 200).all()
    expected = counts.table.astype(float)
    error = np.sqrt(expected * (1 - expected / 200) / 4_000)
    assert (np.abs(draws.mean(axis=0) - expected) <= 5 * error + 1e-9).all()
    # the variance of a multinomial cell, as drawing rows with replacement has it
    np.testing.assert_allclose(draws.var(axis=0), expected * (1 - expected / 200), rtol=0.15, atol=0.05)
    slow = np.random.default_rng(1)
    rows = [count(frame.iloc[slow.integers(0, 200, 200)]).group_by(["sex"]).selected()[0] for _ in range(200)]
    ours = draws[:, [g[0] == "f" for g in counts.groups]][..., 1].sum(axis=(1, 2))
    assert np.mean(rows) == pytest.approx(ours.mean(), abs=1.5)
    assert np.std(rows) == pytest.approx(ours.std(), rel=0.2)


def test_rates_by_hand() -> None:
    table = np.array([[[6, 2], [1, 3]], [[0, 0], [2, 2]], [[0, 0], [0, 0]]])
    by_hand = [[5 / 12, 3 / 4, 2 / 8, 9 / 12], [2 / 4, 2 / 4, math.nan, 2 / 4], [math.nan] * 4]
    np.testing.assert_array_equal(rates(table), by_hand)


def test_too_many_groups_are_refused() -> None:
    codes = np.arange(3)
    with pytest.raises(ValueError, match="bin or drop"):
        count_groups(
            codes % 2,
            codes % 2,
            [(codes, [str(i) for i in range(2_000)]), (codes, [str(i) for i in range(2_000)])],
            features=("a", "b"),
            classes=("0", "1"),
        )


def test_a_code_without_a_level_is_the_missing_group() -> None:
    """pandas writes -1 for a missing category; as arithmetic goes it would count for another group."""
    sex, race = np.array([0, 1, 1, 1]), np.array([0, -1, 1, -1], np.int8)
    counts = count_groups(
        np.array([1, 1, 0, 0]), None, [(sex, SEX), (race, RACE)], features=("sex", "race"), classes=CLASSES, positive=1
    )
    assert counts.groups == (("f", "a"), ("m", "b"), ("m", MISSING))
    assert counts.sizes().tolist() == [1, 1, 2]
    assert counts.selected().tolist() == [1, 0, 1]
