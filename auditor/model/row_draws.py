"""Draws for decisions that are made at random: a hash of the row, so that the same row always gets the same answer."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from auditor.rows import FloatArray, IntArray


def row_draws(encoded: npt.NDArray[np.float32], seed: int, places: IntArray | None = None) -> FloatArray:
    """(n,) numbers in [0, 1), uniform over different rows: each a hash of its encoded row (n, width), ``seed`` in
    [0, 2^64) and its place (n,), where that is given."""
    # -0.0 and 0.0 are one number, and shall be one hash.
    rows = encoded + np.float32(0.0)
    ends = [b""] * len(rows) if places is None else [int(p).to_bytes(8, "little", signed=True) for p in places]
    key = seed.to_bytes(8, "little")
    words = (
        hashlib.blake2b(row.tobytes() + end, digest_size=8, key=key).digest()
        for row, end in zip(rows, ends, strict=True)
    )
    # 53 bits are all that a float holds; more would round some draws up to 1.
    return np.fromiter((int.from_bytes(w, "little") >> 11 for w in words), np.float64, len(rows)) / 2**53
