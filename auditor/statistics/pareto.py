"""The Pareto front of points on several axes, by the values and by whole intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from auditor.statistics.estimate import Estimate


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A number and its interval; NaN and None if undefined."""

    value: float
    interval: tuple[float, float] | None

    @classmethod
    def from_estimate(cls, estimate: Estimate, alpha: float) -> Measured:
        """A number with one-sided bounds at ``alpha`` each."""
        value = estimate.value
        low, high = estimate.bounds(alpha)
        known = math.isfinite(value) and math.isfinite(low) and math.isfinite(high)
        return cls(value=value if known else math.nan, interval=(low, high) if known else None)


def dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether the first is at least as good on all axes and better on one (larger is better); never with NaN."""
    a, b = np.asarray(first, float), np.asarray(second, float)
    return bool((a >= b).all() and (a > b).any())


def dominating(name: str, places: Mapping[str, tuple[Measured, ...]], directions: Sequence[float]) -> str:
    """The name of a point that dominates this one, on the front itself if possible; else ""."""
    if name not in places:
        return ""
    values = {other: [sign * p.value for sign, p in zip(directions, at, strict=True)] for other, at in places.items()}
    better = [other for other in values if dominates(values[other], values[name])]
    front = [o for o in better if not any(dominates(values[k], values[o]) for k in values)]
    return next(iter(front or better), "")


def shown_dominated(name: str, places: Mapping[str, tuple[Measured, ...]], directions: Sequence[float]) -> bool:
    """Whether another point's whole interval is better on every axis."""
    if name not in places:
        return False

    def clear(best: Measured, worst: Measured, sign: float) -> bool:
        if best.interval is None or worst.interval is None:
            return False
        return best.interval[0] > worst.interval[1] if sign > 0.0 else best.interval[1] < worst.interval[0]

    return any(
        all(clear(p, q, sign) for p, q, sign in zip(at, places[name], directions, strict=True))
        for other, at in places.items()
        if other != name
    )
