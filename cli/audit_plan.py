"""``auditor scan --show-config`` and ``evidence register``: plan and effective settings of an audit before it runs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import JsonValue

from auditor.core.errors import UsageError
from auditor.judging.input_files import ObeyedFile
from auditor.report.record.configuration import SECTIONS, About
from auditor.report.record.number_text import visible
from auditor.report.record.redact_urls import arguments_without_passwords
from auditor.run import __version__
from auditor.run.scan_options import Configured, flags
from cli.flags import Tracebacks, Writes
from cli.history import DB_VARIABLE, Db, entry_line, open_ledger, place_of
from cli.terminal import paragraph, print_table

if TYPE_CHECKING:
    from auditor.evidence.registration import Opened, Plan, Registration
    from auditor.report.record.earlier_audits import RegistrationRecord

FILES = ("model", "data", "predictions", "log", "query", "train", "sensitive_file")


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


_BOUND = "criteria."
_TYPED, _DEFAULT = "command line", "default"


@dataclass(frozen=True)
class Setting:
    """A setting, its value, and its source: ``command line``, a file, ``$VARIABLE`` or ``default``."""

    key: str
    value: JsonValue
    source: str


def show_config(config: Configured, flag_values: Mapping[str, object], typed: Sequence[str]) -> None:
    """Print them as a table, or as JSON with ``--json``; ``typed``: the values of ``--set``."""
    settings = list(settings_in_force(config, flag_values, typed))
    files = [
        {"path": f.path, "role": f.role, "origin": f.origin, "sha256": f.sha256, "keys": list(f.keys)}
        for f in config.obeyed
    ]
    if config.options.json_:
        shown = {"files": files, "settings": [asdict(setting) for setting in settings]}
        typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    if sys.stdout.isatty():
        _print_by_source(settings)
        return
    cells = [(s.key, s.value if isinstance(s.value, str) else json.dumps(s.value), s.source) for s in settings]
    print_table(("setting", "value", "from"), [tuple(visible(cell) for cell in row) for row in cells])


def _print_by_source(settings: Sequence[Setting]) -> None:
    """For a reader: what somebody said, by who said it, and after it what nobody did."""
    sources = dict.fromkeys(s.source for s in settings if s.source != _DEFAULT)
    for source in sources:
        typer.echo(visible(source))
        own = [s for s in settings if s.source == source]
        for setting in own:
            if not setting.key.startswith(_BOUND):
                typer.echo(paragraph(f"{visible(setting.key)} = {_text(setting)}", 2))
        from_it = f" ({source.partition(' (')[0]})"
        bounds = [
            f"{visible(s.key.removeprefix(_BOUND))} {_text(s).removesuffix(from_it)}"
            for s in own
            if s.key.startswith(_BOUND)
        ]
        if bounds:
            typer.echo(paragraph(f"criteria: {'; '.join(dict.fromkeys(bounds))}", 2))
        typer.echo()
    left = [s for s in settings if s.source == _DEFAULT]
    valued = [f"{visible(s.key)} = {_text(s)}" for s in left if not _is_nothing(s.value)]
    typer.echo(_DEFAULT)
    unset = f"not set: {', '.join(visible(s.key) for s in left if _is_nothing(s.value))}"
    typer.echo(paragraph("; ".join([*valued, unset]), 2))


def _is_nothing(value: JsonValue) -> bool:
    return value is None or value is False or value in ([], {})


def _text(setting: Setting) -> str:
    value = setting.value
    if value and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return visible(", ".join(map(str, value)))
    return visible(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def settings_in_force(config: Configured, flag_values: Mapping[str, object], typed: Sequence[str]) -> Iterator[Setting]:
    """Options, probe options, requirements, and statements about model and data."""
    by_key = {key: _file_text(file) for file in config.obeyed for key in file.keys}
    said = config.options.json_values()
    for name, flag in flags().items():
        key = flag.key(name)
        typed_here = flag_values.get(name) not in (None, False, [])
        source = _TYPED if typed_here else by_key.get(key, _DEFAULT)
        value = said[name]
        if name == "db" and value is None:
            value = place_of(None)
            source = f"${DB_VARIABLE}" if os.environ.get(DB_VARIABLE) else source
        yield Setting(key, _without_passwords(value), source)
    own = {text.partition("=")[0].replace("-", "_") for text in typed}
    for probe, options in config.probe_options.items():
        for option, value in options.items():
            key = f"{probe}.{option}"
            source = _TYPED if key in own else by_key.get(f"probes.{key}", _DEFAULT)
            yield Setting(f"probes.{key}", _without_passwords(value), source)
    yield from _required(config)
    yield from _about(config, by_key)


def _required(config: Configured) -> Iterator[Setting]:
    """Each requirement, and the files that all of them together come from."""
    files = [f for f in config.obeyed if f.role in ("criteria", "rule pack") or "criteria" in f.keys]
    source = ", ".join(_file_text(file) for file in files) or _DEFAULT
    for criterion in config.criteria:
        record = criterion.record
        yield Setting(f"{_BOUND}{record.metric}", f"{record.describe()} ({record.source})", source)


def _about(config: Configured, by_key: Mapping[str, str]) -> Iterator[Setting]:
    about = config.about or About()
    said = about.model_dump(mode="json")
    for section in SECTIONS:
        for key, value in said.get(section, {}).items():
            yield Setting(f"{section}.{key}", value, by_key.get(f"{section}.{key}", _DEFAULT))
    if config.labels.words:
        yield Setting("labels", dict(config.labels.words), by_key.get("labels", _DEFAULT))
    if config.roles is not None:
        yield Setting("roles", config.roles.model_dump(mode="json"), by_key.get("roles", _DEFAULT))


def _file_text(file: ObeyedFile) -> str:
    return f"{file.path} ({file.origin}, SHA-256 {file.sha256})"


def _without_passwords(value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        return arguments_without_passwords([value])[0]
    if isinstance(value, list):
        return [_without_passwords(each) for each in value]
    if isinstance(value, dict):
        return {key: _without_passwords(each) for key, each in value.items()}
    return value
