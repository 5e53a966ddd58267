"""Networks that detect synthetic images and speech: hand-made features, a calibrated head, the novelty of a file.

The input is (n, 3, height, width) in [-1, 1], the middle of each picture at its own resolution
(``ImagePreprocessing(fit="crop")`` with mean and std 0.5).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
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
    residual,
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


_GROUPS_OF_CHANNELS = 4
# Levels of a residual at which half of its range is reached.
_TRUNCATED_AT = 32.0


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


class ResidualCNN(HeadOnFeatures):
    """A small network on residuals and colours: (n, 3, size, size) to (n, 2) logits.

    It sees the 3 x 3 square residual of each colour, softly truncated, and the colours themselves: four 3 x 3
    convolutions with group norm, each halving the picture; the mean and the mean square of each channel under a linear
    head. Source of the residual: Fridrich and Kodovsky, Rich models for steganalysis of digital images, IEEE
    Transactions on Information Forensics and Security 7 (2012).
    """

    def __init__(self, width: int, n_groups: int, fake: int = 1) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        before = 6
        for factor in (1, 2, 4, 4):
            after = width * factor
            norm = nn.GroupNorm(_GROUPS_OF_CHANNELS, after)
            blocks += [nn.Conv2d(before, after, 3, stride=2, padding=1), norm, nn.ReLU()]
            before = after
        self.blocks = nn.Sequential(*blocks)
        self.head: LinearHead = LinearHead(2 * before, fake)
        self.rule: KindNovelty = KindNovelty(2 * before, n_groups)

    def features(self, x: Tensor) -> Tensor:
        """(n, 8 width) mean and mean square of each channel of the last convolution."""
        found: Tensor = self.blocks(_residual_and_colour(x))
        return torch.cat([found.mean(dim=(2, 3)), found.square().mean(dim=(2, 3))], dim=1)


def _residual_and_colour(images: Tensor) -> Tensor:
    """(n, 3, h, w) in [-1, 1] to (n, 6, h - 2, w - 2): each colour's residual, softly truncated, and the colours."""
    square = residual(images.flatten(0, 1), "h2v2")
    truncated = nn.functional.softsign(square * (127.5 / _TRUNCATED_AT)).view(*images.shape[:2], *square.shape[1:])
    return torch.cat([truncated, images[:, :, 1:-1, 1:-1]], dim=1)


class ImageEnsemble(nn.Module):
    """:class:`FrequencyDetector` and :class:`ResidualCNN`: the mean of their calibrated log-odds, calibrated again.

    (n, 3, size, size) to (n, 2) logits; features and novelty are those of the former.
    """

    output_kind: ClassVar[Outputs] = "logits"

    def __init__(self, size: int, width: int, n_groups: int, fake: int = 1) -> None:
        super().__init__()
        self.frequency = FrequencyDetector(size, n_groups, fake)
        self.cnn = ResidualCNN(width, n_groups, fake)
        self.calibration = Calibration(fake)

    def features(self, x: Tensor) -> Tensor:
        """(n, d) of the hand-made features."""
        return self.frequency.features(x)

    def novelty(self, x: Tensor) -> Tensor:
        """(n,) distance of the hand-made features from the nearest group of training files."""
        return self.frequency.novelty(x)

    def features_kept(self) -> AbstractContextManager[None]:
        """Context that keeps the hand-made features of the last input."""
        return self.frequency.features_kept()

    def forward(self, x: Tensor) -> Tensor:
        fake = self.calibration.fake
        odds = [(z := member(x))[:, fake] - z[:, 1 - fake] for member in (self.frequency, self.cnn)]
        logits: Tensor = self.calibration((odds[0] + odds[1]) / 2.0)
        return logits


# Recordings whose frames are compared with all components at once.
_AT_ONCE = 16


