"""``auditor register``: pre-registration of an audit plan, before results are seen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.core.errors import UsageError
from auditor.run import __version__
from cli.flags import Tracebacks
from cli.history import Db, entry_line, open_ledger
from cli.output_guard import Writes
from cli.terminal import paragraph

if TYPE_CHECKING:
    from pydantic import JsonValue

    from auditor.evidence.registration import Opened, Plan, Registration
    from auditor.report.record.audit_report import RegistrationRecord
    from auditor.run.scan_options import Configured

FILES = ("model", "data", "predictions", "query", "train", "sensitive_file")


def register(
    config: Annotated[Path, typer.Argument(help="The configuration: audit.toml.")],
    out: Annotated[Path, typer.Option(help="Where to write the registration."), Writes(lost="registration")] = Path(
        "registration.json"
    ),
    sign: Annotated[Path | None, typer.Option(help="Sign it with this private key.")] = None,
    by: Annotated[str, typer.Option(help="Name of the person who registers.")] = "",
    history: Annotated[
        bool, typer.Option("--history", help="Enter the plan in the history, to prove that it preceded its audits.")
    ] = False,
    db: Db = None,
    debug: Tracebacks = False,
) -> None:
    """Pre-register probes, options, groups, criteria and files of an audit before its results are seen.

    auditor scan --registration FILE then reports whether the run followed the plan, and lists every deviation. With
    --history the plan is entered in the history of audits, and a scan with --history reports which came before it.
    """
    from auditor.core.files import write_beside
    from auditor.evidence.registration import Registration, left_open
    from auditor.evidence.signing import load_private_key
    from cli.scan_request import configure

    key = None if sign is None else load_private_key(sign)
    configured = configure({}, str(config), [])
    # Scans of this configuration look for their plan where it says.
    asked, where = history or configured.options.history, db or configured.options.db
    if db is not None and not asked:
        raise UsageError("--db says where the history lies: add --history to enter the plan there.")
    made = Registration(
        registered=datetime.now(UTC).isoformat(timespec="seconds"),
        by=by.strip()[:200],
        tool=__version__,
        plan=plan_of(configured),
    )
    content = made.to_file(key)
    # Entered first: a plan that is nowhere written fixes nothing, and one that is written and not entered looks late.
    entered = _entered(made, content, where) if asked else None
    write_beside(out, content)
    _print(made, out, left_open(made.plan), signed=key is not None, entered=entered)


def _entered(registration: Registration, content: bytes, db: str | None) -> str:
    """A line on where the plan was entered."""
    from auditor.evidence.history.entries import RegistrationEntry

    entry = RegistrationEntry(
        registration=registration, sha256=registration.digest, signature=json.loads(content)["signature"]
    )
    ledger = open_ledger(db, create=True)
    try:
        return entry_line(ledger.append("registration", entry), db)
    finally:
        ledger.close()


def _print(
    registration: Registration, out: Path, open_items: tuple[str, ...], *, signed: bool, entered: str | None
) -> None:
    from auditor.report.record.number_text import visible

    plan = registration.plan
    by = f" by {registration.by}" if registration.by else ""
    left = f"; LEAVES OPEN {'; '.join(open_items)}" if open_items else ""
    typer.echo(visible(f"registered  {out}, {registration.registered}{by}{left}"))
    if open_items:
        typer.echo("            what is open can follow the results: name it in the configuration, and register again")
    typer.echo(f"plan        {plan.describe()} ({plan.multiplicity}), seed {plan.seed}")
    for name, digest in plan.files.items():
        if digest is not None:
            typer.echo(f"{name:<12}{digest}")
    for file in plan.configuration:
        typer.echo(f"{'obeyed':<12}{file.sha256}  {visible(file.name)} ({file.role})")
    typer.echo(f"sha256      {registration.digest}")
    if entered is not None:
        typer.echo(visible(f"history     {entered}"))
    if not signed:
        typer.echo(paragraph("It is not signed: note this digest elsewhere, or sign with --sign KEY.", 0))


def plan_of(config: Configured, *, hashed: bool = True) -> Plan:
    """The plan from flags and audit.toml; ``hashed``: with digests of existing files."""
    from auditor.evidence.manifest import code_of
    from auditor.evidence.registration import Plan, PlannedFile, PlannedProbe, digest_of
    from auditor.run.scan import probe_specs
    from auditor.run.scan_options import flags
    from probes import PROBES

    options = config.options
    said, unasked = options.json_values(), type(options)()
    modules = (options.predict, options.generate, options.architecture, *options.probe)
    named = {name: said[name] for name in FILES if said[name] is not None}
    return Plan(
        probes={
            spec.name: PlannedProbe(
                target=spec.target, options=_fixed_options(spec.options) if hashed else dict(spec.options)
            )
            for spec in probe_specs(config, PROBES)
        },
        # What was registered before there were roles, or without them, stays as it is.
        settings={
            name: said[name]
            for name, flag in flags().items()
            if flag.decides and not (flag.since_registrations and said[name] == getattr(unasked, name))
        }
        | _roles(config),
        files={name: digest_of(Path(path)) for name, path in named.items()} if hashed else {},
        code=code_of([name for name in modules if name and ":" in name]) if hashed else {},
        criteria=tuple(criterion.record for criterion in config.criteria),
        error_rate=options.error_rate,
        multiplicity=options.multiplicity,
        seed=options.seed,
        configuration=tuple(
            PlannedFile(role=file.role, name=Path(file.path).name, sha256=file.sha256) for file in config.obeyed
        ),
    )


def _roles(config: Configured) -> dict[str, JsonValue]:
    from auditor.evidence.registration import ROLES

    roles = config.roles
    return {} if roles is None else {ROLES: roles.model_dump(mode="json")}


def _fixed_options(options: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: _freeze_option(name, value) for name, value in options.items()}


def _freeze_option(name: str, value: JsonValue) -> JsonValue:
    """An option of a probe; of a file its digest, wherever it lies."""
    from cli.scan_request import PATH_OPTIONS

    if isinstance(value, dict):
        return {key: _freeze_option(name, own) for key, own in value.items()}
    if name in PATH_OPTIONS and isinstance(value, str):
        from auditor.evidence.registration import digest_of

        digest = digest_of(Path(value))
        return value if digest is None else f"sha256:{digest}"
    return value


# ---- in a scan -------------------------------------------------------------------------------------------------------


def open_registration(path: str | None) -> Opened | None:
    """The registration that a scan is to follow. Raises UsageError, before any work, where it cannot be read."""
    if path is None:
        return None
    from auditor.evidence.registration import read_registration

    return read_registration(Path(path))


def followed(
    registration_file: Opened | None, config: Configured, started: datetime, plan: Plan
) -> RegistrationRecord | None:
    """The registration record of a run of this plan from that start."""
    if registration_file is None:
        return None
    from auditor.evidence.registration import held_against

    path = str(config.options.registration)
    return held_against(registration_file, plan, path=path, started=started, tool=__version__)
