"""Attacks on membership: by the loss, by quantiles given the row, by shadow or reference models.

The loss threshold is of Yeom, Giacomelli, Fredrikson and Jha (CSF 2018): members have smaller loss. Quantile regression
is of Bertran, Tang, Kearns, Morgenstern, Roth and Wu (NeurIPS 2023). By shadow models: LiRA, RMIA and calibration by
difficulty.

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

from auditor.core.rows import BoolArray, FloatArray, IntArray, Rows


def cross_entropy(probabilities: FloatArray, labels: IntArray) -> FloatArray:
    """Loss (n,) of each row's true label, ``-log(p_y / sum p)``, from probabilities (n, n_classes); 0 to about 745.

    Near p_y = 1 it is taken from the other classes' probabilities, ``log(1 + others / p_y)``, which still tell rows
    apart where p_y itself has been rounded to 1. Equal probabilities of the true label have equal losses elsewhere.
    """
    own, others = _own_and_others(probabilities, labels)
    smallest = np.finfo(np.float64).smallest_subnormal
    near_one = np.log1p(others / np.maximum(own, 0.5))
    loss: FloatArray = np.where(own > 0.999, near_one, -np.log(np.maximum(own, smallest)))
    return loss


def log_odds(probabilities: FloatArray, labels: IntArray) -> FloatArray:
    """``log(p_y / (1 - p_y))`` (n,), 1 - p_y being the sum of the others; from -745 to 745."""
    own, others = _own_and_others(probabilities, labels)
    smallest = np.finfo(np.float64).smallest_subnormal
    odds: FloatArray = np.log(np.maximum(own, smallest)) - np.log(np.maximum(others, smallest))
    return odds


def _own_and_others(probabilities: FloatArray, labels: IntArray) -> tuple[FloatArray, FloatArray]:
    rows = np.arange(labels.size)
    others = probabilities.copy()
    others[rows, labels] = 0.0
    return probabilities[rows, labels], others.sum(axis=1)


def global_scores(loss: FloatArray) -> FloatArray:
    """``-loss`` (n,): one threshold for all rows."""
    return -loss


def per_class_scores(loss: FloatArray, labels: IntArray) -> FloatArray:
    """Share (n,) of the rows of its class, members or not, with a larger loss, ties half; in [0, 1].

    One threshold on it is a threshold of its own on the loss of each class, at the same share of the class's rows. The
    ranks are taken without regard to membership, so they say nothing of it where rows are exchangeable.
    """
    scores = np.empty(loss.size)
    for label in np.unique(labels):
        own = labels == label
        ordered = np.sort(loss[own])
        larger = ordered.size - np.searchsorted(ordered, loss[own], "right")
        smaller = np.searchsorted(ordered, loss[own], "left")
        scores[own] = (1.0 + (larger - smaller) / ordered.size) / 2.0
    return scores


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


FEWEST_ROWS = 40
_LEVELS = (0.5, 0.9)
_SMALLEST_WIDTH = 0.05


def quantile_scores(X: Rows, labels: IntArray, phi: FloatArray, public: BoolArray) -> FloatArray:
    """``(phi - q50(x, y)) / (q90(x, y) - q50(x, y))`` (n,): a row's confidence above its usual range.

    X: (n, d) a table; labels (n,); phi (n,) = log(p_y / (1 - p_y)) under the audited model; ``public`` (n,): the
    non-members that the quantiles are learned from, which may not be attacked afterwards. The quantiles at 0.5 and 0.9
    are gradient-boosted trees under the pinball loss, at least 40 public rows; a width is at least 5 % of the
    interquartile range of all public phi. The paper fits one quantile for each false positive rate, or a location and
    a scale: this is the latter.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    columns = np.column_stack([as_numbers(X), labels.astype(np.float64)])
    middle, upper = (
        HistGradientBoostingRegressor(
            loss="quantile", quantile=level, max_iter=60, learning_rate=0.1, min_samples_leaf=20, max_leaf_nodes=15,
            early_stopping=False, random_state=0,
        )
        .fit(columns[public], phi[public])
        .predict(columns)
        for level in _LEVELS
    )  # fmt: skip
    low, high = np.quantile(phi[public], [0.25, 0.75])
    width = np.maximum(upper - middle, max(_SMALLEST_WIDTH * float(high - low), 1e-9))
    score: FloatArray = (phi - middle) / width
    return score


def as_numbers(X: Rows) -> FloatArray:
    """(n, d) numbers unchanged, NaN if missing, and all other values by the order of their levels."""
    import pandas as pd

    frame = X if isinstance(X, pd.DataFrame) else pd.DataFrame(X)
    found = [
        values.to_numpy(np.float64, na_value=np.nan)
        if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values)
        else pd.factorize(values.astype("string"), sort=True)[0].astype(np.float64)
        for _, values in frame.items()
    ]
    return np.column_stack(found) if found else np.empty((len(frame), 0))
