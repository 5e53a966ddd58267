"""Attribute inference: nothing where the model knows no more than the record, something where it does."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binom

from auditor.core.errors import NotApplicableError, UsageError
from auditor.data.audit_data import AuditData
from auditor.judging.measurement import Measurement
from auditor.models.audited_model import AuditedModel
from auditor.models.torch_model import TorchModel
from auditor.statistics.values import bounded_mean
from probes.privacy.attribute_inference import AttributeInference, _levels, _values
from tests.quantifiers import all_of
from tests.statistics.worlds import WORLDS, misses, most_misses
from tests.toys.models import CLASSES, model, rows


def gains(found: list[Measurement], where: str = "evaluation rows") -> dict[str, Measurement]:
    return {m.method: m for m in found if m.metric == "attribute_inference_gain" and m.at.get("rows") == where}


def measured(probed: AuditedModel, data: AuditData, attribute: str = "group", seed: int = 0) -> list[Measurement]:
    return AttributeInference(attribute=attribute).measure(probed, data, np.random.default_rng(seed))


def leaky() -> TorchModel:
    return model(lambda skill, group, seen: 0.2 * skill + group)


def test_a_model_without_the_attribute_gives_none_of_it() -> None:
    found = gains(measured(model(lambda skill, group, seen: skill), rows(2_000)))
    assert set(found) == {"with_model", "with_answer", "fredrikson"}
    assert all_of(m.estimate.bounds(0.005)[0] <= 0.0 for m in found.values())


def test_a_published_score_gives_the_attribute_away() -> None:
    found = gains(measured(leaky(), rows(1_000)))
    assert found["with_answer"].estimate.value > 0.4
    assert found["with_answer"].estimate.bounds(0.005)[0] > 0.3
    # The true label says nothing of the group, so queries without the record's own answer are of no use.
    assert found["with_model"].estimate.bounds(0.005)[0] <= 0.0


@pytest.mark.slow
def test_gain_is_seldom_found_where_there_is_none() -> None:
    alarms = sum(
        gains(measured(model(lambda skill, group, seen: skill), rows(400, seed), seed=seed))[
            "with_answer"
        ].estimate.bounds(0.05)[0]
        > 0.0
        for seed in range(40)
    )
    assert alarms <= most_misses(worlds=40)


def test_the_stated_power_is_reached_and_no_gain_is_seldom_found() -> None:
    n, effect = AttributeInference.power
    rng = np.random.default_rng(0)

    def found(gain: float, bound: float) -> int:
        # Half of the rows are guessed alike with and without the model.
        drawn = rng.choice([1.0, 0.0, -1.0], (WORLDS, n), p=[0.25 + gain / 2, 0.5, 0.25 - gain / 2])
        return misses((bounded_mean(world, low=-1.0, high=1.0) for world in drawn), bound)[0]

    assert found(effect, 0.05) >= binom.ppf(0.001, WORLDS, 0.8)
    assert found(0.05, 0.05) <= most_misses() and found(0.0, 0.0) <= most_misses()


def test_fredrikson_is_the_papers_rule() -> None:
    """argmax over v of P(v) p(y | x with v), row by row."""
    rng = np.random.default_rng(0)
    n = 400
    group = rng.integers(0, 2, n)
    label = (rng.random(n) < 0.2 + 0.6 * group).astype(int)
    data = AuditData.from_arrays(pd.DataFrame({"x": rng.normal(size=n), "group": group}), label, classes=CLASSES)

    def predict(X: pd.DataFrame) -> np.ndarray:
        return 0.2 + 0.6 * X["group"].to_numpy(float)

    found = measured(AuditedModel.from_callable(predict, classes=CLASSES), data)
    accuracy = {m.method: m for m in found if m.metric == "attribute_inference_accuracy"}
    evaluation = data.order("attribute_inference")
    learned, attacked = np.sort(evaluation[: n // 2]), np.sort(evaluation[n // 2 :])
    prior = [np.mean(group[learned] == v) for v in (0, 1)]
    right = 0
    for i in attacked:
        p = [0.2 + 0.6 * v for v in (0, 1)]
        score = [prior[v] * (p[v] if label[i] == 1 else 1 - p[v]) for v in (0, 1)]
        right += int(score[1] > score[0]) == group[i]
    assert accuracy["fredrikson"].estimate.value == pytest.approx(right / (n // 2))


def test_members_have_an_advantage_of_their_own() -> None:
    """A model that knows members' labels by heart tells the value that makes its answer right."""
    data = rows(1_200, members=True)
    assert isinstance(data.X, pd.DataFrame) and data.y_true is not None
    recalled = {(s, g): y for s, g, y in zip(data.X["skill"], data.X["group"], data.y_true, strict=True)}

    def predict(X: pd.DataFrame) -> np.ndarray:
        known = [recalled.get(key) for key in zip(X["skill"], X["group"], strict=True)]
        return np.asarray(
            [0.5 if y is None or not s else 0.99 * y + 0.01 * (1 - y) for y, s in zip(known, X["seen"], strict=True)]
        )

    found = measured(AuditedModel.from_callable(predict, classes=CLASSES), data)
    advantage = {m.method: m.estimate for m in found if m.metric == "attribute_advantage"}
    assert advantage["fredrikson"].bounds(0.005)[0] > 0.3
    assert gains(found, "training rows")["fredrikson"].estimate.value > 0.4


