"""What a network returns is never misread: each of a zoo is read right by every loader, or asked about."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from auditor.core.errors import ModelError, OutputsError
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import NumericColumn, TabularPreprocessing
from auditor.loading.formats import load_model
from auditor.loading.job_specs import DataSpec, ModelSpec
from auditor.loading.rows.streamed_rows import Stream, can_stream
from auditor.models.audited_model import AuditedModel
from auditor.models.networks.architectures import ARCHITECTURES
from auditor.models.output_kind import stated_by
from auditor.models.postprocessing import PostprocessedModel
from auditor.models.regression_model import TorchRegressor
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.run.mitigation import Training
from auditor.run.run_audit import run_audit
from auditor.run.while_training.training_audit import TrainingAudit
from mitigations.scores.threshold_optimizer import ThresholdOptimizer
from probes.fairness.group_fairness import GroupFairness
from tests.toys.outputs import ZOO, Zoo, class_names, rows, truth

ARCHITECTURE: dict[str, Any] = {"architecture": "tests.toys.outputs:Zoo"}
Load = Callable[[str, Path, str | None], AuditedModel]


def spec(name: str, path: Path | None, said: str | None, **more: Any) -> ModelSpec:
    return ModelSpec(path=None if path is None else str(path), classes=class_names(name), outputs=said, **more)  # type: ignore[arg-type]


def in_memory(name: str, folder: Path, said: str | None) -> AuditedModel:
    return TorchModel(Zoo(name).eval(), classes=class_names(name), outputs=said)  # type: ignore[arg-type]


def bundle(name: str, folder: Path, said: str | None) -> AuditedModel:
    made = TorchModel(Zoo(name), classes=class_names(name), architecture={"name": "Zoo", "args": {"name": name}})
    save(made, folder / "m.pt")
    return load_model(spec(name, folder / "m.pt", said, **ARCHITECTURE))


def weights(name: str, folder: Path, said: str | None) -> AuditedModel:
    torch.save(Zoo(name).state_dict(), folder / "m.pt")
    return load_model(spec(name, folder / "m.pt", said, **ARCHITECTURE, architecture_args={"name": name}))


def safetensors(name: str, folder: Path, said: str | None) -> AuditedModel:
    from safetensors.torch import save_file

    save_file(Zoo(name).state_dict(), folder / "m.safetensors")
    return load_model(spec(name, folder / "m.safetensors", said, **ARCHITECTURE, architecture_args={"name": name}))


def torchscript(name: str, folder: Path, said: str | None) -> AuditedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(Zoo(name).eval(), torch.zeros(2, 3)).save(folder / "m.pt")  # type: ignore[no-untyped-call]
    return load_model(spec(name, folder / "m.pt", said, allow_code=True))


def exported(name: str, folder: Path, said: str | None) -> AuditedModel:
    program = torch.export.export(
        Zoo(name).eval(), (torch.zeros(2, 3),), dynamic_shapes=({0: torch.export.Dim("rows", min=1)},), strict=False
    )
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    (folder / "m.pt2").write_bytes(buffer.getvalue())
    return load_model(spec(name, folder / "m.pt2", said, allow_code=True))


def pickled(name: str, folder: Path, said: str | None) -> AuditedModel:
    torch.save(Zoo(name), folder / "m.pt")
    return load_model(spec(name, folder / "m.pt", said, trust_pickle=True))


LOADERS: tuple[Load, ...] = (in_memory, bundle, weights, safetensors, torchscript, exported, pickled)


@pytest.mark.grid
@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("name", ZOO)
def test_what_a_network_returns_is_read_right_or_asked_about(name: str, load: Load, tmp_path: Path) -> None:
    frame = rows()
    expected = truth(name, frame)
    try:
        read = load(name, tmp_path, None).predict_proba(frame)
    except ModelError as error:
        asked = str(error)
        assert "--outputs logits" in asked and "--outputs probabilities" in asked and f"{len(frame)} rows" in asked
    else:
        assert expected is not None, "it means neither logits nor probabilities, and was read as one of them"
        np.testing.assert_allclose(read, expected, atol=1e-6)


FEW_LOADERS = (in_memory, weights, torchscript)


@pytest.mark.grid
@pytest.mark.parametrize("load", FEW_LOADERS)
@pytest.mark.parametrize("name", [name for name, kind in ZOO.items() if kind.means in ("logits", "probabilities")])
def test_the_answer_is_taken_and_equals_the_truth(name: str, load: Load, tmp_path: Path) -> None:
    frame = rows()
    read = load(name, tmp_path, ZOO[name].means).predict_proba(frame)
    np.testing.assert_allclose(read, truth(name, frame), atol=2e-3 if "float16" in name else 1e-5)
    np.testing.assert_allclose(read.sum(axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("name", [n for n, kind in ZOO.items() if kind.means in ("log", "labels", "several", "logits")])
def test_what_is_said_to_be_probabilities_and_is_not_is_refused(name: str, tmp_path: Path) -> None:
    if name == "logit within [0, 1]":
        return  # nobody can see that
    with pytest.raises(OutputsError, match=r"said to be probabilities.* over 300 rows, which are none: add --outputs"):
        in_memory(name, tmp_path, "probabilities").predict_proba(rows())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sigmoid", r"one number a row, between 9\.103e-07 and 1 over 300 rows, which probabilities do and log"),
        ("softmax of 3", r"3 numbers a row, between .*, whose sums are between 1 and 1 over 300 rows, which prob"),
        (
            "log sigmoid",
            r"between -\d.* and -\d.* over 300 rows, which logarithms of probabilities do.*return the prob",
        ),
        (
            "2 labels at once",
            r"sums are between 0\.0001\d+ and 2 over 300 rows, which is one probability for each of sev",
        ),
        ("labels 1 and 2", r"between 1 and 2 over 300 rows, all of them whole numbers, as labels are.*--predict"),
    ],
)
def test_the_question_says_what_was_seen_and_how_to_answer(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(OutputsError, match=said) as asked:
        in_memory(name, tmp_path, None).predict_proba(rows())
    assert "nobody said which they are" in str(asked.value) and "outputs= in Python" in str(asked.value)


class Step(nn.Module):
    """(n, 1) numbers in [0, 1] for all rows but those whose ``a`` is large, which get 5."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x[:, :1] > 2, 5.0, torch.sigmoid(x[:, :1]))


