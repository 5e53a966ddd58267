"""Group metrics beyond demographic parity and equalized odds: from GroupCounts, or dependent or weighted rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.rows import BoolArray, IntArray
from auditor.data.group_counts import MISSING, GroupCounts
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
from auditor.statistics.differential_fairness import DifferentialFairness
from auditor.statistics.distribution_distances import BenefitInequality
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.groups import (
    LargestDisparity,
    SmallestRate,
    WorstDifference,
    WorstOddsRatio,
    WorstRatio,
)
from auditor.statistics.intervals import difference_bounds
from auditor.statistics.means import WorstMeanDifference
from auditor.statistics.rates import Difference, Odds, Proportion, RateTable, WeightedSum
from probes.fairness.group_limits import SHARE, Compared

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData

METHOD = "between_groups"
# Beyond these the joint bounds of a macro average, and a report of every class one by one, are too long to be of use.
MOST_CLASSES = 20
_MOST_PAIRED = 60
# Classes whose extremes are put in words.
_MOST_TOLD = 3
_DISPLAY_ERROR = 0.05
ALONE = Undefined(reason="only one group is present, so there is nothing to compare it with")


def further_measurements(comparison: Compared) -> list[Measurement]:
    """Headline and group rates of one table; see :class:`~probes.fairness.group_fairness.GroupFairness`."""
    outcomes = _outcome_tables(comparison.counts)
    epsilon = DifferentialFairness(tables=outcomes)
    found = [headline(comparison, "differential_fairness_epsilon", 0.0, epsilon, outcomes, labelled=False)]
    if comparison.whole.labelled:
        found += _error_headlines(comparison) + _per_group(comparison)
    return found


def _error_headlines(comparison: Compared) -> list[Measurement]:
    cells = comparison.counts.binary()
    tn, fp, fn, tp = cells[:, 0, 0], cells[:, 0, 1], cells[:, 1, 0], cells[:, 1, 1]
    precision = rate_table("precision", tp, tp + fp)
    tpr, tnr = rate_table("true_positive_rate", tp, tp + fn), rate_table("true_negative_rate", tn, tn + fp)
    fpr, fnr = rate_table("false_positive_rate", fp, tn + fp), rate_table("false_negative_rate", fn, tp + fn)
    errors = rate_table("false_negatives_among_errors", fn, fn + fp)
    accuracy = rate_table("accuracy", tn + tp, cells.sum(axis=(1, 2)))
    headlines: list[tuple[str, float, AnyEstimate, Sequence[RateTable]]] = [
        ("equalized_odds_ratio", 1.0, WorstRatio(tables=(tpr, fpr)), (tpr, fpr)),
        ("equal_opportunity_ratio", 1.0, WorstRatio(tables=(tpr,)), (tpr,)),
        ("predictive_parity_difference", 0.0, WorstDifference(tables=(precision,)), (precision,)),
        ("false_positive_rate_difference", 0.0, WorstDifference(tables=(fpr,)), (fpr,)),
        ("false_positive_rate_ratio", 1.0, WorstRatio(tables=(fpr,)), (fpr,)),
        ("false_negative_rate_difference", 0.0, WorstDifference(tables=(fnr,)), (fnr,)),
        ("false_negative_rate_ratio", 1.0, WorstRatio(tables=(fnr,)), (fnr,)),
        ("balanced_accuracy_difference", 0.0, WorstMeanDifference(tables=(tpr, tnr)), (tpr, tnr)),
        ("accuracy_difference", 0.0, WorstDifference(tables=(accuracy,)), (accuracy,)),
        ("treatment_equality_ratio", 1.0, WorstOddsRatio(tables=(errors,)), (errors,)),
        ("worst_group_accuracy", 1.0, SmallestRate(table=accuracy), (accuracy,)),
    ]
    return [headline(comparison, *each) for each in headlines]


def _per_group(comparison: Compared) -> list[Measurement]:
    counts, found = comparison.whole, []
    for group, ((tn, fp), (fn, tp)) in zip(counts.groups, counts.binary().tolist(), strict=True):
        of = dict(zip(counts.features, group, strict=True))
        estimates: list[tuple[str, AnyEstimate, str]] = [
            ("precision", Proportion(successes=tp, n=tp + fp), f"over the {tp + fp:,} rows decided favourably"),
            ("false_negative_rate", Proportion(successes=fn, n=tp + fn), over_favourable(tp + fn)),
            ("treatment_equality", Odds(successes=fn, failures=fp), f"over the {fn + fp:,} rows decided wrongly"),
        ]
        found += [
            Measurement(
                metric=metric,
                method=METHOD,
                estimate=estimate,
                n_samples=tn + fp + fn + tp,
                group=of,
                detail="; ".join(filter(None, (detail, comparison.note(group)))),
            )
            for metric, estimate, detail in estimates
        ]
    return found


def over_favourable(n: int) -> str:
    """The number of a group's favourable rows in a rate, in words."""
    return f"over the {n:,} rows whose label is the favourable one"


