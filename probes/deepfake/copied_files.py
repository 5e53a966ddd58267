"""Files made from other files: duplicates of equal or similar content, and crops of images, mirrored or not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.core.rows import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from auditor.core.rows import Rows

Vectors = npt.NDArray[np.float32]
# Correlation of two fingerprints from which on two files are near duplicates. Waveforms of different recordings hardly
# correlate at all, while pictures of one kind, such as faces cut out alike, do.
NEAR = {"image": 0.99, "audio": 0.5}
_FINGERPRINT_SIDE = 24
_SAMPLES, _SOUND_STEP = 65_536, 16
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Twins:
    """For each of n files the first of m others with equal content, and the most similar one: -1 if none.

    ``exact`` (n,), ``near`` (n,): positions among the others; a file with an exact twin has that one as near too.
    """

    exact: IntArray
    near: IntArray


def digests(X: Rows) -> list[str]:
    """SHA-256 of every row's decoded content."""
    rows = np.asarray(X)
    return [hashlib.sha256(np.ascontiguousarray(row).tobytes()).hexdigest() for row in rows]


def fingerprints(X: Rows) -> Vectors:
    """(n, d) coarse features of image or sound rows: centred, of length 1; 0 if there is no content.

    Of images (n, height, width, channels): grey, averaged to 24 x 24. Of sound (n, samples): the beginning of the
    waveform, averaged over 16 samples each.
    """
    rows = np.asarray(X)
    parts = [_coarse(rows[i : i + _ROWS_AT_ONCE]) for i in range(0, len(rows), _ROWS_AT_ONCE)]
    if not parts:
        return np.empty((0, 1), np.float32)
    flat = np.concatenate(parts)
    flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(np.divide(flat, length, out=np.zeros_like(flat), where=length > 1e-6), np.float32)


def mirrored(vectors: Vectors) -> Vectors:
    """Fingerprints of the same images, mirrored left to right."""
    return vectors.reshape(len(vectors), _FINGERPRINT_SIDE, _FINGERPRINT_SIDE)[:, :, ::-1].reshape(len(vectors), -1)


def _coarse(rows: npt.NDArray[Any]) -> Vectors:
    if rows.ndim == 4:
        import torch
        from torch.nn.functional import adaptive_avg_pool2d

        grey = torch.from_numpy(rows.astype(np.float32).mean(axis=3) / np.float32(255.0))
        return adaptive_avg_pool2d(grey[:, None], (_FINGERPRINT_SIDE, _FINGERPRINT_SIDE)).flatten(1).numpy()
    step = min(_SOUND_STEP, rows.shape[1])
    sound = rows[:, : min(_SAMPLES, rows.shape[1]) // step * step].astype(np.float32) / np.float32(32768.0)
    return np.asarray(sound.reshape(len(sound), -1, step).mean(axis=2), np.float32)


def twins(
    fingerprints: tuple[Sequence[str], Vectors],
    others: tuple[Sequence[str], Vectors],
    *,
    least: float,
    eligible: BoolArray | None = None,
) -> Twins:
    """Twins of n files among m others, each given by digests and fingerprints.

    ``least``: the correlation from which on two are near. ``eligible`` (n, m): pairs that may be twins; all where it is
    left out.
    """
    (digest, vectors), (other_digest, other_vectors) = fingerprints, others
    n, m = len(digest), len(other_digest)
    exact, near = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    where: dict[str, list[int]] = {}
    for j, value in enumerate(other_digest):
        where.setdefault(value, []).append(j)
    for i, value in enumerate(digest):
        exact[i] = next((j for j in where.get(value, ()) if eligible is None or eligible[i, j]), -1)
    for start in range(0, n if m else 0, _ROWS_AT_ONCE):
        alike = vectors[start : start + _ROWS_AT_ONCE] @ other_vectors.T
        if eligible is not None:
            alike = np.where(eligible[start : start + _ROWS_AT_ONCE], alike, -1.0)
        best = alike.argmax(axis=1)
        found = alike[np.arange(len(best)), best] >= least
        near[start : start + len(best)] = np.where(found, best, -1)
    return Twins(exact, np.where(exact >= 0, exact, near))


Grey = npt.NDArray[np.float32]
# (width, left, top) in pixels of a picture of 64 x 64.
Window = tuple[float, float, float]

_CROP_SIDE = 64
_WHOLE: Window = (64.0, 0.0, 0.0)
_SCALES = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5)
_CROP_STEP = 3.0
_COARSE, _FINE = 12, 24
# Found at the coarse windows, which hit no crop exactly, and after the one most alike was fitted. Of 100 pictures and
# 500 crops of them to 0.5 to 0.9 of a side, half of them mirrored, all saved as JPEG: 0.76 and 0.97 at least for crops,
# and 0.91 and 0.89 at most for others.
_CANDIDATE, _ALIKE = 0.75, 0.96
_ROUNDS = 5
# Pairs of files that are compared at every window, some minute's work.
MOST_PAIRS = 1_000_000


