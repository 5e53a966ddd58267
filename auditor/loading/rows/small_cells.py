"""Warnings about cells of groups and labels with too few rows for a rate, if there are many groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from auditor.core.rows import IntArray
from auditor.data.bins import MOST_VALUES
from auditor.data.coded_groups import coded
from auditor.data.coded_groups import together as put_together

# Rows below which a group's rate says little.
SMALL = 30


def together(features: Sequence[str]) -> list[tuple[str, ...]]:
    """Each feature, and all of them together if there are several."""
    return [*((name,) for name in features), *([tuple(features)] if len(features) > 1 else [])]


def cells_of(groups: pd.DataFrame, y_true: IntArray | None) -> IntArray:
    """(n_groups, n_classes) rows by group and label; rows without a label are omitted if others have one."""
    group = put_together([coded(groups[name]) for name in groups.columns])
    label = np.zeros(len(groups), np.int64) if y_true is None else y_true
    n_labels = max(int(label.max()) + 1, 1)
    cells = (group.codes * n_labels + label).compress(label >= 0)
    return np.bincount(cells, minlength=len(group.levels) * n_labels).reshape(-1, n_labels)


def small_cells(names: Sequence[str], cells: IntArray) -> list[str]:
    """The number of cells with too few rows for a rate; empty if there are few groups."""
    n_groups, n_labels = cells.shape
    small = int((cells < SMALL).sum())
    if n_groups <= MOST_VALUES or not small:
        return []
    what = f"{n_groups:,} groups of {' x '.join(names)}"
    by = f" by {n_labels} labels" if n_labels > 1 else ""
    return [
        f"{small:,} of the {cells.size:,} cells of {what}{by} have fewer than {SMALL} rows: rates in them are hardly "
        "known. Put groups together, those of numbers with --bins."
    ]
