"""Images of a table, read as a model wants them: every file beside the table, none larger than it may be."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from auditor.errors import DataError, MissingExtraError, ModelError, UsageError
from auditor.preprocessing import ImagePreprocessing

if TYPE_CHECKING:
    from PIL.Image import Image

    from auditor.model import AuditedModel

MAX_FILE_BYTES = 256 << 20
MAX_PIXELS = 64_000_000
# Formats of plain rasters; others of Pillow's start programs (EPS) or follow references into other files.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def load_images(folder: Path, names: Sequence[str], model: AuditedModel) -> npt.NDArray[np.uint8]:
    """(n, height, width, channels) uint8 of the images at ``names``, at the size and with the channels the model takes.

    ``names`` are relative to ``folder`` and may not leave it, by ``..`` or by a link. Resized bilinearly; a picture's
    orientation tag is obeyed. Raises DataError naming the file that is absent, damaged, too large or outside,
    ModelError where the model takes no images, MissingExtraError without Pillow.
    """
    preprocessing = model.preprocessing
    if not isinstance(preprocessing, ImagePreprocessing):
        raise ModelError("This model takes no images: leave --image out, or audit it with --predict.")
    mode = _MODES.get(len(preprocessing.mean))
    if mode is None:
        raise ModelError(f"This model takes images of {len(preprocessing.mean)} channels; 1, 3 and 4 can be read.")
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise MissingExtraError("Reading images needs Pillow: pip install 'responsible-auditor[images]'.") from None
    height, width = preprocessing.size
    out = np.empty((len(names), height, width, len(preprocessing.mean)), np.uint8)
    root = folder.resolve()
    for row, name in zip(out, names, strict=True):
        row[...] = _decode(_read(root, name), name, mode, (height, width)).reshape(row.shape)
    return out


def _shown(name: object) -> str:
    return "".join(c if c.isprintable() else "?" for c in str(name)[:200])


def _read(root: Path, name: str) -> bytes:
    """The bytes of one file within ``root``, opened once."""
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise DataError(f"The column of images holds {_shown(name)!r}, which is no path.")
    where = Path(os.path.realpath(root / name))
    if Path(name).is_absolute() or not where.is_relative_to(root):
        raise DataError(f"The image {_shown(name)!r} lies outside of the table's folder: paths may not leave it.")
    try:
        # The path is resolved: a link that takes a file's place afterwards is not followed, a FIFO does not block.
        descriptor = os.open(where, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise DataError(f"The image {_shown(name)!r} cannot be read: {error.strerror}.") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"The image {_shown(name)!r} is not a regular file.")
        if status.st_size > MAX_FILE_BYTES:
            raise DataError(f"The image {_shown(name)!r} has {status.st_size:,} bytes, more than {MAX_FILE_BYTES:,}.")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise DataError(f"The image {_shown(name)!r} cannot be read: {error.strerror}.") from None
    finally:
        os.close(descriptor)


def _decode(data: bytes, name: str, mode: str, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """(height, width[, channels]) uint8."""
    import PIL.Image
    import PIL.ImageOps

    if not data:
        raise DataError(f"The image {_shown(name)!r} cannot be decoded: it is an empty file.")
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata and of pictures above its own limit; ours is checked below.
            warnings.simplefilter("ignore")
            with PIL.Image.open(BytesIO(data), formats=FORMATS) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise DataError(
                        f"The image {_shown(name)!r} has {picture.width:,} x {picture.height:,} pixels, "
                        f"more than {MAX_PIXELS:,}: a decompression bomb, or to be made smaller first."
                    )
                if picture.mode[0] in "IF":
                    raise DataError(f"The image {_shown(name)!r} has more than 8 bits a channel: save it with 8.")
                upright: Image = PIL.ImageOps.exif_transpose(picture)
                fitted = upright.convert(mode).resize((size[1], size[0]), PIL.Image.Resampling.BILINEAR)
    except (DataError, UsageError):
        raise
    except PIL.UnidentifiedImageError:
        kinds = ", ".join(FORMATS)
        raise DataError(f"The image {_shown(name)!r} cannot be decoded: it is none of {kinds}.") from None
    except Exception as error:  # Pillow's decoders raise a dozen types on damaged files
        reason = _shown(error) or type(error).__name__
        raise DataError(f"The image {_shown(name)!r} cannot be decoded: {reason.rstrip('.')}.") from error
    return np.asarray(fitted, np.uint8)
