"""What a linter of private training must know of a module's layers: their classes, and who keeps statistics of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

_RUNNING = ("running_mean", "running_var")


def layer_names(module: nn.Module) -> tuple[str, ...]:
    """Class names of the module and of all modules in it."""
    return tuple(type(layer).__name__ for layer in module.modules())


def statistics_keepers(module: nn.Module) -> tuple[str, ...]:
    """Class names, once each, of layers with a buffer for a running mean or variance, whatever they are called."""
    found = (
        type(layer).__name__
        for layer in module.modules()
        if any(name in _RUNNING and b is not None for name, b in layer.named_buffers(recurse=False))
    )
    return tuple(dict.fromkeys(found))
