"""Input files of an audit, enclosed with its evidence: registration, decisions, rule packs and configuration."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import PurePath
from typing import Annotated

from pydantic import Field

from auditor.core.files import Closed
from auditor.evidence.history.entries import Entry
from auditor.evidence.manifest import Digest, canonical
from auditor.evidence.registration import Plan
from auditor.judging.input_files import FileRole, ObeyedFile, Origin
from auditor.report.record.redact_urls import without_passwords

REGISTRATION = "registration.json"
DECISIONS, PACKS, CONFIGURATION = "decisions", "packs", "configuration"
# Decisions on one model over its life are fewer; of more, the latest are enclosed.
MOST_DECISIONS, MOST_FILES = 500, 200
_NAME = r"[0-9]{1,3}-[A-Za-z0-9_-]{1,80}\.toml"
_PART = re.compile(rf"registration\.json|decisions/[0-9]{{1,3}}\.json|packs/{_NAME}|configuration/{_NAME}")


class EnclosedFile(Closed):
    """An input file of the audit: its path in the bundle, or None if its content is left out, and the reason.

    ``path``: as it was named, or the name of what comes with the tool. ``keys``: what of the audit it decides.
    """

    path: Annotated[str, Field(max_length=4_096)]
    role: FileRole
    origin: Origin
    sha256: Digest
    part: str | None = None
    left_out: str = ""
    keys: tuple[str, ...] = ()


class Understood(Closed):
    """The interpreted request: the start of the run, the command line, the plan in force, and the files that determined
    it.

    ``as_of``: the day on which rule packs were to be held to be in force, None for that of the audit.
    ``plan``: of probes, settings, criteria and error rates; its ``files`` and ``code`` only where a run under a
    registration was held against them.
    """

    began: Annotated[str, Field(max_length=64)]
    command: tuple[str, ...] = ()
    plan: Plan
    as_of: date | None = None
    files: tuple[EnclosedFile, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Enclosed:
    """The enclosed input files: ``registration`` as the bytes of its file, ``decisions`` as entries of the history,
    ``obeyed`` the files that determined the audit."""

    began: str
    plan: Plan
    as_of: date | None = None
    command: Sequence[str] = ()
    registration: bytes | None = None
    decisions: Sequence[Entry] = ()
    obeyed: Sequence[ObeyedFile] = ()

    def parts(self) -> dict[str, bytes]:
        """The parts of a bundle, by name."""
        found = {} if self.registration is None else {REGISTRATION: self.registration}
        for i, entry in enumerate(self.decisions[-MOST_DECISIONS:]):
            found[f"{DECISIONS}/{i}.json"] = canonical(entry.model_dump(mode="json"))
        found |= {
            said.part: file.content
            for said, file in zip(self.files(), self.obeyed, strict=False)
            if said.part is not None
        }
        return found

    def files(self) -> tuple[EnclosedFile, ...]:
        """Descriptions of the input files."""
        return tuple(_said_of(i, file) for i, file in enumerate(self.obeyed))

    def understood(self) -> Understood:
        """The part of the request beside flags and options."""
        return Understood(
            began=self.began, command=tuple(self.command), plan=self.plan, as_of=self.as_of, files=self.files()
        )


def _said_of(i: int, file: ObeyedFile) -> EnclosedFile:
    left_out = "there are more files than are enclosed" if i >= MOST_FILES else ""
    if _holds_a_secret(file.content):
        left_out = "it names a password or an address with a user"
    folder = PACKS if file.role == "rule pack" else CONFIGURATION
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", PurePath(file.path).name.removesuffix(".toml")).strip("-")[-80:] or "file"
    return EnclosedFile(
        path=file.path,
        role=file.role,
        origin=file.origin,
        sha256=file.sha256,
        part=None if left_out else f"{folder}/{i}-{name}.toml",
        left_out=left_out,
        keys=file.keys,
    )


def _holds_a_secret(content: bytes) -> bool:
    text = re.sub(r"[ \t]*=[ \t]*", "=", content.decode("utf-8", "replace"))
    return without_passwords(text) != text


def is_enclosed(name: str) -> bool:
    """Whether a part of a bundle is an input file of the audit."""
    return _PART.fullmatch(name) is not None
