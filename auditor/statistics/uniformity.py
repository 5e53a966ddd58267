"""Numbers that are uniform where two distributions are one, and means of what each may depend on what came before."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import scipy

# Where a number comes to 0 or 1 by rounding, its logarithm stays finite.
_EDGE = 1e-16
_TESTS = 3
# How sharply an exponential bound looks: small ones for sums of many, large ones for next to none.
_SLOPES = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)


def p_of_uniform(values: npt.ArrayLike) -> float:
    r"""p-value of "the values are uniform on [0, 1], each whatever the others are": 1 where there are none.

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


def least_mean(total: float, n: int, alpha: float) -> float:
    r"""At least this is the mean of the conditional means of ``n`` values in [0, 1] with that sum, but for ``alpha``.

    Each value may depend on those before it: :math:`\exp(\lambda x_t - (e^\lambda - 1)\mu_t)` has mean at most 1 given
    the past, so its products, averaged over a few :math:`\lambda`, exceed :math:`1/\alpha` with probability at most
    :math:`\alpha` (Ville 1939).
    """
    return _end(total, n, alpha, sign=1.0)


def largest_mean(total: float, n: int, alpha: float) -> float:
    """The same from above."""
    return _end(total, n, alpha, sign=-1.0)


def _end(total: float, n: int, alpha: float, sign: float) -> float:
    slopes = sign * np.asarray(_SLOPES)

    def shown(mean: float) -> bool:
        """Whether a mean is excluded."""
        logs = slopes * total - np.expm1(slopes) * mean * n
        return bool(scipy.special.logsumexp(logs) - math.log(len(slopes)) >= -math.log(alpha))

    # Between a mean that is excluded and one that is not.
    out, inside = (0.0, 1.0) if sign > 0.0 else (1.0, 0.0)
    if n == 0 or not shown(out):
        return out
    if shown(inside):
        return inside
    for _ in range(60):
        middle = (out + inside) / 2.0
        if shown(middle):
            out = middle
        else:
            inside = middle
    return out
