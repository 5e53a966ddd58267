"""A dossier rebuilt from its stated inputs: a signature names the signer of a text, not its sources."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path

from auditor.core.errors import AuditorError, MissingExtraError
from auditor.evidence.dossier_files import Attestations, DossierManifest, content_of, read_attestations
from auditor.evidence.verify.checks import Check
from auditor.evidence.write_dossier import dossier_of
from auditor.judging.policy import Policy, load_policies, pack_names
from auditor.report.document_files import render_document
from auditor.report.record.audit_report import AuditReport
from auditor.run import __version__

NAME = "dossier, text"
_MOST_FILES = 200
_PACK_BYTES = 4 << 20


def check_text(folder: Path, manifest: DossierManifest, report: AuditReport | None, signed_with: str | None) -> Check:
    """Check that a dossier's files contain exactly the output of its record, packs and statements.

    ``signed_with``: the fingerprint that its attestations name; None where it is not signed.
    """
    lacks = _lacking(manifest, report)
    if lacks or report is None:
        return Check(name=NAME, state="not checked", detail=lacks)
    try:
        packs = [_pack(name, digest, folder) for name, digest in manifest.packs.items()]
        given = _verified_attestations(folder, manifest, packs, signed_with)
        found = dossier_of(
            report, packs, date.fromisoformat(manifest.as_of), report_href=manifest.report_href, attestations=given
        )
        made = {name: render_document(found, name) for name in manifest.files}
    except (_UnknownError, MissingExtraError) as error:
        return Check(name=NAME, state="not checked", detail=str(error).rstrip("."))
    except (AuditorError, ValueError) as error:
        return Check(name=NAME, state="wrong", detail=f"it cannot be made again: {error}".rstrip("."))
    other = [name for name, entry in manifest.files.items() if hashlib.sha256(made[name]).hexdigest() != entry.sha256]
    if other:
        detail = f"{', '.join(sorted(other))}: it says something else than its record, packs and statements come to"
        return Check(name=NAME, state="wrong", detail=detail)
    return Check(name=NAME, state="ok", detail="made again from its record, packs and statements it is the same")


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
