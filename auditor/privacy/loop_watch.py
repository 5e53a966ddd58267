"""Observation of a running private loop: batch sampling, optimizer steps, and the sensitivity of a step to one row.

Every step is checked to add fresh noise of the stated size, as Opacus optimizers add it to the clipped sum.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from auditor.core.errors import UsageError, first_line
from auditor.core.randomness import forked
from auditor.privacy.released_noise import Sensitivity

# A normal deviate that no training comes to: some 1e-12 a parameter and step.
_FAR = 7.0
# Of two draws of so many numbers, such a cosine is one draw twice.
_NUMBERS, _FEWEST, _ALIKE = 1024, 8, 0.999


class NoiseWatch:
    """Counts the draws of noise that each parameter's size and the draw before bear out; ``add`` draws the noise.

    The count tells nothing of the rows: it is a function of the noise alone, and the number of steps but for a chance
    of 1e-12 or so at each.
    """

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self.draws = 0
        self._last: Tensor | None = None
        self._add = optimizer.add_noise
        optimizer.add_noise = self.add

    def add(self, *arguments: Any, **keywords: Any) -> Any:
        """The optimizer's own ``add_noise``, observed."""
        found = self._add(*arguments, **keywords)
        noises = [_noise(p) for p in self.optimizer.params]
        multiplier = getattr(self.optimizer, "_adjusted_noise_multiplier", self.optimizer.noise_multiplier)
        stated = float(multiplier) * float(self.optimizer.max_grad_norm)
        some = max(noises, key=lambda noise: 0 if noise is None else noise.numel(), default=None)
        again = self._is_repeat(some)
        self.draws += stated > 0.0 and not again and all(n is not None and _as_large(n, stated) for n in noises)
        return found

    def detach(self) -> None:
        """Restore the optimizer."""
        self.optimizer.add_noise = self._add

    def _is_repeat(self, noise: Tensor | None) -> bool:
        last, self._last = self._last, None if noise is None else noise[:_NUMBERS].clone()
        if last is None or self._last is None or len(last) != len(self._last) or len(last) < _FEWEST:
            return False
        return float(torch.nn.functional.cosine_similarity(last, self._last, dim=0)) > _ALIKE


def _noise(p: Any) -> Tensor | None:
    if p.grad is None or getattr(p, "summed_grad", None) is None:
        return None
    noise: Tensor = (p.grad.detach().reshape(-1) - p.summed_grad.detach().reshape(-1)).float()
    return noise


def _as_large(noise: Tensor, deviation: float) -> bool:
    """Whether the squares are as large as chi-square says, by the cube root of Wilson and Hilferty (1931)."""
    n = noise.numel()
    mean = float(noise.double().square().mean()) / deviation**2
    spread = 2.0 / (9.0 * n)
    return bool(abs(math.cbrt(mean) - 1.0 + spread) <= _FAR * math.sqrt(spread))


T = TypeVar("T")
# Of batches of fewer rows, two alike are no wonder.
_ROWS_THAT_TELL = 8


