"""What a linter of private training reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["breaks", "harms"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One fault: ``severity`` ``breaks`` where the stated epsilon does not hold, ``harms`` where it holds at a loss."""

    code: str
    severity: Severity
    what: str
    why: str
    mend: str


@dataclass(frozen=True, kw_only=True)
class CannotTell:
    """What a record says does not answer a check: ``why``, in a sentence."""

    why: str
