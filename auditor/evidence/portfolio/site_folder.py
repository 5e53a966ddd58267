"""An output folder of pages: complete or absent; replaces only earlier folders of this tool."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from auditor.core.errors import UsageError

# Beside the pages lies what they were when they were written.
MARK = ".auditor-site.json"
_FORMAT = "auditor-site/1"
_MAX_BYTES = 64 << 20


class SiteFolder:
    """A temporary folder of pages until all of them are complete."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._digests: dict[str, str] = {}

    def write_page(self, path: str, content: bytes) -> None:
        """Write a page into the folder that is being prepared."""
        where = self._root / path
        where.parent.mkdir(parents=True, exist_ok=True)
        with open(where, "xb") as file:
            file.write(content)
        self._digests[path] = hashlib.sha256(content).hexdigest()

    def close(self) -> None:
        """Write the list of all pages."""
        said = {"format": _FORMAT, "files": dict(sorted(self._digests.items()))}
        with open(self._root / MARK, "x", encoding="ascii") as file:
            file.write(json.dumps(said, indent=1) + "\n")


@contextmanager
def replaced(out: Path, *, force: bool) -> Iterator[SiteFolder]:
    """Context with a folder for pages, renamed to ``out`` at the end, or deleted after an error.

    Raises UsageError, before anything is written and again before it is renamed, where ``out`` holds what is not an
    earlier site of ours as it was written. With ``force`` that is no reason: what is in the way is written over, and
    all that is not stays where it is.
    """
    place = Path(os.path.realpath(out))
    check(out, force=force)
    with _convert_os_errors(out):
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        with _convert_os_errors(out):
            made = scratch / "site"
            made.mkdir()
            folder = SiteFolder(made)
        yield folder
        with _convert_os_errors(out):
            folder.close()
            check(out, force=force)
            _swap(made, place, scratch / "before")
    finally:
        # Not what may be somebody's: a swap that failed half-way leaves it where it says.
        _clear(scratch / "site")
        with suppress(OSError):
            scratch.rmdir()


def check(out: Path, *, force: bool) -> None:
    """Raise UsageError if ``out`` may not be replaced."""
    place = Path(os.path.realpath(out))
    if place in (Path.cwd().resolve(), *Path.cwd().resolve().parents):
        raise UsageError(f"{str(out)!r} is the folder that you are in, or one around it: name one of its own.")
    if not os.path.lexists(place):
        return
    if not place.is_dir():
        raise UsageError(f"{str(out)!r} is there already and is no folder: name another.")
    if force:
        return
    with _convert_os_errors(out):
        foreign = next(iter(sorted(_foreign(place))), None)
    if foreign is not None:
        raise UsageError(
            f"{str(out / foreign)!r} is there already and is not what auditor wrote there: name another folder, or "
            "write over what is in the way with --force."
        )


def _foreign(place: Path) -> list[str]:
    """Paths in a folder that are no file of ours as it was written."""
    ours = _noted(place)
    return [name for name in _files(place) if name != MARK and not _is_as_written(place / name, ours.get(name))] + (
        [MARK] if os.path.lexists(place / MARK) and not ours else []
    )


def _files(place: Path) -> list[str]:
    """Everything in a folder that is no folder, by its path from there; an empty folder is somebody's too."""
    found = []
    for folder, folders, files in os.walk(place):
        own = [*files, *(name for name in folders if os.path.islink(os.path.join(folder, name)))]
        found += [Path(folder, name).relative_to(place).as_posix() for name in own]
        if not (files or folders) and Path(folder) != place:
            found.append(Path(folder).relative_to(place).as_posix())
    return found


def _is_as_written(path: Path, digest: str | None) -> bool:
    if digest is None or not stat.S_ISREG(path.lstat().st_mode):
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == digest


def _noted(place: Path) -> dict[str, str]:
    """SHA-256 by path of what we wrote there; nothing where there is no mark of ours."""
    try:
        with (place / MARK).open("rb") as file:
            content = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    files = content.get("files") if isinstance(content, dict) and content.get("format") == _FORMAT else None
    return {str(name): str(digest) for name, digest in files.items()} if isinstance(files, dict) else {}


def _swap(new_folder: Path, place: Path, before: Path) -> None:
    """Renames the new folder to its place, and carries over from the one before what is not ours."""
    if not place.is_dir():
        os.rename(new_folder, place)
        return
    strangers = [name for name in _foreign(place) if not (new_folder / name).is_file()]
    for name in strangers:
        if (new_folder / name).is_dir() or any((new_folder / part).is_file() for part in Path(name).parents):
            raise UsageError(f"{str(place / name)!r} is where a page of the site is to be: name another folder.")
    os.chmod(new_folder, stat.S_IMODE(place.stat().st_mode))
    os.rename(place, before)
    try:
        os.rename(new_folder, place)
    except OSError:
        os.rename(before, place)
        raise
    try:
        for name in strangers:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            os.rename(before / name, place / name)
    except OSError as error:
        raise UsageError(
            f"{str(place)!r} is the new site, and what else was in it is in {str(before)!r} still: {error.strerror}."
        ) from None
    _clear(before)


def _clear(scratch: Path) -> None:
    """Takes a folder of ours away, with all that is in it and without following a link."""
    for folder, folders, files in os.walk(scratch, topdown=False):
        for name in (*files, *folders):
            path = os.path.join(folder, name)
            with suppress(OSError):
                os.rmdir(path) if os.path.isdir(path) and not os.path.islink(path) else os.remove(path)
    with suppress(OSError):
        os.rmdir(scratch)


@contextmanager
def _convert_os_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = "it is a place of its own that cannot be renamed" if error.errno in (errno.EBUSY, errno.EXDEV) else ""
        raise UsageError(f"Cannot write {str(out)!r}: {why or error.strerror}.") from None
