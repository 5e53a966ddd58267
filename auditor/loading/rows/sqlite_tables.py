"""Tables of an SQLite file, read without writing beside it, in the process that reads all sent files."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from auditor.core.errors import DataError, UsageError, did_you_mean, first_line
from auditor.models.files.model_bytes import printable

_ROWS_AT_ONCE = 1 << 16
_CLASSES = ("integer", "real", "text", "blob")


def chosen_table(path: Path, name: str) -> str:
    """The table or view of this name; without a name, the only table.

    Raises UsageError with the names of what is there, DataError for a file that is damaged or still written to.
    """
    with _read_only(path) as connection:
        rows = connection.execute("SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view')").fetchall()
    names: dict[str, str] = {own: kind for own, kind in rows if not own.startswith("sqlite_")}
    shown = printable(path.name)
    if name:
        if name not in names:
            raise UsageError(f"{shown} has no table {printable(name)!r}{did_you_mean(name, names) or '.'}")
        return name
    tables = [own for own, kind in names.items() if kind == "table"] or list(names)
    if not tables:
        raise DataError(f"{shown} has no table.", code="AUD-DATA-EMPTY")
    if len(tables) > 1:
        listed = ", ".join(map(printable, tables[:12])) + (", ..." if len(tables) > 12 else "")
        raise UsageError(
            f"{shown} has {len(tables)} tables: name one, such as {shown}::{printable(tables[0])} ({listed})."
        )
    return tables[0]


def columns_of(path: Path, table: str) -> list[str]:
    """The columns of a table."""
    with _read_only(path) as connection:
        return [own[0] for own in connection.execute(f"SELECT * FROM {_quoted(table)} LIMIT 0").description]


def read_database(path: Path, table: str, columns: Sequence[str]) -> pa.Table:
    """Some columns of a table, each of the one type that all its values have, else as texts.

    Raises DataError for a column with bytes.
    """
    own = ", ".join(map(_quoted, columns))
    with _read_only(path) as connection:
        types = [_type_of(connection, path, table, name) for name in columns]
        schema = pa.schema(list(zip(columns, types, strict=True)))
        cursor = connection.execute(f"SELECT {own} FROM {_quoted(table)}")
        batches = []
        while rows := cursor.fetchmany(_ROWS_AT_ONCE):
            values = zip(zip(*rows, strict=True), types, strict=True)
            batches.append(pa.record_batch([_array(each, kind) for each, kind in values], schema=schema))
    return pa.Table.from_batches(batches, schema)


def _type_of(connection: sqlite3.Connection, path: Path, table: str, name: str) -> pa.DataType:
    counted = ", ".join(f"total(typeof({_quoted(name)}) = '{kind}')" for kind in _CLASSES)
    counts = connection.execute(f"SELECT {counted} FROM {_quoted(table)}").fetchone()
    found = {kind for kind, n in zip(_CLASSES, counts, strict=True) if n}
    if "blob" in found:
        raise DataError(
            f"Column {printable(name)!r} of {printable(path.name)} holds bytes, which are no value of a table: "
            "leave it out with --features.",
            code="AUD-DATA-VALUES",
        )
    if not found:
        return pa.null()
    return pa.int64() if found == {"integer"} else pa.string() if "text" in found else pa.float64()


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):
        values = [None if value is None else str(value) for value in values]
    elif pa.types.is_floating(kind):
        values = [None if value is None else float(value) for value in values]
    return pa.array(values, kind)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def _read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that writes nothing, takes no lock, and trusts no function that the file itself names."""
    shown = printable(path.name)
    for log in (path.with_name(path.name + ending) for ending in ("-wal", "-journal")):
        if log.exists() and log.stat().st_size:
            raise DataError(
                f"{shown} is not as it will be, for changes of it are in {printable(log.name)}: end what writes to it, "
                "and audit it again, or export the table.",
                code="AUD-DATA-CHANGED",
            )
    address = f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            for pragma in ("query_only = ON", "trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
                connection.execute(f"PRAGMA {pragma}")
            yield connection
    except (sqlite3.Error, OverflowError, UnicodeError) as error:
        raise DataError(
            f"{shown} cannot be read as an SQLite database: {printable(first_line(error), 200)}. Export the table as "
            "CSV or Parquet.",
            code="AUD-DATA-MALFORMED",
        ) from None
