"""Timestamps: an authority's signed statement that a bundle existed at a given time (RFC 3161).

Sources: RFC 3161 (time-stamp protocol), RFC 5816 (its update), RFC 5652 (the signed message that a token is).
"""

from __future__ import annotations

import hashlib
import queue
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from auditor.core.errors import DataError, MissingExtraError, UsageError, first_line
from auditor.evidence.manifest import MANIFEST, SIGNATURE
from auditor.report.record.number_text import visible

# A token with the authority's whole chain is below 10 kB.
MOST_BYTES = 64 << 10
_MOST_SECONDS = 15.0
_SHA256 = "2.16.840.1.101.3.4.2.1"
_GRANTED = 0


class NoTimestampError(UsageError):
    """A bundle was written without a timestamp."""


@dataclass(frozen=True)
class Authorities:
    """Timestamp authorities trusted by the reader: root certificates, and the policy if only one is allowed."""

    roots: tuple[Any, ...]
    policy: Any = None


@dataclass(frozen=True)
class Token:
    """A parsed timestamp: time, policy and authority; ``by`` is the subject of the authority's certificate.

    ``response``: the whole answer of the authority, decoded.
    """

    response: Any
    at: datetime
    policy: str
    by: str


def covered(entries: Mapping[str, bytes]) -> bytes:
    """The bytes that a bundle's timestamp covers: the signature if present, else the manifest.

    The signature names the manifest's digest. A timestamp of the manifest alone would let whoever steals the key later
    sign an old bundle as if it had been signed then.
    """
    return entries.get(SIGNATURE, entries[MANIFEST])


def check_authority(url: str) -> None:
    """Raise UsageError for an unusable authority URL, MissingExtraError without the required package."""
    _client()
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        known = False
    if not known or any(c.isspace() or not c.isprintable() for c in url):
        raise UsageError(f"--timestamp {visible(url[:200])!r} is no http or https URL of a time-stamping authority.")
    if "@" in parts.netloc:
        raise UsageError("--timestamp holds a user's name or password: name an authority that asks for none.")


def timestamp_of(content: bytes, url: str, *, seconds: float = _MOST_SECONDS) -> bytes:
    """An authority's answer to a request for a timestamp of these bytes: a TimeStampResp in DER.

    It is held to the request: granted, of these bytes (SHA-256) and with the request's nonce. Whether the authority is
    one, only a reader who trusts its root can tell. Raises NoTimestampError where there is no such answer.
    """
    check_authority(url)
    client = _client()
    asked = client.TimestampRequestBuilder().data(content).hash_algorithm(client.HashAlgorithm.SHA256).build()
    answer = _answer(url, asked.as_bytes(), seconds)
    try:
        token = read_token(answer)
        if token.response.tst_info.nonce != asked.nonce:
            raise DataError("its answer is to another request")
        if not is_of(token, content):
            raise DataError("its answer is about something else")
    except DataError as error:
        raise NoTimestampError(f"{_place(url)} gave no timestamp: {error}.") from None
    return answer


def read_token(content: bytes) -> Token:
    """The contents of an authority's answer, before any trust check.

    Raises DataError where it is no timestamp.
    """
    if len(content) > MOST_BYTES:
        raise DataError(f"it is larger than {MOST_BYTES >> 10} KiB, as no timestamp is")
    client = _client()
    try:
        response = client.decode_timestamp_response(content)
        if response.status != _GRANTED:
            said = "; ".join(response.status_string)
            raise DataError(f"it was not granted (status {response.status}){f': {visible(said[:200])}' * bool(said)}")
        info = response.tst_info
        at = info.gen_time
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        return Token(response, at, info.policy.dotted_string, _signer(response))
    except DataError:
        raise
    except Exception as error:  # a dozen types on damaged ones
        raise DataError(f"it is no timestamp ({visible(first_line(error))[:120]})") from None


def is_of(token: Token, content: bytes) -> bool:
    """Whether the timestamp is about these bytes, by their SHA-256."""
    imprint = token.response.tst_info.message_imprint
    digest: bytes = imprint.message
    return imprint.hash_algorithm.dotted_string == _SHA256 and digest == hashlib.sha256(content).digest()


