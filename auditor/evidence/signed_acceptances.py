"""Acceptances in a history: decisions, their signature checks, and the latest decision on each finding."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date

from auditor.core.errors import DataError
from auditor.core.files import fields_in
from auditor.evidence.history.entries import Decision, Entry, record_in, same_person
from auditor.evidence.history.ledger import broken_chain
from auditor.evidence.history.signed_decisions import signer
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.earlier_audits import STEPS, DecidedFinding, DecisionRecord, Key, key_of
from auditor.report.record.severity_and_acceptance import Acceptance, acceptances_of


def acceptances(
    entries: Sequence[Entry], entry_numbers: Collection[int] | None = None, *, today: date
) -> dict[Key, Acceptance]:
    """Acceptances of each finding of one model, by the finding's question.

    ``entry_numbers``: numbers of that model's decisions, as :func:`~auditor.evidence.history.ledger.decisions_about`
    finds them; None for all. ``today`` says what has expired. Raises DataError where the chain is broken, or a
    signature or what it covers does not fit: nobody's decision can be told from such a history.
    """
    return acceptances_of(decisions_of(entries, entry_numbers, today=today))


def decisions_of(
    entries: Sequence[Entry], entry_numbers: Collection[int] | None = None, *, today: date
) -> list[DecisionRecord]:
    """The checked decisions of a history, in order, in the form of a record.

    Arguments as :func:`acceptances`.
    """
    if problems := broken_chain(entries):
        raise DataError(f"No decision of this history counts: {problems[0]}.")
    return decision_records({entry.number: entry for entry in entries}, entry_numbers, today=today)


def decision_records(
    by_number: Mapping[int, Entry], entry_numbers: Collection[int] | None = None, *, today: date
) -> list[DecisionRecord]:
    """Decision records from entries by number with a checked chain: decisions, with covered and target entries.

    Of an audit that is not among them nothing is checked: whoever leaves it out has checked it.
    """
    found = []
    for entry in by_number.values():
        if entry.kind != "decision" or (entry_numbers is not None and entry.number not in entry_numbers):
            continue
        decision = entry.decision()
        signed_with = signer(decision)
        if wrong := wrongly_about(decision, by_number) or wrongly_covered(decision, by_number):
            raise DataError(f"Entry {entry.number} of the history does not count: {wrong}.")
        found.append(_record(entry, decision, signed_with, by_number, today))
    return found


def wrongly_about(decision: Decision, entries: Mapping[int, Entry]) -> str:
    """The reason why a decision does not match its named audit, in words; "" if it does, or if that is absent.

    A chain can be made anew around another audit, and the signature under the decision would fit all the same.
    """
    there = entries.get(decision.audit)
    if there is None:
        return ""
    if there.kind != "audit":
        return f"it is about entry {decision.audit}, which is no audit"
    record_sha256, now = record_in(there)
    if record_sha256 != decision.record_sha256:
        return f"it is about an audit {decision.audit} that is not in this history"
    if (now.sha256, now.path) != (decision.model_sha256, decision.model_path) or decision.model_id not in ("", now.id):
        return f"audit {decision.audit} is said to be of another model than the one that was decided on"
    return ""


def wrongly_covered(decision: Decision, entries: Mapping[int, Entry]) -> str:
    """The reason why a signature does not cover the stated earlier signatures, in words; "" if it does."""
    for step, covered in zip(STEPS, decision.covers, strict=False):
        there = entries.get(covered.entry)
        if there is None or there.hash != covered.hash or there.kind != "decision":
            return f"it covers entry {covered.entry}, which is not that decision in this history"
        before = there.decision()
        if (before.step, before.audit, before.decision) != (step, decision.audit, "accept"):
            return f"it covers entry {covered.entry}, by which audit {decision.audit} was not {step}"
        if decision.decision == "accept" and _terms(before) != _terms(decision):
            return f"it accepts something else than entry {covered.entry}, which it covers"
        if same_person(before.by, decision.by) or (before.key is not None and before.key == decision.key):
            return f"whoever signed it signed entry {covered.entry} too, which is for somebody else"
    return ""


def _terms(decision: Decision) -> tuple[object, ...]:
    return decision.decided, decision.findings, decision.expires, decision.owner, decision.due


def _record(
    entry: Entry, decision: Decision, signed_with: str | None, entries: Mapping[int, Entry], today: date
) -> DecisionRecord:
    told = {
        "entry": entry.number,
        "created": entry.created,
        "expires": decision.expires and decision.expires.isoformat(),
        "expired": decision.expires is not None and decision.expires < today,
        "signed_with": signed_with,
        "decided": decision.decided or _as_a_whole(decision, entries),
        "due": decision.due and decision.due.isoformat(),
        "covers": tuple(covered.entry for covered in decision.covers),
    }
    return DecisionRecord(**fields_in(DecisionRecord, decision) | told)


def _as_a_whole(decision: Decision, entries: Mapping[int, Entry]) -> tuple[DecidedFinding, ...]:
    """What a decision on all that had not passed is about, as findings without values."""
    about = entries.get(decision.audit)
    if about is None or about.kind != "audit" or not decision.findings:
        return ()
    return decided_of(about.audit().record, decision.findings)


def decided_of(report: AuditReport, ids: Sequence[str]) -> tuple[DecidedFinding, ...]:
    """Findings of a report by their ids, without values."""
    named = set(ids)
    return tuple(
        DecidedFinding(finding=f.id, asks=key_of(f), outcome=f.outcome) for f in report.findings if f.id in named
    )
