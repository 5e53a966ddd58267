"""Shared parts of the report figures: findings with measurements, text for a series, labels of grades."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from auditor.judging.figure_types import ColouredText, Series, Standing
from auditor.judging.judgement import Judgement
from auditor.judging.measurement import Measurement
from auditor.report.record.number_text import UNDEFINED, confidence, number

_T = TypeVar("_T")
_K = TypeVar("_K")


@dataclass(frozen=True)
class Point:
    """A finding with its known measurement."""

    finding: Judgement
    measurement: Measurement

    @property
    def value(self) -> float | None:
        return finite(self.measurement.estimate.value)

    @property
    def low(self) -> float | None:
        return finite(self.finding.interval[0]) if self.finding.interval else None

    @property
    def high(self) -> float | None:
        return finite(self.finding.interval[1]) if self.finding.interval else None

    @property
    def in_unit_range(self) -> bool:
        return all(x is None or 0.0 <= x <= 1.0 for x in (self.value, self.low, self.high))


def gather(items: Iterable[_T], key: Callable[[_T], _K]) -> dict[_K, list[_T]]:
    """The items by their key, each in the order in which it was first met."""
    gathered: dict[_K, list[_T]] = {}
    for item in items:
        gathered.setdefault(key(item), []).append(item)
    return gathered


def finite(x: float | None) -> float | None:
    """The number, or None if it is not finite."""
    return x if x is not None and math.isfinite(x) else None


def series_of(name: str, points: Sequence[Point], x: Sequence[str | float]) -> Series:
    """A series of findings at these places, with the findings' own intervals."""
    return Series(
        name=name,
        x=tuple(x),
        y=tuple(p.value for p in points),
        low=tuple(p.low for p in points),
        high=tuple(p.high for p in points),
    )


def intervals_said(points: Sequence[Point]) -> str:
    """The confidence level of the intervals, in a sentence."""
    levels = sorted({p.finding.confidence for p in points if p.finding.confidence is not None and p.low is not None})
    if not levels:
        return "No intervals are known."
    if confidence(levels[0]) == confidence(levels[-1]):
        return f"Intervals at {confidence(levels[0])} confidence."
    return f"Intervals at {confidence(levels[0])} to {confidence(levels[-1])} confidence, as decided for each."


def said_of(series: Series) -> str:
    """Every number of a series with its interval, in words."""
    parts: list[str] = []
    for i, (x, y) in enumerate(zip(series.x, series.y, strict=True)):
        name = f"{x:g}" if isinstance(x, float) else str(x)
        low, high = (ends[i] if i < len(ends) else None for ends in (series.low, series.high))
        bounds = f" ({number(low)} to {number(high)})" if y is not None and low is not None and high is not None else ""
        parts.append(f"{name} {UNDEFINED if y is None else number(y)}{bounds}")
    return ", ".join(parts)


def in_words(name: str) -> str:
    """A name of the code as words."""
    return name.replace("_", " ")


def without_ids(text: str, names: Iterable[str | None]) -> str:
    """The text with those of the names that are ids of the code as words."""
    for name in sorted({name for name in names if name and "_" in name}, key=len, reverse=True):
        text = text.replace(name, in_words(name))
    return text


def capital(text: str) -> str:
    """The text with its first letter as a capital."""
    return text[:1].upper() + text[1:]


STANDINGS: dict[Standing, str] = {
    "shown": "shown",
    "reserved": "shown, with reservations",
    "forced": "shown by request, unearned",
    "refused": "refused",
    "ranked": "ranked behind",
    "compared": "for comparison",
    "not_applicable": "not applicable",
}
# Below a twentieth of the largest value a word is not coloured at all.
_FAINT = 0.05


def scale_of(texts: Sequence[ColouredText]) -> float:
    """The value of the strongest colour, which all texts of a figure share; 0 where nothing has a value."""
    return max((t.largest for t in texts), default=0.0)


def strength(value: float | None, scale: float) -> int:
    """Colour strength of a word: 1 to 4 for, -1 to -4 against, 0 if negligible or unknown."""
    if value is None or not scale or abs(value) < _FAINT * scale:
        return 0
    level = min(4, max(1, math.ceil(4.0 * abs(value) / scale)))
    return level if value > 0.0 else -level
