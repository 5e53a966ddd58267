"""Image degradations in distribution: compression, resizing, blur, noise, light, colour, crops, screenshots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from probes.deepfake.row_files import as_jpeg

if TYPE_CHECKING:
    from PIL.Image import Image

PictureChange = Callable[["Image", float, np.random.Generator], "Image"]


@dataclass(frozen=True)
class Ladder:
    """One kind of change at rising severity: ``levels`` in the unit of ``coordinate``; ``everyday``: those that occur
    without malicious intent."""

    name: str
    coordinate: str
    levels: tuple[float, ...]
    everyday: tuple[float, ...]


PICTURE_LADDERS = (
    Ladder("jpeg", "jpeg_quality", (95, 85, 75, 60, 45, 30), (95, 85, 75)),
    Ladder("resize", "scale", (0.75, 0.5, 0.25), (0.75, 0.5)),
    Ladder("blur", "radius", (0.5, 1.0, 2.0), (0.5,)),
    Ladder("noise", "noise", (0.01, 0.03, 0.06, 0.1), (0.01,)),
    Ladder("colour", "strength", (0.1, 0.3, 0.5), (0.1,)),
    Ladder("crop", "kept", (0.9, 0.75, 0.5), (0.9,)),
    Ladder("screenshot", "times", (1, 2, 3), (1,)),
)


def changed_picture(picture: Image, change: str, level: float, rng: np.random.Generator) -> Image:
    """The RGB picture after one change.

    ``jpeg``: compressed at a quality. ``resize``: scaled down, and up again, bilinearly. ``blur``: Gaussian, radius in
    pixels. ``noise``: Gaussian, in shares of the range of a pixel. ``colour``: brightness, contrast and saturation each
    raised by a share. ``crop``: the middle, of a share of either side, brought back to size. ``screenshot``: scaled to
    0.8, displayed at a slightly other gamma (1.1), compressed at 85, so many times over. ``brightness``: a share of the
    range of a pixel added to each. ``contrast``: the share that is left of each pixel's distance from the mean grey.
    ``pixelate``: scaled down, each pixel the mean of those it stands for, and up again as squares.
    """
    return _CHANGES[change](picture, level, rng)


def _jpeg(picture: Image, level: float, rng: np.random.Generator) -> Image:
    return as_jpeg(picture, int(level))


def _resize(picture: Image, level: float, rng: np.random.Generator) -> Image:
    return _scaled(_scaled(picture, _size(picture, level)), picture.size)


def _scaled(picture: Image, size: tuple[int, int]) -> Image:
    import PIL.Image

    return picture.resize(size, PIL.Image.Resampling.BILINEAR)


def _size(picture: Image, scale: float) -> tuple[int, int]:
    return max(1, round(picture.width * scale)), max(1, round(picture.height * scale))


def _blur(picture: Image, level: float, rng: np.random.Generator) -> Image:
    import PIL.ImageFilter

    return picture.filter(PIL.ImageFilter.GaussianBlur(level))


def _noise(picture: Image, level: float, rng: np.random.Generator) -> Image:
    import PIL.Image

    values = np.asarray(picture, np.float32)
    noisy = values + np.float32(255.0 * level) * rng.standard_normal(values.shape, dtype=np.float32)
    return PIL.Image.fromarray(_bytes(noisy))


def _bytes(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def _colour(picture: Image, level: float, rng: np.random.Generator) -> Image:
    import PIL.ImageEnhance

    for enhance in (PIL.ImageEnhance.Brightness, PIL.ImageEnhance.Contrast, PIL.ImageEnhance.Color):
        picture = enhance(picture).enhance(1.0 + level)
    return picture


def _brightness(picture: Image, level: float, rng: np.random.Generator) -> Image:
    raised = [min(255, round(v + 255.0 * level)) for v in range(256)]
    return picture.point(raised * 3)


def _contrast(picture: Image, level: float, rng: np.random.Generator) -> Image:
    import PIL.ImageEnhance

    return PIL.ImageEnhance.Contrast(picture).enhance(level)


def _pixelate(picture: Image, level: float, rng: np.random.Generator) -> Image:
    import PIL.Image

    small = picture.resize(_size(picture, level), PIL.Image.Resampling.BOX)
    return small.resize(picture.size, PIL.Image.Resampling.NEAREST)


def _crop(picture: Image, level: float, rng: np.random.Generator) -> Image:
    width, height = _size(picture, level)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return _scaled(picture.crop((left, top, left + width, top + height)), picture.size)


def _screenshot(picture: Image, level: float, rng: np.random.Generator) -> Image:
    displayed = [round(255.0 * (v / 255.0) ** 1.1) for v in range(256)]
    for _ in range(int(level)):
        picture = as_jpeg(_scaled(picture, _size(picture, 0.8)).point(displayed * 3), 85)
    return picture


_CHANGES: dict[str, PictureChange] = {
    "jpeg": _jpeg,
    "resize": _resize,
    "blur": _blur,
    "noise": _noise,
    "colour": _colour,
    "crop": _crop,
    "screenshot": _screenshot,
    "brightness": _brightness,
    "contrast": _contrast,
    "pixelate": _pixelate,
}
