"""Regression models end to end: what predicts, how it is loaded, its data, and the command line."""

from __future__ import annotations

import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import RegressorMixin
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.ensemble import (
    AdaBoostRegressor,
    BaggingRegressor,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
    StackingRegressor,
    VotingRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    ElasticNet,
    GammaRegressor,
    HuberRegressor,
    LinearRegression,
    PoissonRegressor,
    QuantileRegressor,
    Ridge,
    RidgeCV,
    SGDRegressor,
)
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVR
from sklearn.tree import DecisionTreeRegressor
from torch import nn
from typer.testing import CliRunner, Result

from auditor.core.errors import DataError, ModelError, UsageError
from auditor.data.audit_data import AuditData, numeric_target
from auditor.data.preprocessing import fit_tabular
from auditor.loading.formats import load_model
from auditor.loading.job_specs import DataSpec, ModelSpec
from auditor.loading.rows.load_rows import load_data
from auditor.models.audited_model import AuditedModel
from auditor.models.networks.architectures import MLP
from auditor.models.regression_model import AuditedRegressor, TorchRegressor
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.report.record.audit_report import AuditReport
from auditor.run.run_audit import run_audit
from cli.commands import app
from probes.fairness.regression_fairness import RegressionFairness
from tests.quantifiers import all_of

RNG = np.random.default_rng(0)
TABLE = pd.DataFrame({"a": RNG.random(120), "b": RNG.random(120) * 9, "c": RNG.choice(list("xyz"), 120)})
PRICE = 3.0 + TABLE["a"].to_numpy() + 2.0 * TABLE["b"].to_numpy() + RNG.normal(0, 0.1, 120)
NUMBERS = TABLE[["a", "b"]].to_numpy()


def dumped(estimator: object, path: Path) -> str:
    import skops.io

    skops.io.dump(estimator, path)
    return str(path)


def regressor(spec: ModelSpec) -> AuditedRegressor:
    model = load_model(spec)
    assert isinstance(model, AuditedRegressor) and model.kind == "regressor"
    return model


# ---- what predicts --------------------------------------------------------------------------------------------------


def test_a_function_is_asked_in_batches_and_each_data_set_once() -> None:
    sizes: list[int] = []

    def predict(X: np.ndarray) -> np.ndarray:
        sizes.append(len(X))
        return X[:, :1] * 2

    model = AuditedRegressor(predict, batch_rows=50)
    data = AuditData.for_regression(NUMBERS)
    predicted = model.predictions(data)
    assert predicted == pytest.approx(NUMBERS[:, 0] * 2)
    assert model.predictions(data) is predicted
    assert sizes == [50, 50, 20, 16]
    assert model.predict(NUMBERS[:0]).shape == (0,)
    assert AuditedRegressor.from_callable(lambda X: X[:, 1]).predict(NUMBERS) == pytest.approx(NUMBERS[:, 1])
    assert (model.classes, model.n_outputs) == ((), 1)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda X: np.full(len(X), math.nan), "NaN, infinity or a number beyond 1e\\+30 for 120 of 120 rows"),
        (lambda X: np.r_[np.zeros(len(X) - 1), math.inf], "for 1 of 120 rows"),
        (lambda X: np.full(len(X), 1e300), "beyond"),
        (lambda X: np.zeros((len(X), 2)), r"shape \(120, 2\) for 120 rows; a regression of one target"),
        (lambda X: np.zeros(3), r"shape \(3,\)"),
        (lambda X: ["dear"] * len(X), "'dear', which is no number"),
        (lambda X: [True] * len(X), "no number"),
    ],
)
def test_what_is_no_number_a_row_is_refused(answer: Any, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        AuditedRegressor(answer).predict(NUMBERS)


def test_a_model_that_answers_at_random_or_by_its_batch_is_refused() -> None:
    rng = np.random.default_rng(0)
    data = AuditData.for_regression(NUMBERS)
    for unsteady in (lambda X: rng.normal(size=len(X)), lambda X: X[:, 1] - X[:, 1].mean()):
        with pytest.raises(ModelError, match="differently when asked again"):
            AuditedRegressor(unsteady).predictions(data)
    # A constant, and rounding of large numbers in single precision, are steady.
    AuditedRegressor(lambda X: np.full(len(X), 7)).predictions(data)
    AuditedRegressor(lambda X: np.float32(1e6) + X[:, 0].astype(np.float32)).predictions(data)


def test_it_has_no_probabilities_and_no_decisions() -> None:
    model, data = AuditedRegressor(lambda X: X[:, 0]), AuditData.for_regression(NUMBERS)
    for ask in (lambda: model.predict_proba(NUMBERS), lambda: model.outputs(data), lambda: model.decisions(data)):
        with pytest.raises(ModelError, match="regression model"):
            ask()


def test_a_torch_module_predicts_its_one_output_and_is_left_as_it_was() -> None:
    module = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 1)).train()
    model = TorchRegressor(module)
    expected = model.predict(NUMBERS)
    with torch.no_grad():
        by_hand = module.eval()(torch.tensor(NUMBERS, dtype=torch.float32))[:, 0]
    assert expected == pytest.approx(by_hand.numpy(), abs=1e-6)
    module.train()
    model.predict(NUMBERS)
    assert all_of(m.training for m in module.modules())
    assert model.n_parameters == 2 * 8 + 8 + 8 + 1
    with pytest.raises(ModelError, match=r"returned shape \(120, 3\)"):
        TorchRegressor(nn.Linear(2, 3)).predict(NUMBERS)


