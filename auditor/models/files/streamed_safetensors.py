"""Streaming of safetensors files, tensor by tensor into the final memory, hashed during reading.

In a process of its own they are mapped instead: their pages are those of the file, which the system may take back and
share, and nothing but what is written to them takes memory besides.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from auditor.core.errors import DamagedError, ModelError
from auditor.models.files.model_bytes import MAX_FILE_BYTES, convert_parser_errors, open_regular_file, printable
from auditor.models.files.weight_files import safetensors_header
from auditor.models.files.weights import check_tensors

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_PART = 64 << 20
# A mapping is let go of as one, and holds a descriptor, of which a process has few.
_LEAST_MAPPED, _MAPPINGS = 4 << 20, 24
_mapped: list[tuple[Path, os.stat_result]] = []


class _Reading:
    """A file that is read once from its beginning to its end, and hashed as it passes."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self._hash = hashlib.sha256()

    def read_into(self, buffer: memoryview) -> None:
        """Fills the buffer. Raises ModelError where the file ends before."""
        place = 0
        while place < len(buffer):
            n = os.readv(self._descriptor, [buffer[place : place + _PART]])
            if not n:
                raise ModelError(
                    f"The model file {self._name!r} changed while it was read: try again when it is complete.",
                    code="AUD-LOAD-INCOMPLETE",
                )
            self._hash.update(buffer[place : place + n])
            place += n

    def map_range(self, start: int, end: int) -> tuple[mmap.mmap, int]:
        """The bytes from ``start`` to ``end`` of the file as pages of it, and where among them they begin."""
        base = start - start % mmap.ALLOCATIONGRANULARITY
        pages = mmap.mmap(self._descriptor, end - base, access=mmap.ACCESS_COPY, offset=base)
        with memoryview(pages) as view:
            for place in range(start - base, end - base, _PART):
                self._hash.update(view[place : min(place + _PART, end - base)])
        if hasattr(pages, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
            pages.madvise(mmap.MADV_DONTNEED)
        os.lseek(self._descriptor, end, os.SEEK_SET)
        return pages, start - base

    def take(self, n: int) -> bytes:
        """The next n bytes."""
        buffer = bytearray(n)
        self.read_into(memoryview(buffer))
        return bytes(buffer)

    def digest(self) -> str:
        """SHA-256 of the whole file, which must end here."""
        if os.read(self._descriptor, 1):
            raise ModelError(
                f"The model file {self._name!r} changed while it was read: try again when it is complete.",
                code="AUD-LOAD-INCOMPLETE",
            )
        return self._hash.hexdigest()


def stream_safetensors(
    path: Path, *, memory_map: bool = False, metadata: dict[str, str] | None = None
) -> tuple[dict[str, Tensor], str, int]:
    """(tensors by name, SHA-256 of the file, its size), with one copy of every tensor in memory.

    ``metadata``: is given what the file says beside its tensors.

    ``memory_map``: the tensors are pages of the file, and copies of them where they are written to. Who writes into the
    file changes them, and who shortens it ends the process: see :func:`changed_since`. Raises ModelError where the file
    is not exactly what the format says.
    """
    name = printable(path.name)
    with open_regular_file(path, "model file", MAX_FILE_BYTES) as (descriptor, size):
        if memory_map:
            _mapped.append((path, os.fstat(descriptor)))
        file = _Reading(descriptor, name)
        start = file.take(min(8, size))
        length = int.from_bytes(start, "little") if size >= 8 else size
        # A header that claims more than the file holds is said to be truncated by whoever reads it.
        head = start + file.take(min(length, max(size - 8, 0), 100 << 20))
        header = safetensors_header(head, name, size)
        said = header.pop("__metadata__", None)
        if metadata is not None and isinstance(said, dict):
            metadata |= {key: value for key, value in said.items() if isinstance(value, str)}
        entries = [(spec["data_offsets"][0], key, spec) for key, spec in header.items()]
        entries.sort(key=lambda e: (e[0], e[1]))
        if memory_map:
            tensors: dict[str, Tensor] = {}
            for some in _neighbours(entries, max(_LEAST_MAPPED, size // _MAPPINGS)):
                with convert_parser_errors(f"{name!r} cannot be read as a safetensors file"):
                    tensors |= _pages(file, some, len(head), name)
        else:
            tensors = {key: _tensor(file, spec, key, name) for _, key, spec in entries}
        digest = file.digest()
    check_tensors(tensors, name, size)
    return tensors, digest, size


def changed_since() -> list[str]:
    """Names of mapped files written since they were mapped; a replaced file counts as unchanged."""
    found = []
    for path, then in _mapped:
        try:
            now = path.stat()
        except OSError:
            continue
        same_file = (now.st_dev, now.st_ino) == (then.st_dev, then.st_ino)
        if same_file and (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns):
            found.append(printable(path.name))
    return found


def check_unchanged() -> None:
    """Raise ModelError if a mapped file was written to."""
    changed = changed_since()
    if changed:
        raise ModelError(
            f"The model file {changed[0]!r} was written into while it was audited, so that not all numbers may be of "
            "one model: audit it when it is complete.",
            code="AUD-LOAD-INCOMPLETE",
        )


_Entry = tuple[int, str, Any]


def _neighbours(entries: Sequence[_Entry], size: int) -> Iterator[list[_Entry]]:
    """Entries in runs of about ``size`` bytes, or of one tensor that is larger."""
    run: list[_Entry] = []
    for entry in entries:
        run.append(entry)
        if entry[2]["data_offsets"][1] - run[0][0] >= size:
            yield run
            run = []
    if run:
        yield run


def _pages(file: _Reading, entries: Sequence[_Entry], begin: int, name: str) -> dict[str, Tensor]:
    """Tensors that lie one after the other, over the pages of the file; ``begin``: bytes before the first of all."""
    checked = [(key, *_tensor_layout(spec, key, name)) for _, key, spec in entries]
    first, last = entries[0][0], entries[-1][2]["data_offsets"][1]
    if first == last:
        return {key: torch.empty(shape, dtype=dtype) for key, dtype, shape, _, _ in checked}
    try:
        pages, at = file.map_range(begin + first, begin + last)
    except OSError:
        # Of a file system that maps nothing, or of too many files at once.
        return {key: _tensor(file, spec, key, name) for _, key, spec in entries}
    tensors = {}
    for key, dtype, shape, start, end in checked:
        place = at + start - first
        if start == end:
            tensors[key] = torch.empty(shape, dtype=dtype)
        elif place % dtype.itemsize:
            # No number of a processor's own begins there.
            raw = torch.frombuffer(pages, dtype=torch.uint8, count=end - start, offset=place).clone()
            tensors[key] = raw.view(dtype).reshape(shape)
        else:
            count = (end - start) // dtype.itemsize
            tensors[key] = torch.frombuffer(pages, dtype=dtype, count=count, offset=place).reshape(shape)
    return tensors


def _tensor_layout(spec: Any, key: str, name: str) -> tuple[torch.dtype, list[int], int, int]:
    """(number format, shape, first byte, last byte) of a tensor, checked against each other."""
    dtype, shape, (start, end) = _DTYPES.get(spec.get("dtype")), spec.get("shape"), spec["data_offsets"]
    if dtype is None or not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise DamagedError(
            f"{name!r} cannot be read as a safetensors file: {printable(key, 60)!r} is of the kind "
            f"{printable(spec.get('dtype'), 20)} and the shape {printable(shape, 40)}."
        )
    count = 1
    for n in shape:
        count *= n
    if count * dtype.itemsize != end - start:
        raise DamagedError(f"{name!r} cannot be read as a safetensors file: {printable(key, 60)!r} is not of its size.")
    return dtype, shape, start, end


def _tensor(file: _Reading, spec: Any, key: str, name: str) -> Tensor:
    dtype, shape, start, end = _tensor_layout(spec, key, name)
    raw = torch.empty(end - start, dtype=torch.uint8)
    if len(raw):
        file.read_into(memoryview(raw.numpy()))  # type: ignore[arg-type]
    with convert_parser_errors(f"{name!r} cannot be read as a safetensors file"):
        return raw.view(dtype).reshape(shape)