def crop_twins(pictures: Rows, others: Rows, eligible: Sequence[BoolArray | None] = (None,)) -> list[IntArray]:
    """(n,) index of the one of m other images that each is a crop of, or that is a crop of it; -1 for none.

    Of n pictures the first are compared, so many that there are at most ``MOST_PAIRS`` pairs. Down to half of a side
    is found. ``eligible``, each (n, m): pairs that may be twins, all where it is None; one answer for each of them.
    """
    n = count_compared(len(np.asarray(pictures)), len(np.asarray(others)))
    found = [np.full(len(np.asarray(pictures)), -1, np.int64) for _ in eligible]
    if n == 0:
        return found
    mine, theirs = _grey(np.asarray(pictures)[:n]), _grey(np.asarray(others))
    barred = [None if pairs is None else ~np.concatenate([pairs[:n], pairs[:n]]) for pairs in eligible]
    for swapped, whole, cut in ((False, theirs, mine), (True, mine, theirs)):
        for answer, (best, which, window) in zip(found, _candidates(cut, whole, barred, swapped), strict=True):
            for i in np.flatnonzero(best >= _CANDIDATE).tolist():
                row, j, start = i % n, int(which[i]), _windows()[int(window[i])]
                small, large = (theirs[j], mine[row]) if swapped else (mine[row], theirs[j])
                if (
                    answer[row] < 0
                    and _best_fit_correlation(small if i < n else small[:, ::-1], large, start) >= _ALIKE
                ):
                    answer[row] = j
    return found


