"""How many worlds a promise is simulated in, and how many of them may break it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
from scipy.stats import binom, rankdata

from auditor.rows import FloatArray
from auditor.statistics.estimate import Estimate
from auditor.statistics.intervals import clopper_pearson
from auditor.statistics.ranks import AreaUnderCurve

WORLDS = 2_000


def most_misses(alpha: float = 0.05, worlds: int = WORLDS) -> int:
    """More misses than this are seen once in a thousand tests of a promise that is just kept: 131 of 2,000 at 5 %."""
    return int(binom.isf(0.001, worlds, alpha))


def misses(estimates: Iterable[Estimate], truth: float, alpha: float = 0.05) -> tuple[int, int]:
    """In how many worlds the lower bound is above the truth, and in how many the upper one is below it.

    In every world the bounds hold the value of the sample.
    """
    above = below = 0
    # Counts are few numbers, so the same estimate is drawn again and again.
    for estimate, times in Counter(estimates).items():
        low, high = estimate.bounds(alpha)
        assert math.isnan(estimate.value) or low <= estimate.value <= high
        above += times * (low > truth + 1e-9)
        below += times * (high < truth - 1e-9)
    return above, below


def exact_limits_once() -> Callable[..., tuple[FloatArray, FloatArray]]:
    """Clopper-Pearson limits that are computed once for each count: 2,000 worlds see the same few again and again."""
    known: dict[tuple[float, float, bytes], tuple[FloatArray, FloatArray]] = {}

    def limits(successes: npt.ArrayLike, *, n: npt.ArrayLike, alpha: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        k, m = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(n, np.float64))
        levels = np.asarray(alpha, np.float64)
        # The one axis along which the level varies is one of length 1 in the counts.
        axis = int(np.argmax(levels.shape)) - levels.ndim
        assert levels.size > 1 and levels.size == levels.shape[axis] and k.shape[axis] == 1
        counts, name = list(zip(k.ravel().tolist(), m.ravel().tolist(), strict=True)), levels.tobytes()
        for a, b in {pair for pair in counts if (*pair, name) not in known}:
            known[a, b, name] = clopper_pearson(a, n=b, alpha=levels.ravel())
        return tuple(  # type: ignore[return-value]
            np.moveaxis(np.stack(ends).reshape(*np.squeeze(k, axis).shape, levels.size), -1, axis)
            for ends in zip(*(known[a, b, name] for a, b in counts), strict=True)
        )

    return limits


def areas(positives: FloatArray, negatives: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Areas, standard errors and third cumulants, each (n_worlds,), of scores (n_worlds, m) and (n_worlds, n).

    The arithmetic of :func:`~auditor.statistics.ranks.area_under_curve`, many at once.
    """
    m, n = positives.shape[1], negatives.shape[1]
    joint = rankdata(np.concatenate([positives, negatives], axis=1), axis=1)
    over = (joint[:, :m] - rankdata(positives, axis=1)) / n
    under = 1.0 - (joint[:, m:] - rankdata(negatives, axis=1)) / m
    auc = over.mean(axis=1)
    delong = over.var(axis=1, ddof=1) / m + under.var(axis=1, ddof=1) / n
    a = (auc * m * n + 0.5) / (m * n + 1.0)
    q1, q2 = a / (2.0 - a), 2.0 * a**2 / (1.0 + a)
    exponential = (a * (1.0 - a) + (m - 1) * (q1 - a**2) + (n - 1) * (q2 - a**2)) / (m * n)
    third = ((over - auc[:, None]) ** 3).mean(axis=1) / m**2 + ((under - auc[:, None]) ** 3).mean(axis=1) / n**2
    return auc, np.sqrt(np.maximum(delong, exponential)), third


def areas_of(positives: FloatArray, negatives: FloatArray) -> list[AreaUnderCurve]:
    """The estimates that these scores come to, one a world."""
    m, n = positives.shape[1], negatives.shape[1]
    columns = (column.tolist() for column in areas(positives, negatives))
    return [
        AreaUnderCurve(centre=min(max(a, 0.0), 1.0), standard_error=s, n_positive=m, n_negative=n, third_cumulant=third)
        for a, s, third in zip(*columns, strict=True)
    ]


def moments(values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Means, standard errors and third central moments, each (n_worlds,), of values (n_worlds, n)."""
    centre = values.mean(axis=1)
    deviations = values - centre[:, None]
    error = np.sqrt((deviations**2).sum(axis=1) / (values.shape[1] - 1) / values.shape[1])
    return centre, error, (deviations**3).mean(axis=1)


def normal_shift(auc: float) -> float:
    """How far apart two standard normal samples are that have this area under the curve."""
    from scipy.special import ndtri

    return math.sqrt(2.0) * float(ndtri(auc))
