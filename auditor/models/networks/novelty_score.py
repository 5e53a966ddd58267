"""Novelty of a file relative to a detector's training files: feature distance, and values out of range."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MOST_KINDS = 64
# Of all whitenings of a rule, 64 MiB: features of an encoder are many, and each kind has a matrix of them.
_MOST_NUMBERS = 1 << 24


def most_kinds(n_features: int) -> int:
    """The largest number of kinds in a rule with so many features: 2 to 64, decreasing with their number."""
    return max(2, min(MOST_KINDS, _MOST_NUMBERS // n_features**2))


class RangeNovelty(nn.Module):
    """(n, n_features) features to (n,) distance outside the ranges of the training files, up to a limit.

    ``sqrt(mean over j of e_j^2) / limit`` with ``e_j = max(low_j - x_j, x_j - high_j, 0) / (high_j - low_j)``, where
    ``limit`` is one that few left-out training files exceed. In [0, inf); 0 where every feature lies in its range. A
    file can lie within the ellipsoid of a broad kind of training files and have features that none of them has; here
    each is held against its own range. Until it is fitted, everything is in range.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.low: Tensor
        self.high: Tensor
        self.limit: Tensor
        self.register_buffer("low", torch.full((n_features,), -1e30))
        self.register_buffer("high", torch.full((n_features,), 1e30))
        self.register_buffer("limit", torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        outside = torch.maximum(self.low - features, features - self.high).clamp_min(0.0)
        return (outside / (self.high - self.low)).square().mean(dim=1).sqrt() / self.limit


class KindNovelty(nn.Module):
    """(n, n_features) features to (n,) distances from the nearest kind of training files, in that kind's own limits.

    ``min over g of |(x - mean_g) W_g| / limit_g``, where ``W_g W_g'`` is the inverse of the covariance of kind g's
    files and ``limit_g`` a distance that few files of kind g which were left out exceed; or :class:`RangeNovelty` where
    that is more. In [0, inf). What is unusual is not said here but by a detector's card, which keeps the novelties of
    files left out. Kinds differ in spread: one engine's files lie close together, one speaker's do not, and under a
    shared covariance an unknown engine hides within the widest of them. Steady noise lies within the ellipsoid of a
    broad kind, and the ranges catch it. Sources: Lee et al., A simple unified framework for detecting
    out-of-distribution samples and adversarial attacks, NeurIPS 2018; Ledoit and Wolf, J. Multivariate Analysis 88
    (2004).

    Not a promise about every odd file: an unknown generator whose files lie among those of known kinds is not unlike
    them. Of ten generators and subjects left out in turn of 100 pictures, one file in twenty was found so.
    """

    def __init__(self, n_features: int, n_kinds: int) -> None:
        super().__init__()
        if not 1 <= n_kinds <= MOST_KINDS:
            raise ValueError(f"files lie near 1 to {MOST_KINDS} kinds, not {n_kinds}")
        self.means: Tensor
        self.whitenings: Tensor
        self.limits: Tensor
        self.register_buffer("means", torch.zeros(n_kinds, n_features))
        self.register_buffer("whitenings", torch.zeros(n_kinds, n_features, n_features))
        self.register_buffer("limits", torch.ones(n_kinds))
        self.range = RangeNovelty(n_features)

    def distances(self, features: Tensor) -> Tensor:
        """(n, n_kinds) distances, in the limits of each kind."""
        # One kind at a time, so that memory grows with the files alone.
        found = [((features - m) @ w).norm(dim=1) for m, w in zip(self.means, self.whitenings, strict=True)]
        return torch.stack(found, dim=1) / self.limits

    def forward(self, features: Tensor) -> Tensor:
        return torch.maximum(self.distances(features).amin(dim=1), self.range(features))
