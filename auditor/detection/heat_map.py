"""Occlusion maps of a detector's score: parts hidden in turn, drawn beside the spectrum, and graded."""

from __future__ import annotations

import base64
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.core.rows import FloatArray
from auditor.detection.detection_record import HeatMap
from auditor.judging.png import Pixels, encode

if TYPE_CHECKING:
    from auditor.models.detector import Detector

LEGEND = (
    "In an evidence picture red marks what speaks for synthetic, blue what speaks for real, the stronger the more. Of "
    "an image: what the detector saw, the same in grey under the marks, and its power spectrum, side by side; of "
    "sound: the spectrogram, and below it the same under the marks."
)
GRID = 8
N_SPANS = 32
N_RANDOM = 10
_MARKED = 0.25
_BATCH = 16
_SIDE = 320
_WINDOW = 512
_GAP = 8
_AGAINST, _FOR = np.array([40.0, 90.0, 220.0]), np.array([220.0, 40.0, 40.0])


def image_heat_map(detector: Detector, image: npt.NDArray[np.uint8], rng: np.random.Generator) -> HeatMap:
    """Three images side by side: the detector's input, the occlusion map of its score, and the power spectrum.

    image: (height, width, channels) uint8 as the detector takes it. Each cell of a grid of at most 8 x 8 is painted in
    its own mean colour, in turn; red cells speak for synthetic (the log-odds fall without them), blue ones for real.
    The spectrum is the logarithm of ``|FFT|^2`` of the grey picture, zero frequency in the middle.
    """
    rows = _cuts(image.shape[0], GRID)
    columns = _cuts(image.shape[1], GRID)
    cells = [(r, c) for r in rows for c in columns]

    def hide_cells(indices: npt.NDArray[np.intp]) -> npt.NDArray[np.uint8]:
        out = image.copy()
        for i in indices:
            out[cells[i]] = np.rint(image[cells[i]].mean(axis=(0, 1)))
        return out

    effects, grades = _effects(detector, image, hide_cells, len(cells), rng)
    grey = image.astype(np.float64).mean(axis=2)
    heat = np.zeros(grey.shape)
    for cell, effect in zip(cells, effects, strict=True):
        heat[cell] = effect
    power = np.fft.fftshift(np.abs(np.fft.fft2(grey - grey.mean())) ** 2)
    seen = image if image.shape[2] >= 3 else np.repeat(image[:, :, :1], 3, axis=2)
    parts = [
        _resize_nearest(seen[:, :, :3]),
        _resize_nearest(_overlaid(grey / 255.0, heat)),
        _resize_nearest(_overlaid(_log_scaled(power), np.zeros(grey.shape))),
    ]
    return _heat_map(parts, grades, axis=1)


def sound_heat_map(detector: Detector, sound: npt.NDArray[np.int16], rng: np.random.Generator) -> HeatMap:
    """The spectrogram above the score's time map: red spans indicate synthetic, blue spans real sound.

    sound: (samples,) int16 as the detector takes it. Each of 32 spans is replaced by white noise as loud as itself, in
    turn. The spectrogram is ``log |STFT|^2``, Hann windows of 512 samples, low frequencies at the bottom.
    """
    spans = _cuts(len(sound), N_SPANS)
    noise = rng.normal(size=len(sound))

    def hide_spans(indices: npt.NDArray[np.intp]) -> npt.NDArray[np.int16]:
        out = sound.copy()
        for i in indices:
            loudness = np.sqrt(np.mean(sound[spans[i]].astype(np.float64) ** 2))
            out[spans[i]] = np.clip(np.rint(noise[spans[i]] * loudness), -32768, 32767)
        return out

    effects, grades = _effects(detector, sound, hide_spans, len(spans), rng)
    scaled = _log_scaled(_spectrogram(sound))
    heat = np.zeros(scaled.shape)
    for span, effect in zip(spans, effects, strict=True):
        start, stop = (int(place / len(sound) * scaled.shape[1]) for place in (span.start, span.stop))
        heat[:, start:stop] = effect
    parts = [_resize_nearest(_overlaid(scaled, marks), wide=True) for marks in (np.zeros(heat.shape), heat)]
    return _heat_map(parts, grades, axis=0)


