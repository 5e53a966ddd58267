"""Canaries with one coordinate each: their coins, contributions to the sum, and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from auditor.core.errors import UsageError
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.privacy.to_host import on_host


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
