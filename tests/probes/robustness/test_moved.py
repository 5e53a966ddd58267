"""What a change reached: rows that nothing was done to pass nothing, and the unit of a change is nobody's choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import NumericColumn, TabularPreprocessing, fit_tabular
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.models.torch_model import TorchModel
from probes.robustness.out_of_distribution import OutOfDistribution
from probes.robustness.perturbation_set import changed_rows, nothing_moves
from probes.robustness.robustness import Robustness
from tests.quantifiers import all_of, none_of
from tests.toys.models import criterion

CLASSES = ("0", "1")
STILL = nothing_moves(300)


def table(n: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"rate": rng.standard_normal(n), "visits": rng.integers(0, 5, n)})


def network(preprocessing: TabularPreprocessing) -> TorchModel:
    """Two layers whose decision is the sign of ``3 rate + visits - 2``, whatever scale its columns are taken in."""
    first, last = nn.Linear(2, 2), nn.Linear(2, 2)
    rate, visits = preprocessing.columns
    assert isinstance(rate, NumericColumn) and isinstance(visits, NumericColumn)
    weights = torch.tensor([3.0 * rate.scale, visits.scale])
    with torch.no_grad():
        first.weight.copy_(torch.stack([weights, -weights]))
        at = 3.0 * rate.mean + visits.mean - 2.0
        first.bias.copy_(torch.tensor([at, -at]))
        last.weight.copy_(torch.tensor([[-1.0, 1.0], [1.0, -1.0]]))
        last.bias.zero_()
    layers = nn.Sequential(first, nn.ReLU(), last)
    return TorchModel(layers, classes=CLASSES, preprocessing=preprocessing, outputs="logits")


def rows(X: pd.DataFrame, **more: Any) -> AuditData:
    y = (3.0 * X["rate"] + X["visits"] > 2.0).astype(int)
    return AuditData.from_arrays(X, y, classes=CLASSES, positive="1", **more)


def measure(model: AuditedModel, data: AuditData, **options: Any) -> list[Measurement]:
    return Robustness(**options).measure(model, data, np.random.default_rng(0))


def level_of(m: Measurement) -> float:
    (level,) = m.at.values()
    return float(level)


def at_level(found: Sequence[Measurement], metric: str, *, below: bool = True) -> list[Measurement]:
    """What stands at the levels below a half, or at the others."""
    return [m for m in found if m.metric == metric and m.at and (level_of(m) < 0.5) is below and not m.group]


def outcomes_of(found: Sequence[Measurement]) -> dict[tuple[str, bool], set[Outcome]]:
    """By metric and whether the level lies below a half: what requirements that are easily met come to."""
    ideals = {m.metric: m.ideal for m in found if m.at and not m.group and "sign" not in m.at}
    easy = [
        criterion(metric, "at_least", 0.1) if ideal == 1.0 else criterion(metric, "at_most", 0.9)
        for metric, ideal in ideals.items()
    ]
    result = ProbeResult(probe="robustness", pillar="robustness", citation="", measurements=tuple(found))
    said: dict[tuple[str, bool], set[Outcome]] = {}
    for f in judge([result], easy)[0]:
        if f.criterion is not None and f.measurement is not None:
            said.setdefault((f.measurement.metric, level_of(f.measurement) < 0.5), set()).add(f.outcome)
    return said


@pytest.mark.parametrize("times", [1e-3, 1e3])
def test_the_owner_of_a_model_does_not_choose_the_unit_of_an_attack(times: float) -> None:
    """The same function of the rows, in a scale of its owner's own, has the same numbers."""
    X = table()
    plain = fit_tabular(X)
    own = plain.model_copy(
        update={"columns": tuple(c.model_copy(update={"scale": c.scale * times}) for c in plain.columns)}  # type: ignore[union-attr]
    )
    values = []
    for preprocessing in (plain, own):
        found = measure(network(preprocessing), rows(X), methods=["pgd", "certificate"], epsilon=[0.3])
        metrics = "flip_rate_under_pgd", "robust_accuracy"
        values.append({metric: at_level(found, metric)[0].estimate.value for metric in metrics})
    assert values[0] == pytest.approx(values[1], abs=1e-9)
    assert 0.05 < values[0]["flip_rate_under_pgd"] < 0.5


