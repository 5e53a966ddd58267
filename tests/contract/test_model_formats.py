"""A model format is one row of one table: nothing else in the product knows it by name."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

from auditor.loading.boosted_libraries import LIBRARIES
from auditor.loading.formats import FORMATS, TABLE, BoostedTrees, ModelFormat, Refused
from auditor.models.format_names import ENDINGS
from tests.quantifiers import all_of, none_of

ROOT = Path(__file__).parents[2]
# Where a format may be named: its row, its reader, and how its files may end.
OWNERS = ("auditor/loading/", "auditor/models/format_names.py")
NAMES = {*FORMATS, *ENDINGS, *LIBRARIES} - {"unknown"}


def test_every_row_of_the_table_is_complete() -> None:
    assert all_of(isinstance(each.name, str) and each.name for each in TABLE)
    readers = [each.reader for each in TABLE if hasattr(each, "reader")]
    assert all_of(callable(getattr(import_module(f"auditor.loading.{module}"), name)) for module, name in readers)
    assert all_of(type(each).load is not ModelFormat.load or hasattr(each, "reader") for each in TABLE)
    known = {type(each).recognises is not ModelFormat.recognises or bool(each.magic) for each in TABLE}
    kept = {type(each).holds is not ModelFormat.holds for each in TABLE}
    assert known == kept == {True, False}
    assert all_of(
        each.magic or type(each).recognises is not ModelFormat.recognises or type(each).holds is not ModelFormat.holds
        for each in TABLE
    )


def test_what_is_refused_whatever_it_holds_is_refused_before_it_is_loaded() -> None:
    assert all_of(type(each).refuse is not ModelFormat.refuse for each in TABLE if isinstance(each, Refused))


def test_each_boosting_library_has_a_row_a_class_and_endings() -> None:
    assert {each.name for each in TABLE if isinstance(each, BoostedTrees)} == set(LIBRARIES)
    assert all_of(f"{name} model" in ENDINGS for name in LIBRARIES)
    assert none_of(library.__abstractmethods__ for library in LIBRARIES.values())


def _texts(source: str) -> set[str]:
    """The texts of a module that are values, and not the vocabulary of a record's field."""
    tree = ast.parse(source)
    vocabulary = {
        id(constant)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal"
        for constant in ast.walk(node)
    }
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in vocabulary
    }


def test_nothing_else_names_a_format() -> None:
    found = {
        f"{path.relative_to(ROOT).as_posix()}: {name}"
        for package in ("auditor", "probes", "mitigations", "cli")
        for path in (ROOT / package).rglob("*.py")
        if not path.relative_to(ROOT).as_posix().startswith(OWNERS)
        for name in _texts(path.read_text(encoding="utf-8")) & NAMES
    }
    assert found == set(), found
