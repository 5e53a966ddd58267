"""Temporary outputs of a child process, kept beside their destinations until all are complete."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from auditor.core.errors import UsageError


@contextmanager
def temporary_output(place: Path) -> Iterator[Path]:
    """A temporary folder for a file before it is moved to its place, in the nearest existing folder."""
    near = next(folder for folder in place.absolute().parents if folder.is_dir())
    with ExitStack() as stack:
        with convert_write_errors(place):
            folder = tempfile.TemporaryDirectory(dir=near, prefix=f".{place.name}.", ignore_cleanup_errors=True)
        yield Path(stack.enter_context(folder)).resolve() / place.name


@contextmanager
def convert_write_errors(place: Path) -> Iterator[None]:
    """Context that turns write errors into UsageError."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"Cannot write {str(place)!r}: {error.strerror}.") from None


def is_file(path: Path) -> bool:
    """Whether a child wrote a regular file there, not a link."""
    return os.path.lexists(path) and stat.S_ISREG(path.lstat().st_mode)


def as_typed(message: str, typed: dict[str, str]) -> str:
    """The message with every path as the user wrote it, plain or quoted."""
    for path, name in typed.items():
        message = message.replace(repr(path), repr(name)).replace(path, name)
    return message
