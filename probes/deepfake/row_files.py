"""The files behind a data set's rows, read again within limits: decoded as images, or the rows themselves."""

from __future__ import annotations

import os
import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.core.errors import AuditorError, DataError, MissingExtraError
from auditor.core.files import printable_name, read_regular
from auditor.data.images import FORMATS, MAX_PIXELS, fitted_picture

if TYPE_CHECKING:
    from PIL.Image import Image

    from auditor.data.audit_data import AuditData
    from auditor.data.preprocessing import ImagePreprocessing
    from auditor.models.audited_model import AuditedModel

Pixels = npt.NDArray[np.uint8]
# Longest side of a picture that is changed and encoded dozens of times; a larger one is made smaller first.
LONGEST_SIDE = 1024
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def need_pillow() -> None:
    """Raise MissingExtraError if Pillow is not installed."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "Changing and re-encoding images needs Pillow: pip install 'responsible-auditor[images]'."
        ) from None


def content(data: AuditData, i: int) -> bytes:
    """The bytes of row i's file; DataError if it is missing or too large."""
    if data.files is None:
        raise DataError("The rows were not read from files.")
    path = str(data.files[i])
    return read_regular(Path(os.path.realpath(path)), f"The file {printable_name(Path(path).name)!r}")


def opened_picture(data: bytes, name: str) -> Image:
    """A file's image with only its header read; DataError if it is no image, or too large."""
    import PIL.Image

    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata and of pictures above its own limit; ours is checked below.
            warnings.simplefilter("ignore")
            picture = PIL.Image.open(BytesIO(data), formats=FORMATS)
    except Exception as error:  # Pillow's parsers raise a dozen types on damaged files
        raise DataError(
            f"The image {printable_name(name)!r} cannot be decoded: {printable_name(error).rstrip('.')}."
        ) from None
    if picture.width * picture.height > MAX_PIXELS:
        raise DataError(f"The image {printable_name(name)!r} has more than {MAX_PIXELS:,} pixels.")
    return picture


def upright(picture: Image, name: str) -> Image:
    """The decoded image in RGB, rotated by its orientation tag."""
    import PIL.ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            turned: Image = PIL.ImageOps.exif_transpose(picture)
            return turned.convert("RGB")
    except AuditorError:
        raise
    except Exception as error:  # as above, on damaged pixels
        raise DataError(
            f"The image {printable_name(name)!r} cannot be decoded: {printable_name(error).rstrip('.')}."
        ) from None


def picture_of(data: AuditData, i: int, preprocessing: ImagePreprocessing | None) -> Image:
    """Row i as an RGB image: from its file if there is one, else the row.

    ``preprocessing``: how a model takes files, see :func:`taken_by`; where it looks at faces alone, the picture is the
    face.
    """
    import PIL.Image

    if data.files is None:
        row = np.asarray(data.X[i], np.uint8)
        return PIL.Image.fromarray(row[..., 0] if row.shape[-1] == 1 else row).convert("RGB")
    name = Path(str(data.files[i])).name
    picture = upright(opened_picture(content(data, i), name), name)
    if preprocessing is not None and preprocessing.faces:
        from auditor.data.faces import crop_to_face

        return crop_to_face(picture, printable_name(name))
    return picture


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
        # The face was cut out before the picture was changed.
        return fitted_picture(np.asarray(picture), "", preprocessing.model_copy(update={"faces": False})).reshape(
            like.shape
        )
    height, width, channels = like.shape
    fitted = picture.convert(_MODES[channels]).resize((width, height), PIL.Image.Resampling.BILINEAR)
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
