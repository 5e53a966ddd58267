"""Group sizes and numbers of missing values, as counted by the audit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from auditor.core.files import LEFT_OUT, UNSAID, Closed
from auditor.core.number_types import Count
from auditor.data.group_counts import GroupCounts, coded

if TYPE_CHECKING:
    import pandas as pd

    from auditor.data.audit_data import AuditData

MOST_COLUMNS = 100


class Missing(Closed):
    """Rows without a value: ``labels`` of the target, None where there is none; ``features``, by column.

    ``n_features``: how many columns the model takes, None where a row is none of columns, such as a text; of those with
    holes the ``MOST_COLUMNS`` with the most are listed, and ``more`` says how many others there are.
    """

    labels: Annotated[Count | None, UNSAID] = None
    n_features: Annotated[Count | None, UNSAID] = None
    features: Annotated[dict[str, Count], Field(max_length=MOST_COLUMNS), LEFT_OUT] = Field(default_factory=dict)
    more: Annotated[Count, LEFT_OUT] = 0

    @classmethod
    def from_counts(cls, labels: int | None, features: Mapping[str, int] | None) -> Missing:
        """Missing values of a target and of every input column of the model, 0 if complete."""
        holes = sorted(((name, n) for name, n in (features or {}).items() if n), key=lambda pair: (-pair[1], pair[0]))
        return cls(
            labels=labels,
            n_features=None if features is None else len(features),
            features=dict(holes[:MOST_COLUMNS]),
            more=max(0, len(holes) - MOST_COLUMNS),
        )


def sizes_of(groups: pd.DataFrame | None) -> dict[str, dict[str, int]] | None:
    """Group sizes of sensitive features (n, s), by feature; None if there are none."""
    if groups is None:
        return None
    own = {str(name): coded(groups[name]) for name in groups.columns}
    return {name: dict(zip(each.titles, each.sizes.tolist(), strict=True)) for name, each in own.items()}


def sizes_in(counts: GroupCounts) -> dict[str, dict[str, int]]:
    """The same of counted rows."""
    own = {name: counts.group_by((name,)) for name in counts.features}
    return {
        name: {group[0]: int(n) for group, n in zip(each.groups, each.sizes(), strict=True)}
        for name, each in own.items()
    }


def missing_of(rows: AuditData) -> Missing | None:
    """Numbers of rows without a label or an input value of the model; None without rows."""
    if not len(rows):
        return None
    labels = None
    if rows.y_true is not None:
        labels = int((rows.y_true < 0).sum())
    elif rows.target_values is not None:
        labels = int(np.isnan(rows.target_values).sum())
    holes: dict[str, int] | None = None
    if not isinstance(rows.X, np.ndarray):
        holes = {str(name): int(n) for name, n in rows.X.isna().sum().items()}
    elif rows.X.ndim == 2 and rows.X.dtype.kind == "f":
        holes = {f"column {i + 1}": int(n) for i, n in enumerate(np.isnan(rows.X).sum(axis=0))}
    return Missing.from_counts(labels, holes)


def missing_in(counts: GroupCounts, labelled: bool, holes: Mapping[str, int] | None) -> Missing:
    """The same of counted rows; ``holes``: of every feature."""
    return Missing.from_counts(int(counts.table[:, -1].sum()) if labelled else None, holes)
