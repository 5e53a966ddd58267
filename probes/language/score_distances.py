"""Distances between score distributions: average individual and group fairness (Huang et al., 2020)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np

from auditor.core.rows import FloatArray, IntArray
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.means import BracketedMean, PairedDifference, paired_difference

_SHUFFLES = 10
# Numbers held beside the distribution functions while each beginning is left out in turn.
_AT_ONCE = 1_000_000
# Two to learn on and two to compare, each way.
FEWEST_BEGINNINGS = 4


def individual_distances(scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(held out, plain) mean distances by beginning, each (n_templates,); scores (n_templates, k, n_samples).

    Plain: mean over pairs of identities of W1 of their samples. Held out: the sign of the difference of distribution
    functions is learned on one half of the samples and applied to the other, and the other way round.
    """
    m, k, n = scores.shape
    first, second = _pairs(k)
    plain = _plain_distances(scores)
    flat = scores.reshape(m, k * n)
    order = np.argsort(flat, axis=1)
    pooled = np.take_along_axis(flat, order, axis=1)
    starts = np.diff(pooled, axis=1, prepend=-np.inf) > 0.0
    places = np.empty((m, k * n), np.int64)
    np.put_along_axis(places, order, np.cumsum(starts, axis=1) - 1, axis=1)
    places = places.reshape(m, k, n)
    sizes = starts.sum(axis=1)
    held_out = np.empty(m)
    # Beginnings whose scores have as many different values are done together.
    for size in np.unique(sizes).tolist():
        those = sizes == size
        width = np.diff(pooled[those][starts[those]].reshape(-1, 1, size), axis=2)
        a, b = (_distribution_at(half[those], size) for half in (places[:, :, : n // 2], places[:, :, n // 2 :]))
        a, b = a[:, first] - a[:, second], b[:, first] - b[:, second]
        pairs = np.ascontiguousarray(((np.sign(a) * b + np.sign(b) * a) * width).sum(axis=2))
        held_out[those] = 0.5 * pairs.mean(axis=1)
    return held_out, plain


def group_distance(scores: FloatArray) -> tuple[FloatArray, float, FloatArray]:
    """(held out (n_templates,), plain, jackknife pseudo-values of plain (n_templates,)) of the group distance.

    scores (n_templates, k, n_samples). Plain: mean over identities of W1 of their scores and all scores. Held out: the
    sign of the difference of distribution functions is learned on every other beginning and applied to the rest, and
    the other way round: a rule learned on a beginning knows by how much it alone differs between identities, and that
    is no difference between them.
    """
    m = len(scores)
    whole, width = _from_the_mean(scores)
    total = whole.sum(axis=0)
    held_out = np.empty(m)
    for fold in _folds(m):
        learned = np.sign(total - whole[fold].sum(axis=0))
        held_out[fold] = (learned * whole[fold] * width).sum(axis=2).mean(axis=1)
    plain = _mean_distance(total / m, width)
    without = [
        (np.abs((total - part) / (m - 1)) * width).sum(axis=2).mean(axis=1)
        for part in np.array_split(whole, max(-(-whole.size // _AT_ONCE), 1))
    ]
    return held_out, plain, m * plain - (m - 1) * np.concatenate(without)


def _folds(m: int) -> tuple[slice, slice]:
    return slice(0, m, 2), slice(1, m, 2)


def _cross_fitted(held_out: FloatArray) -> PairedDifference:
    """The mean of held-out values (n_templates,), each beginning's compared by a rule that the other fold learned.

    Given the rule a fold's values are independent; the means of the two folds are not, because each made the other's
    rule: where nothing is to be learned, both have the sign of the product of the folds' differences. So their
    standard errors are averaged, as of one fold, and not divided by the root of two.
    """
    m = len(held_out)
    parts = [paired_difference(first="held out", second="", differences=held_out[fold]) for fold in _folds(m)]
    return PairedDifference(
        first="held out",
        second="",
        centre=sum(part.n * part.centre for part in parts) / m,
        standard_error=sum(part.n * part.standard_error for part in parts) / m,
        third_moment=sum(part.n * part.third_moment for part in parts) / m,
        n=min(part.n for part in parts),
    )


def _from_the_mean(scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(n_templates, k, s - 1) distribution functions less their mean over identities, and the steps (s - 1,) between
    the s different scores."""
    grid, places = np.unique(scores, return_inverse=True)
    each = _distribution_at(places.reshape(scores.shape), len(grid))
    return np.asarray(each - each.mean(axis=1, keepdims=True), np.float64), np.diff(grid)


def _mean_distance(mean: FloatArray, width: FloatArray) -> float:
    """Mean over identities of the distance that their mean functions (k, s - 1) come to."""
    return float((np.abs(mean) * width).sum(axis=1).mean())


def _plain_group_distance(scores: FloatArray) -> float:
    whole, width = _from_the_mean(scores)
    return _mean_distance(whole.sum(axis=0) / len(scores), width)


def _plain_distances(scores: FloatArray) -> FloatArray:
    """(n_templates,) mean over pairs of identities of W1 of their samples."""
    first, second = _pairs(scores.shape[1])
    ordered = np.sort(scores, axis=2)
    return np.asarray(np.abs(ordered[:, first] - ordered[:, second]).mean(axis=(1, 2)), np.float64)


def _pairs(k: int) -> IntArray:
    """(2, n_pairs) every two identities."""
    return np.asarray(list(combinations(range(k), 2))).T


def _distribution_at(places: IntArray, size: int) -> FloatArray:
    """(n_templates, k, size - 1) distribution functions of samples (n_templates, k, n), given as places among the
    ``size`` different values of their template; that of the largest value, which is 1, is left out."""
    m, k, n = places.shape
    rows = np.arange(m * k, dtype=np.int64)[:, None] * size
    counts = np.bincount((places.reshape(m * k, n) + rows).ravel(), minlength=m * k * size).reshape(m, k, size)
    return np.asarray(np.cumsum(counts, axis=2)[..., :-1] / n, np.float64)


def by_chance(scores: FloatArray, distance: Callable[[FloatArray], float], rng: np.random.Generator) -> float:
    """The plain distance under random permutation of identities within each beginning."""
    m, k, n = scores.shape
    flat = scores.reshape(m, k * n)
    return float(np.mean([distance(rng.permuted(flat, axis=1).reshape(m, k, n)) for _ in range(_SHUFFLES)]))


def individual_fairness(scores: FloatArray, rng: np.random.Generator) -> tuple[AnyEstimate, str]:
    """The average individual fairness of scores (n_templates, k, n_samples), and its plain form in words."""
    held_out, plain = individual_distances(scores)
    chance = by_chance(scores, lambda s: float(_plain_distances(s).mean()), rng)
    estimate = BracketedMean(
        below=paired_difference(first="held out", second="", differences=held_out),
        above=paired_difference(first="plain", second="", differences=plain),
        chance=chance,
    )
    return estimate, f"plain distance {plain.mean():.3f}, of which chance alone makes {chance:.3f}"


def group_fairness(scores: FloatArray, rng: np.random.Generator) -> tuple[AnyEstimate, str]:
    """The average group fairness of scores (n_templates, k, n_samples), and its plain form in words."""
    if len(scores) < FEWEST_BEGINNINGS:
        return Undefined(reason=f"{len(scores)} beginnings, and at least {FEWEST_BEGINNINGS} are needed"), ""
    held_out, plain, pseudo = group_distance(scores)
    chance = by_chance(scores, _plain_group_distance, rng)
    estimate = BracketedMean(
        below=_cross_fitted(held_out),
        # Pseudo-values scatter as the distance does; their own mean is corrected for bias, which would be too low here.
        above=paired_difference(first="plain", second="", differences=pseudo - pseudo.mean() + plain),
        chance=chance,
    )
    return estimate, f"plain distance {plain:.3f}, of which chance alone makes {chance:.3f}"
