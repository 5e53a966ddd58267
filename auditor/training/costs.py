"""The cost of a computation, counted instead of timed: reproducible, in seconds of one core."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

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
_RECURRENT = {"mkldnn_rnn_layer": 2, "mkldnn_rnn_layer_backward": 4, "_cudnn_rnn": 2, "_cudnn_rnn_backward": 4}
_CONVOLUTIONS = ("convolution", "convolution_backward")


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
        if name in _RECURRENT:
            steps = args[0].shape[0] * args[0].shape[1]
            self.flops += _RECURRENT[name] * steps * sum(t.numel() for t in _tensors(args[1:5]) if t.ndim == 2)
        elif name == "convolution_backward":
            # torch's own count takes each group of channels for all of them.
            gradient, _, weight = args[:3]
            self.flops += 2.0 * sum(args[-1][:2]) * gradient.numel() * weight[0].numel()
        elif packet in flop_registry:
            self.flops += flop_registry[packet](*args, **(kwargs or {}), out_val=out)
        self.primitive_calls += name in _RECURRENT or name in _CONVOLUTIONS
        return out


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
