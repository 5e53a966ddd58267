"""The cost of a computation, counted instead of timed: seconds of one core, operations of forward passes.

Layers are asked, and not the operations below them as the counted costs do: to watch those torch imports
what takes a second, more than most audits of a table may cost.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from auditor.core.randomness import seeded_globals
from auditor.models.torch_model import evaluating

if TYPE_CHECKING:
    from auditor.models.audited_model import AuditedModel

# Least squares of relative errors, over steps of 0.3 to 50 ms on one core of a server of 2023.
SECONDS_A_CALL = 6e-6
SECONDS_A_PRIMITIVE_CALL = 2e-4
FLOPS_A_SECOND = 1.5e11
BYTES_A_SECOND = 4.3e9

# What only looks at numbers that are there already.
_VIEWS = frozenset(
    "_reshape_alias _unsafe_view alias as_strided detach expand permute select slice split squeeze t transpose unbind "
    "unsqueeze view".split()
)
_RECURRENT_CALLS = {"mkldnn_rnn_layer": 2, "mkldnn_rnn_layer_backward": 4, "_cudnn_rnn": 2, "_cudnn_rnn_backward": 4}
_CONVOLUTION_CALLS = ("convolution", "convolution_backward")


@dataclass(frozen=True)
class Work:
    """Operations of torch: ``calls``: their number, ``primitive_calls``: those of convolutions and recurrent layers
    among them.

    ``flops``: multiplications and additions of matrix products, convolutions and recurrent layers. ``written``: bytes
    of all results.
    """

    calls: float = 0.0
    primitive_calls: float = 0.0
    flops: float = 0.0
    written: float = 0.0

    @property
    def starting(self) -> float:
        """Seconds for starting the operations, independent of their size."""
        return self.calls * SECONDS_A_CALL + self.primitive_calls * SECONDS_A_PRIMITIVE_CALL

    @property
    def seconds(self) -> float:
        """``calls c + primitive_calls p + flops / f + written / b`` seconds of one core, by the unit costs above."""
        return self.starting + self.flops / FLOPS_A_SECOND + self.written / BYTES_A_SECOND

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: float) -> Work:
        return Work(*(a * times for a in astuple(self)))

    def of_numbers(self, factor: float) -> Work:
        """The same number of calls, on ``factor`` times as many numbers."""
        return Work(self.calls, self.primitive_calls, self.flops * factor, self.written * factor)

    def extrapolate(self, twice: Work, factor: float) -> Work:
        """The work on ``factor`` times as many rows, if ``twice`` is that on two times as many."""
        return self + (twice + self * -1.0) * (factor - 1.0)


def work_of(computation: Callable[[], object]) -> Work:
    """The operations of one run of ``computation``, which is executed."""
    with _Counting() as counted:
        computation()
    return Work(counted.calls, counted.primitive_calls, counted.flops, counted.written)


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts each operation that reaches a device, below autograd and ``vmap``."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls = self.primitive_calls = 0
        self.flops = self.written = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        name = packet.__name__
        if name in _VIEWS:
            return out
        # One call on a list of tensors does the work of as many.
        self.calls += max(1, *(sum(1 for _ in _tensors(a)) for a in args), 1)
        self.written += sum(t.numel() * t.element_size() for t in _tensors(out))
        if name in _RECURRENT_CALLS:
            steps = args[0].shape[0] * args[0].shape[1]
            self.flops += _RECURRENT_CALLS[name] * steps * sum(t.numel() for t in _tensors(args[1:5]) if t.ndim == 2)
        elif name == "convolution_backward":
            # torch's own count takes each group of channels for all of them.
            gradient, _, weight = args[:3]
            self.flops += 2.0 * sum(args[-1][:2]) * gradient.numel() * weight[0].numel()
        elif packet in flop_registry:
            self.flops += flop_registry[packet](*args, **(kwargs or {}), out_val=out)
        self.primitive_calls += name in _RECURRENT_CALLS or name in _CONVOLUTION_CALLS
        return out


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)


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
