"""Natural corruptions of images and sound: noise, blur, compression, and unusual light."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.deepfake.picture_changes import changed_picture

Pixels = npt.NDArray[np.uint8]
SEVERITIES = (1, 2, 3)


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption, and its ``levels`` at the severities 1, 2 and 3, as the change named ``change`` of
    :func:`~probes.deepfake.picture_changes.changed_picture`.

    ``of_side``: whether they are shares of the picture's shorter side, and not what that function takes.
    """

    name: str
    change: str
    levels: tuple[float, float, float]
    of_side: bool = False


# Within the five severities that Hendrycks and Dietterich give for pictures of 32 or of 224 pixels; their blurs follow
# the side, from 0.4 to 1 pixel of 32, and from 1 to 6 of 224.
CORRUPTIONS = (
    Corruption("gaussian_noise", "noise", (0.04, 0.08, 0.12)),
    Corruption("gaussian_blur", "blur", (0.01, 0.016, 0.025), of_side=True),
    Corruption("jpeg", "jpeg", (60, 30, 15)),
    Corruption("brightness", "brightness", (0.1, 0.2, 0.3)),
    Corruption("contrast", "contrast", (0.7, 0.5, 0.3)),
    Corruption("pixelate", "pixelate", (0.75, 0.5, 0.33)),
)


def corrupted(X: Pixels, rng: np.random.Generator) -> Iterator[Pixels]:
    """(6 kinds, 3 severities) corrupted copies of pictures, kind by kind, each as X (n, height, width, channels).

    One, three or four channels; of four the last, which is transparency, stays. The severities of one kind share each
    picture's draws.
    """
    seeds = rng.integers(0, 2**63 - 1, (len(X), len(CORRUPTIONS)))
    for k, kind in enumerate(CORRUPTIONS):
        for level in kind.levels:
            copies = [_corrupt_row(row, kind, level, int(seed)) for row, seed in zip(X, seeds[:, k], strict=True)]
            yield np.stack(copies) if copies else X


def _corrupt_row(row: Pixels, kind: Corruption, level: float, seed: int) -> Pixels:
    import PIL.Image

    channels = row.shape[-1]
    picture = PIL.Image.fromarray(row[..., 0] if channels == 1 else row[..., :3]).convert("RGB")
    level = level * min(picture.size) if kind.of_side else level
    changed = changed_picture(picture, kind.change, level, np.random.default_rng(seed))
    if channels == 1:
        return np.asarray(changed.convert("L"), np.uint8)[..., None]
    return np.concatenate([np.asarray(changed, np.uint8), row[..., 3:]], axis=-1)


def image_noise(X: Pixels, z: npt.NDArray[np.float32], level: float) -> Pixels:
    """``x + level * 255 * z`` per channel of each pixel, rounded and kept within [0, 255]; X, z (n, h, w, c)."""
    return np.clip(np.round(X + np.float32(255.0 * level) * z), 0, 255).astype(np.uint8)


def sound_noise(X: npt.NDArray[np.int16], z: npt.NDArray[np.float32], level: float) -> npt.NDArray[np.int16]:
    """``x + level * rms(x) * z`` of each recording, rounded and kept within 16 bits; X, z (n, samples).

    A level of 0.1 is a signal-to-noise ratio of 20 dB.
    """
    loud = np.sqrt(np.mean(np.square(X.astype(np.float32)), axis=1, keepdims=True))
    return np.asarray(np.clip(np.round(X + np.float32(level) * loud * z), -32768, 32767), np.int16)
