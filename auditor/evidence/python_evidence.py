"""Evidence of results made in Python: a comparison, or an audit during training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from auditor.core.errors import UsageError
from auditor.evidence.comparison_evidence import comparison_evidence
from auditor.evidence.derived_evidence import Derived, EnclosedAudit, key_to_sign, write_derived
from auditor.report.comparing.compare_audits import Comparison

if TYPE_CHECKING:
    from auditor.run.while_training.training_audit import TrainingAudit


def write_evidence(result: Comparison | TrainingAudit, bundle: str | Path, *, sign: str | Path | None = None) -> None:
    """Write the evidence of a comparison, or of a training after ``finish()``, for ``auditor verify``.

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
