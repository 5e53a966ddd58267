"""A sequence of layers inferred from weight shapes, with the parameters that shapes do not determine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
}


@dataclass(frozen=True)
class Layer:
    """A layer with weights: its name in the file, its kind, its input and output sizes; ``kernel`` if convolution."""

    name: str
    kind: Literal["linear", "conv", "batchnorm"]
    taken: int
    made: int
    bias: bool = True
    kernel: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Between:
    """The operations between layers.

    ``batchnorm``: before the activation or after it. Of convolutions: ``padding`` and ``stride`` of each, maximum
    pooling by ``pool`` after each, and how the ``head`` makes a picture one row.
    """

    activation: str = "relu"
    batchnorm: Literal["before", "after"] = "before"
    padding: int = 0
    stride: int = 1
    pool: int = 1
    head: Literal["flatten", "mean"] = "flatten"


class Chain(nn.Module):
    """Fully connected or convolutional layers in order: (n, n_features) or (n, channels, h, w) to (n, n_outputs)."""

    def __init__(self, layers: Sequence[Layer], settings: Between) -> None:
        super().__init__()
        self.between = settings
        self.order = [layer.kind for layer in layers]
        self.layers = nn.ModuleList(_module(layer, settings) for layer in layers)
        self.activation = ACTIVATIONS[settings.activation]()

    def forward(self, x: Tensor) -> Tensor:
        for step in self.in_order(pictures=x.dim() == 4):
            x = step(x)
        return x

    def in_order(self, *, pictures: bool) -> Iterator[nn.Module]:
        """The network's operations on its input, in order; ``pictures``: for (n, channels, h, w) input."""
        last = max(i for i, kind in enumerate(self.order) if kind != "batchnorm")
        for i, (kind, layer) in enumerate(zip(self.order, self.layers, strict=True)):
            follows = self.order[i + 1] if i + 1 < len(self.order) else ""
            if kind == "linear" and pictures:
                yield PictureMean() if self.between.head == "mean" else nn.Flatten()
                pictures = False
            late = kind == "batchnorm" and self.between.batchnorm == "after"
            yield layer
            waits = follows == "batchnorm" and self.between.batchnorm == "before"
            if i < last and not late and not waits and not (i == 0 and kind == "batchnorm"):
                yield self.activation
            if self.between.pool > 1 and pictures and follows != "batchnorm":
                yield nn.MaxPool2d(self.between.pool)


class PictureMean(nn.Module):
    """(n, channels, h, w) to the mean of each channel, (n, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


def _module(layer: Layer, settings: Between) -> nn.Module:
    if layer.kind == "linear":
        return nn.Linear(layer.taken, layer.made, bias=layer.bias)
    if layer.kind == "conv":
        return nn.Conv2d(
            layer.taken, layer.made, layer.kernel, stride=settings.stride, padding=settings.padding, bias=layer.bias
        )
    return EitherBatchNorm(layer.made)


class EitherBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation for both rows and images."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any."""
