"""``make mutants`` breaks every file of the statistics and the judgement, and leaves out what it says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests import mutation

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
    named = {name for module, (tests, _) in mutation.MODULES.items() for name in (module, *tests)}
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
