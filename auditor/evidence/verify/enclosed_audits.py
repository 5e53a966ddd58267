"""Verification of the audits enclosed in a record, each as a full audit."""

from __future__ import annotations

from collections.abc import Mapping

from auditor.core.errors import DataError
from auditor.evidence.derived_evidence import ALONE, WHOLE
from auditor.evidence.deterministic_zip import unpack
from auditor.evidence.verify.bundle_parts import read_part
from auditor.evidence.verify.checks import Check, Unproven
from auditor.evidence.verify.paired_changes import check_paired_changes
from auditor.evidence.verify.remeasure import Remake
from auditor.evidence.verify.verify_bundle import verify_bytes
from auditor.evidence.verify.verify_derived import enclosed_checks
from auditor.report.comparing.side_by_side import CHANGE
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.contradictions import contradictions


class Audits:
    """The audits of a bundle, read one after the other: their check results and their parts."""

    def __init__(self, entries: Mapping[str, bytes], make_probe: Remake) -> None:
        self.entries = entries
        self.make_probe = make_probe
        self.used: set[str] = set()
        self.checks: list[Check] = []
        self.unproven: list[Unproven] = []

    def read_report(self, name: str) -> AuditReport:
        """The record of one audit.

        Raises DataError where it is not there, or is none.
        """
        if name + WHOLE in self.entries:
            return self._whole(name + WHOLE)
        if name + ALONE not in self.entries:
            raise DataError(f"the audit {name!r} is not in it")
        return self._alone(name + ALONE)

    def check_paired(self, before: str, after: str, reports: tuple[AuditReport, AuditReport]) -> None:
        """Compare the changes between two audits with the answers of both, if their bundles are available."""
        parts = [before + WHOLE, after + WHOLE]
        if not all(part in self.entries for part in parts):
            return
        was, now = (unpack(self.entries[part], part) for part in parts)
        checks, unproven = check_paired_changes(parts[1], was, now, reports)
        self.checks += checks
        changed = f"{parts[1]}: results.json: results[{CHANGE}]"
        if any(check.state == "ok" for check in checks):
            # What the audit alone could not prove of them both do.
            self.unproven = [each for each in self.unproven if not each.where.startswith(changed)]
        self.unproven += unproven

    def _whole(self, part: str) -> AuditReport:
        self.used.add(part)
        verified = verify_bytes(self.entries[part], part, self.make_probe)
        checks, unproven = enclosed_checks(part, verified)
        self.checks += checks
        self.unproven += unproven
        if verified.report is None:
            why = next((f"{c.name}: {c.detail}" for c in verified.checks if c.state == "wrong"), "it has no record")
            raise DataError(f"{part}, {why}")
        return verified.report

    def _alone(self, part: str) -> AuditReport:
        self.used.add(part)
        report: AuditReport | None
        report, said = read_part(part, self.entries, lambda content: AuditReport.model_validate_json(content))
        self.checks += said
        if report is None:
            raise DataError(f"the record in {part!r} cannot be read")
        self.checks += [Check(name=f"{part}: {at}", state="wrong", detail=why) for at, why in contradictions(report)]
        why = "the record alone is enclosed: no audit of it can be verified without its bundle"
        self.checks.append(Check(name=part, state="not checked", detail=why))
        self.unproven.append(Unproven(where=f"{part}: *", why=why, needs="numbers"))
        return report
