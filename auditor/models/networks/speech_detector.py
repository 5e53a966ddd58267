"""Detectors of synthetic speech: cepstral statistics with one Gaussian mixture per class."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from auditor.models.networks.head import Calibration, HeadOnFeatures, LinearHead
from auditor.models.networks.novelty_score import KindNovelty
from auditor.models.networks.speech_features import Cepstrum, LogSpectrum, delta, moments

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
