"""Safeguards of commands that train or export: a single process, and outputs that are complete or absent."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from auditor.core.errors import UsageError
from auditor.loading.sandbox.measuring_process import scratch_folder


def refuse_a_job(command: str) -> None:
    """Raise UsageError in a process of ``torchrun`` or ``accelerate launch``: each would repeat the same work."""
    n = os.environ.get("WORLD_SIZE", "1").strip()
    if n.isdigit() and int(n) > 1:
        raise UsageError(
            f"auditor {command} works in one process, and WORLD_SIZE says {n}: start it without torchrun or accelerate "
            "launch; several devices train together from Python (auditor probes examples copy several_devices)."
        )


@contextmanager
def temporary_output(place: Path) -> Iterator[Path]:
    """A path for a file before it is moved to its place: in a scratch folder in the nearest existing folder."""
    near = next(folder for folder in place.absolute().parents if folder.is_dir())
    with ExitStack() as stack:
        with convert_write_errors(place):
            folder = stack.enter_context(scratch_folder(near, f".{place.name}."))
        yield Path(folder).resolve() / place.name


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
