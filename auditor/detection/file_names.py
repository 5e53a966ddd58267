"""Names of files on their way through JSON and onto a screen: a file system holds names that are no UTF-8."""

from __future__ import annotations

import os

# No path holds it, so that what begins with it is no other file's name.
_MARK = "\0"


def sent(path: str) -> str:
    """The path as it may stand in JSON: itself where it is UTF-8, else a mark and its bytes in hexadecimal."""
    return path if is_utf8(path) else _MARK + os.fsencode(path).hex()


def received(name: str) -> str:
    """The path that :func:`sent` sent."""
    return os.fsdecode(bytes.fromhex(name[1:])) if name.startswith(_MARK) else name


def readable(path: str) -> str:
    """The path with bytes that are no UTF-8 as ``\\xff``."""
    return path if is_utf8(path) else os.fsencode(path).decode("utf-8", "backslashreplace")


def is_utf8(path: str) -> bool:
    """Whether a path, as Python has it, is made of UTF-8."""
    return not any("\ud800" <= char <= "\udfff" for char in path)
