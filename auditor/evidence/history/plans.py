"""Plans in the ledger: the entry of a registration, and earlier audits of the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from auditor.core.errors import DataError
from auditor.evidence.history.earlier_looks import ALL, Known, numbers_of
from auditor.evidence.history.entries import Entry
from auditor.evidence.history.identity import Identity
from auditor.evidence.history.index import Looks
from auditor.report.record.audit_report import AuditReport, PlanEntered, RegistrationRecord
from auditor.report.record.look_count import entries_named

_MOST_NAMED = 6
# Of clocks that differ, or a ledger that had to be waited for.
_AT_ONCE = timedelta(hours=1)
# What the clocks of those who share a history may differ by.
_CLOCKS = timedelta(days=1)


def placed(history: Known, report: AuditReport, *, before: int = ALL) -> RegistrationRecord | None:
    """A report's registration record, with its position in the history among the entries ``before`` one.

    None where it followed none. Raises DataError where the entry was changed.
    """
    plan = report.registration
    if plan is None:
        return None
    line = history.index.plan(plan.sha256, before)
    if line is None:
        why = "It was not entered in this history, which does not show that it was made before the results were seen."
        return plan.model_copy(update={"entered": None, "cautions": (why,)})
    entry = history.entry(line.number)
    if entry.registration().sha256 != plan.sha256:
        raise DataError(f"Entry {line.number} of the history holds another registration than its index says.")
    data, model = report.data, Identity.from_report(report)
    looks = history.index.looks(data, model, line.number)
    rows = [look for look in looks if look.rows]
    entered = PlanEntered(
        entry=entry.number,
        hash=entry.hash,
        created=entry.created,
        rows=None if data.sha256 is None and data.rows_sha256 is None else sum(len(look.numbers) for look in rows),
        model=None if model.sha256 is None and not model.id else sum(len(look.numbers) for look in looks if look.model),
    )
    cautions = tuple(_cautions(entry, plan, rows, history.index.latest(entry.number)))
    return plan.model_copy(update={"entered": entered, "cautions": cautions})


def _cautions(entry: Entry, plan: RegistrationRecord, looks: list[Looks], latest: str | None) -> Iterator[str]:
    """``latest``: when an entry before it says that it was entered."""
    if looks:
        numbers = numbers_of(looks)
        n, failed = len(numbers), sum(len(look.numbers) for look in looks if look.exit_code == 1)
        at = entries_named(numbers, _MOST_NAMED)
        yield (
            f"It was entered at entry {entry.number}, AFTER {n:,} {'audit' if n == 1 else 'audits'} of these rows "
            f"({at}; {failed:,} FAIL): whoever made it may have seen their results."
        )
    try:
        late = datetime.fromisoformat(entry.created) - datetime.fromisoformat(plan.registered) > _AT_ONCE
    except (ValueError, TypeError):
        late = True
    if late:
        yield f"It says that it was registered on {plan.registered}, and was entered on {entry.created[:19]}Z."
    if latest is not None and _is_before(entry.created, latest):
        yield (
            f"Its entry {entry.number} says {entry.created[:10]} and follows on an entry of {latest[:10]}: one of the "
            "two dates is not when it was entered."
        )


def _is_before(created: str, latest: str) -> bool:
    try:
        return datetime.fromisoformat(latest) - datetime.fromisoformat(created) > _CLOCKS
    except (ValueError, TypeError):
        return True


def misplaced(history: Known, report: AuditReport, *, before: int) -> list[str]:
    """Errors of a report about the position of its registration in a history, in words."""
    found = placed(history, report, before=before)
    said = report.registration
    if found is None or said is None or (found.entered, found.cautions) == (said.entered, said.cautions):
        return []
    return ["it says otherwise where its registration was entered, or what was audited before that"]
