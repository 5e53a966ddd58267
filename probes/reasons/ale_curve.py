"""An accumulated-local-effects curve: the effect of a number on the score among rows with similar values.

Partial dependence gives every row every value of a feature and asks the model about people who cannot be: of a feature
that goes along with others it averages answers from where there are no rows. Here each row is moved across its own bin
alone, and the differences are added up. Source: Apley and Zhu, "Visualizing the effects of predictor variables in black
box supervised learning models", Journal of the Royal Statistical Society B 82 (2020).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from auditor.core.rows import FloatArray, IntArray

# Values of one feature (n,) to the scores of the rows with these in its place (n,).
Score = Callable[[FloatArray], FloatArray]

N_BINS = 10
# A spread needs two; the band says how little is known of so few.
FEWEST_IN_BIN = 2
# The outermost values are single people's.
_ENDS = (0.01, 0.99)
_SIMULATED = 2_000
# Edges are rounded to a power of ten that is no more than this of what they span: a quantile is somebody's own value.
_ROUNDED_TO = 0.02


@dataclass(frozen=True, eq=False, kw_only=True)
class AleCurve:
    """The effect of one feature along its values, centred so that its mean over the rows is 0.

    edges (k+1,): values; values (k+1,): the effect at each; low, high (k+1,): a band that holds all of them at once
    with ``confidence``, given which rows lie in which bin; effects (n,): how far the score moves as each row crosses
    its own bin; counts (k,): rows in each bin.
    """

    edges: FloatArray
    values: FloatArray
    low: FloatArray
    high: FloatArray
    effects: FloatArray
    counts: IntArray
    confidence: float


def bin_edges(x: FloatArray, n_bins: int = N_BINS, fewest: int = FEWEST_IN_BIN) -> FloatArray:
    """(k+1,) edges of bins with about equally many of the values (n,), at least ``fewest`` each; empty below two.

    A column with few values has an edge at each of these. Of one with many the edges are quantiles between the first
    and the 99th percentile, rounded, so that no edge is the value of one row.
    """
    levels, counts = np.unique(x, return_counts=True)
    if len(levels) <= n_bins + 1 and (len(levels) <= 2 or counts.min() > 1):
        edges = levels
    else:
        edges = np.quantile(x, np.linspace(*_ENDS, n_bins + 1))
        span = float(edges[-1] - edges[0])
        if span > 0.0:
            step = 10.0 ** np.floor(np.log10(span * _ROUNDED_TO))
            edges = np.round(np.round(edges / step) * step, 12)
        edges = np.unique(edges)
    return _merge_bins(x, edges, fewest) if len(edges) > 1 else np.empty(0)


def _merge_bins(x: FloatArray, edges: FloatArray, fewest: int) -> FloatArray:
    """The edges less those that leave a bin with too few rows; the two ends stay."""
    kept = list(edges)
    while len(kept) > 2:
        counts = np.bincount(bins_of(x, np.asarray(kept)), minlength=len(kept) - 1)
        thin = int(counts.argmin())
        if counts[thin] >= fewest:
            break
        # Into the smaller of its neighbours.
        left = counts[thin - 1] if thin else np.inf
        right = counts[thin + 1] if thin + 1 < len(counts) else np.inf
        del kept[thin if left <= right else thin + 1]
    return np.asarray(kept, np.float64)


def bins_of(x: FloatArray, edges: FloatArray) -> IntArray:
    """(n,) the bin ``(edges[k], edges[k+1]]`` of each value; values outside are in the nearest bin."""
    return np.clip(np.searchsorted(edges, x, side="left") - 1, 0, len(edges) - 2).astype(np.int64)


def ale_curve(
    x: FloatArray, score: Score, edges: FloatArray, rng: np.random.Generator, *, confidence: float = 0.95
) -> AleCurve:
    """The curve of a feature with values x (n,) over given edges (k+1,), and its simultaneous band.

    The effect of bin k is the mean over its n_k rows of ``f(edges[k+1]) - f(edges[k])``, and the curve their sum, less
    its mean over the rows, of each bin the mean of its two ends. That is linear in the bins' means, which are of
    different rows, so its errors are ``L e``, e_k being s_k / sqrt(n_k) times Student's t of n_k - 1 degrees of
    freedom; the band is the quantile of the largest error over all edges, in standard errors, simulated.
    """
    k = len(edges) - 1
    bins = bins_of(x, edges)
    effects = score(edges[bins + 1]) - score(edges[bins])
    counts = np.bincount(bins, minlength=k)
    means = np.bincount(bins, effects, minlength=k) / np.maximum(counts, 1)
    spread = np.bincount(bins, (effects - means[bins]) ** 2, minlength=k)
    degrees = np.maximum(counts - 1, 1)
    errors = np.where(counts > 1, np.sqrt(spread / degrees / np.maximum(counts, 1)), np.inf)
    sums = np.tri(k + 1, k, -1)
    weights = counts / max(counts.sum(), 1)
    linear = sums - weights @ ((sums[1:] + sums[:-1]) / 2.0)
    values = linear @ means
    reach = _reach(linear, errors, degrees, rng, confidence)
    return AleCurve(
        edges=edges,
        values=values,
        low=values - reach,
        high=values + reach,
        effects=effects,
        counts=counts.astype(np.int64),
        confidence=confidence,
    )


def _reach(
    linear: FloatArray, errors: FloatArray, degrees: IntArray, rng: np.random.Generator, confidence: float
) -> FloatArray:
    """(k+1,) how far the band reaches to either side; infinite where a bin has too few rows to know its spread."""
    if not np.isfinite(errors).all():
        return np.full(len(linear), np.inf)
    draws = rng.standard_t(degrees, size=(_SIMULATED, len(errors))) * errors
    deviations = draws @ linear.T
    standard = np.sqrt((linear**2) @ (errors**2))
    # Without any spread rounding is all there is.
    moving = standard > 1e-12 * max(1.0, float(standard.max(initial=0.0)))
    if not moving.any():
        return np.zeros(len(linear))
    largest = np.abs(deviations[:, moving] / standard[moving]).max(axis=1)
    return np.asarray(np.where(moving, np.quantile(largest, confidence) * standard, 0.0), np.float64)
