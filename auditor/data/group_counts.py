"""Row counts by group: groups as small integers, the table of all group metrics, counts of feature levels.

Filled chunk by chunk in constant memory; two tables add, so a stream, a bootstrap and an all-reduce over ranks are the
same arithmetic. A bootstrap resample of the rows is exactly one multinomial draw of the cells.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.core.rows import FloatArray, IntArray
from auditor.data.score_counts import Codes

if TYPE_CHECKING:
    import pandas as pd


class GroupsDigest:
    """SHA-256 of one sensitive feature's groups, in parts of any length: levels are numbered as first seen."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._codes = hashlib.sha256()

    def add(self, codes: npt.NDArray[np.integer], levels: Sequence[str]) -> None:
        """The next rows: each row's index into ``levels``, negative where it has no group."""
        names = [*map(str, levels), MISSING]
        numbers = np.zeros(len(names), "<i8")
        at = np.maximum(codes, -1)
        first = np.full(len(names), at.size)
        # Of one place that is written to again the last is kept: backwards, where it is seen first.
        first[at[::-1]] = np.arange(at.size)[::-1]
        for code in np.argsort(first, kind="stable")[: np.count_nonzero(first < at.size)]:
            numbers[code] = self._numbers.setdefault(names[code], len(self._numbers))
        self._codes.update(numbers[at].tobytes())

    def hexdigest(self) -> str:
        """The digest of the rows so far: of their numbers, then of the levels in the order of the numbers."""
        whole = self._codes.copy()
        whole.update(json.dumps(list(self._numbers)).encode())
        return whole.hexdigest()


@dataclass(frozen=True, eq=False)
class CodedGroups:
    """The groups of one or several sensitive features together, those that have a row, sorted by name.

    ``levels``: one tuple of names a group, (g,); ``codes``: (n,) each row's index into them.
    """

    levels: tuple[tuple[str, ...], ...]
    codes: IntArray

    @property
    def titles(self) -> list[str]:
        """One display name per group."""
        return [" x ".join(level) for level in self.levels]

    @cached_property
    def sizes(self) -> IntArray:
        """(g,) rows."""
        return np.asarray(np.bincount(self.codes, minlength=len(self.levels)), np.int64)

    def take(self, index: Any) -> CodedGroups:
        """The groups of a subset of rows, by mask, positions or slice."""
        return _present(self.levels, self.codes[index])


def coded(values: pd.Series[Any]) -> CodedGroups:
    """The groups of one column, by the text of its values."""
    named = values.astype("category")
    names = [str(level) for level in named.cat.categories]
    different, place = np.unique(np.asarray(names, object), return_inverse=True)
    codes = named.cat.codes.to_numpy()
    return _present([(str(name),) for name in different], place[codes] if len(names) else codes.astype(np.int64))


def coded_texts(names: Iterable[str]) -> CodedGroups:
    """Coded groups from each row's group name."""
    different, codes = np.unique(np.asarray([*names], object), return_inverse=True)
    return CodedGroups(tuple((str(name),) for name in different), codes)


def together(columns: Sequence[CodedGroups]) -> CodedGroups:
    """The intersection of several columns of the same rows."""
    levels: list[tuple[str, ...]] = [()]
    codes = np.zeros(len(columns[0].codes), np.int64)
    for column in columns:
        # Few groups at any time, though the columns' levels multiply.
        both = _present(
            [(*level, *own) for level in levels for own in column.levels], codes * len(column.levels) + column.codes
        )
        levels, codes = list(both.levels), both.codes
    return CodedGroups(tuple(levels), codes)


def _present(levels: Sequence[tuple[str, ...]], codes: IntArray) -> CodedGroups:
    n = np.bincount(codes, minlength=len(levels))
    seen = np.flatnonzero(n)
    if seen.size == len(levels):
        return CodedGroups(tuple(levels), codes)
    place = np.zeros(len(levels), np.int64)
    place[seen] = np.arange(seen.size)
    return CodedGroups(tuple(levels[int(i)] for i in seen), place[codes])


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


# Significant bits of a number, all of them until its column has too many levels.
_BITS = 53
_MOST_LEVELS = 1 << 14
# Of the rows, that different numbers may share a level with: beyond it the level hides what tells groups apart.
_MOST_BLURRED = 0.1


@dataclass(frozen=True, eq=False)
class Levels:
    """A feature's levels, sorted, and ``counts`` (l, g) of the rows of each by group, of those that have a row.

    ``numbers``: whether the levels are numbers; a missing value is the last.
    """

    names: tuple[float | str, ...]
    groups: tuple[str, ...]
    counts: IntArray
    numbers: bool


