"""Tables: units are raw features, and a missing one takes the values of observed rows; tables as integer codes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

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
    feature_names,
    score_name,
    scored,
)
from probes.probe_inputs import as_frame, differentiable, rows_at_once

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.models.torch_model import DifferentiableModel


# The largest whole number up to which floating-point numbers hold every other.
_LARGEST_EXACT = 2**53


@dataclass(frozen=True, eq=False, kw_only=True)
class Coded:
    """A table as numbers, with decoding; sample, background: (n, d) numbers or codes of a column's distinct values.

    ``blocks``: the places of the columns of each numeric type, whose values are their own codes. ``levels``: the
    distinct values of every other column in its own type, by its place. ``columns``: names of the model's table, None
    where it takes an array.
    """

    names: tuple[str, ...]
    sample: FloatArray
    background: FloatArray
    blocks: tuple[tuple[npt.DTypeLike, IntArray], ...]
    levels: dict[int, Any]
    columns: pd.Index[Any] | None

    @classmethod
    def from_samples(cls, model: AuditedModel, sample: AuditData, background: AuditData) -> Coded:
        """Codes over the values of both."""
        import pandas as pd

        both = pd.concat([as_frame(part.X, model.features) for part in (sample, background)], ignore_index=True)
        kinds: dict[Any, list[int]] = {}
        for place, kind in enumerate(both.dtypes):
            exact = isinstance(kind, np.dtype) and kind.kind in "fiub" and kind.itemsize <= 8
            if exact and kind.kind in "iu" and both.iloc[:, place].abs().max() > _LARGEST_EXACT:
                exact = False
            kinds.setdefault(kind if exact else None, []).append(place)
        coded = {i: pd.factorize(both.iloc[:, i].array, use_na_sentinel=False) for i in kinds.pop(None, [])}
        table = np.empty(both.shape)
        for i, (codes, _) in coded.items():
            table[:, i] = codes
        blocks = tuple((kind, np.asarray(places, np.int64)) for kind, places in kinds.items())
        for _, places in blocks:
            table[:, places] = both.iloc[:, places].to_numpy()
        return cls(
            names=tuple(str(c) for c in both.columns),
            sample=table[: len(sample)],
            background=table[len(sample) :],
            blocks=blocks,
            levels={i: levels for i, (_, levels) in coded.items()},
            columns=both.columns if isinstance(sample.X, pd.DataFrame) else None,
        )

    def decode(self, codes: FloatArray) -> pd.DataFrame | npt.NDArray[Any]:
        """The rows (m, d) represented by codes, with the model's column types."""
        import pandas as pd

        values = {i: levels.take(codes[:, i].astype(np.int64)) for i, levels in self.levels.items()}
        whole = len(self.blocks) == 1 and not values
        if whole and self.columns is not None:
            return pd.DataFrame(codes.astype(self.blocks[0][0]), columns=self.columns, copy=False)
        if whole:
            return codes.astype(self.blocks[0][0])
        parts = [
            pd.DataFrame(codes[:, places].astype(kind), columns=places, copy=False) for kind, places in self.blocks
        ]
        table = pd.concat([*parts, pd.DataFrame(values)], axis=1)[list(range(codes.shape[1]))]
        return table.to_numpy() if self.columns is None else table.set_axis(self.columns, axis=1)


_ROWS_AT_ONCE = 8192


def table_question(
    model: AuditedModel,
    sample: AuditData,
    background: AuditData,
    infill: AuditData,
    classes: IntArray,
    baseline: Baseline,
    rng: np.random.Generator,
    max_memory: int | None,
) -> Question:
    """The table task: on encoded columns if known, else on raw rows and predictions alone."""
    import torch

    own = differentiable(model)
    why, encoded = ONLY_PREDICTS, None
    if own is not None:
        with torch.no_grad():
            encoded = own.encode(sample.X)
        why = _no_columns(model, sample, encoded)
    if own is None or encoded is None or why:
        coded = Coded.from_samples(model, sample, infill)
        return Question(put=lambda other: _raw(other, coded, sample, classes, why))
    spans = _spans(model, encoded)
    with torch.no_grad():
        others = own.encode(infill.X)
        begin, words = _begin(own, encoded, background, baseline, rng)
    widths = [s.stop - s.start for s in spans]
    side = Differentiable(
        model=own,
        inputs=encoded,
        targets=torch.from_numpy(classes).to(encoded.device),
        begin=begin,
        blank=None,
        layer=None,
        held=None,
        places=np.repeat(np.arange(len(spans)), widths),
        present=np.ones((len(sample), len(spans)), bool),
        channels=None,
        baseline=words,
        rows_at_once=rows_at_once(encoded),
    )
    try:
        side = side.with_memory_limit(max_memory)
    except NotApplicableError as error:
        why = str(error)
    return Question(put=lambda other: _encoded(other, side, others, sample, why))


def _no_columns(model: AuditedModel, sample: AuditData, encoded: Tensor) -> str:
    """Why attributions to encoded columns would not be attributions to features; empty where they are."""
    if not encoded.is_floating_point():
        return (
            "Gradients need inputs that can be differentiated, and these are whole numbers: encode the columns as "
            "floating-point numbers, or use occlusion, kernel_shap, lime or shap_permutation."
        )
    n = len(feature_names(model, sample))
    if not _known_spans(model) and (encoded.ndim != 2 or encoded.shape[1] != n):
        return (
            f"The model encodes {n} columns as a tensor {tuple(encoded.shape)}, and nothing says which became which: "
            "save it as a bundle that carries its preprocessing, or use occlusion or shap_permutation."
        )
    return ""


