"""Exact one-sided bounds of a difference or a ratio of two rates, at any sample size, from their exact tails.

Let ``p = (p_1, p_2)`` be two rates on the edge of the hypothesis, ``p_1 = p_2 + value`` or ``p_1 = value p_2``, and
``z_1``, ``z_2`` the normal quantiles of the exact binomial tails there: of no fewer successes in the first group, of no
more in the second. Each is stochastically no larger than a standard normal and they are independent, so an upper set of
the plane, which holds every point above and right of its own, holds ``(z_1, z_2)`` no more often than it holds two
normals. Any such set of measure alpha, chosen for p alone, is therefore an exact test of p. The one used here rejects p
where

- ``z_1`` or ``z_2`` alone exceeds its quantile at alpha times half of ``STRIPS``, which leaves a short line of rates to
  look at (Berger and Boos, JASA 89 (1994)); or
- ``w_1 z_1 + w_2 z_2`` exceeds the quantile of what is left, with ``w`` of length 1, no part negative, and turned so
  that the level of the score test (Farrington and Manning, Stat. Med. 9 (1990)) is met along the line to first order.

Where a rate's steps of one count are coarse beside the standard error, the set is a corner instead
(:func:`~auditor.statistics.intervals.rate_limits`). A value is rejected where every p of it is: that is a test of all
smaller values too, since tails only grow with the rates' distance. Sets at smaller levels lie within those at larger
ones, so bounds are nested. The two tails include what was seen, which costs what Yates' correction of continuity does,
and no more: about ``1 / (2 n_1) + 1 / (2 n_2)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy

from auditor.core.rows import BoolArray, FloatArray
from auditor.statistics.intervals import exact_lower, exact_upper

Contrast = Literal["difference", "ratio"]

STRIPS = 0.02
# Ends of the line included, where the least nearly always is: the standard error is concave along it.
_PLACES = 0.5 - 0.5 * np.cos(np.linspace(0.0, np.pi, 9))
# Where rates are so near 0 or 1, or groups so small, that a corner is the better set.
_COARSE = 0.03
_INSIDE = 1e-15
_MOST_Z = 40.0
# Standard errors from its goal at which a search may end.
_MARGIN = 1e-11


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Ordered pairs of groups, (n_pairs,) each, to test by how much the first one's rate is higher.

    ``either``: what was asked is which of the two is higher, and the pair was turned round to fit, so that the error
    rate covers both directions. Counts need not be whole: planning uses expected ones.
    """

    contrast: Contrast
    k_1: FloatArray
    n_1: FloatArray
    k_2: FloatArray
    n_2: FloatArray
    either: bool = False

    def __len__(self) -> int:
        return len(self.k_1)

    def subset(self, selection: npt.NDArray[np.intp] | BoolArray) -> Pairs:
        """A subset of the pairs."""
        return Pairs(
            contrast=self.contrast,
            k_1=self.k_1[selection],
            n_1=self.n_1[selection],
            k_2=self.k_2[selection],
            n_2=self.n_2[selection],
            either=self.either,
        )

    def observed(self) -> FloatArray:
        """(n_pairs,) the difference or ratio of the sample; 0/0 is NaN."""
        first, second = self.k_1 / self.n_1, self.k_2 / self.n_2
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(first - second if self.contrast == "difference" else first / second, np.float64)


class _Level(NamedTuple):
    """What a level comes to whatever the value, (n_pairs,) each, so that a search finds it once.

    The lowest first and the highest second rate that the strips leave, and the corner's radius.
    """

    lowest: FloatArray
    highest: FloatArray
    radius: FloatArray


