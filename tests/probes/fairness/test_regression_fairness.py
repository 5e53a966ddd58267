"""Regression fairness: against fairlearn, scikit-learn and scipy, in simulated worlds, and on what has no answer."""

from __future__ import annotations

import math
from itertools import combinations

import fairlearn.metrics as fl
import numpy as np
import pytest
from scipy.stats import ks_2samp, wasserstein_distance

from auditor.core.errors import ConfigError, DataError, NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.models.regression_model import AuditedRegressor
from auditor.run.probe import make_probe
from auditor.run.run_audit import run_audit
from auditor.statistics.estimate import Estimate, Undefined
from auditor.statistics.values import BoundedMean, LargestValue, WorstValueGap
from probes import PROBES
from probes.fairness.adverse_impact import AdverseImpact
from probes.fairness.regression_fairness import RegressionFairness
from tests.quantifiers import all_of, none_of
from tests.statistics.worlds import WORLDS, misses, moments, most_misses
from tests.toys.models import criterion

OF_POWER = 200
HEADLINES = {
    "mean_prediction_difference",
    "mean_absolute_error_difference",
    "worst_group_mean_absolute_error",
    "root_mean_squared_error_difference",
    "mean_residual_difference",
    "prediction_kolmogorov_smirnov",
    "prediction_wasserstein",
}


def salaries(n: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray, dict[str, list[str]]]:
    rng = np.random.default_rng(seed)
    groups = {
        "sex": rng.choice(["f", "m"], n).tolist(),
        "race": rng.choice(["a", "b", "c"], n, p=[0.6, 0.3, 0.1]).tolist(),
    }
    y = 50_000.0 + rng.normal(0, 8_000, n) + 4_000.0 * (np.asarray(groups["race"]) == "c")
    return y + rng.normal(500, 4_000, n) * (1 + (np.asarray(groups["sex"]) == "f")), y, groups


def headline(found: list[Measurement], metric: str, *features: str) -> Measurement:
    (only,) = (m for m in found if m.metric == metric and m.sensitive == features)
    return only


def of_group(found: list[Measurement], metric: str, **group: str) -> Measurement:
    (only,) = (m for m in found if m.metric == metric and dict(m.group) == group)
    return only


# ---- the numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value_range", [None, (-50_000.0, 150_000.0)])
def test_it_agrees_with_fairlearn_scikit_learn_and_scipy(value_range: tuple[float, float] | None) -> None:
    from sklearn.metrics import mean_absolute_error, root_mean_squared_error

    y_pred, y_true, groups = salaries()
    found = RegressionFairness(value_range=value_range).measure_predictions(y_pred, y_true, sensitive_features=groups)
    theirs = {
        "mean_prediction": fl.mean_prediction,
        "mean_absolute_error": mean_absolute_error,
        "root_mean_squared_error": root_mean_squared_error,
        "mean_residual": lambda t, p: float((t - p).mean()),
    }
    for names in (("sex",), ("race",), ("sex", "race")):
        columns = {name: groups[name] for name in names}
        keys = list(zip(*columns.values(), strict=True))
        for metric, function in theirs.items():
            frame = fl.MetricFrame(metrics=function, y_true=y_true, y_pred=y_pred, sensitive_features=columns)
            ours = headline(found, f"{metric}_difference", *names)
            assert ours.estimate.value == pytest.approx(frame.difference(), rel=1e-9)
            assert ours.n_samples == 600 and ours.ideal == 0.0
            for key in set(keys):
                expected = frame.by_group[key if len(names) > 1 else key[0]]
                part = of_group(found, metric, **dict(zip(names, key, strict=True)))
                assert part.estimate.value == pytest.approx(expected, rel=1e-9)
                assert part.n_samples == keys.count(key)
        frame = fl.MetricFrame(metrics=mean_absolute_error, y_true=y_true, y_pred=y_pred, sensitive_features=columns)
        worst = headline(found, "worst_group_mean_absolute_error", *names)
        assert worst.estimate.value == pytest.approx(frame.group_max(), rel=1e-9)
        parts = [y_pred[[k == key for k in keys]] for key in sorted(set(keys))]
        farthest = max(wasserstein_distance(a, b) for a, b in combinations(parts, 2))
        assert headline(found, "prediction_wasserstein", *names).estimate.value == pytest.approx(farthest, rel=1e-9)
        steps = max(ks_2samp(a, b).statistic for a, b in combinations(parts, 2))
        assert headline(found, "prediction_kolmogorov_smirnov", *names).estimate.value == pytest.approx(
            steps, abs=1e-12
        )


