"""Performance on dependent or weighted rows: the same numbers by other estimates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from auditor.core.rows import FloatArray
from auditor.data.sampling_design import Design
from auditor.judging.measurement import Measurement
from auditor.statistics.clusters import ClusteredMean, clustered_mean, too_few
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from probes.performance.classification_performance import Answered


def over_clusters(measurements: Sequence[Measurement], rows: Answered, design: Design) -> list[Measurement]:
    """The measurements with estimates valid for the labelled rows' sampling design, if available.

    Accuracy, the base rate and balanced accuracy, which is an accuracy of rows that weigh as much as their class does:
    each class ``1 / k``. The others stay as they are, for whoever asked to say that they do not hold
    (:func:`auditor.run.probe.of_design`).
    """
    weights = np.ones(len(rows)) if design.weights is None else design.weights
    commonest = int(np.bincount(rows.truth, weights=weights).argmax()) if len(rows) else 0
    values: dict[str, tuple[FloatArray, FloatArray]] = {
        "accuracy": (rows.right.astype(np.float64), weights),
        "base_rate": ((rows.truth == commonest).astype(np.float64), weights),
        "balanced_accuracy": (rows.right.astype(np.float64), weights / _of_class(rows, weights)),
    }
    found = []
    for m in measurements:
        if m.metric not in values or isinstance(m.estimate, Undefined):
            found.append(m)
            continue
        of, each = values[m.metric]
        estimate: AnyEstimate = clustered_mean(of, design.codes(), each)
        if isinstance(estimate, ClusteredMean):
            few = too_few(estimate, f"{estimate.effective:,.3g} effective clusters")
            m = replace(m, too_few=m.too_few or few, detail=f"effective n {estimate.effective:,.4g}")
        found.append(replace(m, estimate=estimate))
    return found


def _of_class(rows: Answered, weights: FloatArray) -> FloatArray:
    """(n,) the weight of all rows of each row's class; 1 where they have none."""
    own = np.bincount(rows.truth, weights=weights)[rows.truth] if len(rows) else np.ones(0)
    return np.where(own > 0.0, own, 1.0)
