"""The evidence bundle of a scan, for independent verification."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.core.errors import UsageError
from auditor.core.files import check_writable
from auditor.core.writable_paths import claim
from auditor.run import __version__
from auditor.run.scan_options import ScanOptions, flags

if TYPE_CHECKING:
    from auditor.evidence.evidence_bundle import Enclosed, Evidence
    from auditor.evidence.history.entries import Entry
    from auditor.evidence.manifest import ChainedLog
    from auditor.evidence.registration import Opened, Plan
    from auditor.loading.job_specs import Job
    from auditor.report.record.audit_report import AuditReport
    from auditor.run.job_results import Measured
    from auditor.run.scan_options import Configured


def check_flags(options: ScanOptions) -> None:
    """Raise UsageError, before any work, for a bundle flag without a bundle, or an unusable key."""
    given = {
        "--sign": options.sign,
        "--timestamp": options.timestamp,
        "--include-rows": options.include_rows,
        "--redact": options.redact,
    }
    for flag, value in given.items():
        if value and options.bundle is None:
            raise UsageError(f"{flag} says something about the evidence bundle: add --bundle FILE.")
    if options.include_rows and options.redact:
        raise UsageError("--include-rows puts every row's groups into the bundle, --redact takes rows out: give one.")
    if options.bundle is not None and Path(options.bundle).is_dir():
        raise UsageError(f"--bundle {options.bundle!r} is a folder: name a file, such as audit.zip.")
    if options.bundle is not None:
        claim(options.bundle, "--bundle")
        check_writable(Path(options.bundle).parent, "Name another place with --bundle.")
    if options.sign is not None:
        from auditor.evidence.signing import load_private_key

        load_private_key(Path(options.sign))
    if options.timestamp is not None:
        from auditor.evidence.timestamp import check_authority

        check_authority(options.timestamp)


def start_log(job: Job) -> ChainedLog:
    """The log of a scan that begins."""
    from auditor.evidence.manifest import ChainedLog
    from auditor.report.record.redact_urls import arguments_without_passwords

    log = ChainedLog()
    command = arguments_without_passwords(sys.argv[1:])
    log.add("started", tool=f"responsible-auditor {__version__}", command=command, seed=job.seed)
    return log


def enclosed_of(
    config: Configured, report: AuditReport, plan: Plan, began: datetime, registration_file: Opened | None
) -> Enclosed:
    """The audit's inputs for its bundle: plan in force, registration, decisions, and configuration files.

    ``began``: an aware time, before which the registration had to be made.
    """
    from auditor.evidence.evidence_bundle import Enclosed
    from auditor.report.record.redact_urls import arguments_without_passwords

    return Enclosed(
        began=began.isoformat(),
        plan=plan,
        as_of=config.options.as_of,
        command=arguments_without_passwords(sys.argv[1:]),
        registration=None if registration_file is None else registration_file.content,
        decisions=_decision_entries(report, config.options.db),
        obeyed=config.obeyed,
    )


def _decision_entries(report: AuditReport, db: str | None) -> list[Entry]:
    """The entries of the history that the record's decisions are, and those that they cover."""
    from cli.history import open_ledger

    if not report.decisions:
        return []
    ledger = open_ledger(db)
    try:
        return [ledger.entry(decision.entry) for decision in report.decisions]
    finally:
        ledger.close()


def write_evidence(
    config: Configured, job: Job, outcome: Measured, report: AuditReport, log: ChainedLog, enclosed_inputs: Enclosed
) -> str:
    """Write the bundle of a scan; return its path.

    NoTimestampError where it is written without the one asked for.
    """
    from auditor.evidence.evidence_bundle import write_bundle
    from auditor.evidence.signing import load_private_key

    options = config.options
    if options.bundle is None:
        raise UsageError("Name the bundle with --bundle FILE.")
    key = None if options.sign is None else load_private_key(Path(options.sign))
    made = _evidence(config, job, outcome, report, log, enclosed_inputs)
    write_bundle(options.bundle, made, key=key, redact=options.redact, timestamp=options.timestamp)
    return options.bundle


def _evidence(
    config: Configured, job: Job, outcome: Measured, report: AuditReport, log: ChainedLog, enclosed_inputs: Enclosed
) -> Evidence:
    from auditor.evidence.evidence_bundle import Evidence, result_event
    from auditor.evidence.manifest import code_digests
    from auditor.judging.budgets import Family

    for result in outcome.results:
        log.add(**result_event(result))
    log.add("judged", **report.summary.model_dump(by_alias=True))
    options = config.options
    own = [
        name
        for name in (options.predict, options.generate, options.architecture, *options.probe)
        if name and ":" in name
    ]
    return Evidence(
        report=report,
        results=outcome.results,
        criteria=config.criteria,
        family=Family(error_rate=options.error_rate, multiplicity=options.multiplicity),
        request=request_of(config),
        log=log,
        answers=outcome.answers(),
        counts=outcome.counts,
        memberships=outcome.memberships,
        code=code_digests(own, None if job.model.code_folder is None else Path(job.model.code_folder)),
        enclosed=enclosed_inputs,
    )


def request_of(config: Configured) -> dict[str, object]:
    """The flags and options of a scan as given: sufficient to repeat it."""
    said, unasked, known = config.options.json_values(), ScanOptions().json_values(), flags()
    from auditor.evidence.registration import ROLES

    options = {
        name: _of_nobody(said[name]) for name in known if said[name] != unasked[name] and not known[name].of_one_run
    }
    asked: dict[str, object] = {"options": options, "probe_options": config.probe_options}
    return asked if config.roles is None else {**asked, ROLES: config.roles.model_dump(mode="json")}


def _of_nobody(value: object) -> object:
    """An address without its user and password, which no bundle publishes."""
    from auditor.report.record.redact_urls import arguments_without_passwords

    return arguments_without_passwords([value])[0] if isinstance(value, str) and "://" in value else value
