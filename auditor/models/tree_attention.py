"""Support of tree attention: networks that can read texts with shared prefixes as a forest, and their input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from auditor.models.prefix_trees import Forest

# Decoders whose attention takes a mask of our own with positions of our own; a test holds each of them to it.
TREE_ATTENTION = frozenset(
    {"gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "gpt_oss", "granite", "granitemoe", "llama", "mistral"}
    | {"mixtral", "olmo2", "olmoe", "phi", "phi3", "qwen2", "qwen3", "qwen3_moe", "smollm3"}
)


def reads_trees(network: nn.Module, longest: int) -> bool:
    """Whether a causal network can be given forests of texts of at most ``longest`` tokens."""
    config: Any = network.config
    window = getattr(config, "sliding_window", None)
    kernel = getattr(config, "_attn_implementation", None)
    return (
        getattr(config, "model_type", None) in TREE_ATTENTION
        and kernel in ("sdpa", "eager")
        and not (isinstance(window, int) and window < longest)
    )


def laid_out(network: nn.Module, rows: Sequence[Forest], pad: int, before: int = 0) -> dict[str, Tensor]:
    """Input of a causal network: (n_rows, length) ids, with mask and positions if any row branches.

    ``before``: how many tokens it has read that stand before every row.
    """
    length = max(len(row.tokens) for row in rows)
    inputs: dict[str, Tensor] = {"input_ids": filled_up([row.tokens for row in rows], length, pad)}
    # A row that is one chain needs no mask: what lies to the right is never looked at.
    if before or any(row.branches for row in rows):
        mask = ancestors(rows, length, next(network.parameters()).dtype)
        inputs["attention_mask"] = nn.functional.pad(mask, (before, 0))
        inputs["position_ids"] = filled_up([[before + depth for depth in row.depths] for row in rows], length, 0)
    return inputs


def filled_up(rows: Sequence[list[int]], length: int, rest: int) -> Tensor:
    """(n_rows, length) the rows, each padded at its end with ``rest``."""
    return torch.tensor([row + [rest] * (length - len(row)) for row in rows], dtype=torch.long)


def ancestors(rows: Sequence[Forest], length: int, dtype: torch.dtype) -> Tensor:
    """(n_rows, 1, length, length) attention bias: 0 for a token itself and its ancestors, else the minimum."""
    sees = np.zeros((len(rows), length, length), bool)
    sees[:, np.arange(length), np.arange(length)] = True
    for r, row in enumerate(rows):
        for node, parent in enumerate(row.parents):
            if parent >= 0:
                sees[r, node] |= sees[r, parent]
    mask = torch.zeros(sees.shape, dtype=dtype)
    return mask.masked_fill_(torch.from_numpy(~sees), torch.finfo(dtype).min).unsqueeze(1)
