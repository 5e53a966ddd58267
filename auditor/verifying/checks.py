"""What was checked of a piece of evidence, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from auditor.record.audit_report import AuditReport

State = Literal["ok", "wrong", "not checked"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was checked: ``name`` says what, ``detail`` what was found."""

    name: str
    state: State
    detail: str


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What became of a bundle: its checks in order, and the record where it could be read.

    ``from_rows``, ``from_tables``: ids of findings whose statistics were counted anew from stored rows or tables; all
    others were recomputed from the statistics that the bundle holds of them.
    """

    checks: tuple[Check, ...]
    report: AuditReport | None
    from_rows: frozenset[str] = frozenset()
    from_tables: frozenset[str] = frozenset()

    @property
    def wrong(self) -> bool:
        """Whether anything did not agree."""
        return any(check.state == "wrong" for check in self.checks)

    @property
    def incomplete(self) -> bool:
        """Whether something was not checked."""
        return any(check.state == "not checked" for check in self.checks)
