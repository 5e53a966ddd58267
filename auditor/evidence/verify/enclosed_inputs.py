"""What a bundle encloses of an audit, read: request, registration, decisions, files that decided, tables and rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from auditor.core.errors import AuditorError, DataError
from auditor.data.group_counts import GroupCounts
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
from auditor.evidence.manifest import REQUEST, ROWS, TABLES, UNDERSTOOD
from auditor.evidence.registration import Opened, registration_in
from auditor.evidence.verify.checks import Check
from auditor.judging.input_files import ObeyedFile
from auditor.report.record.audit_report import AuditReport
from auditor.run.predictions import Answers, AnswersHead, CountsRecord, read_head, read_rows

_T = TypeVar("_T")
_UNDERSTOOD: TypeAdapter[Understood] = TypeAdapter(Understood)
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The readable parts of a bundle that its record follows from; None of what is not there, or cannot be read.

    ``request``: as JSON. ``obeyed``: the enclosed files that decided; ``left_out``: those that are not enclosed.
    ``head``, ``counts``: what the tables say of the rows and of the groups.
    """

    request: Mapping[str, Any] = field(default_factory=dict)
    understood: Understood | None = None
    registration: Opened | None = None
    decisions: Mapping[str, Entry] = field(default_factory=dict)
    obeyed: tuple[ObeyedFile, ...] = ()
    left_out: tuple[EnclosedFile, ...] = ()
    head: AnswersHead | None = None
    counts: CountsRecord | None = None
    table: GroupCounts | None = None
    answers: Answers | None = None

    @property
    def options(self) -> Mapping[str, Any]:
        """The options as they were given."""
        found = self.request.get("options")
        return found if isinstance(found, dict) else {}

    @property
    def probe_options(self) -> Mapping[str, Mapping[str, Any]]:
        """The options of each probe as they were given."""
        found = self.request.get("probe_options")
        return found if isinstance(found, dict) and all(isinstance(own, dict) for own in found.values()) else {}

    @property
    def complete(self) -> bool:
        """Whether every file that decided is enclosed."""
        return self.understood is not None and not self.left_out

    def of_role(self, *roles: str) -> tuple[ObeyedFile, ...]:
        """The files of these roles, in reading order."""
        return tuple(file for file in self.obeyed if file.role in roles)


def read_inputs(entries: Mapping[str, bytes]) -> tuple[Inputs, list[Check]]:
    """The readable parts of the bundle, and those that cannot be read or differ from their description."""
    checks: list[Check] = []
    request = _request(entries.get(REQUEST, b"{}"), checks)
    said, understood, registration = request.get(UNDERSTOOD), None, None
    if said is not None:
        understood = _validate_entry(_UNDERSTOOD, json.dumps(said).encode(), REQUEST, checks)
    if REGISTRATION in entries:
        try:
            registration = registration_in(entries[REGISTRATION], REGISTRATION)
        except AuditorError as error:
            checks.append(_wrong(REGISTRATION, str(error).rstrip(".")))
    head = counts = table = answers = None
    part = TABLES
    try:
        head, counts = read_head(entries.get(TABLES, b""))
        table = None if counts is None else counts.counts()
        part = ROWS
        answers = None if head is None or ROWS not in entries else read_rows(entries[ROWS], head, counts)
    except DataError as error:
        checks.append(_wrong(part, str(error)))
    obeyed, left_out = _files(entries, understood, checks)
    return Inputs(
        request=request,
        understood=understood,
        registration=registration,
        decisions=_decisions(entries, checks),
        obeyed=tuple(obeyed),
        left_out=tuple(left_out),
        head=head,
        counts=counts,
        table=table,
        answers=answers,
    ), checks


def unnamed_parts(entries: Mapping[str, bytes], report: AuditReport, inputs: Inputs) -> list[Check]:
    """The enclosed parts that the record does not speak of; whether it speaks of the others is for the manifest."""
    said = {decision.entry for decision in report.decisions}
    names = [part for part, entry in inputs.decisions.items() if entry.number not in said]
    names += [REGISTRATION] if report.registration is None and REGISTRATION in entries else []
    return [_wrong(name, "it is enclosed, and the record does not speak of it") for name in names]


def _wrong(name: str, detail: str) -> Check:
    return Check(name=name[:200], state="wrong", detail=detail)


def _request(content: bytes, checks: list[Check]) -> dict[str, Any]:
    try:
        found = json.loads(content)
        if not isinstance(found, dict):
            raise ValueError
    except (ValueError, RecursionError):
        checks.append(_wrong(REQUEST, "it is no request"))
        return {}
    if not all(isinstance(found.get(name), dict) for name in ("options", "probe_options")):
        checks.append(_wrong(REQUEST, "it does not hold the options as they were given"))
    return found


def _decisions(entries: Mapping[str, bytes], checks: list[Check]) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for name in sorted(name for name in entries if name.startswith(f"{DECISIONS}/") and is_enclosed(name)):
        entry = _validate_entry(_ENTRY, entries[name], name, checks)
        if entry is None:
            continue
        if entry != Entry.from_previous(entry.number, entry.previous, entry.created, entry.kind, entry.payload):
            checks.append(_wrong(name, "its hash is not that of its content"))
        elif entry.number in {other.number for other in found.values()}:
            checks.append(_wrong(name, f"entry {entry.number} of the history is enclosed twice"))
        else:
            found[name] = entry
    return found


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
