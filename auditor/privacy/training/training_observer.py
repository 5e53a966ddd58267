"""Observations of a private training for its record, without information about any single row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from auditor.core.errors import ModelError
from auditor.models.audited_model import SeenInTraining
from auditor.models.output_kind import as_logits
from auditor.models.torch_model import TorchModel
from auditor.privacy.loop_watch import LoopWatch
from auditor.privacy.observe_opacus import Movement, try_gradients
from auditor.privacy.sensitivity import SLACK
from auditor.privacy.step_sensitivity import step_sensitivity
from auditor.privacy.training.private_gradients import LayerOutputs, Way

# Of epsilon, for the count of rows whose gradients are clipped; rows that it is a count of.
SHARE, COUNTED_ROWS = 0.02, 512
_DRAWN_ROWS, _LEFT_OUT = 12, 4
_AT_ONCE = 64


class Witness:
    """Observer of one Opacus training from before its first step; ``observations()`` returns its observations.

    What would be learned from the training rows is asked of rows drawn at random instead, of the same shape: whether
    per-row gradients are those of the rows, and how far one row moves a step. Raises ModelError, before any training,
    where they are not, or where one moves it by more than the clipping norm.
    """

    def __init__(self, model: TorchModel, optimizer: Any, way: Way, step: Callable[[Tensor, Tensor], object]) -> None:
        self._model, self._optimizer, self._way = model, optimizer, way
        self._private: nn.Module = model.module
        self._step = step
        self._clipped = 0.0

    def look(self, x: Tensor, y: Tensor, *, epsilon: float, rng: np.random.Generator) -> LoopWatch:
        """Make the observations before the first step; the count of clipped rows of x, y costs ``epsilon``.

        ``rng``: secret, as the noise of the steps is.
        """
        drawn = random_rows(self._private, x, _DRAWN_ROWS), torch.arange(_DRAWN_ROWS, device=y.device) % 2
        if self._way == "hooks":
            # Of ghost clipping, choose_way has held the norms against those of hooks.
            trial = try_gradients(
                self._private, lambda raw, labels: _losses(self._model, raw, labels), *drawn, max_grad_norm=1.0
            )
            if trial.wrong_gradient or trial.wrong_batch:
                raise ModelError(
                    f"The parameter {(trial.wrong_gradient + trial.wrong_batch)[0]!r} gets other gradients for a row "
                    "than the row's own, so clipping bounds nothing: use each layer once a row, on that row alone."
                )
        moved = step_sensitivity(self._optimizer, self._step, *drawn, module=self._private, n_rows=_LEFT_OUT)
        if moved.exceeds or moved.why_not:
            why = moved.why_not or f"one row moves a step by {moved.largest:.3g} clipping norms"
            raise ModelError(f"A step of this network is not private: {why}. Leave out what mixes rows.")
        self._sensitivity = min(moved.largest, 1.0 + SLACK)
        n = min(len(x), COUNTED_ROWS)
        share = -np.expm1(-epsilon)
        noise = int(rng.geometric(share)) - int(rng.geometric(share))
        self._clipped = min(max((self._n_clipped(x[:n], y[:n]) + noise) / n, 0.0), 1.0)
        self._movement, self._watch = Movement(self._private), LoopWatch(self._private, self._optimizer)
        return self._watch

    def observations(self) -> SeenInTraining:
        """The observations after the last step; the optimizer is restored."""
        told = self._watch.observations()
        self._watch.detach()
        still = tuple(name.removeprefix("_module.") for name in self._movement.not_moving())
        return SeenInTraining(
            clipped_share=self._clipped,
            step_sensitivity=self._sensitivity,
            draws=told["draws"],
            steps_taken=told["steps_taken"],
            noise_draws=told["noise_draws"],
            repeated_draws=told["repeated_draws"],
            moved_outside_steps=told["moved_outside_steps"],
            not_moving=still,
        )

    def _n_clipped(self, x: Tensor, y: Tensor) -> int:
        """Rows whose gradients are longer than the norm, at the start of the training."""
        layers, found = LayerOutputs(self._private) if self._way == "ghost" else None, 0
        parameters: list[Any] = [p for p in self._private.parameters() if p.requires_grad]
        for start in range(0, len(x), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            losses = cross_entropy(self._model.logits(x[some]), y[some], reduction="none")
            if layers is not None:
                layers.pass_back(losses.mean())
                norms = self._private.get_norm_sample()  # type: ignore[operator]
            else:
                losses.mean().backward()  # type: ignore[no-untyped-call]
                norms = torch.stack([p.grad_sample.flatten(1).norm(dim=1) for p in parameters]).norm(dim=0)
            found += int((norms > float(self._optimizer.max_grad_norm)).sum())
            self._optimizer.zero_grad(set_to_none=True)
            for p in parameters:
                p.grad_sample = p.grad = None
        return found


def random_rows(module: nn.Module, like: Tensor, n: int) -> Tensor:
    """(n, ...) random rows with the shape of ``like`` and no information about it: normal numbers, or ids."""
    shape, generator = (n, *like.shape[1:]), torch.Generator().manual_seed(0)
    if like.is_floating_point():
        return torch.randn(shape, generator=generator).to(like)
    # The first embedding is that of the ids; 0 is often padding, which is looked away from.
    size = next((m.num_embeddings for m in module.modules() if isinstance(m, nn.Embedding)), 2)
    return torch.randint(min(1, size - 1), size, shape, generator=generator).to(like)


def _losses(model: TorchModel, raw: Tensor, labels: Tensor) -> Tensor:
    raw = raw.unsqueeze(1) if raw.ndim == 1 else raw
    return cross_entropy(as_logits(raw, model.output_kind), labels, reduction="none")
