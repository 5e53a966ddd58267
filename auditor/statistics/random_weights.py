"""Upper bounds of means of rows with few distinct values, and of sums of such means, by random weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import scipy

from auditor.core.rows import FloatArray

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
