"""Reading CSV, Parquet, JSON Lines, lines of text, Arrow, numpy archives, SQLite and logs, whole or in batches."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.json
import pyarrow.parquet

from auditor.core.errors import DataError, UsageError, did_you_mean, first_line
from auditor.core.files import regular_file, table_place
from auditor.data.preprocessing import label_name
from auditor.loading.job_specs import DataSpec
from auditor.loading.rows.compressed_tables import BoundedGzip, most_bytes, read_npz
from auditor.loading.rows.logged_rows import read_log_rows
from auditor.loading.rows.sqlite_tables import chosen_table, columns_of, read_database
from auditor.models.files.model_bytes import printable
from auditor.models.files.table_diagnosis import look_wrapped, not_utf8, problem_at_sight, problem_of_text, ragged

if TYPE_CHECKING:
    from auditor.models.audited_model import AuditedModel

# What the one column of a file of lines is called, and that of texts in a table where nobody says.
TEXT = "text"


def texts_in(source: IO[bytes], longest: int) -> Iterator[str]:
    """The non-blank lines, stripped.

    Raises ArrowInvalid for a line of more than ``longest`` bytes, UnicodeError for text that is not UTF-8.
    """
    begun = False
    while line := source.readline(longest + 1):
        if len(line) > longest:
            raise pa.ArrowInvalid("a line is too long")
        text = line.decode("utf-8")
        if text := (text if begun else text.removeprefix("\ufeff")).strip():
            yield text
        begun = True


Kind = Literal["csv", "tsv", "parquet", "jsonl", "txt", "arrow", "npz", "eval", "sqlite"]
_SUFFIXES: dict[str, Kind] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "txt",
    ".feather": "arrow",
    ".arrow": "arrow",
    ".ipc": "arrow",
    ".npz": "npz",
    ".eval": "eval",
    ".sqlite": "sqlite",
    ".sqlite3": "sqlite",
    ".db": "sqlite",
    ".duckdb": "sqlite",
}
_TEXT: tuple[Kind, ...] = ("csv", "tsv", "jsonl", "txt")
# What is read part by part; all else is read whole.
STREAMED: tuple[Kind, ...] = ("csv", "tsv", "parquet", "jsonl", "arrow")
BLOCK_BYTES = 8 << 20
# In the order in which Arrow tries what a column of CSV holds; dates are texts for pandas.
_INFERRED = (pa.null(), pa.int64(), pa.bool_(), pa.float64(), pa.string())
# What pyarrow raises for a file, or a column of it, that is not what was asked for.
_MALFORMED = (
    pa.ArrowInvalid,
    pa.ArrowTypeError,
    pa.ArrowKeyError,
    pa.ArrowNotImplementedError,
    OSError,
    UnicodeError,
    # An Arrow file may claim to unpack to any size.
    MemoryError,
)


@dataclass(frozen=True)
class TableFile:
    """A table file with a parsed header: its path, its kind, its columns in order; of a database the table's name."""

    path: Path
    kind: Kind
    columns: tuple[str, ...]
    table: str = ""

    def batches(self, columns: Sequence[str], types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Batches of some columns; ``types`` overrides the inferred types.

        Raises DataError on a malformed file.
        """
        self.require(columns)
        wanted = {name: types[name] for name in columns if name in types}
        try:
            if self.kind == "parquet":
                # Read ahead, the bytes of every group of rows to come are held until the last is read.
                with pyarrow.parquet.ParquetFile(self.path, pre_buffer=False, buffer_size=1 << 20) as file:
                    for group in range(file.num_row_groups):
                        for batch in file.iter_batches(1 << 16, row_groups=[group], columns=list(columns)):
                            yield _cast(batch, wanted)
            elif self.kind == "arrow":
                for batch in _arrow_batches(self.path, columns):
                    for start in range(0, batch.num_rows, 1 << 16):
                        yield _cast(batch.slice(start, 1 << 16), wanted)
            elif self.kind in ("npz", "eval", "txt", "sqlite"):
                yield from (_cast(b, wanted) for b in self._whole(columns, {}).to_batches(max_chunksize=1 << 16))
            elif self.kind == "jsonl":
                with self._open() as source:
                    yield from (
                        _cast(batch.select(list(columns)), wanted)
                        for batch in pyarrow.json.open_json(source, **self._json(columns, wanted))
                    )
            else:
                with self._open() as source:
                    reader = pyarrow.csv.open_csv(source, **self._csv(columns, wanted))
                    self._refuse_bytes(reader.schema)
                    yield from reader
        except _MALFORMED as error:
            raise self._malformed(error) from None

    def read(self, columns: Sequence[str], types: Mapping[str, pa.DataType]) -> pa.Table:
        """The whole table of some columns, types inferred over all rows where not given. Raises DataError."""
        self.require(columns)
        wanted = {name: types[name] for name in columns if name in types}
        try:
            table = self._whole(columns, wanted)
        except _MALFORMED as error:
            raise self._malformed(error) from None
        self._refuse_bytes(table.schema)
        return table

    def row_where(self, column: str, value: str) -> int:
        """The one row whose ``column`` holds ``value``, counted from 1; "" is a missing value, as "NA" is.

        Raises UsageError where no row does, or several do.
        """
        wanted = label_name(value.strip())
        # As text, NaN would be a word.
        found = self.read([column], {column: pa.string()} if wanted else {}).column(0).to_pylist()
        if wanted:
            rows = [i for i, cell in enumerate(found, 1) if cell is not None and label_name(cell.strip()) == wanted]
        else:
            rows = [i for i, cell in enumerate(found, 1) if cell is None or str(cell).strip() == "" or _is_nan(cell)]
        what = "this value" if wanted else "a missing value"
        if len(rows) == 1:
            return rows[0]
        if not rows and wanted and value.strip() in pyarrow.csv.ConvertOptions().null_values:
            return self.row_where(column, "")
        if not rows:
            raise UsageError(f"--where {column}={value}: no row of {self.path.name} has {what}.")
        shown = ", ".join(f"{row:,}" for row in rows[:5]) + (", ..." if len(rows) > 5 else "")
        raise UsageError(
            f"--where {column}={value}: {len(rows):,} rows of {self.path.name} have {what} ({shown}); choose one "
            "with --row, or a column whose values are unique."
        )

    def types(self, columns: Sequence[str]) -> dict[str, pa.DataType]:
        """The types of some columns as :meth:`read` infers them over all rows, in one pass that holds a block of them.

        Whole numbers with gaps are float64, as pandas has them. Raises DataError on a malformed file.
        """
        self.require(columns)
        if not columns:
            return {}
        if self.kind == "parquet":
            found = pyarrow.parquet.read_schema(self.path)
        elif self.kind == "arrow":
            found = _plain(_arrow_schema(self.path))
        elif self.kind in ("csv", "tsv"):
            return self._inferred(columns)
        else:
            return {}
        return {name: found.field(name).type for name in columns}

    def _inferred(self, columns: Sequence[str]) -> dict[str, pa.DataType]:
        left, gaps = {name: list(_INFERRED) for name in columns}, set[str]()
        for batch in self.batches(columns, dict.fromkeys(columns, pa.string())):
            for name in columns:
                values = batch.column(name)
                gaps |= {name} if values.null_count else set()
                while not _fits(values.unique().drop_null(), left[name][0]):
                    del left[name][0]
        found = {name: types[0] for name, types in left.items()}
        return {n: pa.float64() if t == pa.int64() and n in gaps else t for n, t in found.items()}

    def _whole(self, columns: Sequence[str], types: Mapping[str, pa.DataType]) -> pa.Table:
        if self.kind in ("csv", "tsv"):
            table = self._whole_csv(columns, types)
            # Models are fitted on what pandas reads, which leaves dates and times as texts.
            dates = {field.name: pa.string() for field in table.schema if pa.types.is_temporal(field.type)}
            return self._whole_csv(columns, {**types, **dates}) if dates else table
        if self.kind == "parquet":
            table = pyarrow.parquet.read_table(self.path, columns=list(columns))
        elif self.kind == "arrow":
            table = _arrow(self.path).select(list(columns))
        elif self.kind == "npz":
            table = read_npz(self.path).select(list(columns))
        elif self.kind == "eval":
            table = read_log_rows(self.path).select(list(columns))
        elif self.kind == "sqlite":
            table = read_database(self.path, self.table, columns)
        elif self.kind == "txt":
            table = self._texts().select(list(columns))
        else:
            with self._open() as source:
                table = pyarrow.json.read_json(source).select(list(columns))
        for field in table.schema:
            if pa.types.is_nested(field.type):
                raise DataError(
                    f"Column {field.name!r} of {self.path.name} holds {field.type}: one value a row is needed. "
                    "Leave it out with --features.",
                    code="AUD-DATA-VALUES",
                )
        return pa.Table.from_batches([_cast(b, types) for b in table.to_batches()], _schema(table.schema, types))

    def _whole_csv(self, columns: Sequence[str], types: Mapping[str, pa.DataType]) -> pa.Table:
        with self._open() as source:
            return pyarrow.csv.read_csv(source, **self._csv(columns, types))

    def _texts(self) -> pa.Table:
        with self._open() as source:
            texts = list(texts_in(source, BLOCK_BYTES))
        if not texts:
            raise DataError(
                f"{printable(self.path.name)!r} holds no text: every line of it is blank.", code="AUD-DATA-EMPTY"
            )
        return pa.table({TEXT: pa.array(texts, pa.string())})

    def _open(self) -> IO[bytes]:
        return _stream(self.path)

    def _malformed(self, error: Exception) -> DataError:
        return _malformed(self.path, self.kind, error)

    def _refuse_bytes(self, schema: pa.Schema) -> None:
        # pyarrow makes bytes of a column whose text is not UTF-8.
        if self.kind in ("csv", "tsv") and any(pa.types.is_binary(field.type) for field in schema):
            raise not_utf8(self.path, self._open)

    def require(self, columns: Sequence[str]) -> None:
        """Raise UsageError for the first name that is not a column, with the most similar column."""
        for name in columns:
            if name not in self.columns and self.kind == "txt":
                raise UsageError(
                    f"{self.path.name} holds texts alone, one a line, and no column {name!r}: give them as .jsonl or "
                    ".csv, with what is known of each text beside it."
                )
            if name not in self.columns:
                near = did_you_mean(name, self.columns)
                listed = ", ".join(self.columns[:12]) + (", ..." if len(self.columns) > 12 else "")
                raise UsageError(f"{self.path.name} has no column {name!r}{near or f'. It has: {listed}.'}")

    def _json(self, columns: Sequence[str], types: Mapping[str, pa.DataType]) -> dict[str, object]:
        """Options of a stream, whose types are those of its first block unless they are given here."""
        read_options = pyarrow.json.ReadOptions(block_size=BLOCK_BYTES)
        with self._open() as source:
            found = pyarrow.json.open_json(source, read_options=read_options).schema
        fields = [pa.field(name, _streamed_type(found.field(name).type, types.get(name))) for name in columns]
        return {
            "read_options": read_options,
            "parse_options": pyarrow.json.ParseOptions(
                explicit_schema=pa.schema(fields), unexpected_field_behavior="ignore"
            ),
        }

    def _csv(self, columns: Sequence[str], types: Mapping[str, pa.DataType]) -> dict[str, object]:
        return {
            "read_options": pyarrow.csv.ReadOptions(block_size=BLOCK_BYTES),
            "parse_options": pyarrow.csv.ParseOptions(delimiter=_delimiter(self.kind), newlines_in_values=True),
            "convert_options": pyarrow.csv.ConvertOptions(
                include_columns=list(columns), column_types=dict(types), strings_can_be_null=True
            ),
        }


def _fits(values: pa.Array, kind: pa.DataType) -> bool:
    """Whether Arrow's reader of CSV takes texts for a type."""
    if pa.types.is_null(kind) or pa.types.is_string(kind) or not len(values):
        return pa.types.is_string(kind) or not len(values)
    pyarrow.csv.write_csv(pa.table({"": values}), written := BytesIO())
    try:
        pyarrow.csv.read_csv(
            BytesIO(written.getvalue()), convert_options=pyarrow.csv.ConvertOptions(column_types={"": kind})
        )
    except pa.ArrowInvalid:
        return False
    return True


def _streamed_type(inferred_type: pa.DataType, target_type: pa.DataType | None) -> pa.DataType:
    """How to parse a JSON column all through, given what its first block holds; it is cast to what is wanted later."""
    if pa.types.is_integer(inferred_type) or pa.types.is_floating(inferred_type):
        return pa.float64()  # whole numbers at first may be fractions later on
    return target_type if target_type is not None and pa.types.is_null(inferred_type) else inferred_type


def _malformed(path: Path, kind: Kind, error: Exception) -> DataError:
    """What is wrong with a file in its own terms, where Arrow only says where it stopped."""
    if kind not in _TEXT:
        said = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        return DataError(
            f"{printable(path.name)!r} is a damaged {kind.upper()} file: {printable(said, 200)}. Export it again.",
            code="AUD-DATA-MALFORMED",
        )
    if kind in ("csv", "tsv") and (found := _ragged(path, kind)):
        return found
    return problem_of_text(path, kind, partial(_stream, path), BLOCK_BYTES, first_line(error))


def _ragged(path: Path, kind: Kind) -> DataError | None:
    """The first row with another number of cells than the header, found by a second reading in order."""
    rows: list[pyarrow.csv.InvalidRow] = []

    def take(row: pyarrow.csv.InvalidRow) -> str:
        rows.append(row)
        return "error"

    try:
        with _stream(path) as source:
            for _ in pyarrow.csv.open_csv(
                source,
                read_options=pyarrow.csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter=_delimiter(kind), newlines_in_values=True, invalid_row_handler=take
                ),
            ):
                pass
    except _MALFORMED:
        pass
    if not rows:
        return None
    first = rows[0]
    return ragged(path, first.number, first.expected_columns, first.actual_columns, first.text)


