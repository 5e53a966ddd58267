"""Recorded evaluation: what the log of an evaluation that others ran shows of a model's accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.errors import DataError, LacksOptionError, UsageError
from auditor.core.rows import FloatArray, IntArray
from auditor.data.audit_data_parts import NO_CLUSTERS, LogSummary
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.planted.twin_costs import Forecast
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.attack_estimates import Bracket, WorstBracketDifference
from auditor.statistics.changes import RateChange
from auditor.statistics.clusters import ClusteredRates, WorstClusteredDifference, clustered_mean
from auditor.statistics.estimate import Exact, Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.groups import WorstDifference
from auditor.statistics.rates import Proportion, RateTable
from auditor.statistics.values import RatioBetween, RatioOfTotals, WorstValueGap, bounded_mean, ratio_of_totals
from probes.fairness.group_limits import crowd
from probes.language.calibration import instead, read_labels
from probes.performance.judge_correction import GAP, OPEN, RATE, Verdicts, corrected_measurements
from probes.twins import apart, no_plant, of_groups, two_groups

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

METHOD = "log"
_KINDS = ("contradicted_metrics", "repeated_epochs", "changed_epochs", "other_models")
# What keeps a log from proving its own numbers.
_PROOF = ("unread_entries", *_KINDS)
_MOST_NAMED = 5
# Fewer than this share of all samples in both logs are no comparison of the same samples.
_FEWEST_SHARED = 0.5
Limits = tuple[float, float]


class RecordedEvaluation(BaseProbe):
    """What the log of an evaluation shows of a model's scores, with what has no score bounded both ways.

    A sample is what the harness calls one, its repeats (epochs) are one mean. Of the n samples that the log says there
    are, one that errored, was not scored or is not in the log counts as the lowest score in the lower bound and as the
    highest in the upper bound. ``accuracy`` where every score is 0 or 1, else ``mean_score``:

    - ``accuracy``: :class:`~auditor.statistics.rates.Proportion`, or where samples have no score
      :class:`~auditor.statistics.attack_estimates.Bracket`.
    - ``mean_score``: :class:`~auditor.statistics.values.BoundedMean`, or
      :class:`~auditor.statistics.values.RatioBetween`; by clusters :class:`~auditor.statistics.values.RatioOfTotals`.
    - ``accuracy_difference``, ``mean_score_difference``: the largest difference between groups of a feature.
    - ``accuracy_change``, ``mean_score_change``: with ``reference``, sample by sample.

    Where the log contradicts itself (``contradicted_metrics``, ``repeated_epochs``, ``changed_epochs``,
    ``other_models``) or lacks samples that it says it has (``unread_entries``), its numbers are shown and not judged.

    Where a model gave the scores (a judge), they err: ``accuracy`` is shown and not judged. With ``calibration``, a
    person's labels of some samples drawn at random, ``corrected_accuracy`` is what they allow
    (:class:`~auditor.statistics.error_corrected_rates.Corrected`), and ``corrected_accuracy_difference`` is by each
    group's own errors (:class:`~auditor.statistics.error_corrected_rates.WorstCorrectedDifference`).

    low, high: the least and the largest score that there can be; None is 0 and 1 where all scores lie there.
    calibration: a CSV file with the columns id and label, 1 for right and 0 for wrong.
    reference: the log of another model on the same samples, a path.

    Source: Clopper and Pearson, Biometrika 26 (1934); McNemar, Psychometrika 12 (1947), for paired samples; Rogan and
    Gladen, American Journal of Epidemiology 107 (1978), for a judge.
    """

    name = "recorded_evaluation"
    pillar = "performance"
    goal = "What does the log of an evaluation show of the model's accuracy?"
    citation = "Clopper and Pearson, Biometrika 26 (1934)"
    methods = (METHOD, "paired")
    needs = (Need.LOG,)
    questions = (
        AuditQuestion("change", metrics=("*_change",)),
        AuditQuestion("recorded", metrics=("unscored_entries", *_PROOF), form="count", headline=_PROOF),
        AuditQuestion("recorded", headline=("accuracy", RATE)),
    )
    takes = ("cluster",)
    forecast = Forecast(twin=0.004, number=0.0, million=0.6)
    ideal_when_same = {"accuracy_difference": "nothing", "mean_score_difference": "nothing", GAP: "nothing"}
    exact = {name: "every entry of the log is compared" for name in ("unscored_entries", *_PROOF)}
    untrusted_options = allow_untrusted("low", "high", reads=("reference", "calibration"))
    metrics = define_metrics(
        """
        accuracy: share of samples with the score 1; [0, 1], ideal 1; at 0.8 eight samples in ten are right; Clopper and
          Pearson, Biometrika 26 (1934)
        mean_score: mean over samples of the mean over their repeats; [low, high], no ideal; as the harness defines the
          score; Miller, arXiv:2411.00640 (2024)
        accuracy_difference, mean_score_difference: the largest difference of it between two groups of samples; [0,
          high - low], ideal 0; at 0.1 ten samples in 100 more are right in one group than in another; Miller,
          arXiv:2411.00640 (2024)
        accuracy_change, mean_score_change: of the same samples, the score less that in the reference's log; [low -
          high, high - low], no ideal; at -0.02 two samples in 100 more are wrong; McNemar, Psychometrika 12 (1947)
        corrected_accuracy: accuracy, of which the judge's misses and false alarms are taken out; [0, 1], ideal 1; at
          0.8 eight samples in ten are right by a person's word; Rogan and Gladen, American Journal of Epidemiology 107
          (1978)
        corrected_accuracy_difference: the largest difference of it between two groups, each by the judge's errors on
          it; [0, 1], ideal 0; at 0.1 ten samples in 100 more are right in one group than in another; Rogan and Gladen,
          American Journal of Epidemiology 107 (1978)
        unscored_entries: samples and repeats that errored or have no score; [0, inf), ideal 0; each is bounded both
          ways, and never left out
        unread_entries: samples and repeats that the log says it has and that are not there; [0, inf), ideal 0; at 1 or
          more the log's numbers cannot be proved from it
        contradicted_metrics: numbers that the log reports and its samples contradict; [0, inf), ideal 0; at 1 or more
          a number or a score was changed, or is computed in another way than it says
        repeated_epochs: entries that repeat another one; [0, inf), ideal 0; at 1 or more a sample counts twice
        changed_epochs: signs that samples have other repeats than the log says; [0, inf), ideal 0; at 1 or more the
          number of repeats was changed after some samples were scored
        other_models: names of models in the samples that are not the log's; [0, inf), ideal 0; at 1 or more the log is
          not of one model, or not of the one it names
        """
    )

    def __init__(
        self,
        *,
        low: float | None = None,
        high: float | None = None,
        reference: str | None = None,
        calibration: str | None = None,
    ) -> None:
        if low is not None and high is not None and not low < high:
            raise ValueError("low must be less than high")
        self.low = low
        self.high = high
        self.reference = reference
        self.labels = None if calibration is None else read_labels(calibration)

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements over the samples; draws nothing from ``rng``."""
        log, rows = getattr(model, "log", LogSummary()), data.evaluation
        scores = self._scores(rows, log)
        if isinstance(scores, Undefined):
            found = [Measurement(metric="mean_score", method=METHOD, estimate=scores, n_samples=len(rows))]
        else:
            found = [*_means(scores, rows, log), *_gaps(scores, rows)]
            if self.reference is not None:
                found.append(self._change(scores, rows, log, self.reference))
            if self.labels is not None or log.judge:
                found = [*(replace(m, too_few=_ungraded(log, self.labels is None)) for m in found),
                         *self._corrected(scores, rows)]  # fmt: skip
        why = _why_unproven(log)
        return [*(replace(m, too_few=why or m.too_few) for m in found), *_facts(log, len(rows))]

    def measure_planted(
        self, model: AuditedModel, data: AuditData, measured: Measurement, value: float, rng: np.random.Generator
    ) -> list[Measurement]:
        """The measurements of a twin log in which the true value of one of them is known; what has no score has none
        there either."""
        rows, recorded = data.evaluation, data.evaluation.recorded
        if recorded is None or recorded.graded is None or measured.group:
            raise no_plant(measured)
        if measured.metric == "accuracy":
            chance: float | FloatArray = value
        elif measured.metric == "accuracy_difference":
            low, high = two_groups(rows, measured, rng)
            mean = float(recorded.graded[:, 0].mean())
            chance = of_groups(rows.groups(*measured.sensitive).codes, low, high, apart(mean, value, ratio=False))
        else:
            raise no_plant(measured)
        unscored = recorded.graded[:, 1]
        right = (rng.random(len(rows)) < chance) * (1.0 - unscored)
        twin = replace(rows, recorded=replace(recorded, graded=np.column_stack([right, unscored])))
        return self.measure(model, twin, rng)

    def _scores(self, rows: AuditData, log: LogSummary) -> _Scores | Undefined:
        graded = rows.recorded.graded if rows.recorded is not None else None
        if graded is None:
            raise LacksOptionError("Needs the log of an evaluation: add --log PATH.")
        if (log.lowest < 0.0 and self.low is None) or (log.highest > 1.0 and self.high is None):
            return Undefined(
                reason=f"scores reach from {log.lowest:g} to {log.highest:g}, and what they can reach is not known: "
                f"add --set {self.name}.low={min(log.lowest, 0.0):g} --set {self.name}.high={log.highest:g}, or what "
                "the harness defines"
            )
        low, high = self.low if self.low is not None else 0.0, self.high if self.high is not None else 1.0
        if not len(rows):
            return Undefined(reason="there are no samples to take a mean over (0/0)")
        told = graded[:, 1] < 1.0
        if told.any() and (log.lowest < low or (log.highest > high and log.highest > 1.0)):
            raise UsageError(f"Scores reach from {log.lowest:g} to {log.highest:g}, beyond {low:g} to {high:g}.")
        return _Scores.from_graded(graded, (low, high), _clusters(rows), _most(rows))

    def _corrected(self, scores: _Scores, rows: AuditData) -> Iterator[Measurement]:
        if self.labels is None:
            return
        if not scores.binary:
            reason = "a judge's errors are known of scores of 0 and 1 alone, once a sample"
            yield Measurement(
                metric=RATE, method=METHOD, estimate=Undefined(reason=reason), n_samples=len(rows), ideal=1.0
            )
            return
        given = np.where(scores.high > scores.low, OPEN, scores.low.astype(np.int64))
        labels, source = self.labels
        verdicts = Verdicts.from_labels(given, list(map(str, rows.X)), labels, source)
        yield from corrected_measurements(verdicts, rows, METHOD)

    def _change(self, scores: _Scores, rows: AuditData, log: LogSummary, reference: str) -> Measurement:
        # The command imports the probes, and no pandas.
        import pandas as pd

        from auditor.loading.job_specs import DataSpec, RecordedSpec
        from auditor.loading.rows.data_without_model import load_logged

        spec = DataSpec(
            path=reference, recorded=RecordedSpec(score=(log.score,) if log.score else ()), cluster=NO_CLUSTERS
        )
        before, earlier = load_logged(spec)
        own, theirs = pd.Index(rows.X.astype(str)), pd.Index(earlier.X.astype(str))
        every = own.union(theirs)
        shared = len(own.intersection(theirs))
        if shared < _FEWEST_SHARED * len(every):
            raise DataError(
                f"The logs share {shared:,} of {len(every):,} samples by their ids: compare two of the same samples."
            )
        was = self._scores(earlier, before.log)
        if isinstance(was, Undefined):
            return Measurement(metric=scores.change_metric, method="paired", estimate=was, n_samples=len(every))
        places, old = every.get_indexer(own), every.get_indexer(theirs)
        after, low = (np.tile(np.asarray(scores.limits)[:, None], (1, len(every))) for _ in range(2))
        after[:, places], low[:, old] = np.stack([scores.low, scores.high]), np.stack([was.low, was.high])
        clusters = None
        if scores.clusters is not None:
            clusters = np.arange(len(every)) + int(scores.clusters.max()) + 1
            clusters[places] = scores.clusters
        detail = f"since {reference.rpartition('/')[2]}, sha256 {str(before.provenance.sha256)[:16]}"
        why = _why_unproven(before.log)
        return Measurement(
            metric=scores.change_metric,
            method="paired",
            estimate=_change_of(low, after, scores, clusters),
            n_samples=len(every),
            detail=f"{shared:,} samples are in both logs; {detail}",
            too_few=f"Of the reference: {why}" if why else "",
        )


