"""The positions of a number, its interval and its limit on one axis, and the excess over the limit."""

from __future__ import annotations

import math
from dataclasses import dataclass

from auditor.judging.measurement import Outcome
from auditor.report.record.audit_report import Finding


@dataclass(frozen=True)
class Axis:
    """A number on an axis: all positions as shares of the width, ``allowed`` as an interval."""

    low: float
    high: float
    value: float
    allowed: tuple[float, float]
    bounds: tuple[float, ...]
    alt: str


def axis_of(f: Finding, width: float | None, alt: str) -> Axis | None:
    """The axis of a finding: 0 to ``width`` for shares, which have a common scale; else its own range.

    None where nothing is required, or nothing was measured. ``alt``: what it shows, in words.
    """
    limits = _limits(f)
    if limits is None or f.interval is None or f.value is None:
        return None
    ends = [x for x in (*f.interval, f.value, *limits, f.ideal) if x is not None and math.isfinite(x)]
    first, last = (min(0.0, *ends), max(width, *ends)) if width else (min(ends), max(ends))
    if not width:
        room = 0.08 * (last - first) or 1.0
        first, last = first - room, last + room
    span = (last - first) or 1.0

    def axis_place(x: float | None, missing: float) -> float:
        return missing if x is None or not math.isfinite(x) else min(max((x - first) / span, 0.0), 1.0)

    return Axis(
        low=axis_place(f.interval[0], 0.0),
        high=axis_place(f.interval[1], 1.0),
        value=axis_place(f.value, 0.0),
        allowed=(axis_place(limits[0], 0.0), axis_place(limits[1], 1.0)),
        bounds=tuple(axis_place(x, 0.0) for x in limits if x is not None),
        alt=alt,
    )


def _limits(f: Finding) -> tuple[float | None, float | None] | None:
    """The least and the largest that is allowed; None where nothing is required."""
    if f.criterion is None:
        return None
    bound = f.criterion.bound
    if isinstance(bound, tuple | list):
        return float(bound[0]), float(bound[1])
    return (None, float(bound)) if f.criterion.direction == "at_most" else (float(bound), None)


def reach(f: Finding) -> float:
    """The right end of a finding on its axis: its value, its interval and its limit."""
    ends = (*(f.interval or ()), f.value, *(_limits(f) or ()))
    return max([x for x in ends if x is not None and math.isfinite(x)], default=0.0)


def excess(f: Finding) -> float:
    """Excess of a value over its limit, in units of the distance from limit to ideal; below 0 within it."""
    limits = _limits(f)
    if limits is None or f.value is None:
        return math.inf if f.outcome is Outcome.NOT_RUN else -math.inf
    beyond = [f.value - limits[1]] if limits[1] is not None else []
    beyond += [limits[0] - f.value] if limits[0] is not None else []
    room = max((abs(x - (f.ideal or 0.0)) for x in limits if x is not None), default=0.0)
    return max(beyond) / (room or 1.0)
