"""Signatures: Ed25519 keys, in-toto statements in DSSE envelopes, and signatures inside a PDF (PAdES baseline B-B).

Sources: RFC 8032 (Ed25519); DSSE v1.0 (secure-systems-lab/dsse, protocol.md); in-toto Attestation Framework v1,
predicate ``test-result`` v0.1.

The signature inside a PDF is PAdES baseline B-B, with the signer's own X.509 certificate.

Source: ETSI EN 319 142-1 (PAdES baseline signatures). Nothing is fetched: neither a time stamp nor revocation lists.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from auditor.core.errors import DataError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://in-toto.io/attestation/test-result/v0.1"
_PRIVATE_MODE = 0o600


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise MissingExtraError(
            "Keys and signatures need the package cryptography: pip install 'responsible-auditor[evidence]'."
        ) from None
    return ed25519


def make_key(path: Path) -> str:
    """Write a new private key to ``path``, readable by its owner only, and the public key beside it as ``.pub``.

    PEM of PKCS 8 and of SubjectPublicKeyInfo. Returns the key's fingerprint. Raises UsageError where either is there.
    """
    ed25519 = _ed25519()
    from cryptography.hazmat.primitives import serialization

    if not path.name:
        raise UsageError("Name the file that the key is written to, such as auditor.key.")
    public_path = path.with_name(f"{path.name}.pub")
    for there in (path, public_path):
        if there.exists() or there.is_symlink():
            raise UsageError(f"{str(there)!r} is there already, and a key that is written over is lost: name another.")
    key: Ed25519PrivateKey = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for where, content, mode in ((path, private, _PRIVATE_MODE), (public_path, public, 0o644)):
            # Never readable by others, not even between creation and a change of mode.
            handle = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise UsageError(f"The key cannot be written to {str(path)!r}: {error.strerror}.") from None
    return fingerprint(key.public_key())


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """The private key in a file. Raises UsageError where it is none, or where others than its owner may read it."""
    ed25519 = _ed25519()
    from cryptography.hazmat.primitives import serialization

    content = _read_key_file(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise UsageError(
            f"The key {str(path)!r} may be read by others (mode {mode:04o}), so whoever signed with it is not known: "
            f"chmod 600 {path}, or make a new one with auditor evidence keygen."
        )
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError):
        raise UsageError(f"{str(path)!r} is no private key that auditor evidence keygen writes.") from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise UsageError(f"{str(path)!r} is a key of another kind than Ed25519: make one with auditor evidence keygen.")
    return cast("Ed25519PrivateKey", key)


def load_public_key(path: Path) -> Ed25519PublicKey:
    """The public key in a file. Raises UsageError where it is none."""
    ed25519 = _ed25519()
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_public_key(_read_key_file(path))
    except (ValueError, TypeError):
        raise UsageError(
            f"{str(path)!r} is no public key: give the .pub file that auditor evidence keygen wrote."
        ) from None
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise UsageError(f"{str(path)!r} is a key of another kind than Ed25519.")
    return cast("Ed25519PublicKey", key)


def _read_key_file(path: Path) -> bytes:
    try:
        if not path.is_file() and path.exists():
            raise UsageError(f"{str(path)!r} is no file that could hold a key.")
        with path.open("rb") as file:
            return file.read(1 << 16)
    except OSError as error:
        raise UsageError(f"The key {str(path)!r} cannot be read: {error.strerror}.") from None


def fingerprint(key: Ed25519PublicKey) -> str:
    """Hex SHA-256 of a public key's SubjectPublicKeyInfo in DER: the fingerprint that its owner can publish."""
    from cryptography.hazmat.primitives import serialization

    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def public_key_of(raw: bytes) -> Ed25519PublicKey:
    """The public key of 32 bytes. Raises ValueError where they are none."""
    return cast("Ed25519PublicKey", _ed25519().Ed25519PublicKey.from_public_bytes(raw))


