"""Distribution of tasks: a queue from the sandboxed process, and the process that holds a connection to Ray.

Ray ends the process that is connected to it where that loses its node or the head, and prints into its output as it
likes. Here that is one sentence, and what is finished is kept.

What the child writes there is as little trusted as all that it says: the parent reads regular files of a bounded size,
passes bytes on and interprets none of them. Results wait for the next run in a folder that the child does not see.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from importlib.util import find_spec
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from auditor.core.errors import AuditorError, MissingExtraError, ModelError, UsageError, first_line
from auditor.core.files import Closed, read_regular, write_beside
from auditor.loading.sandbox.measuring_process import scratch_folder
from auditor.training.task_executor import Executor, Kept, Tasks, do, folder_of_tasks

# Deaths that one task outlives; one that kills each worker it is given to is not given out for ever.
MOST_RETRIES = 3
# Tasks that wait for each that can run: enough that no core waits, few enough that their results fit the store.
_AHEAD = 2
# How long nothing may end before it is asked whether anybody is left: Ray itself waits for ever for new nodes.
_SECONDS_BEFORE_ASKING = 10.0
# How what is sent to the command begins: it is connected, a result, the end of a call, why there is none.
BEGUN, RESULT, DONE, FAILED = b"+", b"r", b".", b"-"
# What the command sends where it wants no more of a call.
CANCEL = b"x"
AGAIN = "What is finished is kept: run the same command again to go on from there."


class RayExecutor:
    """An executor that sends tasks to a connected Ray cluster."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def results(self, tasks: Tasks) -> Generator[tuple[int, bytes]]:
        ray = self._ray
        waiting: dict[Any, int] = {}
        try:
            cores = self._cores()
            if cores < tasks.threads:
                raise UsageError(
                    f"A task computes with {tasks.threads} threads, and the cluster has {cores} cores: set "
                    "OMP_NUM_THREADS to fewer."
                )
            remote = ray.remote(num_cpus=tasks.threads, max_retries=MOST_RETRIES)(do)
            shared = ray.put(tasks.shared)
            left = list(reversed(range(len(tasks.each))))
            while left or waiting:
                while left and len(waiting) < _AHEAD * max(1, cores // tasks.threads):
                    i = left.pop()
                    waiting[remote.remote(tasks.kind, shared, tasks.each[i])] = i
                ready, _ = ray.wait(list(waiting), num_returns=1, timeout=_SECONDS_BEFORE_ASKING)
                if ready:
                    result = ray.get(ready[0])
                    yield waiting.pop(ready[0]), result
                elif (left_over := self._cores()) < tasks.threads:
                    raise UsageError(
                        f"Nodes of the Ray cluster were lost, and of {cores} cores {left_over} are left, too few for a "
                        f"task of {tasks.threads} threads. {AGAIN}"
                    )
        except ray.exceptions.RayError as error:
            raise UsageError(_error_text(ray, error)) from None
        except (ConnectionError, RuntimeError) as error:
            raise UsageError(f"The connection to Ray was lost: {_short(error)}. {AGAIN}") from None
        finally:
            for reference in waiting:
                _cancel(ray, reference)

    def _cores(self) -> int:
        return int(self._ray.cluster_resources().get("CPU", 0))


def _cancel(ray: Any, reference: Any) -> None:
    try:
        ray.cancel(reference, force=True)
    except Exception:  # noqa: BLE001 - nobody is left to be told
        return


def _error_text(ray: Any, error: Exception) -> str:
    """What is wrong with the cluster, in words; a failure inside of a task is told as what it was there."""
    kinds = ray.exceptions
    cause = getattr(error, "cause", None)
    if isinstance(cause, UsageError):
        return f"{str(cause).rstrip('.')}. {AGAIN}"
    if isinstance(error, kinds.ObjectStoreFullError | kinds.OutOfDiskError):
        return f"Ray's object store is full: start the cluster with a larger --object-store-memory. {AGAIN}"
    if isinstance(error, kinds.OutOfMemoryError) or isinstance(cause, MemoryError):
        return f"A Ray worker ran out of memory: give the nodes more, or let fewer tasks run on each. {AGAIN}"
    if isinstance(cause, ImportError) or "No module named" in str(error):
        return (
            f"A Ray worker cannot import what a task needs ({_short(cause or error)}): install responsible-auditor on "
            f"every node. {AGAIN}"
        )
    if isinstance(error, kinds.RayTaskError):
        return f"A task failed on a Ray worker: {_short(cause or error)}. {AGAIN}"
    if isinstance(error, kinds.WorkerCrashedError | kinds.NodeDiedError | kinds.LocalRayletDiedError):
        return f"A Ray worker or node was lost {MOST_RETRIES + 1} times over one task ({type(error).__name__}). {AGAIN}"
    return f"Ray failed: {_short(error)}. {AGAIN}"


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}".rstrip(".: ")[:300]


