"""Random draws for randomised decisions, from a hash of the row: the same row always gets the same decision."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from auditor.core.rows import FloatArray, IntArray, Rows
from auditor.data.row_keys import keys_of


def row_draws(encoded: npt.NDArray[np.float32], seed: int, places: IntArray | None = None) -> FloatArray:
    """(n,) numbers in [0, 1), uniform over different rows: each a hash of its encoded row (n, width), ``seed`` in [0,
    2^64) and its position (n,), if given."""
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


def contents_of(X: Rows, columns: Sequence[str] | None) -> npt.NDArray[np.float32]:
    """(n, 8) the bytes of a key of each row's values, for unencoded rows; for a table, of these columns."""
    rows = X if isinstance(X, np.ndarray) else (X if columns is None else X[list(columns)]).reset_index(drop=True)
    keys = keys_of(rows, None, None, None)
    return keys.astype("<u8").view(np.uint8).reshape(len(keys), 8).astype(np.float32)