def holds(token: Token, content: bytes, authorities: Authorities) -> str:
    """The reason why a timestamp of these bytes is invalid, in words; "" if it is valid.

    It holds where its signature fits, the signer's certificate is one for timestamps alone (a critical extendedKeyUsage
    of timeStamping), leads to one of the roots and was valid, like all between, at the time that the token says; and
    where policy and imprint are those expected. Whether a certificate was revoked is not looked up.
    """
    client = _client()
    builder = client.VerifierBuilder(policy_id=authorities.policy, roots=list(authorities.roots))
    try:
        builder.build().verify_message(token.response, content)
    except (client.VerificationError, ValueError) as error:
        return _in_words(str(error))
    return ""


def authorities_of(paths: Sequence[Path], policy: str | None = None) -> Authorities | None:
    """The authorities from ``--tsa-root`` and ``--tsa-policy``; None if neither is given.

    Raises UsageError.
    """
    if not paths:
        if policy is not None:
            raise UsageError("--tsa-policy says under which policy a timestamp holds: add the root, --tsa-root FILE.")
        return None
    _client()
    from cryptography import x509

    roots = []
    for path in paths:
        try:
            with path.open("rb") as file:
                content = file.read(1 << 20)
            roots += x509.load_pem_x509_certificates(content)
        except OSError as error:
            raise UsageError(f"The certificate {str(path)!r} cannot be read: {error.strerror}.") from None
        except ValueError:
            raise UsageError(f"{str(path)!r} holds no certificate in PEM: give the authority's root.") from None
    try:
        return Authorities(tuple(roots), None if policy is None else x509.ObjectIdentifier(policy))
    except ValueError:
        raise UsageError(f"--tsa-policy {policy!r} is no object identifier: write it like 1.2.3.4.1.") from None


def _in_words(error: str) -> str:
    """What the library says, without what OpenSSL says of its own source."""
    if of_certificate := re.search(r'Verify error: ?([^"]{1,100})"', error):
        return f"its certificate does not hold under the roots that you trust ({visible(of_certificate[1])})"
    if "signature failure" in error or "digest failure" in error:
        return "its signature does not fit what it says"
    return visible(error.partition(": ErrorStack")[0].rstrip("."))[:200]


def _signer(response: Any) -> str:
    """The issuer and serial number by which the token names its signer's certificate, and its subject if enclosed."""
    from cryptography import x509

    (info,) = response.signed_data.signer_infos
    for content in response.signed_data.certificates:
        certificate = x509.load_der_x509_certificate(content)
        if (certificate.issuer, certificate.serial_number) == (info.issuer, info.serial_number):
            return str(certificate.subject.rfc4514_string())
    return f"number {info.serial_number} of {info.issuer.rfc4514_string()}"


def _answer(url: str, request: bytes, seconds: float) -> bytes:
    """What the server at the URL answers within the time, and not a byte more than a timestamp can have."""
    opener = urllib.request.OpenerDirector()
    # Redirections are not followed, and neither file: nor ftp: is known.
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    headers = {"Content-Type": "application/timestamp-query", "Accept": "application/timestamp-reply"}
    asked = urllib.request.Request(url, request, headers)
    came: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            with opener.open(asked, timeout=seconds) as answer:
                came.put(answer.read(MOST_BYTES + 1))
        except Exception as error:  # whatever sockets, certificates and headers raise
            came.put(error)

    # A server that sends a byte now and then keeps within every timeout of a socket: the whole has one.
    threading.Thread(target=ask, daemon=True).start()
    try:
        found = came.get(timeout=seconds)
    except queue.Empty:
        found = TimeoutError()
    if isinstance(found, TimeoutError) or isinstance(getattr(found, "reason", None), TimeoutError):
        raise NoTimestampError(f"{_place(url)} gave no timestamp within {seconds:g} s.")
    if isinstance(found, urllib.error.HTTPError):
        raise NoTimestampError(f"{_place(url)} gave no timestamp: it answers with status {found.code}.")
    if isinstance(found, Exception):
        why = getattr(found, "reason", None) or found
        why = getattr(why, "strerror", None) or first_line(why) if isinstance(why, Exception) else why
        raise NoTimestampError(f"{_place(url)} gave no timestamp: {visible(str(why))[:200].rstrip('.')}.")
    return found


def _place(url: str) -> str:
    return visible(urlsplit(url).netloc)


def _client() -> Any:
    try:
        return import_module("rfc3161_client")
    except ImportError:
        raise MissingExtraError(
            "Timestamps need the package rfc3161-client: pip install 'responsible-auditor[timestamp]'."
        ) from None
