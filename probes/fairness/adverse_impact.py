"""Adverse impact: impact ratios as New York City's Local Law 144 tabulates them, with what they can show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from auditor.core.errors import NotApplicableError
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.data.bins import more_than
from auditor.data.group_counts import MISSING, CodedGroups
from auditor.data.score_counts import Asked, Moments
from auditor.judging.measurement import Answer, AuditQuestion, Measurement, define_metrics
from auditor.run.planted.twin_costs import Forecast
from auditor.run.probe import BaseProbe, Need, Streamed, allow_untrusted
from auditor.statistics.estimate import Exact, Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.groups import RatioToLargest, WorstRatio
from auditor.statistics.means import StandardizedDifference
from auditor.statistics.rates import Proportion, RateTable
from probes.fairness.group_limits import crowd, feature_sets
from probes.probe_inputs import chosen_methods
from probes.twins import no_plant, with_gap

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

SMALL_SHARE = 0.02
_MOST_NAMED = 12
_MOST_TABLES = 1 << 17
_RESTS_ON: Mapping[str, Answer] = {"selection_rate": "decisions", "scoring_rate": "scores"}
_DISPLAY_ONLY = "For display only: the interval takes the scores as normal with one spread, so it is not judged."


@dataclass(frozen=True, eq=False)
class Table:
    """Groups by name, sorted; ``n`` and ``chosen`` (g,): their rows, and those selected or with high scores;
    ``scores``: the moments of each group's scores, if there are any."""

    levels: Sequence[tuple[str, ...]]
    n: IntArray
    chosen: IntArray
    scores: Sequence[Moments | None] | None = None

    @classmethod
    def from_rows(cls, groups: CodedGroups, is_selected: BoolArray, scores: FloatArray | None) -> Table:
        """The table from rows, (n,) each."""
        levels, codes = groups.levels, groups.codes
        # Brackets take four times as long over a mask.
        k = np.bincount(codes.compress(is_selected), minlength=len(levels))
        parts = None if scores is None else [_moments(scores.compress(codes == g)) for g in range(len(levels))]
        return cls(levels, groups.sizes, np.asarray(k, np.int64), parts)


