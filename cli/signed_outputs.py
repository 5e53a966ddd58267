"""Signed outputs: the evidence bundle of a record that is not an audit, and the seal of a PDF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.core.errors import UsageError
from auditor.evidence.signing import Seal, load_seal

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from auditor.evidence.derived_evidence import Derived
    from auditor.run.scan_options import Configured


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """The evidence output: its path, its signing key, and the URL of its timestamp authority."""

    bundle: Path
    key: Ed25519PrivateKey | None
    timestamp: str | None = None
    _undated: list[UsageError] = field(default_factory=list)

    def write(self, evidence: Derived, own_code: Sequence[str] = ()) -> None:
        """Write the bundle; ``own_code``: user code that ran, as ``package.module:name``."""
        from auditor.evidence.derived_evidence import write_derived
        from auditor.evidence.timestamp import NoTimestampError

        try:
            write_derived(self.bundle, replace(evidence, code=tuple(own_code)), key=self.key, timestamp=self.timestamp)
        except NoTimestampError as error:
            # The bundle is written, and the verdict is still to be told.
            self._undated.append(error)

    def raise_if_undated(self) -> None:
        """Raise NoTimestampError, after all other output, if the requested timestamp is missing."""
        for error in self._undated:
            raise error


def sealed(bundle: Path | None, sign: Path | None, timestamp: str | None) -> Sealed | None:
    """The evidence output requested by the three flags.

    Raises UsageError, before any work, where it cannot be done.
    """
    from auditor.core.files import check_writable
    from auditor.evidence.derived_evidence import key_to_sign

    key = key_to_sign(sign, bundle)
    if timestamp is not None:
        from auditor.evidence.timestamp import check_authority

        check_authority(timestamp)
    if bundle is None:
        if timestamp is not None:
            raise UsageError("--timestamp says something about the evidence bundle: add --bundle FILE.")
        return None
    if bundle.is_dir():
        raise UsageError(f"--bundle {str(bundle)!r} is a folder: name a file, such as evidence.zip.")
    check_writable(bundle.parent, "Name another place with --bundle.")
    return Sealed(bundle=bundle, key=key, timestamp=timestamp)


def with_bundle(config: Configured, bundle: Path | None) -> Configured:
    """The audits of a command that encloses them: each writes its evidence there, unsigned, or none."""
    options = replace(
        config.options,
        bundle=None if bundle is None else str(bundle),
        sign=None,
        timestamp=None,
        redact=False,
        include_rows=False,
    )
    return replace(config, options=options)


def seal_of(certificate: Path | None, password_from: str | None, formats: Sequence[str]) -> Seal | None:
    """The seal that the flags name, None without one.

    Raises UsageError where it cannot be.
    """
    if certificate is None:
        if password_from is not None:
            raise UsageError("--pdf-password-env is the password of --pdf-certificate: give that too.")
        return None
    if not any(name.startswith("pdf") for name in formats):
        raise UsageError("--pdf-certificate signs the PDF: add pdf to --format.")
    return load_seal(certificate, password_from)
