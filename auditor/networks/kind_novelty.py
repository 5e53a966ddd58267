"""How unlike every kind of training file a file is, each kind measured by its own spread."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from auditor.networks.novelty import RangeNovelty

MOST_KINDS = 64


class KindNovelty(nn.Module):
    """(n, n_features) features to (n,) distances from the nearest kind of training files, in that kind's own limits.

    ``min over g of |(x - mean_g) W_g| / limit_g``, where ``W_g W_g'`` is the inverse of the covariance of kind g's
    files and ``limit_g`` a distance that few files of kind g which were left out exceed. In [0, inf); above 1 a file is
    unusual for every kind; or :class:`~auditor.networks.novelty.RangeNovelty` where that is more. Kinds differ
    in spread: one engine's files lie close together, one speaker's do not, and under a shared covariance an unknown
    engine hides within the widest of them. Steady noise lies within the ellipsoid of a broad kind, and the ranges catch
    it. The rule was looked at on white, pink and brown noise, tones, clicks, hum and chords, and fitted to none of
    them. Sources: Lee et al., A simple unified framework for detecting out-of-distribution samples and adversarial
    attacks, NeurIPS 2018; Ledoit and Wolf, J. Multivariate Analysis 88 (2004).
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
