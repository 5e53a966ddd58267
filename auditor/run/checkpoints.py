"""Training checkpoints, written by a process that may not write into the user's folders."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from auditor.core.errors import UsageError

# What mitigations add to the name, each of whose parts has a checkpoint of its own.
_PARTS = re.compile(r"(\.(\d+|control|autoencoder|generator))*")


@contextmanager
def lent_checkpoint(path: str | None) -> Iterator[str | None]:
    """The checkpoint in a separate folder beside its place, and moved back afterwards.

    What an interruption leaves in that folder is the newest, and the next run goes on from it. Raises UsageError where
    the place cannot be written.
    """
    if path is None:
        yield None
        return
    place = Path(path)
    folder = place.with_name(f".{place.name}.writing")
    if place.is_dir():
        raise UsageError(f"{str(place)!r} is a folder and no checkpoint of a training: name another file.")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in _checkpoint_files(place.parent, place.name):
            if not (folder / file.name).exists():
                file.replace(folder / file.name)
    except OSError as error:
        raise UsageError(f"Cannot write {str(place)!r}: {error.strerror}.") from None
    try:
        yield str(folder / place.name)
    finally:
        for file in _checkpoint_files(folder, place.name):
            file.replace(place.parent / file.name)
        if not any(folder.iterdir()):
            folder.rmdir()


def _checkpoint_files(folder: Path, name: str) -> list[Path]:
    """The checkpoint's files in a folder, and nothing that only looks like them: what is moved is overwritten."""
    named = [file for file in folder.iterdir() if file.name.startswith(name)]
    return [file for file in named if _PARTS.fullmatch(file.name.removeprefix(name)) and file.is_file()]
