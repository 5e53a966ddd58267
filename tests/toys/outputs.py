"""Forty and more small networks that differ in what they return, each with what that means, worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

# "log": logarithms of probabilities. "labels", "several": neither of the answers that can be given is right.
Meaning = Literal["logits", "probabilities", "log", "labels", "several"]
N_ROWS = 300


@dataclass(frozen=True)
class Kind:
    """What a network makes of the (n, columns) scores z of its last layer, and what that is."""

    head: Callable[[Tensor], Tensor]
    columns: int
    means: Meaning


def _stacked(p: Tensor) -> Tensor:
    return torch.cat([1 - p, p], dim=1)


ZOO: dict[str, Kind] = {
    # probabilities of the last of two classes
    "sigmoid": Kind(torch.sigmoid, 1, "probabilities"),
    "sigmoid, flat": Kind(lambda z: torch.sigmoid(z).squeeze(1), 1, "probabilities"),
    "sigmoid of a function": Kind(lambda z: 1 / (1 + torch.exp(-z)), 1, "probabilities"),
    "sigmoid, temperature 3": Kind(lambda z: torch.sigmoid(z / 3), 1, "probabilities"),
    "sigmoid, temperature 0.02": Kind(lambda z: torch.sigmoid(z / 0.02), 1, "probabilities"),
    "sigmoid in float16": Kind(lambda z: torch.sigmoid(z).half(), 1, "probabilities"),
    "sigmoid in bfloat16": Kind(lambda z: torch.sigmoid(z).bfloat16(), 1, "probabilities"),
    "sigmoid in float64": Kind(lambda z: torch.sigmoid(z.double()), 1, "probabilities"),
    "sigmoid, clipped": Kind(lambda z: torch.sigmoid(z).clamp(0.01, 0.99), 1, "probabilities"),
    "sigmoid of rare events": Kind(lambda z: torch.sigmoid(z - 9), 1, "probabilities"),
    "smoothed": Kind(lambda z: 0.9 * torch.sigmoid(z) + 0.05, 1, "probabilities"),
    "hard": Kind(lambda z: (z > 0).float(), 1, "probabilities"),
    "hard, as whole numbers": Kind(lambda z: (z[:, 0] > 0).long(), 1, "probabilities"),
    "hard, as booleans": Kind(lambda z: z[:, 0] > 0, 1, "probabilities"),
    "always 0.5": Kind(lambda z: 0 * z + 0.5, 1, "probabilities"),
    "always 0": Kind(lambda z: 0 * z, 1, "probabilities"),
    "always 1": Kind(lambda z: 0 * z + 1, 1, "probabilities"),
    # probabilities of all classes
    "softmax of 2": Kind(lambda z: torch.softmax(z, dim=1), 2, "probabilities"),
    "softmax of 3": Kind(lambda z: torch.softmax(z, dim=1), 3, "probabilities"),
    "softmax, temperature 5": Kind(lambda z: F.softmax(z / 5, dim=1), 3, "probabilities"),
    "softmax, temperature 0.02": Kind(lambda z: F.softmax(z / 0.02, dim=1), 2, "probabilities"),
    "softmax in float16": Kind(lambda z: torch.softmax(z, dim=1).half(), 3, "probabilities"),
    "softmax in bfloat16": Kind(lambda z: torch.softmax(z, dim=1).bfloat16(), 12, "probabilities"),
    "softmax, clipped": Kind(lambda z: torch.softmax(z, dim=1).clamp(1e-4, 1 - 1e-4), 2, "probabilities"),
    "sigmoid, both": Kind(lambda z: _stacked(torch.sigmoid(z)), 1, "probabilities"),
    "one-hot of 2": Kind(lambda z: F.one_hot(z.argmax(dim=1), 2).float(), 2, "probabilities"),
    "one-hot of 3": Kind(lambda z: F.one_hot(z.argmax(dim=1), 3), 3, "probabilities"),
    "always the same two": Kind(lambda z: 0 * z + torch.tensor([0.3, 0.7]), 2, "probabilities"),
    # logits
    "logit": Kind(lambda z: z, 1, "logits"),
    "logit, flat": Kind(lambda z: z.squeeze(1), 1, "logits"),
    "logit, temperature 4": Kind(lambda z: z / 4, 1, "logits"),
    "logit in float16": Kind(lambda z: z.half(), 1, "logits"),
    "logit within [0, 1]": Kind(lambda z: 0.1 + 0.8 * torch.sigmoid(z), 1, "logits"),
    "logit of rare events": Kind(lambda z: -F.softplus(z) - 1, 1, "logits"),
    "logits of 2": Kind(lambda z: z, 2, "logits"),
    "logits of 2, the first 0": Kind(lambda z: torch.cat([0 * z, z], dim=1), 1, "logits"),
    "logits of 3": Kind(lambda z: z, 3, "logits"),
    "logits of 2 within [0, 1]": Kind(lambda z: 0.1 + 0.8 * torch.sigmoid(z), 2, "logits"),
    "logits of 3 within [0, 1]": Kind(lambda z: 0.1 + 0.2 * torch.sigmoid(z), 3, "logits"),
    "logits of 3 in bfloat16": Kind(lambda z: z.bfloat16(), 3, "logits"),
    "logits of 3, all 0": Kind(lambda z: 0 * z, 3, "logits"),
    # logarithms of probabilities
    "log softmax of 2": Kind(lambda z: torch.log_softmax(z, dim=1), 2, "log"),
    "log softmax of 3": Kind(lambda z: F.log_softmax(z, dim=1), 3, "log"),
    "log softmax, temperature 5": Kind(lambda z: F.log_softmax(z / 5, dim=1), 3, "log"),
    "log of one-hot": Kind(lambda z: F.one_hot(z.argmax(dim=1), 3).float().log(), 3, "log"),
    "log sigmoid": Kind(F.logsigmoid, 1, "log"),
    # neither
    "labels 1 and 2": Kind(lambda z: (z[:, 0] > 0).long() + 1, 1, "labels"),
    "labels 1 and 2 as fractions": Kind(lambda z: (z > 0).float() + 1, 1, "labels"),
    "2 labels at once": Kind(torch.sigmoid, 2, "several"),
    "3 labels at once": Kind(torch.sigmoid, 3, "several"),
}


class Zoo(nn.Module):
    """(n, 3) rows to what the head named ``name`` makes of a linear layer with fixed weights."""

    def __init__(self, name: str) -> None:
        super().__init__()
        kind = ZOO[name]
        self.name = name
        self.last = nn.Linear(3, kind.columns)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.last.weight.copy_(2 * torch.randn(self.last.weight.shape, generator=generator))
            self.last.bias.fill_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return ZOO[self.name].head(self.last(x))


def rows(n: int = N_ROWS) -> pd.DataFrame:
    """Rows that the networks of the zoo take."""
    return pd.DataFrame(np.random.default_rng(7).normal(size=(n, 3)).astype(np.float32), columns=list("abc"))


def class_names(name: str) -> tuple[str, ...]:
    """Names for the classes of a network of the zoo."""
    return tuple("abcdefghijkl"[: max(2, _raw(name, rows(2)).shape[1])])


def _raw(name: str, frame: pd.DataFrame) -> npt.NDArray[np.float64]:
    with torch.inference_mode():
        raw = Zoo(name)(torch.tensor(frame.to_numpy()))
    return np.asarray(raw.double().reshape(len(frame), -1))


def truth(name: str, frame: pd.DataFrame) -> npt.NDArray[np.float64] | None:
    """(n, n_classes) probabilities that the network means, by the definition of what it returns; None for neither."""
    raw, means = _raw(name, frame), ZOO[name].means
    if means in ("labels", "several"):
        return None
    if means == "logits" and raw.shape[1] == 1:
        raw = 1 / (1 + np.exp(-raw))
    elif means == "logits":
        raw = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    elif means == "log":
        raw = np.exp(raw)
    return np.column_stack([1 - raw, raw]) if raw.shape[1] == 1 else raw
