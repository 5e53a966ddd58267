"""One training loop for all training: seeded, resumable, with early stopping if validation rows are given."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from auditor.core.errors import ModelError, UsageError
from auditor.core.files import write_beside
from auditor.core.randomness import seeded_globals
from auditor.training.multi_device import Devices, Summing, as_they_are

if TYPE_CHECKING:
    from auditor.models.audited_model import Recipe

_CHECKPOINT_FORMAT = "auditor-training/1"


class Step(Protocol):
    """One optimisation step on a batch: the only difference between training methods.

    ``modules``: what it trains, the audited network first. Called with the batch's tensors, each (b, ...), in the order
    in which they were given; returns the batch's mean loss, detached. Several devices take only steps that are a
    :class:`auditor.training.multi_device.SharedStep` as well.
    """

    modules: Sequence[nn.Module]
    optimizers: Sequence[torch.optim.Optimizer]

    def __call__(self, batch: Sequence[Tensor]) -> Tensor:
        """Changes the modules once and returns the mean loss over the batch, a scalar."""
        ...


class PlainStep:
    """A step that minimises ``loss(batch)``, a scalar mean, over a module's parameters with one optimizer.

    On a GPU the forward pass runs in bfloat16 where the device has it (``torch.autocast``); the gradient's norm is
    clipped to ``max_grad_norm`` where that is given.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Callable[[Sequence[Tensor]], Tensor],
        *,
        max_grad_norm: float | None = None,
    ) -> None:
        self.modules: Sequence[nn.Module] = (module,)
        self.optimizers: Sequence[torch.optim.Optimizer] = (optimizer,)
        self.loss = loss
        self.max_grad_norm = max_grad_norm
        self.summed: Summing = as_they_are

    def __call__(self, batch: Sequence[Tensor]) -> Tensor:
        """One step of the optimizer."""
        (optimizer,) = self.optimizers
        optimizer.zero_grad(set_to_none=True)
        with mixed_precision(batch[0].device):
            loss = self.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        sum_gradients(self.modules[0], self.summed)
        if self.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.modules[0].parameters(), self.max_grad_norm)
        optimizer.step()
        return loss.detach()


def sum_gradients(module: nn.Module, summed: Summing) -> None:
    """Gradients of the parameters for the whole batch, if several devices share it."""
    if summed is as_they_are:
        return
    parameters = list(module.parameters())
    for parameter, gradient in zip(parameters, summed([p.grad for p in parameters]), strict=True):
        parameter.grad = gradient


def optimizer_of(recipe: Recipe, parameters: Sequence[Tensor], *, fused: bool = False) -> torch.optim.Optimizer:
    """torch's own optimizer with the recipe's settings.

    Raises ModelError for one that is none of adam, adamw and sgd.

    ``fused``: torch's kernel that does a step in one operation, equal up to rounding.
    """
    shared: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay, "fused": fused or None}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=recipe.momentum, **shared)
    if recipe.optimizer in ("adam", "adamw"):
        return (torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam)(parameters, **shared)
    raise ModelError(f"The recipe's optimizer {recipe.optimizer!r} is none of adam, adamw and sgd.")


def in_half_precision(device: torch.device) -> bool:
    """Whether forward passes use bfloat16: on a GPU that supports it."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def mixed_precision(device: torch.device) -> AbstractContextManager[object]:
    """Context with bfloat16 forward passes on a GPU that supports it; no effect elsewhere."""
    return torch.autocast("cuda", dtype=torch.bfloat16) if in_half_precision(device) else nullcontext()


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Duration and batches of a training: ``epochs`` at most, or exactly without validation.

    ``seed`` decides the order of the rows and whatever is drawn from global generators inside a step, such as dropout.
    ``patience``: epochs without a better validation after which the search ends.
    """

    epochs: int
    batch_size: int
    seed: int = 0
    patience: int = 10


@dataclass(frozen=True)
class History:
    """A training's result: ``losses`` and ``validations`` by epoch; ``epoch``: the one with the kept weights."""

    losses: tuple[float, ...] = ()
    validations: tuple[float, ...] = ()
    epoch: int = 0


@dataclass
class _State:
    losses: list[float] = field(default_factory=list)
    validations: list[float] = field(default_factory=list)
    best: float = math.inf
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)


