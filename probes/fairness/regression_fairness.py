"""Regression fairness: differences of predictions and their errors between groups."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from auditor.core.errors import DataError, NotApplicableError, OtherKindError
from auditor.core.rows import FloatArray, IntArray
from auditor.data.group_counts import MISSING, CodedGroups, coded_texts, together
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.planted.twin_costs import Forecast
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.distribution_distances import WorstDistance
from auditor.statistics.estimate import Power, Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.means import StudentT, mean
from auditor.statistics.rates import MOST_GROUPS
from auditor.statistics.values import LargestValue, ValuePart, WorstValueDistance, WorstValueGap, bounded_mean
from probes.fairness.score_fairness import distances
from probes.twins import no_plant, of_pair

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

METHOD = "between_groups"
SMALL = 30
_ROOTED = "root_mean_squared_error"
_LARGEST = 1e30
_ALONE = Undefined(reason="only one group is present, so there is nothing to compare it with")
_CROWD = Undefined(reason=f"more than {MOST_GROUPS:,} groups are too many to compare in pairs")
_NO_RANGE = (
    "Display only: without a stated range no interval of it holds at every group size. To have it judged, add "
    "--set regression_fairness.value_range=[low,high]."
)


class RegressionFairness(BaseProbe):
    """Mean prediction, errors and distribution of predicted numbers by group and intersection, and the worst gaps.

    Per group g, over rows of g, in the target's unit; errors over the rows that have a true value: ``mean_prediction``,
    ``mean_absolute_error``, ``root_mean_squared_error`` and ``mean_residual``.

    Headlines, method ``between_groups``, for each sensitive feature and for the full intersection:
    ``mean_prediction_difference``, ``mean_absolute_error_difference``, ``root_mean_squared_error_difference``,
    ``mean_residual_difference``, ``worst_group_mean_absolute_error``, ``prediction_kolmogorov_smirnov`` and
    ``prediction_wasserstein``.

    With ``value_range`` every interval holds at every level and group size, whatever the distributions
    (:class:`~auditor.statistics.values.BoundedMean`, Dvoretzky-Kiefer-Wolfowitz). Without it the means come with
    Student's interval, for display alone: with a value of 1 in a hundred far above the others and 30 rows, its upper
    bound at 0.0005 misses the mean 1,200 times as often as promised. Then only the Kolmogorov-Smirnov distance, which
    needs no range, can be judged. A headline is never bounded from the noisy maximum itself.

    value_range: (low, high) that hold every prediction and true value, known beforehand, such as a scale's ends or what
    the product allows; the narrower, the tighter the intervals. DataError where a value lies outside: a range read off
    the data is none. intersections: whether to compare the intersection of several sensitive features too.

    Sources: Calders et al., ICDM 2013 (mean difference); Agarwal, Dudik and Wu, ICML 2019 (statistical parity and
    bounded group loss of regressions); Chzhen et al., NeurIPS 2020 (Wasserstein distance); definitions as in fairlearn
    and scikit-learn where they have them.
    """

    name = "regression_fairness"
    pillar = "fairness"
    goal = "Do predicted numbers, and their errors, differ between groups?"
    citation = "Agarwal, Dudik and Wu, ICML 2019; Calders et al., ICDM 2013"
    methods = (METHOD,)
    needs = (Need.REGRESSOR, Need.DATA, Need.SENSITIVE)
    over_all_rows = True
    forecast = Forecast(twin=0.004, number=0.0002, million=2.0)
    questions = (AuditQuestion("numbers"),)
    ideal_when_same = {"worst_group_mean_absolute_error": "nothing"}
    # Rows in each of two groups of values (predictions, absolute errors) with a standard deviation of 0.15 on the range
    # [0, 1], and the true value found above 0.05 with 80 % power among 4 judgements at 5 %.
    power: ClassVar[Mapping[str, Power]] = {
        "mean_prediction_difference": Power(500, 0.09),
        "mean_absolute_error_difference": Power(500, 0.09),
        "prediction_kolmogorov_smirnov": Power(500, 0.24),
    }
    untrusted_options = allow_untrusted("intersections")
    metrics = define_metrics(
        """
        mean_prediction: mean of y_pred in the group; (-inf, inf) in the target's unit, no ideal; what is predicted for
          the group on average; Calders et al., ICDM 2013
        mean_absolute_error: mean of |y_true - y_pred| in the group; [0, inf) in the target's unit, ideal 0; predictions
          for the group are off by so much on average; Agarwal, Dudik and Wu, ICML 2019
        root_mean_squared_error: square root of the mean of (y_true - y_pred)^2 in the group; [0, inf) in the target's
          unit, ideal 0; a typical error for the group in which large ones weigh more; Agarwal, Dudik and Wu, ICML 2019
        mean_residual: mean of (y_true - y_pred) in the group; (-inf, inf) in the target's unit, ideal 0; above 0 the
          group is predicted too low; Calders et al., ICDM 2013
        mean_prediction_difference: max - min over groups of the mean prediction; [0, inf) in the target's unit, ideal
          0; one group is predicted so much higher than another on average; Calders et al., ICDM 2013
        mean_absolute_error_difference, root_mean_squared_error_difference: max - min over groups of that error; [0,
          inf) in the target's unit, ideal 0; predictions are off by so much more for one group than for another;
          Agarwal, Dudik and Wu, ICML 2019
        mean_residual_difference: max - min over groups of the mean residual; [0, inf) in the target's unit, ideal 0;
          one group is predicted too low by so much more than another; Calders et al., ICDM 2013
        worst_group_mean_absolute_error: max over groups of the mean absolute error, as bounded group loss holds it; [0,
          inf) in the target's unit, ideal 0; predictions for the group served worst are off by so much on average;
          Agarwal, Dudik and Wu, ICML 2019
        prediction_kolmogorov_smirnov: largest distance sup |F_i - F_j| of two groups' distributions of predictions; [0,
          1], ideal 0; at 0.2 there is a number that one group is predicted to exceed 20 points more often than another;
          Agarwal, Dudik and Wu, ICML 2019
        prediction_wasserstein: largest area integral |F_i - F_j| between two groups' distributions of predictions; [0,
          inf) in the target's unit, ideal 0; one group's predictions would have to move by so much on average to be
          those of another; Chzhen et al., NeurIPS 2020
        """
    )

    def __init__(self, *, value_range: Sequence[float] | None = None, intersections: bool = True) -> None:
        if value_range is not None:
            ends = tuple(value_range) if isinstance(value_range, (list, tuple)) else ()
            if (
                len(ends) != 2
                or any(isinstance(x, bool) or not isinstance(x, (int, float)) or not abs(x) <= _LARGEST for x in ends)
                or not ends[1] - ends[0] > 1.0 / _LARGEST
            ):
                raise ValueError(f"value_range is [low, high], finite numbers with low < high, not {value_range!r}")
        self.value_range = value_range
        self.intersections = intersections

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements on the evaluation rows; see the class for their definitions."""
        rows = data.evaluation
        predict = getattr(model, "predictions", None)
        if model.kind != "regressor" or predict is None:
            raise OtherKindError("Needs a regression model: this model predicts no numbers.")
        if rows.sensitive_features is None:
            raise NotApplicableError("Needs a sensitive feature: add --sensitive COLUMN.")
        return self.measure_numbers(predict(rows), rows.target_values, _groups_of(rows))

    def measure_planted(
        self, model: AuditedModel, data: AuditData, measured: Measurement, value: float, rng: np.random.Generator
    ) -> list[Measurement]:
        """The measurements of predictions in which the true value of a difference between two groups is known.

        All groups are predicted alike, but for two: the one is predicted so much higher than the other.
        """
        rows, predict = data.evaluation, getattr(model, "predictions", None)
        if predict is None or measured.group:
            raise no_plant(measured)
        predicted = rng.permutation(predict(rows))
        if measured.metric == "mean_prediction_difference" and self.value_range is not None:
            low, high = self.value_range
            raised = of_pair(rows, measured, (0.0, 1.0, 0.5), rng)
            # Within the range whatever is added.
            predicted = low + (predicted - low) * (1.0 - value / (high - low)) + value * raised
        elif measured.metric == "prediction_kolmogorov_smirnov":
            above = rng.random(len(rows)) < of_pair(rows, measured, (0.0, value, 0.0), rng)
            predicted = np.where(above, predicted.max(), predicted)
        else:
            raise no_plant(measured)
        return self.measure_numbers(predicted, rows.target_values, _groups_of(rows))

    def measure_predictions(
        self,
        y_pred: npt.ArrayLike,
        y_true: npt.ArrayLike | None = None,
        *,
        sensitive_features: Mapping[str, Sequence[str]],
    ) -> list[Measurement]:
        """Measurements from predictions (n,), true values (n,) or None, and each row's group by feature, (n,) each.

        y_true is NaN where a row has none. Raises DataError where lengths differ, a prediction is not finite, or a
        value lies outside ``value_range``.
        """
        predicted = np.asarray(y_pred, np.float64)
        true = None if y_true is None else np.asarray(y_true, np.float64)
        lengths = {len(predicted), *map(len, sensitive_features.values()), *([] if true is None else [len(true)])}
        if len(lengths) > 1:
            raise DataError("Predictions, true values and groups must have one entry for each row.")
        groups = {name: coded_texts(map(str, own)) for name, own in sensitive_features.items()}
        return self.measure_numbers(predicted, true, groups)

    def measure_numbers(
        self, predicted: FloatArray, true: FloatArray | None, own_groups: Mapping[str, CodedGroups]
    ) -> list[Measurement]:
        """Measurements from predictions (n,), true values (n,) or None, and the coded groups of each feature."""
        predicted, true = self._checked(predicted, true)
        features = tuple(own_groups)
        wanted: list[tuple[str, ...]] = [(feature,) for feature in features]
        if self.intersections and len(features) > 1:
            wanted.append(features)
        found: list[Measurement] = []
        for names in wanted:
            found += self._measure_groups(names, together([own_groups[name] for name in names]), predicted, true)
        return found

    def _checked(self, predicted: FloatArray, true: FloatArray | None) -> tuple[FloatArray, FloatArray | None]:
        known = np.empty(0) if true is None else true[~np.isnan(true)]
        if not (np.abs(predicted) <= _LARGEST).all() or not (np.abs(known) <= _LARGEST).all():
            raise DataError(f"Predictions and true values must be finite numbers within {_LARGEST:g}.")
        if self.value_range is None:
            return predicted, true
        low, high = self.value_range
        # A network that ends in the range may round past it.
        slack = 1e-6 * (high - low)
        for what, values in (("A prediction", predicted), ("A true value", known)):
            outside = values[(values < low - slack) | (values > high + slack)]
            if outside.size:
                raise DataError(
                    f"{what} of {outside[0]:g} lies outside value_range [{low:g}, {high:g}], so that range is not the "
                    "one that values can take: state one that holds them all, known from elsewhere than these data."
                )
        return np.clip(predicted, low, high), None if true is None else np.clip(true, low, high)

    def _measure_groups(
        self, names: tuple[str, ...], coded: CodedGroups, predicted: FloatArray, true: FloatArray | None
    ) -> list[Measurement]:
        levels, codes = coded.levels, coded.codes
        groups = _Groups(names, levels)
        headlines: list[Measurement] = []
        per_group: list[Measurement] = []
        for metric, values, ends in self._numbers(predicted, true):
            known = ~np.isnan(values)
            own = _split_by_group(values[known], codes[known], len(levels))
            n = [v.size for v in own]
            parts = [self._part(metric, v, ends) for v in own]
            said = groups.extremes(metric, n, parts)
            headlines.append(self._headline(groups, f"{metric}_difference", _gap(parts), sum(n), said))
            if metric == "mean_absolute_error":
                headlines.append(self._headline(groups, f"worst_group_{metric}", _largest(parts), sum(n), said))
            per_group += [
                Measurement(
                    metric=metric,
                    method=METHOD,
                    estimate=part,
                    n_samples=size,
                    ideal=None if metric == "mean_prediction" else 0.0,
                    group=dict(zip(names, level, strict=True)),
                    detail=f"a small group: {size} rows" if size < SMALL else "",
                    too_few=self._unjudged,
                )
                for level, size, part in zip(levels, n, parts, strict=True)
            ]
        return [*headlines, *self._distances(groups, _split_by_group(predicted, codes, len(levels))), *per_group]

    @property
    def _unjudged(self) -> str:
        return _NO_RANGE if self.value_range is None else ""

    def _headline(
        self, groups: _Groups, metric: str, estimate: AnyEstimate, n: int, detail: str, *, needs_range: bool = True
    ) -> Measurement:
        return Measurement(
            metric=metric,
            method=METHOD,
            estimate=estimate,
            n_samples=n,
            ideal=0.0,
            sensitive=groups.features,
            detail=detail,
            too_few=self._unjudged if needs_range else "",
        )

    def _numbers(
        self, predicted: FloatArray, true: FloatArray | None
    ) -> list[tuple[str, FloatArray, tuple[float, float]]]:
        """Each metric, what a row contributes to its mean (n,), and the range of that."""
        low, high = self.value_range or (-_LARGEST, _LARGEST)
        span = high - low
        found = [("mean_prediction", predicted, (low, high))]
        if true is not None and not np.isnan(true).all():
            residual = true - predicted
            found += [
                ("mean_absolute_error", np.abs(residual), (0.0, span)),
                (_ROOTED, residual**2, (0.0, span**2)),
                ("mean_residual", residual, (-span, span)),
            ]
        return found

    def _part(self, metric: str, values: FloatArray, ends: tuple[float, float]) -> ValuePart:
        if self.value_range is not None:
            return bounded_mean(values, low=ends[0], high=ends[1], root=metric == _ROOTED)
        return _rooted(mean(values)) if metric == _ROOTED else mean(values)

    def _distances(self, groups: _Groups, group_values: Sequence[FloatArray]) -> list[Measurement]:
        steps: AnyEstimate = _ALONE
        shifts: AnyEstimate = _ALONE
        said = ["", ""]
        n = tuple(v.size for v in group_values)
        if len(group_values) > MOST_GROUPS:
            steps = shifts = _CROWD
        elif len(group_values) > 1:
            low, high = self.value_range or _ends(group_values)
            pairs = list(combinations(range(len(group_values)), 2))
            scaled = [np.sort((v - low) / (high - low)) for v in group_values]
            found = np.asarray([distances(scaled[i], scaled[j]) for i, j in pairs])
            steps = WorstDistance(distances=tuple(found[:, 0].tolist()), n=n)
            moved = tuple((found[:, 1] * (high - low)).tolist())
            shifts = WorstValueDistance(distances=moved, n=n, span=self.value_range and high - low)
            said = [groups.farthest(n, pairs[int(found[:, column].argmax())]) for column in (0, 1)]
        return [
            self._headline(groups, "prediction_kolmogorov_smirnov", steps, sum(n), said[0], needs_range=False),
            self._headline(groups, "prediction_wasserstein", shifts, sum(n), said[1]),
        ]


