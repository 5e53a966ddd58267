"""What a scan was asked for, from flags and audit.toml together; flags win."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from auditor.errors import ConfigError, UsageError, did_you_mean
from auditor.finding.criterion import DEFAULT_PROFILE, Criterion, load_criteria, parse_criterion
from auditor.finding.policy import Policy, load_policies

CONFIG_NAME = "audit.toml"
_PATHS = ("model", "data", "train", "sensitive_file", "scorer", "reference", "out", "bundle", "sign", "registration")
PATH_OPTIONS = ("lexicon", "scorer", "reference", "vectors", "checkpoint", "texts", "canaries", "prompts")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def _split(value: object) -> object:
    """``"a,b"`` and ``["a,b", "c"]`` as a flat list of names."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, (list, tuple)):
        return [part.strip() for item in value for part in str(item).split(",") if part.strip()] or None
    return value


def _unrepeated(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    return tuple(dict.fromkeys(value)) if isinstance(value, (list, tuple)) else value


def parse_bytes(value: object) -> object:
    """``"8GiB"``, ``"500M"`` or a number of bytes, as an int."""
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", value.strip().lower())
        if not match:
            raise ValueError(f"{value!r} is no amount of memory: write it like 8GiB or 500M")
        return int(float(match[1]) * _UNITS[match[2]])
    return value


def memory_limit(text: str | None) -> int:
    """The bytes that ``--max-memory`` says, most of the machine's memory where it says nothing."""
    if text is None:
        return _default_memory()
    try:
        found = parse_bytes(text)
    except ValueError as error:
        raise UsageError(f"--max-memory: {error}.") from None
    if not isinstance(found, int) or found <= 0:
        raise UsageError(f"--max-memory {text!r} must be more than nothing.")
    return found


def _as_date(value: object) -> object:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value!r} is no date: write it like 2026-11-24") from None
    return value


