"""Repeated looks of a scan: counted in the history, spent by a campaign, recorded before the verdict is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from auditor.core.errors import UsageError
from auditor.run.scan_options import ScanOptions, flags
from cli.history import decisions_in, entry_line, open_ledger

if TYPE_CHECKING:
    from pydantic import JsonValue

    from auditor.evidence.history.earlier_looks import Known
    from auditor.loading.job_specs import Job
    from auditor.report.record.audit_report import AuditReport
    from auditor.report.record.look_count import CampaignRecord
    from auditor.run.scan_options import Configured

# Said of a look by digests, by the record or by what was found, and not once more as an option.
_SAID_ELSEWHERE = ("seed", "error_rate", "multiplicity", "policy", "probes", "device")
_ATTEMPTS = 20


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
    from auditor.evidence.history.plans import placed
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
