"""Files that determine an audit: configurations, criteria, rule packs and word catalogues, each read once.

What was parsed and what is digested are the same bytes, whatever becomes of the file afterwards.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tomllib
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from auditor.core.errors import ConfigError
from auditor.core.files import UNREADABLE, why_unreadable

FileRole = Literal["configuration", "criteria", "rule pack", "catalogue"]
# Found: it lay there and nobody named it. Given: whoever started the audit named it, or a file that they named did.
# Shipped: it comes with the tool.
Origin = Literal["found", "given", "shipped"]
# What somebody writes by hand is far below.
_MOST_BYTES = 16 << 20


@dataclass(frozen=True)
class ObeyedFile:
    """A file that decides something of an audit.

    ``path``: as it was typed, relative to the configuration that names it joined with that one's folder; the name of
    what is shipped. ``keys``: what of the audit it decides, such as ``target`` or ``probes.robustness.noise``.
    """

    path: str
    role: FileRole
    origin: Origin
    content: bytes = field(repr=False)
    keys: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """Hex digest of its bytes."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def text(self) -> str:
        """The text of the file.

        Raises UnicodeDecodeError.
        """
        # Its ends of lines are those of a file that is opened for reading text.
        return self.content.decode().replace("\r\n", "\n").replace("\r", "\n")

    def deciding(self, *keys: str) -> ObeyedFile:
        """The same file, marked with the parts that it determines."""
        return replace(self, keys=keys)

    def toml(self, subject: str) -> dict[str, Any]:
        """The parsed TOML; ``subject`` begins the ConfigError for invalid TOML."""
        try:
            return tomllib.loads(self.text)
        except UNREADABLE as error:
            raise ConfigError(f"{subject} cannot be read as TOML: {why_unreadable(error)}.") from None


def read_obeyed(path: str | Path, role: FileRole, origin: Origin = "given") -> ObeyedFile:
    """The file, opened once. Raises OSError, and ConfigError for what is no file or larger than one that was written by
    hand."""
    # A FIFO in its place does not block.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(21, "Is a directory", str(path))
        content = file.read(_MOST_BYTES + 1) if stat.S_ISREG(status.st_mode) else b""
    if not stat.S_ISREG(status.st_mode) or len(content) > _MOST_BYTES:
        raise ConfigError(f"{str(path)!r} is no regular file of at most {_MOST_BYTES >> 20} MiB, as a {role} is.")
    return ObeyedFile(str(path), role, origin, content)


def shipped(folder: str, name: str, role: FileRole) -> ObeyedFile | None:
    """The file of this name shipped with the tool; None if there is none."""
    if not re.fullmatch(r"[\w-]+", name):
        return None
    place = files("auditor.judging") / folder / f"{name}.toml"
    return ObeyedFile(name, role, "shipped", place.read_bytes()) if place.is_file() else None
