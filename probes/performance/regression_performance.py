"""Accuracy of predicted numbers: overall, by group, and against prediction of the mean."""

from __future__ import annotations

import math

import numpy as np

from auditor.core.rows import FloatArray
from auditor.judging.measurement import Measurement
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.means import StudentT, mean
from auditor.statistics.values import bounded_mean

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
