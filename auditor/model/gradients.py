"""Forward passes that nobody differentiates, of networks that may be learning at the time."""

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
    """Inside, no inference tensors are made: a network may keep what it computed, and learn from it later."""
    token = _AMID_TRAINING.set(True)
    try:
        yield
    finally:
        _AMID_TRAINING.reset(token)
