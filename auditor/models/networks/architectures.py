"""The closed table of networks that a model bundle may name; arguments are numbers, never code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from auditor.models.networks.detector_networks import FrequencyDetector, SpeechDetector
from auditor.models.networks.encoders import EncoderProbe
from auditor.models.output_kind import Outputs

MOST_MEMBERS = 256
# What a bundle's arguments can hold.
LARGEST_SEED = 2**24


class MLP(nn.Module):
    """Fully connected layers with ReLU: (n, n_features) to (n, n_outputs) logits."""

    output_kind: ClassVar[Outputs] = "logits"

    def __init__(self, n_features: int, hidden: Sequence[int], n_outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = n_features
        for units in hidden:
            layers += [nn.Linear(width, units), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
            width = units
        layers.append(nn.Linear(width, n_outputs))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


class BiLSTMText(nn.Module):
    """Embedding, bidirectional LSTM, maximum over time, hidden layer: (n, length) word indices to (n, n_outputs)."""

    output_kind: ClassVar[Outputs] = "logits"

    def __init__(
        self, n_words: int, n_outputs: int, embedding_dim: int = 50, hidden_size: int = 50, dense: int = 50
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_words, embedding_dim)
        self.lstm = nn.LSTM(embedding_dim, hidden_size, batch_first=True, bidirectional=True)
        self.dense = nn.Linear(2 * hidden_size, dense)
        self.output = nn.Linear(dense, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(self.embedding(x))
        logits: Tensor = self.output(torch.relu(self.dense(states.max(dim=1).values)))
        return logits


class SmallCNN(nn.Module):
    """Three 3x3 convolutions with group norm, each halving the picture: (n, channels, h, w) to (n, n_outputs)."""

    output_kind: ClassVar[Outputs] = "logits"

    def __init__(self, channels: int, n_outputs: int, width: int = 16) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        before = channels
        for factor in (1, 2, 4):
            after = width * factor
            blocks += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(4, after), nn.ReLU(), nn.MaxPool2d(2)]
            before = after
        self.blocks = nn.Sequential(*blocks)
        self.output = nn.Linear(before, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(self.blocks(x).mean(dim=(2, 3)))
        return logits


class TransformerEncoder(nn.Module):
    """Token and position embeddings, pre-norm encoder layers, mean over tokens: (n, length) indices to (n, n_outputs).

    Index 0 is padding and takes no part in attention or mean.
    """

    output_kind: ClassVar[Outputs] = "logits"

    def __init__(
        self, n_words: int, n_outputs: int, length: int, d_model: int = 64, n_heads: int = 4, n_layers: int = 2
    ) -> None:
        super().__init__()
        self.token = nn.Embedding(n_words, d_model)
        self.position = nn.Embedding(length, d_model)
        layer = nn.TransformerEncoderLayer(
            d_model, n_heads, 4 * d_model, dropout=0.0, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)
        self.output = nn.Linear(d_model, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        padding = x == 0
        padding = padding & ~padding.all(dim=1, keepdim=True)
        positions = torch.arange(x.shape[1], device=x.device).expand_as(x)
        states = self.encoder(self.token(x) + self.position(positions), src_key_padding_mask=padding)
        kept = (~padding).unsqueeze(-1).to(states.dtype)
        logits: Tensor = self.output((states * kept).sum(dim=1) / kept.sum(dim=1))
        return logits


class MLPVote(nn.Module):
    """The weighted vote of MLPs for one of two classes: (n, n_features) to (n, 2) probabilities, piecewise constant.

    ``weights``: (n_members + 1,) of the members' votes, each for class ``positive`` where the member's probability of
    it is at least ``threshold``; the last is of a vote that is always for it. What they lack of 1 votes against.
    ``decision_seed``: of decisions that are drawn with these probabilities, by a hash of the row; None means that the
    majority decides.
    """

    output_kind: ClassVar[Outputs] = "probabilities"

    def __init__(
        self,
        n_members: int,
        n_features: int,
        hidden: Sequence[int],
        positive: int,
        threshold: float = 0.5,
        dropout: float = 0.0,
        decision_seed: int | None = None,
    ) -> None:
        super().__init__()
        if decision_seed is not None and not 0 <= decision_seed < LARGEST_SEED:
            raise ValueError(f"decision_seed lies in [0, {LARGEST_SEED:,})")
        if not (0 <= n_members <= MOST_MEMBERS and positive in (0, 1)):
            raise ValueError(f"a vote has at most {MOST_MEMBERS} members, and its positive class is 0 or 1")
        self.members = nn.ModuleList(MLP(n_features, hidden, 2, dropout) for _ in range(n_members))
        self.positive = positive
        self.threshold = threshold
        self.decision_seed = decision_seed
        self.weights: Tensor
        self.register_buffer("weights", torch.zeros(n_members + 1))

    def forward(self, x: Tensor) -> Tensor:
        chance = self.weights[-1].expand(x.shape[0])
        for weight, member in zip(self.weights, self.members, strict=False):
            favourable = torch.softmax(member(x).double(), dim=1)[:, self.positive]
            chance = chance + weight * favourable.ge(self.threshold)
        chance = chance.clamp(0.0, 1.0)
        return torch.stack([1.0 - chance, chance] if self.positive == 1 else [chance, 1.0 - chance], dim=1)


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "mlp": MLP,
    "mlp_vote": MLPVote,
    "bilstm_text": BiLSTMText,
    "small_cnn": SmallCNN,
    "transformer_encoder": TransformerEncoder,
    "frequency_detector": FrequencyDetector,
    "encoder_probe": EncoderProbe,
    "speech_lfcc": SpeechDetector,
}
# Detectors of earlier versions.
RETIRED = ("residual_cnn", "image_ensemble", "speech_gmm")


@dataclass(frozen=True)
class Architecture:
    """A network of the table by its name and its arguments, which are JSON; called, an untrained one."""

    name: str
    args: Mapping[str, Any]

    def __call__(self) -> nn.Module:
        """A new one, initialised from torch's global generator."""
        return ARCHITECTURES[self.name](**self.args)