class _Speech(HeadOnFeatures):
    """What both share: linear-frequency cepstra of (n, samples) sound, and novelty by their statistics."""

    def __init__(self, sampling_rate: int, n_kinds: int, n_filters: int, n_coefficients: int, mel: bool) -> None:
        super().__init__()
        self.spectrum = LogSpectrum(sampling_rate, n_filters, "mel" if mel else "linear")
        self.cepstrum = Cepstrum(n_filters, n_coefficients)
        self.rule: KindNovelty = KindNovelty(4 * n_coefficients, n_kinds)

    def frames(self, x: Tensor) -> Tensor:
        """(n, n_frames, 2 n_coefficients) cepstra and their slopes."""
        static = self.cepstrum(self.spectrum(x))
        return torch.cat([static, delta(static)], dim=2)

    def statistics(self, x: Tensor) -> Tensor:
        """(n, 4 n_coefficients) means and standard deviations over time of :meth:`frames`."""
        return moments(self.frames(x))


class SpeechDetector(_Speech):
    """Means and standard deviations of LFCC and their slopes, weighed by logistic regression.

    (n, samples) sound in [-1, 1] to (n, 2) calibrated logits in class order; ``mel``: MFCC instead. ``n_kinds``: of
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
        mel: bool = False,
    ) -> None:
        super().__init__(sampling_rate, n_kinds, n_filters, n_coefficients, mel)
        self.head: LinearHead = LinearHead(4 * n_coefficients, fake)

    def features(self, x: Tensor) -> Tensor:
        """(n, 4 n_coefficients) statistics."""
        return self.statistics(x)


class SpeechGMM(_Speech):
    """The likelihood ratio of two Gaussian mixtures of frames, one of each class: the baseline of ASVspoof 2019.

    ``score = mean over frames of log p(frame | synthetic) - log p(frame | real)``; components have diagonal
    covariances, over standardised frames of LFCC and their slopes. Arguments and shapes as :class:`SpeechDetector`.
    Source: Todisco et al., ASVspoof 2019: future horizons in spoofed and fake audio detection, Interspeech 2019.
    """

    def __init__(
        self,
        sampling_rate: int,
        n_kinds: int,
        fake: int = 1,
        n_components: int = 16,
        n_filters: int = 40,
        n_coefficients: int = 20,
        mel: bool = False,
    ) -> None:
        super().__init__(sampling_rate, n_kinds, n_filters, n_coefficients, mel)
        if not 1 <= n_components <= 1_024:
            raise ValueError(f"a mixture has 1 to 1,024 components, not {n_components}")
        d = 2 * n_coefficients
        self.centre: Tensor
        self.scale: Tensor
        self.means: Tensor
        self.precisions: Tensor
        self.log_weights: Tensor
        self.register_buffer("centre", torch.zeros(d))
        self.register_buffer("scale", torch.ones(d))
        # Of the real class first, whatever the order of the classes.
        self.register_buffer("means", torch.zeros(2, n_components, d))
        self.register_buffer("precisions", torch.ones(2, n_components, d))
        self.register_buffer("log_weights", torch.full((2, n_components), -math.log(n_components)))
        self.calibration = Calibration(fake)

    def features(self, x: Tensor) -> Tensor:
        """(n, 2) mean log-likelihoods of the frames under the mixture of real and of synthetic speech."""
        return torch.cat([self.log_likelihoods(self.frames(part)) for part in torch.split(x, _AT_ONCE)])

    def novelty(self, x: Tensor) -> Tensor:
        """(n,) how unlike the training files, by :class:`KindNovelty` of :meth:`statistics`; above 1 is unusual."""
        found: Tensor = self.rule(self.statistics(x))
        return found

    def log_likelihoods(self, frames: Tensor) -> Tensor:
        """(n, 2) of :meth:`frames`, (n, n_frames, d)."""
        z = (frames - self.centre) / self.scale
        by_class = []
        for means, precisions, weights in zip(self.means, self.precisions, self.log_weights, strict=True):
            squares = (
                z.square() @ precisions.T - 2.0 * z @ (precisions * means).T + (precisions * means.square()).sum(1)
            )
            constant = weights + 0.5 * precisions.log().sum(1) - 0.5 * means.shape[1] * math.log(2.0 * math.pi)
            by_class.append(torch.logsumexp(constant - 0.5 * squares, dim=2).mean(dim=1))
        return torch.stack(by_class, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        found = self.features(x)
        logits: Tensor = self.calibration(found[:, 1] - found[:, 0])
        return logits
