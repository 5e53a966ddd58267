"""Rows that are kept of a stream, against all of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from auditor.data.audit_data import AuditData
from auditor.data.row_keys import keys_of
from auditor.data.row_sample import RowSample
from auditor.statistics.estimate import Undefined

N, MOST = 10_000, 1_000


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auditor.data.row_sample.MOST_ROWS", MOST)


def sampled(x: npt.NDArray[np.float64], order: npt.NDArray[np.intp], parts: int) -> RowSample:
    """Of rows whose label is whether x is positive, and whose group whether they stand at an even place."""
    found = RowSample(("g",), ("no", "yes"), 1)
    for some in np.array_split(order, parts):
        X, y = pd.DataFrame({"x": x[some], "place": 0.0}), (x[some] > 0).astype(np.int64)
        # The names of the groups come in another order in each part.
        even = some % 2 == 0
        groups = (even.astype(np.int64), ["odd", "even"]) if parts % 2 else ((~even).astype(np.int64), ["even", "odd"])
        found.add(X, keys_of(X, y, None, None), y, [groups])
    return found


def rows(found: RowSample) -> list[tuple[float, int, str]]:
    kept = found.rows()
    assert kept.y_true is not None and kept.sensitive_features is not None and isinstance(kept.X, pd.DataFrame)
    return [*zip(kept.X["x"], kept.y_true.tolist(), kept.sensitive_features["g"], strict=True)]


def test_rows_that_are_few_are_kept_as_they_came() -> None:
    x = np.random.default_rng(0).normal(size=MOST)
    found = rows(sampled(x, np.arange(MOST), 7))
    assert found == [(v, int(v > 0), "odd" if i % 2 else "even") for i, v in enumerate(x.tolist())]


@pytest.mark.parametrize("heavy", [0.0, 0.4, 1.0])
def test_neither_order_nor_parts_draw_again(heavy: float) -> None:
    """Where rows are different, where nearly half of them are equal, and where only four are different."""
    rng = np.random.default_rng(1)
    x = np.where(rng.random(N) < heavy, rng.choice([-1.0, 1.0], N), rng.normal(size=N))
    first = sampled(x, np.arange(N), 3)
    assert first.why_not == "" and len(rows(first)) == MOST
    for order, parts in [(rng.permutation(N), 1), (np.argsort(x), 10), (np.argsort(-np.abs(x)), 41)]:
        assert rows(sampled(x, order, parts)) == rows(first)


@pytest.mark.parametrize("heavy", [0.0, 0.4, 1.0])
def test_the_rows_that_are_kept_are_as_good_as_drawn(heavy: float) -> None:
    """Shares of a level and a group among them differ from those of all as those of a draw without replacement."""
    z = []
    for world in range(20):
        rng = np.random.default_rng(world)
        # The hash of a level is the same in every world.
        shift = rng.random()
        x = np.where(rng.random(N) < heavy, rng.choice([-1.1, 0.9, 1.9], N) + shift, rng.normal(size=N))
        found = pd.DataFrame(rows(sampled(x, np.arange(N), 4)), columns=["x", "y", "g"])
        for kept, whole in [
            ((found["x"] > 1.9) & (found["g"] == "odd"), (x > 1.9) & (np.arange(N) % 2 == 1)),
            (found["x"] <= -0.1, x <= -0.1),
        ]:
            p = whole.mean()
            z.append((kept.mean() - p) / np.sqrt(p * (1 - p) / MOST * (1 - MOST / N)))
    # Of 40 numbers of variance 1 the mean square is between 0.4 and 1.9 but in one case of a thousand each.
    assert 0.4 < float(np.square(z).mean()) < 1.9 and abs(float(np.mean(z))) < 3.3 / np.sqrt(len(z))


def test_copies_that_are_not_counted_are_seen_to_be_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they are among the rows that are kept or not."""
    monkeypatch.setattr("auditor.data.row_sample._MOST_CONTENTS", 1_000)
    rng = np.random.default_rng(0)
    different, thrice = rng.normal(size=N), np.repeat(rng.normal(size=N // 4), 4)
    assert sampled(different, np.arange(N), 5).why_not == ""
    assert "copies of one another" in sampled(thrice, rng.permutation(N), 5).why_not
    assert isinstance(sampled(thrice, rng.permutation(N), 5).rows_or_reason(), Undefined)
    assert isinstance(sampled(different, np.arange(N), 5).rows_or_reason(), AuditData)
    # Where no part holds it twice, a level is kept with all its copies or left out with all.
    monkeypatch.setattr("auditor.data.row_sample.occurrence_of", lambda keys: np.zeros(len(keys), np.uint64))
    kept = []
    for level in range(8):
        late = np.append(different[: N // 2], np.full(N // 2, 0.1 * level))
        found = sampled(late, np.arange(N), 5)
        assert "copies of one another" in found.why_not
        kept.append(0.1 * level in {x for x, _, _ in rows(found)})
    assert set(kept) == {True, False}


def test_the_more_columns_the_fewer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auditor.data.row_sample._MOST_CELLS", 1_000)
    assert len(rows(sampled(np.random.default_rng(0).normal(size=N), np.arange(N), 5))) == 500
