"""The parent's handle of a sandboxed process: started, waiting for its job on standard input, ended for good.

It imports while its parent does: whoever starts one first and asks afterwards waits for the longer of the two alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import IO

from auditor.loading.sandbox.scratch import scratch_folder

_KEPT = (
    "PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE",
)  # fmt: skip


@dataclass
class MeasuringProcess:
    """The process, its answer pipe, and its printed output."""

    child: subprocess.Popen[bytes]
    answers: int
    log: IO[bytes]
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
        process = MeasuringProcess(child, reader, log)
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
