"""Several devices that train one network together, and the ranks of a distributed job with their batches."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from auditor.core.errors import Code, DataError, MissingExtraError, ModelError, UsageError
from auditor.core.randomness import seeded_globals
from auditor.core.rows import FloatArray
from auditor.training.inspect_network import digest_of

if TYPE_CHECKING:
    from accelerate import Accelerator

    from auditor.data.audit_data import AuditData

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


_OUT_OF_STEP = "The ranks of the job were not asked the same: on one of them the probe ended early."


class Ranks:
    """The processes of a ``torchrun`` job, in a gloo group of their own with a timeout of ``timeout_s`` seconds.

    Batches are whole and the same however many ranks there are: a row in another batch is rounded another way, and
    some decisions would flip. Batch i is computed by rank ``i % size`` and every rank is handed every answer, bit by
    bit. So each rank has the same numbers as one alone would, counts and histograms among them, and any probe works,
    those too that ask about rows of their own. What travels is one float for each row and class.

    A rank that fails says so to the others and is a ModelError on all. Each message says what it answers, so that ranks
    that were asked different things notice, and meet again at the end of the probe. One that is gone makes the wait end
    by the timeout; from then on ``broken`` says why, and nothing is waited for again.
    """

    def __init__(self, timeout_s: float) -> None:
        import torch.distributed as dist

        self._dist = dist
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self.broken = ""
        self._lost = ""
        self._asked = 0
        self._group: Any = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))

    def over_batches(self, one: Callable[[int], FloatArray], starts: Sequence[int]) -> list[FloatArray]:
        """``[one(start) for start in starts]``, each computed by one rank. Raises ModelError where a rank fails."""
        if self._lost:
            raise ModelError(self._lost)
        self._asked += 1
        own: dict[int, FloatArray] = {}
        failed: tuple[int, str, Code | None] | None = None
        for i in range(self.rank, len(starts), self.size):
            try:
                own[i] = np.asarray(one(starts[i]))
            except ModelError as error:
                failed = i, str(error), error.code
                break
            except Exception as error:
                failed = i, f"{type(error).__name__}: {error}", None
                break
        answers = self._gathered(("batches", self._asked, len(starts)), (failed, own))
        failures = [failed for failed, _ in answers if failed is not None]
        if failures:
            # The first batch that fails, as for one process alone.
            _, message, code = min(failures, key=lambda failure: failure[0])
            raise ModelError(message, code=code)
        parts = {i: batch for _, answered in answers for i, batch in answered.items()}
        return [parts[i] for i in range(len(starts))]

    def end_of_probe(self, failure: str) -> str:
        """Synchronisation of the ranks after each probe: the reason for NOT_RUN on all, or "" if none failed."""
        lost, self._lost = self._lost, ""
        asked, self._asked = self._asked, 0
        if lost:
            return failure or lost
        try:
            reasons = self._gathered(("end", asked), failure)
        except ModelError as error:
            self._lost = ""
            return failure or str(error)
        return next((f"On rank {rank}: {reason}" for rank, reason in enumerate(reasons) if reason), "")

    def agreed(self, mine: bool) -> bool:
        """The decision of rank 0, on every rank: clocks differ, and ranks must not wait for each other."""
        return bool(self._gathered(("agree",), mine)[0])

    def same_rows(self, data: AuditData) -> None:
        """Raise DataError if the ranks got different rows."""
        parts = (data.X, data.y_true, data.sensitive_features, data.is_member, data.target_values)
        found = hashlib.sha256(pickle.dumps(parts, protocol=5)).hexdigest()
        if len(set(self._gathered(("rows",), found))) > 1:
            raise DataError("The ranks were given different rows: give each rank all rows; the batches are shared out.")

    @contextmanager
    def one_network(self, module: nn.Module) -> Iterator[None]:
        """Context with rank 0's buffers on all ranks, as in its checkpoint; each rank's own are restored.

        Statistics of batches differ between the ranks. Raises ModelError where the parameters do.
        """
        import torch

        weights = [digest_of(p) for p in module.parameters()]
        buffers = [b for b in module.buffers() if b.numel()]
        of_rank_0 = [b.detach().cpu() for b in buffers] if self.rank == 0 else []
        said = self._gathered(("network",), (weights, of_rank_0))
        if any(other != said[0][0] for other, _ in said):
            raise ModelError("The ranks hold different weights: this is not one model.")
        own = [b.detach().clone() for b in buffers]

        def fill(values: Sequence[torch.Tensor]) -> None:
            with torch.no_grad():
                for buffer, value in zip(buffers, values, strict=True):
                    buffer.copy_(value)

        fill(said[0][1])
        try:
            yield
        finally:
            fill(own)

    def _gathered(self, tag: tuple[object, ...], mine: Any) -> list[Any]:
        if self.broken:
            raise ModelError(self.broken)
        found: list[Any] = [None] * self.size
        try:
            self._dist.all_gather_object(found, (tag, mine), group=self._group)
        except RuntimeError as error:
            first = str(error).splitlines()[0][:200]
            self.broken = f"Another rank did not answer, so the audit stopped in this job: {first}"
            raise ModelError(self.broken) from error
        if any(other != tag for other, _ in found):
            self._lost = _OUT_OF_STEP
            raise ModelError(_OUT_OF_STEP)
        return [answer for _, answer in found]


def join_ranks(timeout_s: float) -> Ranks | None:
    """The ranks of this job, or None where it has one process. Every rank has to call it."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return None
    return Ranks(timeout_s)
