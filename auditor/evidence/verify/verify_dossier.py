"""Verification of a dossier: its integrity, its record, its signer, and its text rebuilt from its stated inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from auditor.core.errors import AuditorError, MissingExtraError
from auditor.evidence.dossier_files import (
    Attestations,
    DossierManifest,
    content_of,
    read_attestations,
    read_manifest,
    signature_at,
    statement_of_dossier,
)
from auditor.evidence.manifest import FileEntry
from auditor.evidence.signing import open_envelope
from auditor.evidence.verify.checks import Check
from auditor.evidence.write_dossier import dossier_of
from auditor.judging.policy import Policy, load_policies, pack_names
from auditor.report import report_view
from auditor.report.document_files import render_document
from auditor.report.record.audit_report import AuditReport
from auditor.run import __version__

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


_TEXT = "dossier, text"
_MOST_FILES = 200
_PACK_BYTES = 4 << 20


def check_text(folder: Path, manifest: DossierManifest, report: AuditReport | None, signed_with: str | None) -> Check:
    """Check that a dossier's files contain exactly the output of its record, packs and statements.

    ``signed_with``: the fingerprint that its attestations name; None where it is not signed.
    """
    lacks = _lacking(manifest, report)
    if lacks or report is None:
        return Check(name=_TEXT, state="not checked", detail=lacks)
    try:
        packs = [_pack(name, digest, folder) for name, digest in manifest.packs.items()]
        given = _verified_attestations(folder, manifest, packs, signed_with)
        found = dossier_of(
            report, packs, date.fromisoformat(manifest.as_of), report_href=manifest.report_href, attestations=given
        )
        made = {name: render_document(found, name) for name in manifest.files}
    except (_UnknownError, MissingExtraError) as error:
        return Check(name=_TEXT, state="not checked", detail=str(error).rstrip("."))
    except (AuditorError, ValueError) as error:
        return Check(name=_TEXT, state="wrong", detail=f"it cannot be made again: {error}".rstrip("."))
    other = [name for name, entry in manifest.files.items() if hashlib.sha256(made[name]).hexdigest() != entry.sha256]
    if other:
        detail = f"{', '.join(sorted(other))}: it says something else than its record, packs and statements come to"
        return Check(name=_TEXT, state="wrong", detail=detail)
    return Check(name=_TEXT, state="ok", detail="made again from its record, packs and statements it is the same")


class _UnknownError(Exception):
    """What it was made of is not here."""


def _lacking(manifest: DossierManifest, report: AuditReport | None) -> str:
    if report is None:
        return "the bundle's record could not be read"
    if manifest.tradeoff is not None:
        return "it rests on a trade-off too, which is not here"
    if manifest.auditor != __version__:
        return f"it was made by auditor {manifest.auditor or 'of before'}, and this is {__version__}"
    return ""


def _pack(name: str, digest: str, folder: Path) -> Policy:
    """The pack of a name and digest: one that comes with the tool, else a file beside the dossier."""
    beside = [str(path) for path in sorted(folder.glob("*.toml"))[:_MOST_FILES] if _may_be_pack(path, digest)]
    for where in ([name] if name in pack_names() else []) + beside:
        packs, _ = load_policies([where])
        if [(pack.name, pack.sha256) for pack in packs] == [(name, digest)]:
            return packs[0]
    raise _UnknownError(f"its rule pack {name} is none of this auditor's, and its file does not lie beside it")


def _may_be_pack(path: Path, digest: str) -> bool:
    if not path.is_file() or path.stat().st_size > _PACK_BYTES:
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest() == digest


def _verified_attestations(
    folder: Path, manifest: DossierManifest, packs: list[Policy], signed_with: str | None
) -> Attestations | None:
    for name, digest in manifest.attestations.items():
        try:
            same = hashlib.sha256(content_of(folder / name)).hexdigest() == digest
        except OSError:
            same = False
        if not same or not _all_there(folder, manifest.documents):
            raise _UnknownError("the statements that it rests on, or their documents, are not here as they were")
        return read_attestations(folder / name, packs, datetime.now(UTC).date(), signed_with=signed_with)
    return None


def _all_there(folder: Path, documents: Mapping[str, str]) -> bool:
    """Whether every document lies there, which the statements' reader would refuse else."""
    return all((folder / name).is_file() for name in documents)
