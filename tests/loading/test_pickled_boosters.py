"""Boosted trees that were saved with joblib, alone and within scikit-learn's estimators: their own answers, no code."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import auditor
from auditor.core.errors import MissingExtraError, ModelError, UnsafeModelError, UnsupportedError
from auditor.models.files import pickled_boosters

catboost, lightgbm, xgboost = map(pytest.importorskip, ("catboost", "lightgbm", "xgboost"))

RNG = np.random.default_rng(0)
ROWS = pd.DataFrame(
    {"age": RNG.integers(20, 70, 400), "income": RNG.normal(size=400), "job": RNG.choice(["a", "b", "c"], 400)}
)
NUMBERS = ROWS[["age", "income"]]
CODES = ROWS.assign(job=ROWS["job"].map({"a": 3, "b": 5, "c": 9}))
Y = ((ROWS["income"] + (ROWS["job"] == "a") + RNG.normal(size=400)) > 0).astype(int)
NAMES = np.where(Y == 1, "yes", "no")


def light(**options: Any) -> Any:
    return lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1, **options)


def extreme(**options: Any) -> Any:
    return xgboost.XGBClassifier(n_estimators=5, n_jobs=1, **options)


def cat(**options: Any) -> Any:
    return catboost.CatBoostClassifier(iterations=5, verbose=0, thread_count=1, allow_writing_files=False, **options)


def as_categories(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.astype({"job": "category"})


def piped(model: Any) -> Any:
    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["job"]), remainder="passthrough")
    return make_pipeline(encode, model)


# name -> (an estimator, fitted; the rows of a CSV file; the same in the form that it was fitted on)
SAVED: dict[str, Callable[[], tuple[Any, pd.DataFrame, pd.DataFrame]]] = {
    "lightgbm": lambda: (light().fit(NUMBERS, NAMES), NUMBERS, NUMBERS),
    "lightgbm, categories": lambda: (light().fit(as_categories(CODES), NAMES), CODES, as_categories(CODES)),
    "lightgbm, stopped early": lambda: (
        lightgbm.LGBMClassifier(n_estimators=60, verbose=-1, n_jobs=1).fit(
            NUMBERS[:200], Y[:200], eval_X=(NUMBERS[200:],), eval_y=(Y[200:],),
            callbacks=[lightgbm.early_stopping(2, verbose=False)],
        ),
        NUMBERS,
        NUMBERS,
    ),
    "xgboost": lambda: (extreme().fit(NUMBERS, Y), NUMBERS, NUMBERS),
    "xgboost, categories": lambda: (
        extreme(enable_categorical=True).fit(as_categories(CODES), Y), CODES, as_categories(CODES)
    ),
    "xgboost, stopped early": lambda: (
        xgboost.XGBClassifier(n_estimators=60, early_stopping_rounds=2, n_jobs=1).fit(
            NUMBERS[:200], Y[:200], eval_set=[(NUMBERS[200:], Y[200:])], verbose=False
        ),
        NUMBERS,
        NUMBERS,
    ),
    "xgboost forest": lambda: (xgboost.XGBRFClassifier(n_estimators=5, n_jobs=1).fit(NUMBERS, Y), NUMBERS, NUMBERS),
    "catboost": lambda: (cat(cat_features=["job"]).fit(ROWS, NAMES), ROWS, ROWS),
    "a pipeline with lightgbm": lambda: (piped(light()).fit(ROWS, NAMES), ROWS, ROWS),
    "a pipeline with xgboost": lambda: (piped(extreme()).fit(ROWS, Y), ROWS, ROWS),
    "a pipeline with catboost": lambda: (piped(cat()).fit(ROWS, NAMES), ROWS, ROWS),
    "calibrated": lambda: (CalibratedClassifierCV(extreme(), cv=2).fit(NUMBERS, Y), NUMBERS, NUMBERS),
    "searched": lambda: (
        GridSearchCV(light(), {"max_depth": [2, 3]}, cv=2).fit(NUMBERS, NAMES), NUMBERS, NUMBERS
    ),
    "stacked": lambda: (
        StackingClassifier([("x", extreme()), ("l", light())], LogisticRegression(), cv=2).fit(NUMBERS, Y),
        NUMBERS,
        NUMBERS,
    ),
    "voted": lambda: (
        VotingClassifier([("c", cat()), ("l", LogisticRegression())], voting="soft").fit(NUMBERS, Y), NUMBERS, NUMBERS
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAVED)
def test_the_answers_are_the_librarys_own(name: str, tmp_path: Path) -> None:
    model, rows, fitted_on = SAVED[name]()
    joblib.dump(model, tmp_path / "m.joblib", compress=3 * (name == "stacked"))
    read = auditor.load_model(tmp_path / "m.joblib")
    found = read.predict_proba(rows)
    assert np.array_equal(found, model.predict_proba(fitted_on))
    decided = np.asarray(read.classes)[read.decide(found, 1, rows)]
    assert decided.tolist() == [str(label) for label in np.ravel(model.predict(fitted_on))]
    trusted = auditor.load_model(tmp_path / "m.joblib", trust_pickle=True)
    assert np.array_equal(trusted.predict_proba(rows), found)


def test_lightgbm_is_passed_forward_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ``predict`` takes the largest probability, so that decisions need no second pass."""
    joblib.dump(light().fit(NUMBERS, NAMES), tmp_path / "m.joblib")
    read = auditor.load_model(tmp_path / "m.joblib", trust_pickle=True)
    found = read.predict_proba(NUMBERS)
    asked: list[int] = []

    def predicted(self: object, X: pd.DataFrame) -> Any:
        asked.append(len(X))
        return np.zeros(len(X), np.int64)

    monkeypatch.setattr(type(read), "_predicted", predicted)
    equal = np.isclose(found[:, 0], found[:, 1], rtol=0, atol=1e-6)
    read.decide(found, 1, NUMBERS)
    assert sum(asked) == equal.sum() < len(NUMBERS)
    read.decide(np.full_like(found, 0.5), 1, NUMBERS)
    assert sum(asked) == len(NUMBERS) + equal.sum()


