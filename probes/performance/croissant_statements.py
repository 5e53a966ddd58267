"""What Croissant metadata (1.0 and 1.1, JSON-LD) state of one file: read as data, and never from the net."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from auditor.core.errors import ConfigError
from auditor.core.files import read_regular, regular_file
from auditor.models.files.model_bytes import printable

_MOST_BYTES = 16 << 20
# Wikidata's cardinality, by which Croissant 1.1 types a number of records.
_CARDINALITY = "Q4049983"
_NAMES_OF_A_COUNT = ("count", "rows", "records", "size")
# What must be stated of every data set (Croissant 1.1, dataset-level information).
REQUIRED = ("name", "description", "license", "url", "creator", "datePublished")
COLLECTION = ("dataCollection", "dataCollectionTimeframe")
_NOTHING = ("", "-", "?", "unknown", "none", "n/a", "na", "null", "tbd", "todo", "not specified", "unspecified")
# Values that are data, or rules of reading, in which no key is a term.
_OPAQUE = ("@context", "data", "examples")


@dataclass(frozen=True)
class Column:
    """A field that is read from a column: its ``kinds``, such as Integer, and how often each of its values occurs.

    ``changed``: whether its values are made of the column's by a rule, and so of another type.
    """

    name: str
    kinds: tuple[str, ...] = ()
    counts: Mapping[str, int] | None = None
    changed: bool = False


@dataclass(frozen=True)
class Statements:
    """What is stated of a file, and of the data set that it is of.

    ``named``: the files that are described, ``file``: the description of the one that is meant, if any is. ``columns``:
    of its records; ``n``: how many records. ``dataset``: all that is stated at the level of the data set.
    """

    named: tuple[str, ...]
    file: Mapping[str, Any] | None
    columns: tuple[Column, ...]
    n: int | None
    dataset: Mapping[str, Any]

    def texts(self, name: str) -> list[str]:
        """The texts of a property of the data set, whatever the case of its name; nothing where it says nothing."""
        values = (value for key, value in self.dataset.items() if key.lower() == name.lower())
        found = (text.strip() for value in values for text in _texts(value))
        return [text for text in found if text.lower() not in _NOTHING]


def read_statements(path: str, name: str | None, sha256: str | None) -> Statements:
    """The statements on the file of this name or digest, or else on the one table that is described.

    Raises ConfigError for what is no Croissant metadata, with a sentence that says what it is.
    """
    where = regular_file(path, "Croissant metadata")
    shown = printable(where.name)
    try:
        content = json.loads(read_regular(where, f"The Croissant metadata {shown!r}", _MOST_BYTES).decode("utf-8-sig"))
        found = _plain(content)
    except (ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ConfigError(f"{shown} is no JSON{line}: give the JSON-LD file of the Croissant metadata.") from None
    if not isinstance(found, dict) or "Dataset" not in _kinds(found.get("@type")):
        flat = " Give it nested, not as a graph of nodes." if isinstance(found, dict) and "@graph" in found else ""
        raise ConfigError(f"{shown} describes no data set: its @type must be Dataset.{flat}")
    described = [each for each in _list(found.get("distribution")) if isinstance(each, dict)]
    files = [each for each in described if "FileSet" not in _kinds(each.get("@type"))]
    own = None if name is None else _file_described(files, name, sha256)
    ids = [own.get("@id")] if own else []
    ids += [each.get("@id") for each in described if each not in files and name is not None and _holds(each, name)]
    whole = [own.get("@id")] if own else []
    sets = [each for each in _list(found.get("recordSet")) if isinstance(each, dict)]
    sourced = [(each, list(_columns(each))) for each in sets]
    if name is None:
        # Rows in memory are of no file: what is meant is known where one set of records alone has columns.
        sourced = [(each, own) for each, own in sourced if own]
        sourced = sourced if len(sourced) == 1 else []
        whole = ids = [source for _, own in sourced for _, source in own]
    columns = [column for _, own in sourced for column, source in own if source in ids]
    counts = [_count(each) for each, own in sourced if any(source in whole for _, source in own)]
    stated = [n for n in counts if n is not None]
    return Statements(
        named=tuple(_name(each) for each in files),
        file=own,
        columns=tuple(columns),
        n=stated[0] if len(stated) == 1 else None,
        dataset=found,
    )


def _plain(value: Any) -> Any:
    """The same with terms instead of their addresses: ``license`` for ``https://schema.org/license`` and so on."""
    if isinstance(value, dict):
        return {_term(key): own if key in _OPAQUE else _plain(own) for key, own in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _term(name: Any) -> str:
    """The last part of a term's address."""
    return re.split(r"[/#:]", name)[-1] if isinstance(name, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _kinds(value: Any) -> list[str]:
    return [_term(each.get("@id") if isinstance(each, dict) else each) for each in _list(value)]


def _texts(value: Any) -> Iterator[str]:
    for each in _list(value):
        if isinstance(each, dict):
            yield from _texts([each.get(key) for key in ("@value", "@id", "name", "url", "text")])
        elif isinstance(each, str | int | float):
            yield str(each)


def _name(file: Mapping[str, Any]) -> str:
    """The name of a described file: that of its address, as far as it is one."""
    for key in ("contentUrl", "name", "@id"):
        if isinstance(file.get(key), str) and file[key]:
            return PurePosixPath(re.split(r"[?#]", file[key])[0].replace("\\", "/")).name
    return ""


def _file_described(files: list[dict[str, Any]], name: str, sha256: str | None) -> dict[str, Any] | None:
    """The description of a file: by its name, by its digest, or because no other table is described."""
    names = [(_name(each), each.get("name"), each.get("@id")) for each in files]
    by_name: list[dict[str, Any]] = []
    # A table of a database is named FILE::TABLE, and may be described as the file alone.
    for called in (name, name.partition("::")[0]):
        by_name = [each for each, own in zip(files, names, strict=True) if called in own]
        if len(by_name) == 1:
            return by_name[0]
    by_digest = [each for each in files if sha256 and str(each.get("sha256", "")).lower() == sha256]
    if by_digest:
        return by_digest[0]
    return files[0] if len(files) == 1 and not by_name else None


def _holds(file_set: dict[str, Any], name: str) -> bool:
    """Whether a set of files takes in one of this name, in whatever folder."""
    patterns = [PurePosixPath(each).name for each in _list(file_set.get("includes")) if isinstance(each, str)]
    return any(map(partial(fnmatchcase, name), patterns))


def _columns(record_set: Mapping[str, Any]) -> Iterator[tuple[Column, str]]:
    """The fields that are read from a column, those within others too, and the file that each is read from."""
    fields = [each for each in _list(record_set.get("field")) if isinstance(each, dict)]
    while fields:
        field = fields.pop(0)
        fields += [each for each in _list(field.get("subField")) if isinstance(each, dict)]
        source = field.get("source")
        if not isinstance(source, dict):
            continue
        extract, rules = source.get("extract"), [source.get(key) for key in ("transform", "format")]
        column = extract.get("column") if isinstance(extract, dict) else None
        if isinstance(extract, dict) and isinstance(extract.get("jsonPath"), str):
            column = re.sub(r"^\$(\[\*\])?\.", "", extract["jsonPath"])
            # A path that leads deeper names no column.
            column = None if re.search(r"[\[\].]", column) else column
        held = next((source[key] for key in ("fileObject", "fileSet") if key in source), None)
        place = held.get("@id") if isinstance(held, dict) else held
        if isinstance(column, str) and isinstance(place, str):
            changed = any(rules) or any(field.get(key) for key in ("isArray", "repeated"))
            yield Column(column, tuple(_kinds(field.get("dataType"))), _value_counts(field), changed), place


def _counted(node: Mapping[str, Any]) -> dict[str, int]:
    """The numbers of records that annotations state, by their names."""
    found: dict[str, int] = {}
    for each in _list(node.get("annotation")):
        if isinstance(each, dict) and _CARDINALITY in _kinds(each.get("dataType")):
            value, name = each.get("value"), each.get("name") or each.get("@id")
            if isinstance(value, int) and not isinstance(value, bool) and isinstance(name, str):
                found[name] = value
    return found


def _count(record_set: Mapping[str, Any]) -> int | None:
    """The stated number of records; None where nothing or several things are counted."""
    counted = _counted(record_set)
    plain = [n for name, n in counted.items() if name.split("/")[-1].lower() in _NAMES_OF_A_COUNT]
    return next((own[0] for own in (list(counted.values()), plain) if len(own) == 1), None)


def _value_counts(field: Mapping[str, Any]) -> dict[str, int] | None:
    """How often values of a field occur, by annotations that are named as the field and ``=`` with the value."""
    start = f"{field.get('name')}="
    found = {name.removeprefix(start): n for name, n in _counted(field).items() if name.startswith(start)}
    return found or None
