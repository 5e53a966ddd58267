"""Attacks by shadow or reference models: LiRA, RMIA and calibration by difficulty.

LiRA is the likelihood-ratio attack of Carlini, Chien, Nasr, Song, Terzis and Tramer (IEEE S&P 2022), RMIA the robust
membership inference attack of Zarifzadeh, Liu and Shokri (ICML 2024), for few reference models; calibration by
difficulty is from Watson, Guo, Cormode and Sablayrolles (ICLR 2022).

The statistic of a row in LiRA is phi = log(p_y / (1 - p_y)). Over the shadow models that learned it and over those that
did not, phi is taken to be normal. ``fixed``: one variance for all rows, the mean of the rows' own within-row variances
(the paper's choice for few shadow models), else each row's own. Arrays: phi (n,) of the audited model; shadow_phi,
inside (k, n). At least two shadow models in, and two out, for each row.
"""

from __future__ import annotations

import numpy as np

from auditor.core.rows import BoolArray, FloatArray

# A row on which all shadow models agree to the last digit must not divide by zero.
_SMALLEST_SHARE = 1e-6
_SMALLEST = 1e-18
GAMMA = 2.0  # of RMIA
# The paper's slope of P(x) among members over non-members, with which out-models alone stand in for both.
OFFLINE_A = 0.3


def lira_online_scores(phi: FloatArray, shadow_phi: FloatArray, inside: BoolArray, *, fixed: bool) -> FloatArray:
    """``log N(phi; mu_in, var_in) - log N(phi; mu_out, var_out)`` (n,): the paper's algorithm 1."""
    return _log_normal(phi, *_moments(shadow_phi, inside, fixed)) - _log_normal(
        phi, *_moments(shadow_phi, ~inside, fixed)
    )


def lira_offline_scores(phi: FloatArray, shadow_phi: FloatArray, inside: BoolArray, *, fixed: bool) -> FloatArray:
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


def rmia_scores(
    p: FloatArray, reference_p: FloatArray, inside: BoolArray, *, offline: bool, gamma: float = GAMMA
) -> FloatArray:
    """Share of population rows z with ``(p(x) / P(x)) / (p(z) / P(z)) >= gamma`` (n,), in [0, 1].

    p (n,): probability of the true label under the audited model; reference_p, inside (k, n): under the reference
    models, and which learned the row. ``P(x)``: the mean over the models in and those out, each half; ``offline``:
    ``((1 + a) P_out + 1 - a) / 2``, from the models out alone, and so for a row that no reference model learned. z:
    every row, whoever it belongs to, so that the score does not depend on who is called a member.
    """
    out = ~inside
    p_out = (reference_p * out).sum(axis=0) / out.sum(axis=0)
    prior = ((1.0 + OFFLINE_A) * p_out + 1.0 - OFFLINE_A) / 2.0
    n_inside = inside.sum(axis=0)
    if not offline:
        p_in = (reference_p * inside).sum(axis=0) / np.maximum(n_inside, 1)
        prior = np.where(n_inside > 0, (p_out + p_in) / 2.0, prior)
    ratio = p / np.maximum(prior, np.finfo(np.float64).tiny)
    dominated: FloatArray = np.searchsorted(np.sort(ratio), ratio / gamma, "right") / ratio.size
    return dominated


def difficulty_scores(loss: FloatArray, shadow_loss: FloatArray, inside: BoolArray) -> FloatArray:
    """``mean of the out-models' losses - loss`` (n,): the loss reduction against models not trained on the row.

    loss (n,) of the audited model; shadow_loss, inside (k, n): losses of the shadow models, and which learned the row.
    """
    out = ~inside
    difference: FloatArray = (shadow_loss * out).sum(axis=0) / out.sum(axis=0) - loss
    return difference
