"""The robust membership inference attack (RMIA) of Zarifzadeh, Liu and Shokri (ICML 2024), for few reference models."""

from __future__ import annotations

import numpy as np

from auditor.core.rows import BoolArray, FloatArray

GAMMA = 2.0
# The paper's slope of P(x) among members over non-members, with which out-models alone stand in for both.
OFFLINE_A = 0.3


def scores(
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
