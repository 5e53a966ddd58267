"""What is open: everything that an audit did not pass and no later audit of the same model passed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

from auditor.errors import AuditorError
from auditor.evidence.history.ledger import Ledger
from auditor.evidence.portfolio.lines import OPEN, Audit
from auditor.evidence.portfolio.models import Model
from auditor.finding.measurement import Outcome
from auditor.record import text
from auditor.record.audit_report import AuditReport, PolicyRecord, measurement_label

Severity = Literal["high", "medium", "low"]
SEVERITIES: tuple[Severity, ...] = ("high", "medium", "low")
Status = Literal["open", "accepted", "acceptance expired", "rejected"]
STATUSES: tuple[Status, ...] = ("open", "rejected", "acceptance expired", "accepted")
_SEVERITY: Mapping[Outcome, Severity] = {
    Outcome.FAIL: "high",
    Outcome.INCONCLUSIVE: "medium",
    Outcome.NOT_RUN: "low",
}


@dataclass(frozen=True, kw_only=True)
class OpenFinding:
    """A finding that is open.

    ``since``, ``first``: day and entry of the audit from which on no audit passed it. ``last``: the last entry that
    found it so; ``asked``: whether that is the model's newest audit, for one that was not asked again is not closed by
    that. ``status``: what the last decision about it, ``by`` whom, came to on the day that was asked for.
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
    by: str = ""
    owner: str = ""
    what: str = ""
    value: str = ""
    required: str = ""
    reason: str = ""

    @property
    def severity(self) -> Severity:
        """High where it failed, medium where the data could not tell, low where it did not run."""
        return _SEVERITY[self.outcome]

    def age(self, on: date) -> int | None:
        """Days since it was first seen; None where that is no day."""
        try:
            return max(0, (on - date.fromisoformat(self.since)).days)
        except ValueError:
            return None


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


def open_findings(model: Model) -> list[OpenFinding]:
    """What is open of a model, gravest and oldest first, without what it says and what was decided about it.

    A PASS in a later audit closes a finding, on whichever rows; that it is not asked, not judged or not applicable any
    more does not. What did not run is settled once it has run, for it is judged under a name of its own then.
    """
    seen: dict[str, OpenFinding] = {}
    for audit in model.audits:
        if not audit.refused:
            _take_in(seen, audit, model)
    return sorted(seen.values(), key=_in_order)


def _in_order(finding: OpenFinding) -> tuple[int, str, str]:
    return SEVERITIES.index(finding.severity), finding.since, finding.id


def _take_in(seen: dict[str, OpenFinding], audit: Audit, model: Model) -> None:
    for name in [name for name, finding in seen.items() if finding.outcome is Outcome.NOT_RUN]:
        if _has_run(name, audit):
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


def _has_run(name: str, audit: Audit) -> bool:
    """Whether an audit measured what did not run: a probe, or the metric of one that a criterion is about."""
    probe, _, required = name.partition("/criterion/")
    for other, without_number, outcome in audit.findings():
        parts = other.split("/")
        if without_number or parts[0] != probe:
            continue
        if not required or (required in parts and outcome in (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE)):
            return True
    return False


def standing(ledger: Ledger, model: Model, on: date) -> Standing:
    """How a model stands on a day, in words: the records that are shown are read again, one after the other."""
    found = open_findings(model)
    wanted = {finding.last for finding in found} | ({model.measured.number} if model.measured else set())
    said: dict[tuple[int, str], OpenFinding] = {}
    packs: tuple[PackTally, ...] = ()
    problems = []
    for number in sorted(wanted):
        try:
            record = ledger.entry(number).audit().record
        except AuditorError as error:
            problems.append(f"entry {number}: {error}")
            continue
        said |= {(number, f.id): f for f in _in_words([f for f in found if f.last == number], record)}
        if model.measured is not None and number == model.measured.number:
            packs = _tallies(record)
    return Standing(
        model=model,
        open=tuple(_decided(said.get((finding.last, finding.id), finding), model, on) for finding in found),
        packs=packs,
        problems=tuple(problems),
    )


def _in_words(findings: Sequence[OpenFinding], record: AuditReport) -> list[OpenFinding]:
    own = {finding.id: finding for finding in record.findings}
    shown = []
    for finding in findings:
        f = own.get(finding.id)
        if f is None:
            continue
        ends = text.interval(f.interval)
        shown.append(
            replace(
                finding,
                what=measurement_label(f) if f.metric else f.probe,
                value=f"{text.value(f)}{f' ({ends})' if ends else ''}",
                required=f.criterion.describe() if f.criterion else "",
                reason=f.reason,
            )
        )
    return shown


def _decided(finding: OpenFinding, model: Model, on: date) -> OpenFinding:
    """The finding with what the last decision about it comes to on a day."""
    about = [own.decision for own in model.decisions if finding.id in own.decision.findings]
    if not about:
        return finding
    until, by = about[-1].expires, about[-1].by
    if until is None:
        return replace(finding, status="rejected", by=by)
    status: Status = "accepted" if on <= until else "acceptance expired"
    return replace(finding, status=status, accepted_until=until, by=by)


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
