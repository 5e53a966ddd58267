"""Files made from other files: duplicates of equal or similar content, mirrored or not."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.core.rows import BoolArray, IntArray

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