# ---- how it is loaded -----------------------------------------------------------------------------------------------


def linear(frame: pd.DataFrame) -> TorchRegressor:
    """Predicts 100 plus ten times the standardised first column."""
    preprocessing = fit_tabular(frame)
    module = MLP(preprocessing.width, [], 1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        module.layers[0].weight[0, 0] = 10.0
        module.layers[0].bias[0] = 100.0
    architecture = {"name": "mlp", "args": {"n_features": preprocessing.width, "hidden": [], "n_outputs": 1}}
    return TorchRegressor(module, preprocessing=preprocessing, architecture=architecture)


def test_a_bundle_keeps_it(tmp_path: Path) -> None:
    model = linear(TABLE)
    save(model, tmp_path / "m.pt")
    loaded = regressor(ModelSpec(path=str(tmp_path / "m.pt")))
    assert isinstance(loaded, TorchRegressor)
    assert np.array_equal(loaded.predict(TABLE), model.predict(TABLE))
    assert loaded.features == ("a", "b", "c") and loaded.provenance.format == "auditor-model/1"
    a = TABLE["a"].to_numpy()
    assert loaded.predict(TABLE) == pytest.approx(100 + 10 * (a - a.mean()) / a.std(), rel=1e-5)
    content = torch.load(tmp_path / "m.pt", weights_only=True)
    assert content["task"] == "regression" and content["classes"] == [] and "threshold" not in content
    # A classifier's bundle is what it was before there were regressions.
    save(TorchModel(nn.Linear(2, 2), classes="ab"), tmp_path / "c.pt")
    assert "task" not in torch.load(tmp_path / "c.pt", weights_only=True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"classes": ["a", "b"]}, "a regression has no classes"),
        ({"task": "classification"}, "at least two classes"),
        ({"task": "ranking"}, "task"),
    ],
)
def test_a_bundle_that_contradicts_itself_is_refused(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    save(linear(TABLE), tmp_path / "m.pt")
    content = torch.load(tmp_path / "m.pt", weights_only=True)
    torch.save(content | change, tmp_path / "m.pt")
    with pytest.raises(ModelError, match=says):
        load_model(ModelSpec(path=str(tmp_path / "m.pt")))


PLAIN = [
    LinearRegression(),
    Ridge(),
    RidgeCV(),
    ElasticNet(0.01),
    HuberRegressor(),
    QuantileRegressor(alpha=0.01),
    PoissonRegressor(),
    GammaRegressor(),
    SVR(),
    DecisionTreeRegressor(),
    RandomForestRegressor(5, random_state=0),
    ExtraTreesRegressor(5, random_state=0),
    GradientBoostingRegressor(n_estimators=5, random_state=0),
    HistGradientBoostingRegressor(max_iter=5),
    AdaBoostRegressor(n_estimators=3, random_state=0),
    BaggingRegressor(n_estimators=3, random_state=0),
    make_pipeline(SimpleImputer(), StandardScaler(), SGDRegressor(random_state=0)),
    make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=[4], max_iter=5_000, tol=1e-2, random_state=0)),
    GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}),
    TransformedTargetRegressor(LinearRegression(), func=np.log1p, inverse_func=np.expm1),
    VotingRegressor([("a", LinearRegression()), ("b", DecisionTreeRegressor(max_depth=2))]),
    StackingRegressor([("a", LinearRegression())], final_estimator=Ridge()),
]


