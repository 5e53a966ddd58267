"""A table as numbers only: numeric values unchanged, every other value as its position in a list of levels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from auditor.core.errors import DataError, did_you_mean
from auditor.core.files import Closed
from auditor.core.number_types import Share
from auditor.core.rows import FloatArray
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
