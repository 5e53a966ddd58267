"""The audit history on the command line: past findings, and the decisions about them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from auditor.core.errors import DataError, UsageError
from auditor.core.writable_paths import reads
from cli.flags import AsJson, Tracebacks, Writes
from cli.terminal import print_table

if TYPE_CHECKING:
    from auditor.evidence.history.entries import Decision, Entry
    from auditor.evidence.history.ledger import Ledger
    from auditor.judging.figure_types import Figure
    from auditor.report.comparing.metric_trend import Line
    from auditor.report.record.audit_report import AuditReport
    from auditor.report.record.earlier_audits import DecisionRecord, Step

DB_VARIABLE = "AUDITOR_DB"
_REFERENCE = re.compile(r"history:(\d+)")

Db = Annotated[
    str | None,
    typer.Option(help="The history: a file or an SQLAlchemy URL; $AUDITOR_DB, else ./audit-history.db."),
]


def place_of(db: str | None) -> str:
    """The database of the history: the flag, else the environment, else the default file."""
    from auditor.evidence.history.ledger import DEFAULT

    return db or os.environ.get(DB_VARIABLE) or DEFAULT


def open_ledger(db: str | None, *, create: bool = False) -> Ledger:
    """The ledger of the flag. Raises UsageError where there is none."""
    from auditor.evidence.history.ledger import Ledger

    where = place_of(db)
    if "://" not in where:
        reads(where)
    return Ledger(where, create=create)


# ---- in a scan -------------------------------------------------------------------------------------------------------


def entry_line(entry: Entry, db: str | None) -> str:
    """The position of an entry, in a line."""
    return f"{place_of(db) if '://' not in place_of(db) else 'database'}, entry {entry.number}, {entry.hash}"


def decisions_on(report: AuditReport, db: str | None) -> tuple[DecisionRecord, ...]:
    """The decisions on earlier audits of the same model."""
    ledger = open_ledger(db, create=True)
    try:
        return decisions_in(ledger, report)
    finally:
        ledger.close()


def decisions_in(ledger: Ledger, report: AuditReport) -> tuple[DecisionRecord, ...]:
    """The same from an open ledger; reads only these decisions and their audits."""
    from auditor.evidence.history.entries import Identity
    from auditor.evidence.history.ledger import decisions_about
    from auditor.evidence.signed_acceptances import decision_records

    now = Identity.from_report(report)
    found = decisions_about(ledger, sha256=now.sha256, path=now.path, model_id=now.id)
    own = {entry.number: entry for entry, _ in found}
    also = {decision.audit for _, decision in found} | {c.entry for _, decision in found for c in decision.covers}
    there = {number: entry for number in also - set(own) if (entry := ledger.find(number)) is not None}
    return tuple(decision_records(dict(sorted((own | there).items())), own, today=datetime.now(UTC).date()))


def report_of(path: Path, db: str | None = None) -> AuditReport:
    """A recorded audit: a report.json, its folder, an audit.zip, or ``history:N`` of the history at ``db``."""
    from cli.recorded_audits import consistent

    reference = _REFERENCE.fullmatch(str(path))
    if reference is None:
        return consistent(path)
    ledger = open_ledger(db)
    try:
        return ledger.entry(int(reference[1])).audit().record
    finally:
        ledger.close()


# ---- history ---------------------------------------------------------------------------------------------------------


def history(
    db: Db = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check that no entry was changed or removed.")] = False,
    head: Annotated[
        str | None,
        typer.Option(
            help="Noted hash of the latest entry, or its first 16 digits: --verify detects removed last entries."
        ),
    ] = None,
    key: Annotated[
        list[Path] | None, typer.Option(help="Trusted public key: --verify lists decisions not signed with it.")
    ] = None,
    plot: Annotated[str | None, typer.Option(help="Plot this metric over time into --out.")] = None,
    out: Annotated[Path, typer.Option(help="File of the plot: .svg or .png."), Writes(only_with="plot")] = Path(
        "trend.svg"
    ),
    json_: AsJson = False,
    debug: Tracebacks = False,
) -> int:
    """List recorded audits and decisions, check their chain, or plot a number over time.

    Exit codes: 0; 1 if an entry was changed, removed or inserted.
    """
    ledger = open_ledger(db)
    try:
        if (head is not None or key) and not verify:
            raise UsageError("--head and --key are what --verify looks for: add --verify.")
        if verify:
            return _verify(ledger, head, key or ())
        entries = list(ledger.entries())
        if plot is not None:
            _plot(entries, plot.replace("-", "_"), out)
            return 0
        if not json_:
            return _print(entries)
        typer.echo(json.dumps([_as_json(e) for e in entries], indent=2, ensure_ascii=False))
        return 0
    finally:
        ledger.close()


def _verify(ledger: Ledger, head: str | None, keys: Sequence[Path]) -> int:
    from auditor.evidence.history.check_history import check_history
    from auditor.evidence.signing import fingerprint, load_public_key
    from auditor.report.record.number_text import visible

    found = check_history(ledger, head, {fingerprint(load_public_key(path)) for path in keys})
    problems = found.problems
    for problem in problems:
        typer.echo(f"WRONG  {visible(problem)}")
    typer.echo(f"{found.n_entries:,} entries, head {found.head or 'none'}")
    for note in found.notes:
        typer.echo(note)
    return 1 if problems else 0


def _print(entries: list[Entry]) -> int:
    """Lists the entries; 1 where the chain is broken, which no reader of the list should overlook."""
    from auditor.evidence.history.ledger import broken_chain
    from auditor.evidence.registration import left_open
    from auditor.report.comparing.metric_trend import model_called
    from auditor.report.record.number_text import visible

    rows = []
    problems = broken_chain(iter(entries))
    for problem in problems:
        typer.echo(f"WRONG  {visible(problem)}")
    if problems:
        typer.echo("What this history says cannot be relied on; --verify says more.", err=True)
        return 1
    for entry in entries:
        number, when = str(entry.number), entry.created[:19].replace("T", " ")
        if entry.kind == "audit":
            audit = entry.audit()
            report = audit.record
            s = report.summary
            counts = f"{s.passed} PASS, {s.fail} FAIL, {s.inconclusive} INCONCLUSIVE, {s.not_run} NOT_RUN"
            version = f" {report.about.model.version}".rstrip() if report.about and report.about.model.id else ""
            what = f"{model_called(report)}{version} on {report.data.path or 'no data'}"
            rows.append((number, when, "audit", what, f"exit {report.exit_code}: {counts}", audit.bundle or ""))
        elif entry.kind == "registration":
            made = entry.registration()
            plan = made.registration.plan
            by = f" by {made.registration.by}" if made.registration.by else ""
            about = f"plan {made.sha256[:16]} of {made.registration.registered}{by}"
            rows.append((number, when, "registration", about, plan.describe(), "; ".join(left_open(plan))))
        else:
            d = entry.decision()
            said = f"{d.step or d.decision} by {d.by} ({d.role})" + (f" until {d.expires}" if d.expires else "")
            said += "".join(f"; {item.describe()}" for item in d.decided)
            rows.append((number, when, "decision", f"audit {d.audit}: {d.model_path or 'in memory'}", said, d.note))
    columns = ("entry", "created", "kind", "about", "said", "more")
    print_table(columns, [tuple(visible(cell) for cell in row) for row in rows])
    return 0


def _as_json(entry: Entry) -> dict[str, object]:
    own = {"entry": entry.number, "created": entry.created, "kind": entry.kind, "hash": entry.hash}
    if entry.kind == "audit":
        audit = entry.audit()
        report = audit.record
        return own | {
            "model": {"path": report.model.path, "sha256": report.model.sha256}
            | ({"root_sha256": root} if (root := report.model.root_sha256) else {})
            | ({"id": about.model.id, "version": about.model.version} if (about := report.about) else {}),
            "data": {"path": report.data.path, "sha256": report.data.sha256},
            "summary": report.summary.model_dump(by_alias=True),
            "exit_code": report.exit_code,
            "record_sha256": audit.record_sha256,
            "bundle": audit.bundle,
        }
    if entry.kind == "registration":
        return own | entry.registration().model_dump(mode="json")
    return own | entry.decision().model_dump(mode="json")


def _plot(entries: list[Entry], metric: str, out: Path) -> None:
    from auditor.core.files import write_beside
    from auditor.judging.figure_types import MOST_NAMED
    from auditor.report.comparing.metric_trend import lines_of
    from auditor.report.drawing.svg import draw_png, svg_file

    if out.suffix not in (".svg", ".png"):
        raise UsageError(f"{out.name!r} must end in .svg or .png.")
    figure = trend(entries, metric)
    write_beside(out, draw_png(figure) if out.suffix == ".png" else svg_file(figure).encode())
    typer.echo(str(out))
    lines = lines_of(_audits(entries), metric)
    if len(lines) > MOST_NAMED:
        columns = ("line", "audits", "first", "last", "value", "interval")
        print_table(columns, [_course(line) for line in lines])


def _course(line: Line) -> tuple[str, ...]:
    from auditor.report.record import number_text as text

    first, last = (when.date().isoformat() for when in (line.points[0][0], line.points[-1][0]))
    value, interval = text.number(line.last.value), text.interval(line.last.interval)
    return text.visible(line.name), str(len(line.points)), first, last, value, interval


def trend(entries: list[Entry], metric: str) -> Figure:
    """A metric over the audits of a history, by date, one line per location.

    Raises UsageError where no audit measured it, with the nearest that was measured.
    """
    from auditor.report.comparing.metric_trend import trend as drawn

    return drawn(_audits(entries), metric)


def _audits(entries: list[Entry]) -> list[tuple[str, AuditReport]]:
    return [(entry.created, entry.audit().record) for entry in entries if entry.kind == "audit"]


# ---- decisions -------------------------------------------------------------------------------------------------------


def signoff(
    audit: Annotated[str, typer.Argument(help="Number of a recorded audit, or its report.json, folder or audit.zip.")],
    by: Annotated[str, typer.Option(help="Name of the person who decides.")],
    role: Annotated[str, typer.Option(help="Role of that person.")],
    decision: Annotated[str, typer.Option(help="accept or reject.")],
    finding: Annotated[
        list[str] | None,
        typer.Option(
            help="Finding and its maximum accepted value: ID=VALUE, or METRIC=VALUE if only one finding has the metric."
        ),
    ] = None,
    expires: Annotated[str | None, typer.Option(help="Expiry date of the acceptance: 2027-01-31.")] = None,
    owner: Annotated[str, typer.Option(help="Person responsible for the fix.")] = "",
    due: Annotated[str | None, typer.Option(help="Due date of the fix: 2027-01-15.")] = None,
    as_: Annotated[
        str | None,
        typer.Option("--as", help="Step of a multi-person approval, in this order: prepared, reviewed, approved."),
    ] = None,
    note: Annotated[str, typer.Option(help="Why.")] = "",
    sign: Annotated[Path | None, typer.Option(help="Sign the decision with this private key.")] = None,
    db: Db = None,
    debug: Tracebacks = False,
) -> None:
    """Record who accepts or rejects an audit's findings; shown in later reports, changes no outcome."""
    from auditor.evidence.history.entries import Decision, Identity
    from auditor.evidence.history.signed_decisions import signed, step_named
    from auditor.evidence.signing import fingerprint, load_private_key

    key = None if sign is None else load_private_key(sign)
    chosen, until, step = _parse_decision(decision), _day("--expires", expires), step_named(as_)
    mended = _day("--due", due)
    if not by.strip() or not role.strip():
        raise UsageError("Say who decides and in which role: --by NAME --role ROLE.")
    if chosen == "reject" and (owner or mended):
        raise UsageError("--owner and --due say who mends what is accepted: a rejection has neither.")
    ledger = open_ledger(db)
    try:
        entry = _audit_entry(ledger, audit)
        about = entry.audit()
        if step in (None, "prepared"):
            terms = _terms(about.record, chosen, until, finding or (), step)
            terms |= {"owner": owner.strip()[:200], "due": mended}
        else:
            if finding or owner or until or mended:
                raise UsageError(
                    f"What is {step} is what was prepared: leave --finding, --expires, --owner and --due out."
                )
            terms = _terms_before(
                list(ledger.entries()), entry.number, chosen, step, by, fingerprint(key.public_key()) if key else None
            )
        made = Decision(
            audit=entry.number,
            record_sha256=about.record_sha256,
            model_path=about.record.model.path,
            model_sha256=about.record.model.sha256,
            model_id=Identity.from_report(about.record).id,
            decision=chosen,
            by=by.strip()[:200],
            role=role.strip()[:200],
            note=note[:4_000],
            step=step,
            **terms,
        )
        written = ledger.append("decision", made if key is None else signed(made, key))
    finally:
        ledger.close()
    what = chosen if made.step is None or chosen == "reject" else made.step
    typer.echo(
        f"entry {written.number}: {what} of audit {entry.number} by {made.by} ({made.role})"
        + (f" until {made.expires}" if made.expires else "")
    )
    _say_what_of(made)


