"""The inputs that a worst case may be searched, or a certificate proved, among: how far each may move, and to where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from auditor.errors import NotApplicableError
from probes.inputs import as_frame
from probes.robustness.perturbations import is_number, numbers

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.data.audit_data import AuditData
    from auditor.model.audited_model import AuditedModel


@dataclass(frozen=True, eq=False)
class Ball:
    """An L-infinity ball around encoded inputs (n, ...), cut to what an input may be.

    ``radius``: how far each input moves at epsilon = 1, broadcast against the inputs, 0 where it may not be touched;
    ``limits``: the lowest and the highest inputs, broadcast, or None; ``unit``: what epsilon is counted in, in words.
    """

    radius: Tensor
    limits: tuple[Tensor, Tensor] | None = None
    unit: str = ""

    def around(self, inputs: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """The lowest and the highest inputs at epsilon = ``level``, of the shape of ``inputs``, which lie between.

        An input that lies outside the limits stays where it is allowed to be: its own value is.
        """
        import torch

        reach = (level * self.radius).expand_as(inputs)
        low, high = inputs - reach, inputs + reach
        if self.limits is not None:
            low = torch.minimum(torch.maximum(low, self.limits[0]), inputs)
            high = torch.maximum(torch.minimum(high, self.limits[1]), inputs)
        return low, high


def ball_of(model: AuditedModel, sample: AuditData, inputs: Tensor) -> Ball:
    """The ball that epsilon is the size of, for rows of the sample's kind.

    Images: a share of the range of a pixel, within black and white; sound: of full scale; tables: standard deviations
    of each numeric column, columns that are encoded as indicators fixed. Raises NotApplicableError where nothing says
    which input is which column.
    """
    import torch

    from auditor.data.preprocessing import (
        AudioPreprocessing,
        ImagePreprocessing,
        NumericColumn,
        TabularPreprocessing,
    )

    known = model.preprocessing
    if isinstance(known, ImagePreprocessing):
        mean = torch.tensor(known.mean).to(inputs).reshape(-1, 1, 1)
        std = torch.tensor(known.std).to(inputs).reshape(-1, 1, 1)
        return Ball(1.0 / std, ((0.0 - mean) / std, (1.0 - mean) / std), "times the range of a pixel")
    if isinstance(known, AudioPreprocessing):
        ends = torch.tensor([-1.0, 1.0]).to(inputs)
        return Ball(torch.ones(1).to(inputs), (ends[0], ends[1]), "of full scale")
    if sample.modality in ("image", "audio"):
        what = "pixels" if sample.modality == "image" else "values"
        low, high = inputs.amin(), inputs.amax()
        return Ball((high - low).reshape(1), (low, high), f"times the range of the samples' {what}")
    if isinstance(known, TabularPreprocessing):
        radius = torch.zeros(known.width)
        for column, span in zip(known.columns, known.spans, strict=True):
            if isinstance(column, NumericColumn):
                radius[span] = 1.0
        return Ball(radius.to(inputs), unit="in the scale of each numeric column that the model divides by")
    frame = as_frame(sample.X, model.features)
    deviations = [float(np.nanstd(numbers(frame[c]))) if is_number(frame[c]) else 0.0 for c in frame.columns]
    if inputs.ndim != 2 or inputs.shape[1] != len(deviations):
        raise NotApplicableError(
            f"pgd: the model encodes {len(deviations)} columns as a tensor {tuple(inputs.shape)}, and nothing says "
            "which became which: save it as a bundle that carries its preprocessing."
        )
    return Ball(torch.tensor(deviations).to(inputs), unit="standard deviations of each numeric column")