def test_a_sensitive_column_that_is_no_feature_can_be_named() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    data = AuditData.from_arrays(
        pd.DataFrame({"x": x}), (x > 0).astype(int), classes=CLASSES,
        sensitive_features={"side": np.where(x + rng.normal(size=400) > 0, "a", "b").tolist()},
    )  # fmt: skip
    found = measured(AuditedModel.from_callable(lambda X: (X["x"] > 0).to_numpy(float), classes=CLASSES), data, "side")
    assert set(gains(found)) == {"with_model"}


@pytest.mark.parametrize("as_feature", [False, True])
def test_rows_without_the_attribute_take_no_part_and_are_counted(as_feature: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    side = np.where(x + rng.normal(size=400) > 0, "a", "b").astype(object)
    side[:100] = None
    columns = {"x": x} | ({"side": side} if as_feature else {})
    data = AuditData.from_arrays(
        pd.DataFrame(columns), (x > 0).astype(int), classes=CLASSES,
        sensitive_features=None if as_feature else {"side": list(side)},
    )  # fmt: skip
    found = measured(AuditedModel.from_callable(lambda X: (X["x"] > 0).to_numpy(float), classes=CLASSES), data, "side")
    # Half of the rows with the attribute are what the attacker learns from.
    assert {m.n_samples for m in found} == {300}
    assert all_of("2 levels" in m.detail and "100 of 400 rows without it left out" in m.detail for m in found)


def test_numbers_of_many_values_are_cut_at_their_median() -> None:
    codes, names, remark = _levels(pd.Series([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, np.nan]))
    assert codes.tolist() == [0] * 6 + [1] * 5 + [-1]
    assert names == ["at most 6", "above 6"] and "median 6" in remark
    found = measured(model(lambda skill, group, seen: skill), rows(400), "skill")
    assert "cut at its median" in found[0].detail


def test_what_it_refuses() -> None:
    probed, data = leaky(), rows(100)
    with pytest.raises(NotApplicableError, match="attribute_inference.attribute=COLUMN"):
        AttributeInference().measure(probed, data, np.random.default_rng(0))
    with pytest.raises(UsageError, match="group"):
        measured(probed, data, "grup")
    many = AuditData.from_arrays(pd.DataFrame({"name": [f"n{i}" for i in range(100)]}), [0, 1] * 50, classes=CLASSES)
    with pytest.raises(UsageError, match="at most 10"):
        measured(AuditedModel.from_callable(lambda X: np.zeros(len(X)), classes=CLASSES), many, "name")
    assert math.isnan(measured(probed, rows(20))[0].estimate.value)
    assert torch.get_num_threads() >= 1


@pytest.mark.parametrize("dtype", ["int64", "Int64", "float64"])
def test_what_an_attribute_is_set_to_is_a_value_it_has(dtype: str) -> None:
    secret = pd.Series([1, 2, 3, 4, 10, 11, 12, 13], dtype=dtype, name="age")
    level = np.asarray([0, 0, 0, 0, 1, 1, 1, 1])
    assert _values(secret, level, 2) == [3, 12]
