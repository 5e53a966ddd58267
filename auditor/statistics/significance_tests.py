"""Significance tests: family-wise levels, alpha over many looks, permutation tests, tests of uniformity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy

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


def look_share(look: int, planned: int | None = None) -> float:
    """The share of an error rate that the ``look``-th of a series may spend.

    ``1 / planned`` where the number of looks is fixed beforehand, and 0 after the last. Else ``1 / (k (k + 1))``, which
    comes to 1 over all k and to ``K / (K + 1)`` over the first K, so that no number need be known. Rows stay, and what
    is asked of them may be chosen by what earlier looks said: nothing but the sum of the levels bounds the chance of
    any false outcome then (Bonferroni), as in alpha-spending with a sequence of one's choice (Lan and DeMets,
    Biometrika 70, 1983). Raises ValueError where ``look`` or ``planned`` is below 1.
    """
    if look < 1 or (planned is not None and planned < 1):
        raise ValueError(f"looks are counted from 1, not {look} of {planned}")
    if planned is None:
        return 1.0 / (look * (look + 1))
    return 1.0 / planned if look <= planned else 0.0


# Where a number comes to 0 or 1 by rounding, its logarithm stays finite.
_EDGE = 1e-16
_TESTS = 3
# How sharply an exponential bound looks: small ones for values that spread, large ones for those that hardly do.
_SLOPES = np.asarray([0.1, 0.25, 0.5, 0.75, 0.9])


def p_of_uniform(values: npt.ArrayLike) -> float:
    r"""p-value of "the values are independent and uniform on [0, 1]": 1 without values.

    Three tests that are exact at every size, each two-sided, and Bonferroni's correction over them: Kolmogorov's, and
    Fisher's at both ends, :math:`-\sum \ln u_i` and :math:`-\sum \ln(1 - u_i)`, which have a gamma distribution of
    shape :math:`n`. The ends are where a colder, a cut and a noisier distribution differ, the middle where another one
    does. Source: Kolmogorov 1933; Fisher 1932; Rosenblatt, Annals of Mathematical Statistics 1952.
    """
    u = np.clip(np.asarray(values, np.float64), _EDGE, 1.0 - _EDGE)
    if not len(u):
        return 1.0
    found = [_two_sided(-float(np.log(side).sum()), len(u)) for side in (u, 1.0 - u)]
    found.append(float(scipy.stats.kstest(u, "uniform", method="exact").pvalue))
    return min(1.0, _TESTS * min(found))


def _two_sided(total: float, n: int) -> float:
    return 2.0 * min(float(scipy.special.gammainc(n, total)), float(scipy.special.gammaincc(n, total)))


def least_mean(values: npt.ArrayLike, alpha: float) -> float:
    r"""Lower bound of the mean of conditional means of values in [0, 1], at level ``alpha``; 0 without values.

    Each value may depend on those before it: with :math:`\hat x_t` the mean of these,
    :math:`\exp(\lambda(x_t - \mu_t) + (\ln(1 - \lambda) + \lambda)(x_t - \hat x_t)^2)` has mean at most 1 given them,
    so its products, averaged over a few :math:`\lambda`, exceed :math:`1/\alpha` with probability at most
    :math:`\alpha` (Ville 1939). Source: Howard, Ramdas, McAuliffe and Sekhon, Annals of Statistics 2021, theorem 4.
    """
    x = np.asarray(values, np.float64)
    return max(0.0, float(x.mean()) - _reach(x, alpha)) if len(x) else 0.0


def largest_mean(values: npt.ArrayLike, alpha: float) -> float:
    """Upper bound, as for :func:`least_mean`; 1 without values."""
    x = np.asarray(values, np.float64)
    return min(1.0, float(x.mean()) + _reach(x, alpha)) if len(x) else 1.0


def _reach(x: npt.NDArray[np.float64], alpha: float) -> float:
    """By how much the mean of the conditional means may lie off that of the values, on one side."""
    before = np.concatenate([[0.0], x.cumsum()[:-1] / np.arange(1, len(x))])
    spread = float(((x - before) ** 2).sum())
    shrunk = (np.log1p(-_SLOPES) + _SLOPES) * spread

    def excluded(reach: float) -> bool:
        logs = _SLOPES * reach * len(x) + shrunk
        most = float(logs.max())
        return most + math.log(float(np.exp(logs - most).mean())) >= -math.log(alpha)

    inside, out = 0.0, 1.0
    if not excluded(out):
        return out
    for _ in range(40):
        middle = (inside + out) / 2.0
        inside, out = (inside, middle) if excluded(middle) else (middle, out)
    return out
