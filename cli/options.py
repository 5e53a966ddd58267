"""What a scan was asked for, from flags and audit.toml together; flags win."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue, ValidationError

from auditor.errors import ConfigError, UsageError, did_you_mean
from auditor.finding.criterion import Criterion, load_criteria, parse_budgets, parse_criterion
from auditor.finding.policy import load_policies
from auditor.finding.profiles import DEFAULT_PROFILE
from auditor.finding.roles import roles_of
from auditor.intake.rows.sql import is_database
from auditor.outputs import reads
from auditor.record.about import SECTIONS, about_of
from auditor.record.labels import Labels
from auditor.run.options import Configured, ScanOptions, flags
from cli.guarded import files_named

CONFIG_NAME = "audit.toml"
PATH_OPTIONS = (
    "lexicon", "scorer", "reference", "vectors", "checkpoint", "texts", "canaries", "prompts", "ood", "patch",
)  # fmt: skip


def _as_list(value: object) -> list[str]:
    items = value if isinstance(value, list) else str(value).split(",")
    return [str(item).strip() for item in items]


def _beside(config: Path, item: str) -> str:
    """A policy file or NAME=PATH of a configuration, relative to that configuration; a profile's name as it is."""
    name, equals, path = item.rpartition("=")
    where = config.parent / path
    return f"{name}{equals}{where}" if where.exists() else item


def _snake(key: str) -> str:
    return key.replace("-", "_")


def read_config(path: Path) -> dict[str, Any]:
    """An audit.toml as it stands. Raises ConfigError with the line where it is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"There is no configuration file at {str(path)!r}.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}.") from None


def configure(given: Mapping[str, object], config: str | None, settings: list[str]) -> Configured:
    """Flags over ``--config`` (or ./audit.toml, where there is one) over the defaults. Raises ConfigError."""
    from auditor.run.scan import check_policies
    from probes import PROBES

    path = Path(config) if config is not None else Path(CONFIG_NAME)
    content = read_config(path) if config is not None or path.is_file() else {}
    for key in content:
        if key not in (known := ("audit", "probes", "criteria", "budgets", "labels", "roles", *SECTIONS)):
            raise ConfigError(f"{path}: unknown section [{key}]{did_you_mean(key, known)}. Known: {', '.join(known)}.")
    table = _table(content, "audit", path)
    merged = {_snake(k): v for k, v in table.items()}
    if len(merged) < len(table):
        twice = sorted(k for k in table if "-" in k and _snake(k) in table)
        raise ConfigError(f"{path}: [audit] says {twice[0]!r} and {_snake(twice[0])!r}: keep one.")
    if "json" in merged:
        merged["json_"] = merged.pop("json")
    for name, flag in flags().items():
        if flag.is_path and isinstance(merged.get(name), str) and not is_database(merged[name]):
            merged[name] = str(path.parent / merged[name])
    for name in ("policy", "benchmark"):
        if name in merged:
            merged[name] = [_beside(path, item) for item in _as_list(merged[name])]
    if config is None:
        _only_asked_for(merged, path)
    merged |= {k: v for k, v in given.items() if v is not None and v is not False and v != []}
    for key in merged:
        if key not in flags():
            near = did_you_mean(key, flags())
            raise ConfigError(f"{path}: [audit] has no key {key!r}{near or '.'}")
    try:
        options = ScanOptions.of(merged)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise UsageError(f"--{name} {first['input']!r}: {first['msg'].removeprefix('Value error, ')}.") from None
    probe_options = _probe_options(content, path, settings)
    _note_inputs(options, probe_options, path if content else None)
    policies, required = load_policies(options.policy)
    check_policies(policies, options, PROBES)
    criteria = _criteria(content, path, options, given, required)
    labels = Labels.of(_table(content, "labels", path), f"{path}: [labels]")
    about = about_of(content, labels, options.lang, str(path))
    roles = roles_of(_table(content, "roles", path), f"{path}: [roles]")
    return Configured(options, probe_options, criteria, tuple(policies), labels, about, roles)


def _note_inputs(options: ScanOptions, probe_options: Mapping[str, object], config: Path | None) -> None:
    """What audit.toml and the flags name, and is not written to, is read."""
    named = [getattr(options, name) for name, flag in flags().items() if not flag.writes]
    named += [value for own in probe_options.values() if isinstance(own, dict) for value in own.values()]
    reads(*files_named([*named, config]))


def _only_asked_for(found: Mapping[str, object], path: Path) -> None:
    """A folder may come with somebody else's audit.toml: code runs only where the user named the flag or the file."""
    code = [key for key, flag in flags().items() if flag.runs_code and found.get(key)]
    if code:
        raise ConfigError(
            f"./{path} sets {code[0]!r}, which runs code: give that flag yourself, or say --config {path} to trust the "
            "file."
        )


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


def _criteria(
    content: Mapping[str, Any],
    path: Path,
    options: ScanOptions,
    given: Mapping[str, object],
    required: list[Criterion],
) -> tuple[Criterion, ...]:
    """What --policy requires wins over ``[[criteria]]``, which replaces the built-in profile.

    Rule packs that set no bound leave criteria to whoever else sets them.
    """
    entries = content.get("criteria")
    if required and (entries is None or given.get("policy")):
        return tuple(required)
    if entries is None:
        return tuple(load_criteria())
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path}: criteria must be [[criteria]] tables.")
    budgets = parse_budgets(content.get("budgets", {}), path.name)
    own = [
        parse_criterion(entry, f"{path.name}, criterion {i}", {"source": path.name}, budgets=budgets)
        for i, entry in enumerate(entries, 1)
    ]
    if options.policy != (DEFAULT_PROFILE,):
        own += required
    return tuple(own)
