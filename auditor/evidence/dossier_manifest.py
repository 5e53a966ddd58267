"""The manifest of a dossier: digests of its inputs (files, record, packs, attestations) and outputs.

It lies beside the dossier, signed or not, and ties it to the evidence bundle of the same record.
"""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, ValidationError

from auditor.core.errors import AuditorError, DataError, UsageError
from auditor.core.files import Closed
from auditor.evidence.manifest import Digest, FileEntry, canonical
from auditor.evidence.signing import open_envelope, sign, statement
from auditor.report.record.audit_report import AuditReport, ExitCode

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

DOSSIER_FORMAT = "auditor-dossier/1"
MANIFEST_SUFFIX, SIGNATURE_SUFFIX = ".manifest.json", ".manifest.dsse.json"
_MOST_BYTES = 64 << 20
_RESULT = {ExitCode.PASSED: "PASSED", ExitCode.INCONCLUSIVE: "WARNED"}
# A file beside the manifest, and nothing elsewhere.
Name = Annotated[str, Field(pattern=r"^[^/\\\x00]{1,255}$")]


class DossierManifest(Closed):
    """The files of a dossier, and its inputs.

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
    """Paths of a dossier's manifest and of its signature."""
    return out.with_name(out.stem + MANIFEST_SUFFIX), out.with_name(out.stem + SIGNATURE_SUFFIX)


def signature_of(name: str, manifest: DossierManifest, report: AuditReport, key: Ed25519PrivateKey) -> bytes:
    """The manifest's signature; ``name``: of its file."""
    return sign(statement_of_dossier(name, manifest, report), key)


def statement_of_dossier(name: str, manifest: DossierManifest, report: AuditReport) -> bytes:
    """The signed statement on a dossier; ``name``: the file name of its manifest."""
    return statement(
        {name: hashlib.sha256(manifest.to_bytes()).hexdigest()},
        {
            "result": _RESULT.get(ExitCode(report.exit_code), "FAILED"),
            "configuration": [{"name": "record", "digest": {"sha256": manifest.record}}],
        },
    )


def signer_of(path: Path) -> str | None:
    """The fingerprint of the key that signed a manifest, trusted or not; None if unsigned."""
    try:
        return open_envelope(content_of(signature_at(path)), ()).fingerprint
    except (OSError, AuditorError):
        return None


def read_manifest(path: Path) -> DossierManifest:
    """The manifest in a file. Raises UsageError where there is no such file, DataError where it is none."""
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
        raise DataError(
            f"{path.name!r} is no manifest of a dossier ({error.errors()[0]['msg']}): name the *{MANIFEST_SUFFIX} that "
            "auditor dossier wrote beside it."
        ) from None
    if found.format != DOSSIER_FORMAT or found.to_bytes() != content:
        raise DataError(f"{path.name!r} is not written as auditor dossier writes it.")
    return found


def content_of(path: Path) -> bytes:
    """The bytes of a file. Raises OSError where there is none; of a pipe nothing is waited for."""
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "it is no file")
    with path.open("rb") as file:
        return file.read(_MOST_BYTES)


def signature_at(path: Path) -> Path:
    """Path of this manifest's signature."""
    return path.with_name(path.name.removesuffix(MANIFEST_SUFFIX) + SIGNATURE_SUFFIX)