def test_all_rows_are_looked_at_and_not_a_first_batch() -> None:
    frame = rows().clip(upper=1.9)
    model = TorchModel(Step(), classes=["no", "yes"], batch_rows=64)
    with pytest.raises(OutputsError, match="300 rows"):
        model.predict_proba(frame)
    frame.iloc[-1, 0] = 3.0
    read = TorchModel(Step(), classes=["no", "yes"], batch_rows=64).predict_proba(frame)
    z = Step()(torch.tensor(frame.to_numpy())).double().numpy()
    np.testing.assert_allclose(read[:, 1:], 1 / (1 + np.exp(-z)), atol=1e-7)


def test_what_was_settled_by_the_rows_is_not_asked_of_a_few() -> None:
    """A network whose logits reach beyond [0, 1] on some row stays one of logits for rows on which they do not."""
    frame = rows()
    frame.iloc[0, 0] = 3.0
    model = TorchModel(Step(), classes=["no", "yes"])
    model.predict_proba(frame)
    few = frame.iloc[1:4].clip(upper=1.9)
    z = 1 / (1 + np.exp(-few["a"].to_numpy(np.float64)))
    np.testing.assert_allclose(model.predict_proba(few)[:, 1], 1 / (1 + np.exp(-z)), atol=1e-7)


def test_rows_with_nan_are_an_error_of_their_own_and_settle_nothing() -> None:
    frame = rows().clip(upper=1.9)
    frame.iloc[3, 0] = np.nan
    model = TorchModel(Zoo("sigmoid"), classes=["no", "yes"])
    with pytest.raises(ModelError, match="NaN or infinity for 1 of 300 rows"):
        model.predict_proba(frame)
    with pytest.raises(OutputsError):
        model.predict_proba(rows())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_networks_of_our_own_say_what_they_return(name: str) -> None:
    assert stated_by(object.__new__(ARCHITECTURES[name])) == (  # type: ignore[call-overload]
        "probabilities" if name == "mlp_vote" else "logits"
    )


ARGS: dict[str, Any] = {"n_features": 3, "hidden": [], "n_outputs": 1}


def small_logits() -> nn.Module:
    """A network of our own all of whose logits lie in [0, 1]."""
    module = ARCHITECTURES["mlp"](**ARGS)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(0.0)
        list(module.parameters())[-1].fill_(0.4)
    return module


