"""Estimates of changes between two models on the same rows: in one or many rates, or in the gap between groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
import scipy
from pydantic import BaseModel, ConfigDict, Field, model_validator

from auditor.core.number_types import Count
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.statistics.estimate import Z_POWER, EachBound, Estimate, first_size
from auditor.statistics.groups import WorstDifference
from auditor.statistics.intervals import change_upper, clopper_pearson, sum_upper
from auditor.statistics.rates import MOST_GROUPS, Proportion, RateTable

# Of a gap's level, what the change of the pair itself has; the rest is for what tells other pairs apart from it.
_OWN_SHARE = 0.9
# More pairs than that are bounded by their two groups' own changes.
_MOST_PAIRS = 4_096


def change_bounds(
    *, gained: npt.ArrayLike, lost: npt.ArrayLike, n: npt.ArrayLike, alpha: float
) -> tuple[FloatArray, FloatArray]:
    """One-sided bounds of ``P(gained) - P(lost)`` over the same n rows, each wrong with probability <= ``alpha``.

    Of n rows, ``gained`` went from no to yes and ``lost`` from yes to no: the mean of n independent values of 1, -1 and
    0, bounded by :func:`~auditor.statistics.intervals.change_upper` on either side. Arguments broadcast and need
    not be whole; ``n = 0`` gives [-1, 1].
    """
    g, lo, m = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (gained, lost, n)))
    fall, rise = change_upper(gained=np.stack([lo, g]), lost=np.stack([g, lo]), n=m, alpha=alpha)
    return -fall, rise


class RateChange(Estimate):
    """``rate after - rate before`` of two models on the same n independent rows, in [-1, 1]; NaN at n = 0.

    ``gained`` rows went from no to yes, ``lost`` of the ``before`` that were yes to no; :func:`change_bounds` has the
    argument.
    """

    kind_limits = (-1.0, 1.0)
    interval_test = "an exact test of the rows gained and lost"

    kind: Literal["rate_change"] = "rate_change"
    before: Count
    gained: Count
    lost: Count
    n: Count

    @property
    def value(self) -> float:
        return (self.gained - self.lost) / self.n if self.n else math.nan

    def bounds(self, alpha: float) -> tuple[float, float]:
        low, high = change_bounds(gained=self.gained, lost=self.lost, n=self.n, alpha=alpha)
        return float(low), float(high)

    @model_validator(mode="after")
    def _no_more_than_n(self) -> Self:
        if self.lost > self.before or self.before + self.gained > self.n:
            raise ValueError(f"{self.gained} gains and {self.lost} losses of {self.before} of {self.n}")
        return self

    def rate(self, *, after: bool) -> Proportion:
        """The rate under either model."""
        return Proportion(successes=self.before + (self.gained - self.lost if after else 0), n=self.n)

    def growth(self, *, bound: float, alpha: float, ideal: float, miss: float) -> float:
        """Solved on the bounds themselves, for the observed share of rows changing in either direction."""
        sign = 1.0 if bound > ideal else -1.0
        if not self.n or bound == ideal:
            return math.nan
        beyond = float(-scipy.special.ndtri(miss))

        def is_within_bound(times: float) -> bool:
            return self._upper(ideal, times=times, sign=sign, offset=beyond, alpha=alpha) <= sign * bound

        return first_size(is_within_bound)

    def detectable(self, *, bound: float, alpha: float, ideal: float, sign: int) -> float:
        """Solved on the bounds themselves, for the observed share of rows changing in either direction."""
        if not self.n:
            return math.nan

        def is_detected(value: float) -> bool:
            return self._upper(value, times=1.0, sign=-sign, offset=Z_POWER, alpha=alpha) < -sign * bound

        near, far = bound, float(sign)
        if not is_detected(far):
            return sign * math.inf
        for _ in range(30):
            middle = 0.5 * (near + far)
            near, far = (near, middle) if is_detected(middle) else (middle, far)
        return far

    def _upper(self, change: float, *, times: float, sign: float, offset: float, alpha: float) -> float:
        """Upper bound of ``sign`` times the change, of rows whose own lies ``offset`` standard errors that way from
        ``change``; at least half a row goes either way."""
        n = self.n * times
        either = min(max(self.gained + self.lost, 0.5) * times, n)
        either = min(max(either, n * abs(change)), n)
        surplus = sign * n * change + offset * math.sqrt(max(either - n * change * change, 0.0))
        # A surplus larger than what went either way is one more row that did.
        either = min(max(either, surplus), n)
        surplus = min(surplus, either)
        gained, lost = 0.5 * (either + surplus), 0.5 * (either - surplus)
        return float(change_upper(gained=gained, lost=lost, n=n, alpha=alpha))


class PairedRates(BaseModel):
    """One rate in every group under two models: successes ``before``, rows ``gained`` and ``lost`` since, of n."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: str
    before: Annotated[tuple[Count, ...], Field(max_length=MOST_GROUPS)]
    gained: Annotated[tuple[Count, ...], Field(max_length=MOST_GROUPS)]
    lost: Annotated[tuple[Count, ...], Field(max_length=MOST_GROUPS)]
    n: Annotated[tuple[Count, ...], Field(max_length=MOST_GROUPS)]

    @model_validator(mode="after")
    def _possible(self) -> Self:
        columns = (self.before, self.gained, self.lost, self.n)
        if len({len(column) for column in columns}) != 1:
            raise ValueError("before, gained, lost and n are of the same groups")
        if any(lost > k or k + gained > n for k, gained, lost, n in zip(*columns, strict=True)):
            raise ValueError("a group has no more losses than successes before, and no more gains than failures before")
        return self

    def columns(self, *, turned: bool = False) -> FloatArray:
        """(4, n_groups) successes before, gained, lost and n; ``turned``: with time turned round."""
        before, gained, lost, n = (np.asarray(x, np.float64) for x in (self.before, self.gained, self.lost, self.n))
        return np.stack([before + gained - lost, lost, gained, n] if turned else [before, gained, lost, n])

    def table(self, *, after: bool) -> RateTable:
        """The rate under either model."""
        k = tuple(
            b + (g - lost if after else 0) for b, g, lost in zip(self.before, self.gained, self.lost, strict=True)
        )
        return RateTable(rate=self.rate, successes=k, n=self.n)


