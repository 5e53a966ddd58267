"""Multiple testing: levels that control a family-wise error rate, permutation tests, confirmed counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from auditor.core.number_types import Share
from auditor.core.rows import BoolArray
from auditor.statistics.estimate import Estimate

# ``bh`` is read in records of earlier versions and no longer asked for: it promises nothing of findings that depend on
# each other, as those of one scan do.
Multiplicity = Literal["bonferroni", "holm", "by", "bh", "none"]


class ConfirmedCount(Estimate):
    """The number of confirmed hypotheses: Holm's rejections among ``p_values`` at 5 %.

    The lower bound at alpha is Holm's count at alpha: with probability 1 - alpha, at least so many hypotheses are
    true effects. There is no upper bound: what was not confirmed may still be there, so a bound of 0 is never PASSed.
    """

    unplanned = "No number of rows shows that there is nothing: what was not confirmed may be there."
    interval_test = "Holm's step-down procedure; a lower bound alone"

    kind: Literal["confirmed_count"] = "confirmed_count"
    p_values: tuple[Share, ...]

    @property
    def limits(self) -> tuple[float, float]:
        return 0.0, float(len(self.p_values))

    @property
    def value(self) -> float:
        return float(self.confirmed(0.05).sum())

    def confirmed(self, alpha: float) -> BoolArray:
        """(k,) which hypotheses Holm's procedure rejects at ``alpha``."""
        levels = adjusted_levels(self.p_values, alpha, "holm")
        return np.asarray([p <= level for p, level in zip(self.p_values, levels, strict=True)], bool)

    def bounds(self, alpha: float) -> tuple[float, float]:
        return float(self.confirmed(alpha).sum()), math.inf


def draws_needed(alpha: float) -> int:
    """Fewest random draws that may support a tail at ``alpha``: ``100 / alpha``."""
    return math.ceil(100.0 / alpha)


def adjusted_levels(p_values: Sequence[float], error_rate: float, method: Multiplicity) -> list[float]:
    """Significance level of each hypothesis: it is rejected if its p-value is at most its level.

    ``bonferroni``: error_rate / m. ``holm``: error_rate / (m - i) at step i of the step-down, and the level of the
    first step that fails for it and all after it. ``by``: i * error_rate / (m sum_{j <= m} 1/j) up to the last i that
    holds, whatever the dependence. ``bh``: the same without the sum, for p-values that are independent or depend on
    each other positively. ``none``: error_rate. Sources: Holm, Scand. J. Statist. 6 (1979); Benjamini and Yekutieli,
    Ann. Statist. 29 (2001); Benjamini and Hochberg, JRSS B 57 (1995).
    """
    m = len(p_values)
    if not m:
        return []
    if method == "none":
        return [error_rate] * m
    if method == "bonferroni":
        return [error_rate / m] * m
    order = sorted(range(m), key=lambda i: p_values[i])
    levels = [0.0] * m
    if method in ("by", "bh"):
        step_up = error_rate / (m * (math.fsum(1.0 / j for j in range(1, m + 1)) if method == "by" else 1.0))
        passing = [i for i in range(m) if p_values[order[i]] <= (i + 1) * step_up]
        return [(passing[-1] + 1 if passing else 1) * step_up] * m
    level = error_rate / m
    stopped = False
    for step, index in enumerate(order):
        if not stopped:
            level = error_rate / (m - step)
            stopped = p_values[index] > level
        levels[index] = level
    return levels


def weighted_levels(
    p_values: Sequence[float], shares: Sequence[float], error_rate: float, *, flow: bool
) -> list[float]:
    """Level of each hypothesis with a share of ``error_rate``; rejected if its p-value is at most its level.

    ``shares``: positive, their sum at most 1; what is missing stays with hypotheses that nobody tests. Without ``flow``
    the level is ``share * error_rate`` (Bonferroni with weights). With it, the share of every hypothesis that is
    rejected goes to all others in proportion to theirs (Holm with weights, the graphical procedure with such
    transitions). Any false rejection has a probability of at most ``error_rate``, whatever the dependence.

    Sources: Holm, Scand. J. Statist. 6 (1979); Bretz, Maurer, Brannath and Posch, Statistics in Medicine 28 (2009).
    """
    levels = [share * error_rate for share in shares]
    left = 1.0
    open_ = sorted(range(len(shares)), key=lambda i: p_values[i] / shares[i]) if flow else []
    for step, index in enumerate(open_):
        for other in open_[step:]:
            levels[other] = min(1.0, shares[other] / left) * error_rate
        if p_values[index] > levels[index]:
            break
        left = max(left - shares[index], 1e-12)
    return levels
