"""Perturbation sets for attacks and certificates: size and limits of each input's changes, and their effectiveness."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.errors import NotApplicableError
from auditor.core.rows import BoolArray, Rows
from probes.probe_inputs import as_frame
from probes.robustness.table_noise import NumberColumn, changing_columns, fixed_columns, numbers

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

_MOST_NAMED = 5


def changed_rows(before: Rows, after: Rows) -> BoolArray:
    """(n,) whether each row has changed; values missing in both are unchanged."""
    import pandas as pd

    if not isinstance(before, pd.DataFrame):
        a, b = np.asarray(before), np.asarray(after)
        differs = a != b
        if a.dtype.kind == "f":
            differs &= ~(np.isnan(a) & np.isnan(b))
        return np.asarray(differs.reshape(len(a), -1).any(axis=1), bool)
    found, others = np.zeros(len(before), bool), pd.DataFrame(after)
    for j in range(before.shape[1]):
        was, now = before.iloc[:, j], others.iloc[:, j]
        gaps = was.isna().to_numpy(bool), now.isna().to_numpy(bool)
        known = ~(gaps[0] | gaps[1])
        found |= gaps[0] != gaps[1]
        found[known] |= was.to_numpy(object)[known] != now.to_numpy(object)[known]
    return found


def can_change(low: Tensor, high: Tensor) -> BoolArray:
    """(n,) whether each row's set, with lowest and highest inputs (n, ...), contains another input."""
    return np.asarray((high > low).flatten(1).any(dim=1).cpu().numpy(), bool)


def nothing_moves(n: int) -> str:
    """The reason why a number is not judged if none of n rows changed, since it equals the clean one."""
    return f"None of {n:,} rows changes at this level, so nothing was tried: take a larger level, or fix fewer columns."


def changeable_columns_text(columns: Sequence[object], total: int) -> str:
    """The number of changeable columns of a table, and their names, in words."""
    more = f" and {len(columns) - _MOST_NAMED:,} more" if len(columns) > _MOST_NAMED else ""
    return f"{len(columns):,} of {total:,} columns can change ({', '.join(map(str, columns[:_MOST_NAMED]))}{more})"


# A step that fits into a reach but for so much of itself fits: encoded numbers are rounded.
_ROUNDED = 1e-3


