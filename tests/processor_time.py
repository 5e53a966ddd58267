"""A test that is not marked slow takes little of the processor's time, or it fails: nobody has to wait for a quick run.

A pytest plugin; ``conftest.py`` has its hook. What counts is the processor's own time of this process in the test
itself: not what other processes do meanwhile, nor fixtures, nor imports, which the first test that needs a library pays
for all.
"""

from __future__ import annotations

import builtins
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest

MOST_SECONDS = 3.0
# Its own, whatever a test puts in the place of the clock.
_now = time.process_time
# Steps that a processor at rest takes in `_REFERENCE_SECONDS`, and the longest that it is believed to be.
_STEPS = 400_000
_REFERENCE_SECONDS = 0.02
_FREE = ("slow", "gpu")
# By so much two runs of one test differ, by the machine, and by what ran before them: arithmetic on arrays may be slow
# where loops are not. A test near the limit fails on no machine.
_ROOM = 3.0


class ImportClock:
    """Processor time spent in import statements since it was made."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0
        self._there: set[tuple[str, Sequence[str] | None]] = set()
        self.untimed = builtins.__import__

    def timed(
        self,
        name: str,
        globals: Any = None,
        locals: Any = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """What an import statement calls."""
        if self._depth or self._is_there(name, fromlist, level):
            return self.untimed(name, globals, locals, fromlist or (), level)
        begun = _now()
        self._depth += 1
        try:
            return self.untimed(name, globals, locals, fromlist or (), level)
        finally:
            self._depth -= 1
            self.seconds += _now() - begun

    def _is_there(self, name: str, fromlist: Sequence[str] | None, level: int) -> bool:
        """Whether nothing is left to import: a statement in a function that is called often takes less than the clock.

        It is looked for once: what was there stays, but for modules that a test takes away.
        """
        if level or name not in sys.modules:
            return False
        known = name, fromlist if type(fromlist) is tuple else tuple(fromlist or ())
        if known in self._there:
            return True
        module = sys.modules[name]
        if module is None or not all(each in getattr(module, "__dict__", ()) for each in known[1]):
            return False
        self._there.add(known)
        return True


@pytest.fixture(autouse=True, scope="session")
def import_clock() -> Iterator[ImportClock]:
    """Runs from the first test to the last."""
    clock = ImportClock()
    builtins.__import__ = clock.timed
    yield clock
    builtins.__import__ = clock.untimed


def slowness() -> float:
    """How many times as long as at rest this processor takes now; 1 where it is as fast or faster.

    A processor that is shared, or hot, takes more of its own time for the same work.
    """
    begun = _now()
    total = 0
    for step in range(_STEPS):
        total += step
    return max(1.0, (_now() - begun) / _REFERENCE_SECONDS)


def too_long(seconds: float, times_slower: float = 1.0) -> str:
    """What is said of a test that took so many seconds on a processor so many times slower; "" of one that may."""
    if seconds <= MOST_SECONDS * times_slower:
        return ""
    return (
        f"It took {seconds / times_slower:.1f} s of processor time, and a test that is not marked slow may take "
        f"{MOST_SECONDS:g} s: make it cheaper, or mark it slow."
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fails a test that passed and took too long."""
    if any(item.get_closest_marker(name) for name in _FREE):
        return (yield)
    clock: ImportClock = item.funcargs["import_clock"]  # type: ignore[attr-defined]
    begun, imports = _now(), clock.seconds
    result = yield
    seconds = _now() - begun - (clock.seconds - imports)
    if too_long(seconds / _ROOM):
        slower = slowness()
        if too_long(seconds / _ROOM, slower):
            pytest.fail(too_long(seconds, slower), pytrace=False)
    return result
