"""The evidence of one audit in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.core.files import Spool
from auditor.evidence.container import write_container
from auditor.evidence.enclosed_files import Enclosed
from auditor.evidence.log import ChainedLog
from auditor.evidence.manifest import (
    ASKED,
    LOG,
    MANIFEST,
    MEMBERSHIP,
    RECORD,
    REDACTABLE,
    REQUEST,
    RESULTS,
    ROWS,
    TABLES,
    UNDERSTOOD,
    Asked,
    FileEntry,
    Manifest,
    canonical,
    in_order,
)
from auditor.evidence.signing import statement
from auditor.judging.budgets import Family
from auditor.judging.criterion import Criterion
from auditor.judging.measurement import Outcome, ProbeResult
from auditor.report.record.audit_report import AuditReport, ExitCode
from auditor.run.membership_scores import MembershipScores
from auditor.run.predictions import CountsRecord, KeptRows, tables_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_RESULT: Mapping[int, str] = {ExitCode.PASSED: "PASSED", ExitCode.INCONCLUSIVE: "WARNED"}


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The evidence of an audit: its record, the request, all answers, and its log.

    ``request``: the flags and options as they were given, so that it can be run again. ``enclosed``: how they were
    understood, and the files that the audit went by; None where it had none.
    """

    report: AuditReport
    results: Sequence[ProbeResult]
    criteria: Sequence[Criterion]
    family: Family
    request: Mapping[str, object]
    log: ChainedLog
    answers: KeptRows | None = None
    counts: CountsRecord | None = None
    memberships: MembershipScores | None = None
    code: Mapping[str, str] = field(default_factory=dict)
    enclosed: Enclosed | None = None


def write_bundle(
    path: str | Path,
    evidence: Evidence,
    *,
    key: Ed25519PrivateKey | None = None,
    redact: bool = False,
    timestamp: str | None = None,
) -> Manifest:
    """Write the bundle atomically; signed if a ``key`` is given.

    ``timestamp``: the URL of an authority that says when it was there; NoTimestampError where it does not, and the
    bundle is written without.

    ``redact`` leaves rows and membership scores out and keeps their digests: what is said of them cannot be recomputed,
    and a holder of them can still prove that they are the ones. Returns the manifest.
    """
    return write_container(
        path,
        _parts(evidence),
        evidence.log,
        lambda manifest: statement_of(manifest, evidence.report),
        key=key,
        left_out=REDACTABLE if redact else (),
        timestamp=timestamp,
    )


def _parts(evidence: Evidence) -> dict[str, bytes | Spool]:
    asked = Asked(results=tuple(evidence.results), criteria=tuple(evidence.criteria), family=evidence.family)
    evidence.log.add("code", **{"digests": dict(evidence.code)})
    evidence.log.add(
        "recorded",
        exit_code=evidence.report.exit_code,
        created=evidence.report.created,
        seed=evidence.report.environment.seed,
        model=evidence.report.model.sha256,
        data=evidence.report.data.sha256,
        summary=evidence.report.summary.model_dump(by_alias=True),
        answers={result.probe: len(result.measurements) for result in evidence.results},
    )
    head = None if evidence.answers is None else evidence.answers.head
    members = evidence.memberships
    enclosed = evidence.enclosed
    understood = {} if enclosed is None else {UNDERSTOOD: enclosed.understood().model_dump(mode="json")}
    parts: dict[str, bytes | Spool] = {
        RECORD: in_order(evidence.report.model_dump(mode="json")),
        RESULTS: in_order(ASKED.dump_python(asked, mode="json")),
        REQUEST: canonical({**evidence.request, **understood}),
        TABLES: canonical(tables_json(head, evidence.counts, None if members is None else members.head)),
        LOG: evidence.log.to_bytes(),
    }
    if evidence.answers is not None:
        parts[ROWS] = evidence.answers.content
    if members is not None:
        parts[MEMBERSHIP] = members.rows_to_csv()
    return parts if enclosed is None else {**parts, **enclosed.parts()}


def statement_of(manifest: Manifest, report: AuditReport) -> bytes:
    """The signed statement: the manifest's digest as subject, the verdict and its topic as predicate."""
    by_outcome = {
        name: sorted(f.id for f in report.findings if f.outcome in outcomes)
        for name, outcomes in (
            ("passedTests", (Outcome.PASS,)),
            ("warnedTests", (Outcome.INCONCLUSIVE, Outcome.NOT_RUN)),
            ("failedTests", (Outcome.FAIL,)),
        )
    }
    about = (("model", report.model.sha256), ("data", report.data.sha256), ("train", report.data.train_sha256))
    return statement(
        {MANIFEST: FileEntry.from_content(manifest.to_bytes()).sha256},
        {
            "result": _RESULT.get(report.exit_code, "FAILED"),
            "configuration": [{"name": name, "digest": {"sha256": d}} for name, d in about if d is not None],
            **by_outcome,
        },
    )
