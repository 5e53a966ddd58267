"""Slice search: every combination of columns counted once, locally or, if expensive, as pure tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, islice
from math import comb

import numpy as np

from auditor.core.files import Closed
from auditor.core.rows import FloatArray, IntArray
from auditor.training.task_executor import Tasks, lent_executor

Combination = tuple[int, ...]
# The best of one combination that are kept.
_KEPT = 50
# Rows times combinations: of fewer the search takes seconds, and a task as much as it saves.
LONG, _OF_A_TASK = 1_000_000_000, 250_000_000


@dataclass(frozen=True, eq=False)
class Searched:
    """The input of a slice search.

    ``codes``: of each column, (n,) into ``sizes`` levels, of which the last is no condition where ``rests`` says
    so. ``pattern`` (n,): which of the patterns of (of, bad) over the rates a row has, ``digits`` (n_patterns,
    n_rates): what each says of a rate, 0 not of it, 1 of it, 2 bad. ``depth``: conditions at most; ``min_rows``:
    inside and outside of a slice.
    """

    codes: Sequence[IntArray]
    sizes: tuple[int, ...]
    rests: tuple[bool, ...]
    pattern: IntArray
    digits: IntArray
    depth: int
    min_rows: int

    @property
    def n_combinations(self) -> int:
        """The number of combinations of one to ``depth`` columns."""
        return sum(comb(len(self.sizes), d) for d in range(1, self.depth + 1))

    def combinations(self) -> Iterator[Combination]:
        """The combinations in the order for ties between slices: those with fewer conditions first."""
        return chain.from_iterable(combinations(range(len(self.sizes)), d) for d in range(1, self.depth + 1))


@dataclass(frozen=True, eq=False)
class Found:
    """The best slices of each combination, (k,) each: pooled z, the number of the combination, the cell, the rate."""

    z: FloatArray
    combination: IntArray
    cell: IntArray
    rate: IntArray


def search(searched: Searched) -> Found:
    """All slices with a worse rate inside than outside; independent of the executor.

    Raises what an executor raises.
    """
    n, executor = searched.n_combinations, lent_executor()
    work = n * len(searched.pattern)
    if executor is None or work < LONG:
        return _search_range(searched, 0, n)
    parts = np.array_split(np.arange(n), min(n, -(-work // _OF_A_TASK)))
    ranges = [(int(part[0]), int(part[-1]) + 1) for part in parts]
    found = {i: _unpack_result(result) for i, result in executor.results(search_tasks(searched, ranges))}
    return _concatenate([found[i] for i in range(len(ranges))])


def _search_range(searched: Searched, start: int, stop: int) -> Found:
    n_kinds, min_rows = len(searched.digits), searched.min_rows
    of, bad = searched.digits > 0, searched.digits == 2
    totals = np.bincount(searched.pattern, minlength=n_kinds)
    all_of, all_bad = totals @ of, totals @ bad
    parts = []
    for number, combination in enumerate(islice(searched.combinations(), start, stop), start):
        shape = tuple(searched.sizes[c] for c in combination)
        cells = np.zeros(len(searched.pattern), np.int64)
        for c in combination:
            cells = cells * searched.sizes[c] + searched.codes[c]
        size = int(np.prod(shape))
        counts = np.bincount(cells * n_kinds + searched.pattern, minlength=size * n_kinds).reshape(size, n_kinds)
        z = _pooled_z(counts @ bad, counts @ of, all_bad, all_of, min_rows)
        allowed = np.ones(shape, bool)
        for axis, c in enumerate(combination):
            if searched.rests[c]:
                allowed[(slice(None),) * axis + (-1,)] = False
        z[~allowed.reshape(-1)] = -np.inf
        cell, rate = np.nonzero(z > 1.0)
        best = np.argsort(-z[cell, rate], kind="stable")[:_KEPT]
        cell, rate = cell[best], rate[best]
        parts.append(Found(z[cell, rate], np.full(len(cell), number), cell, rate))
    return _concatenate(parts)


def _concatenate(parts: Sequence[Found]) -> Found:
    def whole(select: Callable[[Found], IntArray]) -> IntArray:
        return np.concatenate([np.zeros(0, np.int64), *map(select, parts)]).astype(np.int64)

    z = np.concatenate([np.zeros(0), *(part.z for part in parts)])
    return Found(z, whole(lambda p: p.combination), whole(lambda p: p.cell), whole(lambda p: p.rate))


def _pooled_z(bad: IntArray, totals: IntArray, all_bad: IntArray, all_of: IntArray, min_rows: int) -> FloatArray:
    """(n_cells, n_rates) ``(p_in - p_out) / sqrt(p (1 - p) (1/n_in + 1/n_out))``; -inf where rows are too few."""
    outside = all_of - totals
    pooled = all_bad / np.maximum(all_of, 1)
    enough = (totals >= min_rows) & (outside >= min_rows) & (pooled > 0) & (pooled < 1)
    inside_n, outside_n = np.maximum(totals, 1), np.maximum(outside, 1)
    error = np.sqrt(pooled * (1.0 - pooled) * (1.0 / inside_n + 1.0 / outside_n))
    z = (bad / inside_n - (all_bad - bad) / outside_n) / np.where(error > 0, error, 1.0)
    return np.asarray(np.where(enough, z, -np.inf), np.float64)


# ---- as bytes ------------------------------------------------------------------------------------------------------


class _Shared(Closed):
    """What all tasks of one search have in common, beside the arrays."""

    sizes: tuple[int, ...]
    rests: tuple[bool, ...]
    depth: int
    min_rows: int


class _Range(Closed):
    """The combinations of one task, by their numbers."""

    start: int
    stop: int


def search_tasks(searched: Searched, ranges: Sequence[tuple[int, int]]) -> Tasks:
    """The search as tasks, of so many combinations each."""
    import torch

    from auditor.training.task_encoding import pack_message

    small = np.uint8 if max(searched.sizes) <= 256 else np.int32
    shared = _Shared(sizes=searched.sizes, rests=searched.rests, depth=searched.depth, min_rows=searched.min_rows)
    arrays = {
        "codes": np.stack([codes.astype(small) for codes in searched.codes]),
        "pattern": searched.pattern,
        "digits": searched.digits,
    }
    each = tuple(pack_message(_Range(start=start, stop=stop)) for start, stop in ranges)
    return Tasks(
        "slices", pack_message(shared, **{name: torch.from_numpy(array) for name, array in arrays.items()}), each
    )


def done(common_bytes: bytes, task_bytes: bytes) -> bytes:
    """Count the combinations of one task.

    Raises UsageError for what is none.
    """
    import torch

    from auditor.training.task_encoding import pack_message, unpack_message

    said, arrays = unpack_message(_Shared, common_bytes)
    part, _ = unpack_message(_Range, task_bytes)
    searched = Searched(
        codes=list(arrays["codes"].numpy()),
        sizes=said.sizes,
        rests=said.rests,
        pattern=arrays["pattern"].numpy(),
        digits=arrays["digits"].numpy(),
        depth=said.depth,
        min_rows=said.min_rows,
    )
    found = _search_range(searched, part.start, part.stop)
    return pack_message(part, **{name: torch.from_numpy(array) for name, array in vars(found).items()})


def _unpack_result(result: bytes) -> Found:
    from auditor.training.task_encoding import unpack_message

    _, arrays = unpack_message(_Range, result)
    return Found(**{name: arrays[name].numpy() for name in ("z", "combination", "cell", "rate")})
