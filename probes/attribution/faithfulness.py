"""Faithfulness of an attribution to the inputs that determine the score, and agreement between explanations.

Units are taken away, and put back, in the order that the attribution gives.

Comprehensiveness and sufficiency (DeYoung et al., ACL 2020) with their area over the perturbation curve, deletion and
insertion (Petsiuk, Das and Saenko, BMVC 2018), all from one set of masked scores that methods share.

Agreement is measured between methods of two families, and between explanations of different groups of people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.statistics.estimate import Undefined
from auditor.statistics.values import BoundedMean, LargestGap, WorstValueGap, bounded_mean
from probes.attribution.attribution_units import Units

# Comprehensiveness and sufficiency average over shares up to a half, as published; the curves run on to all units.
FRACTIONS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75)
MOST_REMOVED = 0.5
RANDOM = "random"
OCCLUSION = "occlusion"
# A score that moves by less than rounding in float32 can make it is not moved.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False, kw_only=True)
class Curves:
    """Scores of n samples under removal of units, most important first: ``x`` (n, k): shares removed or inserted.

    ``deletion``: (n, k) score without them; ``insertion``: (n, k) score of them alone. At share 0 deletion is the
    sample's own score and insertion that of nothing left; at 1 the other way round.
    """

    x: FloatArray
    deletion: FloatArray
    insertion: FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class Grades:
    """One method's numbers on each of n samples, in units of the sample's span, the largest change of a score.

    ``comprehensiveness`` and ``sufficiency``: (n,) in [-1, 1], ideal 1 and -1 or 0; ``deletion_auc`` and
    ``insertion_auc``: (n,) in [0, 1], ideal 0 and 1. NaN for samples with fewer than two units, or no span.
    ``why_none``: why no sample has a number, where none has.
    """

    comprehensiveness: FloatArray
    sufficiency: FloatArray
    deletion_auc: FloatArray
    insertion_auc: FloatArray
    why_none: str = ""


def random_attribution(units: Units, rows: IntArray, rng: np.random.Generator) -> FloatArray:
    """(m, d) a random attribution: every order of the units is equally probable."""
    return rng.random((len(rows), units.d))


def occlusion(units: Units, rows: IntArray) -> FloatArray:
    """(m, d) the score drop without each single unit; 0 if there is no unit.

    Source: Zeiler and Fergus, ECCV 2014.
    """
    present = units.present[rows]
    own = units.score(rows, present)
    which, unit = np.nonzero(present)
    keep = present[which]
    keep[np.arange(len(which)), unit] = False
    drops = np.zeros(present.shape)
    drops[which, unit] = own[which] - units.score(rows[which], keep)
    return drops


def ranking(values: FloatArray, present: BoolArray, signs: FloatArray, rng: np.random.Generator) -> IntArray:
    """(m, d) units from most to least important for the model's output; absent units come last.

    ``signs`` (m,): 1 where the score lies above that of nothing left, -1 where below, which turns the attributions
    round: what holds a low score low is what matters to it. Attributions that are nowhere negative are magnitudes and
    are not turned. Ties are broken at random, else an attribution without an opinion would have the columns' order.
    """
    turned = values * signs[:, None] if (values < 0.0).any() else values
    broken = rng.random(values.shape)
    return np.lexsort((broken, -turned, ~present), axis=1).astype(np.int64)


def counts_at(present: BoolArray, fractions: Sequence[float]) -> IntArray:
    """(m, k) how many of each sample's units a share of them is, rounded up."""
    return np.ceil(np.outer(present.sum(axis=1), fractions) - 1e-9).astype(np.int64)


def ends(units: Units, rows: IntArray) -> tuple[FloatArray, FloatArray]:
    """(m,) score of each sample unchanged, and of each without any unit."""
    present = units.present[rows]
    scores = units.score(np.concatenate([rows, rows]), np.concatenate([present, np.zeros_like(present)]))
    return scores[: len(rows)], scores[len(rows) :]


