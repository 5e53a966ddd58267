"""Matrix products of networks on a CPU, by the faster of torch's two libraries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# With fewer rows neither library is the quicker one.
_FEWEST_ROWS = 64
# To lay weights out takes as long as some hundred rows gain by it, and as much memory as there are weights.
_FEWEST_IN_ALL, _MOST_BYTES = 1024, 2 << 30
# Input, weight and bias of the product by which it is told whether oneDNN's is right.
_TRIED = ((2, 64, 24), (40, 24), (40,))

_TILE = 2048


def quick_products() -> AbstractContextManager[object]:
    """Context in which float32 linear layers on a CPU, without gradients, are computed by oneDNN.

    torch itself gives them to MKL, which takes a tenth longer on an AMD EPYC; sums may differ in their last digits.
    Nothing changes where torch was built without oneDNN.
    """
    by_onednn = _by_onednn()
    return nullcontext() if by_onednn is None or torch.is_grad_enabled() else _Quick(by_onednn)


@contextmanager
def laid_out_once(network: object, rows: int) -> Iterator[None]:
    """Context like :func:`quick_products` with weights reordered once instead of at each product.

    Of few rows, as where texts are drawn a token at a time, that takes as long as to multiply them. ``rows``: how many
    there will be in all. Nothing changes where they are few, weights are too large to be held twice, or it is no module
    of torch. Inside, weights must stay as they are, and the network must not be copied: the products would be those of
    before.
    """
    by_onednn = _by_onednn()
    parts = network.modules() if isinstance(network, nn.Module) else ()
    layers = [m for m in parts if type(m) is nn.Linear and _plain(m.weight) and "forward" not in vars(m)]
    if by_onednn is None or rows < _FEWEST_IN_ALL or 4 * sum(m.weight.numel() for m in layers) > _MOST_BYTES:
        yield
        return
    try:
        for layer in layers:
            layer.forward = partial(_product, by_onednn, layer, _laid_out(layer.weight.detach()))  # type: ignore[method-assign]
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _laid_out(weight: Tensor) -> Tensor:
    found: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return found


def _product(by_onednn: Callable[..., Tensor], layer: nn.Linear, laid_out: Tensor, x: Tensor) -> Tensor:
    if torch.is_grad_enabled() or x.dtype != torch.float32:
        return nn.functional.linear(x, layer.weight, layer.bias)
    return by_onednn(x, laid_out, layer.bias, "none", [], "")


class _Quick(TorchFunctionMode):
    def __init__(self, by_onednn: Callable[..., Tensor]) -> None:
        super().__init__()
        self.by_onednn = by_onednn

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is nn.functional.linear and not kwargs and _fits(*args[:2]):
            x, weight, *bias = args
            return self.by_onednn(x, weight, bias[0] if bias else None, "none", [], "")
        return func(*args, **(kwargs or {}))


def _fits(x: Tensor, weight: Tensor) -> bool:
    """Whether it is a plain product in float32, and of enough rows."""
    return (
        type(x) in (Tensor, nn.Parameter)
        and (x.dtype, x.device.type) == (torch.float32, "cpu")
        and _plain(weight)
        and x.numel() >= _FEWEST_ROWS * x.shape[-1] > 0
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


def _plain(weight: Tensor) -> bool:
    return (
        type(weight) in (Tensor, nn.Parameter)
        and (weight.dtype, weight.device.type, weight.layout) == (torch.float32, "cpu", torch.strided)
        and weight.is_contiguous()
    )


@lru_cache(maxsize=1)
def _by_onednn() -> Callable[..., Tensor] | None:
    """oneDNN's product as torch has it for compiled networks, or None where it has none that is right."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    try:
        found: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise.default
        x, weight, bias = (torch.linspace(-1.0, 1.0, math.prod(shape)).reshape(shape) for shape in _TRIED)
        with torch.no_grad():
            plain = nn.functional.linear(x, weight, bias)
            own, again = (found(x, each, bias, "none", [], "") for each in (weight, _laid_out(weight)))
            right = all(torch.allclose(each, plain, rtol=1e-5, atol=1e-5) for each in (own, again))
    except (AttributeError, RuntimeError):
        return None
    return found if right else None


def pick_log_probabilities(logits: Tensor, row_numbers: Tensor, targets: Tensor) -> Tensor:
    """(n,) float64 log-probabilities of the targets by the rows ``row_numbers`` of logits, (n_places, vocabulary)."""
    wide = logits.float()
    return (wide[row_numbers, targets] - torch.logsumexp(wide, dim=-1)[row_numbers]).double().cpu()


def tiled_log_probabilities(states: Tensor, head: nn.Linear, row_numbers: Tensor, targets: Tensor) -> Tensor:
    """(n,) float64 log-probabilities of the targets by the last layer of states (n_places, width), in vocabulary tiles.

    A tile of logits stays in the processor's cache and its weights are read once, which whole rows of them are not. On
    a CPU all of it is in float32: logits rounded to half of its digits are off by hundredths of a nat each.
    """
    # Where a network is spread, its last layer may lie on another card than what goes into it.
    states, row_numbers, targets = (each.to(head.weight.device) for each in (states, row_numbers, targets))
    wide = torch.float32 if states.device.type == "cpu" else states.dtype
    weights = torch.split(head.weight, _TILE)
    offsets = [None] * len(weights) if head.bias is None else torch.split(head.bias, _TILE)
    parts = [
        torch.logsumexp(
            nn.functional.linear(states.to(wide), w.to(wide), b if b is None else b.to(wide)).float(), dim=-1
        )
        for w, b in zip(weights, offsets, strict=True)
    ]
    total = torch.logsumexp(torch.stack(parts), dim=0)
    picked = (states[row_numbers].float() * head.weight[targets].float()).sum(dim=-1)
    if head.bias is not None:
        picked = picked + head.bias[targets].float()
    return (picked - total[row_numbers]).double().cpu()
