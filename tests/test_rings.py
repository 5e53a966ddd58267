"""The rings share no test and are together all tests; and which cases are quick."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.quantifiers import all_of
from tests.rings import COLLECTED, EVERY, by_function, in_ring, is_slow, spread

TESTS = """
import pytest


def start(word):
    return word[0]


def test_one(): pass
@pytest.mark.parametrize("n", range(20))
def test_no_grid(n): pass
@pytest.mark.grid
@pytest.mark.parametrize("n", range(20))
def test_a_grid(n): pass
@pytest.mark.grid(every=3)
@pytest.mark.parametrize("a", range(2))
@pytest.mark.parametrize("b", range(2))
def test_a_few(a, b): pass
@pytest.mark.grid(by=start)
@pytest.mark.parametrize("word", ["apple", "axe", "bee", "ant", "cow"])
def test_by_class(word): pass
@pytest.mark.grid
@pytest.mark.parametrize("n", [pytest.param(0, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.slow), 2])
def test_slow_cases(n): pass
@pytest.mark.grid
def test_marked_with_its_module(): pass
@pytest.mark.slow
def test_slow(): pass
@pytest.mark.slow(quick=True)
def test_slow_but_always_asked(): pass
@pytest.mark.lint
def test_types(): pass
"""
QUICK = {
    "test_one", *(f"test_no_grid[{n}]" for n in range(20)), *(f"test_a_grid[{n}]" for n in (3, 10, 17)),
    "test_a_few[0-1]", "test_by_class[apple]", "test_by_class[bee]", "test_by_class[cow]", "test_slow_cases[2]",
    "test_marked_with_its_module", "test_slow_but_always_asked",
}  # fmt: skip


def collected(folder: Path, *arguments: str) -> set[str]:
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder),
            "-o", "markers=slow: long\ngrid: many\nlint: types", *arguments, str(folder),
        ],
        cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = [line.partition("::")[2] for line in done.stdout.splitlines() if "::" in line]
    assert len(set(found)) == len(found) > 0, done.stdout
    return set(found)


def test_each_test_is_run_by_one_ring_and_by_all(tmp_path: Path) -> None:
    (tmp_path / "test_them.py").write_text(TESTS)
    (tmp_path / "conftest.py").write_text(
        "from tests.rings import choose_ring, pytest_addoption\n"
        "def pytest_collection_modifyitems(config, items): choose_ring(config, items)\n"
    )
    quick, grids = collected(tmp_path, "--ring", "quick"), collected(tmp_path, "--ring", "grids")
    assert quick == QUICK
    assert not quick & grids
    assert collected(tmp_path, "--ring", "lint") == {"test_types"}
    assert quick | grids | {"test_types"} == collected(tmp_path, "--ring", "all") == collected(tmp_path)
    assert len(quick | grids) == 1 + 20 + 20 + 4 + 5 + 3 + 1 + 2


def test_the_rings_of_the_tests_collected_here(request: pytest.FixtureRequest) -> None:
    """No test is in two rings or in none, and only what is slow has no case in quick or lint, where all are run."""
    items = request.config.stash[COLLECTED]
    quick, grids, lint = ({item.nodeid for item in in_ring(items, ring)} for ring in ("quick", "grids", "lint"))
    assert quick | grids | lint == {item.nodeid for item in items}
    assert len(quick) + len(grids) + len(lint) == len(items)
    some = [{case.nodeid for case in cases if not is_slow(case)} for cases in by_function(items)]
    assert all_of((quick | lint) & cases for cases in some if cases)
    unmarked = {item.nodeid for item in items if item.get_closest_marker("grid") is None and not is_slow(item)}
    assert sorted(grids & unmarked) == []
    ring = request.config.getoption("ring")
    assert {item.nodeid for item in request.session.items} <= {item.nodeid for item in in_ring(items, ring)}


def test_what_is_asked_of_every_change_is_asked_whole(request: pytest.FixtureRequest) -> None:
    whole = ("tests/golden/", "tests/contract/")
    marked = {i.nodeid for i in request.config.stash[COLLECTED] if i.get_closest_marker("grid") or is_slow(i)}
    # Every option and flag has a run of its own, which are too many for each change; a planted fault takes long.
    sampled = tuple(f"tests/contract/test_{name}.py" for name in ("options", "scan_flags", "mutation"))
    assert not {name for name in marked if name.startswith(whole) and not name.startswith(sampled)}


@pytest.mark.grid
@pytest.mark.parametrize("n", range(1, 40))
def test_a_spread_has_one_in_so_many_and_no_gap_is_longer(n: int) -> None:
    kept = list(spread(n, EVERY))
    assert n // EVERY <= len(kept) <= n // EVERY + 1 and kept
    assert all_of(0 <= index < n for index in kept)
    assert kept[0] < EVERY and n - kept[-1] <= EVERY


def test_a_deprecation_fails_a_test_where_it_is_ours(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """At an import, as where a package that is installed uses what another one is about to drop."""
    cases = [
        ("DeprecationWarning", "somebodys", False),
        ("PendingDeprecationWarning", "somebodys", False),
        ("FutureWarning", "somebodys", False),
        # A name that begins as one of ours does.
        ("DeprecationWarning", "cli_helpers", False),
        ("UserWarning", "somebodys", True),
        ("RuntimeWarning", "somebodys", True),
        ("DeprecationWarning", "tests.ours", True),
        ("FutureWarning", "auditor", True),
        ("PendingDeprecationWarning", "cli.commands", True),
    ]
    for number, (category, module, _) in enumerate(cases):
        code = f"import warnings\nwarnings.warn_explicit('going', {category}, '{module}.py', 1, module='{module}')\n"
        (tmp_path / f"imported_{number}.py").write_text(code)
        (tmp_path / f"test_{number}.py").write_text(f"import imported_{number}\ndef test_it(): pass\n")
    filters = "".join(f"\n    {line}" for line in request.config.getini("filterwarnings"))
    (tmp_path / "pytest.ini").write_text(f"[pytest]\nfilterwarnings ={filters}\n")
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--continue-on-collection-errors",
            "--rootdir", str(tmp_path), str(tmp_path),
        ],
        cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    for number, (*_, fails) in enumerate(cases):
        assert (f"ERROR test_{number}.py - " in done.stdout) == fails, done.stdout
        assert (f"PASSED test_{number}.py::test_it" in done.stdout) != fails, done.stdout
