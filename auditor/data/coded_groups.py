"""Group membership of each row as small integers, computed once per audit and shared by all comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.rows import IntArray

if TYPE_CHECKING:
    import pandas as pd


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
