"""The state of a history's models on a given day, for the commands that list due and open items."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import typer

from cli.history import open_ledger

if TYPE_CHECKING:
    from auditor.evidence.portfolio.open_findings import Standing


@dataclass(frozen=True, kw_only=True)
class Standings:
    """The models on a day, one after the other.

    ``changed``: that the history was, so that nothing that is said of them can be relied on; ``unread``: that an entry
    of it cannot be read.
    """

    on: date
    all: Iterator[Standing]
    changed: bool
    unread: bool


@contextmanager
def standings(db: str | None, day_text: str | None) -> Iterator[Standings]:
    """The states of a history's models on a day, by default today, with errors on standard error."""
    from auditor.evidence.portfolio.audit_lines import read_ledger
    from auditor.evidence.portfolio.model_history import models_of
    from auditor.evidence.portfolio.open_findings import model_standing
    from auditor.report.record.durations import day_of
    from auditor.report.record.number_text import visible

    day = datetime.now(UTC).date() if day_text is None else day_of(day_text, "--on")
    ledger = open_ledger(db)
    try:
        read = read_ledger(ledger)
        for problem in (*read.problems, *read.unread):
            typer.echo(f"WRONG  {visible(problem)}", err=True)
        models = (model_standing(ledger, model, day) for model in models_of(read))
        yield Standings(on=day, all=models, changed=bool(read.problems), unread=bool(read.unread))
    finally:
        ledger.close()
