"""Times as text: repetition periods such as ``365d`` or ``6m``, days, and moments."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from auditor.core.errors import UsageError

_WRITTEN = re.compile(r"([1-9]\d{0,4}) ?(d|w|m|y)")
_EXAMPLES = "write it like 365d, 26w, 6m or 1y"


@dataclass(frozen=True)
class Period:
    """A number of days, or of calendar months, of which a short one ends on its last day."""

    days: int = 0
    months: int = 0

    def end_date(self, day: date) -> date:
        """The last day of the period; the calendar's last day if it would be later."""
        try:
            if not self.months:
                return day + timedelta(days=self.days)
            year, month = divmod(day.year * 12 + day.month - 1 + self.months, 12)
            return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))
        except (OverflowError, ValueError):
            return date.max


def period_of(text: str, subject: str) -> Period:
    """A period from text. Raises UsageError, which names ``subject`` was said."""
    found = _WRITTEN.fullmatch(text.strip().lower())
    if found is None:
        raise UsageError(f"{subject} {text!r} is no length of time: {_EXAMPLES}.")
    n = int(found[1])
    return {"d": Period(days=n), "w": Period(days=7 * n), "m": Period(months=n), "y": Period(months=12 * n)}[found[2]]


def day_of(text: str, subject: str) -> date:
    """A day from text. Raises UsageError, which names ``subject`` was said."""
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"{subject} {text!r} is no date: write it like 2027-01-31.") from None


def known_day(text: str) -> date | None:
    """The day in a text; None if it has none."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def moment_of(text: str) -> datetime | None:
    """The moment in a text, with its time zone, UTC by default; None if it has none."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)
