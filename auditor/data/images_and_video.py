"""Images and video: files decoded for a model within size limits, and evenly sampled frames."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.core.errors import AuditorError, DataError, MissingExtraError, ModelError, UsageError
from auditor.core.files import printable_name
from auditor.core.rows import FloatArray
from auditor.data.audio import open_container, with_known_codec
from auditor.data.preprocessing import ImagePreprocessing

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

MAX_PIXELS = 64_000_000
# Formats of plain rasters; others of Pillow's start programs (EPS) or follow references into other files.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM")
_HEIC = (b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def decode_as(data: bytes, name: str, preprocessing: ImagePreprocessing) -> npt.NDArray[np.uint8]:
    """(height, width, channels) uint8 of one file's content, as a model with this preprocessing takes it.

    Raises what :func:`load_images` raises.
    """
    height, width = preprocessing.size
    mode = mode_of(preprocessing)
    return _decode(data, name, mode, preprocessing).reshape(height, width, len(preprocessing.mean))


def fitted_picture(pixels: npt.NDArray[np.uint8], preprocessing: ImagePreprocessing) -> npt.NDArray[np.uint8]:
    """(height, width, channels) uint8 of a picture (h, w, 3) that is decoded already, as a model takes it."""
    mode = mode_of(preprocessing)
    from PIL.Image import fromarray

    height, width = preprocessing.size
    return _fit_to_size(fromarray(pixels), mode, preprocessing).reshape(height, width, len(preprocessing.mean))


def open_image(data: bytes) -> ImageFile:
    """The image of a file's content, of which only the header is read.

    Raises what Pillow raises, and MissingExtraError for HEIC without pillow-heif.
    """
    import PIL.Image

    if data[4:8] != b"ftyp" or data[8:12] not in _HEIC:
        return PIL.Image.open(BytesIO(data), formats=FORMATS)
    try:
        import pillow_heif
    except ImportError:
        raise MissingExtraError("Reading HEIC needs pillow-heif: pip install 'responsible-auditor[heic]'.") from None
    pillow_heif.register_heif_opener(thumbnails=False)
    return PIL.Image.open(BytesIO(data), formats=("HEIF",))


def need_pillow() -> None:
    """Raise MissingExtraError if Pillow is not installed."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise MissingExtraError("Reading images needs Pillow: pip install 'responsible-auditor[images]'.") from None


def mode_of(preprocessing: ImagePreprocessing) -> str:
    """Pillow's mode of the channels that a model takes."""
    channels = len(preprocessing.mean)
    if channels not in MODES:
        raise ModelError(f"This model takes images of {channels} channels; 1, 3 and 4 can be read.")
    need_pillow()
    return MODES[channels]


@contextmanager
def image_errors(failure: str) -> Iterator[None]:
    """What Pillow raises, as DataError that begins with ``failure``; its warnings of odd metadata are not shown.

    Raises MissingExtraError without Pillow.
    """
    need_pillow()
    import PIL.Image

    try:
        with warnings.catch_warnings():
            # Also of pictures above its own limit; ours is checked below.
            warnings.simplefilter("ignore")
            yield
    except AuditorError:
        raise
    except PIL.UnidentifiedImageError:
        raise DataError(f"{failure}: it is none of {', '.join(FORMATS)}, or damaged.") from None
    except PIL.Image.DecompressionBombError:
        # Pillow's own limit comes before its file can be asked for its size.
        raise DataError(
            f"{failure}: it has more than {MAX_PIXELS:,} pixels: a decompression bomb, or to be made smaller first."
        ) from None
    except Exception as error:  # Pillow raises a dozen types on damaged files
        reason = printable_name(error) or type(error).__name__
        raise DataError(f"{failure}: {reason.rstrip('.')}.") from error


def _decode(data: bytes, name: str, mode: str, preprocessing: ImagePreprocessing) -> npt.NDArray[np.uint8]:
    """(height, width[, channels]) uint8."""
    import PIL.ImageOps

    what = f"The image {printable_name(name)!r}"
    if not data:
        raise DataError(f"{what} cannot be decoded: it is an empty file.")
    with image_errors(f"{what} cannot be decoded"), open_image(data) as picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise DataError(
                f"{what} has {picture.width:,} x {picture.height:,} pixels, more than {MAX_PIXELS:,}: a decompression "
                "bomb, or to be made smaller first."
            )
        if picture.mode[0] in "IF":
            raise DataError(f"{what} has more than 8 bits a channel: save it with 8.")
        # In place: what is upright already, as nearly all is, is not copied.
        PIL.ImageOps.exif_transpose(picture, in_place=True)
        return _fit_to_size(picture, mode, preprocessing)


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


Pixels = npt.NDArray[np.uint8]
MOST_FRAMES = 256
FRAMES = 32
MAX_BYTES = 1 << 30
# Of one video; more than a day of film at 25 a second.
MAX_PACKETS = 3_000_000
# Frames that are decoded on the way to those that are wanted.
MAX_DECODED = 20_000
# To a frame farther away than this it is quicker to begin at the nearest key frame.
_SEEK_SECONDS = 4.0


