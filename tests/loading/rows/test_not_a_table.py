"""Files that are no table, in words: what they are, where that shows, and what to do; never a parser's own jargon."""

from __future__ import annotations

import gzip
import pickle
import re
import shlex
import time
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from auditor.core.errors import DataError
from auditor.loading.rows.table_files import open_table
from auditor.models.files.table_diagnosis import MAX_COLUMNS

TABLE = "age,town,y\n" + "".join(f"{20 + i},t{i % 3},{i % 2}\n" for i in range(50))
JARGON = re.compile(r"codec|straddling|block size|CSV parse error|magic bytes|metadata bytes|Arrow", re.IGNORECASE)


def parquet() -> bytes:
    file = BytesIO()
    pyarrow.parquet.write_table(pa.table({"a": [1, 2], "y": [0, 1]}), file)
    return file.getvalue()


def workbook() -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return file.getvalue()


FILES: dict[str, tuple[str, Callable[[], bytes], str, str]] = {
    "UTF-16 with a mark": ("d.csv", lambda: TABLE.encode("utf-16"), "ENCODING", "is UTF-16 text"),
    "UTF-16 of lines": ("d.jsonl", lambda: '{"a": 1}\n'.encode("utf-16"), "ENCODING", "is UTF-16 text"),
    "UTF-16 of tabs": ("d.tsv", lambda: TABLE.replace(",", "\t").encode("utf-16"), "ENCODING", "is UTF-16 text"),
    "UTF-16LE": ("d.csv", lambda: TABLE.encode("utf-16-le"), "ENCODING", "looks like UTF-16LE"),
    "UTF-16BE": ("d.csv", lambda: TABLE.encode("utf-16-be"), "ENCODING", "looks like UTF-16BE"),
    "UTF-32": ("d.csv", lambda: TABLE.encode("utf-32"), "ENCODING", "is UTF-32 text"),
    "Latin-1 in a row": (
        "d.csv", lambda: (TABLE + "9,café,1\n").encode("latin-1"), "ENCODING", r"byte 0xE9 at offset 416 \(line 52\)",
    ),
    "Latin-1 in the header": ("d.csv", lambda: "a,é\n1,2\n".encode("latin-1"), "ENCODING", r"offset 2 \(line 1\)"),
    "Latin-1 in JSON": ("d.jsonl", lambda: b'{"a": "\xe9"}\n', "ENCODING", r"byte 0xE9 at offset 7 \(line 1\)"),
    "Latin-1 at the end, in JSON": ("d.jsonl", lambda: b'{"a": "\xe9', "ENCODING", r"byte 0xE9 at offset 7 \(line 1\)"),
    "NUL": ("d.csv", lambda: TABLE.encode() + b"1,\0,0\n", "MALFORMED", r"NUL byte at offset \d+ \(line 52\)"),
    "any bytes": ("d.csv", lambda: bytes(range(256)) * 10, "MALFORMED", "NUL byte at offset 0"),
    "too few cells": ("d.csv", lambda: (TABLE + "1,2\n" + TABLE[11:]).encode(), "MALFORMED", "row 52 .* has 2 cells"),
    "too many cells": ("d.csv", lambda: (TABLE + "1,2,3,4\n").encode(), "MALFORMED", "row 52 .* has 4 cells"),
    "too few after a break": ("d.csv", lambda: b'a,b\n1,"x\ny"\n2\n', "MALFORMED", "row 3 .* has 1 cell, and .* 2"),
    "packed": ("d.csv.gz", lambda: gzip.compress((TABLE + "1\n").encode()), "MALFORMED", "row 52 .* has 1 cell"),
    "two columns of a name": ("d.csv", lambda: b"a,a\n1,2\n", "COLUMN", "two columns named 'a'"),
    "a million columns": (
        "d.csv", lambda: b",".join(b"column%d" % i for i in range(1_000_000)), "LIMIT", "header of more than",
    ),
    "a million nameless columns": ("d.csv", lambda: b"," * 999_999 + b"\n1\n", "LIMIT", "header of 1,000,000 cells"),
    "a cell of 20 MB": ("d.csv", lambda: b"a,b\n1," + b"x" * (20 << 20) + b"\n", "LIMIT", "line 2 is longer than"),
    "a name of 20 MB": ("d.csv", lambda: b"a," + b"x" * (20 << 20) + b"\n1,2\n", "LIMIT", "header of more than"),
    "pickle": ("d.csv", lambda: pickle.dumps({"a": [1]}), "FORMAT", "is a pickle"),
    "old pickle": ("d.csv", lambda: pickle.dumps({"a": [1]}, protocol=0), "FORMAT", "is a pickle"),
    "workbook": ("d.csv", workbook, "FORMAT", r"Excel \(.xlsx\)"),
    "old workbook": ("d.csv", lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "FORMAT", "is an Excel"),
    "page": ("d.csv", lambda: b"\n<!DOCTYPE html><html></html>", "FORMAT", "is a web page"),
    "PDF": ("d.csv", lambda: b"%PDF-1.7\n", "FORMAT", "is a PDF"),
    "gzip": ("d.csv", lambda: gzip.compress(TABLE.encode()), "FORMAT", "must end in .gz"),
    "Parquet named CSV": ("d.csv", parquet, "FORMAT", "must end in .parquet"),
    "JSON named CSV": ("d.csv", lambda: b'{"a": 1, "y": 0}\n', "FORMAT", "name end in .jsonl"),
    "CSV named Parquet": ("d.parquet", TABLE.encode, "FORMAT", "is not a Parquet file"),
    "CSV named Feather": ("d.feather", TABLE.encode, "FORMAT", "is not an Arrow or Feather file"),
    "CSV named NPZ": ("d.npz", TABLE.encode, "FORMAT", "is not an archive of numpy's"),
    "CSV named JSON Lines": ("d.jsonl", TABLE.encode, "MALFORMED", "line 1 is no JSON object: 'age,town,y'"),
    "JSON that ends": ("d.jsonl", lambda: b'{"a": 1}\n{"a":\n', "MALFORMED", "line 2 is no JSON object"),
    "Parquet cut short": ("d.parquet", lambda: parquet()[:-20], "MALFORMED", "cut short"),
    "blank lines": ("d.csv", lambda: b"\n\n\n", "EMPTY", "blank lines alone"),
    "nothing": ("d.csv", lambda: b"", "EMPTY", "is empty"),
}  # fmt: skip


