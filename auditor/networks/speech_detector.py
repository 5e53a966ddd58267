"""Detectors of synthetic speech: cepstral statistics, a Gaussian mixture of either class, and a light CNN."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from auditor.networks.head import Calibration, HeadOnFeatures, LinearHead
from auditor.networks.novelty import KindNovelty
from auditor.networks.speech_features import Cepstrum, LogSpectrum, delta, moments

# Recordings whose frames are compared with all components at once.
_AT_ONCE = 16


class _Speech(HeadOnFeatures):
    """What the three share: linear-frequency cepstra of (n, samples) sound, and novelty by their statistics."""

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

    def novelty(self, x: Tensor) -> Tensor:
        """(n,) how unlike the training files, by :class:`KindNovelty` of :meth:`statistics`; above 1 is unusual."""
        found: Tensor = self.rule(self.statistics(x))
        return found


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


class SpeechCNN(_Speech):
    """A small light CNN over the log spectrum: convolutions whose maps compete in pairs (max-feature-map).

    Each band loses its mean over time first, which takes a fixed channel, such as a telephone's, away. Arguments and
    shapes as :class:`SpeechDetector`; ``width`` maps after the first layer, ``embedding`` features before the head.
    Sources: Wu, He, Sun and Tan, A light CNN for deep face representation with noisy labels, 2018; Lavrentyeva et al.,
    STC antispoofing systems for the ASVspoof2019 challenge, Interspeech 2019.
    """

    def __init__(
        self,
        sampling_rate: int,
        n_kinds: int,
        fake: int = 1,
        width: int = 8,
        embedding: int = 32,
        n_filters: int = 40,
        n_coefficients: int = 20,
        mel: bool = False,
    ) -> None:
        super().__init__(sampling_rate, n_kinds, n_filters, n_coefficients, mel)
        if n_filters < 4:
            raise ValueError("the network halves the spectrum twice: it takes at least 4 filters")
        self.blocks = nn.Sequential(
            nn.Conv2d(1, 2 * width, 5, stride=(2, 1), padding=2),
            MaxFeatureMap(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 1),
            MaxFeatureMap(),
            nn.GroupNorm(1, width),
            nn.Conv2d(width, 4 * width, 3, padding=1),
            MaxFeatureMap(),
            nn.MaxPool2d(2),
            nn.GroupNorm(1, 2 * width),
            nn.Conv2d(2 * width, 4 * width, 3, padding=1),
            MaxFeatureMap(),
        )
        self.dense = nn.Sequential(
            nn.Linear(2 * width * (n_filters // 4), 2 * embedding), MaxFeatureMap(), nn.Dropout(0.3)
        )
        self.head: LinearHead = LinearHead(embedding, fake)

    def embed(self, spectrum: Tensor) -> Tensor:
        """(n, embedding) of a log spectrum, (n, n_frames, n_filters)."""
        level = spectrum - spectrum.mean(dim=1, keepdim=True)
        maps = self.blocks(level.unsqueeze(1))
        # (n, 2 width, about n_frames / 8, n_filters / 4)
        found: Tensor = self.dense(maps.mean(dim=2).flatten(1))
        return found

    def features(self, x: Tensor) -> Tensor:
        """(n, embedding) what the head sees."""
        return torch.cat([self.embed(self.spectrum(part)) for part in torch.split(x, _AT_ONCE)])


class MaxFeatureMap(nn.Module):
    """(n, 2 c, ...) to (n, c, ...): of each map and its partner, c places on, the larger value."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        return torch.maximum(first, second)
