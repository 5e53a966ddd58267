"""Forward passes without gradients, for networks that may be training at the time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

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
