"""Tables with realistic noise and missing values: age never increases, no income becomes negative."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import ModelError, UsageError, did_you_mean, first_line
from auditor.core.rows import FloatArray, IntArray, is_number
from probes.probe_inputs import as_frame

if TYPE_CHECKING:
    import pandas as pd

    from auditor.core.rows import Rows
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

# A column of which more than this share is 0 holds an amount that most rows do not have.
_MOSTLY = 0.5


@dataclass(frozen=True)
class NumberColumn:
    """The possible values of a numeric column that can change slightly.

    ``low``, ``high``: the smallest and the largest value observed of those that can change; ``deviation``: the standard
    deviation of these; ``whole``: whether all are whole numbers. ``absent``: the value of rows that do not have what is
    counted, such as a capital gain of 0, which stay as they are; None where the column has no such value.
    """

    name: str
    low: float
    high: float
    deviation: float
    whole: bool
    absent: float | None = None

    def can_change(self, values: FloatArray) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """(n,) the changeable values of a column: known and not ``absent``."""
        known = np.isfinite(values)
        return known if self.absent is None else known & (values != self.absent)


def number_columns(reference: pd.DataFrame, names: Collection[str]) -> tuple[NumberColumn, ...]:
    """The named columns that can change slightly, by the reference's rows.

    A column of one value is constant, and one of two is a code, such as the indicator of a level: neither can, and so
    indicators of levels keep their sum. Where more than half of the known values are 0, or in a column of fractions the
    smallest there is, that one is ``absent``: noise neither gives such an amount nor takes it away.
    """
    found = []
    for name in reference.columns:
        if name not in names:
            continue
        known = numbers(reference[name])
        known = known[np.isfinite(known)]
        if not known.size or ((known == known.min()) | (known == known.max())).all():
            continue
        # A scale of whole numbers may start at 1, which most have; an amount in other units may have its 0 anywhere.
        none = (0.0,) if (known == np.round(known)).all() else (0.0, float(known.min()))
        often = [value for value in none if (known == value).mean() > _MOSTLY]
        absent = often[0] if often else None
        moving = known if absent is None else known[known != absent]
        found.append(
            NumberColumn(
                name=name,
                low=float(moving.min()),
                high=float(moving.max()),
                deviation=float(moving.std()),
                whole=bool((moving == np.round(moving)).all()),
                absent=absent,
            )
        )
    return tuple(found)


def fixed_columns(model: AuditedModel, rows: AuditData, immutable: Collection[str] = ()) -> frozenset[str]:
    """Names of the table columns that must not change: the immutable and the sensitive ones.

    Raises UsageError where one that is called immutable does not exist.
    """
    sensitive = () if rows.sensitive_features is None else rows.sensitive_features.columns
    known = {*map(str, as_frame(rows.X, model.features).columns), *map(str, sensitive)}
    for name in immutable:
        if name not in known:
            raise UsageError(
                f"immutable: there is no column {name!r}{did_you_mean(name, sorted(known)) or '.'} "
                f"Columns are: {', '.join(sorted(known))}."
            )
    return frozenset(immutable) | frozenset(map(str, sensitive))


def numeric_names(model: AuditedModel, frame: pd.DataFrame) -> list[str]:
    """The model's numeric columns, without codes that it treats as categories."""
    from auditor.data.preprocessing import NumericColumn, TabularPreprocessing

    if isinstance(model.preprocessing, TabularPreprocessing):
        return [c.name for c in model.preprocessing.columns if isinstance(c, NumericColumn) and c.name in frame.columns]
    return [c for c in frame.columns if is_number(frame[c])]


def changing_columns(model: AuditedModel, rows: AuditData, fixed_columns: Collection[str]) -> tuple[NumberColumn, ...]:
    """The possible values of each changeable column of a table, as observed in the rows."""
    frame = as_frame(rows.X, model.features)
    return number_columns(frame, [name for name in numeric_names(model, frame) if str(name) not in fixed_columns])


def noisy_tables(
    model: AuditedModel,
    rows: AuditData,
    sample: AuditData,
    fixed_columns: Collection[str],
    levels: Sequence[float],
    rng: np.random.Generator,
) -> Callable[[int], Rows]:
    """The sample with noise, by level index; fixed columns do not affect the draws of others."""
    frame = as_frame(sample.X, model.features)
    names = numeric_names(model, frame)
    columns = changing_columns(model, rows, fixed_columns)
    z = rng.standard_normal((len(frame), len(names)))[:, [names.index(column.name) for column in columns]]
    return lambda i: as_taken(with_noise(frame, columns, z, levels[i]), sample.X)


