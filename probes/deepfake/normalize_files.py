"""Normalised files: decoded, cropped and encoded in one way, so that only their content differs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from probes.deepfake.container_cues import SILENCE
from probes.deepfake.row_files import Pixels, as_jpeg, as_row, opened_picture, picture_of

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.data.preprocessing import ImagePreprocessing

# Loudness to which all sound is brought, root mean square in decibels of full scale (ITU-T P.56 aims at -26).
LOUDNESS = -26.0
_LOWEST_SIDE = 16


def common_side(data: AuditData) -> int:
    """The shortest side, in pixels, of any image of the data; at least 16."""
    if data.files is None:
        return max(int(min(np.shape(data.X)[1:3])), _LOWEST_SIDE)
    from probes.deepfake.row_files import content

    sides = [min(opened_picture(content(data, i), str(f)).size) for i, f in enumerate(data.files)]
    return max(min(sides, default=_LOWEST_SIDE), _LOWEST_SIDE)


def alike_picture(
    data: AuditData, i: int, side: int, quality: int, preprocessing: ImagePreprocessing | None = None
) -> Pixels:
    """Row i with its image's shorter side resized to ``side``, centre-cropped, and saved as JPEG.

    ``preprocessing``: how the model takes files, see :func:`~probes.deepfake.row_files.taken_by`.
    """
    import PIL.Image

    picture = picture_of(data, i, preprocessing)
    if min(picture.size) != side:
        scale = side / min(picture.size)
        size = max(side, round(picture.width * scale)), max(side, round(picture.height * scale))
        picture = picture.resize(size, PIL.Image.Resampling.BICUBIC)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    cut = picture.crop((left, top, left + side, top + side))
    return as_row(as_jpeg(cut, quality), np.asarray(data.X[i]), preprocessing)


def alike_sound(row: npt.NDArray[np.int16], rate: int | None, common_rate: int | None) -> npt.NDArray[np.int16]:
    """(samples,) of sound with silence trimmed, repeated to its length, at one loudness and one bandwidth.

    ``rate``: its sampling rate; ``common_rate``: the lowest of any file, through which all are brought, where known.
    """
    x = np.asarray(row, np.float64)
    if rate is not None and common_rate is not None and common_rate < rate:
        x = _through(x, rate, common_rate)
    x = x - x.mean()
    loud = np.flatnonzero(np.abs(x) >= SILENCE * np.abs(x).max())
    if loud.size and np.abs(x).max() > 0.0:
        x = np.resize(x[loud[0] : loud[-1] + 1], x.size)
    level = float(np.sqrt(np.square(x).mean()))
    scale = 32768.0 * 10.0 ** (LOUDNESS / 20.0) / level if level > 0.0 else 0.0
    return np.asarray(np.clip(np.rint(scale * x), -32768, 32767), np.int16)


def _through(x: npt.NDArray[Any], rate: int, lower: int) -> npt.NDArray[Any]:
    """The sound after it was resampled to a lower rate and back, at its own length."""
    from math import gcd

    from scipy.signal import resample_poly

    shared = gcd(rate, lower)
    up, down = lower // shared, rate // shared
    back = resample_poly(resample_poly(x, up, down), down, up)
    return np.resize(back[: x.size], x.size)
