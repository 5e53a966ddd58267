"""Rows from a notebook are taken by position, and rows are taken and joined with all that is said of them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from auditor.core.errors import DataError
from auditor.data.audit_data import AuditData
from auditor.data.audit_data_parts import Design, Recorded
from auditor.data.group_counts import MISSING
from auditor.judging.measurement import Copies
from tests.quantifiers import all_of, none_of

N = 40
X = pd.DataFrame({"a": np.arange(N, dtype=float)})
SEX = pd.Series(["f", "m"] * (N // 2))
OTHER_ORDER = np.random.default_rng(0).permutation(N)


def test_columns_of_different_indexes_stay_where_they_are() -> None:
    """pandas would put them into one order of its own, and a second feature would change the first one's groups."""
    sex, age = SEX.set_axis(range(100, 100 + N)), pd.Series(["old"] * 10 + ["young"] * 30)
    data = AuditData.from_arrays(X, classes=[0, 1], sensitive_features={"sex": sex, "age": age})
    assert data.sensitive_features is not None
    assert list(data.sensitive_features["sex"]) == list(SEX) and list(data.sensitive_features["age"]) == list(age)


@pytest.mark.parametrize(
    "given",
    [
        {"y_true": pd.Series([0, 1] * (N // 2))},
        {"sensitive_features": SEX},
        {"sensitive_features": SEX.to_frame("sex")},
        {"sensitive_features": {"sex": SEX.iloc[OTHER_ORDER], "age": SEX}},
        {"is_member": pd.Series([True, False] * (N // 2))},
    ],
)
def test_the_same_rows_in_another_order_are_refused(given: dict[str, Any]) -> None:
    turned = X.iloc[OTHER_ORDER]
    with pytest.raises(DataError, match="in another order, by its index: put them into one order, or pass"):
        AuditData.from_arrays(turned, classes=[0, 1], **given)
    plain = {k: np.asarray(v) for k, v in given.items() if k != "sensitive_features"}
    assert len(AuditData.from_arrays(turned, classes=[0, 1], **plain)) == N  # type: ignore[arg-type]
    with pytest.raises(DataError, match="in another order"):
        AuditData.for_regression(turned, pd.Series(np.arange(N, dtype=float)))


def test_an_index_of_other_names_says_nothing_of_the_order() -> None:
    """Names of several types have no order of their own to be put into."""
    mixed = X.set_axis([*range(N - 1), "last"])
    assert len(AuditData.from_arrays(mixed, pd.Series([0, 1] * (N // 2)), classes=[0, 1])) == N
    with pytest.raises(DataError, match="y_true has the rows of X in another order"):
        AuditData.from_arrays(mixed, pd.Series([0, 1] * (N // 2), index=mixed.index[::-1]), classes=[0, 1])


def full(first: int, n: int) -> AuditData:
    """Rows of which everything is known that can be, each value telling which row it is of."""
    at = np.arange(first, first + n)
    return AuditData(
        X=pd.DataFrame({"a": at.astype(float)}),
        y_true=at % 2,
        target_values=at.astype(float),
        classes=("no", "yes"),
        positive=1,
        sensitive_features=pd.DataFrame({"sex": [f"g{i}" for i in at]}),
        is_member=np.zeros(n, bool),
        binned=("sex",),
        recorded=Recorded(losses=at.astype(float), decisions=at % 2),
        files=np.asarray([f"{i}.png" for i in at], object),
        unreadable=(f"unreadable of {first}",),
        notes=("of all", f"of {first}"),
        design=Design(cluster="k", clusters=np.arange(n), weight="w", weights=at.astype(float)),
        copies=Copies(n=n, copies=0, combinations=n),
        identifiers=pd.DataFrame({"id": [f"id{i}" for i in at]}),
        table="rows.csv",
        members_table="train.csv",
    )


def told(data: AuditData) -> dict[str, list[Any]]:
    """What is said of each row, by field."""
    assert data.recorded is not None and data.sensitive_features is not None and data.design is not None
    assert data.identifiers is not None
    columns = {
        "X": data.X["a"], "y_true": data.y_true, "target_values": data.target_values,  # type: ignore[call-overload]
        "sensitive_features": data.sensitive_features["sex"], "is_member": data.is_member, "files": data.files,
        "recorded": data.recorded.losses, "design": data.design.weights,
        "identifiers": data.identifiers["id"],
    }  # fmt: skip
    return {name: list(column) for name, column in columns.items()}


OF_NO_ROW = {"classes", "positive", "binned", "unreadable", "notes", "copies", "table", "members_table"}


def test_every_field_is_taken_and_joined() -> None:
    data = full(0, 5)
    assert none_of(getattr(data, each.name) is None for each in fields(AuditData))
    assert set(told(data)) | OF_NO_ROW == {each.name for each in fields(AuditData)}
    before, some = told(data), data.take(np.asarray([3, 1]))
    assert told(some) == {name: [column[3], column[1]] for name, column in before.items()}
    assert all_of(getattr(some, name) == getattr(data, name) for name in OF_NO_ROW)

    both, behind = data.with_members(full(5, 3)), told(full(5, 3))
    expected = {name: [*column, *behind[name]] for name, column in before.items()}
    # Nothing is asked of the weights of training rows.
    assert told(both) == expected | {
        "is_member": [False] * 5 + [True] * 3,
        "design": [*before["design"], 1.0, 1.0, 1.0],
    }
    assert both.unreadable == ("unreadable of 0", "unreadable of 5") and both.notes == ("of all", "of 0", "of 5")
    assert all_of(
        getattr(both, name) == getattr(data, name) for name in OF_NO_ROW - {"unreadable", "notes", "members_table"}
    )
    assert both.members_table == "rows.csv" and data.members_table == "train.csv"


def test_what_only_one_of_two_files_says_is_said_of_no_row_but_for_groups_and_design() -> None:
    bare = AuditData(X=pd.DataFrame({"a": [9.0]}), classes=("no", "yes"), positive=1)
    both = full(0, 2).with_members(bare)
    assert all_of(getattr(both, name) is None for name in ("y_true", "target_values", "recorded", "files"))
    assert both.sensitive_features is not None and list(both.sensitive_features["sex"]) == ["g0", "g1", MISSING]
    assert both.design is not None and len(both.design) == 3
    other = bare.with_members(full(0, 2))
    assert other.sensitive_features is None and other.y_true is None and other.design is None


@pytest.mark.parametrize("name", ["y_true", "target_values", "sensitive_features", "is_member", "files", "design"])
def test_a_field_of_another_number_of_rows_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=f"{name} has 3 rows, X has 2"):
        replace(full(0, 2), **{name: getattr(full(0, 3), name)})
