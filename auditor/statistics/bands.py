"""Simultaneous confidence bands for whole curves of groups: valid at every point and for every group."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from auditor.core.rows import FloatArray, IntArray


@dataclass(frozen=True)
class JointShares:
    """Shares (g, t) of g groups at or above t thresholds, the largest difference of any two (t,), and their bands."""

    shares: FloatArray
    low: FloatArray
    high: FloatArray
    difference: FloatArray
    difference_low: FloatArray
    difference_high: FloatArray


def joint_shares(counts: IntArray, *, error: float) -> JointShares:
    """Shares of each group at or above each threshold, with simultaneous confidence bands.

    ``counts`` (g, t): rows of a group with a score at or above a threshold and below the next; no group is empty. The
    band about group i is ``sqrt(ln(2 g / error) / (2 n_i))``, Dvoretzky, Kiefer and Wolfowitz's with Massart's
    constant: whatever the scores' distributions, and however many thresholds, the chance that any group's true share
    lies outside its band at any threshold is at most ``error``. Where they hold, the largest difference lies between
    ``max(0, max low - min high)`` and ``max high - min low``, so that its band holds together with them.

    Source: Massart, Annals of Probability 18 (1990).
    """
    n = counts.sum(axis=1, keepdims=True)
    shares = counts[:, ::-1].cumsum(axis=1)[:, ::-1] / n
    width = np.sqrt(math.log(2.0 * len(counts) / error) / (2.0 * n))
    low, high = np.maximum(shares - width, 0.0), np.minimum(shares + width, 1.0)
    return JointShares(
        shares=shares,
        low=low,
        high=high,
        difference=shares.max(axis=0) - shares.min(axis=0),
        difference_low=np.maximum(low.max(axis=0) - high.min(axis=0), 0.0),
        difference_high=high.max(axis=0) - low.min(axis=0),
    )
