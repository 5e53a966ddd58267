"""Controls of rule packs held against what was measured: evidence, somebody's word, or nothing yet."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from auditor.finding.measurement import Outcome
from auditor.finding.policy import CERTAINTY, AttestationRule, Control, EvidenceRule, Policy
from auditor.record.audit_report import AuditReport, CellRecord, ControlRecord, Finding, PolicyRecord


def with_policies(report: AuditReport, policies: Sequence[Policy], as_of: date) -> AuditReport:
    """The record with what each pack asks for, as it stands on a day."""
    return report.model_copy(
        update={
            "policies": tuple(_policy_record(policy, as_of) for policy in policies),
            "controls": tuple(
                _control_record(policy, control, report.findings, as_of)
                for policy in policies
                for control in policy.controls
            ),
        }
    )


def _policy_record(policy: Policy, as_of: date) -> PolicyRecord:
    return PolicyRecord(
        name=policy.name,
        title=policy.title,
        source=policy.source,
        checked_on=policy.checked_on.isoformat(),
        certainty=CERTAINTY[policy.certainty],
        as_of=as_of.isoformat(),
        applies_from=None if policy.applies_from is None else policy.applies_from.isoformat(),
        applies_until=None if policy.applies_until is None else policy.applies_until.isoformat(),
        sets_pass_mark=bool(policy.criteria),
        notes=policy.notes,
    )


def _control_record(policy: Policy, control: Control, findings: Sequence[Finding], as_of: date) -> ControlRecord:
    return ControlRecord(
        policy=policy.name,
        id=control.id,
        title=control.title,
        source=control.source,
        certainty=CERTAINTY[control.certainty],
        in_force=control.applies(as_of),
        applies_from=None if control.applies_from is None else control.applies_from.isoformat(),
        applies_until=None if control.applies_until is None else control.applies_until.isoformat(),
        cells=(
            *(_measured(rule, findings) for rule in control.evidence),
            *(_attested(rule) for rule in control.attestation),
        ),
    )


def fitting(rule: EvidenceRule, findings: Sequence[Finding]) -> list[Finding]:
    """The findings that a rule asks for, those without a number included, in the order of the record."""
    return [f for f in findings if rule.fits(f.probe, _metric_of(f), f.method, len(f.sensitive) or len(f.group))]


def _metric_of(finding: Finding) -> str | None:
    """Of a requirement that nobody measured, the metric it is about."""
    return finding.criterion.metric if finding.metric is None and finding.criterion else finding.metric


def tells(finding: Finding) -> bool:
    """Whether it holds a number: what was not measured is no evidence, whatever became of it."""
    return finding.outcome not in (Outcome.NOT_RUN, Outcome.NOT_APPLICABLE) and finding.value is not None


def _measured(rule: EvidenceRule, findings: Sequence[Finding]) -> CellRecord:
    found = fitting(rule, findings)
    told, silent = [f for f in found if tells(f)], [f for f in found if not tells(f)]
    if not told:
        why = next((f.reason for f in silent if f.reason), "")
        return CellRecord(kind="not measured", what=rule.what, how=rule.how, reason=why)
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


def _attested(rule: AttestationRule) -> CellRecord:
    return CellRecord(kind="attestation needed", what=rule.what, role=rule.role)
