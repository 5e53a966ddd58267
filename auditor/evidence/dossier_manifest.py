"""What a dossier was made of and what it came to, by digests: its files, the record, the packs, what was attested.

It lies beside the dossier, signed or not, and ties it to the evidence bundle of the same record.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, ValidationError

from auditor.errors import AuditorError, DataError, UsageError
from auditor.evidence.manifest import Digest, FileEntry, canonical
from auditor.evidence.signing import open_envelope, sign, statement
from auditor.evidence.verify import Check
from auditor.files import Closed
from auditor.record.audit_report import AuditReport, ExitCode
from auditor.report import view

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

DOSSIER_FORMAT = "auditor-dossier/1"
MANIFEST_SUFFIX, SIGNATURE_SUFFIX = ".manifest.json", ".manifest.dsse.json"
_MOST_BYTES = 64 << 20
_RESULT = {ExitCode.PASSED: "PASSED", ExitCode.INCONCLUSIVE: "WARNED"}
# A file beside the manifest, and nothing elsewhere.
Name = Annotated[str, Field(pattern=r"^[^/\\\x00]{1,255}$")]


class DossierManifest(Closed):
    """The files of a dossier, and what they rest on.

    ``record``: SHA-256 of ``report.json``. ``packs``: SHA-256 of the text of each. ``attestations``: of the file of
    statements, by its name; ``documents``: of those that statements point to; ``tradeoff``: of the trade-off given.
    ``auditor``: the version that made it, ``as_of`` the day it holds controls against, ``report_href`` where its links
    lead: with these it can be made again.
    """

    format: str = DOSSIER_FORMAT
    record: Digest
    packs: dict[str, Digest]
    files: dict[Name, FileEntry]
    attestations: dict[Name, Digest] = Field(default_factory=dict)
    documents: dict[str, Digest] = Field(default_factory=dict)
    tradeoff: Digest | None = None
    auditor: str = ""
    as_of: str = ""
    report_href: str | None = None

    def to_bytes(self) -> bytes:
        """As canonical JSON."""
        return canonical(self.model_dump(mode="json"))


def places_beside(out: Path) -> tuple[Path, Path]:
    """Where the manifest of a dossier and the signature of it lie."""
    return out.with_name(out.stem + MANIFEST_SUFFIX), out.with_name(out.stem + SIGNATURE_SUFFIX)


def signature_of(name: str, manifest: DossierManifest, report: AuditReport, key: Ed25519PrivateKey) -> bytes:
    """The manifest's signature; ``name``: of its file."""
    return sign(_statement(name, manifest, report), key)


def _statement(name: str, manifest: DossierManifest, report: AuditReport) -> bytes:
    return statement(
        {name: hashlib.sha256(manifest.to_bytes()).hexdigest()},
        {
            "result": _RESULT.get(ExitCode(report.exit_code), "FAILED"),
            "configuration": [{"name": "record", "digest": {"sha256": manifest.record}}],
        },
    )


def check_dossier(path: Path, report: AuditReport | None, trusted: Sequence[Ed25519PublicKey]) -> list[Check]:
    """Whether a dossier is as it was written, is of this record, and who vouches for it.

    ``path``: its manifest. Raises UsageError where there is no such file, DataError where it is none.
    """
    manifest = _read(path)
    files = [_file(path.parent, name, entry) for name, entry in sorted(manifest.files.items())]
    if report is None:
        about = Check(name="dossier, record", state="not checked", detail="the bundle's record could not be read")
    elif view.document_id(report) != manifest.record:
        about = Check(name="dossier, record", state="wrong", detail="it was made from another record than the bundle's")
    else:
        about = Check(name="dossier, record", state="ok", detail="it was made from the bundle's record")
    given = [
        *_attested(path.parent, manifest.attestations, "file of statements"),
        *_attested(path.parent, manifest.documents, "document"),
    ]
    return [*files, about, *given, _signature(path, manifest, report, trusted)]


def signer_of(path: Path) -> str | None:
    """The fingerprint of the key that signed a manifest, trusted or not; None where none did."""
    try:
        return open_envelope(content_of(_signature_at(path)), ()).fingerprint
    except (OSError, AuditorError):
        return None


def read_manifest(path: Path) -> DossierManifest:
    """The manifest in a file. Raises UsageError where there is no such file, DataError where it is none."""
    return _read(path)


def _read(path: Path) -> DossierManifest:
    try:
        content = content_of(path)
    except OSError as error:
        raise UsageError(
            f"The dossier's manifest {str(path)!r} cannot be read ({error.strerror}): name the *{MANIFEST_SUFFIX} that "
            "auditor dossier wrote."
        ) from None
    try:
        found = DossierManifest.model_validate_json(content)
    except ValidationError as error:
        raise DataError(f"{path.name!r} is no manifest of a dossier: {error.errors()[0]['msg']}.") from None
    if found.format != DOSSIER_FORMAT or found.to_bytes() != content:
        raise DataError(f"{path.name!r} is not written as auditor dossier writes it.")
    return found


def content_of(path: Path) -> bytes:
    """The bytes of a file. Raises OSError where there is none; of a pipe nothing is waited for."""
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "it is no file")
    with path.open("rb") as file:
        return file.read(_MOST_BYTES)


def _file(folder: Path, name: str, entry: FileEntry) -> Check:
    title = f"dossier, {name}"
    try:
        same = FileEntry.of(content_of(folder / name)) == entry
    except OSError:
        return Check(name=title, state="wrong", detail="it is not beside its manifest")
    if not same:
        return Check(name=title, state="wrong", detail="it was changed since it was written")
    return Check(name=title, state="ok", detail="it is as it was written")


def _attested(folder: Path, given: Mapping[str, str], what: str) -> list[Check]:
    checks = []
    for name, digest in given.items():
        title = f"dossier, {name}"
        try:
            if PurePath(name).is_absolute() or ".." in PurePath(name).parts or "\0" in name:
                raise FileNotFoundError
            same = hashlib.sha256(content_of(folder / name)).hexdigest() == digest
        except OSError:
            detail = f"the {what} lies elsewhere; its SHA-256 is {digest}"
            checks.append(Check(name=title, state="not checked", detail=detail))
            continue
        if same:
            checks.append(Check(name=title, state="ok", detail=f"the {what} is as it was"))
        else:
            checks.append(Check(name=title, state="wrong", detail=f"the {what} was changed since"))
    return checks


def _signature_at(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(MANIFEST_SUFFIX) + SIGNATURE_SUFFIX)


def _signature(
    path: Path, manifest: DossierManifest, report: AuditReport | None, trusted: Sequence[Ed25519PublicKey]
) -> Check:
    name = "dossier, signature"
    try:
        content = content_of(_signature_at(path))
    except OSError:
        if trusted:
            return Check(name=name, state="wrong", detail="it is not signed, and a key was expected")
        return Check(name=name, state="not checked", detail="it is not signed: who vouches for it is not known")
    try:
        signed = open_envelope(content, trusted)
    except AuditorError as error:
        return Check(name=name, state="wrong", detail=str(error))
    if report is None or signed.statement != _statement(path.name, manifest, report):
        return Check(name=name, state="wrong", detail="what was signed is not this dossier")
    whose = f"key {signed.fingerprint[:16]}..."
    if not signed.trusted:
        detail = f"it fits the {whose} that it encloses itself; whose that is, only --key FILE can tell"
        return Check(name=name, state="not checked", detail=detail)
    return Check(name=name, state="ok", detail=f"signed with the {whose} that you trust")
