"""Score fairness: curves, calibration and distances by group against other implementations, and their error rates."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtri
from scipy.stats import ks_2samp, wasserstein_distance
from sklearn.metrics import roc_auc_score

from auditor.data.audit_data import AuditData
from auditor.errors import NotApplicableError
from auditor.finding.measurement import Measurement
from auditor.model.audited_model import AuditedModel
from auditor.statistics.distances import CalibrationError, WorstDistance, WorstGap
from auditor.statistics.ranks import area_under_curve
from probes.fairness.score_fairness import ScoreFairness, calibration_error, distances

WORLDS, LIMIT = 200, 21


def world(n: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Calibrated for women, 0.15 too high for men."""
    rng = np.random.default_rng(seed)
    groups = pd.DataFrame({"sex": rng.choice(["f", "m"], n), "race": rng.choice(["a", "b"], n)})
    scores = rng.beta(2, 2, n)
    y = (rng.random(n) < np.clip(scores - 0.15 * (groups["sex"] == "m"), 0, 1)).astype(int)
    return scores, y, groups


def measured(
    scores: np.ndarray,
    y: np.ndarray | None,
    groups: pd.DataFrame | None,
    positive: str | None = "yes",
    **options: object,
) -> list[Measurement]:
    labels = None if y is None else np.where(y < 0, None, np.asarray(["no", "yes"], object)[y])
    data = AuditData.from_arrays(
        pd.DataFrame({"s": scores}), labels, classes=["no", "yes"], positive=positive, sensitive_features=groups
    )
    model = AuditedModel.from_callable(lambda rows: rows["s"].to_numpy(), classes=["no", "yes"])
    return ScoreFairness(**options).measure(model, data, np.random.default_rng(0))  # type: ignore[arg-type]


def pick(found: list[Measurement], metric: str, sensitive: tuple[str, ...] = (), **group: str) -> Measurement:
    [one] = [m for m in found if m.metric == metric and m.sensitive == sensitive and dict(m.group) == group]
    return one


def test_each_group_agrees_with_scikit_learn_and_scipy() -> None:
    scores, y, groups = world()
    found = measured(scores, y, groups)
    auc = {}
    for level in "fm":
        own = (groups["sex"] == level).to_numpy()
        auc[level] = roc_auc_score(y[own], scores[own])
        assert pick(found, "roc_auc", sex=level).estimate.value == pytest.approx(auc[level], abs=1e-12)
    gap = pick(found, "auc_difference", ("sex",))
    assert gap.estimate.value == pytest.approx(abs(auc["f"] - auc["m"]), abs=1e-12)
    assert isinstance(gap.estimate, WorstGap) and "roc_auc: lowest" in gap.detail
    f, m = (scores[(groups["sex"] == level).to_numpy()] for level in "fm")
    expected = ks_2samp(f, m).statistic, wasserstein_distance(f, m)
    assert pick(found, "score_kolmogorov_smirnov", ("sex",)).estimate.value == pytest.approx(expected[0], abs=1e-12)
    assert pick(found, "score_wasserstein", ("sex",)).estimate.value == pytest.approx(expected[1], abs=1e-12)
    assert pick(found, "auc_difference", ("sex", "race")).n_samples == 3000


def test_calibration_the_slow_way() -> None:
    scores, y, groups = world()
    found = measured(scores, y, groups)
    whole = 0.0
    for b in range(10):
        own = (scores >= b / 10) & (scores < (b + 1) / 10)
        if own.any():
            whole += own.mean() * abs(y[own].mean() - scores[own].mean())
    assert pick(found, "expected_calibration_error").estimate.value == pytest.approx(whole, abs=1e-12)
    women, men = (pick(found, "expected_calibration_error", sex=s).estimate for s in "fm")
    assert women.bounds(0.025)[0] < 0.01
    low, high = men.bounds(0.025)
    assert 0.05 < low < 0.15 < high
    gap = pick(found, "calibration_difference", ("sex",)).estimate
    assert gap.value == pytest.approx(men.value - women.value, abs=1e-12)
    assert gap.bounds(0.05)[0] > 0.0


