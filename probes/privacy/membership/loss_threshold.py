"""The loss-threshold attack of Yeom, Giacomelli, Fredrikson and Jha (CSF 2018): members have smaller loss."""

from __future__ import annotations

import numpy as np

from auditor.core.rows import FloatArray, IntArray


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
