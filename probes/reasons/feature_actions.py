"""Feasible changes of a row (allowed directions, observed values), and distances between rows.

A number stays within the observed range and whole where the column is whole; a category becomes one that was seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from auditor.core.errors import UsageError, did_you_mean
from auditor.core.rows import BoolArray, FloatArray, IntArray, is_number
from probes.probe_inputs import as_frame
from probes.robustness.table_noise import fixed_columns, numbers, numeric_names

if TYPE_CHECKING:
    import pandas as pd

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel


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


Way = Literal["up", "down"]
WAYS: tuple[Way, ...] = ("up", "down")
# A column of whole numbers with no more values than this is searched value by value.
MOST_VALUES = 200
# Levels of a category, the most frequent ones, that are proposed.
MOST_LEVELS = 50
# What a number is rounded to where it has no step of its own: the power of ten below so much of its deviation.
_OF_DEVIATION = 0.02


@dataclass(frozen=True, eq=False)
class Action:
    """The allowed new values of one column of a row.

    ``values``: what it may become, the nearest first, and ``costs`` (k,) how far each lies off. A number has ``step``,
    to multiples of which it is rounded, and its range from ``low`` to ``high``; a category has a step of 0. ``whole``:
    whether these are all the values there are of such a step.
    """

    column: str
    own: Any
    values: tuple[Any, ...]
    costs: FloatArray
    unit: float = 1.0
    step: float = 0.0
    low: float = 0.0
    high: float = 0.0
    whole: bool = True

    def thinned(self, most: int) -> Action:
        """The action with at most so many values, evenly selected; a category keeps the first."""
        if len(self.values) <= most:
            return self
        places = np.unique(np.linspace(0, len(self.values) - 1, most).round().astype(np.int64))
        places = places if self.step else np.arange(most)
        return Action(
            self.column, self.own, tuple(self.values[i] for i in places), self.costs[places], self.unit, self.step,
            self.low, self.high, False,
        )  # fmt: skip

    def refine(self, value: Any, most: int) -> Action:
        """Numbers from the row's own to ``value``, at most so many, including ``value``."""
        own, end = float(self.own), float(value)
        n_steps = max(1, round(abs(end - own) / self.step))
        counts = np.unique(np.linspace(1, n_steps, min(most, n_steps)).round())
        tried = np.unique(np.append(self.rounded(own + np.sign(end - own) * counts * self.step), end))
        inside = (tried >= min(own, end)) & (tried <= max(own, end)) & (tried != own)
        return self._with_values(tried[inside], whole=False)

    def rounded(self, x: FloatArray) -> FloatArray:
        """The nearest that numbers (m,) may be."""
        return np.clip(np.round(np.round(x / self.step) * self.step, 12), self.low, self.high)

    def _with_values(self, values: FloatArray, *, whole: bool) -> Action:
        costs = np.abs(values - float(self.own)) / self.unit
        order = np.argsort(costs, kind="stable")
        return Action(
            self.column, self.own, tuple(float(values[i]) for i in order), costs[order], self.unit, self.step, self.low,
            self.high, whole,
        )  # fmt: skip


def parse_monotone(texts: Sequence[str]) -> dict[str, Way]:
    """``income=up`` and the like as a table. Raises UsageError for another form, or two ways of one column."""
    found: dict[str, Way] = {}
    for text in texts:
        name, equals, way = text.rpartition("=")
        known: Way | None = next((w for w in WAYS if w == way.strip().lower()), None)
        if not (equals and name.strip()) or known is None:
            raise UsageError(
                f"--monotone {text!r} must look like income=up or debt=down; where a name holds a comma, put both in "
                'double quotes, as in "in,come=up".'
            )
        if found.setdefault(name.strip(), known) != known:
            raise UsageError(f"--monotone says two ways for {name.strip()!r}: leave one out.")
    return found


def held_columns(
    model: AuditedModel, rows: AuditData, immutable: Sequence[str], monotone: Mapping[str, Way]
) -> frozenset[str]:
    """Names of the fixed columns.

    Raises UsageError for a name that is no column of these rows.
    """
    fixed = fixed_columns(model, rows, immutable)
    columns = [str(c) for c in as_frame(rows.X, model.features).columns]
    for name in monotone:
        if name not in columns:
            raise UsageError(
                f"--monotone: there is no feature {name!r}{did_you_mean(name, columns) or '.'} "
                f"Features are: {', '.join(columns)}."
            )
    return fixed