class AdverseImpact(BaseProbe):
    """The rate at which each category is selected, over the rate of the most selected category, with intervals.

    The score is the favourable class's probability; the scoring rate is left out where scores take fewer than three
    values, since they are labels then. Of a regression model only the scoring rate is tabulated, its predictions being
    the scores, of which a higher one is taken to be the better. For each sensitive feature and for their intersection:
    ``selection_rate``, ``scoring_rate``, ``impact_ratio``, ``impact_ratio_min``, ``unknown_count`` and
    ``standardized_mean_difference``.

    - ``standardized_mean_difference``: With ``scoring_rate``, and for display only: its interval takes the scores as
      normal with one spread, which probabilities are not.

    Each ratio comes with the p-values of "below 0.8" and of "below 1" that its bounds have, Fisher's exact p against
    the most selected category, and the distance of the two rates in standard deviations. The ratio never speaks without
    them: with 2,000 rows in 8 cells, all selected at 20 %, the smallest ratio is below 0.8 in 91 % of samples where the
    cells are equal, and in 97 % where they are as uneven as 30, 30, 9, 9, 6, 6, 5 and 5 %. Which category is the most
    selected is itself an estimate, so a ratio is bounded as the smallest over every other category
    (:class:`~auditor.statistics.groups.RatioToLargest`); Fisher's p takes the category as given, as practice does.

    Neither law nor rule sets a pass mark for these ratios: four fifths (29 CFR 1607.4(D)) is a rule of thumb for what
    to look into. The scoring rate's threshold is the sample's own median, and the intervals take that number as given:
    in groups whose scores are spread thirty times differently a 5 % bound misses 7 % of the time, in alike ones 2 %.

    small: share of the categorised rows below which a category may be left out of the ratios under 6 RCNY 5-301(d); it
    is flagged. exclude_small: leave those out of the ratios; their count and rate are shown all the same.
    intersections: whether to tabulate the intersection of several sensitive features.
    methods: ``auto`` (both, where there are scores), or names out of ``AdverseImpact.methods``. Raises ValueError for
    an unknown one, or a share outside [0, 1).

    Sources: 6 RCNY 5-300 to 5-304 (Local Law 144 of 2021); 29 CFR 1607.4(D); Fisher (1935) for the exact test; Cohen
    (1988) and Hedges and Olkin (1985) for the standardized difference.
    """

    name = "adverse_impact"
    pillar = "fairness"
    goal = "Is any category selected at a lower rate than the most selected one?"
    citation = "NYC Local Law 144 of 2021, 6 RCNY 5-301; 29 CFR 1607.4(D)"
    methods = ("selection_rate", "scoring_rate")
    needs = (Need.PREDICTOR, Need.DATA, Need.SENSITIVE)
    over_all_rows = True
    forecast = Forecast(twin=0.005, number=0.0002, million=1.0)
    questions = (
        AuditQuestion("impact", metrics=("impact_ratio_min",), form="ratio", headline=("impact_ratio_min",)),
        AuditQuestion("impact_known", form="count"),
    )
    from_decisions = ("selection_rate",)
    # What the ratios rest on is said with each: decisions of the selection rate, scores of the scoring rate.
    ideal_when_same = {"unknown_count": "nothing"}
    exact = {"unknown_count": "It counts the rows at hand and says nothing of others."}
    # Rows of either category, and the true impact ratio at a top rate of 0.5, found below 0.8 with 80 % power at 5 %.
    power: ClassVar[tuple[int, float]] = (450, 0.60)
    untrusted_options = allow_untrusted("methods", "intersections")
    metrics = define_metrics(
        """
        selection_rate: the share of a category's rows decided for the favourable class; [0, 1], no ideal; at 0.3 three
          of ten of the category are selected; 6 RCNY 5-300
        scoring_rate: the share of a category's rows whose score is above the median of all rows' scores; [0, 1], no
          ideal; at 0.5 the category is scored as everybody is; 6 RCNY 5-300
        impact_ratio: a category's rate / that of the most selected category; [0, 1], ideal 1; at 0.8 the category is
          selected four fifths as often as the most selected one; 6 RCNY 5-300, and 29 CFR 1607.4(D)
        impact_ratio_min: the smallest impact ratio of any category; [0, 1], ideal 1; at 0.8 the least selected category
          is selected four fifths as often as the most selected one; 6 RCNY 5-300, and 29 CFR 1607.4(D)
        unknown_count: rows without a value of the feature, which belong to no category; [0, inf), ideal 0; so many rows
          are left out of the ratios; 6 RCNY 5-301
        standardized_mean_difference: mean score of a category less that of the one with the highest scoring rate, in
          pooled standard deviations within the two (Cohen's d); (-inf, inf), ideal 0; at -0.5 the category is scored
          half a standard deviation lower; Cohen (1988)
        """
    )

    def __init__(
        self,
        *,
        methods: str | Sequence[str] = "auto",
        small: float = SMALL_SHARE,
        exclude_small: bool = False,
        intersections: bool = True,
    ) -> None:
        wanted = chosen_methods(methods, self.methods)
        if not 0.0 <= small < 1.0:
            raise ValueError(f"small is a share of the rows in [0, 1), not {small}")
        self.wanted = self.methods if "auto" in wanted else wanted
        self.small = small
        self.exclude_small = exclude_small
        self.intersections = intersections

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """The tables over the evaluation rows: per sensitive feature, then for the intersection."""
        rows = data.evaluation
        if rows.sensitive_features is None:
            raise NotApplicableError("Needs a sensitive feature: add --sensitive COLUMN.")
        classes = rows.classes or model.classes
        if rows.positive is None and model.kind == "classifier":
            raise NotApplicableError(f"Needs the favourable label among {', '.join(classes)}: add --positive LABEL.")
        found: list[Measurement] = []
        for method in self.wanted:
            scores: FloatArray | None = None
            if method == "selection_rate":
                if model.kind == "regressor":
                    continue
                chosen, note = model.decisions(rows) == rows.positive, ""
            else:
                scores = _scores(model, rows)
                if not more_than(2, scores):
                    continue
                median = float(np.median(scores))
                chosen, note = scores > median, _said_of(median)
            for names in feature_sets(rows.sensitive_features.columns, together=self.intersections):
                groups = rows.groups(*names)
                many = crowd("impact_ratio_min", method, names, len(groups.levels), len(rows))
                if many is not None:
                    found.append(many)
                    continue
                found += self.tables(method, names, Table.from_rows(groups, np.asarray(chosen, bool), scores), note)
        if not found:
            raise NotApplicableError(
                "A regression model selects nobody, and its scoring rate needs predictions of at least three values."
                if model.kind == "regressor"
                else "The scoring rate needs scores, and this model returns labels."
            )
        return found

    def measure_planted(
        self, model: AuditedModel, data: AuditData, measured: Measurement, value: float, rng: np.random.Generator
    ) -> list[Measurement]:
        """The measurements of a twin in which the true value of the smallest ratio of selection rates is known."""
        rows = data.evaluation
        if (measured.metric, measured.method) != ("impact_ratio_min", "selection_rate") or self.exclude_small:
            raise no_plant(measured)
        if any(MISSING in level for level in rows.groups(*measured.sensitive).levels):
            raise NotApplicableError("Some rows are of no category, and nothing is planted in them.")
        return self.measure(with_gap(model, rows, measured, value, rng), data, rng)

    @property
    def stream_needs(self) -> Asked:
        """The score statistics that streamed rows must provide."""
        return Asked(median="scoring_rate" in self.wanted)

    def measure_streamed(self, streamed: Streamed) -> list[Measurement]:
        """The same tables, from the counts of streamed rows."""
        counts, scores = streamed.counts, streamed.scores
        if not scores.features:
            raise NotApplicableError("Needs a sensitive feature: add --sensitive COLUMN.")
        if counts.positive is None:
            classes = ", ".join(counts.classes)
            raise NotApplicableError(f"Needs the favourable label among {classes}: add --positive LABEL.")
        found: list[Measurement] = []
        for method in self.wanted:
            if method == "scoring_rate" and scores.n_values < 3:
                continue
            for names in feature_sets(scores.features, together=self.intersections):
                own, scored = counts.group_by(names), scores.group_by(names)
                many = crowd("impact_ratio_min", method, names, len(own.groups), counts.n)
                if many is not None:
                    found.append(many)
                elif method == "selection_rate":
                    found += self.tables(method, names, Table(own.groups, own.sizes(), own.selected()), "")
                elif scored.median is None:
                    found.append(_unsettled(method, names, counts.n))
                else:
                    table = Table(scored.groups, scored.sizes, scored.above_median(), scored.moments("score"))
                    found += self.tables(method, names, table, _said_of(scored.median))
        if not found:
            raise NotApplicableError("The scoring rate needs scores, and this model returns labels.")
        return found

    def tables(self, method: str, names: tuple[str, ...], table: Table, note: str) -> list[Measurement]:
        """One table: the groups by the features ``names``, with the standardized mean differences of their scores."""
        known = np.asarray([MISSING not in level for level in table.levels], bool)
        levels = [level for level, own in zip(table.levels, known, strict=True) if own]
        scores = None if table.scores is None else [m for m, own in zip(table.scores, known, strict=True) if own]
        n, k, unknown_rows = table.n[known], table.chosen[known], int(table.n[~known].sum())
        unknown = Measurement(
            metric="unknown_count",
            method=method,
            estimate=Exact(known=float(unknown_rows)),
            n_samples=int(table.n.sum()),
            sensitive=names,
            detail=f"{unknown_rows:,} of {table.n.sum():,} rows have no value of {' or '.join(names)}",
        )
        if not levels:
            return [unknown]
        small = n < self.small * n.sum()
        kept = np.flatnonzero(~small) if self.exclude_small else np.arange(len(levels))
        titles = [" x ".join(level) for level in levels]
        rates = RateTable(rate=method, successes=tuple(k[kept].tolist()), n=tuple(n[kept].tolist()))
        per_category = []
        for i, level in enumerate(levels):
            group = dict(zip(names, level, strict=True))
            flag = self._flag(int(n[i]), int(n.sum())) if small[i] else ""
            rate = Proportion(successes=int(k[i]), n=int(n[i]))
            per_category.append(
                Measurement(metric=method, method=method, estimate=rate, n_samples=rate.n, group=group, detail=flag)
            )
            if i in kept:
                at = int(np.flatnonzero(kept == i)[0])
                estimate, text = _ratio(rates, at, [titles[j] for j in kept])
                per_category.append(
                    Measurement(
                        metric="impact_ratio",
                        method=method,
                        estimate=estimate,
                        n_samples=rate.n,
                        ideal=1.0,
                        group=group,
                        ideal_when_same=_RESTS_ON[method],
                        detail="; ".join(part for part in (text, flag) if part),
                    )
                )
        if scores is not None and kept.size > 1:
            best = int(kept[np.argmax(k[kept] / n[kept])])
            for i in kept.tolist():
                if i != best:
                    group = dict(zip(names, levels[i], strict=True))
                    per_category.append(_score_difference(method, group, scores[i], scores[best], titles[best]))
        headline = Measurement(
            metric="impact_ratio_min",
            method=method,
            estimate=(
                WorstRatio(tables=(rates,))
                if kept.size > 1
                else Undefined(reason="fewer than two categories are left to compare")
            ),
            n_samples=int(n.sum()),
            ideal=1.0,
            sensitive=names,
            ideal_when_same=_RESTS_ON[method],
            detail=_essentials(method, titles, k, n, kept, unknown_rows, note),
        )
        return [headline, unknown, *per_category]

    def _flag(self, n: int, total: int) -> str:
        share = f"{n:,} of {total:,} categorised rows, under {self.small:.0%}"
        if self.exclude_small:
            return f"left out of the ratios as 6 RCNY 5-301(d) allows ({share}): its rate says too little"
        return f"may be left out of the ratios under 6 RCNY 5-301(d) ({share})"


