"""Records of a canary audit: canaries with one coordinate each, and the noise added to the clipped sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from auditor.core.errors import UsageError
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.privacy.released_noise import BLOCKS, IN_A_BLOCK, MOST_STEPS, ReleasedNoise


def on_host(tensors: Sequence[Tensor]) -> list[FloatArray]:
    """Each tensor's numbers, flat, in float64, exactly as stored, independent of tensors in the same copy."""
    found: list[FloatArray] = [np.zeros(0) for _ in tensors]
    by_device: dict[torch.device, list[int]] = {}
    for k, tensor in enumerate(tensors):
        by_device.setdefault(tensor.device, []).append(k)
    for some in by_device.values():
        flat = torch.cat([tensors[k].detach().reshape(-1).double() for k in some]).cpu().numpy()
        ends = np.cumsum([tensors[k].numel() for k in some])
        for k, part in zip(some, np.split(flat, ends[:-1]), strict=True):
            found[k] = part
    return found


class DiracCanaries:
    """m canaries; number i has the direction ``e_i``, a separate coordinate among all parameters.

    ``included``: (m,) fair coins. ``scores``: (m,) the sum over steps of the dot product of its direction with what was
    released, less what was expected, over the clipping norm. Raises UsageError where the sample rate is none or there
    are fewer parameters than canaries.
    Source: Steinke, Nasr and Jagielski, NeurIPS 2023, section 6 (white-box, Dirac canaries).
    """

    def __init__(
        self, parameters: Sequence[Any], n_canaries: int, *, sample_rate: float, rng: np.random.Generator
    ) -> None:
        if not 0.0 < sample_rate <= 1.0:
            raise UsageError(f"The sample rate must lie above 0 and be at most 1, not {sample_rate:g}.")
        self.sample_rate = sample_rate
        self.places = _places(parameters, n_canaries, rng)
        self.included: BoolArray = rng.random(n_canaries) < 0.5
        self.scores: FloatArray = np.zeros(n_canaries)
        self._rng = rng

    def __len__(self) -> int:
        return len(self.scores)

    def draw(self) -> BoolArray:
        """(m,) canaries included and drawn for a step, each with probability ``sample_rate``."""
        return self.included & (self._rng.random(len(self)) < self.sample_rate)

    def add(self, sums: Sequence[Tensor], coins: BoolArray, norm: float) -> None:
        """Add ``norm * e_i`` of each drawn canary to the sums, one tensor per parameter, in place."""
        for (at, who), summed in zip(self.places, sums, strict=True):
            chosen = torch.from_numpy(coins[who]).to(at.device)
            summed.view(-1).index_add_(0, at, chosen.to(summed.dtype) * norm)

    def values_at(self, tensors: Sequence[Tensor]) -> FloatArray:
        """(m,) the values at the canaries' coordinates."""
        found = np.zeros(len(self))
        copied = on_host([t.detach().reshape(-1)[at] for (at, _), t in zip(self.places, tensors, strict=True)])
        for (_, who), part in zip(self.places, copied, strict=True):
            found[who] = part
        return found

    def update_scores(self, released: Sequence[Tensor | None], scale: float, expected: FloatArray, norm: float) -> None:
        """Record that a step released ``scale`` times these tensors; None for a parameter without release."""
        there = [(at, who, t) for (at, who), t in zip(self.places, released, strict=True) if t is not None]
        copied = on_host([t.detach().reshape(-1)[at] for at, _, t in there])
        for (_, who, _), part in zip(there, copied, strict=True):
            self.scores[who] += (part * scale - expected[who]) / norm


def _places(parameters: Sequence[Any], n_canaries: int, rng: np.random.Generator) -> list[tuple[Tensor, IntArray]]:
    """For each parameter its canaries: positions in the flattened parameter, and their numbers."""
    sizes = np.asarray([p.numel() for p in parameters], np.int64)
    total = int(sizes.sum())
    if not 1 <= n_canaries <= total:
        raise UsageError(
            f"{n_canaries:,} canaries need as many parameters, and the optimizer holds {total:,}: ask for fewer."
        )
    owned = rng.choice(total, n_canaries, replace=False)
    ends = np.cumsum(sizes)
    which = np.searchsorted(ends, owned, side="right")
    places = []
    for k, parameter in enumerate(parameters):
        who = np.flatnonzero(which == k).astype(np.int64)
        at = torch.from_numpy(owned[who] - (ends[k] - sizes[k])).to(parameter.device)
        places.append((at, who))
    return places


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

    @property
    def draws(self) -> int:
        """How often noise was drawn."""
        return len(self._multipliers)

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
