"""The head of a detector: standardised and weighted features, calibrated into the logits of two classes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor, nn

from auditor.models.output_kind import Outputs


class HeadOnFeatures(nn.Module):
    """Files to (n, 2) logits: a ``head`` on :meth:`features`; ``rule`` measures the novelty of the features."""

    output_kind: ClassVar[Outputs] = "logits"
    head: nn.Module
    rule: nn.Module
    # The last input and its features, within features_kept: an encoder takes nearly all of the time.
    _keeps: bool = False
    _kept: tuple[Tensor, Tensor] | None = None

    def features(self, x: Tensor) -> Tensor:
        """(n, d) the input features of the head for each file."""
        raise NotImplementedError

    def novelty(self, x: Tensor) -> Tensor:
        """(n,) distance from the nearest group of training files."""
        distance: Tensor = self.rule(self._features_once(x))
        return distance

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self._features_once(x))
        return logits

    def _features_once(self, x: Tensor) -> Tensor:
        if not self._keeps:
            return self.features(x)
        if self._kept is None or not torch.equal(self._kept[0], x):
            self._kept = (x, self.features(x))
        return self._kept[1]

    @contextmanager
    def features_kept(self) -> Iterator[None]:
        """Context that keeps the features of the last input, for the answer and the novelty of the same files."""
        self._keeps = True
        try:
            yield
        finally:
            self._keeps, self._kept = False, None


class LinearHead(nn.Module):
    """(n, n_features) features to (n, 2) logits in class order: logistic regression with Platt calibration.

    ``z = weight . (x - mean) / scale + bias``, then ``t = slope z + offset``, the log-odds of the synthetic class,
    given as logits ``-t / 2`` and ``t / 2`` so that either class has a gradient. ``fake``: its index, 0 or 1.
    """

    def __init__(self, n_features: int, fake: int = 1) -> None:
        super().__init__()
        if fake not in (0, 1):
            raise ValueError("the synthetic class of a detector is 0 or 1")
        self.fake = fake
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))
        self.weight = nn.Parameter(torch.zeros(n_features))
        self.bias = nn.Parameter(torch.zeros(()))
        self.calibration = Calibration(fake)

    def scores(self, features: Tensor) -> Tensor:
        """(n,) uncalibrated log-odds z of the synthetic class."""
        standard = (features - self.mean) / self.scale
        return standard @ self.weight + self.bias

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.calibration(self.scores(features))
        return logits


class Calibration(nn.Module):
    """(n,) scores to (n, 2) logits in class order, by Platt's ``slope z + offset`` for the synthetic class ``fake``.

    Source: Platt, Probabilistic outputs for support vector machines, 1999.
    """

    def __init__(self, fake: int = 1) -> None:
        super().__init__()
        self.fake = fake
        self.slope: Tensor
        self.offset: Tensor
        self.register_buffer("slope", torch.ones(()))
        self.register_buffer("offset", torch.zeros(()))

    def forward(self, scores: Tensor) -> Tensor:
        half = 0.5 * (self.slope * scores + self.offset)
        pair = [-half, half] if self.fake == 1 else [half, -half]
        return torch.stack(pair, dim=1)


class NeighbourHead(nn.Module):
    """(n, n_features) features to (n, 2) logits in class order, by the nearest training files of either class.

    Its score is the mean cosine similarity to the ``k`` nearest synthetic files less that to the ``k`` nearest real
    ones, in [-2, 2], then calibrated. Source: Ojha, Li and Lee, Towards universal fake image detectors that generalize
    across generative models, CVPR 2023.
    """

    def __init__(self, n_features: int, n_real: int, n_fake: int, k: int = 1, fake: int = 1) -> None:
        super().__init__()
        if not 1 <= k <= min(n_real, n_fake):
            raise ValueError(f"there are not {k} files of either class to be neighbours")
        self.k = k
        self.real_files: Tensor
        self.fake_files: Tensor
        self.register_buffer("real_files", torch.zeros(n_real, n_features))
        self.register_buffer("fake_files", torch.zeros(n_fake, n_features))
        self.calibration = Calibration(fake)

    def scores(self, features: Tensor) -> Tensor:
        """(n,) uncalibrated scores, larger for the synthetic class."""
        own = nn.functional.normalize(features, dim=1)
        near = [
            (own @ nn.functional.normalize(files, dim=1).T).topk(self.k, dim=1).values.mean(dim=1)
            for files in (self.fake_files, self.real_files)
        ]
        return near[0] - near[1]

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.calibration(self.scores(features))
        return logits
