"""``auditor due``: due audits, decisions and reviews, for cron jobs and pipelines."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from cli.flags import AsJson, Tracebacks
from cli.history import Db
from cli.model_status import standings
from cli.site import Every, On
from cli.terminal import print_table


def due(
    db: Db = None,
    every: Every = None,
    on: On = None,
    all_: Annotated[bool, typer.Option("--all", help="Include items that are not yet due.")] = False,
    json_: AsJson = False,
    debug: Tracebacks = False,
) -> int:
    """List audits, acceptances and rule packs that are overdue.

    An audit is due by [model] next_due or audit_every of the model's audit.toml, and by --every at the latest. Exit
    codes: 0 nothing is overdue, 1 something is, 3 nothing is known to be overdue, but some due dates are unknown.
    """
    from auditor.evidence.portfolio.due_dates import all_due
    from auditor.report.record.durations import period_of
    from auditor.report.record.number_text import visible

    period = None if every is None else period_of(every, "--every")
    with standings(db, on) as told:
        found = all_due(told.all, period, told.on)
    shown = [each for each in found if all_ or each.state != "due"]
    if json_:
        rows = [
            {
                "state": each.state,
                "kind": each.kind,
                "about": each.about,
                "by": None if each.by is None else each.by.isoformat(),
                "why": each.why,
            }
            for each in shown
        ]
        typer.echo(json.dumps({"on": told.on.isoformat(), "due": rows}, indent=2, ensure_ascii=False))
    else:
        cells = [(each.state, each.kind, each.about, str(each.by or ""), each.why) for each in shown]
        if cells:
            print_table(("state", "kind", "about", "by", "why"), [tuple(visible(c) for c in row) for row in cells])
        else:
            typer.echo(f"Nothing is overdue on {told.on}." if found else "Nothing is known of any model.")
    if any(each.state == "overdue" for each in found):
        return 1
    unknown = told.changed or told.unread or not found or any(each.state == "unknown" for each in found)
    return 3 if unknown else 0
