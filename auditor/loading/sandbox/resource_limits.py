"""Resource limits of a process that reads untrusted data."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from auditor.loading.job_specs import Job

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_SCRATCH_BYTES = 1 << 30


def follow(parent: int | None) -> None:
    """Make this process die with its parent (``parent``, if known) and gain no privileges; on Linux."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if parent is not None and os.getppid() != parent:
            os._exit(1)  # the parent died before the wish to follow it was known
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


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
    # A training writes the rows that it was given, which it holds in memory whole.
    largest = _SCRATCH_BYTES if job.table_training is None else max(_SCRATCH_BYTES, job.limits.memory_bytes)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = min(1024, hard if hard != resource.RLIM_INFINITY else 1024)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    if job.model.device == "cpu" and sys.platform == "linux":
        limit = _mapped_bytes() - held_bytes + job.limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _mapped_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
