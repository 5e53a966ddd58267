"""Verification of a whole history: its chain, its index, and the references between its entries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from auditor.core.errors import DataError
from auditor.evidence.history.earlier_looks import Known, miscounted, misplaced
from auditor.evidence.history.entries import GENESIS, Entry, digest_of
from auditor.evidence.history.index import Index
from auditor.evidence.history.ledger import Ledger, broken_chain
from auditor.evidence.history.signed_decisions import signer
from auditor.evidence.signed_acceptances import wrongly_about, wrongly_covered
from auditor.report.record.audit_report import AuditReport

_WITHOUT_HEAD = "Note the head elsewhere: entries taken away at the end are found only with --head."


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Errors of a history, in words, and its uncheckable parts; ``head``: its last entry's hash."""

    problems: tuple[str, ...]
    notes: tuple[str, ...]
    n_entries: int
    head: str


def check_history(ledger: Ledger, head: str | None, trusted: Collection[str]) -> Checked:
    """Read a whole ledger and recompute its derived values.

    ``head``: a hash that was noted elsewhere. ``trusted``: fingerprints of keys, where decisions of others are to be
    named. Raises UsageError where ``head`` is no hash of an entry.
    """
    entries = list(ledger.entries())
    problems = broken_chain(iter(entries), head)
    index = Index.from_entries(entries)
    if not problems and ledger.has_index and index.all() != ledger.index.all():
        problems.append(
            "the index beside the entries was changed, and scans may have counted looks by it: the table "
            "auditor_index, dropped, is made anew by the next scan"
        )
    known = Known.by_number(entries, index)
    before: dict[int, Entry] = {}
    whole, kept_less, last = False, list[int](), GENESIS
    for entry in entries:
        try:
            if entry.kind == "audit":
                audit = entry.audit()
                if whole and not audit.whole:
                    problems.append(f"entry {entry.number} keeps less than its whole record, as none since does")
                whole = whole or audit.whole
                kept_less += [] if audit.whole else [entry.number]
                wrong = miscounted(known, entry, last, audit.record, whole=audit.whole)
                if audit.whole:
                    wrong += misplaced(known, audit.record, before=entry.number)
                problems += [f"entry {entry.number}: {said}" for said in wrong]
            elif entry.kind == "registration":
                entry.registration()
            else:
                problems += _wrong_with(entry, trusted, before)
        except DataError as error:
            problems.append(f"entry {entry.number}: {error}")
        before[entry.number], last = entry, entry.hash
    notes = [] if head is not None or problems else [_WITHOUT_HEAD]
    if kept_less:
        notes.append(
            f"Of {len(kept_less):,} audits, the last at entry {kept_less[-1]}, an earlier version kept the record "
            "without its drawings: their digests are not computed anew here. verify BUNDLE --db does it from a bundle."
        )
    return Checked(
        problems=tuple(problems),
        notes=tuple(notes),
        n_entries=len(entries),
        head=entries[-1].hash if entries else "",
    )


def _wrong_with(entry: Entry, trusted: Collection[str], before: Mapping[int, Entry]) -> list[str]:
    """Why a decision does not count, in words, by the entries ``before`` it."""
    decision = entry.decision()
    mark = signer(decision)
    problems = [f"entry {entry.number}: {said}" for said in [wrongly_covered(decision, before)] if said]
    if decision.audit not in before:
        problems.append(f"entry {entry.number} is about an audit {decision.audit} that is not in this history")
    elif about := wrongly_about(decision, before):
        problems.append(f"entry {entry.number}: {about}")
    if trusted and mark not in trusted:
        whose = "is not signed" if mark is None else f"is signed with the key {mark[:16]}, which you do not trust"
        problems.append(f"entry {entry.number}, a decision of {decision.by!r}, {whose}")
    return problems


def wrong_in_history(entries: Sequence[Entry], report: AuditReport) -> list[str]:
    """Errors in a report about a whole history: its entry is found by the record's digest."""
    problems = broken_chain(iter(entries))
    if problems:
        return problems[:3]
    digest = digest_of(report)
    for i, entry in enumerate(entries):
        if entry.kind == "audit" and entry.audit().record_sha256 == digest:
            audit = entry.audit()
            if not audit.holds(report):
                return [f"entry {entry.number} names this audit, and holds another record"]
            head = entries[i - 1].hash if i else GENESIS
            known = Known.from_entries(entries)
            wrong = miscounted(known, entry, head, report, whole=audit.whole)
            return wrong + (misplaced(known, report, before=entry.number) if audit.whole else [])
    return ["no entry of this history is this audit"]