def _scores(model: AuditedModel, rows: AuditData) -> FloatArray:
    """(n,) the favourable class's probability, or a regression's predictions."""
    if model.kind == "regressor":
        predicted: FloatArray = model.predictions(rows)  # type: ignore[attr-defined]
        return predicted
    return model.scores(rows)[:, rows.positive]


def _ratio(table: RateTable, index: int, titles: Sequence[str]) -> tuple[AnyEstimate, str]:
    """The impact ratio of one category, and what it is made of in words."""
    if len(table.n) < 2:
        return Undefined(reason="there is no other category to compare it with"), ""
    k, n = np.asarray(table.successes, np.int64), np.asarray(table.n, np.int64)
    if not k.any():
        return Undefined(reason="no category has a row that was selected (0/0)"), ""
    best = int(np.argmax(k / n))
    own = f"{table.rate} {k[index] / n[index]:.3f} ({k[index]:,} of {n[index]:,})"
    estimate = RatioToLargest(table=table, index=index)
    if index == best:
        return estimate, f"{own}, the most selected category"
    reference = f"against {k[best] / n[best]:.3f} ({k[best]:,} of {n[best]:,}) of {titles[best]}, the most selected"
    return estimate, (
        f"{own} {reference}; p = {estimate.p_value(0.8, 'less'):.3g} for a ratio below 0.8, "
        f"{estimate.p_value(1.0, 'less'):.3g} for one below 1; "
        f"Fisher's exact p = {fisher_exact_p(int(k[index]), int(n[index]), int(k[best]), int(n[best])):.3g}, "
        f"{standard_deviations(int(k[index]), int(n[index]), int(k[best]), int(n[best])):+.2f} standard deviations"
    )


