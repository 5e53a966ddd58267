"""Evidence of a comparison or of a mitigation, and evidence of any result made in Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import JsonValue

from auditor.core.errors import UsageError
from auditor.evidence.derived_evidence import Derived, EnclosedAudit, key_to_sign, write_derived
from auditor.report.comparing.compare_audits import Comparison
from auditor.report.comparing.comparison_report import comparison_content

if TYPE_CHECKING:
    from auditor.run.while_training.training_audit import TrainingAudit

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
            "model before": before.report.model.subject_sha256,
            "model after": after.report.model.subject_sha256,
            "data": after.report.data.sha256,
        },
    )


def write_evidence(result: Comparison | TrainingAudit, bundle: str | Path, *, sign: str | Path | None = None) -> None:
    """Write the evidence of a comparison, or of a training after ``finish()``, for ``auditor evidence verify``.

    ``sign``: the private key that signs it. Raises UsageError for what has no evidence, or a key that cannot sign.
    """
    path = Path(bundle)
    key = key_to_sign(None if sign is None else Path(sign), path)
    write_derived(path, _evidence(result), key=key)


def _evidence(result: object) -> Derived:
    if isinstance(result, Comparison):
        sides = [EnclosedAudit(report=report) for report in (result.before, result.after)]
        return comparison_evidence(result, *sides)
    from auditor.evidence.training_evidence import LooksRecord, training_evidence
    from auditor.run.while_training.training_audit import TrainingAudit

    if isinstance(result, TrainingAudit):
        if result.told is None or result.report is None:
            raise UsageError("The training has not ended: call finish() first, which takes the closing look.")
        return training_evidence(result.report, LooksRecord.from_looks(*result.told, result.closing_share))
    raise UsageError(f"{type(result).__name__} has no evidence to write: give a comparison or a TrainingAudit.")
