"""The audit ledger in a database: an SQLite file, or any database that SQLAlchemy supports."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auditor.core.errors import DataError, MissingExtraError, UsageError, first_line
from auditor.core.files import printable_name
from auditor.evidence.history.entries import (
    GENESIS,
    AuditEntry,
    Decision,
    Entry,
    Identity,
    Kind,
    RegistrationEntry,
    chained,
)
from auditor.evidence.history.index import Index, Indexed, indexed, indexed_in, table_of, values_of
from auditor.report.record.redact_urls import without_passwords

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Table

DEFAULT = "audit-history.db"
# Since 2 there are registrations, whole records, and an index; a ledger of before is read as it is, and becomes one of
# today when something is entered into it. Then an auditor of before refuses it, who would leave the index behind.
SCHEMA = 2
_READ = (1, 2)
# Writers wait for one another; longer than this is a lock that somebody forgot.
_WAIT_SECONDS = 30
_POSTGRES_LOCK = 0x6175_6469_746F_7231
_AT_ONCE = 50
# A forger cannot choose among 2^64 hashes; fewer digits would be found by trying.
_HEAD = re.compile(r"[0-9a-fA-F]{16,64}")


# What acts where entries are written, by the kind of database.
_TABLES = "(to_regclass('auditor_entries'), to_regclass('auditor_history'), to_regclass('auditor_index'))"
_TRIGGERS = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name LIKE 'auditor_%'",
    "postgresql": f"SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgrelid IN {_TABLES} "
    f"UNION ALL SELECT rulename FROM pg_rewrite WHERE ev_class IN {_TABLES}",
}


class Ledger:
    """Append-only entries in order, each chained to the previous one.

    ``where``: a path, or a URL of SQLAlchemy such as ``postgresql+psycopg://user@host/audits``. An append returns once
    the entry is on the disk: SQLite in WAL mode with ``synchronous = FULL``. Writers take turns, within a process and
    between machines. Raises UsageError where the database cannot be reached or written, DataError where it is no
    ledger or of a newer version.
    """

    def __init__(self, where: str | Path = DEFAULT, *, create: bool = True) -> None:
        self.where = str(where)
        sql = _sqlalchemy()
        url = self.where if "://" in self.where else f"sqlite:///{Path(self.where).absolute()}"
        path = Path(self.where)
        if "://" not in self.where and not create and not path.is_file():
            raise UsageError(
                f"There is no history at {self.where!r}: auditor scan --history --db {self.where} begins one."
            )
        if "://" not in self.where and path.is_dir():
            raise UsageError(f"{self.where!r} is a folder: name a file, such as {DEFAULT}.")
        try:
            self._engine = _engine(sql, url)
        except Exception as error:  # a URL that is none, or a driver that is not installed
            raise UsageError(f"{without_passwords(self.where)!r} is no database: {first_line(error)}.") from None
        self._writer = self._engine.execution_options(writer=True)
        self._entries, self._about, self._index = _tables(sql)
        try:
            with self._transaction(writable=create) as connection:
                self._open(connection, create)
        except BaseException:
            self.close()
            raise

    def _check_schema(self, connection: Connection) -> None:
        """Raises DataError where the tables are others than those that were made, or something acts upon them."""
        inspector = _sqlalchemy().inspect(connection)
        tables = [self._entries, self._about]
        if inspector.has_table(self._index.name):
            tables.append(self._index)
        for table in tables:
            found = [column["name"] for column in inspector.get_columns(table.name)]
            if found != [column.name for column in table.columns]:
                raise DataError(
                    f"The table {table.name} of {without_passwords(self.where)!r} has other columns than a history has."
                )
        acting = _TRIGGERS.get(connection.dialect.name)
        names = [] if acting is None else [str(row[0]) for row in connection.exec_driver_sql(acting)]
        if names:
            raise DataError(
                f"The history {without_passwords(self.where)!r} has a trigger or rule, {printable_name(names[0])!r}, "
                f"which may "
                "change what is stored: drop it, and check the history with auditor history --verify."
            )

    def _open(self, connection: Connection, create: bool) -> None:
        sql = _sqlalchemy()
        known = sql.inspect(connection).has_table(self._about.name)
        if not known and not create:
            raise DataError(f"{without_passwords(self.where)!r} is no history of audits.")
        if not known:
            self._lock(connection)
            self._entries.metadata.create_all(connection)
            if connection.execute(sql.select(self._about.c.schema)).scalar() is None:
                connection.execute(sql.insert(self._about).values(schema=SCHEMA))
        found = connection.execute(sql.select(self._about.c.schema)).scalar()
        if found not in _READ:
            raise DataError(
                f"{without_passwords(self.where)!r} is a history of version {found}, and this auditor reads {SCHEMA}: "
                "upgrade responsible-auditor."
            )
        self._check_schema(connection)
        if create:
            self._make_ready(connection)

    def _make_ready(self, connection: Connection) -> None:
        """Takes into the index what is not in it yet: everything, the first time that a ledger of before is written."""
        sql = _sqlalchemy()
        is_of_before = connection.execute(sql.select(self._about.c.schema)).scalar() != SCHEMA
        if is_of_before or not sql.inspect(connection).has_table(self._index.name):
            self._lock(connection)
            self._index.create(connection, checkfirst=True)
            connection.execute(sql.update(self._about).values(schema=SCHEMA))
        known, last = (self._last(connection, table) for table in (self._index, self._entries))
        if known > last:
            raise DataError(
                f"The history {without_passwords(self.where)!r} ends with entry {last}, and held entry {known} before: "
                "entries at its end were taken away."
            )
        if known == last:
            return
        self._lock(connection)
        after = self._last(connection, self._index)
        while rows := self._rows_after(connection, after):
            for row in rows:
                self._index_entry(connection, _entry(row._mapping))
            after = int(rows[-1]._mapping["number"])

    def _last(self, connection: Connection, table: Table) -> int:
        sql = _sqlalchemy()
        return int(connection.execute(sql.select(sql.func.max(table.c.number))).scalar() or 0)

    def _rows_after(self, connection: Connection, number: int) -> Sequence[Any]:
        sql, column = _sqlalchemy(), self._entries.c
        query = sql.select(self._entries).where(column.number > number).order_by(column.number).limit(_AT_ONCE)
        return list(connection.execute(query).all())

    def _index_entry(self, connection: Connection, entry: Entry) -> None:
        """The entry into the index."""
        sql = _sqlalchemy()

        def about(number: int) -> Indexed | None:
            row = connection.execute(sql.select(self._index).where(self._index.c.number == number)).first()
            return None if row is None else indexed_in(row)

        connection.execute(sql.insert(self._index).values(**values_of(indexed(entry, about))))

    @contextmanager
    def _transaction(self, *, writable: bool = False) -> Iterator[Connection]:
        """One transaction; errors of the database become a sentence."""
        sql = _sqlalchemy()
        try:
            with (self._writer if writable else self._engine).begin() as connection:
                yield connection
        except sql.exc.SQLAlchemyError as error:
            said = first_line(getattr(error, "orig", None) or error)
            raise UsageError(f"The history {without_passwords(self.where)!r} cannot be used: {said}.") from None

    def _lock(self, connection: Connection) -> None:
        """Keeps other writers out until the transaction ends; SQLite's began with the lock already."""
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_POSTGRES_LOCK})")

    def append(self, kind: Kind, payload: AuditEntry | Decision | RegistrationEntry) -> Entry:
        """Append an entry and return it after it is written to disk."""
        entry = self._append(kind, payload, None)
        assert entry is not None
        return entry

    def append_after(self, head: str, kind: Kind, payload: AuditEntry | Decision | RegistrationEntry) -> Entry | None:
        """Append an entry if the last entry has the hash ``head``; None otherwise."""
        return self._append(kind, payload, head)

    def _append(self, kind: Kind, payload: AuditEntry | Decision | RegistrationEntry, head: str | None) -> Entry | None:
        sql = _sqlalchemy()
        created = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self._transaction(writable=True) as connection:
            self._lock(connection)
            last = self._head(connection)
            number, previous = (1, GENESIS) if last is None else (last.number + 1, last.hash)
            if head not in (None, previous):
                return None
            self._make_ready(connection)
            entry = Entry.from_previous(number, previous, created, kind, payload.model_dump_json())
            connection.execute(sql.insert(self._entries).values(**entry.model_dump()))
            self._index_entry(connection, entry)
        self._read_back(entry)
        return entry

    def _head(self, connection: Connection) -> Entry | None:
        """The last entry, which the next follows on. Raises DataError where it was changed, or follows on no other."""
        sql = _sqlalchemy()
        query = sql.select(self._entries).order_by(self._entries.c.number.desc()).limit(1)
        row = connection.execute(query).first()
        if row is None:
            return None
        found = _entry(row._mapping)
        before = connection.execute(
            sql.select(self._entries.c.hash).where(self._entries.c.number == found.number - 1)
        ).scalar()
        if problems := wrong_with(found, before if found.number > 1 else GENESIS):
            raise DataError(
                f"Nothing can be entered into the history {without_passwords(self.where)!r}: {problems[0]}. auditor "
                "history --verify says what else was."
            )
        return found

    def head(self) -> str:
        """The hash that the next entry refers to, recomputed.

        Raises DataError as an append does.
        """
        with self._transaction() as connection:
            found = self._head(connection)
        return GENESIS if found is None else found.hash

    @property
    def index(self) -> Index:
        """The index of the entries; only for a ledger opened for writing."""
        return Index(_sqlalchemy(), self._index, self.rows)

    @property
    def has_index(self) -> bool:
        """Whether the ledger has an index; older ledgers get one with their next entry."""
        with self._transaction() as connection:
            return bool(_sqlalchemy().inspect(connection).has_table(self._index.name))

    def rows(self, query: Any) -> Sequence[Any]:
        """The rows that a query finds."""
        with self._transaction() as connection:
            return list(connection.execute(query).all())

    def linked(self, number: int) -> Entry:
        """An entry that is unchanged since the next one referred to it.

        Raises DataError where it is not.
        """
        sql = _sqlalchemy()
        found = self.entry(number)
        after = self.rows(sql.select(self._entries.c.previous).where(self._entries.c.number == number + 1))
        if after and after[0][0] != found.hash:
            raise DataError(_changed_entry_text(number))
        return found

    def _read_back(self, entry: Entry) -> None:
        """Nothing is acknowledged but what lies there: a database may do more, or other, than it is told."""
        sql = _sqlalchemy()
        with self._transaction() as connection:
            row = connection.execute(sql.select(self._entries).where(self._entries.c.number == entry.number)).first()
        if row is None or _entry(row._mapping) != entry:
            raise DataError(
                f"The history {without_passwords(self.where)!r} does not hold entry {entry.number} as it was written: "
                "something in the database changes what is stored there. Nothing that it holds can be relied on."
            )

    def entries(self) -> Iterator[Entry]:
        """All entries, in order."""
        after = 0
        while True:
            with self._transaction() as connection:
                rows = self._rows_after(connection, after)
            for row in rows:
                yield _entry(row._mapping)
            if len(rows) < _AT_ONCE:
                return
            after = int(rows[-1][0])

    def find(self, number: int) -> Entry | None:
        """An entry as by :meth:`linked`; None if there is none with that number."""
        rows = self.rows(_sqlalchemy().select(self._entries.c.number).where(self._entries.c.number == number))
        return self.linked(number) if rows else None

    def entry(self, number: int) -> Entry:
        """One entry. Raises UsageError where there is none of that number."""
        sql = _sqlalchemy()
        if not 1 <= number < 1 << 31:
            raise UsageError(f"{number} is the number of no entry.")
        rows = self.rows(sql.select(self._entries).where(self._entries.c.number == number))
        if not rows:
            raise UsageError(f"The history {without_passwords(self.where)!r} has no entry {number}.")
        found = _entry(rows[0]._mapping)
        if _hash_of(found) != found.hash:
            raise DataError(_changed_entry_text(number))
        return found

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()