def _groups_of(rows: AuditData) -> dict[str, CodedGroups]:
    columns = () if rows.sensitive_features is None else map(str, rows.sensitive_features.columns)
    return {name: rows.groups(name) for name in columns}


@dataclass(frozen=True)
class _Groups:
    """The groups of one or several features together, and how they are spoken of."""

    features: tuple[str, ...]
    levels: Sequence[tuple[str, ...]]

    @property
    def feature_label(self) -> str:
        return " x ".join(self.features)

    @property
    def titles(self) -> list[str]:
        return [" x ".join(level) for level in self.levels]

    def extremes(self, metric: str, n: Sequence[int], parts: Sequence[ValuePart]) -> str:
        """Which groups are the extremes, for which there is no number, and which are small."""
        titles = self.titles
        present = [i for i, part in enumerate(parts) if not math.isnan(part.value)]
        absent = [titles[i] for i in range(len(parts)) if i not in present]
        text = []
        if len(present) > 1:
            low, high = (f(present, key=lambda i: parts[i].value) for f in (min, max))
            text.append(
                f"{metric} by {self.feature_label}: lowest {titles[low]} {_number_text(parts[low].value)} (n = "
                f"{n[low]:,}), "
                f"highest {titles[high]} {_number_text(parts[high].value)} (n = {n[high]:,})"
            )
        if absent:
            text.append(f"{metric} is undefined for {', '.join(absent[:5])}: too few rows")
        return "; ".join([*text, *self._remarks(n)])

    def farthest(self, n: Sequence[int], pair: tuple[int, int]) -> str:
        """The two groups farthest apart, and which groups are small."""
        i, j = pair
        first, second = (f"{self.titles[k]} (n = {n[k]:,})" for k in (i, j))
        text = f"farthest apart by {self.feature_label}: {first} and {second}"
        return "; ".join([text, *self._remarks(n)])

    def _remarks(self, n: Sequence[int]) -> list[str]:
        small = [f"{title} ({size})" for title, size in zip(self.titles, n, strict=True) if size < SMALL]
        said = []
        if small:
            said.append(f"small groups: {', '.join(small[:5])}{' and others' if len(small) > 5 else ''}")
        if any(MISSING in level for level in self.levels):
            said.append(f"rows without a group value are the group {MISSING}")
        return said


