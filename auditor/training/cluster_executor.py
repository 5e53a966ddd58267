"""A command's connection to Ray: a separate process holds the connection.

Ray ends the process that is connected to it where that loses its node or the head, and prints into its output as it
likes. Here that is one sentence, and what is finished is kept.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from multiprocessing.connection import Connection, Pipe
from urllib.parse import urlsplit

from auditor.core.errors import MissingExtraError, UsageError, first_line
from auditor.training.ray_tasks import AGAIN, BEGUN, CANCEL, FAILED, RESULT
from auditor.training.task_executor import Tasks

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
                    sys.executable, "-P", "-m", "auditor.training.ray_tasks", str(theirs.fileno()),
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
