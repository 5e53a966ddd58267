"""Score fairness: curves, calibration and distances by group against other implementations, and their error rates."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp, wasserstein_distance
from sklearn.metrics import roc_auc_score

from auditor.core.errors import NotApplicableError
from auditor.core.rows import FloatArray
from auditor.data.audit_data import AuditData
from auditor.judging.measurement import Measurement
from auditor.models.audited_model import AuditedModel
from auditor.statistics.detection import LowestArea
from auditor.statistics.distribution_distances import CalibrationError, WorstDistance, WorstGap
from probes.fairness.score_fairness import ScoreFairness, calibration_error, distances
from tests.statistics.worlds import WORLDS, areas_of, misses, most_misses, normal_shift

BINS = 10


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
    assert isinstance(gap.estimate, WorstGap) and "roc_auc by sex: lowest" in gap.detail
    f, m = (scores[(groups["sex"] == level).to_numpy()] for level in "fm")
    expected = ks_2samp(f, m).statistic, wasserstein_distance(f, m)
    assert pick(found, "score_kolmogorov_smirnov", ("sex",)).estimate.value == pytest.approx(expected[0], abs=1e-12)
    assert pick(found, "score_wasserstein", ("sex",)).estimate.value == pytest.approx(expected[1], abs=1e-12)
    assert pick(found, "auc_difference", ("sex", "race")).n_samples == 3000


def test_a_group_that_scores_too_high_keeps_its_own_curve_and_loses_its_place_among_others() -> None:
    rng = np.random.default_rng(4)
    group = rng.choice(["gay", "immigrants", "women"], 3000)
    y = rng.integers(0, 2, 3000)
    scores = np.clip(rng.normal(0.35 + 0.2 * y, 0.08) + 0.3 * (group == "gay"), 0.0, 1.0)
    found = measured(scores, y, pd.DataFrame({"target": group}))
    curves = [pick(found, "roc_auc", target=level).estimate.value for level in sorted(set(group))]
    assert max(curves) - min(curves) < 0.03
    for metric, own_class in (("bpsn_auc", 0), ("bnsp_auc", 1)):
        for level in sorted(set(group)):
            chosen = (y == own_class) == (group == level)
            expected = roc_auc_score(y[chosen], scores[chosen])
            assert pick(found, metric, target=level).estimate.value == pytest.approx(expected, abs=1e-12)
    worst = pick(found, "lowest_bpsn_auc", ("target",))
    assert worst.estimate.value == pick(found, "bpsn_auc", target="gay").estimate.value < 0.3
    assert worst.estimate.bounds(0.05)[1] < 0.4 and "bpsn_auc by target: lowest gay" in worst.detail
    assert pick(found, "lowest_bnsp_auc", ("target",)).estimate.bounds(0.05)[0] > 0.3


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


def test_one_group_of_one_class_takes_the_pass_of_the_others_and_not_their_numbers() -> None:
    rng = np.random.default_rng(5)
    group = rng.choice(["a", "b", "c"], 3000)
    y = rng.integers(0, 2, 3000)
    y[group == "c"] = 1
    scores = rng.normal(0.5 + np.where(group == "a", 0.2, 0.02) * y, 0.1)
    found = measured(np.clip(scores, 0.0, 1.0), y, pd.DataFrame({"g": group}))
    gap = pick(found, "auc_difference", ("g",)).estimate
    curves = [pick(found, "roc_auc", g=level).estimate.value for level in "ab"]
    assert gap.value == pytest.approx(curves[0] - curves[1]) and gap.value > 0.2
    assert gap.p_value(0.05, "greater") < 1e-6 and gap.bounds(0.05)[1] == 1.0
    assert math.isnan(pick(found, "bpsn_auc", g="c").estimate.value)
    assert pick(found, "bnsp_auc", g="c").estimate.value > 0.5
    lowest = pick(found, "lowest_bpsn_auc", ("g",))
    assert lowest.estimate.value > 0.5 and lowest.estimate.bounds(0.05)[0] == 0.0
    assert "bpsn_auc is undefined for c" in lowest.detail


def test_a_threshold_that_hardly_anybody_crosses_is_no_evidence() -> None:
    rng = np.random.default_rng(6)
    scores = rng.uniform(0.0, 0.6, 8640)
    scores[0] = 0.9
    groups = pd.DataFrame({"g": rng.choice(["a", "b"], 8640)})
    found = measured(scores, None, groups, thresholds=(0.3, 0.7))
    crossed, told = (
        next(m for m in found if m.metric == "demographic_parity_difference_at_threshold" and m.at["threshold"] == t)
        for t in (0.7, 0.3)
    )
    assert "All but 1 of 8,640 scores are below 0.7" in crossed.too_few and told.too_few == ""


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


Draw = Callable[[np.random.Generator], tuple[FloatArray, FloatArray]]


def rarely_far_off(n: int, share: float) -> Draw:
    """Of ``share`` of the rows the score is 0.05 and the label 1; all others are certain and right."""

    def draw(rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        return np.where(rng.random(n) < share, 0.05, 1.0), np.ones(n)

    return draw


def shifted(n: int, shift: float) -> Draw:
    """The share of favourable rows is ``shift`` above the score."""

    def draw(rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        scores = rng.beta(2, 2, n)
        return scores, (rng.random(n) < np.clip(scores + shift, 0.0, 1.0)).astype(float)

    return draw


def against_the_labels(n: int) -> Draw:
    """Within the first of two bins the higher scores are those of unfavourable rows."""

    def draw(rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        y = (rng.random(n) < 0.5).astype(float)
        return np.where(y == 1.0, 0.0, 0.49), y

    return draw


def drawn(draw: Draw, bins: int, seed: int = 0) -> list[CalibrationError]:
    """The calibration error as the probe makes it in every world, whose rows are drawn with their scores."""
    rng = np.random.default_rng(seed)
    made = (draw(rng) for _ in range(WORLDS))
    return [e for s, y in made if isinstance(e := calibration_error(s, y > 0.5, bins), CalibrationError)]


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize(
    ("draw", "bins", "truth"),
    [
        (rarely_far_off(5_000, 0.1061), BINS, 0.1061 * 0.95),
        (rarely_far_off(300, 0.1061), BINS, 0.1061 * 0.95),
        (rarely_far_off(300, 0.01), BINS, 0.01 * 0.95),
        (shifted(1_000, 0.0), BINS, 0.0),
        (shifted(100, 0.1), BINS, 0.09905),
        (shifted(1_000, 0.1), BINS, 0.09905),
        (against_the_labels(50), 2, 0.255),
        (against_the_labels(1_000), 2, 0.255),
    ],
    ids=range(8),
)
def test_calibration_error_is_missed_in_at_most_five_per_cent_of_worlds(draw: Draw, bins: int, truth: float) -> None:
    """Of the population: scores are drawn with the labels. Bounds given the scores missed 48 % of the first worlds."""
    estimates = drawn(draw, bins)
    assert max(misses(estimates, truth)) <= most_misses()
    if not truth:
        assert float(np.mean([estimate.value for estimate in estimates])) > truth + 0.01


def test_the_calibration_of_a_thousand_calibrated_rows_is_shown_to_lie_within_six_points() -> None:
    """The joint region of all bins' tails came to 0.099."""
    scores, y = shifted(1_000, 0.0)(np.random.default_rng(0))
    assert calibration_error(scores, y > 0.5, BINS).bounds(0.05)[1] < 0.065


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_calibration_difference_is_missed_in_at_most_five_per_cent_of_worlds(shift: float) -> None:
    """Three groups; the first is off by ``shift``."""

    def group(n: int, off: float) -> Draw:
        def draw(rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
            scores = rng.uniform(0.1, 0.7, n)
            return scores, (rng.random(n) < scores + off).astype(float)

        return draw

    parts = [drawn(group(n, shift if g == 0 else 0.0), 2, seed=g) for g, n in enumerate((80, 300, 300))]
    gaps = (WorstGap(parts=each) for each in zip(*parts, strict=True))
    assert max(misses(gaps, shift)) <= most_misses()


@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_distances_are_missed_in_at_most_five_per_cent_of_worlds(shift: float) -> None:
    """Uniform scores, one group moved by ``shift``: both distances are then ``shift`` on a range of 1."""
    rng, sizes = np.random.default_rng(2), (50, 200)
    moved = rng.random((WORLDS, sizes[0])) * (1 - shift) + shift
    found = [distances(a, b) for a, b in zip(moved, rng.random((WORLDS, sizes[1])) * (1 - shift), strict=True)]
    for each, truth in zip(zip(*found, strict=True), (shift / (1 - shift), shift), strict=True):
        assert max(misses((WorstDistance(distances=(d,), n=sizes) for d in each), truth)) <= most_misses()


def test_auc_power_is_what_the_probe_declares() -> None:
    rows, gap = ScoreFairness.power
    rng = np.random.default_rng(3)
    half = (WORLDS, rows // 2)
    parts = [areas_of(rng.normal(normal_shift(auc), 1, half), rng.normal(0, 1, half)) for auc in (0.85, 0.85 - gap)]
    found = sum(WorstGap(parts=pair).bounds(0.05)[0] > 0.05 for pair in zip(*parts, strict=True))
    assert found >= 0.8 * WORLDS


def test_a_group_out_of_place_among_the_others_is_found() -> None:
    rng = np.random.default_rng(5)
    half = (WORLDS, 300)
    # Of three groups one's unfavourable rows score as high as the others' favourable ones: 0.5 where 0.7 is asked.
    parts = [areas_of(rng.normal(normal_shift(auc), 1, half), rng.normal(0, 1, half)) for auc in (0.85, 0.85, 0.5)]
    found = sum(LowestArea(parts=areas).bounds(0.05)[1] < 0.7 for areas in zip(*parts, strict=True))
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


def test_distances_are_those_of_searching_both_samples_to_the_last_digit() -> None:
    rng = np.random.default_rng(9)
    for _ in range(300):
        # With no decimals nearly all are tied, with three some are.
        a, b = (rng.random(int(rng.integers(1, 60))).round(int(rng.integers(0, 4))) for _ in range(2))
        at = np.sort(np.concatenate([a, b]))
        shares = [np.searchsorted(np.sort(own), at, "right") / own.size for own in (a, b)]
        gap = np.abs(shares[0] - shares[1])
        assert distances(a, b) == (min(gap.max(), 1.0), min((gap[:-1] * np.diff(at)).sum(), 1.0))


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
    estimates = []
    for samples in np.random.default_rng(n_groups).beta(2, 2, (WORLDS, n_groups, 60)):
        d = tuple(distances(a, b)[0] for a, b in combinations(samples, 2))
        estimates.append(WorstDistance(distances=d, n=(60,) * n_groups))
    accused, _ = misses(estimates, 0.0)
    assert accused <= most_misses() and float(np.mean([estimate.value for estimate in estimates])) > 0.1
