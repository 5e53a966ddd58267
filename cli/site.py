"""``auditor site``: all models of a history as a folder of static pages."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.core.errors import AuditorError, UsageError
from auditor.core.writable_paths import claim, is_forced, reads
from cli.flags import Tracebacks
from cli.history import Db, open_ledger, place_of
from cli.output_guard import Writes

if TYPE_CHECKING:
    from auditor.evidence.portfolio.audit_lines import Read
    from auditor.evidence.portfolio.portfolio_site import Bundle

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
    from auditor.report.record.durations import day_of, period_of
    from auditor.report.record.number_text import plural, visible

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
    from auditor.report.record.durations import known_day

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