@dataclass(frozen=True, eq=False)
class Frames:
    """``pixels`` (n, h, w, channels) uint8 at ``seconds`` (n,) from the beginning, ascending."""

    pixels: Pixels
    seconds: FloatArray


def sample_frames(
    data: bytes, name: str, n: int = FRAMES, *, shrink: Callable[[Pixels], Pixels] | None = None
) -> Frames:
    """At most ``n`` frames of a file's content, evenly spaced: of N frames numbers ``floor((i + 1/2) N / n)``.

    All of them where there are no more than n. Turned upright where the video says how. ``shrink``: what is kept of a
    picture (h, w, 3), so that no more of them is held than that. Raises DataError where it is empty, of another
    format, damaged, cut short, without pictures, or beyond MAX_PIXELS a frame, MAX_BYTES in all or MAX_DECODED frames
    on the way; UsageError where n is not in [1, MOST_FRAMES]; MissingExtraError without PyAV.
    """
    if not 1 <= n <= MOST_FRAMES:
        raise UsageError(f"Of a video 1 to {MOST_FRAMES} frames are taken, not {n}.")
    what = f"The video {printable_name(name)!r}"
    times, base = _times(data, what)
    wanted = [times[int((i + 0.5) * len(times) / n)] for i in range(n)] if len(times) > n else times
    found: list[Pixels] = []
    seconds = []
    held = 0
    for time, pixels in _decoded(data, what, wanted, base):
        kept = pixels if shrink is None else shrink(pixels)
        if found and kept.shape != found[0].shape:
            raise DataError(f"{what} changes its size: cut it into parts of one size each.")
        held += kept.nbytes
        if held > MAX_BYTES:
            raise DataError(f"{what} has frames of {pixels.shape[1]:,} x {pixels.shape[0]:,} pixels: take fewer.")
        found.append(kept)
        seconds.append((time - times[0]) * base)
    if not found:
        raise DataError(f"{what} holds no frame that can be decoded.")
    return Frames(np.stack(found), np.asarray(seconds, np.float64))


def _times(data: bytes, subject: str) -> tuple[list[int], float]:
    """When each frame is shown, ascending and without repetition, in units of the returned number of seconds."""
    with open_container(data, subject) as container:
        stream = _pictures(container, subject)
        base = float(stream.time_base or 0)
        times = set()
        for i, packet in enumerate(container.demux(stream)):
            if i >= MAX_PACKETS:
                raise DataError(f"{subject} has more than {MAX_PACKETS:,} frames: cut it into parts.")
            if packet.pts is not None and packet.size:
                times.add(int(packet.pts))
        stated = float(stream.duration or 0) * base
    if not times or base <= 0.0:
        raise DataError(f"{subject} holds no frame that can be decoded.")
    length = (max(times) - min(times)) * base
    # The last frame's own time is not counted in what is there.
    if stated > 0.0 and length + max(1.0, length / len(times)) < 0.9 * stated:
        raise DataError(f"{subject} is cut short: {length:.1f} of {stated:.1f} seconds are there.")
    return sorted(times), base


def _pictures(container: Any, subject: str) -> Any:
    """The first stream of moving pictures; a cover is none."""
    for stream in container.streams.video:
        if "ATTACHED_PIC" in str(stream.disposition).upper():
            continue
        return with_known_codec(stream, subject)
    raise DataError(f"{subject} has no stream of pictures.")


def _decoded(data: bytes, subject: str, wanted_times: Sequence[int], base: float) -> Iterator[tuple[int, Pixels]]:
    """(time, (h, w, 3)) of the frames shown at the wanted times; one that is damaged is replaced by the next."""
    n_decoded = 0
    with open_container(data, subject) as container:
        stream = _pictures(container, subject)
        _check_size(subject, stream.codec_context.width, stream.codec_context.height)
        place, sought = 0, -1
        frames = container.decode(stream)
        last = 0
        while place < len(wanted_times):
            if sought < place and (wanted_times[place] - last) * base > _SEEK_SECONDS:
                container.seek(wanted_times[place], stream=stream, backward=True)
                frames = container.decode(stream)
                sought = place
            frame = next(frames, None)
            if frame is None:
                return
            n_decoded += 1
            if n_decoded > MAX_DECODED:
                raise DataError(f"{subject} takes more than {MAX_DECODED:,} frames to decode: cut it into parts.")
            _check_size(subject, frame.width, frame.height)
            last = wanted_times[place] if frame.pts is None else int(frame.pts)
            if last < wanted_times[place]:
                continue
            place += 1
            while place < len(wanted_times) and wanted_times[place] <= last:
                place += 1
            pixels = frame.to_ndarray(format="rgb24")
            yield last, np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90) % 4))


def _check_size(subject: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise DataError(f"{subject} has frames of {width:,} x {height:,} pixels, more than {MAX_PIXELS:,}.")