def _default_memory() -> int:
    return int(0.8 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Listed = Annotated[tuple[str, ...] | None, BeforeValidator(_split)]


class ScanOptions(BaseModel):
    """Every flag of ``scan``, which is also every key of ``[audit]``."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    model: str | None = None
    data: str | None = None
    train: str | None = None
    target: str | None = None
    positive: Annotated[str | None, BeforeValidator(lambda v: v if v is None else str(v))] = None
    sensitive: Annotated[tuple[str, ...], BeforeValidator(_unrepeated)] = ()
    bins: tuple[str, ...] = ()
    sensitive_file: str | None = None
    join_on: str | None = None
    features: Listed = None
    text: str | None = None
    image: str | None = None
    task: Literal["classification", "regression"] | None = None
    classes: Listed = None
    outputs: Literal["logits", "probabilities"] | None = None
    threshold: Annotated[float | None, Field(ge=0.0, le=1.0)] = None
    probes: Listed = None
    probe: tuple[str, ...] = ()
    benchmark: tuple[str, ...] = ()
    scorer: str | None = None
    reference: str | None = None
    policy: Names = (DEFAULT_PROFILE,)
    registration: str | None = None
    as_of: Annotated[date | None, BeforeValidator(_as_date)] = None
    out: str = "audit-report"
    format: Names = ("html", "json")
    history: bool = False
    db: str | None = None
    bundle: str | None = None
    sign: str | None = None
    include_rows: bool = False
    redact: bool = False
    seed: Annotated[int, Field(ge=0)] = 0
    device: str = "auto"
    error_rate: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    multiplicity: Literal["bonferroni", "holm", "bh", "none"] = "bonferroni"
    max_memory: Annotated[int, BeforeValidator(parse_bytes), Field(gt=0, le=1 << 60)] = Field(
        default_factory=_default_memory
    )
    max_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 600.0
    architecture: str | None = None
    architecture_args: dict[str, JsonValue] = Field(default_factory=dict)
    predict: str | None = None
    allow_code: bool = False
    trust_pickle: bool = False
    allow_inconclusive: bool = False
    json_: Annotated[bool, Field(alias="json")] = False
    quiet: bool = False
    debug: bool = False


@dataclass(frozen=True)
class Configured:
    """A scan as asked for: its options, the options of single probes, and what the results are held to."""

    options: ScanOptions
    probe_options: dict[str, dict[str, JsonValue]]
    criteria: tuple[Criterion, ...]
    policies: tuple[Policy, ...] = ()


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


def configure(flags: Mapping[str, object], config: str | None, settings: list[str]) -> Configured:
    """Flags over ``--config`` (or ./audit.toml, where there is one) over the defaults. Raises ConfigError."""
    path = Path(config) if config is not None else Path(CONFIG_NAME)
    content = read_config(path) if config is not None or path.is_file() else {}
    for key in content:
        if key not in ("audit", "probes", "criteria"):
            known = ("audit", "probes", "criteria")
            raise ConfigError(f"{path}: unknown section [{key}]{did_you_mean(key, known)}. Known: {', '.join(known)}.")
    merged = {_snake(k): v for k, v in _table(content, "audit", path).items()}
    for name in _PATHS:
        if isinstance(merged.get(name), str):
            merged[name] = str(path.parent / merged[name])
    for name in ("policy", "benchmark"):
        if name in merged:
            merged[name] = [_beside(path, item) for item in _as_list(merged[name])]
    if config is None:
        _only_asked_for(merged, path)
    merged |= {k: v for k, v in flags.items() if v is not None and v is not False and v != []}
    for key in merged:
        if key not in ScanOptions.model_fields:
            near = did_you_mean(key, ScanOptions.model_fields)
            raise ConfigError(f"{path}: [audit] has no key {key!r}{near or '.'}")
    try:
        options = ScanOptions.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise UsageError(f"--{name} {first['input']!r}: {first['msg'].removeprefix('Value error, ')}.") from None
    policies, required = load_policies(options.policy)
    _check_probes(policies, options)
    if options.as_of is not None and not policies:
        raise UsageError("--as-of says on which day rule packs are held to be in force: name one with --policy.")
    criteria = _criteria(content, path, options, flags, required)
    return Configured(options, _probe_options(content, path, settings), criteria, tuple(policies))


def _only_asked_for(found: Mapping[str, object], path: Path) -> None:
    """A folder may come with somebody else's audit.toml: code runs only where the user named the flag or the file."""
    code = [key for key in ("trust_pickle", "allow_code", "predict", "probe", "architecture") if found.get(key)]
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
            value = text
        if option in PATH_OPTIONS and isinstance(value, str) and Path(value).exists():
            value = str(Path(value).resolve())
        found.setdefault(_snake(probe), {})[_snake(option)] = value
    return found


def _check_probes(policies: Sequence[Policy], options: ScanOptions) -> None:
    """Raises ConfigError for a control that asks for a probe there is none of, which would be NOT MEASURED for ever."""
    from auditor.run.plugins import known_probes
    from probes import PROBES

    known = {*PROBES, *known_probes(PROBES), "intake", *(target.partition(":")[2] for target in options.probe)}
    for policy in policies:
        for control in policy.controls:
            for rule in control.evidence:
                if "*" not in rule.probe and rule.probe not in known:
                    near = did_you_mean(rule.probe, known) or "."
                    raise ConfigError(f"{policy.name}, control {control.id!r}: there is no probe {rule.probe!r}{near}")


def _criteria(
    content: Mapping[str, Any],
    path: Path,
    options: ScanOptions,
    flags: Mapping[str, object],
    required: list[Criterion],
) -> tuple[Criterion, ...]:
    """What --policy requires wins over ``[[criteria]]``, which replaces the built-in profile.

    Rule packs that set no bound leave criteria to whoever else sets them.
    """
    entries = content.get("criteria")
    if required and (entries is None or flags.get("policy")):
        return tuple(required)
    if entries is None:
        return tuple(load_criteria())
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path}: criteria must be [[criteria]] tables.")
    own = [
        parse_criterion(entry, f"{path.name}, criterion {i}", {"source": path.name})
        for i, entry in enumerate(entries, 1)
    ]
    if options.policy != (DEFAULT_PROFILE,):
        own += required
    return tuple(own)
