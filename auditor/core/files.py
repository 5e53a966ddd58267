"""Atomic file writing (complete or not at all), and reading of untrusted files."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import operator
import os
import secrets
import stat
import tempfile
import tomllib
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from auditor.core.errors import DataError, UsageError, did_you_mean, first_line
from auditor.core.writable_paths import check, place_file


class Closed(BaseModel):
    """Base of all types for files and pipes: unknown keys are errors, instances are immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


def fields_in(kind: type, source: object) -> dict[str, Any]:
    """Of an object the values that a dataclass or a model has fields of the same names for."""
    names = getattr(kind, "model_fields", None) or vars(kind)["__dataclass_fields__"]
    return {name: getattr(source, name) for name in names if hasattr(source, name)}


# What came later is spelled out only where it says something, so that older evidence keeps its digests.
LEFT_OUT = Field(exclude_if=operator.not_)
UNSAID = Field(exclude_if=lambda value: value is None)


def finite(x: object) -> object:
    """A number as JSON can represent it: None if undefined or infinite."""
    return None if isinstance(x, float) and not math.isfinite(x) else x


Number = Annotated[float | None, BeforeValidator(finite)]


def check_writable(folder: Path, hint: str) -> None:
    """Create the folder and test writing, so that errors occur before the work; UsageError with ``hint`` on failure."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise UsageError(f"Cannot write into {str(folder)!r}: {error.strerror}. {hint}") from None


class Spool:
    """Bytes received in parts: in memory if few, else in an unnamed temporary file."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=1 << 20)
        weakref.finalize(self, _close_quietly, self._file)
        self._digest, self.size = hashlib.sha256(), 0

    def add(self, content: bytes) -> None:
        """The next bytes. Raises UsageError where there is no room for them."""
        try:
            self._file.write(content)
            # What waits in memory would be found to have no room where it is read.
            self._file.flush()
        except OSError as error:
            raise UsageError(
                f"Cannot write into {tempfile.gettempdir()!r}: {error.strerror}. Make room there, or set TMPDIR to a "
                "folder that has some."
            ) from None
        self._digest.update(content)
        self.size += len(content)

    @property
    def sha256(self) -> str:
        """Hex digest of all bytes."""
        return self._digest.hexdigest()

    def blocks(self) -> Iterator[bytes]:
        """All bytes, in parts; none may be added during iteration."""
        self._file.seek(0)
        while block := self._file.read(1 << 20):
            yield block


def _close_quietly(file: IO[bytes]) -> None:
    with suppress(OSError):  # no room for what waited to be written, which was said
        file.close()


