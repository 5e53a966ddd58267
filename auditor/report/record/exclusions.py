"""Exclusions from judged numbers, for the first page: rows in small groups, and limits of an attack."""

from __future__ import annotations

from auditor.judging.vacuity import HIDDEN
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport

# What group_fairness calls the share of the rows that are in small groups; its detail names the groups.
SMALL_GROUP_SHARE = "small_group_share"


def groups_left_out(report: AuditReport) -> list[str]:
    """A sentence or two for each feature, or combination of features, with groups too small to be compared."""
    return [
        f"By {' x '.join(f.sensitive)}, {number_text.percent(f.value)} of the rows are in {f.detail}. No judged number "
        "compares them; they are shown with their intervals."
        for f in report.findings
        if f.metric == SMALL_GROUP_SHARE and f.value
    ]


def hidden_gradients(report: AuditReport) -> list[str]:
    """Sentences on each way in which a model hides its gradient from an attack, with the affected numbers."""
    found: dict[str, list[str]] = {}
    for f in report.findings:
        if f.vacuous.startswith(HIDDEN) and f.metric is not None:
            found.setdefault(f.vacuous, []).append(f.metric)
    return [f"{', '.join(dict.fromkeys(metrics))}: {why}" for why, metrics in found.items()]
