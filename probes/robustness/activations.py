"""Activations of a network: its logits, and the input features of its last layer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from auditor.core.rows import FloatArray, Rows, take_rows

if TYPE_CHECKING:
    from torch import Tensor, nn

    from auditor.models.torch_model import TorchModel

_ROWS_AT_ONCE = {"image": 64, "audio": 64, "text": 256}


@dataclass(frozen=True, eq=False)
class Internals:
    """Activations of a network: ``probabilities`` (n, n_classes); ``logits`` (n, n_classes), None if only one number
    for two classes, or probabilities, are available; ``features`` (n, d), and ``what`` they are, in words."""

    probabilities: FloatArray
    logits: FloatArray | None
    features: FloatArray
    what: str


def internals_of(model: TorchModel, X: Rows, modality: str) -> Internals:
    """One forward pass over the rows, n > 0; the module is left unchanged.

    The features are what the last fully connected layer takes, where its output is the network's, else the logits.
    """
    size = _ROWS_AT_ONCE.get(modality, model.batch_rows)
    parts = [_pass(model, take_rows(X, slice(i, i + size))) for i in range(0, len(X), size)]
    logits = np.concatenate([part[0] for part in parts])
    _, features, layer = parts[0]
    probabilities = scipy.special.softmax(logits, axis=1)
    real = model.output_kind == "logits" and not (logits.shape[1] == 2 and not logits[:, 0].any())
    if features is None:
        return Internals(probabilities, logits if real else None, logits, "its logits")
    every = np.concatenate([part[1] for part in parts if part[1] is not None])
    return Internals(
        probabilities, logits if real else None, every, f"the {every.shape[1]} features that {layer} reads"
    )


def _pass(model: TorchModel, X: Rows) -> tuple[FloatArray, FloatArray | None, str]:
    """Logits, and what the last fully connected layer took, with its name; None where it did not make the logits."""
    from torch import nn

    from auditor.models.gradients import without_gradients

    last: tuple[str, nn.Linear, Tensor] | None = None

    def watched(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def see(layer: nn.Module, taken: tuple[Any, ...]) -> None:
            nonlocal last
            if isinstance(layer, nn.Linear) and taken:
                last = (name, layer, taken[0])

        return see

    with ExitStack() as hooks:
        for name, layer in model.module.named_modules():
            if isinstance(layer, nn.Linear):
                hooks.callback(layer.register_forward_pre_hook(watched(name)).remove)
        with without_gradients(), model.evaluating():
            logits = model.logits(model.encode(X))
    values = logits.double().cpu().numpy()
    if last is None:
        return values, None, ""
    name, own, taken = last
    if taken.ndim != 2 or len(taken) != len(X) or own.out_features not in (1, values.shape[1]):
        return values, None, ""
    return values, taken.double().cpu().numpy(), name or "its only layer"
