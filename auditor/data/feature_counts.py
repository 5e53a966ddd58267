"""FeatureCounts: rows by the level of each feature and by group, counted as they stream by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from auditor.data.score_counts import Codes
from auditor.rows import FloatArray, IntArray

# Numbers of more significant bits than these are one level.
_BITS = 8
_MOST_LEVELS = 1 << 14


@dataclass(frozen=True, eq=False)
class Levels:
    """A feature's levels, sorted, and ``counts`` (l, g) of the rows of each by group.

    ``numbers``: whether the levels are numbers, to eight significant bits; a missing value is the last.
    """

    names: tuple[float | str, ...]
    groups: tuple[str, ...]
    counts: IntArray
    numbers: bool


class FeatureCounts:
    """Of every feature and every sensitive feature, how many rows have a level and a group."""

    def __init__(self, sensitive: Sequence[str]) -> None:
        self.sensitive = tuple(sensitive)
        self._groups: dict[str, dict[str, int]] = {name: {} for name in sensitive}
        self._levels: dict[str, dict[float | str, int] | None] = {}
        self._numbers: dict[str, bool] = {}
        self._counts: dict[tuple[str, str], IntArray] = {}

    @property
    def features(self) -> tuple[str, ...]:
        """Those that are no sensitive feature, in their order."""
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
        numbers = values.dtype.kind in "iuf"
        self._numbers[feature] = numbers
        levels = self._levels.setdefault(feature, {})
        if levels is None:
            return
        rounded = pd.Series(_rounded(values.to_numpy(np.float64, na_value=np.nan))) if numbers else values.astype(str)
        codes, found = pd.factorize(rounded.where(values.notna().to_numpy(), np.nan if numbers else ""))
        names = [*found.tolist(), np.inf]
        own = np.asarray([levels.setdefault(name, len(levels)) for name in names], np.int64)[codes]
        if len(levels) > _MOST_LEVELS:
            self._levels[feature] = None
            return
        for name, place in zip(self.sensitive, places, strict=True):
            n_groups = len(self._groups[name])
            counts = np.bincount(own * n_groups + place, minlength=len(levels) * n_groups).reshape(-1, n_groups)
            before = self._counts.get((feature, name))
            if before is not None:
                counts[: before.shape[0], : before.shape[1]] += before
            self._counts[feature, name] = counts.astype(np.int64)

    def of(self, feature: str, sensitive: str) -> Levels | None:
        """What was counted of the two; None where the feature has too many levels."""
        levels = self._levels[feature]
        if levels is None:
            return None
        counts, groups = self._counts[feature, sensitive], self._groups[sensitive]
        names, titles = sorted(levels, key=lambda x: (x == np.inf, x)), sorted(groups)
        own = counts[[levels[name] for name in names]][:, [groups[title] for title in titles]]
        seen = np.flatnonzero(own.sum(axis=1))
        return Levels(tuple(names[i] for i in seen), tuple(titles), own[seen], self._numbers[feature])


def _rounded(values: FloatArray) -> FloatArray:
    mantissa, exponent = np.frexp(values)
    return np.asarray(np.ldexp(np.rint(mantissa * (1 << _BITS)), exponent - _BITS), np.float64)
