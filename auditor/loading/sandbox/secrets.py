"""Private keys and password files, which the measuring process must not read.

A rule of Landlock opens a folder with all that is below it and can take nothing out again: where there is a secret,
what lies beside it is opened one by one.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from auditor.core.errors import UsageError
from auditor.loading.sandbox.landlock import READ, Access, Place

_NAMES = re.compile(
    r"\.env.*|.*\.env|[._]netrc|\.ssh|\.aws|\.azure|\.gnupg|\.kube|\.docker|\.pgpass|\.pypirc|\.npmrc|\.git-credentials|"
    r"id_(rsa|dsa|ecdsa|ed25519)(_sk)?|.*\.(key|ppk|p12|pfx|jks|kdbx)",
    re.IGNORECASE,
)
# Not whatever names such a header: a key follows.
_PRIVATE_KEY = re.compile(
    rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?:\\[rn]|\s)+(?:[A-Za-z0-9+/]{16}|[A-Z][A-Za-z-]+: )"
)
_LARGEST_KEY = 1 << 16
_MOST_ENTRIES = 2_000_000
_Inode = tuple[int, int]


def places_without_secrets(folders: Sequence[Path], beside: Sequence[Path], *, contents: bool) -> list[Place]:
    """The readable parts of named files and folders, and of folders ``beside`` them.

    Of the latter hidden entries may not be read either: tokens and histories lie there. A secret under a second name is
    closed by that name too. ``contents``: whether files are looked into, since code will run that could read any.
    Raises UsageError for more files than can be looked through.
    """
    search = _Search(contents)
    while True:
        known = len(search.linked)
        found = [place for folder in folders for place in search.whole_or_parts(folder, hidden=True)]
        found += [place for folder in beside for place in search.parts(folder)]
        if len(search.linked) == known:
            return found


def _holds_private_key(path: str | Path) -> bool:
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST_KEY:
            return False
        with open(path, "rb") as file:
            return _PRIVATE_KEY.search(file.read(_LARGEST_KEY)) is not None
    except OSError:  # what cannot be read here cannot be read afterwards
        return False


class _Search:
    """``linked``: the secrets that have a second name somewhere."""

    def __init__(self, contents: bool) -> None:
        self.linked: set[_Inode] = set()
        self._contents = contents
        self._entries = 0

    def whole_or_parts(self, folder: Path, *, hidden: bool) -> list[Place]:
        """The folder as one place, where nothing in it is closed, or else what is in it."""
        parts = self._below(folder, hidden=hidden)
        return [Place(folder, READ)] if parts is None else parts

    def parts(self, folder: Path) -> list[Place]:
        """What is in a folder and not hidden; links in it lead on.

        Of the root of everything, only its files and Python packages.
        """
        at_root = folder == Path(folder.anchor)
        found = [Place(folder, Access.READ_DIR)]
        for entry in self._entries_of(folder):
            package = os.path.exists(os.path.join(entry.path, "__init__.py"))
            if self._is_closed(entry, hidden=False) or (at_root and not package and not entry.is_file()):
                continue
            if not entry.is_symlink():
                inside = entry.is_dir() and self._below(Path(entry.path), hidden=False)
                found += inside or [Place(Path(entry.path), READ)]
                continue
            target = Path(os.path.realpath(entry.path))
            if not any(map(_NAMES.fullmatch, target.parts)) and not (self._contents and _holds_private_key(target)):
                found += self.whole_or_parts(target, hidden=False)
        return found

    def _below(self, folder: Path, *, hidden: bool) -> list[Place] | None:
        """None where all of it may be read. What a link leads to is open where it lies, or is not."""
        found, whole = [Place(folder, Access.READ_DIR)], True
        for entry in self._entries_of(folder):
            if self._is_closed(entry, hidden=hidden):
                whole = False
            elif entry.is_dir(follow_symlinks=False):
                inner = self._below(Path(entry.path), hidden=hidden)
                whole = whole and inner is None
                found += [Place(Path(entry.path), READ)] if inner is None else inner
            elif not entry.is_symlink():
                found.append(Place(Path(entry.path), READ))
        return None if whole else found

    def _entries_of(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            return []
        self._entries += len(found)
        if self._entries > _MOST_ENTRIES:
            raise UsageError(
                f"In {str(folder)!r} and beside it are more than {_MOST_ENTRIES:,} files, too many to look for keys "
                "among them before anything may read there: start the command in a folder with fewer."
            )
        return found

    def _is_closed(self, entry: os.DirEntry[str], *, hidden: bool) -> bool:
        secret = _NAMES.fullmatch(entry.name) is not None
        named = secret or (entry.name.startswith(".") and not hidden)
        if entry.is_symlink():
            return named
        if entry.is_dir(follow_symlinks=False):
            self.linked.update(_linked_below(entry.path) if secret else ())
            return named
        if named:
            self.linked.update(_linked(entry.path))
            return True
        return (bool(self.linked) and not self.linked.isdisjoint(_linked(entry.path))) or (
            self._contents and _holds_private_key(entry.path)
        )


def _linked(path: str) -> set[_Inode]:
    """The file, where it has another name."""
    try:
        found = os.lstat(path)
    except OSError:
        return set()
    return {(found.st_dev, found.st_ino)} if found.st_nlink > 1 else set()


def _linked_below(folder: str) -> set[_Inode]:
    files = (os.path.join(path, name) for path, _, names in os.walk(folder) for name in names)
    return set[_Inode]().union(*map(_linked, files))
