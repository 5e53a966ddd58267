"""FeatureCounts: row counts by level of each feature and by group, from streamed rows."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.rows import FloatArray, IntArray
from auditor.data.score_counts import Codes

if TYPE_CHECKING:
    import pandas as pd

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