class GapChange(EachBound):
    """``gap after - gap before`` on the same rows, the gap being the largest difference of a rate between two groups.

    In [-1, 1], negative where the gap has closed; over several rates, each taken over rows of its own as true and false
    positive rates are, the gap is the largest of them all, as in ``equalized_odds_difference``.

    Above: let (a, b) be the pair whose difference is the gap after. The gap before is no smaller than what any pair
    (c, d) differed by, so the change is at most ``D_ab(after) - D_cd(before)``, a sum of at most four groups' means of
    values that are known row by row (:func:`~auditor.statistics.intervals.sum_upper`). Nine tenths of alpha go to
    (c, d) = (a, b), where that is ``c_a - c_b``, the difference of the two groups' own changes; the last tenth is
    shared by all other pairs, so that the one that differed most before may be taken. The smaller of the two bounds
    holds for (a, b), and so the largest over all pairs holds: which pair it is, is a fixed fact, so nothing is paid for
    its being unknown. Below: the same with before and after exchanged.
    """

    kind_limits = (-1.0, 1.0)
    interval_test = "exact tests of the rows gained and lost, over every pair of groups"

    kind: Literal["gap_change"] = "gap_change"
    rates: Annotated[tuple[PairedRates, ...], Field(min_length=1)]

    def gap(self, *, after: bool) -> WorstDifference:
        """The gap under either model."""
        return WorstDifference(tables=tuple(rate.table(after=after) for rate in self.rates))

    @property
    def value(self) -> float:
        return self.gap(after=True).value - self.gap(after=False).value

    def lower(self, alpha: float) -> float:
        if not self._complete:
            before, after = (self.gap(after=after) for after in (False, True))
            return after.lower(alpha / 2.0) - before.upper(alpha / 2.0)
        return max(-_most_opened([rate.columns(turned=True) for rate in self.rates], alpha), -1.0)

    def upper(self, alpha: float) -> float:
        if not self._complete:
            before, after = (self.gap(after=after) for after in (False, True))
            return after.upper(alpha / 2.0) - before.lower(alpha / 2.0)
        return min(_most_opened([rate.columns() for rate in self.rates], alpha), 1.0)

    @property
    def _complete(self) -> bool:
        """As that of either gap, which are of the same rows."""
        return all(len(rate.n) > 1 and all(rate.n) for rate in self.rates)