def test_scores_of_one_and_zero_have_a_bin() -> None:
    estimate = calibration_error(np.asarray([0.0, 1.0, 1.0]), np.asarray([False, True, True]), 10)
    assert isinstance(estimate, CalibrationError)
    assert estimate.n == (1, 2) and estimate.mean_scores == (0.0, 1.0) and estimate.value == 0.0


def test_without_labels_the_distributions_are_compared() -> None:
    scores, _, groups = world(200)
    assert {m.metric for m in measured(scores, None, groups[["sex"]], thresholds=())} == {
        "score_kolmogorov_smirnov",
        "score_wasserstein",
    }


def test_a_group_of_one_class_has_no_curve_and_one_group_no_gap() -> None:
    scores, y, groups = world(300)
    y[(groups["sex"] == "m").to_numpy()] = 1
    found = measured(scores, y, groups[["sex"]])
    assert math.isnan(pick(found, "roc_auc", sex="m").estimate.value)
    gap = pick(found, "auc_difference", ("sex",))
    assert math.isnan(gap.estimate.value) and gap.estimate.bounds(0.05) == (0.0, 1.0)
    assert "roc_auc is undefined for m" in gap.detail
    alone = measured(scores, y, pd.DataFrame({"sex": ["f"] * 300}))
    for metric in ("auc_difference", "calibration_difference", "score_wasserstein"):
        assert math.isnan(pick(alone, metric, ("sex",)).estimate.value)


def test_rows_without_a_label_count_for_distances_only() -> None:
    scores, y, groups = world(400)
    y[:100] = -1
    found = measured(scores, y, groups[["sex"]])
    assert pick(found, "auc_difference", ("sex",)).n_samples == 300
    assert pick(found, "score_wasserstein", ("sex",)).n_samples == 400


def test_inputs_that_are_missing_are_named() -> None:
    scores, y, groups = world(50)
    with pytest.raises(NotApplicableError, match="--sensitive"):
        measured(scores, y, None)
    with pytest.raises(NotApplicableError, match="--positive"):
        measured(scores, y, groups, None)
    with pytest.raises(NotApplicableError, match="Needs scores"):
        measured((scores > 0.5).astype(float), y, groups)
    with pytest.raises(ValueError, match="bins"):
        ScoreFairness(bins=1)


def test_many_levels_at_once_are_no_narrower_than_one_by_one() -> None:
    scores, y, _ = world(500)
    estimate = calibration_error(scores, y == 1, 10)
    alphas = np.asarray([0.001, 0.05, 0.4])
    together = estimate.many_bounds(alphas)
    alone = np.asarray([estimate.bounds(float(a)) for a in alphas])
    assert (together[:, 0] <= alone[:, 0] + 1e-9).all() and (together[:, 1] >= alone[:, 1] - 1e-9).all()
    assert together[0] == pytest.approx(alone[0], abs=1e-12)


@pytest.mark.parametrize("n", [20, 2000])
def test_calibration_bounds_hold_the_value_and_survive_the_record(n: int) -> None:
    scores, y, _ = world(n)
    estimate = calibration_error(scores, y == 1, 10)
    assert isinstance(estimate, CalibrationError)
    low, high = estimate.bounds(0.001)
    assert 0.0 <= low <= estimate.value <= high <= 1.0
    assert CalibrationError.model_validate_json(estimate.model_dump_json()) == estimate


# ---- error rates and power -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, 0.1])
@pytest.mark.parametrize("n", [100, 1000])
def test_calibration_error_is_missed_in_at_most_five_per_cent_of_worlds(shift: float, n: int) -> None:
    """Truth: the same sum with the true rate of every bin, given the scores. The plain sum is biased upward."""
    rng = np.random.default_rng(n)
    low_missed = high_missed = 0
    values = []
    for _ in range(WORLDS):
        scores = rng.beta(2, 2, n)
        p = np.clip(scores + shift, 0.0, 1.0)
        estimate = calibration_error(scores, rng.random(n) < p, 10)
        place = np.minimum((scores * 10).astype(int), 9)
        truth = sum(abs((p - scores)[place == b].sum()) for b in range(10)) / n
        low, high = estimate.bounds(0.05)
        low_missed += low > truth + 1e-12
        high_missed += high < truth - 1e-12
        values.append(estimate.value - truth)
    assert low_missed <= LIMIT
    assert high_missed <= LIMIT
    assert shift or float(np.mean(values)) > 0.01


