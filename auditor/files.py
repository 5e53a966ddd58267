"""Writing files so that a reader sees all of one or nothing of it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from auditor.errors import UsageError


def check_writable(folder: Path, hint: str) -> None:
    """Makes the folder and tries it, so that it is found out before the work; UsageError with the ``hint`` if not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise UsageError(f"Cannot write into {str(folder)!r}: {error.strerror}. {hint}") from None


def write_beside(path: str | Path, content: bytes) -> None:
    """Writes a file whole or not at all: beside its place, synced, then renamed."""
    where = Path(path)
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{where.name}.", dir=where.parent)
    except OSError as error:
        raise UsageError(f"Cannot write {str(where)!r}: {error.strerror}.") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, where)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise UsageError(f"Cannot write {str(where)!r}: {error.strerror}.") from None
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
