"""How unlike the training files of a detector a file is: the distance of its features from theirs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class MahalanobisNovelty(nn.Module):
    """(n, n_features) features to (n,) distances from the nearest group of training files, in standard deviations.

    ``min over g of |(x - centre) W - mean_g| / sqrt(n_features)``, where ``W W'`` is the inverse of the covariance
    within groups, so that 1 is usual for a file of a group. In [0, inf). A group is the training files of one kind.
    Sources: Lee et al., A simple unified framework for detecting out-of-distribution samples and adversarial attacks,
    NeurIPS 2018; the covariance shrunk by Ledoit and Wolf, Journal of Multivariate Analysis 88 (2004).
    """

    def __init__(self, n_features: int, n_groups: int) -> None:
        super().__init__()
        self.centre: Tensor
        self.whitening: Tensor
        self.means: Tensor
        self.register_buffer("centre", torch.zeros(n_features))
        self.register_buffer("whitening", torch.zeros(n_features, n_features))
        self.register_buffer("means", torch.zeros(n_groups, n_features))

    def forward(self, features: Tensor) -> Tensor:
        white = (features - self.centre) @ self.whitening
        # Distances by matrix product lose digits, and are taken or not according to the size of the batch.
        far = torch.cdist(white, self.means, compute_mode="donot_use_mm_for_euclid_dist")
        return far.amin(dim=1) / math.sqrt(self.means.shape[1])
