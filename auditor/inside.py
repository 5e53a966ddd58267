"""Files beside a table or within a folder: opened once, never outside of it, none larger than it may be."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from auditor.errors import DataError

MAX_FILE_BYTES = 256 << 20


def shown(name: object) -> str:
    """A name from a file as it may be printed: its first 200 characters, unprintable ones as ``?``."""
    return "".join(c if c.isprintable() else "?" for c in str(name)[:200])


def read_inside(root: Path, name: str, what: str) -> bytes:
    """The bytes of the file at ``name``, relative to the resolved folder ``root``, opened once.

    ``what``: what it should be, for the message ("image"). Raises DataError where the file is absent, no regular file,
    larger than MAX_FILE_BYTES, or outside of the folder, by ``..`` or by a link.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise DataError(f"The column of {what}s holds {shown(name)!r}, which is no path.")
    where = Path(os.path.realpath(root / name))
    if Path(name).is_absolute() or not where.is_relative_to(root):
        raise DataError(f"The {what} {shown(name)!r} lies outside of the table's folder: paths may not leave it.")
    return read_regular(where, f"The {what} {shown(name)!r}")


def read_regular(where: Path, called: str) -> bytes:
    """The bytes of a regular file, opened once; ``called`` begins the DataError where there is none, or too large."""
    try:
        # The path is resolved: a link that takes a file's place afterwards is not followed, a FIFO does not block.
        descriptor = os.open(where, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise DataError(f"{called} cannot be read: {error.strerror}.") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{called} is not a regular file.")
        if status.st_size > MAX_FILE_BYTES:
            raise DataError(f"{called} has {status.st_size:,} bytes, more than {MAX_FILE_BYTES:,}.")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise DataError(f"{called} cannot be read: {error.strerror}.") from None
    finally:
        os.close(descriptor)
