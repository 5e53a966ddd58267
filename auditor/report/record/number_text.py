"""Numbers, names, days and periods as text, identical in every rendering."""

from __future__ import annotations

import calendar
import math
import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from auditor.core.errors import UsageError

if TYPE_CHECKING:
    from auditor.core.files import Number
    from auditor.judging.figure_types import Grade

UNDEFINED = "undefined"

# Format characters reorder or hide text, surrogates and private-use characters have no agreed look: a name that holds
# them must not be able to pass for another name.
_NEUTRALISED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_MOST_MARKS = 3


def visible(text: str) -> str:
    """Text with control, bidirectional and other invisible characters as visible escapes, such as ``\\u202e``.

    Of a run of combining marks the first three stay, since a stack of them covers the lines around it.
    """
    if text.isascii() and text.isprintable():
        return text
    out: list[str] = []
    marks = 0
    for char in text:
        category = unicodedata.category(char)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if category in _NEUTRALISED or marks > _MOST_MARKS:
            code = ord(char)
            out.append(_SHORT_ESCAPES.get(char) or (f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"))
        else:
            out.append(char)
    return "".join(out)


def shortened(text: str, limit: int) -> str:
    """At most ``limit`` characters; an ellipsis replaces the rest."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def number(x: Number) -> str:
    """Three significant digits, such as ``0.100``, ``12,300`` or ``1.20e-05``; no number is ``undefined``, never 0."""
    if x is None or not math.isfinite(x):
        return UNDEFINED
    if x == 0:
        return "0"
    rounded = float(f"{x:.3g}")
    size = abs(rounded)
    if size >= 1e9 or size < 1e-4:
        return f"{x:.2e}".replace("-", "−")
    if size >= 100:
        return f"{rounded:,.0f}".replace("-", "−")
    return f"{x:#.3g}".replace("-", "−")


def count(n: int | None) -> str:
    """A whole number with thousands separated; none is ``undefined``."""
    return UNDEFINED if n is None else f"{n:,}"


def plural(n: int, one: str, plural_form: str = "") -> str:
    """``1 finding``, ``2 findings``."""
    return f"{count(n)} {one if n == 1 else plural_form or one + 's'}"


def percent(share: Number) -> str:
    """A share in per cent, such as ``5 %``."""
    return UNDEFINED if share is None else f"{100 * share:.3g}\N{NO-BREAK SPACE}%"


def confidence(level: Number) -> str:
    """A confidence level with two digits of its complement, such as ``95 %`` or ``99.17 %``, never rounded to 100."""
    if level is None:
        return UNDEFINED
    missed = 100.0 * (1.0 - level)
    digits = 0 if missed <= 0 else max(0, math.ceil(-math.log10(missed))) + 1
    shown = f"{100.0 * level:.{digits}f}"
    return (shown.rstrip("0").rstrip(".") if "." in shown else shown) + "\N{NO-BREAK SPACE}%"


def interval(ends: tuple[Number, Number] | None) -> str:
    """Both ends, such as ``0.031 to 0.124``; a missing end is described in words."""
    if ends is None:
        return ""
    low, high = ends
    if low is None and high is None:
        return "no bounds"
    if low is None:
        return f"at most {number(high)}"
    return f"at least {number(low)}" if high is None else f"{number(low)} to {number(high)}"


def p_value(p: Number) -> str:
    """A p-value: ``< 0.0001`` below that, ``> 0.5`` if not computed further."""
    if p is None:
        return ""
    if p < 0.0001:
        return "< 0.0001"
    # The estimates give anything above one half as 1, because no judgement reads it.
    return "> 0.5" if p >= 1.0 else f"{p:.2g}"


def signed(value: float | None) -> str:
    """``+0.420``, ``−0.100``, ``0`` or ``undefined``."""
    shown = number(value)
    return "+" + shown if value is not None and value > 0.0 else shown


def grade(grade_record: Grade) -> str:
    """A grade in words: its value, else the reason for its absence."""
    return number(grade_record.value) if grade_record.value is not None else grade_record.words or "not measured"


def grade_interval(grade_record: Grade) -> str:
    """The grade's interval in words, "" without one."""
    known = grade_record.value is not None and (grade_record.low is not None or grade_record.high is not None)
    return interval((grade_record.low, grade_record.high)) if known else ""


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
