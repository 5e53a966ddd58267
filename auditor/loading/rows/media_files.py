"""Media files by name as model input: images, sound, and both for a gated model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from auditor.core.errors import DataError, ModelError, some_of
from auditor.core.files import printable_name, read_inside
from auditor.core.rows import IntArray
from auditor.data.audio import Samples, decode, fit_recording, need_av
from auditor.data.images_and_video import decode_as, mode_of
from auditor.data.preprocessing import AudioPreprocessing, ImagePreprocessing
from auditor.models.audited_model import AuditedModel
from auditor.models.gated_model import GatedModel


def load_images(folder: Path, names: Sequence[str], model: AuditedModel) -> npt.NDArray[np.uint8]:
    """(n, height, width, channels) uint8 of the images at ``names``, at the size and with the channels the model takes.

    ``names`` are relative to ``folder`` and may not leave it, by ``..`` or by a link. Brought to size by the
    preprocessing's ``fit``; a picture's orientation tag is obeyed. Raises DataError naming the file that is absent,
    damaged, too large or outside, ModelError where the model takes no images, MissingExtraError without Pillow.
    """
    wanted = _image_preprocessing(model)
    out = np.empty((len(names), *wanted.size, len(wanted.mean)), np.uint8)
    root = folder.resolve()
    for row, name in zip(out, names, strict=True):
        row[...] = decode_as(read_inside(root, name, "image"), name, wanted)
    return out


def decode_image(data: bytes, name: str, model: AuditedModel) -> npt.NDArray[np.uint8]:
    """(height, width, channels) uint8 of one file's content, as by :func:`load_images`, with the same errors."""
    return decode_as(data, name, _image_preprocessing(model))


def _image_preprocessing(model: AuditedModel) -> ImagePreprocessing:
    preprocessing = model.preprocessing
    if not isinstance(preprocessing, ImagePreprocessing):
        raise ModelError(
            "This model takes no images: leave --image out, or audit it with --predict.", code="AUD-LOAD-ROWS"
        )
    mode_of(preprocessing)
    return preprocessing


def load_audio(folder: Path, names: Sequence[str], model: AuditedModel) -> Samples:
    """(n, samples) int16 of the recordings at ``names``, at the sampling rate and of the length that the model takes.

    ``names`` are relative to ``folder`` and may not leave it, by ``..`` or by a link. Only the beginning that the model
    takes is decoded. Raises DataError naming the file that is absent, damaged, silent, too large or outside, ModelError
    where the model takes no sound, MissingExtraError without PyAV.
    """
    wanted = model.preprocessing
    if not isinstance(wanted, AudioPreprocessing):
        raise ModelError(
            "This model takes no sound: give it data of its own kind, or audit it with --predict.", code="AUD-LOAD-ROWS"
        )
    need_av()
    out = np.empty((len(names), wanted.samples), np.int16)
    root = folder.resolve()
    # A little more than is used, so that the filter that resamples meets sound at the end, not an edge.
    enough = wanted.samples / wanted.sampling_rate + 0.1
    for row, name in zip(out, names, strict=True):
        row[...] = fit_recording(decode(read_inside(root, name, "recording"), name, seconds=enough), wanted)
    return out


def load_gated(folder: Path, names: Sequence[str], model: AuditedModel) -> npt.NDArray[Any]:
    """The files at ``names`` in a folder as input of a gated model; raises the errors of both readers."""
    assert isinstance(model, GatedModel)
    own = loader_of(model.base)(folder, names, model.base)
    return (
        own
        if model.rows.has_same_input
        else model.rows.join(own, loader_of(model.detector)(folder, names, model.detector))
    )


@dataclass(frozen=True, eq=False)
class FilesRead:
    """The files of a folder that could be read.

    X: (m, ...) as the model takes them. kept: (m,) their places among the names asked for. ``unreadable``: a sentence
    on each of the others.
    """

    X: npt.NDArray[Any]
    kept: IntArray
    unreadable: tuple[str, ...]


def read_files(folder: Path, names: Sequence[str], model: AuditedModel) -> FilesRead:
    """The files as model input, decoded one at a time, so that only the model's size is kept in memory.

    Rows are (height, width, channels) uint8 for a model of images, (samples,) int16 for one of sound. Files that cannot
    be read (truncated, empty, no such medium) are left out and named. Raises DataError where none can be.
    """
    load = loader_of(model)
    first = load(folder, (), model)
    out = np.empty((len(names), *first.shape[1:]), first.dtype)
    kept: list[int] = []
    bad: list[str] = []
    for name in names:
        try:
            out[len(kept)] = load(folder, (name,), model)[0]
            kept.append(len(kept) + len(bad))
        except DataError as error:
            bad.append(str(error))
    if names and not kept:
        raise DataError(
            f"None of the {len(names):,} files in {printable_name(folder.name)!r} can be audited: {some_of(bad)}",
            code="AUD-DATA-MALFORMED",
        )
    return FilesRead(out[: len(kept)], np.asarray(kept, np.int64), tuple(bad))


def loader_of(model: AuditedModel) -> Callable[[Path, Sequence[str], AuditedModel], npt.NDArray[Any]]:
    """The file reader for this model: a function of a folder, names below it and the model.

    Raises ModelError where it takes neither images nor sound.
    """
    if isinstance(model, GatedModel):
        return load_gated
    if isinstance(model.preprocessing, ImagePreprocessing):
        return load_images
    if isinstance(model.preprocessing, AudioPreprocessing):
        return load_audio
    raise ModelError(
        "This model takes neither images nor sound, and a folder with one sub-folder per class holds one of them.",
        code="AUD-LOAD-ROWS",
    )
