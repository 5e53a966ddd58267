"""Shared by all tests: one thread for torch, the time a test may take, the folder of larger real data, if any."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator, Iterator
from functools import cache
from pathlib import Path

import pytest

# Before all others: skops looks for each of these functions in all modules in the order of their import.
import scipy.special  # noqa: F401

from auditor.loading.sandbox import measuring_process
from tests import ROOT
from tests.processor_time import import_clock, pytest_runtest_call
from tests.rings import choose_ring, pytest_addoption
from tests.toys.postgres import postgres  # noqa: F401  # a fixture
from tests.warm_child import WarmChildren

__all__ = ["import_clock", "pytest_addoption", "pytest_runtest_call"]

# shap would compile for seconds what it then computes for three rows.
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread() -> None:
    """Tiny models are slower on many threads than on one, and sums come out the same on every machine."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def commands_made_once() -> Iterator[None]:
    """What reads a command's arguments is made by the first that is called in this process, and not by each anew."""
    with pytest.MonkeyPatch.context() as patch:
        if testing := sys.modules.get("typer.testing"):
            patch.setattr(testing, "_get_command", cache(testing._get_command))
        yield


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder named by AUDITOR_TEST_DATA; skips the test, with its reason, where there is none."""
    folder = os.environ.get("AUDITOR_TEST_DATA")
    if not folder:
        pytest.skip("AUDITOR_TEST_DATA is not set: larger real data are not here")
    if not Path(folder).is_dir():
        pytest.fail(f"AUDITOR_TEST_DATA names {folder!r}, which is no folder")
    return Path(folder)


@pytest.fixture(autouse=True, scope="session")
def clean_checkout() -> Iterator[None]:
    """A test that leaves a file at the root of the checkout fails: it would be committed by accident."""
    before = {path.name for path in ROOT.iterdir()}
    yield
    left = {path.name for path in ROOT.iterdir() if path.is_file() and not path.name.startswith(".")} - before
    assert not left, f"tests wrote {sorted(left)} at the root: give what they call tmp_path"


@pytest.fixture(scope="session")
def warm_children() -> Iterator[WarmChildren]:
    """Measuring processes without the imports of a start."""
    children = WarmChildren()
    yield children
    children.end()


@pytest.fixture(autouse=True)
def forked_measuring_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test's measuring processes are forked, but for those of tests marked ``real_child``."""
    if sys.platform == "linux" and request.node.get_closest_marker("real_child") is None:
        monkeypatch.setattr(measuring_process, "start_child", request.getfixturevalue("warm_children").start)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported and collected stays to the end, a million objects: nobody looks whether it may go.

    And of what the tests make nobody looks at every few hundred objects, as in the command line.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(10_000)
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The tests of the ring; what takes longest begins first, so that no process is left with it at the end."""
    choose_ring(config, items)
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture
def by_tails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs of rates by their exact tails alone: what is simulated is what is made of them, in a tenth of the time.

    Tables that are enumerated have tests of their own, and are bounded no wider.
    """
    from auditor.statistics import rate_pairs

    monkeypatch.setattr(rate_pairs, "MOST_ENUMERATED", 0)
