"""Exit 0 that a fair model reaches: the fairness budget from drawn counts, and that more rows never take it away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from auditor.judging.criterion import load_criteria
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.statistics.groups import WorstDifference
from benchmarks.exit_zero import (
    GROUPS,
    TRAINING_ROWS,
    Cell,
    budget_passes,
    budget_share,
    drawn_gaps,
    drawn_rows,
    models,
)
from tests.quantifiers import all_of

GAPS = ("demographic_parity_difference", "equalized_odds_difference")
WORLDS, SCANS = 100, 2


def judged(gaps: tuple[WorstDifference, WorstDifference], rows: int) -> list[Outcome]:
    """The outcomes of both gaps by the built-in profile."""
    measured = tuple(
        Measurement(metric=metric, estimate=gap, n_samples=rows, ideal=0.0, sensitive=("group",))
        for metric, gap in zip(GAPS, gaps, strict=True)
    )
    result = ProbeResult(probe="group_fairness", pillar="fairness", citation="", measurements=measured)
    found = judge([result], [c for c in load_criteria() if c.metric in GAPS])[0]
    return [finding.outcome for finding in found]


def test_what_is_counted_as_passed_is_what_the_judge_passes() -> None:
    seen = set()
    for world, (name, rows) in enumerate((("2 equal", 1_000), ("2 equal", 1_500), ("60/30/10", 4_000)) * 3):
        gaps = drawn_gaps(np.random.default_rng(world), GROUPS[name], rows)
        passed = budget_passes(gaps)
        assert passed == (judged(gaps, rows) == [Outcome.PASS, Outcome.PASS])
        seen.add(passed)
    assert seen == {True, False}


def of_budget(groups: str) -> Callable[[int, Path], float]:
    """The share of worlds of the fairness budget that pass, by rows."""
    return lambda rows, _: budget_share(GROUPS[groups], rows, WORLDS)


def of_scans(name: str, groups: str, *, train: bool = False) -> Callable[[int, Path], float]:
    """The share of whole default scans that exit 0, by rows."""

    def share(rows: int, folder: Path) -> float:
        training = drawn_rows(np.random.default_rng(0), TRAINING_ROWS, GROUPS["2 equal"])
        [(_, _, model)] = models(folder, training, name)
        return Cell.of(model, rows, GROUPS[groups], SCANS, training if train else None).share

    return share


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize(
    "share",
    [
        *(
            pytest.param(of_budget(groups), id=f"budget {groups}")
            for groups in ("2 equal", "90/10", "3 equal", "60/30/10")
        ),
        pytest.param(of_scans("logistic regression", "60/30/10"), id="scans logistic 60/30/10"),
        pytest.param(of_scans("gradient boosting", "3 equal"), id="scans boosting 3 equal"),
        pytest.param(of_scans("LightGBM", "2 equal"), id="scans LightGBM 2 equal"),
        pytest.param(of_scans("logistic regression", "2 equal", train=True), id="scans with --train 2 equal"),
    ],
)
def test_a_fair_model_of_ten_thousand_rows_exits_0_and_more_rows_never_take_it_away(
    share: Callable[[int, Path], float], tmp_path: Path
) -> None:
    """Of 60/30/10 and 3,000 rows one in a hundred passed where one in ten might have."""
    shares = [share(rows, tmp_path) for rows in (1_000, 3_000, 10_000, 25_000)]
    # Two shares of so many worlds differ by less than four standard deviations.
    fall = 4.0 * (0.5 / WORLDS) ** 0.5 / 2.0
    assert all_of(later >= before - fall for before, later in zip(shares, shares[1:], strict=False)), shares
    assert min(shares[2:]) >= 0.95, shares
