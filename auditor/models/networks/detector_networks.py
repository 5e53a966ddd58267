"""Networks that detect synthetic images and speech: hand-made features, a calibrated head, the novelty of a file.

The input is (n, 3, height, width) in [-1, 1], the middle of each picture at its own resolution
(``ImagePreprocessing(fit="crop")`` with mean and std 0.5).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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


def levels(x: Tensor) -> Tensor:
    """Encoded images as levels of 0 to 255."""
    return torch.add(x.new_full((), 127.5), x, alpha=127.5)


class FrequencyDetector(HeadOnFeatures):
    """Radial spectrum, block DCT and residual statistics under a linear head: (n, 3, size, size) to (n, 2) logits.

    ``n_groups``: groups of training files that the rule for novelty knows; ``fake``: index of the synthetic class.
    """

    def __init__(self, size: int, n_groups: int, fake: int = 1) -> None:
        super().__init__()
        n_features = n_image_features(size)
        self.head: LinearHead = LinearHead(n_features, fake)
        self.rule: KindNovelty = KindNovelty(n_features, n_groups)

    def features(self, x: Tensor) -> Tensor:
        """(n, d) the numbers of :func:`~auditor.models.networks.media_features.image_features`."""
        return image_features(levels(x))


class SpeechDetector(HeadOnFeatures):
    """Means and standard deviations of LFCC and their slopes, weighed by logistic regression.

    (n, samples) sound in [-1, 1] to (n, 2) calibrated logits in class order; ``n_kinds``: of
    training files that the rule for novelty knows. ``fake``: index of the synthetic class. Source: Sahidullah, Kinnunen
    and Hanilci, A comparison of features for synthetic speech detection, Interspeech 2015.
    """

    def __init__(
        self,
        sampling_rate: int,
        n_kinds: int,
        fake: int = 1,
        n_filters: int = 40,
        n_coefficients: int = 20,
    ) -> None:
        super().__init__()
        self.spectrum = LogSpectrum(sampling_rate, n_filters)
        self.cepstrum = Cepstrum(n_filters, n_coefficients)
        self.head: LinearHead = LinearHead(4 * n_coefficients, fake)
        self.rule: KindNovelty = KindNovelty(4 * n_coefficients, n_kinds)

    def features(self, x: Tensor) -> Tensor:
        """(n, 4 n_coefficients) means and standard deviations over time of the cepstra and their slopes."""
        static = self.cepstrum(self.spectrum(x))
        return moments(torch.cat([static, delta(static)], dim=2))
