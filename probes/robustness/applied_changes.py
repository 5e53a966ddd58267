"""Effectiveness of a perturbation: if it changed no row, nothing was tested and no number is reported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.rows import BoolArray, Rows

if TYPE_CHECKING:
    from torch import Tensor

_MOST_NAMED = 5


def changed_rows(before: Rows, after: Rows) -> BoolArray:
    """(n,) whether each row has changed; values missing in both are unchanged."""
    import pandas as pd

    if not isinstance(before, pd.DataFrame):
        a, b = np.asarray(before), np.asarray(after)
        differs = a != b
        if a.dtype.kind == "f":
            differs &= ~(np.isnan(a) & np.isnan(b))
        return np.asarray(differs.reshape(len(a), -1).any(axis=1), bool)
    found, others = np.zeros(len(before), bool), pd.DataFrame(after)
    for j in range(before.shape[1]):
        was, now = before.iloc[:, j], others.iloc[:, j]
        gaps = was.isna().to_numpy(bool), now.isna().to_numpy(bool)
        known = ~(gaps[0] | gaps[1])
        found |= gaps[0] != gaps[1]
        found[known] |= was.to_numpy(object)[known] != now.to_numpy(object)[known]
    return found


def can_change(low: Tensor, high: Tensor) -> BoolArray:
    """(n,) whether each row's set, with lowest and highest inputs (n, ...), contains another input."""
    return np.asarray((high > low).flatten(1).any(dim=1).cpu().numpy(), bool)


def nothing_moves(n: int) -> str:
    """The reason why a number is not judged if none of n rows changed, since it equals the clean one."""
    return f"None of {n:,} rows changes at this level, so nothing was tried: take a larger level, or fix fewer columns."


def changeable_columns_text(columns: Sequence[object], total: int) -> str:
    """The number of changeable columns of a table, and their names, in words."""
    more = f" and {len(columns) - _MOST_NAMED:,} more" if len(columns) > _MOST_NAMED else ""
    return f"{len(columns):,} of {total:,} columns can change ({', '.join(map(str, columns[:_MOST_NAMED]))}{more})"
