"""Compute dtype of a language model: that of its files, float32, or the one that a flag names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

Asked = Literal["auto", "bfloat16", "float16", "float32"]
COMPUTED = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def name_of(dtype: torch.dtype) -> str:
    """The name of a number format, such as ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


def stored_in(weights: Mapping[str, Tensor]) -> torch.dtype:
    """The dtype of most of a model's floating-point weights, which config.json may state wrongly.

    float32 where there are none.
    """
    sizes: dict[torch.dtype, int] = {}
    for tensor in weights.values():
        # Numbers of one byte are packed ones, which nothing is computed in.
        if tensor.is_floating_point() and tensor.element_size() > 1:
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.numel()
    return max(sizes, key=lambda dtype: (sizes[dtype], dtype.itemsize), default=torch.float32)


def computed_in(dtype_option: Asked, device: str, stored: torch.dtype) -> torch.dtype:
    """The number format to compute in.

    ``auto`` is float32 on a CPU: it holds float16 and bfloat16 exactly, where computing in bfloat16 itself moves the
    difference of two texts by tenths of a nat and takes longer. On a GPU it is what the files hold, float32 where that
    is none of the three.
    """
    if dtype_option != "auto":
        return COMPUTED[dtype_option]
    if torch.device(device).type == "cpu" or stored not in COMPUTED.values():
        return torch.float32
    return stored


def dtype_sentence(
    computed: torch.dtype, stored: torch.dtype, dtype_option: Asked, *, has_packed_weights: bool = False
) -> str:
    """The report's sentence on the compute dtype, its origin, and the dtype of the files.

    ``has_packed_weights``: they hold packed weights too.
    """
    by = "" if dtype_option == "auto" else ", as --dtype says"
    same = stored == computed
    exact = "" if same or computed.itemsize <= stored.itemsize else ", which it holds exactly"
    files = "its files, but for packed weights," if has_packed_weights else "its files"
    held = f"as {files} are" if same else f"and {files} hold {name_of(stored)}{exact}"
    less = computed.itemsize < 4
    more = " Sums are in float32 or better; computed in float32 it may answer otherwise." if less else ""
    return f"Computed in {name_of(computed)}{by}, {held}.{more}"
