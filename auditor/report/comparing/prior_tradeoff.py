"""Evidence on a trade-off point from an audit that used the present model as its reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from auditor.core.errors import UsageError
from auditor.report.comparing.side_by_side import is_paired_change
from auditor.report.comparing.usefulness import BALANCED
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.statistics.changes import GapChange, PairedRates, RateChange
from auditor.statistics.estimate import Estimate, Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.groups import WorstRatio
from auditor.statistics.tradeoff_statistics import Apart, MeanChange

LEAKAGE = "attack_auc"
Disparity = Literal[
    "demographic_parity_difference",
    "demographic_parity_ratio",
    "equal_opportunity_difference",
    "equalized_odds_difference",
    "accuracy_difference",
]
DISPARITIES: tuple[Disparity, ...] = get_args(Disparity)
PARITY: Disparity = "demographic_parity_difference"
RATIO: Disparity = "demographic_parity_ratio"
PAIRED_PERFORMANCE = ("accuracy", "balanced_accuracy", "true_positive_rate")


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The disparity of one sensitive feature, or of the intersection of all (``feature``: their names joined by `` x
    ``): ``own`` at this point, its paired ``change`` since the present model, and the adverse impact ratio, smallest
    selection rate over largest."""

    feature: str
    own: Estimate
    change: Estimate
    ratio: Estimate
    ratio_change: Estimate


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The evidence of one audit on a point.

    ``performance``: larger is better. ``gaps``: of each sensitive feature, and of their intersection where there are
    several and each of its groups has the rows; where one has not, ``unweighed`` says so. ``attacks``: attack AUC by
    attack. ``constant``: whether every row got the same decision.
    """

    performance: Estimate
    performance_change: Estimate
    gaps: tuple[Gap, ...]
    unweighed: str = ""
    attacks: Mapping[str, AnyEstimate] = field(default_factory=dict)
    constant: bool = False


def read_evidence(
    report: AuditReport,
    features: Sequence[str],
    *,
    metric: str = "accuracy",
    disparity: Disparity = PARITY,
    present: AuditReport | None = None,
) -> Evidence:
    """The evidence in an audit that used the present model as ``--reference``.

    ``metric``: out of :data:`PAIRED_PERFORMANCE`, or any number of ideal 1 that both audits hold without a group; that
    is compared apart, from ``present``'s audit. Raises UsageError where the audit does not hold what is asked for.
    """
    changes = [f for f in report.findings if is_paired_change(report, f)]
    performance, performance_change = _performance(report, changes, features, metric, present or report)
    gaps = [_gap(changes, (feature,), disparity) for feature in features]
    unweighed = ""
    if len(features) > 1:
        together = _gap(changes, tuple(features), disparity)
        # Whether a group has the rows is the same for every model.
        if isinstance(together.change, Undefined):
            unweighed = f"The intersection {together.feature} is not weighed: {together.change.reason}."
        else:
            gaps.append(together)
    return Evidence(
        performance=performance,
        performance_change=performance_change,
        gaps=tuple(gaps),
        unweighed=unweighed,
        attacks={
            str(f.method): f.estimate
            for f in report.findings
            if f.metric == LEAKAGE and f.method and not f.group and f.estimate is not None
        },
        constant=bool(features) and _is_constant(_find_change(changes, f"{PARITY}_change", features[:1])),
    )


def _is_constant(parity: AnyEstimate) -> bool:
    if not isinstance(parity, GapChange):
        return False
    selected = _together(parity.rates[0]).rate(after=True)
    return selected.n > 0 and selected.successes in (0, selected.n)


def _performance(
    report: AuditReport, changes: Sequence[Finding], features: Sequence[str], metric: str, present: AuditReport
) -> tuple[Estimate, Estimate]:
    if metric == "accuracy":
        overall = _find_change(changes, "accuracy_change", ())
        if isinstance(overall, RateChange):
            return overall.rate(after=True), overall
        return overall, overall
    if metric == BALANCED:
        recalls = (f.estimate for f in changes if f.metric == "recall_change")
        change = MeanChange(parts=tuple(recall for recall in recalls if isinstance(recall, RateChange)))
        # Without any, what is said of accuracy says why.
        unknown = _find_change(changes, "accuracy_change", ())
        return (change.mean(after=True), change) if change.parts else (unknown, unknown)
    if metric == "true_positive_rate":
        gap = _find_change(changes, "equal_opportunity_difference_change", features[:1])
        if not isinstance(gap, GapChange):
            return gap, gap
        positives = _together(gap.rates[0])
        return positives.rate(after=True), positives
    after, before = (_headline(r, metric) for r in (report, present))
    return after, Apart(before=before, after=after)


def _headline(report: AuditReport, metric: str) -> AnyEstimate:
    found = [f for f in report.findings if f.metric == metric and not f.group and not f.at and f.estimate is not None]
    if not found or any(f.ideal != 1.0 for f in found):
        known = dict.fromkeys(
            str(f.metric) for f in report.findings if f.ideal == 1.0 and not f.group and not f.at and f.estimate
        )
        raise UsageError(
            f"The audit holds no number {metric!r} of all rows whose ideal is 1: take --metric "
            f"{', '.join(dict.fromkeys((*PAIRED_PERFORMANCE, *known)))}, or add its probe with --probes."
        )
    if len(found) > 1:
        raise UsageError(f"The audit holds {len(found)} numbers named {metric!r}: take --metric accuracy instead.")
    assert found[0].estimate is not None
    return found[0].estimate


def _find_change(changes: Sequence[Finding], metric: str, features: Sequence[str]) -> AnyEstimate:
    found = [
        f.estimate
        for f in changes
        if f.metric == metric and f.sensitive == tuple(features) and not f.group and f.estimate is not None
    ]
    if found:
        return found[0]
    reason = next((f.reason for f in changes if f.metric is None and f.reason), "")
    what = metric.removesuffix("_change")
    raise UsageError(
        f"The audit says nothing of {what}{''.join(f' by {f}' for f in features)}: {reason}"
        if reason
        else f"The audit says nothing of {what}{''.join(f' by {f}' for f in features)}: a sweep needs a classifier, "
        "true labels (--target), the favourable label (--positive) and a sensitive feature (--sensitive)."
    )


def _together(rate: PairedRates) -> RateChange:
    """The rate over the rows of all groups."""
    return RateChange(before=sum(rate.before), gained=sum(rate.gained), lost=sum(rate.lost), n=sum(rate.n))


def _gap(changes: Sequence[Finding], features: tuple[str, ...], disparity: Disparity) -> Gap:
    parity = _find_change(changes, f"{PARITY}_change", features)
    unknown = Undefined(reason="the selection rates are undefined")
    ratio: Estimate = unknown
    ratio_change: Estimate = unknown
    if isinstance(parity, GapChange):
        before, after = (WorstRatio(tables=(parity.rates[0].table(after=after),)) for after in (False, True))
        ratio, ratio_change = after, Apart(before=before, after=after)
    if disparity == RATIO:
        own, change = ratio, ratio_change
    else:
        found = parity if disparity == PARITY else _find_change(changes, f"{disparity}_change", features)
        own, change = (found.gap(after=True), found) if isinstance(found, GapChange) else (found, found)
    return Gap(feature=" x ".join(features), own=own, change=change, ratio=ratio, ratio_change=ratio_change)
