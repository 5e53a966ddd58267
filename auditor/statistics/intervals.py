"""Exact one-sided bounds of proportions, of bounded means, and of means of rows with few distinct values."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy
from numpy.lib.stride_tricks import sliding_window_view

from auditor.core.rows import Counts, FloatArray, IntArray

ANGLES = np.linspace(0.0, np.pi / 2, 25)
_SHARES_AT_ONCE = 64
# How a report names the test that :func:`clopper_pearson` inverts.
BINOMIAL_TEST = "Clopper and Pearson's exact binomial test"


def clopper_pearson(
    successes: npt.ArrayLike, *, n: npt.ArrayLike, alpha: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """One-sided exact bounds of a binomial proportion, each wrong with probability at most ``alpha``.

    ``lower = Beta^-1(alpha; k, n - k + 1)``, ``upper = Beta^-1(1 - alpha; k + 1, n - k)``; arguments broadcast.
    ``n = 0`` gives [0, 1]. Source: Clopper and Pearson, Biometrika 26 (1934).
    """
    k, m, a = (np.asarray(x, np.float64) for x in (successes, n, alpha))
    return exact_lower(k, m, a), exact_upper(k, m, a)


def exact_lower(k: FloatArray, n: FloatArray, alpha: FloatArray) -> FloatArray:
    return np.where(k > 0, scipy.special.betaincinv(np.maximum(k, 1.0), np.maximum(n - k, 0.0) + 1.0, alpha), 0.0)


def exact_upper(k: FloatArray, n: FloatArray, alpha: FloatArray) -> FloatArray:
    # Not the inverse at 1 - alpha, which is 1 for every alpha below 1e-16.
    return np.where(k < n, scipy.special.betainccinv(k + 1.0, np.maximum(n - k, 1.0), alpha), 1.0)


@lru_cache(maxsize=4_096)
def corner_radius(alpha: float) -> float:
    """Radius ``t`` with ``P(max(Z1, 0)^2 + max(Z2, 0)^2 > t^2) = alpha`` for independent standard normals.

    ``exp(-t^2 / 2) / 4 + (1 - Phi(t)) = alpha`` (a chi-bar-square tail); 2.05 at 0.05, 3.43 at 0.001.
    """
    low, high = 0.0, 40.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        tail = 0.25 * math.exp(-0.5 * middle * middle) + float(scipy.special.ndtr(-middle))
        low, high = (middle, high) if tail > alpha else (low, middle)
    return high


def rate_limits(successes: Counts, *, n: Counts, alpha: float) -> tuple[FloatArray, FloatArray]:
    """Clopper-Pearson limits along the boundary of the exact joint region of two independent proportions.

    Returns ``lower`` and ``upper``, each (n_angles, n_groups). For groups i and j the region
    ``{max(z_i, 0)^2 + max(z_j, 0)^2 <= t^2}``, with ``z`` the normal quantile of each exact binomial tail and ``t``
    from :func:`corner_radius`, holds the true pair with probability at least 1 - alpha whatever the rates and sizes,
    because each tail probability is stochastically no smaller than uniform. So any function that rises in p_i and
    falls in p_j is at most its largest value over ``(upper[a, i], lower[-1 - a, j])``. The grid's 25 angles understate
    a smooth maximum by less than 0.15 % of the interval's half width. Counts need not be whole:
    planning uses expected ones.
    """
    tails = scipy.special.ndtr(-corner_radius(alpha) * np.cos(ANGLES))
    return clopper_pearson(successes[None, :], n=n[None, :], alpha=tails[:, None])


def difference_bounds(successes: Counts, *, n: Counts, alpha: float) -> tuple[FloatArray, FloatArray]:
    """One-sided exact bounds (n_groups, n_groups) of ``p_i - p_j`` for every ordered pair, each at level ``alpha``.

    The corner of the joint region, which spends from a tenth to two fifths of its level; those of
    :mod:`~auditor.statistics.rate_pairs` are narrower and slower.
    """
    lower, upper = rate_limits(successes, n=n, alpha=alpha)
    high = (upper[:, :, None] - lower[::-1][:, None, :]).max(axis=0)
    return -high.T, high


def ratio_bounds(successes: Counts, *, n: Counts, alpha: float) -> tuple[FloatArray, FloatArray]:
    """One-sided exact bounds (n_groups, n_groups) of ``p_i / p_j`` for every ordered pair, each at level ``alpha``."""
    lower, upper = rate_limits(successes, n=n, alpha=alpha)
    with np.errstate(divide="ignore", invalid="ignore"):
        high = np.where(lower[::-1][:, None, :] > 0, upper[:, :, None] / lower[::-1][:, None, :], np.inf).max(axis=0)
        low = (lower[:, :, None] / upper[::-1][:, None, :]).min(axis=0)
    return low, high


def ratios_to_each(
    reference_rate: tuple[float, float], *, successes: Counts, n: Counts, alpha: float, side: Literal["lower", "upper"]
) -> FloatArray:
    """One-sided exact bounds of ``p / p_j``, (n_groups,), of one rate ``reference_rate`` (successes, n) to each of the
    others.

    A row of :func:`ratio_bounds`, without the others.
    """
    tails = scipy.special.ndtr(-corner_radius(alpha) * np.cos(ANGLES))
    k_own, n_own = (np.asarray(x, np.float64) for x in reference_rate)
    k, m = (np.asarray(x, np.float64)[None, :] for x in (successes, n))
    with np.errstate(divide="ignore", invalid="ignore"):
        if side == "lower":
            above = exact_upper(k, m, tails[::-1, None])
            return np.asarray((exact_lower(k_own, n_own, tails)[:, None] / above).min(axis=0), np.float64)
        below = exact_lower(k, m, tails[::-1, None])
        highest = exact_upper(k_own, n_own, tails)[:, None]
        return np.asarray(np.where(below > 0, highest / below, np.inf).max(axis=0), np.float64)


@lru_cache(maxsize=4_096)
def orthant_radius(alpha: float, parts: int) -> float:
    """Radius ``t`` with ``P(sum of max(Z_m, 0)^2 > t^2) = alpha`` over ``parts`` independent standard normals.

    The chi-bar-square tail ``sum_k C(parts, k) 2^-parts P(chi2_k > t^2)``; :func:`corner_radius` is the case of two.
    """
    k = np.arange(1, parts + 1, dtype=np.float64)
    weights = np.asarray([math.comb(parts, int(i)) * 0.5**parts for i in k])
    low, high = 0.0, 40.0 + 2.0 * math.sqrt(parts)
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (
            (middle, high) if float(weights @ scipy.special.chdtrc(k, middle * middle)) > alpha else (low, middle)
        )
    return high


def radius_shares(radius: float, parts: int) -> tuple[FloatArray, int]:
    """Tail probabilities (n_shares,) when a part takes q of ``n_shares - 1`` equal shares of the squared radius.

    Returned with the shares that may be given out in all. Shares rounded up cover every real division of the squared
    radius once ``parts - 1`` more are given out, so a maximum over whole shares is never an understatement.
    """
    steps = 64 + 8 * parts
    return scipy.special.ndtr(-radius * np.sqrt(np.arange(steps + 1) / steps)), steps + parts - 1


def divided_radius(curves: FloatArray, total: int) -> FloatArray:
    """(..., total + 1) largest ``sum_m curves[m, ..., q_m]`` over whole shares that add up to at most each q.

    curves: (parts, ..., n_shares), each rising along the last axis; a part takes no more than n_shares - 1.
    """
    shares = curves.shape[-1]
    best: FloatArray = curves[0][..., np.minimum(np.arange(total + 1), shares - 1)]
    none = np.full((*best.shape[:-1], shares - 1), -np.inf)
    for curve in curves[1:]:
        # (..., total + 1, n_shares): what the parts before make of the shares that this one leaves, fewest left first.
        left = sliding_window_view(np.concatenate([none, best], axis=-1), shares, axis=-1)
        best = (left + curve[..., None, ::-1]).max(axis=-1)
    return best


def sum_bounds(
    weights: npt.ArrayLike, *, successes: npt.ArrayLike, n: npt.ArrayLike, alpha: float
) -> tuple[float, float]:
    """One-sided exact bounds of ``sum_m w_m p_m`` over independent proportions, all arguments (parts,).

    The extremes over the joint region ``{sum of max(z_m, 0)^2 <= t^2}`` of :func:`rate_limits`, in as many dimensions
    as there are parts, with ``t`` from :func:`orthant_radius`.
    """
    w, k, m = (np.asarray(x, np.float64) for x in (weights, successes, n))
    tails, total = radius_shares(orthant_radius(alpha, w.size), w.size)
    return -_largest_sum(-w, k=k, n=m, tails=tails, total=total), _largest_sum(w, k=k, n=m, tails=tails, total=total)


def _largest_sum(w: FloatArray, *, k: FloatArray, n: FloatArray, tails: FloatArray, total: int) -> float:
    """What :func:`divided_radius` finds for exact bounds of ``sum_m w_m p_m``, without the grid of every division.

    What a part gains by one more share falls with the shares it has, so the largest gains of all are the ones to take,
    and a part's next ones need no look once its last is not among them. A bound x is concave in ``z^2``: its tail has
    the hazard ``f / S``, which rises for a beta distribution with both parameters at least 1, so ``f / S >= -f' / f``;
    with the normal hazard below ``z + 1 / z``, that makes ``z^2`` convex in x.
    """

    def bounds(parts: IntArray, shares: slice) -> FloatArray:
        """(n_parts, n_shares) the part of the sum at each number of shares."""
        of = k[parts, None], n[parts, None], tails[None, shares]
        return np.asarray(w[parts, None] * np.where(w[parts, None] > 0, exact_upper(*of), exact_lower(*of)))

    taken = np.empty(0)
    parts = np.arange(w.size)
    at_none = float(bounds(parts, slice(0, 1)).sum())
    for first in range(0, len(tails) - 1, _SHARES_AT_ONCE):
        gains = np.diff(bounds(parts, slice(first, first + _SHARES_AT_ONCE + 1)), axis=1)
        taken = np.concatenate([taken, gains.ravel()])
        if taken.size > total:
            taken = np.partition(taken, taken.size - total)[-total:]
        least = float(taken.min()) if taken.size == total else 0.0
        parts = parts[gains[:, -1] > least]
        if not parts.size:
            break
    return at_none + float(taken.sum())


def bounded_mean_reach(
    *,
    standard_error: npt.ArrayLike,
    third_moment: npt.ArrayLike,
    n: npt.ArrayLike,
    room: npt.ArrayLike,
    alpha: npt.ArrayLike,
) -> FloatArray:
    """The distance between a one-sided bound and the sample mean, for ``n`` independent bounded values.

    ``room``: from the sample mean to the limit on that side; ``third_moment``: about the mean, positive where the long
    tail is on that side. The bound is the 1 - alpha quantile of the values and their limit averaged with random
    Dirichlet weights, by a gamma distribution with its mean ``e = room / n``, variance ``s^2 + e^2`` and third cumulant
    ``2 max(m3, 0) / n^2 + 2 e^3``, where ``s`` is the standard error stretched from the normal to Student's quantile.
    So it allows for a value that was not seen and lies at the limit: without any spread it is ``room ln(1/alpha) / n``,
    Clopper and Pearson's bound but for terms in 1 / n^2, where Student's claims certainty. Enumerated for values of 0
    and 1 it is missed at most as often as promised, from n = 10 to 2,000 and alpha = 0.05 to 1e-6; Student's 9 times at
    n = 80 and 0.05, 1,800 times at 2.5e-4. Arguments broadcast; alpha below 0.5, at which it is a little wide; infinite
    below n = 2. Sources: Gaffke, Math. Methods Statist. 14 (2005); Learned-Miller and Thomas, arXiv:1905.06208 (2019).
    """
    error, third, m, r, a = (np.asarray(x, np.float64) for x in (standard_error, third_moment, n, room, alpha))
    size = np.maximum(m, 2.0)
    reach = weighted_mean_reach(
        standard_error=error, third_moment=third / size**2, degrees_of_freedom=size - 1.0, unseen=r / size, alpha=a
    )
    return np.where(m >= 2, reach, np.inf)


def weighted_mean_reach(
    *,
    standard_error: npt.ArrayLike,
    third_moment: npt.ArrayLike,
    degrees_of_freedom: npt.ArrayLike,
    unseen: npt.ArrayLike,
    alpha: npt.ArrayLike,
) -> FloatArray:
    """The distance of a one-sided bound from ``sum_c s_c y_c``, for independent bounded parts with fixed shares.

    :func:`bounded_mean_reach` for parts that do not weigh the same. ``unseen``: the largest share times the room to the
    limit on that side, what one part that was not seen and lies there would add; ``third_moment``: ``sum_c s_c^3
    e_c^3``, positive where the long tail is on that side. A gamma's quantile with the mean ``e = unseen``, the variance
    ``s^2 + e^2`` and the third cumulant ``2 max(m3, 0) + 2 e^3``, ``s`` the standard error stretched from the normal to
    Student's quantile. With equal shares and n - 1 degrees of freedom it is that of :func:`bounded_mean_reach`.
    """
    error, third, df, e, a = (
        np.asarray(x, np.float64) for x in (standard_error, third_moment, degrees_of_freedom, unseen, alpha)
    )
    stretch = _stretch(df, a)
    e = np.maximum(e, 1e-12)
    second = (stretch * error) ** 2 + e**2
    cubed = 2.0 * stretch**3 * np.maximum(third, 0.0) + 2.0 * e**3
    return np.asarray(np.maximum(e + _gamma_deviation(variance=second, third_cumulant=cubed, alpha=a), 0.0), np.float64)


def _stretch(degrees_of_freedom: npt.ArrayLike, alpha: FloatArray) -> FloatArray:
    """Student's quantile over the normal one, at the level alpha."""
    z = -scipy.special.ndtri(alpha)
    # At alpha = 0.5 both quantiles are 0, and their ratio has the limit 1.
    return np.where(z > 1e-6, -scipy.special.stdtrit(degrees_of_freedom, alpha) / np.maximum(z, 1e-6), 1.0)


