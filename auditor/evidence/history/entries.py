"""Ledger entries (audits, decisions, plans of future audits), and the identity of the audited model."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, model_validator

from auditor.core.errors import DataError
from auditor.core.files import LEFT_OUT, UNSAID, Closed
from auditor.core.number_types import PositiveCount
from auditor.evidence.manifest import canonical
from auditor.evidence.registration import Registration
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.earlier_audits import STEPS, DecidedFinding, Step

GENESIS = "0" * 64
Kind = Literal["audit", "decision", "registration"]


class AuditEntry(Closed):
    """One audit: its record, the record's digest, and the path of its evidence.

    ``whole``: whether the record is all of what the digest is of. Entries of before left its drawings out, so that
    nothing in the ledger could say whether the rest was as the digest has it.
    """

    record: AuditReport
    record_sha256: str
    bundle: str | None = None
    whole: Annotated[bool, LEFT_OUT] = False

    @classmethod
    def from_report(cls, report: AuditReport, bundle: str | None = None) -> AuditEntry:
        """The entry of a record."""
        return cls(record=report, record_sha256=digest_of(report), bundle=bundle, whole=True)

    def holds(self, report: AuditReport) -> bool:
        """Whether this is exactly the report of the entry, not just one with the stated digest."""
        kept = report if self.whole else report.model_copy(update={"figures": ()})
        return self.record_sha256 == digest_of(report) and digest_of(self.record) == digest_of(kept)


class RegistrationEntry(Closed):
    """A plan registered before its results: the registration, its digest, and the signature in its file, if any."""

    registration: Registration
    sha256: str
    signature: JsonValue = None

    @model_validator(mode="after")
    def _is_what_it_says(self) -> Self:
        if self.sha256 != self.registration.digest:
            raise ValueError("the registration has another digest")
        return self


class Covered(Closed):
    """An earlier signed decision: the number of its entry, and that entry's hash."""

    entry: PositiveCount
    hash: str


class Decision(Closed):
    """Acceptance or rejection of an audit's findings by a person; it changes no outcome.

    ``audit``: number of the entry it is about, ``record_sha256`` the digest of that record, ``model_id`` what the model
    was known by there, "" of decisions of before and of a model without an id. ``expires``: the last day
    on which an acceptance holds. ``key``, ``signature``: fingerprint and hex Ed25519 signature over the canonical JSON
    of all other fields, where it was signed. ``decided``: the findings one by one; ``owner`` and ``due``: who mends
    them, and until when. ``step``: of several signers in order, which this is; ``covers``: what was signed before,
    which this signature covers too.
    """

    audit: PositiveCount
    record_sha256: str
    model_path: str | None
    model_sha256: str | None
    model_id: Annotated[str, LEFT_OUT] = ""
    decision: Literal["accept", "reject"]
    by: Annotated[str, Field(min_length=1, max_length=200)]
    role: Annotated[str, Field(min_length=1, max_length=200)]
    note: Annotated[str, Field(max_length=4_000)] = ""
    expires: date | None = None
    findings: tuple[str, ...] = ()
    decided: Annotated[tuple[DecidedFinding, ...], LEFT_OUT] = ()
    owner: Annotated[str, Field(max_length=200), LEFT_OUT] = ""
    due: Annotated[date | None, UNSAID] = None
    step: Annotated[Step | None, UNSAID] = None
    covers: Annotated[tuple[Covered, ...], LEFT_OUT] = ()
    key: str | None = None
    public_key: str | None = None
    signature: str | None = None

    @model_validator(mode="after")
    def _accepted_until_a_day(self) -> Self:
        if (self.decision == "accept") is not (self.expires is not None):
            raise ValueError("an acceptance holds until a day, a rejection has none")
        return self

    @model_validator(mode="after")
    def _signs_in_order(self) -> Self:
        if len(self.covers) != (0 if self.step is None else STEPS.index(self.step)):
            raise ValueError("a signature covers those of the steps before its own")
        return self

    def signed_bytes(self) -> bytes:
        """The signed bytes."""
        return canonical(self.model_dump(mode="json", exclude={"key", "public_key", "signature"}))


def same_person(one: str, other: str) -> bool:
    """Whether two names are equal up to case, width, spaces and invisible characters."""
    return _normalised_name(one) == _normalised_name(other)


def _normalised_name(name: str) -> str:
    seen = (char for char in unicodedata.normalize("NFKC", name) if unicodedata.category(char) not in ("Cc", "Cf"))
    return " ".join("".join(seen).casefold().split())


