"""Quality of a classifier's decisions and scores: overall, by group, and against the base rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from auditor.core.errors import NotApplicableError
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.data.score_counts import (
    FAVOURABLE,
    LARGEST_LOSS,
    LEAST_PROBABILITY,
    LOSS_SCALE,
    OTHER,
    Scored,
    log_losses,
)
from auditor.judging.measurement import Measurement
from auditor.statistics.changes import RateChange
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.rank_estimates import Ranked, area_of_counts
from auditor.statistics.rates import Proportion, RateTable, WeightedSum
from auditor.statistics.values import BoundedMean, bounded_mean
from probes.fairness.score_fairness import calibration_error, calibration_of, on_grid

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel


class Graded(Protocol):
    """Labelled rows of a classifier, reduced to the needs of performance metrics.

    ``crossed``: (k, k) rows by true class and decision. ``graded``: whether there are probabilities, and not labels in
    their place. ``area``: how well the scores of two classes rank the favourable one above the other.
    """

    @property
    def crossed(self) -> IntArray: ...

    @property
    def graded(self) -> bool: ...

    @property
    def area(self) -> AnyEstimate: ...

    @property
    def log_loss(self) -> AnyEstimate:
        """The mean loss in nats."""
        ...

    def calibration(self, bins: int) -> AnyEstimate:
        """Calibration of the favourable class of two, else of the likeliest class."""
        ...


@dataclass(frozen=True, eq=False)
class Answered:
    """Labelled rows of a classifier in memory: true class and decision (n,), probabilities (n, k).

    ``among``: the rows that these were taken from, and which of them they are, so that scores are put in order once.
    """

    truth: IntArray
    decided: IntArray
    scores: FloatArray
    positive: int
    among: tuple[Answered, IntArray] | None = None

    @classmethod
    def from_model(cls, model: AuditedModel, rows: AuditData) -> Answered | None:
        """The labelled rows and the model's answers; None if no row has a label."""
        labelled = np.zeros(len(rows), bool) if rows.y_true is None else rows.y_true >= 0
        if rows.y_true is None or not labelled.any():
            return None
        positive = model.n_outputs - 1 if rows.positive is None else rows.positive
        decided = model.decisions(rows)
        try:
            scores = model.scores(rows)
        except NotApplicableError:  # a model of which decisions are all that is known
            scores = np.eye(model.n_outputs)[decided]
        return cls(rows.y_true[labelled], decided[labelled], scores[labelled], positive)

    def take(self, mask: BoolArray) -> Answered:
        """A subset of the rows."""
        at = np.flatnonzero(mask)
        return Answered(self.truth[at], self.decided[at], self.scores[at], self.positive, (self, at))

    def __len__(self) -> int:
        return len(self.truth)

    @cached_property
    def graded(self) -> bool:
        """Whether there are probabilities instead of labels only."""
        return bool(((self.scores > 0.0) & (self.scores < 1.0)).any())

    @property
    def right(self) -> BoolArray:
        """(n,) whether the decision is the true class."""
        return np.asarray(self.truth == self.decided, bool)

    @cached_property
    def crossed(self) -> IntArray:
        """(k, k) rows by true class and decision."""
        k = self.scores.shape[1]
        return np.asarray(np.bincount(self.truth * k + self.decided, minlength=k * k).reshape(k, k), np.int64)

    @cached_property
    def area(self) -> AnyEstimate:
        """The area under the curve: ranking of the favourable class above the others by the scores."""
        favourable = self.truth == self.positive
        return self._ranked.area(positives=favourable, negatives=~favourable)

    @cached_property
    def _ranked(self) -> Ranked:
        if self.among is None:
            return Ranked.from_values(self.scores[:, self.positive])
        rows, own = self.among
        return Ranked(rows._ranked.different, rows._ranked.ranks[own])

    @property
    def log_loss(self) -> AnyEstimate:
        """The mean loss in nats."""
        return bounded_mean(self._losses, low=0.0, high=LARGEST_LOSS)

    @cached_property
    def _losses(self) -> FloatArray:
        if self.among is None:
            return log_losses(self.scores, self.truth)
        rows, own = self.among
        return rows._losses[own]

    def calibration(self, bins: int) -> AnyEstimate:
        """Calibration of the favourable class of two, else of the likeliest class."""
        if self.scores.shape[1] == 2:
            sure, right = self.scores[:, self.positive], self.truth == self.positive
        else:
            sure, right = self.scores.max(axis=1), self.scores.argmax(axis=1) == self.truth
        return calibration_error(np.clip(sure, 0.0, 1.0), np.asarray(right, bool), bins)


@dataclass(frozen=True, eq=False)
class Counted:
    """Counts of one group's streamed labelled rows: ``crossed`` (k, k), and the group's index in ``scored``."""

    crossed: IntArray
    scored: Scored
    place: int
    graded: bool

    @property
    def area(self) -> AnyEstimate:
        """The area under the curve: ranking of the favourable class, within the error of the grid."""
        own = self.scored.counts[self.place]
        return area_of_counts(positives=own[FAVOURABLE], negatives=own[OTHER], blurred=self.scored.blurred)

    @property
    def log_loss(self) -> AnyEstimate:
        """The mean loss in nats."""
        found = self.scored.moments("loss", LOSS_SCALE)[self.place]
        if found is None:
            return Undefined(reason="there are no rows to take a mean over")
        return BoundedMean(
            centre=min(max(found.mean, 0.0), LARGEST_LOSS),
            standard_error=math.sqrt(found.variance / found.n) if found.n > 1 else 0.0,
            third_moment=found.cubed,
            n=found.n,
            low=0.0,
            high=LARGEST_LOSS,
        )

    def calibration(self, bins: int) -> AnyEstimate:
        """Calibration of the favourable class of two, else of the likeliest class."""
        kind = "favourable" if len(self.crossed) == 2 else "likeliest"
        return calibration_of(*(column[self.place] for column in self.scored.calibrated(kind, bins)))