def _gamma_deviation(*, variance: FloatArray, third_cumulant: FloatArray, alpha: FloatArray) -> FloatArray:
    """The 1 - alpha quantile, above its mean, of a gamma distribution with these two cumulants."""
    shape, scale = 4.0 * variance**3 / third_cumulant**2, 0.5 * third_cumulant / variance
    # Beyond this shape a gamma is normal to more digits than its quantile is computed to.
    exact = scale * (scipy.special.gammainccinv(np.minimum(shape, 1e10), alpha) - shape)
    return np.asarray(np.where(shape < 1e10, exact, -scipy.special.ndtri(alpha) * np.sqrt(variance)), np.float64)


def area_reach(
    *,
    standard_error: npt.ArrayLike,
    third_cumulant: npt.ArrayLike,
    n_positive: int,
    n_negative: int,
    room: npt.ArrayLike,
    alpha: npt.ArrayLike,
) -> FloatArray:
    """The distance between a one-sided bound of an area under a curve and the sample's area.

    The area is a mean over either sample of placements in [0, 1], so the bound is that of :func:`bounded_mean_reach`
    for two samples at once: a gamma's quantile with the mean ``e1 + e2``, ``e = room / n`` of each sample, the variance
    ``s^2 + e1^2 + e2^2``, ``s`` the standard error stretched from the normal to Student's quantile with min(n) - 1
    degrees of freedom, and the third cumulant ``2 max(k3, 0) + 2 e1^3 + 2 e2^3``, ``k3`` that of the area itself,
    stretched likewise: ``m3 / n^2`` of the placements of each sample, positive where the long tail is on that side. So
    it allows for a row of either sample that was not seen and lies at the limit. Enumerated for scores of few values,
    among them a few positives below every negative, it is missed no more often than promised, from 0.05 to 1e-4 and up
    to 2,000 against 500,000 rows; without ``k3`` up to 12 times, and with half of it 1.5. ``room``: from the sample's
    area to the limit on that side. Arguments broadcast; infinite below two rows of either sample.
    """
    error, third, r, a = (np.asarray(x, np.float64) for x in (standard_error, third_cumulant, room, alpha))
    fewest = min(n_positive, n_negative)
    if fewest < 2:
        return np.full(np.broadcast_shapes(error.shape, third.shape, r.shape, a.shape), np.inf)
    stretch = _stretch(fewest - 1.0, a)
    first, second = (np.maximum(r / n, 1e-12) for n in (n_positive, n_negative))
    variance = (stretch * error) ** 2 + first**2 + second**2
    cubed = 2.0 * stretch**3 * np.maximum(third, 0.0) + 2.0 * (first**3 + second**3)
    deviation = _gamma_deviation(variance=variance, third_cumulant=cubed, alpha=a)
    return np.asarray(np.maximum(first + second + deviation, 0.0), np.float64)


