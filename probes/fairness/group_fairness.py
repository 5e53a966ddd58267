"""Group fairness: differences of decisions and errors between groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from auditor.core.errors import NotApplicableError, did_you_mean
from auditor.data.bins import BinRule, bin_sensitive
from auditor.data.group_counts import MISSING, GroupCounts
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.planted.twin_costs import Forecast
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.estimate import Power
from auditor.statistics.groups import WorstDifference, WorstRatio
from auditor.statistics.rates import Proportion, RateTable
from probes.fairness.group_limits import (
    MOST_POOLED,
    SHARE,
    Compared,
    SmallGroups,
    compare_groups,
    crowd,
    crowded_strata,
)
from probes.fairness.group_metrics import (
    MOST_CLASSES,
    at_class,
    disparity_measurements,
    further_measurements,
    headline,
    individual_inequality,
    ints,
    macro_measurements,
    one_vs_rest,
    over_clusters,
    over_favourable,
    rate_table,
)
from probes.probe_inputs import whole_number
from probes.twins import with_gap

if TYPE_CHECKING:
    import pandas as pd

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel


class GroupFairness(BaseProbe):
    """Selection rate, TPR, FPR and accuracy by group and intersection, and the worst gap between any two groups.

    Per group g, over rows of g, rates with a Clopper-Pearson interval: ``selection_rate``, ``true_positive_rate``,
    ``false_positive_rate``, ``false_negative_rate``, ``accuracy``, ``precision`` and ``treatment_equality``.

    Headlines, aggregation ``worst_case`` and method ``between_groups``, for each sensitive feature and for the full
    intersection: ``demographic_parity_difference``, ``demographic_parity_ratio``, ``equalized_odds_difference``,
    ``equal_opportunity_difference``, ``equalized_odds_ratio``, ``equal_opportunity_ratio``,
    ``false_positive_rate_difference``, ``false_negative_rate_difference``, ``false_positive_rate_ratio``,
    ``false_negative_rate_ratio``, ``predictive_parity_difference``, ``accuracy_difference``,
    ``balanced_accuracy_difference``, ``treatment_equality_ratio``, ``differential_fairness_epsilon`` and
    ``worst_group_accuracy``.

    Over all rows, with the benefit ``b = y_pred - y_true + 1`` and its mean m; and with ``strata``, of each group and
    as the largest of any group, which lies in [0, 1]: ``generalized_entropy_index``, ``theil_index``,
    ``demographic_disparity`` and ``conditional_demographic_disparity``.

    With more than two classes and no favourable one, everything is measured for each class against the rest (``at``
    names it). With more than two classes, ``balanced_accuracy_difference`` and ``predictive_parity_difference`` also
    come as averages over the classes, and ``worst_group_accuracy`` over all of them.

    With ``--cluster`` or ``--weight`` rates, precision and the headlines made of pairs of them are over clusters with
    their shares (:class:`~auditor.statistics.clusters.ClusteredMean`); the other headlines are NOT_APPLICABLE then.

    A rate with no rows (0/0) is undefined, and so is a headline over it. Missing group values are a group of their own.

    Small groups are compared together, as one group more: those with less than ``min_share`` of the rows and fewer than
    1,000, or fewer than ``min_rows``, the smallest first, as long as they hold a tenth of the rows together at most.
    Each is shown with its own interval. They are left out where even together they are under 2 % of the rows and fewer
    than 1,000, or fewer than ``min_rows``.
    Where one large group is all that there is, all are compared. Demographic disparity compares shares of all rows, in
    which a small group is as well known as a large one, and pools none.

    intersections: whether to compare the intersection of several sensitive features too. strata: a column (a feature or
    a sensitive feature) to condition demographic disparity on; numbers of more than ten values are cut into fifths.
    min_share: least share of the rows that a group of fewer than 1,000 must have to be compared by itself, at most 0.1;
    0 compares all. min_rows: least number of them. pooled: whether small groups are one group together; False leaves
    them out.

    Sources: Hardt, Price and Srebro, NeurIPS 2016; Agarwal et al., ICML 2018; Chouldechova, Big Data 2017 (predictive
    parity); Berk et al. 2018 (treatment equality); Foulds et al., ICDE 2020 (differential fairness); Speicher et al.,
    KDD 2018 (generalized entropy); Wachter, Mittelstadt and Russell 2021 (conditional demographic disparity); Sagawa et
    al., ICLR 2020 (worst group); 6 RCNY 5-301(d) (categories under 2 %); definitions as in fairlearn where it has them.
    """

    name = "group_fairness"
    pillar = "fairness"
    goal = "Do decisions and errors differ between groups?"
    citation = "Hardt, Price and Srebro, NeurIPS 2016; Agarwal et al., ICML 2018"
    methods = ("between_groups",)
    needs = (Need.CLASSIFIER, Need.DATA, Need.SENSITIVE)
    over_all_rows = True
    forecast = Forecast(twin=0.004, number=0.0001, million=0.15)
    questions = (
        AuditQuestion(
            "selection",
            metrics=("demographic_parity_difference",),
            form="points",
            headline=("demographic_parity_difference",),
        ),
        AuditQuestion(
            "errors",
            metrics=(
                "equalized_odds_difference",
                "equal_opportunity_difference",
                "*_rate_difference",
                "*accuracy_difference",
            ),
            form="points",
            headline=("equalized_odds_difference",),
        ),
        AuditQuestion("groups"),
    )
    takes = ("cluster", "weight")
    # A level, which answers that are all the same do not reach by themselves.
    ideal_when_same = {"worst_group_accuracy": "nothing"}
    exact = {SHARE: "It counts the rows at hand and says nothing of others."}
    # Evidence of before small groups were pooled leaves them out, and that of before there was a rule compares all.
    earlier: ClassVar[Sequence[Mapping[str, object]]] = ({"pooled": False}, {"min_share": 0.0})
    # Rows in each of two groups, half of them positive, and the true value found beyond 0.10 (0.80 for the ratio) with
    # 80 % power among 4 judgements at 5 %, where rates around a half make it hardest.
    power: ClassVar[Mapping[str, Power]] = {
        "demographic_parity_difference": Power(500, 0.20),
        "demographic_parity_ratio": Power(500, 0.61),
        "equalized_odds_difference": Power(500, 0.26),
        "equal_opportunity_difference": Power(500, 0.25),
    }
    untrusted_options = allow_untrusted("intersections", "strata")
    metrics = define_metrics(
        """
        selection_rate: P(y_pred = 1) in the group; [0, 1], no ideal; at 0.3 three of ten rows of the group are decided
          favourably; Agarwal et al., ICML 2018
        true_positive_rate: P(y_pred = 1 | y = 1) in the group; [0, 1], ideal 1; of those whose label is favourable this
          share is decided so; Hardt, Price and Srebro, NeurIPS 2016
        false_positive_rate: P(y_pred = 1 | y = 0) in the group; [0, 1], ideal 0; of those whose label is not favourable
          this share is decided favourably all the same; Hardt, Price and Srebro, NeurIPS 2016
        false_negative_rate: P(y_pred = 0 | y = 1) in the group; [0, 1], ideal 0; of those whose label is favourable
          this share is turned down; Chouldechova, Big Data 5 (2017)
        accuracy: P(y_pred = y) in the group; [0, 1], ideal 1; at 0.9 nine of ten rows of the group are decided as their
          labels say; Agarwal et al., ICML 2018
        precision: P(y = 1 | y_pred = 1) in the group; [0, 1], ideal 1; of those decided favourably this share has the
          favourable label; Chouldechova, Big Data 5 (2017)
        treatment_equality: false negatives / false positives of the group; [0, inf), no ideal; at 2 two are wrongly
          turned down for each one wrongly favoured; Berk et al., Sociol. Methods Res. 50 (2021)
        demographic_parity_difference: max - min over groups of the selection rate; [0, 1], ideal 0; at 0.1 one group is
          decided favourably 10 points more often than another; Agarwal et al., ICML 2018
        demographic_parity_ratio: min / max over groups of the selection rate; [0, 1], ideal 1; at 0.8 one group is
          decided favourably four fifths as often as another; Agarwal et al., ICML 2018
        equalized_odds_difference: the larger of the differences, max - min over groups, of the true and of the false
          positive rate; [0, 1], ideal 0; at 0.1 groups with the same label differ by up to 10 points in how often they
          are decided favourably; Hardt, Price and Srebro, NeurIPS 2016
        equal_opportunity_difference: max - min over groups of the true positive rate; [0, 1], ideal 0; at 0.1 of those
          with the favourable label one group is decided so 10 points more often than another; Hardt, Price and Srebro,
          NeurIPS 2016
        equalized_odds_ratio: the smaller of min / max over groups of the true and of the false positive rate; [0, 1],
          ideal 1; at 0.5 one group has half of the other's rate among rows with the same label; Hardt, Price and
          Srebro, NeurIPS 2016
        equal_opportunity_ratio: min / max over groups of the true positive rate; [0, 1], ideal 1; at 0.8 one group with
          the favourable label is decided so four fifths as often as another; Hardt, Price and Srebro, NeurIPS 2016
        false_positive_rate_difference, false_negative_rate_difference: max - min over groups of that rate; [0, 1],
          ideal 0; at 0.1 one group meets this error 10 points more often than another; Chouldechova, Big Data 5 (2017)
        false_positive_rate_ratio, false_negative_rate_ratio: min / max over groups of that rate; [0, 1], ideal 1; at
          0.5 one group meets this error half as often as another; Chouldechova, Big Data 5 (2017)
        predictive_parity_difference: max - min over groups of the precision; [0, 1], ideal 0; at 0.1 a favourable
          decision is right 10 points more often in one group than in another; Chouldechova, Big Data 5 (2017)
        accuracy_difference: max - min over groups of the accuracy; [0, 1], ideal 0; at 0.1 one group is decided rightly
          10 points more often than another; Agarwal et al., ICML 2018
        balanced_accuracy_difference: max - min over groups of the mean of the true positive and the true negative rate;
          [0, 1], ideal 0; at 0.1 the two labels are recognised 10 points better in one group than in another; Brodersen
          et al., ICPR 2010
        treatment_equality_ratio: min / max over groups of the treatment equality FN / FP; [0, 1], ideal 1; at 0.5
          errors fall against one group twice as often, for each one in its favour, as against another; Berk et al.,
          Sociol. Methods Res. 50 (2021)
        differential_fairness_epsilon: max over outcomes y and groups i, j of |ln P(y_pred = y | i) / P(y_pred = y |
          j)|, smoothed by one row an outcome; [0, inf), ideal 0; at 0.69 some outcome is twice as likely in one group
          as in another; Foulds et al., ICDE 2020
        worst_group_accuracy: min over groups of the accuracy; [0, 1], ideal 1; the group served worst is decided
          rightly this often; Sagawa et al., ICLR 2020
        generalized_entropy_index: mean of ((b / m)^2 - 1) / 2, the index of order 2; [0, inf), ideal 0; how unevenly
          wrong decisions share out benefits among all rows, of which 0 is evenly; Speicher et al., KDD 2018
        theil_index: mean of (b / m) ln(b / m), the index of order 1; [0, inf), ideal 0; how unevenly wrong decisions
          share out benefits among all rows, of which 0 is evenly; Speicher et al., KDD 2018
        demographic_disparity: P(g | rejected) - P(g | accepted); [-1, 1], ideal 0; at 0.1 the group's share among the
          rejected is 10 points larger than among the accepted; Wachter, Mittelstadt and Russell, Comput. Law Secur.
          Rev. 41 (2021)
        conditional_demographic_disparity: mean over the strata, weighted by their rows, of P(g | rejected) - P(g |
          accepted); [-1, 1], ideal 0; what is left of the disparity among rows of one stratum; Wachter, Mittelstadt and
          Russell, Comput. Law Secur. Rev. 41 (2021)
        small_group_share: the share of the rows in groups that no headline compares; [0, 1], ideal 0; at 0.01 the
          headlines say nothing of the groups of one row in 100; 6 RCNY 5-301(d), for categories under 2 %
        """
    )

    def __init__(
        self,
        *,
        intersections: bool = True,
        strata: str | None = None,
        min_share: float = 0.02,
        min_rows: int = 30,
        pooled: bool = True,
    ) -> None:
        whole_number("min_rows", min_rows, 1)
        if isinstance(min_share, bool) or not 0.0 <= min_share <= MOST_POOLED:
            raise ValueError(f"min_share must lie between 0 and {MOST_POOLED:g}, not {min_share!r}")
        self.intersections = intersections
        self.strata = strata
        self.small = SmallGroups(min_share, min_rows, pooled)

    @property
    def counts_suffice(self) -> bool:
        """Whether rows may be streamed: not if strata are features, which the counts omit."""
        return self.strata is None

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements on the evaluation rows; see the class for their definitions."""
        rows = data.evaluation
        if rows.sensitive_features is None:
            raise NotApplicableError("Needs a sensitive feature: add --sensitive COLUMN.")
        decided = model.decisions(rows)
        found = self._measure_tables(rows.count_by_group(decided, model.classes))
        if self.strata is not None:
            columns = [rows.sensitive_features[c] for c in rows.sensitive_features.columns if str(c) != self.strata]
            by_stratum = rows.count_by_group(decided, model.classes, by_columns=[*columns, _stratum(rows, self.strata)])
            found += self._disparities(by_stratum, self.strata)
        return found if rows.design is None else over_clusters(found, rows, decided, model.classes)

    def measure_counts(self, counts: GroupCounts) -> list[Measurement]:
        """The same measurements, from the counts alone; NotApplicableError if the counts lack the strata."""
        if self.strata is None:
            return self._measure_tables(counts)
        if self.strata not in counts.features:
            raise NotApplicableError(
                f"Rows are counted as they stream by, and not by {self.strata!r}: to take strata from it, name it with "
                "--sensitive too."
            )
        return [*self._measure_tables(counts), *self._disparities(counts, self.strata)]

    def _disparities(self, counts: GroupCounts, strata: str) -> list[Measurement]:
        if counts.positive is None:
            raise NotApplicableError("Demographic disparity needs the favourable label: add --positive LABEL.")
        wanted = self._feature_sets([f for f in counts.features if f != strata])
        found: list[Measurement] = []
        for features in wanted:
            table = counts.group_by((*features, strata))
            metric, method = "conditional_demographic_disparity", "between_groups"
            many = crowd(metric, method, table.features, len(table.groups), table.n) or crowded_strata(
                metric, method, features, strata, len({group[-1] for group in table.groups}), table.n
            )
            found += disparity_measurements(table, strata) if many is None else [many]
        return found

    def measure_planted(
        self, model: AuditedModel, data: AuditData, measured: Measurement, value: float, rng: np.random.Generator
    ) -> list[Measurement]:
        """The measurements of a twin in which the true value of one of them is known."""
        return self.measure(with_gap(model, data.evaluation, measured, value, rng), data, rng)

    def _measure_tables(self, counts: GroupCounts) -> list[Measurement]:
        n_classes = len(counts.classes)
        if counts.positive is None and not 2 < n_classes <= MOST_CLASSES:
            raise NotApplicableError(
                f"Needs the favourable label among {', '.join(counts.classes[:MOST_CLASSES])}: add --positive LABEL."
            )
        tables, crowds = [], []
        found: list[Measurement] = []
        for table in map(counts.group_by, self._feature_sets(counts.features)):
            many = crowd("demographic_parity_difference", "between_groups", table.features, len(table.groups), table.n)
            if many is None:
                tables.append(compare_groups(table, self.small))
            else:
                crowds.append(many)
        if counts.positive is not None:
            found += chain.from_iterable(map(_measure_by_group, tables))
            found += individual_inequality(counts) if counts.labelled else []
        else:
            found += [
                m
                for table in tables
                for name, against_rest in one_vs_rest(table.whole)
                for m in at_class(_measure_by_group(compare_groups(against_rest, self.small)), name)
            ]
        if n_classes > 2 and counts.labelled:
            found += chain.from_iterable(map(macro_measurements, tables))
        shares = [table.share("between_groups") for table in tables] if self.small.min_share else []
        return found + shares + crowds

    def _feature_sets(self, features: Sequence[str]) -> list[tuple[str, ...]]:
        wanted: list[tuple[str, ...]] = [(feature,) for feature in features]
        return [*wanted, tuple(features)] if self.intersections and len(features) > 1 else wanted


