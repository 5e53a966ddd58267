"""The evidence of what Python code made: a comparison, or an audit in a training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from auditor.comparing.compare import Comparison
from auditor.errors import UsageError
from auditor.evidence.compared import comparison_evidence
from auditor.evidence.derived import Derived, EnclosedAudit, key_to_sign, write_derived

if TYPE_CHECKING:
    from auditor.while_training.audit import TrainingAudit


def write_evidence(made: Comparison | TrainingAudit, bundle: str | Path, *, sign: str | Path | None = None) -> None:
    """Writes the evidence of a comparison, or of a training after ``finish()``, which ``auditor verify`` checks.

    ``sign``: the private key that signs it. Raises UsageError for what has no evidence, or a key that cannot sign.
    """
    path = Path(bundle)
    key = key_to_sign(None if sign is None else Path(sign), path)
    write_derived(path, _evidence(made), key=key)


def _evidence(made: object) -> Derived:
    if isinstance(made, Comparison):
        sides = [EnclosedAudit(report=report) for report in (made.before, made.after)]
        return comparison_evidence(made, *sides)
    from auditor.evidence.trained import LooksRecord, training_evidence
    from auditor.while_training.audit import TrainingAudit

    if isinstance(made, TrainingAudit):
        if made.told is None or made.report is None:
            raise UsageError("The training has not ended: call finish() first, which takes the closing look.")
        return training_evidence(made.report, LooksRecord.of(*made.told, made.closing_share))
    raise UsageError(f"{type(made).__name__} has no evidence to write: give a comparison or a TrainingAudit.")
