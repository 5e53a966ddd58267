"""Which functions of the product every test runs: a pytest plugin, ``-p tests.recorder``, with RECORD_CALLS set.

It writes a line of JSON for every test that passed into the file that RECORD_CALLS names: the test, its seconds and
the functions that ran in it and in its fixtures. A measuring process that a test starts adds its own
(``warm_server.py``).
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import pytest

RECORD_CALLS = "RECORD_CALLS"
_PRODUCT = ("auditor", "probes", "mitigations", "cli")
_ROOT = f"{Path(__file__).resolve().parents[1]}{os.sep}"


class Calls:
    """The functions that were called since they were last taken, in any thread; ``file``: where each is written at
    its first call, in a process that may be killed at any time."""

    def __init__(self, file: int | None = None, test: str = "") -> None:
        self._codes: dict[int, CodeType] = {}
        self._file, self._test = file, test

    def start(self) -> None:
        """Notice calls from here on; what a test puts in the place of the tracer is replaced."""
        sys.settrace(self._trace)
        threading.settrace(self._trace)

    def take(self) -> list[str]:
        """The product's functions as ``auditor/a.py::Class.method``, and forget all of them."""
        codes, self._codes = self._codes, {}
        return sorted({name for code in list(codes.values()) if (name := function_name(code))})

    def _trace(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if id(code) in self._codes:
            return
        self._codes[id(code)] = code
        if self._file is not None and (name := function_name(code)):
            append(self._file, {"child_of": self._test, "calls": [name]})


def function_name(code: CodeType, root: str = _ROOT) -> str:
    """The file and the function, or "" where it is not the product's; a comprehension belongs to what is around it."""
    if not code.co_filename.startswith(root):
        return ""
    file = code.co_filename[len(root) :]
    if file.partition("/")[0] not in _PRODUCT:
        return ""
    parts = code.co_qualname.split(".")
    while parts and parts[-1].startswith("<"):
        parts.pop()
    return f"{file}::{'.'.join(parts)}"


def open_lines(path: str) -> int:
    """A descriptor that adds whole lines to a file, even where several processes do."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def append(file: int, line: Mapping[str, object]) -> None:
    """Add a line of JSON."""
    os.write(file, (json.dumps(line) + "\n").encode())


# ---- the plugin ------------------------------------------------------------------------------------------------------

_calls = Calls()
_in_fixtures: list[str] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Notice what the fixtures of a test call."""
    _calls.start()
    _calls.take()
    try:
        return (yield)
    finally:
        _in_fixtures[:] = _calls.take()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Notice what a test calls, and write it where the test passes."""
    _calls.start()
    begun = time.monotonic()
    result = yield
    seconds = round(time.monotonic() - begun, 3)
    line = {"test": item.nodeid, "seconds": seconds, "fixtures": list(_in_fixtures), "calls": _calls.take()}
    file = open_lines(os.environ[RECORD_CALLS])
    append(file, line)
    os.close(file)
    return result


# ---- reading ---------------------------------------------------------------------------------------------------------


class Ran(NamedTuple):
    """A test that passed: the functions that it ran itself, and those of its fixtures."""

    test: str
    seconds: float
    functions: frozenset[str]
    fixtures: frozenset[str]

    @property
    def file(self) -> str:
        """Its file, from the root of the repository."""
        return self.test.partition("::")[0]


def read_calls(lines: Iterable[str]) -> list[Ran]:
    """Every test that was written, with what its measuring processes ran."""
    passed: dict[str, dict[str, Any]] = {}
    children: dict[str, set[str]] = {}
    for line in lines:
        found = json.loads(line)
        if "child_of" in found:
            children.setdefault(found["child_of"], set()).update(found["calls"])
        else:
            passed[found["test"]] = found
    return [
        Ran(
            name,
            found["seconds"],
            frozenset(found["calls"]) | frozenset(children.get(name, ())),
            frozenset(found["fixtures"]),
        )
        for name, found in passed.items()
    ]