@dataclass(frozen=True, eq=False)
class Ball:
    """An L-infinity ball around encoded inputs (n, ...), restricted to valid inputs.

    ``radius``: how far each input moves at epsilon = 1, broadcast against the inputs, 0 where it may not be touched;
    ``limits``: the lowest and the highest inputs, broadcast, or None; ``unit``: what epsilon is counted in, in words.
    ``steps``: of inputs that stand for whole numbers the size of one, broadcast, 0 of others; None where none does.
    ``by_row``: whether the radius is (n, ...), each row with its own, so that of some rows it is :meth:`subset` these.
    """

    radius: Tensor
    limits: tuple[Tensor, Tensor] | None = None
    unit: str = ""
    steps: Tensor | None = None
    by_row: bool = False

    def subset(self, index: Tensor) -> Ball:
        """The perturbation set of some of the rows, by index."""
        if not self.by_row:
            return self
        limits = self.limits
        if limits is not None and limits[0].ndim == self.radius.ndim:
            limits = limits[0][index], limits[1][index]
        return replace(self, radius=self.radius[index], limits=limits)

    def around(self, inputs: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """The lowest and the highest inputs at epsilon = ``level``, shaped like ``inputs``, which are between them.

        An input that lies outside the limits stays where it is allowed to be: its own value is. Whole numbers lie whole
        steps from it.
        """
        import torch

        reach = (level * self.radius).expand_as(inputs)
        low, high = inputs - reach, inputs + reach
        if self.limits is not None:
            low = torch.minimum(torch.maximum(low, self.limits[0]), inputs)
            high = torch.maximum(torch.minimum(high, self.limits[1]), inputs)
        if self.steps is None:
            return low, high
        size = torch.where(self.steps > 0, self.steps, 1.0)
        down, up = (torch.floor((d / size) + _ROUNDED) * size for d in (inputs - low, high - inputs))
        return torch.where(self.steps > 0, inputs - down, low), torch.where(self.steps > 0, inputs + up, high)


def snapped(points: Tensor, low: Tensor, steps: Tensor | None) -> Tensor:
    """Points of a set rounded to possible values: whole numbers to whole steps from the lowest, ``low``.

    ``steps``: as of :class:`Ball`.
    """
    import torch

    if steps is None:
        return points
    size = torch.where(steps > 0, steps, 1.0)
    return torch.where(steps > 0, low + torch.round((points - low) / size) * size, points)


def ball_of(
    model: AuditedModel,
    sample: AuditData,
    inputs: Tensor,
    rows: AuditData | None = None,
    immutable: Collection[str] = (),
) -> Ball:
    """The ball that epsilon is the size of, for rows of the sample's kind.

    Images: a share of the range of a pixel, within black and white; sound: of full scale; tables: standard deviations
    of each numeric column, within what may occur there in ``rows`` (by default the sample), as
    :func:`~probes.robustness.table_noise.number_columns` reads it. Indicators, sensitive and ``immutable`` columns are
    fixed, and so are values that are missing or absent. Raises NotApplicableError where nothing says which input is
    which column.
    """
    import torch

    from auditor.data.preprocessing import AudioPreprocessing, ImagePreprocessing

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
    return _of_table(model, sample, inputs, sample if rows is None else rows, immutable)


def ball_of_numbers(columns: Sequence[NumberColumn], free: BoolArray, n_columns: int) -> Ball:
    """The set of :func:`ball_of` around rows of those columns in their own units; only ``free`` (n, d) changes.

    ``n_columns``: of the whole table.
    """
    import torch

    radius = np.where(free, np.array([column.deviation for column in columns]), 0.0)
    ends = [torch.tensor([getattr(column, end) for column in columns], dtype=torch.float64) for end in ("low", "high")]
    steps = torch.tensor([float(column.whole) for column in columns], dtype=torch.float64)
    return Ball(torch.from_numpy(radius), (ends[0], ends[1]), _unit(columns, n_columns), steps, by_row=True)


def _unit(columns: Sequence[NumberColumn], n_columns: int) -> str:
    return (
        f"standard deviations of each numeric column; {changeable_columns_text([c.name for c in columns], n_columns)}"
    )


def _of_table(
    model: AuditedModel, sample: AuditData, inputs: Tensor, rows: AuditData, immutable: Collection[str]
) -> Ball:
    import torch

    from auditor.data.preprocessing import NumericColumn, TabularPreprocessing

    frame, known = as_frame(sample.X, model.features), model.preprocessing
    if isinstance(known, TabularPreprocessing):
        encoded = [c if isinstance(c, NumericColumn) else None for c in known.columns]
        places = {c.name: span.start for c, span in zip(known.columns, known.spans, strict=True)}
        scales = {c.name: (c.mean, c.scale) for c in encoded if c is not None}
    elif inputs.ndim == 2 and inputs.shape[1] == len(frame.columns):
        places = {name: i for i, name in enumerate(frame.columns)}
        scales = dict.fromkeys(frame.columns, (0.0, 1.0))
    else:
        raise NotApplicableError(
            f"pgd: the model encodes {len(frame.columns)} columns as a tensor {tuple(inputs.shape)}, and nothing says "
            "which became which: save it as a bundle that carries its preprocessing."
        )
    own = inputs.detach().cpu().double().numpy()
    radius, low, high, steps = np.zeros(own.shape), own.copy(), own.copy(), np.zeros(own.shape[1])
    columns = changing_columns(model, rows, fixed_columns(model, rows, immutable))
    for column in columns:
        at, (mean, scale) = places[column.name], scales[column.name]
        free = column.can_change(numbers(frame[column.name]))
        # Of the rows and not of the model's scale, which its owner chooses and may make as small as they like.
        radius[free, at] = column.deviation / scale
        low[free, at], high[free, at] = (column.low - mean) / scale, (column.high - mean) / scale
        steps[at] = 1.0 / scale if column.whole else 0.0
    ends = torch.from_numpy(low).to(inputs), torch.from_numpy(high).to(inputs)
    whole = torch.from_numpy(steps).to(inputs) if steps.any() else None
    unit = _unit(columns, len(frame.columns))
    return Ball(torch.from_numpy(radius).to(inputs), ends, unit, whole, by_row=True)
