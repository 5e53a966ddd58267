"""Training rows with counterfactuals, their targets, and the same rows without swaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from auditor.core.rows import FloatArray, IntArray, Rows, take_rows
from mitigations.rows.counterfactuals import NO_ROW, Counterfactuals

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from auditor.models.torch_model import TorchModel

Sides = Literal["both", "one"]
UNLABELLED = -1
_SUBSTITUTED = 0.5


@dataclass(frozen=True, eq=False, kw_only=True)
class Arm:
    """Training rows: ``x`` (n, ...) inputs; ``y`` (n,) labels, -1 for none; ``target`` (n, n_classes) logits, NaN for
    rows without a target."""

    x: Tensor
    y: Tensor
    target: Tensor

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """The tensors in the form of the training loop."""
        return self.x, self.y, self.target


@dataclass(frozen=True)
class _Row:
    """A text, its label, and its target: the place of its neutral text or its family, or None."""

    text: str
    label: int
    target: tuple[str, ...] | None


def text_arms(
    model: TorchModel,
    texts: Sequence[str],
    y: IntArray,
    counterfactuals: Sequence[Counterfactuals],
    rng: np.random.Generator,
    *,
    sides: Sides,
    pairing: bool,
) -> tuple[Arm, Arm]:
    """The augmented rows, and as a control the same rows in the same order without a swap.

    sides: whether a text stays beside its counterfactuals, or gives its place to one of them in half of the cases.
    pairing: whether rows have targets: the model's answer on the neutral text, or its mean answer over the text and its
    counterfactuals where no filler fits; a neutral text itself is to be answered as before.
    """
    of_row = {c.row: c for c in counterfactuals if c.row != NO_ROW}
    rows: list[_Row] = []
    control: list[_Row] = []

    def add(text: str, plain: str, label: int, target: tuple[str, ...]) -> None:
        rows.append(_Row(text, label, target if pairing else None))
        control.append(_Row(plain, label, (plain,) if pairing else None))

    for k, text in enumerate(texts):
        own = of_row.get(k)
        if own is None:
            rows.append(_Row(text, int(y[k]), None))
            control.append(rows[-1])
            continue
        target = (own.neutral,) if own.neutral is not None else (text, *own.texts)
        if sides == "both":
            for other in (text, *own.texts):
                add(other, text, int(y[k]), target)
        else:
            add(own.texts[0] if rng.random() < _SUBSTITUTED else text, text, int(y[k]), target)
        if pairing and own.neutral is not None:
            add(own.neutral, own.neutral, UNLABELLED, target)
    for c in counterfactuals:
        if c.row == NO_ROW and pairing:
            target = (c.neutral,) if c.neutral is not None else c.texts
            for other in (*c.texts, *(() if c.neutral is None else (c.neutral,))):
                add(other, c.neutral or other, UNLABELLED, target)
    answers = _answers(model, [t for row in (*rows, *control) for t in row.target or ()])
    return _arm(model, rows, answers), _arm(model, control, answers)


def _answers(model: TorchModel, texts: Sequence[str]) -> dict[str, FloatArray]:
    different = list(dict.fromkeys(texts))
    return dict(zip(different, centred_logits(model, np.asarray(different, object)), strict=True))


def centred_logits(model: TorchModel, X: Rows) -> FloatArray:
    """(n, n_classes) logits minus their mean over the classes, so that the probabilities determine them."""
    import torch

    parts = [np.zeros((0, model.n_outputs))]
    with torch.inference_mode(), model.evaluating():
        for start in range(0, len(X), model.batch_rows):
            z = model.logits(model.encode(take_rows(X, slice(start, start + model.batch_rows)))).double()
            parts.append((z - z.mean(dim=1, keepdim=True)).cpu().numpy())
    return np.concatenate(parts)


def _arm(model: TorchModel, rows: Sequence[_Row], answers: dict[str, FloatArray]) -> Arm:
    import torch

    target = np.full((len(rows), model.n_outputs), np.nan, np.float32)
    for out, row in zip(target, rows, strict=True):
        if row.target is not None:
            out[:] = np.mean([answers[t] for t in row.target], axis=0)
    x = model.encode(np.asarray([row.text for row in rows], object))
    labels = np.asarray([row.label for row in rows], np.int64)
    return Arm(x=x, y=torch.from_numpy(labels).to(x.device), target=torch.from_numpy(target).to(x.device))


def table_arms(
    model: TorchModel,
    X: pd.DataFrame,
    flipped: pd.DataFrame,
    y: IntArray,
    rng: np.random.Generator,
    *,
    sides: Sides,
    pairing: bool,
) -> tuple[Arm, Arm]:
    """The same for a table and its flipped rows; the target is the model's mean answer on a row and its flip."""
    import pandas as pd
    import torch

    own, other = (centred_logits(model, rows) for rows in (X, flipped))
    both = pd.concat([X, flipped], ignore_index=True)
    n = len(X)
    if sides == "both":
        rows, plain, copies = both, pd.concat([X, X], ignore_index=True), 2
    else:
        rows, plain, copies = both.iloc[np.arange(n) + n * (rng.random(n) < _SUBSTITUTED)], X, 1

    def arm(table: pd.DataFrame, target: FloatArray) -> Arm:
        x = model.encode(table)
        wanted = np.tile(target if pairing else np.full_like(target, np.nan), (copies, 1)).astype(np.float32)
        return Arm(
            x=x, y=torch.from_numpy(np.tile(y, copies)).to(x.device), target=torch.from_numpy(wanted).to(x.device)
        )

    return arm(rows, (own + other) / 2.0), arm(plain, own)
