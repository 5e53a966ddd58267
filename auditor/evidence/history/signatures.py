"""Signatures of decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from auditor.core.errors import DataError
from auditor.evidence.history.entries import Decision

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def signed(decision: Decision, key: Ed25519PrivateKey) -> Decision:
    """The decision with the key's signature, its public half and fingerprint."""
    from cryptography.hazmat.primitives import serialization

    from auditor.evidence.signing import fingerprint

    public = key.public_key()
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return decision.model_copy(
        update={
            "key": fingerprint(public),
            "public_key": raw.hex(),
            "signature": key.sign(decision.signed_bytes()).hex(),
        }
    )


def signer(decision: Decision) -> str | None:
    """Fingerprint of the key that signed a decision; None if unsigned.

    Whose key that is, is for the reader to know. Raises DataError where the signature does not fit, MissingExtraError
    where it cannot be checked.
    """
    if decision.signature is None:
        return None
    from auditor.evidence.signing import fingerprint, fits, public_key_of

    try:
        public = public_key_of(bytes.fromhex(decision.public_key or ""))
        good = fingerprint(public) == decision.key and fits(
            public, bytes.fromhex(decision.signature), decision.signed_bytes()
        )
    except ValueError:
        good = False
    if not good:
        raise DataError(f"The signature under {decision.by!r}'s decision does not fit: one of the two was changed.")
    return decision.key
