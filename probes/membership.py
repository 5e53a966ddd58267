"""Membership inference: can somebody who sees the model's outputs tell who was in its training data?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from auditor.arrays import FloatArray, IntArray
from auditor.errors import NotApplicableError
from auditor.finding import Figure, Measurement, Pillar, Series
from auditor.probe import Need
from auditor.statistics.estimate import Undefined
from auditor.statistics.intervals import clopper_pearson, difference_bounds
from auditor.statistics.means import StudentT
from auditor.statistics.ranks import area_under_curve, true_positive_rate_at

if TYPE_CHECKING:
    from auditor.data import AuditData
    from auditor.model import AuditedModel

FALSE_POSITIVE_RATES = (0.01, 0.001)
MOST_POINTS = 200
# Level of the remarks in ``detail``: they accuse the files, so they are made only where they are all but certain.
_REMARK_LEVEL = 0.001


class MembershipInference:
    """The loss-threshold attack: training rows ("members") tend to have a smaller loss than rows never seen.

    The score of a row is ``-loss = log p(y | x)``, the model's cross-entropy at the true label with the sign turned;
    members are the rows of ``--train``, non-members those of ``--data``; rows without a label take no part.

    - ``attack_auc``: ``P(score of a member > that of a non-member) + P(tie) / 2``; [0, 1], ideal 0.5. Its
      figure is the ROC curve.
    - ``true_positive_rate_at_fpr``: share of members above the threshold that a share f of non-members exceeds, at
      f = 1 % and 0.1 %; [0, 1], ideal f. Its interval carries the threshold's own uncertainty. Given where
      ``n_non * f >= 1``, judged where it is at least 10. The measure of what few victims suffer, which an AUC hides.
    - ``balanced_accuracy``: ``(TPR + 1 - FPR) / 2`` of calling a row a member where its loss is at most the mean loss
      of the members, which is the threshold of the paper and is not chosen by its success; [0, 1], ideal 0.5.

    A row that stands more than once in the two files together takes no part, no copy of it: copies on both sides are no
    non-members, and leaving out only those among the non-members would leave them the rarer rows, on which any model
    has the larger loss. Of rows that stand once, chance alone decides the side where the split was random.

    Sources: Yeom, Giacomelli, Fredrikson and Jha, CSF 2018; TPR at low FPR: Carlini et al., IEEE S&P 2022.
    """

    name: ClassVar[str] = "membership_inference"
    pillar: ClassVar[Pillar] = "privacy"
    goal: ClassVar[str] = "Can somebody who sees the outputs tell who was in the training data?"
    citation: ClassVar[str] = "Yeom, Giacomelli, Fredrikson and Jha, CSF 2018; Carlini et al., IEEE S&P 2022"
    methods: ClassVar[tuple[str, ...]] = ("loss_threshold",)
    needs: ClassVar[tuple[Need, ...]] = (Need.CLASSIFIER, Need.DATA, Need.LABELS, Need.TRAIN)
    # Fewest members, and as many non-members, and the true AUC, found with 80 % power among 4 judgements at 5 %.
    power = (700, 0.60)

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements between ``data.members`` and ``data.evaluation``; draws nothing from ``rng``."""
        if data.members is None:
            raise NotApplicableError("Needs the model's training data: add --train FILE.")
        once = _unrepeated(data.members, data.evaluation)
        members, others = (
            _side(model, rows, alone) for rows, alone in zip((data.members, data.evaluation), once, strict=True)
        )
        detail = _detail(members, others, data.evaluation.classes or model.classes)
        return [
            _attack_auc(members, others, detail),
            *(_rate_at(members, others, rate, detail) for rate in FALSE_POSITIVE_RATES),
            _balanced_accuracy(members, others, detail),
        ]


@dataclass(frozen=True, eq=False)
class _Side:
    """One of the two samples: ``loss`` (n,) and ``labels`` (n,) of the rows that take part, ``correct`` of them."""

    loss: FloatArray
    labels: IntArray
    correct: int
    unlabelled: int
    repeated: int

    @property
    def n(self) -> int:
        """How many rows take part."""
        return self.loss.size


def _side(model: AuditedModel, rows: AuditData, alone: npt.NDArray[np.bool_]) -> _Side:
    y_true = _labels(rows)
    labelled = y_true >= 0
    probabilities, labels = model.outputs(rows)[labelled & alone], y_true[labelled & alone]
    return _Side(
        loss=cross_entropy(probabilities, labels),
        labels=labels,
        correct=int((probabilities.argmax(axis=1) == labels).sum()),
        unlabelled=int((~labelled).sum()),
        repeated=int((labelled & ~alone).sum()),
    )


