"""Check that every step adds fresh noise of the stated size, as Opacus optimizers add it to the clipped sum."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

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
