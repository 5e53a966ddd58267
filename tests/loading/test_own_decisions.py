"""What a file's own library decides and how sure it is: models of every rule of decision, read without a difference."""

from __future__ import annotations

import pickle
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, TunedThresholdClassifierCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.naive_bayes import BernoulliNB, ComplementNB, GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC, NuSVC
from sklearn.tree import DecisionTreeClassifier

import auditor
from auditor.core.errors import ModelError, UnsupportedError
from auditor.data.audit_data import AuditData
from auditor.loading.exporting.exported_model import export_of
from auditor.models.audited_model import AuditedModel
from auditor.models.model_wrappers import PreparedModel, Removal
from auditor.run.mitigation import Training
from mitigations.scores.threshold_optimizer import ThresholdOptimizer
from mitigations.training.exponentiated_gradient import ExponentiatedGradient
from mitigations.training.fairlearn_reductions import refit
from mitigations.training.retraining import labelled_rows
from probes.attribution.feature_attribution import FeatureAttribution
from probes.fairness.counterfactual_fairness import CounterfactualFairness
from probes.fairness.token_fairness import CounterfactualTokenFairness
from probes.privacy.membership.membership_inference import MembershipInference
from probes.robustness.robustness import Robustness
from tests.quantifiers import all_of, none_of

N = 240
RNG = np.random.default_rng(0)
# Few values to a column, so that probabilities are often equal.
ROWS = pd.DataFrame({"a": RNG.integers(0, 4, N), "b": RNG.integers(0, 3, N), "c": RNG.normal(size=N).round(1)})
TWO = (ROWS["a"] + ROWS["c"] + RNG.normal(size=N) > 1.8).astype(int).to_numpy()
THREE = np.digitize(ROWS["a"] + ROWS["c"] + RNG.normal(size=N), [0.8, 2.2])
SEX = np.where(RNG.random(N) < 0.5, "f", "m")

