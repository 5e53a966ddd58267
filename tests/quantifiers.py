"""All and none of what a test looks at, where looking at nothing is no success."""

from __future__ import annotations

from collections.abc import Iterable


def all_of(truths: Iterable[object]) -> bool:
    """Whether all are true; an AssertionError where there are none, of which ``all`` would say yes."""
    found = [bool(truth) for truth in truths]
    assert len(found) > 0, "there was nothing to look at"
    return all(found)


def none_of(truths: Iterable[object]) -> bool:
    """Whether all are false; an AssertionError where there are none, of which ``not any`` would say yes."""
    found = [bool(truth) for truth in truths]
    assert len(found) > 0, "there was nothing to look at"
    return not any(found)