def count_compared(n: int, m: int) -> int:
    """The number of n images compared with m others."""
    return min(n, MOST_PAIRS // m) if m else 0


def _candidates(
    crops: Grey, whole: Grey, barred: Sequence[BoolArray | None], swapped: bool
) -> list[tuple[npt.NDArray[np.float32], IntArray, IntArray]]:
    """(2 n,) highest correlation, the other file and the window of it, for each own file as it is and mirrored.

    ``swapped``: whether the own files are those that the windows lie in. One answer for each of ``barred``.
    """
    pieces = [_level(_cells(_sums(g), np.array([_WHOLE]), _COARSE)[:, 0]) for g in (crops, crops[:, :, ::-1])]
    n, sums = len(whole) if swapped else len(crops), _sums(whole)
    found = [(np.full(2 * n, -1.0, np.float32), np.zeros(2 * n, np.int64), np.zeros(2 * n, np.int64)) for _ in barred]
    for k, place in enumerate(_windows()):
        seen = _level(_cells(sums, np.array([place]), _COARSE)[:, 0])
        alike = np.concatenate([seen @ piece.T if swapped else piece @ seen.T for piece in pieces])
        for (best, which, window), these in zip(found, barred, strict=True):
            allowed = alike if these is None else np.where(these, np.float32(-1.0), alike)
            j = allowed.argmax(axis=1)
            top = allowed[np.arange(2 * n), j]
            better = top > best
            best[better], which[better], window[better] = top[better], j[better], k
    return found


def _best_fit_correlation(crop: Grey, whole: Grey, start: Window) -> float:
    """The correlation of a picture with another's window, after the window was moved and sized to fit best."""
    piece = _level(_cells(_sums(crop[None]), np.array([_WHOLE]), _FINE)[0])[0]
    best, at, size, shift, sums = -1.0, start, 2.0, 1.5, _sums(whole[None])
    for _ in range(_ROUNDS):
        places = list(_around(at, size, shift))
        values = _level(_cells(sums, np.array(places), _FINE)[0]) @ piece
        if values.max() > best:
            best, at = float(values.max()), places[int(values.argmax())]
        size, shift = size / 2.0, shift / 2.0
    return best


def _around(window: Window, size: float, shift: float) -> Iterator[Window]:
    width, left, top = window
    for a in (-1.0, 0.0, 1.0):
        w = min(width + a * size, float(_CROP_SIDE))
        for b in (-1.0, 0.0, 1.0):
            for c in (-1.0, 0.0, 1.0):
                yield w, min(max(left + b * shift, 0.0), _CROP_SIDE - w), min(max(top + c * shift, 0.0), _CROP_SIDE - w)


@cache
def _windows() -> tuple[Window, ...]:
    found = []
    for scale in _SCALES:
        width = _CROP_SIDE * scale
        places = np.linspace(0.0, _CROP_SIDE - width, int(np.ceil((_CROP_SIDE - width) / _CROP_STEP)) + 1).tolist()
        found += [(width, left, top) for left in places for top in places]
    return tuple(found)


def _grey(rows: npt.NDArray[Any]) -> Grey:
    """(n, 64, 64) of pictures (n, height, width, channels)."""
    import torch
    from torch.nn.functional import adaptive_avg_pool2d

    parts = [
        adaptive_avg_pool2d(
            torch.from_numpy(rows[i : i + 256].astype(np.float32).mean(axis=3))[:, None], (_CROP_SIDE, _CROP_SIDE)
        )
        for i in range(0, len(rows), 256)
    ]
    return (
        np.asarray(torch.cat(parts)[:, 0].numpy(), np.float32)
        if parts
        else np.empty((0, _CROP_SIDE, _CROP_SIDE), np.float32)
    )


def _sums(grey: Grey) -> FloatArray:
    """(n, 65, 65) sums of all that lies above and left of each corner of a pixel."""
    return np.pad(grey.cumsum(axis=1, dtype=np.float64).cumsum(axis=2), ((0, 0), (1, 0), (1, 0)))


def _cells(sums: FloatArray, windows: FloatArray, k: int) -> Grey:
    """(n, w, k, k) sums over the cells of windows (w, 3), whose edges may lie between pixels."""
    width, left, top = windows.T[..., None]
    edges = width * np.linspace(0.0, 1.0, k + 1)
    corners = np.arange(_CROP_SIDE + 1)
    rows, columns = (
        np.maximum(0.0, 1.0 - np.abs((start + edges)[..., None] - corners)) for start in (top, left)
    )  # (w, k + 1, 65) each
    at = rows @ sums[:, None] @ columns.transpose(0, 2, 1)
    return np.asarray(np.diff(np.diff(at, axis=2), axis=3), np.float32)


@cache
def _plane(k: int) -> FloatArray:
    y, x = np.mgrid[:k, :k]
    return np.linalg.qr(np.stack([np.ones(k * k), x.ravel(), y.ravel()], axis=1))[0]


def _level(cells: Grey) -> Grey:
    """(n, k * k) without the plane that fits best, which skies and walls share: of length 1, 0 for nothing left."""
    flat = cells.reshape(len(cells), -1).astype(np.float64)
    plane = _plane(cells.shape[1])
    flat = flat - (flat @ plane) @ plane.T
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(np.divide(flat, length, out=np.zeros_like(flat), where=length > 1e-3), np.float32)
