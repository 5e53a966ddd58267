"""Open findings: not passed by an audit, and not passed equally strictly by a later audit of the same model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Literal, get_args

from auditor.core.errors import AuditorError
from auditor.evidence.history.ledger import Ledger
from auditor.evidence.portfolio.audit_lines import OPEN, Audit, Range
from auditor.evidence.portfolio.model_history import Model
from auditor.evidence.signed_acceptances import decision_records
from auditor.judging.measurement import Outcome
from auditor.report.record import finding_text, number_text
from auditor.report.record.audit_report import AuditReport, Finding, measurement_label
from auditor.report.record.control_record import PolicyRecord
from auditor.report.record.earlier_audits import Key, key_of
from auditor.report.record.number_text import known_day
from auditor.report.record.severity_and_acceptance import Acceptance, acceptances_of, severity_of

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
# Of rows that are others: a PASS on less than this of the rows on which it was found shows less than was found.
_COMPARABLE = 0.5
# What a criterion is recorded under that names none.
_ANY_PROBE = "criteria"


@dataclass(frozen=True, kw_only=True)
class OpenFinding:
    """A finding that is open.

    ``since``, ``first``: day and entry of the audit from which on no audit passed it. ``last``: the last entry that
    found it so; ``asked``: whether that is the model's newest audit, for one that was not asked again is not closed by
    that. ``status``: what was decided about it, ``by`` whom, as it stands on the day that was asked for;
    ``accepted_up_to``: how far it is accepted, ``mend_by``: the day until which it is to be mended. ``retested``: why a
    later PASS does not close it. ``beyond``, ``share``: as of
    :class:`auditor.report.record.severity_and_acceptance.Severity`.
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
    retested: str = ""
    what: str = ""
    value: str = ""
    interval: str = ""
    required: str = ""
    reason: str = ""
    beyond: float | None = None
    share: float = 0.0

    @property
    def severity(self) -> Severity:
        """The severity: high after a FAIL, medium if not run, low if undecided."""
        return _SEVERITY[self.outcome]

    @property
    def rank(self) -> tuple[int, float, str, str, str]:
        """The gravest first, and of equal ones the oldest."""
        return SEVERITIES.index(self.severity), -self.share, self.since, self.model.title.casefold(), self.id

    @property
    def beyond_words(self) -> str:
        """The distance beyond the requirement: a minimum after a FAIL, a maximum if undecided."""
        if self.beyond is None:
            return ""
        return f"{'at least' if self.outcome is Outcome.FAIL else 'up to'} {number_text.number(self.beyond)} beyond"

    def age(self, today: date) -> int | None:
        """Days since it was first seen; None where that is no day."""
        day = known_day(self.since)
        return None if day is None else max(0, (today - day).days)


@dataclass(frozen=True, kw_only=True)
class PackTally:
    """A rule pack in a model's newest audit: numbers of cells by state, and of cells based on a FAIL."""

    pack: PolicyRecord
    cells: Mapping[str, int]
    failed: int


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The state of a model: open findings, most severe and oldest first, and its newest audit's rule packs."""

    model: Model
    open: tuple[OpenFinding, ...]
    packs: tuple[PackTally, ...]
    problems: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """The verdict of the last audit, but no better than that of the open findings, which it may have omitted."""
        last = self.model.verdict
        if last not in ("PASS", "INCONCLUSIVE") or not self.open:
            return last
        return "FAIL" if any(finding.outcome is Outcome.FAIL for finding in self.open) else "INCONCLUSIVE"


@dataclass(frozen=True, kw_only=True)
class ClosedFinding:
    """A closed finding: the audit that opened it, and the audit that closed it, with its rows.

    ``n``: of how many rows the number is that passed, ``found_on`` of how many at most it was before.
    """

    model: Model
    id: str
    outcome: Outcome
    since: str
    first: int
    closed: str
    by_entry: int
    rows: str
    n: int | None
    found_on: int | None


