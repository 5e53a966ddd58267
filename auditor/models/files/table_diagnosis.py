"""Diagnosis of a file that cannot be read as the table that its name claims, with the position of the problem."""

from __future__ import annotations

import codecs
import json
import re
import shlex
from collections.abc import Callable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import IO

from auditor.core.errors import DataError
from auditor.models.files.model_bytes import printable

Opener = Callable[[], IO[bytes]]

_CHUNK = 1 << 20
_HEAD = 1 << 12
_JSON_KINDS = {
    str: "a text", int: "a number", float: "a number", bool: "a truth value", list: "a list", dict: "an object",
}  # fmt: skip
# Lines that are looked at for whether they are those of longer texts, and how long a wrapped one is.
_LOOKED_AT, _WRAPPED = 2_000, range(50, 101)
MAX_COLUMNS = 50_000
MAX_HEADER_BYTES = 1 << 20
# A byte order mark, the longer before the shorter that it begins with, and what iconv calls the encoding.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_OLD_PICKLE = rb"\((dp|lp)\d*\n|c[\w.]+\n[\w.]+\n"
_KINDS = {
    rb"PK\x03\x04": "a zip archive, as Excel (.xlsx) and numpy (.npz) write it",
    rb"\xd0\xcf\x11\xe0": "an Excel or Word file of before 2007",
    rb"\x80[\x02-\x05]": "a pickle, which runs code when it is loaded",
    # Plain words in lines look like one too.
    _OLD_PICKLE: "a pickle, which runs code when it is loaded",
    rb"\x1f\x8b": "a gzip file, which must end in .gz",
    rb"PAR1": "a Parquet file, which must end in .parquet",
    rb"ARROW1": "an Arrow file, which must end in .arrow",
    rb"\x89HDF": "an HDF5 file",
    rb"%PDF": "a PDF",
    rb"\s*<(!doctype|html|head|body|table)": "a web page",
    rb"\s*<\?xml": "an XML file",
    rb"SQLite format 3": "an SQLite database, which must end in .sqlite or .db",
}
_DUCKDB = b"DUCK"
_TEXT = {"csv": "CSV", "tsv": "TSV", "jsonl": "JSON Lines", "txt": "file of texts"}
_BINARY = {
    "parquet": ("a Parquet file", (b"PAR1",), b"PAR1"),
    "arrow": ("an Arrow or Feather file", (b"ARROW1", b"\xff\xff\xff\xff"), b""),
    "npz": ("an archive of numpy's", (b"PK\x03\x04", b"PK\x05\x06"), b""),
    "eval": ("a log of Inspect", (b"PK\x03\x04",), b""),
    "sqlite": ("an SQLite database", (b"SQLite format 3\0",), b""),
}


def problem_at_sight(where: Path, kind: str, noun: str, open_file: Opener) -> DataError | None:
    """The reason why a file is not a table of its ``kind``, by first bytes and NUL bytes in text; or None."""
    with open_file() as file:
        head = file.read(_HEAD)
    if kind in _BINARY:
        return _no_binary(where, kind, noun, head)
    name = f"The {noun} {printable(where.name)!r}"
    encoding = next((said for mark, said in _MARKS.items() if head.startswith(mark)), None)
    if encoding is not None:
        return _other_encoding(where, f"{name} is {encoding} text by its first bytes", encoding)
    # Every other byte of ordinary text in UTF-16 is 0.
    for first, said in ((0, "UTF-16BE"), (1, "UTF-16LE")):
        zeros = head[first::2].count(0)
        if zeros > len(head) // 4 and head[1 - first :: 2].count(0) < zeros // 4:
            return _other_encoding(where, f"{name} looks like {said} text", said)
    starts = [start for start in _KINDS if kind != "txt" or start != _OLD_PICKLE]
    known = next((_KINDS[start] for start in starts if re.match(start, head, re.IGNORECASE)), None)
    if known is not None:
        export = (
            "save its texts as .txt, one a line, or as .jsonl"
            if kind == "txt"
            else "export the table as CSV or Parquet"
        )
        return DataError(f"{name} is {known}, and no {_TEXT[kind]}: {export}.", code="AUD-DATA-FORMAT")
    if kind != "jsonl" and _is_json_object(head.splitlines()[0] if head else b""):
        return DataError(f"{name} holds JSON, a row a line: let its name end in .jsonl.", code="AUD-DATA-FORMAT")
    found = _problem_with_bytes(where, name, open_file, with_encoding=kind in ("jsonl", "txt"))
    return found if found is not None or kind in ("jsonl", "txt") else _wide_header(name, open_file)