def broken_chain(entries: Sequence[Entry] | Iterator[Entry], head: str | None = None) -> list[str]:
    """Errors of a ledger, in words; empty if every entry follows the previous one.

    ``head``: the hash of an entry that was noted elsewhere, or its first 16 digits at least; without it the chain
    cannot tell that entries at its end were taken away. Raises UsageError where it is no such hash.
    """
    if head is not None and not _HEAD.fullmatch(head):
        raise UsageError(
            f"{printable_name(head)!r} is no hash of an entry: give its 64 hexadecimal digits, or the first 16."
        )
    head = None if head is None else head.lower()
    problems: list[str] = []
    previous, expected, seen = GENESIS, 1, head is None
    for entry in entries:
        if entry.number != expected:
            gone = f"entry {expected}" if entry.number == expected + 1 else f"entries {expected} to {entry.number - 1}"
            problems.append(f"{gone} {'is' if entry.number == expected + 1 else 'are'} missing")
            previous = entry.previous
        problems += wrong_with(entry, previous)
        seen = seen or (head is not None and entry.hash.startswith(head))
        previous, expected = entry.hash, entry.number + 1
    if not seen:
        problems.append(f"no entry has the hash {str(head)[:16]}...: entries at the end were taken away, or changed")
    return problems


def wrong_with(entry: Entry, previous: str | None) -> list[str]:
    """Errors of an entry that must follow the hash ``previous``, in words; None if there is none before it."""
    found = []
    if previous is None:
        found.append(f"entry {entry.number - 1} is missing")
    elif entry.previous != previous:
        found.append(f"entry {entry.number} does not follow on the entry before it")
    if _hash_of(entry) != entry.hash:
        found.append(f"entry {entry.number} was changed")
    return found


