"""The parent's handle of a sandboxed process, and scratch folders removed with their process.

The process imports while its parent does: whoever starts one first and asks afterwards waits for the longer of the
two alone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

_NEW, _USED = "auditor-new-", "auditor-scratch-"
# A folder gets its lock at once; one that has none for so long lost its process before that.
_A_DAY = 86_400


@contextmanager
def scratch_folder(parent: str | Path | None = None, name: str = "") -> Iterator[str]:
    """A new empty folder, locked during use and removed afterwards, as are those of ended processes beside it.

    ``parent``: where, the system's temporary folder without one. ``name``: what its own name begins with.
    """
    sweep(parent, name)
    # Under another name until it is locked, or another process would sweep it away.
    made = Path(tempfile.mkdtemp(prefix=name + _NEW, dir=parent))
    folder = made.with_name(name + _USED + made.name.removeprefix(name + _NEW))
    lock = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Where nothing can be locked nothing is swept either.
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        made.rename(folder)
        yield str(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(parent: str | Path | None = None, name: str = "") -> None:
    """Remove this user's scratch folders of ended processes."""
    with suppress(OSError):
        for entry in os.scandir(parent or tempfile.gettempdir()):
            if entry.name.startswith((name + _NEW, name + _USED)):
                with suppress(OSError):
                    _sweep_one(entry, new=entry.name.startswith(name + _NEW))


def _sweep_one(entry: os.DirEntry[str], *, new: bool) -> None:
    found = entry.stat(follow_symlinks=False)
    if not entry.is_dir(follow_symlinks=False) or found.st_uid != os.getuid():
        return
    if new and time.time() - found.st_mtime < _A_DAY:
        return
    lock = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(entry.path, ignore_errors=True)
    finally:
        os.close(lock)


_KEPT = (
    "PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE",
)  # fmt: skip


@dataclass
class MeasuringProcess:
    """The process, its answer pipe, its printed output, and the folder that it works in."""

    child: subprocess.Popen[bytes]
    answers: int
    log: IO[bytes]
    scratch: str
    _ended: bool = field(default=False, repr=False)

    def end(self) -> None:
        """Kill the process with its descendants; a second call does nothing, since the id may be reused."""
        if self._ended:
            return
        self._ended = True
        os.close(self.answers)
        _kill(self.child)

    def tail(self) -> str:
        """The end of its printed output."""
        self.log.seek(max(0, self.log.seek(0, os.SEEK_END) - 20_000))
        return self.log.read().decode("utf-8", "replace")


@contextmanager
def measuring_process() -> Iterator[MeasuringProcess]:
    """Context with a measuring process that waits for its job and ends with the block."""
    with ExitStack() as stack:
        scratch = stack.enter_context(scratch_folder())
        # Without a name, so that the child can neither put something else in its place nor take it away.
        log = stack.enter_context(tempfile.TemporaryFile())
        reader, writer = os.pipe()
        try:
            child = start_child(writer, log, scratch)
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        process = MeasuringProcess(child, reader, log, scratch)
        try:
            yield process
        finally:
            process.end()


def start_child(writer: int, log: IO[bytes], scratch: str) -> subprocess.Popen[bytes]:
    """The process, in a separate session: it writes answers to ``writer`` and works in ``scratch``."""
    return subprocess.Popen(
        [sys.executable, "-I", "-m", "auditor.run.child_start", str(writer)],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        cwd=scratch,
        env=environment(scratch),
        pass_fds=(writer,),
        start_new_session=True,
    )


def environment(scratch: str) -> dict[str, str]:
    """The environment variables of the process: few, without a home folder."""
    own = {name: os.environ[name] for name in _KEPT if name in os.environ}
    own |= dict.fromkeys(
        ("HOME", "TMPDIR", "HF_HOME", "TORCHINDUCTOR_CACHE_DIR", "MPLCONFIGDIR", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME"),
        scratch,
    )
    # Or libraries ask the list of the machine's users, which is closed.
    own |= {"USER": "auditor", "LOGNAME": "auditor"}
    return own | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def _kill(child: subprocess.Popen[bytes]) -> None:
    # The whole group, whether or not its leader still lives: a child's own children must not outlive it. None of them
    # can leave it, by the rules of auditor.loading.sandbox.seccomp.
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # the group is gone already, which is what was wanted
    child.wait()
    if child.stdin is not None:
        child.stdin.close()