def train(
    step: Step,
    tensors: Sequence[Tensor],
    schedule: Schedule,
    *,
    validate: Callable[[], float] | None = None,
    checkpoint: Path | None = None,
    fingerprint: Mapping[str, object] | None = None,
    progress: Callable[[str], None] | None = None,
    devices: Devices | None = None,
) -> History:
    """Train ``step.modules`` in place on rows (n, ...) of ``tensors``, and return the history.

    ``validate``: a number, smaller being better, taken in evaluation mode after each epoch; the first module ends with
    the weights of its best epoch. Without one it ends with those of the last. ``checkpoint``: a file that is written
    after each epoch; where it is there already, training goes on from it and comes to the same weights as if it had
    never been interrupted. ``fingerprint``: what the run depends on beside the schedule, so that another run's
    checkpoint is refused. ``devices``: those of a job of several processes, from ``devices_of_job()``; each is given
    all rows, and all end with the same weights. The first one alone writes the checkpoint and says how it goes.

    Modules end in evaluation mode; global generators are left as they were. Raises ModelError where the loss is no
    longer finite, UsageError where the checkpoint is not of this run, or several devices cannot take the step.
    """
    devices = devices or Devices()
    if schedule.epochs < 1 or schedule.batch_size < 1 or schedule.patience < 1:
        raise UsageError("Epochs, batch size and patience must each be at least 1.")
    n = len(tensors[0])
    if not n or any(len(t) != n for t in tensors):
        raise UsageError("There are no rows to train on, or tensors of different lengths.")
    order, draws = (torch.Generator().manual_seed(schedule.seed ^ salt) for salt in (0, 1))
    state = _State()
    key = _key(schedule, n, fingerprint)
    devices.check(step, tensors, f"{key} {schedule.epochs} {validate is None}")
    if checkpoint is not None:
        # Of the first process: the others may have other disks.
        found = devices.from_main(_content(checkpoint) if devices.is_main else None)
        if found is not None:
            _resume(checkpoint, found, key, step, state, order, draws)
    while len(state.losses) < schedule.epochs and not _ended(state, schedule, validate):
        with devices.sharing(step):
            state.losses.append(_epoch(step, tensors, schedule.batch_size, order, draws))
        devices.check_one_network(step.modules)
        if validate is not None:
            _validate(step, validate, state, devices)
        if progress is not None and devices.is_main:
            progress(_epoch_text(state, schedule))
        if checkpoint is not None and devices.is_main:
            _write(checkpoint, key, step, state, order, draws)
    if validate is not None:
        step.modules[0].load_state_dict(state.best_weights)
    for module in step.modules:
        module.eval()
    kept = state.best_epoch if validate is not None else len(state.losses)
    return History(tuple(state.losses), tuple(state.validations), kept)


def _ended(state: _State, schedule: Schedule, validate: Callable[[], float] | None) -> bool:
    return validate is not None and len(state.losses) - state.best_epoch >= schedule.patience and bool(state.losses)


def _epoch(
    step: Step, tensors: Sequence[Tensor], batch_size: int, order: torch.Generator, draws: torch.Generator
) -> float:
    for module in step.modules:
        module.train()
    n, device = len(tensors[0]), tensors[0].device
    places = torch.randperm(n, generator=order).to(device)
    total, seen = torch.zeros((), device=device), 0
    with seeded_globals(np.random.default_rng(int(torch.randint(2**62, (1,), generator=draws)))):
        for batch in torch.split(places, batch_size):
            # Layers that normalise over the batch refuse a batch of one.
            if len(batch) == 1 and n > 1:
                continue
            total += step([t[batch] for t in tensors]).float() * len(batch)
            seen += len(batch)
    loss = float(total) / seen
    if not math.isfinite(loss):
        raise ModelError("The loss became infinite or NaN in training: lower the learning rate.")
    return loss


def _validate(step: Step, validate: Callable[[], float], state: _State, devices: Devices) -> None:
    for module in step.modules:
        module.eval()
    with torch.no_grad():
        # One number decides when all of them stop.
        found = devices.from_main(float(validate()))
    state.validations.append(found)
    if found < state.best or not state.best_weights:
        state.best, state.best_epoch = found, len(state.losses)
        state.best_weights = {k: v.detach().clone() for k, v in step.modules[0].state_dict().items()}


def _epoch_text(state: _State, schedule: Schedule) -> str:
    words = f"epoch {len(state.losses)} of {schedule.epochs}, loss {state.losses[-1]:.4f}"
    return f"{words}, validation {state.validations[-1]:.4f}" if state.validations else words


def _key(schedule: Schedule, n: int, fingerprint: Mapping[str, object] | None) -> str:
    # The number of epochs may be raised: what was trained so far is the beginning of either run.
    parts = [schedule.batch_size, schedule.seed, schedule.patience, n, sorted((fingerprint or {}).items())]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _write(path: Path, key: str, step: Step, state: _State, order: torch.Generator, draws: torch.Generator) -> None:
    content = io.BytesIO()
    torch.save(
        {
            "format": _CHECKPOINT_FORMAT,
            "key": key,
            "modules": [m.state_dict() for m in step.modules],
            "optimizers": [o.state_dict() for o in step.optimizers],
            "generators": [order.get_state(), draws.get_state()],
            "state": dict(vars(state)),
        },
        content,
    )
    write_beside(path, content.getvalue())


def _content(path: Path) -> bytes | None:
    """What an earlier run wrote, or None where there was none."""
    if not path.exists():
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} is no checkpoint of a training ({error.strerror}): name another file.") from error


def _resume(
    path: Path, content: bytes, key: str, step: Step, state: _State, order: torch.Generator, draws: torch.Generator
) -> None:
    try:
        found: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        of_this_run = found["format"] == _CHECKPOINT_FORMAT and found["key"] == key
    except Exception as error:  # whatever torch raises on what is no archive of its own
        raise UsageError(f"{path} is no checkpoint of a training: delete it, or name another file.") from error
    if not of_this_run:
        raise UsageError(f"{path} is the checkpoint of another run: delete it, or name another file.")
    for module, weights in zip(step.modules, found["modules"], strict=True):
        module.load_state_dict(weights)
    for optimizer, moments in zip(step.optimizers, found["optimizers"], strict=True):
        optimizer.load_state_dict(moments)
    for generator, where in zip((order, draws), found["generators"], strict=True):
        generator.set_state(where)
    state.__dict__.update(found["state"])
