"""``auditor findings``: open findings of all models, with age, owner and decisions."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.core.errors import UsageError, did_you_mean
from cli.flags import Tracebacks
from cli.history import Db
from cli.model_status import standings
from cli.site import On
from cli.terminal import print_table

if TYPE_CHECKING:
    from auditor.evidence.portfolio.open_findings import ClosedFinding, OpenFinding

_COLUMNS = (
    "severity", "outcome", "age_days", "since", "status", "accepted_until", "accepted_up_to", "mend_by", "owner",
    "model", "version", "finding", "value", "interval", "required", "beyond", "first_entry", "last_entry",
    "asked_again", "id", "retested",
)  # fmt: skip
_CLOSED = ("outcome", "since", "closed", "model", "id", "first_entry", "closed_by_entry", "rows", "n", "found_on")
# On a terminal; what else there is stands in the other forms.
_PRINTED = 15


def findings(
    db: Db = None,
    model: Annotated[str | None, typer.Option(help="Only findings of one model, by its id or name.")] = None,
    severity: Annotated[str | None, typer.Option(help="high, medium or low.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only findings of one owner.")] = None,
    status: Annotated[str | None, typer.Option(help="Only findings with this status, such as accepted.")] = None,
    older_than: Annotated[
        int | None, typer.Option(help="Only findings first seen more than this many days ago.", min=0)
    ] = None,
    on: On = None,
    closed: Annotated[
        bool,
        typer.Option("--closed", help="List closed findings instead, with the rows on which a later audit passed."),
    ] = False,
    csv_: Annotated[bool, typer.Option("--csv", help="Print CSV, including ids.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, including ids.")] = False,
    debug: Tracebacks = False,
) -> int:
    """List open findings: not passed, nor passed later by the same model with the same bound and as many rows.

    Exit codes: 0; 1 if the history was changed; 3 if it has no audit, or one that cannot be read.
    """
    from auditor.evidence.portfolio.open_findings import SEVERITIES, STATUSES, closed_findings

    if csv_ and json_:
        raise UsageError("--csv and --json are two ways to print it: choose one.")
    if closed and (severity or owner or status or older_than is not None):
        raise UsageError("--closed lists all that is closed, of one --model or of all: leave the other filters out.")
    _check_choice("--severity", severity, SEVERITIES)
    _check_choice("--status", status, STATUSES)
    with standings(db, on) as told:
        found, gone, titles, unread = [], [], [], list[str]()
        for standing in told.all:
            titles.append(standing.model.title)
            unread += standing.problems
            gone += closed_findings(standing.model) if closed and model in (None, standing.model.title) else []
            found += [f for f in standing.open if _asked_for(f, model, severity, owner, status, older_than, told.on)]
    if model is not None and model not in titles:
        raise UsageError(f"This history has no model {model!r}{did_you_mean(model, titles) or '.'}")
    found.sort(key=lambda finding: finding.rank)
    table = _closed_table(gone) if closed else _open_table(found, told.on)
    none = f"No finding is {'closed' if closed else 'open'}."
    none = none if titles else "This history holds no audit: nothing is known of any model."
    _echo_table(table, none, as_csv=csv_, as_json=json_)
    if told.changed:
        return 1
    return 3 if told.unread or unread or not titles else 0


@dataclass(frozen=True)
class _Table:
    """``retested``: by row, whether a later audit looked at it again, in words for a terminal."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    retested: Sequence[str] = ()


def _open_table(entries: Sequence[OpenFinding], on: date) -> _Table:
    return _Table(_COLUMNS, [_row(each, on) for each in entries], [f.retested for f in entries])


def _closed_table(entries: Sequence[ClosedFinding]) -> _Table:
    return _Table(_CLOSED, [_closed_row(each) for each in entries])


def _echo_table(table: _Table, none: str, *, as_csv: bool, as_json: bool) -> None:
    """Prints a table as JSON, as CSV, or for a reader, who gets the sentence ``none`` where it is empty."""
    if as_json:
        entries = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        typer.echo(json.dumps(entries, indent=2, ensure_ascii=False))
    elif as_csv:
        typer.echo(_csv(table.columns, table.rows), nl=False)
    elif table.rows:
        _print(table.columns, table.rows, table.retested)
    else:
        typer.echo(none)


def _print(columns: Sequence[str], rows: Sequence[Sequence[object]], retested: Sequence[str]) -> None:
    from auditor.report.record.number_text import visible

    cells = [["" if cell is None else visible(str(cell)) for cell in row[:_PRINTED]] for row in rows]
    for row, why in zip(cells, retested, strict=False):
        row[4] += f". {visible(why)}" if why else ""
    print_table([name.replace("_", " ") for name in columns[:_PRINTED]], cells)


def _check_choice(flag: str, value: str | None, known_values: Sequence[str]) -> None:
    if value is not None and value not in known_values:
        near = did_you_mean(value, known_values) or "."
        raise UsageError(f"{flag} {value!r} is none of {', '.join(known_values)}{near}")


def _asked_for(
    finding: OpenFinding,
    model: str | None,
    severity: str | None,
    owner: str | None,
    status: str | None,
    older_than: int | None,
    today: date,
) -> bool:
    age = finding.age(today)
    return (
        model in (None, finding.model.title)
        and severity in (None, finding.severity)
        and owner in (None, finding.owner)
        and status in (None, finding.status)
        and (older_than is None or age is None or age > older_than)
    )


def _row(finding: OpenFinding, today: date) -> tuple[object, ...]:
    return (
        finding.severity,
        finding.outcome.value,
        finding.age(today),
        finding.since,
        finding.status,
        None if finding.accepted_until is None else finding.accepted_until.isoformat(),
        finding.accepted_up_to,
        None if finding.mend_by is None else finding.mend_by.isoformat(),
        finding.owner,
        finding.model.title,
        finding.model.identity.version,
        finding.what or finding.id,
        finding.value,
        finding.interval,
        finding.required,
        finding.beyond,
        finding.first,
        finding.last,
        finding.asked,
        finding.id,
        finding.retested,
    )


def _closed_row(finding: ClosedFinding) -> tuple[object, ...]:
    return (
        finding.outcome.value,
        finding.since,
        finding.closed,
        finding.model.title,
        finding.id,
        finding.first,
        finding.by_entry,
        finding.rows,
        finding.n,
        finding.found_on,
    )


def _csv(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    from auditor.report.csv_table import cell

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([cell(each) for each in row])
    return text.getvalue()
