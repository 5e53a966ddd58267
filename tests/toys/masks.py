"""Digits by small networks, honest ones and the same ones with a gradient that says nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import ImagePreprocessing
from auditor.models.networks.architectures import MLP, SmallCNN
from auditor.models.torch_model import TorchModel

CLASSES = tuple(str(digit) for digit in range(10))
PREPROCESSING = ImagePreprocessing(size=(8, 8), mean=(0.0,), std=(1.0,))


@cache
def digits() -> tuple[Any, Any]:
    """(1797, 8, 8, 1) pictures and their digits, shuffled."""
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    return np.round(found.images * 255.0 / 16.0).astype(np.uint8)[order][..., None], found.target[order]


def rows(n: int, labelled: bool = True) -> AuditData:
    """The last n of them, which no network has seen."""
    X, y = digits()
    first = len(X) - n
    return AuditData.from_arrays(X[first:], y[first:].astype(str) if labelled else None, classes=CLASSES)


class Flat(nn.Module):
    """A network of rows, of pictures."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(x.flatten(1))
        return found


def trained(net: nn.Module, epochs: int = 6, seed: int = 0, epsilon: float = 0.0) -> nn.Module:
    """The network after some passes over 1,200 pictures; with ``epsilon`` on what one gradient step makes of them."""
    X, y = digits()
    pictures = torch.from_numpy(X[:1200]).permute(0, 3, 1, 2) / 255.0
    labels = torch.from_numpy(y[:1200])
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(epochs):
        for few in torch.randperm(len(pictures), generator=generator).split(100):
            x = pictures[few]
            if epsilon:
                x = (x + epsilon * (2.0 * torch.rand(x.shape, generator=generator) - 1.0)).requires_grad_()
                (way,) = torch.autograd.grad(nn.functional.cross_entropy(net(x), labels[few]), x)
                x = torch.clamp(x.detach() + epsilon * way.sign(), 0.0, 1.0)
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), labels[few]).backward()
            optimizer.step()
    return net.eval()


@cache
def mlp(hidden: tuple[int, ...] = (64, 32), seed: int = 0, epsilon: float = 0.0) -> nn.Module:
    torch.manual_seed(seed)
    return trained(Flat(MLP(64, list(hidden), 10)), 12, seed, epsilon)


@cache
def cnn(width: int = 4, seed: int = 0, epsilon: float = 0.0) -> nn.Module:
    torch.manual_seed(seed)
    return trained(SmallCNN(1, 10, width=width), 6, seed, epsilon)


class Around(nn.Module):
    """What is made of a network's answer."""

    def __init__(self, net: nn.Module, answer: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.answer = net, answer

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.net, x)


class Steps(nn.Module):
    """Rounds as it goes, and hands back a gradient of the opposite sign."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(x)
        return 2.0 * found.detach() - found


def rescaled(net: nn.Module) -> nn.Module:
    """The same decisions, by gains that cancel: what comes back through the last two is below any float32."""
    found = copy.deepcopy(net)
    scale = 1.0
    for layer, gain in zip([m for m in found.modules() if isinstance(m, nn.Linear)], (1e34, 1e-12, 1e-34), strict=True):
        scale *= gain
        with torch.no_grad():
            layer.weight *= gain
            layer.bias *= scale
    return found


def scaled(net: nn.Module) -> nn.Module:
    return Around(net, lambda inner, x: 1000.0 * inner(x))


MASKS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "gains that cancel": rescaled,
    "rounded logits": lambda net: Around(net, lambda inner, x: torch.round(4.0 * inner(x)) / 4.0),
    "16 levels of input": lambda net: Around(net, lambda inner, x: inner(torch.round(15.0 * x) / 15.0)),
    "classes alone": lambda net: Around(
        net, lambda inner, x: 10.0 * nn.functional.one_hot(inner(x).argmax(dim=1), 10).float()
    ),
    "a detached graph": lambda net: Around(net, lambda inner, x: inner(x.detach())),
    "softmax(100 z)": lambda net: Around(net, lambda inner, x: torch.softmax(100.0 * inner(x), dim=1)),
    "noise": lambda net: Around(net, lambda inner, x: inner(x + 0.1 * torch.randn_like(x))),
    "a step activation": lambda net: Around(net, lambda inner, x: inner((x > 0.5).float() + 0.0 * x)),
    "the other way": Steps,
}
HONEST: dict[str, Callable[[], nn.Module]] = {
    **{f"MLP {h}": lambda h=h: mlp(h) for h in ((3,), (8,), (32,), (64, 32), (128,), (32, 32, 32))},  # type: ignore[misc]
    **{f"MLP trained at {e}": lambda e=e, s=s: mlp((64, 32), s, e) for s, e in enumerate((0.05, 0.1, 0.2))},  # type: ignore[misc]
    **{f"CNN {w}": lambda w=w: cnn(w) for w in (4, 8)},  # type: ignore[misc]
    **{f"CNN trained at {e}": lambda e=e, s=s: cnn(4, s + 1, e) for s, e in enumerate((0.05, 0.1, 0.2))},  # type: ignore[misc]
    "MLP x 1000": lambda: scaled(mlp()),
    "MLP trained, x 1000": lambda: scaled(mlp((64, 32), 1, 0.1)),
    "CNN x 1000": lambda: scaled(cnn()),
    "a linear model": lambda: mlp(()),
    "untrained": lambda: SmallCNN(1, 10, width=4).eval(),
    "tanh": lambda: trained(Flat(nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)))),
    "sigmoid": lambda: trained(Flat(nn.Sequential(nn.Linear(64, 32), nn.Sigmoid(), nn.Linear(32, 10)))),
}


def model(net: nn.Module, outputs: Any = "logits") -> TorchModel:
    """The network as an audited model of pictures."""
    return TorchModel(net.eval(), classes=CLASSES, preprocessing=PREPROCESSING, outputs=outputs)


def masked(name: str) -> TorchModel:
    """The plain network behind a mask."""
    return model(MASKS[name](mlp()), "probabilities" if name.startswith("softmax") else "logits")


@cache
def trained_well(width: int, epsilon: float) -> nn.Module:
    """A convolutional network that has learned long enough on adversarial pictures to withstand some."""
    torch.manual_seed(7)
    return trained(SmallCNN(1, 10, width=width), 40, 7, epsilon)
