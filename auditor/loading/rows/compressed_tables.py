"""Compressed text and NumPy archives as tables: bounded in size, and without objects that run code."""

from __future__ import annotations

import gzip
import io
import zlib
from io import BytesIO
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import pyarrow as pa

from auditor.core.errors import DataError, ModelError
from auditor.models.files.model_bytes import printable, read_source
from auditor.models.files.strict_zip import array_header, open_archive

# Text of few different words packs well; what unpacks to more than this is no table.
_MAX_RATIO = 100
_FREE_BYTES = 256 << 20
_NAMES = ("feature_names", "columns")


def most_bytes(packed_size: int) -> int:
    """The limit of the unpacked size of a compressed file of so many bytes."""
    return _MAX_RATIO * packed_size + _FREE_BYTES


class BoundedGzip(io.RawIOBase):
    """The text of a gzip file as a stream, with a DataError if its expansion exceeds the limit."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._name = printable(path.name)
        self._left = most_bytes(path.stat().st_size)
        self._file = gzip.open(path, "rb")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Unpack the next bytes.

        Raises DataError where the file is damaged or a decompression bomb.
        """
        try:
            part = self._file.read1(min(len(buffer), 1 << 20))
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"{self._name!r} is no whole gzip file: {printable(error, 200)}.", code="AUD-DATA-MALFORMED"
            ) from None
        self._left -= len(part)
        if self._left < 0:
            raise DataError(
                f"{self._name!r} unpacks to more than {_MAX_RATIO} times its size: a decompression bomb.",
                code="AUD-DATA-LIMIT",
            )
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        """Close the file too."""
        self._file.close()
        super().close()


def read_npz(path: Path) -> pa.Table:
    """The table of a ``.npz`` file: the columns of ``X`` beside ``y`` and every other one-value-per-row array.

    The columns of ``X`` (n, d) are named by ``feature_names`` or ``columns`` (d,), else ``x0``, ``x1``, ... Without an
    ``X`` every array is a column. Raises DataError for anything else, and for pickled objects.
    """
    name = printable(path.name)
    try:
        archive = open_archive(read_source(path, noun="data file").data, name)
        arrays = {n.removesuffix(".npy"): _array(archive.read(n), name, n) for n in archive.records}
    except ModelError as error:
        raise DataError(str(error), code="AUD-DATA-MALFORMED") from None
    titles = next((arrays.pop(n) for n in _NAMES if n in arrays and "X" in arrays), None)
    X = arrays.pop("X", None)
    columns: dict[str, Any] = {}
    if X is not None:
        columns = _columns_of(X, titles, name)
    for title, values in arrays.items():
        flat = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
        if flat.ndim != 1 or title in columns:
            raise DataError(_advice(name, {"X": X, **arrays}), code="AUD-DATA-FORMAT")
        columns[title] = flat
    if len({len(values) for values in columns.values()}) != 1:
        raise DataError(_advice(name, {"X": X, **arrays}), code="AUD-DATA-FORMAT")
    return pa.table({title: pa.array(_plain(values)) for title, values in columns.items()})


def _columns_of(X: Any, titles: Any, name: str) -> dict[str, Any]:
    if X.ndim != 2:
        raise DataError(
            f"The X of {name!r} has the shape {X.shape}, and a table has two dimensions: audit pictures as a folder, "
            "or save one row of numbers per example.",
            code="AUD-DATA-FORMAT",
        )
    if titles is None:
        titles = [f"x{i}" for i in range(X.shape[1])]
    if len(set(map(str, titles))) != X.shape[1] or len(titles) != X.shape[1]:
        raise DataError(f"{name!r} names {len(titles)} columns, and its X has {X.shape[1]}.", code="AUD-DATA-COLUMN")
    return {str(title): X[:, i] for i, title in enumerate(_plain(np.asarray(titles)))}


def _advice(name: str, arrays: dict[str, Any]) -> str:
    shapes = ", ".join(f"{printable(n, 30)} {a.shape}" for n, a in list(arrays.items())[:8] if a is not None)
    return (
        f"The arrays of {name!r} are no table ({shapes}): save the rows of one audit as numpy.savez(path, X=X, y=y), "
        "or one array of equal length a column."
    )


def _plain(values: Any) -> Any:
    """Text as objects, which Arrow takes."""
    if values.dtype.kind == "S":
        return np.char.decode(values, "utf-8", "replace").astype(object)
    return values.astype(object) if values.dtype.kind == "U" else np.ascontiguousarray(values)


def _array(content: bytes, name: str, record: str) -> Any:
    if content[:6] != b"\x93NUMPY":
        raise DataError(
            f"{name!r} holds {printable(record, 60)!r}, which is no array: save it with numpy.savez.",
            code="AUD-DATA-MALFORMED",
        )
    file = BytesIO(content)
    try:
        shape, dtype = array_header(file)
        if dtype.hasobject:
            raise DataError(
                f"The array {printable(record, 60)!r} of {name!r} holds pickled objects, which run code when they are "
                "loaded: save text as numpy.array(values, dtype=str).",
                code="AUD-DATA-CODE",
            )
        if (
            dtype.kind not in "biufSUM"
            or int(np.prod(shape, dtype=object)) * dtype.itemsize != len(content) - file.tell()
        ):
            raise ValueError("its shape is not that of its bytes")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)
    # numpy takes a header of an old kind apart into Python's tokens.
    except (ValueError, TypeError, KeyError, OverflowError, SyntaxError, EOFError, TokenError, RecursionError) as error:
        raise DataError(
            f"The array {printable(record, 60)!r} of {name!r} is damaged: {printable(error, 160)}.",
            code="AUD-DATA-MALFORMED",
        ) from None
