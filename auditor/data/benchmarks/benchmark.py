"""Common types of all published benchmarks, and the reading of their files, once, with digests."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar
from unicodedata import normalize

from auditor.core.errors import BenchmarkError, did_you_mean
from auditor.core.files import UNREADABLE, regular_file, why_unreadable

T = TypeVar("T")
_MAX_BYTES = 512 << 20
# The published files of pairs repeat up to two in a thousand.
_MOST_REPEATED = 0.01


@dataclass(frozen=True)
class Benchmark(Generic[T]):
    """The examples of a benchmark in file order, the digest of their file, and notes.

    ``left_out``: examples of the file that a list of the user's leaves out, which ``note`` says. ``templates``: what
    its examples share that makes them no independent evidence, in the plural. ``weak``: why a PASS by these examples
    would say little, in a sentence, or "".
    """

    name: str
    path: str
    sha256: str
    examples: tuple[T, ...]
    note: str = ""
    left_out: tuple[T, ...] = ()
    templates: str = "templates"
    weak: str = ""

    @property
    def source(self) -> str:
        """The source of the examples, for a finding's detail."""
        more = f"; {self.note}" if self.note else ""
        return f"{Path(self.path).name}, sha256 {self.sha256}, {len(self.examples):,} examples{more}"


@dataclass(frozen=True)
class SentencePair:
    """Two sentences about different people; ``more`` is the more stereotypical one.

    ``clusters``: labels that pairs share when they are not independent, such as their template. ``stratum``: the part
    of a balanced design that a pair belongs to. ``mentions``: of a crossed design, whom ``more`` and ``less``
    name, where the same two stand in others the other way round. ``rest``: what both end with, after whom they name.
    ``id``: what the file calls the pair, "" where it does not.
    """

    more: str
    less: str
    category: str
    clusters: tuple[str, ...] = ()
    stratum: str = ""
    mentions: tuple[str, str] | None = None
    rest: str = ""
    id: str = ""


def words_apart(first: str, second: str) -> tuple[str, str] | None:
    """The differing words of two texts of equal length, in lower case, such as ("he", "she"); else None."""
    words = [[word.strip(".,;:!?").lower() for word in text.split()] for text in (first, second)]
    if len(words[0]) != len(words[1]):
        return None
    apart = [both for both in zip(*words, strict=True) if both[0] != both[1]]
    return " ".join(a for a, _ in apart), " ".join(b for _, b in apart)


def note_of_repeats(pairs: Sequence[SentencePair], file: str) -> str:
    """The number of repeated pairs in a file, also with exchanged sentences, in words, or "".

    Case, spaces, marks and the width of letters aside. Raises BenchmarkError where they are more than 1 % of the pairs:
    those that are exchanged say both ways which sentence is the more stereotypical, so that any model comes to one
    half, and others count twice.
    """
    seen: set[tuple[str, str]] = set()
    again = exchanged = 0
    for pair in pairs:
        more, less = (
            "".join(re.findall(r"[^\W_]+", normalize("NFKC", text).casefold())) for text in (pair.more, pair.less)
        )
        again += (more, less) in seen
        exchanged += more != less and (less, more) in seen
        seen.add((more, less))
    said = []
    if exchanged:
        said.append(f"{exchanged:,} of {len(pairs):,} pairs stand there before with their two sentences exchanged")
    if again:
        said.append(f"{again:,} of {len(pairs):,} pairs repeat another")
    if exchanged + again > _MOST_REPEATED * len(pairs):
        raise BenchmarkError(f"{file!r}: {' and '.join(said)}. Give the published file, which has each pair once.")
    return "; ".join(said)


