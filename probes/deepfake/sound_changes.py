"""Speech degradations in distribution: codecs at several bit rates, telephone, noise, rooms."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from auditor.core.rows import FloatArray
from probes.deepfake.picture_changes import Ladder

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