def _most_opened(rates: Sequence[FloatArray], alpha: float) -> float:
    """Upper bound of how much the gap over all ``rates`` has opened, as :class:`GapChange` says.

    ``rates``: (4, n_groups) each, as :meth:`PairedRates.columns`.
    """
    # In an order that is the same however the groups were named.
    columns = np.concatenate([rate[:, np.lexsort(rate)] for rate in rates], axis=1)
    table = np.repeat(np.arange(len(rates)), [rate.shape[1] for rate in rates])
    pairs = np.argwhere((table[:, None] == table) & ~np.eye(table.size, dtype=bool)).T
    own, other = _OWN_SHARE * alpha, (1.0 - _OWN_SHARE) * alpha / max(pairs.shape[1] - 1, 1)
    before, gained, lost, n = columns
    fell, rose = change_bounds(gained=gained, lost=lost, n=n, alpha=own / 2.0)
    apart = rose[pairs[0]] - fell[pairs[1]]
    most = -math.inf
    if pairs.shape[1] > _MOST_PAIRS:
        order = np.argsort(-apart, kind="stable")
        most, pairs = float(apart[order[_MOST_PAIRS]]), pairs[:, order[:_MOST_PAIRS]]
    rate = before / n
    widest = _widest(rate, table)
    found = _gap_change_bounds(
        columns,
        after=np.tile(pairs, 2),
        before=np.concatenate([pairs, np.broadcast_to(widest[:, None], pairs.shape)], axis=1),
        alpha=np.repeat([own, other], pairs.shape[1]),
    )
    return max(most, float(found.reshape(2, -1).min(axis=0).max()))


def _widest(rate: FloatArray, table: IntArray) -> IntArray:
    """(2,) the pair of one table whose rates, (n_groups,), lie farthest apart, the higher first."""
    ends = [
        (places[np.argmax(rate[places])], places[np.argmin(rate[places])])
        for places in (np.flatnonzero(table == t) for t in np.unique(table))
    ]
    return np.asarray(max(ends, key=lambda pair: float(rate[pair[0]] - rate[pair[1]])), np.int64)


def _gap_change_bounds(columns: FloatArray, *, after: IntArray, before: IntArray, alpha: FloatArray) -> FloatArray:
    """(n_pairs,) upper bounds of ``D_ab(after) - D_cd(before)``.

    ``columns``: (4, n_groups) before, gained, lost and n; ``after`` and ``before``: (2, n_pairs) the pairs (a, b) and
    (c, d). A group that is in both pairs is one sample, of the differences of its own rows.
    """
    (a, b), (c, d) = after, before
    groups = np.stack([a, b, c, d])
    was = np.stack(
        [(d == a) * 1.0 - (c == a), (d == b) * 1.0 - (c == b), -1.0 * ~_among(c, a, b), 1.0 * ~_among(d, a, b)]
    )
    now = np.stack([np.ones(a.shape), -np.ones(a.shape), np.zeros(a.shape), np.zeros(a.shape)])
    held, gained, lost, n = columns[:, groups]
    counts = np.stack([held - lost, gained, lost, n - held - gained], axis=1)
    return sum_upper(counts, values=np.stack([now + was, now, was, np.zeros_like(now)], axis=1), alpha=alpha)


def _among(x: IntArray, a: IntArray, b: IntArray) -> BoolArray:
    return np.asarray((x == a) | (x == b), bool)


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
