"""Recourse against the slow obvious way: every combination of small discrete tables is enumerated."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from auditor.core.errors import UsageError
from auditor.data.audit_data import AuditData
from auditor.models.audited_model import AuditedModel
from probes.reasons.feature_actions import Scaled, actions, deviation, held_columns, indicators, nearest, parse_monotone
from probes.reasons.recourse import apply_changes, search
from tests.quantifiers import all_of

Decides = Callable[[pd.DataFrame], npt.NDArray[np.bool_]]


def rows(n: int, rng: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "income": rng.integers(0, 9, n),
            "debt": rng.integers(0, 7, n),
            "home": rng.choice(["own", "rent", "family"], n),
            "age": rng.integers(1, 6, n),
            "group": rng.choice(["a", "b"], n),
        }
    )


def model_of(decides: Decides) -> AuditedModel:
    return AuditedModel.from_callable(lambda X: decides(X).astype(np.float64), classes=("no", "yes"))


def data_of(frame: pd.DataFrame) -> AuditData:
    return AuditData.from_arrays(
        frame, classes=("no", "yes"), positive="yes", sensitive_features={"group": frame["group"].tolist()}
    )


def brute(frame: pd.DataFrame, row: int, decides: Decides, moves: dict[str, list[Any]]) -> list[tuple[int, float]]:
    """(number of changes, distance) of the nearest flip of every set of features that has one, and no part that has."""
    own = frame.iloc[row]
    names = list(moves)
    every = list(itertools.product(*[[own[name], *moves[name]] for name in names]))
    tried = frame.iloc[[row] * len(every)].reset_index(drop=True)
    for i, name in enumerate(names):
        tried[name] = [values[i] for values in every]
    best: dict[tuple[str, ...], float] = {}
    for values, flips in zip(every, decides(tried), strict=True):
        moved = [(n, v) for n, v in zip(names, values, strict=True) if v != own[n]]
        distance = sum(
            1.0 if isinstance(v, str) else abs(v - own[n]) / deviation(frame[n].to_numpy(float)) for n, v in moved
        )
        if moved and flips:
            key = tuple(n for n, _ in moved)
            best[key] = min(distance, best.get(key, np.inf))
    minimal = {s: d for s, d in best.items() if not any(set(o) < set(s) for o in best)}
    return sorted((len(s), round(d, 9)) for s, d in minimal.items())


DECIDES: dict[str, Decides] = {
    "a sum": lambda X: (2 * X["income"] - X["debt"] + 3 * (X["home"] == "own") + X["age"] > 14).to_numpy(),
    "both of two": lambda X: ((X["income"] > 5) & (X["debt"] < 2)).to_numpy(),
    "a hole": lambda X: (X["income"].isin([2, 7]) & (X["age"] != 3)).to_numpy(),
    "an exchange": lambda X: ((X["income"] > 4) ^ (X["home"] == "rent")).to_numpy(),
}


@pytest.mark.grid
@pytest.mark.parametrize("name", DECIDES)
def test_the_nearest_changes_are_those_of_an_enumeration(name: str) -> None:
    decides, rng = DECIDES[name], np.random.default_rng(3)
    frame = rows(200, rng)
    model, data = model_of(decides), data_of(frame)
    refused = np.flatnonzero(~decides(frame))[:6]
    assert refused.size == 6
    fixed = held_columns(model, data, [], {})
    assert fixed == {"group"}
    for row in map(int, refused):
        acts = actions(model, data, row, fixed, {"age": "up"})
        own = frame.iloc[row]
        moves: dict[str, list[Any]] = {
            "income": [v for v in range(9) if v != own["income"]],
            "debt": [v for v in range(7) if v != own["debt"]],
            "home": [v for v in ("own", "rent", "family") if v != own["home"]],
            "age": [v for v in range(1, 6) if v > own["age"]],
        }
        wanted = [entry for entry in brute(frame, row, decides, moves) if entry[0] <= 3]
        found = search(frame, row, acts, decides, others=np.empty(0, np.int64), n_found=100)
        assert found.exact and found.size == 3
        assert [(len(f.places), round(f.distance, 9)) for f in found.flips] == wanted
        for flip in found.flips:
            one = apply_changes(frame.iloc[[row]], frame, acts, flip)
            assert isinstance(one, pd.DataFrame)
            assert decides(one)[0] and one["group"].iloc[0] == own["group"] and one["age"].iloc[0] >= own["age"]
            assert list(one.dtypes) == list(frame.dtypes)


def test_numbers_without_steps_come_as_near_as_their_rounding() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"income": rng.normal(3_000, 800, 500), "debt": rng.exponential(900, 500), "group": "a"})
    frame.loc[0, ["income", "debt"]] = [1_500.0, 1_000.0]

    def decides(X: pd.DataFrame) -> npt.NDArray[np.bool_]:
        return (X["income"] - 0.5 * X["debt"] > 2_345.6).to_numpy()

    data = data_of(frame)
    acts = actions(model_of(decides), data, 0, held_columns(model_of(decides), data, ["group"], {}), {})
    found = search(frame, 0, acts, decides, others=np.empty(0, np.int64))
    first = found.flips[0]
    assert [acts[i].column for i in first.places] == ["income"] and acts[first.places[0]].step == 10.0
    # The boundary lies at 2845.6; the next multiple of ten beyond it is the answer.
    assert first.values == (2_850.0,) and not found.exact
    spent = search(frame, 0, acts, decides, others=np.empty(0, np.int64), budget=40)
    assert spent.asked <= 40 and spent.flips[0].values[0] >= 2_850.0


def test_of_many_changes_other_rows_say_where_to_look() -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({f"x{i}": rng.integers(0, 5, 300) for i in range(8)} | {"group": "a"})
    frame.iloc[0, :8], frame.iloc[1, :8] = 0, 4
    names = [f"x{i}" for i in range(6)]

    def decides(X: pd.DataFrame) -> npt.NDArray[np.bool_]:
        return (X[names].to_numpy() >= 2).all(axis=1)

    model, data = model_of(decides), data_of(frame)
    acts = actions(model, data, 0, frozenset({"group"}), {})
    found = search(frame, 0, acts, decides, others=np.array([1]))
    assert found.exact and found.size == 3 and len(found.flips) == 1
    assert [acts[i].column for i in found.flips[0].places] == names and found.flips[0].values == (2.0,) * 6
    nothing = search(frame, 0, acts, decides, others=np.empty(0, np.int64))
    assert not nothing.flips and nothing.asked > 0


def test_what_may_change_is_what_may_occur() -> None:
    frame = rows(100, np.random.default_rng(5))
    frame["flag"] = np.resize([0, 1], 100)
    for level in ("own", "rent", "family"):
        frame[f"is_{level}"] = (frame["home"] == level).astype(int)
    assert set(indicators(frame, list(frame.columns.drop(["home", "group"])))) == {"is_own", "is_rent", "is_family"}
    model, data = model_of(lambda X: X["income"].to_numpy() > 4), data_of(frame)
    fixed = held_columns(model, data, ["home"], {"income": "up"})
    acts = {a.column: a for a in actions(model, data, 7, fixed, {"income": "up", "flag": "down"})}
    assert set(acts) <= {"income", "debt", "age", "flag"} and {"debt", "age"} <= set(acts)
    own = frame.iloc[7]
    assert all_of(v > own["income"] for v in acts["income"].values) and max(acts["income"].values) == 8
    assert ("flag" in acts) == (own["flag"] == 1)
    frame.loc[7, "debt"] = None
    assert "debt" not in {a.column for a in actions(model, data_of(frame), 7, fixed, {})}


@pytest.mark.parametrize(
    ("immutable", "monotone", "said"),
    [
        (["hoem"], {}, "did you mean 'home'"),
        ([], {"incme": "up"}, "did you mean 'income'"),
    ],
)
def test_names_that_are_no_columns_are_told_the_nearest(
    immutable: list[str], monotone: dict[str, str], said: str
) -> None:
    frame = rows(20, np.random.default_rng(0))
    model = model_of(lambda X: X["income"].to_numpy() > 4)
    with pytest.raises(UsageError, match="(?i)" + said):
        held_columns(model, data_of(frame), immutable, parse_monotone([f"{k}={v}" for k, v in monotone.items()]))


@pytest.mark.parametrize("texts", [["income"], ["income=sideways"], ["=up"], ["income=up", "income=down"]])
def test_ways_are_up_and_down(texts: list[str]) -> None:
    with pytest.raises(UsageError, match="monotone"):
        parse_monotone(texts)
    assert parse_monotone(["a=b=up", "age=down"]) == {"a=b": "up", "age": "down"}


def test_a_category_has_no_up() -> None:
    frame = rows(20, np.random.default_rng(0))
    model = model_of(lambda X: X["income"].to_numpy() > 4)
    with pytest.raises(UsageError, match="no up and down"):
        actions(model, data_of(frame), 0, frozenset(), {"home": "up"})


def test_neighbours_are_those_of_a_loop() -> None:
    frame = rows(60, np.random.default_rng(9)).assign(wage=np.random.default_rng(8).normal(0, 3, 60))
    frame.loc[3, "wage"] = np.nan
    scaled = Scaled.from_frame(frame, frozenset({"income", "debt", "age", "wage"}))
    among = np.arange(60) % 2 == 0
    places, away = nearest(scaled, 4, among, 5)

    def distance(a: int, b: int) -> float:
        total = 0.0
        for name in frame.columns:
            x, y = frame[name].iloc[a], frame[name].iloc[b]
            if name in ("home", "group"):
                total += float(x != y)
            elif np.isnan(x) or np.isnan(y):
                total += float(np.isnan(x) != np.isnan(y))
            else:
                total += abs(x - y) / deviation(frame[name].to_numpy(float))
        return total

    slow = sorted((distance(4, i), i) for i in range(0, 60, 2) if i != 4)[:5]
    assert places.tolist() == [i for _, i in slow]
    np.testing.assert_allclose(away, [d for d, _ in slow])
