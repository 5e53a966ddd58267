"""Columns of a table: their public bounds and levels, numeric codes of their values, and their distinct texts."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from auditor.core.errors import DataError, UsageError, did_you_mean
from auditor.core.files import Closed
from auditor.core.number_types import Share
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.data.preprocessing import level_codes, numbers_of

if TYPE_CHECKING:
    import pandas as pd

    from auditor.data.preprocessing import TabularPreprocessing

_MOST_BYTES = 4 << 20
_EXAMPLE = '[columns.age] with low = 18 and high = 90, or [columns.job] with levels = ["clerk", "nurse"]'


class PublicColumn(Closed):
    """A number between ``low`` and ``high``, or one of ``levels``."""

    low: float | None = None
    high: float | None = None
    levels: Annotated[tuple[str, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _bounds_or_levels(self) -> Self:
        if self.levels is not None:
            if self.low is not None or self.high is not None:
                raise ValueError("give low and high, or levels, not both")
            if len(set(self.levels)) != len(self.levels):
                raise ValueError("a level is named twice")
        elif self.low is None or self.high is None or not self.low < self.high:
            raise ValueError("low and high are needed, low below high, or levels")
        elif not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError("low and high must be finite")
        return self


class TableSchema(Closed):
    """The public facts about a table's columns."""

    columns: Annotated[dict[str, PublicColumn], Field(min_length=1)]

    def preprocessing(self, features: Sequence[str]) -> TabularPreprocessing:
        """The encoding derived from the schema alone.

        Numbers are taken as uniform between their bounds: less ``(low + high) / 2``, over ``(high - low) / sqrt(12)``,
        and missing ones as the middle. Raises UsageError naming the feature of which the schema says nothing.
        """
        # numpy is not needed to read what is asked for.
        from auditor.data.preprocessing import CategoricalColumn, NumericColumn, TabularPreprocessing

        made: list[NumericColumn | CategoricalColumn] = []
        for name in features:
            column = self.columns.get(name)
            if column is None:
                raise UsageError(
                    f"--schema says nothing of the feature {name!r}{did_you_mean(name, self.columns) or ':'} add "
                    f"{_EXAMPLE}, or leave the feature out with --drop."
                )
            if column.levels is not None:
                made.append(CategoricalColumn(name=name, levels=tuple(sorted(column.levels))))
                continue
            assert column.low is not None and column.high is not None
            middle, width = 0.5 * (column.low + column.high), column.high - column.low
            made.append(NumericColumn(name=name, mean=middle, scale=width / math.sqrt(12.0), impute=middle))
        return TabularPreprocessing(columns=tuple(made))


def read_schema(path: str | Path) -> TableSchema:
    """The schema in a TOML file. Raises UsageError in one sentence for what is none."""
    file = Path(path)
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise UsageError(f"--schema {file.name!r} is larger than a schema of {_MOST_BYTES >> 20} MiB can be.")
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--schema {str(file)!r} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"--schema {file.name!r} is no TOML: {str(error)[:200]}.") from None
    try:
        return TableSchema.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UsageError(f"--schema {file.name!r}, {where}: {first['msg']}. It holds {_EXAMPLE}.") from None


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