@dataclass(frozen=True, eq=False)
class _Scores:
    """The least and the largest score that each sample may have, (n,) each, between ``limits``.

    ``clusters``: (n,) from 0, None where samples are independent; ``most``: the most samples that one can have.
    """

    low: FloatArray
    high: FloatArray
    limits: Limits
    clusters: IntArray | None
    most: int

    @classmethod
    def from_graded(cls, graded: FloatArray, limits: Limits, clusters: IntArray | None, most: int) -> _Scores:
        """From sums of scores over the number of repeats, and shares of repeats without one."""
        known, share = graded.T
        low, high = (np.clip(known + share * limit, *limits) for limit in limits)
        return cls(low, high, limits, clusters, most)

    @property
    def n_open(self) -> int:
        """How many samples lack a score, or a repeat's."""
        return int((self.high > self.low).sum())

    @property
    def binary(self) -> bool:
        """Whether every score is 0 or 1, or may be either."""
        return self.limits == (0.0, 1.0) and bool(np.isin(np.stack([self.low, self.high]), (0.0, 1.0)).all())

    @property
    def metric(self) -> str:
        """What the mean is called."""
        return "accuracy" if self.binary else "mean_score"

    @property
    def gap_metric(self) -> str:
        """What its largest difference between groups is called."""
        return "accuracy_difference" if self.binary else "mean_score_difference"

    @property
    def change_metric(self) -> str:
        """What its change from another log is called."""
        return "accuracy_change" if self.binary else "mean_score_change"

    def take(self, where: IntArray) -> _Scores:
        """The scores of some samples."""
        own = None if self.clusters is None else np.unique(self.clusters[where], return_inverse=True)[1]
        return replace(self, low=self.low[where], high=self.high[where], clusters=own)

    def mean(self) -> AnyEstimate:
        """The mean, bounded on either side by what the samples without a score may be."""
        n = len(self.low)
        if not n:
            return Undefined(reason="there are no samples to take a mean over (0/0)")
        if self.clusters is None and self.binary:
            right, possible = int(self.low.sum()), int(self.high.sum())
            return Bracket(proved=right, possible=possible, n=n) if self.n_open else Proportion(successes=right, n=n)
        if self.clusters is None and not self.n_open:
            return bounded_mean(self.low, low=self.limits[0], high=self.limits[1])
        return _between(self.low, self.high, self.limits, self.clusters, self.most)