@pytest.mark.parametrize("name", [name for name in SAVED if name not in ("xgboost forest", "voted", "calibrated")])
def test_what_is_fitted_anew_is_written_as_it_was_read_with_its_classes(name: str, tmp_path: Path) -> None:
    model, rows, _ = SAVED[name]()
    joblib.dump(model, tmp_path / "m.joblib")
    read = auditor.load_model(tmp_path / "m.joblib")
    labels = RNG.integers(0, 2, len(rows))
    anew = read.fitted_anew(rows, labels, None, np.random.default_rng(0), {})
    content = anew.native_file(".joblib")
    assert ".joblib" in read.endings and ".joblib" in anew.endings and content is not None
    (tmp_path / "new.joblib").write_bytes(content)
    again = auditor.load_model(tmp_path / "new.joblib")
    assert again.classes == read.classes
    assert np.array_equal(again.predict_proba(rows), anew.predict_proba(rows))
    assert not np.array_equal(again.predict_proba(rows), read.predict_proba(rows))


def test_classes_of_another_number_than_the_trees_have_are_refused(tmp_path: Path) -> None:
    model = light().fit(as_categories(CODES), NAMES)
    model._classes = np.asarray(["no", "yes", "maybe"])
    joblib.dump(model, tmp_path / "m.joblib")
    with pytest.raises(ModelError, match="3 classes, and trees of 2"):
        auditor.load_model(tmp_path / "m.joblib")


@pytest.mark.parametrize("trust", [False, True])
def test_categories_within_an_estimator_are_refused_since_codes_would_be_taken_for_values(
    trust: bool, tmp_path: Path
) -> None:
    model = make_pipeline("passthrough", extreme(enable_categorical=True)).fit(as_categories(CODES), Y)
    wrong = model.predict_proba(CODES.to_numpy()) != model.predict_proba(as_categories(CODES))
    assert wrong.any()  # which XGBoost does without a word
    joblib.dump(model, tmp_path / "m.joblib")
    with pytest.raises(UnsupportedError, match="categories"):
        auditor.load_model(tmp_path / "m.joblib", trust_pickle=trust)


def test_a_regressor_is_read_too(tmp_path: Path) -> None:
    model = lightgbm.LGBMRegressor(n_estimators=5, verbose=-1, n_jobs=1).fit(NUMBERS, ROWS["income"])
    joblib.dump(model, tmp_path / "m.joblib")
    assert np.array_equal(auditor.load_model(tmp_path / "m.joblib").predict(NUMBERS), model.predict(NUMBERS))


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran"),))


def doctored(kind: str) -> object:
    if kind == "an objective of its own":
        return light(objective=Runs()).__class__(objective=Runs())
    model = piped(light()).fit(ROWS, Y)
    if kind == "a file to read":
        model[-1]._other_params = {"forcedbins_filename": "passwd"}
    elif kind == "a method":
        model[-1].__dict__["predict"] = "none"
    return model


@pytest.mark.parametrize("kind", ["an objective of its own", "a file to read", "a method"])
def test_doctored_settings_are_refused_and_nothing_is_run(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    joblib.dump(doctored(kind), "m.joblib")
    with pytest.raises(UnsafeModelError):
        auditor.load_model("m.joblib")
    assert not Path("ran").exists()


def test_damaged_trees_are_refused(tmp_path: Path) -> None:
    joblib.dump(light().fit(NUMBERS, Y), file := io.BytesIO())
    (tmp_path / "m.joblib").write_bytes(file.getvalue().replace(b"num_class=", b"xxxxxxxxxx"))
    with pytest.raises(ModelError, match="damaged"):
        auditor.load_model(tmp_path / "m.joblib")


@pytest.mark.parametrize("state", [{"handle": b"none"}, {"handle": None}, {}])
def test_trees_of_another_type_are_refused(state: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no trees"):
        pickled_boosters.fill(pickled_boosters.make("xgboost.core.Booster"), state)


def test_a_library_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(piped(extreme()).fit(ROWS, Y)))
    monkeypatch.setitem(__import__("sys").modules, "xgboost.sklearn", None)
    with pytest.raises(MissingExtraError, match=r"responsible-auditor\[xgboost\]"):
        auditor.load_model(tmp_path / "m.pkl")
