"""Fits the novelty rule of a detector: the distance of a file from every training kind, in that kind's spread."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch

from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.models.networks.detector_networks import KindNovelty, RangeNovelty, most_kinds

Kinds: TypeAlias = Sequence[str | None]
# An orthonormal basis (k, d) of where files vary, the factors (k,) along it, and the factor of all other directions.
_Spread: TypeAlias = tuple[FloatArray, FloatArray, float]

FOLDS = 5
# The share of files of known kinds that are not called unlike them. By two recordings of silence among 222 the ranges
# become so wide that noise passes at 0.95, and at 0.9 none does.
NOVELTY_LEVEL = 0.9
# A spread of its own takes some files; those of smaller kinds are one group of their class.
FEWEST_OF_A_KIND = 10


def fit_novelty(features: FloatArray, is_fake: BoolArray, kinds: Kinds, within: float = NOVELTY_LEVEL) -> KindNovelty:
    """A rule fitted to (n, d) features of training files; distance 1 is the ``within`` quantile of each kind.

    That quantile is over files of the kind left out in ``FOLDS`` rounds, since a file that shaped the mean and the
    covariance lies nearer to them than others do. Kinds with fewer than ``FEWEST_OF_A_KIND`` files, or none named, and
    those beyond the largest of :func:`~auditor.models.networks.detector_networks.most_kinds` are one group of their
    class. The ranges of the features are those of :func:`fit_range`.
    """
    groups = kind_groups(is_fake, kinds, most_kinds(features.shape[1]))
    rule = KindNovelty(features.shape[1], int(groups.max()) + 1)
    for g in range(len(rule.means)):
        own = features[groups == g]
        mean, scale = mean_and_scale(own)
        standard = (own - mean) / scale
        left_out = np.empty(len(own))
        n_folds = min(FOLDS, len(own))
        for fold in range(n_folds):
            out = np.arange(len(own)) % n_folds == fold
            rest = own[~out] if n_folds > 1 else own
            middle, unit = mean_and_scale(rest)
            left_out[out] = _distances((own[out] - middle) / unit, _spread((rest - middle) / unit))
        basis, along, across = _spread(standard)
        whitening = basis.T @ ((along - across)[:, None] * basis) + across * np.eye(len(mean))
        rule.means[g] = torch.from_numpy(mean)
        rule.whitenings[g] = torch.from_numpy(whitening / scale[:, None])
        rule.limits[g] = max(float(np.quantile(left_out, within, method="higher")), 1e-6)
    rule.range = fit_range(features, groups, within)
    return rule.eval()


def kind_groups(is_fake: BoolArray, kinds: Kinds, most: int) -> IntArray:
    """(n,) the group of each file, 0 to at most most - 1: its kind, or the rest of its class."""
    named = Counter((bool(f), k) for f, k in zip(is_fake, kinds, strict=True) if k is not None)
    own = {kind for kind, n in named.most_common(most - 2) if n >= FEWEST_OF_A_KIND}
    names = [f"{int(f)}/{k}" if (bool(f), k) in own else f"{int(f)}" for f, k in zip(is_fake, kinds, strict=True)]
    return np.asarray(np.unique(names, return_inverse=True)[1], np.int64)


def mean_and_scale(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The mean and the standard deviation of each column, (d,) each, the latter 1 where it does not vary."""
    mean, scale = values.mean(axis=0), values.std(axis=0)
    # A feature that never varied in training says nothing, however far off a later file is by rounding.
    return mean, np.where(scale > 1e-6 * np.maximum(np.abs(mean), 1e-6), scale, 1.0)


def _spread(standard: FloatArray) -> _Spread:
    """What whitens one kind's centred files, (n, d), by their covariance shrunk by Ledoit and Wolf.

    By the singular values of the files: they are fewer than their features, and the covariance is never made.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    n, d = standard.shape
    # Of one file nothing is known but itself.
    shrinkage = float(ledoit_wolf_shrinkage(standard, assume_centered=True)) if n > 1 else 1.0
    rest = shrinkage * float(np.square(standard).sum()) / (n * d)
    _, singular, basis = np.linalg.svd(standard, full_matrices=False)
    variances = (1.0 - shrinkage) * np.square(singular) / n + rest
    # A kind whose files are all alike has no spread to measure by: its features' own units stand in.
    along = 1.0 / np.sqrt(np.where(variances > 1e-9, variances, 1.0))
    return basis, along, 1.0 / math.sqrt(rest) if rest > 1e-9 else 1.0


def _distances(standard: FloatArray, spread: _Spread) -> FloatArray:
    """(n,) lengths of whitened rows, (n, d)."""
    basis, along, across = spread
    squares = np.square(standard @ basis.T) @ (along**2 - across**2) + across**2 * np.square(standard).sum(axis=1)
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)), np.float64)


def fit_range(features: FloatArray, groups: IntArray, within: float) -> RangeNovelty:
    """The ranges of (n, d) features of training files, with groups 0, 1, ...

    Of each group the range that holds ``within`` of its files, so that a few odd ones, such as recordings of silence,
    widen nothing; of these the widest. The limit is the ``(1 + within) / 2`` quantile over files left out in ``FOLDS``
    rounds.
    """
    place = np.empty(len(groups), np.int64)
    for g in range(int(groups.max()) + 1):
        place[groups == g] = np.arange(int((groups == g).sum())) + g
    left_out = np.empty(len(features))
    for fold in range(FOLDS):
        out = place % FOLDS == fold
        if out.any():
            low, high = _ranges(features[~out], groups[~out], within) if not out.all() else _ranges(features, groups, 1)
            found = np.maximum(low - features[out], features[out] - high)
            left_out[out] = np.sqrt(np.square(np.maximum(found, 0.0) / (high - low)).mean(axis=1))
    rule = RangeNovelty(features.shape[1])
    low, high = _ranges(features, groups, within)
    rule.low.copy_(torch.from_numpy(low))
    rule.high.copy_(torch.from_numpy(high))
    # One feature that is out by a tenth of its range is nothing yet.
    least = 0.1 / math.sqrt(features.shape[1])
    rule.limit.fill_(max(float(np.quantile(left_out, (1.0 + within) / 2.0, method="higher")), least))
    return rule.eval()


def _ranges(features: FloatArray, groups: IntArray, within: float) -> tuple[FloatArray, FloatArray]:
    beyond = (1.0 - within) / 2.0
    parts = [features[groups == g] for g in np.unique(groups)]
    low = np.min([np.quantile(part, beyond, axis=0) for part in parts], axis=0)
    high = np.max([np.quantile(part, 1.0 - beyond, axis=0) for part in parts], axis=0)
    middle, width = (low + high) / 2.0, high - low
    # A feature that never varied is measured in its own units.
    half = np.where(width > 1e-6 * np.maximum(np.abs(middle), 1e-6), width, 1.0) / 2.0
    return middle - half, middle + half
