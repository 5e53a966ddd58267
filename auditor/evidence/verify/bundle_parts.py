"""Verification of single parts of a bundle, and its record without recomputation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from auditor.core.errors import AuditorError, DataError, UsageError
from auditor.evidence.container import differing_part, read_archive, unpack
from auditor.evidence.evidence_bundle import is_enclosed, statements_of
from auditor.evidence.manifest import (
    LOG,
    MANIFEST,
    RECORD,
    REDACTABLE,
    REQUEST,
    RESULTS,
    SIGNATURE,
    TABLES,
    TIMESTAMP,
    Manifest,
    broken_links,
    code_digests,
    events,
    in_order,
)
from auditor.evidence.signing import open_envelope
from auditor.evidence.verify.checks import Check
from auditor.report.record.audit_report import AuditReport, is_newer
from auditor.report.report_view import document_id

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

AUDIT_PARTS = (RECORD, RESULTS, REQUEST, TABLES, LOG, MANIFEST)
# How the check of the code begins where another version measured.
OTHER_CODE = "measured by other code"
OWN_CODE = "measured by the very code that is installed here"


def container(data: bytes, entries: Mapping[str, bytes]) -> Check:
    where = differing_part(data, entries)
    if where:
        return Check(name="container", state="wrong", detail=f"bytes around the contents were changed: {where}")
    return Check(name="container", state="ok", detail="every byte of the archive follows from its contents")


def digests(entries: Mapping[str, bytes], manifest: Manifest, parts: Collection[str] = AUDIT_PARTS) -> list[Check]:
    """``parts``: those that a bundle of its kind has."""
    checks = []
    for name, entry in manifest.files.items():
        content = entries.get(name)
        if content is None and name in REDACTABLE:
            checks.append(Check(name=name, state="not checked", detail="left out; its digest is kept"))
        elif content is None:
            checks.append(Check(name=name, state="wrong", detail="is not in the bundle"))
        elif (hashlib.sha256(content).hexdigest(), len(content)) != (entry.sha256, entry.size):
            checks.append(Check(name=name, state="wrong", detail="is not what it was: its digest differs"))
        else:
            checks.append(Check(name=name, state="ok", detail=f"digest {entry.sha256[:16]}..."))
    known = {*manifest.files, MANIFEST, SIGNATURE, TIMESTAMP}
    checks += [
        Check(name=name[:200], state="wrong", detail="is in the bundle, and the manifest does not name it")
        for name in entries
        if name not in known
    ]
    checks += [
        Check(name=name, state="wrong", detail="is not named by the manifest")
        for name in parts
        if name != MANIFEST and name not in manifest.files
    ]
    return checks


def unknown_parts(entries: Collection[str]) -> list[Check]:
    """Parts with names that no audit bundle has; whether the others are listed is for the reader to check."""
    return [
        Check(name=name[:200], state="wrong", detail="it is no part of an audit's bundle, and nothing names it")
        for name in entries
        if name not in (*AUDIT_PARTS, *REDACTABLE, SIGNATURE, TIMESTAMP) and not is_enclosed(name)
    ]


def log_chain(entries: Mapping[str, bytes], manifest: Manifest) -> Check:
    problems = broken_links(entries.get(LOG, b""), manifest.log_head, manifest.log_lines)
    if problems:
        return Check(name="log chain", state="wrong", detail="; ".join(problems[:3]))
    return Check(name="log chain", state="ok", detail=f"{manifest.log_lines} lines, each following on the one before")


def code(entries: Mapping[str, bytes]) -> Check:
    """Check of the measuring code: a difference from the installed code is reported, but is no error."""
    said = next((e.get("digests") for e in events(entries.get(LOG, b"")) if e.get("event") == "code"), None)
    digests = {str(k): str(v) for k, v in said.items()} if isinstance(said, dict) else {}
    own = digests.pop("responsible-auditor", None)
    if own is None:
        return Check(name="code", state="not checked", detail="the log does not say which code measured")
    here = code_digests()["responsible-auditor"]
    detail = OWN_CODE if own == here else f"{OTHER_CODE} ({own[:16]}...) than is installed here ({here[:16]}...)"
    users = [f"{name} ({digest[:16]})" for name, digest in digests.items()]
    return Check(name="code", state="ok", detail=f"{detail}; and by {', '.join(users)}" if users else detail)


def read_part(name: str, entries: Mapping[str, bytes], parse: Callable[[bytes], Any]) -> tuple[Any, list[Check]]:
    content = entries.get(name)
    if content is None:
        return None, []  # said already, by the manifest's check
    try:
        return parse(content), []
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "its text"
        return None, [Check(name=name, state="wrong", detail=f"cannot be read: {where}: {first['msg']}")]
    except (DataError, ValueError, RecursionError) as error:
        return None, [Check(name=name, state="wrong", detail=f"cannot be read: {str(error)[:200]}")]


def read_record(content: bytes) -> AuditReport:
    """The record of an audit.

    Raises ValidationError where it is none, DataError where its schema is none that this version knows.
    """
    report = AuditReport.model_validate_json(content)
    if is_newer(report.schema_version):
        raise DataError(f"its schema {report.schema_version[:20]!r} is none that this version knows")
    return report


def spelled(entries: Mapping[str, bytes], report: AuditReport) -> Check:
    """Check of the record's canonical spelling, so that a document id identifies one record."""
    if in_order(report.model_dump(mode="json")) != entries.get(RECORD):
        return Check(name="document id", state="wrong", detail=f"{RECORD} is not written as that record would be")
    return Check(name="document id", state="ok", detail=document_id(report))