def individual_inequality(counts: GroupCounts) -> list[Measurement]:
    """Generalized entropy (order 2) and Theil's index of the benefits of all labelled rows, ignoring groups."""
    (tn, fp), (fn, tp) = counts.binary().sum(axis=0).tolist()
    return [
        Measurement(
            metric=metric,
            method=METHOD,
            estimate=BenefitInequality(order=order, below=fn, equal=tn + tp, above=fp),
            n_samples=tn + fp + fn + tp,
            ideal=0.0,
            detail=f"{fn:,} false negatives, {fp:,} false positives, {tn + tp:,} correct decisions",
        )
        for metric, order in (("generalized_entropy_index", 2.0), ("theil_index", 1.0))
    ]


# ---- several classes -----------------------------------------------------------------------------------------------


def one_vs_rest(counts: GroupCounts) -> list[tuple[str, GroupCounts]]:
    """Each class's name, and the counts with it as the favourable class."""
    return [(name, replace(counts, positive=c)) for c, name in enumerate(counts.classes)]


def at_class(measurements: Sequence[Measurement], name: str) -> list[Measurement]:
    """The same measurements, marked with the class compared with all others."""
    return [replace(m, at={**m.at, "class": name}) for m in measurements]


def macro_measurements(comparison: Compared) -> list[Measurement]:
    """Balanced accuracy and precision averaged over the classes, and accuracy over all classes, between groups."""
    counts, table = comparison.counts, comparison.counts.table[:, :-1]
    hits = np.diagonal(table, axis1=1, axis2=2)
    recall = [rate_table(f"recall of {c}", hits[:, i], table[:, i].sum(axis=1)) for i, c in enumerate(counts.classes)]
    precision = [
        rate_table(f"precision of {c}", hits[:, i], table[:, :, i].sum(axis=1)) for i, c in enumerate(counts.classes)
    ]
    accuracy = rate_table("accuracy", hits.sum(axis=1), table.sum(axis=(1, 2)))
    macro = [
        headline(comparison, "balanced_accuracy_difference", 0.0, _mean_difference(recall), recall[:_MOST_TOLD]),
        headline(comparison, "predictive_parity_difference", 0.0, _mean_difference(precision), precision[:_MOST_TOLD]),
    ]
    micro = headline(comparison, "worst_group_accuracy", 1.0, SmallestRate(table=accuracy), (accuracy,))
    return [*(replace(m, at={"average": "macro"}) for m in macro), replace(micro, at={"average": "micro"})]


def _mean_difference(tables: Sequence[RateTable]) -> AnyEstimate:
    if len(tables) > MOST_CLASSES:
        return Undefined(reason=f"joint bounds of a macro average are computed for up to {MOST_CLASSES} classes")
    return WorstMeanDifference(tables=tuple(tables))


# ---- demographic disparity -----------------------------------------------------------------------------------------


