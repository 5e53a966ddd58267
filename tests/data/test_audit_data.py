"""Rows from what a notebook holds are taken by position, and an index that says otherwise is no silence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from auditor.data.audit_data import AuditData
from auditor.errors import DataError

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
