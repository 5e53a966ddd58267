"""Twins of a classifier in which the true value of a number is known, made of answers and of no forward passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy

from auditor.core.errors import NotApplicableError
from auditor.core.rows import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.judging.measurement import Measurement
    from auditor.models.audited_model import AuditedModel
    from auditor.models.twin_model import TwinModel

# Differences and ratios of the rate at which groups are decided favourably, of all rows or of those with one label.
_SELECTION = ("demographic_parity", "impact")
_BY_LABEL = ("equalized_odds", "equal_opportunity", "false_positive_rate", "false_negative_rate")
_RATIO_OF_MISSES = "false_negative_rate_ratio"


def no_plant(measured: Measurement) -> NotApplicableError:
    """The error of a number for which nobody has written what to plant."""
    return NotApplicableError(f"Nothing is planted for {measured.metric}.")


def with_gap(
    model: AuditedModel, rows: AuditData, measured: Measurement, value: float, rng: np.random.Generator
) -> TwinModel:
    """A twin whose decisions have a known gap between two groups, drawn from those that are compared.

    The others are decided as often as the model decides by itself. Raises NotApplicableError for a number that is no
    such gap.
    """
    metric, positive = measured.metric, rows.positive
    if positive is None or measured.at or metric == _RATIO_OF_MISSES:
        raise no_plant(measured)
    low, high = two_groups(rows, measured, rng)
    codes = rows.groups(*measured.sensitive).codes
    decided = model.decisions(rows) == positive
    by_label = metric.startswith(_BY_LABEL)
    if metric == "accuracy_difference" and rows.y_true is not None:
        right = apart(float((model.decisions(rows) == rows.y_true).mean()), value, ratio=False)
        return _decided_rightly(model, rows, of_groups(codes, low, high, right), rng)
    if metric == "worst_group_accuracy" and rows.y_true is not None:
        rates = (value, 1.0, max(value, float((model.decisions(rows) == rows.y_true).mean())))
        return _decided_rightly(model, rows, of_groups(codes, low, high, (rates[0], rates[2], rates[2])), rng)
    if not by_label and not metric.startswith(_SELECTION):
        raise no_plant(measured)
    ratio = "ratio" in metric
    chance = np.empty(len(rows))
    known = rows.y_true if by_label and rows.y_true is not None else np.zeros(len(rows), np.int64)
    for part in (known == positive, known != positive) if by_label else (np.ones(len(rows), bool),):
        if part.any():
            chance[part] = of_groups(codes, low, high, apart(float(decided[part].mean()), value, ratio=ratio))[part]
    return _favoured(model, rows, rng.random(len(rows)) < chance, rng)


def two_groups(rows: AuditData, measured: Measurement, rng: np.random.Generator) -> tuple[int, int]:
    """Two of the groups that are compared by themselves, at random."""
    sizes = rows.groups(*measured.sensitive).sizes
    large = np.flatnonzero(sizes >= max(measured.smallest, 1))
    if large.size < 2:
        raise NotApplicableError("Fewer than two groups are compared by themselves.")
    low, high = rng.choice(large, 2, replace=False).tolist()
    return low, high


def apart(rate: float, value: float, *, ratio: bool) -> tuple[float, float, float]:
    """The lower and the higher of two rates around ``rate``, and the others' own."""
    if ratio:
        high = min(1.0, 2.0 * rate / (1.0 + value))
        return value * high, high, high
    low = min(max(rate - 0.5 * value, 0.0), 1.0 - value)
    return low, low + value, min(max(rate, low), low + value)


def of_groups(codes: IntArray, low: int, high: int, rates: tuple[float, float, float]) -> FloatArray:
    """(n,) each row's rate: the lower of one group, the higher of another, and that of the others."""
    return np.where(codes == low, rates[0], np.where(codes == high, rates[1], rates[2]))


