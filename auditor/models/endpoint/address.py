"""The address of an endpoint: its URL, and whether texts sent there leave this machine."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from auditor.core.errors import UsageError

_LONGEST = 2_000


@dataclass(frozen=True)
class Address:
    """The root of an OpenAI-compatible interface, such as ``http://127.0.0.1:8000/v1``, without a closing slash."""

    url: str
    loopback: bool


def address_of(url: str, *, allow_remote: bool = False) -> Address:
    """The address that the user entered.

    Loopback is ``localhost`` and the addresses that are loopback by their number; any other name is remote, wherever it
    resolves to today. Raises UsageError for what is no plain http or https URL, for a remote one that was not allowed,
    and for a password in it, which would stand in the shell's history and in every list of processes.
    """
    example = "name it as http://127.0.0.1:8000/v1"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise UsageError(f"This is no URL: {example}.") from None
    if len(url) > _LONGEST or not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError(f"This is no URL: {example}.")
    if parts.username is not None or parts.password is not None:
        raise UsageError("The URL holds a name or a password: leave it out, and name a variable with --api-key-env.")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise UsageError(f"{url!r} is no http or https URL without a query: {example}.")
    loopback = _is_loopback(host)
    if not loopback and not allow_remote:
        raise UsageError(f"{host!r} is not this machine, and texts would leave it: add --allow-remote to send them.")
    return Address(url.rstrip("/"), loopback)


def is_endpoint(model: str | None) -> bool:
    """Whether the model is given as the URL of its server."""
    return model is not None and model.lower().startswith(("http://", "https://"))


def _is_loopback(host: str) -> bool:
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
