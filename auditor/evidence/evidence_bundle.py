"""The evidence of one audit in one file, with the input files of the audit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from auditor.core.files import Closed, Spool
from auditor.evidence.container import write_container
from auditor.evidence.history.entries import Entry
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
    ChainedLog,
    Digest,
    FileEntry,
    Manifest,
    canonical,
    in_order,
)
from auditor.evidence.registration import Plan
from auditor.evidence.signing import statement
from auditor.judging.budgets import Family
from auditor.judging.criterion import Criterion
from auditor.judging.input_files import FileRole, ObeyedFile, Origin
from auditor.judging.measurement import Outcome, ProbeResult
from auditor.report.record.audit_report import AuditReport, ExitCode
from auditor.report.record.redact_urls import without_passwords
from auditor.run.membership_scores import MembershipScores
from auditor.run.predictions import CountsRecord, KeptRows, tables_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

REGISTRATION = "registration.json"
DECISIONS, PACKS, CONFIGURATION = "decisions", "packs", "configuration"
# Decisions on one model over its life are fewer; of more, the latest are enclosed.
MOST_DECISIONS, MOST_FILES = 500, 200
_NAME = r"[0-9]{1,3}-[A-Za-z0-9_-]{1,80}\.toml"
_PART = re.compile(rf"registration\.json|decisions/[0-9]{{1,3}}\.json|packs/{_NAME}|configuration/{_NAME}")


class EnclosedFile(Closed):
    """An input file of the audit: its path in the bundle, or None if its content is left out, and the reason.

    ``path``: as it was named, or the name of what comes with the tool. ``keys``: what of the audit it decides.
    """

    path: Annotated[str, Field(max_length=4_096)]
    role: FileRole
    origin: Origin
    sha256: Digest
    part: str | None = None
    left_out: str = ""
    keys: tuple[str, ...] = ()


class Understood(Closed):
    """The interpreted request: the start of the run, the command line, the plan in force, and the files that determined
    it.

    ``as_of``: the day on which rule packs were to be held to be in force, None for that of the audit.
    ``plan``: of probes, settings, criteria and error rates; its ``files`` and ``code`` only where a run under a
    registration was held against them.
    """

    began: Annotated[str, Field(max_length=64)]
    command: tuple[str, ...] = ()
    plan: Plan
    as_of: date | None = None
    files: tuple[EnclosedFile, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Enclosed:
    """The enclosed input files: ``registration`` as the bytes of its file, ``decisions`` as entries of the history,
    ``obeyed`` the files that determined the audit."""

    began: str
    plan: Plan
    as_of: date | None = None
    command: Sequence[str] = ()
    registration: bytes | None = None
    decisions: Sequence[Entry] = ()
    obeyed: Sequence[ObeyedFile] = ()

    def parts(self) -> dict[str, bytes]:
        """The parts of a bundle, by name."""
        found = {} if self.registration is None else {REGISTRATION: self.registration}
        for i, entry in enumerate(self.decisions[-MOST_DECISIONS:]):
            found[f"{DECISIONS}/{i}.json"] = canonical(entry.model_dump(mode="json"))
        found |= {
            said.part: file.content
            for said, file in zip(self.files(), self.obeyed, strict=False)
            if said.part is not None
        }
        return found

    def files(self) -> tuple[EnclosedFile, ...]:
        """Descriptions of the input files."""
        return tuple(_said_of(i, file) for i, file in enumerate(self.obeyed))

    def understood(self) -> Understood:
        """The part of the request beside flags and options."""
        return Understood(
            began=self.began, command=tuple(self.command), plan=self.plan, as_of=self.as_of, files=self.files()
        )


def _said_of(i: int, file: ObeyedFile) -> EnclosedFile:
    left_out = "there are more files than are enclosed" if i >= MOST_FILES else ""
    if _holds_a_secret(file.content):
        left_out = "it names a password or an address with a user"
    folder = PACKS if file.role == "rule pack" else CONFIGURATION
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", PurePath(file.path).name.removesuffix(".toml")).strip("-")[-80:] or "file"
    return EnclosedFile(
        path=file.path,
        role=file.role,
        origin=file.origin,
        sha256=file.sha256,
        part=None if left_out else f"{folder}/{i}-{name}.toml",
        left_out=left_out,
        keys=file.keys,
    )


def _holds_a_secret(content: bytes) -> bool:
    text = re.sub(r"[ \t]*=[ \t]*", "=", content.decode("utf-8", "replace"))
    return without_passwords(text) != text


def is_enclosed(name: str) -> bool:
    """Whether a part of a bundle is an input file of the audit."""
    return _PART.fullmatch(name) is not None


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
    evidence.log.add(**recorded_event(evidence.report, evidence.results))
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


def result_event(result: ProbeResult) -> dict[str, Any]:
    """What the log says of a probe's result."""
    became = "not run" if result.not_run else "not applicable" if result.not_applicable else "answered"
    seconds = round(result.duration_s, 3)
    return {"event": became, "probe": result.probe, "measurements": len(result.measurements), "seconds": seconds}


def recorded_event(report: AuditReport, results: Sequence[ProbeResult]) -> dict[str, Any]:
    """The log's last event, on the record."""
    return {
        "event": "recorded",
        "exit_code": report.exit_code,
        "created": report.created,
        "seed": report.environment.seed,
        "model": report.model.sha256,
        "data": report.data.sha256,
        "summary": report.summary.model_dump(by_alias=True),
        "answers": {result.probe: len(result.measurements) for result in results},
    }


def statement_of(manifest: Manifest, report: AuditReport, *, with_subjects: bool = True) -> bytes:
    """The signed statement: the digests of the manifest, the model and the data as subjects, the verdict as predicate.

    Of a model's folder it is the root digest by which its own signature names it. ``with_subjects``: False for the
    statement of earlier versions, whose one subject is the manifest.
    """
    by_outcome = {
        name: sorted(f.id for f in report.findings if f.outcome in outcomes)
        for name, outcomes in (
            ("passedTests", (Outcome.PASS,)),
            ("warnedTests", (Outcome.INCONCLUSIVE, Outcome.NOT_RUN)),
            ("failedTests", (Outcome.FAIL,)),
        )
    }
    about = {"model": report.model.sha256, "data": report.data.sha256, "train": report.data.train_sha256}
    subjects = about | {"model": report.model.subject_sha256} if with_subjects else {}
    return statement(
        {MANIFEST: FileEntry.from_content(manifest.to_bytes()).sha256}
        | {name: digest for name, digest in subjects.items() if digest is not None},
        {
            "result": _RESULT.get(report.exit_code, "FAILED"),
            "configuration": [{"name": name, "digest": {"sha256": d}} for name, d in about.items() if d is not None],
            **by_outcome,
        },
    )


def statements_of(manifest: Manifest, report: AuditReport) -> tuple[bytes, bytes]:
    """What may be signed of an audit: this version's statement, and that of earlier ones."""
    return statement_of(manifest, report), statement_of(manifest, report, with_subjects=False)
