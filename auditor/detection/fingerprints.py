"""Perceptual fingerprints of images and sound (256 bits), stable under re-encoding and resizing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from auditor.core.errors import AuditorError
from auditor.core.rows import BoolArray, FloatArray
from auditor.data.preprocessing import AudioPreprocessing, ImagePreprocessing
from auditor.models.detector_card import Medium

_BITS, _SIDE = 256, 24
# A picture of 24 x 24 in grey that deviates from a plane by less, in levels of 255, shows nothing to know again.
_SHOWS = 2.0
# Bits in which two files of one content may differ. Of 100 real and generated photographs, pairs of different ones
# differed in 65 at least, and the same after JPEG of quality 30 to 95, mirrored or at 1/4 to 2 times the size in 4 at
# most; of 120 recordings different ones in 100 at least, the same after Opus in 7 at most, and after MP3 of 117 in 57.
MOST_APART: dict[Medium, int] = {"image": 10, "speech": 60}
# Of a set of files, the share of near copies that its figures bear.
MOST_NEAR = 0.05
_PICTURE = ImagePreprocessing(size=(_SIDE, _SIDE), mean=(0.0,), std=(1.0,), fit="stretch")
# The first four seconds, in milliseconds.
_SOUND, _EACH, _HEARD = AudioPreprocessing(samples=16_384, sampling_rate=4_000), 4, 5.0


def fingerprints_of(content: bytes, name: str, medium: Medium) -> tuple[str, ...]:
    """Fingerprints of an image, plain and mirrored, or one of sound; none if undecodable or without content.

    A bit is the sign of a projection of the picture, in grey, averaged to 24 x 24 and without the plane that fits best,
    which skies and walls share; of sound, of the waveform of its first seconds. Two files correlated by r differ in a
    share ``arccos(r) / pi`` of them. Neither crops nor turned pictures, nor sound that begins elsewhere, are known
    again; and different pictures of one layout, such as pages of text or discs on a white ground, are taken for the
    same: what tells them apart is finer than what JPEG and resizing leave. Source: Charikar, STOC 2002 (signs of
    random projections).
    """
    try:
        if medium == "speech":
            from auditor.data.audio import decode, fit_recording

            sound = (
                fit_recording(decode(content, name, seconds=_HEARD), _SOUND)
                .astype(float)
                .reshape(-1, _EACH)
                .mean(axis=1)
            )
            return (_signs(sound - sound.mean()),) if sound.std() > 0.0 else ()
        from auditor.data.images_and_video import decode_as

        grey = decode_as(content, name, _PICTURE)[..., 0].astype(float)
    except AuditorError:
        return ()
    plane = _plane()
    left = grey.ravel() - plane @ (plane.T @ grey.ravel())
    if left.std() < _SHOWS:
        return ()
    return _signs(left), _signs(left.reshape(_SIDE, _SIDE)[:, ::-1].ravel())


def match_fingerprints(
    fingerprints: Sequence[Sequence[str]], known_fingerprints: Sequence[str], medium: Medium
) -> BoolArray:
    """(n,) whether any fingerprint of each of n files matches a known one."""
    if not known_fingerprints or not any(fingerprints):
        return np.zeros(len(fingerprints), bool)
    others = _words(known_fingerprints)
    found = [any(_nearest(others, one) <= MOST_APART[medium] for one in each) for each in fingerprints]
    return np.asarray(found, bool)


def repeated(fingerprints: Sequence[Sequence[str]], medium: Medium) -> int:
    """The number of files that resemble an earlier one of the n files."""
    firsts = _words([each[0] for each in fingerprints if each])
    return sum(
        any(_nearest(firsts[:i], one) <= MOST_APART[medium] for one in each)
        for i, each in enumerate(each for each in fingerprints if each)
        if i
    )


def _nearest(references: npt.NDArray[np.uint64], one: str) -> int:
    return int(np.bitwise_count(references ^ _words([one])).sum(axis=1).min())


def _words(fingerprints: Sequence[str]) -> npt.NDArray[np.uint64]:
    return np.frombuffer(bytes.fromhex("".join(fingerprints)), np.uint64).reshape(-1, _BITS // 64)


def _signs(vector: FloatArray) -> str:
    return np.packbits(_projections(vector.size) @ vector > 0.0).tobytes().hex()


@cache
def _projections(d: int) -> FloatArray:
    """(256, d) of 1 and -1, by digests of numbers: a card outlives the random generators of libraries."""
    content = b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(d))
    return np.unpackbits(np.frombuffer(content, np.uint8)).reshape(_BITS, d).astype(np.float64) * 2.0 - 1.0


@cache
def _plane() -> FloatArray:
    y, x = np.mgrid[:_SIDE, :_SIDE]
    flat = np.stack([np.ones(_SIDE * _SIDE), x.ravel(), y.ravel()], axis=1)
    return np.asarray(np.linalg.qr(flat)[0], np.float64)
