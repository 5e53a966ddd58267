"""Robustness by group: curves of each group, and gaps that say no more than was drawn, searched for or proved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from auditor.data.audit_data import AuditData
from auditor.judging.criterion import Criterion
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.models.torch_model import TorchModel
from auditor.statistics.attack_estimates import AtLeast, AtMost, Bracket, WorstBracketDifference
from auditor.statistics.estimate import Undefined
from auditor.statistics.groups import WorstDifference
from auditor.statistics.rates import Proportion
from probes.robustness.robustness import Robustness
from probes.robustness.robustness_by_group import Level, by_group, clean_by_group
from tests.quantifiers import all_of, none_of

CLASSES = ("0", "1")


def people(n: int, seed: int = 0) -> tuple[pd.DataFrame, Any]:
    """Scores that lie far from 0 in group a, and near it in group b."""
    rng = np.random.default_rng(seed)
    group = rng.choice(["a", "b"], n)
    far = np.where(group == "a", 5.0, 0.3)
    return pd.DataFrame({"x": rng.choice([-1.0, 1.0], n) * (far + rng.random(n) * 0.1)}), group


def sign(rows: pd.DataFrame) -> Any:
    return (rows["x"].to_numpy() > 0).astype(float)


def of_people(X: pd.DataFrame, group: Any, y: Any = None) -> AuditData:
    return AuditData.from_arrays(X, y, classes=CLASSES, positive="1", sensitive_features={"group": group})


def measured(data: AuditData, model: AuditedModel | None = None, **options: Any) -> list[Measurement]:
    model = model or AuditedModel.from_callable(sign, classes=CLASSES)
    return Robustness(**options).measure(model, data, np.random.default_rng(0))


def of_group(found: Sequence[Measurement], metric: str, group: str, level: float | None = None) -> Measurement:
    (only,) = [
        m
        for m in found
        if m.metric == metric and m.group == {"group": group} and (level is None or level in m.at.values())
    ]
    return only


def gap(found: Sequence[Measurement], metric: str, level: float | None = None) -> Measurement:
    (only,) = [m for m in found if m.metric == metric and m.sensitive and (level is None or level in m.at.values())]
    return only


def outcomes(found: Sequence[Measurement], metric: str, bound: float) -> list[Outcome]:
    criterion = Criterion(metric=metric, direction="at_most", bound=bound, source="t", set_by="t", set_at="t")
    result = ProbeResult(probe="robustness", pillar="robustness", citation="", measurements=tuple(found))
    return [f.outcome for f in judge([result], [criterion])[0] if f.criterion is not None]


# ---- drawn ---------------------------------------------------------------------------------------------------------


def test_each_group_has_curves_and_each_level_a_gap() -> None:
    X, group = people(600)
    y = sign(X).astype(int)
    found = measured(of_people(X, group, y), methods="noise", noise=[0.05, 0.4])
    for level in (0.05, 0.4):
        flips, accuracy = (gap(found, f"{m}_difference_under_noise", level) for m in ("flip_rate", "accuracy"))
        assert isinstance(flips.estimate, WorstDifference) and isinstance(accuracy.estimate, WorstDifference)
        assert flips.sensitive == accuracy.sensitive == ("group",) and flips.ideal == accuracy.ideal == 0.0
        assert flips.at == accuracy.at == {"noise": level} and flips.n_samples == accuracy.n_samples == 600
        parts = {g: of_group(found, "flip_rate_under_noise", g, level) for g in "ab"}
        rights = {g: of_group(found, "accuracy_under_noise", g, level) for g in "ab"}
        assert all_of(isinstance(m.estimate, Proportion) for m in (*parts.values(), *rights.values()))
        assert flips.estimate.value == pytest.approx(abs(parts["a"].estimate.value - parts["b"].estimate.value))
        assert accuracy.estimate.value == pytest.approx(flips.estimate.value), "the clean decisions are all right"
        (whole,) = [
            m for m in found if m.metric == "flip_rate_under_noise" and not m.group and m.at == {"noise": level}
        ]
        assert sum(m.estimate.value * m.n_samples for m in parts.values()) == pytest.approx(600 * whole.estimate.value)
        assert [parts[g].n_samples for g in "ab"] == [(group == g).sum() for g in "ab"]
    assert gap(found, "flip_rate_difference_under_noise", 0.05).estimate.value < 0.3
    assert gap(found, "flip_rate_difference_under_noise", 0.4).estimate.value > 0.3
    assert gap(found, "clean_accuracy_difference").estimate.value == 0.0
    assert of_group(found, "clean_accuracy", "b").n_samples == (group == "b").sum()
    assert "highest b" in gap(found, "flip_rate_difference_under_noise", 0.4).detail


def test_without_sensitive_features_nothing_is_compared() -> None:
    X, _ = people(100)
    data = AuditData.from_arrays(X, sign(X).astype(int), classes=CLASSES, positive="1")
    assert none_of(m.group or m.sensitive for m in measured(data))


def test_without_labels_flip_rates_alone() -> None:
    X, group = people(200)
    found = measured(of_people(X, group), methods="noise", noise=[0.2])
    assert {m.metric for m in found} == {"flip_rate_under_noise", "flip_rate_difference_under_noise"}


def test_rows_without_a_label_are_in_no_accuracy() -> None:
    X, group = people(300)
    y = np.where(np.arange(300) % 3 == 0, None, sign(X).astype(int))
    found = measured(of_people(X, group, y), methods="noise", noise=[0.2])
    known = pd.Series(group)[np.arange(300) % 3 != 0].value_counts()
    assert {g: of_group(found, "accuracy_under_noise", g, 0.2).n_samples for g in "ab"} == known.to_dict()
    assert of_group(found, "flip_rate_under_noise", "a", 0.2).n_samples == (group == "a").sum()


def test_a_gap_is_judged_by_the_users_bound() -> None:
    X, group = people(800)
    unfair = measured(of_people(X, group), methods="noise", noise=[0.4])
    assert outcomes(unfair, "flip_rate_difference_under_noise", 0.2) == [Outcome.FAIL]
    shuffled = np.random.default_rng(1).permutation(group)
    fair = measured(of_people(X, shuffled), methods="noise", noise=[0.4])
    assert outcomes(fair, "flip_rate_difference_under_noise", 0.2) == [Outcome.PASS]


def test_where_there_is_no_gap_it_is_seldom_shown() -> None:
    """Of 80 samples in which groups differ in nothing, few show a gap at 5 %, and none much of one."""
    rng = np.random.default_rng(0)
    shown = 0
    for _ in range(80):
        flipped, y = rng.random(400) < 0.2, np.zeros(400, np.int64)
        data = of_people(pd.DataFrame({"x": np.zeros(400)}), rng.choice(["a", "b", "c"], 400), y)
        found = by_group([Level("noise", {"noise": 0.1}, flipped.astype(np.int64))], data, y, CLASSES)
        shown += gap(found, "flip_rate_difference_under_noise").estimate.bounds(0.05)[0] > 0.0
    assert shown <= 8, "5 % of 80 and two standard deviations"


def test_small_groups_are_shown_and_not_compared() -> None:
    X, group = people(1_000)
    group = group.astype(object)
    group[:12] = "few"
    found = measured(of_people(X, group), methods="noise", noise=[0.2])
    largest = gap(found, "flip_rate_difference_under_noise")
    assert "few (12)" in largest.detail and largest.smallest > 12
    assert of_group(found, "flip_rate_under_noise", "few").n_samples == 12


def test_one_group_has_nothing_to_be_compared_with_and_a_crowd_is_said_to_be_one() -> None:
    X, group = people(100)
    found = measured(of_people(X, np.full(100, "a")), methods="noise", noise=[0.2])
    assert isinstance(gap(found, "flip_rate_difference_under_noise").estimate, Undefined)
    X, _ = people(1_200)
    found = measured(of_people(X, [f"g{i}" for i in range(1_200)]), methods="noise", noise=[0.2], n_samples=1_200)
    crowded = gap(found, "flip_rate_difference_under_noise")
    assert isinstance(crowded.estimate, Undefined) and "1,200 groups" in crowded.estimate.reason
    assert none_of(m.group for m in found)


def test_groups_change_no_number_of_all_rows() -> None:
    X, group = people(300)
    y = sign(X).astype(int)
    with_groups = measured(of_people(X, group, y))
    without = measured(AuditData.from_arrays(X, y, classes=CLASSES, positive="1"))
    assert [m for m in with_groups if not m.group and not m.sensitive] == without


# ---- searched for --------------------------------------------------------------------------------------------------


def of_sign() -> TorchModel:
    module = nn.Linear(1, 2)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        module.bias.zero_()
    return TorchModel(module, classes=CLASSES, outputs="logits")


def test_of_a_search_a_gap_is_of_what_was_found_and_shows_nothing() -> None:
    X, group = people(900)
    model = of_sign()
    y = sign(X).astype(int)
    found = measured(of_people(X, group, y), model, methods="pgd", epsilon=[0.2])
    flips, accuracy = (gap(found, f"{m}_difference_under_pgd") for m in ("flip_rate", "accuracy"))
    parts = {g: of_group(found, "flip_rate_under_pgd", g) for g in "ab"}
    assert isinstance(parts["a"].estimate, AtLeast)
    assert isinstance(of_group(found, "accuracy_under_pgd", "a").estimate, AtMost)
    assert parts["a"].estimate.value == 0.0 and parts["b"].estimate.value == 1.0
    for m in (flips, accuracy):
        assert isinstance(m.estimate, WorstBracketDifference) and m.estimate.value == 1.0
        # Every row of group a may be broken too, for all that a search has shown.
        assert m.estimate.bounds(0.05)[0] == 0.0 and m.estimate.bounds(0.05)[1] == 1.0
    assert outcomes(found, "flip_rate_difference_under_pgd", 0.2) == [Outcome.INCONCLUSIVE]
    safe = measured(of_people(X, group, y), model, methods="pgd", epsilon=[0.001])
    assert gap(safe, "accuracy_difference_under_pgd").estimate.value == 0.0
    assert outcomes(safe, "accuracy_difference_under_pgd", 0.2) == [Outcome.INCONCLUSIVE], "nothing found is no proof"


def test_where_rows_are_proved_a_gap_is_judged_both_ways() -> None:
    X, group = people(900)
    model = of_sign()
    y = sign(X).astype(int)
    found = measured(of_people(X, group, y), model, methods=["pgd", "certificate"], epsilon=[0.2])
    largest = gap(found, "robust_accuracy_difference")
    parts = {g: of_group(found, "robust_accuracy", g) for g in "ab"}
    assert isinstance(largest.estimate, WorstBracketDifference) and isinstance(parts["a"].estimate, Bracket)
    assert parts["a"].estimate.value == 1.0 and parts["b"].estimate.value == 0.0
    assert largest.estimate.value == 1.0 and largest.at == {"epsilon": 0.2} and largest.n_samples == 900
    assert outcomes(found, "robust_accuracy_difference", 0.2) == [Outcome.FAIL]
    small = measured(of_people(X, group, y), model, methods=["pgd", "certificate"], epsilon=[0.001])
    assert outcomes(small, "robust_accuracy_difference", 0.2) == [Outcome.PASS]


def test_errors_that_are_there_without_an_attack_count_as_found() -> None:
    X, group = people(400)
    y = np.where(group == "a", sign(X), 1 - sign(X)).astype(np.int64)
    data = of_people(X, group, y)
    clean = sign(X).astype(np.int64)
    found = by_group([Level("pgd", {"epsilon": 0.1}, clean, searched=True)], data, clean, CLASSES)
    assert gap(found, "accuracy_difference_under_pgd").estimate.value == 1.0
    assert gap(found, "flip_rate_difference_under_pgd").estimate.value == 0.0
    assert gap(clean_by_group(data, clean, CLASSES), "clean_accuracy_difference").estimate.value == 1.0


def test_texts_that_are_searched_for_are_compared_among_those_searched() -> None:
    texts = ["you idiot again", "all is well here"] * 150
    group = ["x", "y"] * 150

    def predict(rows: Any) -> Any:
        return np.array([float("idiot" in text) for text in rows])

    data = AuditData.from_arrays(texts, None, classes=CLASSES, positive="1", sensitive_features={"group": group})
    model = AuditedModel.from_callable(predict, classes=CLASSES)
    found = measured(data, model, methods="zero_width", words=[1])
    parts = {g: of_group(found, "flip_rate_under_zero_width", g) for g in "xy"}
    assert sum(m.n_samples for m in parts.values()) == 200
    assert parts["x"].estimate.value == 1.0 and parts["y"].estimate.value == 0.0