def test_a_toy_by_hand() -> None:
    found = RegressionFairness(value_range=(0.0, 10.0)).measure_predictions(
        [1.0, 3.0, 6.0, 6.0], [2.0, 2.0, 9.0, math.nan], sensitive_features={"g": ["a", "a", "b", "b"]}
    )
    values = {m.metric: m.estimate.value for m in found if m.sensitive}
    assert values == pytest.approx(
        {
            "mean_prediction_difference": 4.0,
            "mean_absolute_error_difference": 2.0,
            "worst_group_mean_absolute_error": 3.0,
            "root_mean_squared_error_difference": 2.0,
            "mean_residual_difference": 3.0,
            "prediction_kolmogorov_smirnov": 1.0,
            "prediction_wasserstein": 4.0,
        }
    )
    # The last row has no true value: it counts for predictions, not for errors.
    assert of_group(found, "mean_prediction", g="b").n_samples == 2
    assert of_group(found, "mean_residual", g="b").n_samples == 1


def test_intersections_may_be_left_out_and_small_groups_are_named() -> None:
    y_pred, y_true, groups = salaries(120)
    found = RegressionFairness().measure_predictions(y_pred, y_true, sensitive_features=groups)
    assert {m.sensitive for m in found if m.sensitive} == {("sex",), ("race",), ("sex", "race")}
    fewer = RegressionFairness(intersections=False).measure_predictions(y_pred, y_true, sensitive_features=groups)
    assert {m.sensitive for m in fewer if m.sensitive} == {("sex",), ("race",)}
    detail = headline(found, "mean_prediction_difference", "race").detail
    assert detail.startswith("mean_prediction by race: lowest") and "small groups: c (" in detail
    assert "a small group" in of_group(found, "mean_prediction", race="c").detail


# ---- what is judged, and what only shown ----------------------------------------------------------------------------


def test_without_a_range_only_what_needs_none_is_judged() -> None:
    y_pred, y_true, groups = salaries()
    found = RegressionFairness().measure_predictions(y_pred, y_true, sensitive_features={"sex": groups["sex"]})
    criteria = [criterion(metric, "at_most", 1e9) for metric in HEADLINES - {"prediction_kolmogorov_smirnov"}]
    criteria.append(criterion("prediction_kolmogorov_smirnov", "at_most", 0.5))
    result = ProbeResult(probe="regression_fairness", pillar="fairness", citation="", measurements=tuple(found))
    findings = [f for f in judge([result], criteria)[0] if f.criterion is not None]
    outcomes = {f.criterion.metric: f.outcome for f in findings if f.criterion is not None}
    assert outcomes.pop("prediction_kolmogorov_smirnov") is Outcome.PASS
    # A distance has no bounds without a range; the means have Student's, on which no criterion may rest.
    assert outcomes.pop("prediction_wasserstein") is Outcome.INCONCLUSIVE
    assert set(outcomes.values()) == {Outcome.NOT_RUN}
    assert all_of("value_range" in f.reason for f in findings if f.outcome is not Outcome.PASS)


SIZES = (300, 150, 20)


def beta(rng: np.random.Generator, centre: float, shape: tuple[int, ...]) -> np.ndarray:
    """Values on [0, 1] with this mean and a standard deviation of 0.15."""
    k = centre * (1 - centre) / 0.15**2 - 1
    return rng.beta(centre * k, (1 - centre) * k, shape)