@pytest.mark.parametrize("estimator", PLAIN, ids=lambda e: type(e[-1] if hasattr(e, "steps") else e).__name__)
def test_skops_regressors_predict_as_before(estimator: RegressorMixin, tmp_path: Path) -> None:
    estimator.fit(NUMBERS, PRICE)
    model = regressor(ModelSpec(path=dumped(estimator, tmp_path / "m.skops"), features=("a", "b")))
    assert model.predict(TABLE) == pytest.approx(estimator.predict(NUMBERS), rel=1e-9)
    assert model.provenance.format == "skops"


def test_a_skops_pipeline_of_a_table_knows_its_columns(tmp_path: Path) -> None:
    columns = make_column_transformer((OneHotEncoder(), ["c"]), (StandardScaler(), ["a", "b"]))
    pipeline = make_pipeline(columns, Ridge()).fit(TABLE, PRICE)
    model = regressor(ModelSpec(path=dumped(pipeline, tmp_path / "m.skops")))
    assert model.features == ("a", "b", "c")
    assert model.predict(TABLE.assign(more=0.0)) == pytest.approx(pipeline.predict(TABLE))
    with pytest.raises(DataError, match="needs the feature 'b'"):
        model.predict(TABLE[["a", "c"]])
    with pytest.raises(UsageError, match="names its own features"):
        load_model(ModelSpec(path=str(tmp_path / "m.skops"), features=("a",)))


def test_what_is_no_regressor_of_one_target(tmp_path: Path) -> None:
    two = LinearRegression().fit(NUMBERS, np.c_[PRICE, PRICE])
    with pytest.raises(ModelError, match="one target"):
        regressor(ModelSpec(path=dumped(two, tmp_path / "m.skops"))).predict(NUMBERS)
    with pytest.raises(ModelError, match="no fitted classifier or regressor"):
        load_model(ModelSpec(path=dumped(Ridge(), tmp_path / "m.skops")))


@pytest.mark.parametrize("kind", [GradientBoostingRegressor, GradientBoostingClassifier])
def test_boosted_trees_of_more_outputs_than_the_first_guess_are_refused(kind: Any, tmp_path: Path) -> None:
    """Compiled code adds a stage's trees to columns that it takes for granted: more of them write past the array."""
    model = kind(n_estimators=6).fit(NUMBERS, PRICE > PRICE.mean())
    load_model(ModelSpec(path=dumped(model, tmp_path / "honest.skops")))
    model.estimators_ = model.estimators_.reshape(2, 3)
    with pytest.raises(ModelError, match="doctored ensemble"):
        load_model(ModelSpec(path=dumped(model, tmp_path / "m.skops")))


