"""Observation of a live Opacus set-up, as the record that the linter reads.

Nothing is trained: the trial takes gradients of a few rows and puts everything back. What cannot be seen from the
objects (how many runs there were, what the preprocessing was fitted on) is told by the caller, or stays unrecorded.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, WeightedRandomSampler

from auditor.core.errors import UsageError
from auditor.core.randomness import forked
from auditor.privacy.dp_linter import LintResult, lint
from auditor.privacy.loop_watch import (
    ClippingWatch,
    LossPerRow,
    TakeStep,
    freeze_randomness,
    plain_step,
    step_sensitivity,
)
from auditor.privacy.run_record import RecordedPhase, RunRecord, Sampler, layer_names, statistics_keepers

if TYPE_CHECKING:
    from opacus.accountants.accountant import IAccountant
    from opacus.optimizers import DPOptimizer

_TRIAL_ROWS = 4
_SAME_GRADIENT = 1e-3
_NOTHING = 1e-2
_ROUNDED = 1e-5
# A record is JSON, which has no infinity.
_LARGEST = 1e9


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The gradients of a few rows: names of parameters, and the share of clipped rows."""

    without_gradient: tuple[str, ...]
    wrong_gradient: tuple[str, ...]
    wrong_batch: tuple[str, ...]
    clipped_share: float | None


def lint_setup(
    module: nn.Module,
    optimizer: DPOptimizer,
    loader: DataLoader[Any],
    accountant: IAccountant | None = None,
    *,
    loader_before: DataLoader[Any] | None = None,
    loss: LossPerRow | None = None,
    batch: tuple[Tensor, Tensor] | None = None,
    step: TakeStep | None = None,
    told: Mapping[str, Any] | None = None,
) -> LintResult:
    """Problems in the results of ``make_private``: wrapped module, optimizer, loader, and accountant.

    ``loader_before``: the loader that was given to ``make_private``, whose sampler it silently drops. ``loss`` (one
    number a row) and ``batch`` (inputs, targets; a few rows that hold every kind) make a trial of the per-row
    gradients, and of how far one row moves the step: ``step(inputs, targets)``, what your loop does with a batch, by
    default the plain one of that loss. ``told``: fields of :class:`~auditor.privacy.run_record.RunRecord` that no
    object shows, such as ``n_trials``, ``preprocessing``, ``claimed_epsilon`` or ``delta``, or what
    :meth:`auditor.privacy.loop_watch.LoopWatch.observations` says of a loop that was watched.
    """
    return lint(
        observe(
            module,
            optimizer,
            loader,
            accountant,
            loader_before=loader_before,
            loss=loss,
            batch=batch,
            step=step,
            told=told,
        )
    )


def observe(
    module: nn.Module | None,
    optimizer: DPOptimizer,
    loader: DataLoader[Any] | None,
    accountant: IAccountant | None = None,
    *,
    loader_before: DataLoader[Any] | None = None,
    loss: LossPerRow | None = None,
    batch: tuple[Tensor, Tensor] | None = None,
    step: TakeStep | None = None,
    told: Mapping[str, Any] | None = None,
) -> RunRecord:
    """The record of a live set-up; arguments as of :func:`lint_setup`. ``told`` wins over what is seen.

    Of a module or loader that is None nothing is recorded.
    """
    seen: dict[str, Any] = _of_optimizer(optimizer) | _of_accountant(accountant)
    if loader is not None:
        seen |= {"n_rows": _n_rows(loader)} | _of_loader(loader)
    if loader_before is not None:
        before = sampler_of(loader_before)
        seen["batch_size"] = loader_before.batch_size
        if before not in ("shuffled", "in_order", "poisson"):
            seen["sampler"] = before
    if module is not None:
        seen["layers"], seen["running_statistics"] = layer_names(module), statistics_keepers(module)
        seen["not_moving"] = parameters_outside(module, optimizer)
    if module is not None and loss is not None and batch is not None:
        trial = try_gradients(module, loss, *batch, max_grad_norm=float(optimizer.max_grad_norm))
        seen["not_moving"] = tuple(dict.fromkeys((*seen["not_moving"], *trial.without_gradient)))
        seen["wrong_gradient"], seen["wrong_batch"] = trial.wrong_gradient, trial.wrong_batch
        # A few rows tell whether clipping can bind, not whether it always does.
        if len(batch[0]) >= 32:
            seen["clipped_share"] = trial.clipped_share
    if module is not None and batch is not None and (step is not None or loss is not None):
        take = step or plain_step(module, optimizer, cast(LossPerRow, loss))
        with _watched_clipping(optimizer) as clipping:
            moved = step_sensitivity(optimizer, take, *batch, module=module)
        seen["unclipped_steps"] = clipping.wrong if clipping.seen else None
        seen["step_sensitivity"] = None if moved.why_not else min(moved.largest, _LARGEST)
    seen |= dict(told or {})
    return RunRecord(**{k: v for k, v in seen.items() if v is not None})


