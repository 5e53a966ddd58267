"""The Bayesian variance inference attack (BaVarIA): a likelihood ratio with priors estimated from all rows.

Brännvall (arXiv 2603.11799) puts a conjugate normal-inverse-gamma prior on the mean and the variance of a row's
statistic ``phi = log(p_y / (1 - p_y))`` under shadow models, so that its predictive distribution is Student's t. Here
the prior is read off the shadow models (empirical Bayes), in ``BINS`` bins of rows that are about as hard:

- Centre ``c``, halfway between a row's mean over the models that learned it and over those that did not, and shift
  ``d``, the first less the second.
- The prior of a variance is scaled inverse chi-square about the bin's, with the degrees of freedom by which the rows'
  own variances spread more than samples of one size do (Smyth, Stat. Appl. Genet. Mol. Biol. 3 (2004), 3).
- The prior of a shift is normal about the bin's mean. Its variance is the covariance of the shifts by the first half of
  the models and by the second, so that nothing is assumed of the error of either; models trained on complementary
  halves of the rows differ by more than independent ones do.

Arrays: phi (n,) of the audited model; shadow_phi, inside (k, n), k at least 4. Each row is in for a model and out for
one at least.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from auditor.core.rows import BoolArray, FloatArray, IntArray

BINS = 20
_ROWS_A_BIN = 50
# A row on which all shadow models agree to the last digit must not divide by zero.
_SMALLEST_SHARE = 1e-9
_SMALLEST = 1e-18
# From here on Student's t is the normal distribution to any digit that a score is sorted by.
_MOST_DEGREES = 1e4


def online_scores(phi: FloatArray, shadow_phi: FloatArray, inside: BoolArray) -> FloatArray:
    """``log t(phi; in) - log t(phi; out)`` (n,), by the predictive distributions with and without the row.

    Location ``c + d / 2`` and ``c - d / 2`` with the posterior shift d; squared scale: the posterior variance, in the
    bin's ratio of the two sides, plus the posterior variances of c and of half the shift.
    """
    n_in, n_out = inside.sum(axis=0), (~inside).sum(axis=0)
    mean_in, mean_out = _mean(shadow_phi, inside), _mean(shadow_phi, ~inside)
    centre, seen = 0.5 * (mean_in + mean_out), mean_in - mean_out
    trend = _Trend.from_values(centre)
    shift, left = _posterior_shift(seen, shadow_phi, inside, trend)
    squares_in = (((shadow_phi - mean_in) ** 2) * inside).sum(axis=0)
    squares_out = (((shadow_phi - mean_out) ** 2) * ~inside).sum(axis=0)
    variance, degrees = _posterior_variance(squares_in + squares_out, n_in + n_out - 2.0, trend)
    share_in, share_out = _shares(trend, squares_in, squares_out, n_in - 1.0, n_out - 1.0)
    common = variance / (n_in + n_out) + 0.25 * left
    return _log_t(phi, centre + 0.5 * shift, variance * share_in + common, degrees) - _log_t(
        phi, centre - 0.5 * shift, variance * share_out + common, degrees
    )


def offline_scores(phi: FloatArray, shadow_phi: FloatArray, inside: BoolArray) -> FloatArray:
    """``d (phi - mu_out - d / 2) / var`` (n,): the log likelihood ratio of two normals at distance d.

    Mean and variance of a row are those of the models that did not learn it; the shift d, at least 0, is the mean of
    the rows in its bin, as an attacker knows it of rows of his own.
    """
    n_in, n_out = inside.sum(axis=0), (~inside).sum(axis=0)
    mean_out = _mean(shadow_phi, ~inside)
    trend = _Trend.from_values(mean_out)
    squares = (((shadow_phi - mean_out) ** 2) * ~inside).sum(axis=0)
    variance, _ = _posterior_variance(squares, np.maximum(n_out - 1.0, 0.0), trend)
    gained = ((shadow_phi - mean_out) * inside).sum(axis=0)
    shift = np.maximum(trend.mean(gained) / np.maximum(trend.mean(n_in.astype(np.float64)), _SMALLEST), 0.0)
    return np.asarray(shift * (phi - mean_out - 0.5 * shift) / variance, np.float64)


# ---- what rows have in common --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, kw_only=True)
class _Trend:
    """Rows in bins of about equal size by some x (n,). which (n,): each row's bin; middle (k,): mean x of a bin."""

    x: FloatArray
    which: IntArray
    middle: FloatArray

    @classmethod
    def from_values(cls, x: FloatArray) -> _Trend:
        k = min(max(x.size // _ROWS_A_BIN, 1), BINS)
        rank = np.empty(x.size, np.int64)
        rank[np.argsort(x, kind="stable")] = np.arange(x.size)
        which = rank * k // max(x.size, 1)
        return cls(x=x, which=which, middle=np.bincount(which, x) / np.bincount(which))

    def mean(self, y: FloatArray) -> FloatArray:
        """(n,) the bins' means of y (n,), drawn straight between their middles."""
        means = np.bincount(self.which, y) / np.bincount(self.which)
        return np.interp(self.x, self.middle, means)


def _mean(values: FloatArray, mask: BoolArray) -> FloatArray:
    """(n,) means over the models chosen for each row."""
    mean: FloatArray = (values * mask).sum(axis=0) / mask.sum(axis=0)
    return mean


def _posterior_shift(
    row_shift: FloatArray, shadow_phi: FloatArray, inside: BoolArray, trend: _Trend
) -> tuple[FloatArray, FloatArray]:
    """(n,) shift of each row, drawn towards its bin's, and what its variance still is."""
    prior = trend.mean(row_shift)
    # An even number of models, so that no pair of complements is parted.
    half = len(inside) // 4 * 2
    either = []
    for part in (slice(None, half), slice(half, None)):
        some, own = shadow_phi[part], inside[part]
        both = own.any(axis=0) & ~own.all(axis=0)
        n_in, n_out = np.maximum(own.sum(axis=0), 1), np.maximum((~own).sum(axis=0), 1)
        difference = (some * own).sum(axis=0) / n_in - (some * ~own).sum(axis=0) / n_out
        either.append((both, np.where(both, difference - prior, 0.0)))
    (first_known, first), (second_known, second) = either
    known = trend.mean(np.asarray(first_known & second_known, np.float64))
    between = np.maximum(trend.mean(first * second) / np.maximum(known, _SMALLEST), 0.0)
    away: FloatArray = (row_shift - prior) ** 2
    whole = np.maximum(trend.mean(away), _SMALLEST)
    weight = np.minimum(between / whole, 1.0)
    return prior + weight * (row_shift - prior), weight * (1.0 - weight) * whole


def _posterior_variance(squares: FloatArray, degrees: FloatArray, trend: _Trend) -> tuple[FloatArray, FloatArray]:
    """(n,) variance of each row, drawn towards its bin's, and its degrees of freedom; ``squares``: sums of them."""
    own = degrees > 0.0
    half = 0.5 * np.where(own, degrees, 1.0)
    floor = max(_SMALLEST_SHARE * float(squares.mean()), _SMALLEST)
    # The logarithm of a sample's variance, less what it is off by in expectation.
    log = np.log(np.maximum(squares / (2.0 * half), floor)) - scipy.special.digamma(half) + np.log(half)
    share = np.maximum(trend.mean(own.astype(np.float64)), _SMALLEST)
    middle = trend.mean(np.where(own, log, 0.0)) / share
    spread = float(np.mean((log - middle)[own] ** 2 - scipy.special.polygamma(1, half[own]))) if own.any() else 0.0
    prior_degrees = min(2.0 * _inverse_trigamma(spread), _MOST_DEGREES) if spread > 0.0 else _MOST_DEGREES
    prior = np.exp(middle + scipy.special.digamma(0.5 * prior_degrees) - np.log(0.5 * prior_degrees))
    total = prior_degrees + degrees
    return np.maximum((prior_degrees * prior + squares) / total, _SMALLEST), total


def _inverse_trigamma(value: float) -> float:
    """x > 0 with ``trigamma(x) = value`` > 0, by Newton's method on its reciprocal, which rises from below."""
    x = 0.5 + 1.0 / value
    for _ in range(50):
        at = float(scipy.special.polygamma(1, x))
        step = at * (1.0 - at / value) / float(scipy.special.polygamma(2, x))
        x += step
        if abs(step) < 1e-9 * x:
            break
    return x


def _shares(
    trend: _Trend, squares_in: FloatArray, squares_out: FloatArray, degrees_in: FloatArray, degrees_out: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """(n,) variances of the two sides over their mean, as in the bin."""
    floor = max(_SMALLEST_SHARE * float((squares_in + squares_out).mean()), _SMALLEST)
    sides = []
    for squares, degrees in ((squares_in, degrees_in), (squares_out, degrees_out)):
        sides.append(np.maximum(trend.mean(squares) / np.maximum(trend.mean(degrees), _SMALLEST), floor))
    total = sides[0] + sides[1]
    return 2.0 * sides[0] / total, 2.0 * sides[1] / total


def _log_t(x: FloatArray, location: FloatArray, scale_squared: FloatArray, degrees: FloatArray) -> FloatArray:
    """Log density of Student's t but for what depends on the degrees of freedom alone."""
    distance = (x - location) ** 2 / (degrees * scale_squared)
    density: FloatArray = -0.5 * np.log(scale_squared) - 0.5 * (degrees + 1.0) * np.log1p(distance)
    return density
