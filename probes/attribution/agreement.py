"""Agreement between explanations.

Methods of two families, and explanations of different groups of people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import scipy

from auditor.core.rows import BoolArray, FloatArray
from auditor.statistics.estimate import Undefined
from auditor.statistics.values import BoundedMean, LargestGap, WorstValueGap, bounded_mean
from probes.attribution.faithfulness import mean_of

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
