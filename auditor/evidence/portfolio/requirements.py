"""Changes of a model's requirements between audits: a loosened bound does not make the model better."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from auditor.core.errors import AuditorError
from auditor.evidence.criteria_changes import changed_criteria
from auditor.evidence.history.ledger import Ledger
from auditor.evidence.portfolio.audit_lines import Audit, required_in
from auditor.judging.criterion import CriterionRecord

Turn = Literal["loosened", "tightened", "changed", "dropped", "added"]
# Newest first; what lies further back can be read in the records.
MOST_CHANGES = 100


@dataclass(frozen=True, kw_only=True)
class Change:
    """A requirement that differs from the audit before."""

    audit: Audit
    turn: Turn
    subject: str
    before: str
    after: str


def changes_of(ledger: Ledger, audits: Sequence[Audit]) -> list[Change]:
    """Changed requirements relative to the audit before, newest first, at most ``MOST_CHANGES``."""
    found: list[Change] = []
    differing = [(a, b) for a, b in pairwise([a for a in audits if not a.refused]) if a.criteria != b.criteria]
    for before, after in reversed(differing):
        found += _changes_between(ledger, before, after)
        if len(found) >= MOST_CHANGES:
            break
    return found[:MOST_CHANGES]


def _changes_between(ledger: Ledger, before: Audit, after: Audit) -> Iterator[Change]:
    try:
        then, now = (required_in(ledger.entry(audit.number)) for audit in (before, after))
    except AuditorError:
        # An entry that was changed is named on every page; what it required is not known.
        return
    for subject, a, b in changed_criteria(then, now):
        turn = _turn(a, b)
        if turn is not None:
            words = ["" if each is None else each.describe() for each in (a, b)]
            yield Change(audit=after, turn=turn, subject=subject, before=words[0], after=words[1])


def _turn(a: CriterionRecord | None, b: CriterionRecord | None) -> Turn | None:
    """How a requirement changed; None where only its share of the error rate or its words did."""
    if a is None or b is None:
        return "dropped" if b is None else "added"
    if a.required == b.required:
        return None
    if b.required[0] <= a.required[0] and a.required[1] <= b.required[1]:
        return "loosened"
    return "tightened" if a.required[0] <= b.required[0] and b.required[1] <= a.required[1] else "changed"