def means_of(values: np.ndarray, low: float, high: float) -> list[BoundedMean]:
    """The mean of one group's rows, (n_worlds, n), in every world."""
    n = values.shape[1]
    columns = zip(*(x.tolist() for x in moments(values)), strict=True)
    return [BoundedMean(centre=c, standard_error=e, third_moment=m, n=n, low=low, high=high) for c, e, m in columns]


@pytest.mark.grid
@pytest.mark.parametrize(
    ("metric", "what", "kind", "ends"),
    [
        ("mean_prediction_difference", "prediction", WorstValueGap, (0.0, 1.0)),
        ("mean_absolute_error_difference", "error", WorstValueGap, (0.0, 1.0)),
        ("mean_residual_difference", "error", WorstValueGap, (-1.0, 1.0)),
        ("worst_group_mean_absolute_error", "error", LargestValue, (0.0, 1.0)),
    ],
)
@pytest.mark.parametrize("gap", [0.0, 0.3])
def test_at_the_bound_and_at_none_both_errors_are_kept(
    metric: str, what: str, kind: type[WorstValueGap | LargestValue], ends: tuple[float, float], gap: float
) -> None:
    """Three groups on [0, 1], one of 20 rows, which differs by ``gap`` in its mean prediction or in its mean error."""
    rng = np.random.default_rng(0)
    values = [beta(rng, 0.3 + gap * (n == SIZES[-1]), (WORLDS, n)) for n in SIZES]
    sign = -1.0 if metric == "mean_residual_difference" else 1.0
    parts = zip(*(means_of(sign * v, *ends) for v in values), strict=True)
    estimates: list[Estimate] = [kind(parts=world) for world in parts]
    first = np.concatenate([v[0] for v in values])
    found = RegressionFairness(value_range=(0.0, 1.0)).measure_predictions(
        first,
        np.full(len(first), 0.5 if what == "prediction" else 0.0),
        sensitive_features={"g": np.repeat(["a", "b", "c"], SIZES).tolist()},
    )
    measured = headline(found, metric, "g").estimate
    assert type(measured) is type(estimates[0])
    assert measured.bounds(0.05) == pytest.approx(estimates[0].bounds(0.05), abs=1e-12)
    truth = gap + (0.3 if kind is LargestValue else 0.0)
    assert max(misses(estimates, truth)) <= most_misses()


def test_root_mean_squared_errors_and_distances_keep_both_errors() -> None:
    """Errors of two values, 0.1 and 0.7, and predictions of two: every outcome is a pair of counts.

    As many pairs as are drawn are measured, each once, and weighed by how often it was drawn.
    """
    probe, sizes, shares = RegressionFairness(value_range=(0.0, 1.0)), (150, 40), (0.5, 0.2)
    roots = [math.sqrt(p * 0.49 + (1 - p) * 0.01) for p in shares]
    truths = {
        "root_mean_squared_error_difference": roots[0] - roots[1],
        "prediction_kolmogorov_smirnov": 0.3,
        "prediction_wasserstein": 0.3 * 0.6,
    }
    drawn = np.random.default_rng(0).binomial(sizes, shares, (WORLDS, 2))
    missed = {metric: np.zeros(2, int) for metric in truths}
    for counts, times in zip(*np.unique(drawn, axis=0, return_counts=True), strict=True):
        error = np.concatenate([np.where(np.arange(n) < k, 0.7, 0.1) for k, n in zip(counts, sizes, strict=True)])
        groups = {"g": ["a"] * sizes[0] + ["b"] * sizes[1]}
        found = probe.measure_predictions(error, np.zeros(190), sensitive_features=groups)
        for metric, truth in truths.items():
            low, high = headline(found, metric, "g").estimate.bounds(0.05)
            missed[metric] += times * np.asarray([low > truth + 1e-9, high < truth - 1e-9])
    assert all_of(count.max() <= most_misses() for count in missed.values()), missed