def summed_reach(
    *,
    standard_error: npt.ArrayLike,
    third_cumulant: npt.ArrayLike,
    degrees_of_freedom: npt.ArrayLike,
    unseen: npt.ArrayLike,
    alpha: npt.ArrayLike,
) -> FloatArray:
    """The distance of a one-sided bound from a sum of independent means of bounded values, such as a difference of two.

    :func:`weighted_mean_reach` for several samples at once, along the first axis: a gamma's quantile with the mean
    ``sum e``, the variance ``sum s^2 + sum e^2`` and the third cumulant ``2 sum max(k3, 0) + 2 sum e^3``. ``unseen``:
    ``e``, room / n, of every sample that a part is made of; ``third_cumulant``: of each part, positive where the long
    tail is on that side; each part's standard error is stretched from the normal to Student's quantile by itself, which
    is Cochran's approximation and no narrower. Enumerated for two means of zeros and ones and for two areas it is
    missed no more often than promised (``tests/statistics/adversaries.py``). Source: Cochran and Cox, Experimental
    Designs (1957), 4.
    """
    error, third, df, e, a = (
        np.asarray(x, np.float64) for x in (standard_error, third_cumulant, degrees_of_freedom, unseen, alpha)
    )
    stretch = _stretch(df, a)
    e = np.maximum(e, 1e-12)
    variance = ((stretch * error) ** 2).sum(axis=0) + (e**2).sum(axis=0)
    cubed = 2.0 * (stretch**3 * np.maximum(third, 0.0)).sum(axis=0) + 2.0 * (e**3).sum(axis=0)
    deviation = _gamma_deviation(variance=variance, third_cumulant=cubed, alpha=a)
    return np.asarray(np.maximum(e.sum(axis=0) + deviation, 0.0), np.float64)


