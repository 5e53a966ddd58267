"""Comparison of a model's behaviour on real rows and on the mixed rows that explanations use.

A model can tell the two apart and answer the mixed ones by harmless features: whatever explains it by them is then
right about the mixed rows and wrong about people. Source of the attack: Slack, Hilgard, Jia, Singh and Lakkaraju,
"Fooling LIME and SHAP", AIES 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.rows import FloatArray, IntArray
from auditor.judging.row_explanations import MOST_APART
from auditor.statistics.values import bounded_mean
from probes.attribution.category_codes import Coded
from probes.probe_inputs import as_frame, draw
from probes.reasons.row_distances import Scaled
from probes.robustness.table_noise import numeric_names

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

MOST_ROWS = 2_000
FEWEST_ROWS = 100
# More would teach a learner of mixed rows how a model tells them from real ones, and what it does then; fewer would
# teach it too little of an honest model.
_MIXED_PER_ROW = 2
_ROUNDS = 60


@dataclass(frozen=True)
class MixedAgainstReal:
    """The advantage of real over mixed training rows for learning decisions on real rows, and its bound.

    ``gap`` and ``low``: shares of rows, half of which are decided favourably; None with ``why_none`` where too few rows
    of each decision are there. ``level``: of the one-sided bound.
    """

    gap: float | None
    low: float | None
    level: float
    why_none: str = ""

    @property
    def differs(self) -> bool:
        """Whether the model significantly decides real rows by another rule."""
        return self.low is not None and self.low > MOST_APART


def compare(
    model: AuditedModel, rows: AuditData, positive: int, level: float, rng: np.random.Generator
) -> MixedAgainstReal:
    """Train two boosted trees on the model's decisions: one on real rows, one on twice as many mixed ones.

    A mixed row has each feature from another row, as the rows that explanations make come to be. Both are
    held to the decisions on real rows that neither has seen, as many favourable as not. Of one and the same function
    the mixed rows teach about as much as the real ones; of a model that answers them otherwise they teach what it says
    of them.
    """
    sample = draw(rows, MOST_ROWS, rng)
    frame = as_frame(sample.X, model.features)
    scaled = Scaled.from_frame(frame, frozenset(map(str, numeric_names(model, frame)))).values
    decided = model.decide_rows(sample.X, model.predict_proba(sample.X), positive) == positive
    order = rng.permutation(len(sample))
    fit, held = order[: len(order) // 2], _balanced(order[len(order) // 2 :], decided)
    if decided.all() or not decided.any():
        return MixedAgainstReal(
            None, None, level, f"all {len(sample):,} rows get one decision, which leaves nothing to compare"
        )
    if min(len(held), decided[fit].sum(), (~decided[fit]).sum()) < FEWEST_ROWS // 4 or len(sample) < FEWEST_ROWS:
        return MixedAgainstReal(
            None, None, level, f"{len(sample):,} rows, of both decisions, are too few to compare them"
        )
    mixed, answers = _mixed(model, sample, scaled, fit, positive, rng)
    real = _learned(scaled[fit], decided[fit], scaled[held], rng)
    other = _learned(mixed, answers, scaled[held], rng)
    truth = decided[held]
    gains = (real == truth).astype(np.float64) - (other == truth)
    estimate = bounded_mean(gains, low=-1.0, high=1.0)
    return MixedAgainstReal(estimate.value, estimate.bounds(level)[0], level)


def _balanced(places: IntArray, decisions: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> IntArray:
    """As many of the one decision as of the other, in the order given."""
    yes, no = places[decisions[places]], places[~decisions[places]]
    n = min(len(yes), len(no))
    return np.concatenate([yes[:n], no[:n]])


def _mixed(
    model: AuditedModel, sample: AuditData, scaled: FloatArray, fit: IntArray, positive: int, rng: np.random.Generator
) -> tuple[FloatArray, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
    coded = Coded.from_samples(model, sample, sample.take(slice(0)))
    lent = rng.permuted(np.repeat(np.tile(fit, _MIXED_PER_ROW)[:, None], scaled.shape[1], axis=1), axis=0)
    columns = np.arange(scaled.shape[1])
    table = coded.decode(coded.sample[lent, columns])
    answers = model.decide_rows(table, model.predict_proba(table), positive) == positive
    return scaled[lent, columns], answers


def _learned(
    X: FloatArray,
    y: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    queries: FloatArray,
    rng: np.random.Generator,
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """What boosted trees say of the rows asked about; each decision weighs as much as the other."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    if y.all() or not y.any():
        return np.full(len(queries), bool(y[0]))
    trees = HistGradientBoostingClassifier(
        max_iter=_ROUNDS, early_stopping=False, class_weight="balanced", random_state=int(rng.integers(2**32))
    )
    return np.asarray(trees.fit(X, y).predict(queries), np.bool_)
