"""The key and the certificate for signing a PDF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from auditor.core.errors import UsageError
from auditor.evidence.pades import Seal, load_seal


def seal_of(certificate: Path | None, password_from: str | None, formats: Sequence[str]) -> Seal | None:
    """The seal that the flags name, None without one.

    Raises UsageError where it cannot be.
    """
    if certificate is None:
        if password_from is not None:
            raise UsageError("--pdf-password-env is the password of --pdf-certificate: give that too.")
        return None
    if "pdf" not in formats:
        raise UsageError("--pdf-certificate signs the PDF: add pdf to --format.")
    return load_seal(certificate, password_from)
