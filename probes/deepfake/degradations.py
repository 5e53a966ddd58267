"""Degradations of images and speech in distribution: compression, resizing, noise, crops, codecs, telephone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.core.rows import FloatArray
from auditor.detection.file_kinds import Medium
from probes.deepfake.detector_files import as_jpeg, no_larger, opened_picture, upright

if TYPE_CHECKING:
    from PIL.Image import Image


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
    import PIL.Image
    import PIL.ImageEnhance
    import PIL.ImageFilter

    linear, whole = PIL.Image.Resampling.BILINEAR, picture.size

    def size(scale: float) -> tuple[int, int]:
        return max(1, round(picture.width * scale)), max(1, round(picture.height * scale))

    match change:
        case "jpeg":
            return as_jpeg(picture, int(level))
        case "resize":
            return picture.resize(size(level), linear).resize(whole, linear)
        case "blur":
            return picture.filter(PIL.ImageFilter.GaussianBlur(level))
        case "noise":
            values = np.asarray(picture, np.float32)
            noisy = values + np.float32(255.0 * level) * rng.standard_normal(values.shape, dtype=np.float32)
            return PIL.Image.fromarray(np.asarray(np.clip(np.rint(noisy), 0, 255), np.uint8))
        case "colour":
            for enhance in (PIL.ImageEnhance.Brightness, PIL.ImageEnhance.Contrast, PIL.ImageEnhance.Color):
                picture = enhance(picture).enhance(1.0 + level)
            return picture
        case "crop":
            width, height = size(level)
            left, top = (picture.width - width) // 2, (picture.height - height) // 2
            return picture.crop((left, top, left + width, top + height)).resize(whole, linear)
        case "screenshot":
            displayed = [round(255.0 * (v / 255.0) ** 1.1) for v in range(256)]
            for _ in range(int(level)):
                picture = as_jpeg(picture.resize(size(0.8), linear).point(displayed * 3), 85)
            return picture
        case "brightness":
            return picture.point([min(255, round(v + 255.0 * level)) for v in range(256)] * 3)
        case "contrast":
            return PIL.ImageEnhance.Contrast(picture).enhance(level)
        case _:
            small = picture.resize(size(level), PIL.Image.Resampling.BOX)
            return small.resize(whole, PIL.Image.Resampling.NEAREST)


Samples = npt.NDArray[np.int16]
TELEPHONE_RATE = 8_000
_BAND = (300.0, 3_400.0)
_MU = 255.0

SOUND_LADDERS = (
    Ladder("mp3", "kilobits", (128, 64, 32), (128, 64)),
    Ladder("opus", "kilobits", (64, 24, 12), (64, 24)),
    Ladder("telephone", "calls", (1, 2, 3), (1,)),
    Ladder("noise", "signal_to_noise", (30, 20, 10, 0), (30, 20)),
    Ladder("reverberation", "seconds", (0.2, 0.5, 1.0), (0.2,)),
)


def changed_sound(samples: Samples, rate: int, ladder: str, level: float, rng: np.random.Generator) -> Samples:
    """(n,) int16 of sound at ``rate`` hertz after one change; its length may differ.

    ``mp3``, ``opus``: encoded at so many kilobits a second and decoded. ``telephone``: at 8 kHz, 300 to 3,400 Hz, in
    mu-law of 8 bits, so many times over. ``noise``: white, at so many decibels below the sound. ``reverberation``: a
    room whose echoes fall by 60 decibels in so many seconds, by exponentially falling noise, at the loudness it had.
    """
    x = np.asarray(samples, np.float64)
    if ladder in ("mp3", "opus"):
        return _fit_length(_coded(samples, rate, ladder, int(1000 * level)), samples.size)
    if ladder == "telephone":
        for _ in range(int(level)):
            x = _telephone(x, rate)
    elif ladder == "noise":
        power = float(np.square(x).mean())
        x = x + np.sqrt(power * 10.0 ** (-level / 10.0)) * rng.standard_normal(x.size)
    else:
        x = _room(x, rate, level, rng)
    return _fit_length(x, samples.size)


def _fit_length(x: npt.NDArray[Any], n: int) -> Samples:
    whole = np.clip(np.rint(x), -32768, 32767).astype(np.int16)
    return np.resize(whole[:n], n) if whole.size else np.zeros(n, np.int16)


def _coded(samples: Samples, rate: int, codec: str, bit_rate: int) -> npt.NDArray[Any]:
    from auditor.data.audio import decode, encode, resample

    # An encoder has nothing to do with silence, and reading refuses it.
    if int(np.abs(samples.astype(np.int32)).max(initial=0)) < 16:
        return samples
    data = encode(samples, rate, "mp3" if codec == "mp3" else "opus", bit_rate)
    sound = decode(data, codec)
    return resample(sound.samples, sound.sampling_rate, rate)


def _telephone(x: npt.NDArray[Any], rate: int) -> npt.NDArray[Any]:
    from math import gcd

    from scipy.signal import resample_poly, sosfiltfilt

    shared = gcd(rate, TELEPHONE_RATE)
    up, down = TELEPHONE_RATE // shared, rate // shared
    narrow = sosfiltfilt(_band(), resample_poly(x, up, down)) / 32768.0
    pressed = np.sign(narrow) * np.log1p(_MU * np.minimum(np.abs(narrow), 1.0)) / np.log1p(_MU)
    pressed = np.rint(pressed * 127.0) / 127.0
    heard = np.sign(pressed) * np.expm1(np.abs(pressed) * np.log1p(_MU)) / _MU * 32768.0
    return np.asarray(resample_poly(heard, down, up)[: x.size])


@cache
def _band() -> FloatArray:
    from scipy.signal import butter

    return np.asarray(butter(4, _BAND, "bandpass", fs=TELEPHONE_RATE, output="sos"), np.float64)


def _room(x: npt.NDArray[Any], rate: int, seconds: float, rng: np.random.Generator) -> npt.NDArray[Any]:
    from scipy.signal import fftconvolve

    t = np.arange(max(2, int(seconds * rate))) / rate
    echo = rng.standard_normal(t.size) * 10.0 ** (-3.0 * t / seconds)
    # As loud in all as half of the direct sound.
    echo *= 0.5 / np.sqrt(np.square(echo).sum())
    echo[0] = 1.0
    wet = fftconvolve(x, echo)[: x.size]
    level = float(np.square(wet).mean())
    return np.asarray(wet * np.sqrt(float(np.square(x).mean()) / level) if level > 0.0 else wet)


_LADDERS: dict[Medium, tuple[Ladder, ...]] = {"image": PICTURE_LADDERS, "audio": SOUND_LADDERS}


def rungs_of(medium: Medium) -> list[tuple[Ladder, float]]:
    """Every change of a medium with every level; none for video, for which no change is implemented."""
    return [(ladder, level) for ladder in _LADDERS.get(medium, ()) for level in ladder.levels]


def everyday_versions(content: bytes, name: str, medium: Medium, seed: int) -> dict[str, bytes]:
    """The file after the strongest everyday change of each ladder, by name and level; none of a video."""
    rungs = [(ladder, ladder.everyday[-1]) for ladder in _LADDERS.get(medium, ())]
    if not rungs:
        return {}
    names = [f"{ladder.name} {level:g}" for ladder, level in rungs]
    return dict(zip(names, versions(content, name, medium, seed, rungs), strict=True))


def versions(
    content: bytes, name: str, medium: Medium, seed: int, rungs: Sequence[tuple[Ladder, float]]
) -> list[bytes]:
    """The file after each change, saved losslessly and without its metadata.

    All levels of a change share their random draws. Raises DataError for what cannot be decoded.
    """
    if medium == "image":
        picture = no_larger(upright(opened_picture(content, name), name), None)
        found = []
        for ladder, level in rungs:
            out = BytesIO()
            changed_picture(picture, ladder.name, level, np.random.default_rng(seed)).save(out, "PNG", compress_level=0)
            found.append(out.getvalue())
        return found
    from auditor.data.audio import decode, encode

    sound = decode(content, name)
    return [
        encode(
            changed_sound(sound.samples, sound.sampling_rate, ladder.name, level, np.random.default_rng(seed)),
            sound.sampling_rate,
            "wav",
        )
        for ladder, level in rungs
    ]
