"""The effective options of a scan, from flags and audit.toml; flags take precedence.

An audit.toml that was merely found may not set all keys: some are reserved for flags and ``--config``. A folder that
comes from somebody else may come with an audit.toml. Whoever starts an audit there asked for a measurement, and for
nothing to be written, signed, connected to, run, read elsewhere or held to weaker requirements.
"""

from __future__ import annotations

import inspect
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue, ValidationError

from auditor.core.errors import ConfigError, UsageError, did_you_mean
from auditor.core.files import printable_name
from auditor.core.writable_paths import reads
from auditor.judging.criterion import Criterion, parse_budgets, parse_criterion
from auditor.judging.input_files import ObeyedFile, read_obeyed, roles_of
from auditor.judging.policy import Required, required_by
from auditor.judging.profiles import DEFAULT_PROFILE
from auditor.loading.rows.sql import is_database
from auditor.models.endpoint.client import is_endpoint
from auditor.report.record.configuration import SECTIONS, Labels, about_of
from auditor.report.record.translations import catalogue_file
from auditor.run.plugins import known_probes
from auditor.run.probe import untrusted_options
from auditor.run.scan_options import Configured, ScanOptions, flags
from cli.flags import files_named
from probes import PROBES

# Of [model]: by which an audit is known in a history, and by which it is due again. All else there is words.
_OF_A_HISTORY = ("id", "audit_every", "next_due")
_MOST_NAMED = 12


def refuse_more(
    file: ObeyedFile, audit: Mapping[str, object], content: Mapping[str, Any], own_probes: Sequence[str]
) -> None:
    """Raise ConfigError if a found file configures more than measurements inside its own folder.

    ``audit``: its table ``[audit]``, with paths from the folder in which the command was started. ``own_probes``:
    probes of the user's own.
    """
    if not _inside(file.path):
        raise ConfigError(
            f"./{file.path} was only found here and is a link to a file elsewhere: read it, and then --config "
            f"{file.path} obeys it."
        )
    more = [*_options(audit), *_probes(content.get("probes"), own_probes), *_sections(content)]
    if more:
        left = len(more) - _MOST_NAMED
        listed = ", ".join([*map(printable_name, more[:_MOST_NAMED]), *([f"{left} more"] if left > 0 else [])])
        raise ConfigError(
            f"./{file.path} was only found here and says more than what is measured in its own folder ({listed}): "
            f"--show-config --config {file.path} shows what it would do and runs nothing, --config {file.path} "
            "obeys it, and --config with a file of your own leaves it unread."
        )


def _options(audit: Mapping[str, object]) -> Iterator[str]:
    unasked = ScanOptions()
    for name, value in audit.items():
        flag = flags().get(name)
        if flag is None:
            continue  # said of every file
        key = flag.key(name)
        try:
            said = getattr(ScanOptions.from_values({name: value}), name)
        except ValidationError:
            if flag.found == "given":
                yield key
            continue
        if said == getattr(unasked, name):
            continue
        if flag.found == "given" or (flag.found == "lowers" and said > getattr(unasked, name)):
            yield key
        elif flag.found == "reads":
            paths = [said] if isinstance(said, str) else [item.partition("=")[2] for item in said]
            if any(is_database(path) for path in paths):
                yield f"{key}, which is a database"
            elif not all(_inside(path) for path in paths):
                yield f"{key}, which lies outside of it"
        elif name == "probes":
            yield from (f"probes, {each!r} of another package" for each in said if _not_shipped(each))


def _probes(tables: object, own_probes: Sequence[str]) -> Iterator[str]:
    for probe, table in tables.items() if isinstance(tables, dict) else ():
        if probe in own_probes or _not_shipped(probe):
            yield f"[probes.{probe}], of another package"
            continue
        kind = PROBES.get(probe.replace("-", "_"))
        if kind is None or not isinstance(table, dict):
            continue  # said of every file, as is an option that there is not
        for option, value in table.items():
            name = option.replace("-", "_")
            use = untrusted_options(kind).get(name)
            if use == "reads" and not all(_inside(text) for text in _texts(value)):
                yield f"[probes.{probe}] {option}, which lies outside of it"
            elif use is None and name in inspect.signature(kind).parameters:
                yield f"[probes.{probe}] {option}"


def _not_shipped(probe: str) -> bool:
    """Whether it is installed, and not ours; what does not exist is said of every file."""
    name = probe.replace("-", "_")
    return name not in PROBES and name in known_probes(PROBES)


def _sections(content: Mapping[str, Any]) -> Iterator[str]:
    # Which column holds sex is what controls of rule packs rest on, and no word of a stranger's.
    shown_as = {"criteria": "[[criteria]]", "budgets": "[budgets]", "roles": "[roles]"}
    yield from (words for name, words in shown_as.items() if name in content)
    model = content.get("model")
    yield from (f"[model] {key}" for key in _OF_A_HISTORY if isinstance(model, dict) and key in model)


def _texts(value: object) -> Iterator[str]:
    """All text in a value, which any of may be a path."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _inside(path: str) -> bool:
    """Whether it and all that it holds lie in the folder in which the command was started, wherever links lead."""
    folder = Path(os.path.realpath(os.curdir))
    try:
        where = os.path.realpath(path)
    except ValueError:
        return False  # a NUL in it
    if not Path(where).is_relative_to(folder):
        return False
    return not any(
        os.path.islink(each) and not Path(os.path.realpath(each)).is_relative_to(folder)
        for top, folders, names in os.walk(where)
        for each in (os.path.join(top, name) for name in (*folders, *names))
    )


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

    Raises ConfigError, also where ./audit.toml says more than :mod:`cli.scan_request` lets it.
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
    if name := next((each for each in ("model", "judge") if is_endpoint(str(merged.get(each)))), None):
        raise ConfigError(
            f"{path}: [audit] names a URL as the {name}, and where texts go is for the command line alone to say: "
            f"auditor scan {'URL' if name == 'model' else '--judge URL'}."
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
            numbers = _numbers(text)
            value = text if not numbers else numbers if "," in text else numbers[0]
        if option in PATH_OPTIONS and isinstance(value, str) and Path(value).exists():
            value = str(Path(value).resolve())
        found.setdefault(_snake(probe), {})[_snake(option)] = value
    return found


def _numbers(text: str) -> list[JsonValue] | None:
    """``0.03,.06`` as a list, as which options that take levels are written without brackets too; None of words."""
    try:
        return [int(part) if part.strip().isdecimal() else float(part) for part in text.split(",")]
    except ValueError:
        return None


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
