"""GroupCounts: the contingency table from which every group metric is computed.

Filled chunk by chunk in constant memory; two tables add, so a stream, a bootstrap and an all-reduce over ranks are the
same arithmetic. A bootstrap resample of the rows is exactly one multinomial draw of the cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from auditor.core.rows import FloatArray, IntArray

MISSING = "(missing)"


@dataclass(frozen=True, eq=False)
class GroupCounts:
    """Rows by group, true class and predicted class.

    ``features``: names of the sensitive features, (s,). ``groups``: one tuple of s values per observed combination.
    ``table``: (n_groups, n_classes + 1, n_classes) counts; the last true class collects rows without a label.
    """

    features: tuple[str, ...]
    classes: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    table: IntArray
    positive: int | None = None

    @property
    def n(self) -> int:
        """Rows counted."""
        return int(self.table.sum())

    @property
    def labelled(self) -> bool:
        """Whether any row has a true label."""
        return bool(self.table[:, :-1].sum() > 0)

    def __add__(self, other: GroupCounts) -> GroupCounts:
        """Counts of the rows of both, groups in the order first seen; ValueError where they count different things."""
        if (self.features, self.classes, self.positive) != (other.features, other.classes, other.positive):
            raise ValueError("only counts over the same features, classes and positive label add")
        groups = list(dict.fromkeys(self.groups + other.groups))
        place = {group: i for i, group in enumerate(groups)}
        table = np.zeros((len(groups), *self.table.shape[1:]), np.int64)
        for part in (self, other):
            np.add.at(table, [place[g] for g in part.groups], part.table)
        return GroupCounts(self.features, self.classes, tuple(groups), table, self.positive)

    def group_by(self, features: Sequence[str]) -> GroupCounts:
        """Counts by some of the features, summed over the others; groups sorted by name."""
        columns = [self.features.index(f) for f in features]
        keys = [tuple(group[c] for c in columns) for group in self.groups]
        groups = sorted(set(keys))
        place = {group: i for i, group in enumerate(groups)}
        table = np.zeros((len(groups), *self.table.shape[1:]), np.int64)
        np.add.at(table, [place[key] for key in keys], self.table)
        return GroupCounts(tuple(features), self.classes, tuple(groups), table, self.positive)

    def binary(self) -> IntArray:
        """(n_groups, 2, 2) counts of labelled rows by [true is positive][predicted is positive]. Needs ``positive``."""
        labelled = self.table[:, :-1]
        if self.positive is None:
            raise ValueError("a favourable label is needed: which class is the positive one?")
        other = [c for c in range(labelled.shape[2]) if c != self.positive]
        rows = np.stack([labelled[:, other].sum(axis=1), labelled[:, self.positive]], axis=1)
        return np.stack([rows[:, :, other].sum(axis=2), rows[:, :, self.positive]], axis=2)

    def selected(self) -> IntArray:
        """(n_groups,) rows predicted positive, labelled or not."""
        if self.positive is None:
            raise ValueError("a favourable label is needed: which class is the positive one?")
        return np.asarray(self.table[:, :, self.positive].sum(axis=1), np.int64)

    def sizes(self) -> IntArray:
        """(n_groups,) rows."""
        return np.asarray(self.table.sum(axis=(1, 2)), np.int64)

    def resample(self, n_draws: int, rng: np.random.Generator) -> IntArray:
        """(n_draws, n_groups, n_classes + 1, n_classes) tables, each as if the rows had been drawn with replacement."""
        flat = self.table.reshape(-1)
        return rng.multinomial(self.n, flat / self.n, size=n_draws).reshape(n_draws, *self.table.shape)


def count_groups(
    y_pred: npt.NDArray[np.integer],
    y_true: npt.NDArray[np.integer] | None,
    sensitive: Sequence[tuple[npt.NDArray[np.integer], Sequence[str]]],
    *,
    features: Sequence[str],
    classes: Sequence[str],
    positive: int | None = None,
) -> GroupCounts:
    """Count rows in one pass of ``bincount``.

    y_pred, y_true: (n,) class indices, y_true -1 or None where there is no label. sensitive: per feature its codes (n,)
    and its level names, a negative code where a row has no level, which is the group ``MISSING``; the features together
    span the groups, of which those observed are kept.
    """
    sensitive = [_with_missing(values, levels) for values, levels in sensitive]
    k = len(classes)
    code = np.zeros(len(y_pred), np.int64)
    for values, levels in sensitive:
        code *= len(levels)
        code += values
    true = np.full(len(y_pred), k, np.int64) if y_true is None else np.where(y_true < 0, k, y_true)
    code *= (k + 1) * k
    code += true * k
    code += y_pred
    n_groups = int(np.prod([len(levels) for _, levels in sensitive], dtype=np.int64))
    if n_groups * (k + 1) * k > max(4 * len(y_pred), 1_000_000):
        raise ValueError(
            f"{n_groups:,} combinations of the sensitive features are more than the rows can fill: "
            "bin or drop a feature with many values"
        )
    table = np.bincount(code, minlength=n_groups * (k + 1) * k).reshape(n_groups, k + 1, k)
    seen = np.flatnonzero(table.any(axis=(1, 2)))
    shape = [len(levels) for _, levels in sensitive]
    positions = np.unravel_index(seen, shape) if shape else ()
    groups = tuple(
        tuple(str(levels[int(p[i])]) for p, (_, levels) in zip(positions, sensitive, strict=True))
        for i in range(len(seen))
    )
    return GroupCounts(tuple(features), tuple(classes), groups, table[seen].astype(np.int64), positive)


def _with_missing(
    values: npt.NDArray[np.integer], levels: Sequence[str]
) -> tuple[npt.NDArray[np.integer], Sequence[str]]:
    """Codes without negative ones, which would count for another group."""
    if not values.size or values.min() >= 0:
        return values, levels
    if MISSING in levels:
        return np.where(values < 0, list(levels).index(MISSING), values), levels
    return np.where(values < 0, len(levels), values), [*levels, MISSING]


def rates(table: IntArray) -> FloatArray:
    """(..., 4) selection rate, true positive rate, false positive rate, accuracy of (..., 2, 2) counts; NaN at 0/0."""
    negative, positive = table[..., 0, :], table[..., 1, :]
    n = table.sum(axis=(-1, -2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack(
            [
                (negative[..., 1] + positive[..., 1]) / n,
                positive[..., 1] / positive.sum(axis=-1),
                negative[..., 1] / negative.sum(axis=-1),
                (negative[..., 0] + positive[..., 1]) / n,
            ],
            axis=-1,
        )
