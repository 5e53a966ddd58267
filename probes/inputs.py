"""What probes that look inside a model or at its inputs have in common: rows drawn, modality, differentiation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import numpy as np

from auditor.errors import NotApplicableError
from auditor.statistics import IntArray

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from auditor.data import AuditData, Rows
    from auditor.model import AuditedModel, DifferentiableModel, Modality

# Values in the input of one forward and backward pass: 16 MiB in float32, some hundred times that with activations.
_VALUES_AT_ONCE = 4_194_304
_ROWS_AT_ONCE = 8192


def draw(data: AuditData, n_samples: int, rng: np.random.Generator) -> AuditData:
    """At most ``n_samples`` of the rows, drawn without replacement, in the order of the data."""
    size = min(n_samples, len(data))
    return data.take(np.sort(rng.choice(len(data), size=size, replace=False)).astype(np.int64))


def modality(X: Rows) -> Modality:
    """What kind of rows these are. Raises NotApplicableError for an array that is none of the three."""
    if not isinstance(X, np.ndarray) or (X.ndim == 2 and X.dtype.kind in "biuf"):
        return "tabular"
    if X.ndim == 1 and X.dtype == object:
        return "text"
    if X.ndim == 4:
        return "image"
    raise NotApplicableError(
        f"Rows of shape {X.shape} and type {X.dtype} are no table, no texts and no images: give a DataFrame, an object "
        "array of texts, or uint8 images (n, height, width, channels)."
    )


def as_frame(X: Rows, names: tuple[str, ...] | None = None) -> pd.DataFrame:
    """A table's rows as a DataFrame whose columns are named; an array's columns are numbered where ``names`` does not fit."""
    import pandas as pd

    if isinstance(X, pd.DataFrame):
        return X
    fits = names is not None and len(names) == X.shape[1]
    return pd.DataFrame(X, columns=list(names) if fits and names else [str(i) for i in range(X.shape[1])])


def differentiable(model: AuditedModel) -> DifferentiableModel | None:
    """The model as one that can be differentiated, or None."""
    from auditor.model import DifferentiableModel

    return model if isinstance(model, DifferentiableModel) else None


@contextmanager
def differentiating(model: DifferentiableModel) -> Iterator[None]:
    """Evaluation mode inside, with kernels that can be differentiated in it; everything as it was afterwards."""
    import torch
    from torch import nn

    from auditor.model import TorchModel, evaluating

    mode = model.evaluating() if isinstance(model, TorchModel) else evaluating(model.module)
    recurrent = model.device.type == "cuda" and any(isinstance(m, nn.RNNBase) for m in model.module.modules())
    # cuDNN refuses the backward pass of a recurrent layer in evaluation mode; the plain kernels do not.
    kernels = torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()
    with mode, kernels, torch.enable_grad():
        yield


def rows_at_once(inputs: Tensor) -> int:
    """How many rows of ``inputs`` (n, ...) to differentiate in one pass."""
    return max(1, min(_ROWS_AT_ONCE, _VALUES_AT_ONCE // max(inputs[:1].numel(), 1)))


def chosen_classes(model: AuditedModel, data: AuditData) -> IntArray:
    """(n,) the class whose score is explained: the favourable one where it is known, else the one decided on."""
    if data.positive is not None:
        return np.full(len(data), data.positive, np.int64)
    return model.decide(model.predict_proba(data.X), None)