def gappy_tables(
    model: AuditedModel,
    rows: AuditData,
    sample: AuditData,
    fixed_columns: Collection[str],
    levels: Sequence[float],
    rng: np.random.Generator,
) -> Callable[[int], Rows]:
    """The sample with cells missing at the rates of the rows, by level index."""
    frame = as_frame(sample.X, model.features)
    rates = gap_rates(as_frame(rows.X, model.features), fixed_columns)
    u = rng.random(frame.shape)
    return lambda i: as_taken(with_gaps(frame, u, levels[i] * rates), sample.X)


def refusal_of_gaps(model: AuditedModel, sample: AuditData, clean: IntArray, error: Exception | None) -> str:
    """A sentence that a model rejects missing values, if its error on rows with gaps says so; else "".

    Its word is a ValueError, a TypeError or an answer that is no number; any other error is an accident. And the same
    rows without these gaps are still decided as before, ``clean`` (n,): a model that broke on the way refuses nothing.
    """
    cause = error.__cause__ if isinstance(error, ModelError) and error.code == "AUD-LOAD-ANSWERS" else error
    if error is None or not isinstance(cause, ValueError | TypeError | None):
        return ""
    try:
        again = model.decide(model.predict_proba(sample.X), sample.positive, sample.X)
    except Exception:
        return ""
    return f"the model refuses missing values: {first_line(cause or error)}" if np.array_equal(again, clean) else ""


def as_taken(frame: pd.DataFrame, original: Rows) -> Rows:
    """A changed table in the model's form."""
    return frame.to_numpy() if isinstance(original, np.ndarray) else frame


def numbers(values: pd.Series[Any]) -> FloatArray:
    """(n,) a numeric column as float64, NaN where missing."""
    return values.to_numpy(np.float64, na_value=np.nan)


def with_noise(X: pd.DataFrame, columns: Sequence[NumberColumn], z: FloatArray, level: float) -> pd.DataFrame:
    """``x + level * deviation * z`` in those columns, limited to possible values, in the column's own type.

    X (n, d); z (n, len(columns)) standard normal draws. The result lies within the observed range, and is rounded in a
    column of whole numbers: the model is asked about values that can occur. A negative income or 2.4 children would
    measure how it extrapolates, or crash on the logarithm before it, and not how it bears small errors. So a coded
    level changes only where the noise reaches half a unit. What is missing or absent stays so.
    """
    noisy = np.empty(z.shape)
    for j, column in enumerate(columns):
        values = numbers(X[column.name])
        noisy[:, j] = np.clip(values + level * column.deviation * z[:, j], column.low, column.high)
        noisy[:, j] = np.round(noisy[:, j]) if column.whole else noisy[:, j]
    return with_values(X, columns, noisy)


def with_values(X: pd.DataFrame, columns: Sequence[NumberColumn], values: FloatArray) -> pd.DataFrame:
    """The table with new values, (n, len(columns)), in those columns if changeable, in their own type."""
    import pandas as pd

    changed = {}
    for j, column in enumerate(columns):
        present = X[column.name]
        own = numbers(present)
        changed[column.name] = _typed(np.where(column.can_change(own), values[:, j], own), present)
    # Set one after the other, the columns of a wide table would be copied apart each time.
    return pd.DataFrame({name: changed[name] if name in changed else X[name] for name in X.columns}, index=X.index)


def _typed(values: FloatArray, like: pd.Series[Any]) -> pd.Series[Any]:
    """Numbers in the type of ``like``, which has the same gaps."""
    import pandas as pd

    column = pd.Series(values, index=like.index, name=like.name)
    if not isinstance(like.dtype, np.dtype):
        return column.astype("Float64").mask(like.isna()).astype(like.dtype)
    return column.astype(like.dtype)


def gap_rates(reference: pd.DataFrame, fixed_columns: Collection[str]) -> FloatArray:
    """(d,) missing rates of the columns, relative to the most incomplete one in the reference's rows, at 1.

    The others in proportion: a column that is never missing stays so, and so does a fixed one. Where no column has a
    gap, nothing says which would, and each of those that are not fixed is 1.
    """
    free = np.array([str(name) not in fixed_columns for name in reference.columns], bool)
    rates = reference.isna().to_numpy(bool).mean(axis=0) if len(reference) else np.zeros(len(free))
    rates = np.where(free, rates, 0.0)
    most = rates.max(initial=0.0)
    return np.asarray(rates / most if most > 0.0 else free, np.float64)


def with_gaps(X: pd.DataFrame, u: FloatArray, rates: FloatArray) -> pd.DataFrame:
    """The rows with cells set missing, by NaN or their type's own missing value, if the cell's draw ``u`` (n, d) in [0,
    1) is below its column's rate, (d,)."""
    import pandas as pd

    out = {}
    for j, name in enumerate(X.columns):
        holes = u[:, j] < rates[j]
        # A column without a gap keeps its type, as it would in a file.
        out[name] = X[name].mask(holes) if holes.any() else X[name]
    return pd.DataFrame(out, index=X.index)