def test_task_says_what_a_file_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "pricing_for_test.py").write_text("def price(rows):\n    return rows['a'] * 2\n")
    predict = ModelSpec(predict="pricing_for_test:price", task="regression", code_folder=str(tmp_path))
    assert regressor(predict).predict(TABLE) == pytest.approx(TABLE["a"] * 2)
    module = MLP(2, [4], 1)
    torch.save(module.state_dict(), tmp_path / "w.pt")
    weights = ModelSpec(
        path=str(tmp_path / "w.pt"),
        architecture="mlp",
        architecture_args={"n_features": 2, "hidden": [4], "n_outputs": 1},
        task="regression",
    )
    assert regressor(weights).predict(NUMBERS).shape == (120,)
    with pytest.warns(DeprecationWarning, match="jit"):
        torch.jit.trace(module, torch.zeros(3, 2)).save(tmp_path / "s.pt")
    assert regressor(ModelSpec(path=str(tmp_path / "s.pt"), task="regression", allow_code=True)).kind == "regressor"


def test_task_contradicting_the_model_or_other_flags_is_wrong_usage(tmp_path: Path) -> None:
    save(linear(TABLE), tmp_path / "r.pt")
    save(TorchModel(MLP(2, [], 2), classes="ab", architecture=_mlp()), tmp_path / "c.pt")
    price = dumped(Ridge().fit(NUMBERS, PRICE), tmp_path / "m.skops")
    for spec, says in (
        (ModelSpec(path=str(tmp_path / "c.pt"), task="regression"), "contradicts the model, which is a classifier"),
        (ModelSpec(path=str(tmp_path / "r.pt"), task="classification"), "contradicts the model, which is a regression"),
        (ModelSpec(path=str(tmp_path / "r.pt"), classes=("a", "b")), "leave --classes out"),
        (ModelSpec(path=price, threshold=0.4), "leave --threshold out"),
        (ModelSpec(path=price, outputs="logits"), "leave --outputs out"),
    ):
        with pytest.raises(UsageError, match=says):
            load_model(spec)


def _mlp() -> dict[str, Any]:
    return {"name": "mlp", "args": {"n_features": 2, "hidden": [], "n_outputs": 2}}


# ---- its data -------------------------------------------------------------------------------------------------------


