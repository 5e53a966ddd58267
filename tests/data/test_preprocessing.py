"""Encoding tables: cell by cell and by whole columns, against the definition written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from auditor.core.errors import DataError
from auditor.data.preprocessing import (
    CategoricalColumn,
    NumericColumn,
    TabularPreprocessing,
    as_text,
    fit_tabular,
    label_name,
)
from auditor.models.postprocessing import GroupRule, Postprocessing, Steps

OWN = TabularPreprocessing(
    columns=(
        NumericColumn(name="age", mean=41.7, scale=13.3, impute=38.0),
        CategoricalColumn(name="job", levels=("1", "True", "clerk", "")),
        NumericColumn(name="gain", mean=1e6 / 3, scale=7.7),
        CategoricalColumn(name="owner", levels=("True", "False")),
    )
)
N = 40


def tables() -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(0)
    age, gain = rng.normal(40, 12, N), rng.integers(0, 10**15, N)
    job = rng.choice(["1", "1.0", "TRUE", "clerk", "unknown", " clerk", "2.50", "", "-0.0"], N)
    plain = pd.DataFrame({"other": 1, "age": age, "job": job, "gain": gain, "owner": rng.random(N) < 0.5})
    holes = plain.assign(age=np.where(rng.random(N) < 0.3, np.nan, age), job=pd.Series(job).mask(rng.random(N) < 0.3))
    return {
        "plain": plain,
        "holes": holes,
        "reordered": holes[["owner", "gain", "job", "age"]],
        "objects": holes.astype(object),
        "nullable": holes.convert_dtypes(),
        "numbers as text": holes.assign(age=holes["age"].astype(str), gain=holes["gain"].astype(str)),
        "whole floats as levels": holes.assign(job=rng.choice([1.0, 2.0, np.nan], N)),
        "other floats as levels": holes.assign(job=rng.choice([1.0, 2.5, np.nan], N)),
        "whole numbers as levels": holes.assign(job=rng.integers(0, 3, N)),
        "truth values as numbers": holes.assign(age=rng.random(N) < 0.5),
        "categories": holes.assign(job=holes["job"].astype("category")),
        "small numbers": holes.assign(age=age.astype(np.float32), gain=rng.integers(0, 9, N).astype(np.int16)),
        "words and numbers": holes.assign(job=[1, 1.0, True, "clerk", None, np.nan, pd.NA, "1.00"] * (N // 8)),
        "all missing": holes.assign(age=np.nan, job=None),
        "empty": holes.iloc[:0],
    }


def written_out(own: TabularPreprocessing, X: pd.DataFrame) -> npt.NDArray[np.float32]:
    out = np.zeros((len(X), own.width), np.float32)
    for column, span in zip(own.columns, own.spans, strict=True):
        if isinstance(column, NumericColumn):
            for i, number in enumerate(pd.to_numeric(X[column.name]).to_numpy(np.float64, na_value=np.nan)):
                out[i, span.start] = ((column.impute if np.isnan(number) else number) - column.mean) / column.scale
        else:
            levels = [label_name(level) for level in column.levels]
            for i, text in enumerate(as_text(X[column.name])):
                if text is not pd.NA and label_name(text) in levels:
                    out[i, span.start + levels.index(label_name(text))] = 1.0
    return out


@pytest.mark.parametrize("kind", list(tables()))
def test_few_rows_and_many_are_encoded_to_the_same_bits(kind: str) -> None:
    X = tables()[kind]
    expected = written_out(OWN, X)
    assert OWN.encode(X).tobytes() == expected.tobytes()
    for n in (1, 2, 8):
        few = [OWN.encode(X.iloc[i : i + n]) for i in range(0, len(X), n)]
        # A whole column says how its floats are spelled; a part of it may say otherwise only where levels are floats.
        parts = [written_out(OWN, X.iloc[i : i + n]) for i in range(0, len(X), n)]
        assert [p.tobytes() for p in few] == [p.tobytes() for p in parts]


@pytest.mark.parametrize("n", [1, 20])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"age": np.inf}, "'age' holds infinity"),
        ({"age": "forty"}, "'age' must be a number, but holds 'forty'"),
        ({"gain": 10**400}, "'gain' holds infinity, or a number too large"),
    ],
)
def test_what_is_no_number_is_refused_in_one_row_as_in_many(n: int, change: dict[str, Any], said: str) -> None:
    X = tables()["plain"].iloc[:n].astype({"age": object, "gain": object})
    X.iloc[n - 1, X.columns.get_loc(next(iter(change)))] = next(iter(change.values()))
    with pytest.raises(DataError, match=said):
        OWN.encode(X)


@pytest.mark.parametrize("n", [1, 20])
def test_an_absent_column_is_named_in_one_row_as_in_many(n: int) -> None:
    with pytest.raises(DataError, match="needs the feature 'age', which the data do not have; did you mean 'ages'"):
        OWN.encode(tables()["plain"].rename(columns={"age": "ages"}).iloc[:n])


def test_two_of_one_kind_are_equal_whether_or_not_one_has_encoded() -> None:
    X = tables()["plain"]
    one, other = fit_tabular(X), fit_tabular(X)
    one.encode(X)
    assert one == other and one.model_dump() == other.model_dump()
    assert type(one).model_validate(one.model_dump(mode="json")) == other


def named_groups(X: pd.DataFrame, columns: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The groups of rows, written out."""
    texts = [as_text(X[column]) for column in columns]
    return [tuple("(missing)" if v is pd.NA else label_name(v) for v in row) for row in zip(*texts, strict=True)]


@pytest.mark.parametrize("kind", list(tables()))
@pytest.mark.parametrize("columns", [("job",), ("owner", "job"), ("job", "gain", "owner")])
def test_groups_are_the_same_in_few_rows_and_in_many(kind: str, columns: tuple[str, ...]) -> None:
    X = tables()[kind]
    every = sorted(set(named_groups(X, columns)))
    known = every[::2] or [("nobody",) * len(columns)]
    always = Steps(thresholds=(), chances=(1.0,))
    rule = Postprocessing(
        columns=columns,
        positive=1,
        groups=tuple(GroupRule(group=group, rule=always) for group in known),
        otherwise=always,
    )
    expected = [known.index(group) if group in known else -1 for group in named_groups(X, columns)]
    assert rule.places(X).tolist() == expected
    parts = [X.iloc[i : i + 3] for i in range(0, len(X), 3)]
    assert [rule.places(part).tolist() for part in parts] == [
        [known.index(group) if group in known else -1 for group in named_groups(part, columns)] for part in parts
    ]
