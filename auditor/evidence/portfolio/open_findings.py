"""What is open: everything that an audit did not pass and no later audit of the same model passed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal, get_args

from auditor.errors import AuditorError
from auditor.evidence.acceptances import decision_records
from auditor.evidence.history.ledger import Ledger
from auditor.evidence.portfolio.lines import OPEN, Audit
from auditor.evidence.portfolio.models import Model
from auditor.finding.measurement import Outcome
from auditor.record import of_finding, text
from auditor.record.acceptances import Acceptance, acceptances_of
from auditor.record.asks import Key, key_of
from auditor.record.audit_report import AuditReport, Finding, measurement_label
from auditor.record.control_record import PolicyRecord
from auditor.record.periods import known_day
from auditor.record.severity import severity_of

Severity = Literal["high", "medium", "low"]
SEVERITIES: tuple[Severity, ...] = ("high", "medium", "low")
Status = Literal["open", "worse than accepted", "acceptance expired", "not yet signed", "rejected", "accepted"]
STATUSES: tuple[Status, ...] = get_args(Status)
_STATUS: Mapping[str, Status] = {
    "accepted": "accepted",
    "exceeds": "worse than accepted",
    "expired": "acceptance expired",
    "unsigned": "not yet signed",
}
# As the remediation table of a report ranks them.
_SEVERITY: Mapping[Outcome, Severity] = {
    Outcome.FAIL: "high",
    Outcome.NOT_RUN: "medium",
    Outcome.INCONCLUSIVE: "low",
}
_LONGEST_REASON = 300
# What a criterion is recorded under that names none.
_ANY_PROBE = "criteria"


@dataclass(frozen=True, kw_only=True)
class OpenFinding:
    """A finding that is open.

    ``since``, ``first``: day and entry of the audit from which on no audit passed it. ``last``: the last entry that
    found it so; ``asked``: whether that is the model's newest audit, for one that was not asked again is not closed by
    that. ``status``: what was decided about it, ``by`` whom, as it stands on the day that was asked for;
    ``accepted_up_to``: how far it is accepted, ``mend_by``: the day until which it is to be mended. ``beyond``,
    ``share``: as of :class:`auditor.record.severity.Severity`.
    """

    model: Model
    id: str
    outcome: Outcome
    since: str
    first: int
    last: int
    asked: bool
    status: Status = "open"
    accepted_until: date | None = None
    accepted_up_to: str = ""
    mend_by: date | None = None
    by: str = ""
    owner: str = ""
    what: str = ""
    value: str = ""
    interval: str = ""
    required: str = ""
    reason: str = ""
    beyond: float | None = None
    share: float = 0.0

    @property
    def severity(self) -> Severity:
        """High where it failed, medium where it did not run, low where the data could not tell."""
        return _SEVERITY[self.outcome]

    @property
    def rank(self) -> tuple[int, float, str, str, str]:
        """The gravest first, and of equal ones the oldest."""
        return SEVERITIES.index(self.severity), -self.share, self.since, self.model.title.casefold(), self.id

    @property
    def beyond_words(self) -> str:
        """How far beyond what is required it lies, at least where it failed, and at most where that is open."""
        if self.beyond is None:
            return ""
        return f"{'at least' if self.outcome is Outcome.FAIL else 'up to'} {text.number(self.beyond)} beyond"

    def age(self, on: date) -> int | None:
        """Days since it was first seen; None where that is no day."""
        day = known_day(self.since)
        return None if day is None else max(0, (on - day).days)


@dataclass(frozen=True, kw_only=True)
class PackTally:
    """A rule pack in a model's newest audit: how many cells are what, and how many rest on something that FAILed."""

    pack: PolicyRecord
    cells: Mapping[str, int]
    failed: int


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a model stands: what is open, gravest and oldest first, and the rule packs of its newest audit."""

    model: Model
    open: tuple[OpenFinding, ...]
    packs: tuple[PackTally, ...]
    problems: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """What the last audit came to; no better than what is open, which it may not have asked again."""
        last = self.model.verdict
        if last not in ("PASS", "INCONCLUSIVE") or not self.open:
            return last
        return "FAIL" if any(finding.outcome is Outcome.FAIL for finding in self.open) else "INCONCLUSIVE"


def open_findings(model: Model) -> list[OpenFinding]:
    """What is open of a model, gravest and oldest first, without what it says and what was decided about it.

    A PASS in a later audit closes a finding, on whichever rows; that it is not asked, not judged or not applicable any
    more does not. What did not run is settled once it has run, for it is judged under a name of its own then.
    """
    seen: dict[str, OpenFinding] = {}
    for audit in model.audits:
        if not audit.refused:
            _take_in(seen, audit, model)
    return sorted(seen.values(), key=lambda finding: finding.rank)


def _take_in(seen: dict[str, OpenFinding], audit: Audit, model: Model) -> None:
    waiting = {name for name, finding in seen.items() if finding.outcome is Outcome.NOT_RUN}
    for name in _run_meanwhile(waiting, audit) if waiting else ():
        del seen[name]
    for name, _, outcome in audit.findings():
        if outcome is Outcome.PASS:
            seen.pop(name, None)
        elif outcome in OPEN:
            before = seen.get(name)
            seen[name] = OpenFinding(
                model=model,
                id=name,
                outcome=outcome,
                since=before.since if before else audit.day,
                first=before.first if before else audit.number,
                last=audit.number,
                asked=audit is model.measured,
                owner=model.said.owner,
            )


def _run_meanwhile(waiting: set[str], audit: Audit) -> set[str]:
    """Of what did not run before, what an audit measured: a probe, or the metric that a criterion is about."""
    probes, judged = set[str](), set[tuple[str, str]]()
    for name, without_number, outcome in audit.findings():
        if without_number:
            waiting = waiting - {name} if outcome is Outcome.NOT_RUN else waiting
            continue
        probe, *parts = name.split("/")
        probes.add(probe)
        if outcome in (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE):
            judged.update((of, part) for part in parts for of in (probe, _ANY_PROBE))
    found = set()
    for name in waiting:
        probe, _, required = name.partition("/criterion/")
        # Of two criteria on one metric the second has a number behind it.
        if (probe, required.partition("#")[0]) in judged if required else probe in probes:
            found.add(name)
    return found


def standing(ledger: Ledger, model: Model, on: date) -> Standing:
    """How a model stands on a day, in words: the records that are shown are read again, one after the other."""
    found = open_findings(model)
    wanted = {finding.last for finding in found} | ({model.measured.number} if model.measured else set())
    said: dict[tuple[int, str], OpenFinding] = {}
    packs: tuple[PackTally, ...] = ()
    problems: list[str] = []
    decided = _decided(ledger, model, on, problems) if found else _Decided({}, {})
    for number in sorted(wanted):
        try:
            record = ledger.entry(number).audit().record
        except AuditorError as error:
            problems.append(f"entry {number}: {error}")
            continue
        own = {finding.id: finding for finding in record.findings}
        for finding in found:
            if finding.last == number and finding.id in own:
                said[number, finding.id] = decided.on(_in_words(finding, own[finding.id]), own[finding.id])
        if model.measured is not None and number == model.measured.number:
            packs = _tallies(record)
    return Standing(
        model=model,
        open=tuple(sorted((said.get((f.last, f.id), f) for f in found), key=lambda finding: finding.rank)),
        packs=packs,
        problems=tuple(problems),
    )


def _in_words(finding: OpenFinding, said: Finding) -> OpenFinding:
    grave = severity_of(said)
    return replace(
        finding,
        beyond=grave.by,
        share=grave.share,
        what=measurement_label(said) if said.metric else said.criterion.metric if said.criterion else said.probe,
        value=of_finding.value(said),
        interval=text.interval(said.interval),
        required=said.criterion.describe() if said.criterion else "",
        reason=text.shortened(said.reason, _LONGEST_REASON),
    )


@dataclass(frozen=True)
class _Decided:
    """What is accepted of each finding by what it asks, and who rejected what."""

    accepted: Mapping[Key, Acceptance]
    rejected: Mapping[Key, str]

    def on(self, finding: OpenFinding, said: Finding) -> OpenFinding:
        """The finding with what was decided about it."""
        asks = key_of(said)
        acceptance = self.accepted.get(asks)
        if acceptance is None:
            by = self.rejected.get(asks)
            return finding if by is None else replace(finding, status="rejected", by=by)
        return replace(
            finding,
            status=_STATUS.get(acceptance.standing(said), "open"),
            accepted_until=_day(acceptance.until),
            accepted_up_to=acceptance.item.limit,
            mend_by=_day(acceptance.due),
            by=acceptance.by,
            owner=acceptance.owner or finding.owner,
        )


def _decided(ledger: Ledger, model: Model, on: date, problems: list[str]) -> _Decided:
    """The decisions on a model as they stand on a day; none, and a problem, where one does not count."""
    numbers = {decided.number for decided in model.decisions}
    also = {decided.decision.audit for decided in model.decisions if not decided.decision.decided}
    also |= {covered.entry for decided in model.decisions for covered in decided.decision.covers}
    try:
        entries = {number: ledger.entry(number) for number in sorted(numbers | also)}
        records = decision_records(entries, numbers, today=on)
    except AuditorError as error:
        problems.append(f"no decision on {model.title} counts: {error}")
        return _Decided({}, {})
    rejected = {item.asks: d.by for d in records if d.decision == "reject" for item in d.decided}
    return _Decided(acceptances_of(records), rejected)


def _day(said: str | None) -> date | None:
    return date.fromisoformat(said) if said else None


def _tallies(record: AuditReport) -> tuple[PackTally, ...]:
    found = []
    for pack in record.policies:
        cells = [cell for control in record.controls if control.policy == pack.name for cell in control.cells]
        found.append(
            PackTally(
                pack=pack,
                cells=dict(sorted(Counter(cell.kind for cell in cells).items())),
                failed=sum(bool(cell.outcomes.get(Outcome.FAIL.value)) for cell in cells),
            )
        )
    return tuple(found)
