"""Files of the detector probes: labels, the synthetic class, and file content, read within limits."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.core.errors import DataError, NotApplicableError, OtherKindError
from auditor.core.files import printable_name, read_regular
from auditor.core.rows import BoolArray, FloatArray
from auditor.data.images_and_video import MAX_PIXELS, MODES, fitted_picture, image_errors, open_image
from auditor.judging.measurement import Measurement
from auditor.statistics.estimate_kinds import AnyEstimate

if TYPE_CHECKING:
    from PIL.Image import Image

    from auditor.core.rows import Rows
    from auditor.data.audit_data import AuditData
    from auditor.data.preprocessing import ImagePreprocessing
    from auditor.models.audited_model import AuditedModel

Pixels = npt.NDArray[np.uint8]
# Longest side of a picture that is changed and encoded dozens of times; a larger one is made smaller first.
LONGEST_SIDE = 1024


def content(data: AuditData, i: int) -> bytes:
    """The bytes of row i's file; DataError if it is missing or too large."""
    if data.files is None:
        raise DataError("The rows were not read from files.")
    path = str(data.files[i])
    return read_regular(Path(os.path.realpath(path)), f"The file {printable_name(Path(path).name)!r}")


def opened_picture(data: bytes, name: str) -> Image:
    """A file's image with only its header read; DataError if it is no image, or too large."""
    with image_errors(f"The image {printable_name(name)!r} cannot be decoded"):
        picture = open_image(data)
    if picture.width * picture.height > MAX_PIXELS:
        raise DataError(f"The image {printable_name(name)!r} has more than {MAX_PIXELS:,} pixels.")
    return picture


def upright(picture: Image, name: str) -> Image:
    """The decoded image in RGB, rotated by its orientation tag."""
    import PIL.ImageOps

    with image_errors(f"The image {printable_name(name)!r} cannot be decoded"):
        turned: Image = PIL.ImageOps.exif_transpose(picture)
        return turned.convert("RGB")


def picture_of(data: AuditData, i: int) -> Image:
    """Row i as an RGB image: from its file if there is one, else the row."""
    import PIL.Image

    if data.files is None:
        row = np.asarray(data.X[i], np.uint8)
        return PIL.Image.fromarray(row[..., 0] if row.shape[-1] == 1 else row).convert("RGB")
    name = Path(str(data.files[i])).name
    return upright(opened_picture(content(data, i), name), name)


def taken_by(model: AuditedModel, data: AuditData) -> ImagePreprocessing | None:
    """The model's image resizing, if rows are files resized to its input; else None."""
    from auditor.data.preprocessing import ImagePreprocessing

    known = model.preprocessing
    if data.files is None or not isinstance(known, ImagePreprocessing) or tuple(np.shape(data.X)[1:3]) != known.size:
        return None
    return known


def as_row(picture: Image, like: npt.NDArray[Any], preprocessing: ImagePreprocessing | None) -> Pixels:
    """(height, width, channels) uint8 of an image, by the model's own file preprocessing, or resized to a row."""
    import PIL.Image

    if preprocessing is not None:
        return fitted_picture(np.asarray(picture), preprocessing).reshape(like.shape)
    height, width, channels = like.shape
    fitted = picture.convert(MODES[channels]).resize((width, height), PIL.Image.Resampling.BILINEAR)
    return np.asarray(fitted, np.uint8).reshape(like.shape)


def as_jpeg(picture: Image, quality: int) -> Image:
    """The picture after one compression as JPEG with 4:2:0 subsampling."""
    import PIL.Image

    out = BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return PIL.Image.open(BytesIO(out.getvalue())).convert("RGB")


