"""Evidence of a comparison or of a mitigation (a comparison of the model before and after)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import JsonValue

from auditor.evidence.derived_evidence import Derived, EnclosedAudit
from auditor.report.comparing.compare_audits import Comparison
from auditor.report.comparing.comparison_report import comparison_content

BEFORE, AFTER = "before", "after"


def comparison_evidence(comparison: Comparison, before: EnclosedAudit, after: EnclosedAudit) -> Derived:
    """The comparison, its request, and both audits."""
    return _comparison_evidence("comparison", comparison, before, after, {})


def mitigation_evidence(
    comparison: Comparison, before: EnclosedAudit, after: EnclosedAudit, name: str, settings: Mapping[str, JsonValue]
) -> Derived:
    """The comparison of a model with its mitigated version, with the mitigation's options."""
    return _comparison_evidence(
        "mitigation", comparison, before, after, {"mitigation": name, "settings": dict(settings)}
    )


def _comparison_evidence(
    kind: Literal["comparison", "mitigation"],
    comparison: Comparison,
    before: EnclosedAudit,
    after: EnclosedAudit,
    more: Mapping[str, object],
) -> Derived:
    return Derived(
        kind=kind,
        record=comparison_content(comparison),
        exit_code=comparison.exit_code,
        request={"error_rate": comparison.error_rate, "margin": comparison.usefulness.margin, **more},
        parts=dict(audit.part(name) for name, audit in ((BEFORE, before), (AFTER, after))),
        about={
            "model before": before.report.model.sha256,
            "model after": after.report.model.sha256,
            "data": after.report.data.sha256,
        },
    )