def _known_spans(model: AuditedModel) -> tuple[slice, ...]:
    from auditor.data.preprocessing import TabularPreprocessing

    return model.preprocessing.spans if isinstance(model.preprocessing, TabularPreprocessing) else ()


def _spans(model: AuditedModel, encoded: Tensor) -> tuple[slice, ...]:
    """The encoded columns of each raw feature."""
    return _known_spans(model) or tuple(slice(i, i + 1) for i in range(encoded.shape[1]))


def _begin(
    differentiable_model: DifferentiableModel,
    encoded: Tensor,
    background: AuditData,
    baseline: Baseline,
    rng: np.random.Generator,
) -> tuple[Tensor, str]:
    """Where paths begin, and what that is in words."""
    import torch

    if baseline == "zero":
        return torch.zeros_like(encoded[:1]), "zeros in the model's encoding"
    if baseline not in ("auto", "mean", "uniform"):
        raise NotApplicableError(f"The baseline {baseline!r} is not for tables: use mean, zero or uniform.")
    rows = differentiable_model.encode(background.X)
    whose = "training" if background.is_member is not None and background.is_member.all() else "evaluation"
    if baseline == "uniform":
        low, high = rows.amin(dim=0), rows.amax(dim=0)
        shares = torch.from_numpy(rng.random(encoded.shape).astype(np.float32)).to(encoded)
        return low + shares * (high - low), f"uniform noise between the extremes of {len(rows):,} encoded {whose} rows"
    return rows.mean(dim=0, keepdim=True), f"the mean of {len(rows):,} encoded {whose} rows"


def _infill(n: int) -> str:
    return f"the values of {n} other observed rows, over which the score is averaged"


def _encoded(model: AuditedModel, side: Differentiable, others: Tensor, sample: AuditData, reason: str) -> Posed:
    """Units over encoded columns, which are as good as raw features where each feature is encoded by itself."""
    import torch

    own = differentiable(model)
    assert own is not None
    k, at_once = len(others), max(1, side.rows_at_once // max(len(others), 1))
    columns = torch.from_numpy(side.places)

    def score(rows: IntArray, keep: BoolArray) -> FloatArray:
        out = np.empty(len(rows))
        whole: BoolArray = np.asarray(keep.all(axis=1), bool)
        index, kept = torch.from_numpy(np.asarray(rows, np.int64)), torch.from_numpy(keep)[:, columns]
        for places, width in ((np.flatnonzero(whole), 1), (np.flatnonzero(~whole), k)):
            for i in range(0, len(places), at_once):
                some = torch.from_numpy(places[i : i + at_once])
                at = index[some].to(side.inputs.device)
                points = side.inputs[at].unsqueeze(1)
                if width > 1 or not whole[places[0]]:
                    there = kept[some].to(points.device).unsqueeze(1)
                    points = torch.where(there, points, others.unsqueeze(0))
                flat = points.reshape(-1, points.shape[-1])
                chosen = side.targets[at].repeat_interleave(width)
                found = scored(own, lambda part, x=flat: x[part], chosen, len(flat), len(flat))  # type: ignore[misc]
                out[some.numpy()] = found.reshape(-1, width).mean(axis=1)
        return out

    units = _units(score, feature_names(model, sample), sample, "log-odds", k)
    return Posed(units=units, differentiable=None if reason else replace(side, model=own), why_not=reason)


def _raw(model: AuditedModel, coded: Coded, sample: AuditData, classes: IntArray, reason: str) -> Posed:
    """Units over raw rows: each question is a table that the model reads anew."""
    k = len(coded.background)
    predicts = differentiable(model) is None

    def score(rows: IntArray, keep: BoolArray) -> FloatArray:
        out = np.empty(len(rows))
        whole: BoolArray = np.asarray(keep.all(axis=1), bool)
        at_once = max(1, _ROWS_AT_ONCE // k)
        for places, width in ((np.flatnonzero(whole), 1), (np.flatnonzero(~whole), k)):
            for i in range(0, len(places), at_once):
                some = places[i : i + at_once]
                codes = coded.sample[rows[some]][:, None, :]
                if not whole[places[0]]:
                    codes = np.where(keep[some][:, None, :], codes, coded.background[None])
                table = coded.decode(codes.reshape(-1, codes.shape[-1]))
                found = raw_scores(model, table, np.repeat(classes[rows[some]], width))
                out[some] = found.reshape(-1, width).mean(axis=1)
        return out

    output: Scale = "probability" if predicts else "log-odds"
    return Posed(units=_units(score, coded.names, sample, output, k), differentiable=None, why_not=reason)


def raw_scores(model: AuditedModel, X: Any, classes: IntArray) -> FloatArray:
    """(n,) log-odds of raw rows if the model has logits, else probabilities."""
    import torch

    own = differentiable(model)
    if own is None:
        probabilities: FloatArray = model.predict_proba(X)
        return probabilities[np.arange(len(classes)), classes]
    with torch.no_grad():
        inputs = own.encode(X)
    targets = torch.from_numpy(np.asarray(classes, np.int64)).to(inputs.device)
    return scored(own, lambda part: inputs[part], targets, len(inputs), rows_at_once(inputs))


def _units(score: Any, names: tuple[str, ...], sample: AuditData, output: Scale, k: int) -> Units:
    return Units(
        kind="feature",
        present=np.ones((len(sample), len(names)), bool),
        names=(names,) * len(sample),
        score=score,
        infill=_infill(k),
        in_distribution=True,
        output=score_name(output, sample).removeprefix("explains "),
        scale=output,
    )