_STEPS = 16
# Standard deviations by which a search may end beyond what it looks for.
_SURPLUS = 1e-11
# From 1e-9, the least first guess, to far beyond any tail there is.
_DOUBLINGS = 38


def change_upper(*, gained: npt.ArrayLike, lost: npt.ArrayLike, n: npt.ArrayLike, alpha: npt.ArrayLike) -> FloatArray:
    """Upper bound of the mean of ``n`` independent values of which ``gained`` are 1, ``lost`` are -1 and the others 0.

    The 1 - alpha quantile of those values and one more of 1, averaged with Dirichlet weights: the x at which
    ``P((1 - x) G+ > (1 + x) G- + x G0) = alpha`` for independent gamma variables of the shapes ``gained + 1``, ``lost``
    and ``n - gained - lost``. Without losses that is Clopper and Pearson's bound. That it is missed with probability at
    most alpha is Gaffke's conjecture, and was enumerated for n = 3 to 200 and levels from 0.05 to 1e-6. The tail is
    Barndorff-Nielsen's ``Phi(-w - ln(v / w) / w)`` at the saddlepoint: for one gamma variable up to a tenth more than
    the true one, and so on the side of width. Arguments broadcast and need not be whole; 1 at n = 0. Sources: Gaffke,
    Math. Methods Statist. 14 (2005); Fay and Lumbard, Stat. Med. 40 (2021); Barndorff-Nielsen, Biometrika 73 (1986).
    """
    g, lo, m, a = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (gained, lost, n, alpha)))
    z = -scipy.special.ndtri(a)
    # Where every row was gained the bound is 1, and one more row keeps the arithmetic whole.
    every = m <= g
    shapes = np.stack([g + 1.0, lo, np.where(every, 1.0, np.maximum(m - g - lo, 0.0))])
    room = np.where(every, 1.0, m - g + lo) / (m + 1.0)
    spread = np.sqrt(np.maximum(g + 1.0 + lo - (g + 1.0 - lo) ** 2 / (m + 1.0), 0.0)) / (m + 1.0)

    def surplus(u: FloatArray) -> FloatArray:
        left = room * np.exp(-u)
        x = 1.0 - left
        return np.asarray(_depth(shapes, _saddlepoint(shapes, scale_up=left) * np.stack([left, -1.0 - x, -x])) - z)

    far = _crossing(surplus, z=z, guess=spread * z / room)
    return np.asarray(np.where(every, 1.0, 1.0 - room * np.exp(-far)), np.float64)


