"""Verification of an audit's input files enclosed in its bundle: each is read and compared with its digest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from auditor.core.errors import AuditorError, DataError
from auditor.evidence.evidence_bundle import (
    CONFIGURATION,
    DECISIONS,
    PACKS,
    REGISTRATION,
    EnclosedFile,
    Understood,
    is_enclosed,
)
from auditor.evidence.history.entries import Entry
from auditor.evidence.manifest import REQUEST, UNDERSTOOD
from auditor.evidence.registration import Opened, registration_in
from auditor.evidence.verify.checks import Check
from auditor.judging.input_files import ObeyedFile

_T = TypeVar("_T")
_UNDERSTOOD: TypeAdapter[Understood] = TypeAdapter(Understood)
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)


@dataclass(frozen=True, kw_only=True)
class WentBy:
    """The readable enclosed files; ``left_out``: input files that are not enclosed."""

    understood: Understood | None = None
    registration: Opened | None = None
    decisions: tuple[Entry, ...] = ()
    obeyed: tuple[ObeyedFile, ...] = ()
    left_out: tuple[EnclosedFile, ...] = ()

    def of_role(self, *roles: str) -> tuple[ObeyedFile, ...]:
        """The files of these roles, in reading order."""
        return tuple(file for file in self.obeyed if file.role in roles)


def went_by(entries: Mapping[str, bytes]) -> tuple[WentBy, list[Check]]:
    """The enclosed input files of the bundle, and differences from their descriptions."""
    checks: list[Check] = []
    understood = _understood(entries, checks)
    registration = None
    if REGISTRATION in entries:
        try:
            registration = registration_in(entries[REGISTRATION], REGISTRATION)
        except AuditorError as error:
            checks.append(_wrong(REGISTRATION, str(error).rstrip(".")))
    obeyed, left_out = _files(entries, understood, checks)
    found = WentBy(
        understood=understood,
        registration=registration,
        decisions=tuple(_decisions(entries, checks)),
        obeyed=tuple(obeyed),
        left_out=tuple(left_out),
    )
    return found, checks


def _wrong(name: str, detail: str) -> Check:
    return Check(name=name[:200], state="wrong", detail=detail)


def _understood(entries: Mapping[str, bytes], checks: list[Check]) -> Understood | None:
    try:
        said = json.loads(entries.get(REQUEST, b"{}")).get(UNDERSTOOD)
    except (ValueError, AttributeError, RecursionError):
        checks.append(_wrong(REQUEST, "it is no request"))
        return None
    return None if said is None else _validate_entry(_UNDERSTOOD, json.dumps(said).encode(), REQUEST, checks)


def _decisions(entries: Mapping[str, bytes], checks: list[Check]) -> list[Entry]:
    found: list[Entry] = []
    for name in sorted(name for name in entries if name.startswith(f"{DECISIONS}/") and is_enclosed(name)):
        entry = _validate_entry(_ENTRY, entries[name], name, checks)
        if entry is None:
            continue
        if entry != Entry.from_previous(entry.number, entry.previous, entry.created, entry.kind, entry.payload):
            checks.append(_wrong(name, "its hash is not that of its content"))
        elif entry.number in {other.number for other in found}:
            checks.append(_wrong(name, f"entry {entry.number} of the history is enclosed twice"))
        else:
            found.append(entry)
    return sorted(found, key=lambda entry: entry.number)


def _files(
    entries: Mapping[str, bytes], understood: Understood | None, checks: list[Check]
) -> tuple[list[ObeyedFile], list[EnclosedFile]]:
    obeyed, left_out = [], []
    said = () if understood is None else understood.files
    for each in said:
        if each.part is None:
            left_out.append(each)
            continue
        content = entries.get(each.part)
        folder = PACKS if each.role == "rule pack" else CONFIGURATION
        if not is_enclosed(each.part) or not each.part.startswith(f"{folder}/"):
            checks.append(_wrong(REQUEST, f"{each.part[:80]!r} is no place for a {each.role}"))
        elif content is None:
            checks.append(_wrong(each.part, f"is not in the bundle, and the request names it as a {each.role}"))
        else:
            file = ObeyedFile(each.path, each.role, each.origin, content, each.keys)
            if file.sha256 != each.sha256:
                checks.append(_wrong(each.part, "is not the file that the request names: its digest differs"))
            obeyed.append(file)
    named = [each.part for each in said]
    for name in entries:
        if name.startswith((f"{PACKS}/", f"{CONFIGURATION}/")) and named.count(name) != 1:
            checks.append(_wrong(name, "is in the bundle, and the request does not name it once"))
        elif name.startswith(f"{DECISIONS}/") and not is_enclosed(name):
            checks.append(_wrong(name, "is no name of a decision's part"))
    return obeyed, left_out


def _validate_entry(adapter: TypeAdapter[_T], content: bytes, name: str, checks: list[Check]) -> _T | None:
    try:
        return adapter.validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "its text"
        checks.append(_wrong(name, f"cannot be read: {where}: {first['msg']}"))
    except (DataError, ValueError, RecursionError) as error:
        checks.append(_wrong(name, f"cannot be read: {str(error)[:200]}"))
    return None