def _between(
    low: FloatArray, high: FloatArray, limits: Limits, clusters: IntArray | None, most: int
) -> RatioOfTotals | RatioBetween | Undefined:
    """The mean of values of which each lies between its ``low`` and ``high``, (n,), over clusters or samples."""
    codes = np.arange(len(low)) if clusters is None else clusters
    sizes = np.bincount(codes)
    ends = [
        ratio_of_totals(
            numerators=np.bincount(codes, weights=end)[sizes > 0],
            denominators=sizes[sizes > 0],
            most=float(max(most, int(sizes.max()))),
            low=limits[0],
            high=limits[1],
        )
        for end in (low, high)
    ]
    below, above = ends
    if isinstance(below, Undefined) or isinstance(above, Undefined):
        return Undefined(reason="a mean over clusters needs two of them")
    n_open = int((high > low).sum())
    return RatioBetween(below=below, above=above, n_open=n_open, n=len(low)) if n_open else below


def _change_of(before: FloatArray, after: FloatArray, scores: _Scores, clusters: IntArray | None) -> AnyEstimate:
    """The mean of the differences of the same samples; ``before``, ``after``: (2, n) least and largest scores."""
    least, most = after[0] - before[1], after[1] - before[0]
    limits = (scores.limits[0] - scores.limits[1], scores.limits[1] - scores.limits[0])
    if clusters is not None or (most > least).any():
        return _between(least, most, limits, clusters, scores.most)
    if np.isin(np.stack([before[0], after[0]]), (0.0, 1.0)).all() and scores.limits == (0.0, 1.0):
        return RateChange(
            before=int(before[0].sum()), gained=int((least > 0).sum()), lost=int((least < 0).sum()), n=len(least)
        )
    return bounded_mean(least, low=limits[0], high=limits[1])


