"""Due dates: audits of models, acceptances and remedies of open findings, reviews of rule packs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from auditor.core.errors import UsageError
from auditor.evidence.portfolio.model_history import Model
from auditor.evidence.portfolio.open_findings import Standing
from auditor.report.record.control_record import OLD_AFTER
from auditor.report.record.number_text import Period, day_of, period_of, plural

Kind = Literal["audit", "acceptance", "remedy", "pack"]
State = Literal["overdue", "unknown", "due"]
STATES: tuple[State, ...] = ("overdue", "unknown", "due")


@dataclass(frozen=True, kw_only=True)
class Due:
    """A task with its due date, the last day on which it is not overdue; None if unknown."""

    kind: Kind
    about: str
    by: date | None
    why: str
    on: date

    @property
    def state(self) -> State:
        """The state of the task on the given day."""
        if self.by is None:
            return "unknown"
        return "overdue" if self.on > self.by else "due"


def all_due(standings: Iterable[Standing], interval: Period | None, today: date) -> list[Due]:
    """All due tasks of some models, overdue ones first, then by day.

    ``interval``: how often a model is audited at least; one that says so itself is audited more often, never less.
    """
    found: list[Due] = []
    packs: dict[tuple[str, str], list[str]] = {}
    for standing in standings:
        found.append(audit_due(standing.model, interval, today))
        found += _acceptances(standing, today)
        for tally in standing.packs:
            checked, as_of = tally.pack.checked_on, tally.pack.as_of
            # Days are ISO's, which sort as they follow.
            checked += ", which had not come on the day of the audit" if checked > as_of else ""
            packs.setdefault((tally.pack.name, checked), []).append(standing.model.title)
    found += [_pack(name, checked, titles, today) for (name, checked), titles in packs.items()]
    return sorted(found, key=lambda d: (STATES.index(d.state), d.by or date.max, d.kind, d.about, d.why))


def audit_due(model: Model, interval: Period | None, today: date) -> Due:
    """The due date of a model's next audit: its stated day, else its stated period after the last audit.

    What a record states puts nothing off beyond ``interval``, which a person asks for. A stated day that the last audit
    came after is spent. A refused audit measured nothing, and is none.
    """
    last = model.last_measured
    if last is None:
        return Due(kind="audit", about=model.title, by=None, why="every audit of it was refused", on=today)
    try:
        day, said = day_of(last.day, "the day"), model.identity
        stated = day_of(said.next_due, "next_due") if said.next_due else None
        own = period_of(said.audit_every, "audit_every").end_date(day) if said.audit_every else None
        asked = None if interval is None else interval.end_date(day)
    except UsageError as error:
        return Due(kind="audit", about=model.title, by=None, why=f"entry {last.number}: {error}".rstrip("."), on=today)
    if day > today:
        why = f"entry {last.number}: it is of {day}, which has not come on {today}"
        return Due(kind="audit", about=model.title, by=None, why=why, on=today)
    by, why = own, f"last audited on {day}, entry {last.number}"
    if stated is not None and day < stated:
        by, why = stated, f"stated in entry {last.number}, which audited it on {day}"
    if asked is not None and (by is None or asked < by):
        why = f"last audited on {day}, entry {last.number}" + ("" if by is None else f", which puts it off to {by}")
        by = asked
    if by is None:
        why += "; nobody said how often: [model] audit_every, or --every"
    return Due(kind="audit", about=model.title, by=by, why=why, on=today)


def _acceptances(model_status: Standing, today: date) -> list[Due]:
    """Of one day together: they were accepted together, and are to be decided on, or mended, together."""
    counted: Counter[tuple[Kind, date]] = Counter()
    for finding in model_status.open:
        if finding.accepted_until is not None:
            counted["acceptance", finding.accepted_until] += 1
        if finding.mend_by is not None:
            counted["remedy", finding.mend_by] += 1
    return [
        Due(kind=kind, about=model_status.model.title, by=day, why=f"of {plural(n, 'open finding')}", on=today)
        for (kind, day), n in counted.items()
    ]


def _pack(name: str, checked: str, titles: list[str], today: date) -> Due:
    why = f"looked up on {checked}, in the last audit of {', '.join(titles[:3])}"
    why += f" and {len(titles) - 3:,} more" if len(titles) > 3 else ""
    try:
        by = day_of(checked, "the day") + timedelta(days=OLD_AFTER)
    except (UsageError, OverflowError):
        return Due(kind="pack", about=name, by=None, why=why, on=today)
    return Due(kind="pack", about=name, by=by, why=why, on=today)