def margins(
    pairs: Pairs,
    value: npt.ArrayLike,
    alpha: npt.ArrayLike,
    *,
    expected: bool = False,
    cached_level: _Level | None = None,
) -> FloatArray:
    """(n_pairs,) standard errors by which each pair is shown above ``value`` at ``alpha``; if not, below 0.

    Falls as ``value`` rises and rises with ``alpha``. ``expected``: counts are those to be expected, of which the ones
    that come will differ, so that no rate of this value being left says only how far the nearest one is.
    ``cached_level``: :func:`_strip_limits` and the radii of this level.
    """
    v, a = _of_each(value, len(pairs)), _of_each(alpha, len(pairs))
    lowest, highest = _strip_limits(pairs, a) if cached_level is None else cached_level[:2]
    first, last = _line(pairs, v, lowest, highest)
    # Where no rate is left, between the two ends: of counts that are only expected it is the likeliest.
    start = np.where(first > last, 0.5 * (first + last), first)
    s = start[:, None] + np.maximum(last - first, 0.0)[:, None] * _PLACES
    at = _Edge(pairs, v[:, None], s)
    # One level a pair, or where there are two directions one a place.
    level = a[:, None] / (1.0 + at.other_direction(a[:, None])) if pairs.either else a[:, None]
    least = at.statistic() + scipy.special.ndtri((1.0 - STRIPS) * level)
    coarse = at.coarse() > _COARSE
    if coarse.any():
        if cached_level is not None and not pairs.either:
            radii = cached_level.radius[:, None]
        else:
            asked = coarse if pairs.either else coarse.any(axis=1, keepdims=True)
            radii = np.zeros(level.shape)
            radii[asked] = corner_radii(level[asked])
        least = np.where(coarse, at.corner() - radii, least)
    least = least.min(axis=1)
    if expected:
        return np.asarray(least, np.float64)
    # No rates of this value are left by the strips.
    return np.asarray(np.where(first > last, _MOST_Z, least), np.float64)


def _of_each(x: npt.ArrayLike, n: int) -> FloatArray:
    """(n,) of one number or of n."""
    array = np.asarray(x, np.float64)
    return array if array.shape == (n,) else np.broadcast_to(array, n)


