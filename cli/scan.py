"""``auditor scan``: from a model file to a report and an exit code."""

from __future__ import annotations

import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import typer

from auditor.errors import AuditorError, UsageError
from auditor.evidence.registration import with_what_became
from auditor.files import check_writable
from auditor.run.isolate import last_lines
from auditor.run.options import Configured
from auditor.run.scan import job_of, rows_at_hand, scan_job, workloads
from cli.evidence import check_flags, start_log, write_evidence
from cli.history import decisions_on, open_ledger, record_audit
from cli.output import print_report, stages
from cli.register import followed, opened
from cli.rendering import known_formats
from cli.written import claim_report, command_line, drop_stale, write_report
from probes import PROBES


def scan(configured: Configured, *, as_json: bool, quiet: bool, debug: bool) -> int:
    """Runs the scan and writes its reports; returns the exit code."""
    began, started = datetime.now(UTC), time.perf_counter()
    signal.signal(signal.SIGTERM, _terminated)
    options = configured.options
    formats = known_formats(options.format)
    out = Path(options.out)
    check_writable(out, "Name another folder with --out.")
    # All of them: a rendering of an earlier run is taken away, and what is somebody else's must not be.
    claim_report(out)
    check_flags(options)
    if options.db is not None and not options.history:
        raise UsageError("--db says where the history lies: add --history to append to it.")
    if options.history:
        open_ledger(options.db, create=True).close()
    registration = opened(options.registration)
    with rows_at_hand(configured) as (asked, told):
        job = job_of(asked, PROBES)
        registered = followed(registration, configured, began)
        log = start_log(job)
        waits = workloads(job, PROBES)
        with stages(not (quiet or as_json)) as shown:
            shown.total = len(job.probes) + 2

            def on_stage(stage: str) -> None:
                log.add("stage", stage=stage)
                shown(waits.get(stage, stage))

            scanned = scan_job(asked, job, PROBES, started, command=command_line(), on_stage=on_stage)
    report, measured = told(scanned.report), scanned.measured
    if debug and measured.log.strip():
        typer.echo(last_lines(measured.log, 200), err=True)
    if registered is not None:
        planned = [spec.name for spec in job.probes]
        refused = report.refusal is not None
        became = with_what_became(registered, report.findings, refused=refused, planned=planned)
        report = report.model_copy(update={"registration": became})
    ledger_error: AuditorError | None = None
    if options.history:
        try:
            report = report.model_copy(update={"decisions": decisions_on(report, options.db)})
        except AuditorError as error:
            # The audit is done and is written, whatever became of its history.
            ledger_error = type(error)(f"{error} This audit was not entered; its reports are written.")
    written = write_report(report, out, list(dict.fromkeys(["json", *formats])))
    drop_stale(out, written)
    unwritten: AuditorError | None = None
    if options.bundle is not None:
        try:
            written.append(write_evidence(configured, job, measured, report, log))
        except AuditorError as error:
            unwritten = error
    entered = None
    if options.history and ledger_error is None:
        try:
            entered = record_audit(report, options.db, options.bundle)
        except AuditorError as error:
            ledger_error = type(error)(f"{error} This audit was not entered; its reports are written.")
    try:
        if sys.stdout is None:
            pass
        elif as_json:
            sys.stdout.write(report.to_json())
            sys.stdout.flush()
        elif not quiet:
            print_report(report, written)
            if entered is not None:
                typer.echo(f"history {entered}")
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # The reports are written and the verdict stands, whether or not anybody can be told.
        typer.echo(f"auditor: standard output cannot be written: {error.strerror}.", err=True)
    # The verdict is printed and the report kept; what could not be written beside them decides the exit code.
    for failure in (unwritten, ledger_error):
        if failure is not None:
            raise failure
    return report.exit_code


def _terminated(number: int, frame: FrameType | None) -> None:
    """Ends like an interrupt does, so that the child and its scratch folder are cleared away."""
    raise SystemExit(128 + number)
