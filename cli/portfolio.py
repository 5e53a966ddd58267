"""``auditor history findings|due|site``: open findings, due dates and pages of a history's models."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.core.errors import AuditorError, UsageError, did_you_mean
from auditor.core.writable_paths import claim, is_forced, reads
from cli.flags import AsJson, Tracebacks, Writes
from cli.history import Db, open_ledger, place_of
from cli.terminal import print_table

if TYPE_CHECKING:
    from auditor.evidence.portfolio.audit_lines import Read
    from auditor.evidence.portfolio.open_findings import ClosedFinding, OpenFinding, Standing
    from auditor.evidence.portfolio.portfolio_site import Bundle


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
    from auditor.report.record.number_text import day_of, visible

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


On = Annotated[str | None, typer.Option(help="Reference date for ages and due dates, such as 2027-01-31.")]
Every = Annotated[
    str | None,
    typer.Option(help="Maximum interval between audits of a model: 365d, 26w, 6m or 1y."),
]


def site(
    out: Annotated[
        Path, typer.Option(help="Folder of the site; an earlier site in it is replaced."), Writes(itself=True)
    ] = Path("site"),
    db: Db = None,
    on: On = None,
    every: Every = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Verify every evidence bundle that is still at its path.")
    ] = False,
    reports: Annotated[
        bool, typer.Option("--reports", help="Also render the report of each model's last audit.")
    ] = False,
    debug: Tracebacks = False,
) -> int:
    """Write all models of a history as static pages: verdicts, findings, due dates, rule packs, evidence.

    The same history gives the same bytes: ages refer to the day of its newest entry, or to --on. Exit codes: 0; 1 if
    the history was changed or a bundle is inconsistent, which every page then shows on top; 3 if an entry cannot be
    read.
    """
    from auditor.evidence.portfolio.audit_lines import read_ledger
    from auditor.evidence.portfolio.portfolio_site import Asked, write_site
    from auditor.evidence.portfolio.site_folder import check, replaced
    from auditor.report.record.number_text import day_of, period_of, plural, visible

    day = None if on is None else day_of(on, "--on")
    period = None if every is None else period_of(every, "--every")
    # Which pages there are is for the history to say; whether they may be written, for the folder.
    claim(out / "index.html", "--out", resumed=True)
    _refuse_ledger_in(out, db)
    check(out, force=is_forced())
    ledger = open_ledger(db)
    try:
        read = read_ledger(ledger)
        bundles = _bundles(read, db, out, verify=verify)
        asked = Asked(on=day or _newest_day(read), every=period, bundles=bundles, reports=reports)
        with replaced(out, force=is_forced()) as folder:
            made = write_site(ledger, read, asked, folder.write_page)
    finally:
        ledger.close()
    for problem in made.problems:
        typer.echo(f"WRONG   {visible(problem)}")
    typer.echo(f"site    {out / 'index.html'}")
    counted = f"{plural(made.models, 'model')}, {plural(made.open, 'open finding')}, {made.overdue:,} overdue"
    typer.echo(f"as of   {asked.on}: {counted}")
    if read.problems or any(bundle.wrong for bundle in bundles.values()):
        return 1
    return 3 if made.problems else 0


def _newest_day(reading: Read) -> date:
    from auditor.report.record.number_text import known_day

    day = known_day(reading.last_day)
    if day is None and reading.n_entries:
        raise UsageError("The newest entry of this history has no date: say --on DAY.")
    return day or date(1970, 1, 1)


def _refuse_ledger_in(out: Path, db: str | None) -> None:
    where = place_of(db)
    if "://" not in where and Path(os.path.realpath(out)) in Path(os.path.realpath(where)).parents:
        raise UsageError(f"{str(out)!r} holds {where!r}, which this command reads: name a folder of its own.")


# ---- bundles ---------------------------------------------------------------------------------------------------------


def _bundles(reading: Read, db: str | None, out: Path, *, verify: bool) -> dict[int, Bundle]:
    """The bundles of all audits, by entry: what became of checking them, where that was asked for."""
    from auditor.evidence.portfolio.portfolio_site import Bundle

    named = {audit.number: audit for audit in reading.audits if audit.bundle}
    if not verify:
        return {n: Bundle(path=audit.bundle or "", state="not checked") for n, audit in named.items()}
    where = place_of(db)
    beside = [Path(), *([] if "://" in where else [Path(where).parent])]
    found = {}
    for number, audit in named.items():
        path = audit.bundle or ""
        there = next((folder / path for folder in beside if (folder / path).is_file()), None)
        found[number] = (
            Bundle(path=path, state="not found") if there is None else _checked(path, there, audit.record_sha256, out)
        )
    return found


def _checked(path: str, bundle_path: Path, record_sha256: str, out: Path) -> Bundle:
    from auditor.evidence.history.entries import digest_of
    from auditor.evidence.portfolio.portfolio_site import Bundle
    from auditor.evidence.verify.verify_bundle import verify_bundle
    from cli.verify import stored_probe

    reads(bundle_path)
    href = Path(os.path.relpath(os.path.realpath(bundle_path), os.path.realpath(out))).as_posix()
    try:
        verified = verify_bundle(bundle_path, stored_probe)
    except AuditorError as error:
        return Bundle(path=path, state="wrong", href=href, wrong=str(error).rstrip("."))
    wrong = next((f"{check.name}: {check.detail}" for check in verified.checks if check.state == "wrong"), "")
    if not wrong and (verified.report is None or digest_of(verified.report) != record_sha256):
        wrong = "its record is not the one of this entry"
    if wrong:
        return Bundle(path=path, state="wrong", href=href, wrong=wrong)
    return Bundle(path=path, state="agrees, in part" if verified.exit_code() else "agrees", href=href)


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
    from auditor.report.record.number_text import period_of, visible

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
    from auditor.report.machine_formats import cell

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([cell(each) for each in row])
    return text.getvalue()