def _strip_limits(pairs: Pairs, alpha: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(n_pairs,) the lowest first and the highest second rate that the strips at this level leave."""
    strip = alpha * (STRIPS / (4.0 if pairs.either else 2.0))
    return exact_lower(pairs.k_1, pairs.n_1, strip), exact_upper(pairs.k_2, pairs.n_2, strip)


def _line(pairs: Pairs, value: FloatArray, lowest: FloatArray, highest: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(n_pairs,) the ends of the second rate on the edge of the hypothesis, as far as the strips leave it."""
    if pairs.contrast == "difference":
        return np.maximum(lowest - value, 0.0), np.minimum(highest, np.minimum(1.0 - value, 1.0))
    v = np.maximum(value, _INSIDE)
    # Any rate above 1 says that there is none.
    return np.minimum(lowest / v, 2.0), np.minimum(highest, np.minimum(1.0 / v, 1.0))


class _Edge:
    """Rates on the edge of the hypothesis, (n_pairs, n_places), and what was seen, in their standard errors."""

    def __init__(self, pairs: Pairs, value: FloatArray, second: FloatArray) -> None:
        self.value, self.times = value, np.maximum(value, _INSIDE) if pairs.contrast == "ratio" else np.ones_like(value)
        self.difference = pairs.contrast == "difference"
        first = second + value if self.difference else second * value
        p_1, p_2 = (_clipped(p, _INSIDE, 1.0 - _INSIDE) for p in (first, second))
        k_1, n_1, k_2, n_2 = (x[:, None] for x in (pairs.k_1, pairs.n_1, pairs.k_2, pairs.n_2))
        self.z_1, self.z_2 = _normal_tail(k_1, n_1, p_1), _normal_tail(n_2 - k_2, n_2, 1.0 - p_2)
        self.p_2, self.v_1, self.v_2 = p_2, p_1 * (1.0 - p_1) / n_1, p_2 * (1.0 - p_2) / n_2
        self.steps = 1.0 / n_1**2 + (self.times / n_2) ** 2
        self.slope = self.times * (1.0 - 2.0 * p_1) / n_1 + self.times**2 * (1.0 - 2.0 * p_2) / n_2

    def statistic(self) -> FloatArray:
        """The standard normal quantile at which a level just rejects each place.

        ``e`` is how far the contrast lies from the edge and ``along`` how far the rates lie from this place on it, both
        in standard errors. The score test rejects where ``e > z (1 + c along)``, to first order in the rates: the
        standard error is that at the rates' own place. Half planes do so at the level of ``z / sqrt(1 + z^2 c^2)``.
        """
        s_1, s_2 = np.sqrt(self.v_1), self.times * np.sqrt(self.v_2)
        size = np.hypot(s_1, s_2)
        e = (s_1 * self.z_1 + s_2 * self.z_2) / size
        along = (s_2 * self.z_1 - s_1 * self.z_2) / size
        c = self.slope * s_1 * s_2 / (2.0 * self.times * size**3)
        pull = 1.0 + c * along
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            tangent = np.where(pull > 0.0, e * c / np.maximum(pull, 1e-300), np.sign(c) * np.inf)
        # No further than where a weight would be negative, and the set no upper one.
        angle = np.arctan(_clipped(tangent, -s_2 / s_1, s_1 / s_2))
        turned = e * np.cos(angle) - along * np.sin(angle)
        # What lies on the hypothesis' own side is rejected at no level: so sets at smaller levels lie in larger ones.
        return np.asarray(np.where(e > 0.0, turned, np.minimum(e, 0.0)), np.float64)

    def corner(self) -> FloatArray:
        """How far out both tails lie together, as in :func:`~auditor.statistics.intervals.rate_limits`."""
        return np.asarray(np.hypot(np.maximum(self.z_1, 0.0), np.maximum(self.z_2, 0.0)), np.float64)

    def coarse(self) -> FloatArray:
        """The square of the steps of both rates, one count each, in standard errors of the contrast."""
        return np.asarray(self.steps / (self.v_1 + self.times**2 * self.v_2), np.float64)

    def other_direction(self, alpha: FloatArray) -> FloatArray:
        """At most how often, for each time that this direction is shown of rates on the edge, the other one is.

        The other's edge lies ``x`` standard errors away, and a normal's tail at ``z + x`` is at most
        ``exp(-z x - x^2 / 2)`` of that at z >= 0. That this is enough for binomial tails, which are rarer than their
        level, is no argument but enumerated, over a grid (``tests/statistics/test_unconditional.py``).
        """
        between = 2.0 * self.value if self.difference else self.p_2 * (self.value**2 - 1.0)
        x = np.maximum(between, 0.0) / np.sqrt(self.times**2 * self.v_1 + self.v_2)
        z = np.maximum(-scipy.special.ndtri(alpha), 0.0)
        return np.asarray(np.exp(-z * x - 0.5 * x * x), np.float64)


def lower_bounds(pairs: Pairs, alpha: npt.ArrayLike) -> FloatArray:
    """(n_pairs,) the largest value that each pair significantly exceeds at ``alpha``.

    With ``either`` no lower than no difference, 0 or 1: what is not shown has no direction.
    """
    a = _of_each(alpha, len(pairs))
    strip = a * (STRIPS / 4.0)
    lowest, highest = exact_lower(pairs.k_1, pairs.n_1, strip), exact_upper(pairs.k_2, pairs.n_2, strip)
    ratio = pairs.contrast == "ratio"
    found = np.where(lowest > 0.0, lowest / highest, 0.0) if ratio else lowest - highest
    if pairs.either:
        found = np.maximum(found, 1.0 if ratio else 0.0)
    where = np.flatnonzero((lowest > 0.0) if ratio else np.isfinite(found))
    at_found = margins(pairs.subset(where), found[where], a[where])
    where, at_found = where[at_found >= 0.0], at_found[at_found >= 0.0]
    if not where.size:
        return found
    some, levels = pairs.subset(where), a[where]
    level = _Level(*_strip_limits(some, levels), corner_radii(levels))

    def margin(x: FloatArray, i: npt.NDArray[np.intp]) -> FloatArray:
        known = _Level(level.lowest[i], level.highest[i], level.radius[i])
        return margins(some.subset(i), np.exp(x) if ratio else x, levels[i], cached_level=known)

    if ratio:
        middle = np.asarray(0.4)
        second = np.maximum(exact_lower(some.k_2, some.n_2, middle), 0.3 / some.n_2)
        low, high = np.log(found[where]), np.log(exact_upper(some.k_1, some.n_1, middle) / second)
        found[where] = np.exp(falling_zero(margin, low, high))
    else:
        low, high = found[where], np.maximum(some.observed(), found[where])
        found[where] = falling_zero(margin, low, high, at_low=at_found)
    return found


def corner_radii(alpha: FloatArray) -> FloatArray:
    """:func:`~auditor.statistics.intervals.corner_radius` of many levels at once."""
    # The tail is log-concave and twice a normal's at most, so Newton's steps in logarithms close in from one side.
    t = -scipy.special.ndtri(0.5 * alpha)
    goal = np.log(alpha)
    for _ in range(4):
        corner, tail = 0.25 * np.exp(-0.5 * t * t), scipy.special.ndtr(-t)
        density = t * corner + np.exp(-0.5 * t * t) / math.sqrt(2.0 * math.pi)
        t = t + (np.log(corner + tail) - goal) * (corner + tail) / density
    return np.asarray(t, np.float64)


def falling_zero(
    f: Callable[[FloatArray, npt.NDArray[np.intp]], FloatArray],
    low: FloatArray,
    high: FloatArray,
    *,
    at_low: FloatArray | None = None,
) -> FloatArray:
    """(n,) zeros of n decreasing functions, from the side where they are at least 0.

    ``f(x, i)``: those of the functions ``i`` at the points x. ``f(low)`` is at least 0; ``at_low`` where it is known.
    Regula falsi (Anderson and Bjorck), with every fourth step a halving.
    """
    low, high = low.copy(), np.maximum(high, low)
    todo, side = np.arange(low.size), np.zeros(low.size)
    f_low = f(low, todo) if at_low is None else at_low.copy()
    f_high = f(high, todo)
    # A function that is still positive at its upper end has its zero there.
    low = np.where(f_high >= 0.0, high, low)
    # How far each end is from 0: what the search weighs of an end shrinks with every step that it stays.
    beyond = f_low.copy()
    for step in range(100):
        todo = np.flatnonzero((high - low > 1e-11 * (1.0 + np.abs(low))) & (beyond > _MARGIN))
        if not todo.size:
            break
        a, b, f_a, f_b = low[todo], high[todo], f_low[todo], f_high[todo]
        with np.errstate(divide="ignore", invalid="ignore"):
            x = (a * f_b - b * f_a) / (f_b - f_a)
        x = np.where((step % 4 == 3) | ~np.isfinite(x) | (x <= a) | (x >= b), 0.5 * (a + b), x)
        f_x = f(x, todo)
        above = f_x >= 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            shrink = 1.0 - f_x / np.where(above, f_a, f_b)
        # An end that stays twice counts for less, so that the other comes nearer.
        again = np.where(above, side[todo] > 0.0, side[todo] < 0.0)
        shrink = np.where(again, np.where(np.isfinite(shrink) & (shrink > 0.0), shrink, 0.5), 1.0)
        beyond[todo] = np.where(above, f_x, beyond[todo])
        low[todo], f_low[todo] = np.where(above, x, a), np.where(above, f_x, f_a * shrink)
        high[todo], f_high[todo] = np.where(above, b, x), np.where(above, f_b * shrink, f_x)
        side[todo] = np.where(above, 1.0, -1.0)
    return low


def _clipped(x: FloatArray, low: npt.ArrayLike, high: npt.ArrayLike) -> FloatArray:
    """``np.clip``, which takes longer to begin than to do it for as few numbers as there are here."""
    return np.asarray(np.minimum(np.maximum(x, low), high), np.float64)


def _normal_tail(k: FloatArray, n: FloatArray, p: FloatArray) -> FloatArray:
    """Quantile of a standard normal that is exceeded as often as ``k`` of ``n`` at rate ``p`` is reached; -40 to 40."""
    first, second = np.maximum(k, 1e-300), n - k + 1.0
    # Of the two tails the small one: the other is 1 to all digits.
    small = p < k / n
    a, b, x = np.where(small, first, second), np.where(small, second, first), np.where(small, p, 1.0 - p)
    tail = scipy.special.betainc(a, b, x)
    z = _clipped(scipy.special.ndtri(tail), -_MOST_Z, _MOST_Z)
    return np.asarray(np.where(k > 0, np.where(small, -z, z), -_MOST_Z), np.float64)
