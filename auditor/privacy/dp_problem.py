"""A check of a private training's record, and the problem that it may find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

R = TypeVar("R")

Severity = Literal["breaks", "harms"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One error: ``severity`` is ``breaks`` if the stated epsilon is invalid, ``harms`` if valid at a loss."""

    what: str
    why: str
    mend: str
    severity: Severity = "breaks"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A fault, with the name of the check that found it as its ``code``."""

    code: str
    severity: Severity
    what: str
    why: str
    mend: str


@dataclass(frozen=True, kw_only=True)
class CannotTell:
    """The record is insufficient for a check: ``why``, in a sentence."""

    why: str


Found = Fault | CannotTell | None


@dataclass(frozen=True, kw_only=True)
class Check(Generic[R]):
    """One check of a run; ``needs``: the fields required for it.

    ``ask`` gives the fault, None where there is none, or why the fields that are there do not tell.
    """

    name: str
    needs: tuple[str, ...]
    ask: Callable[[R], Found]


def check(*needs: str) -> Callable[[Callable[[R], Found]], Check[R]]:
    """Decorator that makes a check of a function, which has the function's name."""
    return lambda ask: Check(name=ask.__name__, needs=needs, ask=ask)
