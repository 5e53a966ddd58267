"""A model file as bytes: opened once, its format recognised by magic bytes."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from auditor.core.errors import AuditorError, DamagedError, ModelError, UsageError
from auditor.core.files import regular_file

MAX_FILE_BYTES = 16 << 30
MOST_LINES = 15
_ADVICE = re.compile(
    r"weights_only|ignore_mismatched_sizes|trust_remote_code|trusted source|[Cc]heck the documentation|file an issue|"
    r"https?://|[Ss]tack trace"
)


@dataclass(frozen=True)
class Source:
    """Contents of one regular file: all later steps use only ``data``."""

    path: str
    data: bytes
    sha256: str

    @property
    def name(self) -> str:
        """The file's name, fit for a message."""
        return printable(Path(self.path).name)


def printable(text: object, length: int = 120) -> str:
    """Text of unknown origin as one line without control, bidirectional or undecodable characters, shortened."""
    spaced = "".join(
        c if c.isprintable() else " " if c in "\n\t" else f"\\x{ord(c):02x}" for c in str(text)[: 4 * length]
    )
    line = " ".join(spaced.split())
    return line if len(line) <= length else line[: length - 3] + "..."


def read_source(path: str | Path, *, noun: str = "model file", max_bytes: int = MAX_FILE_BYTES) -> Source:
    """Read a regular file completely.

    Raises UsageError where there is none (a FIFO, a device or a folder is none), ModelError where it is empty, larger
    than ``max_bytes`` or changes while it is read.
    """
    with open_regular_file(path, noun, max_bytes) as (descriptor, size):
        data = _read_all(descriptor, size)
        if len(data) != size or os.read(descriptor, 1):
            name = printable(Path(path).name)
            raise ModelError(
                f"The {noun} {name!r} changed while it was read: try again when it is complete.",
                code="AUD-LOAD-INCOMPLETE",
            )
    return Source(str(path), data, hashlib.sha256(data).hexdigest())


@contextmanager
def open_regular_file(path: str | Path, noun: str, max_bytes: int) -> Iterator[tuple[int, int]]:
    """(descriptor, size) of a regular file, opened for one read.

    Raises what :func:`read_source` raises.
    """
    where = regular_file(path, noun)
    name = printable(where.name)
    try:
        # Non-blocking: the path may have become a FIFO since it was looked at, and opening that would wait forever.
        descriptor = os.open(where, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"The {noun} {name!r} cannot be read: {error.strerror}.") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"The {noun} {name!r} is not a regular file.")
        if status.st_size == 0:
            raise DamagedError(f"The {noun} {name!r} is empty.")
        if status.st_size > max_bytes:
            raise ModelError(
                f"The {noun} {name!r} has {status.st_size:,} bytes, more than the {max_bytes:,} that are read: "
                "audit it through your own loader with --predict package.module:function.",
                code="AUD-LOAD-LIMIT",
            )
        yield descriptor, status.st_size
    except OSError as error:
        raise UsageError(f"The {noun} {name!r} cannot be read: {error.strerror}.") from None
    finally:
        os.close(descriptor)


def _read_all(descriptor: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(descriptor, min(size, 1 << 30))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


@contextmanager
def convert_parser_errors(message: str) -> Iterator[None]:
    """Convert any error of a third-party parser into a ModelError of one sentence; own errors pass.

    ``message``: the beginning of the sentence, such as ``"'model.pt' cannot be read as a safetensors file"``.
    """
    try:
        yield
    except AuditorError:
        raise
    except MemoryError:
        raise ModelError(
            f"{message}: it needs more memory than there is; --max-memory sets the limit.", code="AUD-LOAD-LIMIT"
        ) from None
    except Exception as error:
        raise DamagedError(f"{message}: {_reason(error)}") from error
    except BaseException as error:
        # Parsers written in Rust report a failed invariant by an exception outside of Exception.
        if type(error).__name__ != "PanicException":
            raise
        raise DamagedError(f"{message}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """All that a library says, as a paragraph of at most 15 lines, but for advice on flags that are not ours."""
    # torch introduces its reason by how to load the file unsafely, and by where to report it.
    text = str(error).rpartition("WeightsUnpickler error:")[2]
    lines = [line for line in text.splitlines() if line.strip()][:MOST_LINES]
    said = [part for line in lines for part in line.split(". ") if part.strip() and not _ADVICE.search(part)]
    ended = ". ".join(part.strip().removesuffix(".") for part in said)
    reason = printable(re.sub(r"([:;,])\. ", r"\1 ", ended), MOST_LINES * 100)
    if not reason or isinstance(error, LookupError):
        reason = f"{type(error).__name__}{': ' if reason else ''}{reason}"
    return f"{reason.rstrip('.')}."


_ONNX_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})


def is_safetensors(data: bytes) -> bool:
    """Whether the bytes begin as a safetensors file does."""
    # A length of 8 bytes that is plausible even where the file was cut short, then a JSON object.
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") < (1 << 32)


def is_tar(data: bytes) -> bool:
    """Whether the first block has the checksum of a tar archive's."""
    header = data[:512]
    if len(header) < 512:
        return False
    stated = header[148:156].strip(b" \0")
    if not stated or not all(c in b"01234567" for c in stated):
        return False
    return int(stated, 8) == sum(header[:148]) + 8 * 32 + sum(header[156:])


def is_onnx(data: bytes) -> bool:
    """Whether the top-level fields are those of an ONNX model, including its version and its graph."""
    place, seen = 0, set()
    for _ in range(1000):
        if place >= len(data):
            break
        key, place = _varint(data, place)
        field, kind = key >> 3, key & 7
        if field not in _ONNX_FIELDS or kind not in (0, 2):
            return False
        value, place = _varint(data, place)
        seen.add((field, kind))
        place += value if kind == 2 else 0
    return (1, 0) in seen and (7, 2) in seen


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(data) and shift < 64:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            break
    return value, place
