"""The device on which a model is loaded, and forward passes without gradients where it may be training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

from auditor.core.errors import UsageError

_AMID_TRAINING: ContextVar[bool] = ContextVar("amid_training", default=False)


def without_gradients() -> AbstractContextManager[object]:
    """``torch.inference_mode()``, or inside :func:`amid_training` ``torch.no_grad()``."""
    import torch

    return torch.no_grad() if _AMID_TRAINING.get() else torch.inference_mode()


@contextmanager
def amid_training() -> Iterator[None]:
    """Context without inference tensors, so that a network may keep its results and be trained with them later."""
    token = _AMID_TRAINING.set(True)
    try:
        yield
    finally:
        _AMID_TRAINING.reset(token)


def resolve_device(name: str) -> str:
    """The device of a name: ``auto`` is ``cuda`` if available, else ``cpu``.

    UsageError where absent.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name[:40]!r} is no device: use auto, cpu or cuda.") from None
    if device.type == "cpu":
        return "cpu"
    if device.type != "cuda":
        raise UsageError(f"--device {name!r} is not supported: use auto, cpu or cuda.")
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= present:
        raise UsageError(f"--device {name!r} is not there ({present} CUDA devices are): use auto or cpu.")
    return name