def look_wrapped(open_file: Opener) -> bool:
    """Whether lines are parts of longer texts: all about as long as a page is wide, in blocks with blank lines between.

    The last line of a block is as long as is left.
    """
    with open_file() as file:
        lines = [line.decode("utf-8", "replace").strip() for line in islice(_lines(file), _LOOKED_AT)]
    blocks = [list(block) for blank, block in groupby(lines, key=lambda line: not line) if not blank]
    inner = [len(line) in _WRAPPED for block in blocks for line in block[:-1]]
    return len(blocks) > 1 and len(inner) > 2 * len(blocks) and sum(inner) > 0.8 * len(inner)


def problem_of_text(where: Path, kind: str, open_file: Opener, block: int, reason: str) -> DataError:
    """The error for unreadable text, with its parser's message ``reason``; ``block``: the largest row size."""
    name = printable(where.name)
    found = _problem_with_bytes(where, repr(name), open_file, with_encoding=True)
    if found is not None:
        return found
    long = _long_row(repr(name), open_file, block, kind)
    if long is not None:
        return long
    if kind == "jsonl":
        return (
            _bad_json(repr(name), open_file)
            or _mixed_json(repr(name), open_file)
            or _malformed(f"{name!r} cannot be read as JSON Lines: {printable(reason, 200)}.")
        )
    with open_file() as file:
        blank = not any(line.strip() for line in islice(_lines(file), 1000))
    if blank:
        return DataError(f"{name!r} holds blank lines alone.", code="AUD-DATA-EMPTY")
    return _malformed(f"{name!r} cannot be read as {_TEXT[kind]}: {printable(reason, 200)}.")


def ragged(where: Path, number: int | None, expected: int, n_cells: int, text: str) -> DataError:
    """The error for a row with another number of cells than the header; ``number`` counts the header as 1."""
    row = "a row" if number is None else f"row {number:,}"
    return _malformed(
        f"In {printable(where.name)!r}, {row} (the header is row 1) has {_cells(n_cells)}, and the header has "
        f"{expected:,}: {printable(text, 80)!r}. Mend the row: a value that holds a comma or a line break stands "
        "in double quotes."
    )


def not_utf8(where: Path, open_file: Opener) -> DataError:
    """The error for text that is not UTF-8: the position of the first bad byte, and how to convert the file."""
    return _problem_with_bytes(where, repr(printable(where.name)), open_file, with_encoding=True) or DataError(
        f"{printable(where.name)!r} holds bytes that are no text.", code="AUD-DATA-ENCODING"
    )


def _no_binary(where: Path, kind: str, noun: str, head: bytes) -> DataError | None:
    said, starts, end = _BINARY[kind]
    name = f"The {noun} {printable(where.name)!r}"
    if head[8:12] == _DUCKDB:
        return DataError(
            f"{name} is a DuckDB database: export its table with COPY name TO 'rows.parquet', and give that.",
            code="AUD-DATA-FORMAT",
        )
    if not head.startswith(starts):
        return DataError(
            f"{name} is not {said}, as its name says: name it by what it holds, or export it anew.",
            code="AUD-DATA-FORMAT",
        )
    with where.open("rb") as file:
        file.seek(-min(len(end), len(head)), 2)
        if end and file.read() != end:
            return _malformed(f"{name} is {said} that is cut short: its end is missing. Fetch or export it again.")
    return None


def _problem_with_bytes(where: Path, name: str, open_file: Opener, *, with_encoding: bool) -> DataError | None:
    """The first NUL byte, or the first byte that is not UTF-8."""
    place = 0
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open_file() as file:
        while chunk := file.read(_CHUNK):
            at = chunk.find(0)
            if at >= 0:
                line = _line_of(open_file, place + at)
                return _malformed(
                    f"{name} has a NUL byte at offset {place + at:,} (line {line:,}), as text never has: it is "
                    "damaged, or no table. Export it again, or take them out with tr -d '\\000'."
                )
            if with_encoding:
                kept = len(decoder.getstate()[0])
                try:
                    decoder.decode(chunk)
                except UnicodeDecodeError as error:
                    return _no_utf8(where, name, error.object[error.start], place + error.start - kept, open_file)
            place += len(chunk)
    # A character that the file ends in the middle of.
    cut = decoder.getstate()[0]
    return _no_utf8(where, name, cut[0], place - len(cut), open_file) if with_encoding and cut else None


