"""Tables of SQLite files: what is read is what was written, and what cannot be read says what to do."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from auditor.core.errors import AuditorError, DataError, UsageError
from auditor.core.files import sha256_of, table_place
from auditor.loading.job_specs import DataSpec
from auditor.loading.rows.table_files import open_table


def database(path: Path, *statements: str, **tables: pd.DataFrame) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        for name, frame in tables.items():
            frame.to_sql(name, connection, index=False)
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return path


def people(n: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"age": rng.integers(18, 80, n), "in come": rng.normal(size=n), "sex": rng.choice(["f", "m"], n)}
    )
    return frame.assign(gap=frame["in come"].where(frame.age > 40), member=rng.random(n) < 0.5, empty=None)


@pytest.mark.parametrize("at_once", [1 << 16, 7])
def test_the_only_table_is_read_as_it_was_written(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("auditor.loading.rows.sqlite_tables._ROWS_AT_ONCE", at_once)
    frame = people()
    path = database(tmp_path / "a?b#%.db", people=frame)
    before = path.read_bytes()
    file = open_table(path)
    assert (file.columns, file.table) == (tuple(frame.columns), "people")
    found = file.read(["gap", "in come", "age", "sex", "member", "empty"], {}).to_pandas()
    expected = frame[list(found.columns)].assign(member=frame.member.astype(int))
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == [path.name]


def test_of_several_tables_one_is_named(tmp_path: Path) -> None:
    path = database(
        tmp_path / "rows.sqlite",
        'CREATE VIEW "grown ""ups""" AS SELECT * FROM a WHERE age > 40',
        a=people(),
        b=people(9),
    )
    with pytest.raises(UsageError, match=r"has 2 tables: name one, such as rows.sqlite::a \(a, b\)"):
        open_table(path)
    assert open_table(f"{path}::b").read(["age"], {}).num_rows == 9
    assert open_table(f'{path}::grown "ups"').read(["age"], {}).num_rows == int((people().age > 40).sum())
    with pytest.raises(UsageError, match="has no table 'c'"):
        open_table(f"{path}::c")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert sha256_of(Path(f"{path}::b")) == sha256_of(path) == digest
    assert DataSpec(path=f"{path}::a", train=f"{path}::b").why_not_held_out == ""
    assert "same file" in DataSpec(path=f"{path}::a", train=f"{path}::a").why_not_held_out


def test_a_file_whose_name_holds_two_colons_is_itself(tmp_path: Path) -> None:
    path = tmp_path / "a::b.csv"
    path.write_text("x\n1\n", encoding="utf-8")
    assert table_place(path) == (path, "") and open_table(path).columns == ("x",)
    with pytest.raises(UsageError, match="is no database"):
        (tmp_path / "rows.csv").write_text("x\n1\n", encoding="utf-8")
        open_table(f"{tmp_path}/rows.csv::x")


def test_values_of_several_types_are_texts(tmp_path: Path) -> None:
    path = database(
        tmp_path / "rows.db", "CREATE TABLE t (a, b)", "INSERT INTO t VALUES (1, 2), ('x', 2.5), (NULL, NULL)"
    )
    found = open_table(path).read(["a", "b"], {})
    assert found.to_pydict() == {"a": ["1", "x", None], "b": [2.0, 2.5, None]}


def test_rows_that_are_not_in_the_file_yet_are_not_left_out_in_silence(tmp_path: Path) -> None:
    path = database(tmp_path / "rows.db", "PRAGMA journal_mode = WAL", a=people())
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("DELETE FROM a WHERE age > 40")
        writer.commit()
        with pytest.raises(DataError, match=r"changes of it are in rows.db-wal: end what writes to it"):
            open_table(path)
    assert open_table(path).read(["age"], {}).num_rows == int((people().age <= 40).sum())
    (tmp_path / "rows.db-journal").write_bytes(b"not finished")
    with pytest.raises(DataError, match="rows.db-journal"):
        open_table(path)


def _written(content: bytes, name: str = "rows.db") -> tuple[str, bytes]:
    return name, content


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        (_written(b"SQLite format 3\0" + b"\xff" * 4000), "cannot be read as an SQLite database"),
        (_written(b"a,b\n1,2\n"), "is not an SQLite database, as its name says"),
        (_written(b"\1" * 8 + b"DUCK" + b"\0" * 200), "is a DuckDB database: export its table with COPY"),
        (_written(b"\1" * 8 + b"DUCK" + b"\0" * 200, "rows.duckdb"), "is a DuckDB database"),
        (_written(b"SQLite format 3\0" + b"\0" * 99, "rows.csv"), "must end in .sqlite or .db"),
    ],
)
def test_what_is_no_such_file_says_so(file: tuple[str, bytes], sentence: str, tmp_path: Path) -> None:
    (tmp_path / file[0]).write_bytes(file[1])
    with pytest.raises(AuditorError, match=sentence):
        open_table(tmp_path / file[0])


def test_damaged_pages_bytes_and_no_table_say_what_is_wrong(tmp_path: Path) -> None:
    path = database(tmp_path / "rows.db", a=people(3_000))
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\xa5" * (len(whole) - 8192))
    with pytest.raises(DataError, match="Export the table as CSV or Parquet"):
        open_table(path).read(["age"], {})
    with pytest.raises(DataError, match="has no table"):
        open_table(database(tmp_path / "empty.db", "PRAGMA user_version = 3"))
    blob = database(tmp_path / "blob.db", "CREATE TABLE t (a)", "INSERT INTO t VALUES (x'00ff')")
    with pytest.raises(DataError, match="Column 'a' of blob.db holds bytes"):
        open_table(blob).read(["a"], {})
