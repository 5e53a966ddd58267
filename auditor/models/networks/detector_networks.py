"""Networks that detect synthetic images and speech: hand-made features and a calibrated head.

The input is (n, 3, height, width) in [-1, 1], the middle of each picture at its own resolution
(``ImagePreprocessing(fit="crop")`` with mean and std 0.5).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from auditor.models.networks.media_features import (
    Cepstrum,
    LogSpectrum,
    delta,
    image_features,
    moments,
    n_image_features,
)
from auditor.models.output_kind import Outputs


class HeadOnFeatures(nn.Module):
    """Files to (n, 2) logits: a ``head`` on :meth:`features`."""

    output_kind: ClassVar[Outputs] = "logits"
    head: nn.Module

    def features(self, x: Tensor) -> Tensor:
        """(n, d) the input features of the head for each file."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


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


def levels(x: Tensor) -> Tensor:
    """Encoded images as levels of 0 to 255."""
    return torch.add(x.new_full((), 127.5), x, alpha=127.5)


class FrequencyDetector(HeadOnFeatures):
    """Radial spectrum, block DCT and residual statistics under a linear head: (n, 3, size, size) to (n, 2) logits.

    ``fake``: index of the synthetic class. ``n_groups``: as earlier versions wrote it.
    """

    def __init__(self, size: int, n_groups: int = 0, fake: int = 1) -> None:
        super().__init__()
        self.head: LinearHead = LinearHead(n_image_features(size), fake)

    def features(self, x: Tensor) -> Tensor:
        """(n, d) the numbers of :func:`~auditor.models.networks.media_features.image_features`."""
        return image_features(levels(x))


class SpeechDetector(HeadOnFeatures):
    """Means and standard deviations of LFCC and their slopes, weighed by logistic regression.

    (n, samples) sound in [-1, 1] to (n, 2) calibrated logits in class order. ``fake``: index of the synthetic class.
    ``n_kinds``: as earlier versions wrote it. Source: Sahidullah, Kinnunen
    and Hanilci, A comparison of features for synthetic speech detection, Interspeech 2015.
    """

    def __init__(
        self,
        sampling_rate: int,
        n_kinds: int = 0,
        fake: int = 1,
        n_filters: int = 40,
        n_coefficients: int = 20,
    ) -> None:
        super().__init__()
        self.spectrum = LogSpectrum(sampling_rate, n_filters)
        self.cepstrum = Cepstrum(n_filters, n_coefficients)
        self.head: LinearHead = LinearHead(4 * n_coefficients, fake)

    def features(self, x: Tensor) -> Tensor:
        """(n, 4 n_coefficients) means and standard deviations over time of the cepstra and their slopes."""
        static = self.cepstrum(self.spectrum(x))
        return moments(torch.cat([static, delta(static)], dim=2))
