"""Encoded table rows as categories and back, so that a generator only draws categories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from auditor.core.rows import IntArray

Encoded = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False, kw_only=True)
class CodedColumn:
    """One raw column as categories, each with the encoded values of its real rows.

    ``span``: its encoded columns. ``edges``: (k - 1,) lower ends of all bins but the first, of a number; None where
    the column is categorical already. ``kinds``: (k, width of the span) the encoded values of each category where they
    are known by it alone. ``held``: of a number's bins, the values of the real rows in each, sorted.
    """

    name: str
    span: slice
    edges: npt.NDArray[np.float32] | None = None
    kinds: Encoded | None = None
    held: tuple[npt.NDArray[np.float32], ...] = ()

    @property
    def n_categories(self) -> int:
        """Number of categories."""
        return len(self.held) if self.kinds is None else len(self.kinds)

    def codes(self, x: Encoded) -> IntArray:
        """(n,) category of each encoded row x (n, width)."""
        values = x[:, self.span]
        if self.edges is not None:
            return np.searchsorted(self.edges, values[:, 0], side="right").astype(np.int64)
        assert self.kinds is not None
        # The nearest kind: an indicator column is met exactly.
        return np.asarray(((values[:, None] - self.kinds[None]) ** 2).sum(axis=2).argmin(axis=1), np.int64)

    def values(self, codes: IntArray, rng: np.random.Generator) -> Encoded:
        """(n, width of the span) encoded values of categories; within a bin, a real row's value is sampled."""
        if self.kinds is not None:
            return self.kinds[codes]
        out = np.zeros((len(codes), 1), np.float32)
        for code, own in enumerate(self.held):
            where = np.flatnonzero(codes == code)
            out[where, 0] = own[rng.integers(len(own), size=len(where))]
        return out


def coded_columns(x: Encoded, names: Sequence[str], spans: Sequence[slice], bins: int) -> tuple[CodedColumn, ...]:
    """The columns of encoded rows x (n, width): numbers in at most ``bins`` bins of about as many rows each.

    A number of at most ``bins`` different values keeps each of them. A column of indicators has a category for each
    level that occurs, and one for rows of which none is set (a missing value).
    """
    columns = []
    for name, span in zip(names, spans, strict=True):
        values = x[:, span]
        kinds = np.unique(values, axis=0)
        if values.shape[1] > 1 or len(kinds) <= bins:
            columns.append(CodedColumn(name=name, span=span, kinds=kinds))
            continue
        number = np.sort(values[:, 0])
        edges = np.unique(np.quantile(number, np.arange(1, bins) / bins, method="lower"))
        edges = edges[edges > number[0]]
        ends = np.searchsorted(number, edges, side="left")
        held = tuple(np.split(number, ends))
        columns.append(CodedColumn(name=name, span=span, edges=edges, held=held))
    return tuple(columns)


def one_hot(codes: Sequence[IntArray], sizes: Sequence[int]) -> Encoded:
    """(n, sum of sizes) float32 indicators of the categories of several columns, each (n,)."""
    return np.concatenate([np.eye(k, dtype=np.float32)[c] for c, k in zip(codes, sizes, strict=True)], axis=1)


def total_variation(first: IntArray, second: IntArray, n_categories: int) -> float:
    """``1/2 sum_k |p_k - q_k|`` of the shares of categories in two samples, in [0, 1]; 0 if they are equal."""
    p, q = (np.bincount(codes, minlength=n_categories) / len(codes) for codes in (first, second))
    return float(np.abs(p - q).sum() / 2.0)