def test_where_no_row_changes_nothing_passes() -> None:
    """A tenth of a standard deviation is no whole visit; and with both columns fixed nothing can go missing."""
    X = table()
    data = rows(X, sensitive_features={"side": np.where(np.arange(len(X)) % 2, "a", "b").tolist()})
    how: dict[str, Any] = {"methods": ["noise", "pgd", "certificate"], "immutable": "rate"}
    found = measure(network(fit_tabular(X)), data, noise=[0.01, 1.0], epsilon=[0.1, 1.0], **how)
    outcomes = outcomes_of(found)
    for metric in ("accuracy_under_noise", "flip_rate_under_noise", "certified_accuracy", "robust_accuracy"):
        small, large = (at_level(found, metric, below=below) for below in (True, False))
        assert small and all_of(m.too_few == STILL for m in small), metric
        assert large and none_of(m.too_few for m in large), metric
        assert outcomes[metric, True] == {Outcome.INCONCLUSIVE}, metric
        assert outcomes[metric, False] <= {Outcome.PASS, Outcome.FAIL}, metric
    differences = [m for m in found if "difference" in m.metric and m.at and "under_pgd" not in m.metric]
    assert differences and none_of(level_of(m) < 0.5 for m in differences)
    emptied = outcomes_of(measure(network(fit_tabular(X)), data, methods="missing", immutable="rate,visits"))
    assert emptied == {
        (metric, True): {Outcome.INCONCLUSIVE} for metric in ("accuracy_under_missing", "flip_rate_under_missing")
    }


def test_of_a_model_that_is_right_about_no_row_something_moves_all_the_same() -> None:
    X = table()
    wrong = ["0" if label else "1" for label in 3.0 * X["rate"] + X["visits"] > 2.0]
    data = AuditData.from_arrays(X, wrong, classes=CLASSES, positive="1")
    (found,) = at_level(measure(network(fit_tabular(X)), data, methods="certificate", epsilon=[0.3]), "robust_accuracy")
    assert found.estimate.value < 0.05 and not found.too_few


def test_texts_without_a_letter_have_no_typing_errors() -> None:
    model = AuditedModel.from_callable(lambda texts: np.asarray([len(t) % 2 for t in texts], float), classes=CLASSES)
    texts = np.asarray(["1234", "567 8", "!"] * 40, object)
    data = AuditData.from_arrays(texts, np.zeros(120, int), classes=CLASSES)
    found = [m for m in measure(model, data, methods="typos") if m.metric == "flip_rate_under_typos"]
    assert found and all_of("None of 120 rows changes" in m.too_few for m in found)


def test_it_is_said_which_columns_and_how_many_rows_changed() -> None:
    X = table()
    how: dict[str, Any] = {"methods": ["noise", "pgd", "certificate"], "noise": [0.1], "epsilon": [0.1]}
    found = measure(network(fit_tabular(X)), rows(X), **how, immutable="visits")
    for metric in ("flip_rate_under_noise", "flip_rate_under_pgd", "robust_accuracy"):
        (one,) = at_level(found, metric)
        assert "1 of 2 columns can change (rate)" in one.detail and "300 of 300 rows" in one.detail, metric


def test_changed_rows_are_those_of_a_loop_over_cells() -> None:
    rng = np.random.default_rng(0)
    before = pd.DataFrame(
        {
            "a": rng.choice([0.0, 1.0, np.nan], 200),
            "b": pd.Series(rng.choice(["u", "v"], 200)).mask(pd.Series(rng.random(200) < 0.3)),
            "c": pd.Series(rng.choice([1, 2], 200), dtype="Int64").mask(pd.Series(rng.random(200) < 0.3)),
        }
    )
    after = before.copy()
    for name in before:
        hit = rng.random(200) < 0.2
        after.loc[hit, name] = before[name].sample(frac=1.0, random_state=0).reset_index(drop=True)[hit]

    def same(p: Any, q: Any) -> bool:
        return bool(pd.isna(p) and pd.isna(q)) or bool(not (pd.isna(p) or pd.isna(q)) and p == q)

    expected = [not all(same(before.at[i, c], after.at[i, c]) for c in before) for i in range(200)]
    assert changed_rows(before, after).tolist() == expected and 0.1 < np.mean(expected) < 0.9
    numbers = rng.choice([0.0, np.nan], (50, 3))
    other = np.where(rng.random((50, 3)) < 0.1, 1.0, numbers)
    assert changed_rows(numbers, other).tolist() == (other == 1.0).any(axis=1).tolist()
    assert changed_rows(np.asarray(["x", "y"], object), np.asarray(["x", "z"], object)).tolist() == [False, True]


def test_several_methods_and_cases_may_be_named_in_one_word() -> None:
    assert Robustness(methods="noise, certificate").wanted == ("noise", "certificate")
    asked = OutOfDistribution(methods="msp,knn", cases="far,uniform")
    assert asked.wanted == ("msp", "knn") and asked.cases == ("far", "uniform")
    for none in ("noise,nose", "", ","):
        with pytest.raises(ValueError, match="methods must be auto or out of .*, not (nose|none)"):
            Robustness(methods=none)
