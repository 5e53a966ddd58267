"""Four published scores of similarity to known inputs: larger is more similar."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from auditor.core.rows import FloatArray, IntArray

# What is added to the scatter of the features, so that a direction in which they never move can be divided by.
_RIDGE = 1e-6


def msp(probabilities: FloatArray) -> FloatArray:
    """(n,) maximum softmax probability of (n, n_classes). Source: Hendrycks and Gimpel, ICLR 2017."""
    return np.asarray(probabilities.max(axis=1), np.float64)


def energy(logits: FloatArray) -> FloatArray:
    """(n,) ``log sum over j of exp(z_j)`` of logits (n, n_classes), the negative energy. Source: Liu et al., NeurIPS
    2020."""
    return np.asarray(scipy.special.logsumexp(logits, axis=1), np.float64)


@dataclass(frozen=True, eq=False)
class Mahalanobis:
    """``-1/2 min over c of (x - mean_c)' S^-1 (x - mean_c)``, with S the scatter of the features about their class
    means, not divided by n, plus 1e-6 on its diagonal.

    Source: Lee et al., NeurIPS 2018.

    ``means`` (n_classes, d); ``whitening`` (d, d), W with ``W W' = S^-1``.
    """

    means: FloatArray
    whitening: FloatArray

    @classmethod
    def from_features(cls, features: FloatArray, labels: IntArray) -> Mahalanobis:
        """The detector fitted on features (n, d) of classes (n,); a class without rows has no mean."""
        own, place = np.unique(labels, return_inverse=True)
        means = np.stack([features[place == i].mean(axis=0) for i in range(own.size)])
        centred = features - means[place]
        values, vectors = np.linalg.eigh(centred.T @ centred + _RIDGE * np.eye(features.shape[1]))
        return cls(means, vectors / np.sqrt(np.maximum(values, _RIDGE)))

    def score(self, features: FloatArray) -> FloatArray:
        """(n,) scores of features (n, d)."""
        away = [np.square((features - mean) @ self.whitening).sum(axis=1) for mean in self.means]
        return np.asarray(-0.5 * np.min(away, axis=0), np.float64)


@dataclass(frozen=True, eq=False)
class Nearest:
    """Minus the distance to the ``k``-th nearest known feature, all features at unit length. Source: Sun et al., ICML
    2022.

    ``known`` (n, d).
    """

    known: FloatArray
    k: int

    @classmethod
    def from_features(cls, features: FloatArray, k: int) -> Nearest:
        """The detector with known features (n, d); ``k`` is n if there are fewer."""
        return cls(_unit(features), min(k, len(features)))

    def score(self, features: FloatArray) -> FloatArray:
        """(n,) scores of features (n, d)."""
        own = _unit(features)
        # A feature of zeros has no direction and keeps its length, so not every length is one.
        squared = np.square(own).sum(axis=1)[:, None] + np.square(self.known).sum(axis=1) - 2.0 * own @ self.known.T
        return -np.sqrt(np.maximum(np.partition(squared, self.k - 1, axis=1)[:, self.k - 1], 0.0))


def _unit(features: FloatArray) -> FloatArray:
    return np.asarray(features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12), np.float64)
