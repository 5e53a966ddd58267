"""Operations of a network's forward passes: counted once for one row of each shape.

Layers are asked, and not the operations below them as :mod:`auditor.training.costs` does: to watch those torch imports
what takes a second, more than most audits of a table may cost.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from auditor.core.randomness import seeded_globals
from auditor.models.torch_model import evaluating

if TYPE_CHECKING:
    from auditor.models.audited_model import AuditedModel

# Texts of all lengths have as many shapes.
_MOST_SHAPES = 64
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_RECURRENT = (nn.RNN, nn.LSTM, nn.GRU)
# They have parameters and multiply no matrices.
_CHEAP = (
    nn.Embedding, nn.EmbeddingBag, nn.PReLU, nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d,
    nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
)  # fmt: skip
_KNOWN = (nn.Linear, *_CONVOLUTIONS, *_TRANSPOSED, *_RECURRENT, *_CHEAP)
_OF_ONE: weakref.WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], float]] = weakref.WeakKeyDictionary()


def flops_of(
    model: AuditedModel, went_in: Mapping[tuple[Any, ...], int]
) -> tuple[float | None, Literal["", "counted", "estimated"]]:
    """Operations for the rows or tokens counted by ``forwarded``; None if undeterminable.

    A row of zeros of each shape goes through the network once in its life; global generators are left as they were.
    """
    network = getattr(model, "module", None)
    if not isinstance(network, nn.Module):
        return None, ""
    if model.kind == "language_model":
        return 2.0 * sum(p.numel() for p in network.parameters()) * went_in.get(("tokens",), 0), "estimated"
    of_one = _OF_ONE.setdefault(network, {})
    if len({*of_one, *went_in}) > _MOST_SHAPES or any(
        m._parameters and type(m) not in _KNOWN for m in network.modules()
    ):
        return None, ""
    try:
        for key in went_in:
            if key not in of_one:
                of_one[key] = _of_a_row(model, network, key)
    except Exception:  # a network of somebody's own, which has no answer about zeros
        return None, ""
    return sum(n * of_one[key] for key, n in went_in.items()), "counted"


def _of_a_row(model: AuditedModel, network: nn.Module, key: tuple[Any, ...]) -> float:
    dtype, *shape = key
    inputs = torch.zeros((1, *shape), dtype=dtype, device=getattr(model, "device", "cpu"))
    found = 0.0

    def count(layer: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        nonlocal found
        found += _of_layer(layer, args[0], out) if args else 0.0

    with torch.no_grad(), seeded_globals(np.random.default_rng(0)), evaluating(network):
        hook = register_module_forward_hook(count)
        try:
            network(inputs)
        finally:
            hook.remove()
    return found


def _of_layer(layer: nn.Module, inputs: Tensor, out: Any) -> float:
    """Multiplications and additions of a layer's products."""
    if isinstance(layer, nn.Linear):
        return 2.0 * int(out.numel()) * layer.in_features
    if isinstance(layer, _CONVOLUTIONS):
        return 2.0 * int(out.numel()) * layer.weight[0].numel()
    if isinstance(layer, _TRANSPOSED):
        return 2.0 * inputs.numel() * layer.weight[0].numel()
    if isinstance(layer, _RECURRENT):
        weights: list[Tensor] = [p for name, p in layer.named_parameters() if name.startswith("weight")]
        return 2.0 * inputs.numel() / inputs.shape[-1] * sum(w.numel() for w in weights)
    return 0.0
