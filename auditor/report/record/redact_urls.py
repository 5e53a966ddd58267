"""Removal of passwords from written text, such as the recorded command."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.I)
_ADDRESS_IN_TEXT = re.compile(r"([a-z][a-z0-9+.-]*://)([^\s'\"]*)", re.I)
_SECRET = re.compile(
    r"\b((?:ssl|trust_?store_|key_?store_)?(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|(?:api|access|account|secret|shared"
    r"access)[_-]?key(?:[_-]?id)?|credentials?|odbc_connect|signature|sig))(=|%3D)(?:\{[^}]*\}|%7B.*?%7D|'[^']*'|\"[^\"]*\"|[^&;\s'\"]*)",
    re.I,
)


def without_passwords(text: str) -> str:
    """The text without users, passwords, tokens and keys, in addresses and in ``password=...``."""
    return _SECRET.sub(r"\1\2***", _ADDRESS_IN_TEXT.sub(lambda found: found[1] + _of_nobody(found[2]), text))


def arguments_without_passwords(arguments: Iterable[str]) -> list[str]:
    """The arguments of a command, with addresses reduced to kind, host and name: no users, no options."""
    return [_address(a) if _ADDRESS.search(a) else without_passwords(a) for a in arguments]


def _address(argument: str) -> str:
    kind, mark, rest = argument.partition("://")
    place, options, _ = _of_nobody(rest).partition("?")
    return without_passwords(kind) + mark + place + ("?***" if options else "")


def _of_nobody(rest: str) -> str:
    """What follows ``://``, without user and password: those may hold any sign, and so may an option's value."""
    before, at, after = rest.rpartition("@")
    if not at:
        return rest
    # Whose the last @ is cannot be told where options may have begun before it.
    return "***" if "?" in before else after
