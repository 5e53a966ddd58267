"""The command and the process that is connected to Ray: whoever stops waiting for a task waits for nothing more."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import Any

import pytest

from auditor.core.errors import UsageError
from auditor.training import task_distribution
from auditor.training.task_distribution import BEGUN, CANCEL, DONE, RESULT, ConnectedProcess, connected
from auditor.training.task_executor import Tasks

TASKS = Tasks("stack", b"s", (b"a", b"b"))


class Process:
    """Stands for the other process; one that is ``deaf`` does not end when it is told to."""

    def __init__(self, *, deaf: bool) -> None:
        self.told: list[str] = []
        self.deaf = deaf

    def terminate(self) -> None:
        self.told.append("terminate")

    def kill(self) -> None:
        self.told.append("kill")

    def wait(self, timeout: float | None = None) -> None:
        if self.deaf and "kill" not in self.told:
            raise subprocess.TimeoutExpired("ray", timeout or 0.0)


def process(monkeypatch: pytest.MonkeyPatch, *, deaf: bool = False) -> tuple[Any, Connection]:
    """The command's side, and the end of the pipe that the other process has."""
    ours, theirs = Pipe()
    made: Any = ConnectedProcess.__new__(ConnectedProcess)
    made._ours, made._lock, made.process = ours, threading.Lock(), Process(deaf=deaf)
    monkeypatch.setattr(task_distribution, "_SECONDS_TO_END", 0.1)
    return made, theirs


def within(seconds: float, do: Callable[[], object]) -> None:
    """Fails where it takes longer, and does not wait for it."""
    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive()


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("deaf", [False, True])
def test_an_interrupt_ends_the_process_and_says_nothing_more_to_it(
    interrupt: type[BaseException], deaf: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, theirs = process(monkeypatch, deaf=deaf)
    monkeypatch.setitem(task_distribution._open, "x:1", made)

    def interrupted() -> bytes:
        raise interrupt

    made._receive = interrupted

    def ask() -> None:
        with suppress(KeyboardInterrupt, SystemExit):
            list(made.results(TASKS))

    within(5.0, ask)
    assert made.process.told == ["terminate", "kill"][: 1 + deaf] and "x:1" not in task_distribution._open
    frames = [theirs.recv_bytes() for _ in range(4)]
    assert json.loads(frames[0])["n"] == 2 and frames[1:] == [b"s", b"a", b"b"]
    with pytest.raises(EOFError):
        theirs.recv_bytes()


def test_a_call_that_was_not_sent_whole_is_not_cancelled_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    made, theirs = process(monkeypatch)
    send, sent = made._send, []

    def failing(frame: bytes) -> None:
        sent.append(frame)
        if len(sent) == 3:
            raise MemoryError
        send(frame)

    made._send = failing

    def ask() -> None:
        with suppress(MemoryError):
            list(made.results(TASKS))

    within(5.0, ask)
    assert CANCEL not in sent and made.process.told == ["terminate"] and len(sent) == 3
    theirs.close()


@pytest.mark.parametrize("answers", [True, False])
def test_whoever_wants_no_more_waits_for_a_while_and_no_longer(answers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made, theirs = process(monkeypatch)
    theirs.send_bytes(RESULT + (0).to_bytes(8, "big") + b"one")
    if answers:
        theirs.send_bytes(RESULT + (1).to_bytes(8, "big") + b"two")
        theirs.send_bytes(DONE)
    results: Iterator[tuple[int, bytes]] = made.results(TASKS)
    assert next(results) == (0, b"one")
    within(5.0, results.close)  # type: ignore[attr-defined]
    assert made.process.told == ([] if answers else ["terminate"])
    # What answered is of use to the next call.
    if answers:
        theirs.send_bytes(RESULT + (1).to_bytes(8, "big") + b"three")
        theirs.send_bytes(DONE)
        assert list(made.results(TASKS)) == [(1, b"three")]


def test_a_ray_that_cannot_be_started_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    made, theirs = process(monkeypatch)
    theirs.close()
    with pytest.raises(UsageError, match=r"^--executor ray: Ray could not be started: the process .* ended at once\.$"):
        made.begin()
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(UsageError, match=r"Ray could not be started: importing it fails \(ModuleNotFoundError: "),
        connected(None, None),
    ):
        pass
    made, theirs = process(monkeypatch)
    theirs.send_bytes(BEGUN)
    made.begin()