def decisions_about(
    ledger: Ledger, *, sha256: str | None, path: str | None, model_id: str = ""
) -> list[tuple[Entry, Decision]]:
    """Decisions about audits of a model, by its id or its digest, or by its path where it has neither; the latest last.

    Raises DataError where one of them was changed: nobody's decision can be told from it then.
    """
    found = ledger.index.decisions_on(Identity(id=model_id, sha256=sha256, path=path))
    decisions = []
    for number in found:
        try:
            entry = ledger.linked(number)
        except DataError:
            where = without_passwords(ledger.where)
            raise DataError(f"No decision of the history {where!r} counts: entry {number} was changed.") from None
        decisions.append((entry, entry.decision()))
    return decisions


def _hash_of(entry: Entry) -> str:
    return chained(entry.number, entry.previous, entry.created, entry.kind, entry.payload)


def _changed_entry_text(number: int) -> str:
    return f"Entry {number} of the history was changed: auditor history --verify says what else was."


def _entry(row: Any) -> Entry:
    """What stands in a row, whatever somebody has put there: the chain says whether it belongs."""
    texts: dict[str, Any] = {name: str(row[name]) for name in ("created", "kind", "payload", "previous", "hash")}
    return Entry.model_construct(None, number=int(row["number"]), **texts)


