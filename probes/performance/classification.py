"""How good decisions and scores of a classifier are: overall, by group, and against the base rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from auditor.errors import NotApplicableError
from auditor.finding.measurement import Measurement
from auditor.rows import FloatArray, IntArray
from auditor.statistics.changes import RateChange
from auditor.statistics.estimate import Undefined
from auditor.statistics.kinds import AnyEstimate
from auditor.statistics.ranks import Ranked
from auditor.statistics.rates import Proportion, RateTable, WeightedSum
from auditor.statistics.values import bounded_mean
from probes.fairness.score_fairness import calibration_error

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.model.audited_model import AuditedModel

_SMALLEST = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Answered:
    """Labelled rows of a classifier: true class and decision (n,), probabilities (n, k).

    ``among``: the rows that these were taken from, and which of them they are, so that scores are put in order once.
    """

    truth: IntArray
    decided: IntArray
    scores: FloatArray
    positive: int
    among: tuple[Answered, IntArray] | None = None

    @classmethod
    def of(cls, model: AuditedModel, rows: AuditData) -> Answered | None:
        """The labelled rows and what the model answers; None where no row has a label."""
        labelled = np.zeros(len(rows), bool) if rows.y_true is None else rows.y_true >= 0
        if rows.y_true is None or not labelled.any():
            return None
        positive = model.n_outputs - 1 if rows.positive is None else rows.positive
        decided = model.decisions(rows)
        try:
            scores = model.outputs(rows)
        except NotApplicableError:  # a model of which decisions are all that is known
            scores = np.eye(model.n_outputs)[decided]
        return cls(rows.y_true[labelled], decided[labelled], scores[labelled], positive)

    def take(self, own: npt.NDArray[np.bool_]) -> Answered:
        """Some of the rows."""
        at = np.flatnonzero(own)
        return Answered(self.truth[at], self.decided[at], self.scores[at], self.positive, (self, at))

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def graded(self) -> bool:
        """Whether there are probabilities, and not labels in their place."""
        return bool(((self.scores > 0.0) & (self.scores < 1.0)).any())

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """(n,) whether the decision is the true class."""
        return np.asarray(self.truth == self.decided, bool)

    @cached_property
    def area(self) -> AnyEstimate:
        """How well the scores rank the favourable class above the others."""
        favourable = self.truth == self.positive
        return self._ranked.area(positives=favourable, negatives=~favourable)

    @cached_property
    def _ranked(self) -> Ranked:
        if self.among is None:
            return Ranked.of(self.scores[:, self.positive])
        rows, own = self.among
        return Ranked(rows._ranked.different, rows._ranked.ranks[own])


def measured(rows: Answered, classes: Sequence[str], bins: int) -> list[Measurement]:
    """Everything over all labelled rows."""
    n = len(rows)
    commonest = int(np.bincount(rows.truth).argmax())
    base = rows.truth == commonest
    rate = Proportion(successes=int(base.sum()), n=n)
    said = f"always answering {classes[commonest]!r} would be right for {rate.value:.3g} of these rows"
    change = RateChange(
        before=rate.successes, gained=int((rows.right & ~base).sum()), lost=int((base & ~rows.right).sum()), n=n
    )
    return [
        skill(rows, with_scores=rows.graded),
        _one("accuracy", _accuracy(rows), n, 1.0, detail=said),
        _one("base_rate", rate, n, None, detail=f"the share of {classes[commonest]}, the commonest class"),
        _one("accuracy_over_base_rate", change, n, None, detail=f"on the same rows; {said}"),
        *(m for m in _errors(rows, bins, rows.graded) if m.metric not in ("roc_auc", "accuracy")),
    ]


def by_group(rows: Answered, group: dict[str, str], bins: int, *, graded: bool) -> list[Measurement]:
    """The same numbers of one group's rows, held to nothing of themselves. ``graded``: of all rows."""
    found = _errors(rows, bins, graded)
    return [
        Measurement(
            metric=m.metric, method=m.method, estimate=m.estimate, n_samples=m.n_samples, ideal=m.ideal, group=group
        )
        for m in found
    ]


