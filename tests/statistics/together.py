"""Worlds side by side: where each of them searches for a bound, the searches of all are made at once.

A search of one world looks at a pair of groups or a few, and takes as long as that of a hundred worlds in one array. So
every world is a thread of its own, of which one runs at a time until it has a search to make; when all that are left
have one, these are made together. What a world does, and in which order, is what it does alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pytest

from auditor.core.rows import FloatArray
from auditor.statistics import changes, combined_tails, groups, rate_pairs, tradeoff_statistics
from auditor.statistics.combined_tails import Pairs
from tests.statistics.worlds import Asked, _of_changes, _of_pairs, _of_sums

T = TypeVar("T")
# Worlds at a time: more are hardly faster, and each holds what it has computed so far.
_AT_ONCE = 100


def together(worlds: Sequence[Callable[[], T]]) -> list[T]:
    """What each world comes to. What is drawn at random is drawn before: their order here is nobody's."""
    found: list[T] = []
    for start in range(0, len(worlds), _AT_ONCE):
        with pytest.MonkeyPatch.context() as patch:
            for module, name, asked in _SEARCHES:
                patch.setattr(module, name, _search(name, getattr(module, name), asked))
            found += _side_by_side(worlds[start : start + _AT_ONCE])
    return found


class _World(threading.Thread):
    """One world, which stands still from each of its searches until that is answered."""

    def __init__(self, world: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.world, self.go, self.stands = world, threading.Semaphore(0), threading.Semaphore(0)
        self.asks: tuple[str, Callable[..., FloatArray], Asked] | None = None
        self.answer: FloatArray | None = None
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        self.go.acquire()
        try:
            self.result = self.world()
        except BaseException as error:
            self.error = error
        self.asks = None
        self.stands.release()

    def on(self) -> None:
        """Until it stands again, or has ended."""
        self.go.release()
        self.stands.acquire()

    def wait_for(self, name: str, real: Callable[..., FloatArray], asked: Asked) -> FloatArray:
        self.asks = name, real, asked
        self.stands.release()
        self.go.acquire()
        assert self.answer is not None
        return self.answer


def _side_by_side(worlds: Sequence[Callable[[], T]]) -> list[T]:
    threads = [_World(world) for world in worlds]
    for thread in threads:
        thread.start()
        thread.on()
    while waiting := [thread for thread in threads if thread.asks is not None]:
        _answer(waiting)
        for thread in waiting:
            thread.on()
    for thread in threads:
        thread.join()
        if thread.error is not None:
            raise thread.error
    return [thread.result for thread in threads]


def _answer(waiting: Sequence[_World]) -> None:
    alike: dict[tuple[Any, ...], list[_World]] = {}
    for thread in waiting:
        assert thread.asks is not None
        name, _, asked = thread.asks
        alike.setdefault((name, *asked.key), []).append(thread)
    for some in alike.values():
        calls = [thread.asks for thread in some if thread.asks is not None]
        every = np.concatenate([asked.columns for _, _, asked in calls], axis=1)
        _, real, first = calls[0]
        ends = np.cumsum([asked.columns.shape[1] for _, _, asked in calls])[:-1]
        for thread, (_, _, asked), part in zip(some, calls, np.split(first.answer(real, every), ends), strict=True):
            thread.answer = part.reshape(asked.shape)


def _search(name: str, real: Callable[..., FloatArray], asked: Callable[..., Asked]) -> Callable[..., FloatArray]:
    def search(*arguments: Any, **named: Any) -> FloatArray:
        thread = threading.current_thread()
        if not isinstance(thread, _World):
            return real(*arguments, **named)
        return thread.wait_for(name, real, asked(*arguments, **named))

    return search


def _of_margins(asked: Pairs, value: npt.ArrayLike, alpha: npt.ArrayLike, *, expected: bool = False) -> Asked:
    of_pairs = _of_pairs(asked, alpha)
    values = np.broadcast_to(np.asarray(value, np.float64), len(asked))

    def answer(real: Callable[..., FloatArray], every: FloatArray) -> FloatArray:
        k_1, n_1, k_2, n_2, levels, at = every
        some = Pairs(contrast=asked.contrast, k_1=k_1, n_1=n_1, k_2=k_2, n_2=n_2, either=asked.either)
        return real(some, at, levels, expected=expected)

    return Asked((*of_pairs.key, expected), np.vstack([of_pairs.columns, values]), of_pairs.shape, answer)


_SEARCHES: tuple[tuple[Any, str, Callable[..., Asked]], ...] = (
    (combined_tails, "lower_bounds", _of_pairs),
    (rate_pairs, "margins", _of_margins),
    (groups, "margins", _of_margins),
    (changes, "change_upper", _of_changes),
    (changes, "sum_upper", _of_sums),
    (tradeoff_statistics, "sum_upper", _of_sums),
)