@pytest.mark.parametrize("how", ["in memory", "bundle", "bundle that is silent", "weights"])
def test_a_network_of_our_own_is_never_asked_about(how: str, tmp_path: Path) -> None:
    model: AuditedModel = TorchModel(small_logits(), classes=["no", "yes"], architecture={"name": "mlp", "args": ARGS})
    if how.startswith("bundle"):
        save(model, tmp_path / "m.pt")
        if how == "bundle that is silent":
            silent = torch.load(tmp_path / "m.pt", weights_only=True)
            del silent["outputs"]
            torch.save(silent, tmp_path / "m.pt")
        model = load_model(ModelSpec(path=str(tmp_path / "m.pt")))
    elif how == "weights":
        torch.save(small_logits().state_dict(), tmp_path / "m.pt")
        model = load_model(
            ModelSpec(path=str(tmp_path / "m.pt"), classes=("no", "yes"), architecture="mlp", architecture_args=ARGS)
        )
    np.testing.assert_allclose(model.predict_proba(rows())[:, 1], 1 / (1 + np.exp(-0.4)), atol=1e-7)


def test_a_vote_of_networks_returns_probabilities_whether_or_not_its_bundle_says_so(tmp_path: Path) -> None:
    args = {"n_members": 1, "n_features": 3, "hidden": [], "positive": 1}
    vote = ARCHITECTURES["mlp_vote"](**args)
    vote.weights.copy_(torch.tensor([0.7, 0.1]))
    made = TorchModel(vote, classes=["no", "yes"], architecture={"name": "mlp_vote", "args": args})
    save(made, tmp_path / "m.pt")
    silent = torch.load(tmp_path / "m.pt", weights_only=True)
    assert silent.pop("outputs") == "probabilities"
    torch.save(silent, tmp_path / "m.pt")
    for model in (made, load_model(ModelSpec(path=str(tmp_path / "m.pt")))):
        assert {round(float(p), 6) for p in model.predict_proba(rows())[:, 1]} == {0.1, 0.8}


@pytest.mark.parametrize(
    ("said", "change", "asked"),
    [
        ("probabilities", {}, False),
        ("logits", {}, False),
        (None, {}, True),
        # As bundles were written before, where silence was "logits".
        (None, {"outputs": "logits"}, True),
        ("logits", {"outputs_stated": False}, True),
        ("probabilities", {"outputs_stated": False}, False),
    ],
)
def test_a_bundle_of_ones_own_network_says_what_was_said(
    said: Any, change: dict[str, object], asked: bool, tmp_path: Path
) -> None:
    made = TorchModel(
        Zoo("sigmoid"), classes=["no", "yes"], outputs=said, architecture={"name": "Zoo", "args": {"name": "sigmoid"}}
    )
    save(made, tmp_path / "m.pt")
    torch.save(torch.load(tmp_path / "m.pt", weights_only=True) | change, tmp_path / "m.pt")
    model = load_model(ModelSpec(path=str(tmp_path / "m.pt"), **ARCHITECTURE))
    if asked:
        with pytest.raises(OutputsError):
            model.predict_proba(rows())
        # What was asked about is not stated when it is saved again.
        save(model, tmp_path / "again.pt")
        assert "outputs" not in torch.load(tmp_path / "again.pt", weights_only=True)
    else:
        np.testing.assert_array_equal(model.predict_proba(rows()), made.predict_proba(rows()))
        save(model, tmp_path / "again.pt")
        np.testing.assert_array_equal(
            load_model(ModelSpec(path=str(tmp_path / "again.pt"), **ARCHITECTURE)).predict_proba(rows()),
            made.predict_proba(rows()),
        )


@pytest.mark.parametrize("name", ["sigmoid", "logit", "softmax of 2", "logits of 2"])
@pytest.mark.parametrize("threshold", [0.25, 0.5, 0.9])
def test_the_threshold_is_one_on_the_probability_of_the_class_that_is_named(name: str, threshold: float) -> None:
    frame, data = rows(), None
    p = truth(name, frame)
    assert p is not None
    model = TorchModel(
        Zoo(name),
        classes=["no", "yes"],
        threshold=threshold,
        outputs=ZOO[name].means,  # type: ignore[arg-type]
    )
    for positive in (0, 1):
        decided = model.decide(model.predict_proba(frame), positive)
        chosen = p[:, positive] >= threshold
        assert chosen.any() and not chosen.all() and data is None
        np.testing.assert_array_equal(decided == positive, chosen)