# ---- the process that is connected ----------------------------------------------------------------------------------


@contextmanager
def connected(address: str | None, cores: int | None) -> Iterator[RayExecutor]:
    """As :func:`auditor.training.task_distribution.on_ray`, in this process."""
    # Ray reports its use to its makers, where nobody says otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # One that the memory monitor kills is begun again for ever, where nobody says otherwise.
    os.environ.setdefault("RAY_task_oom_retries", str(MOST_RETRIES))
    if address is None:
        # Workers that wait for the next call are ended after a second otherwise, and new ones import torch anew.
        os.environ.setdefault("RAY_kill_idle_workers_interval_ms", "0")
    try:
        import ray
    except Exception as error:  # of whatever kind: what it needs may be of another version
        raise UsageError(f"--executor ray: Ray could not be started: importing it fails ({_short(error)}).") from None

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    own: dict[str, Any] = {"num_cpus": cores or os.cpu_count(), "include_dashboard": False}
    try:
        # "local" starts one whatever RAY_ADDRESS says: which cluster it is follows from the command.
        ray.init(**({"address": "local", **own} if address is None else {"address": address}), **quiet)
    except Exception as error:  # of whatever kind: a node that starts too slowly is a bare Exception
        where = f"there is no Ray cluster at {address!r}" if address else "Ray could not be started here"
        raise UsageError(f"--executor ray: {where} ({_short(error)}).") from None
    try:
        yield RayExecutor(ray)
    finally:
        ray.shutdown()


def serve(ours: Connection, address: str | None, cores: int | None) -> None:
    """Run calls of tasks from the other end one after another, until it closes."""
    try:
        with connected(address, cores) as executor:
            ours.send_bytes(BEGUN)
            while True:
                frame = ours.recv_bytes()
                if frame == CANCEL:
                    continue  # of a call that had ended by then
                asked = json.loads(frame)
                shared, *each = (ours.recv_bytes() for _ in range(1 + asked["n"]))
                _call(ours, executor, Tasks(asked["kind"], shared, tuple(each), asked["threads"]))
    except UsageError as error:
        ours.send_bytes(FAILED + str(error).encode())
    except (EOFError, BrokenPipeError):
        return


def _call(ours: Connection, executor: RayExecutor, tasks: Tasks) -> None:
    try:
        with closing(executor.results(tasks)) as results:
            for i, result in results:
                if ours.poll():
                    if ours.recv_bytes() != CANCEL:
                        raise EOFError
                    break
                ours.send_bytes(RESULT + i.to_bytes(8, "big") + result)
        ours.send_bytes(DONE)
    except UsageError as error:
        ours.send_bytes(FAILED + str(error).encode())


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), **json.loads(sys.argv[2]))


_SECONDS_TO_REACH = 5.0
_SECONDS_TO_END = 20.0
# Of one that was told to stop, before it is killed.
_SECONDS_TO_STOP = 5.0
_open: dict[str | None, ConnectedProcess] = {}


