"""Coalition games on the units of samples: each coalition is scored once; contributions by random walks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from auditor.core.rows import BoolArray, FloatArray, IntArray

Score = Callable[[IntArray, BoolArray], FloatArray]
K = TypeVar("K")
# Of texts of a language model some hundred megabytes.
_MOST_KNOWN = 1 << 18


def each_once(ask: Callable[[Sequence[K]], Mapping[K, float]]) -> Callable[[Sequence[K]], list[float]]:
    """A cached version of a query by keys: each key is queried once, up to a limit of known keys."""
    known: dict[K, float] = {}

    def score_once(keys: Sequence[K]) -> list[float]:
        if len(known) > _MOST_KNOWN:
            known.clear()
        new = [key for key in dict.fromkeys(keys) if key not in known]
        known.update(ask(new) if new else {})
        return [known[key] for key in keys]

    return score_once


def asked_once(score: Score) -> Score:
    """Cached scores of samples (m,) with only these units (m, d) left."""
    known: dict[tuple[int, bytes], float] = {}

    def ask(rows: IntArray, keep: BoolArray) -> FloatArray:
        packed = np.packbits(keep, axis=1)
        keys = [(row, k.tobytes()) for row, k in zip(rows.tolist(), packed, strict=True)]
        new = {key: place for place, key in reversed(list(enumerate(keys))) if key not in known}
        if new:
            places = np.sort(list(new.values()))
            known.update(zip((keys[p] for p in places), score(rows[places], keep[places]).tolist(), strict=True))
        return np.asarray([known[key] for key in keys])

    return ask


def shapley_by_walks(
    score: Score, present: BoolArray, n_walks: int, seeds: Sequence[int], *, at_once: int
) -> FloatArray:
    """(n, d) each ``present`` unit's, (n, d), contribution to its sample's score, over so many walks.

    In each the units come one by one, in an order that is drawn, and go in the same. The draws, from a sample's own
    ``seeds`` (n,), and the values are those of shap's PermutationExplainer. ``at_once``: questions put together.
    """
    n, d = present.shape
    values = np.zeros((n, d))
    together = max(1, at_once // (2 * d + 1))
    for start in range(0, n, together):
        rows = [i for i in range(start, min(start + together, n)) if present[i].any()]
        if rows:
            values[rows] = _walked(asked_once(score), rows, present, n_walks, seeds)
    return values


def _walked(ask: Score, rows: Sequence[int], present: BoolArray, n_walks: int, seeds: Sequence[int]) -> FloatArray:
    orders = [np.flatnonzero(present[i]) for i in rows]
    draws = [np.random.RandomState(seeds[i]) for i in rows]
    added = np.zeros((len(rows), present.shape[1]))
    for _ in range(n_walks):
        walks = []
        for own, order in zip(draws, orders, strict=True):
            own.shuffle(order)
            came = np.tri(len(order), len(order), -1, dtype=bool)
            keep = np.zeros((2 * len(order) + 1, present.shape[1]), bool)
            keep[: len(order), order], keep[len(order) : -1, order] = came, ~came
            walks.append(keep)
        lengths = [len(keep) for keep in walks]
        scores = np.split(ask(np.repeat(rows, lengths), np.concatenate(walks)), np.cumsum(lengths)[:-1])
        for place, (order, found) in enumerate(zip(orders, scores, strict=True)):
            steps = np.diff(found)
            added[place, order] += steps[: len(order)]
            added[place, order] -= steps[len(order) :]
    return added / (2 * n_walks)