def measure_rows(rows: Graded, classes: Sequence[str], bins: int) -> list[Measurement]:
    """All measurements on all labelled rows."""
    by_class, hits = rows.crossed.sum(axis=1), np.diagonal(rows.crossed)
    n, commonest = int(by_class.sum()), int(by_class.argmax())
    rate = Proportion(successes=int(by_class[commonest]), n=n)
    said = f"always answering {classes[commonest]!r} would be right for {100.0 * rate.value:.3g} % of these rows"
    gained = int(hits.sum() - hits[commonest])
    lost = int(by_class[commonest] - hits[commonest])
    change = RateChange(before=rate.successes, gained=gained, lost=lost, n=n)
    return [
        skill(rows, with_scores=rows.graded),
        _measurement("accuracy", _accuracy(rows), n, 1.0, detail=said),
        _measurement("base_rate", rate, n, None, detail=f"the share of {classes[commonest]}, the commonest class"),
        _measurement("accuracy_over_base_rate", change, n, None, detail=f"on the same rows; {said}"),
        *(m for m in _errors(rows, bins, rows.graded) if m.metric not in ("roc_auc", "accuracy")),
    ]


def by_group(rows: Graded, group: dict[str, str], bins: int, *, graded: bool) -> list[Measurement]:
    """The same numbers on one group's rows, without requirements of their own.

    ``graded``: of all rows.
    """
    found = _errors(rows, bins, graded)
    return [
        Measurement(
            metric=m.metric, method=m.method, estimate=m.estimate, n_samples=m.n_samples, ideal=m.ideal, group=group
        )
        for m in found
    ]


def skill(rows: Graded, *, with_scores: bool) -> Measurement:
    """The number that measures skill: the ranking of two classes by scores, else the recall of each class."""
    n = int(rows.crossed.sum())
    if with_scores and len(rows.crossed) == 2:
        return _measurement("roc_auc", rows.area, n, 1.0, chance=0.5, detail=on_grid(rows.area))
    recalls = _recalls(rows)
    k = len(recalls.n)
    estimate: AnyEstimate = Undefined(reason="all labelled rows are of one class, so there is nothing to tell apart")
    if k > 1:
        # (mean recall - 1 / k) / (1 - 1 / k): 0 for whoever answers without looking, 1 for whoever is always right.
        estimate = WeightedSum(weights=(1.0 / (k - 1),) * k, table=recalls, constant=-1.0 / (k - 1))
    found = _measurement("adjusted_balanced_accuracy", estimate, n, 1.0, chance=0.0, detail=f"{k} classes")
    return replace(found, skill_of="decisions")


def _errors(rows: Graded, bins: int, graded: bool) -> list[Measurement]:
    n = int(rows.crossed.sum())
    recalls = _recalls(rows)
    k = len(recalls.n)
    balanced: AnyEstimate = Undefined(reason="there are no labelled rows")
    if k:
        balanced = WeightedSum(weights=(1.0 / k,) * k, table=recalls)
    found = [
        _measurement("accuracy", _accuracy(rows), n, 1.0),
        # Scores may rank rows where decisions that are made of them, or beside them, tell none apart.
        replace(
            _measurement(
                "balanced_accuracy", balanced, n, 1.0, detail=f"the mean over {k} classes of the share recognised"
            ),
            chance=1.0 / k if k > 1 else None,
            skill_of="decisions" if k > 1 else None,
        ),
    ]
    if not graded:
        return found
    of = "the likeliest class"
    if len(rows.crossed) == 2:
        found.append(_measurement("roc_auc", rows.area, n, 1.0))
        of = "the favourable class" if n else ""
    said = f"in nats; probabilities no smaller than {LEAST_PROBABILITY:.2g}"
    return [
        *found,
        _measurement("log_loss", rows.log_loss, n, 0.0, detail=said),
        Measurement(
            metric="expected_calibration_error",
            estimate=rows.calibration(bins),
            n_samples=n,
            ideal=0.0,
            detail=f"{bins} bins of equal width of the probability of {of}",
            # The base rate, said of everybody, is calibrated.
            ideal_when_same="scores",
        ),
    ]


def _accuracy(rows: Graded) -> Proportion:
    return Proportion(successes=int(np.trace(rows.crossed)), n=int(rows.crossed.sum()))


def _recalls(rows: Graded) -> RateTable:
    """How many rows of each class that occurs are recognised."""
    n, found = rows.crossed.sum(axis=1), np.diagonal(rows.crossed)
    seen = np.flatnonzero(n)
    return RateTable(rate="recall", successes=tuple(found[seen].tolist()), n=tuple(n[seen].tolist()))


def _measurement(
    metric: str, estimate: AnyEstimate, n: int, ideal: float | None, *, detail: str = "", chance: float | None = None
) -> Measurement:
    return Measurement(metric=metric, estimate=estimate, n_samples=n, ideal=ideal, detail=detail, chance=chance)
