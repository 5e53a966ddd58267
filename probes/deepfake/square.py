"""The Square attack: a search for a small change of a file that alters a score, by asking the model alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from auditor.rows import FloatArray

BoolArray = npt.NDArray[np.bool_]
# Share of the picture that a square covers, halved after these shares of all queries.
_FIRST_SHARE = 0.8
_HALVED_AT = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


def square_attack(
    rows: npt.NDArray[Any],
    score: Callable[[npt.NDArray[Any]], FloatArray],
    evaded: Callable[[FloatArray], BoolArray],
    *,
    radius: int,
    n_queries: int,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[Any], BoolArray]:
    """The changed rows, and whether each evades, after at most ``n_queries`` questions about each.

    rows (n, height, width, channels) uint8 or (n, samples) int16; no value is moved by more than ``radius`` of its own
    unit. score: rows to (m,) numbers that the attack lowers; evaded: scores to whether that will do. It starts from
    vertical stripes of +-radius (white noise in sound), and then sets squares (stretches of sound), ever smaller, to
    +-radius in each channel, keeping what lowers the score. Source: Andriushchenko et al., ECCV 2020, the
    L-infinity attack and its schedule.
    """
    shape = rows.shape
    x = rows.reshape(len(rows), 1, -1, 1) if rows.ndim == 2 else rows
    limits = np.iinfo(rows.dtype)
    n, height, width, channels = x.shape

    def moved(change: npt.NDArray[np.int32], which: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        whole: npt.NDArray[Any] = np.clip(x[which].astype(np.int32) + change, limits.min, limits.max)
        return whole.astype(rows.dtype)

    def ask(candidates: npt.NDArray[Any]) -> FloatArray:
        return score(candidates.reshape(len(candidates), *shape[1:]))

    everyone = np.arange(n, dtype=np.int64)
    stripes = rng.choice(np.array([-radius, radius], np.int32), (n, 1, width, channels))
    change = np.broadcast_to(stripes, x.shape).astype(np.int32)
    best = ask(moved(change, everyone)) if n else np.empty(0)
    done = evaded(best)
    for query in range(1, n_queries):
        active = everyone[~done]
        if not active.size:
            break
        tried = change[active].copy()
        tall, wide = _square(height, width, query / n_queries)
        for row in tried:
            top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
            row[top : top + tall, left : left + wide] = rng.choice(np.array([-radius, radius], np.int32), channels)
        found = ask(moved(tried, active))
        better = found < best[active]
        change[active[better]] = tried[better]
        best[active[better]] = found[better]
        done[active] = evaded(best[active])
    return moved(change, everyone).reshape(shape), done


def _square(height: int, width: int, spent: float) -> tuple[int, int]:
    """Height and width of the next square after a share of the queries was spent."""
    share = _FIRST_SHARE / 2.0 ** sum(spent > at for at in _HALVED_AT)
    if height == 1:
        return 1, min(max(1, round(share * width)), width)
    side = min(max(1, round(math.sqrt(share * height * width))), height, width)
    return side, side
