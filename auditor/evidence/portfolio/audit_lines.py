"""A ledger read once, one line per audit, reduced to a portfolio's needs: ten thousand fit into memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from sys import intern
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from auditor.core.errors import DataError, MissingExtraError
from auditor.evidence.history.entries import Decision, Entry, Identity, another_record, is_another_record
from auditor.evidence.history.ledger import Ledger, broken_chain
from auditor.evidence.history.signed_decisions import signer
from auditor.judging.criterion import CriterionRecord, Direction, required_range
from auditor.judging.measurement import Outcome
from auditor.report.record.audit_report import is_newer
from auditor.report.record.configuration import ModelIdentity
from auditor.report.record.number_text import plural

# Of these a finding is open; a PASS alone closes it.
OPEN = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.NOT_RUN)
_LETTERS = {outcome.value: letter for letter, outcome in zip("PFIRAJ", Outcome, strict=True)}
_OF_LETTER = {letter: Outcome(value) for value, letter in _LETTERS.items()}
_VERDICTS = {0: "PASS", 1: "FAIL", 3: "INCONCLUSIVE", 4: "REFUSED"}
_MOST_PROBLEMS = 100
_T = TypeVar("_T")
# The values that meet a requirement: from, to.
Range = tuple[float, float]


class _Lean(BaseModel):
    """A part of a record; what a portfolio does not read is left out, whatever is in it."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class _CriterionSaid(_Lean):
    direction: Direction
    bound: float | tuple[float, float]

    @property
    def required(self) -> Range:
        return required_range(self.direction, self.bound)


class _FindingSaid(_Lean):
    id: str
    probe: str
    metric: str | None
    outcome: Outcome
    criterion: _CriterionSaid | None = None
    n_samples: int | None = None


class _ModelSaid(_Lean):
    path: str | None = None
    sha256: str | None = None


class _DataSaid(_Lean):
    path: str | None = None
    sha256: str | None = None
    rows_sha256: str | None = None
    n_rows: int | None = None


class _AboutSaid(_Lean):
    model: ModelIdentity = ModelIdentity()


class _SummarySaid(_Lean):
    fail: int
    inconclusive: int
    not_run: int


class _CampaignSaid(_Lean):
    name: str
    look: int


class _LooksSaid(_Lean):
    rows: int | None = None
    campaign: _CampaignSaid | None = None


class _RegistrationSaid(_Lean):
    deviations: tuple[str, ...] = ()


class _RecordSaid(_Lean):
    schema_version: str
    model: _ModelSaid
    data: _DataSaid
    about: _AboutSaid | None = None
    criteria: list[dict[str, Any]]
    findings: tuple[_FindingSaid, ...]
    summary: _SummarySaid
    refusal: dict[str, Any] | None
    looks: _LooksSaid | None = None
    registration: _RegistrationSaid | None = None
    exit_code: int


class _EntrySaid(_Lean):
    record: _RecordSaid
    record_sha256: str
    bundle: str | None = None


@dataclass(frozen=True, slots=True)
class Audit:
    """One audit of the ledger; its findings are stored compactly, and details are read again for display.

    ``outcomes``: of each finding of ``ids`` one letter. ``required``, ``samples``: the values that meet what each is
    held to, from and to, and the rows that it is about; None where there is neither. ``criteria``: digest of what was
    required.
    """

    number: int
    created: str
    hash: str
    identity: Identity
    said: ModelIdentity
    data_path: str | None
    data_digests: tuple[str, ...]
    n_rows: int | None
    exit_code: int
    refused: bool
    fail: int
    inconclusive: int
    not_run: int
    record_sha256: str
    bundle: str | None
    criteria: str
    look: int | None
    campaign: str
    registered: bool | None
    ids: tuple[str, ...]
    probes: tuple[str, ...]
    outcomes: str
    required: tuple[Range | None, ...]
    samples: tuple[int | None, ...]

    @property
    def day(self) -> str:
        """The day of its entry."""
        return self.created[:10]

    @property
    def verdict(self) -> str:
        """The meaning of its exit code, in a word."""
        return _VERDICTS.get(self.exit_code, "INCONCLUSIVE")

    def findings(self) -> Iterator[tuple[str, str, Outcome]]:
        """Each finding's id, probe and outcome; the probe is "" if there is a number."""
        for name, probe, letter in zip(self.ids, self.probes, self.outcomes, strict=True):
            yield name, probe, _OF_LETTER[letter]

    def judged_findings(self) -> Iterator[tuple[str, Outcome, Range | None, int | None]]:
        """Each finding's id, outcome, required range and number of rows."""
        for name, letter, required, n in zip(self.ids, self.outcomes, self.required, self.samples, strict=True):
            yield name, _OF_LETTER[letter], required, n

    @property
    def rows(self) -> str:
        """The audited rows, in words."""
        named = self.data_path or ("rows in memory" if self.n_rows is not None else "no rows")
        return named if self.n_rows is None else f"{named} ({plural(self.n_rows, 'row')})"


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision of the ledger. ``signed``: the key's fingerprint, "" where none signed, None where nothing checked."""

    number: int
    created: str
    decision: Decision
    signed: str | None


@dataclass(frozen=True, kw_only=True)
class Read:
    """The contents of a ledger, in order; ``problems``: its errors, ``unread``: unreadable entries.

    Both are in words, and of many the first.
    """

    audits: tuple[Audit, ...]
    decisions: tuple[Decided, ...]
    problems: tuple[str, ...]
    unread: tuple[str, ...]
    n_entries: int
    head: str

    @property
    def last_day(self) -> str:
        """The day of the newest entry, "" where there is none."""
        days = [audit.created[:10] for audit in self.audits[-1:]] + [made.created[:10] for made in self.decisions[-1:]]
        return max(days, default="")