def _delimiter(kind: Kind) -> str:
    return "\t" if kind == "tsv" else ","


def _schema(schema: pa.Schema, types: Mapping[str, pa.DataType]) -> pa.Schema:
    return pa.schema([pa.field(f.name, types.get(f.name, f.type)) for f in schema])


def _is_nan(cell: object) -> bool:
    return isinstance(cell, float) and math.isnan(cell)


def _cast(batch: pa.RecordBatch, types: Mapping[str, pa.DataType]) -> pa.RecordBatch:
    if not types:
        return batch
    schema = _schema(batch.schema, types)
    return pa.RecordBatch.from_arrays(
        [c.cast(f.type) for c, f in zip(batch.columns, schema, strict=True)], schema=schema
    )


def _stream(path: Path) -> IO[bytes]:
    # Buffered: Arrow asks for as much as a block, and takes less for the end.
    return BufferedReader(BoundedGzip(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def _reader(source: pa.NativeFile) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
    """Of an Arrow file, as Feather is one, or of a stream of it."""
    magic = source.read(6)
    source.seek(0)
    return pa.ipc.open_file(source) if magic == b"ARROW1" else pa.ipc.open_stream(source)


def _arrow_schema(path: Path) -> pa.Schema:
    with pa.OSFile(str(path), "rb") as source:
        schema: pa.Schema = _reader(source).schema
        return schema


def _arrow(path: Path) -> pa.Table:
    """The table of an Arrow file."""
    return pa.Table.from_batches(_arrow_batches(path), _plain(_arrow_schema(path)))


def _arrow_batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The batches of an Arrow file, their offsets checked: whoever reads its text follows them without looking."""
    left = most_bytes(path.stat().st_size)
    with pa.OSFile(str(path), "rb") as source:
        reader = _reader(source)
        found = (
            (reader.get_batch(i) for i in range(reader.num_record_batches)) if hasattr(reader, "get_batch") else reader
        )
        for batch in found:
            batch.validate(full=True)
            left -= batch.nbytes
            if left < 0:
                raise DataError(
                    f"{path.name} unpacks to far more than its size: a decompression bomb.", code="AUD-DATA-LIMIT"
                )
            own = batch if columns is None else batch.select(list(columns))
            schema = _plain(own.schema)
            yield pa.RecordBatch.from_arrays(
                [c.cast(f.type) for c, f in zip(own.columns, schema, strict=True)], schema=schema
            )


def _plain(schema: pa.Schema) -> pa.Schema:
    """The types of the values themselves, where they are written as places in a dictionary."""
    return pa.schema([pa.field(f.name, f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in schema])


def kind_of(path: Path) -> Kind | None:
    """The table kind by the file extension; None if unknown."""
    packed = path.suffix.lower() == ".gz"
    kind = _SUFFIXES.get(Path(path.stem).suffix.lower() if packed else path.suffix.lower())
    return None if packed and kind not in _TEXT else kind


def open_table(path: str | Path, noun: str = "data file") -> TableFile:
    """Read a table's header, by file extension; UsageError if absent, DataError if malformed."""
    place, table = table_place(path)
    where = regular_file(place, noun)
    kind = kind_of(where)
    if kind is None:
        raise UsageError(
            f"The {noun} {where.name!r} must end in {', '.join(_SUFFIXES)}, or in .gz after .csv, .tsv, .jsonl or "
            ".txt: unpack it first, or name it by what it holds."
        )
    if table and kind != "sqlite":
        raise UsageError(f"{where.name} is no database, and holds one table: leave ::{table} out.")
    if where.stat().st_size == 0:
        raise DataError(f"The {noun} {where.name!r} is empty.", code="AUD-DATA-EMPTY")
    found = problem_at_sight(where, kind, noun, partial(_stream, where))
    if found is not None:
        raise found
    try:
        with _stream(where) as source:
            if kind == "arrow":
                names = _arrow_schema(where).names
            elif kind == "npz":
                names = read_npz(where).column_names
            elif kind == "eval":
                names = read_log_rows(where).column_names
            elif kind == "sqlite":
                table = chosen_table(where, table)
                names = columns_of(where, table)
            elif kind == "parquet":
                names = pyarrow.parquet.read_schema(source).names
            elif kind == "txt":
                names = [TEXT]
            elif kind == "jsonl":
                names = pyarrow.json.open_json(source).schema.names
            else:
                options = pyarrow.csv.ParseOptions(delimiter=_delimiter(kind), newlines_in_values=True)
                names = pyarrow.csv.open_csv(source, parse_options=options).schema.names
    except _MALFORMED as error:
        raise _malformed(where, kind, error) from None
    repeated = sorted(name for name, n in Counter(names).items() if n > 1)
    if repeated:
        raise DataError(
            f"The {noun} {where.name!r} has two columns named {repeated[0]!r}: rename one.", code="AUD-DATA-COLUMN"
        )
    return TableFile(where, kind, tuple(names), table)


def text_column(columns: Sequence[str]) -> str | None:
    """The text column: by its name, or the only column."""
    return TEXT if TEXT in columns else columns[0] if len(columns) == 1 else None


def of_texts(spec: DataSpec, file: TableFile, model: AuditedModel) -> DataSpec:
    """The data options with the text column filled in, if the file or the model is text-only.

    Raises DataError for lines of text where the model takes a table.
    """
    if file.kind == "txt":
        if model.features is not None or model.n_columns is not None:
            raise DataError(
                f"{file.path.name} holds texts, one a line, and this model takes the columns of a table: give it a "
                ".csv, .parquet or .jsonl.",
                code="AUD-DATA-FORMAT",
            )
        return replace(spec, text=TEXT)
    reads = model.kind == "language_model" or getattr(model, "token_name", None) is not None
    said = (spec.text, spec.image, spec.features, spec.recorded)
    if not reads or any(what is not None for what in said):
        return spec
    return replace(spec, text=text_column(file.columns))


def on_texts(file: TableFile, frame: pd.DataFrame, spec: DataSpec) -> list[str]:
    """Notes on a file's texts."""
    if spec.text is None:
        return []
    none = int(frame[spec.text].isna().sum())
    notes = (
        [f"{none:,} of {len(frame):,} rows of {file.path.name} have no text and count as empty ones."] if none else []
    )
    if file.kind == "txt" and look_wrapped(file._open):
        notes.append(
            f"{file.path.name} looks like prose that was wrapped, and every line is a text: give texts of several "
            f'lines as .jsonl, one {{"{TEXT}": "..."}} a line.'
        )
    return notes
