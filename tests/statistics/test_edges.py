"""Where a condition of an estimate is met exactly: the smallest that is enough, and the level that is just reached."""

from __future__ import annotations

import math

import pytest

from auditor.statistics.clusters import ClusteredMean, clustered_mean
from auditor.statistics.estimate import Undefined
from auditor.statistics.intervals import clopper_pearson
from auditor.statistics.rank_estimates import TruePositiveRateAt


def test_two_clusters_are_enough_and_one_is_not() -> None:
    two = clustered_mean([0.0, 1.0, 1.0, 1.0], [0, 0, 1, 1])
    assert isinstance(two, ClusteredMean) and two.centre == 0.75 and math.isfinite(two.standard_error)
    one = clustered_mean([0.0, 1.0, 1.0, 1.0], [0, 0, 0, 0])
    assert isinstance(one, Undefined) and "one cluster" in one.reason
    # A cluster without weight is none.
    weighed = clustered_mean([0.0, 1.0, 1.0, 1.0], [0, 0, 1, 1], [1.0, 1.0, 0.0, 0.0])
    assert isinstance(weighed, Undefined) and "all of the weight lies in one" in weighed.reason
    nobody = clustered_mean([], [])
    assert isinstance(nobody, Undefined) and "0/0" in nobody.reason


@pytest.mark.parametrize(("alpha", "above"), [(0.0625, 2), (0.0624, 0)])
def test_a_rank_that_is_as_improbable_as_the_level_counts(alpha: float, above: int) -> None:
    """No negative of five lies above their median with probability 1/32, which is half of a level of 1/16."""
    estimate = TruePositiveRateAt(
        false_positive_rate=0.5, members_above=(2, 4, 6, 8, 9, 10), n_positive=10, n_negative=5
    )
    low, _ = clopper_pearson(above, n=10, alpha=alpha / 2.0)
    assert estimate.bounds(alpha)[0] == pytest.approx(float(low), abs=1e-12)
