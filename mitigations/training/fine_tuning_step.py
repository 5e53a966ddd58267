"""One step of fine-tuning: a plain one, with a learning rate that falls to nothing by the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from auditor.training.loop import PlainStep


class FineTuningStep(PlainStep):
    """Minimises ``loss(batch)``; the rate of step t of ``n_steps`` is ``(1 - t / n_steps)`` times the optimizer's own.

    A network that is to stay close to what it was, and to answer many sentences alike, ends nearer to both than at a
    constant rate.
    """

    def __init__(
        self, module: nn.Module, optimizer: Optimizer, loss: Callable[[Sequence[Tensor]], Tensor], n_steps: int
    ) -> None:
        super().__init__(module, optimizer, loss)
        self.n_steps = n_steps
        self._full = [float(group["lr"]) for group in optimizer.param_groups]
        self._count = _Count()
        self.modules: Sequence[nn.Module] = (module, self._count)

    def __call__(self, batch: Sequence[Tensor]) -> Tensor:
        """One step of the optimizer."""
        (optimizer,) = self.optimizers
        left = max(1.0 - int(self._count.steps) / self.n_steps, 0.0)
        for group, full in zip(optimizer.param_groups, self._full, strict=True):
            group["lr"] = full * left
        self._count.steps += 1
        return super().__call__(batch)


class _Count(nn.Module):
    """The steps taken, kept with the weights so that a resumed run knows."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
