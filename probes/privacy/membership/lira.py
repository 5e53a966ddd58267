"""The likelihood-ratio attack (LiRA) of Carlini, Chien, Nasr, Song, Terzis and Tramer (IEEE S&P 2022).

The statistic of a row is phi = log(p_y / (1 - p_y)). Over the shadow models that learned it and over those that did
not, phi is taken to be normal. ``fixed``: one variance for all rows, the mean of the rows' own within-row variances
(the paper's choice for few shadow models), else each row's own. Arrays: phi (n,) of the audited model; shadow_phi,
inside (k, n). At least two shadow models in, and two out, for each row.
"""

from __future__ import annotations

import numpy as np

from auditor.core.rows import BoolArray, FloatArray

# A row on which all shadow models agree to the last digit must not divide by zero.
_SMALLEST_SHARE = 1e-6
_SMALLEST = 1e-18


def online_scores(phi: FloatArray, shadow_phi: FloatArray, inside: BoolArray, *, fixed: bool) -> FloatArray:
    """``log N(phi; mu_in, var_in) - log N(phi; mu_out, var_out)`` (n,): the paper's algorithm 1."""
    return _log_normal(phi, *_moments(shadow_phi, inside, fixed)) - _log_normal(
        phi, *_moments(shadow_phi, ~inside, fixed)
    )


def offline_scores(phi: FloatArray, shadow_phi: FloatArray, inside: BoolArray, *, fixed: bool) -> FloatArray:
    """``(phi - mu_out) / sd_out`` (n,): the paper's ``1 - P(N(mu_out, var_out) > phi)`` before it saturates at 1."""
    mean, variance = _moments(shadow_phi, ~inside, fixed)
    score: FloatArray = (phi - mean) / np.sqrt(variance)
    return score


def _moments(shadow_phi: FloatArray, mask: BoolArray, fixed: bool) -> tuple[FloatArray, FloatArray]:
    """Mean and variance (n,) of each row over the models chosen for it."""
    n = mask.sum(axis=0)
    mean = (shadow_phi * mask).sum(axis=0) / n
    own = (((shadow_phi - mean) ** 2) * mask).sum(axis=0) / n
    pooled = float(own.mean())
    if fixed:
        own = np.full_like(own, pooled)
    return mean, np.maximum(own, max(_SMALLEST_SHARE * pooled, _SMALLEST))


def _log_normal(x: FloatArray, mean: FloatArray, variance: FloatArray) -> FloatArray:
    density: FloatArray = -0.5 * (np.log(2.0 * np.pi * variance) + (x - mean) ** 2 / variance)
    return density
