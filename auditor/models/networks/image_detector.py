"""Detectors of synthetic images without an encoder: hand-made features, a small network, and their ensemble.

Their input is (n, 3, height, width) in [-1, 1], the middle of each picture at its own resolution
(``ImagePreprocessing(fit="crop")`` with mean and std 0.5).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import ClassVar

import torch
from torch import Tensor, nn

from auditor.models.networks.head import Calibration, HeadOnFeatures, LinearHead
from auditor.models.networks.image_features import image_features, n_image_features, residual
from auditor.models.networks.novelty_score import KindNovelty
from auditor.models.output_kind import Outputs

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
        """(n, d) the numbers of :func:`~auditor.models.networks.image_features.image_features`."""
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
