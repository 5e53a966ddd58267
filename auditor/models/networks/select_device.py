"""The device on which a model is loaded."""

from __future__ import annotations

import torch

from auditor.core.errors import UsageError
from auditor.models.files.model_bytes import printable


def resolve_device(name: str) -> str:
    """The device of a name: ``auto`` is ``cuda`` if available, else ``cpu``.

    UsageError where absent.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {printable(name, 40)!r} is no device: use auto, cpu or cuda.") from None
    if device.type == "cpu":
        return "cpu"
    if device.type != "cuda":
        raise UsageError(f"--device {name!r} is not supported: use auto, cpu or cuda.")
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= present:
        raise UsageError(f"--device {name!r} is not there ({present} CUDA devices are): use auto or cpu.")
    return name
