"""Verification of the order of a bundle's dates and times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta

from auditor.evidence.manifest import LOG, events
from auditor.evidence.verify.checks import Check, Unproven
from auditor.evidence.verify.enclosed_inputs import Inputs
from auditor.report.record.audit_report import AuditReport

NAME = "dates"
# Days begin elsewhere earlier, and clocks are set.
_SLACK = timedelta(days=1)
# A record is stamped in whole seconds, and its log in thousandths.
_ROUNDED = timedelta(seconds=2)


def in_order(
    entries: Mapping[str, bytes], report: AuditReport, inputs: Inputs, now: datetime | None = None
) -> tuple[list[Check], list[Unproven]]:
    """Impossible date orders: registered, begun, measured, recorded; set and looked up before.

    ``now``: an aware time; this moment by default.
    """
    wrong = list(dict.fromkeys(_impossible(entries, report, inputs, now or datetime.now(UTC))))
    checks = [Check(name=NAME, state="wrong", detail=detail) for detail in wrong[:10]]
    if not wrong:
        detail = "the run, its log, its record and all that was set or decided before can have come in this order"
        checks.append(Check(name=NAME, state="ok", detail=detail))
    why = "dates are the signer's word where no timestamp tells them"
    places = ["record.json: criteria.set_at", "log.jsonl: at"]
    places += [] if inputs.understood is None else ["request.json: understood.began"]
    return checks, [Unproven(where=place, why=why, needs="timestamp") for place in places]


def _time(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _day(text: object) -> date | None:
    try:
        return date.fromisoformat(str(text)[:10])
    except ValueError:
        return None


def _impossible(entries: Mapping[str, bytes], report: AuditReport, inputs: Inputs, now: datetime) -> Iterator[str]:
    created = _time(report.created)
    if created is None:
        yield f"the record was made on {report.created[:40]!r}, which is no time"
        return
    if created > now + _SLACK:
        yield f"the record is of {report.created}, which is to come"
    yield from _by_its_log(entries, report, inputs, created)
    day = created.date() + _SLACK
    for criterion in report.criteria:
        if (found := _day(criterion.set_at)) is not None and found > day:
            yield f"the bound of {criterion.metric} was set on {criterion.set_at}, after the audit"
    for policy in report.policies:
        if (found := _day(policy.checked_on)) is None or found > day:
            yield f"the rule pack {policy.name} was looked up on {policy.checked_on}, after the audit"
    for decision in report.decisions:
        when, due = _time(decision.created), _day(decision.expires)
        if when is None or when > created + _SLACK:
            yield f"entry {decision.entry} was decided on {decision.created}, after the audit that names it"
        elif due is not None and due < when.date() - _SLACK:
            yield f"entry {decision.entry} accepts until {decision.expires}, before it was made"
        elif due is not None and decision.expired is not (due < created.date()) and abs(due - created.date()) > _SLACK:
            yield f"entry {decision.entry} holds until {decision.expires}, and the record says otherwise"
    for look in report.looks.earlier if report.looks is not None else ():
        when = _time(look.created)
        if when is None or when > created + _SLACK:
            yield f"the earlier look of entry {look.entry} is of {look.created}, after the audit"


def _by_its_log(entries: Mapping[str, bytes], report: AuditReport, inputs: Inputs, created: datetime) -> Iterator[str]:
    log = events(entries.get(LOG, b""))
    times = [_time(event.get("at")) for event in log]
    known = [time for time in times if time is not None]
    if len(known) < len(times):
        yield "a line of the log has no time"
    if not known:
        return
    if any(a > b + _ROUNDED for a, b in zip(known, known[1:], strict=False)):
        yield "a line of the log is of a time before the line that it follows"
    began = known[0] if inputs.understood is None else _time(inputs.understood.began)
    if began is None:
        yield "the request says no time at which the run began"
        return
    if began > known[0] + _ROUNDED:
        yield f"the run began on {began.isoformat()}, after the first line of its log"
    if created < began - _ROUNDED or created < known[0] - _ROUNDED:
        yield f"the record is of {report.created}, and its run began on {began.isoformat(timespec='seconds')}"
    last = next((t for t, e in zip(times, log, strict=True) if e.get("event") == "recorded"), None) or known[-1]
    if created > last + _ROUNDED:
        yield f"the record is of {report.created}, and its log ends on {last.isoformat(timespec='seconds')}"
    elif inputs.understood is not None and timedelta(seconds=report.duration_s) > last - began + _ROUNDED:
        yield f"the run took {report.duration_s:.0f} s, and less passed between its beginning and its record"
    registration = report.registration
    if registration is None or registration.deviations:
        return
    when = _time(registration.registered)
    if when is None or when >= began + timedelta(seconds=1) or when > created:
        yield f"it was registered on {registration.registered}, not before the run, and is said to have been followed"
