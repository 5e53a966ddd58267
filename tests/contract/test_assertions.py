"""No assertion of the tests holds whatever is true: of nothing, by one of two ways, or of itself."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.contract.import_graph import statements
from tests.quantifiers import all_of, none_of

TESTS = next(folder for folder in Path(__file__).parents if folder.name == "tests")
HERE = Path(__file__).name


def assertions(source: str) -> list[ast.Assert]:
    """Every assertion, those within other statements too."""
    return [node for node in statements(source) if isinstance(node, ast.Assert)]


@cache
def all_assertions() -> dict[str, list[ast.Assert]]:
    """Those of every file of the tests."""
    files = sorted(TESTS.rglob("*.py"))
    return {path.relative_to(TESTS).as_posix(): assertions(path.read_text(encoding="utf-8")) for path in files}


def places(check: Callable[[ast.expr], bool]) -> dict[str, list[int]]:
    """The lines of the assertions that fail a check, by file."""
    found = {name: [each.lineno for each in own if check(each.test)] for name, own in all_assertions().items()}
    return {name: lines for name, lines in found.items() if lines}


def vacuous(test: ast.expr) -> bool:
    """Whether it rests on ``all(...)`` or ``not any(...)``, both of which nothing at all satisfies."""
    return any(_of_nothing(test, negated=False))


def _of_nothing(node: ast.expr, *, negated: bool) -> Iterator[bool]:
    """Of each quantifier that the condition rests on, whether it holds of nothing; one within another call is not."""
    match node:
        case ast.UnaryOp(op=ast.Not()):
            yield from _of_nothing(node.operand, negated=not negated)
        case ast.BoolOp():
            for value in node.values:
                yield from _of_nothing(value, negated=negated)
        case ast.Call(func=ast.Name(id=("all" | "any") as name)):
            yield (name == "all") is not negated
        case ast.Compare():
            # On both sides of a comparison any answer may be the one that is asked for.
            yield from (_is_all(part) for part in (node.left, *node.comparators))


def _is_all(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "all"


def toothless(test: ast.expr) -> bool:
    """Whether it is one of two conditions, has an expression that equals itself, or is a bare name.

    Which of two conditions holds is nothing that such a test knows; a name alone is true of nearly any object.
    """
    return isinstance(test, ast.Name) or _either(test, negated=False) or _of_itself(test)


def _either(node: ast.expr, *, negated: bool) -> bool:
    """Whether one of several conditions is enough; one within a call or a comparison is not looked at."""
    match node:
        case ast.UnaryOp(op=ast.Not()):
            return _either(node.operand, negated=not negated)
        case ast.BoolOp():
            return isinstance(node.op, ast.And if negated else ast.Or) or any(
                _either(value, negated=negated) for value in node.values
            )
    return False


def _of_itself(node: ast.expr) -> bool:
    """Whether anything in it is compared with the same expression."""
    compared = [[part.left, *part.comparators] for part in ast.walk(node) if isinstance(part, ast.Compare)]
    return any(ast.dump(a) == ast.dump(b) for parts in compared for a, b in itertools.pairwise(parts))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("assert all(x for x in xs)", True),
        ("assert ready and all(x for x in xs)", True),
        ("assert not any(x for x in xs)", True),
        ("assert not (a or any(x for x in xs))", True),
        ("assert all(x for x in xs) == expected", True),
        ("assert any(x for x in xs)", False),
        ("assert not all(x for x in xs)", False),
        ("assert all_of(all(row) for row in rows)", False),
        ("assert none_of(x for x in xs), all(xs)", False),
    ],
)
def test_what_nothing_satisfies_is_seen(source: str, found: bool) -> None:
    assert any(vacuous(each.test) for each in assertions(source)) is found


def test_no_assertion_holds_of_nothing() -> None:
    """Write ``all_of`` or ``none_of`` of ``tests/quantifiers.py``, which fail where there is nothing to look at."""
    assert len(all_assertions()) > 50 and f"contract/{HERE}" in all_assertions()
    assert places(vacuous) == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("assert a or b", True),
        ("assert a == 1 and (b or c)", True),
        ("assert not (a and b)", True),
        ("assert f() == f()", True),
        ("assert f(x) == g(x) == g(x)", True),
        ("assert f() != f()", True),
        ("assert record", True),
        ("if a:\n    assert b == 1", False),
        ("assert not (a or b)", False),
        ("assert f(a or b) == 1", False),
        ("first, again = f(), f()\nassert first == again", False),
        ("assert not record", False),
        ("assert record.ready", False),
    ],
)
def test_what_can_hardly_fail_is_seen(source: str, found: bool) -> None:
    assert any(toothless(each.test) for each in assertions(source)) is found


def test_every_assertion_can_fail() -> None:
    """Assert both conditions, or each under an ``if``, or the exact value; keep a first answer to compare a second."""
    assert places(toothless) == {}


def test_the_quantifiers_fail_of_nothing() -> None:
    assert all_of([1, True]) and not all_of([1, 0])
    assert none_of([0, False]) and not none_of([1, 0])
    for quantifier in (all_of, none_of):
        with pytest.raises(AssertionError, match="nothing to look at"):
            quantifier(x for x in ())