def _clusters(rows: AuditData) -> IntArray | None:
    return None if rows.design is None else rows.design.clusters


def _most(rows: AuditData) -> int:
    return 0 if rows.design is None else rows.design.cluster_at_most or 0


def _means(scores: _Scores, rows: AuditData, log: LogSummary) -> Iterator[Measurement]:
    """The mean of all samples, and that of each group of a single feature."""
    unread = f", {log.unread:,} not in the log" if log.unread else ""
    has = f"{log.errored:,} of {log.entries:,} entries errored, {log.unscored:,} have no score{unread}"
    repeats = f"{log.epochs} repeats a sample" if log.epochs > 1 else ""
    reports = f"the log reports {'; '.join(log.claims[:_MOST_NAMED])}" if log.claims else "the log reports no number"
    tried = ""
    if scores.clusters is not None and not scores.most:
        tried = "This holds given the cluster sizes at hand: --cluster-at-most makes it hold for all that there can be."
    ideal = 1.0 if scores.binary else None
    score = f"score {log.score}" if log.score else ""
    yield Measurement(
        metric=scores.metric,
        method=METHOD,
        estimate=scores.mean(),
        n_samples=len(rows),
        ideal=ideal,
        detail="; ".join(filter(None, (score, _why_unproven(log).rstrip("."), has, repeats, reports, log.clustered))),
        tried=tried,
    )
    for feature in _features(rows):
        groups = rows.groups(feature)
        for code, (level,) in enumerate(groups.levels):
            own = scores.take(np.flatnonzero(groups.codes == code))
            yield Measurement(
                metric=scores.metric,
                method=METHOD,
                estimate=own.mean(),
                n_samples=len(own.low),
                ideal=ideal,
                group={feature: level},
                part=True,
            )