class FeatureCounts:
    """The number of rows per level and group, for every feature and every sensitive feature.

    The levels of numbers are their values; where those are more than 16,384, they lose as many significant bits as it
    takes, which their set decides and no order.
    """

    def __init__(self, sensitive: Sequence[str]) -> None:
        self.sensitive = tuple(sensitive)
        self._groups: dict[str, dict[str, int]] = {name: {} for name in sensitive}
        self._levels: dict[str, dict[float | str, int] | None] = {}
        self._numbers: dict[str, bool] = {}
        self._bits: dict[str, int] = {}
        # (l, 2) the least and the largest value of each level.
        self._ends: dict[str, FloatArray] = {}
        self._counts: dict[tuple[str, str], IntArray] = {}

    @property
    def features(self) -> tuple[str, ...]:
        """The non-sensitive features, in their order."""
        return tuple(self._levels)

    def add(self, X: pd.DataFrame, groups: Sequence[Codes]) -> None:
        """The next rows: features, and the group of each by sensitive feature."""
        places = []
        for name, (codes, titles) in zip(self.sensitive, groups, strict=True):
            own = self._groups[name]
            places.append(np.asarray([own.setdefault(str(title), len(own)) for title in titles], np.int64)[codes])
        for column in X.columns:
            if str(column) not in self.sensitive:
                self._add(str(column), X[column], places)

    def _add(self, feature: str, values: pd.Series[Any], places: Sequence[IntArray]) -> None:
        import pandas as pd

        numbers = values.dtype.kind in "iuf"
        self._numbers[feature] = numbers
        levels = self._levels.setdefault(feature, {})
        if levels is None:
            return
        exact = values.to_numpy(np.float64, na_value=np.nan) if numbers else None
        bits = self._bits.setdefault(feature, _BITS)
        told = values.astype(str).where(values.notna(), "") if exact is None else pd.Series(_truncated(exact, bits))
        codes, found = pd.factorize(told)
        names = [*found.tolist(), np.inf]
        own = np.asarray([levels.setdefault(name, len(levels)) for name in names], np.int64)[codes]
        if exact is not None:
            self._widen(feature, own, exact, len(levels))
        if len(levels) > _MOST_LEVELS:
            if exact is None:
                self._levels[feature] = None
                return
            own = self._coarsen(feature, levels)[own]
        for name, place in zip(self.sensitive, places, strict=True):
            n_groups = len(self._groups[name])
            counts = np.bincount(own * n_groups + place, minlength=len(levels) * n_groups).reshape(-1, n_groups)
            before = self._counts.get((feature, name))
            if before is not None:
                counts[: before.shape[0], : before.shape[1]] += before
            self._counts[feature, name] = counts.astype(np.int64)

    def _widen(self, feature: str, codes: IntArray, exact: FloatArray, n: int) -> None:
        ends = np.full((n, 2), (np.inf, -np.inf))
        if (before := self._ends.get(feature)) is not None:
            ends[: len(before)] = before
        np.fmin.at(ends[:, 0], codes, exact)
        np.fmax.at(ends[:, 1], codes, exact)
        self._ends[feature] = ends

    def _coarsen(self, feature: str, levels: dict[float | str, int]) -> IntArray:
        """Takes from the numbers the fewest bits that leave few enough; where each level is now."""
        names = np.asarray(list(levels), np.float64)
        ordered = np.sort(names)

        def different(bits: int) -> int:
            return 1 + int(np.count_nonzero(np.diff(_truncated(ordered, bits))))

        # Fewer bits never tell more numbers apart, and one bit leaves two to each power of two.
        bits = bisect_right(range(self._bits[feature]), _MOST_LEVELS, lo=1, key=different) - 1
        kept, place = np.unique(_truncated(names, bits), return_inverse=True)
        self._bits[feature] = bits
        levels.clear()
        levels.update({name: i for i, name in enumerate(kept.tolist())})
        ends = np.full((kept.size, 2), (np.inf, -np.inf))
        np.minimum.at(ends[:, 0], place, self._ends[feature][:, 0])
        np.maximum.at(ends[:, 1], place, self._ends[feature][:, 1])
        self._ends[feature] = ends
        for name in self.sensitive:
            if (before := self._counts.get((feature, name))) is not None:
                counts = np.zeros((kept.size, before.shape[1]), np.int64)
                np.add.at(counts, place[: len(before)], before)
                self._counts[feature, name] = counts
        return np.asarray(place, np.int64)

    def levels_for(self, feature: str, sensitive: str) -> Levels | None:
        """Counts of the two; None if the feature has too many levels, or rounding affects too many rows."""
        levels = self._levels[feature]
        if levels is None:
            return None
        counts, groups = self._counts[feature, sensitive], self._groups[sensitive]
        if self._numbers[feature]:
            n, ends = counts.sum(axis=1), self._ends[feature]
            if n[ends[:, 0] < ends[:, 1]].max(initial=0) > _MOST_BLURRED * n.sum():
                return None
        names = sorted(levels, key=lambda x: (x == np.inf, x))
        n_of = counts.sum(axis=0)
        titles = [title for title in sorted(groups) if n_of[groups[title]]]
        own = counts[[levels[name] for name in names]][:, [groups[title] for title in titles]]
        seen = np.flatnonzero(own.sum(axis=1))
        return Levels(tuple(names[i] for i in seen), tuple(titles), own[seen], self._numbers[feature])


def _truncated(values: FloatArray, bits: int) -> FloatArray:
    """Values without their last bits; cut twice they are what they are cut once, as rounded ones are not."""
    mantissa, exponent = np.frexp(values)
    return np.asarray(np.ldexp(np.trunc(mantissa * (1 << bits)), exponent - bits), np.float64)
