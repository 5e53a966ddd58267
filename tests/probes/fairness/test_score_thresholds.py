"""Scores at thresholds: the numbers of deciding at each of them, and bounds that hold for all of them at once."""

from __future__ import annotations

import math
from collections.abc import Iterator

import fairlearn.metrics as fl
import numpy as np
import pandas as pd
import pytest

from auditor.data.audit_data import AuditData
from auditor.judging.measurement import Measurement
from auditor.models.audited_model import AuditedModel
from auditor.statistics.estimate import Estimate
from auditor.statistics.groups import WorstDifference, WorstRatio
from auditor.statistics.rates import RateTable
from probes.fairness.score_fairness import ScoreFairness
from probes.fairness.score_thresholds import GroupScores, at_thresholds, checked_thresholds, own_threshold
from tests.quantifiers import all_of
from tests.statistics.worlds import WORLDS, bounds_of, misses, most_misses

GRID = (0.3, 0.5, 0.7)


def at(found: list[Measurement], metric: str, threshold: float | None = None) -> Measurement:
    [one] = [m for m in found if m.metric == metric and m.at.get("threshold") == threshold]
    return one


def of(
    scores: np.ndarray, y: np.ndarray | None, codes: np.ndarray, thresholds: tuple[float, ...] = GRID
) -> list[Measurement]:
    titles = [str(g) for g in range(int(codes.max()) + 1)]
    return at_thresholds(("g",), GroupScores.from_rows(titles, codes, scores, y, 1, thresholds, None), thresholds)


@pytest.mark.grid
@pytest.mark.parametrize("seed", range(5))
def test_each_threshold_agrees_with_fairlearn_on_its_decisions_and_the_worst_is_the_worst_of_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes, scores = rng.integers(0, 3, 900), rng.beta(2, 2, 900)
    y = (rng.random(900) < scores).astype(np.int64)
    found = of(scores, y, codes)
    theirs = {
        "demographic_parity_difference": fl.demographic_parity_difference,
        "demographic_parity_ratio": fl.demographic_parity_ratio,
        "equalized_odds_difference": fl.equalized_odds_difference,
    }
    for metric, expected in theirs.items():
        values = []
        for t in GRID:
            decided = (scores >= t).astype(int)
            values.append(expected(y, decided, sensitive_features=codes))
            assert at(found, f"{metric}_at_threshold", t).estimate.value == pytest.approx(values[-1], abs=1e-12)
        worst = at(found, f"{metric}_over_thresholds")
        assert worst.estimate.value == pytest.approx((min if metric.endswith("ratio") else max)(values), abs=1e-12)
        assert worst.at == {"thresholds": "0.3, 0.5, 0.7"} and "widest in" in worst.detail


def test_a_threshold_is_reached_by_a_score_equal_to_it_as_the_model_decides() -> None:
    scores = np.asarray([0.5, 0.5, 0.4, 0.6])
    codes = np.asarray([0, 0, 1, 1])
    model = AuditedModel.from_callable(lambda rows: rows["s"].to_numpy(), classes=["no", "yes"], threshold=0.5)
    decided = model.decide(model.predict_proba(pd.DataFrame({"s": scores})), 1)
    assert decided.tolist() == [1, 1, 0, 1]
    [one] = [m for m in of(scores, None, codes, (0.5,)) if m.metric == "demographic_parity_difference_at_threshold"]
    assert one.estimate.value == 0.5
    assert isinstance(one.estimate, WorstDifference) and one.estimate.tables[0].successes == (2, 1)


def test_without_labels_there_is_no_odds_and_one_group_and_empty_groups_are_no_number() -> None:
    scores, codes = np.linspace(0.05, 0.95, 30), np.arange(30) % 2
    assert not [m for m in of(scores, None, codes) if m.metric.startswith("equalized")]
    assert all_of(math.isnan(m.estimate.value) for m in of(scores, None, np.zeros(30, np.int64)))
    # No negative row in group 1: its false positive rate is 0/0 at every threshold.
    y = np.where(codes == 1, 1, codes * 0 + (scores > 0.5))
    odds = at(of(scores, y, codes), "equalized_odds_difference_over_thresholds")
    assert math.isnan(odds.estimate.value) and "undefined (0/0) for 1" in odds.detail
    nobody = at(of(np.full(30, 0.01), None, codes), "demographic_parity_ratio_over_thresholds")
    assert math.isnan(nobody.estimate.value) and nobody.estimate.bounds(0.05) == (0.0, 1.0)