class Entry(Closed):
    """One line of the ledger. ``hash``: SHA-256 of the canonical JSON of all its other fields, ``previous`` too."""

    number: PositiveCount
    created: str
    kind: Kind
    payload: str
    previous: str
    hash: str

    @classmethod
    def from_previous(cls, number: int, previous: str, created: str, kind: Kind, payload: str) -> Entry:
        """The entry following the one with the hash ``previous``."""
        return cls(
            number=number,
            created=created,
            kind=kind,
            payload=payload,
            previous=previous,
            hash=chained(number, previous, created, kind, payload),
        )

    def audit(self) -> AuditEntry:
        """The audit in the entry.

        Raises DataError where it holds none, one of a newer schema, or another than the one whose digest it
        names.
        """
        found = _parsed(_AUDIT, self, "audit")
        if is_another_record(self.payload):
            raise DataError(another_record(self.number))
        return found

    def registration(self) -> RegistrationEntry:
        """The registration in the entry.

        Raises DataError where it holds none.
        """
        return _parsed(_REGISTRATION, self, "registration")

    def decision(self) -> Decision:
        """The decision in the entry.

        Raises DataError where it holds none.
        """
        return _parsed(_DECISION, self, "decision")


_T = TypeVar("_T")
_AUDIT: TypeAdapter[AuditEntry] = TypeAdapter(AuditEntry)
_DECISION: TypeAdapter[Decision] = TypeAdapter(Decision)
_REGISTRATION: TypeAdapter[RegistrationEntry] = TypeAdapter(RegistrationEntry)


def _parsed(adapter: TypeAdapter[_T], entry: Entry, kind: Kind) -> _T:
    if entry.kind != kind:
        raise DataError(f"Entry {entry.number} of the history is no {kind}, but a {entry.kind}.")
    try:
        return adapter.validate_json(entry.payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise DataError(
            f"Entry {entry.number} of the history cannot be read: {'.'.join(map(str, first['loc']))}: {first['msg']}. "
            "A record of a newer auditor needs that auditor."
        ) from None


def another_record(number: int) -> str:
    """The message that an entry's record does not match its digest."""
    return f"Entry {number} of the history holds another record than the one whose digest it names: one was changed."


def is_another_record(payload: str) -> bool:
    """Whether the complete record in an audit's payload does not match the stated digest.

    It is read as JSON and no further, whatever later versions would add to it.
    """
    try:
        said = json.loads(payload)
        return bool(said.get("whole")) and said["record_sha256"] != _sha256(said["record"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # No audit at all, as whoever reads it says.
        return False


def _sha256(value: object) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()


def chained(number: int, previous: str, created: str, kind: str, payload: str) -> str:
    """Hex hash of an entry."""
    return _sha256([number, previous, created, kind, payload])


def digest_of(report: AuditReport) -> str:
    """Hex SHA-256 of a record as canonical JSON, drawings included."""
    return _sha256(report.model_dump(mode="json"))


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of a model; ``id`` is "" if audit.toml gave none."""

    id: str = ""
    sha256: str | None = None
    path: str | None = None

    @classmethod
    def from_report(cls, report: AuditReport) -> Identity:
        """The identity of the model that a record is about."""
        given = "" if report.about is None else report.about.model.id
        return cls(id=given, sha256=report.model.sha256, path=report.model.path)


def record_in(entry: Entry) -> tuple[str, Identity]:
    """The digest of the record of the audit in an entry, and its model. Raises DataError where it holds none."""
    try:
        found = _Entry.model_validate_json(entry.payload)
    except ValidationError:
        raise DataError(f"Entry {entry.number} of the history cannot be read: it holds no audit.") from None
    about, model = found.record.about, found.record.model
    return found.record_sha256, Identity(id=about.model.id if about else "", sha256=model.sha256, path=model.path)


def owners_of(identities: Iterable[Identity]) -> dict[str, str]:
    """The first id given to each file, by the file's SHA-256."""
    found: dict[str, str] = {}
    for each in identities:
        if each.id and each.sha256 is not None:
            found.setdefault(each.sha256, each.id)
    return found


class _Lean(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Named(_Lean):
    id: str = ""


class _About(_Lean):
    model: _Named = _Named()


class _Model(_Lean):
    path: str | None = None
    sha256: str | None = None


class _Record(_Lean):
    about: _About | None = None
    model: _Model


class _Entry(_Lean):
    record: _Record
    record_sha256: str = ""
