"""Verification of an epsilon audit, recomputed from the coins and scores of its canaries."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from auditor.core.errors import DataError
from auditor.evidence.dp_audit_evidence import CANARIES, CanaryRecord, Claim, dp_audit_evidence, held_against
from auditor.evidence.verify.checks import Unproven
from auditor.evidence.verify.verify_derived import Again, Said

_CLAIM: TypeAdapter[Claim] = TypeAdapter(Claim)


def dp_audit_again(evidence: Said) -> Again:
    """Every bound, every test of the noise, the power and the verdict out of the enclosed canaries."""
    try:
        asked: dict[str, Any] = dict(evidence.request)
        more = asked.pop("asked")
        asked.pop("about")
        claim = _CLAIM.validate_python(asked)
        canaries = CanaryRecord.model_validate_json(evidence.entries[CANARIES]).to_scores()
    except (KeyError, TypeError, ValidationError) as error:
        raise DataError(f"the claim or the canaries cannot be read: {type(error).__name__}") from None
    if not isinstance(more, dict):
        raise DataError("the request does not say what was asked for")
    result, gaussian = held_against(canaries, claim)
    made = dp_audit_evidence(result, gaussian, canaries, claim, more)
    return Again(
        record={**made.record, "exit_code": made.exit_code},
        request=made.request,
        about=made.about,
        used={CANARIES},
        unproven=(
            Unproven(
                where=f"{CANARIES}: *",
                why="that the training gave these scores, and that the coins were fair, is the signer's word: auditor "
                "dp-audit trains again",
            ),
            Unproven(where="request.json: accounting, asked.*", why="what the training is, and what it counts"),
        ),
        made=f"the bounds of epsilon, the tests of the noise, the power and the verdict recomputed from "
        f"{len(canaries):,} canaries",
    )
