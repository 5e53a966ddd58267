"""``make mutants`` breaks every file of the statistics and the judgement, and leaves out what it says."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests import mutation
from tests.recorder import Ran, function_name, read_calls

ROOT = mutation.ROOT


def direct_imports(file: Path) -> set[str]:
    """What a file of tests imports: modules, and names as if they were modules."""
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_every_file_of_statistics_and_judgement_has_tests_of_its_own() -> None:
    """Write tests that import the file, or name in MODULES of tests/mutation.py those that are to notice its faults."""
    about = tuple(name.replace("/", ".") for name in mutation.FOLDERS)
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    imported = {name for file in files for name in direct_imports(file) if name.startswith(about)}
    unseen = [
        path.relative_to(ROOT).as_posix()
        for folder in mutation.FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.name != "__init__.py"
        and path.relative_to(ROOT).as_posix() not in mutation.MODULES
        and path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") not in imported
    ]
    assert unseen == []


def test_what_the_table_names_is_there() -> None:
    named = {name for module, tests in mutation.MODULES.items() for name in (module, *tests)}
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []


@pytest.mark.parametrize(
    ("source", "change", "after"),
    [
        ("def f(x):\n    g(x)\n    return x", "drop statement, line 2, g(x)", "def f(x):\n    pass\n    return x"),
        ("def f(x):\n    x += 1\n    return x", "drop statement, line 2, x += 1", "def f(x):\n    pass\n    return x"),
        (
            "def f(x):\n    if x:\n        raise E\n    return x",
            "drop guard, line 2, if x:",
            "def f(x):\n    pass\n    return x",
        ),
        ("y = a and b and c", "drop operand 2", "y = a and c"),
        ("y = a or b", "drop operand 1", "y = b"),
        ("y = [x for x in xs if x > 1 if x < 3]", "drop filter 1", "y = [x for x in xs if x < 3]"),
    ],
)
def test_what_is_left_out(source: str, change: str, after: str) -> None:
    places = [
        (i, name) for i, node in enumerate(mutation.nodes(ast.parse(source))) for name, _ in mutation.changes(node)
    ]
    ((place, _),) = (found for found in places if found[1] == change)
    tree = ast.parse(source)
    dict(mutation.changes(list(mutation.nodes(tree))[place]))[change]()
    assert ast.unparse(tree) == after


def test_a_docstring_and_a_name_that_is_needed_stay() -> None:
    source = 'def f(x):\n    """What it is."""\n    y = x\n    return y'
    names = [name for node in mutation.nodes(ast.parse(source)) for name, _ in mutation.changes(node)]
    assert [name for name in names if name.startswith("drop")] == []


def test_the_nearest_tests_are_those_of_the_fewest_imports() -> None:
    known = {
        name: ROOT / f"{name.replace('.', '/')}.py" for name in ("tests.b.test_far", "tests.a.test_near", "tests.x")
    }
    graph = {
        "auditor.a.one": set(), "auditor.a.two": {"auditor.a.one"}, "tests.x": {"auditor.a.two"},
        "tests.a.test_near": {"tests.x"}, "tests.b.test_far": {"auditor.a.two"},
    }  # fmt: skip
    assert mutation.nearest_tests("auditor/a/one.py", known, graph) == ("tests/b/test_far.py",)
    assert mutation.nearest_tests("auditor/a/two.py", known, graph) == ("tests/b/test_far.py",)
    assert mutation.nearest_tests("auditor/a/none.py", known, graph) == ()


def test_the_nearest_tests_of_a_file_lie_in_the_folder_that_mirrors_its_own() -> None:
    known = {
        name: ROOT / f"{name.replace('.', '/')}.py" for name in ("tests.other.test_x", "tests.report.record.test_y")
    }
    graph = {"auditor.report.record.one": set()} | {name: {"auditor.report.record.one"} for name in known}
    assert mutation.nearest_tests("auditor/report/record/one.py", known, graph) == (
        "tests/report/record/test_y.py", "tests/other/test_x.py",
    )  # fmt: skip


SOURCE = """\
LIMIT = 3
def outer(x=1):
    def inner():
        return [y for y in range(x)]
    return inner
class Kind:
    size = 2
    @property
    def area(self):
        return (lambda: self.size)()
