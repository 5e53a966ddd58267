"""Output paths of a command: never an input of the command, never a foreign file without ``--force``.

Beside what a command wrote lies ``.auditor-written.json`` with the SHA-256 of each file. A file is the command's own
earlier output where its bytes are still those: a file that somebody else wrote, or edited since, is not. Outside of a
command, in a library that others call, nothing is checked and nothing is noted.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from auditor.core.errors import UsageError

WRITTEN = ".auditor-written.json"
_FORMAT = "auditor-written/1"
_MAX_BYTES = 64 << 20
# What a file system without hard links answers.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)

_Inode = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class _Claim:
    """What a command is to write to one path, as :func:`claim` was told."""

    what: str = ""
    own: bool = True
    lost: str = ""
    resumed: bool = False


class _Command:
    """The files that one command reads, and those that it is to write."""

    def __init__(self, *, force: bool) -> None:
        self.force = force
        self.read: dict[str, str] = {}
        self.read_inodes: dict[_Inode, str] = {}
        self.claims: dict[str, tuple[Path, _Claim]] = {}
        self.claimed_inodes: dict[_Inode, str] = {}


_command: _Command | None = None


@contextmanager
def of_a_command(*, force: bool) -> Iterator[None]:
    """Context in which every file is written by one command, which replaces foreign files only with ``force``."""
    global _command
    before, _command = _command, _Command(force=force)
    try:
        yield
    finally:
        _command = before


def reads(*paths: str | Path) -> None:
    """Declare inputs of the command (files, or folders with contents); UsageError if one is also an output."""
    if _command is None:
        return
    for path in paths:
        real, inode = os.path.realpath(path), _inode(path)
        _command.read[real] = str(path)
        if inode is not None and not os.path.isdir(path):
            _command.read_inodes[inode] = str(path)
    for place, wanted in _command.claims.values():
        _refuse_input(_command, place, wanted.what)


def claim(
    place: str | Path, label: str, *, replaceable: bool = True, irreplaceable_kind: str = "", resumed: bool = False
) -> None:
    """Declare an output of the command, before any work.

    Raises UsageError where it may not, or writes it twice.

    ``label``: it is called in messages, such as ``--out``. ``replaceable``: whether an earlier output of ours may be
    replaced without ``--force``. ``irreplaceable_kind``: what it is that nothing may replace, such as "key", not even
    ``--force``; "" for what may be. ``resumed``: an earlier one is gone on with, and who reads it says whether it is
    one.
    """
    if _command is None:
        return
    path, wanted = Path(place), _Claim(what=label, own=replaceable, lost=irreplaceable_kind, resumed=resumed)
    key, inode = _folded(path), _inode(path)
    same = [_command.claims[key][1].what] if key in _command.claims else []
    same += [_command.claimed_inodes[inode]] if inode is not None and inode in _command.claimed_inodes else []
    other = next((each for each in same if each != label), None)
    if other is not None:
        raise UsageError(f"{other} and {label} are the same file, {str(path)!r}: name another for one of them.")
    _command.claims[key] = (path, wanted)
    if inode is not None:
        _command.claimed_inodes[inode] = label
    _check(_command, path, wanted)


def is_forced() -> bool:
    """Whether the command may overwrite files of other writers."""
    return _command is not None and _command.force


def check(place: Path) -> None:
    """Raise UsageError if the command may not write this file."""
    if _command is not None:
        _check(_command, place, _claim_on(_command, place))


def place_file(source: str | Path, place: Path) -> None:
    """Rename a finished file to its destination, with a new check for files created there meanwhile.

    Raises OSError too.

    Without ``--force`` a place that was free must still be free: the file is linked there, which fails where it is not.
    """
    if _command is None:
        os.replace(source, place)
        return
    wanted = _claim_on(_command, place)
    _check(_command, place, wanted)
    digest = _sha256(Path(source))
    if _command.force or os.path.lexists(place):
        os.replace(source, place)
    else:
        try:
            _link(source, place)
        except FileExistsError:
            raise UsageError(_foreign(place)) from None
        Path(source).unlink(missing_ok=True)
    if wanted.own and not wanted.lost:
        _note(place, digest)


def remove(place: Path) -> None:
    """Remove a file of an earlier run.

    Raises UsageError where it is not ours, OSError where it cannot be.
    """
    if not os.path.lexists(place):
        return
    check(place)
    place.unlink(missing_ok=True)


def is_ours(place: Path) -> bool:
    """Whether a command of this tool wrote the file and it has not changed since."""
    try:
        digest = _noted(place.parent).get(place.name)
        return digest is not None and stat.S_ISREG(place.stat().st_mode) and digest == _sha256(place)
    except OSError:
        return False


# ---- the one check -------------------------------------------------------------------------------------------------


def _check(command: _Command, place: Path, new_claim: _Claim) -> None:
    _refuse_input(command, place, new_claim.what)
    if new_claim.resumed or not os.path.lexists(place):
        return
    if place.is_dir():
        raise UsageError(f"{str(place)!r} is a folder: name a file.")
    if new_claim.lost:
        raise UsageError(
            f"{str(place)!r} is there already, and a {new_claim.lost} that is written over is lost: name another."
        )
    if not (command.force or (new_claim.own and is_ours(place))):
        raise UsageError(_foreign(place) if new_claim.own else f"{_exists_text(place)}: {_OTHERWISE}")


def _refuse_input(command: _Command, place: Path, label: str) -> None:
    """An input is one by its path, by being the same file under another name, or by lying in a folder that is read."""
    real, inode = os.path.realpath(place), _inode(place)
    named = command.read.get(real) or (None if inode is None else command.read_inodes.get(inode))
    if named is not None:
        other = "" if named == str(place) else f" under another name, {str(place)!r}"
        raise UsageError(
            f"{label or 'The command'} would write over {named!r}{other}, which this command reads: name another file."
        )
    if inode is None or is_ours(place):
        return
    within = next((said for folder, said in command.read.items() if real.startswith(folder + os.sep)), None)
    if within is not None:
        raise UsageError(
            f"{label or 'The command'} would write over {str(place)!r} in {within!r}, which this command reads: name "
            "another file."
        )


_OTHERWISE = "name another, or write over it with --force."


def _exists_text(place: Path) -> str:
    return f"{str(place)!r} is there already"


def _foreign(place: Path) -> str:
    return f"{_exists_text(place)} and is not what auditor wrote there: {_OTHERWISE}"


def _claim_on(command: _Command, place: Path) -> _Claim:
    found = command.claims.get(_folded(place))
    return _Claim() if found is None else found[1]


def _folded(place: Path) -> str:
    """One spelling of what some file system takes for one name."""
    return unicodedata.normalize("NFC", os.path.realpath(place).casefold())


def _inode(path: str | Path) -> _Inode | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _link(source: str | Path, place: Path) -> None:
    try:
        os.link(source, place)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # An empty file of our own holds the place.
        os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.replace(source, place)


# ---- what was written ----------------------------------------------------------------------------------------------


def _noted(folder: Path) -> dict[str, str]:
    """SHA-256 by name; nothing where there is no such file, or another's."""
    try:
        with _open_binary(folder / WRITTEN) as file:
            content = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    files = content.get("files") if isinstance(content, dict) and content.get("format") == _FORMAT else None
    if not isinstance(files, dict):
        return {}
    return {name: digest for name, digest in files.items() if isinstance(digest, str)}


def _open_binary(path: Path) -> BinaryIO:
    # A FIFO in its place does not block.
    return open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")


def _note(place: Path, digest: str) -> None:
    """What could not be noted is another's file to the next command, which then asks for ``--force``."""
    folder, known = place.parent, _noted(place.parent)
    if not known and (folder / WRITTEN).exists() and not _is_note(folder / WRITTEN):
        return
    files = {name: own for name, own in known.items() if name != place.name and os.path.lexists(folder / name)}
    content = {"format": _FORMAT, "files": dict(sorted({**files, place.name: digest}.items()))}
    beside = folder / f"{WRITTEN}.{os.getpid()}"
    try:
        with open(beside, "x", encoding="ascii") as file:
            file.write(json.dumps(content, indent=2) + "\n")
        os.replace(beside, folder / WRITTEN)
    except OSError:
        beside.unlink(missing_ok=True)


def _is_note(path: Path) -> bool:
    try:
        with _open_binary(path) as file:
            return _FORMAT.encode() in file.read(4096)
    except OSError:
        return False
