"""Performance: the model's usefulness against answers that ignore the input, overall and by group.

On dependent or weighted rows the same numbers come from other estimates. Predicted numbers are compared with prediction
of the mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from auditor.core.errors import NotApplicableError, OtherKindError
from auditor.core.rows import FloatArray
from auditor.data.audit_data_parts import Design
from auditor.data.score_counts import Asked
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.planted.twin_costs import Forecast
from auditor.run.probe import BaseProbe, Streamed, allow_untrusted
from auditor.statistics.clusters import ClusteredMean, clustered_mean, too_few
from auditor.statistics.estimate import Power, Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.means import StudentT, mean
from auditor.statistics.values import bounded_mean
from probes.language.sense_check import read_sense
from probes.performance import classification_performance
from probes.performance.classification_performance import Answered
from probes.probe_inputs import earlier_language_model, whole_number
from probes.twins import decided_rightly, no_plant, ranked

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

# Larger errors count as this many standard deviations of the true values.
_LARGEST = 3.0
_CANDIDATES = 51
_NO_RANGE = (
    "Display only: without a stated range of the values no interval of it holds whatever they are. What is required of "
    "the errors of groups is judged by regression_fairness with --set regression_fairness.value_range=[low,high]."
)


def measure_predictions(truth: FloatArray, predicted: FloatArray) -> list[Measurement]:
    """All measurements on all rows with a true value, (n,) each."""
    gain, said = _gain(truth, predicted)
    spread = float(truth.std())
    of_mean = f"predicting the mean, {truth.mean():.4g}, for all rows comes to"
    absolute = float(np.abs(truth - truth.mean()).mean())
    found = errors(truth, predicted, {})
    return [
        Measurement(metric="error_gain", estimate=gain, n_samples=len(truth), detail=said, chance=0.0),
        *(
            _measurement(m.metric, m.estimate, len(truth), {}, detail=f"{of_mean} {of:.4g}")
            for m, of in zip(found, (absolute, spread), strict=True)
        ),
        _measurement("r_squared", _r_squared(truth, predicted), len(truth), {}, ideal=1.0, detail="0 for the mean"),
    ]


def errors(truth: FloatArray, predicted: FloatArray, group: dict[str, str]) -> list[Measurement]:
    """Mean absolute and root mean squared error of rows, (n,) each."""
    residual = truth - predicted
    squared = mean(residual**2, low=0.0)
    rooted: AnyEstimate = squared
    if isinstance(squared, StudentT):
        root = math.sqrt(squared.centre)
        # By the delta method.
        error = squared.standard_error / (2.0 * root) if root else 0.0
        rooted = squared.model_copy(update={"centre": root, "standard_error": error})
    return [
        _measurement("mean_absolute_error", mean(np.abs(residual), low=0.0), len(truth), group),
        _measurement("root_mean_squared_error", rooted, len(truth), group),
    ]


def _measurement(
    metric: str, estimate: AnyEstimate, n: int, group: dict[str, str], *, ideal: float = 0.0, detail: str = ""
) -> Measurement:
    return Measurement(
        metric=metric, estimate=estimate, n_samples=n, ideal=ideal, group=group, detail=detail, too_few=_NO_RANGE
    )


def _r_squared(truth: FloatArray, predicted: FloatArray) -> AnyEstimate:
    """``1 - sum (y - p)^2 / sum (y - mean)^2``, with a ratio's standard error by the delta method."""
    n = len(truth)
    own, of_mean = (truth - predicted) ** 2, (truth - truth.mean()) ** 2
    if n < 2 or not of_mean.sum() > 0.0:
        return _NOTHING_TO_TELL
    ratio = float(own.sum() / of_mean.sum())
    error = float((own - ratio * of_mean).std(ddof=1) / (math.sqrt(n) * of_mean.mean()))
    return StudentT(centre=1.0 - ratio, standard_error=error, degrees_of_freedom=n - 1, upper_limit=1.0)


