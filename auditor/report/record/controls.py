"""Rule pack controls compared with the measurements, and the crosswalk from each finding to its controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from auditor.core.files import fields_in
from auditor.judging.input_files import CATEGORIES, Role, Roles
from auditor.judging.measurement import Outcome
from auditor.judging.planted import together
from auditor.judging.policy import CERTAINTY, AttestationRule, Control, EvidenceRule, Policy
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.control_record import CELL_KINDS, CellRecord, ControlRecord, PolicyRecord
from auditor.report.record.number_text import known_day
from auditor.report.record.translations import Catalogue

_OF_BEFORE = "The record is of before it said what an audit takes."


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Evidence for a control other than a finding: ``said`` is the evidence in words; if it is absent, ``reason``
    states why."""

    said: str = ""
    reason: str = ""


def with_policies(
    report: AuditReport, policies: Sequence[Policy], as_of: date, *, tradeoff: Beside | None = None
) -> AuditReport:
    """The record with the requirements of each pack, as of a day.

    ``tradeoff``: what a report of a trade-off shows, as :func:`auditor.evidence.dossier_files.tradeoff_beside`
    reads it; it is of no scan, and None where none was given.
    """
    held = _Held(report, as_of, tradeoff)
    return report.model_copy(
        update={
            "policies": tuple(_policy_record(policy, as_of) for policy in policies),
            "controls": tuple(held.control(policy, control) for policy in policies for control in policy.controls),
        }
    )


def _policy_record(policy: Policy, as_of: date) -> PolicyRecord:
    told = {
        "checked_on": policy.checked_on.isoformat(),
        "certainty": CERTAINTY[policy.certainty],
        "as_of": as_of.isoformat(),
        "applies_from": policy.applies_from and policy.applies_from.isoformat(),
        "applies_until": policy.applies_until and policy.applies_until.isoformat(),
        "sets_pass_mark": bool(policy.criteria),
    }
    return PolicyRecord(**fields_in(PolicyRecord, policy) | told)


def fitting(rule: EvidenceRule, findings: Sequence[Finding], roles: Roles | None = None) -> list[Finding]:
    """The findings that a rule requires, including those without a number, in the order of the record."""
    of = {(roles or Roles()).columns.get(role) for role in rule.roles}
    return [
        f
        for f in findings
        if rule.fits(f.probe, _metric_of(f), f.method, len(_features(f))) and (not of or _compares(f, of))
    ]


def _features(finding: Finding) -> tuple[str, ...]:
    return finding.sensitive or tuple(finding.group)


def _compares(finding: Finding, columns: set[str | None]) -> bool:
    """Whether a finding is about these columns and no others; one without any number is about whatever was asked."""
    return None not in columns and (
        set(_features(finding)) == columns or (finding.value is None and not _features(finding))
    )


def _metric_of(finding: Finding) -> str | None:
    """Of a requirement that nobody measured, the metric it is about."""
    return finding.criterion.metric if finding.metric is None and finding.criterion else finding.metric


def tells(finding: Finding) -> bool:
    """Whether the finding has a number: without a measurement there is no evidence."""
    return finding.outcome not in (Outcome.NOT_RUN, Outcome.NOT_APPLICABLE) and finding.value is not None


