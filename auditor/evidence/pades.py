"""A signature inside a PDF: PAdES baseline B-B, with the signer's own X.509 certificate.

Source: ETSI EN 319 142-1 (PAdES baseline signatures). Nothing is fetched: neither a time stamp nor revocation lists.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from auditor.core.errors import MissingExtraError, UsageError

_FIELD = "auditor"
_LONGEST = 1 << 20


@dataclass(frozen=True)
class Seal:
    """A private key and its certificate; ``chain``: the certificates of its issuers."""

    key: Any
    certificate: Any
    chain: Sequence[Any] = ()

    def sign(self, pdf: bytes, *, reason: str = "") -> bytes:
        """The PDF with an appended signature over all of its bytes; the original bytes are unchanged."""
        from asn1crypto import keys, x509
        from cryptography.hazmat.primitives import serialization
        from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
        from pyhanko.sign import fields, signers
        from pyhanko_certvalidator.registry import SimpleCertificateStore

        class Writer(IncrementalPdfFileWriter):  # type: ignore[misc]
            def _update_meta(self) -> None:
                """Leaves alone what the document says of itself, PDF/A and PDF/UA among it."""

        def der(certificate: Any) -> Any:
            return x509.Certificate.load(certificate.public_bytes(serialization.Encoding.DER))

        store = SimpleCertificateStore()
        store.register_multiple([der(certificate) for certificate in self.chain])
        private = self.key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        signer = signers.SimpleSigner(
            signing_cert=der(self.certificate), signing_key=keys.PrivateKeyInfo.load(private), cert_registry=store
        )
        metadata = signers.PdfSignatureMetadata(
            field_name=_FIELD, md_algorithm="sha256", subfilter=fields.SigSeedSubFilter.PADES, reason=reason or None
        )
        out = BytesIO()
        signers.sign_pdf(Writer(BytesIO(pdf)), metadata, signer=signer, output=out)
        return out.getvalue()


def load_seal(path: Path, password_from: str | None = None) -> Seal:
    """The key and the certificate in a file: PEM with both, or PKCS 12.

    ``password_from``: the environment variable that holds the file's password, which so stands in no command line.
    Raises UsageError where the file holds no such pair, others may read it, or the certificate is not valid today;
    MissingExtraError without pyHanko.
    """
    try:
        import pyhanko.sign  # noqa: F401
        from cryptography import x509  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "A signature in a PDF needs pyHanko: pip install 'responsible-auditor[pdf-sign]', or leave out "
            "--pdf-certificate."
        ) from None
    password = None
    if password_from is not None:
        if password_from not in os.environ:
            raise UsageError(f"The environment variable {password_from!r} is not set, and should hold a password.")
        password = os.environ[password_from].encode()
    seal = _seal_of(_content(path), path, password)
    since, until = seal.certificate.not_valid_before_utc, seal.certificate.not_valid_after_utc
    if not since <= datetime.now(UTC) <= until:
        raise UsageError(
            f"The certificate in {str(path)!r} is valid from {since:%Y-%m-%d} to {until:%Y-%m-%d}, and so not today."
        )
    return seal


def _content(path: Path) -> bytes:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if not path.is_file():
            raise UsageError(f"{str(path)!r} is no file that could hold a key.")
        with path.open("rb") as file:
            content = file.read(_LONGEST)
    except OSError as error:
        raise UsageError(f"The certificate {str(path)!r} cannot be read: {error.strerror}.") from None
    if mode & 0o077:
        raise UsageError(
            f"The key in {str(path)!r} may be read by others (mode {mode:04o}), so whoever signed with it is not "
            f"known: chmod 600 {path}."
        )
    return content


def _seal_of(content: bytes, path: Path, password: bytes | None) -> Seal:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, pkcs12

    try:
        if b"-----BEGIN" not in content:
            key, own, others = pkcs12.load_key_and_certificates(content, password)
            certificates = [*([own] if own is not None else []), *others]
        else:
            key = load_pem_private_key(content, password)
            certificates = x509.load_pem_x509_certificates(content)
    except (ValueError, TypeError):
        hint = "with this password" if password is not None else "without a password (--pdf-password-env NAME)"
        raise UsageError(
            f"{str(path)!r} cannot be read {hint} as a private key and its certificate, in PEM or as PKCS 12."
        ) from None
    if key is None:
        raise UsageError(f"{str(path)!r} holds no private key.")
    public = key.public_key()
    fitting = [c for c in certificates if c.public_key() == public]
    if not fitting:
        raise UsageError(f"{str(path)!r} holds no certificate of its private key: put both into one file.")
    return Seal(key, fitting[0], tuple(c for c in certificates if c is not fitting[0]))