@dataclass
class _Course:
    """A finding while it is open: the strictest that it was held to, and the rows on which it was found."""

    found: OpenFinding
    required: Range | None
    n: int | None
    digests: set[str] = field(default_factory=set)

    def add_failure(self, finding: OpenFinding, required: Range | None, n: int | None, audit: Audit) -> None:
        """Takes in that a later audit did not pass it either: nothing that is asked of a PASS becomes less by that."""
        self.found = finding
        if required is not None:
            self.required = required if self.required is None else _intersect_ranges(self.required, required)
        self.n = n if self.n is None else max(self.n, n or 0)
        self.digests |= set(audit.data_digests)

    def left_open(self, required: Range | None, n: int | None, audit: Audit) -> str:
        """Why a PASS does not close it, in words; "" where it does."""
        if self.required is not None and (required is None or not _is_within(required, self.required)):
            return (
                f"Not retested on the same bound: entry {audit.number} passed {_range(required)}, and it was found "
                f"where {_range(self.required)} was required."
            )
        if self.digests & set(audit.data_digests) or self.n is None or (n or 0) >= _COMPARABLE * self.n:
            return ""
        return (
            f"Not retested on as many rows: entry {audit.number} passed on {n or 0:,} of {audit.rows}, and it was "
            f"found on {self.n:,}."
        )


def open_findings(model: Model) -> list[OpenFinding]:
    """Open findings of a model, most severe and oldest first, without their texts and decisions.

    A PASS in a later audit closes a finding where it was held to the same bound or a stricter one, on the same rows or
    on others that are at least half as many; that it is not asked, not judged or not applicable any more does not.
    What did not run is settled once it has run, for it is judged under a name of its own then.
    """
    return sorted((course.found for course in _walked(model)[0].values()), key=lambda finding: finding.rank)


def closed_findings(model: Model) -> list[ClosedFinding]:
    """Closed findings of a model, in order of closing."""
    return _walked(model)[1]


def _walked(model: Model) -> tuple[dict[str, _Course], list[ClosedFinding]]:
    seen: dict[str, _Course] = {}
    closed: list[ClosedFinding] = []
    for audit in model.audits:
        if not audit.refused:
            _take_in(seen, closed, audit, model)
    return seen, closed


def _take_in(courses: dict[str, _Course], closed_findings: list[ClosedFinding], audit: Audit, model: Model) -> None:
    waiting = {name: course for name, course in courses.items() if course.found.outcome is Outcome.NOT_RUN}
    for name in _run_meanwhile(waiting, audit) if waiting else ():
        closed_findings.append(_close_finding(courses.pop(name), audit, None))
    for name, outcome, required, n in audit.judged_findings():
        before = courses.get(name)
        if outcome is Outcome.PASS and before is not None:
            why = before.left_open(required, n, audit)
            if why:
                before.found = replace(before.found, retested=why)
            else:
                closed_findings.append(_close_finding(courses.pop(name), audit, n))
        elif outcome in OPEN:
            found = OpenFinding(
                model=model,
                id=name,
                outcome=outcome,
                since=before.found.since if before else audit.day,
                first=before.found.first if before else audit.number,
                last=audit.number,
                asked=audit is model.last_measured,
                owner=model.identity.owner,
            )
            courses.setdefault(name, _Course(found, None, None)).add_failure(found, required, n, audit)


def _close_finding(course: _Course, audit: Audit, n: int | None) -> ClosedFinding:
    found, same = course.found, course.digests & set(audit.data_digests)
    return ClosedFinding(
        model=found.model,
        id=found.id,
        outcome=found.outcome,
        since=found.since,
        first=found.first,
        closed=audit.day,
        by_entry=audit.number,
        rows=f"{'the same rows' if same else 'other rows'}: {audit.rows}",
        n=n,
        found_on=course.n,
    )


def _intersect_ranges(one: Range, other: Range) -> Range:
    return max(one[0], other[0]), min(one[1], other[1])


def _is_within(inner: Range, outer: Range) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def _range(required: Range | None) -> str:
    if required is None:
        return "without any bound"
    low, high = required
    if math.isinf(low):
        return f"at most {high:g}"
    return f"at least {low:g}" if math.isinf(high) else f"within [{low:g}, {high:g}]"