pytestmark = [
    pytest.mark.filterwarnings("ignore:The `probability` parameter was deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


def held_to_its_library(model: AuditedModel, rows: pd.DataFrame, decided: Any, sure: Any = None) -> None:
    """Decisions, and probabilities where there are some, do not differ, whichever label is the favourable one."""
    labels = [str(label) for label in np.ravel(decided)]
    names = np.asarray(model.classes)
    for positive in [None, *(model.classes if len(names) == 2 else ())]:
        data = AuditData.from_arrays(rows, classes=model.classes, positive=positive)
        assert names[model.decisions(data)].tolist() == labels, f"{positive} is the favourable label"
        probabilities = model.predict_proba(rows)
        assert names[model.decide(probabilities, data.positive, rows)].tolist() == labels
    if sure is not None:
        np.testing.assert_array_equal(model.predict_proba(rows), np.asarray(sure, np.float64))


def saved(model: Any, way: str, folder: Path) -> Path:
    path = folder / f"model.{way}"
    if way == "joblib":
        joblib.dump(model, path)
    elif way == "pkl":
        path.write_bytes(pickle.dumps(model))
    else:
        import skops.io

        skops.io.dump(model, path)
    return path


def words(y: Any) -> Any:
    return np.asarray(["deny", "grant", "later"], object)[y]


# ---- scikit-learn ----------------------------------------------------------------------------------------------------


def _tuned(**options: Any) -> Any:
    return TunedThresholdClassifierCV(LogisticRegression(), cv=3, **options)


RULES: dict[str, tuple[Callable[[], Any], Any]] = {
    "tuned": (_tuned, TWO),
    "tuned_by_scores": (lambda: _tuned(response_method="decision_function"), TWO),
    "tuned_for_f1": (lambda: _tuned(scoring="f1"), TWO),
    "tuned_svc": (lambda: TunedThresholdClassifierCV(SVC(), cv=3), TWO),
    "tuned_in_a_pipeline": (lambda: make_pipeline(StandardScaler(), _tuned()), TWO),
    "fixed": (lambda: FixedThresholdClassifier(LogisticRegression(), threshold=0.3), TWO),
    "fixed_of_the_first": (lambda: FixedThresholdClassifier(LogisticRegression(), threshold=0.3, pos_label=0), TWO),
    "fixed_of_words": (
        lambda: FixedThresholdClassifier(LogisticRegression(), threshold=0.7, pos_label="deny"), words(TWO)
    ),
    "fixed_of_scores": (
        lambda: FixedThresholdClassifier(LogisticRegression(), threshold=0.4, response_method="decision_function"), TWO
    ),
    "fixed_beyond_all": (lambda: FixedThresholdClassifier(LogisticRegression(), threshold=1.5), TWO),
    "fixed_by_default": (lambda: FixedThresholdClassifier(LogisticRegression()), TWO),
    "fixed_searched": (
        lambda: GridSearchCV(
            FixedThresholdClassifier(LogisticRegression(), threshold=0.3), {"estimator__C": [0.1, 1.0]}, cv=2
        ),
        TWO,
    ),
    "svc": (lambda: SVC(probability=True, random_state=0), TWO),
    "svc_of_three": (lambda: SVC(probability=True, random_state=0), THREE),
    "nu_svc": (lambda: NuSVC(nu=0.3, probability=True, random_state=0), TWO),
    "svc_in_a_pipeline": (lambda: make_pipeline(StandardScaler(), SVC(probability=True, random_state=0)), TWO),
    "svc_behind_a_threshold": (lambda: FixedThresholdClassifier(SVC(probability=True), threshold=0.6), TWO),
    "calibrated_svc": (lambda: CalibratedClassifierCV(SVC(), cv=2), TWO),
    "one_against_the_rest": (lambda: OneVsRestClassifier(SVC(probability=True, random_state=0)), THREE),
    "linear_svc": (LinearSVC, THREE),
    "huber": (lambda: SGDClassifier(loss="modified_huber", random_state=0), THREE),
    "stacked_on_svc": (
        lambda: StackingClassifier([("a", GaussianNB())], SVC(probability=True, random_state=0), cv=2), TWO
    ),
    "ties_of_a_tree": (lambda: DecisionTreeClassifier(max_depth=2, random_state=0), TWO),
    "ties_of_neighbours": (lambda: KNeighborsClassifier(4), TWO),
    "ties_of_a_forest": (lambda: RandomForestClassifier(4, random_state=0), TWO),
    "ties_of_boosting": (lambda: GradientBoostingClassifier(n_estimators=1, min_samples_leaf=N), np.arange(N) % 2),
    "ties_of_histograms": (
        lambda: HistGradientBoostingClassifier(max_iter=1, min_samples_leaf=N, early_stopping=False), np.arange(N) % 2
    ),
    "gaussian_process": (lambda: GaussianProcessClassifier(random_state=0), TWO),
    "hard_voting": (lambda: VotingClassifier([("a", GaussianNB()), ("b", LogisticRegression())]), TWO),
}  # fmt: skip


@pytest.mark.grid
@pytest.mark.parametrize("way", ["joblib", "pkl", "skops"])
@pytest.mark.parametrize("name", RULES)
def test_an_estimator_decides_as_its_own_predict(name: str, way: str, tmp_path: Path) -> None:
    make, y = RULES[name]
    fitted = make().fit(ROWS, y)
    try:
        model = auditor.load_model(saved(fitted, way, tmp_path))
    except ModelError as error:
        # skops has no place for some parts of a search or a scorer, and says which.
        assert way == "skops" and "not known to be harmless" in str(error), error
        return
    sure = fitted.predict_proba(ROWS) if hasattr(fitted, "predict_proba") else None
    held_to_its_library(model, ROWS, fitted.predict(ROWS), sure)


def test_a_threshold_that_was_asked_for_goes_before_the_models_own(tmp_path: Path) -> None:
    fitted = FixedThresholdClassifier(LogisticRegression(), threshold=0.2, pos_label=0).fit(ROWS, TWO)
    model = auditor.load_model(saved(fitted, "joblib", tmp_path), threshold=0.6)
    data = AuditData.from_arrays(ROWS, classes=model.classes, positive="1")
    np.testing.assert_array_equal(model.decisions(data), fitted.predict_proba(ROWS)[:, 1] >= 0.6)


# ---- what is made of such models -------------------------------------------------------------------------------------


def _labelled(model: AuditedModel) -> AuditData:
    rows = ROWS.assign(sex=SEX)
    return AuditData.from_arrays(rows, TWO, classes=model.classes, positive="1", sensitive_features=rows[["sex"]])


def test_fitted_anew_a_model_keeps_its_rule(tmp_path: Path) -> None:
    fitted = FixedThresholdClassifier(LogisticRegression(), threshold=0.2, pos_label=0).fit(ROWS, TWO)
    model = auditor.load_model(saved(fitted, "joblib", tmp_path))
    new = refit(model, labelled_rows(_labelled(model), groups=False), np.random.default_rng(0), guard=False).model
    held_to_its_library(new, ROWS, clone(fitted).fit(ROWS, TWO).predict(ROWS))
    auditor.save(new, tmp_path / "new.skops")
    held_to_its_library(auditor.load_model(tmp_path / "new.skops"), ROWS, clone(fitted).fit(ROWS, TWO).predict(ROWS))


@pytest.mark.parametrize("threshold", [None, 0.3])
def test_a_mixture_of_estimators_keeps_their_rule_in_its_folder(threshold: float | None, tmp_path: Path) -> None:
    fitted = SVC(probability=True, random_state=0).fit(ROWS, TWO)
    model = auditor.load_model(saved(fitted, "joblib", tmp_path), threshold=threshold)
    data = _labelled(model)
    how = ExponentiatedGradient(rule="majority", max_iter=3)
    mixed: Any = how.mitigate(model, data, np.random.default_rng(0), Training()).model
    auditor.save(mixed, tmp_path / "mixed")
    again: Any = auditor.load_model(tmp_path / "mixed")
    for one in (mixed, again):
        decided = [
            m.estimator.predict(ROWS) if threshold is None else m.estimator.predict_proba(ROWS)[:, 1] >= threshold
            for m in one.members
        ]
        for_it = one.mixture.always + np.asarray(one.mixture.weights) @ np.asarray(decided)
        np.testing.assert_allclose(one.predict_proba(data.X)[:, 1], np.minimum(for_it, 1.0))
        assert all_of(m.decides_itself == (threshold is None) for m in one.members)


def test_rules_by_group_take_the_threshold_of_the_model_below(tmp_path: Path) -> None:
    """A group that the rows did not hold gets the old model's decision."""
    fitted = FixedThresholdClassifier(LogisticRegression(), threshold=0.2, pos_label=0).fit(ROWS, TWO)
    model = auditor.load_model(saved(fitted, "joblib", tmp_path))
    made = ThresholdOptimizer().mitigate(model, _labelled(model), np.random.default_rng(0), Training()).model
    auditor.save(made, tmp_path / "ruled")
    for one in (made, auditor.load_model(tmp_path / "ruled")):
        others = ROWS.assign(sex="x")
        data = AuditData.from_arrays(others, classes=one.classes, positive="1")
        np.testing.assert_array_equal(one.decisions(data), fitted.predict(ROWS))


def test_what_would_lose_the_rule_is_refused_with_the_flag_to_add(tmp_path: Path) -> None:
    path = saved(SVC(probability=True, random_state=0).fit(ROWS, TWO), "joblib", tmp_path)
    model = auditor.load_model(path)
    with pytest.raises(ModelError, match=r"SVC decides by its own predict.*--threshold 0\.5"):
        ThresholdOptimizer().mitigate(model, _labelled(model), np.random.default_rng(0), Training())
    with pytest.raises(ModelError, match=r"SVC decides by its own predict.*--threshold 0\.5"):
        export_of(model, "onnx", positive=1)
    asked = auditor.load_model(path, threshold=0.5)
    ThresholdOptimizer().mitigate(asked, _labelled(asked), np.random.default_rng(0), Training())


def test_a_model_that_is_freed_of_the_group_decides_as_its_own_predict(tmp_path: Path) -> None:
    fitted = SVC(probability=True, random_state=0).fit(ROWS, THREE)
    base = auditor.load_model(saved(fitted, "joblib", tmp_path))
    nothing = Removal(columns=("sex",), levels=(("f", "m"),), means=(0.5, 0.5), numbers=("c",), weights=((0.0,),) * 2)
    held_to_its_library(PreparedModel(base, nothing), ROWS.assign(sex=SEX), fitted.predict(ROWS))


PROBED: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "robustness": (Robustness, {"n_samples": 40, "n_queries": 10}),
    "robustness of texts": (Robustness, {"n_samples": 10, "n_queries": 5}),
    "membership": (MembershipInference, {"methods": "label_only", "n_queries": 2}),
    "counterfactual": (CounterfactualFairness, {}),
    "texts about others": (CounterfactualTokenFairness, {}),
    "attribution": (FeatureAttribution, {"methods": "occlusion"}),
}


@pytest.mark.grid
@pytest.mark.parametrize("classes", [TWO, THREE], ids=["two", "three"])
@pytest.mark.parametrize("probe", PROBED)
def test_probes_ask_about_the_rows_that_they_decide(probe: str, classes: Any, tmp_path: Path) -> None:
    """Of probabilities alone, this model raises UnsupportedError."""
    pieces = ["the woman is a good nurse", "a man was bad here", "he is kind", "my brother is great", "she has a dog"]
    rows: Any = ROWS.assign(b=ROWS["b"].astype(float))
    if "texts" in probe:
        rows = np.asarray([f"{pieces[i % 5]} and {pieces[i * 3 % 7 % 5]}" for i in range(N)], object)
    before = [TfidfVectorizer()] if "texts" in probe else []
    fitted = make_pipeline(*before, SVC(probability=True, random_state=0)).fit(rows, classes)
    model = auditor.load_model(saved(fitted, "joblib", tmp_path))
    with pytest.raises(ModelError, match="SVC decides by its own predict"):
        model.decide(model.predict_proba(rows), None)
    groups = pd.DataFrame({"a": ROWS["a"].astype(str)})
    data = AuditData.from_arrays(
        rows, classes, classes=model.classes, sensitive_features=groups, is_member=np.arange(N) < 90
    )
    kind, options = PROBED[probe]
    found = kind(**options).measure(model, data, np.random.default_rng(0))
    assert none_of("SVC decides" in str(measurement) for measurement in found)


@pytest.mark.parametrize("positive", [0, 1])
def test_an_exported_model_keeps_its_threshold(positive: int, tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")
    xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
    rows = ROWS[["b", "c"]].astype(float)
    fitted = xgboost.XGBClassifier(**STOPPED).fit(rows[:150], TWO[:150], eval_set=[(rows[150:], TWO[150:])], verbose=0)
    fitted.save_model(tmp_path / "model.json")
    model = auditor.load_model(tmp_path / "model.json")
    equal = export_of(model, "onnx", positive=positive).equality(rows)
    assert not equal.differing and equal.largest_difference < 1e-6


# ---- boosted trees ---------------------------------------------------------------------------------------------------

STOPPED: dict[str, Any] = {"n_estimators": 60, "max_depth": 3, "early_stopping_rounds": 4, "n_jobs": 1}
CATEGORIES: dict[str, Callable[[pd.Series[Any]], pd.Series[Any]]] = {
    "integers": lambda s: s,
    "small_integers": lambda s: s.astype("int8"),
    "not_from_zero": lambda s: s * 10 - 5,
    "halves": lambda s: s / 2,
    "whole_floats": lambda s: s.astype(float),
    "truth": lambda s: s > 1,
    "text": lambda s: s.map({0: "red", 1: "green", 2: "blue", 3: "x"}),
    "numerals": lambda s: s.map(str),
    "text_like_truth": lambda s: s.map({0: "true", 1: "false", 2: "True", 3: "False"}),
}


def _rows(kind: str) -> pd.DataFrame:
    return pd.DataFrame({"a": ROWS["c"], "b": ROWS["b"], "c": CATEGORIES.get(kind, lambda s: s)(ROWS["a"])})


def _holes(rows: pd.DataFrame) -> pd.DataFrame:
    """The same with some categories missing, as a data file has them: whole numbers become floats."""
    return rows.assign(c=rows["c"].where(np.arange(N) % 9 != 0))


def _coded(rows: pd.DataFrame, like: pd.DataFrame) -> pd.DataFrame:
    known = pd.CategoricalDtype(sorted(like["c"].dropna().unique()))
    return rows.assign(c=pd.Categorical.from_codes([_place(v, known.categories) for v in rows["c"]], dtype=known))


def _place(value: Any, known: Any) -> int:
    return -1 if pd.isna(value) else known.tolist().index(value)


@pytest.mark.grid
@pytest.mark.parametrize("kind", CATEGORIES)
def test_lightgbm_reads_categories_of_every_type(kind: str, tmp_path: Path) -> None:
    lightgbm = pytest.importorskip("lightgbm", reason="lightgbm is not installed")
    rows = _rows(kind)
    fitted = lightgbm.LGBMClassifier(n_estimators=8, min_child_samples=5, verbose=-1, n_jobs=1)
    fitted.fit(_coded(rows, rows), TWO)
    fitted.booster_.save_model(tmp_path / "model.txt")
    model = auditor.load_model(tmp_path / "model.txt")
    for asked in (rows, rows[:40][rows["c"][:40] == rows["c"][0]], _holes(rows)):
        sure = fitted.predict_proba(_coded(asked, rows))
        held_to_its_library(model, asked.reset_index(drop=True), fitted.predict(_coded(asked, rows)), sure)
    if kind != "text_like_truth":  # which a reader of data files makes truth values of
        through_a_file = pd.read_csv(_written(rows, tmp_path))
        held_to_its_library(model, through_a_file, fitted.predict(_coded(rows, rows)))


def _written(rows: pd.DataFrame, folder: Path) -> Path:
    rows.to_csv(folder / "rows.csv", index=False)
    return folder / "rows.csv"


def test_lightgbm_categories_that_read_alike_are_refused(tmp_path: Path) -> None:
    lightgbm = pytest.importorskip("lightgbm", reason="lightgbm is not installed")
    rows = _rows("integers")
    names = pd.Categorical.from_codes(rows["c"], categories=pd.Index([1, "1", 2, "x"], dtype=object))
    fitted = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1).fit(rows.assign(c=names), TWO)
    fitted.booster_.save_model(tmp_path / "model.txt")
    with pytest.raises(UnsupportedError, match="column 'c' that has two categories that read '1'.*--predict"):
        auditor.load_model(tmp_path / "model.txt")


@pytest.mark.grid
@pytest.mark.parametrize("kind", ["integers", "small_integers", "not_from_zero", "text", "numerals", "text_like_truth"])
@pytest.mark.parametrize("ending", ["json", "ubj"])
def test_xgboost_reads_categories_of_every_type(kind: str, ending: str, tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
    rows = _rows(kind)
    fitted = xgboost.XGBClassifier(n_estimators=8, max_depth=3, enable_categorical=True, n_jobs=1)
    fitted.fit(_coded(rows, rows), TWO)
    fitted.save_model(tmp_path / f"model.{ending}")
    model = auditor.load_model(tmp_path / f"model.{ending}")
    for asked in (rows, _holes(rows)):
        sure = fitted.predict_proba(_coded(asked, rows))
        held_to_its_library(model, asked, fitted.predict(_coded(asked, rows)), sure)


def _stopped(xgboost: Any, kind: str, y: Any = TWO, **options: Any) -> tuple[Any, pd.DataFrame, pd.DataFrame]:
    rows = _rows(kind)
    coded = _coded(rows, rows)
    fitted = xgboost.XGBClassifier(**STOPPED, enable_categorical=True, **options)
    fitted.fit(coded[:150], y[:150], eval_set=[(coded[150:], y[150:])], verbose=False)
    assert fitted.best_iteration + 1 < fitted.get_booster().num_boosted_rounds()
    return fitted, rows, coded


@pytest.mark.parametrize("ending", ["json", "ubj"])
@pytest.mark.parametrize("kind", ["integers", "text"])
@pytest.mark.parametrize("classes", [TWO, THREE], ids=["two", "three"])
def test_xgboost_stopped_early_answers_by_its_best_rounds(kind: str, classes: Any, ending: str, tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
    fitted, rows, coded = _stopped(xgboost, kind, classes)
    fitted.save_model(tmp_path / f"model.{ending}")
    model: Any = auditor.load_model(tmp_path / f"model.{ending}")
    held_to_its_library(model, rows, fitted.predict(coded), fitted.predict_proba(coded))
    # Written again it is the same model, with the names of its categories.
    auditor.save(model, tmp_path / "again.json")
    held_to_its_library(
        auditor.load_model(tmp_path / "again.json"), rows, fitted.predict(coded), fitted.predict_proba(coded)
    )


def test_xgboost_dart_stopped_early_answers_by_its_best_rounds(tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
    fitted, rows, coded = _stopped(xgboost, "text", booster="dart", rate_drop=0.2, random_state=1)
    fitted.save_model(tmp_path / "model.json")
    model = auditor.load_model(tmp_path / "model.json")
    assert np.abs(model.predict_proba(rows) - fitted.predict_proba(coded)).max() < 1e-6
    held_to_its_library(model, rows, fitted.predict(coded))


@pytest.mark.parametrize("booster", ["gbtree", "gblinear"])
def test_an_xgboost_regression_stopped_early(booster: str, tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
    rows = _rows("integers").astype(float)
    options = STOPPED | {"booster": booster, "max_depth": 3 if booster == "gbtree" else None}
    fitted = xgboost.XGBRegressor(**options)
    fitted.fit(rows[:150], TWO[:150], eval_set=[(rows[150:], TWO[150:])], verbose=0)
    assert fitted.best_iteration + 1 < fitted.get_booster().num_boosted_rounds()
    fitted.save_model(tmp_path / "model.ubj")
    model: Any = auditor.load_model(tmp_path / "model.ubj")
    np.testing.assert_array_equal(model.predict(rows), fitted.predict(rows))


def test_a_bare_booster_stopped_early_is_asked_which_rounds_are_meant(tmp_path: Path) -> None:
    """Booster.predict answers by all of them, XGBClassifier of the same file by the best ones."""
    xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
    rows = _rows("integers").astype(float)
    learn, held = (xgboost.DMatrix(rows[part], TWO[part]) for part in (slice(150), slice(150, None)))
    booster = xgboost.train(
        {"objective": "binary:logistic", "max_depth": 3, "nthread": 1},
        learn, 60, evals=[(held, "held")], early_stopping_rounds=4, verbose_eval=False,
    )  # fmt: skip
    booster.save_model(tmp_path / "model.json")
    best, whole = booster[: booster.best_iteration + 1], booster.copy()
    with pytest.raises(UnsupportedError, match=r"stopped early.*booster\[: booster.best_iteration \+ 1\].*set_attr"):
        auditor.load_model(tmp_path / "model.json")
    whole.set_attr(best_iteration=None)
    for meant in (best, whole):
        meant.save_model(tmp_path / "model.json")
        found = auditor.load_model(tmp_path / "model.json").predict_proba(rows)[:, 1]
        np.testing.assert_array_equal(found, meant.predict(xgboost.DMatrix(rows)).astype(np.float64))
    assert np.abs(best.predict(xgboost.DMatrix(rows)) - whole.predict(xgboost.DMatrix(rows))).max() > 0.001


@pytest.mark.parametrize("rounds", [None, -1], ids=["the best", "all"])
def test_lightgbm_stopped_early_answers_by_the_rounds_in_its_file(rounds: int | None, tmp_path: Path) -> None:
    lightgbm = pytest.importorskip("lightgbm", reason="lightgbm is not installed")
    rows = _rows("integers").astype(float)
    learn = lightgbm.Dataset(rows[:150], TWO[:150])
    booster = lightgbm.train(
        {"objective": "binary", "min_child_samples": 5, "verbosity": -1, "num_threads": 1},
        learn, 60, [learn.create_valid(rows[150:], TWO[150:])], keep_training_booster=True,
        callbacks=[lightgbm.early_stopping(4, verbose=False)],
    )  # fmt: skip
    assert booster.best_iteration < booster.current_iteration()
    booster.save_model(tmp_path / "model.txt", num_iteration=rounds)
    again = lightgbm.Booster(model_file=tmp_path / "model.txt")
    sure = again.predict(rows)
    np.testing.assert_array_equal(auditor.load_model(tmp_path / "model.txt").predict_proba(rows)[:, 1], sure)
    assert np.array_equal(sure, booster.predict(rows)) == (rounds is None)


@pytest.mark.parametrize("best", [True, False])
@pytest.mark.parametrize("threshold", [None, 0.3])
def test_catboost_decides_by_the_rounds_and_the_threshold_in_its_file(
    best: bool, threshold: float | None, tmp_path: Path
) -> None:
    catboost = pytest.importorskip("catboost", reason="catboost is not installed")
    rows = _rows("integers")
    fitted = catboost.CatBoostClassifier(
        iterations=30, depth=3, verbose=0, allow_writing_files=False, thread_count=1, use_best_model=best
    ).fit(rows[:150], TWO[:150], eval_set=(rows[150:], TWO[150:]), cat_features=["c"])
    if threshold is not None:
        fitted.set_probability_threshold(threshold)
    fitted.save_model(tmp_path / "model.cbm")
    model = auditor.load_model(tmp_path / "model.cbm")
    held_to_its_library(model, rows, fitted.predict(rows), fitted.predict_proba(rows))


@pytest.mark.parametrize("library", ["xgboost", "lightgbm", "catboost"])
def test_boosted_trees_in_doubt_decide_as_their_library(library: str, tmp_path: Path) -> None:
    """Rows of either label in equal numbers and nothing to tell them apart: probabilities of one half."""
    made: Any = pytest.importorskip(library, reason=f"{library} is not installed")
    rows, y = pd.DataFrame({"a": np.zeros(40), "b": np.zeros(40)}), np.arange(40) % 2
    if library == "xgboost":
        fitted, path = made.XGBClassifier(n_estimators=1, n_jobs=1, base_score=0.5), tmp_path / "model.json"
        fitted.fit(rows, y).save_model(path)
    elif library == "lightgbm":
        fitted, path = made.LGBMClassifier(n_estimators=1, verbose=-1, n_jobs=1), tmp_path / "model.txt"
        fitted.fit(rows, y).booster_.save_model(path)
    else:
        rows["a"] = np.arange(40) // 2 % 2
        fitted, path = made.CatBoostClassifier(iterations=1, verbose=0, allow_writing_files=False), tmp_path / "m.cbm"
        fitted.fit(rows, y).save_model(path)
    sure = fitted.predict_proba(rows)
    assert (sure == 0.5).all()
    held_to_its_library(auditor.load_model(path), rows, fitted.predict(rows), sure)


# ---- estimators drawn at random --------------------------------------------------------------------------------------

FINAL: list[Callable[[int], Any]] = [
    lambda seed: LogisticRegression(C=10.0 ** (seed % 4 - 2)),
    lambda seed: DecisionTreeClassifier(max_depth=1 + seed % 5, random_state=seed),
    lambda seed: RandomForestClassifier(2 + seed % 5, max_depth=3, random_state=seed),
    lambda seed: ExtraTreesClassifier(2 + seed % 5, max_depth=3, random_state=seed),
    lambda seed: HistGradientBoostingClassifier(max_iter=1 + seed % 4, max_depth=2, random_state=seed),
    lambda seed: GradientBoostingClassifier(n_estimators=1 + seed % 4, max_depth=2, random_state=seed),
    lambda seed: AdaBoostClassifier(n_estimators=1 + seed % 4, random_state=seed),
    lambda seed: BaggingClassifier(n_estimators=2 + seed % 3, random_state=seed),
    lambda seed: KNeighborsClassifier(1 + seed % 6, weights=("uniform", "distance")[seed % 2]),
    lambda seed: MLPClassifier((3,), max_iter=10, random_state=seed),
    lambda seed: SVC(C=10.0 ** (seed % 3 - 1), probability=True, random_state=seed, break_ties=False),
    lambda seed: NuSVC(nu=0.1, probability=True, random_state=seed),
    lambda seed: SVC(kernel=("rbf", "linear", "poly")[seed % 3]),
    lambda seed: LinearSVC(random_state=seed),
    lambda seed: SGDClassifier(loss=("log_loss", "modified_huber", "hinge")[seed % 3], random_state=seed),
    lambda seed: RidgeClassifier(),
    lambda seed: GaussianNB(),
    lambda seed: BernoulliNB(),
    lambda seed: ComplementNB(),
    lambda seed: LinearDiscriminantAnalysis(),
    lambda seed: GaussianProcessClassifier(random_state=seed),
]
AROUND: list[Callable[[Any, int], Any]] = [
    lambda model, _: model,
    lambda model, _: model,
    lambda model, _: CalibratedClassifierCV(model, cv=2),
    lambda model, _: OneVsRestClassifier(model),
    lambda model, _: OneVsOneClassifier(model),
    lambda model, _: VotingClassifier([("a", model), ("b", GaussianNB())]),
    lambda model, _: StackingClassifier([("a", model), ("b", GaussianNB())], DecisionTreeClassifier(max_depth=2), cv=2),
    lambda model, _: StackingClassifier([("b", GaussianNB())], model, cv=2),
    lambda model, _: BaggingClassifier(model, n_estimators=2, random_state=0),
    lambda model, seed: FixedThresholdClassifier(model, threshold=(0.2, 0.5, 0.7)[seed % 3], pos_label="grant"),
    lambda model, seed: FixedThresholdClassifier(model, threshold=(0.2, "auto")[seed % 2], pos_label="deny"),
    lambda model, _: TunedThresholdClassifierCV(model, cv=2, thresholds=20),
]
BEFORE: list[Callable[[], Any]] = [
    MinMaxScaler,
    lambda: ColumnTransformer([("one", OneHotEncoder(), ["a", "b"])], remainder=MinMaxScaler()),
    lambda: KBinsDiscretizer(3, encode="onehot-dense", quantile_method="averaged_inverted_cdf"),
    lambda: make_pipeline(SimpleImputer(), MinMaxScaler()),
]


@pytest.mark.grid
@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("first", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(30, 300, 30))])
def test_estimators_drawn_at_random_answer_as_their_own_predict(first: int, tmp_path: Path) -> None:
    """None answers otherwise, and few are refused; a quick run ends after a second."""
    read, refused, started = 0, [], time.process_time()
    for seed in range(first, first + 30):
        rng = np.random.default_rng(seed)
        final = FINAL[int(rng.integers(len(FINAL)))](seed)
        around = AROUND[int(rng.integers(len(AROUND)))](final, seed)
        model = make_pipeline(BEFORE[int(rng.integers(len(BEFORE)))](), around)
        two = rng.random() < 0.6 or isinstance(around, FixedThresholdClassifier | TunedThresholdClassifierCV)
        y = TWO if two else THREE
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(ROWS, words(y) if "Fixed" in type(around).__name__ or rng.random() < 0.5 else y)
        way = ("joblib", "pkl", "skops")[seed % 3]
        try:
            found = auditor.load_model(saved(model, way, tmp_path))
        except ModelError as error:
            refused.append(f"{seed}: {error}")
            continue
        sure = model.predict_proba(ROWS) if hasattr(model, "predict_proba") else None
        try:
            held_to_its_library(found, ROWS, model.predict(ROWS), sure)
        except AssertionError as error:
            raise AssertionError(f"{seed}: {model} as {way}") from error
        read += 1
        if first == 0 and read >= 5 and time.process_time() - started > 1.0:
            break
    assert read >= 5 and len(refused) <= read / 4, refused


def test_xgboost_that_gives_raw_margins_decides_at_a_margin_of_one_half(tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(rng.normal(size=(400, 2)), columns=["a", "b"])
    labels = (rows["a"] + rng.normal(size=400) > 0).astype(int)
    fitted = xgboost.XGBClassifier(objective="binary:logitraw", n_estimators=40, max_depth=3, n_jobs=1).fit(
        rows, labels
    )
    fitted.save_model(tmp_path / "m.json")
    model = auditor.load_model(tmp_path / "m.json")
    decided = model.decide(model.predict_proba(rows), None, rows)
    assert np.array_equal(decided, fitted.predict(rows))
    assert not np.array_equal(decided, (model.predict_proba(rows)[:, 1] > 0.5).astype(int))
