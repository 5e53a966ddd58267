"""A step-by-step record of the noise that an optimizer adds to the clipped sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from auditor.core.rows import FloatArray
from auditor.privacy.released_noise import BLOCKS, IN_A_BLOCK, MOST_STEPS, ReleasedNoise
from auditor.privacy.to_host import on_host

# What scaling there and back may change in single precision.
_SAME = 1e-3


class NoiseKeeper:
    """Recorder of an Opacus optimizer's noise; ``add`` is called after each draw, ``taken`` after each step."""

    def __init__(self, parameters: Sequence[Any]) -> None:
        self.parameters = parameters
        self.sizes = np.asarray([p.numel() for p in parameters], np.float64)
        self._sum = [torch.zeros_like(p, dtype=torch.float32) for p in parameters]
        self._blocks = _blocks(self.sizes)
        self._squares: list[FloatArray] = []
        self._totals: list[float] = []
        self._multipliers: list[float] = []
        self._watched: list[FloatArray] = []
        self._released: FloatArray | None = None
        self._changed = 0

    def add(self, before: Sequence[Tensor], norm: float, multiplier: float) -> None:
        """Record a step's noise: the part of ``p.grad`` beyond the sums ``before``, in units of the norm."""
        noises = [
            (p.grad.detach().reshape(summed.shape).float() - summed.float()) / norm
            for p, summed in zip(self.parameters, before, strict=True)
        ]
        self.keep(noises, multiplier)
        self._released = self._at_blocks([p.grad for p in self.parameters])

    def keep(self, noises: Sequence[Tensor], multiplier: float) -> None:
        """Record a step's noise, one tensor per parameter, in units of the norm; ``multiplier``: the stated one."""
        sums = []
        for k, noise in enumerate(noises):
            wide = noise.double()
            sums.append(torch.stack([wide.square().sum(), wide.sum()]))
            # The step's own multiplier, so that a schedule of noise is one size.
            self._sum[k] += noise.reshape(self._sum[k].shape) / (multiplier or 1.0)
        copied = on_host(sums)
        self._squares.append(np.asarray([squares for squares, _ in copied]))
        self._totals.append(float(sum(total for _, total in copied)))
        self._multipliers.append(multiplier)
        self._watched = [*self._watched, self._at_blocks(noises) / (multiplier or 1.0)][-MOST_STEPS:]

    def _at_blocks(self, tensors: Sequence[Tensor | None]) -> FloatArray:
        """What stands at the places that are watched, of all parameters; 0 where a tensor is not there."""
        return np.concatenate(
            on_host(
                [
                    (torch.zeros_like(p) if t is None else t).detach().reshape(-1)[torch.from_numpy(block).to(p.device)]
                    for p, t, block in zip(self.parameters, tensors, self._blocks, strict=True)
                ]
            )
        )

    def check_step(self, scale: float) -> None:
        """Record whether a step used the gradient with the noise, divided by ``scale``, or another gradient."""
        if self._released is None:
            return
        now = self._at_blocks([p.grad for p in self.parameters])
        size = float(np.abs(self._released).max(initial=0.0))
        self._changed += bool(np.abs(now * scale - self._released).max(initial=0.0) > _SAME * max(size, 1e-12))
        self._released = None

    def released_noise(self) -> ReleasedNoise:
        """All recorded noise."""
        return ReleasedNoise(
            sizes=self.sizes,
            squares=np.stack(self._squares),
            totals=np.asarray(self._totals),
            squared_sum=float(sum(float(s.double().square().sum()) for s in self._sum)),
            multipliers=np.asarray(self._multipliers),
            watched=np.stack(self._watched),
            changed=self._changed,
        )


def _blocks(sizes: FloatArray) -> list[Any]:
    """For each parameter the places in it that are watched: blocks of neighbours, spread over all numbers."""
    total, ends = int(sizes.sum()), np.cumsum(sizes).astype(np.int64)
    begins = np.linspace(0, max(total - IN_A_BLOCK, 0), BLOCKS).astype(np.int64)
    places = np.unique((begins[:, None] + np.arange(IN_A_BLOCK)).ravel())
    places = places[places < total]
    which = np.searchsorted(ends, places, side="right")
    return [places[which == k] - (int(ends[k]) - int(sizes[k])) for k in range(len(sizes))]