def _gain(truth: FloatArray, predicted: FloatArray) -> tuple[AnyEstimate, str]:
    """How much smaller the mean bounded squared error is than that of the best single number."""
    spread = float(truth.std())
    if len(truth) < 2 or not spread > 0.0:
        return _NOTHING_TO_TELL, ""

    def loss(errors: FloatArray) -> FloatArray:
        return np.minimum((errors / (_LARGEST * spread)) ** 2, 1.0)

    places = np.quantile(truth, np.linspace(0.0, 1.0, _CANDIDATES))
    candidates = np.unique([float(truth.mean()), *places.tolist()])
    means = [float(loss(truth - c).mean()) for c in candidates]
    best = float(candidates[int(np.argmin(means))])
    gain = bounded_mean(loss(truth - best) - loss(truth - predicted), low=-1.0, high=1.0)
    return gain, (
        f"squared errors in units of {_LARGEST:g} standard deviations ({_LARGEST * spread:.4g}), at most 1 each: "
        f"{min(means):.3g} for the best single number, {best:.4g}, less {loss(truth - predicted).mean():.3g}"
    )


_NOTHING_TO_TELL = Undefined(reason="the true values do not differ, so there is nothing to predict")


def over_clusters(measurements: Sequence[Measurement], rows: Answered, design: Design) -> list[Measurement]:
    """The measurements with estimates valid for the labelled rows' sampling design, if available.

    Accuracy, the base rate and balanced accuracy, which is an accuracy of rows that weigh as much as their class does:
    each class ``1 / k``. The others stay as they are, for whoever asked to say that they do not hold
    (:func:`auditor.run.probe.of_design`).
    """
    weights = np.ones(len(rows)) if design.weights is None else design.weights
    commonest = int(np.bincount(rows.truth, weights=weights).argmax()) if len(rows) else 0
    of_class = _of_class(rows, weights)
    # What a cluster can weigh is that of its rows, which count for most where their class has least.
    most = design.largest / float(of_class.min(initial=np.inf))
    values: dict[str, tuple[FloatArray, FloatArray, float]] = {
        "accuracy": (rows.right.astype(np.float64), weights, design.largest),
        "base_rate": ((rows.truth == commonest).astype(np.float64), weights, design.largest),
        "balanced_accuracy": (rows.right.astype(np.float64), weights / of_class, most),
    }
    found = []
    for m in measurements:
        if m.metric not in values or isinstance(m.estimate, Undefined):
            found.append(m)
            continue
        estimate: AnyEstimate = clustered_mean(values[m.metric][0], design.codes(), *values[m.metric][1:])
        if isinstance(estimate, ClusteredMean):
            few = too_few(estimate, f"{estimate.effective:,.3g} effective clusters")
            m = replace(m, too_few=m.too_few or few, detail=f"effective n {estimate.effective:,.4g}")
        found.append(replace(m, estimate=estimate))
    return found


def _of_class(rows: Answered, weights: FloatArray) -> FloatArray:
    """(n,) the weight of all rows of each row's class; 1 where they have none."""
    own = np.bincount(rows.truth, weights=weights)[rows.truth] if len(rows) else np.ones(0)
    return np.where(own > 0.0, own, 1.0)


_MOST_GROUPS = 100
METHOD = "held_out_rows"


