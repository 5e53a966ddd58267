"""A problem that a linter of private training reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["breaks", "harms"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One error: ``severity`` is ``breaks`` if the stated epsilon is invalid, ``harms`` if valid at a loss."""

    code: str
    severity: Severity
    what: str
    why: str
    mend: str


@dataclass(frozen=True, kw_only=True)
class CannotTell:
    """The record is insufficient for a check: ``why``, in a sentence."""

    why: str
