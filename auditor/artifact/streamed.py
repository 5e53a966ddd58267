"""Safetensors read tensor by tensor, each straight into the memory where it stays, and hashed on the way."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from auditor.artifact.source import MAX_FILE_BYTES, opened, printable, reading
from auditor.artifact.weight_files import safetensors_header
from auditor.artifact.weights import check_tensors
from auditor.errors import DamagedError, ModelError

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


class _Reading:
    """A file that is read once from its beginning to its end, and hashed as it passes."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self._hash = hashlib.sha256()

    def into(self, buffer: memoryview) -> None:
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

    def take(self, n: int) -> bytes:
        """The next n bytes."""
        buffer = bytearray(n)
        self.into(memoryview(buffer))
        return bytes(buffer)

    def digest(self) -> str:
        """SHA-256 of the whole file, which must end here."""
        if os.read(self._descriptor, 1):
            raise ModelError(
                f"The model file {self._name!r} changed while it was read: try again when it is complete.",
                code="AUD-LOAD-INCOMPLETE",
            )
        return self._hash.hexdigest()


def stream_safetensors(path: Path) -> tuple[dict[str, Tensor], str, int]:
    """(tensors by name, SHA-256 of the file, its size), with one copy of every tensor in memory.

    Raises ModelError where the file is not exactly what the format says.
    """
    name = printable(path.name)
    with opened(path, "model file", MAX_FILE_BYTES) as (descriptor, size):
        file = _Reading(descriptor, name)
        start = file.take(min(8, size))
        length = int.from_bytes(start, "little") if size >= 8 else size
        # A header that claims more than the file holds is said to be truncated by whoever reads it.
        head = start + file.take(min(length, max(size - 8, 0), 100 << 20))
        entries = [
            (spec["data_offsets"][0], key, spec)
            for key, spec in safetensors_header(head, name, size).items()
            if key != "__metadata__"
        ]
        tensors = {key: _tensor(file, spec, key, name) for _, key, spec in sorted(entries, key=lambda e: (e[0], e[1]))}
        digest = file.digest()
    check_tensors(tensors, name, size)
    return tensors, digest, size


def _tensor(file: _Reading, spec: Any, key: str, name: str) -> Tensor:
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
    raw = torch.empty(end - start, dtype=torch.uint8)
    if len(raw):
        file.into(memoryview(raw.numpy()))  # type: ignore[arg-type]
    with reading(f"{name!r} cannot be read as a safetensors file"):
        return raw.view(dtype).reshape(shape)
