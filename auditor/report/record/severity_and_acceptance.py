"""The severity of a finding by one rule, and its acceptance: by whom, and up to which value and date.

There are no scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from auditor.core.files import fields_in
from auditor.judging.measurement import Outcome
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.earlier_audits import STEPS, DecidedFinding, DecisionRecord, Key, Step, key_of, key_text
from auditor.report.record.number_text import interval, number

Kind = Literal["beyond", "not_run", "open", "unbounded", "met"]
_ORDER: tuple[Kind, ...] = ("beyond", "not_run", "open", "unbounded", "met")


@dataclass(frozen=True)
class Severity:
    """Distance of a finding beyond its limit, in the metric's own units; ``by`` is None if unknown.

    ``beyond``: it FAILs, and the nearer end of its interval lies ``by`` beyond the bound, so that at least this much is
    shown. ``open``: it is INCONCLUSIVE, and the farther end does, so that this much is not excluded. ``unbounded``:
    nobody set a bound, and the nearer end lies ``by`` from the ideal. ``share``: ``by`` in units of the bound's
    distance from the ideal, or of the bound itself where there is none, by which findings of one kind are ordered.
    """

    kind: Kind
    by: float | None = None
    share: float = 0.0

    @property
    def rank(self) -> tuple[int, float]:
        """The gravest first."""
        return _ORDER.index(self.kind), -self.share


def severity_of(finding: Finding) -> Severity:
    """The severity of a finding, by the rule of :class:`Severity`."""
    if finding.outcome is Outcome.PASS:
        return Severity("met")
    if finding.outcome is Outcome.NOT_RUN:
        return Severity("not_run")
    first, last = finding.interval or (None, None)
    low, high = -math.inf if first is None else first, math.inf if last is None else last
    fails = finding.outcome is Outcome.FAIL
    kind: Kind = "beyond" if fails else "open"
    if finding.criterion is None:
        if fails or finding.outcome is Outcome.INCONCLUSIVE:
            return Severity(kind)
        if finding.ideal is None:
            return Severity("unbounded")
        by = max(low - finding.ideal, finding.ideal - high)
        return Severity("unbounded", by, by) if math.isfinite(by) and by > 0.0 else Severity("unbounded")
    least, most = finding.criterion.required
    ends = (low - most, least - high) if fails else (high - most, least - low)
    by = max(end for end in ends if not math.isnan(end))
    if not math.isfinite(by) or by <= 0.0:
        return Severity(kind)
    bound = most if by == ends[0] else least
    room = abs(bound - (finding.ideal or 0.0)) or abs(bound) or 1.0
    return Severity(kind, by, by / room)


# Of a finding that somebody accepted: as it was accepted, beyond that, no longer, not by all who have to sign, met now.
Standing = Literal["accepted", "exceeds", "expired", "unsigned", "fixed"]


@dataclass(frozen=True, kw_only=True)
class Signer:
    """A signer of an acceptance; ``step``: the position among several.

    ``signed_with``: a key's fingerprint, None of no key.
    """

    entry: int
    created: str
    by: str
    role: str
    step: Step | None
    signed_with: str | None


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """An accepted finding; ``signers`` in order, ``audit``: the entry of its audit."""

    item: DecidedFinding
    audit: int
    until: str
    expired: bool
    owner: str
    due: str | None
    note: str
    signers: tuple[Signer, ...]

    @property
    def finding_key(self) -> Key:
        """The question of the finding."""
        return self.item.asks

    @property
    def value(self) -> float | None:
        """The worst accepted number; None without one."""
        return self.item.value

    @property
    def entry(self) -> int:
        """The history entry that started it."""
        return self.signers[0].entry

    @property
    def missing(self) -> tuple[Step, ...]:
        """The remaining signers, if several sign in order."""
        done = [signer.step for signer in self.signers]
        return () if done == [None] else tuple(step for step in STEPS if step not in done)

    @property
    def holds(self) -> bool:
        """Whether it is valid: not expired, and completely signed."""
        return not self.expired and not self.missing

    @property
    def last_signer(self) -> str:
        """The person responsible: the last signer."""
        return self.signers[-1].by

    def status_for(self, finding: Finding | None) -> Standing:
        """Comparison with the current value; ``finding`` is None if it was not measured."""
        if finding is not None and finding.outcome is Outcome.PASS:
            return "fixed"
        if self.expired:
            return "expired"
        if self.missing:
            return "unsigned"
        now = None if finding is None else finding.value
        if self.value is not None:
            return "exceeds" if now is not None and not self.item.covers(now) else "accepted"
        # Who accepted that nobody could tell has not accepted that it fails.
        told = self.item.outcome not in (None, Outcome.FAIL)
        return "exceeds" if told and finding is not None and finding.outcome is Outcome.FAIL else "accepted"

    def describe(self, finding: Finding | None) -> str:
        """The current state of the acceptance, in a sentence; "worse than accepted" comes first."""
        limit = f" {self.item.limit}" if self.item.limit else ""
        if not limit and self.item.outcome is not None:
            limit = f" while {self.item.outcome.value}"
        who = f"{key_text(self.finding_key)}: accepted{limit} by {self.last_signer} until {self.until}"
        now = self._current_value_text(finding)
        match self.status_for(finding):
            case "exceeds":
                return (
                    f"Worse than accepted: {key_text(self.finding_key)} (accepted{limit}{now}: exceeds), by "
                    f"{self.last_signer} until "
                    f"{self.until}."
                )
            case "expired":
                return f"EXPIRED acceptance: {who}{now}. It no longer holds."
            case "unsigned":
                return f"Not yet accepted: {who}{now}; not {' and not '.join(self.missing)}."
            case "fixed":
                return f"Accepted, and met now: {who}{now}."
            case "accepted":
                return f"{who}{now}. {self._doubt(finding)}".rstrip()

    def _current_value_text(self, finding: Finding | None) -> str:
        if finding is None:
            return ", and not measured now"
        if finding.value is None:
            return ", and undefined now" if self.value is not None else ""
        ends = f" [{interval(finding.interval)}]" if finding.interval is not None else ""
        return f", now {number(finding.value)}{ends}"

    def _doubt(self, finding: Finding | None) -> str:
        """That a number is within what was accepted, and its interval is not."""
        if finding is None or finding.interval is None or self.value is None:
            return ""
        if all(end is None or self.item.covers(end) for end in finding.interval):
            return ""
        return "Its interval reaches beyond that."


@dataclass
class _Open:
    """An acceptance while it is signed, one step after the other."""

    first: DecisionRecord
    signed: list[DecisionRecord] = field(default_factory=list)

    def acceptance_of(self, item: DecidedFinding) -> Acceptance:
        signers = tuple(Signer(**fields_in(Signer, d)) for d in self.signed)
        told = {"item": item, "until": self.first.expires or "", "signers": signers}
        return Acceptance(**fields_in(Acceptance, self.first) | told)


def acceptances_of(decisions: Sequence[DecisionRecord]) -> dict[Key, Acceptance]:
    """Acceptances of each finding, from decisions in order.

    The last acceptance that holds counts, else the last; a rejection withdraws those before it of the same findings,
    and one by a reviewer those that it was to cover.
    """
    open_: dict[int, _Open] = {}
    for decision in decisions:
        if decision.decision == "accept" and not decision.covers:
            open_[decision.entry] = _Open(decision, [decision])
        elif decision.decision == "accept" and decision.covers[0] in open_:
            open_[decision.covers[0]].signed.append(decision)
        elif decision.decision == "reject" and decision.covers:
            open_.pop(decision.covers[0], None)
        elif decision.decision == "reject":
            _withdraw(open_, {item.asks for item in decision.decided})
    found: dict[Key, Acceptance] = {}
    for each in open_.values():
        for item in each.first.decided:
            made = each.acceptance_of(item)
            if made.holds or item.asks not in found or not found[item.asks].holds:
                found[item.asks] = made
    return found


def _withdraw(open_acceptances: Mapping[int, _Open], keys: set[Key]) -> None:
    for each in open_acceptances.values():
        left = tuple(item for item in each.first.decided if item.asks not in keys)
        each.first = each.first.model_copy(update={"decided": left})


def findings_by_key(report: AuditReport) -> dict[Key, Finding]:
    """The current findings by their question; if a number has several criteria, the one met least."""
    gravest = (Outcome.FAIL, Outcome.NOT_RUN, Outcome.INCONCLUSIVE, Outcome.NOT_JUDGED, Outcome.PASS)
    found: dict[Key, Finding] = {}
    for finding in report.findings:
        if finding.outcome not in gravest:
            continue
        key = key_of(finding)
        if key not in found or gravest.index(finding.outcome) < gravest.index(found[key].outcome):
            found[key] = finding
    return found


def acceptance_sentences(report: AuditReport) -> Iterator[str]:
    """Sentences on all findings accepted by value, and on other accepted ones that became worse, the worst first."""
    now = findings_by_key(report)
    order: tuple[Standing, ...] = ("exceeds", "expired", "unsigned", "accepted", "fixed")
    known = acceptances_of(report.decisions).values()
    own = [e for e in known if e.value is not None or e.status_for(now.get(e.finding_key)) == "exceeds"]
    for each in sorted(own, key=lambda each: order.index(each.status_for(now.get(each.finding_key)))):
        yield each.describe(now.get(each.finding_key))
