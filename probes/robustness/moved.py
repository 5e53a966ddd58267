"""What a change reached: where no row became another, nothing was tried, and no number may stand for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from auditor.rows import Rows
from probes.robustness.margins import BoolArray

if TYPE_CHECKING:
    from torch import Tensor

_MOST_NAMED = 5


def changed(before: Rows, after: Rows) -> BoolArray:
    """(n,) which rows are no longer what they were; what is missing in both has stayed."""
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
    """(n,) which rows of a ball, of lowest and highest inputs (n, ...), hold another input than their own."""
    return np.asarray((high > low).flatten(1).any(dim=1).cpu().numpy(), bool)


def nothing_moves(n: int) -> str:
    """Why a number is not judged where none of n rows became another, as its own is that of the rows as they are."""
    return f"None of {n:,} rows changes at this level, so nothing was tried: take a larger level, or fix fewer columns."


def named(columns: Sequence[object], of: int) -> str:
    """How many of a table's columns can change, and which, in words."""
    more = f" and {len(columns) - _MOST_NAMED:,} more" if len(columns) > _MOST_NAMED else ""
    return f"{len(columns):,} of {of:,} columns can change ({', '.join(map(str, columns[:_MOST_NAMED]))}{more})"