def read_text(path: str | Path, name: str) -> tuple[str, str]:
    """(text, sha256) of one file, read once."""
    where = regular_file(path, f"{name} file")
    if where.stat().st_size > _MAX_BYTES:
        raise BenchmarkError(f"{where.name!r} has {where.stat().st_size:,} bytes: no {name} file is that large.")
    try:
        data = where.read_bytes()
    except OSError as error:
        raise BenchmarkError(
            f"The {name} file {where.name!r} cannot be read ({error.strerror}): put a readable file there, not a link."
        ) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BenchmarkError(f"{where.name!r} is no UTF-8 text: expected the published {name} file.") from None
    if not text.strip():
        raise BenchmarkError(f"{where.name!r} is empty: expected the published {name} file.")
    return text, hashlib.sha256(data).hexdigest()


def digest_of(digests: Mapping[str, str]) -> str:
    """The digest of the one file, or that of the sorted listing ``sha256  name`` of several."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    listing = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(listing.encode()).hexdigest()


def read_table(
    path: str | Path, name: str, columns: Sequence[str], delimiter: Literal[",", "\t", "either"] = ","
) -> tuple[list[dict[str, str]], str]:
    """Rows of a CSV or TSV file that has those columns, and its digest. Raises DataError.

    "either" is tabs where the first line holds one, and quotation marks quote either way.
    """
    text, digest = read_text(path, name)
    lines = io.StringIO(text, newline="")
    if delimiter == "\t":
        # These published TSV files hold quotation marks that quote nothing.
        reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    else:
        tabs = delimiter == "either" and "\t" in text.partition("\n")[0]
        reader = csv.DictReader(lines, delimiter="\t" if tabs else ",", strict=True)
    try:
        found = list(reader.fieldnames or ())
        for column in columns:
            if column not in found:
                near = did_you_mean(column, found) or f". It has: {', '.join(map(repr, found[:8]))}"
                raise BenchmarkError(f"{Path(path).name!r} has no column {column!r}, so it is no {name} file{near}.")
        rows = [row for row in reader if any(row.values())]
    except csv.Error as error:
        raise BenchmarkError(
            f"{Path(path).name!r} cannot be read as a table after line {reader.line_num}: {error}."
        ) from None
    for number, row in enumerate(rows, 2):
        absent = next((c for c in columns if not (row[c] or "").strip()), None)
        if absent is not None:
            raise BenchmarkError(f"{Path(path).name!r}, row {number}, has nothing in the column {absent!r}.")
    if not rows:
        raise BenchmarkError(f"{Path(path).name!r} has a header and no rows: expected the published {name} file.")
    return rows, digest


def parse_json(text: str, path: str | Path, name: str) -> Any:
    """A JSON file's content. Raises DataError."""
    try:
        return json.loads(text)
    except UNREADABLE as error:
        raise BenchmarkError(
            f"{Path(path).name!r} cannot be read as JSON, so it is no {name} file: {why_unreadable(error)}."
        ) from None


def json_lines(text: str, path: str | Path, name: str) -> list[Mapping[str, Any]]:
    """The objects of a file of JSON lines. Raises DataError."""
    rows: list[Mapping[str, Any]] = []
    # Not splitlines: a JSON text may hold the other line breaks of Unicode as they are.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except UNREADABLE as error:
            raise BenchmarkError(
                f"{Path(path).name!r}, line {number}, cannot be read as JSON: {why_unreadable(error)}."
            ) from None
        if not isinstance(row, dict):
            raise BenchmarkError(f"{Path(path).name!r}, line {number}, is no JSON object, so it is no {name} file.")
        rows.append(row)
    return rows


def value_of(row: Mapping[str, Any], key: str, where: str, name: str) -> Any:
    """The value of a row under this key.

    Raises DataError where it has nothing; ``where`` begins the message.
    """
    if key not in row:
        raise BenchmarkError(
            f"{where} has no {key!r}, so it is no {name} file{did_you_mean(key, map(str, row)) or ''}."
        )
    return row[key]


def text_of(row: Mapping[str, Any], key: str, where: str, name: str) -> str:
    """The text or whole number of a row under this key.

    Raises DataError.
    """
    value = value_of(row, key, where, name)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise BenchmarkError(f"{where}: {key!r} must be a text, not {str(value)[:40]!r}.")
    return str(value)