def write_beside(path: str | Path, content: bytes | Callable[[IO[bytes]], object]) -> None:
    """Write a file atomically: beside its destination, synced, then renamed.

    ``content``: or what writes it.

    Raises UsageError for what :mod:`auditor.core.writable_paths` does not let a command write.
    """
    where = Path(path)
    check(where)
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        # With its mode from the beginning, which the measuring process may not change.
        temporary = where.with_name(f".{where.name}.{secrets.token_hex(4)}")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise UsageError(f"Cannot write {str(where)!r}: {error.strerror}.") from None
    try:
        with os.fdopen(handle, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
        place_file(temporary, where)
        _sync_folder(where.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(f"Cannot write {str(where)!r}: {error.strerror}.") from None
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """The file's name is as safe as its bytes only when its folder is."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # one may write there and not look: the file is there, and when its name is safe is the system's affair
    try:
        os.fsync(handle)
    except OSError as error:
        # Some file systems have nothing to sync of a folder, and say so.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


# No path holds it, so that what begins with it is no other file's name.
_MARK = "\0"


def encode_path(path: str) -> str:
    """A path for JSON: itself if it is valid UTF-8, else a mark followed by its bytes in hexadecimal."""
    return path if is_utf8(path) else _MARK + os.fsencode(path).hex()


def decode_path(name: str) -> str:
    """The path that :func:`encode_path` sent."""
    return os.fsdecode(bytes.fromhex(name[1:])) if name.startswith(_MARK) else name


def readable(path: str) -> str:
    """The path with bytes that are no UTF-8 as ``\\xff``."""
    return path if is_utf8(path) else os.fsencode(path).decode("utf-8", "backslashreplace")


def is_utf8(path: str) -> bool:
    """Whether a Python path string can be encoded as UTF-8."""
    return not any("\ud800" <= char <= "\udfff" for char in path)


MAX_FILE_BYTES = 256 << 20


def printable_name(name: object) -> str:
    """A name from a file, safe for printing: the first 200 characters, unprintable ones as ``?``."""
    return "".join(c if c.isprintable() else "?" for c in str(name)[:200])


def regular_file(path: str | Path, noun: str) -> Path:
    """The path, if it is a regular file; a FIFO or a device could block or return changing data.

    Raises UsageError.
    """
    where = Path(path)
    try:
        mode = where.stat().st_mode
    except FileNotFoundError:
        try:
            near = did_you_mean(where.name, os.listdir(where.parent))
        except OSError:
            near = ""
        raise UsageError(f"There is no {noun} at {str(path)!r}{near or '.'}") from None
    except OSError as error:
        raise UsageError(f"The {noun} {str(path)!r} cannot be read: {error.strerror}.") from None
    if not stat.S_ISREG(mode):
        raise UsageError(f"The {noun} {str(path)!r} is not a regular file.")
    return where


def table_place(path: str | Path) -> tuple[Path, str]:
    """The file of a path, and the table that ``FILE::TABLE`` names in it; "" where it names none."""
    file, mark, table = str(path).rpartition("::")
    return (Path(path), "") if not (mark and file and table) or os.path.exists(path) else (Path(file), table)


def sha256_of(path: Path) -> str:
    """Hex digest of a file, of a table in it that of all of it, read in blocks."""
    with table_place(path)[0].open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_of(path: Path) -> tuple[object, ...]:
    """File state for change detection: changes if the file is written or replaced.

    Of the file, or of every file under a folder: device, number, size and times, its change time too, which renaming
    sets. Of every link and folder on the way there, which one it is. What it cannot see is a folder above that was
    exchanged and exchanged back.
    """
    way = Path(os.path.abspath(table_place(path)[0]))
    links = []
    for place in (*reversed(way.parents), way):
        found = place.lstat()
        own = (os.readlink(place), found.st_ctime_ns) if place.is_symlink() else ()
        links.append((found.st_dev, found.st_ino, *own))
    files = sorted(p for p in way.rglob("*") if p.is_file()) if way.is_dir() else [way]
    return (*links, *((str(file), *_state_of_one(file.stat())) for file in files))


def _state_of_one(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def read_inside(root: Path, name: str, noun: str) -> bytes:
    """The bytes of the file at ``name``, relative to the resolved folder ``root``, opened once.

    ``noun``: what it should be, for the message ("image"). Raises DataError where the file is absent, no regular file,
    larger than MAX_FILE_BYTES, or outside of the folder, by ``..`` or by a link.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise DataError(f"The column of {noun}s holds {printable_name(name)!r}, which is no path.")
    where = Path(os.path.realpath(root / name))
    if Path(name).is_absolute() or not where.is_relative_to(root):
        raise DataError(
            f"The {noun} {printable_name(name)!r} lies outside of the table's folder: paths may not leave it."
        )
    return read_regular(where, f"The {noun} {printable_name(name)!r}")


def read_regular(where: Path, subject: str, most: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of a regular file, opened once; ``subject`` begins the DataError where there is none, or too large."""
    try:
        # The path is resolved: a link that takes a file's place afterwards is not followed, a FIFO does not block.
        descriptor = os.open(where, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise DataError(f"{subject} cannot be read: {error.strerror}.") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{subject} is not a regular file.")
        if status.st_size > most:
            raise DataError(f"{subject} has {status.st_size:,} bytes, more than {most:,}.")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    except OSError as error:
        raise DataError(f"{subject} cannot be read: {error.strerror}.") from None
    finally:
        os.close(descriptor)


# What reading a text with json or tomllib raises, whatever is wrong with it.
UNREADABLE = (ValueError, RecursionError)


def why_unreadable(error: BaseException) -> str:
    """The problem with a text, from one of the errors in ``UNREADABLE``."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, (json.JSONDecodeError, tomllib.TOMLDecodeError, UnicodeDecodeError)):
        return first_line(error)
    # All that is left is the interpreter's limit of digits, whose message advises to lift the limit.
    return "it holds a whole number of thousands of digits"
