"""A table encoding learned from training rows by the Gaussian mechanism, for facts absent from the schema.

Up to three looks at the rows, each one vector of whole numbers with noise, composed with the steps of the training:

1. how many rows hold each level of a column of text, and, of a column of numbers, how many lie in each octave
   ``[2^k, 2^(k+1))`` of either sign, or at zero: a grid that is the same for all data. One row adds 1 to one cell of
   each of the d columns, so the vector moves by sqrt(d);
2. of the m columns of numbers, how many rows lie in each of 32 equal parts of the octaves found: sqrt(m);
3. of each of them the sum of ``(1, u, u^2 - 1/2)`` over its rows, u being the number clipped to the parts found and
   brought to [-1, 1]: the norm of a row's part is at most 3/2, so 3/2 sqrt(m).

Each coordinate gets noise of ``noise_multiplier`` times that. The neighbours are tables with and without one row.

**Levels** are not known beforehand: only those that some row holds are counted. One that a single row brings is
released where 1 and its noise reach a threshold, which in all columns together has a chance of at most ``delta``. Where
that does not happen, the mechanism is as if the levels of the other table had been given, which is the Gaussian one:
:func:`auditor.privacy.accounting.with_added` says what that adds.

**Floating point.** What is noised is a whole number: a count, or a sum of whole multiples of 2^-20, each row's rounded
before it is added. A normal number is rounded to a whole one and added to it, which is what the continuous Gaussian
mechanism gives, rounded afterwards: its accounting holds, and no bit of a released number comes from how a sum was
rounded (Mironov, CCS 2012). Not covered: numpy's generator, seeded by the operating system, is not cryptographic; its
normal numbers have 53 bits; how long the looks take is not hidden. Which columns there are, which of them hold numbers
and what the classes are called is taken as public.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from auditor.core.errors import DataError
from auditor.core.rows import FloatArray, IntArray, is_number
from auditor.data.preprocessing import CategoricalColumn, NumericColumn, TabularPreprocessing, level_codes
from auditor.models.audited_model import SpentOnEncoding
from auditor.privacy.accounting import gaussian_noise

if TYPE_CHECKING:
    import pandas as pd

# Of the run's delta, for levels that one row alone holds.
SHARE_OF_DELTA = 0.1
LEAST_OCTAVE, MOST_OCTAVE = -20, 63
OCTAVES = MOST_OCTAVE - LEAST_OCTAVE + 1
CELLS = 2 * OCTAVES + 1
PARTS = 32
# A sum's unit; a million rows' sum stays a whole number that is exact.
_UNIT = 1 << 20
_MOMENTS = 1.5
# How often noise alone makes a cell of a column look held: of use, not of privacy.
_CHANCE = 0.01
# Bounds are drawn closer only where what lies within is shown to be most of the rows.
_MOST = 0.9


@dataclass(frozen=True, kw_only=True)
class LearnedEncoding:
    """The encoding, its budget, and the columns about which the noise allowed no learning.

    ``fewest``: about how many rows must hold a level for it to be released.
    """

    preprocessing: TabularPreprocessing
    spent: SpentOnEncoding
    left_out: tuple[str, ...]
    fewest: int


def learn_encoding(X: pd.DataFrame, *, epsilon: float, delta: float, rng: np.random.Generator) -> LearnedEncoding:
    """Levels, centres and scales of the columns, for ``epsilon`` at the run's ``delta`` on its own.

    A number is encoded less its mean, over its standard deviation, both of the numbers clipped to the bounds found; a
    missing one as the mean. ``rng``: secret. Raises DataError where no column can be learned through the noise.
    """

    numbers = {str(name): np.asarray(X[name], np.float64) for name in X.columns if is_number(X[name])}
    n_texts = len(X.columns) - len(numbers)
    alone = SHARE_OF_DELTA * delta if n_texts else 0.0
    looks = 3 if numbers else 1
    multiplier = gaussian_noise(epsilon + math.log1p(-alone), delta - alone, looks=looks)
    noise = _Noise(multiplier, rng)
    size = math.sqrt(len(X.columns))
    least = math.ceil(1.5 + size * multiplier * -float(ndtri(alone / n_texts))) if n_texts else 1
    levels: dict[str, tuple[str, ...]] = {}
    octaves: dict[str, tuple[float, float]] = {}
    for name in map(str, X.columns):
        if name in numbers:
            counts = noise.add_to(octave_counts(numbers[name]), size)
            bounds = _bounds_of_octaves(counts, noise.noise_ceiling(size, CELLS))
            octaves |= {} if bounds is None else {name: bounds}
            continue
        codes, found = level_codes(X[name])
        counts = noise.add_to(np.bincount(codes[codes >= 0], minlength=len(found)), size)
        released = sorted({level for level, count in zip(found, counts, strict=True) if count >= least})
        levels |= {name: tuple(released)} if released else {}
    # What a look may move by can follow from the looks before it, as their noise does not.
    size = math.sqrt(len(octaves))
    bounds_of = {
        name: _closer(
            noise.add_to(part_counts(numbers[name], *bounds), size), *bounds, noise.noise_ceiling(size, PARTS)
        )
        for name, bounds in octaves.items()
    }
    moments = {
        name: _moments(noise.add_to(moment_sums(numbers[name], *bounds), _MOMENTS * size * _UNIT), *bounds)
        for name, bounds in bounds_of.items()
    }
    columns = [
        NumericColumn(name=name, mean=moments[name][0], scale=moments[name][1], impute=moments[name][0])
        if name in moments
        else CategoricalColumn(name=name, levels=levels[name])
        for name in map(str, X.columns)
        if name in moments or name in levels
    ]
    if not columns:
        raise DataError(
            f"No column can be learned for epsilon {epsilon:.3g} of {len(X):,} rows: a level must be held by about "
            f"{least:,}. Raise --dp-encoding-share or --dp-epsilon, or say what is public of the columns by --schema."
        )
    return LearnedEncoding(
        preprocessing=TabularPreprocessing(columns=tuple(columns)),
        spent=SpentOnEncoding(noise_multiplier=multiplier, looks=looks, delta=alone),
        left_out=tuple(name for name in map(str, X.columns) if name not in moments and name not in levels),
        fewest=least,
    )


def encoding_notes(encoding: LearnedEncoding, epsilon: float) -> tuple[str, ...]:
    """Notes on an encoding learned with ``epsilon``."""
    spent = encoding.spent
    note = (
        f"Means, deviations and levels were learned from the training rows by {spent.looks} Gaussian "
        f"mechanism{'s' if spent.looks > 1 else ''} of noise multiplier {spent.noise_multiplier:.4g}, which alone "
        f"would spend epsilon {epsilon:.3g}: epsilon includes them."
    )
    if spent.delta:
        note += f" Levels of fewer than about {encoding.fewest:,} rows are encoded as unknown."
    if not encoding.left_out:
        return (note,)
    return note, f"Left out, too few rows to be learned of through the noise: {', '.join(encoding.left_out)}."


class _Noise:
    """Whole numbers with noise: normal, of the multiplier times what one row can move them by, and rounded."""

    def __init__(self, multiplier: float, rng: np.random.Generator) -> None:
        self._multiplier, self._rng = multiplier, rng

    def add_to(self, exact: IntArray, sensitivity: float) -> IntArray:
        drawn = self._rng.normal(0.0, self._multiplier * sensitivity, len(exact))
        return np.asarray(exact, np.int64) + np.rint(drawn).astype(np.int64)

    def noise_ceiling(self, sensitivity: float, cells: int) -> float:
        """What noise on an empty cell seldom reaches in any of so many."""
        return -float(ndtri(_CHANCE / cells)) * self._multiplier * sensitivity


def octave_counts(values: FloatArray) -> IntArray:
    """(2 * 84 + 1,) rows in each octave, from the most negative to the largest, zero in the middle; NaN in none.

    Numbers below 2^-20 count as zero, those beyond 2^64 in the last octave.
    """
    there = values[~np.isnan(values)]
    octave = np.clip(np.frexp(there)[1].astype(np.int64) - 1, None, MOST_OCTAVE)
    octave[np.isinf(there)] = MOST_OCTAVE
    zero = (there == 0.0) | (octave < LEAST_OCTAVE)
    step = octave - LEAST_OCTAVE + 1
    return np.bincount(np.where(zero, OCTAVES, OCTAVES + np.sign(there).astype(np.int64) * step), minlength=CELLS)


def _bounds_of_octaves(counts: IntArray, cutoff: float) -> tuple[float, float] | None:
    shown = np.flatnonzero(counts > cutoff) - OCTAVES
    if not shown.size:
        return None
    first, last = int(shown[0]), int(shown[-1])
    low = 2.0 ** (LEAST_OCTAVE + first - 1) if first > 0 else -(2.0 ** (LEAST_OCTAVE - first)) if first < 0 else 0.0
    high = 2.0 ** (LEAST_OCTAVE + last) if last > 0 else -(2.0 ** (LEAST_OCTAVE - last - 1)) if last < 0 else 0.0
    return (low, high) if low < high else (low, 1.0)


def part_counts(values: FloatArray, low: float, high: float) -> IntArray:
    """(32,) rows per equal part of the bounds, values beyond them in the outermost parts; NaN in none."""
    there = values[~np.isnan(values)]
    part = np.floor((np.clip(there, low, high) - low) * (PARTS / (high - low))).astype(np.int64)
    return np.bincount(np.minimum(part, PARTS - 1), minlength=PARTS)


def _closer(counts: IntArray, low: float, high: float, cutoff: float) -> tuple[float, float]:
    shown = np.flatnonzero(counts > cutoff)
    if not shown.size:
        return low, high
    first, last = int(shown[0]), int(shown[-1]) + 1
    if counts[first:last].sum() < _MOST * counts.sum():
        return low, high
    width = (high - low) / PARTS
    return low + first * width, low + last * width


def moment_sums(values: FloatArray, low: float, high: float) -> IntArray:
    """(3,) sums of 1, u and u^2 - 1/2 in units of 2^-20, u in [-1, 1] the number between the bounds; NaN in none."""
    there = values[~np.isnan(values)]
    u = np.clip(2.0 * (np.clip(there, low, high) - low) / (high - low) - 1.0, -1.0, 1.0)
    parts = np.stack([np.ones_like(u), u, u * u - 0.5])
    return np.asarray(np.rint(parts * _UNIT).astype(np.int64).sum(axis=1), np.int64)


def _moments(sums: IntArray, low: float, high: float) -> tuple[float, float]:
    """Mean and standard deviation of noisy sums; of numbers that are even between the bounds where too few are seen."""
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    n, first, second = (float(s) / _UNIT for s in sums)
    if n < 1.0:
        return middle, half / math.sqrt(3.0)
    mean = min(max(first / n, -1.0), 1.0)
    variance = second / n + 0.5 - mean * mean
    deviation = math.sqrt(min(max(variance, 1.0 / PARTS**2), 1.0))
    return middle + mean * half, deviation * half
