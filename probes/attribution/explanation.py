"""The type of an explanation for every method, and the error of its own axiom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.rows import FloatArray
from probes.probe_inputs import as_frame

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

# An output that varies by less than rounding in float32 can produce is constant.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False, kw_only=True)
class Attributions:
    """Signed contributions of each unit to the explained score of each sample.

    values: (n, n_units), units being raw features, or words, or the whole image. ends: ``outputs``, (n,) the score of
    each sample, and ``baseline``, (n,) the score that its attributions start from, so that completeness reads
    ``values.sum(1) = outputs - baseline``; where they take passes, these are made once they are asked for. ``units``:
    their names, empty where they have none. ``fine``: for images (n, height, width), the same per pixel.
    """

    method: str
    values: FloatArray
    ends: Callable[[], tuple[FloatArray, FloatArray]]
    units: tuple[str, ...]
    detail: str
    fine: FloatArray | None = None

    @property
    def outputs(self) -> FloatArray:
        """(n,) the score of each sample."""
        return self.ends()[0]

    @property
    def baseline(self) -> FloatArray:
        """(n,) the reference score of its attributions."""
        return self.ends()[1]

    @property
    def output_range(self) -> float:
        """Largest minus smallest score over samples and baselines; 0 up to rounding, NaN if a score is."""
        return output_range(self.outputs, self.baseline)

    @property
    def errors(self) -> FloatArray:
        """(n,) ``|sum of attributions - (output - baseline)| / output_range``; NaN if the range is 0."""
        return completeness_errors(self.values.sum(axis=1), self.outputs, self.baseline)


def output_range(outputs: FloatArray, baseline: FloatArray) -> float:
    """Largest minus smallest score over samples and baselines; 0 up to rounding, NaN if a score is."""
    scores = np.concatenate([outputs, baseline])
    if not scores.size:
        return 0.0
    width = float(np.ptp(scores))
    return 0.0 if width <= _ROUNDING * max(1.0, float(np.abs(scores).max())) else width


def completeness_errors(sums: FloatArray, outputs: FloatArray, baseline: FloatArray) -> FloatArray:
    """(n,) ``|sum of attributions - (output - baseline)| / output_range``; NaN if the range is 0."""
    width = output_range(outputs, baseline)
    return np.abs(sums - (outputs - baseline)) / width if width else np.full(len(outputs), np.nan)


def score_name(score: str, sample: AuditData) -> str:
    """The explained quantity, in words; ``score`` is its scale."""
    of: Sequence[str] = sample.classes
    which = f"{of[sample.positive]!r}" if sample.positive is not None and of else "the class decided on"
    return f"explains the {score} of {which}"


def feature_names(model: AuditedModel, sample: AuditData) -> tuple[str, ...]:
    """Names of the raw features of a table, in the order the model is given them; empty for texts and images."""
    from auditor.data.preprocessing import TabularPreprocessing

    if sample.modality != "tabular":
        return ()
    if isinstance(model.preprocessing, TabularPreprocessing):
        return model.preprocessing.features
    return tuple(str(c) for c in as_frame(sample.X, model.features).columns)