def _number_text(x: float) -> str:
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.4g}"


def _split_by_group(values: FloatArray, codes: IntArray, n_groups: int) -> list[FloatArray]:
    """Each group's values, in one pass over the rows."""
    order = np.argsort(codes, kind="stable")
    return np.split(values[order], np.cumsum(np.bincount(codes, minlength=n_groups))[:-1]) if n_groups else []


def _gap(parts: Sequence[ValuePart]) -> AnyEstimate:
    if len(parts) > MOST_GROUPS:
        return _CROWD
    return WorstValueGap(parts=tuple(parts)) if len(parts) > 1 else _ALONE


def _largest(parts: Sequence[ValuePart]) -> AnyEstimate:
    if len(parts) > MOST_GROUPS:
        return _CROWD
    return LargestValue(parts=tuple(parts)) if parts else Undefined(reason="there are no rows")


def _rooted(squared: StudentT | Undefined) -> StudentT | Undefined:
    """The root of a mean of squares, with its standard error by the delta method: for display."""
    if isinstance(squared, Undefined):
        return squared
    root = math.sqrt(squared.centre)
    return StudentT(
        centre=root,
        standard_error=squared.standard_error / (2.0 * root) if root else 0.0,
        degrees_of_freedom=squared.degrees_of_freedom,
        lower_limit=0.0,
    )


def _ends(group_values: Sequence[FloatArray]) -> tuple[float, float]:
    """The range of the values seen, never empty: for scaling alone."""
    low, high = min(float(v.min()) for v in group_values), max(float(v.max()) for v in group_values)
    return (low, high) if high > low else (low, low + max(1.0, abs(low)))
