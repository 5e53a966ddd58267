"""What became of many groups' rates, all of it bounded together, and what of their distances follows by logic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from auditor.rows import FloatArray
from auditor.statistics.changes import RateChange, change_bounds
from auditor.statistics.intervals import clopper_pearson

Bounds = tuple[float, float]
# Of each rate: before, after, and its change, below and above.
SIDES = 6


@dataclass(frozen=True)
class Moved:
    """One rate of one group: bounds of its change, of the rate before and after."""

    change: Bounds
    before: Bounds
    after: Bounds


def moved_rates(changes: Sequence[RateChange], alpha: float) -> list[Moved]:
    """The bounds of every change of rows, and of its rate before and after, each missed at most at ``alpha``."""
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


def grown_apart(moved: Sequence[Moved]) -> tuple[int, int, float] | None:
    """The two groups, the lower first, whose distance has surely grown most, and by how much; None where none has."""
    if len(moved) < 2:
        return None
    change, before, after = _ends(moved)
    sure = after[0][:, None] > after[1][None, :]
    # |D after| - |D before|, D after being positive: D after - D before, or their sum where D before is negative.
    grown = np.minimum(
        change[0][:, None] - change[1][None, :], (after[0] + before[0])[:, None] - (after[1] + before[1])[None, :]
    )
    return _largest(np.where(sure, grown, 0.0))


def turned_round(moved: Sequence[Moved]) -> tuple[int, int, float] | None:
    """The two groups, the one that was lower first, of which the other was surely above it and now is surely below;
    and by how much at least, before and after alike."""
    if len(moved) < 2:
        return None
    _, before, after = _ends(moved)
    was = before[0][:, None] - before[1][None, :]
    now = after[0][:, None] - after[1][None, :]
    return _largest(np.minimum(was, now.T))


def _largest(found: FloatArray) -> tuple[int, int, float] | None:
    high, low = np.unravel_index(int(found.argmax()), found.shape)
    most = float(found[high, low])
    return (int(low), int(high), most) if most > 0.0 else None


def _ends(moved: Sequence[Moved]) -> tuple[FloatArray, ...]:
    """(2, n_groups) lower and upper bounds of the changes, of the rates before and after."""
    return tuple(np.asarray([getattr(m, name) for m in moved], np.float64).T for name in ("change", "before", "after"))
