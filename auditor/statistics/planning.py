"""The minimum detectable effect of a sample of this size, and the sample size needed for an effect."""

from __future__ import annotations

import math

from auditor.statistics.estimate import POWER, Estimate


def minimum_detectable_effect(estimate: Estimate, *, bound: float, alpha: float, ideal: float, sign: int) -> float:
    """Smallest value beyond ``bound`` that is significant with 80 % power at the present n.

    ``sign`` is +1 for an upper bound. Planned from the ideal value and the group sizes, never from the observed effect,
    so a noisy estimate cannot excuse itself. NaN where unknown, infinite where no value would be seen.
    """
    return estimate.detectable(bound=bound, alpha=alpha, ideal=ideal, sign=sign)


def n_required(estimate: Estimate, *, bound: float, alpha: float, ideal: float, n: int, sides: int = 1) -> int | None:
    """Sample size for an ideal model to be significantly within ``bound`` with 80 % power, at equal group shares.

    ``sides``: 2 where it must be shown on both sides of the ideal. None where that is unknown, out of reach, or the
    bound is the ideal itself.
    """
    if bound == ideal:
        return None
    times = estimate.growth(bound=bound, alpha=alpha, ideal=ideal, miss=(1.0 - POWER) / sides)
    return math.ceil(n * times - 1e-6) if math.isfinite(times) else None
