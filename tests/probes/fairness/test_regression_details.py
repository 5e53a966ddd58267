"""The details of a regression's headlines name the groups that lie farthest apart, with their numbers."""

from __future__ import annotations

import numpy as np

from probes.fairness.regression_fairness import RegressionFairness
from tests.toys.models import TOYS


def test_of_two_groups_the_lowest_and_the_highest_are_named() -> None:
    toys = TOYS["regression_fairness"]
    data = toys.data().take(slice(0, 300))
    found = RegressionFairness(**toys.options).measure(toys.violating(), data, np.random.default_rng(0))
    (headline,) = (m for m in found if m.metric == "mean_prediction_difference")
    means = {m.group["group"]: m for m in found if m.metric == "mean_prediction" and m.group}
    low, high = (means[name] for name in sorted(means, key=lambda name: means[name].estimate.value))
    assert headline.detail == (
        f"mean_prediction by group: lowest {low.group['group']} {low.estimate.value:.4g} (n = {low.n_samples:,}), "
        f"highest {high.group['group']} {high.estimate.value:.4g} (n = {high.n_samples:,})"
    )