class Performance(BaseProbe):
    """Accuracy, ranking, calibration and errors, overall and by group, against answers that ignore the input.

    One number of each kind of model shows skill, and comes first; the built-in profile asks that it be above chance,
    and a model that does not show it passes no gap (:mod:`auditor.judging.judgement`).

    Of a classifier, over labelled evaluation rows and, but for the two against the base rate, within each group:
    ``roc_auc``, ``adjusted_balanced_accuracy``, ``accuracy``, ``base_rate``, ``accuracy_over_base_rate``,
    ``balanced_accuracy``, ``log_loss`` and ``expected_calibration_error``.

    - ``roc_auc``: The skill of two classes with scores, chance 0.5; DeLong's variance, see
      :class:`~auditor.statistics.rank_estimates.AreaUnderCurve`.
    - ``adjusted_balanced_accuracy``: The skill of more classes, or of labels, chance 0.

    Of a regression model, in the target's unit, over rows with a true value y: ``error_gain``, ``mean_absolute_error``,
    ``root_mean_squared_error`` and ``r_squared``.

    - ``error_gain``: The skill, chance 0. How much smaller than that of predicting the mean the squared error is, large
      errors counting as 3 s: without that no interval would hold whatever the values are. c is the mean, or one near it
      with the smallest mean b.

    Of a language model, over texts of the data or else 64 plain English sentences written for this tool:
    ``word_order_accuracy``, ``sense_accuracy``, ``word_order_accuracy_change`` and ``perplexity``.

    - ``word_order_accuracy``: The skill, chance 0.5. All but the last token are permuted. Where it finds neither
      likelier than a uniform distribution over its vocabulary does, or both equal, it guesses, and a coin is thrown.
      Texts of fewer than five tokens do not count. Beside it stands that of sentences of the built-in pairs, and of
      benchmarks of pairs, which is the skill of the numbers about them: a model that knows other texts by heart may
      know nothing of these.
    - ``sense_accuracy``: As in "the fish ... swam to the bottom of the pond" and "the eagle ... flew high above the
      mountains", against the fish that flew and the eagle that swam: log p(a, b) + log p(c, d) > log p(a, d) + log p(c,
      b). Each word stands as often on both sides, and at least four that are the same on both stand between, so that
      neither how frequent words are nor which ones follow each other decides. 100 quadruples in drawn frames, of which
      no two share a pair (exact interval over them), drawn from 264 pairs written for this tool; a tie is a coin. Asked
      beside word order of whatever compares or writes English texts: without it those PASS nothing. A model that was
      taught the table meets it; ``sense`` names another one.

    With ``--cluster`` or ``--weight`` a classifier's ``accuracy``, ``base_rate`` and ``balanced_accuracy`` are over
    clusters with their shares (:class:`~auditor.statistics.clusters.ClusteredMean`); the others are NOT_APPLICABLE.

    bins: of the calibration error, 2 to 100. n_samples: texts asked of a language model at most. pair_benchmarks: files
    of benchmarks of pairs by their names. sense: path of a table of one's own as of ``probes/data/sense.toml``, for
    models of another language or those that may know this one. Raises NotApplicableError where there are no labels,
    true values or texts; ConfigError for another table; ValueError for other options.

    Sources: Brodersen et al., ICPR 2010 (balanced accuracy; adjusted as in scikit-learn); DeLong et al., Biometrics 44
    (1988); Naeini et al., AAAI 2015; Murphy, Mon. Weather Rev. 116 (1988), on skill against a reference forecast;
    Sinha et al., EMNLP 2021, on word order.
    """

    name = "performance"
    pillar = "performance"
    goal = "What is the model worth, against whoever answers without looking, and for whom?"
    citation = "Brodersen et al., ICPR 2010; DeLong et al., Biometrics 1988; Murphy, MWR 1988"
    methods = (METHOD,)
    # What it needs depends on the kind of model.
    needs = ()
    always_asked = True
    over_all_rows = True
    forecast = Forecast(twin=0.006, number=0.0001, million=1.0, most_rows=10_000)
    questions = (AuditQuestion("ranking", metrics=("roc_auc",), form="pairs"), AuditQuestion("skill"))
    takes = ("cluster", "weight")
    from_decisions = (
        "accuracy", "base_rate", "accuracy_over_base_rate", "balanced_accuracy", "adjusted_balanced_accuracy",
    )  # fmt: skip
    # Rows, half of them of either class, and the true value that is shown to be above chance, at 5 % and in 80 % of
    # audits: the least skill with which a model keeps its PASSes.
    skill_power: ClassVar[Mapping[str, Power]] = {
        "roc_auc": Power(200, 0.61),
        "adjusted_balanced_accuracy": Power(200, 0.21),
    }
    untrusted_options = allow_untrusted("bins", "n_samples", reads=("reference", "pair_benchmarks", "sense"))
    metrics = define_metrics(
        """
        roc_auc: P(a row of the favourable class scores above another) + P(tie) / 2; [0, 1], ideal 1; at 0.8 the model
          ranks a favourable row above another in 8 of 10 pairs, and guessing does in 5; DeLong et al., Biometrics 44
          (1988)
        adjusted_balanced_accuracy: (B - 1/k) / (1 - 1/k) of the balanced accuracy B over the k classes that occur;
          [-1/(k-1), 1], ideal 1; 0 is guessing, and 0.5 half of the way from guessing to recognising every row;
          Brodersen et al., ICPR 2010, adjusted as in scikit-learn
        accuracy: P(decision = label); [0, 1], ideal 1; at 0.9 nine of ten rows are decided as their labels say;
          Stehman, Remote Sens. Environ. 62 (1997)
        base_rate: the accuracy of always answering the commonest class of these rows; [0, 1], no ideal; what a model
          must beat to be of any use; Murphy, Mon. Weather Rev. 116 (1988)
        accuracy_over_base_rate: accuracy less the base rate, paired row by row; [-1, 1], ideal 1 less the base rate;
          above 0 the model is right more often than the commonest answer is; Murphy, Mon. Weather Rev. 116 (1988)
        balanced_accuracy: the mean over classes of the share of their rows that is recognised; [0, 1], ideal 1; at 0.7
          seven of ten rows of a class are recognised on average, however rare the class is; Brodersen et al., ICPR 2010
        log_loss: mean of -ln p of the true class, p at least 2.2e-16; [0, 37] nats, ideal 0; two classes told apart by
          a coin come to 0.69, and more than that is worse than saying nothing; Good, J. R. Stat. Soc. B 14 (1952)
        expected_calibration_error: sum over bins of equal width of (share of the rows) times |share of the class - mean
          score|, of the favourable class, or of more than two of the likeliest one; [0, 1], ideal 0; at 0.05
          probabilities are off by 5 points on average; Naeini et al., AAAI 2015
        error_gain: mean b(y - c) less mean b(y - prediction), with b(e) = min(e^2 / (3 s)^2, 1), s the standard
          deviation of y and c the best single number; [-1, 1], ideal 1; above 0 the model errs less than one number for
          all rows does; Murphy, Mon. Weather Rev. 116 (1988)
        mean_absolute_error: mean of |y - prediction|; [0, inf) in the target's unit, ideal 0; predictions are off by so
          much on average; Willmott and Matsuura, Clim. Res. 30 (2005)
        root_mean_squared_error: square root of the mean of (y - prediction)^2; [0, inf) in the target's unit, ideal 0;
          a typical error in which large ones weigh more; Willmott and Matsuura, Clim. Res. 30 (2005)
        r_squared: 1 - sum (y - prediction)^2 / sum (y - mean)^2; (-inf, 1], ideal 1; at 0.6 six tenths of the target's
          variance are predicted, and at 0 the mean would do as well; Draper and Smith, Applied Regression Analysis
          (1998)
        word_order_accuracy: the share of texts that the model finds likelier than their own tokens in another order;
          [0, 1], ideal 1; at 0.5 it knows at most which words are frequent; Sinha et al., EMNLP 2021
        sense_accuracy: the share of quadruples of sentences of which the two that make sense are together likelier than
          the same two with their ends crossed; [0, 1], ideal 1; at 0.5 the model does not know what goes with what;
          Kauf et al., Cogn. Sci. 47 (2023)
        word_order_accuracy_change: word-order accuracy of this model less that of reference, an earlier one, text by
          text; [-1, 1], no ideal; below 0 the model has unlearned word order; McNemar, Psychometrika 12 (1947)
        perplexity: exp(-sum of log p / number of tokens), of a masked model by its pseudo-likelihood; [1, inf), ideal
          1; at 20 the model hesitates as if among 20 equally likely tokens each time; Jelinek et al., J. Acoust. Soc.
          Am. 62 (1977)
        """
    )

    def __init__(
        self,
        *,
        bins: int = 10,
        n_samples: int = 200,
        reference: str | AuditedModel | None = None,
        pair_benchmarks: Mapping[str, str] | None = None,
        sense: str | None = None,
    ) -> None:
        if not 2 <= bins <= 100:
            raise ValueError(f"bins lies in 2 to 100, not {bins}")
        whole_number("n_samples", n_samples, 2)
        self.bins = bins
        self.n_samples = n_samples
        self.reference = reference
        self.pair_benchmarks = dict(pair_benchmarks or {})
        self.sense = sense
        # Read here, because a file that is wrong is a usage error and no finding.
        self.sense_ = read_sense(sense)

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements on the evaluation rows; see the class for their definitions."""
        if model.kind == "language_model" and not model.can_be_asked:
            raise OtherKindError("Needs a language model that can be asked: only texts that it wrote are here.")
        if model.kind == "language_model":
            from auditor.models.capabilities import scorer_of
            from probes.performance import language_performance

            earlier = earlier_language_model(self.reference)
            scorer = scorer_of(model)
            found = language_performance.measure_texts(scorer, data, self.n_samples, rng, earlier, self.pair_benchmarks)
            found.append(language_performance.sense(scorer, self.sense_, rng))
        elif not len(data):
            raise NotApplicableError("Needs evaluation data: add --data FILE; true labels: add --target COLUMN.")
        else:
            rows = data.evaluation
            found = self._numbers(model, rows) if model.kind == "regressor" else self._classes(model, rows)
        return [replace(m, method=METHOD) for m in found]

    def measure_planted(
        self, model: AuditedModel, data: AuditData, measured: Measurement, value: float, rng: np.random.Generator
    ) -> list[Measurement]:
        """The measurements of a twin of a classifier in which the true value of one of them is known."""
        rows, metric, k = data.evaluation, measured.metric, model.n_outputs
        if model.kind != "classifier" or measured.group or measured.at:
            raise no_plant(measured)
        if metric == "roc_auc":
            twin = ranked(model, rows, value, rng)
        elif metric in ("accuracy", "balanced_accuracy"):
            twin = decided_rightly(model, rows, value, rng)
        elif metric == "adjusted_balanced_accuracy":
            twin = decided_rightly(model, rows, 1.0 / k + value * (1.0 - 1.0 / k), rng)
        else:
            raise no_plant(measured)
        return self.measure(twin, data, rng)

    @property
    def stream_needs(self) -> Asked:
        """The score statistics that streamed rows must provide."""
        return Asked(bins=(self.bins,))

    def measure_streamed(self, streamed: Streamed) -> list[Measurement]:
        """A classifier's measurements, from the counts of streamed rows."""
        counts, scores = streamed.counts, streamed.scores
        if not counts.labelled:
            raise NotApplicableError("Needs true labels: add --target COLUMN.")
        crossed = counts.table[:, :-1].sum(axis=0)
        whole = classification_performance.Counted(crossed, scores.group_by(scores.features).whole(), 0, scores.graded)
        found = classification_performance.measure_rows(whole, counts.classes, self.bins)
        for feature in counts.features:
            own, scored = counts.group_by((feature,)), scores.group_by((feature,))
            # Both are sorted by name.
            labelled = np.flatnonzero(scored.labelled)
            for g in labelled.tolist() if labelled.size <= _MOST_GROUPS else ():
                rows = classification_performance.Counted(own.table[g, :-1], scored, g, scores.graded)
                group = {feature: own.groups[g][0]}
                found += classification_performance.by_group(rows, group, self.bins, graded=scores.graded)
        return [replace(m, method=METHOD) for m in found]

    def _classes(self, model: AuditedModel, rows: AuditData) -> list[Measurement]:
        answered = Answered.from_model(model, rows)
        if answered is None:
            raise NotApplicableError("Needs true labels: add --target COLUMN.")
        found = classification_performance.measure_rows(answered, rows.classes or model.classes, self.bins)
        assert rows.y_true is not None
        labelled = rows.take(rows.y_true >= 0)
        design = labelled.design
        found = found if design is None else over_clusters(found, answered, design)
        for group, own in _groups(labelled):
            theirs = answered.take(own)
            of_group = classification_performance.by_group(theirs, group, self.bins, graded=answered.graded)
            found += of_group if design is None else over_clusters(of_group, theirs, design.take(own))
        return found

    def _numbers(self, model: Any, rows: AuditData) -> list[Measurement]:
        truth = rows.target_values
        known = np.zeros(len(rows), bool) if truth is None else ~np.isnan(truth)
        if truth is None or not known.any():
            raise NotApplicableError("Needs true values: add --target COLUMN.")
        predicted = model.predictions(rows)[known]
        found = measure_predictions(truth[known], predicted)
        for group, own in _groups(rows.take(known)):
            found += errors(truth[known][own], predicted[own], group)
        return found


def _groups(rows: AuditData) -> list[tuple[dict[str, str], Any]]:
    """Each group of each sensitive feature of at most a hundred groups, and which rows (n,) are of it."""
    table = rows.sensitive_features
    found = []
    for column in [] if table is None else table.columns:
        groups = rows.groups(str(column))
        if len(groups.levels) <= _MOST_GROUPS:
            found += [({str(column): name}, groups.codes == g) for g, name in enumerate(groups.titles)]
    return found
