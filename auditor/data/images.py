"""The image files of a table, decoded for a model, with size limits."""

from __future__ import annotations

import warnings
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from auditor.core.errors import DataError, MissingExtraError, ModelError, UsageError
from auditor.core.files import printable_name
from auditor.data.preprocessing import ImagePreprocessing

if TYPE_CHECKING:
    from PIL.Image import Image


MAX_PIXELS = 64_000_000
# Formats of plain rasters; others of Pillow's start programs (EPS) or follow references into other files.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def decode_as(data: bytes, name: str, preprocessing: ImagePreprocessing) -> npt.NDArray[np.uint8]:
    """(height, width, channels) uint8 of one file's content, as a model with this preprocessing takes it.

    Raises what :func:`load_images` raises.
    """
    height, width = preprocessing.size
    mode = mode_of(preprocessing)
    return _decode(data, name, mode, preprocessing).reshape(height, width, len(preprocessing.mean))


def fitted_picture(
    pixels: npt.NDArray[np.uint8], name: str, preprocessing: ImagePreprocessing
) -> npt.NDArray[np.uint8]:
    """(height, width, channels) uint8 of a picture (h, w, 3) that is decoded already, as a model takes it."""
    mode = mode_of(preprocessing)
    from PIL.Image import fromarray

    picture: Image = fromarray(pixels)
    if preprocessing.faces:
        from auditor.data.faces import crop_to_face

        picture = crop_to_face(picture, printable_name(name))
    height, width = preprocessing.size
    return _fit_to_size(picture, mode, preprocessing).reshape(height, width, len(preprocessing.mean))


def mode_of(preprocessing: ImagePreprocessing) -> str:
    """Pillow's mode of the channels that a model takes."""
    channels = len(preprocessing.mean)
    if channels not in _MODES:
        raise ModelError(f"This model takes images of {channels} channels; 1, 3 and 4 can be read.")
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise MissingExtraError("Reading images needs Pillow: pip install 'responsible-auditor[images]'.") from None
    return _MODES[channels]


def _decode(data: bytes, name: str, mode: str, preprocessing: ImagePreprocessing) -> npt.NDArray[np.uint8]:
    """(height, width[, channels]) uint8."""
    import PIL.Image
    import PIL.ImageOps

    if not data:
        raise DataError(f"The image {printable_name(name)!r} cannot be decoded: it is an empty file.")
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata and of pictures above its own limit; ours is checked below.
            warnings.simplefilter("ignore")
            with PIL.Image.open(BytesIO(data), formats=FORMATS) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise DataError(
                        f"The image {printable_name(name)!r} has {picture.width:,} x {picture.height:,} pixels, "
                        f"more than {MAX_PIXELS:,}: a decompression bomb, or to be made smaller first."
                    )
                if picture.mode[0] in "IF":
                    raise DataError(
                        f"The image {printable_name(name)!r} has more than 8 bits a channel: save it with 8."
                    )
                # In place: what is upright already, as nearly all is, is not copied.
                PIL.ImageOps.exif_transpose(picture, in_place=True)
                upright: Image = picture
                if preprocessing.faces:
                    from auditor.data.faces import crop_to_face

                    upright = crop_to_face(upright.convert("RGB"), printable_name(name))
                return _fit_to_size(upright, mode, preprocessing)
    except (DataError, UsageError):
        raise
    except PIL.UnidentifiedImageError:
        kinds = ", ".join(FORMATS)
        raise DataError(
            f"The image {printable_name(name)!r} cannot be decoded: it is none of {kinds}, or damaged."
        ) from None
    except PIL.Image.DecompressionBombError:
        # Pillow's own limit comes before its file can be asked for its size.
        raise DataError(
            f"The image {printable_name(name)!r} has more than {MAX_PIXELS:,} pixels: a decompression bomb, or to be "
            f"made "
            "smaller first."
        ) from None
    except Exception as error:  # Pillow's decoders raise a dozen types on damaged files
        reason = printable_name(error) or type(error).__name__
        raise DataError(f"The image {printable_name(name)!r} cannot be decoded: {reason.rstrip('.')}.") from error


def _in_mode(picture: Image, mode: str) -> Image:
    """The picture in a mode; Pillow copies one that has it already."""
    return picture if picture.mode == mode else picture.convert(mode)


def _fit_to_size(picture: Image, mode: str, preprocessing: ImagePreprocessing) -> npt.NDArray[np.uint8]:
    """(height, width[, channels]) uint8, by the rule of ``preprocessing.fit``."""
    from PIL.Image import Resampling

    height, width = preprocessing.size
    if preprocessing.fit == "stretch":
        return np.asarray(_in_mode(picture, mode).resize((width, height), Resampling.BILINEAR), np.uint8)
    if preprocessing.fit == "cover":
        scale = max(width / picture.width, height / picture.height)
        whole = (max(width, round(picture.width * scale)), max(height, round(picture.height * scale)))
        picture = _in_mode(picture, mode).resize(whole, Resampling.BICUBIC)
    left, top = max(0, (picture.width - width) // 2), max(0, (picture.height - height) // 2)
    if preprocessing.fit == "crop":
        # The blocks of a JPEG file stay whole.
        left, top = left // 8 * 8, top // 8 * 8
    box = (left, top, min(left + width, picture.width), min(top + height, picture.height))
    cut = np.asarray(_in_mode(picture.crop(box), mode), np.uint8)
    beyond = [(0, height - cut.shape[0]), (0, width - cut.shape[1])] + [(0, 0)] * (cut.ndim - 2)
    return np.pad(cut, beyond, mode="symmetric") if beyond[:2] != [(0, 0), (0, 0)] else cut