@dataclass(frozen=True)
class _Held:
    """A record, and the day and papers it is held against controls with."""

    report: AuditReport
    as_of: date
    tradeoff: Beside | None

    def control(self, policy: Policy, control: Control) -> ControlRecord:
        asked = [f for f in self.report.findings if control.is_about(f.probe)]
        if asked and all(f.other_kind for f in asked):
            kind, reason = CELL_KINDS[-1], asked[0].reason
            whats = [rule.what for rule in control.evidence] + [rule.what for rule in control.attestation]
            cells = [CellRecord(kind=kind, what=what, reason=reason) for what in whats]
        else:
            cells = [self._evidence_cell(rule) for rule in control.evidence]
            cells += [_attested(rule) for rule in control.attestation]
        said = [(rule.source, rule.certainty) for rule in control.evidence]
        said += [(rule.source, rule.certainty) for rule in control.attestation]
        return ControlRecord(
            policy=policy.name,
            id=control.id,
            title=control.title,
            source=control.source,
            certainty=CERTAINTY[control.certainty],
            in_force=control.applies(self.as_of),
            applies_from=None if control.applies_from is None else control.applies_from.isoformat(),
            applies_until=None if control.applies_until is None else control.applies_until.isoformat(),
            cells=tuple(
                cell.model_copy(
                    update={
                        "source": source or control.source,
                        "certainty": CERTAINTY[certainty or control.certainty],
                        "checked_on": control.checked_on.isoformat(),
                    }
                )
                for cell, (source, certainty) in zip(cells, said, strict=True)
            ),
        )

    def _evidence_cell(self, rule: EvidenceRule) -> CellRecord:
        match rule.shown_by:
            case "registration":
                return _external_cell(rule, self._registration_evidence())
            case "tradeoff":
                return _external_cell(rule, self.tradeoff or Beside(reason="no trade-off was given with the record."))
            case "age":
                return _external_cell(rule, self._aged(rule.days))
            case "energy":
                return _external_cell(rule, self._energy())
            case "computing":
                return _external_cell(rule, self._computing())
            case "planted":
                return _external_cell(rule, self._planted())
            case "attempts":
                return self._attempts(rule)
        lacking = self._lacking(rule)
        return self._measured_cell(rule) if lacking is None else lacking

    def _registration_evidence(self) -> Beside:
        registration = self.report.registration
        if registration is None:
            return Beside(reason="The audit was not registered before its results were seen.")
        if not registration.followed:
            return Beside(reason=registration.describe())
        if registration.signed_with is None:
            return Beside(reason=f"{registration.describe()} Nobody signed it, so that a change of it would not show.")
        return Beside(said=registration.describe())

    def _aged(self, days: int) -> Beside:
        made = known_day(self.report.created[:10])
        if made is None:
            return Beside(reason=f"The record's own date, {self.report.created[:40]!r}, is none.")
        age = (self.as_of - made).days
        until = made + timedelta(days=days)
        if age < 0:
            return Beside(reason=f"This audit was made on {made}, after {self.as_of}.")
        if age > days:
            return Beside(
                reason=f"This audit was made on {made}: on {self.as_of} it is {age} days old, more than {days}."
            )
        return Beside(said=f"This audit was made on {made}: {age} days old on {self.as_of}, and {days} on {until}.")

    def _energy(self) -> Beside:
        energy = self.report.energy
        if energy is None:
            return Beside(reason=_OF_BEFORE)
        told = f"{energy.describe(Catalogue())}."
        return Beside(reason=told) if energy.joules is None else Beside(said=told)

    def _computing(self) -> Beside:
        energy = self.report.energy
        if energy is None:
            return Beside(reason=_OF_BEFORE)
        return Beside(said=f"{energy.computed(Catalogue())}.")

    def _planted(self) -> Beside:
        made = [f.planted for f in self.report.findings if f.planted is not None and f.planted.planted]
        if not made:
            return Beside(reason="No known faults were planted in this audit's rows.")
        if blind := dict.fromkeys(f.probe for f in self.report.findings if f.blind):
            return Beside(reason=f"{', '.join(blind)} did not see what was planted, or alarmed without a fault.")
        of = together(made)
        return Beside(
            said=f"{of.seen} of {of.planted} known faults that were planted in this audit's rows were seen, and "
            f"{of.alarmed} of {of.clean} twins of the model without one alarmed."
        )

    def _lacking(self, rule: EvidenceRule) -> CellRecord | None:
        """That a role or a level is not known, without which no column's name says what it holds; None where they
        are."""
        roles = self.report.roles or Roles()
        missing = [role for role in rule.roles if role not in roles.columns]
        if missing:
            write = " and ".join(f'{role} = "COLUMN"' for role in missing)
            none = " or ".join(missing)
            return _open(
                rule, f"No column is said to hold {none}.", f"in audit.toml, under [roles], write {write}; {rule.how}"
            )
        if not self._measured_at_all(rule):
            return None
        for role in rule.roles if rule.levels else ():
            unclear = self._unclear(rule, role, roles)
            if unclear is not None:
                return unclear
        return None

    def _measured_at_all(self, rule: EvidenceRule) -> bool:
        return any(tells(f) for f in fitting(rule, self.report.findings, self.report.roles))

    def _unclear(self, rule: EvidenceRule, role: Role, roles: Roles) -> CellRecord | None:
        """Values of a column that are of no closed list, or two that are the same of it."""
        if role != "race_ethnicity":
            return None
        column, names = roles.columns[role], CATEGORIES[rule.levels]
        values = list(dict.fromkeys(f.group[column] for f in self.report.findings if column in f.group))
        about = self.report.about
        of = {
            value: roles.category(role, value, rule.levels, about.display_labels.value(column, value) if about else "")
            for value in values
        }
        unknown = [value for value, name in of.items() if name is None]
        listed = f"one of {', '.join(names)}"
        if unknown or not values:
            shown = ", ".join(repr(value) for value in unknown[:8]) or "nothing that the record names"
            some = unknown[0] if unknown else "VALUE"
            return _open(
                rule,
                f"Column {column!r} holds {shown}, which is no category of Component 1 of the EEO-1 report.",
                f'in audit.toml, under [roles.levels.{role}], write "{some}" = "CATEGORY" for each, {listed}',
            )
        alike = [value for value, name in of.items() if list(of.values()).count(name) > 1]
        if alike:
            return _open(
                rule,
                f"Column {column!r} has more than one value of one category, {of[alike[0]]}: "
                f"{', '.join(repr(value) for value in alike[:8])}.",
                "give them one value in the data, so that the category is counted as one",
            )
        return None

    def _measured_cell(self, rule: EvidenceRule) -> CellRecord:
        found = fitting(rule, self.report.findings, self.report.roles)
        told, silent = [f for f in found if tells(f)], [f for f in found if not tells(f)]
        if not told:
            return self._nothing(rule, silent)
        # What could not be said beside what could is no pass.
        open_ = [f for f in silent if f.outcome in (Outcome.NOT_RUN, Outcome.INCONCLUSIVE)]
        outcomes: dict[str, int] = {}
        for finding in (*told, *open_):
            outcomes[finding.outcome.value] = outcomes.get(finding.outcome.value, 0) + 1
        # Numbers by group are many; those that compare or were judged say what a reader asks for first.
        chief = [f for f in told if not f.group or f.outcome is not Outcome.NOT_JUDGED] or told
        return CellRecord(
            kind="evidence",
            what=rule.what,
            findings=tuple(f.id for f in (*chief, *open_)),
            outcomes=outcomes,
            tried=tuple(dict.fromkeys(f.tried for f in told if f.tried)),
        )

    def _nothing(self, rule: EvidenceRule, silent: Sequence[Finding]) -> CellRecord:
        own = [f for f in silent if not f.other_kind]
        if silent and not own:
            why = next((f.reason for f in silent if f.reason), "")
            return CellRecord(kind="not for this kind of model", what=rule.what, reason=why)
        why = next((f.reason for f in own if f.reason), "")
        if rule.roles and not why and not any(f.probe in rule.probes for f in self.report.findings):
            why = f"{' and '.join(rule.probes)} was not asked."
        if rule.roles and not why:
            columns = [(self.report.roles or Roles()).columns[role] for role in rule.roles]
            alone = " and ".join(columns)
            why = f"{alone} {'was' if len(columns) == 1 else 'were'} not compared, or only together with other columns."
        return _open(rule, why, rule.how)

    def _attempts(self, rule: EvidenceRule) -> CellRecord:
        """Which of several attacks were tried and which were not, read off the findings."""
        tried: list[str] = []
        left: list[str] = []
        for probe in rule.probes:
            own = [f for f in self.report.findings if f.probe == probe]
            told = [f for f in own if tells(f)]
            if told:
                tried.append(f"{probe} ({len(told)} {'number' if len(told) == 1 else 'numbers'})")
                continue
            why = next((f.reason for f in own if f.reason), "it was not asked")
            left.append(f"{probe}: {why.rstrip('.')}")
        said = f"Tried: {', '.join(tried) or 'none'}. " + f"Not tried: {'; '.join(left) or 'none of those asked for'}."
        cell = self._measured_cell(rule)
        if cell.kind == "evidence":
            return cell.model_copy(update={"said": said})
        return cell.model_copy(update={"reason": said})


