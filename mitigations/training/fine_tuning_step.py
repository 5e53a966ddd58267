"""A fine-tuning step: any other step, with a learning rate that decays to zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from auditor.training.multi_device import Summing


class Taken(Protocol):
    """A step in the loop's form, on one device or several."""

    modules: Sequence[nn.Module]
    optimizers: Sequence[Optimizer]
    summed: Summing

    def __call__(self, batch: Sequence[Tensor]) -> Tensor: ...


class FineTuningStep:
    """A wrapper of ``step``; the rates of step t of ``n_steps`` are ``(1 - t / n_steps)`` times its own.

    A network that is to stay close to what it was, and to answer many sentences alike, ends nearer to both than at a
    constant rate.
    """

    def __init__(self, step: Taken, n_steps: int) -> None:
        self.step = step
        self.n_steps = n_steps
        self.optimizers: Sequence[Optimizer] = step.optimizers
        self._full = [[float(group["lr"]) for group in optimizer.param_groups] for optimizer in step.optimizers]
        self._count = _Count()
        self.modules: Sequence[nn.Module] = (*step.modules, self._count)

    @property
    def summed(self) -> Summing:
        """The summing method of the inner step."""
        return self.step.summed

    @summed.setter
    def summed(self, summed: Summing) -> None:
        self.step.summed = summed

    def __call__(self, batch: Sequence[Tensor]) -> Tensor:
        """One step."""
        left = max(1.0 - int(self._count.steps) / self.n_steps, 0.0)
        for optimizer, rates in zip(self.optimizers, self._full, strict=True):
            for group, full in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = full * left
        self._count.steps += 1
        return self.step(batch)


class _Count(nn.Module):
    """The steps taken, kept with the weights so that a resumed run knows."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
