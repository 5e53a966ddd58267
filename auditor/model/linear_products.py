"""Matrix products of networks on a processor, by the quicker of torch's two libraries for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# With fewer rows neither library is the quicker one.
_FEWEST_ROWS = 64
# Input, weight and bias of the product by which it is told whether oneDNN's is right.
_TRIED = ((2, 64, 24), (40, 24), (40,))


def quick_products() -> AbstractContextManager[object]:
    """Inside, without gradients, linear layers in float32 on a processor are computed by oneDNN.

    torch itself gives them to MKL, which takes a tenth longer on an AMD EPYC; sums may differ in their last digits.
    Nothing changes where torch was built without oneDNN.
    """
    by_onednn = _by_onednn()
    return nullcontext() if by_onednn is None or torch.is_grad_enabled() else _Quick(by_onednn)


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
        all(type(each) in (Tensor, nn.Parameter) for each in (x, weight))
        and all(each.dtype == torch.float32 and each.device.type == "cpu" for each in (x, weight))
        and weight.layout == torch.strided
        and weight.is_contiguous()
        and x.numel() >= _FEWEST_ROWS * x.shape[-1] > 0
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
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
            own = found(x, weight, bias, "none", [], "")
            right = torch.allclose(own, nn.functional.linear(x, weight, bias), rtol=1e-5, atol=1e-5)
    except (AttributeError, RuntimeError):
        return None
    return found if right else None