def _run_meanwhile(waiting: Mapping[str, _Course], audit: Audit) -> Collection[str]:
    """Of what did not run before, what an audit measured: a probe, or the metric that a criterion is about."""
    probes, judged = set[str](), dict[tuple[str, str], list[Range | None]]()
    without_number = {name: probe for name, probe, _ in audit.findings() if probe}
    lost = set[str]()
    for name, outcome, required, _ in audit.judged_findings():
        if name in without_number:
            lost |= {name} if outcome is Outcome.NOT_RUN else set()
            continue
        probe, *parts = name.split("/")
        probes.add(probe)
        if outcome in (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE):
            for key in ((of, part) for part in parts for of in (probe, _ANY_PROBE)):
                judged.setdefault(key, []).append(required)
    found = set()
    for name, course in waiting.items():
        probe, _, required_of = name.partition("/criterion/")
        # Of two criteria on one metric the second has a number behind it.
        held_to = judged.get((probe, required_of.partition("#")[0]), [])
        met = course.required is None or any(r is not None and _is_within(r, course.required) for r in held_to)
        if name not in lost and (bool(held_to) and met if required_of else probe in probes):
            found.add(name)
    return found


def model_standing(ledger: Ledger, model: Model, today: date) -> Standing:
    """The state of a model on a day, in words; displayed records are read again, one after the other."""
    found = open_findings(model)
    wanted = {finding.last for finding in found} | ({model.last_measured.number} if model.last_measured else set())
    said: dict[tuple[int, str], OpenFinding] = {}
    packs: tuple[PackTally, ...] = ()
    problems: list[str] = []
    decided = _decisions_on(ledger, model, today, problems) if found else _Decided({}, {})
    for number in sorted(wanted):
        try:
            record = ledger.entry(number).audit().record
        except AuditorError as error:
            problems.append(f"entry {number}: {error}")
            continue
        own = {finding.id: finding for finding in record.findings}
        for finding in found:
            if finding.last == number and finding.id in own:
                said[number, finding.id] = decided.apply_to(_in_words(finding, own[finding.id]), own[finding.id])
        if model.last_measured is not None and number == model.last_measured.number:
            packs = _tallies(record)
    return Standing(
        model=model,
        open=tuple(sorted((said.get((f.last, f.id), f) for f in found), key=lambda finding: finding.rank)),
        packs=packs,
        problems=tuple(problems),
    )


def _in_words(finding: OpenFinding, recorded_finding: Finding) -> OpenFinding:
    grave = severity_of(recorded_finding)
    return replace(
        finding,
        beyond=grave.by,
        share=grave.share,
        what=measurement_label(recorded_finding)
        if recorded_finding.metric
        else recorded_finding.criterion.metric
        if recorded_finding.criterion
        else recorded_finding.probe,
        value=finding_text.value(recorded_finding),
        interval=number_text.interval(recorded_finding.interval),
        required=recorded_finding.criterion.describe() if recorded_finding.criterion else "",
        reason=number_text.shortened(
            " ".join(part for part in (finding.retested, recorded_finding.reason) if part), _LONGEST_REASON
        ),
    )


@dataclass(frozen=True)
class _Decided:
    """What is accepted of each finding by what it asks, and who rejected what."""

    accepted: Mapping[Key, Acceptance]
    rejected: Mapping[Key, str]

    def apply_to(self, finding: OpenFinding, recorded_finding: Finding) -> OpenFinding:
        """The finding with what was decided about it."""
        asks = key_of(recorded_finding)
        acceptance = self.accepted.get(asks)
        if acceptance is None:
            by = self.rejected.get(asks)
            return finding if by is None else replace(finding, status="rejected", by=by)
        return replace(
            finding,
            status=_STATUS.get(acceptance.status_for(recorded_finding), "open"),
            accepted_until=_day(acceptance.until),
            accepted_up_to=acceptance.item.limit,
            mend_by=_day(acceptance.due),
            by=acceptance.last_signer,
            owner=acceptance.owner or finding.owner,
        )


def _decisions_on(ledger: Ledger, model: Model, today: date, problems: list[str]) -> _Decided:
    """The decisions on a model as they stand on a day; none, and a problem, where one does not count."""
    numbers = {decided.number for decided in model.decisions}
    also = {decided.decision.audit for decided in model.decisions if not decided.decision.decided}
    also |= {covered.entry for decided in model.decisions for covered in decided.decision.covers}
    try:
        entries = {number: ledger.entry(number) for number in sorted(numbers | also)}
        records = decision_records(entries, numbers, today=today)
    except AuditorError as error:
        problems.append(f"no decision on {model.title} counts: {error}")
        return _Decided({}, {})
    rejected = {item.asks: d.by for d in records if d.decision == "reject" for item in d.decided}
    return _Decided(acceptances_of(records), rejected)


def _day(text_or_none: str | None) -> date | None:
    return date.fromisoformat(text_or_none) if text_or_none else None


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
