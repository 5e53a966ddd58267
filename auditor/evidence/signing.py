"""Signatures: Ed25519 keys, and in-toto statements in DSSE envelopes.

Sources: RFC 8032 (Ed25519); DSSE v1.0 (secure-systems-lab/dsse, protocol.md); in-toto Attestation Framework v1,
predicate ``test-result`` v0.1.
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
            f"chmod 600 {path}, or make a new one with auditor keygen."
        )
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError):
        raise UsageError(f"{str(path)!r} is no private key that auditor keygen writes.") from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise UsageError(f"{str(path)!r} is a key of another kind than Ed25519: make one with auditor keygen.")
    return cast("Ed25519PrivateKey", key)


def load_public_key(path: Path) -> Ed25519PublicKey:
    """The public key in a file. Raises UsageError where it is none."""
    ed25519 = _ed25519()
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_public_key(_read_key_file(path))
    except (ValueError, TypeError):
        raise UsageError(f"{str(path)!r} is no public key: give the .pub file that auditor keygen wrote.") from None
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


def sign(payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """A DSSE envelope around an in-toto statement, as JSON; its enclosed public key proves no identity."""
    return _envelope(payload, key.sign(pre_authentication_encoding(PAYLOAD_TYPE, payload)), key.public_key())


def _envelope(payload: bytes, signature: bytes, public: Ed25519PublicKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return (
        json.dumps(
            {
                "payloadType": PAYLOAD_TYPE,
                "payload": base64.b64encode(payload).decode(),
                "signatures": [
                    {
                        "keyid": fingerprint(public),
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
    if _envelope(payload, signature, enclosed) != content:
        raise DataError("The signature's envelope was changed around what was signed.")
    return Signed(payload, fingerprint(enclosed), bool(trusted))
