"""Tasks from the isolated sandboxed process: written to a folder, and distributed by its parent.

What the child writes there is as little trusted as all that it says: the parent reads regular files of a bounded size,
passes bytes on and interprets none of them. Results wait for the next run in a folder that the child does not see.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from auditor.core.errors import AuditorError, ModelError, UsageError, first_line
from auditor.core.files import Closed, read_regular, write_beside
from auditor.loading.sandbox.scratch import scratch_folder
from auditor.training.task_executor import Executor, Kept, Tasks, folder_of_tasks

# What a measuring process may write into one file.
_MOST_BYTES = 1 << 30
_MOST_TASKS, _MOST_THREADS = 100_000, 4096
_EVERY, _LONGEST_GOODBYE = 0.05, 2.0
_FAILED = "failed"


class _Asked(Closed):
    """Written last: the tasks of one call are all there. ``kind``: of those that hold no file that is opened."""

    kind: Literal["stack", "fold", "slices"]
    n: Annotated[int, Field(ge=1, le=_MOST_TASKS)]
    threads: Annotated[int, Field(ge=1, le=_MOST_THREADS)]


class ThroughParent:
    """The child's side: lays tasks into the folder and waits for results.

    Raises ModelError with the parent's sentence where they could not be done.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._calls = 0

    def results(self, tasks: Tasks) -> Iterator[tuple[int, bytes]]:
        folder, call = self._folder, self._calls
        self._calls += 1
        write_beside(folder / f"{call}-shared", tasks.shared)
        for i, each in enumerate(tasks.each):
            write_beside(folder / f"{call}-task-{i}", each)
        asked = {"kind": tasks.kind, "n": len(tasks.each), "threads": tasks.threads}
        write_beside(folder / f"{call}-asked", json.dumps(asked).encode())
        left = set(range(len(tasks.each)))
        while left:
            ended = [i for i in sorted(left) if (folder / f"{call}-result-{i}").exists()]
            for i in ended:
                place = folder / f"{call}-result-{i}"
                result = place.read_bytes()
                place.unlink()
                left.remove(i)
                yield i, result
            if left and not ended:
                if (folder / _FAILED).exists():
                    raise ModelError((folder / _FAILED).read_text(encoding="utf-8"))
                time.sleep(_EVERY)


class _Handing(threading.Thread):
    """The parent's side, beside whoever listens to the child."""

    def __init__(self, executor: Executor, folder: Path) -> None:
        super().__init__(daemon=True, name="handing out tasks")
        self._executor = executor
        self._folder = folder
        self._ended = threading.Event()
        self.failed = ""

    def run(self) -> None:
        call = 0
        while not self._ended.wait(_EVERY):
            if (self._folder / f"{call}-asked").exists():
                try:
                    self._hand_out(call)
                except AuditorError as error:
                    self._fail(str(error))
                except Exception as error:
                    if self._ended.is_set():
                        return  # the cluster was let go of under it
                    self._fail(f"Tasks could not be handed out ({type(error).__name__}: {first_line(error)}).")
                    raise
                if self.failed:
                    return
                call += 1

    def end(self) -> None:
        """Lets go: of a task that a worker is busy with, nobody waits for the end."""
        self._ended.set()
        self.join(timeout=_LONGEST_GOODBYE)

    def _fail(self, reason: str) -> None:
        if self._ended.is_set():
            return
        self.failed = reason
        write_beside(self._folder / _FAILED, reason.encode())

    def _hand_out(self, call: int) -> None:
        def read_part(name: str) -> bytes:
            return read_regular(self._folder / f"{call}-{name}", "A task of the measuring process", _MOST_BYTES)

        try:
            asked = _Asked.model_validate_json(read_part("asked"))
        except ValidationError:
            raise UsageError("The measuring process asked for what is no task.") from None
        tasks = Tasks(
            asked.kind, read_part("shared"), tuple(read_part(f"task-{i}") for i in range(asked.n)), asked.threads
        )
        for i, result in self._executor.results(tasks):
            if self._ended.is_set():
                return
            write_beside(self._folder / f"{call}-result-{i}", result)


@contextmanager
def handed_out(executor: Literal["local", "ray"], address: str | None) -> Iterator[str | None]:
    """Context with a folder of tasks for the executor; None if the measuring process runs its own tasks.

    Raises UsageError for an address without Ray, where nobody answers there, and, when the block has ended, where a
    task could not be done: what was finished by then is kept for the next run.
    """
    with ExitStack() as stack:
        given = stack.enter_context(chosen_executor(executor, address))
        if given is None:
            yield None
            return
        folder = Path(stack.enter_context(scratch_folder()))
        handing = _Handing(given, folder)
        handing.start()
        try:
            yield str(folder)
        except AuditorError:
            # What the measuring process makes of it is the same sentence, as a refusal of its model.
            if not handing.failed:
                raise
        finally:
            handing.end()
        if handing.failed:
            raise UsageError(handing.failed)
        given.forget()


@contextmanager
def chosen_executor(executor: Literal["local", "ray"], address: str | None) -> Iterator[Kept | None]:
    """The executor of tasks, with a cache of finished ones; None for this process.

    Raises UsageError as :func:`handed_out`.
    """
    if executor == "local":
        if address is not None:
            raise UsageError("--address names a Ray cluster: add --executor ray.")
        yield None
        return
    from auditor.training.cluster_executor import on_ray

    with on_ray(address) as ray:
        yield Kept(ray, folder_of_tasks())
