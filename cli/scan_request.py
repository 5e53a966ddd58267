"""The effective options of a scan, from flags and audit.toml; flags take precedence."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue, ValidationError

from auditor.core.errors import ConfigError, UsageError, did_you_mean
from auditor.core.writable_paths import reads
from auditor.judging.criterion import Criterion, parse_budgets, parse_criterion
from auditor.judging.input_files import ObeyedFile, read_obeyed
from auditor.judging.policy import Required, required_by
from auditor.judging.profiles import DEFAULT_PROFILE
from auditor.judging.roles import roles_of
from auditor.loading.rows.sql import is_database
from auditor.models.endpoint.address import is_endpoint
from auditor.report.record.display_labels import Labels
from auditor.report.record.report_metadata import SECTIONS, about_of
from auditor.report.record.translations import catalogue_file
from auditor.run.probe import untrusted_options
from auditor.run.scan_options import Configured, ScanOptions, flags
from cli.output_guard import files_named
from cli.untrusted_config import refuse_more
from probes import PROBES

CONFIG_NAME = "audit.toml"
# Options of probes that name files or folders, relative to the configuration that names them.
PATH_OPTIONS = {
    *(name for kind in PROBES.values() for name, use in untrusted_options(kind).items() if use == "reads"),
    *("benchmark_filter", "checkpoint"),  # a file that was merely found may not set them
}


def _as_list(value: object) -> list[str]:
    items = value if isinstance(value, list) else str(value).split(",")
    return [str(item).strip() for item in items]


def _resolve_path(config: Path, item: str) -> str:
    """A policy file or NAME=PATH of a configuration, relative to that configuration; a profile's name as it is."""
    name, equals, path = item.rpartition("=")
    where = config.parent / path
    return f"{name}{equals}{where}" if where.exists() else item


def _snake(key: str) -> str:
    return key.replace("-", "_")