def _stratum(rows: AuditData, name: str) -> pd.Series[Any]:
    import pandas as pd

    tables = [t for t in (rows.sensitive_features, rows.X) if isinstance(t, pd.DataFrame) and name in t.columns]
    if not tables:
        known = [str(c) for t in (rows.X, rows.sensitive_features) if isinstance(t, pd.DataFrame) for c in t.columns]
        raise NotApplicableError(
            f"There is no column {name!r} to take strata from{did_you_mean(name, known) or '.'} Strata are a feature "
            f"that the model takes, or a sensitive feature: add --sensitive {name}."
        )
    values = tables[0][name].reset_index(drop=True)
    if values.dtype.kind in "iuf" and values.nunique() > 10:
        return bin_sensitive(values, BinRule(name, quantiles=5))
    return values.astype("string").fillna(MISSING).astype("category").rename(name)


def _measure_by_group(comparison: Compared) -> list[Measurement]:
    counts = comparison.whole
    rows = counts.binary().sum(axis=(1, 2))
    per_group = [
        Measurement(
            metric=table.rate,
            method="between_groups",
            estimate=Proportion(successes=k, n=n),
            n_samples=size,
            group=dict(zip(counts.features, group, strict=True)),
            detail="; ".join(filter(None, (_denominator_text(table.rate, n), comparison.note(group)))),
        )
        for table in _tables(counts)
        for group, k, n, size in zip(
            counts.groups,
            table.successes,
            table.n,
            ints(counts.sizes() if table.rate == "selection_rate" else rows),
            strict=True,
        )
    ]
    return _headlines(comparison, _tables(comparison.counts)) + per_group + further_measurements(comparison)


