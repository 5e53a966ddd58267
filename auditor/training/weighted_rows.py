"""Weighted rows: weights from a column, the weighted accuracy, and the trainings that cannot use weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from auditor.core.errors import DataError
from auditor.core.files import printable_name
from auditor.core.rows import BoolArray, FloatArray
from auditor.models.audited_model import AuditedModel
from auditor.statistics.intervals import clopper_pearson


def weights_of(values: pd.Series[Any], name: str) -> FloatArray:
    """(n,) the weights in a column; DataError if one is missing, negative or not a number, or all are 0."""
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wrong = np.flatnonzero(~(np.isfinite(numbers) & (numbers >= 0.0)))
    if wrong.size:
        raise DataError(
            f"The weight {name!r} is {str(values.iloc[wrong[0]])[:40]!r} in a row: each must be a number of at least 0."
        )
    if not numbers.any():
        raise DataError(f"The weight {name!r} is 0 in every row.")
    return numbers


@dataclass(frozen=True)
class WeightedShare:
    """``sum(w c) / sum(w)`` of rows that are right, c = 1, or wrong, of weights w.

    ``n``: rows. ``effective_n``: rows of equal weight that would tell as much, ``p (1 - p) / v`` with the linearized
    variance ``v = sum((w (c - p))^2) / sum(w)^2``, and ``sum(w)^2 / sum(w^2)`` where all rows are right or all are
    wrong; at most n. Source: Korn and Graubard, Survey Methodology 24 (1998); Kish, Survey Sampling, 1965.
    """

    value: float
    n: int
    effective_n: float

    @classmethod
    def from_rows(cls, right: BoolArray, weights: FloatArray) -> WeightedShare:
        """right (n,), weights (n,); their sum must be positive."""
        w = weights / weights.sum()
        p = float(w @ right)
        v = float(np.square(w * (right - p)).sum())
        effective = p * (1.0 - p) / v if v > 0.0 else 1.0 / float(np.square(w).sum())
        return cls(value=p, n=len(w), effective_n=min(effective, float(len(w))))

    def interval(self, confidence: float) -> tuple[float, float]:
        """Clopper and Pearson's, of ``effective_n`` rows."""
        alpha = (1.0 - confidence) / 2.0
        low, high = clopper_pearson(self.value * self.effective_n, n=self.effective_n, alpha=alpha)
        return float(low), float(high)


def why_not_trained_alike(model: AuditedModel) -> str:
    """The reason why no similar model can be trained, if it used weights that the audit lacks; else ""."""
    recipe = getattr(model, "recipe", None)
    if recipe is None or recipe.weight is None:
        return ""
    return (
        f"the model was trained with the weights of the column {printable_name(recipe.weight)!r}, which an audit's "
        f"rows do not "
        "bring, and one trained without them is not trained alike"
    )