"""


def test_a_line_is_of_the_innermost_function_by_the_name_that_python_gives_it() -> None:
    names = [mutation.function_at(SOURCE, line) for line in range(1, 11)]
    inner = "outer.<locals>.inner"
    assert names == ["", "outer", inner, inner, "outer", "", "", "", "Kind.area", "Kind.area"]
    scope: dict[str, object] = {}
    exec(compile(SOURCE, "/project/auditor/a.py", "exec"), scope)
    outer, kind = scope["outer"], scope["Kind"]
    codes = [outer.__code__, outer().__code__, kind.area.fget.__code__]  # type: ignore[attr-defined,operator]
    assert [function_name(code, "/project/") for code in codes] == [
        "auditor/a.py::outer", f"auditor/a.py::{inner}", "auditor/a.py::Kind.area",
    ]  # fmt: skip
    comprehension = next(code for code in codes[1].co_consts if hasattr(code, "co_qualname"))
    assert function_name(comprehension, "/project/") == f"auditor/a.py::{inner}"
    assert function_name(codes[0], "/elsewhere/") == "" == function_name(codes[0], "/project/auditor/")


def test_what_is_recorded_of_a_test_and_of_its_measuring_processes_is_read_together() -> None:
    lines = [
        '{"child_of": "t.py::one", "calls": ["auditor/a.py::g"]}',
        '{"test": "t.py::one", "seconds": 0.5, "fixtures": ["auditor/a.py::h"], "calls": ["auditor/a.py::f"]}',
        '{"child_of": "t.py::one that failed", "calls": ["auditor/a.py::g"]}',
    ]
    (found,) = read_calls(lines)
    assert found == Ran(
        "t.py::one", 0.5, frozenset({"auditor/a.py::f", "auditor/a.py::g"}), frozenset({"auditor/a.py::h"})
    )


def test_the_tests_of_a_fault_are_those_that_ran_its_function_the_most_particular_first() -> None:
    def ran(name: str, *functions: str, seconds: float = 1.0, fixtures: tuple[str, ...] = ()) -> Ran:
        return Ran(name, seconds, frozenset(functions), frozenset(fixtures))

    tests = [
        ran("a.py::wide", "x.py::f", "x.py::g", "y.py::h"),
        ran("a.py::narrow", "x.py::f"),
        ran("b.py::one", "x.py::f", "x.py::g"),
        ran("b.py::other", "y.py::h"),
        ran("c.py::prepared", fixtures=("x.py::f",)),
        ran("c.py::beside", "z.py::k"),
        ran("d.py::endless", "x.py::f", seconds=mutation.MOST_SECONDS),
    ]
    assert mutation.choose("x.py::f", tests) == [
        "c.py::prepared", "a.py::narrow", "b.py::one", "c.py::beside", "a.py::wide",
    ]  # fmt: skip
    assert mutation.choose("y.py::", tests) == ["b.py::other", "a.py::wide"]
    assert mutation.choose("x.py::nobody", tests) == []


def test_the_lines_that_a_change_touches() -> None:
    diff = """\
--- a/auditor/a.py
+++ b/auditor/a.py
@@ -3 +3 @@ def f():
-old
+new
@@ -10,0 +11,2 @@
+two
+more
@@ -20,2 +21,0 @@
-gone
--- a/auditor/gone.py
+++ /dev/null
@@ -1 +0,0 @@
--- a/auditor/page.md
+++ b/auditor/page.md
@@ -1 +1 @@
"""
    assert mutation.lines_of_diff(diff) == {"auditor/a.py": {3, 11, 12}}


TESTS_OF_RANKS = "tests/probes/privacy/memorization/test_exposure.py"
TRIAL = """\
import pathlib, sys
from tests import mutation
folder, target, test = pathlib.Path(sys.argv[1]), *sys.argv[2:]
mutation.copied(folder)
ran = mutation.record(folder, [test], "quick", 300.0)
source = (mutation.ROOT / target).read_text()
own = [m for m in mutation.mutants_of(target) if mutation.function_at(source, m.line).endswith("Exposure.value")]
tried = [mutation.try_mutant(folder, mutant, ran, 120.0) for mutant in own[:3]]
assert (folder / target).read_text() == source
print("killed", sum(each.killed for each in tried), "by", {each.n_tests for each in tried})
"""


@pytest.mark.slow
def test_a_planted_fault_is_noticed_by_a_test_that_runs_its_function(tmp_path: Path) -> None:
    """In a process of its own: this one has imported the product already, and not that of the copy."""
    target, test = "auditor/statistics/attack_estimates.py", f"{TESTS_OF_RANKS}::test_exposure_is_the_published_rank"
    command = [sys.executable, "-c", TRIAL, str(tmp_path), target, test]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "SURVIVED" not in done.stdout and "killed 0" not in done.stdout and "by {0}" not in done.stdout


def test_a_statement_that_is_left_out_is_a_change_of_its_own_line() -> None:
    tree = ast.parse("def f(x):\n    y = [z for z in x\n         if z]\n    g(y)\n    return y")
    found = {name: mutation.line_of(node, name) for node in mutation.nodes(tree) for name, _ in mutation.changes(node)}
    assert found == {"drop statement, line 4, g(y)": 4, "drop filter 1": 2}