def _terms(
    report: AuditReport, decision: str, until: date | None, finding_names: Sequence[str], step: Step | None
) -> dict[str, Any]:
    """What a decision of its own is about, and until when."""
    from auditor.evidence.history.signed_decisions import decided_findings
    from auditor.judging.measurement import Outcome

    if decision == "accept" and until is None:
        raise UsageError("A risk is accepted until a day: add --expires, such as --expires 2027-01-31.")
    if decision == "reject" and until is not None:
        raise UsageError("A rejection does not expire: leave --expires out.")
    if step is not None and decision == "reject":
        raise UsageError("What is prepared for others to sign is an acceptance: leave --as out to reject.")
    not_passed = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.NOT_RUN)
    decided = decided_findings(report, finding_names, accept=decision == "accept")
    of = [item.finding for item in decided] or [f.id for f in report.findings if f.outcome in not_passed]
    return {"expires": until, "decided": decided, "findings": tuple(of)}


def _terms_before(
    entries: list[Entry], audit: int, decision: str, step: Step, signer: str, key: str | None
) -> dict[str, Any]:
    """What was prepared, for the next to sign, and the signatures that this one covers."""
    from auditor.evidence.history.ledger import broken_chain
    from auditor.evidence.history.signed_decisions import signed_before

    if problems := broken_chain(iter(entries)):
        raise DataError(f"Nothing in this history can be {step}: {problems[0]}.")
    before, covers = signed_before(entries, audit, step, signer=signer, key=key)
    first = before[0]
    terms: dict[str, Any] = {"covers": tuple(covers), "decided": first.decided, "findings": first.findings}
    if decision == "accept":
        terms |= {"expires": first.expires, "owner": first.owner, "due": first.due}
    return terms


