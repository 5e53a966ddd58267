"""Statistics that are uniform if two distributions are equal, and means of sequentially dependent values."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import scipy

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