def curves(
    units: Units,
    rows: IntArray,
    orders: Mapping[str, IntArray],
    full: FloatArray,
    empty: FloatArray,
    fractions: Sequence[float] = FRACTIONS,
) -> dict[str, Curves]:
    """Deletion and insertion curves of several orders, each (m, d), from one call of the score.

    ``full``, ``empty``: (m,) of :func:`ends`. Where two shares are the same number of units, or that number is all of
    them, no score is asked for twice.
    """
    present = units.present[rows]
    counts = counts_at(present, fractions)
    sizes = present.sum(axis=1, keepdims=True)
    # A share whose count is that of the share before it has its scores.
    new = (np.diff(counts, axis=1, prepend=0) > 0) & (counts < sizes)
    where, at = np.nonzero(new)
    masks = []
    for order in orders.values():
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(units.d)[None, :], axis=1)
        taken = rank[where] < counts[where, at][:, None]
        masks += [present[where] & ~taken, present[where] & taken]
    keep = np.concatenate(masks) if masks else np.zeros((0, units.d), bool)
    asked = np.tile(rows[where], 2 * len(orders))
    scores = units.score(asked, keep) if len(asked) else np.zeros(0)
    parts = scores.reshape(2 * len(orders), len(where))
    share = counts / np.maximum(sizes, 1)
    found = {}
    for i, name in enumerate(orders):
        deletion, insertion = (
            _spread(part, new, counts, sizes, start, end)
            for part, start, end in ((parts[2 * i], full, empty), (parts[2 * i + 1], empty, full))
        )
        found[name] = Curves(
            x=np.pad(share, ((0, 0), (1, 1)), constant_values=((0, 0), (0.0, 1.0))),
            deletion=np.column_stack([full, deletion, empty]),
            insertion=np.column_stack([empty, insertion, full]),
        )
    return found


def _spread(
    scores: FloatArray, new: BoolArray, counts: IntArray, sizes: IntArray, start: FloatArray, end: FloatArray
) -> FloatArray:
    """(m, k) the scores that were asked for, in their places, and in the places that share them."""
    out = np.full(counts.shape, np.nan)
    out[new] = scores
    for j in range(counts.shape[1]):
        before = out[:, j - 1] if j else start
        out[:, j] = np.where(new[:, j], out[:, j], before)
    return np.where(counts >= sizes, end[:, None], out)


def grade(
    units: Units,
    rows: IntArray,
    attributions: Mapping[str, FloatArray],
    rng: np.random.Generator,
    fractions: Sequence[float] = FRACTIONS,
) -> dict[str, Grades]:
    """Grades of several methods' attributions, each (m, d) for samples ``rows`` (m,), on the same footing.

    With f the score turned to count up from nothing left, and R_q the top share q of the units:

    - comprehensiveness: mean over q up to a half of ``f(x) - f(x without R_q)``; sufficiency: of ``f(x) - f(R_q
      alone)``
    - deletion_auc, insertion_auc: area under ``f(x without R_q)`` and ``f(R_q alone)`` over q from 0 to 1, from the
      sample's lowest score

    each divided by the sample's span, its largest minus its smallest score over all methods' curves. So every sample
    counts alike, and exchanging one method's attribution with another's exchanges their numbers and nothing else.
    """
    full, empty = ends(units, rows)
    signs = np.where(full >= empty, 1.0, -1.0)
    present = units.present[rows]
    orders = {name: ranking(values, present, signs, rng) for name, values in attributions.items()}
    found = curves(units, rows, orders, full, empty, fractions)
    return graded(found, signs, present.sum(axis=1), fractions)


def graded(
    curves: Mapping[str, Curves], signs: FloatArray, sizes: IntArray, fractions: Sequence[float] = FRACTIONS
) -> dict[str, Grades]:
    """Grades from curves; ``signs`` and ``sizes`` (m,): the direction of each sample's score and how many units."""
    everything = np.concatenate([part for c in curves.values() for part in (c.deletion, c.insertion)], axis=1)
    everything = everything * signs[:, None]
    lowest = everything.min(axis=1)
    span = everything.max(axis=1) - lowest
    scale = max(1.0, float(np.abs(everything).max(initial=0.0)))
    moved, several = span > _ROUNDING * scale, np.asarray(sizes) >= 2
    usable = moved & several
    span = np.where(usable, span, np.nan)
    upto = 1 + np.flatnonzero(np.asarray(fractions) <= MOST_REMOVED)
    out = {}
    for name, c in curves.items():
        deletion, insertion = signs[:, None] * c.deletion, signs[:, None] * c.insertion
        own = deletion[:, :1]
        out[name] = Grades(
            comprehensiveness=(own - deletion[:, upto]).mean(axis=1) / span,
            sufficiency=(own - insertion[:, upto]).mean(axis=1) / span,
            deletion_auc=_area(c.x, deletion - lowest[:, None]) / span,
            insertion_auc=_area(c.x, insertion - lowest[:, None]) / span,
            why_none="" if usable.any() else _why_none(moved, several),
        )
    return out


def _why_none(has_moved: BoolArray, several: BoolArray) -> str:
    if not has_moved.any():
        return NO_SPAN
    return NOT_SEVERAL if several.any() else ONE_UNIT


