"""What a report says it would take: a number where it can be planned, else a sentence, and the numbers hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from auditor.judging.criterion import Criterion
from auditor.judging.judgement import Judgement
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.statistics.differential_fairness import DifferentialFairness
from auditor.statistics.distribution_distances import BenefitInequality, CalibrationError, WorstDistance, WorstGap
from auditor.statistics.estimate import Estimate, minimum_detectable_effect, n_required
from auditor.statistics.groups import (
    LargestDisparity,
    LargestRate,
    RatioToLargest,
    SmallestRate,
    WorstDifference,
    WorstOddsRatio,
    WorstRatio,
)
from auditor.statistics.means import WorstMeanDifference
from auditor.statistics.rank_estimates import AreaUnderCurve, TruePositiveRateAt, quantile
from auditor.statistics.rates import Difference, Odds, Proportion, RateTable, WeightedSum
from auditor.statistics.significance_tests import ConfirmedCount
from auditor.statistics.values import BoundedMean, IdealizedAssociation, bounded_mean, ratio_of_totals
from probes.fairness.score_fairness import calibration_error

ALPHA = 0.05 / 4
WORLDS = 120


def table(k: Any, n: Any) -> RateTable:
    return RateTable(rate="r", successes=tuple(map(int, k)), n=tuple(map(int, n)))


HALF = table((40, 55), (100, 110))
SCORES = np.random.default_rng(0).beta(2, 3, 300)
CALIBRATED = calibration_error(SCORES, np.random.default_rng(1).random(300) < SCORES, 10)
assert isinstance(CALIBRATED, CalibrationError)


def known_mean(values: npt.ArrayLike) -> BoundedMean:
    found = bounded_mean(values, low=0.0, high=1.0)
    assert isinstance(found, BoundedMean)
    return found


# Every kind that a probe of a predictive model returns, where a bound is spanned: (estimate, ideal, direction, bound).
SPANNED: dict[str, tuple[Estimate, float, str, float]] = {
    "proportion": (Proportion(successes=9, n=90), 0.0, "at_most", 0.1),
    "worst_difference": (WorstDifference(tables=(HALF,)), 0.0, "at_most", 0.1),
    "worst_ratio": (WorstRatio(tables=(HALF,)), 1.0, "at_least", 0.8),
    "bounded_mean": (bounded_mean(np.tile([0.0, 0.2], 50), low=0.0, high=1.0), 0.0, "at_most", 0.1),
    "bounded_mean without spread": (bounded_mean(np.zeros(10), low=0.0, high=1.0), 0.0, "at_most", 0.1),
    "ratio_of_totals": (
        ratio_of_totals(numerators=np.tile([1.0, -1.0, 2.0], 20), denominators=np.full(60, 4.0),
        most=4.0, low=-1.0, high=1.0),
        0.0, "at_most", 0.2,
    ),
    "idealized_association": (
        IdealizedAssociation(
            modelling=known_mean(np.tile([0.7, 0.9], 30)), stereotype=known_mean(np.tile([0.4, 0.6], 30))
        ),
        100.0, "at_least", 80.0,
    ),
    "area_under_curve": (
        AreaUnderCurve(centre=0.55, standard_error=0.03, n_positive=90, n_negative=90), 0.5, "at_most", 0.55,
    ),
    "quantile": (quantile([0.0, 0.05, 0.2], 0.9), 0.0, "at_most", 0.1),
    "true_positive_rate_at": (
        TruePositiveRateAt(
            false_positive_rate=0.1, members_above=(0, 1, 3, 5, 9), n_positive=40, n_negative=40, joint=True
        ),
        0.1, "at_most", 0.2,
    ),
    "difference": (Difference(successes=(40, 30), n=(100, 100)), 0.0, "at_most", 0.1),
    "weighted_sum": (
        WeightedSum(weights=(0.5, 0.5, -0.5, -0.5), table=table((30,) * 4, (60,) * 4)), 0.0, "at_most", 0.1,
    ),
    "largest_rate": (LargestRate(table=table((20, 15), (100, 100))), 0.0, "at_most", 0.2),
    "smallest_rate": (SmallestRate(table=table((80, 85), (100, 100))), 1.0, "at_least", 0.8),
    "ratio_to_largest": (RatioToLargest(table=HALF, index=0), 1.0, "at_least", 0.8),
    "largest_disparity": (
        LargestDisparity(
            parts=(Difference(successes=(40, 30), n=(80, 70)), Difference(successes=(40, 40), n=(80, 70)))
        ),
        0.0, "at_most", 0.1,
    ),
    "worst_odds_ratio": (WorstOddsRatio(tables=(HALF,)), 1.0, "at_least", 0.8),
    "worst_mean_difference": (WorstMeanDifference(tables=(HALF, HALF)), 0.0, "at_most", 0.1),
    "differential_fairness": (DifferentialFairness(tables=(HALF,)), 0.0, "at_most", 0.3),
    "benefit_inequality": (BenefitInequality(order=2.0, below=10, equal=80, above=10), 0.0, "at_most", 0.1),
    "calibration_error": (CALIBRATED, 0.0, "at_most", 0.1),
    "worst_gap of calibration": (WorstGap(parts=(CALIBRATED, CALIBRATED)), 0.0, "at_most", 0.1),
    "worst_gap of curves": (
        WorstGap(parts=(AreaUnderCurve(centre=0.7, standard_error=0.05, n_positive=90, n_negative=90),) * 2),
        0.0, "at_most", 0.1,
    ),
    "worst_distance": (WorstDistance(distances=(0.1,), n=(90, 90)), 0.0, "at_most", 0.1),
    "confirmed_count": (ConfirmedCount(p_values=(0.04, 0.9)), 0.0, "at_most", 0.0),
}  # fmt: skip


def judged(estimate: Estimate, ideal: float, direction: Any, bound: float) -> Judgement:
    measurement = Measurement(metric="x", estimate=estimate, n_samples=200, ideal=ideal)  # type: ignore[arg-type]
    criterion = Criterion(metric="x", direction=direction, bound=bound, source="t", set_by="t", set_at="t")
    [finding], _ = judge(
        [ProbeResult(probe="p", pillar="fairness", citation="", measurements=(measurement,))], [criterion]
    )
    return finding


@pytest.mark.parametrize("kind", list(SPANNED))
def test_what_it_would_take_is_a_number_or_a_sentence(kind: str) -> None:
    estimate, ideal, direction, bound = SPANNED[kind]
    finding = judged(estimate, ideal, direction, bound)
    assert finding.outcome is Outcome.INCONCLUSIVE
    planned = [s for s in ("80 % power", "for this question alone", "The size would do") if s in finding.reason]
    if finding.minimum_detectable_effect is not None or finding.n_required is not None:
        assert len(planned) > 0
    if not planned:
        assert estimate.unplanned != "" and estimate.unplanned in finding.reason
    low, high = estimate.limits
    assert low <= estimate.value <= high


def test_only_these_are_left_without_numbers() -> None:
    without = [
        kind
        for kind, case in SPANNED.items()
        if (f := judged(*case)).minimum_detectable_effect is None and f.n_required is None
    ]
    assert set(without) == {"idealized_association", "worst_gap of calibration", "confirmed_count"}


def test_a_number_that_has_none_may_still_be_planned_on_one_side() -> None:
    """A quantile has a size from which it can PASS, by order statistics, and no smallest value that would FAIL."""
    finding = judged(*SPANNED["quantile"])
    assert finding.minimum_detectable_effect is None and finding.n_required is not None
    n = math.floor(finding.n_required / 200 * 3)
    assert quantile([0.0] * n, 0.9).bounds(0.05)[1] == 0.0
    assert quantile([0.0] * (n - 1), 0.9).bounds(0.05)[1] == math.inf
    assert Odds(successes=1, failures=2).limits == (0.0, math.inf)


# ---- the numbers hold ----------------------------------------------------------------------------------------------

Draw = Callable[[np.random.Generator, float, float], Estimate]  # sizes times so much, at the ideal or this effect
SIZES = np.asarray([150, 400])


def calibration(rng: np.random.Generator, times: float, effect: float) -> Estimate:
    scores = rng.choice(SCORES, round(times * SCORES.size))
    found = calibration_error(scores, rng.random(scores.size) < scores + np.where(scores < 0.5, effect, -effect), 10)
    assert isinstance(found, CalibrationError)
    return found


def errors(order: float) -> Draw:
    def draw(rng: np.random.Generator, times: float, effect: float) -> Estimate:
        n = round(300 * times)
        below = int(rng.binomial(n, effect))
        return BenefitInequality(order=order, below=below, equal=n - below, above=0)

    return draw


def odds(rng: np.random.Generator, times: float, effect: float) -> Estimate:
    n = np.maximum(np.round(times * SIZES), 1).astype(int)
    return WorstOddsRatio(tables=(table(rng.binomial(n, [0.5, 0.5]), n),))


def impact(rng: np.random.Generator, times: float, effect: float) -> Estimate:
    n = np.maximum(np.round(times * SIZES), 1).astype(int)
    return RatioToLargest(table=table(rng.binomial(n, [0.4, 0.4]), n), index=0)


def epsilon(rng: np.random.Generator, times: float, effect: float) -> Estimate:
    n = np.maximum(np.round(times * SIZES), 1).astype(int)
    k = rng.binomial(n, [0.4, 0.4])
    return DifferentialFairness(tables=(table(k, n), table(n - k, n)))


def disparity(rng: np.random.Generator, times: float, effect: float) -> Estimate:
    n = (round(250 * times), round(300 * times))
    k = [rng.multinomial(m, [0.5, 0.3, 0.2]) for m in n]
    return LargestDisparity(parts=tuple(Difference(successes=(int(a), int(b)), n=n) for a, b in zip(*k, strict=True)))


IDEAL: dict[str, tuple[Draw, float, float]] = {
    "calibration": (calibration, 0.0, 0.1),
    "theil": (errors(1.0), 0.0, 0.02),
    "generalized entropy": (errors(2.0), 0.0, 0.02),
    "treatment equality": (odds, 1.0, 0.6),
    "impact ratio": (impact, 1.0, 0.7),
    "epsilon": (epsilon, 0.0, 0.4),
    "disparity": (disparity, 0.0, 0.15),
}


@pytest.mark.grid
@pytest.mark.parametrize("case", list(IDEAL))
def test_an_ideal_model_of_the_planned_size_passes(case: str) -> None:
    draw, ideal, bound = IDEAL[case]
    rng = np.random.default_rng(len(case))
    needed = n_required(draw(rng, 1.0, 0.0), bound=bound, alpha=ALPHA, ideal=ideal, n=1000)
    assert needed is not None
    shown = 0
    for _ in range(WORLDS):
        low, high = draw(rng, needed / 1000, 0.0).bounds(ALPHA)
        shown += high <= bound if bound > ideal else low >= bound
    assert shown >= 0.70 * WORLDS


@pytest.mark.parametrize(("case", "bound"), [("calibration", 0.02), ("theil", 0.02), ("generalized entropy", 0.02)])
def test_the_detectable_effect_is_detected(case: str, bound: float) -> None:
    draw, _, _ = IDEAL[case]
    rng = np.random.default_rng(3)
    effect = minimum_detectable_effect(draw(rng, 1.0, 0.0), bound=bound, alpha=ALPHA, ideal=0.0, sign=1)
    assert bound < effect < 0.5
    # The plans speak of the metric's own value: find the rate of errors, or the shift, that gives it.
    low, high = 0.0, 0.45
    for _ in range(30):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if truth(case, middle) < effect else (low, middle)
    shown = sum(draw(rng, 1.0, high).bounds(ALPHA)[0] > bound for _ in range(WORLDS))
    assert shown >= 0.72 * WORLDS


def truth(case: str, effect: float) -> float:
    if case == "calibration":
        p = np.clip(SCORES + np.where(SCORES < 0.5, effect, -effect), 0.0, 1.0)
        return float(np.abs(p - SCORES).mean())
    n = 10**6
    order = 1.0 if case == "theil" else 2.0
    return BenefitInequality(order=order, below=int(effect * n), equal=n - int(effect * n), above=0).value
