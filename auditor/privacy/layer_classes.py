"""Layer facts for the linter of private training: classes, and layers that store statistics of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

_RUNNING = ("running_mean", "running_var")


def layer_names(module: nn.Module) -> tuple[str, ...]:
    """Class names of the module and of all modules in it."""
    return tuple(type(layer).__name__ for layer in module.modules())


def statistics_keepers(module: nn.Module) -> tuple[str, ...]:
    """Distinct class names of layers with a buffer for a running mean or variance, under any name."""
    found = (
        type(layer).__name__
        for layer in module.modules()
        if any(name in _RUNNING and b is not None for name, b in layer.named_buffers(recurse=False))
    )
    return tuple(dict.fromkeys(found))
