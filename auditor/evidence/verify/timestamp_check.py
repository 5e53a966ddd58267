"""Verification of a bundle's time: its timestamp against trusted roots, and its dates against the timestamp."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from auditor.core.errors import DataError, MissingExtraError
from auditor.evidence.manifest import LOG, TIMESTAMP, events
from auditor.evidence.timestamp import Authorities, covered, holds, is_of, read_token
from auditor.evidence.verify.checks import Check, Unproven, Verified
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.number_text import visible

NAME = "timestamp"
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
        said = f"it says {_time(token.at)}, by the clock of {visible(token.by)[:120]}"
        return _open(f"{said}: whether that is one to trust, only --tsa-root FILE can tell")
    if why := holds(token, covered(entries), authorities):
        return _wrong(f"it does not hold: {why}")
    late = [f"{what} is of {_time(at)}" for what, at in _dates(entries, report).items() if at > token.at + LEEWAY]
    if late:
        return _wrong(f"{late[0]}, more than {LEEWAY.seconds // 60} minutes after {_time(token.at)}, when it was there")
    detail = f"it was there at {_time(token.at)}, by the clock of {visible(token.by)[:120]} (policy {token.policy})"
    return Stamped(Check(name=NAME, state="ok", detail=detail), token.at)


def dated(verification: Verified, moment: datetime, entries: Mapping[str, bytes]) -> Verified:
    """The dates proven by existence of a bundle ``moment`` a time: the record's, or its log's last, to ``PROMPT``.

    Whoever asks an authority much later may have dated the record back by as much. That other things were done when
    they are said to have been done, no timestamp of the bundle can tell.
    """
    dates = _dates(entries, verification.report)
    created = next(iter(dates.values() if verification.report is not None else reversed(dates.values())), None)
    if created is None or moment - created > PROMPT:
        why = f"the bundle is only known to have been there at {_time(moment)}: before, its dates are the signer's word"
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


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _wrong(detail: str) -> Stamped:
    return Stamped(Check(name=NAME, state="wrong", detail=detail))


def _open(detail: str) -> Stamped:
    return Stamped(Check(name=NAME, state="not checked", detail=detail))
