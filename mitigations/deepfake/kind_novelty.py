"""Fits the rule that says which files are of no kind a detector was trained on, each kind by its own spread."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch

from auditor.networks.kind_novelty import MOST_KINDS, KindNovelty
from auditor.rows import FloatArray, IntArray
from mitigations.deepfake.fitting import FOLDS, BoolArray, Kinds, fit_range

# A spread of its own takes some files; those of smaller kinds are one group of their class.
FEWEST_OF_A_KIND = 10


def fit_kind_novelty(features: FloatArray, is_fake: BoolArray, kinds: Kinds, within: float) -> KindNovelty:
    """A rule fitted to (n, d) features of training files; distance 1 is the ``within`` quantile of each kind.

    That quantile is over files of the kind left out in ``FOLDS`` rounds, since a file that shaped the mean and the
    covariance lies nearer to them than others do. Kinds with fewer than ``FEWEST_OF_A_KIND`` files, or none named, and
    those beyond the largest ``MOST_KINDS - 2`` are one group of their class. The ranges of the features are those of
    :func:`~mitigations.deepfake.fitting.fit_range`.
    """
    groups = kind_groups(is_fake, kinds)
    n_kinds = int(groups.max()) + 1
    rule = KindNovelty(features.shape[1], n_kinds)
    for g in range(n_kinds):
        own = features[groups == g]
        left_out = np.empty(len(own))
        n_folds = min(FOLDS, len(own))
        for fold in range(n_folds):
            out = np.arange(len(own)) % n_folds == fold
            mean, whitening = _spread(own[~out] if n_folds > 1 else own)
            left_out[out] = np.linalg.norm((own[out] - mean) @ whitening, axis=1)
        mean, whitening = _spread(own)
        rule.means[g] = torch.from_numpy(mean)
        rule.whitenings[g] = torch.from_numpy(whitening)
        rule.limits[g] = max(float(np.quantile(left_out, within, method="higher")), 1e-6)
    rule.range = fit_range(features, groups, within)
    return rule.eval()


def kind_groups(is_fake: BoolArray, kinds: Kinds) -> IntArray:
    """(n,) the group of each file, 0 to at most MOST_KINDS - 1: its kind, or what is left of its class."""
    named = Counter((bool(f), k) for f, k in zip(is_fake, kinds, strict=True) if k is not None)
    own = {kind for kind, n in named.most_common(MOST_KINDS - 2) if n >= FEWEST_OF_A_KIND}
    names = [f"{int(f)}/{k}" if (bool(f), k) in own else f"{int(f)}" for f, k in zip(is_fake, kinds, strict=True)]
    return np.asarray(np.unique(names, return_inverse=True)[1], np.int64)


def _spread(own: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean (d,) and a whitening (d, d) of one kind's files, its covariance shrunk after scaling each feature."""
    from sklearn.covariance import LedoitWolf

    mean, scale = own.mean(axis=0), own.std(axis=0)
    scale = np.where(scale > 1e-6 * np.maximum(np.abs(mean), 1e-6), scale, 1.0)
    standard = (own - mean) / scale
    variances, axes = np.linalg.eigh(LedoitWolf(assume_centered=True).fit(standard).covariance_)
    # A kind whose files are all alike has no spread to measure by: its features' own units stand in.
    whitening = axes / np.sqrt(np.where(variances > 1e-9, variances, 1.0))
    return mean, whitening / scale[:, None]