def _sqlalchemy() -> Any:
    try:
        import sqlalchemy
        import sqlalchemy.exc
    except ImportError:
        raise MissingExtraError(
            "A history of audits needs the package sqlalchemy: pip install 'responsible-auditor[history]'."
        ) from None
    return sqlalchemy


def _engine(sql: Any, url: str) -> Engine:
    parsed = sql.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        engine: Engine = sql.create_engine(parsed, pool_pre_ping=True)
        return engine
    engine = sql.create_engine(parsed, connect_args={"timeout": _WAIT_SECONDS})

    @sql.event.listens_for(engine, "connect")  # type: ignore[untyped-decorator]
    def settings(connection: Any, _: object) -> None:
        # The driver begins no transaction of its own: "begin" below does, with the lock a writer needs.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")

    @sql.event.listens_for(engine, "begin")  # type: ignore[untyped-decorator]
    def begin(connection: Connection) -> None:
        # A reader that turned into a writer could find that another had written since.
        writer = connection.get_execution_options().get("writer", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")

    return engine


def _tables(sql: Any) -> tuple[Table, Table, Table]:
    metadata = sql.MetaData()
    entries = sql.Table(
        "auditor_entries",
        metadata,
        sql.Column("number", sql.Integer, primary_key=True, autoincrement=False),
        sql.Column("created", sql.String(40), nullable=False),
        sql.Column("kind", sql.String(20), nullable=False),
        sql.Column("payload", sql.Text, nullable=False),
        sql.Column("previous", sql.String(64), nullable=False),
        sql.Column("hash", sql.String(64), nullable=False, unique=True),
    )
    about = sql.Table("auditor_history", metadata, sql.Column("schema", sql.Integer, primary_key=True))
    return entries, about, table_of(sql, metadata)
