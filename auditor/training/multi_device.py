"""Several devices that train one network together: processes of a ``torchrun`` or ``accelerate launch`` job."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from auditor.core.errors import MissingExtraError, ModelError, UsageError
from auditor.core.randomness import seeded_globals
from auditor.training.inspect_network import digest_of

if TYPE_CHECKING:
    from accelerate import Accelerator

Said = TypeVar("Said")
Gradients = Sequence[Tensor | None]


class Summing(Protocol):
    """Gradients of this process's share of a batch to those of the whole batch; None stays None."""

    def __call__(self, gradients: Gradients) -> Gradients:
        """The sums, in the same order."""
        ...


def as_they_are(gradients: Gradients) -> Gradients:
    """The gradients unchanged: on one device they are those of the whole batch."""
    return gradients


@runtime_checkable
class SharedStep(Protocol):
    """A step for several devices: it passes its gradients through ``summed`` before using them.

    Its loss must depend on the parameters of the first of ``modules`` through that module's outputs alone.
    """

    modules: Sequence[nn.Module]
    summed: Summing


class Devices:
    """A single device in one process, without sharing or synchronisation."""

    size = 1
    is_main = True

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = torch.device("cpu") if device is None else device

    def check(self, step: object, tensors: Sequence[Tensor], settings: str) -> None:
        """Raise UsageError or ModelError if ``step`` is not possible here on rows ``tensors``."""

    @contextmanager
    def sharing(self, step: object) -> Iterator[None]:
        """Context in which each device computes its share of every batch."""
        yield

    def from_main(self, value: Said) -> Said:
        """The first process's value, on all of them."""
        return value

    def check_one_network(self, modules: Sequence[nn.Module]) -> None:
        """Raise ModelError if the processes have different weights."""

    def close(self) -> None:
        """Leave the job."""