def indicators(frame: pd.DataFrame, names: Sequence[str]) -> tuple[str, ...]:
    """Groups of three or more 0/1 columns with exactly one 1 per row: levels of one category.

    None can change by itself, and which became which is for whoever made them: they are left as they are.
    """
    codes = {}
    for name in names:
        if not is_number(frame[name]):
            continue
        values = numbers(frame[name])
        if values.size and np.isin(values, (0.0, 1.0)).all():
            codes[name] = values == 1.0
    found: list[str] = []
    for name in codes:
        if name in found:
            continue
        together, union = [name], codes[name].copy()
        for other, ones in codes.items():
            if other not in (name, *found) and not (union & ones).any() and ones.any():
                together.append(other)
                union |= ones
        if union.all() and len(together) >= 3:
            found += together
    return tuple(found)


def actions(
    model: AuditedModel, rows: AuditData, row: int, fixed_columns: frozenset[str], monotone: Mapping[str, Way]
) -> tuple[Action, ...]:
    """The allowed new values of each non-fixed column of a row, as observed in the rows; none if missing."""
    frame = as_frame(rows.X, model.features)
    numeric = {str(name) for name in numeric_names(model, frame)}
    held = {*fixed_columns, *indicators(frame, [c for c in frame.columns if str(c) in numeric])}
    found = []
    for name in frame.columns:
        if str(name) in held:
            continue
        column, own = frame[name], frame[name].iloc[row]
        if _missing(own):
            continue
        way = monotone.get(str(name))
        if str(name) in numeric:
            action = _of_number(str(name), numbers(column), float(own), way)
        else:
            if way is not None:
                raise UsageError(f"--monotone {name}={way}: {name} holds categories, which have no up and down.")
            action = _of_category(str(name), column, own)
        if action.values:
            found.append(action)
    return tuple(found)


def _missing(value: Any) -> bool:
    import pandas as pd

    return bool(pd.isna(value))


def _of_number(name: str, values: FloatArray, current: float, way: Way | None) -> Action:
    known = np.unique(values[np.isfinite(values)])
    low, high = float(known[0]), float(known[-1])
    if way == "up":
        low = max(low, current)
    elif way == "down":
        high = min(high, current)
    if len(known) <= 2:
        # A code, such as of yes and no: the other value is as far as any category.
        other = [float(v) for v in known if v != current and low <= v <= high]
        return Action(name, current, tuple(other), np.ones(len(other)))
    unit = deviation(values)
    whole = bool((known == np.round(known)).all())
    step = 1.0 if whole else float(10.0 ** np.floor(np.log10(unit * _OF_DEVIATION)))
    empty = Action(name, current, (), np.empty(0), unit, step, low, high, True)
    n_steps = (high - low) / step
    if n_steps <= MOST_VALUES:
        steps = np.asarray(low + step * np.arange(round(n_steps) + 1), np.float64)
        tried, every = np.unique(empty.rounded(steps)), whole
    else:
        # Observed quantiles, so that where rows are dense the grid is too.
        inside = values[(values >= low) & (values <= high)]
        at = np.quantile(inside, np.linspace(0.0, 1.0, MOST_VALUES // 2)) if inside.size else np.array([low, high])
        both = np.concatenate([at, np.linspace(low, high, MOST_VALUES // 2)])
        tried = np.unique(empty.rounded(np.asarray(both, np.float64)))
        every = False
    return empty._with_values(tried[tried != current], whole=every)


def _of_category(name: str, column: pd.Series[Any], current: Any) -> Action:
    seen = [level for level, _ in zip(column.value_counts(dropna=True).index, range(MOST_LEVELS + 1), strict=False)]
    others = [level for level in seen if level != current][:MOST_LEVELS]
    complete = column.nunique(dropna=True) <= MOST_LEVELS + 1
    return Action(name, current, tuple(others), np.ones(len(others)), whole=complete)