def refusal(path: Path) -> DataError:
    """What is said when all of a file is read, as a table and in batches."""
    said: list[DataError] = []
    for read in (lambda f: f.read(f.columns, {}), lambda f: list(f.batches(f.columns, {}))):
        with pytest.raises(DataError) as caught:
            read(open_table(path))
        said.append(caught.value)
    assert str(said[0]) == str(said[1])
    return said[0]


@pytest.mark.parametrize("what", FILES)
def test_what_is_no_table_is_refused_in_words(what: str, tmp_path: Path) -> None:
    name, content, code, fragment = FILES[what]
    path = tmp_path / name
    path.write_bytes(content())
    begun = time.process_time()
    error = refusal(path)
    assert time.process_time() - begun < 1.0
    assert re.search(fragment, str(error)), str(error)
    assert error.code == f"AUD-DATA-{code}"
    assert JARGON.search(str(error).replace("Arrow or Feather", "")) is None
    assert repr(name) in str(error) and str(error).isprintable() and len(str(error)) < 400


@pytest.mark.parametrize("what", [what for what in FILES if FILES[what][2] == "ENCODING" and "in JSON" not in what])
def test_the_conversion_that_is_advised_makes_a_table(what: str, tmp_path: Path) -> None:
    name, content, _, _ = FILES[what]
    path = tmp_path / name
    path.write_bytes(content())
    iconv, f, source, t, target, old, to, new = shlex.split(
        re.search(r"iconv .+? > \S+?(?=\.$| \()", str(refusal(path)))[0]  # type: ignore[index]
    )
    assert (iconv, f, t, target, old, to) == ("iconv", "-f", "-t", "UTF-8", name, ">")
    (tmp_path / new).write_text(path.read_bytes().decode(source), encoding="utf-8", newline="")
    file = open_table(tmp_path / new)
    assert file.read(file.columns, {}).num_rows >= 1


def test_the_place_of_a_byte_is_told_across_the_parts_that_are_read(tmp_path: Path) -> None:
    lines = "n,name\n" + "".join(f"{i},é{i}\n" for i in range(200_000))
    content = lines.encode() + "7,é\n".encode("latin-1")
    path = tmp_path / "d.csv"
    path.write_bytes(content)
    assert f"the byte 0xE9 at offset {len(content) - 2:,} (line 200,002)" in str(refusal(path))


def test_tables_in_utf_8_are_read_whatever_they_hold(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    for text in (
        TABLE,
        "\ufeff" + TABLE,
        "a,b\n<,>\n",
        "p,k\nPAR1,é\n",
        "c,d\nc,d\n",
        "größe,naïve\n1,Ж\n",
        "{a,b\n1,2\n",
    ):
        path.write_text(text, encoding="utf-8")
        file = open_table(path)
        assert file.read(file.columns, {}).num_rows == text.count("\n") - 1
    path.write_bytes(",".join(f"c{i}" for i in range(MAX_COLUMNS // 5)).encode() + b"\n")
    assert len(open_table(path).columns) == MAX_COLUMNS // 5