def _tables(counts: GroupCounts) -> list[RateTable]:
    cells = counts.binary()
    negatives, positives = cells[:, 0], cells[:, 1]
    selection = rate_table("selection_rate", counts.selected(), counts.sizes())
    if not counts.labelled:
        return [selection]
    return [
        selection,
        rate_table("true_positive_rate", positives[:, 1], positives.sum(axis=1)),
        rate_table("false_positive_rate", negatives[:, 1], negatives.sum(axis=1)),
        rate_table("accuracy", negatives[:, 0] + positives[:, 1], cells.sum(axis=(1, 2))),
    ]


def _denominator_text(rate: str, n: int) -> str:
    """Over how many of a group's rows its rate is taken, where that is not all of them."""
    if rate == "true_positive_rate":
        return over_favourable(n)
    return f"over the {n:,} rows whose label is another" if rate == "false_positive_rate" else ""


def _headlines(comparison: Compared, tables: Sequence[RateTable]) -> list[Measurement]:
    selection = tables[0]
    found = [
        headline(
            comparison,
            "demographic_parity_difference",
            0.0,
            WorstDifference(tables=(selection,)),
            (selection,),
            labelled=False,
        ),
        headline(
            comparison, "demographic_parity_ratio", 1.0, WorstRatio(tables=(selection,)), (selection,), labelled=False
        ),
    ]
    if len(tables) > 1:
        odds, opportunity = tuple(tables[1:3]), (tables[1],)
        found += [
            headline(comparison, "equalized_odds_difference", 0.0, WorstDifference(tables=odds), odds),
            headline(comparison, "equal_opportunity_difference", 0.0, WorstDifference(tables=opportunity), opportunity),
        ]
    return found