def _saddlepoint(shapes: FloatArray, *, scale_up: FloatArray) -> FloatArray:
    """The t in (0, 1 / up) at which the sum of gammas, tilted by ``exp(t s)``, has the mean 0: a quadratic's root.

    ``shapes``: (3, ...), of the scales up = 1 - x, -1 - x and -x.
    """
    x, down = 1.0 - scale_up, 2.0 - scale_up
    rise, fall, rest = shapes[0] * scale_up, shapes[1] * down, shapes[2] * x
    square = scale_up * down * x * shapes.sum(axis=0)
    linear = rise * (down + x) - fall * (x - scale_up) - rest * (down - scale_up)
    none = np.minimum(rise - fall - rest, 0.0)
    root = np.sqrt(np.maximum(linear * linear - 4.0 * square * none, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(linear > 0.0, -2.0 * none / (linear + root), (root - linear) / (2.0 * square))
        return np.asarray(np.where(scale_up > 0.0, np.minimum(t, (1.0 - 1e-12) / scale_up), 0.0), np.float64)


def sum_upper(counts: npt.ArrayLike, *, values: npt.ArrayLike, alpha: npt.ArrayLike) -> FloatArray:
    """Upper bound of the sum of the means of independent samples, (...,) at levels (...,).

    ``counts``, ``values``: (samples, cells, ...) how many rows of each sample have each of its possible values; a
    sample has a row at least. As :func:`change_upper`, to the first order of the weights: the sum of the means plus
    the 1 - alpha quantile of a sum of gamma variables of the shapes ``counts`` and the scales ``(value - mean) / n``,
    and for each sample one more of shape 1 at the largest of its values. Enumerated for two samples of 5 to 40 rows,
    and in the limit of many rows of which few have changed, it is missed at most as often as promised.
    """
    k, v = np.broadcast_arrays(np.asarray(counts, np.float64), np.asarray(values, np.float64))
    n = k.sum(axis=1)
    means, most = (k * v).sum(axis=1) / n, v.max(axis=1)
    unseen = (most - means) / n
    shapes = np.concatenate([k.reshape(-1, *n.shape[1:]), np.ones_like(unseen)])
    scales = np.concatenate([((v - means[:, None]) / n[:, None]).reshape(-1, *n.shape[1:]), unseen])
    beyond = _quantile(shapes, np.where(shapes > 0.0, scales, 0.0), np.asarray(alpha, np.float64))
    return np.asarray(np.minimum((means + unseen).sum(axis=0) + beyond, most.sum(axis=0)), np.float64)


def _quantile(shapes: FloatArray, scales: FloatArray, alpha: FloatArray) -> FloatArray:
    """The 1 - alpha quantile, above the mean and no lower than that, of a sum of gammas, all (terms, ...)."""
    largest = scales.max(axis=0)
    # Where every row has the largest value there is nothing beyond the mean, and any scales will do.
    relative = np.where(largest > 0.0, scales / np.where(largest > 0.0, largest, 1.0), 1.0)
    z = -scipy.special.ndtri(np.broadcast_to(alpha, relative.shape[1:]))
    guess = z / np.sqrt(np.maximum((shapes * relative * relative).sum(axis=0), 1.0))
    far = _crossing(lambda u: _depth(shapes, -np.expm1(-u) * relative) - z, z=z, guess=guess)
    tilts = -np.expm1(-far) * relative
    return np.asarray((shapes * scales * tilts / (1.0 - tilts)).sum(axis=0), np.float64)


def _depth(shapes: FloatArray, tilts: FloatArray) -> FloatArray:
    """How many standard deviations of a normal tail lie beyond a sum of gammas' mean when tilted, both (terms, ...).

    ``tilts``: the tilt times the scale of each.
    """
    moved = tilts / (1.0 - tilts)
    w = np.sqrt(2.0 * np.maximum((shapes * (moved + np.log1p(-tilts))).sum(axis=0), 1e-200))
    v = np.sqrt(np.maximum((shapes * moved * moved).sum(axis=0), 1e-200))
    return np.asarray(w + np.log(v / w) / w, np.float64)


def _crossing(surplus: Callable[[FloatArray], FloatArray], *, z: FloatArray, guess: FloatArray) -> FloatArray:
    """Where ``surplus``, which rises from -z at 0, reaches 0, from above: by regula falsi with Illinois' halving.

    ``guess``: about where. 0 where it is positive from the beginning.
    """
    low, high = np.zeros(z.shape), np.clip(guess, 1e-9, 1.0)
    below, above = -np.maximum(z, 0.1), surplus(high)
    for _ in range(_DOUBLINGS):
        short = above < 0.0
        if not short.any():
            break
        low, below = np.where(short, high, low), np.where(short, above, below)
        high = np.where(short, 2.0 * high, high)
        above = surplus(high)
    last, beyond = np.zeros(z.shape), above
    for _ in range(_STEPS):
        if (beyond < _SURPLUS).all():
            break
        middle = (low * above - high * below) / (above - below)
        found = surplus(middle)
        over = found >= 0.0
        below = np.where(over, np.where(last > 0.0, 0.5 * below, below), found)
        above = np.where(over, found, np.where(last < 0.0, 0.5 * above, above))
        beyond = np.where(over, found, beyond)
        low, high = np.where(over, low, middle), np.where(over, middle, high)
        last = np.where(over, 1.0, -1.0)
    return high
