"""Inputs of out-of-distribution detection: independent draws from known inputs, and activations of a network."""

from __future__ import annotations

import string
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy

from auditor.core.rows import BoolArray, FloatArray, IntArray, Rows, is_number, take_rows
from probes.probe_inputs import as_frame
from probes.robustness.table_noise import numbers

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

    from auditor.data.audit_data import AuditData
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

    from auditor.models.torch_context import without_gradients

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


Maker = Callable[[int, np.random.Generator], Rows]
TableMaker: TypeAlias = "Callable[[int, np.random.Generator], pd.DataFrame]"
CASES = ("permuted", "uniform", "far", "noise", "constant", "shuffled", "characters")
# How far beyond the range of a column, in ranges.
_NEAREST, _FARTHEST = 5.0, 10.0
_LETTERS = np.asarray(list(string.ascii_lowercase + " "))


def makers(known_rows: AuditData) -> dict[str, Maker]:
    """Generators of n out-of-distribution inputs, by name, for the kind of ``known_rows``:

    - tables: ``permuted``, every column drawn from a row of its own; ``uniform``, numbers anywhere in the range of
      their column and every level as likely; ``far``, numbers 5 to 10 ranges beyond either end, levels as in uniform
    - images: ``noise``, every value as likely; ``constant``, one colour; ``shuffled``, the pixels of a known image
    - sound: ``noise`` and ``shuffled``, likewise
    - texts: ``shuffled``, words of all texts as often as they occur; ``characters``, letters and blanks at random; each
      as long as a known text

    Raises ValueError where nothing is known.
    """
    if not len(known_rows):
        raise ValueError("strange inputs are made of known ones, and there are none")
    if known_rows.modality == "tabular":
        frame = as_frame(known_rows.X)
        cases: dict[str, TableMaker] = {"permuted": partial(_permuted, frame)} if frame.shape[1] > 1 else {}
        cases["uniform"] = partial(_spread, frame, _uniform_in)
        if any(is_number(frame[c]) for c in frame.columns):
            cases["far"] = partial(_spread, frame, _beyond)
        return {name: partial(_table, make, known_rows.X) for name, make in cases.items()}
    X = np.asarray(known_rows.X)
    if known_rows.modality == "text":
        return {"shuffled": partial(_words, X), "characters": partial(_characters, X)}
    return {
        "noise": partial(_noise, X),
        **({"constant": partial(_constant, X)} if X.ndim == 4 else {}),
        "shuffled": partial(_shuffled, X),
    }


# ---- tables --------------------------------------------------------------------------------------------------------


def _table(make: TableMaker, like: Rows, n: int, rng: np.random.Generator) -> Rows:
    made = make(n, rng)
    return made.to_numpy(like.dtype if like.dtype.kind == "f" else None) if isinstance(like, np.ndarray) else made


def _permuted(frame: pd.DataFrame, n: int, rng: np.random.Generator) -> pd.DataFrame:
    return _columns(frame, lambda values: _take_values(values, rng.integers(0, len(values), n)))


def _spread(
    frame: pd.DataFrame,
    place: Callable[[float, float, FloatArray, BoolArray], FloatArray],
    n: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    def spread_column(values: pd.Series[Any]) -> pd.Series[Any]:
        u, side = rng.random(n), rng.random(n) < 0.5
        if is_number(values):
            known = numbers(values)
            known = known[np.isfinite(known)]
            if not known.size:
                return _take_values(values, rng.integers(0, len(values), n))
            found = place(float(known.min()), float(known.max()), u, side)
            return _numeric(np.round(found) if (known == np.round(known)).all() else found, values)
        levels = np.flatnonzero(~values.duplicated().to_numpy() & values.notna().to_numpy())
        return _take_values(
            values, levels[(u * levels.size).astype(np.int64)] if levels.size else np.zeros(n, np.int64)
        )

    return _columns(frame, spread_column)


def _uniform_in(low: float, high: float, u: FloatArray, side: BoolArray) -> FloatArray:
    return low + u * (high - low)


def _beyond(low: float, high: float, u: FloatArray, side: BoolArray) -> FloatArray:
    reach = (_NEAREST + (_FARTHEST - _NEAREST) * u) * ((high - low) or max(abs(high), 1.0))
    return np.where(side, high + reach, low - reach)


def _columns(frame: pd.DataFrame, one: Callable[[pd.Series[Any]], pd.Series[Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({name: one(frame[name]) for name in frame.columns})


def _take_values(values: pd.Series[Any], index: IntArray) -> pd.Series[Any]:
    return values.iloc[index].reset_index(drop=True)


def _numeric(values: FloatArray, like: pd.Series[Any]) -> pd.Series[Any]:
    """Numbers as the column holds them; whole numbers in one that is wide enough for those beyond it."""
    import pandas as pd

    column = pd.Series(values)
    if not isinstance(like.dtype, np.dtype):
        return column.astype("Float64" if pd.api.types.is_float_dtype(like.dtype) else "Int64")
    return column.astype(np.float64 if like.dtype.kind == "f" or np.abs(values).max() >= 2.0**62 else np.int64)


# ---- pictures and sound --------------------------------------------------------------------------------------------


def _noise(X: npt.NDArray[Any], n: int, rng: np.random.Generator) -> Rows:
    return _values(X, (n, *X.shape[1:]), rng)


def _constant(X: npt.NDArray[Any], n: int, rng: np.random.Generator) -> Rows:
    made = np.empty((n, *X.shape[1:]), X.dtype)
    made[:] = _values(X, (n, 1, 1, X.shape[3]), rng)
    return made


def _values(X: npt.NDArray[Any], shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[Any]:
    if X.dtype.kind in "iu":
        ends = np.iinfo(X.dtype)
        return rng.integers(ends.min, ends.max, shape, X.dtype, endpoint=True)
    return rng.uniform(float(X.min()), float(X.max()), shape).astype(X.dtype)


def _shuffled(X: npt.NDArray[Any], n: int, rng: np.random.Generator) -> Rows:
    made = X[rng.integers(0, len(X), n)]
    for row in made:
        # A pixel keeps its colour: its channels move together.
        flat = row.reshape(row.shape[0] * row.shape[1], -1) if row.ndim == 3 else row
        row[...] = flat[rng.permutation(len(flat))].reshape(row.shape)
    return made


# ---- texts ---------------------------------------------------------------------------------------------------------


def _words(texts: npt.NDArray[Any], n: int, rng: np.random.Generator) -> Rows:
    words = [str(text).split() for text in texts]
    every = np.asarray([word for own in words for word in own] or [""], object)
    sizes = [max(len(words[i]), 1) for i in rng.integers(0, len(words), n)]
    return np.asarray([" ".join(every[rng.integers(0, len(every), size)]) for size in sizes], object)


def _characters(texts: npt.NDArray[Any], n: int, rng: np.random.Generator) -> Rows:
    sizes = [max(len(str(texts[i])), 1) for i in rng.integers(0, len(texts), n)]
    return np.asarray(["".join(_LETTERS[rng.integers(0, _LETTERS.size, size)]) for size in sizes], object)