def test_a_probability_that_meets_the_threshold_exactly_is_favourable() -> None:
    """The logarithm of 0.3 and back is less than 0.3: it would not meet what it equals."""

    class Graded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([0.1, 0.2, 0.3, 0.6, 0.7, 0.8, 0.9], dtype=torch.float64)[: len(x)]

    grades = np.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.8, 0.9])
    model = TorchModel(Graded(), classes=["no", "yes"], outputs="probabilities")
    read = model.predict_proba(rows(7))
    for grade in grades:
        model.threshold = float(grade)
        np.testing.assert_array_equal(model.decide(read, 1) == 1, grades >= grade)


# ---- functions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, kind in ZOO.items() if kind.means == "logits"])
def test_a_function_of_logits_is_one_where_it_is_said(name: str) -> None:
    def predict(frame: Any) -> Any:
        with torch.inference_mode():
            return Zoo(name)(torch.tensor(frame.to_numpy())).float().numpy()

    model = AuditedModel.from_callable(predict, classes=class_names(name), outputs="logits")
    np.testing.assert_allclose(model.predict_proba(rows()), truth(name, rows()), atol=1e-6)


@pytest.mark.parametrize("returned", ["'a'", "True"])
def test_a_function_of_labels_is_none_of_logits(returned: str) -> None:
    model = AuditedModel.from_callable(
        lambda frame: np.asarray([eval(returned)] * len(frame)), classes=["a", "b"], outputs="logits"
    )
    with pytest.raises(ModelError, match="which are no logits: leave --outputs out"):
        model.predict_proba(rows(4))


def test_the_flag_is_for_functions_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was read, and had no effect: logits within [0, 1] were taken for probabilities."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    (tmp_path / "outputs_function.py").write_text("def score(rows):\n    return (rows['a'] > 0) * 0.5\n")
    how = {"predict": "outputs_function:score", "classes": ("no", "yes"), "code_folder": str(tmp_path)}
    favoured = rows()["a"].to_numpy() > 0
    for outputs, low, high in (
        (None, 0.0, 0.5), ("probabilities", 0.0, 0.5), ("logits", 0.5, 1 / (1 + np.exp(-0.5))),
    ):  # fmt: skip
        read = load_model(ModelSpec(**how, outputs=outputs)).predict_proba(rows())[:, 1]  # type: ignore[arg-type]
        np.testing.assert_allclose(read, np.where(favoured, high, low), atol=1e-12)
    del sys.modules["outputs_function"]


def test_numbers_are_not_asked_about(tmp_path: Path) -> None:
    torch.save(Zoo("sigmoid").state_dict(), tmp_path / "m.pt")
    model = load_model(
        ModelSpec(path=str(tmp_path / "m.pt"), task="regression", architecture_args={"name": "sigmoid"}, **ARCHITECTURE)
    )
    assert isinstance(model, TorchRegressor)
    expected = truth("sigmoid", rows())
    assert expected is not None
    np.testing.assert_allclose(model.predict(rows()), expected[:, 1], atol=1e-7)


# ---- streamed tables -----------------------------------------------------------------------------------------------


def streamed(tmp_path: Path, n: int) -> tuple[TorchModel, DataSpec, pd.DataFrame]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=n).clip(-2, 1.9), "y": rng.choice(["no", "yes"], n)})
    frame["sex"] = np.where(rng.random(n) < 0.5, "f", "m")
    frame.to_parquet(tmp_path / "rows.parquet")
    preprocessing = TabularPreprocessing(columns=(NumericColumn(name="a", mean=0.0, scale=1.0),))
    model = TorchModel(Step(), classes=["no", "yes"], preprocessing=preprocessing)
    asked = DataSpec(path=str(tmp_path / "rows.parquet"), target="y", positive="yes", sensitive=("sex",))
    assert can_stream(asked, model)
    return model, asked, frame


def test_a_streamed_table_is_looked_at_whole(tmp_path: Path) -> None:
    n = 70_000  # more than a batch of the file
    model, asked, frame = streamed(tmp_path, n)
    with pytest.raises(OutputsError, match="between 0.1192 and 0.8699 over 70,000 rows"):
        Stream(asked, model).count_by_group()
    frame.iloc[-1, 0] = 3.0
    frame.to_parquet(tmp_path / "rows.parquet")
    counts, _ = Stream(
        asked, TorchModel(Step(), classes=["no", "yes"], preprocessing=model.preprocessing)
    ).count_by_group()
    assert counts.n == n and counts.selected().sum() == n


