"""Boosted trees out of the files their own libraries write: the library's own answers, its features and categories."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import auditor
from auditor.core.errors import DataError, MissingExtraError, ModelError, UsageError
from auditor.data.audit_data import AuditData
from auditor.loading.formats import open_file
from auditor.models.files.model_bytes import Source
from cli.commands import app
from probes.attribution.shapley import final_estimator, is_tree, shap_tree
from tests.quantifiers import all_of

N = 600
LIBRARIES = ("xgboost", "lightgbm", "catboost")
SUFFIX = {"xgboost": "ubj", "lightgbm": "txt", "catboost": "cbm"}


def table(n: int = N, *, named: bool = True) -> tuple[pd.DataFrame, Any]:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.normal(size=n), "b": rng.normal(size=n)})
    if named:
        X["colour"] = rng.choice(["red", "green", "blue"], n)
    X.loc[::50, "b"] = np.nan
    y = X["a"] + (X["colour"] == "red" if named else 0.0) + 0.5 * rng.normal(size=n) > 0.3
    return X, y.to_numpy(int)


def fitted(library: str, task: str, X: pd.DataFrame, y: Any) -> tuple[Any, Callable[[Path], None], Any]:
    """A model, how it is saved, and its own answers about X."""
    made = pytest.importorskip(library, reason=f"{library} is not installed")
    Z = X.astype({c: "category" for c in X.columns if not pd.api.types.is_numeric_dtype(X[c])})
    if library == "xgboost":
        kind = made.XGBRegressor if task == "numbers" else made.XGBClassifier
        model = kind(n_estimators=8, max_depth=3, enable_categorical=True, n_jobs=1).fit(Z, y)
        save: Any = model.save_model
    elif library == "lightgbm":
        kind = made.LGBMRegressor if task == "numbers" else made.LGBMClassifier
        model = kind(n_estimators=8, max_depth=3, verbose=-1, n_jobs=1).fit(Z, y)
        save = model.booster_.save_model
    else:
        kind = made.CatBoostRegressor if task == "numbers" else made.CatBoostClassifier
        names = [c for c in X.columns if not pd.api.types.is_numeric_dtype(X[c])]
        model = kind(iterations=8, depth=3, verbose=0, allow_writing_files=False, thread_count=1)
        model.fit(X, y, cat_features=names)
        save, Z = model.save_model, X
    answers = model.predict(Z) if task == "numbers" else model.predict_proba(Z)
    return model, lambda path: save(str(path)), np.asarray(answers, np.float64)


@pytest.fixture
def path(tmp_path: Path) -> Callable[[str], Path]:
    return lambda library: tmp_path / f"model.{SUFFIX[library]}"


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("task", ["two", "three", "numbers"])
def test_a_file_gives_its_librarys_own_answers(library: str, task: str, path: Callable[[str], Path]) -> None:
    X, y = table()
    if task == "three":
        y = np.random.default_rng(1).integers(0, 3, len(X)) * (X["a"] > 0).to_numpy()
    target = X["a"] * 3.0 + np.nan_to_num(X["b"]) if task == "numbers" else y
    _, save, answers = fitted(library, task, X, target)
    save(path(library))
    model = auditor.load_model(path(library))
    assert model.features == ("a", "b", "colour") and model.group_columns == ("colour",)
    # Columns in another order, and one that is none of the model's, as a data file has them.
    rows = X[["colour", "b", "a"]].assign(sex="f")
    found = model.predict(rows) if task == "numbers" else model.predict_proba(rows)  # type: ignore[attr-defined]
    assert np.abs(found - answers).max() < 1e-6
    assert model.kind == ("regressor" if task == "numbers" else "classifier")
    assert len(model.classes) == {"two": 2, "three": 3, "numbers": 0}[task]
    assert model.provenance.loaded_by.startswith(library)


def test_xgboost_in_json_is_the_same_model(tmp_path: Path) -> None:
    X, y = table()
    model, _, answers = fitted("xgboost", "two", X, y)
    model.save_model(tmp_path / "m.json")
    assert np.abs(auditor.load_model(tmp_path / "m.json").predict_proba(X) - answers).max() < 1e-6


@pytest.mark.parametrize("objective", ["binary:logitraw", "binary:hinge", "multi:softmax", "multi:softprob"])
def test_every_objective_of_classes_gives_probabilities(objective: str, tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
    X, y = table(named=False)
    y = y + (X["b"] > 1).to_numpy(int) if objective.startswith("multi") else y
    params = {"objective": objective, "max_depth": 3, "nthread": 1}
    params |= {"num_class": 3} if objective.startswith("multi") else {}
    matrix = xgboost.DMatrix(X, y)
    booster = xgboost.train(params, matrix, num_boost_round=6)
    booster.save_model(tmp_path / "m.json")
    found = auditor.load_model(tmp_path / "m.json").predict_proba(X)
    margins = booster.predict(matrix, output_margin=True)
    if objective == "binary:logitraw":
        expected = 1.0 / (1.0 + np.exp(-margins))
        assert np.abs(found[:, 1] - expected).max() < 1e-6
    elif objective == "binary:hinge":
        assert np.array_equal(found[:, 1], booster.predict(matrix))
    else:
        expected = np.exp(margins) / np.exp(margins).sum(axis=1, keepdims=True)
        assert np.abs(found - expected).max() < 1e-6
        # Its own prediction may be a label; the scores that are explained are not.
        scores = auditor.load_model(tmp_path / "m.json").estimator.decision_function(X)  # type: ignore[attr-defined]
        assert np.abs(scores - margins).max() < 1e-6


@pytest.mark.parametrize("library", ["lightgbm", "catboost"])
def test_one_class_against_all_others_is_decided_as_its_library_does(library: str, path: Callable[[str], Path]) -> None:
    """Its probabilities do not sum to one, and are no logits either."""
    module = pytest.importorskip(library, reason=f"{library} is not installed")
    X, _ = table(named=False)
    y = np.random.default_rng(1).integers(0, 3, len(X)) * (X["a"] > 0).to_numpy()
    if library == "lightgbm":
        model = module.LGBMClassifier(objective="multiclassova", n_estimators=4, verbose=-1, n_jobs=1).fit(X, y)
        model.booster_.save_model(path(library))
    else:
        model = module.CatBoostClassifier(
            loss_function="MultiClassOneVsAll", iterations=4, verbose=0, thread_count=1, allow_writing_files=False
        ).fit(X, y)
        model.save_model(str(path(library)))
    own = model.predict_proba(X)
    assert np.abs(own.sum(axis=1) - 1.0).max() > 0.01
    found = auditor.load_model(path(library)).predict_proba(X)
    assert np.abs(found - own / own.sum(axis=1, keepdims=True)).max() < 1e-6
    assert np.array_equal(found.argmax(axis=1), np.ravel(model.predict(X)).astype(int))


@pytest.mark.parametrize("library", LIBRARIES)
def test_shap_reads_the_trees(library: str, path: Callable[[str], Path]) -> None:
    """Exact values add up to the score, and say that the column that decides nothing had no part."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.normal(size=N), "b": rng.normal(size=N)})
    _, save, _ = fitted(library, "two", X, (X["a"] > 0.2).to_numpy(int))
    save(path(library))
    model = auditor.load_model(path(library))
    data = AuditData.from_arrays(X[:120], classes=["0", "1"])
    final = final_estimator(model, data, data.take(slice(60)))
    assert final is not None and is_tree(final)
    found = shap_tree(final, data, np.ones(120, np.int64), ("a", "b"))
    assert np.abs(found.values.sum(axis=1) + found.baseline - found.outputs).max() < 1e-5
    assert np.abs(found.values[:, 0]).mean() > 20 * np.abs(found.values[:, 1]).mean()


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_scan_counts_the_librarys_own_decisions(
    library: str, path: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = table()
    model, save, answers = fitted(library, "two", X, y)
    save(path(library))
    monkeypatch.chdir(tmp_path)
    X.assign(y=y, sex=np.where(X["a"] > 0, "f", "m"), p=answers[:, 1]).to_csv("rows.csv", index=False)
    asked = ["--target", "y", "--sensitive", "sex", "--probes", "group_fairness", "--quiet", "--out"]
    of_model = CliRunner().invoke(app, ["scan", path(library).name, "--data", "rows.csv", *asked, "m"])
    findings = json.loads(Path("m/report.json").read_text())["findings"]
    rates = {f["group"]["sex"]: f["value"] for f in findings if f["metric"] == "selection_rate"}
    chosen = answers[:, 1] >= 0.5
    assert of_model.exit_code in (0, 1, 3), of_model.output
    assert rates == {g: float(chosen[(X["a"] > 0) == (g == "f")].mean()) for g in ("f", "m")}


def test_what_is_not_boosted_is_not_taken_for_it() -> None:
    found = {
        data: open_file(Source("m", data, "")).format
        for data in (
            b'{"learner": 1}', b"tree\nfrog\n", b" ", b'{"version":[3,0,0],"learner":{"gradient_booster":{}}}',
            b"tree\nversion=v4\n", b"CBM1\x00",
        )
    }  # fmt: skip
    assert list(found.values()) == ["unknown", "unknown", "unknown", "XGBoost", "LightGBM", "CatBoost"]


@pytest.mark.grid
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("share", [2, 10])
def test_half_a_file_is_refused(library: str, share: int, path: Callable[[str], Path], tmp_path: Path) -> None:
    """In the measuring process, which a library's own parser may take down with it: exit 4, and never a verdict."""
    X, y = table()
    _, save, _ = fitted(library, "two", X, y)
    save(path(library))
    whole = path(library).read_bytes()
    path(library).write_bytes(whole[: len(whole) // share])
    result = CliRunner().invoke(app, ["scan", str(path(library)), "--out", str(tmp_path / "out")])
    assert result.exit_code == 4 and "Traceback" not in result.output, result.output


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("kind", ["names", "integers"])
def test_a_category_that_was_not_learned_is_answered_as_by_its_library_and_counted(
    library: str, kind: str, path: Callable[[str], Path], tmp_path: Path
) -> None:
    X, y = table()
    if kind == "integers":
        X = X.assign(colour=X["colour"].map({"red": 3, "green": 7, "blue": 8}))
    made, save, _ = fitted(library, "two", X.astype({"colour": "category"}) if library != "catboost" else X, y)
    if library == "catboost":
        made, save, _ = fitted(library, "two", X.astype({"colour": str}), y)
    save(path(library))
    strange = 5 if kind == "integers" else "mauve"
    rows = X.assign(colour=[strange] * 7 + X["colour"][7:].tolist(), y=y)
    asked = rows.astype({"colour": str if library == "catboost" else "category"})[["a", "b", "colour"]]
    model = auditor.load_model(path(library))
    np.testing.assert_array_equal(model.predict_proba(rows), np.asarray(made.predict_proba(asked), np.float64))
    rows.to_csv(tmp_path / "rows.csv", index=False)
    notes = auditor.load_data(tmp_path / "rows.csv", model, target="y").notes
    if library != "catboost":  # which does not say what it knows
        assert sum("7 of 600 values are new to the model" in note and str(strange) in note for note in notes) == 1


@pytest.mark.parametrize("library", LIBRARIES)
def test_text_where_numbers_belong_is_named(library: str, path: Callable[[str], Path]) -> None:
    X, y = table(named=False)
    _, save, _ = fitted(library, "two", X, y)
    save(path(library))
    with pytest.raises(DataError, match="Column 'a' holds 'much'"):
        auditor.load_model(path(library)).predict_proba(X.assign(a="much"))
    with pytest.raises(DataError, match="needs the feature 'b'"):
        auditor.load_model(path(library)).predict_proba(X[["a"]])


def test_a_ranking_is_no_classifier(tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
    X, y = table(named=False)
    matrix = xgboost.DMatrix(X, y)
    matrix.set_group([len(X)])
    ranking = xgboost.train({"objective": "rank:pairwise", "nthread": 1}, matrix, num_boost_round=2)
    ranking.save_model(tmp_path / "r.json")
    with pytest.raises(ModelError, match="'rank:pairwise'.*--predict"):
        auditor.load_model(tmp_path / "r.json")


def test_flags_that_contradict_the_file(path: Callable[[str], Path]) -> None:
    X, y = table(named=False)
    _, save, _ = fitted("lightgbm", "two", X, y)
    save(path("lightgbm"))
    assert auditor.load_model(path("lightgbm"), classes="deny,grant").classes == ("deny", "grant")
    for option, says in (
        ({"outputs": "logits"}, "leave --outputs out"),
        ({"features": "b,a"}, "names its own features"),
        ({"classes": "a,b,c"}, "names 3 classes"),
        ({"task": "regression"}, "contradicts"),
    ):
        with pytest.raises(UsageError, match=says):
            auditor.load_model(path("lightgbm"), **option)


def test_features_without_names_are_asked_for(tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
    X, y = table(named=False)
    xgboost.XGBClassifier(n_estimators=3, n_jobs=1).fit(X.to_numpy(), y).save_model(tmp_path / "m.ubj")
    with pytest.raises(UsageError, match="takes 2 columns and does not name them: add --features"):
        auditor.load_model(tmp_path / "m.ubj")
    model = auditor.load_model(tmp_path / "m.ubj", features="a,b")
    assert model.features == ("a", "b") and all_of(model.predict_proba(X[["b", "a"]]).sum(axis=1) > 0.999)


def test_an_absent_library_is_named(path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    path("catboost").write_bytes(b"CBM1 and more")
    monkeypatch.setitem(sys.modules, "catboost", None)
    with pytest.raises(MissingExtraError, match=r"responsible-auditor\[catboost\]"):
        auditor.load_model(path("catboost"))


def _truths(n: int = 400) -> tuple[Any, Any, pd.DataFrame, Any]:
    """Two columns of truth values, which of four cases a row is, and a label that needs both."""
    rng = np.random.default_rng(3)
    a, b = rng.random((2, n)) < 0.5
    return a, b, pd.DataFrame({"x": rng.normal(size=n)}), (a ^ b).astype(int)


def _catboost_of(X: pd.DataFrame, y: Any, file: Path, **options: Any) -> Any:
    catboost = pytest.importorskip("catboost", reason="catboost is not installed")
    model = catboost.CatBoostClassifier(
        **{"iterations": 30, "depth": 3, "random_seed": 0, **options},
        verbose=0,
        allow_writing_files=False,
        thread_count=1,
    )
    model.fit(X, y, cat_features=[c for c in X.columns if c != "x"]).save_model(str(file))
    return model


@pytest.mark.parametrize("one_hot", [1, 4])
@pytest.mark.parametrize("learned", [("bool", "bool"), ("str", "str"), ("lower", "int"), ("bool", "str")])
@pytest.mark.parametrize("read", ["bool", "str", "lower"])
def test_truth_values_are_spelled_as_catboost_has_learned_them(
    learned: tuple[str, str], read: str, one_hot: int, tmp_path: Path
) -> None:
    """CatBoost takes a boolean for a whole number, and a file's text True for a text."""
    a, b, X, y = _truths()
    spelled: dict[str, Callable[[Any], Any]] = {
        "bool": lambda v: v,
        "int": lambda v: v.astype(int),
        "str": lambda v: v.astype(str),
        "lower": lambda v: np.char.lower(v.astype(str)),
    }
    own = X.assign(a=spelled[learned[0]](a), b=spelled[learned[1]](b))
    expected = _catboost_of(own, y, tmp_path / "m.cbm", one_hot_max_size=one_hot).predict_proba(own)
    found = auditor.load_model(tmp_path / "m.cbm").predict_proba(X.assign(a=spelled[read](a), b=spelled[read](b)))
    assert np.abs(found - expected).max() < 1e-6
    assert ((expected[:, 1] > 0.5) == y).mean() > 0.95


def test_truth_values_that_catboost_may_have_learned_as_two_categories_are_refused(tmp_path: Path) -> None:
    a, b, X, y = _truths()
    both = np.where(b, a.astype(str), a.astype(int).astype(str))
    _catboost_of(X.assign(a=both), y, tmp_path / "m.cbm", one_hot_max_size=4)
    with pytest.raises(DataError, match=r"Column 'a' holds '.*', and the model has learned .* there: .*--predict"):
        auditor.load_model(tmp_path / "m.cbm").predict_proba(X.assign(a=a))


def test_texts_that_differ_in_capitals_alone_are_catboosts_own_categories(tmp_path: Path) -> None:
    a, b, X, y = _truths()
    own = X.assign(a=np.where(b, a.astype(str), np.char.upper(a.astype(str))))
    expected = _catboost_of(own, y, tmp_path / "m.cbm", one_hot_max_size=4).predict_proba(own)
    assert np.abs(auditor.load_model(tmp_path / "m.cbm").predict_proba(own) - expected).max() < 1e-6


@pytest.mark.parametrize("learned", [("bool", "bool"), ("bool", "str"), ("str", "bool")])
def test_a_truth_value_that_counts_only_beside_another_is_spelled_as_learned(
    learned: tuple[str, str], tmp_path: Path
) -> None:
    a, b = np.random.default_rng(6).random((2, 400)) < 0.5
    own = pd.DataFrame({"a": a.astype(learned[0]), "b": b.astype(learned[1])})
    # By this seed the tree asks for one by itself, and for the other only together with it.
    options = {"one_hot_max_size": 1, "iterations": 1, "depth": 3, "random_seed": 6}
    expected = _catboost_of(own, (a ^ b).astype(int), tmp_path / "m.cbm", **options).predict_proba(own)
    found = auditor.load_model(tmp_path / "m.cbm").predict_proba(own.astype(str))
    assert np.abs(found - expected).max() < 1e-6 and np.ptp(expected[:, 1]) > 0.01


def test_a_truth_value_that_counts_in_late_rows_alone_is_spelled_as_learned(tmp_path: Path) -> None:
    n = 1600
    truth = np.random.default_rng(0).random(n) < 0.5
    own = pd.DataFrame({"x": np.repeat([0.0, 1.0], [1200, 400]), "a": truth})
    # Leaves grow one by one: below x there is one, above it one of each truth value.
    options = {"iterations": 1, "grow_policy": "Lossguide", "max_leaves": 3, "one_hot_max_size": 4}
    model = _catboost_of(own, (truth & (own["x"].to_numpy() > 0)).astype(int), tmp_path / "m.cbm", **options)
    expected = model.predict_proba(own)
    found = auditor.load_model(tmp_path / "m.cbm").predict_proba(own.astype({"a": str}))
    assert np.abs(found - expected).max() < 1e-6 and len(np.unique(expected[:, 1])) == 3
    assert np.ptp(expected[:1200, 1]) == 0


@pytest.mark.parametrize("ending", ["cbm", "json"])
@pytest.mark.parametrize("objective", ["Poisson", "Tweedie:variance_power=1.5", "RMSE"])
def test_catboost_predicts_counts_and_not_their_logarithms(objective: str, ending: str, tmp_path: Path) -> None:
    catboost = pytest.importorskip("catboost", reason="catboost is not installed")
    X, _ = table(named=False)
    fitted = catboost.CatBoostRegressor(
        loss_function=objective, iterations=4, depth=2, verbose=0, allow_writing_files=False, thread_count=1
    ).fit(X, np.exp(X["a"]))
    fitted.save_model(tmp_path / "model.any", format=ending)
    fitted.load_model(tmp_path / "model.any", format=ending)  # JSON rounds the numbers of its leaves
    model: Any = auditor.load_model(tmp_path / "model.any")
    np.testing.assert_array_equal(model.predict(X), fitted.predict(X))
