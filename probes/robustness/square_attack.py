"""The Square attack: a query-only search for a small input change that alters the score."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from auditor.core.rows import BoolArray, FloatArray, IntArray

# Share of the picture that a square covers, halved after these shares of all queries.
_FIRST_SHARE = 0.8
_HALVED_AT = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


def square_attack(
    low: npt.NDArray[Any],
    high: npt.NDArray[Any],
    ask: Callable[[npt.NDArray[Any], IntArray], tuple[FloatArray, BoolArray]],
    *,
    n_queries: int,
    rng: np.random.Generator,
    start: BoolArray | None = None,
) -> tuple[npt.NDArray[Any], BoolArray]:
    """The changed rows, and whether each evades, after at most ``n_queries`` questions about each.

    low, high (n, height, width, channels) or (n, values): the least and the largest that each value may be, of any
    type. ask: rows, and which of the n they are of, to (m,) numbers that the attack lowers and (m,) whether each will
    do. It starts from vertical stripes of the one and the other (white noise where there is no width), or from the
    largest of the values where ``start``, of the shape of ``low``, is True and the least elsewhere, and then sets
    squares (stretches of values), ever smaller, to either in each channel, keeping what does not raise the number.
    Source: Andriushchenko et al., ECCV 2020, the L-infinity attack and its schedule.
    """
    shape = low.shape
    ends = [t[:, None, :, None] if t.ndim == 2 else t for t in (low, high)]
    n, height, width, channels = ends[0].shape

    def tell(is_upper: BoolArray, indices: IntArray) -> tuple[FloatArray, BoolArray]:
        rows = np.where(is_upper, ends[1][indices], ends[0][indices])
        return ask(rows.reshape(len(indices), *shape[1:]), indices)

    everyone = np.arange(n, dtype=np.int64)
    if start is None:
        start = rng.choice(np.array([False, True]), (n, 1, width, channels))
        above = np.broadcast_to(start, ends[0].shape).copy()
    else:
        above = start.reshape(ends[0].shape).copy()
    best, done = tell(above, everyone) if n else (np.empty(0), np.zeros(0, np.bool_))
    for query in range(1, n_queries):
        active = everyone[~done]
        if not active.size:
            break
        tried = above[active]
        tall, wide = _square(height, width, query / n_queries)
        # Of each row where its square begins, and what each channel is set to: one call for the draws of them all.
        below = np.tile([height - tall + 1, width - wide + 1, *[2] * channels], (active.size, 1))
        drawn = rng.integers(below)
        for row, (top, left), ups in zip(tried, drawn[:, :2].tolist(), drawn[:, 2:].astype(np.bool_), strict=True):
            row[top : top + tall, left : left + wide] = ups
        found, enough = tell(tried, active)
        better = (found <= best[active]) | enough
        above[active[better]] = tried[better]
        best[active[better]] = found[better]
        done[active] = enough
    return np.where(above, ends[1], ends[0]).reshape(shape), done


def _square(height: int, width: int, query_share: float) -> tuple[int, int]:
    """Height and width of the next square after a share of the queries was spent."""
    share = _FIRST_SHARE / 2.0 ** sum(query_share > at for at in _HALVED_AT)
    if height == 1:
        return 1, min(max(1, round(share * width)), width)
    side = min(max(1, round(math.sqrt(share * height * width))), height, width)
    return side, side