def _say_what_of(decision: Decision) -> None:
    from auditor.report.record.number_text import visible

    for item in decision.decided:
        typer.echo(f"  {visible(item.finding)}{f' {item.limit}' if item.limit else ''}")
    if decision.decided:
        typer.echo("No outcome is changed.")
    else:
        n = len(decision.findings)
        typer.echo(f"{n} finding{'' if n == 1 else 's'} had not passed; no outcome is changed.")


def _parse_decision(text: str) -> Literal["accept", "reject"]:
    if text == "accept":
        return "accept"
    if text == "reject":
        return "reject"
    raise UsageError(f"--decision {text!r} must be accept or reject.")


def _day(flag: str, text: str | None) -> date | None:
    from auditor.report.record.number_text import day_of

    if text is None:
        return None
    day = day_of(text, flag)
    if day < datetime.now(UTC).date():
        raise UsageError(f"{flag} {text} is past: it must be a day to come.")
    return day


def _audit_entry(ledger: Ledger, text: str) -> Entry:
    from auditor.evidence.history.entries import digest_of, record_in
    from cli.report_outputs import read_report

    if text.isdecimal():
        entry = ledger.entry(int(text))
        entry.audit()
        return entry
    report = read_report(Path(text))
    digest = digest_of(report)
    for entry in ledger.entries():
        if entry.kind == "audit" and record_in(entry)[0] == digest and entry.audit().holds(report):
            return entry
    raise UsageError(f"The audit in {text!r} is not in the history: scan with --history records it.")
