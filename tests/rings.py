"""Rings of tests: the quick one, for which people wait; the grids, the other cases of large tests and slow ones; lint.

``conftest.py`` has its hooks. A parametrised test that is marked ``grid`` leaves some of its cases in the quick ring;
all its others, and what is marked ``slow``, make up the ring of the grids. ``slow(quick=True)`` stays in the quick
ring nevertheless. A test that is marked ``lint`` is run by ``make lint`` alone. One without a mark is a quick one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import pytest

Ring = Literal["quick", "grids", "lint", "all"]

# No grid here has a parameter of seven values, so a step of seven comes by every value of each parameter.
EVERY = 7
# All tests that were collected, before those of the other ring were left out.
COLLECTED = pytest.StashKey[list[pytest.Item]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--ring",
        choices=get_args(Ring),
        default="all",
        help="quick: all tests that are not slow, of those marked grid some cases each; grids: the others; "
        "lint: those marked lint; all (default): every one",
    )


def spread(n: int, every: int) -> range:
    """Indices of one in so many of n cases; of fewer than that the one in the middle."""
    return range((min(n, every) - 1) // 2, n, every)


def is_slow(case: pytest.Item) -> bool:
    """Whether nobody who waits for the quick ring waits for this test."""
    mark = case.get_closest_marker("slow")
    return mark is not None and not mark.kwargs.get("quick")


def quick_cases(cases: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The cases of one test function that the quick ring holds: at least one, where one is not slow.

    Where the grid's mark says ``by``, a function of the test's parameters, it is the first case of each of its values;
    otherwise one case in ``every``.
    """
    cases = [case for case in cases if not is_slow(case)]
    mark = cases[0].get_closest_marker("grid") if cases else None
    if mark is None:
        return cases
    if by := mark.kwargs.get("by"):
        first: dict[object, pytest.Item] = {}
        for case in cases:
            # A test that is not parametrised is a class of its own.
            parameters = case.callspec.params if hasattr(case, "callspec") else None
            first.setdefault(by(**parameters) if parameters else None, case)
        return list(first.values())
    return [cases[index] for index in spread(len(cases), mark.kwargs.get("every", EVERY))]


def by_function(items: Iterable[pytest.Item]) -> list[list[pytest.Item]]:
    """The cases of each test function, in the order of their collection."""
    functions = defaultdict(list)
    for item in items:
        functions[item.nodeid.partition("[")[0]].append(item)
    return list(functions.values())


def in_ring(items: Sequence[pytest.Item], ring: Ring) -> list[pytest.Item]:
    """The tests of a ring, in their order."""
    if ring == "all":
        return list(items)
    quick = {case for cases in by_function(items) for case in quick_cases(cases)}

    def ring_of(item: pytest.Item) -> Ring:
        return "lint" if item.get_closest_marker("lint") else "quick" if item in quick else "grids"

    return [item for item in items if ring_of(item) == ring]


def choose_ring(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of the other ring, which pytest reports as deselected."""
    config.stash[COLLECTED] = list(items)
    items[:] = in_ring(items, config.getoption("ring"))
    chosen = set(items)
    config.hook.pytest_deselected(items=[item for item in config.stash[COLLECTED] if item not in chosen])
