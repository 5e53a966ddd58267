"""Transfer of many tensors to host memory: one copy per device, since each copy waits for the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from auditor.core.rows import FloatArray


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