def _open(rule: EvidenceRule, reason: str, remedy: str) -> CellRecord:
    return CellRecord(kind="not measured", what=rule.what, how=remedy, reason=reason)


def _external_cell(rule: EvidenceRule, answer: Beside) -> CellRecord:
    if answer.said:
        return CellRecord(kind="evidence", what=rule.what, said=answer.said)
    return _open(rule, answer.reason, rule.how)


def _attested(rule: AttestationRule) -> CellRecord:
    return CellRecord(kind="attestation needed", what=rule.what, role=rule.role)


@dataclass(frozen=True, order=True)
class Served:
    """A control supported by a finding: its pack, its id, and whether it is in force."""

    policy: str
    control: str
    in_force: bool


@dataclass(frozen=True)
class CrossedFinding:
    """A finding with a number, and the controls that it supports; none if no pack requires it."""

    finding: Finding
    serves: tuple[Served, ...]


def crosswalk(report: AuditReport, policies: Sequence[Policy], as_of: date) -> list[CrossedFinding]:
    """Every finding with a number, in the order of the record, and the controls that it supports on a day.

    A number counts where the control's cell is evidence: it must compare the columns that the control asks for.
    """
    held = with_policies(report, policies, as_of)
    records = iter(held.controls)
    served: dict[str, list[Served]] = {}
    for policy in policies:
        for control in policy.controls:
            record = next(records)
            found = {
                finding.id
                for rule, cell in zip(control.evidence, record.cells, strict=False)
                if cell.kind == "evidence" and cell.findings
                for finding in fitting(rule, report.findings, report.roles)
                if tells(finding)
            }
            for name in found:
                served.setdefault(name, []).append(Served(policy.name, control.id, record.in_force))
    return [CrossedFinding(f, tuple(served.get(f.id, ()))) for f in report.findings if tells(f)]
