"""Verification of a dossier: its integrity, its record, and its signer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from auditor.core.errors import AuditorError
from auditor.evidence.dossier_files import (
    DossierManifest,
    content_of,
    read_manifest,
    signature_at,
    statement_of_dossier,
)
from auditor.evidence.manifest import FileEntry
from auditor.evidence.signing import open_envelope
from auditor.evidence.verify.checks import Check
from auditor.report import report_view
from auditor.report.record.audit_report import AuditReport

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def check_dossier(path: Path, report: AuditReport | None, trusted: Sequence[Ed25519PublicKey]) -> list[Check]:
    """Check whether a dossier is unchanged, belongs to this record, and is signed, and by whom.

    ``path``: its manifest. Raises UsageError where there is no such file, DataError where it is none.
    """
    manifest = read_manifest(path)
    files = [_file(path.parent, name, entry) for name, entry in sorted(manifest.files.items())]
    if report is None:
        about = Check(name="dossier, record", state="not checked", detail="the bundle's record could not be read")
    elif report_view.document_id(report) != manifest.record:
        about = Check(name="dossier, record", state="wrong", detail="it was made from another record than the bundle's")
    else:
        about = Check(name="dossier, record", state="ok", detail="it was made from the bundle's record")
    given = [
        *_attested(path.parent, manifest.attestations, "file of statements"),
        *_attested(path.parent, manifest.documents, "document"),
    ]
    return [*files, about, *given, _signature(path, manifest, report, trusted)]


def _file(folder: Path, name: str, entry: FileEntry) -> Check:
    title = f"dossier, {name}"
    try:
        same = FileEntry.from_content(content_of(folder / name)) == entry
    except OSError:
        return Check(name=title, state="wrong", detail="it is not beside its manifest")
    if not same:
        return Check(name=title, state="wrong", detail="it was changed since it was written")
    return Check(name=title, state="ok", detail="it is as it was written")


def _attested(folder: Path, digests: Mapping[str, str], noun: str) -> list[Check]:
    checks = []
    for name, digest in digests.items():
        title = f"dossier, {name}"
        try:
            if PurePath(name).is_absolute() or ".." in PurePath(name).parts or "\0" in name:
                raise FileNotFoundError
            same = hashlib.sha256(content_of(folder / name)).hexdigest() == digest
        except OSError:
            detail = f"the {noun} lies elsewhere; its SHA-256 is {digest}"
            checks.append(Check(name=title, state="not checked", detail=detail))
            continue
        if same:
            checks.append(Check(name=title, state="ok", detail=f"the {noun} is as it was"))
        else:
            checks.append(Check(name=title, state="wrong", detail=f"the {noun} was changed since"))
    return checks


def _signature(
    path: Path, manifest: DossierManifest, report: AuditReport | None, trusted: Sequence[Ed25519PublicKey]
) -> Check:
    name = "dossier, signature"
    try:
        content = content_of(signature_at(path))
    except OSError:
        if trusted:
            return Check(name=name, state="wrong", detail="it is not signed, and a key was expected")
        return Check(name=name, state="not checked", detail="it is not signed: who vouches for it is not known")
    try:
        signed = open_envelope(content, trusted)
    except AuditorError as error:
        return Check(name=name, state="wrong", detail=str(error))
    if report is None or signed.statement != statement_of_dossier(path.name, manifest, report):
        return Check(name=name, state="wrong", detail="what was signed is not this dossier")
    whose = f"key {signed.fingerprint[:16]}..."
    if not signed.trusted:
        detail = f"it fits the {whose} that it encloses itself; whose that is, only --key FILE can tell"
        return Check(name=name, state="not checked", detail=detail)
    return Check(name=name, state="ok", detail=f"signed with the {whose} that you trust")