@contextmanager
def _watched_clipping(optimizer: DPOptimizer) -> Iterator[ClippingWatch]:
    """Every step meanwhile is held against gradients clipped row by row, where the optimizer clips them as a whole."""
    from opacus.optimizers import DPOptimizer

    watch, add_noise = ClippingWatch(), optimizer.add_noise
    if type(optimizer) is not DPOptimizer:
        yield watch
        return

    def look_and_add_noise() -> None:
        watch.look(optimizer)
        add_noise()

    optimizer.add_noise = look_and_add_noise
    try:
        yield watch
    finally:
        optimizer.add_noise = add_noise


# ---- loader, optimizer, accountant -----------------------------------------------------------------------------------


def sampler_of(loader: DataLoader[Any]) -> Sampler:
    """The sampling of the loader's batches."""
    from opacus.utils.batch_memory_manager import BatchSplittingSampler
    from opacus.utils.uniform_sampler import DistributedUniformWithReplacementSampler, UniformWithReplacementSampler

    drawn: Any = loader.batch_sampler
    if isinstance(drawn, BatchSplittingSampler):
        drawn = drawn.sampler
    if isinstance(drawn, UniformWithReplacementSampler | DistributedUniformWithReplacementSampler):
        return "poisson"
    inner = getattr(drawn, "sampler", None)
    if isinstance(inner, WeightedRandomSampler):
        return "weighted"
    if isinstance(inner, RandomSampler):
        return "with_replacement" if inner.replacement else "shuffled"
    return "in_order" if isinstance(inner, SequentialSampler) else "other"


def _of_loader(loader: DataLoader[Any]) -> dict[str, Any]:
    from opacus.data_loader import CollateFnWithEmpty
    from opacus.utils.batch_memory_manager import BatchSplittingSampler

    drawn: Any = loader.batch_sampler
    split = isinstance(drawn, BatchSplittingSampler)
    drawn = drawn.sampler if split else drawn
    sampler = sampler_of(loader)
    n = _n_rows(loader)
    rate = getattr(drawn, "sample_rate", None)
    if rate is None and n and getattr(drawn, "batch_size", None):
        rate = min(drawn.batch_size / n, 1.0)
    found: dict[str, Any] = {"sampler": sampler, "sample_rate": rate}
    if sampler == "poisson":
        found["empty_batches"] = "kept" if isinstance(loader.collate_fn, CollateFnWithEmpty) else "dropped"
    else:
        found["empty_batches"] = "kept"
    found["virtual_steps"] = "batch_memory_manager" if split else None
    return found