class SeveralDevices(Devices):
    """The processes of a job, one device each, that take every step of one training together.

    Each is given all rows and draws the same batches. Of a batch of b rows each passes ``ceil(b / size)`` through the
    network, in their order, and is handed the outputs of the others; so the loss is that of the whole batch on every
    process, whatever it is made of: a mean over rows, groups' means, a distance between groups. The gradient that
    reaches the own share's outputs is a part of the whole batch's, and the parts are summed over the processes. A
    process without a row, at the end of a ragged batch, takes part with nothing.

    ``is_main``: whether this is the process that prints and writes. What each draws for its share, as dropout does, is
    its own.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        super().__init__(accelerator.device)
        self.accelerator: Any = accelerator
        self.size = int(accelerator.num_processes)
        self.rank = int(accelerator.process_index)
        self.is_main = bool(accelerator.is_main_process)
        self._shared = False

    def check(self, step: object, tensors: Sequence[Tensor], settings: str) -> None:
        """Raise UsageError or ModelError if several devices cannot take ``step``, or have different inputs.

        settings: what the training depends on beside the step and its rows.
        """
        if not isinstance(step, SharedStep):
            raise UsageError(
                f"{type(step).__name__} takes its steps on one device: start one process, without torchrun or "
                "accelerate launch."
            )
        if tensors[0].device.type != self.device.type:
            raise UsageError(
                f"The rows are on {tensors[0].device} and this process has {self.device}: train on the device of "
                "devices_of_job()."
            )
        for name, layer in step.modules[0].named_modules():
            if isinstance(layer, _BatchNorm):
                raise ModelError(
                    f"The layer {name or 'that is the network'} ({type(layer).__name__}) normalises over the batch, of "
                    "which each device sees a part: replace it by GroupNorm or LayerNorm, or train on one device."
                )
        if not self._is_same_everywhere(settings, [*tensors, *_module_tensors(step.modules)]):
            raise UsageError(
                "The processes of the job were given different rows, weights or settings: give each the same, with the "
                "same seed; the batches are shared out."
            )

    @contextmanager
    def sharing(self, step: object) -> Iterator[None]:
        """Context in which a forward pass computes this process's rows and returns those of all."""
        assert isinstance(step, SharedStep)
        shares: list[_Share] = []
        draws = ExitStack()

        def take_share(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            if kwargs or not args or any(not isinstance(a, Tensor) or len(a) != len(args[0]) for a in args):
                raise ModelError(
                    f"{type(module).__name__} takes more than tensors of rows, which cannot be shared out: train on "
                    "one device."
                )
            share = _Share.for_rank(len(args[0]), self.rank, self.size)
            shares.append(share)
            # Drawn on every process, so that what they draw in common stays in step.
            seed = int(torch.randint(2**62, (1,)))
            draws.enter_context(seeded_globals(np.random.default_rng([seed, self.rank])))
            return tuple(share.take(a) for a in args), kwargs

        def join_outputs(module: nn.Module, args: object, output: Any) -> Tensor:
            draws.close()
            own = getattr(output, "logits", output)
            if not isinstance(own, Tensor):
                raise ModelError(f"{type(module).__name__} returns {type(own).__name__}, not a tensor of rows.")
            self._shared = True
            return shares.pop().gather_outputs(own, self.accelerator.gather)

        network = step.modules[0]
        hooks = [
            network.register_forward_pre_hook(take_share, with_kwargs=True),
            network.register_forward_hook(join_outputs),
        ]
        before, step.summed = step.summed, self._summed
        try:
            yield
        finally:
            step.summed = before
            draws.close()
            for hook in hooks:
                hook.remove()

    def _summed(self, gradients: Gradients) -> Gradients:
        if not self._shared:
            raise ModelError("No pass through the network was shared out, so there is no part of a gradient to sum.")
        self._shared = False
        found: list[Tensor | None] = list(gradients)
        for kind in dict.fromkeys(g.dtype for g in gradients if g is not None):
            places = [i for i, g in enumerate(gradients) if g is not None and g.dtype == kind]
            parts = [g for g in gradients if g is not None and g.dtype == kind]
            whole: Tensor = self.accelerator.reduce(torch.cat([g.reshape(-1) for g in parts]), reduction="sum")
            split = torch.split(whole, [g.numel() for g in parts])
            for place, part, values in zip(places, parts, split, strict=True):
                found[place] = values.view_as(part)
        return found

    def from_main(self, value: Said) -> Said:
        """The first process's value, on all of them."""
        from accelerate.utils import broadcast_object_list

        said: list[Said] = [value]
        broadcast_object_list(said, from_process=0)
        return said[0]

    def check_one_network(self, modules: Sequence[nn.Module]) -> None:
        """Raise ModelError if the processes have different weights."""
        if not self._is_same_everywhere("", _module_tensors(modules)):
            raise ModelError(
                "The processes of the job hold different weights, so that this is not one network: train on devices of "
                "one kind, or on one device."
            )

    def close(self) -> None:
        """Leave the job; the other processes continue until they leave."""
        self.accelerator.end_training()

    def _is_same_everywhere(self, settings: str, tensors: Sequence[Tensor]) -> bool:
        from accelerate.utils import gather_object

        parts = (settings, [(tuple(t.shape), digest_of(t)) for t in tensors])
        own = hashlib.sha256(repr(parts).encode()).hexdigest()
        return len(set(gather_object([own]))) == 1


def devices_of_job(accelerator: Accelerator | None = None) -> Devices:
    """The devices of this process's job: one, or one per process.

    accelerator: one's own ``accelerate.Accelerator``; by default one is made, on GPUs where there are any. Raises
    MissingExtraError where the job has several processes and accelerate is not installed, UsageError where accelerate
    does not see the other processes.
    """
    n = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator is None:
        if n == 1:
            return Devices(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        if importlib.util.find_spec("accelerate") is None:
            raise MissingExtraError("Several devices need accelerate: pip install 'responsible-auditor[distributed]'.")
        from accelerate import Accelerator

        # Without this, accelerate takes the processes of a job on CPUs for so many jobs of one.
        accelerator = Accelerator(cpu=not torch.cuda.is_available())
    if int(accelerator.num_processes) == 1:
        if n > 1:
            raise UsageError(
                f"The job has {n} processes, and the Accelerator counts one: on CPUs it must be Accelerator(cpu=True)."
            )
        return Devices(accelerator.device)
    return SeveralDevices(accelerator)


class _Share:
    """Rows ``start`` to ``stop`` of n, one process's share, of which each has ``most`` at most."""

    def __init__(self, n: int, most: int, start: int, stop: int) -> None:
        self.n, self.most, self.start, self.stop = n, most, start, stop

    @classmethod
    def for_rank(cls, n: int, rank: int, size: int) -> _Share:
        most = -(-n // size)
        return cls(n, most, min(rank * most, n), min((rank + 1) * most, n))

    def take(self, rows: Tensor) -> Tensor:
        """The share; where it is empty one row, since not every network takes none."""
        return rows[self.start : self.stop] if self.stop > self.start else rows[:1]

    def gather_outputs(self, outputs: Tensor, gather: Any) -> Tensor:
        """The outputs for all n rows, of which the share's own are differentiable."""
        own = outputs[: self.stop - self.start]
        padded = own.detach().new_zeros(self.most, *own.shape[1:])
        padded[: len(own)] = own.detach()
        whole: Tensor = gather(padded)
        return torch.cat([whole[: self.start], own, whole[self.stop : self.n]])


def _module_tensors(modules: Sequence[nn.Module]) -> list[Tensor]:
    return [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
