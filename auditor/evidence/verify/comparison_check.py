"""Verification of a comparison or a mitigation, rebuilt from its two enclosed audits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from auditor.core.errors import DataError
from auditor.evidence.comparison_evidence import AFTER, BEFORE, comparison_evidence, mitigation_evidence
from auditor.evidence.derived_evidence import EnclosedAudit
from auditor.evidence.verify.checks import Check, Unproven
from auditor.evidence.verify.enclosed_audits import Audits
from auditor.evidence.verify.verify_derived import Again, Said
from auditor.report.comparing.compare_audits import compare


def comparison_again(evidence: Said, audits: Audits) -> Again:
    """The comparison of the enclosed audits, at the requested error rate and margin."""
    return _recompute(evidence, audits, ())


def mitigation_again(evidence: Said, audits: Audits) -> Again:
    """The comparison, and the mitigation."""
    made_by = evidence.record.get("made_by")
    if not (isinstance(made_by, list) and made_by and all(isinstance(each, str) for each in made_by)):
        raise DataError("the record does not say which mitigation it was")
    if made_by[0] != evidence.request.get("mitigation"):
        raise DataError(f"the record is of the mitigation {made_by[0]!r}, the request asks for another")
    return _recompute(evidence, audits, tuple(made_by))


def _recompute(evidence: Said, audits: Audits, made_by: tuple[str, ...]) -> Again:
    before, after = audits.read_report(BEFORE), audits.read_report(AFTER)
    audits.check_paired(BEFORE, AFTER, (before, after))
    found = compare(
        before, after, error_rate=_number(evidence.request, "error_rate"), margin=_number(evidence.request, "margin")
    )
    found = replace(found, made_by=made_by)
    was, became = EnclosedAudit(report=before), EnclosedAudit(report=after)
    checks, unproven = list(audits.checks), list(audits.unproven)
    if made_by:
        settings = evidence.request.get("settings")
        if not isinstance(settings, dict):
            raise DataError("the request does not say with which options the mitigation ran")
        made = mitigation_evidence(found, was, became, made_by[0], settings)
        if before.model.sha256 is not None and before.model.sha256 == after.model.sha256:
            checks.append(Check(name=AFTER, state="wrong", detail="it is an audit of the very model that was before"))
        why = "how the new model was made is the signer's word: auditor mitigate makes it again"
        unproven += [
            Unproven(where="request.json: settings.*", why=why),
            Unproven(where="record.json: made_by", why=why),
        ]
    else:
        made = comparison_evidence(found, was, became)
    judged = len(found.all)
    return Again(
        record={**made.record, "exit_code": made.exit_code},
        request=made.request,
        about=made.about,
        used=audits.used,
        checks=tuple(checks),
        unproven=tuple(unproven),
        made=f"{judged:,} judged differences, their verdicts and the conclusion recomputed from both enclosed audits",
    )


def _number(request: Mapping[str, Any], name: str) -> float:
    value = request.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataError(f"the request does not say {name}")
    return float(value)