def _configuration(config: str | None) -> ObeyedFile | None:
    """The file that ``--config`` names, else ./audit.toml where there is one. Raises UsageError, ConfigError."""
    if config is None and not Path(CONFIG_NAME).is_file():
        return None
    path = CONFIG_NAME if config is None else config
    try:
        return read_obeyed(Path(path), "configuration", "found" if config is None else "given")
    except FileNotFoundError:
        raise UsageError(f"There is no configuration file at {path!r}.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None


def configure(flag_values: Mapping[str, object], config: str | None, settings: list[str]) -> Configured:
    """Effective options: flags over ``--config`` (or ./audit.toml, if present) over the defaults.

    Raises ConfigError, also where ./audit.toml says more than :mod:`cli.untrusted_config` lets it.
    """
    from auditor.run.scan import check_policies

    file = _configuration(config)
    path = Path(CONFIG_NAME if file is None else file.path)
    content = {} if file is None else file.toml(str(path))
    for key in content:
        if key not in (known := ("audit", "probes", "criteria", "budgets", "labels", "roles", *SECTIONS)):
            raise ConfigError(f"{path}: unknown section [{key}]{did_you_mean(key, known)}. Known: {', '.join(known)}.")
    said = {k: v for k, v in flag_values.items() if v is not None and v is not False and v != []}
    merged = _audit(content, path)
    if file is not None and file.origin == "found":
        own = [str(target).partition(":")[2] for target in _as_list(said.get("probe", []))]
        refuse_more(file, merged, content, own)
    decided = [name for name in merged if name not in said]
    merged |= said
    for key in merged:
        if key not in flags():
            near = did_you_mean(key, flags())
            raise ConfigError(f"{path}: [audit] has no key {key!r}{near or '.'}")
    try:
        options = ScanOptions.from_values(merged)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise UsageError(f"--{name} {first['input']!r}: {first['msg'].removeprefix('Value error, ')}.") from None
    probe_options = _probe_options(content, path, settings)
    _note_inputs(options, probe_options, None if file is None else path)
    required = required_by(options.policy)
    check_policies(required.packs, options, PROBES)
    criteria, held_to = _criteria(content, path, options, said, required)
    labels = Labels.from_table(_table(content, "labels", path), f"{path}: [labels]")
    catalogue = catalogue_file(options.lang)
    about = about_of(content, labels, options.lang, str(path), catalogue)
    roles = roles_of(_table(content, "roles", path), f"{path}: [roles]")
    keys = _keys(content, decided, settings, own_criteria=held_to.own)
    obeyed = (None if file is None else file.deciding(*keys), *held_to.files, catalogue)
    return Configured(
        options,
        probe_options,
        criteria,
        required.packs,
        labels,
        about,
        roles,
        tuple(o for o in obeyed if o is not None),
    )


def _audit(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Its table ``[audit]``, with paths from the folder in which the command was started."""
    table = _table(content, "audit", path)
    merged = {_snake(k): v for k, v in table.items()}
    if len(merged) < len(table):
        twice = sorted(k for k in table if "-" in k and _snake(k) in table)
        raise ConfigError(f"{path}: [audit] says {twice[0]!r} and {_snake(twice[0])!r}: keep one.")
    if is_endpoint(str(merged.get("model"))):
        raise ConfigError(
            f"{path}: [audit] names a URL as the model, and where texts go is for the command line alone to say: "
            "auditor scan URL."
        )
    if "json" in merged:
        merged["json_"] = merged.pop("json")
    for name, flag in flags().items():
        if flag.is_path and isinstance(merged.get(name), str) and not is_database(merged[name]):
            merged[name] = str(path.parent / merged[name])
    for name in ("policy", "benchmark"):
        if name in merged:
            merged[name] = [_resolve_path(path, item) for item in _as_list(merged[name])]
    return merged


def _keys(
    content: Mapping[str, Any], options: Sequence[str], settings: Sequence[str], *, own_criteria: bool
) -> list[str]:
    """What a configuration decides where flags do not: ``options``, ``probes.NAME.option``, ``section.key``."""
    said = {_snake(setting.partition("=")[0]) for setting in settings}
    own = [f"{_snake(probe)}.{_snake(o)}" for probe, table in content.get("probes", {}).items() for o in table]
    tables = ("labels", "roles", *(("criteria", "budgets") if own_criteria else ()))
    return sorted({
        *(flags()[name].key(name) for name in options),
        *(f"probes.{option}" for option in own if option not in said),
        *(f"{section}.{key}" for section in SECTIONS for key in content.get(section, {})),
        *(name for name in tables if name in content),
    })  # fmt: skip


def _note_inputs(options: ScanOptions, probe_options: Mapping[str, object], config: Path | None) -> None:
    """What audit.toml and the flags name, and is not written to, is read."""
    named = [getattr(options, name) for name, flag in flags().items() if not flag.writes]
    named += [value for own in probe_options.values() if isinstance(own, dict) for value in own.values()]
    reads(*files_named([*named, config]))


def _table(content: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    table = content.get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: [{name}] must be a table.")
    return table


def _probe_options(content: Mapping[str, Any], path: Path, settings: list[str]) -> dict[str, dict[str, JsonValue]]:
    found: dict[str, dict[str, JsonValue]] = {}
    for probe, table in _table(content, "probes", path).items():
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: [probes.{probe}] must be a table of options.")
        found[_snake(probe)] = {
            _snake(k): str((path.parent / v).resolve())
            if _snake(k) in PATH_OPTIONS and isinstance(v, str) and (path.parent / v).exists()
            else v
            for k, v in table.items()
        }
    for setting in settings:
        target, equals, text = setting.partition("=")
        probe, dot, option = target.partition(".")
        if not (equals and dot and probe and option):
            raise UsageError(f"--set {setting!r} must look like probe.option=value.")
        try:
            value = tomllib.loads(f"value = {text.lower() if text.lower() in ('true', 'false') else text}")["value"]
        except tomllib.TOMLDecodeError:
            value = _numbers(text) or text
        if option in PATH_OPTIONS and isinstance(value, str) and Path(value).exists():
            value = str(Path(value).resolve())
        found.setdefault(_snake(probe), {})[_snake(option)] = value
    return found


def _numbers(text: str) -> list[JsonValue] | None:
    """``0.03,0.06`` as a list, as which options that take levels are written without brackets too; None of words."""
    try:
        values: list[JsonValue] = tomllib.loads(f"value = [{text}]")["value"]
    except tomllib.TOMLDecodeError:
        return None
    return values if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values) else None


@dataclass(frozen=True)
class _HeldTo:
    """Where the requirements come from: files of ``--policy`` or of the tool, and whether the configuration's own."""

    files: tuple[ObeyedFile, ...]
    own: bool = False


def _criteria(
    content: Mapping[str, Any], path: Path, options: ScanOptions, flag_values: Mapping[str, object], required: Required
) -> tuple[tuple[Criterion, ...], _HeldTo]:
    """What --policy requires wins over ``[[criteria]]``, which replaces the built-in profile.

    Rule packs that set no bound leave criteria to whoever else sets them.
    """
    entries = content.get("criteria")
    if required.criteria and (entries is None or "policy" in flag_values):
        return required.criteria, _HeldTo(required.files)
    if entries is None:
        default = required_by((DEFAULT_PROFILE,))
        return default.criteria, _HeldTo((*required.files, *default.files))
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path}: criteria must be [[criteria]] tables.")
    budgets = parse_budgets(content.get("budgets", {}), path.name)
    own = [
        parse_criterion(entry, f"{path.name}, criterion {i}", {"source": path.name}, budgets=budgets)
        for i, entry in enumerate(entries, 1)
    ]
    if options.policy == (DEFAULT_PROFILE,):
        return tuple(own), _HeldTo((), own=True)
    return (*own, *required.criteria), _HeldTo(required.files, own=True)
