"""Estimates of how a rate, or the gap between groups' rates, changed between two models on the same rows."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from auditor.rows import FloatArray
from auditor.statistics.estimate import Estimate
from auditor.statistics.groups import WorstDifference
from auditor.statistics.intervals import clopper_pearson, difference_bounds
from auditor.statistics.rates import MOST_GROUPS, Proportion, RateTable

Count = Annotated[int, Field(ge=0)]


def change_bounds(
    *, gained: npt.ArrayLike, lost: npt.ArrayLike, n: npt.ArrayLike, alpha: float
) -> tuple[FloatArray, FloatArray]:
    """One-sided bounds of ``P(gained) - P(lost)`` over the same n rows, each missed with probability at most ``alpha``.

    Of n rows, ``gained`` went from no to yes and ``lost`` from yes to no. The change is ``d (2 t - 1)`` of the share d
    of rows that went either way and the share t of gains among them; given how many went, gains are binomial, so d and
    t have exact bounds, and a third of alpha each for t and for either side of d pays for the corner that is taken.
    Arguments broadcast; ``n = 0`` gives [-1, 1]. The idea is McNemar's (Psychometrika 12, 1947).
    """
    g, lo, m = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (gained, lost, n)))
    share = clopper_pearson(g + lo, n=m, alpha=alpha / 3.0)
    gain = clopper_pearson(g, n=g + lo, alpha=alpha / 3.0)
    low, high = (2.0 * side - 1.0 for side in gain)
    return low * np.where(low < 0.0, share[1], share[0]), high * np.where(high > 0.0, share[1], share[0])


class RateChange(Estimate):
    """``rate after - rate before`` of two models on the same n independent rows, in [-1, 1]; NaN at n = 0.

    ``gained`` rows went from no to yes, ``lost`` of the ``before`` that were yes to no; :func:`change_bounds` has the
    argument.
    """

    kind_limits: ClassVar[tuple[float, float]] = (-1.0, 1.0)

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

    def standard_error_at(self, ideal: float) -> float:
        """Of a change of 0 with as many rows going either way as were seen, half a row at least."""
        return math.sqrt(max(self.gained + self.lost, 0.5)) / self.n if self.n else math.nan


class PairedRates(BaseModel):
    """One rate in every group under two models: successes ``before``, and rows ``gained`` and ``lost`` since, of n."""

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

    def table(self, *, after: bool) -> RateTable:
        """The rate under either model."""
        k = tuple(
            b + (g - lost if after else 0) for b, g, lost in zip(self.before, self.gained, self.lost, strict=True)
        )
        return RateTable(rate=self.rate, successes=k, n=self.n)


class GapChange(Estimate):
    """``gap after - gap before`` on the same rows, the gap being the largest difference of a rate between two groups.

    In [-1, 1], negative where the gap has closed; over several rates the gap is the largest of them all, as in
    ``equalized_odds_difference``. Above: let (a, b) be the pair whose difference is the gap after. The change is at
    most ``c_a - c_b``, the difference of the two groups' own changes, because the gap before is no smaller than what it
    was between them; and at most that pair's difference after less the gap before. The smaller of the two bounds holds
    for that pair, so the largest over all pairs holds, with half of alpha for the changes and a quarter for each of the
    others; which pair it is, is a fixed fact, so nothing is paid for its being unknown. Below: the same with before and
    after exchanged.
    """

    kind_limits: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    kind: Literal["gap_change"] = "gap_change"
    rates: Annotated[tuple[PairedRates, ...], Field(min_length=1)]

    def gap(self, *, after: bool) -> WorstDifference:
        """The gap under either model."""
        return WorstDifference(tables=tuple(rate.table(after=after) for rate in self.rates))

    @property
    def value(self) -> float:
        return self.gap(after=True).value - self.gap(after=False).value

    def bounds(self, alpha: float) -> tuple[float, float]:
        before, after = (self.gap(after=after) for after in (False, True))
        was, now = before.bounds(alpha / 4.0), after.bounds(alpha / 4.0)
        if not before.complete:
            return now[0] - was[1], now[1] - was[0]
        low, high = 1.0, -1.0
        for rate, first, second in zip(self.rates, before.tables, after.tables, strict=True):
            pairs = ~np.eye(len(rate.n), dtype=bool)
            (k_before, n), (k_after, _) = first.arrays(), second.arrays()
            fell, rose = change_bounds(gained=rate.gained, lost=rate.lost, n=rate.n, alpha=alpha / 4.0)
            upper = difference_bounds(k_after, n=n, alpha=alpha / 4.0)[1] - was[0]
            high = max(high, float(np.minimum(rose[:, None] - fell[None, :], upper)[pairs].max()))
            lower = now[0] - difference_bounds(k_before, n=n, alpha=alpha / 4.0)[1]
            low = min(low, float(np.maximum(fell[:, None] - rose[None, :], lower)[pairs].min()))
        return max(low, -1.0), min(high, 1.0)