@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_calibration_difference_is_missed_in_at_most_five_per_cent_of_worlds(shift: float) -> None:
    """Three groups; the first is off by ``shift``."""
    rng = np.random.default_rng(1)
    low_missed = high_missed = 0
    for _ in range(WORLDS):
        parts, truths = [], []
        for g, n in enumerate((80, 300, 300)):
            scores = rng.uniform(0.1, 0.7, n)
            p = scores + (shift if g == 0 else 0.0)
            parts.append(calibration_error(scores, rng.random(n) < p, 5))
            truths.append(float((p - scores).mean()))
        low, high = WorstGap(parts=tuple(parts)).bounds(0.05)
        low_missed += low > max(truths) - min(truths) + 1e-12
        high_missed += high < max(truths) - min(truths) - 1e-12
    assert low_missed <= LIMIT
    assert high_missed <= LIMIT


@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_distances_are_missed_in_at_most_five_per_cent_of_worlds(shift: float) -> None:
    """Uniform scores, one group moved by ``shift``: both distances are then ``shift`` on a range of 1."""
    rng = np.random.default_rng(2)
    missed = np.zeros(4, int)
    for _ in range(WORLDS):
        samples = [
            rng.uniform(0, 0.8, n) / 0.8 * (1 - shift) + (shift if g == 0 else 0) for g, n in enumerate((50, 200))
        ]
        truth = shift / (1 - shift), shift
        for i, d in enumerate(distances(*samples)):
            low, high = WorstDistance(distances=(d,), n=(50, 200)).bounds(0.05)
            missed[2 * i : 2 * i + 2] += [low > truth[i] + 1e-12, high < truth[i] - 1e-12]
    assert missed.max() <= LIMIT


def test_auc_power_is_what_the_probe_declares() -> None:
    rows, gap = ScoreFairness.power
    rng = np.random.default_rng(3)
    shifts = [math.sqrt(2.0) * float(ndtri(auc)) for auc in (0.85, 0.85 - gap)]
    found = 0
    for _ in range(WORLDS):
        parts = [
            area_under_curve(positives=rng.normal(s, 1, rows // 2), negatives=rng.normal(0, 1, rows // 2))
            for s in shifts
        ]
        found += WorstGap(parts=tuple(parts)).bounds(0.05)[0] > 0.05
    assert found >= 0.8 * WORLDS


def test_miscalibrated_scores_and_groups_are_found() -> None:
    rng = np.random.default_rng(4)
    alone = between = 0
    for _ in range(100):
        scores = rng.uniform(0.1, 0.7, 1500)
        off = calibration_error(scores, rng.random(1500) < scores + 0.2, 10)
        right = calibration_error(scores, rng.random(1500) < scores, 10)
        alone += off.bounds(0.05)[0] > 0.1
        between += WorstGap(parts=(off, right)).bounds(0.05)[0] > 0.05
    assert alone >= 80
    assert between >= 80


def test_distributions_far_apart_are_found() -> None:
    """A quarter of the range between two groups of 600: beyond 0.10 for either distance."""
    rng = np.random.default_rng(5)
    found = np.zeros(2, int)
    for _ in range(100):
        samples = rng.uniform(0, 0.75, 600), rng.uniform(0.25, 1.0, 600)
        for i, d in enumerate(distances(*samples)):
            found[i] += WorstDistance(distances=(d,), n=(600, 600)).bounds(0.05)[0] > 0.1
    assert found.min() >= 80


@pytest.mark.parametrize("n_groups", [2, 5])
def test_the_largest_distance_of_equal_groups_is_no_accusation(n_groups: int) -> None:
    """No effect: the distance of any two samples is positive, and the largest of ten the more so."""
    rng = np.random.default_rng(n_groups)
    accused, plain = 0, []
    for _ in range(WORLDS):
        samples = [rng.beta(2, 2, 60) for _ in range(n_groups)]
        d = [distances(a, b)[0] for i, a in enumerate(samples) for b in samples[i + 1 :]]
        estimate = WorstDistance(distances=tuple(d), n=(60,) * n_groups)
        accused += estimate.bounds(0.05)[0] > 0.0
        plain.append(estimate.value)
    assert accused <= LIMIT and float(np.mean(plain)) > 0.1
