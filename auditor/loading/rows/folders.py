"""A media folder with one sub-folder per class, as rows: file list, classes and contents."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from auditor.core.errors import DataError, did_you_mean
from auditor.core.files import is_utf8, printable_name, sha256_of
from auditor.core.rows import IntArray
from auditor.data.media_classes import same_meaning
from auditor.data.preprocessing import label_name

MAX_FILES = 1_000_000
_MOST_NAMED = 5


@dataclass(frozen=True)
class Listing:
    """The files of a folder: ``names`` (n,) relative to it with ``/``, ``codes`` (n,) into the classes, ``notes``."""

    names: tuple[str, ...]
    codes: IntArray
    notes: tuple[str, ...]


def list_folder(folder: Path, classes: Sequence[str], left_out: list[str] | None = None) -> Listing:
    """Every file in a sub-folder, in the order of the names, with the class that the sub-folder is named after.

    Where all classes are of real and synthetic media, a sub-folder of another name is of the one that means the same.
    Hidden files and folders are skipped, files beside the sub-folders are left out with a note. Raises DataError for a
    sub-folder that is none of ``classes``, fewer than two of them with files, a link that leaves the folder, a name
    that is not UTF-8, or no files at all. ``left_out``: where given, such links and names are added to it, each in a
    sentence, and passed over; but not those of classes.
    """
    root, inside = folder.resolve(), printable_name(folder.name)
    place = {name: i for i, name in enumerate(classes)}
    names: list[str] = []
    codes: list[int] = []
    read_as: list[str] = []
    loose = 0
    for entry in _visible(root, root, left_out):
        if not entry.is_dir():
            loose += 1
            continue
        label = label_name(entry.name)
        alike = None if label in place else same_meaning(entry.name, classes)
        if alike is not None:
            place[label] = alike
            read_as.append(f"The sub-folder {printable_name(entry.name)} was read as {classes[alike]}, which it means.")
        if label not in place:
            raise DataError(
                f"The sub-folder {printable_name(entry.name)!r} of {inside!r} is none of the model's classes "
                f"({', '.join(classes[:8])}){did_you_mean(label, classes) or '.'} Name the classes in the order of the "
                "model's outputs with --classes.",
                code="AUD-DATA-LABELS",
            )
        for file in _files(Path(entry.path), root, left_out):
            names.append(file.relative_to(root).as_posix())
            codes.append(place[label])
            if len(names) > MAX_FILES:
                raise DataError(
                    f"The folder {inside!r} has more than {MAX_FILES:,} files: audit a sample of them.",
                    code="AUD-DATA-LIMIT",
                )
    if not names:
        raise DataError(
            f"The folder {inside!r} has no files: it needs one sub-folder for each class, with files in it.",
            code="AUD-DATA-EMPTY",
        )
    present = sorted(set(codes))
    if len(present) < 2:
        raise DataError(
            f"The folder {inside!r} holds one class only ({classes[present[0]]}): it needs one sub-folder for each of "
            f"{', '.join(classes[:8])}. Is it the folder above that you mean?",
            code="AUD-DATA-LABELS",
        )
    notes = read_as
    absent = [name for i, name in enumerate(classes) if i not in present]
    if absent:
        notes.append(f"{inside} has no file of {_listed(absent)}: rates over those classes are undefined.")
    if loose:
        said = "1 file" if loose == 1 else f"{loose:,} files"
        belong = "belongs to no class and was" if loose == 1 else "belong to no class and were"
        notes.append(f"{said} beside the sub-folders of {inside} {belong} left out.")
    return Listing(tuple(names), np.asarray(codes, np.int64), tuple(notes))


def files_in(folder: Path) -> tuple[str, ...]:
    """Every visible file of a folder and the folders in it, by name, relative to it with ``/``.

    Raises DataError where there is none, or more than can be read, and for a link that leaves the folder.
    """
    root = folder.resolve()
    names = tuple(file.relative_to(root).as_posix() for file in islice(_files(root, root), MAX_FILES + 1))
    if not names:
        raise DataError(f"The folder {printable_name(folder.name)!r} has no files.", code="AUD-DATA-EMPTY")
    if len(names) > MAX_FILES:
        raise DataError(
            f"The folder {printable_name(folder.name)!r} has more than {MAX_FILES:,} files: take a sample of them.",
            code="AUD-DATA-LIMIT",
        )
    return names


def sha256_of_folder(folder: Path) -> str:
    """Hex digest of a folder's visible files: of a line with path and digest for each, in the order of the paths."""
    root = folder.resolve()
    whole = hashlib.sha256()
    for file in sorted(_files(root, root), key=lambda f: f.relative_to(root).as_posix()):
        whole.update(f"{file.relative_to(root).as_posix()}\0{sha256_of(file)}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


def _visible(folder: Path, root: Path, left_out: list[str] | None = None) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder and is not hidden, by name.

    DataError for a link that leaves ``root`` and a name that is not UTF-8, unless ``left_out`` takes it.
    """
    try:
        with os.scandir(folder) as entries:
            found = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise DataError(
            f"The folder {printable_name(folder.name)!r} cannot be read: {error.strerror}.", code="AUD-DATA-MALFORMED"
        ) from None
    for entry in found:
        wrong = ""
        if entry.is_symlink() and not Path(os.path.realpath(entry.path)).is_relative_to(root):
            wrong = f"is a link that leads out of the folder {printable_name(root.name)!r}: copy the file in."
        elif not is_utf8(entry.name):
            wrong = "has a name that is not in UTF-8: rename it."
        if not wrong:
            yield entry
            continue
        name = printable_name(Path(entry.path).relative_to(root).as_posix())
        # A class that is passed over would be missed later, and for another reason.
        if left_out is None or (folder == root and entry.is_dir()):
            raise DataError(f"{name!r} {wrong}", code="AUD-DATA-MALFORMED")
        left_out.append(f"{name}: It {wrong}")


def _files(folder: Path, root: Path, left_out: list[str] | None = None) -> Iterator[Path]:
    for entry in _visible(folder, root, left_out):
        # A folder linked from within would be counted twice, or for ever.
        if entry.is_dir() and not entry.is_symlink():
            yield from _files(Path(entry.path), root, left_out)
        elif not entry.is_dir():
            yield Path(entry.path)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (
        f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    )
