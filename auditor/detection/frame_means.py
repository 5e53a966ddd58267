"""The combined score of a video's frames."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from auditor.core.rows import FloatArray

BLOCKS = 8
_CONFIDENCE = 0.95


def combined(p_values: Sequence[float]) -> float:
    """``min(1, 2 mean(p_i))``: a p-value for any dependence between frames (Vovk and Wang, Biometrika 2020)."""
    return min(1.0, 2.0 * float(np.mean(p_values)))


def mean_interval(scores: FloatArray) -> tuple[float | None, float | None]:
    """The 95 % interval of the mean of (n,) scores in the order of time, by batch means; None with fewer than 4."""
    from scipy.stats import t

    n_blocks = min(BLOCKS, len(scores) // 2)
    if n_blocks < 2:
        return None, None
    means = np.asarray([block.mean() for block in np.array_split(scores, n_blocks)])
    reach = float(t.ppf(0.5 + _CONFIDENCE / 2.0, n_blocks - 1) * means.std(ddof=1) / math.sqrt(n_blocks))
    centre = float(scores.mean())
    return max(0.0, centre - reach), min(1.0, centre + reach)