def _line_of(open_file: Opener, place: int) -> int:
    """The line that a byte stands in, from 1: read anew, since most files are as they should be."""
    with open_file() as file:
        return 1 + sum(file.read(min(_CHUNK, place - at)).count(b"\n") for at in range(0, place, _CHUNK))


def _no_utf8(where: Path, name: str, byte: int, place: int, open_file: Opener) -> DataError:
    line = _line_of(open_file, place)
    fact = f"{name} is not UTF-8: the byte 0x{byte:02X} at offset {place:,} (line {line:,}) is none of it"
    return _other_encoding(where, fact, "WINDOWS-1252")


def _other_encoding(where: Path, fact: str, encoding: str) -> DataError:
    old = Path(printable(where.name))
    new = f"{old.stem}.utf8{old.suffix}"
    other = " (or the encoding that it was written in)" if encoding == "WINDOWS-1252" else ""
    return DataError(
        f"{fact}. Tables are read as UTF-8: convert it with iconv -f {encoding} -t UTF-8 {shlex.quote(old.name)} > "
        f"{shlex.quote(new)}{other}.",
        code="AUD-DATA-ENCODING",
    )


def _long_row(name: str, open_file: Opener, block: int, kind: str) -> DataError | None:
    with open_file() as file:
        for number, line in enumerate(_lines(file, block + 1), 1):
            if len(line) > block:
                cells = line.count(b",") + 1
                many = f", {cells:,} cells" if cells > 1000 else ": a cell is too large, or a quote is never closed"
                many = many if kind in ("csv", "tsv") else ""
                return DataError(
                    f"In {name}, line {number:,} is longer than the {block:,} bytes that are read{many}. Leave "
                    "out what is so long, or save the table as Parquet.",
                    code="AUD-DATA-LIMIT",
                )
    return None


def _wide_header(name: str, open_file: Opener) -> DataError | None:
    with open_file() as file:
        header = file.readline(MAX_HEADER_BYTES + 1)
    cells = header.count(b",") + header.count(b"\t") + 1
    if len(header) > MAX_HEADER_BYTES:
        fact = f"a header of more than {MAX_HEADER_BYTES:,} bytes, the first of which are {_cells(cells)}"
    elif cells > MAX_COLUMNS:
        fact = f"a header of {_cells(cells)}, more than the {MAX_COLUMNS:,} that are read"
    else:
        return None
    return DataError(
        f"{name} has {fact}: give every row a line of its own, and leave out columns that nobody needs.",
        code="AUD-DATA-LIMIT",
    )


def _bad_json(name: str, open_file: Opener) -> DataError | None:
    with open_file() as file:
        for number, line in enumerate(_lines(file), 1):
            if line.strip() and not _is_json_object(line):
                shown = printable(line[:80].decode("utf-8", "replace"), 60)
                return _malformed(
                    f"In {name}, line {number:,} is no JSON object: {shown!r}. "
                    'JSON Lines hold one object a line, {"column": value, ...}.'
                )
    return None


def _mixed_json(name: str, open_file: Opener) -> DataError | None:
    """The first line in which a field holds a value of another kind than in a line before it."""
    seen: dict[str, tuple[str, int]] = {}
    with open_file() as file:
        for number, line in enumerate(_lines(file), 1):
            row = json.loads(line) if line.strip() else {}
            for key, value in row.items():
                kind = _JSON_KINDS.get(type(value), "")
                before, at = seen.setdefault(key, (kind, number)) if kind else ("", 0)
                if kind != before:
                    return _malformed(
                        f"In {name}, line {number:,} has {kind} as {printable(key, 60)!r}, and line {at:,} {before}: "
                        "write all values of a field as one kind."
                    )
    return None


def _lines(file: IO[bytes], most: int = 1 << 26) -> Iterator[bytes]:
    while line := file.readline(most):
        yield line


def _is_json_object(line: bytes) -> bool:
    if not line.lstrip().startswith(b"{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _cells(n: int) -> str:
    return "1 cell" if n == 1 else f"{n:,} cells"


def _malformed(sentence: str) -> DataError:
    return DataError(sentence, code="AUD-DATA-MALFORMED")