def skill(rows: Answered, *, with_scores: bool) -> Measurement:
    """The number that shows skill: how well the scores rank two classes, else how often each class is recognised."""
    if with_scores and rows.scores.shape[1] == 2:
        return _one("roc_auc", rows.area, len(rows), 1.0, chance=0.5)
    recalls = _recalls(rows)
    k = len(recalls.n)
    estimate: AnyEstimate = Undefined(reason="all labelled rows are of one class, so there is nothing to tell apart")
    if k > 1:
        # (mean recall - 1 / k) / (1 - 1 / k): 0 for whoever answers without looking, 1 for whoever is always right.
        estimate = WeightedSum(weights=(1.0 / (k - 1),) * k, table=recalls, constant=-1.0 / (k - 1))
    found = _one("adjusted_balanced_accuracy", estimate, len(rows), 1.0, chance=0.0, detail=f"{k} classes")
    return replace(found, skill_of="decisions")


def _errors(rows: Answered, bins: int, graded: bool) -> list[Measurement]:
    n = len(rows)
    recalls = _recalls(rows)
    k = len(recalls.n)
    balanced: AnyEstimate = Undefined(reason="there are no labelled rows")
    if k:
        balanced = WeightedSum(weights=(1.0 / k,) * k, table=recalls)
    found = [
        _one("accuracy", _accuracy(rows), n, 1.0),
        # Scores may rank rows where decisions that are made of them, or beside them, tell none apart.
        replace(
            _one("balanced_accuracy", balanced, n, 1.0, detail=f"the mean over {k} classes of the share recognised"),
            chance=1.0 / k if k > 1 else None,
            skill_of="decisions" if k > 1 else None,
        ),
    ]
    if not graded:
        return found
    if rows.scores.shape[1] == 2:
        found.append(_one("roc_auc", rows.area, n, 1.0))
        sure, right = rows.scores[:, rows.positive], rows.truth == rows.positive
        of = "the favourable class" if n else ""
    else:
        sure, right, of = rows.scores.max(axis=1), rows.scores.argmax(axis=1) == rows.truth, "the likeliest class"
    return [
        *found,
        _one("log_loss", _log_loss(rows), n, 0.0, detail=f"in nats; probabilities no smaller than {_SMALLEST:.2g}"),
        Measurement(
            metric="expected_calibration_error",
            estimate=calibration_error(np.clip(sure, 0.0, 1.0), np.asarray(right, bool), bins),
            n_samples=n,
            ideal=0.0,
            detail=f"{bins} bins of equal width of the probability of {of}",
            # The base rate, said of everybody, is calibrated.
            ideal_when_same="scores",
        ),
    ]


def _accuracy(rows: Answered) -> Proportion:
    return Proportion(successes=int(rows.right.sum()), n=len(rows))


def _recalls(rows: Answered) -> RateTable:
    """How many rows of each class that occurs are recognised."""
    n = np.bincount(rows.truth)
    seen = np.flatnonzero(n)
    found = np.bincount(rows.truth[rows.right], minlength=n.size)
    return RateTable(rate="recall", successes=tuple(found[seen].tolist()), n=tuple(n[seen].tolist()))


def _log_loss(rows: Answered) -> AnyEstimate:
    own = np.clip(rows.scores, _SMALLEST, 1.0)
    told = own[np.arange(len(rows)), rows.truth] / own.sum(axis=1)
    most = -float(np.log(_SMALLEST)) + 1.0
    return bounded_mean(np.minimum(-np.log(np.minimum(told, 1.0)), most), low=0.0, high=most)


def _one(
    metric: str, estimate: AnyEstimate, n: int, ideal: float | None, *, detail: str = "", chance: float | None = None
) -> Measurement:
    return Measurement(metric=metric, estimate=estimate, n_samples=n, ideal=ideal, detail=detail, chance=chance)