class ConnectedProcess:
    """A proxy that sends tasks to the connected process, one call after another."""

    def __init__(self, address: str | None, cores: int | None) -> None:
        theirs: Connection
        self._ours, theirs = Pipe()
        self._lock = threading.Lock()
        with theirs:
            self.process = subprocess.Popen(
                # -P: what lies in the folder of the command is not imported.
                [
                    sys.executable, "-P", "-m", "auditor.training.task_distribution", str(theirs.fileno()),
                    json.dumps({"address": address, "cores": cores}),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                # A signal from the terminal is for the command.
                start_new_session=True,
            )  # fmt: skip

    def begin(self) -> None:
        """Wait until it is connected.

        Raises UsageError where it cannot be.
        """
        try:
            frame = self._ours.recv_bytes()
        except (EOFError, OSError):
            raise UsageError(
                "--executor ray: Ray could not be started: the process that connects to it ended at once."
            ) from None
        if frame != BEGUN:
            raise UsageError(frame[1:].decode())

    def results(self, tasks: Tasks) -> Iterator[tuple[int, bytes]]:
        """As in :class:`auditor.training.task_executor.Executor`."""
        with self._lock:
            ended = asked_all = False
            try:
                asked = {"kind": tasks.kind, "n": len(tasks.each), "threads": tasks.threads}
                for frame in (json.dumps(asked).encode(), tasks.shared, *tasks.each):
                    self._send(frame)
                asked_all = True
                while (frame := self._receive())[:1] == RESULT:
                    yield int.from_bytes(frame[1:9], "big"), frame[9:]
                ended = True
                if frame[:1] == FAILED:
                    raise UsageError(frame[1:].decode())
            except (KeyboardInterrupt, SystemExit):
                ended = True
                self._stop()
                raise
            finally:
                if not ended:
                    self._abandon(asked_all=asked_all)

    def _abandon(self, *, asked_all: bool) -> None:
        """Nobody wants the rest: what is still sent of it is not taken for results of the next call.

        One that waits for the rest of a call would take the word for a part of it, and one that is at a long task does
        not answer: those are ended, as no next call could use them.
        """
        deadline = time.monotonic() + _SECONDS_TO_END
        with suppress(UsageError, OSError):
            if asked_all:
                self._send(CANCEL)
                while self._ours.poll(max(0.0, deadline - time.monotonic())):
                    if self._receive()[:1] != RESULT:
                        return
        self._stop()

    def _stop(self) -> None:
        """Ends the process without a word to it, and whoever connects next begins another."""
        for address in [address for address, made in _open.items() if made is self]:
            del _open[address]
        self._ours.close()
        self.process.terminate()
        try:
            self.process.wait(timeout=_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _send(self, frame: bytes) -> None:
        try:
            self._ours.send_bytes(frame)
        except OSError:
            raise self._connection_lost_error() from None

    def _receive(self) -> bytes:
        try:
            return self._ours.recv_bytes()
        except (EOFError, OSError):
            raise self._connection_lost_error() from None

    def _connection_lost_error(self) -> UsageError:
        return UsageError(
            "The connection to Ray was lost, and Ray ended the process that had it: the cluster's head, or its node on "
            f"this machine, is gone. {AGAIN}"
        )

    def close(self) -> None:
        """Disconnect from the cluster, or stop it if it was started here."""
        self._ours.close()
        try:
            self.process.wait(timeout=_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def on_ray(address: str | None = None, *, cores: int | None = None) -> Iterator[ConnectedProcess]:
    """Context connected to the cluster at ``address``, or to a local one started for it.

    ``address``: ``host:port`` of its head node, ``ray://host:port`` of its client server, or ``auto`` for the one that
    runs on this machine. ``cores``: of a cluster that is started here; None takes all. Inside, the same is connected
    once. Raises MissingExtraError without Ray, UsageError where nobody answers.
    """
    if (known := _open.get(address)) is not None:
        yield known
        return
    if find_spec("ray") is None:
        raise MissingExtraError("--executor ray needs Ray: pip install 'responsible-auditor[ray]'.")
    if address is not None and address != "auto":
        _reach(address)
    made = ConnectedProcess(address, cores)
    try:
        made.begin()
        _open[address] = made
        yield made
    finally:
        _open.pop(address, None)
        made.close()


def _reach(address: str) -> None:
    """Raises UsageError where nobody listens: Ray itself would try for a minute and say it in many lines."""
    try:
        parts = urlsplit(address if "//" in address else f"//{address}")
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        scheme, host, port = "", None, None
    if host is None or port is None or scheme not in ("", "ray"):
        raise UsageError(f"--address {address!r} must look like host:6379, ray://host:10001 or auto.")
    try:
        socket.create_connection((host, port), timeout=_SECONDS_TO_REACH).close()
    except OSError as error:
        raise UsageError(
            f"--address: nobody answers at {address!r} ({first_line(error)}): is a Ray cluster running there?"
        ) from None


# What a measuring process may write into one file.
_MOST_BYTES = 1 << 30
_MOST_TASKS, _MOST_THREADS = 100_000, 4096
_EVERY, _LONGEST_GOODBYE = 0.05, 2.0
_FAILED = "failed"


class _Asked(Closed):
    """Written last: the tasks of one call are all there. ``kind``: of those that hold no file that is opened."""

    kind: Literal["stack", "slices"]
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

    with on_ray(address) as ray:
        yield Kept(ray, folder_of_tasks())
