"""A generator that is known by the files it made."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from auditor.core.errors import DataError
from auditor.core.files import printable_name, read_regular
from auditor.data.audit_data import AuditData
from auditor.data.media_classes import meaning_of
from auditor.detection.file_kinds import kind_of
from auditor.loading.rows.folders import files_in
from auditor.models.audited_model import AuditedModel, Provenance
from auditor.models.recorded_model import RecordedGenerator

PROVENANCE = Provenance(
    format="a generator's files",
    loaded_by="auditor",
    notes=(
        "No generator was asked: the files were read from the folder, and that it made them, and nothing else, is the "
        "word of whoever put them there.",
    ),
)


def load_made(path: str) -> tuple[AuditedModel, AuditData]:
    """The generator, and the names of its files as rows, not decoded yet.

    Where the folder holds two sub-folders and nothing else, one named as real files are and one as synthetic ones, the
    real ones are unmarked: ``y_true`` is then 0, and 1 for what was made; else it is None, and all files were made.
    Files that are neither image, sound nor video are named among the unreadable. Raises DataError where there is none.
    """
    root = Path(path).resolve()
    names, unreadable = [], []
    for name in files_in(root):
        try:
            content = read_regular(Path(os.path.realpath(root / name)), "It")
            medium = kind_of(content).medium
            why = "" if medium else "It is neither an image nor sound nor video that is known here."
        except DataError as error:
            why = str(error)
        if why:
            unreadable.append(f"{printable_name(name)}: {why}")
        else:
            names.append(name)
    if not names:
        raise DataError(f"No file of {printable_name(root.name)!r} is an image, sound or video.", code="AUD-DATA-EMPTY")
    tops = sorted({name.partition("/")[0] if "/" in name else "" for name in names})
    meant = [meaning_of(top) for top in tops]
    # Nothing is unmarked because of its neighbour's name: both must say what they are.
    made = meant.index("fake") if len(tops) == 2 and set(meant) == {"fake", "real"} else None
    notes: tuple[str, ...] = ()
    labels = None
    if made is not None:
        labels = np.asarray([int(name.partition("/")[0] == tops[made]) for name in names], np.int64)
        notes = (
            f"Files of {printable_name(tops[made])!r} are taken as made by the generator, those of "
            f"{printable_name(tops[1 - made])!r} as "
            "not.",
        )
    return RecordedGenerator(provenance=PROVENANCE), AuditData(
        X=np.asarray(names, object),
        y_true=labels,
        files=np.asarray([str(root / name) for name in names], object),
        unreadable=tuple(unreadable),
        notes=notes,
    )
