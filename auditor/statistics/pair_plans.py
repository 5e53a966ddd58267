"""Planning for pairs of equal rates: row counts to expect, and the probability that some pair falls short."""

from __future__ import annotations

import math

import numpy as np
import scipy

from auditor.core.rows import FloatArray
from auditor.statistics.combined_tails import Contrast, Pairs
from auditor.statistics.rates import RateTable

# Rows over the variance of one that planning leaves out, for every e-fold of pairs; simulated plans are honest with it.
_LOST = 0.15


def counted_on(table: RateTable, times: float) -> FloatArray:
    """The guaranteed number of rows of every group at ``times`` the present size: rates near 0 or 1 are known from few
    of them, and in steps of whole rows, which affects the worst of many pairs."""
    p = table.pooled()
    lost = _LOST * math.log(max(table.n_pairs, 1)) / (p * (1.0 - p))
    return np.maximum(times * np.asarray(table.n, np.float64) - lost, 1e-3)


def pairs_of_sizes(p: float, n: FloatArray, contrast: Contrast) -> tuple[Pairs, FloatArray]:
    """Pairs of groups with equal rates, (n_pairs,), one per pair of sizes, and the number of such pairs."""
    sizes, counts = np.unique(n, return_counts=True)
    i, j = (place.ravel() for place in np.indices((sizes.size, sizes.size)))
    often = (counts[i] * (counts[j] - (i == j))).astype(np.float64)
    i, j, often = i[often > 0], j[often > 0], often[often > 0]
    first, second = sizes[i], sizes[j]
    return Pairs(contrast=contrast, k_1=p * first, n_1=first, k_2=p * second, n_2=second), often


def probability_missed(z: FloatArray, pairs: Pairs, p: float, often: FloatArray) -> float:
    """Upper bound on the probability that any pair is ``z`` standard errors short, (n_pairs,).

    Rates of few rows have heavier tails than a normal's, which tells far out, where there are many pairs: by their
    fourth cumulant to first order.
    """
    spread = p * (1.0 - p)
    kurtosis = (1.0 - 6.0 * spread) / spread * (1.0 / pairs.n_1**3 + 1.0 / pairs.n_2**3)
    kurtosis /= (1.0 / pairs.n_1 + 1.0 / pairs.n_2) ** 2
    heavier = np.exp(np.clip(kurtosis * z**4 / 24.0, 0.0, 3.0))
    return float((often * heavier * scipy.special.ndtr(-z)).sum())
