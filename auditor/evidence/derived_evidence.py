"""Evidence of records other than audits: the record, its request, and the audits or numbers it is based on."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auditor.core.errors import UsageError
from auditor.evidence.container import write_container
from auditor.evidence.manifest import (
    LOG,
    MANIFEST,
    RECORD,
    REQUEST,
    ChainedLog,
    FileEntry,
    Kind,
    Manifest,
    code_digests,
    in_order,
)
from auditor.evidence.signing import statement
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.redact_urls import without_passwords
from auditor.run import __version__

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# How audits are enclosed: as bundles of their own, or as records alone.
WHOLE, ALONE = ".zip", ".json"
_RESULT = {0: "PASSED", 3: "WARNED"}


@dataclass(frozen=True, kw_only=True)
class EnclosedAudit:
    """An audit that a record is based on; ``bundle``: its evidence, if available."""

    report: AuditReport
    bundle: bytes | None = None

    def part(self, name: str) -> tuple[str, bytes]:
        """The bundle part with this enclosed audit."""
        if self.bundle is not None:
            return name + WHOLE, self.bundle
        return name + ALONE, in_order(self.report.model_dump(mode="json"))


@dataclass(frozen=True, kw_only=True)
class Derived:
    """The content to write: ``record`` as JSON with its ``exit_code``, and the ``parts`` that it is based on.

    ``request``: what was asked, beyond the parts. ``about``: SHA-256 digests by what they are of.
    """

    kind: Kind
    record: Mapping[str, Any]
    exit_code: int
    request: Mapping[str, Any]
    parts: Mapping[str, bytes]
    about: Mapping[str, str | None] = field(default_factory=dict)
    code: Sequence[str] = ()


def write_derived(
    path: str | Path,
    evidence: Derived,
    *,
    key: Ed25519PrivateKey | None = None,
    timestamp: str | None = None,
) -> Manifest:
    """Write the bundle atomically; signed if a ``key`` is given.

    Returns the manifest.

    ``timestamp``: the URL of an authority that says when it was there; NoTimestampError where it does not, and the
    bundle is written without.
    """
    log = started_log()
    content = {**evidence.record, "exit_code": evidence.exit_code}
    record = in_order(content)
    log.add("code", digests=code_digests(evidence.code))
    log.add("recorded", **recorded(evidence.kind, record, evidence.exit_code))
    about = {name: digest for name, digest in sorted(evidence.about.items()) if digest}
    request = in_order({**evidence.request, "about": about})
    parts = {**evidence.parts, RECORD: record, REQUEST: request, LOG: log.to_bytes()}
    return write_container(
        path,
        parts,
        log,
        lambda manifest: statement_of_derived(manifest, content, about),
        kind=evidence.kind,
        key=key,
        timestamp=timestamp,
    )


def started_log() -> ChainedLog:
    """The log of a command that begins."""
    log = ChainedLog()
    log.add("started", tool=f"responsible-auditor {__version__}", command=[*map(without_passwords, sys.argv[1:])])
    return log


def recorded(kind: Kind, record: bytes, exit_code: int) -> dict[str, object]:
    """The log's last event, on the record."""
    return {"kind": kind, "record": hashlib.sha256(record).hexdigest(), "exit_code": exit_code}


def statement_of_derived(
    manifest: Manifest, record: Mapping[str, Any], about: Mapping[str, str], *, with_subjects: bool = True
) -> bytes:
    """The signed statement: the digests of the manifest, models and data as subjects; the kind, its result and topic.

    The data of a detection are its files, each under ``file PATH``. ``with_subjects``: False for the statement of
    earlier versions, whose one subject is the manifest.
    """
    named = {**_files(record), **about} if with_subjects else {}
    return statement(
        {**named, MANIFEST: FileEntry.from_content(manifest.to_bytes()).sha256},
        {
            "kind": manifest.kind,
            "result": _RESULT.get(record["exit_code"], "FAILED"),
            "configuration": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(about.items())],
        },
    )


def _files(record: Mapping[str, Any]) -> dict[str, str]:
    """The digests of a detection's files; of a record that somebody changed, of whatever still is one."""
    files = record.get("files")
    readable = [each for each in files if isinstance(each, dict)] if isinstance(files, (list, tuple)) else []
    return {f"file {each.get('path')}": each["sha256"] for each in readable if isinstance(each.get("sha256"), str)}


def key_to_sign(sign: Path | None, bundle: Path | None) -> Ed25519PrivateKey | None:
    """The key that ``--sign`` names. Raises UsageError where there is nothing to sign, or it cannot sign."""
    if sign is None:
        return None
    if bundle is None:
        raise UsageError("--sign says something about the evidence bundle: add --bundle FILE.")
    from auditor.evidence.signing import load_private_key

    return load_private_key(sign)