class LoopWatch:
    """A counter of row draws and noise draws against steps, which also detects weight changes outside steps.

    The loop iterates over ``watch.batches(loader)`` instead of the loader; ``observations()`` gives the fields of
    :class:`~auditor.privacy.run_record.RunRecord` for :func:`auditor.privacy.observe_opacus.lint_setup`. Made before
    the first step, of the module and the optimizer that ``make_private`` returned; ``module`` may be only the part that
    is used. A logical step that Opacus cuts into physical batches is one draw. It keeps a copy of the trainable
    weights.
    """

    def __init__(self, module: nn.Module, optimizer: Any) -> None:
        self.module, self.optimizer = module, optimizer
        self.draws = self.rows_seen = self.steps_taken = self.repeated_draws = self.moved_outside_steps = 0
        self._skipped = False
        self._last = b""
        self._weights = self._copy_weights()
        inner = getattr(optimizer, "original_optimizer", optimizer)
        self._step = optimizer.step
        optimizer.step = self._ask
        self._noise = NoiseWatch(optimizer) if hasattr(optimizer, "add_noise") else None
        self._hooks = [inner.register_step_pre_hook(self._before_step), inner.register_step_post_hook(self._after_step)]

    def batches(self, loader: Iterable[T]) -> Iterator[T]:
        """The loader's batches, counted."""
        for batch in loader:
            # Physical parts of a logical batch are asked to step too, and are put off.
            if not self._skipped:
                self.draws += 1
            digest, rows = _digest(batch)
            self.repeated_draws += digest == self._last and rows >= _ROWS_THAT_TELL
            self._last = digest
            # Of tensors of different lengths the shortest: nobody is accused for a table beside the rows.
            self.rows_seen += min((len(tensor) for tensor in _tensors(batch) if tensor.dim()), default=0)
            yield batch

    def observations(self) -> dict[str, int]:
        """The observations so far, by the names of the record's fields."""
        self._compare()
        return (
            {
                "draws": self.draws,
                "steps_taken": self.steps_taken,
                "repeated_draws": self.repeated_draws,
                "moved_outside_steps": self.moved_outside_steps,
            }
            | ({"rows_seen": self.rows_seen, "steps_seen": self.draws} if self.draws else {})
            | ({} if self._noise is None else {"noise_draws": self._noise.draws})
        )

    def detach(self) -> None:
        """Restore the optimizer."""
        self.optimizer.step = self._step
        if self._noise is not None:
            self._noise.detach()
        for hook in self._hooks:
            hook.remove()

    def _ask(self, *arguments: Any, **keywords: Any) -> Any:
        taken = self.steps_taken
        found = self._step(*arguments, **keywords)
        self._skipped = self.steps_taken == taken and bool(getattr(self.optimizer, "_is_last_step_skipped", False))
        return found

    def _before_step(self, *_: Any) -> None:
        self._compare()

    def _after_step(self, *_: Any) -> None:
        self.steps_taken += 1
        self._weights = self._copy_weights()

    def _compare(self) -> None:
        now = self._copy_weights()
        # A weight that appears or goes, as adapters do, moved too.
        moved = now.keys() != self._weights.keys() or any(not torch.equal(now[n], w) for n, w in self._weights.items())
        self.moved_outside_steps += moved
        self._weights = now

    def _copy_weights(self) -> dict[str, Tensor]:
        return {n.removeprefix("_module."): p.detach().clone() for n, p in self.module.named_parameters()}


def _digest(batch: object) -> tuple[bytes, int]:
    """A digest of all tensors of a batch, and its rows."""
    found, rows = hashlib.sha256(), 0
    for tensor in _tensors(batch):
        rows = max(rows, len(tensor) if tensor.dim() else 0)
        found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return found.digest(), rows


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list) and value and isinstance(value[0], int):
        yield torch.tensor(value)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


# Of the clipping norm: what rounding leaves of a sum over a batch.
_SAME_SUM = 1e-2


@dataclass
class ClippingWatch:
    """Counters of steps with available per-row gradients, of their rows, and of sums that do not match them."""

    seen: int = 0
    wrong: int = 0
    rows: int = 0

    def look(self, optimizer: Any) -> None:
        """Compare ``summed_grad`` with ``sum_i g_i min(1, C / |g_i|)``, over all parameters together.

        Ghost clipping holds no gradients of rows, and a logical batch in parts only those of the last: neither is seen.
        """
        parameters = optimizer.params
        if getattr(optimizer, "_is_last_step_skipped", False) or any(
            getattr(p, "grad_sample", None) is None for p in parameters
        ):
            return
        rows = [optimizer._get_flat_grad_sample(p).detach() for p in parameters]
        norm = float(optimizer.max_grad_norm)
        lengths = torch.stack([r.flatten(1).norm(dim=1) for r in rows], dim=1).norm(dim=1)
        factors = (norm / (lengths + 1e-6)).clamp(max=1.0)
        apart = [
            (p.summed_grad.detach() - torch.einsum("i,i...", factors.to(r.dtype), r)).square().sum()
            for p, r in zip(parameters, rows, strict=True)
        ]
        self.seen += 1
        self.rows += len(rows[0])
        # A distance that is no number is none that is small.
        self.wrong += not float(torch.stack(apart).sum().sqrt()) <= _SAME_SUM * norm


TakeStep = Callable[[Tensor, Tensor], object]
LossPerRow = Callable[[Tensor, Tensor], Tensor]
LEFT_OUT, SMALL = 8, 4
# Rows this many times as long as they are: without clipping, theirs are the gradients that show it.
LONGER = 30.0


