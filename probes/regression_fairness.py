"""Fairness of a regression: do predictions and their errors differ between groups? From predictions, not a model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from auditor.arrays import FloatArray
from auditor.errors import DataError
from auditor.finding import Measurement
from auditor.statistics.distances import WorstDistance, WorstGap
from auditor.statistics.estimate import Undefined
from auditor.statistics.kinds import AnyEstimate
from auditor.statistics.means import StudentT, mean
from probes.score_fairness import distances

_ALONE = Undefined(reason="only one group is present, so there is nothing to compare it with")


class RegressionFairness:
    """The worst gap between two groups in the mean, the absolute error and the distribution of predicted numbers.

    Per group, over its rows: ``mean_prediction`` and ``mean_absolute_error = mean |y_true - y_pred|``, in the target's
    unit, with Student's interval. Headlines:

    - ``mean_prediction_difference``, ``mean_absolute_error_difference``: max - min of the two; [0, inf), ideal 0
    - ``prediction_wasserstein``: the largest ``integral |F_i - F_j|`` of two groups' predictions, as a share of
      ``limits``; [0, 1], ideal 0. Undefined without limits, since nothing bounds a distance on an open range

    Student's intervals are approximate: they want groups of some tens of rows, more where values are skewed. A group of
    fewer than two rows leaves the first two undefined.

    limits: the range that a prediction can take; DataError where one lies outside it.

    Sources: Calders et al., ICDM 2013 (mean difference); Agarwal, Dudik and Wu, ICML 2019 (bounded group loss);
    Chzhen et al., NeurIPS 2020 (Wasserstein distance); definitions as in fairlearn.
    """

    def __init__(self, *, limits: tuple[float, float] | None = None) -> None:
        if limits is not None and not limits[0] < limits[1]:
            raise ValueError(f"limits are (low, high) with low < high, not {limits}")
        self.limits = limits

    def measure_predictions(
        self,
        y_pred: npt.ArrayLike,
        y_true: npt.ArrayLike | None = None,
        *,
        sensitive_features: Sequence[str],
        name: str = "group",
    ) -> list[Measurement]:
        """Measurements from predictions (n,), true values (n,) or None, and each row's group (n,).

        Raises DataError where lengths differ or a number is not finite.
        """
        predicted = np.asarray(y_pred, np.float64)
        groups = np.asarray([str(g) for g in sensitive_features], object)
        true = None if y_true is None else np.asarray(y_true, np.float64)
        if len(groups) != len(predicted) or (true is not None and len(true) != len(predicted)):
            raise DataError("Predictions, true values and groups must have one entry for each row.")
        if not np.isfinite(predicted).all() or (true is not None and not np.isfinite(true).all()):
            raise DataError("Predictions and true values must be finite numbers.")
        levels = sorted(set(groups.tolist()))
        values = [("mean_prediction", predicted)]
        if true is not None:
            values.append(("mean_absolute_error", np.abs(true - predicted)))
        found: list[Measurement] = []
        for metric, numbers in values:
            parts = [mean(numbers[groups == level]) for level in levels]
            found.append(_headline(f"{metric}_difference", _gap(parts), len(predicted), name))
            found += [
                Measurement(metric=metric, estimate=part, n_samples=int((groups == level).sum()), group={name: level})
                for level, part in zip(levels, parts, strict=True)
            ]
        farthest = self._distance([predicted[groups == level] for level in levels])
        return [*found, _headline("prediction_wasserstein", farthest, len(predicted), name)]

    def _distance(self, predicted: Sequence[FloatArray]) -> AnyEstimate:
        if self.limits is None:
            return Undefined(reason="a distance has bounds only where predictions have: give their limits")
        if len(predicted) < 2:
            return _ALONE
        low, high = self.limits
        scaled = [(p - low) / (high - low) for p in predicted]
        if any(s.min() < 0.0 or s.max() > 1.0 for s in scaled):
            raise DataError(f"A prediction lies outside the limits [{low:g}, {high:g}].")
        found = tuple(distances(a, b)[1] for a, b in combinations(scaled, 2))
        return WorstDistance(distances=found, n=tuple(s.size for s in scaled))


def _gap(parts: Sequence[StudentT | Undefined]) -> AnyEstimate:
    return WorstGap(parts=tuple(parts), largest=None) if len(parts) > 1 else _ALONE


def _headline(metric: str, estimate: AnyEstimate, n: int, name: str) -> Measurement:
    return Measurement(
        metric=metric, method="between_groups", estimate=estimate, n_samples=n, ideal=0.0, sensitive=(name,)
    )
