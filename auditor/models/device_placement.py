"""Device placement of a network's weights, and networks that must not move: sharded, offloaded, quantised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from auditor.core.errors import MissingExtraError, ModelError

Spread = Literal["auto", "balanced", "sequential"]
_QUANTISED = ("Linear4bit", "Linear8bitLt")
_SAID = ("is_loaded_in_4bit", "is_loaded_in_8bit", "is_quantized")


def stays(module: nn.Module) -> bool:
    """Whether the module must not move: accelerate sharded or offloaded it, or bitsandbytes packed it."""
    return any(
        bool(getattr(m, "hf_device_map", None))
        or hasattr(m, "_hf_hook")
        or any(getattr(m, name, False) is True for name in _SAID)
        or any(kind.__name__ in _QUANTISED for kind in type(m).__mro__)
        for m in module.modules()
    )


def move_module(module: nn.Module, device: torch.device) -> nn.Module:
    """The network on a device, or on its present device if it must not be moved."""
    return module if stays(module) else module.to(device)


def move_tensor(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; from pinned memory for a GPU, so that the CPU does not wait."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def exact_products(device: str) -> None:
    """Turn off reduced precision on a GPU: by default torch rounds the factors of convolutions to 10 bits.

    For a process of its own, since it holds for all of it.
    """
    if torch.device(device).type == "cuda":
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False


def device_of(module: nn.Module) -> torch.device:
    """The input device of a network: that of its first part, if accelerate sharded or offloaded it."""
    for m in module.modules():
        said = getattr(getattr(m, "_hf_hook", None), "execution_device", None)
        if said is not None:
            return torch.device(said)
    held = (p.device for p in module.parameters() if p.device.type != "meta")
    return next(held, torch.device("cpu"))


def spread(
    sketch: nn.Module, strategy: Spread, dtype: torch.dtype, most: Mapping[Any, int] | None = None
) -> dict[str, int | str]:
    """Assignment of a network's layers to GPUs by accelerate: in order, no layer split.

    ``strategy``: ``sequential`` fills one card after another, the others give all about as much. ``most``: bytes by
    card, all that is free by default. Raises MissingExtraError without accelerate, ModelError where the cards do not
    hold all of it: what is left would be read from the machine's memory or a disk for every batch.
    """
    try:
        from accelerate import infer_auto_device_map
        from accelerate.utils import get_balanced_memory, get_max_memory
    except ImportError:
        raise MissingExtraError(
            "--device-map needs accelerate: pip install 'responsible-auditor[distributed]'."
        ) from None
    whole: list[str] = sorted(getattr(sketch, "_no_split_modules", None) or ())
    free = get_max_memory() if most is None else dict(most)
    if strategy != "sequential":
        free = get_balanced_memory(sketch, max_memory=free, no_split_module_classes=whole, dtype=dtype)
    sketch.tie_weights()  # type: ignore[operator]
    found: dict[str, int | str] = infer_auto_device_map(
        sketch, max_memory=free, no_split_module_classes=whole, dtype=dtype
    )
    beside = sorted({str(where) for where in found.values()} & {"cpu", "disk"})
    if beside:
        kinds = " and ".join(beside)
        raise ModelError(
            f"The cards do not hold this model: parts of it would lie in memory of the kind {kinds}, and be read from "
            "there for every batch. Use --dtype bfloat16, more cards, or --device cpu.",
            code="AUD-LOAD-LIMIT",
        )
    return found


def told_spread(strategy: Spread, parts: Mapping[str, int | str] | None, device: str) -> str:
    """The report's sentence on a network's device placement; ``parts`` is None for an unsharded network."""
    if parts is None:
        return f"--device-map {strategy}: computed on {device}, one device, so that nothing was spread."
    counted = Counter(f"cuda:{where}" if isinstance(where, int) else str(where) for where in parts.values())
    told = ", ".join(f"{n} part{'s' * (n > 1)} on {where}" for where, n in sorted(counted.items()))
    return f"Spread over devices by --device-map {strategy}: {told}."
