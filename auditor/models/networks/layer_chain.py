"""Networks as sequences of layers: inferred from names and shapes of weights, or read from torch modules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from auditor.models.networks.architectures import MLP, SmallCNN

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


_MAX_LAYERS = 256


def layers_of(weights: Mapping[str, Tensor], *, in_order: bool) -> list[Layer] | None:
    """Linear layers, convolutions and batch norms that fit in sequence, or None if they do not.

    ``in_order``: whether the file keeps the order in which the layers were made. One that sorts them by name does not:
    there, two layers of one shape must be told apart by a number.
    """
    names = [name.rpartition(".")[0] for name in weights]
    stems = list(dict.fromkeys(names))
    if not 0 < len(stems) <= _MAX_LAYERS:
        return None
    if not in_order:
        stems = sorted(stems, key=lambda name: [(int(p), "") if p.isdigit() else (-1, p) for p in _parts(name)])
    layers = [_layer(stem, weights) for stem in stems]
    if not all(layers):
        return None
    found = [layer for layer in layers if layer is not None]
    return found if _fit(found) and (in_order or _told_apart(found)) else None


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"(\d+)", name) if part]


def _layer(stem: str, weights: Mapping[str, Tensor]) -> Layer | None:
    parts = {name.rpartition(".")[2]: tensor for name, tensor in weights.items() if name.rpartition(".")[0] == stem}
    weight, bias = parts.get("weight"), parts.get("bias")
    if weight is None or (bias is not None and tuple(bias.shape) != (weight.shape[0],)):
        return None
    norm = {"running_mean", "running_var"} <= set(parts)
    if norm and weight.dim() == 1 and bias is not None and set(parts) <= _NORM_PARTS:
        return Layer(stem, "batchnorm", len(weight), len(weight))
    if not set(parts) <= {"weight", "bias"}:
        return None
    if weight.dim() == 2:
        return Layer(stem, "linear", weight.shape[1], weight.shape[0], bias is not None)
    if weight.dim() == 4:
        kernel = (weight.shape[2], weight.shape[3])
        return Layer(stem, "conv", weight.shape[1], weight.shape[0], bias is not None, kernel)
    return None


_NORM_PARTS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


def _fit(layers: list[Layer]) -> bool:
    for before, after in zip(layers, layers[1:], strict=False):
        whole = after.taken % before.made == 0 if before.made else False
        # A picture that is laid out as one row has several numbers for each of its channels.
        spread = after.kind == "linear" and before.kind != "linear" and any(one.kind == "conv" for one in layers)
        if (before.kind == "linear" and after.kind == "conv") or not (before.made == after.taken or (spread and whole)):
            return False
    return layers[-1].kind == "linear"


def _told_apart(layers: list[Layer]) -> bool:
    seen: dict[tuple[str, int, int], Layer] = {}
    for layer in layers:
        other = seen.setdefault((layer.kind, layer.taken, layer.made), layer)
        if re.sub(r"\d+", "#", other.name) != re.sub(r"\d+", "#", layer.name):
            return False
    return True


def describe_layers(layers: list[Layer]) -> str:
    """The layers as a phrase."""
    words = {"linear": "linear", "conv": "convolution", "batchnorm": "batch norm"}
    return ", ".join(
        f"{words[one.kind]} {one.made}" if one.kind == "batchnorm" else f"{words[one.kind]} {one.taken} -> {one.made}"
        for one in layers[:12]
    ) + (", ..." if len(layers) > 12 else "")


# What these compute in evaluation mode is torch's word; a subclass may compute anything, so its type is no member.
KNOWN: tuple[type[nn.Module], ...] = (
    nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, EitherBatchNorm, nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid,
    nn.Flatten, nn.MaxPool2d, nn.AvgPool2d, PictureMean, nn.GroupNorm,
)  # fmt: skip
_NOTHING: tuple[type[nn.Module], ...] = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)


class NotASequenceError(Exception):
    """The reason why a network is not recognised as a sequence of such layers, as a clause."""


def layers_in_order(module: nn.Module, *, pictures: bool = False) -> tuple[nn.Module, ...]:
    """The layers of KNOWN whose composition equals the network in evaluation mode, in order.

    ``pictures``: of inputs (n, channels, h, w), else of (n, n_features).

    A network that is a module of a class of its own, or carries a hook or a method of its own, is refused: what such
    code computes can be watched on some inputs and never be known for all. Raises NotASequenceError.
    """
    layers = tuple(_unrolled(module, pictures))
    if not layers:
        raise NotASequenceError("it has no layers")
    for layer in layers:
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:
            raise NotASequenceError("its batch norm answers a row by the others beside it")
        for name, tensor in (*layer.named_parameters(), *layer.named_buffers()):
            if type(tensor) not in (Tensor, nn.Parameter):
                raise NotASequenceError(f"its {name} is a {type(tensor).__name__}, which may compute in its own way")
            if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
                raise NotASequenceError(f"its {name} is {str(tensor.dtype).removeprefix('torch.')}, not float32")
    return layers


def _unrolled(module: nn.Module, pictures: bool) -> Iterator[nn.Module]:
    kind = type(module)
    if _has_code(module):
        raise NotASequenceError(f"its {kind.__name__} carries a hook or a method of its own")
    if kind is nn.Sequential:
        for child in module.children():
            yield from _unrolled(child, pictures)
    elif kind is MLP and isinstance(module, MLP):
        yield from _unrolled(module.layers, pictures)
    elif kind is Chain and isinstance(module, Chain):
        for step in module.in_order(pictures=pictures):
            yield from _unrolled(step, pictures)
    elif kind is SmallCNN and isinstance(module, SmallCNN):
        yield from (*_unrolled(module.blocks, pictures), PictureMean(), *_unrolled(module.output, pictures))
    elif kind in KNOWN:
        yield module
    elif kind not in _NOTHING:
        what = getattr(module, "what", f"its {kind.__name__}")
        raise NotASequenceError(f"nothing says for all inputs what {what} computes")


def _has_code(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    return any(hooks) or any(callable(value) for value in _shadowing_attributes(module).values())


def _shadowing_attributes(module: nn.Module) -> dict[str, object]:
    """Attributes of the object itself that stand before those of its class."""
    return {name: value for name, value in vars(module).items() if hasattr(type(module), name)}