def test_a_target_is_read_as_numbers(tmp_path: Path) -> None:
    model = linear(TABLE)
    frame = TABLE.assign(price=PRICE, sex=["f", "m"] * 60)
    frame.loc[[3, 7], "price"] = None
    for name in ("d.csv", "d.parquet"):
        path = tmp_path / name
        frame.to_csv(path, index=False) if name.endswith("csv") else frame.to_parquet(path)
        data = load_data(DataSpec(path=str(path), target="price", sensitive=("sex",)), model)
        assert data.target_values is not None and data.y_true is None and data.classes == ()
        assert np.array_equal(data.target_values, frame["price"], equal_nan=True), "read exactly"
        assert any("no number in 2 rows" in note for note in data.notes)
    assert load_data(DataSpec(path=str(path)), model).target_values is None


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (["1", "cheap", "3"], "'cheap', which is no number"),
        (["1,200", "3", "4"], "'1,200'"),
        (["true", "false", "true"], "no number"),
        (["2020-01-01", "2020-01-02", "2020-01-03"], "no number"),
        (["", "", ""], "empty: every true value is missing"),
        (["inf", "1", "2"], "infinity"),
        (["1e200", "1", "2"], "beyond"),
    ],
)
def test_a_target_that_is_no_number_is_refused(values: list[str], says: str, tmp_path: Path) -> None:
    lines = ["a,b,c,price", *(f"1,2,x,{json.dumps(v) if ',' in v else v}" for v in values)]
    (tmp_path / "d.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=says):
        load_data(DataSpec(path=str(tmp_path / "d.csv"), target="price"), linear(TABLE))


def test_words_for_missing_and_constant_targets(tmp_path: Path) -> None:
    assert np.isnan(numeric_target(pd.Series(["1", " n/a", None, "NaN"]), "y")).tolist() == [False, True, True, True]
    (tmp_path / "d.csv").write_text("a,b,c,price\n1,2,x,5\n1,2,y,5\n")
    data = load_data(DataSpec(path=str(tmp_path / "d.csv"), target="price"), linear(TABLE))
    assert any("one number only (5)" in note for note in data.notes)
    with pytest.raises(UsageError, match="leave --positive out"):
        load_data(DataSpec(path=str(tmp_path / "d.csv"), target="price", positive="5"), linear(TABLE))


def test_training_rows_come_with_their_numbers(tmp_path: Path) -> None:
    frame = TABLE.assign(price=PRICE)
    frame[:80].to_csv(tmp_path / "d.csv", index=False)
    frame[60:].to_csv(tmp_path / "t.csv", index=False)
    spec = DataSpec(path=str(tmp_path / "d.csv"), train=str(tmp_path / "t.csv"), target="price")
    data = load_data(spec, linear(TABLE))
    assert data.target_values is not None and data.members is not None and data.members.target_values is not None
    assert len(data.members) == 60 and len(data.evaluation) == 80
    assert data.members.target_values == pytest.approx(PRICE[60:])
    assert any("20 of 80 evaluation rows stand in the training file" in note for note in data.notes)
    again = AuditData.for_regression(TABLE, PRICE)
    other = AuditData.for_regression(TABLE, PRICE + 1)
    assert np.array_equal(again.keys, AuditData.for_regression(TABLE, PRICE).keys)
    assert not (again.keys == other.keys).any()


def test_model_and_data_of_different_tasks_are_told_apart() -> None:
    labels = AuditData.from_arrays(NUMBERS, ["x", "y"] * 60, classes="xy")
    with pytest.raises(DataError, match="for_regression"):
        run_audit(AuditedRegressor(lambda X: X[:, 0]), labels, [])
    classifier = AuditedModel.from_callable(lambda X: np.full(len(X), 0.5), classes="xy")
    with pytest.raises(DataError, match="from_arrays"):
        run_audit(classifier, AuditData.for_regression(NUMBERS, PRICE), [])
    with pytest.raises(DataError, match="target_values has 3 rows"):
        AuditData(X=NUMBERS, target_values=np.zeros(3))


# ---- the command line -----------------------------------------------------------------------------------------------


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A forest that knows nothing of sex, and data in which women's true prices are 40 above what it says."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"size": rng.uniform(20, 200, 4_000), "age": rng.uniform(0, 80, 4_000)})
    sex = rng.choice(["f", "m"], 4_000)
    price = (2.0 * X["size"] - X["age"] + 100.0 + rng.normal(0, 5, 4_000)).clip(0, 600)
    forest = RandomForestRegressor(10, min_samples_leaf=20, random_state=0).fit(X[:2_000], price[:2_000])
    dumped(forest, tmp_path / "model.skops")
    table = X.assign(price=price + 40.0 * (sex == "f"), sex=sex)[2_000:]
    table.to_csv(tmp_path / "data.csv", index=False)
    (tmp_path / "policy.toml").write_text(
        "[[criteria]]\nmetric = 'mean_prediction_difference'\ndirection = 'at_most'\nbound = 60\n"
        "[[criteria]]\nmetric = 'mean_residual_difference'\ndirection = 'at_most'\nbound = 15\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


SCAN = ("scan", "model.skops", "--data", "data.csv", "--target", "price", "--sensitive", "sex")


def test_scan_of_a_regression_judges_what_the_policy_asks(here: Path) -> None:
    ranged = "regression_fairness.value_range=[0, 700]"
    result = run(*SCAN, "--policy", "policy.toml", "--set", ranged, "--format", "html,json,markdown", "--verbose")
    assert result.exit_code == 1, result.output
    assert re.search(r"FAIL +mean_residual_difference, by sex = (39|40|41)", result.output)
    report = AuditReport.from_json((here / "audit-report/report.json").read_bytes())
    judged = {f.metric: f.outcome for f in report.findings if f.criterion is not None}
    assert judged == {"mean_prediction_difference": "PASS", "mean_residual_difference": "FAIL"}
    assert report.data.target == "price" and report.model.classes == ()
    assert "Mean residual by sex" in (here / "audit-report/report.html").read_text()
    reasons = {f.reason for f in report.findings if f.outcome == "NOT_APPLICABLE"}
    assert "Needs a classifier: this model is a regression model." in reasons


@pytest.mark.slow
def test_scan_of_a_regression_without_a_range_is_no_pass(here: Path) -> None:
    held = run(*SCAN, "--probes", "regression_fairness", "--policy", "policy.toml", "--verbose")
    assert held.exit_code == 3 and "value_range=[low,high]" in held.output
    report = AuditReport.from_json((here / "audit-report/report.json").read_bytes())
    judged = {f.metric: f.outcome for f in report.findings if f.criterion is not None}
    assert judged == {"mean_prediction_difference": "NOT_RUN", "mean_residual_difference": "NOT_RUN"}


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((*SCAN, "--positive", "1"), 2, "leave --positive out"),
        ((*SCAN, "--task", "ranking"), 2, "--task 'ranking'"),
        ((*SCAN, "--set", "regression_fairness.value_range=[9,1]"), 2, "value_range is [low, high]"),
        (("scan", "model.skops", "--data", "data.csv", "--target", "sex"), 4, "which is no number"),
    ],
)
def test_wrong_usage_of_a_regression_is_one_sentence(
    here: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert says in result.output


@pytest.mark.slow
def test_a_range_that_the_data_leave_is_not_run(here: Path) -> None:
    result = run(
        *SCAN, "--set", "regression_fairness.value_range=[0, 100]", "--probes", "regression_fairness", "--verbose"
    )
    assert result.exit_code == 3 and "lies outside value_range [0, 100]" in result.output


@pytest.mark.slow
def test_scan_of_a_function_of_numbers(here: Path) -> None:
    (here / "pricing.py").write_text("def price(rows):\n    return 2 * rows['size'] + 100\n")
    result = run("scan", "--predict", "pricing:price", "--task", "regression", *SCAN[2:], "--probes", "adverse_impact")
    assert result.exit_code == 3, result.output
    report = AuditReport.from_json((here / "audit-report/report.json").read_bytes())
    assert {f.metric for f in report.findings if f.probe == "adverse_impact"} >= {"scoring_rate", "impact_ratio_min"}


@pytest.mark.slow
def test_a_bundle_is_scanned_too_and_its_numbers_shown(here: Path) -> None:
    table = pd.read_csv("data.csv")
    save(linear(table[["size", "age"]]), here / "m.pt")
    result = run("scan", "m.pt", *SCAN[2:], "--probes", "regression_fairness", "--verbose")
    # It is worse than the mean of all rows, which is asked wherever there are true numbers.
    assert result.exit_code == 1 and "FAIL           error_gain" in result.output, result.output
    report = AuditReport.from_json((here / "audit-report/report.json").read_bytes())
    assert {f.metric for f in report.findings} >= {"mean_residual_difference", "nonfinite_parameters"}


def test_same_seed_same_measurements() -> None:
    data = AuditData.for_regression(NUMBERS, PRICE, sensitive_features={"g": ["a", "b"] * 60})
    model = AuditedRegressor(lambda X: X[:, 0])
    one, two = (run_audit(model, data, [RegressionFairness(value_range=(-5, 50))], []) for _ in range(2))
    assert one.findings == two.findings


def test_init_of_a_table_with_a_number_to_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    TABLE.assign(sex=["f", "m"] * 60, price=PRICE).to_csv("d.csv", index=False)
    assert run("start", "d.csv").exit_code == 0
    text = Path("audit.toml").read_text()
    settings = tomllib.loads(text)["audit"]
    assert settings["target"] == "price" and settings["sensitive"] == ["sex"] and "positive" not in settings
    # Uncommented it is the section that scan reads.
    assert "# [probes.regression_fairness]\n# value_range = [0, 100000]" in text
    assert '# metric = "mean_residual_difference"' in text
    # A column of amounts that does not stand last is a feature of a model that decides between two labels.
    TABLE.assign(price=PRICE, granted=["yes", "no"] * 60).to_csv("d.csv", index=False)
    assert run("start", "d.csv", "--force").exit_code == 0
    assert tomllib.loads(Path("audit.toml").read_text())["audit"]["target"] == "granted"