def cross_entropy(probabilities: FloatArray, labels: IntArray) -> FloatArray:
    """Loss (n,) of each row's true label, ``-log(p_y / sum p)``, from probabilities (n, n_classes); 0 to about 745.

    Near p_y = 1 it is taken from the other classes' probabilities, ``log(1 + others / p_y)``, which still tell rows
    apart where p_y itself has been rounded to 1. Equal probabilities of the true label have equal losses elsewhere.
    """
    rows = np.arange(labels.size)
    own = probabilities[rows, labels]
    others = probabilities.copy()
    others[rows, labels] = 0.0
    smallest = np.finfo(np.float64).smallest_subnormal
    near_one = np.log1p(others.sum(axis=1) / np.maximum(own, 0.5))
    loss: FloatArray = np.where(own > 0.999, near_one, -np.log(np.maximum(own, smallest)))
    return loss


def _labels(rows: AuditData) -> IntArray:
    if rows.y_true is None:
        raise NotApplicableError("Needs true labels: add --target COLUMN.")
    return rows.y_true


def _unrepeated(*sides: AuditData) -> list[npt.NDArray[np.bool_]]:
    """For each side, (n,) whether no other row of any side has the same features and the same label."""
    from auditor.data import row_keys

    keys = [row_keys(rows) for rows in sides]
    _, inverse, counts = np.unique(np.concatenate(keys), return_inverse=True, return_counts=True)
    return np.split(counts[inverse] == 1, np.cumsum([len(k) for k in keys])[:-1])


# ---- the measurements ----------------------------------------------------------------------------------------------


def _attack_auc(members: _Side, others: _Side, detail: str) -> Measurement:
    estimate = area_under_curve(-members.loss, -others.loss)
    return Measurement(
        metric="attack_auc",
        method="loss_threshold",
        estimate=estimate,
        n_samples=members.n + others.n,
        ideal=0.5,
        detail=detail,
        figure=None if isinstance(estimate, Undefined) else _roc(members, others, estimate.value),
    )


def _rate_at(members: _Side, others: _Side, rate: float, detail: str) -> Measurement:
    expected, given, judged = others.n * rate, math.ceil(1 / rate - 1e-9), math.ceil(10 / rate - 1e-9)
    too_few = ""
    if expected < 1.0 - 1e-9:
        too_few = (
            f"{rate:g} of {others.n:,} non-members is less than one row: "
            f"{given:,} are needed to give a rate there, {judged:,} to judge it."
        )
    elif expected < 10.0 - 1e-9:
        too_few = (
            f"Only {expected:.3g} of {others.n:,} non-members are expected above the threshold: "
            f"the rate is shown, and {judged:,} non-members are needed to judge it."
        )
    return Measurement(
        metric="true_positive_rate_at_fpr",
        method="loss_threshold",
        estimate=(
            Undefined(reason=too_few)
            if expected < 1.0 - 1e-9
            else true_positive_rate_at(-members.loss, -others.loss, rate)
        ),
        n_samples=others.n,
        ideal=rate,
        at={"false_positive_rate": rate},
        detail=detail,
        too_few=too_few,
        n_needed=judged if too_few else None,
    )


def _balanced_accuracy(members: _Side, others: _Side, detail: str) -> Measurement:
    if min(members.n, others.n) < 2:
        return Measurement(
            metric="balanced_accuracy",
            method="loss_threshold",
            estimate=Undefined(reason="balanced accuracy needs at least two rows on either side"),
            n_samples=members.n + others.n,
            ideal=0.5,
            detail=detail,
        )
    threshold = float(members.loss.mean())
    hits, alarms = int((members.loss <= threshold).sum()), int((others.loss <= threshold).sum())
    # Half a count away from 0 and 1, so that rates of 0 and 1 in few rows are not taken for certain.
    tpr, fpr = (hits + 0.5) / (members.n + 1.0), (alarms + 0.5) / (others.n + 1.0)
    error = 0.5 * math.sqrt(tpr * (1.0 - tpr) / members.n + fpr * (1.0 - fpr) / others.n)
    return Measurement(
        metric="balanced_accuracy",
        method="loss_threshold",
        estimate=StudentT(
            centre=0.5 * (1.0 + hits / members.n - alarms / others.n),
            standard_error=error,
            degrees_of_freedom=min(members.n, others.n) - 1,
            lower_limit=0.0,
            upper_limit=1.0,
        ),
        n_samples=members.n + others.n,
        ideal=0.5,
        detail=f"threshold: the members' mean loss, {threshold:.4g}; {detail}",
    )


# ---- the figure ----------------------------------------------------------------------------------------------------


