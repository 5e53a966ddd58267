"""Lower bounds on epsilon from guesses of membership: pure arithmetic, for any attack.

Validity rests on the coins alone: each canary was included by an independent fair coin, the number of guesses was
fixed before the scores were seen, and abstaining is free. A bad attack makes a bound low, never wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from auditor.core.errors import UsageError
from auditor.statistics.intervals import clopper_pearson

LARGEST_EPSILON = 64.0
_HALVINGS = 60

InverseTradeOff = Callable[[float], float]


# ---- one run: Steinke, Nasr and Jagielski ----------------------------------------------------------------------------


def one_run_p_value(n_canaries: int, n_guesses: int, n_correct: int, epsilon: float, delta: float = 0.0) -> float:
    """Bound on the chance that an (epsilon, delta)-DP run lets ``n_correct`` or more of ``n_guesses`` be right.

    With ``W ~ Binomial(r, e^epsilon / (1 + e^epsilon))``: ``P[W >= v] + 2 m delta max_i P[v > W >= v - i] / i``, i from
    1 to v. Where ``2 m delta / i`` exceeds 1 the term is replaced by its majorant ``(2 m delta / i) P[W >= v - i]``,
    so that the bound rises with epsilon for every delta. In [0, 1]. Raises UsageError for counts that cannot be.
    Source: Steinke, Nasr and Jagielski, Privacy Auditing with One (1) Training Run, NeurIPS 2023, corollary 5.4.
    """
    _check_counts(n_canaries, n_guesses, n_correct, delta)
    q = 1.0 / (1.0 + math.exp(-epsilon))
    beta = float(binom.sf(n_correct - 1, n_guesses, q))
    if delta == 0.0 or n_correct == 0:
        return min(beta, 1.0)
    i = np.arange(1, n_correct + 1)
    tail = binom.sf(n_correct - i - 1, n_guesses, q)
    weight = 2.0 * n_canaries * delta / i
    return float(min(np.where(weight <= 1.0, beta + weight * (tail - beta), weight * tail).max(), 1.0))


def one_run_lower_bound(
    n_canaries: int, n_guesses: int, n_correct: int, *, delta: float = 0.0, alpha: float = 0.05
) -> float:
    """Lower bound on the run's epsilon, wrong with probability at most ``alpha``; 0 without evidence.

    ``sup {epsilon: p_value(epsilon) < alpha}`` by bisection, rounded down. Same source as :func:`one_run_p_value`.
    """
    return _largest_rejected(
        lambda epsilon: one_run_p_value(n_canaries, n_guesses, n_correct, epsilon, delta) < alpha, LARGEST_EPSILON
    )


# ---- one run, by trade-off functions: Mahloujifar, Melis and Chaudhuri -----------------------------------------------


def inverse_of_epsilon_delta(epsilon: float, delta: float) -> InverseTradeOff:
    """``x -> inf {t: 1 - f(t) >= x}`` for the trade-off function f of (epsilon, delta)-DP, in both directions.

    ``max(0, (x - delta) e^-epsilon, 1 - delta - (1 - x) e^epsilon)``.
    """
    shrink, stretch = math.exp(-epsilon), math.exp(epsilon)
    return lambda x: max(0.0, (x - delta) * shrink, 1.0 - delta - (1.0 - x) * stretch)


def inverse_of_gaussian(mu: float) -> InverseTradeOff:
    """The same for mu-Gaussian DP: ``Phi(Phi^-1(x) - mu)``. Source: Dong, Roth and Su, JRSS B 84 (2022)."""
    return lambda x: float(ndtr(ndtri(min(x, 1.0)) - mu)) if x > 0.0 else 0.0


def inverse_of_curve(points: Sequence[tuple[float, float]]) -> InverseTradeOff:
    """The same for a mechanism that is (epsilon_k, delta_k)-DP for every k at once: the largest of the single ones."""
    shrink = np.exp(-np.asarray([epsilon for epsilon, _ in points]))
    stretch = 1.0 / shrink
    delta = np.asarray([delta for _, delta in points])
    return lambda x: max(0.0, float(np.maximum((x - delta) * shrink, 1.0 - delta - (1.0 - x) * stretch).max()))


def is_refuted(
    inverse: InverseTradeOff, n_canaries: int, n_guesses: int, n_correct: int, *, alpha: float = 0.05
) -> bool:
    """Whether no mechanism of that trade-off function has so many correct guesses with probability ``alpha``.

    Let ``p_l = P[l guesses of r are right]``, ``r_i = sum_{l >= i} l p_l / m``, ``h_i = sum_{l >= i} (r - l) p_l / m``.
    Flipping one canary's coin turns a right guess of it into a wrong one, so by f-DP and Jensen's inequality
    ``r_{i+1} <= 1 - f(h_i)``, that is ``h_i >= inverse(r_{i+1})``. From ``P[at least v right] = alpha`` downwards the
    smallest mass that these allow is ``h_i = max(h_{i+1}, inverse(r_{i+1}))``,
    ``r_i = r_{i+1} + i (h_i - h_{i+1}) / (r - i)``; where ``r_0 + h_0 > r / m`` the total probability would exceed 1.
    Source: Mahloujifar, Melis and Chaudhuri, Auditing f-Differential Privacy in One Run, arXiv:2410.22235 (2024).
    """
    _check_counts(n_canaries, n_guesses, n_correct, 0.0)
    right = alpha * n_correct / n_canaries
    wrong = alpha * (n_guesses - n_correct) / n_canaries
    whole = n_guesses / n_canaries
    for i in range(n_correct - 1, -1, -1):
        least = inverse(right) if right < 1.0 else math.inf
        if least > wrong:
            right += i * (least - wrong) / (n_guesses - i)
            wrong = least
        if right + wrong > whole * (1.0 + 1e-12):
            return True
    return False


def f_dp_lower_bound(
    n_canaries: int, n_guesses: int, n_correct: int, *, delta: float = 0.0, alpha: float = 0.05
) -> float:
    """Lower bound on the run's epsilon at ``delta``, by :func:`is_refuted`; assumes no mechanism."""
    return _largest_rejected(
        lambda epsilon: is_refuted(
            inverse_of_epsilon_delta(epsilon, delta), n_canaries, n_guesses, n_correct, alpha=alpha
        ),
        LARGEST_EPSILON,
    )


