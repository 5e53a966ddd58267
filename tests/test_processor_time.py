"""A test that takes too long and does not say so fails; others, and what others do meanwhile, do not."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.processor_time import MOST_SECONDS, ImportClock, slowness, too_long

TESTS = """
import subprocess
import sys
import time

import pytest


def work(seconds):
    begun = time.process_time()
    while time.process_time() - begun < seconds:
        pass


@pytest.fixture
def made():
    work(0.4)


def test_long(): work(0.4)
def test_long_and_wrong(): work(0.4); assert 1 == 2
@pytest.mark.slow
def test_long_and_says_so(): work(0.4)
@pytest.mark.gpu
def test_on_an_accelerator(): work(0.4)
def test_short(): work(0.05)
def test_waits(): time.sleep(0.4)
def test_of_a_fixture(made): pass
def test_imports(): import heavy
def test_of_another_process(): subprocess.run([sys.executable, "-c", "sum(range(20_000_000))"], check=True)
"""


def test_a_test_that_takes_too_long_and_does_not_say_so_fails(tmp_path: Path) -> None:
    (tmp_path / "test_them.py").write_text(TESTS)
    (tmp_path / "heavy.py").write_text("from test_them import work\nwork(0.4)\n")
    # A shorter limit, and no allowance for a busy machine, as each of these measures its own time.
    (tmp_path / "shorter.py").write_text(
        "from tests import processor_time\nprocessor_time.MOST_SECONDS = 0.1\nprocessor_time.slowness = lambda: 1.0\n"
    )
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-p", "no:randomly",
            "-p", "tests.processor_time", "-p", "shorter", "--rootdir", str(tmp_path), str(tmp_path),
            "-o", "markers=slow: long\ngpu: elsewhere",
        ],
        cwd=tmp_path, env={"PYTHONPATH": f"{ROOT}:{tmp_path}"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = {line.split("::")[1].split(" - ")[0]: line for line in done.stdout.splitlines() if "test_them.py::" in line}
    assert {name for name, line in said.items() if line.startswith("FAILED")} == {"test_long", "test_long_and_wrong"}
    assert len(said) == 9, done.stdout
    assert "s of processor time, and a test that is not marked slow may take 0.1 s" in done.stdout
    assert done.stdout.count("of processor time") == 2, "once where it happens, once in the summary"
    assert "assert 1 == 2" in done.stdout


def test_a_processor_that_is_slower_allows_for_more() -> None:
    assert too_long(MOST_SECONDS) == "" and too_long(2 * MOST_SECONDS, 2.0) == ""
    assert too_long(3 * MOST_SECONDS, 2.0).startswith("It took 4.5 s of processor time")
    assert 1.0 <= slowness()


def test_imports_within_imports_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("tests.processor_time._now", lambda: now[0])
    clock = ImportClock()

    def slowly(name: str) -> object:
        now[0] += 1.0
        return clock.timed("inner") if name == "outer" else sys

    clock.untimed = slowly  # type: ignore[assignment]
    clock.timed("outer")
    clock.timed("inner")
    assert clock.seconds == 3.0


def test_what_is_there_is_no_import_however_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is not there yet of a package that is, is one."""
    now = [0.0]
    monkeypatch.setattr("tests.processor_time._now", lambda: now.append(now.pop() + 1.0) or now[0])
    clock = ImportClock()
    monkeypatch.setattr("importlib._bootstrap._find_and_load", clock.timed)
    import json
    import xml
    from json import loads

    assert json and xml and loads and importlib.import_module("json") and clock.seconds == 0.0
    for way in ("statement", "function"):
        monkeypatch.delitem(sys.modules, "xml.sax", raising=False)
        monkeypatch.delattr("xml.sax", raising=False)
        before = clock.seconds
        if way == "function":
            assert importlib.import_module("xml.sax")
        else:
            from xml import sax

            assert sax.__name__ == "xml.sax"
        assert clock.seconds > before