class _StepIsTakenError(Exception):
    """Ends a step before the parameters move."""


class _StepFailedError(Exception):
    """A step that could not be taken on these rows."""


def step_sensitivity(
    optimizer: Any,
    take_step: TakeStep,
    inputs: Tensor,
    targets: Tensor,
    *,
    module: nn.Module,
    max_grad_norm: float | None = None,
    scale: float | None = None,
    n_rows: int = LEFT_OUT,
) -> Sensitivity:
    """Take the loop's own step on a batch and on the batch without one row, without training the model.

    ``take_step(inputs, targets)``: what the loop does with a batch, from ``zero_grad`` to ``optimizer.step``.
    Generators are set back before each step, so that the noise of both is the same and cancels; dropout is off. The
    released sum is what the parameters' ``grad`` holds when the underlying optimizer is about to step, times ``scale``:
    what it was divided by, for Opacus' optimizers known. Where clipping is of each row's gradient, noise is added once
    and the divisor does not depend on the batch, one row moves it by at most ``max_grad_norm``. Not clipping, clipping
    after the mean, layers that mix rows, clipping each layer to the whole norm and dividing by the batch's own size
    move it by more. It can refute a bound, and shows none: another row might do more.

    Parameters, buffers, gradients, flags and generators are put back. Raises UsageError for fewer than two rows.
    """
    if len(inputs) < 2 or len(inputs) != len(targets):
        raise UsageError("Leaving one row out needs at least two rows, and a target for each.")
    norm = float(optimizer.max_grad_norm if max_grad_norm is None else max_grad_norm)
    # Read once: a divisor that follows the batch is one of the faults.
    step = _Step(
        optimizer=optimizer, take=take_step, module=module, scale=_divisor(optimizer) if scale is None else scale
    )
    n = min(n_rows, len(inputs))
    try:
        largest = _largest(step, inputs, targets, n)
    except _StepFailedError as error:
        return Sensitivity(largest=math.nan, n_rows=0, batch_rows=len(inputs), why_not=str(error))
    return Sensitivity(largest=largest / norm, n_rows=n, batch_rows=len(inputs))


def _largest(step: _Step, inputs: Tensor, targets: Tensor, n: int) -> float:
    """The largest distance of the sums with and without one of the first n rows, in the units of gradients."""
    largest = 0.0
    with step.put_back():
        if step.is_random(inputs, targets):
            # Attention drops out by itself, without a layer of it.
            freeze_randomness(step.module)
            if step.is_random(inputs, targets):
                raise _StepFailedError("the same rows give other gradients when they are asked again")
        for batch in _batches(inputs):
            largest = max(largest, _largest_influence(step, batch, targets, n))
            # A divisor that follows the batch shows most in a small one, which not every loop takes a step on.
            if len(batch) > SMALL:
                with suppress(_StepFailedError):
                    largest = max(largest, _largest_influence(step, batch[:SMALL], targets[:SMALL], min(n, SMALL)))
    return largest


def _largest_influence(step: _Step, inputs: Tensor, targets: Tensor, n: int) -> float:
    whole, largest = step.released(inputs, targets), 0.0
    for i in range(n):
        left = torch.arange(len(inputs), device=inputs.device) != i
        moved = _distance(whole, step.released(inputs[left], targets[left.to(targets.device)]))
        largest = max(largest, math.inf if math.isnan(moved) else moved)
    return largest


def freeze_randomness(module: nn.Module) -> None:
    """Set evaluation mode on modules without parameters and buffers: nothing is trained there, much is random."""
    for m in module.modules():
        if not any(True for _ in (*m.parameters(recurse=False), *m.buffers(recurse=False))):
            m.training = False


def plain_step(module: nn.Module, optimizer: Any, loss: LossPerRow) -> TakeStep:
    """The step of a loop with the mean of a per-row loss, or with its sum if Opacus is configured so."""

    def take(inputs: Tensor, targets: Tensor) -> None:
        optimizer.zero_grad()
        losses = loss(module(inputs), targets)
        total = losses.sum() if getattr(optimizer, "loss_reduction", "mean") == "sum" else losses.mean()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return take


def _batches(inputs: Tensor) -> Iterator[Tensor]:
    yield inputs
    if inputs.is_floating_point():
        yield inputs * LONGER


