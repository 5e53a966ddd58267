"""Repeated attributions of one row with newly drawn reference rows: stable results are the row's own.

Against a mean over typical rows a Shapley value is the mean of those against each, so the mean over draws is the value
against all of them, and the spread says how far the order hangs on which rows were drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.rows import FloatArray, IntArray
from probes.attribution.attribution_task import Problem, pose
from probes.attribution.gradient import Effort
from probes.attribution.methods import explain, why_not

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

# What fits the model best, first: exact values where its inside is known, else gradients, else questions alone.
_TABLES = ("shap_linear", "shap_tree", "integrated_gradients", "shap_permutation")
_TEXTS = ("shap_permutation",)
N_DRAWS = {"tabular": 100, "text": 20}
TYPICAL_ROWS = 50
_MIDDLE = (2.5, 97.5)


@dataclass(frozen=True, eq=False, kw_only=True)
class Drawn:
    """Contributions of the d features of one row to its decision, (n_draws, d).

    ``names``: of the features, or words. ``explained``: the score, in words.
    """

    method: str
    names: tuple[str, ...]
    values: FloatArray
    explained: str

    @property
    def mean(self) -> FloatArray:
        """(d,) contributions."""
        return np.asarray(self.values.mean(axis=0), np.float64)

    @property
    def ends(self) -> tuple[FloatArray, FloatArray]:
        """(d,) each, the ends of the middle 95 % of draws."""
        low, high = np.percentile(self.values, _MIDDLE, axis=0)
        return low, high

    @property
    def order(self) -> IntArray:
        """(d,) features from the largest contribution to the least."""
        return np.argsort(-self.mean, kind="stable").astype(np.int64)

    def times_at(self, rank: int, feature: int) -> int:
        """The number of draws in which a feature has a rank, from 0."""
        ranks = np.argsort(np.argsort(-self.values, axis=1, kind="stable"), axis=1, kind="stable")
        return int((ranks[:, feature] == rank).sum())


def draw_attributions(
    model: AuditedModel,
    row: AuditData,
    typical: AuditData,
    explained_class: int,
    sign: float,
    rng: np.random.Generator,
    n_draws: int,
) -> Drawn:
    """Contributions of one row, by the first applicable method, against so many draws of typical rows.

    ``explained_class``: whose score is explained; ``sign``: 1 where a high one made the decision, else -1.
    """
    classes = np.full(1, explained_class, np.int64)
    tabular = row.modality == "tabular"

    def problem() -> Problem:
        few = rng.integers(len(typical), size=min(TYPICAL_ROWS, len(typical))) if tabular else slice(0, 1)
        return pose(model, row, typical.take(few), classes, rng=rng)

    first = problem()
    method = next(name for name in _methods(model, tabular) if not why_not(name, first))
    effort = Effort(n_permutations=1)
    # The score's name stands before its baseline's.
    found, explained = [], ""
    for i in range(n_draws):
        made = explain(method, first if i == 0 else problem(), rng, effort)
        found.append(sign * made.values[0])
        explained = made.detail.split(";")[0].removeprefix("explains ")
    return Drawn(method=method, names=first.units.names[0], values=np.asarray(found, np.float64), explained=explained)


def _methods(model: AuditedModel, tabular: bool) -> tuple[str, ...]:
    if not tabular:
        return _TEXTS
    # Its own exact values compare with the rows it was fitted on, whichever rows are given to compare with.
    fitted = getattr(getattr(model, "estimator", None), "made_by", "") == "CatBoost"
    return tuple(name for name in _TABLES if not (fitted and name == "shap_tree"))
