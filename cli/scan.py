"""``auditor scan``: from a model file to a report and an exit code.

Repeated looks are counted in the history, spent by a campaign, and recorded before the verdict is seen.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer

from auditor.core.errors import AuditorError, UsageError
from auditor.core.files import check_writable
from auditor.loading.sandbox.measuring_process import MeasuringProcess
from auditor.report.record.report_formats import known_formats
from auditor.run.parent_process import last_lines
from auditor.run.scan import (
    held_to,
    job_of,
    record_of,
    rows_at_hand,
    scan_job,
    workloads,
)
from auditor.run.scan_options import Configured, ScanOptions, flags
from auditor.run.scan_servers import servers_at_hand
from cli.audit_plan import followed, open_registration, plan_of
from cli.history import decisions_in, entry_line, open_ledger
from cli.recorded_audits import check_places, publish_report
from cli.report_outputs import alone_in, claim_report, command_line, drop_stale, make_page_ready, write_report
from cli.scan_evidence import check_flags, enclosed_of, start_log, write_evidence
from cli.terminal import print_report, stages
from probes import PROBES

if TYPE_CHECKING:
    from pydantic import JsonValue

    from auditor.evidence.history.earlier_looks import Known
    from auditor.loading.job_specs import Job
    from auditor.report.record.audit_report import AuditReport
    from auditor.report.record.earlier_audits import CampaignRecord, RegistrationRecord

# Said of a look by digests, by the record or by what was found, and not once more as an option.
_SAID_ELSEWHERE = ("seed", "error_rate", "multiplicity", "policy", "probes", "device")
_ATTEMPTS = 20
_NAME_A_MODEL = (
    "Name a model: auditor scan MODEL, or --predict package.module:function; or its answers: --predictions FILE; "
    "or the log of its evaluation: --log PATH. Rows without a model are audited by auditor scan-data FILE."
)


def check_history(options: ScanOptions) -> None:
    """Raise UsageError, before any work, for contradictory history flags, or a history that cannot be opened."""
    if options.db is not None and not options.history:
        raise UsageError("--db says where the history lies: add --history to append to it.")
    if options.campaign_looks is not None and options.campaign is None:
        raise UsageError("--campaign-looks says how many looks a campaign is to have: name it with --campaign.")
    if options.campaign is not None and not options.history:
        raise UsageError("The looks of a campaign are counted in the history: add --history.")
    if options.campaign is not None and options.multiplicity in ("bh", "none"):
        raise UsageError(
            f"--multiplicity {options.multiplicity} makes no promise that a campaign could keep: leave it out."
        )
    if options.history:
        open_ledger(options.db, create=True).close()


def next_of_campaign(options: ScanOptions) -> CampaignRecord | None:
    """The next look of the campaign.

    Raises UsageError, before any work, where it has none left.
    """
    if options.campaign is None:
        return None
    from auditor.evidence.history.earlier_looks import Known

    ledger = open_ledger(options.db, create=True)
    try:
        return _next_of_campaign(options, Known.from_ledger(ledger))
    finally:
        ledger.close()


def _next_of_campaign(options: ScanOptions, history: Known) -> CampaignRecord | None:
    from auditor.evidence.history.earlier_looks import next_look

    if options.campaign is None:
        return None
    return next_look(history, options.campaign, options.campaign_looks, options.error_rate)


def at_level(config: Configured, campaign: CampaignRecord | None) -> Configured:
    """The scan with the error rate of its look."""
    if campaign is None:
        return config
    return replace(config, options=replace(config.options, error_rate=campaign.level))


def entered(
    config: Configured,
    job: Job,
    report: AuditReport,
    campaign: CampaignRecord | None,
    judged_again: Callable[[CampaignRecord | None], AuditReport],
) -> tuple[AuditReport, CampaignRecord | None, str]:
    """The report with its looks and the decisions on its model, the look, and a line on its entry.

    It is entered before anybody is told the verdict, so that no look goes uncounted; where another audit was entered
    meanwhile, the looks are counted again and a campaign's is ``judged_again``. Raises UsageError or DataError where
    the history cannot be written or counted.
    """
    from auditor.evidence.history.earlier_looks import Asked, Known, looks_of
    from auditor.evidence.history.entries import AuditEntry

    options = config.options
    asked = Asked(probes=tuple(spec.name for spec in job.probes), options=asked_of(config))
    ledger = open_ledger(options.db, create=True)
    try:
        for _ in range(_ATTEMPTS):
            # Before what is asked of the ledger: whoever enters something meanwhile moves it, and nothing is taken.
            head, known = ledger.head(), Known.from_ledger(ledger)
            now = _next_of_campaign(options, known)
            if now != campaign:
                campaign, report = now, judged_again(now)
            found = _with_plan(config, known, report)
            found = found.model_copy(update={"decisions": decisions_in(ledger, report)})
            if report.refusal is None:
                found = found.model_copy(update={"looks": looks_of(known, head, found, asked, campaign)})
            entry = ledger.append_after(head, "audit", AuditEntry.from_report(found, options.bundle))
            if entry is not None:
                return found, campaign, entry_line(entry, options.db)
    finally:
        ledger.close()
    raise UsageError("The history is written to all the time by others, and the looks could not be counted: try again.")


def _with_plan(config: Configured, history: Known, report: AuditReport) -> AuditReport:
    """The report with where the history holds the registration that the run was to follow."""
    from auditor.evidence.history.earlier_looks import placed
    from auditor.run.scan import held_to

    plan = placed(history, report)
    # What was registered answers controls too.
    return report if plan is None else held_to(config, report.model_copy(update={"registration": plan}))


def asked_of(config: Configured) -> dict[str, JsonValue]:
    """Every decisive option with a non-default value, by its flag or as ``probe.option``.

    Not the files, which are known by their digests, nor what the record says of itself.
    """
    said, unasked = config.options.json_values(), ScanOptions().json_values()
    found: dict[str, JsonValue] = {
        f"--{name.replace('_', '-')}": said[name]
        for name, flag in flags().items()
        if said[name] != unasked[name] and not (flag.is_path or flag.of_one_run or name in _SAID_ELSEWHERE)
    }
    for probe, own in config.probe_options.items():
        found |= {f"{probe}.{option}": value for option, value in own.items()}
    return found


def scan(
    config: Configured,
    waiting: MeasuringProcess,
    *,
    publish: Sequence[str] = (),
    verbose: bool,
    debug: bool,
) -> int:
    """Audit a model: :func:`run` with its favourable label. Raises UsageError where there is no model."""
    options = config.options
    if not any((options.model, options.predict, options.predictions, options.log, options.generate)):
        raise UsageError(_NAME_A_MODEL)
    return run(_with_positive(config), waiting, publish=publish, verbose=verbose, debug=debug)


def run(
    config: Configured,
    waiting: MeasuringProcess,
    *,
    publish: Sequence[str] = (),
    verbose: bool,
    debug: bool,
) -> int:
    """Run the scan, write its reports and publish them; return the exit code."""
    check_places(publish)
    began, started = datetime.now(UTC), time.perf_counter()
    signal.signal(signal.SIGTERM, _terminated)
    options = config.options
    formats, out = known_formats(options.format), _place_of(options)
    campaign = next_of_campaign(options)
    registration = open_registration(options.registration)
    with (
        rows_at_hand(config) as (asked, told),
        stages(not (options.quiet or options.json_)) as shaking,
        servers_at_hand(options, shaking) as servers,
    ):
        job = job_of(asked, PROBES, servers)
        plan = None if registration is None else plan_of(config)
        registered = None if plan is None else followed(registration, config, began, plan)
        log = start_log(job)
        waits = workloads(job, PROBES)
        make_page_ready(formats)
        with stages(not (options.quiet or options.json_)) as shown:
            shown.total = len(job.probes) + 2

            def on_stage(stage: str) -> None:
                log.add("stage", stage=stage)
                shown(waits.get(stage, stage))

            scanned = scan_job(
                at_level(asked, campaign), job, PROBES, started,
                command=command_line(), on_stage=on_stage, waiting=waiting, servers=servers,
            )  # fmt: skip
    measured = scanned.measured
    if debug and measured.log.strip():
        typer.echo(last_lines(measured.log), err=True)

    def finished(report: AuditReport) -> AuditReport:
        became = _followed(told(report), registered, [spec.name for spec in job.probes])
        # What was registered answers controls too.
        return became if registered is None else held_to(config, became)

    def judged_again(look: CampaignRecord | None) -> AuditReport:
        seconds = scanned.report.duration_s
        return finished(record_of(at_level(asked, look), job, measured, command_line(), seconds))

    report = finished(scanned.report)
    entry, ledger_error = None, None
    if options.history:
        try:
            report, campaign, entry = entered(config, job, report, campaign, judged_again)
        except AuditorError as error:
            if campaign is not None:
                # A verdict whose look is not counted is one look too many.
                raise type(error)(f"{error} This audit was not entered, and no report of it is written.") from None
            # The audit is done and is written, whatever became of its history.
            ledger_error = type(error)(f"{error} This audit was not entered; its reports are written.")
    with alone_in(out):
        written = write_report(report, out, list(dict.fromkeys(["json", *formats])))
        drop_stale(out, written)
    # Not the evidence beside it, which may hold rows.
    places, unpublished = _published(report, written, publish)

    def evidence() -> str:
        asked_for = plan or plan_of(config, hashed=False)
        enclosed = enclosed_of(config, report, asked_for, began, registration)
        return write_evidence(at_level(config, campaign), job, measured, report, log, enclosed)

    bundles, unwritten = _bundled(options.bundle, evidence)
    _print(report, [*written, *bundles], entry, places, as_json=options.json_, quiet=options.quiet, verbose=verbose)
    # The verdict is printed and the report kept; what could not be written beside them decides the exit code.
    if failure := unwritten or ledger_error or unpublished:
        raise failure
    return report.exit_code


def _with_positive(config: Configured) -> Configured:
    """The scan with the favourable label that whoever sits at a terminal names, where nothing else says it."""
    if config.options.positive is not None or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return config
    from cli.start import with_positive

    return replace(config, options=with_positive(config.options))


def _place_of(options: ScanOptions) -> Path:
    """The folder of the reports, which may be written; raises UsageError where it may not, or flags contradict."""
    out = Path(options.out)
    check_writable(out, "Name another folder with --out.")
    # All of them: a rendering of an earlier run is taken away, and what is somebody else's must not be.
    claim_report(out)
    check_flags(options)
    check_history(options)
    return out


def _bundled(path: str | None, write: Callable[[], str]) -> tuple[list[str], AuditorError | None]:
    """Where the evidence lies, and what it lacks: the audit is done and written, whatever became of that."""
    if path is None:
        return [], None
    from auditor.evidence.timestamp import NoTimestampError

    try:
        return [write()], None
    except NoTimestampError as error:
        return [path], error
    except AuditorError as error:
        return [], error


def _published(
    report: AuditReport, rendered: Sequence[str], places: Sequence[str]
) -> tuple[list[str], AuditorError | None]:
    """Where it was published, and why not everywhere: the audit is done and written, whatever became of that."""
    try:
        return publish_report(report, [Path(path) for path in rendered], places), None
    except AuditorError as error:
        return [], error


def _print(
    report: AuditReport,
    paths: list[str],
    entry: str | None,
    places: Sequence[str],
    *,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """What is on the terminal in the end: the record, or the verdict and where it is written, or nothing."""
    try:
        if sys.stdout is None:
            pass
        elif as_json:
            sys.stdout.write(report.to_json())
            sys.stdout.flush()
        elif not quiet:
            print_report(report, paths, verbose=verbose)
            if entry is not None:
                typer.echo(f"history {entry}")
            for place in places:
                typer.echo(f"published {place}")
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # The reports are written and the verdict stands, whether or not anybody can be told.
        sys.stdout = None  # or the interpreter tries again at its end, and exits with 120
        typer.echo(f"auditor: standard output cannot be written: {error.strerror}.", err=True)


def _followed(report: AuditReport, registration: RegistrationRecord | None, planned: Sequence[str]) -> AuditReport:
    """The report with what became of the registration that the run was to follow."""
    if registration is None:
        return report
    from auditor.evidence.registration import with_what_became

    became = with_what_became(registration, report.findings, was_refused=report.refusal is not None, planned=planned)
    return report.model_copy(update={"registration": became})


def _terminated(number: int, frame: FrameType | None) -> None:
    """Ends like an interrupt does, so that the child and its scratch folder are cleared away."""
    raise SystemExit(128 + number)