@dataclass
class _Reading:
    """Texts that many audits share are kept once."""

    shared: dict[tuple[Any, ...], tuple[Any, ...]] = field(default_factory=dict)
    audits: list[Audit] = field(default_factory=list)
    decisions: list[Decided] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    n: int = 0
    head: str = ""

    def passing(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        """The entries, each taken in as it passes by."""
        for entry in entries:
            self.n, self.head = self.n + 1, entry.hash
            self._take_in(entry)
            yield entry

    def _take_in(self, entry: Entry) -> None:
        if entry.kind == "registration":
            return
        try:
            if entry.kind == "audit":
                if is_another_record(entry.payload):
                    self.problems.append(f"entry {entry.number}: {another_record(entry.number)}".rstrip("."))
                    return
                self.audits.append(self._audit(entry))
                return
            decision = entry.decision()
        except DataError as error:
            self.unread.append(f"entry {entry.number}: {error}")
            return
        try:
            signed: str | None = signer(decision) or ""
        except MissingExtraError:
            signed = None
        except DataError as error:
            self.problems.append(f"entry {entry.number}: {error}")
            return
        self.decisions.append(Decided(number=entry.number, created=entry.created, decision=decision, signed=signed))

    def _intern_tuple(self, values: tuple[_T, ...]) -> tuple[_T, ...]:
        return self.shared.setdefault(values, values)

    def _audit(self, entry: Entry) -> Audit:
        said = _parse_entry(entry)
        record = said.record
        about = record.about.model if record.about else ModelIdentity()
        digests = (record.data.rows_sha256, record.data.sha256)
        return Audit(
            number=entry.number,
            created=entry.created,
            hash=entry.hash,
            identity=Identity(id=intern(about.id), sha256=record.model.sha256, path=record.model.path),
            said=about,
            data_path=record.data.path,
            data_digests=self._intern_tuple(tuple(digest for digest in digests if digest)),
            n_rows=record.data.n_rows,
            exit_code=record.exit_code,
            refused=record.refusal is not None,
            fail=record.summary.fail,
            inconclusive=record.summary.inconclusive,
            not_run=record.summary.not_run,
            record_sha256=said.record_sha256,
            bundle=said.bundle,
            criteria=intern(hashlib.sha256(json.dumps(record.criteria, sort_keys=True).encode()).hexdigest()),
            look=record.looks.rows if record.looks else None,
            campaign=f"{record.looks.campaign.name}, look {record.looks.campaign.look}"
            if record.looks and record.looks.campaign
            else "",
            registered=None if record.registration is None else not record.registration.deviations,
            ids=self._intern_tuple(tuple(intern(f.id) for f in record.findings)),
            probes=self._intern_tuple(tuple("" if f.metric else intern(f.probe) for f in record.findings)),
            outcomes=intern("".join(_LETTERS[f.outcome] for f in record.findings)),
            required=self._intern_tuple(tuple(f.criterion.required if f.criterion else None for f in record.findings)),
            samples=self._intern_tuple(tuple(f.n_samples for f in record.findings)),
        )


def read_ledger(ledger: Ledger) -> Read:
    """Read all entries once and check their chain; memory grows by about a kilobyte per audit."""
    reading = _Reading()
    problems = broken_chain(reading.passing(ledger.entries()))
    known = {audit.number: audit for audit in reading.audits}
    kept = []
    for decided in reading.decisions:
        if _is_about(decided.decision, known.get(decided.decision.audit)):
            kept.append(decided)
        else:
            problems.append(
                f"entry {decided.number} is about an audit {decided.decision.audit} that is not in this history"
            )
    return Read(
        audits=tuple(reading.audits),
        decisions=tuple(kept),
        problems=_first_of(problems + reading.problems),
        unread=_first_of(reading.unread),
        n_entries=reading.n,
        head=reading.head,
    )


def _is_about(decision: Decision, audit: Audit | None) -> bool:
    """Whether an audit is the one that was decided on, and of the model that it was of then."""
    return (
        audit is not None
        and (audit.record_sha256, audit.identity.sha256) == (decision.record_sha256, decision.model_sha256)
        and decision.model_id in ("", audit.identity.id)
    )


def _first_of(problems: list[str]) -> tuple[str, ...]:
    more = len(problems) - _MOST_PROBLEMS
    return tuple(problems) if more <= 0 else (*problems[:_MOST_PROBLEMS], f"{more:,} more")


def _parse_entry(entry: Entry) -> _EntrySaid:
    try:
        said = _EntrySaid.model_validate_json(entry.payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise DataError(f"it cannot be read: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None
    if is_newer(said.record.schema_version):
        raise DataError(f"its record has schema {said.record.schema_version[:20]!r}: a newer auditor reads it.")
    return said


class _RequiredSaid(_Lean):
    criteria: tuple[CriterionRecord, ...]


class _RequiringSaid(_Lean):
    record: _RequiredSaid


def required_in(entry: Entry) -> tuple[CriterionRecord, ...]:
    """The requirements of an entry's audit.

    Raises DataError where that cannot be read.
    """
    try:
        return _RequiringSaid.model_validate_json(entry.payload).record.criteria
    except ValidationError:
        raise DataError(f"Entry {entry.number} of the history cannot be read.") from None