def fits(key: Ed25519PublicKey, signature: bytes, content: bytes) -> bool:
    """Whether this key's owner signed the content."""
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, content)
        return True
    except InvalidSignature:
        return False


def statement(subject: Mapping[str, str], predicate: Mapping[str, object]) -> bytes:
    """An in-toto statement about files with these SHA-256 digests, as JSON."""
    return json.dumps(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(subject.items())],
            "predicateType": PREDICATE_TYPE,
            "predicate": dict(predicate),
        },
        sort_keys=True,
        ensure_ascii=False,
    ).encode()


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """``PAE = "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body``: the signed bytes."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def key_id(key: Ed25519PublicKey) -> str:
    """Hex SHA-256 of a public key in canonical JSON: the ``keyid`` that securesystemslib computes of it."""
    from cryptography.hazmat.primitives import serialization

    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    described = {"keytype": "ed25519", "keyval": {"public": raw.hex()}, "scheme": "ed25519"}
    return hashlib.sha256(json.dumps(described, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sign(payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """A DSSE envelope around an in-toto statement, as JSON; its enclosed public key proves no identity."""
    public = key.public_key()
    return _envelope(payload, key.sign(pre_authentication_encoding(PAYLOAD_TYPE, payload)), public, key_id(public))


def _envelope(payload: bytes, signature: bytes, public: Ed25519PublicKey, keyid: str) -> bytes:
    from cryptography.hazmat.primitives import serialization

    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return (
        json.dumps(
            {
                "payloadType": PAYLOAD_TYPE,
                "payload": base64.b64encode(payload).decode(),
                "signatures": [
                    {
                        "keyid": keyid,
                        "sig": base64.b64encode(signature).decode(),
                        "public_key": base64.b64encode(raw).decode(),
                    }
                ],
            },
            indent=2,
        )
        + "\n"
    ).encode()


@dataclass(frozen=True)
class Signed:
    """The content of an envelope: the signed statement, and the fingerprint of the signing key.

    ``trusted``: whether that key is one that the reader named.
    """

    statement: bytes
    fingerprint: str
    trusted: bool


def open_envelope(content: bytes, trusted: Sequence[Ed25519PublicKey] = ()) -> Signed:
    """The statement in an envelope after a check of its signature, by one of the ``trusted`` keys, or else by the
    enclosed key.

    Raises DataError where it is no envelope, the signature is wrong, or no trusted key signed it.
    """
    try:
        envelope = json.loads(content)
        payload = base64.b64decode(envelope["payload"], validate=True)
        entry = envelope["signatures"][0]
        signature = base64.b64decode(entry["sig"], validate=True)
        enclosed = public_key_of(base64.b64decode(entry["public_key"], validate=True))
        if len(envelope["signatures"]) != 1 or envelope["payloadType"] != PAYLOAD_TYPE:
            raise DataError("The signature is no DSSE envelope of one in-toto statement.")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, binascii.Error, RecursionError):
        raise DataError("The signature is no DSSE envelope of an in-toto statement.") from None
    signed = pre_authentication_encoding(PAYLOAD_TYPE, payload)
    prints = [fingerprint(key) for key in trusted]
    if trusted and fingerprint(enclosed) not in prints:
        raise DataError(
            f"It was signed with the key {fingerprint(enclosed)[:16]}..., which is none that you trust "
            f"({', '.join(f'{p[:16]}...' for p in prints)})."
        )
    if not fits(enclosed, signature, signed):
        raise DataError("The signature does not fit what it is about: one of the two was changed.")
    # Earlier versions named a key by its fingerprint.
    keyids = (key_id(enclosed), fingerprint(enclosed))
    if content not in [_envelope(payload, signature, enclosed, keyid) for keyid in keyids]:
        raise DataError("The signature's envelope was changed around what was signed.")
    return Signed(payload, fingerprint(enclosed), bool(trusted))


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
