"""Group metrics of dependent or weighted rows: the same numbers by other estimates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.rows import BoolArray, IntArray
from auditor.data.group_counts import MISSING
from auditor.judging.measurement import Measurement
from auditor.statistics.clusters import (
    ClusteredMean,
    ClusteredRates,
    SmallestClusteredRate,
    WorstClusteredDifference,
    WorstClusteredRatio,
    rates_of_groups,
    too_few,
)
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData

_TPR, _FPR, _FNR = "true_positive_rate", "false_positive_rate", "false_negative_rate"
_Kind = type[WorstClusteredDifference] | type[WorstClusteredRatio] | type[SmallestClusteredRate]
_HEADLINES: Mapping[str, tuple[_Kind, tuple[str, ...]]] = {
    "demographic_parity_difference": (WorstClusteredDifference, ("selection_rate",)),
    "demographic_parity_ratio": (WorstClusteredRatio, ("selection_rate",)),
    "equalized_odds_difference": (WorstClusteredDifference, (_TPR, _FPR)),
    "equalized_odds_ratio": (WorstClusteredRatio, (_TPR, _FPR)),
    "equal_opportunity_difference": (WorstClusteredDifference, (_TPR,)),
    "equal_opportunity_ratio": (WorstClusteredRatio, (_TPR,)),
    "false_positive_rate_difference": (WorstClusteredDifference, (_FPR,)),
    "false_positive_rate_ratio": (WorstClusteredRatio, (_FPR,)),
    "false_negative_rate_difference": (WorstClusteredDifference, (_FNR,)),
    "false_negative_rate_ratio": (WorstClusteredRatio, (_FNR,)),
    "predictive_parity_difference": (WorstClusteredDifference, ("precision",)),
    "accuracy_difference": (WorstClusteredDifference, ("accuracy",)),
    "worst_group_accuracy": (SmallestClusteredRate, ("accuracy",)),
}


def over_clusters(
    measurements: Sequence[Measurement], rows: AuditData, decisions: IntArray, classes: Sequence[str]
) -> list[Measurement]:
    """The measurements with estimates valid for the sampling design of the rows, if available.

    decisions: (n,) the model's decisions. Rates of groups and what is made of pairs of them have one; the others stay
    as they are, for whoever asked to say that they do not hold (:func:`auditor.run.probe.of_design`).
    """
    names = list(rows.classes or classes)

    @cache
    def make_groups(features: tuple[str, ...], positive: int) -> _Groups:
        return _Groups.from_rows(rows, decisions, features, positive)

    found = []
    for m in measurements:
        named = m.at.get("class")
        positive = rows.positive if named is None else names.index(str(named))
        features = m.sensitive or tuple(m.group)
        known = not isinstance(m.estimate, Undefined) and positive is not None and set(m.at) <= {"class"} and features
        found.append(_replaced(m, make_groups(features, positive)) if known and positive is not None else m)
    return found


def _replaced(m: Measurement, groups: _Groups) -> Measurement:
    if m.group:
        if m.metric not in _RATES:
            return m
        part = groups.rate(m.metric).parts[groups.names.index(tuple(m.group.values()))]
        if isinstance(part, Undefined):
            return replace(m, estimate=part)
        few = too_few(part, f"{part.effective:,.3g} effective clusters")
        return replace(m, estimate=part, too_few=m.too_few or few, detail=f"effective n {part.effective:,.4g}")
    if m.metric not in _HEADLINES:
        return m
    kind, names = _HEADLINES[m.metric]
    tables = tuple(groups.rate(name) for name in names)
    estimate: AnyEstimate = kind(tables=tables)
    said = [*map(groups.extremes, tables), groups.small, groups.without_weights(m.estimate)]
    return replace(m, estimate=estimate, detail="; ".join(filter(None, said)))


@dataclass(frozen=True, eq=False)
class _Groups:
    """The rows (n,) of one or several sensitive features: the group of each, and what of them a rate counts."""

    features: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]
    codes: IntArray
    rows: AuditData
    chosen: BoolArray
    truth: IntArray
    positive: int

    @classmethod
    def from_rows(cls, rows: AuditData, decisions: IntArray, features: tuple[str, ...], positive: int) -> _Groups:
        table = rows.sensitive_features
        assert table is not None
        columns = [table[name].astype("string").fillna(MISSING) for name in features]
        keys = list(zip(*(column.tolist() for column in columns), strict=True))
        names = tuple(sorted(set(keys)))
        place = {name: i for i, name in enumerate(names)}
        codes = np.asarray([place[key] for key in keys], np.int64)
        truth = np.full(len(rows), -1) if rows.y_true is None else rows.y_true
        return cls(features, names, codes, rows, decisions == positive, truth, positive)

    def rate(self, name: str) -> ClusteredRates:
        """A rate of every group, over the rows that it is taken over."""
        design = self.rows.design
        assert design is not None
        counted, won = _RATES[name](self)
        return rates_of_groups(
            name, won, np.where(counted, self.codes, -1), len(self.names), design.codes(), design.weights
        )

    @property
    def small(self) -> str:
        """Which groups have too few clusters for anything to be judged of them."""
        parts = self.rate("selection_rate").parts
        few = [
            " x ".join(name)
            for name, part in zip(self.names, parts, strict=True)
            if not isinstance(part, ClusteredMean) or part.silent
        ]
        return f"too few clusters to bound a rate: {', '.join(few[:5])}" if few else ""

    def without_weights(self, estimate: AnyEstimate) -> str:
        """What the number is where all rows weigh the same: weights are as given, and can move a verdict."""
        unweighted = self.rows.design is None or self.rows.design.weights is None or math.isnan(estimate.value)
        return "" if unweighted else f"without weights: {estimate.value:.3f}"

    def extremes(self, table: ClusteredRates) -> str:
        """Which groups have the lowest and the highest rate, and how many rows or clusters these count as."""
        known = [(p.centre, " x ".join(g), p) for g, p in zip(self.names, table.parts, strict=True)
                 if isinstance(p, ClusteredMean)]  # fmt: skip
        if len(known) < 2:
            return ""
        (low, lowest, a), (high, highest, b) = min(known, key=lambda k: k[0]), max(known, key=lambda k: k[0])
        return (
            f"{table.rate} by {' x '.join(self.features)}: lowest {lowest} {low:.3f} (effective n {a.effective:,.4g}), "
            f"highest {highest} {high:.3f} (effective n {b.effective:,.4g})"
        )


def _labelled(g: _Groups) -> BoolArray:
    return np.asarray(g.truth >= 0, bool)


def _is_positive(g: _Groups) -> BoolArray:
    return np.asarray(g.truth == g.positive, bool)


# Of each rate: the rows that it is taken over, and those of them that count as a success.
_RATES: Mapping[str, Callable[[_Groups], tuple[BoolArray, BoolArray]]] = {
    "selection_rate": lambda g: (np.ones(len(g.codes), bool), g.chosen),
    "accuracy": lambda g: (_labelled(g), g.chosen == _is_positive(g)),
    "precision": lambda g: (_labelled(g) & g.chosen, _is_positive(g)),
    _TPR: lambda g: (_is_positive(g), g.chosen),
    _FPR: lambda g: (_labelled(g) & ~_is_positive(g), g.chosen),
    _FNR: lambda g: (_is_positive(g), ~g.chosen),
}