@pytest.mark.grid
@pytest.mark.parametrize("metric", RegressionFairness.power)
def test_it_has_the_power_it_states(metric: str) -> None:
    n, effect = RegressionFairness.power[metric]
    probe = RegressionFairness(value_range=(0.0, 1.0))
    seen = 0
    for seed in range(OF_POWER):
        rng = np.random.default_rng(seed)

        def draw(centre: float, rng: np.random.Generator = rng) -> np.ndarray:
            k = centre * (1 - centre) / 0.15**2 - 1
            return rng.beta(centre * k, (1 - centre) * k, n)

        if metric == "prediction_kolmogorov_smirnov":
            y = np.r_[rng.random(n) / 2, np.where(rng.random(n) < effect, 0.5, 0.0) + rng.random(n) / 2]
        else:
            y = np.r_[draw(0.4), draw(0.4 + effect)]
        found = probe.measure_predictions(y, np.zeros(2 * n), sensitive_features={"g": ["a"] * n + ["b"] * n})
        seen += headline(found, metric, "g").estimate.bounds(0.05 / 4)[0] > 0.05
    assert seen >= 0.8 * OF_POWER - 17, f"{seen} of {OF_POWER}"


# ---- through the model ----------------------------------------------------------------------------------------------


def test_the_probe_asks_the_model_once_and_evaluation_rows_only() -> None:
    calls: list[int] = []

    def predict(X: np.ndarray) -> np.ndarray:
        calls.append(len(X))
        return X[:, 0]

    X = np.random.default_rng(0).random((200, 2))
    groups = {"sex": ["f", "m"] * 100}
    data = AuditData.for_regression(X, X[:, 0] + 0.1, sensitive_features=groups, is_member=np.arange(200) < 50)
    report = run_audit(
        AuditedRegressor(predict), data, [RegressionFairness(value_range=(-1.0, 2.0)), AdverseImpact()], []
    )
    assert sum(calls) == 150 + 16, "once, and sixteen rows again to see that they repeat"
    values = {f.metric: f for f in report.findings if f.probe == "regression_fairness" and f.sensitive}
    assert set(values) == HEADLINES
    assert values["mean_prediction_difference"].n_samples == 150
    assert values["worst_group_mean_absolute_error"].value == pytest.approx(0.1)


def test_the_scoring_rate_of_a_regression_is_the_share_above_the_median() -> None:
    y, g = np.arange(100.0), ["a"] * 30 + ["b"] * 70
    data = AuditData.for_regression(y[:, None], sensitive_features={"g": g})
    found = AdverseImpact().measure(AuditedRegressor(lambda X: X[:, 0]), data, np.random.default_rng(0))
    rates = {m.group["g"]: m.estimate.value for m in found if m.metric == "scoring_rate"}
    assert rates == pytest.approx({"a": 0.0, "b": 50 / 70})
    assert none_of(m.metric == "selection_rate" for m in found)
    for probe, model in (
        (AdverseImpact(), AuditedRegressor(lambda X: np.full(len(X), 2.0))),
        (AdverseImpact(methods="selection_rate"), AuditedRegressor(lambda X: X[:, 0])),
    ):
        with pytest.raises(NotApplicableError, match="selects nobody"):
            probe.measure(model, data, np.random.default_rng(0))


def test_probes_of_classifiers_do_not_apply_and_say_why() -> None:
    y = np.arange(60.0)
    data = AuditData.for_regression(y[:, None], y, sensitive_features={"g": ["a", "b"] * 30}, is_member=y < 30)
    report = run_audit(AuditedRegressor(lambda X: X[:, 0]), data, [kind() for kind in PROBES.values()], [])
    answered = {f.probe for f in report.findings if f.outcome is not Outcome.NOT_APPLICABLE}
    assert answered == {"performance", "regression_fairness", "adverse_impact", "representation"}
    reasons = {f.probe: f.reason for f in report.findings if f.outcome is Outcome.NOT_APPLICABLE}
    assert reasons["group_fairness"] == "Needs a classifier: this model is a regression model."
    assert reasons["stereotype"] == "Needs a language model: this model is a regression model."


def test_a_classifier_is_no_regression() -> None:
    data = AuditData.from_arrays(np.zeros((4, 1)), [0, 1, 0, 1], classes=(0, 1), sensitive_features={"g": list("aabb")})
    model = AuditedModel.from_callable(lambda X: np.full(len(X), 0.5), classes=(0, 1))
    report = run_audit(model, data, [RegressionFairness()], [])
    assert report.findings[0].reason == "Needs a regression model: this model is a classifier."


