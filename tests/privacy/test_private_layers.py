"""Stand-ins compute what they stand for and give their weights back; layers without one are refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from auditor.core.errors import ModelError
from auditor.models.networks.architectures import BiLSTMText, TransformerEncoder
from auditor.privacy.training.private_gradients import put_stand_ins, refuse_layers, weights_back
from tests.quantifiers import all_of


class Recurrent(nn.Module):
    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.layer: Any = kind(3, 4, num_layers=2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        states: Tensor = self.layer(x)[0]
        return states


class Attending(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.layer: Any = nn.MultiheadAttention(6, 2, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        causal = torch.triu(torch.ones(x.shape[1], x.shape[1], dtype=torch.bool), 1)
        padding = torch.zeros(x.shape[:2], dtype=torch.bool)
        padding[0, -1] = True
        mixed, weights = self.layer(x, x, x, attn_mask=causal, key_padding_mask=padding)
        return torch.cat([mixed, weights], dim=2)


def words() -> Tensor:
    x = torch.randint(1, 20, (5, 6), generator=torch.Generator().manual_seed(0))
    x[0, 3:] = 0
    return x


@pytest.mark.parametrize(
    ("module", "x", "n"),
    [
        (TransformerEncoder(20, 2, 6, d_model=8, n_heads=2, n_layers=2), words(), 2),
        (BiLSTMText(20, 2, embedding_dim=4, hidden_size=3, dense=5), words(), 1),
        (Recurrent(nn.GRU), torch.randn(5, 6, 3), 1),
        (Attending(), torch.randn(5, 4, 6), 1),
        (Attending(bias=False), torch.randn(5, 4, 6), 1),
    ],
)
def test_a_stand_in_computes_the_same_and_gives_its_weights_back(module: nn.Module, x: Tensor, n: int) -> None:
    with torch.no_grad():
        for p in module.parameters():  # biases of attention begin at zero, where mistakes do not show
            p.add_(0.1 * torch.randn_like(p))
    plain = copy.deepcopy(module)
    trained, found = put_stand_ins(module)
    assert len(found) == n and all_of(s.instead != s.layer for s in found)
    torch.testing.assert_close(trained.train()(x), plain.train()(x))
    with torch.no_grad():
        for p in trained.parameters():
            p.add_(0.1 * torch.randn_like(p))
    after = trained(x).detach()
    assert not torch.allclose(after, plain(x), atol=1e-3)
    weights_back(plain, trained, found)
    torch.testing.assert_close(plain(x), after)


def test_a_layer_that_is_the_whole_network() -> None:
    lstm = nn.LSTM(3, 4, batch_first=True)
    plain, x = copy.deepcopy(lstm), torch.randn(2, 5, 3)
    trained, found = put_stand_ins(lstm)
    assert [s.name for s in found] == [""] and type(trained).__name__ == "DPLSTM"
    weights_back(plain, trained, found)
    torch.testing.assert_close(trained(x)[0], plain(x)[0])


def test_frozen_layers_stay() -> None:
    module = Recurrent(nn.LSTM).requires_grad_(False)
    assert put_stand_ins(module) == (module, ())


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.BatchNorm1d(4), "BatchNorm1d.*torch.nn.GroupNorm"),
        (nn.BatchNorm2d(4), "BatchNorm2d.*torch.nn.GroupNorm"),
        (nn.InstanceNorm1d(4, affine=True, track_running_stats=True), "track_running_stats=False"),
        (nn.RNN(4, 4), "opacus.layers.DPRNN"),
        (nn.MultiheadAttention(4, 2), "batch_first=True"),
        (nn.Embedding(4, 2, max_norm=1.0), "max_norm"),
        (nn.Embedding(4, 2, scale_grad_by_freq=True), "scale_grad_by_freq"),
    ],
)
def test_what_has_no_stand_in_is_refused_with_what_to_use(layer: nn.Module, message: str) -> None:
    module, found = put_stand_ins(nn.Sequential(layer))
    assert not found
    with pytest.raises(ModelError, match=message):
        refuse_layers(module)


def test_weights_of_another_network_are_refused() -> None:
    trained, found = put_stand_ins(Recurrent(nn.LSTM))
    with pytest.raises(ModelError, match="do not fit"):
        weights_back(Recurrent(nn.GRU), trained, found)
