"""Changes of many groups' rates, bounded simultaneously, and the implied changes of their distances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from auditor.core.rows import FloatArray
from auditor.statistics.changes import RateChange, change_bounds
from auditor.statistics.intervals import clopper_pearson

Bounds = tuple[float, float]
# Of each rate: before, after, and its change, below and above.
SIDES = 6


@dataclass(frozen=True)
class Moved:
    """One rate of one group: bounds of its change, and of its values before and after."""

    change: Bounds
    before: Bounds
    after: Bounds


def moved_rates(changes: Sequence[RateChange], alpha: float) -> list[Moved]:
    """The bounds of every change of rows, and of its rate before and after, each wrong with at most ``alpha``."""
    if not changes:
        return []
    before, gained, lost, n = np.asarray([(c.before, c.gained, c.lost, c.n) for c in changes], np.float64).T
    ends = (
        change_bounds(gained=gained, lost=lost, n=n, alpha=alpha),
        clopper_pearson(before, n=n, alpha=alpha),
        clopper_pearson(before + gained - lost, n=n, alpha=alpha),
    )
    columns = [[(float(low), float(high)) for low, high in zip(*bounds, strict=True)] for bounds in ends]
    return [Moved(*each) for each in zip(*columns, strict=True)]


def grown_apart(changes: Sequence[Moved]) -> tuple[int, int, float] | None:
    """The two groups, lower first, with the largest certain growth of their distance, and the growth; None if none."""
    if len(changes) < 2:
        return None
    change, before, after = _ends(changes)
    sure = after[0][:, None] > after[1][None, :]
    # |D after| - |D before|, D after being positive: D after - D before, or their sum where D before is negative.
    grown = np.minimum(
        change[0][:, None] - change[1][None, :], (after[0] + before[0])[:, None] - (after[1] + before[1])[None, :]
    )
    return _largest(np.where(sure, grown, 0.0))


def turned_round(changes: Sequence[Moved]) -> tuple[int, int, float] | None:
    """The two groups, the formerly lower one first, whose order is certainly reversed, and the minimal distance, both
    before and after; None without such groups."""
    if len(changes) < 2:
        return None
    _, before, after = _ends(changes)
    was = before[0][:, None] - before[1][None, :]
    now = after[0][:, None] - after[1][None, :]
    return _largest(np.minimum(was, now.T))


def _largest(matrix: FloatArray) -> tuple[int, int, float] | None:
    high, low = np.unravel_index(int(matrix.argmax()), matrix.shape)
    most = float(matrix[high, low])
    return (int(low), int(high), most) if most > 0.0 else None


def _ends(changes: Sequence[Moved]) -> tuple[FloatArray, ...]:
    """(2, n_groups) lower and upper bounds of the changes, of the rates before and after."""
    return tuple(
        np.asarray([getattr(m, name) for m in changes], np.float64).T for name in ("change", "before", "after")
    )
