"""Robustness by group: decisions changed by perturbations, and the differences between groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.judging.measurement import Measurement, define_metrics
from auditor.statistics.attack_estimates import AtLeast, AtMost, Bracket, WorstBracketDifference
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.groups import WorstDifference
from auditor.statistics.rates import Proportion, RateTable
from auditor.statistics.values import WorstValueGap, bounded_mean
from probes.fairness.group_limits import Compared, SmallGroups, compare_groups, crowd
from probes.fairness.group_metrics import ALONE, headline, rate_table

if TYPE_CHECKING:
    import pandas as pd

    from auditor.data.audit_data import AuditData

At = Mapping[str, str | float]


@dataclass(frozen=True, eq=False)
class Level:
    """Results of n rows at one level of a method: its level, and the decisions on their changed copies, (n,).

    ``searched``: whether the copies were searched for and not drawn, so that a decision that stays says nothing.
    ``masked``: why even that is in doubt, as :class:`~auditor.judging.measurement.Measurement` has it.
    """

    method: str
    at: At
    decisions: IntArray
    searched: bool = False
    detail: str = ""
    masked: str = ""


@dataclass(frozen=True, eq=False)
class _Groups:
    """The groups of one sensitive feature, and which each row belongs to: (n,) places in ``of.whole.groups``."""

    of: Compared
    places: IntArray


GROUP_METRICS = define_metrics(
    """
    clean_accuracy: P(decision = y) of the rows as they are; [0, 1], ideal 1; where the curves of accuracy under changes
      start; Hendrycks and Dietterich, ICLR 2019
    accuracy_under_*: P(decision on the row changed by that method = y), over the labelled rows; [0, 1], ideal 1; at 0.8
      eight of ten rows are still decided rightly after the change; Hendrycks and Dietterich, ICLR 2019
    flip_rate_under_*: P(decision on the row changed by that method != decision on the row); [0, 1], ideal 0; at 0.1 one
      decision in ten does not survive the change; Hendrycks and Dietterich, ICLR 2019
    accuracy_difference_under_*, flip_rate_difference_under_*, clean_accuracy_difference: max - min over groups of that
      rate; [0, 1], ideal 0; at 0.1 one group withstands 10 points worse than another; Nanda et al., FAccT 2021
    """
)


def by_group(levels: Sequence[Level], sample: AuditData, clean: IntArray, classes: Sequence[str]) -> list[Measurement]:
    """Accuracy and flip rate of each group at each level, and the largest difference between any two groups.

    For each sensitive feature and method, of each ``group``, and of all rows the first three: ``clean_accuracy``,
    ``accuracy_under_*``, ``flip_rate_under_*``, ``accuracy_difference_under_*``, ``flip_rate_difference_under_*`` and
    ``clean_accuracy_difference``.

    Small groups are compared as one, as :class:`~probes.fairness.group_fairness.GroupFairness` has them.

    Where copies were drawn, differences are bounded by exact tests of all pairs. Where they were searched for, each
    group's flips and errors are at least what was found and at most all its rows, and a difference is bounded by these:
    it is shown, and can be judged within a bound no sooner than the rest is proved. clean (n,) is decided on the rows.
    """
    found: list[Measurement] = []
    for groups in _groups(sample, clean, classes):
        for level in levels:
            if isinstance(groups, Measurement):
                metric = f"flip_rate_difference_under_{level.method}"
                found.append(replace(groups, metric=metric, method=level.method, at=level.at))
                continue
            y = sample.y_true
            if y is not None and (y >= 0).any():
                found += _rate(groups, "accuracy", level.decisions == y, y >= 0, level, 1.0)
            found += _rate(groups, "flip_rate", level.decisions != clean, np.ones(len(clean), bool), level, 0.0)
    return found


def clean_by_group(sample: AuditData, clean: IntArray, classes: Sequence[str]) -> list[Measurement]:
    """``clean_accuracy`` of each group on unchanged rows, and ``clean_accuracy_difference``, max - min of it.

    It is where the curves of the groups start; [0, 1], ideal 0.
    """
    y = sample.y_true
    if y is None or not (y >= 0).any():
        return []
    known = [groups for groups in _groups(sample, clean, classes) if isinstance(groups, _Groups)]
    return [m for groups in known for m in _rate(groups, "clean_accuracy", clean == y, y >= 0, None, 1.0)]


def means_by_group(
    rate: str,
    method: str,
    values: FloatArray,
    mask: BoolArray,
    sample: AuditData,
    clean: IntArray,
    classes: Sequence[str],
    *,
    ideal: float,
) -> list[Measurement]:
    """``rate_under_method`` of each group as the mean of rows' ``values`` in [0, 1], (n,), and the largest difference.

    ``mask``: (n,) the rows that it is taken of.
    """
    found = []
    for groups in _groups(sample, clean, classes):
        if isinstance(groups, Measurement):
            found.append(replace(groups, metric=f"{rate}_difference_under_{method}", method=method))
            continue
        whole, homes = groups.of.whole.groups, groups.of.homes[groups.places]
        means = [bounded_mean(values[mask & (groups.places == i)], low=0.0, high=1.0) for i in range(len(whole))]
        compared = range(len(groups.of.counts.groups))
        kept = tuple(bounded_mean(values[mask & (homes == i)], low=0.0, high=1.0) for i in compared)
        gap: AnyEstimate = WorstValueGap(parts=kept) if len(kept) > 1 else ALONE
        shared = Measurement(metric="", method=method, estimate=gap, n_samples=int(mask.sum()), ideal=0.0)
        largest = replace(shared, metric=f"{rate}_difference_under_{method}", sensitive=groups.of.whole.features)
        found.append(groups.of.annotate(largest))
        found += [
            replace(
                shared,
                metric=f"{rate}_under_{method}",
                estimate=mean,
                n_samples=int((mask & (groups.places == i)).sum()),
                ideal=ideal,
                group=dict(zip(groups.of.whole.features, group, strict=True)),
                detail=groups.of.note(group),
            )
            for i, (group, mean) in enumerate(zip(whole, means, strict=True))
        ]
    return found


BRACKET_METRICS = define_metrics(
    """
    certified_accuracy: P(decision = y on the whole ball) of the rows that were proved; [0, 1], ideal 1; at 0.6 six of
      ten rows are proved to be decided rightly whatever happens within the ball, and more may be; Gehr et al., IEEE S&P
      2018, and Xu et al., ICLR 2021
    robust_accuracy: P(decision = y on the whole ball), between the rows proved and the rows that nothing broke; [0, 1],
      ideal 1; at least what was proved and at most what no search broke; Madry et al., ICLR 2018
    robust_accuracy_difference: max - min over groups of the robust accuracy; [0, 1], ideal 0; at 0.1 one group
      withstands 10 points worse than another; Nanda et al., FAccT 2021
    """
)


def brackets_by_group(
    metric: str,
    method: str,
    coordinates: At,
    bounds: tuple[BoolArray, BoolArray],
    sample: AuditData,
    clean: IntArray,
    classes: Sequence[str],
) -> list[Measurement]:
    """A share of each group's labelled rows between the proved rows and those that nothing broke, ``bounds`` two times
    (n,), and ``metric_difference``, the largest between any two groups, which can be judged both ways.
    """
    found = []
    for groups in _groups(sample, clean, classes):
        if isinstance(groups, Measurement):
            found.append(replace(groups, metric=f"{metric}_difference", method=method, at=coordinates))
            continue
        over = np.zeros(len(clean), np.bool_) if sample.y_true is None else sample.y_true >= 0
        whole, k = groups.of.whole, len(groups.of.whole.groups)
        n, proved, possible = (
            np.bincount(groups.places[rows & over], minlength=k) for rows in (over, bounds[0], bounds[1])
        )
        tables = [rate_table(metric, *map(groups.of.gather, (counted, n))) for counted in (proved, possible)]
        gap = WorstBracketDifference(proved=tables[0], possible=tables[1])
        largest = headline(groups.of, f"{metric}_difference", 0.0, gap, tables[:1])
        found.append(replace(largest, method=method, at=coordinates))
        found += [
            Measurement(
                metric=metric,
                method=method,
                estimate=Bracket(proved=int(proved[i]), possible=int(possible[i]), n=int(n[i])),
                n_samples=int(n[i]),
                ideal=1.0,
                group=dict(zip(whole.features, group, strict=True)),
                at=coordinates,
                detail=groups.of.note(group),
            )
            for i, group in enumerate(whole.groups)
        ]
    return found


def _groups(sample: AuditData, clean: IntArray, classes: Sequence[str]) -> Iterator[_Groups | Measurement]:
    """The groups of each sensitive feature, or what is said of one that has too many."""
    table = sample.sensitive_features
    if table is None or not len(sample):
        return
    for name in table.columns:
        counts = sample.count_by_group(clean, classes, by_columns=[table[name]])
        many = crowd("", "", counts.features, len(counts.groups), counts.n)
        yield (
            _Groups(compare_groups(counts, SmallGroups()), _places(table[name], counts.groups))
            if many is None
            else many
        )


def _places(column: pd.Series[Any], groups: Sequence[tuple[str, ...]]) -> IntArray:
    place = {group[0]: i for i, group in enumerate(groups)}
    return np.asarray(column.astype(str).map(place), np.int64)


def _rate(
    groups: _Groups, rate: str, hits: BoolArray, mask: BoolArray, level: Level | None, ideal: float
) -> list[Measurement]:
    """The largest difference of a rate between groups, and the rate of each; ``mask``: the rows that it is taken of."""
    whole = groups.of.whole.groups
    successes = np.bincount(groups.places[hits & mask], minlength=len(whole))
    n = np.bincount(groups.places[mask], minlength=len(whole))
    table = rate_table(rate, *map(groups.of.gather, (successes, n)))
    searched = level is not None and level.searched
    gap: AnyEstimate = _bracketed(table, ideal) if searched else WorstDifference(tables=(table,))
    method, at = (level.method, level.at) if level is not None else ("", {})
    under = f"_under_{method}" if method else ""
    largest = headline(groups.of, f"{rate}_difference{under}", 0.0, gap, (table,), labelled=rate != "flip_rate")
    return [
        replace(largest, method=method, at=at, masked=level.masked if level else ""),
        *(
            Measurement(
                metric=f"{rate}{under}",
                method=method,
                estimate=_of_group(int(k), int(m), searched, ideal),
                n_samples=int(m),
                ideal=ideal,
                group=dict(zip(groups.of.whole.features, group, strict=True)),
                at=at,
                detail="; ".join(filter(None, (level.detail if level else "", groups.of.note(group)))),
                masked=level.masked if level else "",
            )
            for group, k, m in zip(whole, successes, n, strict=True)
        ),
    ]


def _of_group(successes: int, n: int, searched: bool, ideal: float) -> AnyEstimate:
    if not searched:
        return Proportion(successes=successes, n=n)
    return AtMost(successes=successes, n=n) if ideal == 1.0 else AtLeast(successes=successes, n=n)


def _bracketed(table: RateTable, ideal: float) -> WorstBracketDifference:
    """Of accuracy the difference of the error rates, which is the same: errors are what a search finds."""
    k, n = np.asarray(table.successes, np.int64), np.asarray(table.n, np.int64)
    shown, rate = (n - k, "error_rate") if ideal == 1.0 else (k, table.rate)
    return WorstBracketDifference(proved=rate_table(rate, shown, n), possible=rate_table(rate, n, n))
