"""Tasks executed by Ray: on the cores of this machine, or on a cluster at an address.

The only module that knows Ray. It is run as a process of its own, for :mod:`auditor.training.task_distribution`, and
imports Ray when it is. Whatever goes wrong with a cluster is one sentence. A task whose worker or node is lost is done
again by another: it has the same result.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from typing import Any

from auditor.core.errors import UsageError, first_line
from auditor.training.task_executor import Tasks, do

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
