"""A network is read as layers one after the other only where that is what it computes for every input."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from auditor.models.networks.architectures import MLP, MLPVote, SmallCNN
from auditor.models.networks.layer_chain import Between, Chain, Layer, NotASequenceError, layers_in_order
from tests.quantifiers import all_of

torch.set_num_threads(1)

DENSE = (Layer("a", "linear", 5, 7), Layer("n", "batchnorm", 7, 7), Layer("b", "linear", 7, 3))
PICTURES = (
    Layer("a", "conv", 2, 4, kernel=(3, 3)), Layer("n", "batchnorm", 4, 4), Layer("b", "conv", 4, 4, kernel=(3, 3)),
    Layer("c", "linear", 4, 3),
)  # fmt: skip


def settled(network: nn.Module) -> nn.Module:
    """The network with batch norms that have seen something, in evaluation mode."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean = torch.randn(module.num_features)
            module.running_var = 0.5 + torch.rand(module.num_features)
    return network.eval()


def composed(network: nn.Module, x: Tensor) -> Tensor:
    for layer in layers_in_order(network, pictures=x.dim() == 4):
        x = layer(x)
    return x


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (MLP(5, [4, 3], 2, dropout=0.5), (5,)),
        (nn.Sequential(nn.Identity(), nn.Sequential(nn.Linear(5, 3), nn.Tanh()), nn.Dropout(), nn.Linear(3, 2)), (5,)),
        (Chain(DENSE, Between()), (5,)),
        (Chain(DENSE, Between(activation="leaky_relu", batchnorm="after")), (5,)),
        (Chain(PICTURES, Between(head="mean", pool=2, padding=1)), (2, 12, 12)),
        (Chain(PICTURES, Between(head="mean", stride=2, batchnorm="after")), (2, 12, 12)),
        (SmallCNN(2, 3, width=4), (2, 12, 12)),
    ],
)
def test_layers_one_after_the_other_are_the_network_to_the_last_bit(network: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network, x = settled(network), torch.randn(9, *shape)
    with torch.no_grad():
        assert torch.equal(composed(network, x), network(x))


class Subclass(nn.Linear):
    """Another layer under the face of one that is known."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).round()


class ByHand(nn.Module):
    """A network whose forward is somebody's code."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 2))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found


def hooked() -> nn.Module:
    network = nn.Sequential(nn.Linear(5, 2))
    network[0].register_forward_hook(lambda module, taken, made: made.detach())
    return network


def looked_at_first() -> nn.Module:
    network = nn.Sequential(nn.Linear(5, 2))
    network.register_forward_pre_hook(lambda module, taken: (taken[0].round(),))
    return network


def replaced() -> nn.Module:
    network = nn.Sequential(nn.Linear(5, 2))
    network[0].forward = lambda x: x.round()[:, :2]
    return network


def parametrized() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(5, 2)))


class Coded(Tensor):
    """Weights that may answer as they like."""


def coded() -> nn.Module:
    network = nn.Sequential(nn.Linear(5, 2))
    del network[0].weight
    network[0].register_buffer("weight", torch.ones(2, 5).as_subclass(Coded))
    return network


REFUSED: list[tuple[Callable[[], nn.Module], str]] = [
    (lambda: nn.Sequential(Subclass(5, 2)), "Subclass"),
    (ByHand, "ByHand"),
    (hooked, "hook"),
    (looked_at_first, "hook"),
    (replaced, "method of its own"),
    (coded, "Coded"),
    (parametrized, "ParametrizedLinear"),
    (lambda: MLPVote(2, 5, [3], 1), "MLPVote"),
    (lambda: nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4)), "LayerNorm"),
    (lambda: nn.Sequential(nn.Linear(5, 2)).half(), "float16"),
    (lambda: nn.Sequential(nn.BatchNorm1d(5, track_running_stats=False), nn.Linear(5, 2)), "batch norm"),
    (lambda: nn.Sequential(nn.Dropout()), "no layers"),
]


@pytest.mark.parametrize(("make", "why"), REFUSED)
def test_what_may_compute_anything_is_refused_and_named(make: Callable[[], nn.Module], why: str) -> None:
    with pytest.raises(NotASequenceError, match=why):
        layers_in_order(make())


def test_only_types_of_torch_and_of_our_own_are_read() -> None:
    from auditor.models.networks.layer_chain import KNOWN

    assert all_of(kind.__module__.split(".")[0] in ("torch", "auditor") for kind in KNOWN)
