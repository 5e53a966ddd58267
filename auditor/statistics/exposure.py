"""Exposure of a planted secret, by its rank among candidates drawn from the same distribution."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import model_validator

from auditor.core.number_types import Count, NonNegative, Positive, PositiveCount
from auditor.statistics.estimate import Estimate
from auditor.statistics.intervals import BINOMIAL_TEST, clopper_pearson


class Exposure(Estimate):
    """``-log2 P(a random candidate is at least as likely as the canary)`` in bits, from ``n`` random candidates.

    ``at_least_as_likely`` of them are no less likely than the canary, so that its rank among them is one more and the
    value ``log2((n + 1) / rank)``; with ``extrapolated``, that of a distribution fitted to the candidates. Given the
    canary the count is binomial, so its Clopper-Pearson bounds q give ``-log2(q)``, whatever the distribution is; from
    n candidates no more than about ``log2(n)`` bits can be shown. In [0, ``bits``], ``bits`` being log2 of the number
    of candidates there are. ``exhausted``: the n candidates are all there are besides canaries, so the value is exact
    and cannot exceed ``log2(n + 1)``. 1 where the canary is like the median candidate. Source: Carlini et al., USENIX
    Security 2019, 4.
    """

    unbounded = True
    unplanned = "Only more candidates tell: n of them show an exposure of at most about log2(n) bits."
    interval_test = f"{BINOMIAL_TEST} of the share of candidates that are as likely"

    kind: Literal["exposure"] = "exposure"
    at_least_as_likely: Count
    n: PositiveCount
    bits: Positive
    extrapolated: NonNegative | None = None
    exhausted: bool = False

    @model_validator(mode="after")
    def _no_more_than_n(self) -> Self:
        if self.at_least_as_likely > self.n:
            raise ValueError(f"{self.at_least_as_likely} of {self.n} candidates")
        return self

    @property
    def limits(self) -> tuple[float, float]:
        return 0.0, min(math.log2(self.n + 1), self.bits) if self.exhausted else self.bits

    @property
    def value(self) -> float:
        by_rank = math.log2((self.n + 1) / (self.at_least_as_likely + 1))
        return min(by_rank if self.extrapolated is None else self.extrapolated, self.bits)

    def bounds(self, alpha: float) -> tuple[float, float]:
        if self.exhausted:
            return self.value, self.value
        low, high = (float(q) for q in clopper_pearson(self.at_least_as_likely, n=self.n, alpha=alpha))
        least = max(-math.log2(high), 0.0)
        most = min(-math.log2(low), self.bits) if low > 0.0 else self.bits
        return min(least, self.value), max(most, self.value)
