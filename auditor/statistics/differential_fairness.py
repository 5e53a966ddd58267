"""Differential fairness: the largest ratio of outcome probabilities between two groups, over all outcomes."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from auditor.core.number_types import Positive
from auditor.statistics.estimate import Side, smallest_p
from auditor.statistics.groups import WorstOfPairs


class DifferentialFairness(WorstOfPairs):
    """``epsilon = max over outcomes y and groups i, j of |ln P(y | i) / P(y | j)|``, in [0, inf), ideal 0.

    One table per outcome. The value is the smoothed empirical one, ``(N_yg + s) / (N_g + s |Y|)`` for each probability;
    the bounds are of the unsmoothed epsilon of the population, from exact tests of every ratio, as in
    :class:`WorstOfPairs`; infinite where an outcome was never seen in a group.
    Source: Foulds, Islam, Keya and Pan, ICDE 2020.
    """

    unbounded = True
    contrast = "ratio"
    kind_limits = (0.0, math.inf)
    interval_test = "exact tests of every ratio of every outcome, inverted together"

    kind: Literal["differential_fairness"] = "differential_fairness"
    smoothing: Positive = 1.0

    @property
    def value(self) -> float:
        if not self.complete:
            return math.nan
        parts = []
        for table in self.tables:
            k, n = table.arrays()
            p = np.log((k + self.smoothing) / (n + self.smoothing * len(self.tables)))
            parts.append(float(p.max() - p.min()))
        return max(parts)

    def lower(self, alpha: float) -> float:
        return math.log(self._beyond(alpha))

    def upper(self, alpha: float) -> float:
        within = self._smallest_contrast(alpha) if self.complete else 0.0
        return -math.log(within) if within > 0.0 else math.inf

    def p_value(self, bound: float, side: Side) -> float:
        """As for every estimate, from the tests themselves."""
        if side in ("greater", "at_least"):
            always = bound < 0.0 or (bound == 0.0 and side == "at_least")
            return smallest_p(0.0 if always else self._p_beyond(math.exp(bound)))
        return 1.0 if bound <= 0.0 else self._p_within(math.exp(-bound))

    def standard_error_at(self, ideal: float) -> float:
        parts = [math.sqrt((1.0 - t.pooled()) / t.pooled()) * t.hardest_pair() for t in self.tables]
        return max(parts) if self.comparisons else math.nan