# ---- audits --------------------------------------------------------------------------------------------------------


class Head(nn.Module):
    """(n, 3) to P(last class) (n, 1): the group's part of the answer is its first column."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(2 * x[:, :1] + x[:, 1:2])


def unequal(n: int = 2000) -> AuditData:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(n, 3)).astype(np.float32)
    X[:, 0] = rng.integers(0, 2, n)
    return AuditData.from_arrays(
        pd.DataFrame(X, columns=list("abc")),
        rng.integers(0, 2, n),
        classes=["0", "1"],
        sensitive_features={"g": ["x" if a else "y" for a in X[:, 0]]},
    )


def gap(results: Any) -> float:
    return next(
        float(m.estimate.value) for r in results for m in r.measurements if m.metric == "demographic_parity_difference"
    )


def test_an_audit_in_python_is_refused_before_any_probe_is_asked() -> None:
    asked = []

    class Watching(GroupFairness):
        def measure(self, *how: Any) -> Any:
            asked.append(self.name)
            return super().measure(*how)

    data = unequal()
    with pytest.raises(OutputsError, match=r"over 2,000 rows.*outputs= in Python"):
        run_audit(TorchModel(Head(), classes=["0", "1"]), data, [Watching()])
    assert not asked
    report = run_audit(TorchModel(Head(), classes=["0", "1"], outputs="probabilities"), data, [Watching()])
    found = next(f for f in report.findings if f.metric == "demographic_parity_difference")
    assert isinstance(data.X, pd.DataFrame) and data.sensitive_features is not None
    chosen = 2 * data.X["a"] + data.X["b"] >= 0
    rates = chosen.groupby(data.sensitive_features["g"].to_numpy()).mean()
    assert found.outcome == "FAIL" and found.value == pytest.approx(rates.max() - rates.min(), abs=1e-12)


def test_a_probe_of_its_own_rows_is_refused_too() -> None:
    """Without data nothing is known beforehand; what a probe asks about shows it, and is no finding."""

    class Own(GroupFairness):
        needs = ()

        def measure(self, model: Any, data: Any, rng: Any) -> Any:
            model.predict_proba(rows())
            return []

    with pytest.raises(OutputsError):
        run_audit(TorchModel(Head(), classes=["0", "1"]), None, [Own()])


def test_a_mitigation_is_refused_with_the_question() -> None:
    preprocessing = TabularPreprocessing(columns=tuple(NumericColumn(name=c, mean=0.0, scale=1.0) for c in "abc"))
    data = unequal()
    data = replace(data, positive=1)
    how = {"classes": ["0", "1"], "preprocessing": preprocessing}
    with pytest.raises(OutputsError):
        ThresholdOptimizer().mitigate(TorchModel(Head(), **how), data, np.random.default_rng(0), Training())
    said = TorchModel(Head(), outputs="probabilities", **how)
    assert ThresholdOptimizer().mitigate(said, data, np.random.default_rng(0), Training()).model.classes == ("0", "1")
    # Around a model below, the question is that model's.
    rules = ThresholdOptimizer().mitigate(said, data, np.random.default_rng(0), Training()).model.postprocessing
    around = PostprocessedModel(TorchModel(Head(), **how), rules)
    assert around.in_question and isinstance(data.X, pd.DataFrame) and data.sensitive_features is not None
    with pytest.raises(OutputsError, match="2,000 rows"):
        around.predict_proba(data.X.assign(g=data.sensitive_features["g"].to_numpy()))


@pytest.mark.parametrize("outputs", [None, "probabilities"])
def test_an_audit_while_training_says_it_or_reads_it_right(outputs: Any) -> None:
    module = nn.Sequential(nn.Linear(3, 1), nn.Sigmoid())
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[2.0, 1.0, 0.0]]))
        module[0].bias.zero_()
    data = unequal()
    audit = TrainingAudit(probes=[GroupFairness()], data=data, n_peeks=1, max_overhead=None, outputs=outputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        audit.step(module)
    (look,) = audit.peeks
    if outputs is None:
        assert "nobody said which they are" in look.results[0].not_run and "nobody said" in audit.faults[0]
    else:
        assert not look.results[0].not_run
        expected = run_audit(TorchModel(Head(), classes=["0", "1"], outputs="probabilities"), data, [GroupFairness()])
        found = next(f for f in expected.findings if f.metric == "demographic_parity_difference")
        assert gap(look.results) == pytest.approx(found.value, abs=1e-12)
