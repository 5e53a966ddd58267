"""Resource limits of a process that reads untrusted data."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from auditor.loading.job_specs import Job

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
# Of one file, and of all in the scratch folder.
SCRATCH_BYTES = 1 << 30
MOST_FILES = 100_000
# Libraries start some for each core, more than once.
MOST_THREADS = 512 + 16 * (os.cpu_count() or 1)


def follow(parent: int | None) -> None:
    """Make this process die with its parent (``parent``, if known) and gain no privileges; on Linux."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if parent is not None and os.getppid() != parent:
            os._exit(1)  # the parent died before the wish to follow it was known
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def processes_of(pid: int) -> list[int]:
    """A process and those that its first thread has forked; itself alone where the kernel does not say."""
    try:
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    except (OSError, ValueError):
        return [pid]


def resident_bytes(pid: int) -> int:
    """The memory that a process takes; 0 for one that is gone, and on systems without /proc."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


class OwnTime:
    """The wall time of processes less what their threads waited for a processor that others had.

    Of the threads that which waited longest, as it is the one that the others wait for; none where the kernel does not
    say. A process can wait for its own threads too, so that ``MOST_SLOWDOWN`` times the wall time is never exceeded.
    """

    MOST_SLOWDOWN = 30.0

    def __init__(self, pid: int) -> None:
        self._pid, self._began, self._paused = pid, time.monotonic(), 0.0
        self._before = waited_by_thread([pid])

    def pause(self, seconds: float) -> None:
        """Leave out seconds in which the processes waited for this one."""
        self._paused += seconds

    def is_over(self, seconds: float) -> bool:
        """Whether the processes have had so many seconds."""
        taken = time.monotonic() - self._began - self._paused
        if taken <= seconds:
            return False
        waits = waited_by_thread(processes_of(self._pid))
        waited = max((most - self._before.get(thread, 0.0) for thread, most in waits.items()), default=0.0)
        return taken - waited > seconds or taken > self.MOST_SLOWDOWN * seconds


def waited_by_thread(pids: Iterable[int]) -> dict[int, float]:
    """Seconds for which each thread of the processes could have run and had no processor; none where nobody says."""
    waits = {}
    for entry in (task for pid in pids for task in _entries(f"/proc/{pid}/task")):
        with suppress(OSError, ValueError, IndexError):
            waits[int(entry.name)] = 1e-9 * int(Path(entry.path, "schedstat").read_text().split()[1])
    return waits


def excess(pids: Iterable[int], scratch: str, job: Job) -> str:
    """Why processes have too many threads, or wrote too much below their scratch folder; "" if neither."""
    pids = list(pids)
    if sum(len(_entries(f"/proc/{pid}/task")) for pid in pids) > MOST_THREADS:
        return f"It started more than {MOST_THREADS:,} threads, which no measuring process needs."
    most = _largest_file(job)
    written, pending, seen = 0, [scratch], 0
    while pending:
        for entry in _entries(pending.pop()):
            seen += 1
            with suppress(OSError):
                written += entry.stat(follow_symlinks=False).st_blocks * 512
                pending += [entry.path] if entry.is_dir(follow_symlinks=False) else []
            if seen > MOST_FILES:
                return f"It wrote more than {MOST_FILES:,} files, which no measuring process needs."
    # A file that was taken away lasts as long as somebody has it open.
    unnamed = {}
    for pid in pids:
        for entry in _entries(f"/proc/{pid}/fd"):
            with suppress(OSError):
                found = os.stat(entry.path)
                if stat.S_ISREG(found.st_mode) and not found.st_nlink:
                    unnamed[found.st_dev, found.st_ino] = found.st_blocks * 512
    if written + sum(unnamed.values()) > most:
        return f"It wrote more than {most / 2**30:.1f} GiB, which no measuring process needs."
    return ""


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(islice(found, MOST_FILES + 1))
    except OSError:
        return []


@contextmanager
def within_memory(job: Job) -> Iterator[None]:
    """Context with the job's memory limit, added to present usage; on Linux."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (_mapped_bytes() + job.limits.memory_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def restrict(job: Job, *, held_bytes: int = 0) -> None:
    """Limits of this process, set before user input is processed: no core dump, few writes and open files.

    The address space is limited on top of what the imports took, ``held_bytes`` bytes not counted; CUDA maps far more
    than it uses, so there the parent alone watches the memory.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    largest = _largest_file(job)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = min(1024, hard if hard != resource.RLIM_INFINITY else 1024)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    if job.model.device == "cpu" and sys.platform == "linux":
        limit = _mapped_bytes() - held_bytes + job.limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _largest_file(job: Job) -> int:
    # A training writes the rows that it was given, which it holds in memory whole.
    return SCRATCH_BYTES if job.table_training is None else max(SCRATCH_BYTES, job.limits.memory_bytes)


def _mapped_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