def _area(x: FloatArray, y: FloatArray) -> FloatArray:
    """(n,) trapezoids under each row."""
    return np.asarray((np.diff(x, axis=1) * (y[:, 1:] + y[:, :-1])).sum(axis=1) / 2.0, np.float64)


NO_SPAN = "the score is the same whatever is taken away, so nothing can be said to matter to it"
ONE_UNIT = (
    "every sampled row has a single unit, on which all of its score rests: there is no order of units to grade, and "
    "nothing for an explanation to tell apart"
)
NOT_SEVERAL = (
    "no sampled row has both several units and a score that moves as they are taken away: there is no order of units "
    "to grade"
)


def mean_of(values: FloatArray, low: float, high: float, why_none: str = "") -> BoundedMean | Undefined:
    """The mean over the samples with a value; undefined without any, for the given reason."""
    kept = values[np.isfinite(values)]
    if not kept.size:
        return Undefined(reason=why_none or NO_SPAN)
    return bounded_mean(np.clip(kept, low, high), low=low, high=high)


def gain(grades: Mapping[str, Grades], method: str, baseline: str = RANDOM) -> BoundedMean | Undefined:
    """Mean over samples of the comprehensiveness of ``method`` minus that of ``baseline``, paired, in [-1, 1].

    Both lie within the sample's span, so their difference does too, and the bounds hold at every level. Where
    ``method`` is as random as ``baseline`` the true value is exactly 0, because the span does not change when the two
    are exchanged.
    """
    own, other = grades[method], grades[baseline]
    return mean_of(own.comprehensiveness - other.comprehensiveness, -1.0, 1.0, own.why_none)


TOO_FEW_UNITS = "an order of fewer than two units says nothing"
NO_ORDER = "one of the two gives all units of every sample the same, which is no order to compare"


def rank_correlations(first: FloatArray, second: FloatArray, present: BoolArray) -> FloatArray:
    """(n,) Spearman's rank correlation of each sample's attributions over the present units, in [-1, 1].

    Signed attributions are compared with their signs; where either is nowhere negative, magnitudes are. NaN where a
    sample has fewer than two units or one side gives all of them the same.
    """
    if not ((first < 0.0).any() and (second < 0.0).any()):
        first, second = np.abs(first), np.abs(second)
    a, b = (_centred_ranks(x, present) for x in (first, second))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.asarray(np.clip(found, -1.0, 1.0), np.float64)


def _centred_ranks(values: FloatArray, present: BoolArray) -> FloatArray:
    """(n, d) ranks among the units that are there less their mean, ties shared; 0 where there is no unit."""
    ranks = scipy.stats.rankdata(np.where(present, values, np.inf), axis=1)
    sizes = present.sum(axis=1, keepdims=True)
    return np.where(present, ranks - (sizes + 1) / 2.0, 0.0)


def rank_agreement(first: FloatArray, second: FloatArray, present: BoolArray) -> BoundedMean | Undefined:
    """Mean over samples of :func:`rank_correlations`, with bounds valid at every level."""
    why_none = NO_ORDER if (present.sum(axis=1) >= 2).any() else TOO_FEW_UNITS
    return mean_of(rank_correlations(first, second, present), -1.0, 1.0, why_none)


def shares(values: FloatArray) -> FloatArray:
    """(n, d) each unit's share ``|a_ij| / sum_j |a_ij|`` of its sample's attribution; NaN where that is 0."""
    sizes = np.abs(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sizes / sizes.sum(axis=1, keepdims=True), np.float64)


def group_gaps(
    values: FloatArray, groups: Sequence[str], names: Sequence[str]
) -> tuple[LargestGap | Undefined, Mapping[str, WorstValueGap]]:
    """Differences between groups in each feature's share of the explanations, and the largest over features.

    For feature j the largest difference between any two groups of the mean of ``|a_ij| / sum_j |a_ij|``, in [0, 1]. The
    largest over features and pairs is bounded for all of them together. Groups without a sample that has an attribution
    are undefined parts; with fewer than two groups there is nothing to compare.
    """
    own = shares(values)
    known = np.isfinite(own).all(axis=1)
    labels = np.asarray(groups, object)
    distinct = list(dict.fromkeys(sorted(groups)))
    if len(distinct) < 2:
        return Undefined(reason="there is only one group among the explained rows"), {}
    gaps = {
        name: WorstValueGap(
            parts=tuple(bounded_mean(own[known & (labels == g), j], low=0.0, high=1.0) for g in distinct)
        )
        for j, name in enumerate(names)
    }
    return LargestGap(gaps=tuple(gaps.values())), gaps
