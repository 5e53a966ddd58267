"""Where a network's weights lie, and networks that must be left there: spread over devices, offloaded, quantised."""

from __future__ import annotations

import torch
from torch import nn

_QUANTISED = ("Linear4bit", "Linear8bitLt")
_SAID = ("is_loaded_in_4bit", "is_loaded_in_8bit", "is_quantized")


def stays(module: nn.Module) -> bool:
    """Whether moving it would break it: accelerate has spread or offloaded its parts, or bitsandbytes packed them."""
    return any(
        bool(getattr(m, "hf_device_map", None))
        or hasattr(m, "_hf_hook")
        or any(getattr(m, name, False) is True for name in _SAID)
        or any(kind.__name__ in _QUANTISED for kind in type(m).__mro__)
        for m in module.modules()
    )


def moved(module: nn.Module, device: torch.device) -> nn.Module:
    """The network on a device, or where it is if it must be left there."""
    return module if stays(module) else module.to(device)


def device_of(module: nn.Module) -> torch.device:
    """Where its inputs go: of a network that accelerate spread or offloaded where its first part computes."""
    for m in module.modules():
        said = getattr(getattr(m, "_hf_hook", None), "execution_device", None)
        if said is not None:
            return torch.device(said)
    held = (p.device for p in module.parameters() if p.device.type != "meta")
    return next(held, torch.device("cpu"))
