"""Rows from a database by a user's query, over a read-only connection."""

from __future__ import annotations

import hashlib
import re
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auditor.core.errors import DataError, MissingExtraError, UsageError, first_line
from auditor.core.files import regular_file, write_beside
from auditor.report.record.redact_urls import arguments_without_passwords, without_passwords

if TYPE_CHECKING:
    import pandas as pd
    from sqlalchemy import Engine

_URL = re.compile(r"^[a-z][a-z0-9_]*(\+[a-z0-9_]+)?://", re.IGNORECASE)
_MOST_QUERY_BYTES = 1 << 20
# How each database is told that nothing is to be written, before the query is sent.
_READ_ONLY = {
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
    "sqlite": "PRAGMA query_only = ON",
}


def is_database(data: str) -> bool:
    """Whether this is the URL of a database and no path."""
    return bool(_URL.match(data))


def fetch(url: str, query: str | Path, destination: Path) -> str:
    """Write the result of the query in the file ``query`` to ``destination`` as Parquet; return a note on it.

    PostgreSQL, MySQL, MariaDB and SQLite are told to refuse every write of the session; no other database is asked.
    Numbers of any type become float64 or integers, everything else that is no text its text. Raises UsageError for a
    URL, a driver or a query that is wrong, DataError for rows that no table in a file can hold, MissingExtraError
    without SQLAlchemy.
    """
    statement = _statement(regular_file(query, "query file"))
    frame = _run_query(url, statement)
    if not len(frame):
        raise DataError(f"The query {Path(query).name} finds no rows.", code="AUD-DATA-EMPTY")
    content = BytesIO()
    try:
        frame.to_parquet(content, index=False)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"The query {Path(query).name} finds what no table can hold: {first_line(error)}.", code="AUD-DATA-FORMAT"
        ) from None
    write_beside(destination, content.getvalue())
    digest = hashlib.sha256(statement.encode()).hexdigest()
    return f"The rows are what the query {Path(query).name} (sha256 {digest}) found, over a connection that only reads."


def _statement(path: Path) -> str:
    if path.stat().st_size > _MOST_QUERY_BYTES:
        raise UsageError(f"The query file {path.name!r} is larger than a query is.")
    try:
        text = path.read_text("utf-8").strip()
    except UnicodeDecodeError:
        raise UsageError(f"The query file {path.name!r} is no text in UTF-8.") from None
    if not text:
        raise UsageError(f"The query file {path.name!r} is empty: write a SELECT into it.")
    return text


def _run_query(url: str, statement: str) -> pd.DataFrame:
    sql = _sqlalchemy()
    engine = _engine(sql, url)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(_READ_ONLY[engine.dialect.name])
            connection.commit()
            found = connection.exec_driver_sql(statement)
            if not found.returns_rows:
                raise UsageError("The query returns no rows: it has to be a SELECT.")
            names, rows = list(found.keys()), found.fetchall()
    except (sql.exc.SQLAlchemyError, UnicodeError, OverflowError) as error:
        cause = getattr(error, "orig", None) or error
        raise UsageError(
            f"{printable_url(url)} does not answer the query: {without_passwords(first_line(cause))}."
        ) from None
    finally:
        engine.dispose()
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"The query gives two columns the name {twice[0]!r}: rename one with AS.")
    return _plain(names, rows)


def _plain(names: list[str], rows: list[Any]) -> pd.DataFrame:
    from decimal import Decimal

    import pandas as pd

    columns: dict[str, pd.Series[Any]] = {}
    for i, name in enumerate(names):
        values = [row[i] for row in rows]
        kinds = {type(value) for value in values if value is not None}
        if bytes in kinds or memoryview in kinds:
            raise DataError(
                f"Column {name!r} of the query holds bytes, which are no value of a table: leave it out.",
                code="AUD-DATA-VALUES",
            )
        if Decimal in kinds and kinds <= {Decimal, int, float}:
            values = [None if value is None else float(value) for value in values]
        elif not (kinds <= {int, float} or kinds <= {str} or kinds <= {bool}):
            values = [None if value is None else str(value) for value in values]
        columns[name] = pd.Series(values, dtype=object).convert_dtypes()
    return pd.DataFrame(columns)


def _engine(sql: Any, url: str) -> Engine:
    try:
        parsed = sql.make_url(url)
        backend = parsed.get_backend_name()
    except (sql.exc.ArgumentError, ValueError) as error:
        why = without_passwords(first_line(error))
        raise UsageError(f"{printable_url(url)} is no URL of a database: {why}.") from None
    if backend not in _READ_ONLY:
        raise UsageError(
            f"{backend} cannot be told here that nothing is to be written: export the rows to a Parquet file, and give "
            "that with --data."
        )
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite":
        path = regular_file(parsed.database or "", "database")
        parsed = parsed.set(database=f"file:{path.resolve()}", query={"mode": "ro", "uri": "true"})
    try:
        engine: Engine = sql.create_engine(parsed)
    except (sql.exc.ArgumentError, ImportError) as error:
        raise UsageError(
            f"{printable_url(url)} needs a driver that is not installed ({first_line(error)}): pip install it, such as "
            "psycopg[binary] for PostgreSQL or pymysql for mysql+pymysql://."
        ) from None
    return engine


def printable_url(url: str) -> str:
    """The URL for printing and recording: its dialect, host and name only."""
    # Of what is no address, a password may be any part.
    return arguments_without_passwords([url])[0].removesuffix("?***") if "://" in url else "The --data that was given"


def _sqlalchemy() -> Any:
    try:
        import sqlalchemy
        import sqlalchemy.exc
    except ImportError:
        raise MissingExtraError(
            "Rows from a database need the package sqlalchemy: pip install 'responsible-auditor[sql]'."
        ) from None
    return sqlalchemy
