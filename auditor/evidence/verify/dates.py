"""Verification of a bundle's dates: their order, and its timestamp against trusted roots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from auditor.core.errors import DataError, MissingExtraError
from auditor.evidence.manifest import LOG, TIMESTAMP, events
from auditor.evidence.timestamp import Authorities, covered, holds, is_of, read_token
from auditor.evidence.verify.checks import Check, Unproven, Verified
from auditor.evidence.verify.enclosed_inputs import Inputs
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.number_text import visible

_DATES = "dates"
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
    checks = [Check(name=_DATES, state="wrong", detail=detail) for detail in wrong[:10]]
    if not wrong:
        detail = "the run, its log, its record and all that was set or decided before can have come in this order"
        checks.append(Check(name=_DATES, state="ok", detail=detail))
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


_STAMP = "timestamp"
# What the clocks of an auditor and of an authority may differ by.
LEEWAY = timedelta(minutes=5)
# How long after an audit its bundle may be stamped and its date be proven by that.
PROMPT = timedelta(hours=1)
_CREATED = "record.json: created"


@dataclass(frozen=True)
class Stamped:
    """A bundle's timestamp check: None if there is none, and the time that it proves, if any."""

    check: Check | None = None
    at: datetime | None = None


def check_timestamp(
    entries: Mapping[str, bytes], report: AuditReport | None, authorities: Authorities | None
) -> Stamped:
    """Check that a bundle existed at its timestamp's time, and that its dates are not later.

    The dates are that of the record and those of the log; ``LEEWAY`` is what clocks may differ by.
    """
    content = entries.get(TIMESTAMP)
    if content is None:
        return Stamped() if authorities is None else _wrong("it has no timestamp, and one was expected")
    try:
        token = read_token(content)
    except DataError as error:
        return _wrong(str(error))
    except MissingExtraError as error:
        return _open(str(error).rstrip("."))
    if not is_of(token, covered(entries)):
        return _wrong("it is about something else than this bundle")
    if authorities is None:
        said = f"it says {_in_words(token.at)}, by the clock of {visible(token.by)[:120]}"
        return _open(f"{said}: whether that is one to trust, only --tsa-root FILE can tell")
    if why := holds(token, covered(entries), authorities):
        return _wrong(f"it does not hold: {why}")
    late = [f"{what} is of {_in_words(at)}" for what, at in _dates(entries, report).items() if at > token.at + LEEWAY]
    if late:
        return _wrong(
            f"{late[0]}, more than {LEEWAY.seconds // 60} minutes after {_in_words(token.at)}, when it was there"
        )
    detail = f"it was there at {_in_words(token.at)}, by the clock of {visible(token.by)[:120]} (policy {token.policy})"
    return Stamped(Check(name=_STAMP, state="ok", detail=detail), token.at)


def dated(verification: Verified, moment: datetime, entries: Mapping[str, bytes]) -> Verified:
    """The dates proven by existence of a bundle ``moment`` a time: the record's, or its log's last, to ``PROMPT``.

    Whoever asks an authority much later may have dated the record back by as much. That other things were done when
    they are said to have been done, no timestamp of the bundle can tell.
    """
    dates = _dates(entries, verification.report)
    created = next(iter(dates.values() if verification.report is not None else reversed(dates.values())), None)
    if created is None or moment - created > PROMPT:
        there = _in_words(moment)
        why = f"the bundle is only known to have been there at {there}: before, its dates are the signer's word"
        return replace(
            verification, unproven=(*verification.unproven, Unproven(where=_CREATED, why=why, needs="timestamp"))
        )
    others = [each for each in verification.unproven if each.needs == "timestamp" and each.where != _CREATED]
    why = "when it was done is the signer's word: the timestamp tells by when the bundle was there, and no more"
    stated = tuple(Unproven(where=each.where, why=why) for each in others)
    settled = verification.settled("timestamp")
    return replace(settled, unproven=(*settled.unproven, *stated))


def _dates(entries: Mapping[str, bytes], report: AuditReport | None) -> dict[str, datetime]:
    found = {} if report is None else {"the record": report.created}
    found |= {f"line {i} of the log": str(e.get("at")) for i, e in enumerate(events(entries.get(LOG, b"")))}
    return {what: at for what, text in found.items() if (at := _parse_date(text)) is not None}


def _parse_date(text: str) -> datetime | None:
    """A date as evidence writes it; what is none is said where the log and the record are checked."""
    try:
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _in_words(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _wrong(detail: str) -> Stamped:
    return Stamped(Check(name=_STAMP, state="wrong", detail=detail))


def _open(detail: str) -> Stamped:
    return Stamped(Check(name=_STAMP, state="not checked", detail=detail))
