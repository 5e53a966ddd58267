"""Extraction of the record from an evidence bundle, without recomputation."""

from __future__ import annotations

from pathlib import Path

from auditor.core.errors import DataError, UsageError
from auditor.evidence.container import read_archive, unpack
from auditor.evidence.evidence_bundle import statement_of
from auditor.evidence.manifest import MANIFEST, RECORD, Manifest
from auditor.evidence.verify.bundle_parts import container, digests, log_chain, signature, unknown_parts
from auditor.evidence.verify.checks import Check
from auditor.report.record.audit_report import AuditReport


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
            f"{str(path)!r} is the evidence of a {manifest.kind.replace('_', ' ')} and not of an audit: auditor verify "
            "checks it, and the audits that it rests on are enclosed."
        )
    _refuse(
        path,
        container(data, entries),
        *digests(entries, manifest),
        *unknown_parts(entries),
        log_chain(entries, manifest),
    )
    report = AuditReport.from_json(entries[RECORD])
    _refuse(path, signature(entries, statement_of(manifest, report), ()))
    return report


def _refuse(path: Path, *checks: Check) -> None:
    wrong = next((check for check in checks if check.state == "wrong"), None)
    if wrong is not None:
        raise DataError(
            f"{path.name!r} does not agree with itself ({wrong.name}: {wrong.detail}), so nothing is drawn from it: "
            "auditor verify says all."
        )
