"""``auditor scan --show-config``: the effective settings with their sources; runs nothing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import typer
from pydantic import JsonValue

from auditor.judging.input_files import ObeyedFile
from auditor.report.record.number_text import visible
from auditor.report.record.redact_urls import arguments_without_passwords
from auditor.report.record.report_metadata import SECTIONS, About
from auditor.run.scan_options import Configured, flags
from cli.history import DB_VARIABLE, place_of
from cli.terminal import paragraph, print_table

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
    return visible(setting.value if isinstance(setting.value, str) else json.dumps(setting.value, ensure_ascii=False))


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