def _said_of(median: float) -> str:
    return f"the sample's median score is {median:.4g}"


def _unsettled(method: str, names: tuple[str, ...], n: int) -> Measurement:
    return Measurement(
        metric="impact_ratio_min",
        method=method,
        estimate=Undefined(
            reason="too many scores lie within one bin of the grid that they are counted on for their median to be "
            "told: audit without --stream"
        ),
        n_samples=n,
        ideal=1.0,
        sensitive=names,
        ideal_when_same=_RESTS_ON[method],
    )


def _moments(scores: FloatArray) -> Moments | None:
    n = scores.size
    return Moments(n, float(scores.mean()), float(scores.var(ddof=1)) if n > 1 else 0.0, 0.0) if n else None


def _score_difference(
    method: str, group: dict[str, str], moments: Moments | None, best: Moments | None, title: str
) -> Measurement:
    """How the scores of a category lie to those of the category that is selected most, whose ``title`` is given."""
    assert moments is not None and best is not None  # a category has rows
    return Measurement(
        metric="standardized_mean_difference",
        method=method,
        estimate=_standardized(moments, best),
        n_samples=moments.n,
        ideal=0.0,
        group=group,
        detail=f"mean score {moments.mean:.4f} against {best.mean:.4f} of {title}",
        too_few=_DISPLAY_ONLY,
    )


