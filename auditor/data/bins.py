"""Bins for continuous sensitive features, by rules that the report can state."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import DataError, UsageError
from auditor.core.rows import FloatArray, IntArray
from auditor.data.group_counts import MISSING

if TYPE_CHECKING:
    import pandas as pd

_HOW = (
    "Write --bins age=18,30,45,60 for edges, --bins age=quantiles:4 for equal shares, or --bins region=values to make "
    "each value a group."
)
# More numbers than these are an amount, not names of groups.
MOST_VALUES = 20
_MOST_EDGES = 6
_OLDEST = 120.0


@dataclass(frozen=True)
class BinRule:
    """The binning of a column: at ``edges``, into ``quantiles`` of equal share, or each value a group."""

    column: str
    edges: tuple[float, ...] = ()
    quantiles: int = 0

    @property
    def is_unbinned(self) -> bool:
        """Whether each value is a separate group."""
        return not (self.edges or self.quantiles)


def parse_bin_rule(text: str) -> BinRule:
    """A rule from ``column=18,30,45`` (ascending edges), ``column=quantiles:4`` or ``column=values``; UsageError."""
    column, equals, rule = text.rpartition("=")
    if not equals or not column.strip() or not rule.strip():
        raise UsageError(f"The binning rule {text!r} names no column or no bins. {_HOW}")
    column, rule = column.strip(), rule.strip()
    if rule == "values":
        return BinRule(column)
    kind, colon, number = rule.partition(":")
    if colon:
        if kind != "quantiles" or not number.strip().isdecimal() or not 2 <= int(number) <= 100:
            raise UsageError(f"The binning rule {text!r} is not quantiles:K with K from 2 to 100. {_HOW}")
        return BinRule(column, quantiles=int(number))
    try:
        edges = tuple(float(edge) for edge in rule.split(","))
    except ValueError:
        raise UsageError(f"The binning rule {text!r} has an edge that is not a number. {_HOW}") from None
    if not np.isfinite(edges).all() or any(a >= b for a, b in zip(edges, edges[1:], strict=False)):
        raise UsageError(f"The edges of {text!r} must be finite and ascend. {_HOW}")
    return BinRule(column, edges=edges)


def bin_sensitive(series: pd.Series[Any], rule: BinRule | str) -> pd.Series[Any]:
    """(n,) categorical of bins such as ``[30, 45)``, in the order of their values; nothing is ever dropped.

    Below the first edge is ``< 18``, from the last edge on ``>= 60``, a missing value ``(missing)``. Quantile edges are
    those of the values present, and the last bin is closed. A value that fills a bin and more gets one of its own, so
    ties may leave fewer bins than asked for, or one more for each such value. A rule's text is parsed as in
    :func:`parse_bin_rule`. Raises DataError for values that are no numbers.
    """
    import pandas as pd

    rule = parse_bin_rule(rule) if isinstance(rule, str) else rule
    text = series.astype("string").str.strip()
    text = text.mask(text.isin(["", MISSING, "nan", "NaN"]))
    if rule.is_unbinned:
        return text.fillna(MISSING).astype("category")
    numbers = pd.to_numeric(text, errors="coerce")
    strange = text[numbers.isna() & text.notna()]
    if len(strange):
        raise DataError(
            f"Column {rule.column!r} cannot be binned: it holds {str(strange.iloc[0])[:40]!r}, which is no number."
        )
    values = numbers.to_numpy(np.float64, na_value=np.nan)
    codes, labels = bin_values(values, rule)
    named = np.asarray([*labels, MISSING], object)[codes]
    present = [*labels, MISSING] if (codes < 0).any() else labels
    categories = [label for i, label in enumerate(present) if label == MISSING or (codes == i).any()]
    return pd.Series(pd.Categorical(named, categories=categories), index=series.index, name=series.name)


def bin_values(values: FloatArray, rule: BinRule) -> tuple[np.ndarray[Any, np.dtype[np.int64]], list[str]]:
    """Codes (n,) into the labels of the rule's bins, -1 where a value is NaN; infinities fall into the outer bins."""
    missing = np.isnan(values)
    if rule.edges:
        edges = np.asarray(rule.edges)
        labels = [
            f"< {edges[0]:g}",
            *(f"[{a:g}, {b:g})" for a, b in zip(edges, edges[1:], strict=False)),
            f">= {edges[-1]:g}",
        ]
        codes = np.searchsorted(edges, values, "right")
        return np.where(missing, -1, codes).astype(np.int64), labels
    here = np.isfinite(values)
    finite = values if here.all() else values[here]
    if not finite.size:
        return np.where(missing, -1, 0).astype(np.int64), ["[all]"]
    # Of whole numbers, which most columns hold, each different one is looked up once and not once a row.
    n = _integer_counts(finite) if finite.size == values.size else None
    starts = _quantile_starts(finite, rule.quantiles) if n is None else counted_starts(n, rule.quantiles)
    labels = [f"[{a:g}, {b:g})" for a, b in zip(starts, starts[1:], strict=False)]
    labels.append(f"[{starts[-1]:g}, {finite.max():g}]")
    looked_up = values if n is None else np.arange(n.size, dtype=np.float64)
    codes = np.clip(np.searchsorted(starts, looked_up, "right") - 1, 0, len(labels) - 1).astype(np.int64)
    if n is not None:
        return codes[values.astype(np.int64)], labels
    return np.where(missing, -1, codes), labels