# ---- poor data ------------------------------------------------------------------------------------------------------


def test_constant_predictions_are_equal_and_not_certain() -> None:
    found = RegressionFairness(value_range=(0, 10)).measure_predictions(
        [5.0] * 40, [5.0] * 40, sensitive_features={"g": ["a", "b"] * 20}
    )
    for metric in HEADLINES:
        estimate = headline(found, metric, "g").estimate
        assert estimate.value == 0.0 and estimate.bounds(0.05)[1] > 0.0
    shown = RegressionFairness().measure_predictions([5.0] * 40, sensitive_features={"g": ["a", "b"] * 20})
    assert all_of(m.estimate.value == 0.0 for m in shown if m.sensitive)


@pytest.mark.parametrize("value_range", [None, (0.0, 10.0)])
def test_no_rows_one_group_and_a_group_without_true_values_make_up_no_number(
    value_range: tuple[float, float] | None,
) -> None:
    probe = RegressionFairness(value_range=value_range)
    nothing = probe.measure_predictions([], [], sensitive_features={"g": []})
    assert nothing and all_of(isinstance(m.estimate, Undefined) and m.n_samples == 0 for m in nothing)
    alone = probe.measure_predictions([1.0, 2.0], [1.0, 2.0], sensitive_features={"g": ["a", "a"]})
    compared = {m.metric: m.estimate for m in alone if m.sensitive}
    compared.pop("worst_group_mean_absolute_error")
    assert all_of(isinstance(e, Undefined) for e in compared.values())
    holes = probe.measure_predictions(
        [1.0, 2.0, 3.0, 4.0], [1.0, 1.5, math.nan, math.nan], sensitive_features={"g": list("aabb")}
    )
    assert isinstance(of_group(holes, "mean_absolute_error", g="b").estimate, Undefined)
    gap = headline(holes, "mean_absolute_error_difference", "g")
    assert math.isnan(gap.estimate.value) and "undefined for b" in gap.detail
    assert not math.isnan(headline(holes, "mean_prediction_difference", "g").estimate.value)
    unlabelled = probe.measure_predictions([1.0, 2.0], [math.nan] * 2, sensitive_features={"g": list("ab")})
    assert none_of("error" in m.metric or "residual" in m.metric for m in unlabelled)


def test_wrong_input_is_one_sentence() -> None:
    probe = RegressionFairness(value_range=(0.0, 1.0))
    with pytest.raises(DataError, match="one entry for each row"):
        probe.measure_predictions([0.5, 0.5], [0.5], sensitive_features={"g": ["a", "b"]})
    with pytest.raises(DataError, match="finite"):
        probe.measure_predictions([math.nan], sensitive_features={"g": ["a"]})
    with pytest.raises(DataError, match="A prediction of 3 lies outside value_range"):
        probe.measure_predictions([0.5, 3.0], sensitive_features={"g": ["a", "b"]})
    with pytest.raises(DataError, match="A true value of -2 lies outside"):
        probe.measure_predictions([0.5, 0.5], [-2.0, 0.5], sensitive_features={"g": ["a", "b"]})
    rounded = probe.measure_predictions([0.0, 1.0 + 1e-7], sensitive_features={"g": ["a", "b"]})
    assert headline(rounded, "mean_prediction_difference", "g").estimate.value == 1.0
    for bad in ([1, 1], [2, 1], [0], "0,1", [0, math.inf], [0, "1"], [True, 2], 5, [math.nan, 1]):
        with pytest.raises(ConfigError, match="value_range"):
            make_probe(RegressionFairness, {"value_range": bad})


def test_a_thousand_groups_are_too_many_to_compare() -> None:
    n = 1_001
    found = RegressionFairness().measure_predictions(
        np.arange(float(n)), sensitive_features={"g": [str(i) for i in range(n)]}
    )
    assert all_of("too many" in m.estimate.reason for m in found if m.sensitive and isinstance(m.estimate, Undefined))
