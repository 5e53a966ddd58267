"""Scratch folders removed with their process; those of killed processes are removed by the next process."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NEW, _USED = "auditor-new-", "auditor-scratch-"
# A folder gets its lock at once; one that has none for so long lost its process before that.
_A_DAY = 86_400


@contextmanager
def scratch_folder() -> Iterator[str]:
    """A new empty system temporary folder, locked during use and removed afterwards."""
    sweep()
    # Under another name until it is locked, or another process would sweep it away.
    made = Path(tempfile.mkdtemp(prefix=_NEW))
    folder = made.with_name(_USED + made.name.removeprefix(_NEW))
    lock = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Where nothing can be locked nothing is swept either.
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        made.rename(folder)
        yield str(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep() -> None:
    """Remove this user's scratch folders of ended processes."""
    with suppress(OSError):
        for entry in os.scandir(tempfile.gettempdir()):
            if entry.name.startswith((_NEW, _USED)):
                with suppress(OSError):
                    _sweep_one(entry)


def _sweep_one(entry: os.DirEntry[str]) -> None:
    found = entry.stat(follow_symlinks=False)
    if not entry.is_dir(follow_symlinks=False) or found.st_uid != os.getuid():
        return
    if entry.name.startswith(_NEW) and time.time() - found.st_mtime < _A_DAY:
        return
    lock = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(entry.path, ignore_errors=True)
    finally:
        os.close(lock)