def _of_optimizer(optimizer: DPOptimizer) -> dict[str, Any]:
    from opacus.optimizers import DPOptimizer

    if not isinstance(optimizer, DPOptimizer):
        raise UsageError(
            f"The optimizer is a {type(optimizer).__name__}, without clipping or noise: pass the one that make_private "
            "returned."
        )
    norm = optimizer.max_grad_norm
    return {
        "noise_multiplier": float(optimizer.noise_multiplier),
        "max_grad_norm": float(norm) if isinstance(norm, int | float) else None,
        "expected_batch_size": float(optimizer.expected_batch_size) if optimizer.expected_batch_size else None,
        "divided_by": "expected_batch_size" if optimizer.loss_reduction == "mean" else "nothing",
        "accumulated_batches": _accumulated(optimizer),
    }


def _accumulated(optimizer: DPOptimizer) -> int | None:
    samples = [getattr(p, "grad_sample", None) for p in optimizer.params]
    lists = [len(s) for s in samples if isinstance(s, list)]
    if lists:
        return max(lists)
    return 1 if any(s is not None for s in samples) else None


def _of_accountant(accountant: IAccountant | None) -> dict[str, Any]:
    if accountant is None:
        return {}
    found: dict[str, Any] = {"accountant": accountant.mechanism()}
    if accountant.history:
        found["phases"] = tuple(
            RecordedPhase(noise_multiplier=float(noise), sample_rate=min(float(rate), 1.0), steps=int(steps))
            for noise, rate, steps in accountant.history
        )
    return found


def _n_rows(loader: DataLoader[Any]) -> int | None:
    try:
        return len(loader.dataset)  # type: ignore[arg-type]
    except TypeError:  # an iterable data set has no length
        return None


# ---- parameters ------------------------------------------------------------------------------------------------------


