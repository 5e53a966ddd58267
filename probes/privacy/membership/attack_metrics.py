"""Metrics of attack scores: AUC, rates at low false positive rates, balanced accuracy, ROC curve."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.judging.figure_types import Figure, Series
from auditor.judging.measurement import Measurement
from auditor.statistics.estimate import Undefined
from auditor.statistics.intervals import clopper_pearson
from auditor.statistics.rank_estimates import area_under_curve, true_positive_rate_at
from auditor.statistics.rates import Proportion, RateTable, WeightedSum

FALSE_POSITIVE_RATES = (0.01, 0.001)
FEWEST_JUDGED = 1_000
MOST_POINTS = 200
_LIKELIHOOD_RATIOS = ("lira_online", "lira_online_fixed_variance", "bavaria")
# With fewer non-members, the highest of them is too low a bar to be called no false positive.
FEWEST_FOR_NONE = 100


class Sides(Protocol):
    """The n rows of an attack as far as scores are measured: membership and groups."""

    @property
    def is_member(self) -> BoolArray:
        """(n,)."""
        ...

    @property
    def number(self) -> IntArray:
        """(n,) the row number in its own file, from 1."""
        ...

    @property
    def groups(self) -> Mapping[str, Sequence[str]]:
        """The groups (n,) by sensitive feature."""
        ...

    @property
    def n_rows(self) -> int:
        """Rows of both files."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class Attack:
    """One attack's scores of the rows of a pool, higher for members; or the reason for their absence.

    scores (n,); ``scored`` (n,): the rows it may be measured on. ``threshold``: a row is called a member where its
    score is at least this; ``threshold_words`` says which one that is. ``detail``: threat model and remarks.
    ``inapplicable``: whether ``why_not`` is about the kind of rows, of which more would be of no help.
    """

    method: str
    scores: FloatArray
    scored: BoolArray
    threshold: float
    threshold_words: str
    detail: str
    why_not: str = ""
    inapplicable: bool = False

    def members(self, pool: Sides, among: BoolArray | None = None) -> FloatArray:
        """Scores of the members that are measured."""
        return self._scores_of(pool.is_member, among)

    def non_members(self, pool: Sides, among: BoolArray | None = None) -> FloatArray:
        """Scores of the non-members that are measured."""
        return self._scores_of(~pool.is_member, among)

    def _scores_of(self, side: BoolArray, among: BoolArray | None) -> FloatArray:
        if self.why_not:
            return np.empty(0)
        return self.scores[side & self.scored & (True if among is None else among)]


def threshold_of(method: str, scores: FloatArray, scored: BoolArray, is_member: BoolArray) -> tuple[float, str]:
    """The threshold of an attack, not selected by its success, from all its scores (n,); and its name."""
    if method in _LIKELIHOOD_RATIOS:
        return 0.0, "a likelihood ratio of 1"
    if method == "loss_threshold":
        losses = -scores[is_member]
        mean = float(losses.mean()) if losses.size else 0.0
        return -mean, f"the members' mean loss, {mean:.4g}"
    measured = scores[scored]
    return (float(np.median(measured)) if measured.size else 0.0), "the median of all scores"


def measurements(attack: Attack, pool: Sides, detail: str) -> list[Measurement]:
    """All measurements of one attack except its figure."""
    members, others = attack.members(pool), attack.non_members(pool)
    found = [
        _attack_auc(attack, members, others, f"{detail}; {attack.detail}"),
        *(rate_at(attack, members, others, rate, detail) for rate in FALSE_POSITIVE_RATES),
        _rate_at_none(attack, members, others, detail),
        _balanced_accuracy(attack, members, others, detail),
    ]
    # What a rate is taken over, or an attack learned from, are parts of the rows that the question is put to.
    found = [replace(m, n_samples=pool.n_rows) for m in found]
    if not attack.inapplicable:
        return found
    never = Undefined(reason=attack.why_not, inapplicable=True)
    return [replace(m, estimate=never, too_few="", n_needed=None) for m in found]


def _attack_auc(attack: Attack, members: FloatArray, others: FloatArray, detail: str) -> Measurement:
    return Measurement(
        metric="attack_auc",
        method=attack.method,
        estimate=Undefined(reason=attack.why_not)
        if attack.why_not
        else area_under_curve(positives=members, negatives=others),
        n_samples=members.size + others.size,
        ideal=0.5,
        detail=detail,
    )


def rate_at(attack: Attack, members: FloatArray, others: FloatArray, rate: float, detail: str) -> Measurement:
    """``true_positive_rate_at_fpr`` of scores of members (m,) and non-members (n,), if there are enough."""
    expected, given, judged = others.size * rate, math.ceil(1 / rate - 1e-9), FEWEST_JUDGED
    too_few = ""
    if expected < 1.0 - 1e-9:
        too_few = attack.why_not or (
            f"{rate:g} of {others.size:,} non-members is less than one row: "
            f"{given:,} are needed to give a rate there, {judged:,} to judge it."
        )
    elif others.size < judged:
        too_few = (
            f"Only {expected:.3g} of {others.size:,} non-members are expected above the threshold: "
            f"the rate is shown, and {judged:,} non-members are needed to judge it."
        )
    return Measurement(
        metric="true_positive_rate_at_fpr",
        method=attack.method,
        estimate=(
            Undefined(reason=too_few)
            if expected < 1.0 - 1e-9
            else true_positive_rate_at(positives=members, negatives=others, false_positive_rate=rate)
        ),
        n_samples=others.size,
        ideal=rate,
        at={"false_positive_rate": rate},
        detail=detail,
        too_few=too_few,
        n_needed=(
            in_same_shares(judged, members.size + others.size, others.size) if too_few and not attack.why_not else None
        ),
    )