def more_than(n: int, values: FloatArray) -> bool:
    """Whether numbers (m,), except NaN, have more than ``n`` distinct values; the first few usually decide."""
    import pandas as pd

    return any(pd.Series(some).nunique() > n for some in (values[: 64 * (n + 1)], values))


def _integer_counts(values: FloatArray) -> IntArray | None:
    """How often each of 0, 1 to the largest occurs, where the values are such numbers and the largest is no more than
    they are."""
    low, high = values.min(), values.max()
    if np.signbit(low) or high > values.size:
        return None
    whole = values.astype(np.int64)
    if not (whole == values).all() or (low == 0.0 and np.signbit(values).any()):
        return None
    return np.bincount(whole)


def _quantile_starts(finite: FloatArray, n_bins: int) -> FloatArray:
    """Where the bins begin; the last one ends with the largest value."""
    # "lower" keeps every edge a value that occurs, so the labels read like the data.
    edges = np.quantile(finite, np.linspace(0.0, 1.0, n_bins + 1), method="lower")
    return _starts(edges, np.unique(finite))


def counted_starts(n: IntArray, n_bins: int) -> FloatArray:
    """Starts of quantile bins of whole numbers; ``n`` (m,) are the counts of each number from 0."""
    upto = np.cumsum(n)
    # As numpy's "lower" places them.
    at = np.floor((upto[-1] - 1) * np.linspace(0.0, 1.0, n_bins + 1)).astype(np.int64)
    return _starts(np.searchsorted(upto, at, "right").astype(np.float64), np.flatnonzero(n).astype(np.float64))


def _starts(ends: FloatArray, distinct: FloatArray) -> FloatArray:
    edges, times = np.unique(ends, return_counts=True)
    # Without a bin's end right above a value that repeats, a column that is mostly zero would be a single bin.
    above = np.searchsorted(distinct, edges[times > 1], "right")
    starts = edges if edges.size == 1 or times[-1] > 1 else edges[:-1]
    return np.union1d(starts, distinct[above[above < distinct.size]])


def numbers_of(series: pd.Series[Any]) -> FloatArray | None:
    """The non-missing values of a column if all are numbers; None if one is not, or all are missing."""
    import pandas as pd

    present = series.dropna()
    if not pd.api.types.is_numeric_dtype(present.dtype) or pd.api.types.is_bool_dtype(present.dtype):
        text = present.astype("string").str.strip()
        present = pd.to_numeric(text[~text.isin(["", MISSING, "nan", "NaN"])], errors="coerce")
    values = present.to_numpy(np.float64, na_value=np.nan)
    return values if values.size and not np.isnan(values).any() else None


def refuse_continuous(column: str, series: pd.Series[Any]) -> None:
    """Raise UsageError, with a ``--bins`` flag to copy, for more than MOST_VALUES different numbers."""
    values = numbers_of(series)
    if values is None or (n := np.unique(values).size) <= MOST_VALUES:
        return
    raise UsageError(
        f"The sensitive feature {column!r} holds {n:,} different numbers, each of which would be a group: add "
        f"--bins {shlex.quote(f'{column}={suggested_edges(values)}')}, or --bins {shlex.quote(f'{column}=values')} "
        "where they are names of groups."
    )


def suggested_edges(values: FloatArray) -> str:
    """Suggested edges as a rule text: decades for an age, else quartiles to two digits.

    An age is whole numbers from 0 to 120 over at least two decades. ``quantiles:4`` where the quartiles are one number.
    """
    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, [0.05, 0.95]) if finite.size else (0.0, 0.0)
    if finite.size and (finite == np.rint(finite)).all() and finite.min() >= 0 and finite.max() <= _OLDEST:
        for step in (10.0, 20.0):
            edges = np.arange(np.ceil(low / step) * step, high + 1.0, step)
            edges = edges[edges > finite.min()]
            if 2 <= edges.size <= _MOST_EDGES:
                return ",".join(f"{edge:g}" for edge in edges)
    quartiles = np.quantile(finite, [0.25, 0.5, 0.75]) if finite.size else np.empty(0)
    rounded = np.unique([float(f"{edge:.2g}") for edge in quartiles])
    rounded = rounded[(rounded > finite.min()) & (rounded <= finite.max())] if finite.size else rounded
    return ",".join(f"{edge:.15g}" for edge in rounded) if rounded.size > 1 else "quantiles:4"
