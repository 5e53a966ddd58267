"""Groups and texts as numbers: the same groups and levels as a walk over the rows finds, written once each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from auditor.core.errors import DataError
from auditor.data.audit_data import AuditData
from auditor.data.group_counts import CodedGroups, coded, coded_texts, together
from auditor.data.table_columns import texts_of


def walked(table: pd.DataFrame) -> tuple[list[tuple[str, ...]], list[int]]:
    """The groups of a table's rows and each row's, row by row."""
    keys = list(table.astype(str).itertuples(index=False, name=None))
    levels = sorted(set(keys))
    return levels, [levels.index(key) for key in keys]


def same(found: CodedGroups, table: pd.DataFrame) -> None:
    levels, codes = walked(table)
    assert list(found.levels) == levels
    assert found.codes.tolist() == codes
    assert found.sizes.tolist() == np.bincount(codes).tolist()


def names(seed: int, n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "sex": pd.Categorical(rng.choice(["w", "m"], n), categories=["w", "m", "of nobody"]),
            "race": rng.choice(["a", "B", "c c", "(missing)"], n, p=[0.7, 0.2, 0.05, 0.05]),
            "age": rng.choice(["9", "10"], n),
        }
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("features", [("sex",), ("race",), ("sex", "race"), ("age", "sex", "race")])
def test_groups_are_those_of_a_walk_over_the_rows(seed: int, features: tuple[str, ...]) -> None:
    table = names(seed)
    data = AuditData(X=pd.DataFrame({"x": np.arange(60.0)}), sensitive_features=table)
    found = data.groups(*features)
    same(found, table[list(features)])
    assert data.groups(*features) is found
    kept = np.arange(60) % 7 == 0
    same(found.take(kept), table.loc[kept, list(features)])
    same(data.take(kept).groups(*features), table.loc[kept, list(features)])


def test_rows_whose_group_is_missing_are_a_group() -> None:
    table = pd.DataFrame({"race": pd.Categorical(["b", None, "a"])})
    data = AuditData(X=pd.DataFrame({"x": [1.0, 2.0, 3.0]}), sensitive_features=table)
    assert data.groups("race").levels == (("(missing)",), ("a",), ("b",))
    assert data.groups("race").codes.tolist() == [2, 0, 1]


def test_values_spelled_alike_are_one_group() -> None:
    found = coded(pd.Series([1, "1", 2], dtype=object))
    assert found.levels == (("1",), ("2",)) and found.codes.tolist() == [0, 0, 1]
    assert coded_texts(["b", "a", "b"]).codes.tolist() == [1, 0, 1]


def test_no_rows_have_no_groups() -> None:
    none = coded(pd.Series([], dtype="category"))
    assert none.levels == () and none.codes.tolist() == []
    assert together([none, none]).levels == ()


def test_data_without_groups_say_so() -> None:
    with pytest.raises(DataError, match="no sensitive features"):
        AuditData(X=pd.DataFrame({"x": [1.0]})).groups("sex")


COLUMNS: dict[str, Any] = {
    "whole numbers": pd.Series([3, 1, 3, 2]),
    "numbers with a gap": pd.Series([2.5, np.nan, 2.5, 1e-7]),
    "truth": pd.Series([True, False, True]),
    "texts": pd.Series(["b", None, "a", "b"]),
    "texts of arrow": pd.Series(["b", None, "a", "b"], dtype="string"),
    "categories": pd.Series(pd.Categorical(["z", None, "a"], categories=["a", "q", "z"])),
    "categories of numbers": pd.Series(pd.Categorical([7, 5, 7])),
    "the text that stands for none": pd.Series(["-", None, "a"]),
    "of several types": pd.Series([1, "1", 2.0], dtype=object),
    "nullable": pd.Series([1, None, 3], dtype="Int64"),
    "nothing": pd.Series([], dtype=float),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_texts_are_those_that_pandas_writes_of_every_row(name: str) -> None:
    values = COLUMNS[name]
    every = values.astype("string").fillna("-").tolist()
    found = texts_of(values, "-")
    assert [found.names[code] for code in found.codes] == every
    assert list(found.names) == list(dict.fromkeys(every))


@pytest.mark.parametrize("seed", range(10))
def test_the_commonest_are_those_that_pandas_counts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = pd.Series(rng.integers(0, 12, 40).astype(str))
    among = rng.random(40) < 0.5
    found = texts_of(values, "")
    for most in (1, 5, 50):
        counted = values.astype("string").value_counts().index[:most].tolist()
        assert [found.names[i] for i in found.commonest(most)] == counted
        counted = values.astype("string")[among].value_counts().index[:most].tolist()
        assert [found.names[i] for i in found.commonest(most, among)] == counted
