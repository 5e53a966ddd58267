"""Products with weights that were laid out for them once: torch lays a layer's weights out anew for every product.

Of few rows, as where texts are drawn a token at a time, that takes as long as multiplying them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# The copy of the weights takes as much memory as they do.
_MOST_BYTES = 2 << 30
# Fewer rows gain less than it takes to lay the weights out.
_FEWEST_ROWS = 1024


@contextmanager
def packed_products(network: nn.Module, rows: int) -> Iterator[None]:
    """Inside, linear layers multiply by weights laid out for it, where no gradient is taken.

    ``rows``: how many there will be to multiply. Only float32 on a processor with AVX-512, as far as weights are small
    enough to be held twice; elsewhere nothing is changed. Products are the same but for rounding. Inside, weights must
    stay as they are and the network must not be copied, for they would be multiplied by as they were.
    """
    layers = [m for m in network.modules() if type(m) is nn.Linear and _fits(m)]
    able = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"  # type: ignore[no-untyped-call]
    size = sum(m.weight.numel() * m.weight.element_size() for m in layers)
    if not able or rows < _FEWEST_ROWS or size > _MOST_BYTES:
        layers = []
    try:
        for layer in layers:
            laid_out = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach())
            layer.forward = functools.partial(_product, layer, laid_out)  # type: ignore[method-assign]
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _fits(layer: nn.Linear) -> bool:
    weight = layer.weight
    # What has a forward of its own is laid out already, or somebody's.
    return (weight.device.type, weight.dtype, weight.layout) == ("cpu", torch.float32, torch.strided) and (
        "forward" not in vars(layer)
    )


def _product(layer: nn.Linear, laid_out: Tensor, states: Tensor) -> Tensor:
    # What this product is made of has no gradient.
    if torch.is_grad_enabled():
        return nn.functional.linear(states, layer.weight, layer.bias)
    found: Tensor = torch.ops.mkldnn._linear_pointwise(states, laid_out, layer.bias, "none", [], "")
    return found
