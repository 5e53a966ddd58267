"""Group fairness: do decisions and errors differ between groups?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from auditor.counts import MISSING, GroupCounts, count_groups
from auditor.errors import NotApplicableError
from auditor.finding import Measurement, Pillar
from auditor.probe import Need
from auditor.statistics import AnyEstimate, Proportion, RateTable, Undefined, WorstDifference, WorstRatio

if TYPE_CHECKING:
    from auditor.data import AuditData
    from auditor.model import AuditedModel


class GroupFairness:
    """Selection rate, TPR, FPR and accuracy by group and intersection, and the worst gap between any two groups.

    Per group g, over rows of g: ``selection_rate = P(y_pred = 1)``, ``true_positive_rate = P(y_pred = 1 | y = 1)``,
    ``false_positive_rate = P(y_pred = 1 | y = 0)``, ``accuracy = P(y_pred = y)``, each in [0, 1] with a Clopper-Pearson
    interval. Headlines, aggregation ``worst_case`` and method ``between_groups``, for each sensitive feature and for
    the full intersection:

    - ``demographic_parity_difference``: max - min of the selection rate; [0, 1], ideal 0
    - ``demographic_parity_ratio``: min / max of the selection rate; [0, 1], ideal 1
    - ``equalized_odds_difference``: the larger of the TPR and the FPR difference; [0, 1], ideal 0
    - ``equal_opportunity_difference``: max - min of the TPR; [0, 1], ideal 0

    A rate with no rows (0/0) is undefined, and so is a headline over it. Missing group values are a group of their own.

    intersections: whether to compare the intersection of several sensitive features too.

    Sources: Hardt, Price and Srebro, NeurIPS 2016; Agarwal et al., ICML 2018; definitions as in fairlearn.
    """

    name: ClassVar[str] = "group_fairness"
    pillar: ClassVar[Pillar] = "fairness"
    goal: ClassVar[str] = "Do decisions and errors differ between groups?"
    citation: ClassVar[str] = "Hardt, Price and Srebro, NeurIPS 2016; Agarwal et al., ICML 2018"
    methods: ClassVar[tuple[str, ...]] = ("between_groups",)
    needs: ClassVar[tuple[Need, ...]] = (Need.CLASSIFIER, Need.DATA, Need.SENSITIVE)
    # Smallest equal group size, and the true gap in selection rate, found with 80 % power among 4 judgements at 5 %.
    power = (500, 0.30)

    def __init__(self, *, intersections: bool = True) -> None:
        self.intersections = intersections

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements over the evaluation rows; see the class for what they are."""
        rows = data.evaluation
        if rows.sensitive_features is None:
            raise NotApplicableError("Needs a sensitive feature: add --sensitive COLUMN.")
        columns = [rows.sensitive_features[c].astype("category") for c in rows.sensitive_features.columns]
        return self.measure_counts(
            count_groups(
                model.decisions(rows),
                rows.y_true,
                [(c.cat.codes.to_numpy(), [str(level) for level in c.cat.categories]) for c in columns],
                features=[str(c.name) for c in columns],
                classes=rows.classes or model.classes,
                positive=rows.positive,
            )
        )

    def measure_counts(self, counts: GroupCounts) -> list[Measurement]:
        """The same measurements, from the counts alone."""
        if counts.positive is None:
            raise NotApplicableError(
                f"Needs the favourable label among {', '.join(counts.classes)}: add --positive LABEL."
            )
        wanted: list[tuple[str, ...]] = [(feature,) for feature in counts.features]
        if self.intersections and len(counts.features) > 1:
            wanted.append(counts.features)
        return list(chain.from_iterable(_by(counts.by(features)) for features in wanted))


def _by(counts: GroupCounts) -> list[Measurement]:
    cells = counts.binary()
    negatives, positives = cells[:, 0], cells[:, 1]
    tables = [RateTable(rate="selection_rate", successes=_ints(counts.selected()), n=_ints(counts.sizes()))]
    if counts.labelled:
        tables += [
            RateTable(rate="true_positive_rate", successes=_ints(positives[:, 1]), n=_ints(positives.sum(axis=1))),
            RateTable(rate="false_positive_rate", successes=_ints(negatives[:, 1]), n=_ints(negatives.sum(axis=1))),
            RateTable(
                rate="accuracy",
                successes=_ints(negatives[:, 0] + positives[:, 1]),
                n=_ints(cells.sum(axis=(1, 2))),
            ),
        ]
    per_group = [
        Measurement(
            metric=table.rate,
            method="between_groups",
            estimate=Proportion(successes=k, n=n),
            n_samples=n,
            group=dict(zip(counts.features, group, strict=True)),
        )
        for table in tables
        for group, k, n in zip(counts.groups, table.successes, table.n, strict=True)
    ]
    return _headlines(counts, tables) + per_group


def _headlines(counts: GroupCounts, tables: Sequence[RateTable]) -> list[Measurement]:
    selection = tables[0]
    found: list[tuple[str, float, AnyEstimate, Sequence[RateTable]]] = [
        ("demographic_parity_difference", 0.0, _difference((selection,)), (selection,)),
        ("demographic_parity_ratio", 1.0, _ratio(selection), (selection,)),
    ]
    if counts.labelled:
        odds, opportunity = tuple(tables[1:3]), (tables[1],)
        found += [
            ("equalized_odds_difference", 0.0, _difference(odds), odds),
            ("equal_opportunity_difference", 0.0, _difference(opportunity), opportunity),
        ]
    return [
        Measurement(
            metric=metric,
            method="between_groups",
            estimate=estimate,
            n_samples=sum(sum(table.n) for table in of),
            ideal=ideal,
            sensitive=counts.features,
            detail=_detail(counts, of),
        )
        for metric, ideal, estimate, of in found
    ]


def _difference(tables: tuple[RateTable, ...]) -> AnyEstimate:
    if len(tables[0].n) < 2:
        return Undefined(reason="only one group is present, so there is nothing to compare it with")
    return WorstDifference(tables=tables)


def _ratio(table: RateTable) -> AnyEstimate:
    if len(table.n) < 2:
        return Undefined(reason="only one group is present, so there is nothing to compare it with")
    return WorstRatio(tables=(table,))


def _detail(counts: GroupCounts, tables: Sequence[RateTable]) -> str:
    """Which groups are the extremes, which have no rows for a rate, and which are too small to weigh much."""
    names = [" x ".join(group) for group in counts.groups]
    parts = []
    for table in tables:
        present = [i for i, n in enumerate(table.n) if n]
        absent = [names[i] for i, n in enumerate(table.n) if not n]
        if len(present) > 1:
            of = {i: table.successes[i] / table.n[i] for i in present}
            low, high = min(of, key=lambda i: of[i]), max(of, key=lambda i: of[i])
            parts.append(
                f"{table.rate}: lowest {names[low]} {of[low]:.3f} (n = {table.n[low]:,}), "
                f"highest {names[high]} {of[high]:.3f} (n = {table.n[high]:,})"
            )
        if absent:
            parts.append(f"{table.rate} is undefined (0/0) for {', '.join(absent[:5])}")
    small = [f"{name} ({n})" for name, n in zip(names, counts.sizes().tolist(), strict=True) if n < 30]
    if small:
        parts.append(f"small groups: {', '.join(small[:5])}{' and others' if len(small) > 5 else ''}")
    if any(MISSING in group for group in counts.groups):
        parts.append(f"rows without a group value are the group {MISSING}")
    return "; ".join(parts)


def _ints(values: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> tuple[int, ...]:
    return tuple(int(v) for v in values)
