"""Files that determine an audit, each read once, and the [roles] of columns in audit.toml.

What was parsed and what is digested are the same bytes, whatever becomes of the file afterwards.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from auditor.core.errors import ConfigError, did_you_mean
from auditor.core.files import LEFT_OUT, UNREADABLE, Closed, why_unreadable

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


Role = Literal[
    "sex", "race_ethnicity", "age", "disability", "religion", "sexual_orientation", "nationality", "language",
    "marital_status", "pregnancy", "veteran_status", "genetic_information", "political_opinion", "trade_union",
    "income", "region",
]  # fmt: skip
ROLES: tuple[Role, ...] = get_args(Role)
LEVELS = "levels"
_LONGEST = 200

# Component 1 of the EEO-1 report, as its instruction booklet has them, and as 6 RCNY 5-301 writes two of them.
EEO1: Mapping[str, tuple[str, ...]] = {
    "Hispanic or Latino": (),
    "White": (),
    "Black or African American": (),
    "Native Hawaiian or Other Pacific Islander": ("Native Hawaiian or Pacific Islander",),
    "Asian": (),
    "American Indian or Alaska Native": ("Native American or Alaska Native",),
    "Two or More Races": (),
}
# Which list the values of a role are held to, where a rule pack asks for one.
CATEGORIES: Mapping[str, Mapping[str, tuple[str, ...]]] = {"eeo-1": EEO1}


class Roles(Closed):
    """Columns by role, and the values of a role's column in the terms of a closed list, such as EEO-1's."""

    columns: Annotated[dict[Role, str], LEFT_OUT] = Field(default_factory=dict)
    levels: Annotated[dict[Role, dict[str, str]], LEFT_OUT] = Field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """Required data: each column, and each value with its own term as ``column.value``."""
        values = (f"{self.columns[role]}.{value}" for role, own in self.levels.items() for value in own)
        return (*self.columns.values(), *values)

    def category(self, role: Role, value: str, names: str, label: str = "") -> str | None:
        """The category of a value among the ``names`` of :data:`CATEGORIES`: by ``[roles.levels]``, else by the value
        itself, else by its ``label`` label; None if it is none of them."""
        known = {spelled: name for name, more in CATEGORIES[names].items() for spelled in map(_plain, (name, *more))}
        for said in (self.levels.get(role, {}).get(value), value, label):
            if said and _plain(said) in known:
                return known[_plain(said)]
        return None


def _plain(name: str) -> str:
    """Without case, space, hyphens and the "(Not Hispanic or Latino)" that the form adds."""
    return re.sub(r"[\s-]+", " ", re.sub(r"[(\[]\s*not hispanic or latino\s*[)\]]", "", name.casefold())).strip()


def roles_of(table: object, where: str) -> Roles | None:
    """The roles in a TOML table; None if it is empty.

    Raises ConfigError for an unknown role, a column that is no text, or levels of a role without a column.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f'{where} must be a table, such as sex = "gender".')
    columns: dict[Role, str] = {}
    for name, column in table.items():
        if name == LEVELS:
            continue
        role = _role(str(name), where)
        if not isinstance(column, str) or not column.strip() or len(column) > _LONGEST:
            raise ConfigError(f'{where}: {name} must be the name of a column: {name} = "...".')
        columns[role] = column
    twice = [column for column in columns.values() if list(columns.values()).count(column) > 1]
    if twice:
        raise ConfigError(f"{where}: column {twice[0]!r} has two roles: keep one.")
    levels = dict(_levels(table.get(LEVELS, {}), columns, where))
    return Roles(columns=columns, levels=levels) if columns else None


def _role(name: str, where: str) -> Role:
    for role in ROLES:
        if name == role:
            return role
    near = did_you_mean(name, ROLES) or "."
    raise ConfigError(f"{where}: there is no role {name!r}{near} Known: {', '.join(ROLES)}.")


def _levels(table: object, columns: Collection[str], where: str) -> Iterator[tuple[Role, dict[str, str]]]:
    if not isinstance(table, Mapping):
        raise ConfigError(f'{where}: levels must be tables, such as [roles.levels.race_ethnicity] "1" = "White".')
    known = {_plain(n) for names in CATEGORIES.values() for name, more in names.items() for n in (name, *more)}
    for name, own in table.items():
        role = _role(str(name), f"{where[:-1]}.levels]" if where.endswith("]") else where)
        if role not in columns:
            raise ConfigError(f'{where}: levels of {role} need its column: {role} = "...".')
        if not isinstance(own, Mapping) or not all(isinstance(word, str) for word in own.values()):
            raise ConfigError(f'{where}: levels of {role} must be a table of texts, such as "1" = "White".')
        for value, word in own.items():
            if role == "race_ethnicity" and _plain(word) not in known:
                near = did_you_mean(word, EEO1) or "."
                raise ConfigError(
                    f"{where}: {role} {value!r} = {word!r} is no category of EEO-1 Component 1{near} "
                    f"Known: {', '.join(EEO1)}."
                )
        yield role, {str(value): str(word).strip() for value, word in own.items()}
