"""Layers: nothing is imported upwards or in a circle, and no package, module or function is too large."""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tests import ROOT
from tests.contract.import_graph import ENTRY_POINTS, LAYERS, circles, imports, layer, modules, statements, upward

MODULES = modules(ROOT)
MOST_LINES_OF_A_PACKAGE = 7_000
MOST_LINES_OF_A_MODULE = 620
MOST_LINES_OF_A_FUNCTION = 80


@cache
def imported() -> dict[str, set[str]]:
    """What each module imports of the others: read by the first test that asks."""
    return imports(MODULES)


def lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def test_no_circle() -> None:
    assert len(imported()) > 300 and sum(map(len, imported().values())) > 1_000
    assert circles(imported()) == []


def test_nothing_is_imported_upwards_and_no_module_imports_an_entry_point() -> None:
    assert upward(imported()) == []


def test_a_statement_is_found_within_any_other() -> None:
    within = (
        "def f():\n {}", "async def f():\n {}", "class C:\n {}", "for x in y:\n {}", "for x in y:\n a\nelse:\n {}",
        "while x:\n {}", "if x:\n {}", "if x:\n a\nelif y:\n {}", "if x:\n a\nelse:\n {}", "with x:\n {}",
        "try:\n {}\nexcept E:\n a", "try:\n a\nexcept E:\n {}", "try:\n a\nexcept* E:\n {}",
        "try:\n a\nexcept E:\n a\nelse:\n {}", "try:\n a\nfinally:\n {}", "match x:\n case 1:\n  {}",
        "async def f():\n async for x in y:\n  {}", "async def f():\n async with x:\n  {}",
    )  # fmt: skip
    missed = [each for each in within if not _has_import(each.format("import a")) or _has_import(each.format("a"))]
    assert missed == []


def _has_import(source: str) -> bool:
    return any(isinstance(node, ast.Import) for node in statements(source))


def test_every_module_has_its_layer_and_the_import_contract_has_the_same() -> None:
    assert {path.stem for path in (ROOT / "auditor").glob("*.py")} == {"__init__", "__main__", "gate"}
    packages = {path.parent.name for path in (ROOT / "auditor").glob("*/__init__.py")}
    below = list(dict.fromkeys(name.split(".")[0] for name in LAYERS))
    assert packages == set(below) and len(packages) == 12
    assert sorted(map(layer, ENTRY_POINTS)) == [max(map(layer, MODULES))] * 3 and min(map(layer, MODULES)) == 0
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    assert [contract["layers"] for contract in contracts if contract.get("containers") == ["auditor"]] == [below[::-1]]


def test_no_package_module_or_function_is_too_large() -> None:
    packages: Counter[str] = Counter()
    for name, file in MODULES.items():
        own = layer(name) < len(LAYERS)
        packages[LAYERS[layer(name)] if own else ".".join(name.split(".")[:2])] += lines(file)
    assert {package: n for package, n in packages.items() if n > MOST_LINES_OF_A_PACKAGE} == {}
    assert {name: n for name, file in MODULES.items() if (n := lines(file)) > MOST_LINES_OF_A_MODULE} == {}
    long = {
        f"{name}.{node.name}": n
        for name, file in MODULES.items()
        for node in statements(file.read_text(encoding="utf-8"))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (n := (node.end_lineno or node.lineno) - node.lineno + 1) > MOST_LINES_OF_A_FUNCTION
    }
    assert long == {}


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"a": "import auditor.b\n", "b": "def f():\n    from auditor.a import x\n"}, [["auditor.a", "auditor.b"]]),
        (
            {
                "a": "from auditor import b\n",
                "b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from auditor.c import C\n",
                "c": "from auditor.a import A\n",
            },
            [["auditor.a", "auditor.b", "auditor.c"]],
        ),
        ({"a": "from auditor.b import x\n", "b": "x = 1\n"}, []),
    ],
)
def test_a_late_import_and_one_for_types_alone_make_a_circle(
    files: dict[str, str], found: list[list[str]], tmp_path: Path
) -> None:
    (tmp_path / "auditor").mkdir()
    for name, text in files.items():
        (tmp_path / "auditor" / f"{name}.py").write_text(text)
    assert circles(imports(modules(tmp_path))) == found


def test_an_import_up_is_found_wherever_it_stands(tmp_path: Path) -> None:
    texts = {
        "auditor/__init__.py": "",
        "auditor/data/__init__.py": "def f():\n    from auditor.run import x\n",
        "auditor/run/__init__.py": "from auditor.data import f\nx = 1\n",
        "auditor/statistics/__init__.py": "import auditor\n",
        "probes/__init__.py": "from auditor.run import x\n",
        "mitigations/__init__.py": "import probes\n",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert upward(imports(modules(tmp_path))) == [
        "auditor.data imports auditor.run",
        "auditor.statistics imports auditor",
        "mitigations imports probes",
    ]
