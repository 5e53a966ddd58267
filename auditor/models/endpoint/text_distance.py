"""Comparison of answers: the distance of two reported distributions, and the point where two texts diverge."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from auditor.models.endpoint.api_messages import Choice, Position

# Of a likelier token's lead in nats: below it, rounding decides which of two is the likeliest.
TIE = 0.1


def distances(a: Choice, b: Choice, positions: int = 4) -> list[float]:
    """Differences of log-probabilities (nats) of the same tokens, over the first few positions of both.

    A token that only one of them reports among its likeliest lies as far as it is there above the other's last one, at
    the least. Positions after the first token that differs have other contexts, and are left out. Empty where one of
    both reports nothing.
    """
    found: list[float] = []
    for first, second in zip((a.positions or ())[:positions], (b.positions or ())[:positions], strict=False):
        found += _log_probability_gaps(first, second)
        if first.token != second.token:
            break
    return found


def _log_probability_gaps(first: Position, second: Position) -> list[float]:
    one, other = dict(first.top), dict(second.top)
    if not one or not other:
        return []
    least = max(min(one.values()), min(other.values()))
    found = []
    for token in one.keys() | other.keys():
        values = [max(side.get(token, least), least) for side in (one, other)]
        found.append(abs(values[0] - values[1]))
    return found


def farthest(values: Sequence[float]) -> float | None:
    """The largest distance; None where nothing was reported."""
    return max(values) if values else None


def typical(values: Sequence[float]) -> float | None:
    """The median distance; None where nothing was reported."""
    return float(np.median(values)) if values else None


def common_start(a: Choice, b: Choice) -> tuple[int, float]:
    """The number of shared first tokens of two texts, and the log-probability in nats of drawing these."""
    n, total = 0, 0.0
    for first, second in zip(a.positions or (), b.positions or (), strict=False):
        if first.token != second.token or first.log_probability is None:
            break
        n, total = n + 1, total + first.log_probability
    return n, total


def lead(position: Position) -> float:
    """Log-probability lead in nats of the likeliest reported token over the actual one; infinite if unknown."""
    if not position.top or position.log_probability is None:
        return math.inf
    return position.top[0][1] - position.log_probability


def spelled(choice: Choice) -> str:
    """The tokens of an answer, joined."""
    return "".join(position.token for position in choice.positions or ())