def in_same_shares(n_needed: int, n_rows: int, n_others: int) -> int:
    """The required rows of both files for ``n_needed`` non-members, with ``n_others`` of ``n_rows`` at present."""
    return math.ceil(n_needed * n_rows / n_others) if n_others else n_needed


def _rate_at_none(attack: Attack, members: FloatArray, others: FloatArray, detail: str) -> Measurement:
    few = attack.why_not or (
        f"{others.size:,} non-members are too few for the highest of them to stand for no false positive: "
        f"{FEWEST_FOR_NONE} are needed."
    )
    if others.size < FEWEST_FOR_NONE or not members.size:
        estimate: Proportion | Undefined = Undefined(reason=few)
    else:
        estimate = Proportion(successes=int((members > others.max()).sum()), n=members.size)
        detail += (
            f"; the threshold is the highest of {others.size:,} non-members, its false positive rate is at most "
            f"{1.0 - 0.05 ** (1.0 / others.size):.2g} at 95 % confidence, and the interval is that of the rate there"
        )
    return Measurement(
        metric="true_positive_rate_at_no_false_positive",
        method=attack.method,
        estimate=estimate,
        n_samples=members.size,
        ideal=0.0,
        detail=detail,
        too_few=few if isinstance(estimate, Undefined) else "",
    )


def _balanced_accuracy(attack: Attack, members: FloatArray, others: FloatArray, detail: str) -> Measurement:
    m, n = members.size, others.size
    if min(m, n) < 2:
        return Measurement(
            metric="balanced_accuracy",
            method=attack.method,
            estimate=Undefined(reason=attack.why_not or "balanced accuracy needs at least two rows on either side"),
            n_samples=m + n,
            ideal=0.5,
            detail=detail,
        )
    hits, alarms = int((members >= attack.threshold).sum()), int((others >= attack.threshold).sum())
    return Measurement(
        metric="balanced_accuracy",
        method=attack.method,
        estimate=WeightedSum(
            weights=(0.5, -0.5),
            table=RateTable(rate="called_members", successes=(hits, alarms), n=(m, n)),
            constant=0.5,
        ),
        n_samples=m + n,
        ideal=0.5,
        detail=f"threshold: {attack.threshold_words}; {detail}",
    )


# ---- the figure ----------------------------------------------------------------------------------------------------


def roc_points(members: FloatArray, others: FloatArray) -> tuple[IntArray, IntArray]:
    """Counts (k,) of non-members and of members with a loss of at most each threshold, ascending, k <= ``MOST_POINTS``.

    A loss is any score with its sign turned. The thresholds are the distinct losses, so tied rows are passed together.
    Of more points those are kept whose number of false positives comes nearest above an even step on the
    logarithmic scale, and the last.
    """
    thresholds = np.unique(np.concatenate([members, others]))
    false = np.searchsorted(np.sort(others), thresholds, "right").astype(np.int64)
    true = np.searchsorted(np.sort(members), thresholds, "right").astype(np.int64)
    # Of thresholds with equal false positives, the last is the corner of the curve.
    corner = np.r_[false[1:] != false[:-1], True]
    false, true = false[corner], true[corner]
    if false.size > MOST_POINTS:
        steps = np.geomspace(max(int(false[0]), 1), int(false[-1]), MOST_POINTS - 1)
        chosen = np.unique(np.r_[0, np.searchsorted(false, np.floor(steps), "left"), false.size - 1])
        false, true = false[chosen], true[chosen]
    return false, true


def roc_figure(attacks: Sequence[Attack], pool: Sides) -> Figure | None:
    """The joint figure of the attacks' ROC curves."""
    series, said = [], []
    for attack in attacks:
        members, others = attack.members(pool), attack.non_members(pool)
        auc = area_under_curve(positives=members, negatives=others)
        if isinstance(auc, Undefined):
            continue
        false, true = roc_points(-members, -others)
        low, high = clopper_pearson(true, n=members.size, alpha=0.025)
        series.append(
            Series(
                name=f"{attack.method}, 95 % pointwise",
                x=tuple(float(v) for v in false / others.size),
                y=tuple(float(v) for v in true / members.size),
                low=tuple(float(v) for v in low),
                high=tuple(float(v) for v in high),
            )
        )
        at = [
            f"{_rate_text(rate, false, true, members.size, others.size)} at {rate:g}"
            for rate in (0.001, 0.01, 0.1, 0.5)
        ]
        said.append(
            f"{attack.method}, {members.size:,} members and {others.size:,} non-members: area under the curve "
            f"{auc.value:.3f}; true positive rate at false positive rate: {', '.join(at)}."
        )
    if not series:
        return None
    alone = attacks[0].method if len(attacks) == 1 else ""
    return Figure(
        id="/".join(part for part in ("membership_inference/roc", alone) if part),
        probe="membership_inference",
        kind="roc",
        title=f"ROC of the attack {alone}" if alone else "ROC of the attacks",
        series=tuple(series),
        alt=f"True positive rate against false positive rate; an area of 0.5 is chance. {' '.join(said)}",
        x_label="false positive rate",
        y_label="true positive rate",
        caption=(
            "On the diagonal an attack does no better than chance. "
            "Bands: Clopper-Pearson, 95 %, of the share of members at each threshold."
        ),
    )


def _rate_text(rate: float, false: IntArray, true: IntArray, n_members: int, n_others: int) -> str:
    reached = np.flatnonzero(false <= rate * n_others + 1e-9)
    if n_others * rate < 1.0 - 1e-9:
        return "not known"
    return f"{true[reached[-1]] / n_members if reached.size else 0.0:.3g}"