def roc_points(members: FloatArray, others: FloatArray, most: int = MOST_POINTS) -> tuple[IntArray, IntArray]:
    """Counts (k,) of non-members and of members with a loss of at most each threshold, ascending, k at most ``most``.

    The thresholds are the distinct losses, so tied rows are passed together. Of more points than ``most``, those are
    kept whose number of false positives comes nearest above an even step on the logarithmic scale, and the last.
    """
    thresholds = np.unique(np.concatenate([members, others]))
    false = np.searchsorted(np.sort(others), thresholds, "right").astype(np.int64)
    true = np.searchsorted(np.sort(members), thresholds, "right").astype(np.int64)
    # Of thresholds with equal false positives, the last is the corner of the curve.
    corner = np.r_[false[1:] != false[:-1], True]
    false, true = false[corner], true[corner]
    if false.size > most:
        steps = np.geomspace(max(int(false[0]), 1), int(false[-1]), most - 1)
        chosen = np.unique(np.r_[0, np.searchsorted(false, np.floor(steps), "left"), false.size - 1])
        false, true = false[chosen], true[chosen]
    return false, true


def _roc(members: _Side, others: _Side, auc: float) -> Figure:
    false, true = roc_points(members.loss, others.loss)
    low, high = clopper_pearson(true, members.n, 0.025)
    x, y = false / others.n, true / members.n
    said = [f"{_at(rate, false, true, members.n, others.n)} at {rate:g}" for rate in (0.001, 0.01, 0.1, 0.5)]
    return Figure(
        id="membership_inference/roc/loss_threshold",
        probe="membership_inference",
        kind="roc",
        title="ROC of the loss-threshold attack",
        series=(
            Series(
                name="loss_threshold, 95 % pointwise",
                x=tuple(float(v) for v in x),
                y=tuple(float(v) for v in y),
                low=tuple(float(v) for v in low),
                high=tuple(float(v) for v in high),
            ),
        ),
        alt=(
            f"True positive rate of the attack against its false positive rate, {members.n:,} members and {others.n:,} "
            f"non-members; area under the curve {auc:.3f}, and 0.5 is chance. "
            f"True positive rate at false positive rate: {', '.join(said)}."
        ),
        x_label="false positive rate",
        y_label="true positive rate",
        caption=(
            "On the diagonal the attack does no better than chance. "
            "Band: Clopper-Pearson, 95 %, of the share of members at each threshold."
        ),
    )


def _at(rate: float, false: IntArray, true: IntArray, n_members: int, n_others: int) -> str:
    reached = np.flatnonzero(false <= rate * n_others + 1e-9)
    if n_others * rate < 1.0 - 1e-9:
        return "not known"
    return f"{true[reached[-1]] / n_members if reached.size else 0.0:.3g}"


# ---- what a reader must know ---------------------------------------------------------------------------------------


def _detail(members: _Side, others: _Side, classes: tuple[str, ...]) -> str:
    parts = [f"{members.n:,} members and {others.n:,} non-members"]
    for what, side in (("--train", members), ("--data", others)):
        if side.unlabelled:
            parts.append(f"{side.unlabelled:,} rows of {what} without a label took no part")
        if side.repeated:
            parts.append(f"{side.repeated:,} rows of {what} that stand more than once in the two files took no part")
    if not members.n or not others.n:
        return "; ".join(parts)
    parts.append(
        f"accuracy {members.correct / members.n:.3f} on members, {others.correct / others.n:.3f} on non-members"
    )
    return "; ".join([*parts, *_remarks(members, others, classes)])


def _remarks(members: _Side, others: _Side, classes: tuple[str, ...]) -> list[str]:
    """What the two files give away about themselves, each said only where chance would say it once in a thousand."""
    found = []
    n = np.asarray([members.n, others.n], np.int64)
    worse = difference_bounds(np.asarray([members.correct, others.correct], np.int64), n, _REMARK_LEVEL)[1][0, 1]
    if worse < 0.0:
        found.append(
            "the model does worse on --train than on --data, which a model does not do on the rows it learned from: "
            "is --train the file it was trained on"
        )
    widths = max(len(classes), int(members.labels.max()) + 1, int(others.labels.max()) + 1)
    counts = [np.bincount(side.labels, minlength=widths) for side in (members, others)]
    gaps = np.abs(counts[0] / members.n - counts[1] / others.n)
    widest = int(gaps.argmax())
    pair = np.asarray([counts[0][widest], counts[1][widest]], np.int64)
    if difference_bounds(pair, n, _REMARK_LEVEL / widths)[0].max() > 0.05:
        name = classes[widest] if widest < len(classes) else str(widest)
        found.append(
            f"label {name} is {pair[0] / members.n:.1%} of the members and {pair[1] / others.n:.1%} of the "
            "non-members: the files differ by more than membership, and part of what the attack finds may be that"
        )
    return found