def disparity_measurements(counts: GroupCounts, strata: str) -> list[Measurement]:
    """Demographic disparity of each group, and conditional on the strata, a feature of ``counts``; first the largest.

    ``DD_g = P(group = g | rejected) - P(group = g | accepted)``; ``CDD_g = sum_s (n_s / n) DD_gs`` over the strata.
    Either sums to 0 over the groups: the largest is that of the group that is worst off. A stratum in which all or none
    are accepted leaves 0/0: undefined.
    """
    names = tuple(f for f in counts.features if f != strata)
    table = counts.group_by((*names, strata))
    levels = sorted({group[-1] for group in table.groups})
    groups = sorted({group[:-1] for group in table.groups})
    selected = np.zeros((len(groups), len(levels)), np.int64)
    sizes = np.zeros_like(selected)
    for group, k, n in zip(table.groups, table.selected(), table.sizes(), strict=True):
        cell = groups.index(group[:-1]), levels.index(group[-1])
        selected[cell], sizes[cell] = k, n
    accepted, rejected = selected.sum(axis=0), (sizes - selected).sum(axis=0)
    share = sizes.sum(axis=0) / sizes.sum()
    empty = [level for level, a, r in zip(levels, accepted, rejected, strict=True) if not a or not r]
    over = f"over {len(levels)} strata of {strata}; " + (
        f"undefined (0/0) in {', '.join(empty[:5])}, where all or none are accepted; " if empty else ""
    )
    found = []
    of_groups: list[tuple[Difference, WeightedSum]] = []
    for i, group in enumerate(groups):
        of = dict(zip(names, group, strict=True))
        k = np.r_[sizes[i] - selected[i], selected[i]]
        plain = Difference(
            successes=(int(k[: len(levels)].sum()), int(selected[i].sum())),
            n=(int(rejected.sum()), int(accepted.sum())),
        )
        conditional = WeightedSum(
            weights=tuple(np.r_[share, -share].tolist()),
            table=rate_table("share of the group", k, np.r_[rejected, accepted]),
        )
        of_groups.append((plain, conditional))
        found.append(
            Measurement(
                metric="demographic_disparity",
                method=METHOD,
                estimate=plain,
                n_samples=int(sizes.sum()),
                ideal=0.0,
                group=of,
            )
        )
        found.append(
            Measurement(
                metric="conditional_demographic_disparity",
                method=METHOD,
                estimate=conditional,
                n_samples=int(sizes.sum()),
                ideal=0.0,
                group=of,
                at={"strata": strata},
                detail=f"{over}unconditional: {plain.value:.4f}",
            )
        )
    titles = [" x ".join(group) for group in groups]
    headlines = [
        Measurement(
            metric=metric,
            method=METHOD,
            estimate=LargestDisparity(parts=parts) if len(groups) > 1 else ALONE,
            n_samples=int(sizes.sum()),
            ideal=0.0,
            sensitive=names,
            at=at,
            detail=detail + _most_rejected(titles, parts),
        )
        for metric, at, detail, parts in (
            ("demographic_disparity", {}, "", tuple(plain for plain, _ in of_groups)),
            ("conditional_demographic_disparity", {"strata": strata}, over, tuple(c for _, c in of_groups)),
        )
    ]
    return headlines + found


def _most_rejected(titles: Sequence[str], parts: Sequence[Difference | WeightedSum]) -> str:
    values = [part.value for part in parts]
    if any(map(math.isnan, values)):
        return "undefined for some group"
    worst = int(np.argmax(values))
    return f"largest for {titles[worst]}, whose share of the rejected is that much above its share of the accepted"


# ---- shared --------------------------------------------------------------------------------------------------------


def rate_table(rate: str, successes: IntArray, n: IntArray) -> RateTable:
    """A rate in every group from arrays (n_groups,)."""
    return RateTable(rate=rate, successes=ints(successes), n=ints(n))


def ints(values: IntArray) -> tuple[int, ...]:
    """Plain integers for a record."""
    return tuple(int(v) for v in values)


def _outcome_tables(counts: GroupCounts) -> tuple[RateTable, ...]:
    sizes = counts.sizes()
    if len(counts.classes) == 2 or counts.positive is not None:
        selected = counts.selected()
        return rate_table("favourable outcome", selected, sizes), rate_table("other outcome", sizes - selected, sizes)
    predicted = counts.table.sum(axis=1)
    return tuple(rate_table(f"outcome {c}", predicted[:, i], sizes) for i, c in enumerate(counts.classes))


