"""Public facts about a table: bounds and levels of its columns, stated without access to the rows."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, ValidationError, model_validator

from auditor.core.errors import UsageError, did_you_mean
from auditor.core.files import Closed

if TYPE_CHECKING:
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
