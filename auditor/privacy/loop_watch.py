"""Observation of a running private loop: batch sampling, optimizer steps, and weight changes in between.

Every step is checked to add fresh noise of the stated size, as Opacus optimizers add it to the clipped sum.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

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
        self.draws = self.steps_taken = self.repeated_draws = self.moved_outside_steps = 0
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
            yield batch

    def observations(self) -> dict[str, int]:
        """The observations so far, by the names of the record's fields."""
        self._compare()
        return {
            "draws": self.draws,
            "steps_taken": self.steps_taken,
            "repeated_draws": self.repeated_draws,
            "moved_outside_steps": self.moved_outside_steps,
        } | ({} if self._noise is None else {"noise_draws": self._noise.draws})

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
