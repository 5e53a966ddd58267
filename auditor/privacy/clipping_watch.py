"""Check that every step sums gradients clipped row by row, if Opacus stores the gradients of the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

# Of the clipping norm: what rounding leaves of a sum over a batch.
_SAME = 1e-2


@dataclass
class ClippingWatch:
    """Counters of steps with available per-row gradients, and of those with a sum that does not match them."""

    seen: int = 0
    wrong: int = 0

    def look(self, optimizer: Any) -> None:
        """Compare ``summed_grad`` with ``sum_i g_i min(1, C / |g_i|)``, over all parameters together.

        Ghost clipping holds no gradients of rows, and a logical batch in parts only those of the last: neither is seen.
        """
        parameters = optimizer.params
        if getattr(optimizer, "_is_last_step_skipped", False) or any(
            getattr(p, "grad_sample", None) is None for p in parameters
        ):
            return
        rows = [optimizer._get_flat_grad_sample(p).detach() for p in parameters]
        norm = float(optimizer.max_grad_norm)
        lengths = torch.stack([r.reshape(len(r), -1).norm(dim=1) for r in rows], dim=1).norm(dim=1)
        factors = (norm / (lengths + 1e-6)).clamp(max=1.0)
        apart = [
            (p.summed_grad.detach() - torch.einsum("i,i...", factors.to(r.dtype), r)).square().sum()
            for p, r in zip(parameters, rows, strict=True)
        ]
        self.seen += 1
        # A distance that is no number is none that is small.
        self.wrong += not float(torch.stack(apart).sum().sqrt()) <= _SAME * norm
