"""Crosswalk: the controls, of any number of rule packs, that each finding supports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from auditor.judging.policy import Policy
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.controls import fitting, tells, with_policies


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
