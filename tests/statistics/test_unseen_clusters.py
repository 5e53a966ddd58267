"""Clusters and weights that were not seen: room for the largest that there can be, or no PASS of few."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import auditor
from auditor.core.errors import DataError
from auditor.data.audit_data import AuditData
from auditor.judging.criterion import Criterion
from auditor.judging.measurement import Outcome
from auditor.models.audited_model import AuditedModel
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.statistics.clusters import FEWEST_UNLIMITED, ClusteredMean, clustered_mean
from tests.quantifiers import all_of
from tests.toys.models import criterion

MODEL = AuditedModel.from_callable(lambda X: X["x"].to_numpy(float), classes=("0", "1"), features=("x",))
PARITY = criterion("demographic_parity_difference", "at_most", 0.10)
# Clusters, the share of the large ones, how much larger these are, and how often either is a success.
WORLDS = {
    "100 people of whom 1 % have 50 rows": (100, 0.01, 50.0, 1.0, 0.0),
    "300 rows of which 0.5 % weigh 20": (300, 0.005, 20.0, 1.0, 0.0),
    "most of the weight in three of a hundred": (100, 0.03, 50.0, 1.0, 0.05),
    "a twentieth, five times as large": (50, 0.05, 5.0, 1.0, 0.1),
    "large ones never succeed": (300, 0.005, 20.0, 0.0, 0.3),
    "half of the large ones": (100, 0.01, 50.0, 0.5, 0.0),
    "a thousand": (1_000, 0.002, 20.0, 1.0, 0.02),
}


def misses(name: str, *, limited: bool, alpha: float, worlds: int = 1_000) -> float:
    """The larger share of worlds in which the lower or the upper bound misses the mean of the population."""
    n, share, size, of_large, of_small = WORLDS[name]
    rng = np.random.default_rng(0)
    true = (share * size * of_large + (1 - share) * of_small) / (share * size + 1 - share)
    missed = np.zeros(2)
    for _ in range(worlds):
        large = rng.random(n) < share
        won = (rng.random(n) < np.where(large, of_large, of_small)).astype(float)
        found = clustered_mean(won, np.arange(n), np.where(large, size, 1.0), size if limited else 0.0)
        assert isinstance(found, ClusteredMean)
        low, high = found.bounds(alpha)
        missed += (low > true + 1e-12, high < true - 1e-12)
    return float(missed.max() / worlds)


@pytest.mark.grid
@pytest.mark.parametrize("alpha", [0.05, 0.005])
@pytest.mark.parametrize("name", WORLDS)
def test_with_the_largest_stated_the_bounds_hold_for_the_population(name: str, alpha: float) -> None:
    assert misses(name, limited=True, alpha=alpha) <= alpha + 3.1 * (alpha / 1_000) ** 0.5


def test_given_the_sizes_at_hand_they_do_not() -> None:
    """What a verdict on few clusters of unlimited sizes would promise wrongly."""
    assert misses("100 people of whom 1 % have 50 rows", limited=False, alpha=0.05) > 0.3
    assert misses("300 rows of which 0.5 % weigh 20", limited=False, alpha=0.05) > 0.15


def test_from_so_many_on_a_kind_that_holds_a_tenth_has_been_seen_unless_it_is_34_times_as_large() -> None:
    share, size = 0.1, 34.0
    # Of n clusters a share q is of that kind, which weighs q size of q size + 1 - q.
    q = share / (share + (1 - share) * size)
    assert (1 - q) ** FEWEST_UNLIMITED == pytest.approx(0.04, abs=0.002)


# ---- an audit ------------------------------------------------------------------------------------------------------


def people(n: int, rows: int = 2, weight: float = 1.0) -> pd.DataFrame:
    """Two groups that are treated alike, ``rows`` of each of n people."""
    rng = np.random.default_rng(1)
    x = np.repeat((np.arange(n) // 2) % 2, rows)
    return pd.DataFrame(
        {
            "person": np.repeat(np.arange(n), rows),
            "x": x,
            "y": np.where(rng.random(n * rows) < 0.9, x, 1 - x),
            "sex": np.where(np.repeat(np.arange(n) % 2, rows), "f", "m"),
            "w": weight,
        }
    )


def scanned(rows: pd.DataFrame, *criteria: Criterion, **options: object) -> AuditReport:
    return auditor.scan(
        MODEL, rows, target="y", sensitive=("sex",), probes="group_fairness", criteria=list(criteria) or [PARITY],
        **options,
    )  # fmt: skip


def judged(report: AuditReport) -> Finding:
    (found,) = [f for f in report.findings if f.criterion is not None]
    return found


def test_few_clusters_of_unlimited_sizes_pass_nothing_and_say_what_they_take_as_given() -> None:
    loose = criterion("demographic_parity_difference", "at_most", 0.30)
    found = judged(scanned(people(800), loose, cluster="person"))
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "count as 400 of one size, and under 1,000" in found.reason and "--cluster-at-most N" in found.reason
    stated = scanned(people(800), loose, cluster="person", cluster_at_most=4)
    assert judged(stated).outcome is Outcome.PASS and "given the" not in judged(stated).reason
    assert (stated.data.cluster_at_most, stated.data.weight_at_most) == (4, None)


def test_many_clusters_may_pass_given_the_sizes_at_hand() -> None:
    found = judged(scanned(people(8_000), cluster="person"))
    assert found.outcome is Outcome.PASS
    assert "This holds given the cluster sizes at hand: --cluster-at-most N" in found.reason


def test_a_gap_still_fails_given_the_sizes_at_hand() -> None:
    rows = people(800).assign(x=lambda t: (t["sex"] == "f").astype(int))
    assert judged(scanned(rows, cluster="person")).outcome is Outcome.FAIL


def test_of_clusters_with_weights_both_are_limited() -> None:
    options = {"cluster": "person", "weight": "w"}
    half = judged(scanned(people(8_000, weight=2.0), **options, cluster_at_most=2))
    assert "given the weights at hand: --weight-at-most W" in half.reason
    both = judged(scanned(people(8_000, weight=2.0), **options, cluster_at_most=2, weight_at_most=8.0))
    assert "given the" not in both.reason
    # An unseen person may weigh four times as much as each of these.
    one = judged(scanned(people(8_000), cluster="person", cluster_at_most=2))
    assert both.interval is not None and one.interval is not None and both.interval[1] > one.interval[1]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cluster": "person", "cluster_at_most": 1}, "has 2 rows, more than --cluster-at-most 1"),
        ({"weight": "w", "weight_at_most": 0.5}, "weighs 1 by 'w', more than --weight-at-most 0.5"),
        ({"weight": "w", "cluster_at_most": 4}, "add --cluster COLUMN"),
        ({"weight_at_most": 4.0}, "add --weight COLUMN"),
    ],
)
def test_a_limit_that_the_rows_exceed_or_that_limits_nothing_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        scanned(people(40), **options)


def test_arrays_have_the_same_limits(tmp_path: Path) -> None:
    rows = people(800)
    data = AuditData.from_arrays(
        rows[["x"]], rows["y"], classes=(0, 1), sensitive_features=rows[["sex"]], clusters=rows["person"],
        weights=rows["w"], cluster_at_most=4, weight_at_most=3.0,
    )  # fmt: skip
    assert data.design is not None and data.design.largest == 12.0 and data.design.unlimited == ()
    taken = data.take(np.arange(10)).design
    assert taken is not None and taken.largest == 12.0
    assert all_of(each == 12.0 for each in [data.design.followed_by(3).largest])
