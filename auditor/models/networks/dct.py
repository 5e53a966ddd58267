"""The discrete cosine transform (type II) of image blocks and of log spectra of sound."""

from __future__ import annotations

import math

import numpy as np

from auditor.core.rows import FloatArray


def dct_basis(n: int, n_coefficients: int) -> FloatArray:
    """(n, n_coefficients) the first columns of the orthonormal DCT-II."""
    k = np.arange(n_coefficients)
    basis = np.cos(np.pi / n * (np.arange(n)[:, None] + 0.5) * k) * math.sqrt(2.0 / n)
    basis[:, 0] /= math.sqrt(2.0)
    return np.asarray(basis, np.float64)
