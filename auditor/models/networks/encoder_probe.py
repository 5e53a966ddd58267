"""A linear or nearest-neighbour head on a frozen encoder named by the user and saved with the weights.

Source: Ojha, Li and Lee, Towards universal fake image detectors that generalize across generative models, CVPR 2023.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from auditor.core.errors import ModelError
from auditor.models.networks.encoders import FORMS, Encoder, encoder_of
from auditor.models.networks.head import HeadOnFeatures, LinearHead, NeighbourHead
from auditor.models.networks.novelty_score import KindNovelty

_MEBIBYTE = 1 << 20


class EncoderProbe(HeadOnFeatures):
    """(n, 3, height, width) images to (n, 2) logits: an encoder's features, brought to length 1, under a head.

    ``form``: index into :data:`auditor.models.networks.encoders.FORMS`. ``n_mebibytes``: of the encoder's file, which
    is the buffer ``content`` (``length`` bytes of it). ``k``: 0 for the linear head, else the neighbours of
    :class:`NeighbourHead` among ``n_real`` and ``n_fake`` training files. ``differentiable``: whether a gradient
    reaches the image, which it does through torch and not through onnxruntime.
    """

    def __init__(
        self,
        form: int,
        n_mebibytes: int,
        n_features: int,
        n_groups: int,
        fake: int = 1,
        k: int = 0,
        n_real: int = 0,
        n_fake: int = 0,
    ) -> None:
        super().__init__()
        if form not in range(len(FORMS)):
            raise ValueError(f"the form of an encoder is 0 to {len(FORMS) - 1}")
        self.form = form
        self.content: Tensor
        self.length: Tensor
        # Rows of a mebibyte, since a bundle's arguments are no larger than 2^24.
        self.register_buffer("content", torch.zeros(n_mebibytes, _MEBIBYTE, dtype=torch.uint8))
        self.register_buffer("length", torch.zeros((), dtype=torch.int64))
        self.head: LinearHead | NeighbourHead = (
            NeighbourHead(n_features, n_real, n_fake, k, fake) if k else LinearHead(n_features, fake)
        )
        self.rule: KindNovelty = KindNovelty(n_features, n_groups)
        self._encoder: Encoder | None = None
        self.register_load_state_dict_post_hook(_forget_encoder)  # type: ignore[no-untyped-call]

    @property
    def differentiable(self) -> bool:
        """Whether the image's gradient exists."""
        return FORMS[self.form] != "onnx"

    @property
    def encoder(self) -> Encoder:
        """The encoder of ``content``, created on first use.

        Raises ModelError where it is none.
        """
        if self._encoder is None:
            content = self.content.flatten()[: int(self.length)].cpu().numpy().tobytes()
            self._encoder = encoder_of(FORMS[self.form], content)
        return self._encoder

    def use(self, encoder: Encoder) -> None:
        """Use an encoder that was created from ``content`` elsewhere."""
        self._encoder = encoder

    def features(self, x: Tensor) -> Tensor:
        """(n, d) the encoder's features, of length 1."""
        found = self.encoder(x)
        wanted = self.rule.means.shape[1]
        if found.ndim != 2 or found.shape[1] != wanted:
            raise ModelError(
                f"The detector's encoder gives {found.shape[-1]} features, and the detector's head takes {wanted}: it "
                "is not the encoder that it was fitted to."
            )
        return nn.functional.normalize(found, dim=1)


def hold(probe: EncoderProbe, content: bytes) -> None:
    """Insert an encoder's file into a probe created large enough for it."""
    probe.content.view(-1)[: len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    probe.length.fill_(len(content))
    probe._encoder = None


def mebibytes(content: bytes) -> int:
    """The size of a file in mebibytes, rounded up."""
    return -(-len(content) // _MEBIBYTE)


def _forget_encoder(probe: nn.Module, _: Any) -> None:
    if isinstance(probe, EncoderProbe):
        probe._encoder = None
