"""Rates over items with missing answers: the minimum and maximum over all possible answers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from auditor.core.rows import FloatArray, IntArray
from auditor.statistics.estimate import Undefined
from auditor.statistics.values import RatioBetween, RatioOfTotals, ratio_of_totals
from probes.language.preference_shares import FEWEST_CLUSTERS, numbered

# Of the questions: with more that have no answer, what is left is hardly about the model.
MOST_OPEN = 0.5


def share_between(
    least: FloatArray, largest: FloatArray, totals: FloatArray, n_open: int, n: int, *, low: float = 0.0
) -> RatioOfTotals | RatioBetween | Undefined:
    """The share of clusters' totals (n_clusters,), with ``n_open`` of ``n`` rows without an answer.

    One ratio where every row has an answer; Undefined with fewer than two clusters.
    """
    if len(totals) < 2:
        return Undefined(reason="fewer than two questions, of which nothing follows for others")
    most = float(totals.max())
    below, above = (
        ratio_of_totals(numerators=a, denominators=totals, most=most, low=low, high=1.0) for a in (least, largest)
    )
    if isinstance(below, Undefined) or isinstance(above, Undefined):
        return Undefined(reason="fewer than two questions, of which nothing follows for others")
    return RatioBetween(below=below, above=above, n_open=n_open, n=n) if n_open else below


def over_clusters(
    labels: Sequence[Hashable], ends: FloatArray, *, low: float = 0.0, evenly: bool = False
) -> RatioOfTotals | RatioBetween | Undefined:
    """The mean of numbers between (n, 2) minimum and maximum, with bounds over clusters.

    ``labels``: (n,) the cluster of each; ``evenly``: whether clusters weigh the same however many numbers they have.
    """
    codes = numbered(labels)
    sizes = np.bincount(codes).astype(np.float64)
    # An even cluster counts as one, whatever is in it.
    each = sizes if evenly else np.ones(len(sizes))
    least, largest = (np.bincount(codes, weights=ends[:, side]).astype(np.float64) / each for side in (0, 1))
    of = sizes / each
    return share_between(least, largest, of, int((ends[:, 0] < ends[:, 1]).sum()), len(ends), low=low)


def over_members(
    members: Sequence[tuple[Hashable, ...]], ends: FloatArray, *, low: float = 0.0
) -> RatioOfTotals | RatioBetween | Undefined:
    """:func:`over_clusters` for items in one or two clusters each, ``members`` (n,).

    Items with a cluster in common, as whatever member of either, are no independent evidence. The variance between the
    first members' clusters is enlarged to the dyadic one where that is larger: of residuals e,
    ``sum_c (sum e of items with c)^2 - sum_d (sum e of items with the members d)^2``. Source: Cameron and Miller 2014
    (Robust inference for dyadic data).
    """
    found = over_clusters([own[0] for own in members], ends, low=low)
    if isinstance(found, Undefined) or len(members[0]) == 1:
        return found
    if isinstance(found, RatioOfTotals):
        return _enlarged(found, members, ends[:, 0])
    below, above = (_enlarged(part, members, ends[:, i]) for i, part in enumerate((found.below, found.above)))
    return found.model_copy(update={"below": below, "above": above})


def _enlarged(ratio: RatioOfTotals, members: Sequence[tuple[Hashable, ...]], values: FloatArray) -> RatioOfTotals:
    left = values - values.mean()

    def squares(codes: IntArray, weights: FloatArray) -> float:
        return float((np.bincount(codes, weights=weights) ** 2).sum())

    own = squares(numbered([each[0] for each in members]), left)
    of_any = squares(numbered([each[i] for i in (0, 1) for each in members]), np.tile(left, 2))
    of_both = squares(numbered([frozenset(each) for each in members]), left)
    times = max(1.0, (of_any - of_both) / own) if own > 0.0 else 1.0
    second, third = (tuple(times**power * v for v in part) for power, part in ((1.0, ratio.second), (1.5, ratio.third)))
    return ratio.model_copy(update={"second": second, "third": third})


def too_open(clusters: Sequence[Hashable], n_open: int, noun: str) -> str:
    """The reason why a number over questions of these clusters (``noun``, plural) may not be judged, or ""."""
    if n_open > MOST_OPEN * len(clusters):
        return f"{n_open:,} of {len(clusters):,} questions have no answer: what is left says little of the model."
    n = len(set(clusters))
    return f"{n} {noun} are too few to judge by." if n < FEWEST_CLUSTERS else ""