def _features(rows: AuditData) -> list[str]:
    return [] if rows.sensitive_features is None else [str(name) for name in rows.sensitive_features.columns]


def _gaps(scores: _Scores, rows: AuditData) -> Iterator[Measurement]:
    """The largest difference between groups, of each feature."""
    nothing = scores.high.max(initial=scores.limits[0]) == scores.limits[0]
    for feature in _features(rows):
        groups = rows.groups(feature)
        if crowded := crowd(scores.gap_metric, METHOD, (feature,), len(groups.levels), len(rows)):
            yield crowded
            continue
        parts = [scores.take(np.flatnonzero(groups.codes == code)) for code in range(len(groups.levels))]
        yield Measurement(
            metric=scores.gap_metric,
            method=METHOD,
            estimate=_gap(scores, parts),
            n_samples=len(rows),
            ideal=0.0,
            sensitive=(feature,),
            too_few="No sample has more than the lowest score, so groups cannot differ." if nothing else "",
        )


def _gap(scores: _Scores, parts: Sequence[_Scores]) -> AnyEstimate:
    rate = scores.metric
    if len(parts) < 2:
        return Undefined(reason="only one group is present, so there is nothing to compare it with")
    if scores.clusters is None and scores.binary:
        n = tuple(len(part.low) for part in parts)
        tables = [
            RateTable(rate=rate, successes=tuple(int(getattr(part, end).sum()) for part in parts), n=n)
            for end in ("low", "high")
        ]
        if scores.n_open:
            return WorstBracketDifference(proved=tables[0], possible=tables[1])
        return WorstDifference(tables=(tables[0],))
    if scores.clusters is None:
        if scores.n_open:
            said = f"{scores.n_open:,} samples have no score, and a gap of such means has no bounds here"
            return Undefined(reason=said)
        low, high = scores.limits
        return WorstValueGap(parts=tuple(bounded_mean(part.low, low=low, high=high) for part in parts))
    if scores.limits != (0.0, 1.0):
        return Undefined(reason="a gap over clusters is bounded for scores between 0 and 1 alone")
    ends = tuple(
        ClusteredRates(
            rate=rate,
            parts=tuple(
                clustered_mean(getattr(part, end), part.clusters, largest=float(part.most))
                for part in parts
                if part.clusters is not None
            ),
        )
        for end in (("low", "high") if scores.n_open else ("low",))
    )
    return WorstClusteredDifference(tables=ends, between=scores.n_open > 0)


def _ungraded(log: LogSummary, untried: bool) -> str:
    """Why a number by a judge's scores is not judged, in a sentence."""
    if not untried:
        return instead(RATE)
    return (
        f"The scores are by a model that errs ({log.judge}), and how often is not known: add --calibration FILE, a "
        "person's labels (id, label) of some samples drawn at random."
    )


def _why_unproven(log: LogSummary) -> str:
    """Why no number of the log may be judged, in a sentence, or ""."""
    said = [sentence for _, sentence in log.contradictions[:_MOST_NAMED]]
    if log.unread:
        said.append(f"{log.unread:,} of {log.entries + log.unread:,} entries that it says it has are not there")
    return f"The log does not prove its own numbers: {'; '.join(said)}." if said else ""


def _facts(log: LogSummary, n: int) -> Iterator[Measurement]:
    """What the log lacks, and where it contradicts itself."""
    own = {kind: [sentence for k, sentence in log.contradictions if k == kind] for kind in _KINDS}
    counts = {"unscored_entries": log.errored + log.unscored, "unread_entries": log.unread}
    for metric, known in {**counts, **{kind: len(said) for kind, said in own.items()}}.items():
        yield Measurement(
            metric=metric,
            method=METHOD,
            estimate=Exact(known=float(known)),
            n_samples=n,
            ideal=0.0,
            detail="; ".join(own.get(metric, [])[:_MOST_NAMED]),
        )
