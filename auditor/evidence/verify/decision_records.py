"""Verification of decision records, rebuilt from the enclosed history entries and their signatures."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date

from auditor.core.errors import AuditorError
from auditor.evidence.signed_acceptances import decision_records
from auditor.evidence.verify.checks import Check, Unproven
from auditor.evidence.verify.enclosed_inputs import WentBy
from auditor.evidence.verify.json_difference import difference
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.earlier_audits import DecisionRecord

NAME = "decisions"
_WHERE = "record.json: decisions"


def check_decisions(
    report: AuditReport, inputs: WentBy, trusted: Collection[str]
) -> tuple[list[Check], list[Unproven]]:
    """Check that the record's decisions are the enclosed, signed ones.

    ``trusted``: fingerprints of keys.
    """
    enclosed = {entry.number: entry for entry in inputs.decisions}
    named = {decision.entry for decision in report.decisions}
    more = sorted(enclosed.keys() - named)
    checks = [_wrong(f"entry {number} is enclosed, and the record does not name it") for number in more]
    lacking = [decision for decision in report.decisions if decision.entry not in enclosed]
    open_ = [
        Unproven(where=f"{_WHERE}.{decision.entry}.*", why="its entry is not enclosed", needs="decisions")
        for decision in lacking
    ]
    if checks or len(named) < len(report.decisions):
        return checks or [_wrong("one is there twice")], open_
    try:
        again = {
            record.entry: record for day in _days(report) for record in decision_records(enclosed, None, today=day)
        }
    except (AuditorError, ValueError) as error:
        return [_wrong(str(error).rstrip("."))], open_
    for said in report.decisions:
        if said.entry not in again:
            continue
        made = _as_far_as_told(again[said.entry], said)
        if where := difference(said.model_dump(mode="json"), made.model_dump(mode="json")):
            checks.append(_wrong(f"entry {said.entry}: {where}"))
        open_ += _open(said, trusted)
    if again and not checks:
        detail = (
            f"{len(again)} {'entry' if len(again) == 1 else 'entries'} of the history read anew, signatures included"
        )
        checks.append(Check(name=NAME, state="ok", detail=detail))
    return checks, open_


def _wrong(detail: str) -> Check:
    return Check(name=NAME, state="wrong", detail=detail)


def _days(report: AuditReport) -> list[date]:
    """The day of the record, by which it is told what has expired."""
    try:
        return [date.fromisoformat(report.created[:10])] if report.decisions else []
    except ValueError:
        return []


def _as_far_as_told(remade_record: DecisionRecord, stored_record: DecisionRecord) -> DecisionRecord:
    """Which findings an old decision is about follows from the audit that it is about, which is not enclosed.

    An acceptance may have expired on the day after the record's, on which it was entered.
    """
    changes: dict[str, object] = {}
    if (
        not remade_record.decided
        and not stored_record.one_by_one
        and {d.finding for d in stored_record.decided} <= set(remade_record.findings)
    ):
        changes["decided"] = stored_record.decided
    return remade_record.model_copy(update=changes) if changes else remade_record


def _open(stored_record: DecisionRecord, trusted: Collection[str]) -> list[Unproven]:
    where = f"{_WHERE}.{stored_record.entry}"
    found = [
        Unproven(
            where=f"{where}.created",
            why="when it was entered, and that nothing was entered before, is for the history to say",
            needs="history",
        )
    ]
    if stored_record.signed_with is None:
        found.append(Unproven(where=f"{where}.*", why="nobody signed it", needs="decisions"))
    elif stored_record.signed_with not in trusted:
        why = f"it is signed with the key {stored_record.signed_with[:16]}, which you did not name"
        found.append(Unproven(where=f"{where}.*", why=why, needs="decisions"))
    return found