def f_dp_lower_mu(n_canaries: int, n_guesses: int, n_correct: int, *, alpha: float = 0.05) -> float:
    """Lower bound on the run's mu of Gaussian DP; says nothing about mechanisms that are not Gaussian."""
    return _largest_rejected(
        lambda mu: is_refuted(inverse_of_gaussian(mu), n_canaries, n_guesses, n_correct, alpha=alpha), 32.0
    )


# ---- many runs: Clopper and Pearson ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class MultiRun:
    """Counts of an attack with a threshold fixed beforehand, over independent runs with and without the canary."""

    n_with: int
    hits: int
    n_without: int
    false_alarms: int

    def lower_bound(self, *, delta: float = 0.0, alpha: float = 0.05) -> float:
        """Lower bound on the mechanism's epsilon, wrong with probability at most ``alpha``.

        ``max(ln((TPR - delta) / FPR), ln((1 - FPR - delta) / (1 - TPR)))`` at the Clopper-Pearson lower end of TPR and
        the upper end of FPR, each at alpha / 2. Source: Jagielski, Ullman and Oprea, NeurIPS 2020.
        """
        tpr = float(clopper_pearson(self.hits, n=self.n_with, alpha=alpha / 2.0)[0])
        fpr = float(clopper_pearson(self.false_alarms, n=self.n_without, alpha=alpha / 2.0)[1])
        ratios = ((tpr - delta, fpr), (1.0 - fpr - delta, 1.0 - tpr))
        return max([0.0, *(math.log(above / below) for above, below in ratios if above > 0.0 and below > 0.0)])

    def largest_provable(self, *, delta: float = 0.0, alpha: float = 0.05) -> float:
        """The bound of a perfect attack with the same number of runs."""
        return MultiRun(n_with=self.n_with, hits=self.n_with, n_without=self.n_without, false_alarms=0).lower_bound(
            delta=delta, alpha=alpha
        )


def _largest_rejected(is_rejected: Callable[[float], bool], most: float) -> float:
    if not is_rejected(0.0):
        return 0.0
    low, high = 0.0, most
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if is_rejected(middle) else (low, middle)
        if high - low < 1e-6:
            break
    return low


def _check_counts(n_canaries: int, n_guesses: int, n_correct: int, delta: float) -> None:
    if not 0 <= n_correct <= n_guesses <= n_canaries or n_guesses < 1:
        raise UsageError(
            f"{n_correct} correct of {n_guesses} guesses on {n_canaries} canaries cannot be: guess at least once, at "
            "most once a canary."
        )
    if not 0.0 <= delta < 1.0:
        raise UsageError(f"delta must be at least 0 and below 1, not {delta:g}.")
