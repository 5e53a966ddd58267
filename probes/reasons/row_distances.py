"""Distances between table rows, and nearest rows: numbers in deviations, categories by equality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.rows import BoolArray, FloatArray, IntArray
from probes.robustness.table_noise import numbers

if TYPE_CHECKING:
    import pandas as pd


def deviation(values: FloatArray) -> float:
    """Median absolute deviation from the median of the finite values; the mean absolute deviation if most values of the
    column are equal; 1 if neither is above 0.

    Source: Wachter, Mittelstadt and Russell, Harvard Journal of Law and Technology 31 (2018), who count changes in it.
    """
    known = values[np.isfinite(values)]
    if not known.size:
        return 1.0
    away = np.abs(known - np.median(known))
    found = float(np.median(away)) or float(away.mean())
    return found or 1.0


@dataclass(frozen=True, eq=False)
class Scaled:
    """The columns of a table as differences are counted: codes of categories, and numbers in deviations.

    ``values`` (n, d): float64, NaN where a number is missing; ``is_number`` (d,). A missing category is one of its own.
    """

    values: FloatArray
    is_number: BoolArray

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, numeric: frozenset[str]) -> Scaled:
        """A scaled table; ``numeric``: the model's numeric columns; columns with two values are categories."""
        parts, kinds = [], []
        for name in frame.columns:
            column = frame[name]
            number = str(name) in numeric and column.nunique(dropna=True) > 2
            parts.append(_scaled(column) if number else _codes(column))
            kinds.append(number)
        return cls(np.column_stack(parts) if parts else np.zeros((len(frame), 0)), np.asarray(kinds, np.bool_))

    def from_row(self, row: int) -> FloatArray:
        """(n,) distance of every row from one: the sum over features of scaled differences, or 1 if unequal.

        A number that only one of two rows has is a difference of 1; the sum is Wachter's, the ones are Gower's (1971).
        """
        own = self.values[row]
        gaps = np.abs(self.values - own)
        lacking = np.isnan(self.values) != np.isnan(own)
        steps = np.where(self.is_number, np.nan_to_num(gaps, nan=0.0) + lacking, gaps > 0.0)
        return np.asarray(steps.sum(axis=1), np.float64)


def _scaled(column: pd.Series[Any]) -> FloatArray:
    values = numbers(column)
    return values / deviation(values)


def _codes(column: pd.Series[Any]) -> FloatArray:
    import pandas as pd

    codes, _ = pd.factorize(column.array, use_na_sentinel=False)
    return np.asarray(codes, np.float64)


def nearest(scaled: Scaled, row: int, among: BoolArray, most: int) -> tuple[IntArray, FloatArray]:
    """Positions and distances of the ``most`` rows of ``among`` (n,) nearest to a row, except itself."""
    away = scaled.from_row(row)
    places = np.flatnonzero(among & (np.arange(len(among)) != row))
    order = places[np.argsort(away[places], kind="stable")[:most]]
    return order.astype(np.int64), away[order]
