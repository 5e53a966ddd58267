"""The points of a parameter sweep, compared by their audits alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import JsonValue

from auditor.core.errors import UsageError
from auditor.report.comparing.compare_audits import Comparison, compare
from auditor.report.comparing.prior_tradeoff import Disparity, read_evidence
from auditor.report.comparing.tradeoff_analysis import PRESENT, Candidate, Tradeoff, why_barred
from auditor.report.comparing.tradeoff_analysis import weigh as weigh_candidates
from auditor.report.record.audit_report import AuditReport


@dataclass(frozen=True, kw_only=True)
class AuditedPoint:
    """A point with its audit, made with ``--reference`` the present model, or with the reason why there is none."""

    name: str
    settings: Mapping[str, JsonValue] = field(default_factory=dict)
    report: AuditReport | None = None
    notes: tuple[str, ...] = ()
    failed: str = ""


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """A compared sweep, and the comparison of each audited point with the present model, by name."""

    tradeoff: Tradeoff
    comparisons: Mapping[str, Comparison]


def weigh_audits(
    present: AuditReport,
    points: Sequence[AuditedPoint],
    *,
    made_by: str,
    metric: str,
    disparity: Disparity,
    tolerance: float,
    error_rate: float,
    n_tried: int,
) -> Weighed:
    """Compare the points as :func:`auditor.report.comparing.tradeoff_analysis.weigh` does, with the same errors."""
    features = present.data.sensitive
    candidates, comparisons = [], {}
    for point in points:
        evidence, failed, barred = None, point.failed, None
        remarks: tuple[str, ...] = ()
        if point.report is not None:
            comparison = compare(present, point.report, error_rate=error_rate / n_tried)
            comparisons[point.name] = replace(comparison, made_by=(made_by, *point.notes))
            remarks, barred = comparison.remarks, why_barred(comparison)
            try:
                evidence = read_evidence(point.report, features, metric=metric, disparity=disparity, present=present)
            except UsageError as error:
                failed = str(error)
        candidates.append(
            Candidate(
                name=point.name,
                settings=point.settings,
                evidence=evidence,
                failed=failed,
                barred=barred,
                notes=point.notes,
                remarks=remarks,
                folder=point.name,
            )
        )
    own = read_evidence(present, features, metric=metric, disparity=disparity)
    found = weigh_candidates(
        Candidate(name=PRESENT, evidence=own, folder=PRESENT),
        candidates,
        made_by=made_by,
        metric=metric,
        disparity=disparity,
        tolerance=tolerance,
        error_rate=error_rate,
        n_tried=n_tried,
    )
    return Weighed(tradeoff=found, comparisons=comparisons)