def headline(
    comparison: Compared,
    metric: str,
    ideal: float,
    estimate: AnyEstimate,
    tables: Sequence[RateTable],
    *,
    labelled: bool = True,
) -> Measurement:
    """A number that compares the groups; ``tables``: the rates with the extremes to report.

    It is about all rows, or all with a label, however few of them each of its rates is taken over.
    """
    counts = comparison.counts
    found = Measurement(
        metric=metric,
        method=METHOD,
        estimate=estimate if len(counts.groups) > 1 or isinstance(estimate, SmallestRate) else ALONE,
        n_samples=int((comparison.whole.table[:, :-1] if labelled else comparison.whole.table).sum()),
        ideal=ideal,
        sensitive=counts.features,
        detail=extremes(counts, tables),
    )
    return comparison.annotate(found)


def _surest_gap(names: Sequence[str], table: RateTable, present: Sequence[int]) -> list[str]:
    """The two groups that these data tell apart best, in words: the extremes may be groups of a handful of rows."""
    pair = _told_apart_best(table)
    if pair is None:
        return []
    low, high = (present[i] for i in pair)
    rates = {i: table.successes[i] / table.n[i] for i in (low, high)}
    return [
        f"{table.rate}, surest gap: {names[low]} {rates[low]:.3f} (n = {table.n[low]:,}) and {names[high]} "
        f"{rates[high]:.3f} (n = {table.n[high]:,})"
    ]


# Several headlines are about one rate.
@lru_cache(maxsize=32)
def _told_apart_best(table: RateTable) -> tuple[int, int] | None:
    """The places of the lower and the higher rate among the groups with rows; None where no two are told apart, or
    these are the extremes."""
    k, n = table.arrays()
    lower = difference_bounds(k, n=n, alpha=_DISPLAY_ERROR / table.n_pairs)[0]
    high, low = (int(i) for i in np.unravel_index(int(np.argmax(lower)), lower.shape))
    of = k / n
    if lower.max() <= 0.0 or (of[low] == of.min() and of[high] == of.max()):
        return None
    return low, high


def extremes(counts: GroupCounts, tables: Sequence[RateTable]) -> str:
    """The extreme groups, those without rows for a rate, and those too small for a large weight."""
    names, by = [" x ".join(group) for group in counts.groups], " x ".join(counts.features)
    parts = []
    for table in tables:
        present = [i for i, n in enumerate(table.n) if n]
        absent = [names[i] for i, n in enumerate(table.n) if not n]
        if len(present) > 1:
            of = {i: table.successes[i] / table.n[i] for i in present}
            low, high = min(of, key=lambda i: of[i]), max(of, key=lambda i: of[i])
            parts.append(
                f"{table.rate} by {by}: lowest {names[low]} {of[low]:.3f} (n = {table.n[low]:,}), "
                f"highest {names[high]} {of[high]:.3f} (n = {table.n[high]:,})"
            )
            if 2 < len(present) <= _MOST_PAIRED:
                parts += _surest_gap(names, table, present)
        if absent:
            parts.append(f"{table.rate} is undefined (0/0) for {', '.join(absent[:5])}")
    small = [f"{name} ({n})" for name, n in zip(names, counts.sizes().tolist(), strict=True) if n < 30]
    if small:
        parts.append(f"small groups: {', '.join(small[:5])}{' and others' if len(small) > 5 else ''}")
    if any(MISSING in group for group in counts.groups):
        parts.append(f"rows without a group value are the group {MISSING}")
    return "; ".join(parts)


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
        if m.metric == SHARE:
            continue
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
    # Dependent or weighted rows may count for more than they are: each of their groups is compared by itself.
    m = replace(m, smallest=0)
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
            name,
            won,
            np.where(counted, self.codes, -1),
            len(self.names),
            design.codes(),
            design.weights,
            design.largest,
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