def test_options() -> None:
    assert checked_thresholds([0.7, 0.3, 0.3]) == (0.3, 0.7) and checked_thresholds(0.5) == (0.5,)  # type: ignore[arg-type]
    for wrong in ([0.0], [1.0], [0.5, "0.7"], [True], [math.nan]):
        with pytest.raises(ValueError, match="thresholds lie between 0 and 1"):
            ScoreFairness(thresholds=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at most 50"):
        ScoreFairness(thresholds=[i / 100 for i in range(1, 80)])


def test_the_probe_measures_them_for_every_feature_and_draws_the_curve() -> None:
    rng = np.random.default_rng(0)
    groups = pd.DataFrame({"sex": rng.choice(["f", "m"], 600), "race": rng.choice(list("abcdefgh"), 600)})
    scores = np.clip(rng.beta(2, 2, 600) + 0.2 * (groups["sex"] == "m"), 0, 1).to_numpy()
    data = AuditData.from_arrays(
        pd.DataFrame({"s": scores}), rng.integers(0, 2, 600), classes=["0", "1"], sensitive_features=groups
    )
    model = AuditedModel.from_callable(lambda rows: rows["s"].to_numpy(), classes=["0", "1"])
    found = ScoreFairness(thresholds=(0.4, 0.6)).measure(model, data, rng)
    worst = [m for m in found if m.metric == "demographic_parity_difference_over_thresholds"]
    assert [m.sensitive for m in worst] == [("sex",), ("race",), ("sex", "race")]
    assert len([m for m in found if "threshold" in m.at]) == 2 * 3 * 3
    figure = worst[0].figure
    assert figure is not None and figure.kind == "threshold" and figure.features == ("sex",)
    assert [s.name for s in figure.series] == ["f", "m", "largest difference"]
    men, women = (scores[(groups["sex"] == level).to_numpy()] for level in "mf")
    assert figure.series[1].y[10] == pytest.approx((men >= 0.5).mean())
    assert figure.series[2].y[10] == pytest.approx(abs((men >= 0.5).mean() - (women >= 0.5).mean()))
    width = math.sqrt(math.log(2 * 2 / 0.05) / (2 * men.size))
    assert figure.series[1].high[10] == pytest.approx(min((men >= 0.5).mean() + width, 1.0))
    assert figure.marked == 0.5 and "The model itself decides at 0.5." in figure.caption
    spread = next(m.figure for m in found if m.metric == "score_kolmogorov_smirnov" and m.sensitive == ("sex",))
    assert spread is not None and spread.kind == "scores"
    place = np.minimum((men * 20 + 1e-9).astype(int), 19)
    assert list(spread.series[1].y) == pytest.approx(list(np.bincount(place, minlength=20) / men.size))
    assert worst[1].figure is not None and "The 6 largest of 8 groups" in worst[1].figure.caption
    assert not [m for m in ScoreFairness(thresholds=()).measure(model, data, rng) if "threshold" in m.metric]


def test_the_threshold_that_a_model_decides_at_is_found_or_said_to_be_none() -> None:
    scores = np.asarray([0.1, 0.3, 0.45, 0.7, 0.9])
    assert own_threshold(scores, scores >= 0.5) == 0.5
    assert own_threshold(scores, scores >= 0.35) == pytest.approx((0.3 + 0.45) / 2)
    # Another threshold for each group, all alike, and a tie decided both ways are no one threshold.
    assert own_threshold(scores, np.asarray([False, True, False, False, True])) is None
    assert own_threshold(scores, scores >= 0.0) is None and own_threshold(scores, scores > 1.0) is None
    assert own_threshold(np.asarray([0.5, 0.5]), np.asarray([True, False])) is None
    rng = np.random.default_rng(1)
    of = GroupScores.from_rows(["a", "b"], rng.integers(0, 2, 90), rng.random(90), None, 1, GRID, None)
    found = at_thresholds(("g",), of, GRID)
    [figure] = [m.figure for m in found if m.figure is not None]
    assert figure.marked is None and "no one threshold" in figure.caption


# ---- error rates and power -----------------------------------------------------------------------------------------


def reached(
    scores: np.ndarray, sizes: tuple[int, ...], thresholds: tuple[float, ...] = GRID
) -> Iterator[tuple[RateTable, ...]]:
    """Selection at every threshold in each world of scores (n_worlds, n), whose rows stand group by group."""
    starts = np.cumsum((0, *sizes[:-1]))
    counts = np.stack([np.add.reduceat(scores >= t, starts, axis=1, dtype=np.int64) for t in thresholds], axis=1)
    for world in counts.tolist():
        yield tuple(RateTable(rate="selection rate", successes=tuple(k), n=sizes) for k in world)


def moved(rng: np.random.Generator, gap: float, sizes: tuple[int, ...]) -> np.ndarray:
    """Uniform scores, of the first group moved up by ``gap``: the true difference is ``gap`` at every threshold."""
    scores = rng.random((WORLDS, sum(sizes)))
    scores[:, : sizes[0]] = np.minimum(scores[:, : sizes[0]] + gap, 1.0)
    return scores


def counts_of(estimate: Estimate) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    assert isinstance(estimate, (WorstDifference, WorstRatio))
    return [(table.successes, table.n) for table in estimate.tables]


@pytest.mark.grid
@pytest.mark.usefixtures("by_tails")
@pytest.mark.slow
@pytest.mark.parametrize("gap", [0.0, 0.1])
def test_the_worst_over_thresholds_is_missed_in_at_most_five_per_cent_of_worlds(gap: float) -> None:
    """Three groups, and every threshold at the truth: there the maximum has most to be biased by."""
    sizes = (150, 150, 300)
    scores = moved(np.random.default_rng(5), gap, sizes)
    estimates = [WorstDifference(tables=tables) for tables in reached(scores, sizes)]
    measured = at(of(scores[0], None, np.repeat(np.arange(3), sizes)), "demographic_parity_difference_over_thresholds")
    assert counts_of(measured.estimate) == counts_of(estimates[0])
    assert max(misses(estimates, gap)) <= most_misses()
    biased = sum(estimate.value > gap for estimate in estimates)
    assert biased > 0.8 * WORLDS, "the plain maximum is biased upward, or this test shows nothing"


@pytest.mark.usefixtures("by_tails")
@pytest.mark.slow
def test_odds_over_thresholds_are_missed_in_at_most_five_per_cent_of_worlds() -> None:
    """Scores that say nothing of the label, the same in both groups: every rate is the same."""
    rng, sizes = np.random.default_rng(6), (60, 60, 200, 200)
    scores, codes, y = rng.random((WORLDS, 520)), np.repeat([0, 1], (120, 400)), np.repeat([0, 1, 0, 1], sizes)
    estimates, thresholds = [], (0.3, 0.7)
    for tables in reached(scores, sizes, thresholds):
        # Rows without the label and with it, of either group.
        parts = [RateTable(rate="r", successes=t.successes[i::2], n=t.n[i::2]) for t in tables for i in (1, 0)]
        estimates.append(WorstDifference(tables=tuple(parts)))
    measured = at(of(scores[0], y, codes, thresholds), "equalized_odds_difference_over_thresholds").estimate
    assert counts_of(measured) == counts_of(estimates[0])
    assert max(misses(estimates, 0.0)) <= most_misses()


@pytest.mark.usefixtures("by_tails")
@pytest.mark.slow
def test_the_ratio_over_thresholds_is_missed_in_at_most_five_per_cent_of_worlds() -> None:
    rng, sizes = np.random.default_rng(6), (120, 400)
    scores = rng.random((WORLDS, 520))
    estimates = [WorstRatio(tables=tables) for tables in reached(scores, sizes)]
    measured = at(of(scores[0], None, np.repeat([0, 1], sizes)), "demographic_parity_ratio_over_thresholds").estimate
    assert counts_of(measured) == counts_of(estimates[0])
    assert max(misses(estimates, 1.0)) <= most_misses()


@pytest.mark.usefixtures("by_tails")
@pytest.mark.slow
def test_power_is_what_the_probe_declares() -> None:
    rows, gap = ScoreFairness.threshold_power
    sizes = (rows, rows)
    worlds = reached(moved(np.random.default_rng(7), gap, sizes), sizes)
    shown = sum(low > 0.1 for low, _ in bounds_of([WorstDifference(tables=tables) for tables in worlds], 0.05))
    assert 0.8 * WORLDS <= shown <= 0.97 * WORLDS