def signature(entries: Mapping[str, bytes], statements: Sequence[bytes], trusted: Sequence[Ed25519PublicKey]) -> Check:
    """Check of the signature; ``statements``: what may be signed, nothing if the record is unreadable."""
    content = entries.get(SIGNATURE)
    if content is None:
        if trusted:
            return Check(name="signature", state="wrong", detail="it is not signed, and a key was expected")
        return Check(name="signature", state="not checked", detail="it is not signed: who made it is not known")
    try:
        signed = open_envelope(content, trusted)
    except AuditorError as error:
        return Check(name="signature", state="wrong", detail=str(error))
    if signed.statement not in statements:
        return Check(name="signature", state="wrong", detail="what was signed is not this bundle")
    whose = f"key {signed.fingerprint[:16]}..."
    if not signed.trusted:
        return Check(
            name="signature",
            state="not checked",
            detail=f"it fits the {whose} that the bundle itself encloses; whose that is, only --key FILE can tell",
        )
    return Check(name="signature", state="ok", detail=f"signed with the {whose} that you trust")


def record_in(path: Path) -> AuditReport:
    """The record of a bundle whose container, digests, chain and signature agree with its manifest; no number is
    recomputed, and the owner of the signature is not checked.

    Raises DataError naming what does not agree, UsageError where it is evidence of something else than an audit.
    """
    data = read_archive(path)
    entries = unpack(data, path.name)
    if MANIFEST not in entries:
        raise DataError(f"{path.name!r} has no {MANIFEST}: it is no evidence bundle, or that part was taken out.")
    manifest = Manifest.from_bytes(entries[MANIFEST])
    if manifest.kind != "audit":
        raise UsageError(
            f"{str(path)!r} is the evidence of a {manifest.kind.replace('_', ' ')} and not of an audit: auditor "
            "evidence verify checks it, and the audits that it rests on are enclosed."
        )
    _refuse(
        path,
        container(data, entries),
        *digests(entries, manifest),
        *unknown_parts(entries),
        log_chain(entries, manifest),
    )
    report = AuditReport.from_json(entries[RECORD])
    _refuse(path, signature(entries, statements_of(manifest, report), ()))
    return report


def _refuse(path: Path, *checks: Check) -> None:
    wrong = next((check for check in checks if check.state == "wrong"), None)
    if wrong is not None:
        raise DataError(
            f"{path.name!r} does not agree with itself ({wrong.name}: {wrong.detail}), so nothing is drawn from it: "
            "auditor evidence verify says all."
        )
