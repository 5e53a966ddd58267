"""Lower bound on epsilon under a Gaussian-mechanism assumption: tighter than the bound from guesses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr
from scipy.stats import chi2
from scipy.stats import t as student

from auditor.core.rows import FloatArray
from auditor.privacy.dp_audit_scores import DIRAC, CanaryScores, default_guesses, n_correct_guesses
from auditor.privacy.one_run import LARGEST_EPSILON, f_dp_lower_mu

_FEWEST = 8
_GRID = 9


@dataclass(frozen=True, kw_only=True)
class IfGaussian:
    """Lower bounds of epsilon at ``delta``, each at half of ``alpha``, for a mechanism that is Gaussian; never judged.

    ``from_scores``: of the pair of normal distributions of scores. ``from_guesses``: of the mu of Gaussian DP that the
    right guesses exceed, ``mu``.
    """

    from_scores: float
    from_guesses: float
    mu: float
    delta: float
    alpha: float

    @property
    def epsilon(self) -> float:
        """The larger of the two."""
        return max(self.from_scores, self.from_guesses)


def if_gaussian(
    canaries: CanaryScores, *, delta: float, rng: np.random.Generator, alpha: float = 0.05
) -> IfGaussian | None:
    """Epsilon at ``delta`` from the scores if those of canaries in and out are normal; None if not computable.

    DP-SGD's score is a sum over the steps, so that it tends to a normal one. With ``d`` the least difference of means
    (Welch) and the standard deviations anywhere in their chi-square intervals, the smallest epsilon at which neither
    distribution exceeds ``e^epsilon`` times the other by more than ``delta``. It is told from the run's own scores, so
    that it holds for the run as it was, and only as far as the normal distribution does: with few steps, or a small
    sample rate, tails are not normal. Beside it the mu that guesses show, by
    :func:`auditor.privacy.one_run.f_dp_lower_mu`. None for canaries that are no gradients, fewer than 8 in or out, or
    delta 0.
    Source: Agrawal et al., Let's Ask Gauss, arXiv:2606.12733 (2026); Dong, Roth and Su, JRSS B 84 (2022).
    """
    inside, outside = canaries.scores[canaries.included], canaries.scores[~canaries.included]
    if canaries.kind != DIRAC or delta == 0.0 or min(len(inside), len(outside)) < _FEWEST:
        return None
    numbers = default_guesses(len(canaries))
    mu = max(
        f_dp_lower_mu(len(canaries), r, n_correct_guesses(canaries, r, rng), alpha=0.5 * alpha / len(numbers))
        for r in numbers
    )
    return IfGaussian(
        from_scores=_from_scores(inside, outside, delta, 0.5 * alpha),
        from_guesses=float(epsilon_of_normals(mu, 1.0, 1.0, delta)),
        mu=mu,
        delta=delta,
        alpha=alpha,
    )


def _from_scores(inside: FloatArray, outside: FloatArray, delta: float, alpha: float) -> float:
    third = alpha / 3.0
    parts = [float(x.var(ddof=1)) / len(x) for x in (inside, outside)]
    if sum(parts) == 0.0:
        return LARGEST_EPSILON if inside.mean() != outside.mean() else 0.0
    freedom = sum(parts) ** 2 / sum(p**2 / (len(x) - 1) for p, x in zip(parts, (inside, outside), strict=True))
    reach = float(student.isf(third, freedom)) * math.sqrt(sum(parts))
    d = float(inside.mean() - outside.mean()) - reach
    if d <= 0.0:
        return 0.0
    spread = [_deviations(x, third) for x in (inside, outside)]
    return float(epsilon_of_normals(d, spread[0][:, None], spread[1][None, :], delta).min())


def _deviations(x: FloatArray, alpha: float) -> FloatArray:
    """Standard deviations that the sample allows, from the smallest to the largest."""
    n = len(x) - 1
    low, high = (math.sqrt(n * float(x.var(ddof=1)) / float(chi2.isf(p, n))) for p in (0.5 * alpha, 1.0 - 0.5 * alpha))
    return np.linspace(low, high, _GRID)


def epsilon_of_normals(d: float, sd_with: npt.ArrayLike, sd_without: npt.ArrayLike, delta: float) -> FloatArray:
    """The smallest epsilon of ``N(d, with_^2)`` and ``N(0, without^2)`` at delta, in both directions; at most 64."""
    s1, s0 = np.broadcast_arrays(np.asarray(sd_with, np.float64), np.asarray(sd_without, np.float64))
    low, high = np.zeros(s1.shape), np.full(s1.shape, LARGEST_EPSILON)
    open_ = np.maximum(_excess(d, s1, s0, low), _excess(d, s0, s1, low)) > delta
    for _ in range(50):
        middle = 0.5 * (low + high)
        above = np.maximum(_excess(d, s1, s0, middle), _excess(d, s0, s1, middle)) > delta
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    found: FloatArray = np.where(open_, low, 0.0)
    return found


def _excess(d: float, s: FloatArray, r: FloatArray, epsilon: FloatArray) -> FloatArray:
    """``P(A) - e^epsilon Q(A)`` of the best set A, for ``P = N(d, s^2)`` and ``Q = N(0, r^2)``.

    ``log p / q > epsilon`` is a quadratic inequality ``a x^2 + b x + c > 0``.
    """
    a = 0.5 / r**2 - 0.5 / s**2
    b, c = d / s**2, -0.5 * (d / s) ** 2 - np.log(s / r) - epsilon
    straight = np.abs(a) * max(d, 1e-300) < 1e-9 * np.abs(b)
    with np.errstate(all="ignore"):
        root = np.sqrt(np.maximum(b * b - 4.0 * a * c, 0.0))
        first, second = (-b - root) / (2.0 * a), (-b + root) / (2.0 * a)
        low, high = np.minimum(first, second), np.maximum(first, second)
        p = ndtr((high - d) / s) - ndtr((low - d) / s)
        q = ndtr(high / r) - ndtr(low / r)
        # Inside the roots where the parabola opens downwards, outside of them where upwards.
        p, q = (
            np.where(a > 0.0, ndtr((low - d) / s) + ndtr((d - high) / s), p),
            np.where(a > 0.0, ndtr(low / r) + ndtr(-high / r), q),
        )
        empty = (b * b - 4.0 * a * c <= 0.0) & (a < 0.0)
        cut = -c / b
        p = np.where(straight, ndtr((d - cut) / s), np.where(empty, 0.0, p))
        q = np.where(straight, ndtr(-cut / r), np.where(empty, 0.0, q))
        return np.asarray(p - np.exp(epsilon) * q, np.float64)
