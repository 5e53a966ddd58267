"""Restrictions on an automatically found audit.toml: keys reserved for flags and ``--config``.

A folder that comes from somebody else may come with an audit.toml. Whoever starts an audit there asked for a
measurement, and for nothing to be written, signed, connected to, run, read elsewhere or held to weaker requirements.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from auditor.core.errors import ConfigError
from auditor.core.files import printable_name
from auditor.judging.input_files import ObeyedFile
from auditor.loading.rows.sql import is_database
from auditor.run.plugins import known_probes
from auditor.run.probe import untrusted_options
from auditor.run.scan_options import ScanOptions, flags
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
