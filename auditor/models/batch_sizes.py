"""Batch sizes of a network: limited by free memory on a GPU, chosen for the caches on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

# Tokens of a forward pass on a CPU: more of them leave its caches.
ON_CPU = 512
_MOST_TOKENS, _MOST_ROWS = 1 << 16, 4096
# The rest is for weights that are read, logits, and what the allocator keeps.
_SHARE = 4


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a GPU, including torch's unused reserve; None for any other device."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def tokens_at_once(network: nn.Module, free: int | None) -> int:
    """Tokens per forward pass of a language model for a share of ``free`` bytes; the CPU's number for None.

    A token takes what a layer makes of it, inputs and outputs of attention and feed-forward both, and its row of
    attention in float32, were that made. A power of two, so that a few bytes more or less are the same batches.
    """
    if free is None:
        return ON_CPU
    config: Any = network.config
    held = next((p for p in network.parameters() if p.is_floating_point()), None)
    size = 4 if held is None else held.element_size()
    width = int(getattr(config, "hidden_size", 1024))
    inner = int(getattr(config, "intermediate_size", None) or 4 * width)
    heads = int(getattr(config, "num_attention_heads", 16))
    row = min(int(getattr(config, "max_position_embeddings", None) or 2048), 2048)
    a_token = size * (12 * width + 3 * inner) + 2 * 4 * heads * row
    return max(ON_CPU, min(_MOST_TOKENS, _power_of_two(free // _SHARE // a_token)))


def rows_at_once(network: nn.Module, row: Tensor, least: int, free: int | None) -> int:
    """Rows per forward pass of a classifier for a share of ``free`` bytes; ``least`` of them for None.

    ``row``: (1, ...) one input, of the largest size. It takes what all layers make of it, as if gradients were kept.
    """
    if free is None:
        return least
    made = 0

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal made
        if isinstance(output, Tensor):
            made += output.numel() * output.element_size()

    leaves = [module for module in network.modules() if not any(True for _ in module.children())]
    handles = [module.register_forward_hook(count) for module in leaves]
    try:
        with torch.inference_mode():
            network(row)
    finally:
        for handle in handles:
            handle.remove()
    return max(least, min(_MOST_ROWS, _power_of_two(free // _SHARE // max(made, 1))))


def _power_of_two(n: int) -> int:
    return 1 << max(n.bit_length() - 1, 0)