def no_larger(picture: Image, preprocessing: ImagePreprocessing | None) -> Image:
    """The image limited to ``LONGEST_SIDE``: centre-cropped or resized, like the model's preprocessing."""
    import PIL.Image

    if max(picture.size) <= LONGEST_SIDE:
        return picture
    if preprocessing is not None and preprocessing.fit == "crop":
        # The blocks of a JPEG file stay whole, and so do frequencies.
        left, top = (max(0, side - LONGEST_SIDE) // 16 * 8 for side in picture.size)
        return picture.crop(
            (left, top, min(left + LONGEST_SIDE, picture.width), min(top + LONGEST_SIDE, picture.height))
        )
    smaller = picture.copy()
    smaller.thumbnail((LONGEST_SIDE, LONGEST_SIDE), PIL.Image.Resampling.BILINEAR)
    return smaller


# Rows whose scores are asked for in one go: several versions of each are in memory at once.
ROWS_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Subject:
    """Labelled files of one medium and how a model scores them.

    rows: n labelled evaluation files. fake: index of the synthetic class. is_fake (n,). scores (n,): the probability of
    being synthetic.
    """

    rows: AuditData
    fake: int
    is_fake: BoolArray
    scores: FloatArray


def fake_index(model: AuditedModel, data: AuditData, *, answers_do: bool = False) -> int:
    """Index of the synthetic class; NotApplicableError for models or data that are not about synthetic media.

    ``answers_do``: where a model's recorded answers are all there is, the files themselves need not be.
    """
    from auditor.models.detector import synthetic

    fake = synthetic(model, data)
    told = answers_do and not model.can_be_asked and fake is not None
    if data.modality not in ("image", "audio") and not told:
        raise OtherKindError(
            f"Asks about detectors of synthetic images and sound, and these rows are {_WORDS[data.modality]}."
        )
    if fake is None:
        raise OtherKindError(
            "Asks about detectors of synthetic media, and none of this model's classes "
            f"({', '.join(model.classes[:6])}) is known as the synthetic one: name two classes such as real and fake."
        )
    return fake


_WORDS = {"tabular": "a table", "text": "texts"}


def labelled(model: AuditedModel, data: AuditData, *, answers_do: bool = False) -> Subject:
    """The labelled evaluation files with their scores; NotApplicableError if the probe does not apply."""
    rows = data.evaluation
    fake = fake_index(model, rows, answers_do=answers_do)
    if rows.y_true is None:
        raise NotApplicableError("Needs true labels: a folder with one sub-folder per class, or --target COLUMN.")
    known = rows.y_true >= 0
    scores = model.outputs(rows)[:, fake]
    kept = rows if known.all() else rows.take(known)
    return Subject(kept, fake, (rows.y_true == fake)[known], scores[known])


def sample_files(subject: Subject, most: int, rng: np.random.Generator) -> Subject:
    """At most ``most`` of the files, balanced over the classes if possible, in the order of the data."""
    n = len(subject.is_fake)
    if n <= most:
        return subject
    fakes, reals = np.flatnonzero(subject.is_fake), np.flatnonzero(~subject.is_fake)
    n_fakes = min(len(fakes), max(most // 2, most - len(reals)))
    n_reals = min(len(reals), most - n_fakes)
    picked = np.sort(np.r_[rng.choice(fakes, n_fakes, replace=False), rng.choice(reals, n_reals, replace=False)])
    index = picked.astype(np.int64)
    return Subject(subject.rows.take(index), subject.fake, subject.is_fake[index], subject.scores[index])


def scores_of(model: AuditedModel, fake: int, n: int, version: Callable[[int], Rows]) -> FloatArray:
    """(n,) probabilities of being synthetic of one version of each of n files, ``ROWS_AT_ONCE`` at a time."""
    parts = [
        model.predict_proba(np.stack([version(i) for i in range(start, min(start + ROWS_AT_ONCE, n))]))[:, fake]
        for start in range(0, n, ROWS_AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


def make_measurement(
    metric: str, estimate: AnyEstimate, n_samples: int, ideal: float | None, *, method: str, **where: Any
) -> Measurement:
    """A measurement; ``where``: its coordinates, with their display names."""
    return Measurement(metric=metric, estimate=estimate, n_samples=n_samples, ideal=ideal, method=method, **where)
