"""Reweighing with privately released counts: a row's weight leaks only what the privacy budget covers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from auditor.core.rows import FloatArray, IntArray


@dataclass(frozen=True, eq=False, kw_only=True)
class PrivateWeights:
    """``weights`` (n,) of the rows, and ``epsilon``, spent on the released counts behind them (delta is 0)."""

    weights: FloatArray
    epsilon: float


def private_weights(
    y: IntArray, s: IntArray, epsilon: float, rng: np.random.Generator, *, n_classes: int
) -> PrivateWeights:
    """``N(s) N(y) / (N N(s, y))`` of labels y (n,) and sensitive features s (n, k), from noisy counts N(s, y).

    One row more or less changes one count by one, so noise with ``P(k)`` in proportion to ``exp(-epsilon |k|)`` on each
    count is ``epsilon``-differentially private; counts below 1 are taken as 1, and N, N(s) and N(y) are sums of the
    noisy counts. Which combinations of groups there are is taken as known. ``rng`` must be secret.

    Sources: Kamiran and Calders, Knowledge and Information Systems 33 (2012); Dwork, McSherry, Nissim and Smith, TCC
    2006; Ghosh, Roughgarden and Sundararajan, SIAM J. Computing 41 (2012).
    """
    _, group = np.unique(s, axis=0, return_inverse=True)
    counts = np.zeros((int(group.max()) + 1, n_classes), np.int64)
    np.add.at(counts, (group, y), 1)
    noisy = np.maximum(noisy_counts(counts, epsilon, rng), 1).astype(np.float64)
    expected = noisy.sum(axis=1, keepdims=True) * noisy.sum(axis=0, keepdims=True) / noisy.sum()
    weights: FloatArray = (expected / noisy)[group, y]
    return PrivateWeights(weights=weights, epsilon=epsilon)


def noisy_counts(counts: IntArray, epsilon: float, rng: np.random.Generator) -> IntArray:
    """The counts with noise on each: ``P(k) = (1 - q) / (1 + q) q^|k|``, with ``q = exp(-epsilon)``.

    Whole numbers, since the low bits of a real number can tell what its noise should hide (Mironov, CCS 2012).
    """
    share = -np.expm1(-epsilon)
    noise: IntArray = rng.geometric(share, counts.shape) - rng.geometric(share, counts.shape)
    return counts + noise
