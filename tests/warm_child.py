"""Measuring processes for tests, forked from one that has imported everything: the imports are most of a real start.

A fork is what the real start is, but for its imports: a process in a session of its own, with the same descriptors,
folder and environment, and a child of the process that asked, so that its death is seen as it is. Tests of the start
itself are marked ``real_child``.
"""

from __future__ import annotations

import array
import ctypes
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

from auditor.loading.sandbox import measuring_process

_PR_SET_CHILD_SUBREAPER = 36


class WarmChild:
    """As much of ``subprocess.Popen`` as the parent asks for, of a process that somebody else forked."""

    def __init__(self, pid: int, stdin: IO[bytes]) -> None:
        self.pid = pid
        self.stdin = stdin
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, or None while it lives."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = 60.0) -> int:
        """The exit code; raises TimeoutExpired where there is none by then."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("auditor.run.child_jobs", timeout)
            time.sleep(0.005)
        return code


class WarmChildren:
    """Forks measuring processes; the process they are forked from starts with the first."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | WarmChild | None = None
        self._channel: socket.socket | None = None
        self._scratch = tempfile.TemporaryDirectory(prefix="auditor-warm-")

    def start(self, writer: int, log: IO[bytes], scratch: str) -> WarmChild:
        """What :func:`auditor.loading.sandbox.measuring_process.start_child` does."""
        reader, stdin = os.pipe()
        asked = {"cwd": scratch, "env": measuring_process.environment(scratch), "parent": os.getpid()}
        # Where tests/recorder.py is at work.
        if record := os.environ.get("RECORD_CALLS"):
            asked |= {"record": record, "test": os.environ.get("PYTEST_CURRENT_TEST", "")}
        try:
            pid = self.fork(asked, reader, log.fileno(), writer)
        finally:
            os.close(reader)
        return WarmChild(pid, os.fdopen(stdin, "wb"))

    def fork(self, asked: dict[str, Any], *descriptors: int) -> int:
        """The id of a process that is asked for, which is a child of this one."""
        channel = self._begun()
        # Only while it is born: other orphans of the tests are nobody's here.
        _take_in_orphans(True)
        try:
            sent = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            channel.sendmsg([json.dumps(asked).encode()], sent)
            return int(channel.recv(64))
        finally:
            _take_in_orphans(False)

    def _begun(self) -> socket.socket:
        if self._channel is None:
            self._channel, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with other:
                self._server = self._start_server(other.fileno())
        return self._channel

    def _start_server(self, channel: int) -> subprocess.Popen[bytes] | WarmChild:
        return subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).with_name("warm_server.py")), str(channel)],
            stdin=subprocess.DEVNULL,
            cwd=self._scratch.name,
            env=measuring_process.environment(self._scratch.name),
            pass_fds=(channel,),
        )

    def end(self) -> None:
        """Ends the process that they are forked from."""
        if self._channel is not None and self._server is not None:
            self._channel.close()
            self._server.wait(timeout=30)
        self._scratch.cleanup()


class PreparedChildren(WarmChildren):
    """Measuring processes of a world that a script has changed: forked from a fork that has run it.

    children: what that one is forked from, with all its imports.
    """

    def __init__(self, children: WarmChildren, script: Path) -> None:
        super().__init__()
        self._children = children
        self._script = script

    def _start_server(self, channel: int) -> WarmChild:
        asked = {"prepared": str(self._script), "parent": os.getpid()}
        return WarmChild(self._children.fork(asked, channel), io.BytesIO())


def _take_in_orphans(whether: bool) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(whether), 0, 0, 0)
