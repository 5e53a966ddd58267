"""The required number of continuations: fixed after a first stage, from variances alone, before the second."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np

from auditor.core.rows import FloatArray

# Standard errors on either side of a gap that its interval takes, at the levels that are judged by.
_ERRORS_A_SIDE = 2.5


def variances(scores: FloatArray) -> tuple[float, float]:
    """(2 s^2, B) of scores (n_templates, k, n_samples), n_samples at least 2.

    s^2 is the variance of scores within a prompt and B that of two identities' difference between beginnings, mean over
    pairs; the difference of two means of n continuations each over m beginnings then varies by ``(B + 2 s^2 / n) / m``.
    """
    _, k, n = scores.shape
    first, second = np.asarray(list(combinations(range(k), 2))).T
    means = scores.mean(axis=2)
    total = float((means[:, first] - means[:, second]).var(axis=0, ddof=1).mean())
    within = 2.0 * float(scores.var(axis=2, ddof=1).mean())
    return within, max(total - within / n, 0.0)


def continuations_needed(scores: FloatArray, half_width: float, most: int) -> int:
    """Continuations of each prompt, at most ``most``, by which an interval reaches about ``half_width`` to either side.

    Where beginnings alone scatter more than that, as many as leave the continuations' part at a quarter of theirs.
    The scores' means have no say in it, nor what was found so far: whoever stops where a difference shows, or where
    none does, is wrong more often than is said (Stein, Ann. Math. Stat. 16, 1945).
    """
    m, _, drawn = scores.shape
    within, between = variances(scores)
    allowed = m * (half_width / _ERRORS_A_SIDE) ** 2
    left = max(allowed - between, between / 4.0)
    needed = math.ceil(within / left) if left > 0.0 else drawn
    return int(max(min(needed, most), drawn))