def _favoured(model: AuditedModel, rows: AuditData, chosen: BoolArray, rng: np.random.Generator) -> TwinModel:
    """A twin that decides favourably for the ``chosen`` rows, with scores that say so."""
    positive, k = rows.positive or 0, model.n_outputs
    others = np.delete(np.arange(k), positive)
    decided = np.where(chosen, positive, rng.choice(others, len(rows)))
    return _twin(model, rows, _scores_of(decided, k, rng), decided)


def _twin(model: AuditedModel, rows: AuditData, scores: FloatArray, decided: IntArray | None = None) -> TwinModel:
    # Probes are listed without pandas, which what a model is imports.
    from auditor.models.twin_model import TwinModel

    return TwinModel(model, rows, scores, decided)


def _scores_of(decided: IntArray, k: int, rng: np.random.Generator) -> FloatArray:
    """(n, k) probabilities of which that of the decided class is above a half."""
    sure = rng.uniform(0.5, 1.0, decided.size)
    scores = np.repeat(((1.0 - sure) / max(k - 1, 1))[:, None], k, axis=1)
    scores[np.arange(decided.size), decided] = sure
    return scores


def decided_rightly(model: AuditedModel, rows: AuditData, share: float, rng: np.random.Generator) -> TwinModel:
    """A twin that decides so large a share of the rows of each class rightly, and the others for another class."""
    return _decided_rightly(model, rows, np.full(len(rows), share), rng)


def _decided_rightly(model: AuditedModel, rows: AuditData, chance: FloatArray, rng: np.random.Generator) -> TwinModel:
    if rows.y_true is None:
        raise NotApplicableError("There are no labels.")
    k = model.n_outputs
    labels = np.maximum(rows.y_true, 0)
    wrong = (labels + rng.integers(1, max(k, 2), len(rows))) % k
    decided = np.where(rng.random(len(rows)) < chance, labels, wrong)
    return _twin(model, rows, _scores_of(decided, k, rng), decided)


def ranked(model: AuditedModel, rows: AuditData, area: float | FloatArray, rng: np.random.Generator) -> TwinModel:
    """A twin of two classes whose scores rank a favourable row above another with the probability ``area``.

    ``area``: of all rows, or (n,) of each row among those of its own group.
    """
    if rows.y_true is None or rows.positive is None or model.n_outputs != 2:
        raise NotApplicableError("There are no two classes with labels to rank.")
    shift = distance_of(np.asarray(area))
    score = normal_to_share(rng.normal(size=len(rows)) + shift * ((rows.y_true == rows.positive) - 0.5))
    return _of_two(model, rows, score)


def scored_above(model: AuditedModel, rows: AuditData, share: FloatArray, rng: np.random.Generator) -> TwinModel:
    """A twin of two classes whose scores are even on [0, 1], but for a (n,) ``share`` of the rows that scores 1."""
    if rows.positive is None or model.n_outputs != 2:
        raise NotApplicableError("There are no two classes to score.")
    score = np.where(rng.random(len(rows)) < share, 1.0, rng.uniform(0.0, 1.0, len(rows)))
    return _of_two(model, rows, score)


def _of_two(model: AuditedModel, rows: AuditData, score: FloatArray) -> TwinModel:
    scores = np.column_stack([score, 1.0 - score] if rows.positive == 0 else [1.0 - score, score])
    return _twin(model, rows, scores)


def distance_of(area: FloatArray) -> FloatArray:
    """How far apart two normal scores lie of which one is above the other with a probability."""
    return np.asarray(np.sqrt(2.0) * scipy.special.ndtri(np.clip(area, 1e-6, 1.0 - 1e-6)), np.float64)


def normal_to_share(z: FloatArray) -> FloatArray:
    """Numbers between 0 and 1 in the order of normal ones, spread over the whole."""
    return np.asarray(scipy.special.ndtr(z / np.sqrt(2.0)), np.float64)


def of_pair(rows: AuditData, measured: Measurement, rates: Sequence[float], rng: np.random.Generator) -> FloatArray:
    """(n,) each row's value: one of a group, one of another, and that of the others."""
    low, high = two_groups(rows, measured, rng)
    return of_groups(rows.groups(*measured.sensitive).codes, low, high, (rates[0], rates[1], rates[2]))
