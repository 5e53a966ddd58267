"""Evidence of what is no audit: a record, what it was asked with, and the audits or numbers that it follows from."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auditor.errors import UsageError
from auditor.evidence.container import write_container
from auditor.evidence.log import ChainedLog
from auditor.evidence.manifest import LOG, MANIFEST, RECORD, REQUEST, FileEntry, Kind, Manifest, code_digests, in_order
from auditor.evidence.signing import statement
from auditor.record.audit_report import AuditReport
from auditor.record.passwords import without_passwords
from auditor.run import __version__

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# How audits are enclosed: as bundles of their own, or as records alone.
WHOLE, ALONE = ".zip", ".json"
_RESULT = {0: "PASSED", 3: "WARNED"}


@dataclass(frozen=True, kw_only=True)
class EnclosedAudit:
    """An audit that a record rests on; ``bundle``: its evidence, where it is there."""

    report: AuditReport
    bundle: bytes | None = None

    def part(self, name: str) -> tuple[str, bytes]:
        """The part that it is enclosed as."""
        if self.bundle is not None:
            return name + WHOLE, self.bundle
        return name + ALONE, in_order(self.report.model_dump(mode="json"))


@dataclass(frozen=True, kw_only=True)
class Derived:
    """What is to be written: the ``record`` as JSON with its ``exit_code``, and the ``parts`` that it follows from.

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
    made: Derived,
    log: ChainedLog | None = None,
    *,
    key: Ed25519PrivateKey | None = None,
    timestamp: str | None = None,
) -> Manifest:
    """Writes the bundle whole or not at all; with a ``key`` it is signed. Returns the manifest.

    ``timestamp``: the URL of an authority that says when it was there; NoTimestampError where it does not, and the
    bundle is written without.
    """
    log = log or started_log()
    record = in_order({**made.record, "exit_code": made.exit_code})
    log.add("code", digests=code_digests(made.code))
    log.add("recorded", **recorded(made.kind, record, made.exit_code))
    about = {name: digest for name, digest in sorted(made.about.items()) if digest}
    request = in_order({**made.request, "about": about})
    parts = {**made.parts, RECORD: record, REQUEST: request, LOG: log.to_bytes()}
    return write_container(
        path,
        parts,
        log,
        lambda manifest: statement_of_derived(manifest, made.exit_code, about),
        kind=made.kind,
        key=key,
        timestamp=timestamp,
    )


def started_log() -> ChainedLog:
    """The log of a command that begins."""
    log = ChainedLog()
    log.add("started", tool=f"responsible-auditor {__version__}", command=[*map(without_passwords, sys.argv[1:])])
    return log


def recorded(kind: Kind, record: bytes, exit_code: int) -> dict[str, object]:
    """What the log says of the record in the end."""
    return {"kind": kind, "record": hashlib.sha256(record).hexdigest(), "exit_code": exit_code}


def statement_of_derived(manifest: Manifest, exit_code: int, about: Mapping[str, str]) -> bytes:
    """What is signed: the manifest's digest as the subject, the kind, its result and what it is about."""
    return statement(
        {MANIFEST: FileEntry.of(manifest.to_bytes()).sha256},
        {
            "kind": manifest.kind,
            "result": _RESULT.get(exit_code, "FAILED"),
            "configuration": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(about.items())],
        },
    )


def key_to_sign(sign: Path | None, bundle: Path | None) -> Ed25519PrivateKey | None:
    """The key that ``--sign`` names. Raises UsageError where there is nothing to sign, or it cannot sign."""
    if sign is None:
        return None
    if bundle is None:
        raise UsageError("--sign says something about the evidence bundle: add --bundle FILE.")
    from auditor.evidence.signing import load_private_key

    return load_private_key(sign)
