"""Image augmentation for detector training: random compression, blur and resizing."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

_CHANCE = 0.5
_MOST_BLUR = 3.0
_QUALITIES = (30, 100)
_LEAST_SCALE = 0.5


def augmented(pictures: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """(n, height, width, 3) images, each resized, blurred and compressed with a probability of one half each.

    Resized to a share of 0.5 to 1 and back, bilinearly; blurred by a Gaussian of a radius of 0 to 3 pixels; compressed
    as JPEG at a quality of 30 to 100; all uniform. Pictures are changed as a detector takes them: one that is cut out
    of the middle looks as if the whole had been changed, since it lies on the grid of JPEG's blocks. Source: Wang et
    al., CNN-generated images are surprisingly easy to spot... for now, CVPR 2020 (Blur+JPEG 0.5), there without
    resizing.
    """
    import PIL.Image

    return np.stack([np.asarray(_degrade(PIL.Image.fromarray(picture), rng), np.uint8) for picture in pictures])


def _degrade(picture: Image, rng: np.random.Generator) -> Image:
    import PIL.Image
    import PIL.ImageFilter

    # All are drawn whether they are used or not: one picture's luck does not move the next one's.
    resized, blurred, compressed = rng.random(3) < _CHANCE
    scale, radius = rng.uniform(_LEAST_SCALE, 1.0), rng.uniform(0.0, _MOST_BLUR)
    quality = int(rng.integers(_QUALITIES[0], _QUALITIES[1] + 1))
    if resized:
        small = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(small, PIL.Image.Resampling.BILINEAR).resize(
            picture.size, PIL.Image.Resampling.BILINEAR
        )
    if blurred:
        picture = picture.filter(PIL.ImageFilter.GaussianBlur(radius))
    if compressed:
        file = BytesIO()
        picture.save(file, "JPEG", quality=quality)
        picture = PIL.Image.open(file).convert("RGB")
    return picture