def _standardized(moments: Moments, reference: Moments) -> AnyEstimate:
    """Cohen's d of two samples of scores, with the pooled standard deviation within them."""
    m, n = moments.n, reference.n
    if min(m, n) < 2:
        return Undefined(reason="a standardized difference needs two rows of either category")
    pooled = ((m - 1) * moments.variance + (n - 1) * reference.variance) / (m + n - 2)
    if not pooled > 0.0:
        return Undefined(reason="the scores do not differ within either category, so there is no unit to compare in")
    centre = float((moments.mean - reference.mean) / math.sqrt(pooled))
    return StandardizedDifference(centre=centre, n_first=m, n_second=n, within=True)


def fisher_exact_p(k1: int, n1: int, k2: int, n2: int) -> float:
    """Two-sided p of Fisher's exact test that ``k1 of n1`` and ``k2 of n2`` share a rate.

    The probability, given both margins, of all tables no likelier than this one; [0, 1]; 1 where nothing varies.
    """
    first, last = max(0, k1 + k2 - n2), min(n1, k1 + k2)
    if last - first > _MOST_TABLES:
        # Of more rows than these no table so far from the likeliest has a probability that is not rounded to 0.
        n, k = n1 + n2, k1 + k2
        reach = 50.0 * math.sqrt(k / n * (1.0 - k / n) * n1 * n2 / (n - 1.0)) + 1_000.0
        first, last = max(first, round(k * n1 / n - reach)), min(last, round(k * n1 / n + reach))
        if not first <= k1 <= last:
            return 0.0
    # Each table's probability by its ratio to the one before; scipy's own mass function takes seconds at 1e5 rows.
    j = np.arange(first, last, dtype=np.float64)
    steps = np.log((k1 + k2 - j) * (n1 - j)) - np.log((j + 1.0) * (n2 - k1 - k2 + j + 1.0))
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    # Tables of equal probability differ in the last digits; a relative 1e-7 counts them as equal, as R's test does.
    return float(min(weights[weights <= weights[k1 - first] * (1.0 + 1e-7)].sum(), 1.0))


def standard_deviations(k1: int, n1: int, k2: int, n2: int) -> float:
    """``(p1 - p2) / sqrt(p (1 - p) (1/n1 + 1/n2))``, p pooled; NaN at 0/0."""
    pooled = (k1 + k2) / (n1 + n2)
    error = math.sqrt(pooled * (1.0 - pooled) * (1.0 / n1 + 1.0 / n2))
    return (k1 / n1 - k2 / n2) / error if error > 0 else math.nan


def _essentials(
    method: str, titles: Sequence[str], k: IntArray, n: IntArray, ratio_indices: IntArray, unknown: int, note: str
) -> str:
    """The table in one line: category, rate, count; the most selected first."""
    order = sorted(range(len(titles)), key=lambda i: -k[i] / n[i])
    shown = [
        f"{titles[i]} {k[i] / n[i]:.3f} (n = {n[i]:,}{'' if i in ratio_indices else ', not in the ratio'})"
        for i in order[:_MOST_NAMED]
    ]
    more = f" and {len(order) - _MOST_NAMED} more categories" if len(order) > _MOST_NAMED else ""
    parts = [f"{method} from the most selected down: {', '.join(shown)}{more}", f"unknown: {unknown:,}"]
    return "; ".join([*parts, note] if note else parts)
