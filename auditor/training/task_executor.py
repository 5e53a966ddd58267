"""Pure tasks and their executors: this process, or an executor that the caller lends.

A task is bytes and the name of a kind out of a closed table, never a function: what is sent elsewhere is data. It is
seeded by what is in it, so the same task has the same result wherever, whenever and however often it is done.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol

from auditor.core.errors import UsageError
from auditor.core.files import write_beside

# Shadow models, parts of a search for subgroups, points of a sweep.
Kind = Literal["stack", "slices", "point"]
_KINDS: dict[Kind, str] = {
    "stack": "auditor.training.stack_tasks:done",
    "slices": "probes.fairness.subgroups:done",
    "point": "auditor.run.sweep_tasks:done",
}
_lent: ContextVar[Executor | None] = ContextVar("executor", default=None)


@dataclass(frozen=True)
class Tasks:
    """Tasks of one kind: their common data, their individual data, and the threads per task."""

    kind: Kind
    shared: bytes
    each: tuple[bytes, ...]
    threads: int = 1


class Executor(Protocol):
    """An executor of tasks."""

    def results(self, tasks: Tasks) -> Iterator[tuple[int, bytes]]:
        """The result of each task with its index, in order of completion.

        Raises UsageError where they cannot be.
        """
        ...


def do(kind: Kind, common_bytes: bytes, task_bytes: bytes) -> bytes:
    """The result of one task."""
    module, _, name = _KINDS[kind].partition(":")
    function: Callable[[bytes, bytes], bytes] = getattr(import_module(module), name)
    return function(common_bytes, task_bytes)


class Kept:
    """Cache of another executor's results in a folder; only missing results are requested.

    Files are named by a digest of all that decides them, and hold one of what they say: of another task, or of one that
    was cut off, nothing is taken.
    """

    def __init__(self, executor: Executor, folder: Path) -> None:
        self._executor = executor
        self.folder = folder
        self._used: list[Path] = []

    def results(self, tasks: Tasks) -> Iterator[tuple[int, bytes]]:
        common = hashlib.sha256(tasks.kind.encode() + b"\0" + tasks.shared).digest()
        places = [self.folder / f"task-{hashlib.sha256(common + each).hexdigest()}" for each in tasks.each]
        self._used += places
        left = []
        for i, place in enumerate(places):
            if (found := _read_cached(place)) is not None:
                yield i, found
            else:
                # What was cut off is nobody's to keep.
                place.unlink(missing_ok=True)
                left.append(i)
        if left:
            rest = replace(tasks, each=tuple(tasks.each[i] for i in left))
            for place_of_rest, result in self._executor.results(rest):
                i = left[place_of_rest]
                write_beside(places[i], hashlib.sha256(result).digest() + result)
                yield i, result

    def forget(self) -> None:
        """Remove the cached results of the tasks requested here, once they are no longer needed."""
        for place in self._used:
            with suppress(OSError):
                place.unlink(missing_ok=True)
        self._used.clear()


def _read_cached(place: Path) -> bytes | None:
    try:
        content = place.read_bytes()
    except OSError:
        return None
    return content[32:] if hashlib.sha256(content[32:]).digest() == content[:32] else None


def folder_of_tasks() -> Path:
    """The cache of finished tasks for the next run: a folder of this user only.

    Raises UsageError without one.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(base) / "responsible-auditor" / "tasks"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"Finished tasks are kept in {str(folder)!r}, which cannot be made: {error.strerror}. Set XDG_CACHE_HOME "
            "to a folder that can be written."
        ) from None
    return folder


@contextmanager
def tasks_by(executor: Executor | None) -> Iterator[None]:
    """Context in which expensive work is done by this executor; None: by this process, the default."""
    token = _lent.set(executor)
    try:
        yield
    finally:
        _lent.reset(token)


def lent_executor() -> Executor | None:
    """The executor in use, if it is not this process."""
    return _lent.get()