def parameters_outside(module: nn.Module, optimizer: DPOptimizer) -> tuple[str, ...]:
    """Names of the module's trainable parameters that the optimizer does not contain, by identity."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return tuple(name for name, p in module.named_parameters() if p.requires_grad and id(p) not in held)


class Movement:
    """Detection of parameter changes: created before some steps, evaluated after them (opacus#820)."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._before = {name: p.detach().clone() for name, p in module.named_parameters()}

    def not_moving(self) -> tuple[str, ...]:
        """Trainable parameters that are bitwise unchanged; noise alone changes every parameter that is stepped."""
        now = dict(self._module.named_parameters())
        return tuple(n for n, b in self._before.items() if n not in now or self._is_unmoved(now[n], b))

    @staticmethod
    def _is_unmoved(parameter: nn.Parameter, before: Tensor) -> bool:
        return parameter.requires_grad and torch.equal(parameter.detach(), before)


def try_gradients(
    module: nn.Module, loss: LossPerRow, inputs: Tensor, targets: Tensor, *, max_grad_norm: float
) -> Trial:
    """Compare Opacus' per-row gradients of a batch with plain gradients of single rows, which are the reference.

    ``module``: the wrapped one. Dropout is off meanwhile. Parameters, buffers, gradients, flags and the global
    generator are put back. Raises UsageError for a module without per-row gradients or fewer than two rows.
    """
    if not hasattr(module, "disable_hooks") or not hasattr(module, "enable_hooks"):
        raise UsageError("The module has no per-row gradients: pass the one that make_private returned.")
    if len(inputs) < 2 or len(inputs) != len(targets):
        raise UsageError("A trial of the gradients needs at least two rows, and a target for each.")
    named = [(n.removeprefix("_module."), p) for n, p in module.named_parameters() if p.requires_grad]
    with _put_back(module):
        own = [p for _, p in named]
        rows = _per_row(module, loss, inputs, targets, own)
        if _gradients_differ(rows, _per_row(module, loss, inputs, targets, own)):
            # Attention drops out by itself, without a layer of it.
            freeze_randomness(module)
            rows = _per_row(module, loss, inputs, targets, own)
        alone = [_alone(module, loss, inputs, targets, i, named) for i in range(min(len(inputs), _TRIAL_ROWS))]
    without = tuple(n for (n, _), r in zip(named, rows, strict=True) if r is None)
    batch = tuple(n for (n, _), r in zip(named, rows, strict=True) if r is not None and len(r) != len(inputs))
    wrong = tuple(
        name
        for k, ((name, _), r) in enumerate(zip(named, rows, strict=True))
        if r is not None and len(r) == len(inputs) and any(_differs(r[i], one, k) for i, one in enumerate(alone))
    )
    norms = [r.reshape(len(r), -1).norm(dim=1) for r in rows if r is not None and len(r) == len(inputs)]
    share = None
    if norms:
        share = float((torch.stack(norms, 1).norm(dim=1) > max_grad_norm).double().mean())
    return Trial(without_gradient=without, wrong_gradient=wrong, wrong_batch=batch, clipped_share=share)


def _per_row(
    module: Any, loss: LossPerRow, inputs: Tensor, targets: Tensor, parameters: list[nn.Parameter]
) -> list[Tensor | None]:
    for p in parameters:
        p.grad, p.grad_sample = None, None  # type: ignore[attr-defined]
    module.enable_hooks()
    losses = loss(module(inputs), targets)
    total = losses.mean() if getattr(module, "loss_reduction", "mean") == "mean" else losses.sum()
    total.backward()  # type: ignore[no-untyped-call]
    found: list[Tensor | None] = []
    for p in parameters:
        rows: Any = getattr(p, "grad_sample", None)
        found.append(torch.cat(rows).detach() if isinstance(rows, list) else rows if rows is None else rows.detach())
    return found


def _gradients_differ(first: list[Tensor | None], second: list[Tensor | None]) -> bool:
    """Whether gradients of the same rows, asked for twice, are others."""
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    whole = max((float(a.abs().max()) for a, _ in pairs), default=0.0)
    return any(a.shape == b.shape and float((a - b).abs().max()) > _ROUNDED * whole for a, b in pairs)


def _alone(
    module: Any, loss: LossPerRow, inputs: Tensor, targets: Tensor, i: int, parameters: list[tuple[str, nn.Parameter]]
) -> list[Tensor | None] | None:
    module.disable_hooks()
    try:
        one = loss(module(inputs[i : i + 1]), targets[i : i + 1]).sum()
        return list(torch.autograd.grad(one, [p for _, p in parameters], allow_unused=True))
    except ValueError:  # a layer that refuses one row alone depends on the others
        return None
    finally:
        module.enable_hooks()


def _differs(row: Tensor, alone: list[Tensor | None] | None, k: int) -> bool:
    if alone is None:
        return True
    plain = alone[k]
    if plain is None:
        return bool((row != 0).any())
    if not bool(torch.isfinite(row).all() and torch.isfinite(plain).all()):
        return True
    # What is 0 but for rounding, as the gradient of attention's key bias is, is held against the whole gradient.
    whole = max((float(part.abs().max()) for part in alone if part is not None), default=0.0)
    scale = max(float(plain.abs().max()), float(row.abs().max()), _NOTHING * whole, 1e-6)
    return float((row - plain).abs().max()) > _SAME_GRADIENT * scale


@contextmanager
def _put_back(module: nn.Module) -> Iterator[None]:
    flags = [(m, m.training) for m in module.modules()]
    buffers = [(b, b.detach().clone()) for b in module.buffers()]
    kept = [(p, p.grad, getattr(p, "grad_sample", None)) for p in module.parameters()]
    hooks = getattr(module, "hooks_enabled", True)
    for p, _, _ in kept:
        p.grad, p.grad_sample = None, None  # type: ignore[attr-defined]
    module.train()
    for m in module.modules():
        if isinstance(m, nn.modules.dropout._DropoutNd):
            m.eval()
    try:
        with forked(*(p.device for p in module.parameters())), torch.enable_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Full backward hook is firing when gradients are computed")
            yield
    finally:
        module.hooks_enabled = hooks  # type: ignore[assignment]
        for m, flag in flags:
            m.training = flag
        with torch.no_grad():
            for b, before in buffers:
                b.copy_(before)
        for p, gradient, samples in kept:
            p.grad, p.grad_sample = gradient, samples  # type: ignore[attr-defined]
