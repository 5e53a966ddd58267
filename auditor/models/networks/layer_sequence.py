"""A network as a sequence of torch layers, read from modules with known computation, without running it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from auditor.models.networks.architectures import MLP
from auditor.models.networks.layer_chain import Chain, EitherBatchNorm, PictureMean

# What these compute in evaluation mode is torch's word; a subclass may compute anything, so its type is no member.
KNOWN: tuple[type[nn.Module], ...] = (
    nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, EitherBatchNorm, nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid,
    nn.Flatten, nn.MaxPool2d, nn.AvgPool2d, PictureMean,
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
    elif kind in KNOWN:
        yield module
    elif kind not in _NOTHING:
        raise NotASequenceError(f"nothing says for all inputs what its {kind.__name__} computes")


def _has_code(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    return any(hooks) or any(callable(value) for value in _shadowing_attributes(module).values())


def _shadowing_attributes(module: nn.Module) -> dict[str, object]:
    """Attributes of the object itself that stand before those of its class."""
    return {name: value for name, value in vars(module).items() if hasattr(type(module), name)}