def is_evidence(pixels: Pixels) -> bool:
    """Whether pixels have the layout of these images: three of equal height side by side, or two stacked."""
    if pixels.ndim != 3:
        return False
    height, width = pixels.shape[:2]
    if (height, width) == (2 * (_SIDE // 2) + _GAP, 2 * _SIDE):
        gaps = [pixels[_SIDE // 2 : _SIDE // 2 + _GAP]]
    elif height == _SIDE and width > 2 * _GAP and (width - 2 * _GAP) % 3 == 0:
        part = (width - 2 * _GAP) // 3
        gaps = [pixels[:, part : part + _GAP], pixels[:, 2 * part + _GAP : 2 * (part + _GAP)]]
    else:
        return False
    return all(bool((gap == 255).all()) for gap in gaps)


def _effects(
    detector: Detector, whole: npt.NDArray[Any], hidden: Any, n: int, rng: np.random.Generator
) -> tuple[FloatArray, tuple[float, float]]:
    """(n,) how far the log-odds of synthetic fall where each part is hidden; drop of the marked, of random ones."""
    k = max(1, round(_MARKED * n))
    base = _log_odds(detector, [whole])[0]
    effects = base - _log_odds(detector, [hidden(np.array([i])) for i in range(n)])
    side = 1.0 if base >= 0.0 else -1.0
    marked = np.argsort(-side * effects, kind="stable")[:k]
    draws = [rng.permutation(n)[:k] for _ in range(N_RANDOM)]
    moved = side * (base - _log_odds(detector, [hidden(which) for which in (marked, *draws)]))
    return effects, (float(moved[0]), float(moved[1:].max()))


def _log_odds(detector: Detector, rows: list[npt.NDArray[Any]]) -> FloatArray:
    parts = [detector.predict_proba(np.stack(rows[i : i + _BATCH])) for i in range(0, len(rows), _BATCH)]
    fake = np.clip(np.concatenate(parts)[:, detector.card.fake], 1e-12, 1.0 - 1e-12)
    odds: FloatArray = np.log(fake) - np.log1p(-fake)
    return odds


def _cuts(n: int, parts: int) -> list[slice]:
    edges = np.linspace(0, n, min(parts, n) + 1).astype(int).tolist()
    return [slice(a, b) for a, b in pairwise(edges)]


def _spectrogram(sound: npt.NDArray[np.int16]) -> FloatArray:
    """(frequencies, times) power, the highest frequency first."""
    starts = np.arange(0, max(1, len(sound) - _WINDOW + 1), _WINDOW // 2)
    padded = np.pad(sound.astype(np.float64), (0, max(0, _WINDOW - len(sound))))
    frames = np.stack([padded[s : s + _WINDOW] for s in starts]) * np.hanning(_WINDOW)
    power: FloatArray = (np.abs(np.fft.rfft(frames, axis=1)) ** 2).T[::-1]
    return power


def _log_scaled(power: FloatArray) -> FloatArray:
    """The logarithm, scaled to [0, 1] between its 1 % and 99.5 % quantiles."""
    logs = np.log10(power + 1e-6)
    low, high = np.quantile(logs, [0.01, 0.995])
    scaled: FloatArray = np.clip((logs - low) / max(high - low, 1e-9), 0.0, 1.0)
    return scaled


def _overlaid(shares: FloatArray, heat: FloatArray) -> Pixels:
    """A grey picture under the heat, the largest effect at 70 % of its colour."""
    strength = 0.7 * np.abs(heat) / max(float(np.abs(heat).max()), 1e-9)
    colour = np.where((heat > 0.0)[:, :, None], _FOR, _AGAINST)
    mixed = (1.0 - strength[:, :, None]) * 255.0 * shares[:, :, None] + strength[:, :, None] * colour
    return np.asarray(np.rint(mixed), np.uint8)


def _resize_nearest(pixels: Pixels, *, wide: bool = False) -> Pixels:
    """Brought to the height of the sheet by the nearest pixel, in its own proportions or twice as wide as high."""
    height, width = pixels.shape[:2]
    new = (_SIDE // 2, 2 * _SIDE) if wide else (_SIDE, int(np.clip(round(_SIDE * width / height), 1, 2 * _SIDE)))
    rows, columns = np.arange(new[0]) * height // new[0], np.arange(new[1]) * width // new[1]
    return np.ascontiguousarray(pixels[rows][:, columns])


def _heat_map(parts: list[Pixels], grades: tuple[float, float], *, axis: int) -> HeatMap:
    """The parts on one sheet, with white between them."""
    gap = list(parts[0].shape)
    gap[axis] = _GAP
    sheet = [each for part in parts for each in (np.full(gap, 255, np.uint8), part)][1:]
    marked, random = grades
    png = base64.b64encode(encode(np.concatenate(sheet, axis=axis))).decode()
    return HeatMap(png=png, drop_marked=marked, drop_random=random, earned=marked > random)