def _divisor(optimizer: Any) -> float:
    if getattr(optimizer, "loss_reduction", "sum") == "sum" or not optimizer.expected_batch_size:
        return 1.0
    return float(optimizer.expected_batch_size)


def _distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    return float(torch.stack([(a - b).square().sum() for a, b in zip(first, second, strict=True)]).sum().sqrt())


@dataclass(frozen=True, kw_only=True)
class _Step:
    """A loop's step, taken again and again from the same place."""

    optimizer: Any
    take: TakeStep
    module: nn.Module
    scale: float

    @property
    def _inner(self) -> Any:
        return getattr(self.optimizer, "original_optimizer", self.optimizer)

    @property
    def _parameters(self) -> list[Any]:
        return [p for group in self._inner.param_groups for p in group["params"] if p.requires_grad]

    def released(self, inputs: Tensor, targets: Tensor) -> list[Tensor]:
        """What a step on these rows releases, one tensor a parameter, as a sum over rows."""
        found: list[Tensor] = []

        def capture_gradients(*_: Any) -> None:
            found.extend(
                torch.zeros_like(p, dtype=torch.float64) if p.grad is None else p.grad.detach().double() * self.scale
                for p in self._parameters
            )
            raise _StepIsTakenError

        for p in self._parameters:
            p.grad, p.grad_sample, p.summed_grad = None, None, None
        handle = self._inner.register_step_pre_hook(capture_gradients)
        generators = self._generators()
        try:
            with forked(*(p.device for p in self._parameters)), torch.enable_grad():
                self.take(inputs, targets)
        except _StepIsTakenError:
            return found
        except (ValueError, RuntimeError) as error:
            raise _StepFailedError(f"the step raised {type(error).__name__}: {first_line(error)}") from error
        finally:
            handle.remove()
            for generator, state in generators:
                generator.set_state(state)
        raise _StepFailedError("the step given, from zero_grad to optimizer.step, took none on these rows")

    def is_random(self, inputs: Tensor, targets: Tensor) -> bool:
        """Whether the gradients of the same rows differ where the global generator does, the noise of Opacus apart."""
        noise = getattr(self.optimizer, "noise_multiplier", None)
        if noise is None:
            return False  # noise of the loop's own cannot be told from other randomness
        self.optimizer.noise_multiplier = 0.0
        try:
            first = self.released(inputs, targets)
            with forked(*(p.device for p in self._parameters)):
                torch.rand(7)
                second = self.released(inputs, targets)
        finally:
            self.optimizer.noise_multiplier = noise
        size = _distance(first, [torch.zeros_like(f) for f in first])
        return _distance(first, second) > 1e-5 * max(size, 1e-12)

    def _generators(self) -> list[tuple[torch.Generator, Tensor]]:
        own = getattr(self.optimizer, "generator", None)
        return [] if own is None else [(own, own.get_state())]

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Everything that a step touches is as it was afterwards; meanwhile dropout is off and nothing is accounted."""
        kept = [(p, p.grad, getattr(p, "grad_sample", None), getattr(p, "summed_grad", None)) for p in self._parameters]
        flags = [(m, m.training) for m in self.module.modules()]
        buffers = [(b, b.detach().clone()) for b in self.module.buffers()]
        hook = getattr(self.optimizer, "step_hook", None)
        skipped = getattr(self.optimizer, "_is_last_step_skipped", None)
        self.module.train()
        for m in self.module.modules():
            if isinstance(m, nn.modules.dropout._DropoutNd):
                m.eval()
        if hook is not None:
            self.optimizer.step_hook = None
        try:
            yield
        finally:
            for m, flag in flags:
                m.training = flag
                # Of a step that failed, Opacus' hooks still hold the inputs, and wait for a backward pass.
                getattr(m, "activations", []).clear()
            for p in self.module.parameters():
                if hasattr(p, "_forward_counter"):
                    p._forward_counter = 0
            with torch.no_grad():
                for b, before in buffers:
                    b.copy_(before)
            for p, gradient, samples, summed in kept:
                p.grad, p.grad_sample, p.summed_grad = gradient, samples, summed
            if hook is not None:
                self.optimizer.step_hook = hook
            if skipped is not None:
                self.optimizer._is_last_step_skipped = skipped
