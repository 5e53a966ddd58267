"""How unlike the training files of a detector a file is: how far its features lie from theirs, and out of range."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class RangeNovelty(nn.Module):
    """(n, n_features) features to (n,) how far they lie outside the ranges of the training files, in a limit.

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


class MahalanobisNovelty(nn.Module):
    """(n, n_features) features to (n,) distances from the nearest group of training files, in standard deviations.

    ``min over g of |(x - centre) W - mean_g| / sqrt(n_features)``, where ``W W'`` is the inverse of the covariance
    within groups, so that 1 is usual for a file of a group; or ``limit`` times :class:`RangeNovelty` where that is
    more, ``limit`` being a distance that few left-out training files exceed. In [0, inf). A group is the training files
    of one kind. Sources: Lee et al., A simple unified framework for detecting out-of-distribution samples and
    adversarial attacks, NeurIPS 2018; the covariance shrunk by Ledoit and Wolf, J. Multivariate Analysis 88 (2004).

    Not a promise about every odd file: of detectors of enlarged pictures with 213 features, trained on two photographs
    and three upsamplers, all called faint noise on flat grey unsupported; of those trained with one upsampler less, one
    of three did. All called pages of text, flat pictures and gradients so.
    """

    def __init__(self, n_features: int, n_groups: int) -> None:
        super().__init__()
        self.centre: Tensor
        self.whitening: Tensor
        self.means: Tensor
        self.register_buffer("centre", torch.zeros(n_features))
        self.register_buffer("whitening", torch.zeros(n_features, n_features))
        self.limit: Tensor
        self.register_buffer("means", torch.zeros(n_groups, n_features))
        self.register_buffer("limit", torch.ones(()))
        self.range = RangeNovelty(n_features)

    def distances(self, features: Tensor) -> Tensor:
        """(n,) Mahalanobis distances alone."""
        white = (features - self.centre) @ self.whitening
        # Distances by matrix product lose digits, and are taken or not according to the size of the batch.
        far = torch.cdist(white, self.means, compute_mode="donot_use_mm_for_euclid_dist")
        return far.amin(dim=1) / math.sqrt(self.means.shape[1])

    def forward(self, features: Tensor) -> Tensor:
        return torch.maximum(self.distances(features), self.limit * self.range(features))
