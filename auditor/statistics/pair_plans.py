"""What can be planned of pairs of equal rates: rows to count on, and how probable it is that some pair falls short."""

from __future__ import annotations

import math

import numpy as np
import scipy

from auditor.rows import FloatArray
from auditor.statistics.combined_tails import Contrast, Pairs
from auditor.statistics.rates import RateTable

# Rows over the variance of one that planning leaves out, for every e-fold of pairs; simulated plans are honest with it.
_LOST = 0.15


def counted_on(table: RateTable, times: float) -> FloatArray:
    """Rows of every group, of ``times`` as many, that can be counted on: rates near 0 or 1 are known from few of them,
    and by steps of a whole row, which the worst of many pairs feels."""
    p = table.pooled()
    lost = _LOST * math.log(max(table.n_pairs, 1)) / (p * (1.0 - p))
    return np.maximum(times * np.asarray(table.n, np.float64) - lost, 1e-3)


def pairs_of_sizes(p: float, n: FloatArray, contrast: Contrast) -> tuple[Pairs, FloatArray]:
    """Pairs of groups of equal rates, (n_pairs,), one for those of the same sizes, and how often there are such."""
    sizes, counts = np.unique(n, return_counts=True)
    i, j = (place.ravel() for place in np.indices((sizes.size, sizes.size)))
    often = (counts[i] * (counts[j] - (i == j))).astype(np.float64)
    i, j, often = i[often > 0], j[often > 0], often[often > 0]
    first, second = sizes[i], sizes[j]
    return Pairs(contrast=contrast, k_1=p * first, n_1=first, k_2=p * second, n_2=second), often


def probability_missed(z: FloatArray, pairs: Pairs, p: float, often: FloatArray) -> float:
    """At most how probable it is that any of the pairs falls ``z`` standard errors short, (n_pairs,).

    Rates of few rows have heavier tails than a normal's, which tells far out, where there are many pairs: by their
    fourth cumulant to first order.
    """
    spread = p * (1.0 - p)
    kurtosis = (1.0 - 6.0 * spread) / spread * (1.0 / pairs.n_1**3 + 1.0 / pairs.n_2**3)
    kurtosis /= (1.0 / pairs.n_1 + 1.0 / pairs.n_2) ** 2
    heavier = np.exp(np.clip(kurtosis * z**4 / 24.0, 0.0, 3.0))
    return float((often * heavier * scipy.special.ndtr(-z)).sum())
