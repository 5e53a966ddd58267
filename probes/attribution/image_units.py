"""Images: units are the patches of a grid, and a missing one is blurred."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import NotApplicableError
from auditor.core.rows import BoolArray, FloatArray, IntArray
from probes.attribution.attribution_units import (
    ONLY_PREDICTS,
    Baseline,
    Differentiable,
    Posed,
    Question,
    Scale,
    Units,
    score_name,
    scored,
)
from probes.attribution.table_units import raw_scores
from probes.probe_inputs import differentiable, rows_at_once

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

_WORDS = "each image, blurred by a tenth of its size"
_VALUES_AT_ONCE = 1 << 24


def image_question(
    model: AuditedModel,
    sample: AuditData,
    classes: IntArray,
    baseline: Baseline,
    rng: np.random.Generator,
    max_memory: int | None,
) -> Question:
    """The image task: on encoded pixels if the model is differentiable, else on the given pixels."""
    import torch

    own = differentiable(model)
    if own is None:
        return Question(put=lambda other: _raw(other, sample, classes, ONLY_PREDICTS))
    with torch.no_grad():
        encoded = own.encode(sample.X)
    axes = _axes(encoded, np.shape(sample.X))
    if axes is None or not encoded.is_floating_point():
        why = (
            f"The model encodes images as a tensor {tuple(encoded.shape)} of {str(encoded.dtype).split('.')[-1]}, in "
            "which no pixels can be told apart: occlusion, kernel_shap and lime need predictions only."
        )
        return Question(put=lambda other: _raw(other, sample, classes, why))
    shape = (encoded.shape[axes[0]], encoded.shape[axes[1]])
    cells = _expand(cell_of(shape), encoded.shape[1:], axes)
    blurred = _blurred(encoded, axes)
    begin, words = _begin(encoded, blurred, baseline, rng)
    n_cells = int(cells.max()) + 1
    side = Differentiable(
        model=own,
        inputs=encoded,
        targets=torch.from_numpy(classes).to(encoded.device),
        begin=begin,
        blank=None,
        layer=None,
        held=None,
        places=cells.reshape(-1),
        present=np.ones((len(sample), n_cells), bool),
        channels=-1 if axes[1] != encoded.ndim - 1 or encoded.ndim == 3 else 1,
        baseline=words,
        rows_at_once=rows_at_once(encoded),
    )
    why = ""
    try:
        side = side.with_memory_limit(max_memory)
    except NotApplicableError as error:
        why = str(error)
    return Question(put=lambda other: _encoded(other, side, blurred, sample, shape, why))


def grid_of(shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patches of an image (height, width): 7 (Petsiuk, Das and Saenko, BMVC 2018), or 5 to 8."""

    def cuts(length: int) -> int:
        if length < 14:
            return max(1, length // 2)
        return next((c for c in (7, 8, 6, 5) if length % c == 0), 7)

    return cuts(shape[0]), cuts(shape[1])


def cell_of(shape: tuple[int, int]) -> IntArray:
    """(height, width) the patch of each pixel, counted along rows."""
    rows, columns = grid_of(shape)
    down, across = (np.arange(n) * cuts // n for n, cuts in zip(shape, (rows, columns), strict=True))
    return np.asarray(down[:, None] * columns + across[None, :], np.int64)


def _axes(encoded: Tensor, raw_shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Which axes of the encoded tensor are height and width."""
    if encoded.ndim == 3:
        return 1, 2
    if encoded.ndim != 4:
        return None
    channels_last = tuple(encoded.shape) == raw_shape and encoded.shape[-1] <= 4 < encoded.shape[1]
    return (1, 2) if channels_last else (2, 3)


def _expand(cells: IntArray, shape: tuple[int, ...], axes: tuple[int, int]) -> IntArray:
    """The patches of every element of one encoded image."""
    if len(shape) == 2:
        return cells
    return np.array(np.broadcast_to(cells[..., None] if axes == (1, 2) else cells, shape))


@cache
def _blur_matrix(length: int) -> FloatArray:
    from scipy.ndimage import gaussian_filter1d

    blur: FloatArray = gaussian_filter1d(np.eye(length), sigma=length / 10.0, axis=0, mode="nearest")
    return blur


def _blurred(images: Tensor, axes: tuple[int, int]) -> Tensor:
    """A Gaussian blur by a tenth of each side, edges repeated; as two products of matrices, since it is linear."""
    import torch

    out = images
    for axis in axes:
        matrix = torch.from_numpy(_blur_matrix(images.shape[axis])).to(images)
        out = torch.tensordot(out, matrix, dims=([axis], [1])).movedim(-1, axis)
    return out.contiguous()


def _begin(encoded: Tensor, blurred: Tensor, baseline: Baseline, rng: np.random.Generator) -> tuple[Tensor, str]:
    import torch

    if baseline in ("auto", "blur"):
        return blurred, _WORDS
    if baseline == "zero":
        return torch.zeros_like(encoded[:1]), "zeros in the model's encoding"
    if baseline == "mean":
        return encoded.mean(dim=0, keepdim=True), "the mean of the samples"
    if baseline == "uniform":
        flat = encoded.flatten(1)
        low, high = (f.reshape(-1, *[1] * (encoded.ndim - 1)) for f in (flat.amin(dim=1), flat.amax(dim=1)))
        shares = torch.from_numpy(rng.random(tuple(encoded.shape)).astype(np.float32)).to(encoded)
        return low + shares * (high - low), "uniform noise between each image's darkest and brightest value"
    raise NotApplicableError(f"The baseline {baseline!r} is not for images: use blur, mean, zero or uniform.")


def _encoded(
    model: AuditedModel, side: Differentiable, blurred: Tensor, sample: AuditData, shape: tuple[int, int], reason: str
) -> Posed:
    import torch

    own = differentiable(model)
    assert own is not None
    cells = torch.from_numpy(side.places).to(blurred.device)

    def score(rows: IntArray, keep: BoolArray) -> FloatArray:
        index = torch.from_numpy(np.asarray(rows, np.int64)).to(blurred.device)
        kept = torch.from_numpy(keep).to(blurred.device)

        def inputs(part: slice) -> Tensor:
            there = kept[part][:, cells].reshape(-1, *side.inputs.shape[1:])
            return torch.where(there, side.inputs[index[part]], blurred[index[part]])

        return scored(own, inputs, side.targets[index], len(rows), side.rows_at_once)

    units = _units(score, sample, shape, "log-odds")
    return Posed(units=units, differentiable=None if reason else replace(side, model=own), why_not=reason)


def _raw(model: AuditedModel, sample: AuditData, classes: IntArray, reason: str) -> Posed:
    import torch

    pixels: Any = np.asarray(sample.X)
    shape = (pixels.shape[1], pixels.shape[2])
    soft = _blurred(torch.from_numpy(pixels.astype(np.float64)), (1, 2)).numpy()
    blurred = soft.round().astype(pixels.dtype) if pixels.dtype.kind in "ui" else soft.astype(pixels.dtype)
    cells = cell_of(shape)
    at_once = max(1, _VALUES_AT_ONCE // max(pixels[:1].size, 1))

    def score(rows: IntArray, keep: BoolArray) -> FloatArray:
        parts = []
        for i in range(0, len(rows), at_once):
            some = rows[i : i + at_once]
            there = keep[i : i + at_once][:, cells]
            there = there if pixels.ndim == 3 else there[..., None]
            parts.append(raw_scores(model, np.where(there, pixels[some], blurred[some]), classes[some]))
        return np.concatenate(parts) if parts else np.empty(0)

    output: Scale = "probability" if differentiable(model) is None else "log-odds"
    return Posed(units=_units(score, sample, shape, output), differentiable=None, why_not=reason)


def _units(score: Any, sample: AuditData, shape: tuple[int, int], output: Scale) -> Units:
    rows, columns = grid_of(shape)
    names = tuple(f"row {r + 1}, column {c + 1}" for r in range(rows) for c in range(columns))
    return Units(
        kind="patch",
        present=np.ones((len(sample), len(names)), bool),
        names=(names,) * len(sample),
        score=score,
        infill=f"the same patch of the image blurred by a tenth of its size ({rows} x {columns} patches)",
        in_distribution=False,
        output=score_name(output, sample).removeprefix("explains "),
        scale=output,
    )
