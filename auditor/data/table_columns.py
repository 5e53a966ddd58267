"""Columns of a table: numeric codes of their values, and their distinct texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from auditor.core.errors import DataError, did_you_mean
from auditor.core.files import Closed
from auditor.core.number_types import Share
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.data.preprocessing import level_codes, numbers_of

if TYPE_CHECKING:
    import pandas as pd


# The file in an exported program that says this of its input.
CODED = "columns.json"


class CodedColumn(Closed):
    """A column: a number, NaN where missing, or with ``values`` the place of its value in them, -1 for any other.

    None in the list is a missing value; of a value that stands there twice the last place counts.
    """

    name: str
    values: tuple[str | None, ...] | None = None


class CodedColumns(Closed):
    """The columns of a program in order, its classes in the order of its probabilities, and its decision rule.

    ``positive``: the class whose probability is held against ``threshold``; None decides by the largest probability.
    """

    format: Literal["auditor-columns/1"] = "auditor-columns/1"
    columns: Annotated[tuple[CodedColumn, ...], Field(min_length=1)]
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    positive: str | None = None
    threshold: Share = 0.5

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The non-numeric columns."""
        return tuple(column.name for column in self.columns if column.values is not None)

    def encode(self, X: pd.DataFrame) -> FloatArray:
        """(n, columns) numbers; DataError for an absent column or a non-numeric value."""
        out = np.empty((len(X), len(self.columns)))
        for i, column in enumerate(self.columns):
            if column.name not in X.columns:
                raise DataError(
                    f"The model needs the feature {column.name!r}, which the data do not have"
                    f"{did_you_mean(column.name, map(str, X.columns))}."
                )
            values = X[column.name]
            if column.values is None:
                out[:, i] = numbers_of(values)
                continue
            place = {value: j for j, value in enumerate(column.values)}
            codes, found = level_codes(values)
            out[:, i] = np.asarray([*(place.get(level, -1) for level in found), place.get(None, -1)])[codes]
        return out


@dataclass(frozen=True, eq=False)
class CodedTexts:
    """``names``: the different texts in the order in which rows show them; ``codes``: (n,) each row's among them."""

    names: tuple[str, ...]
    codes: IntArray

    def commonest(self, most: int, among: BoolArray | None = None) -> list[int]:
        """The most frequent texts by descending count, ties in order of first occurrence; of the rows ``among``."""
        codes = self.codes if among is None else self.codes[among]
        n = np.bincount(codes, minlength=len(self.names))
        if among is None:
            return [int(i) for i in np.argsort(-n, kind="stable")[:most]]
        first = np.full(len(self.names), len(codes))
        np.minimum.at(first, codes, np.arange(len(codes)))
        return [int(i) for i in np.lexsort((first, -n))[:most] if n[i]]


def texts_of(values: pd.Series[Any], missing: str) -> CodedTexts:
    """The texts of a column's values, ``missing`` for those that are absent."""
    import pandas as pd

    kind = values.dtype
    few = isinstance(kind, pd.CategoricalDtype) or (isinstance(kind, np.dtype) and kind.kind in "iufb")
    codes, different = pd.factorize(values if few else values.astype("string"))
    named = pd.Series(np.asarray(different)).astype("string") if len(different) else pd.Series([], dtype="string")
    names = [missing if absent else str(name) for name, absent in zip(named, named.isna(), strict=True)]
    if (codes < 0).any():
        codes = np.where(codes < 0, len(names), codes)
        names.append(missing)
    # Values that are not equal may be spelled alike, and a text may be the one that stands for none.
    spelled = list(dict.fromkeys(names))
    place = {name: i for i, name in enumerate(spelled)}
    return _as_seen(spelled, np.asarray([place[name] for name in names], np.int64)[codes])


def _as_seen(names: list[str], codes: IntArray) -> CodedTexts:
    import pandas as pd

    ordered, seen = pd.factorize(codes)
    return CodedTexts(tuple(names[int(i)] for i in seen), ordered.astype(np.int64))
