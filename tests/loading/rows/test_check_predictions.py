"""A loaded model is held to what its own process answered, before anything is judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from typer.testing import CliRunner

import auditor
from auditor.core.errors import DataError, ModelError, UsageError
from cli.commands import app

N = 200
RNG = np.random.default_rng(0)
ROWS = pd.DataFrame({"a": RNG.normal(size=N), "b": RNG.normal(size=N)})
TRUE = np.where(ROWS["a"] + RNG.normal(size=N) > 0, "yes", "no")
FITTED = LogisticRegression().fit(ROWS, TRUE)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    joblib.dump(FITTED, "m.joblib")
    sex = np.where(RNG.random(N) < 0.5, "f", "m")
    ROWS.assign(y=TRUE, sex=sex, decided=FITTED.predict(ROWS), p=FITTED.predict_proba(ROWS)[:, 1]).to_csv(
        "rows.csv", index=False
    )
    return tmp_path


def rows(**options: Any) -> Any:
    return auditor.load_data("rows.csv", auditor.load_model("m.joblib"), target="y", positive="yes", **options)


def predictions(**columns: Any) -> str:
    pd.DataFrame(columns).to_csv("predictions.csv", index=False)
    return "predictions.csv"


@pytest.mark.parametrize("column", ["decided", "p"])
def test_a_column_of_decisions_or_of_scores_is_met(column: str, here: Path) -> None:
    assert "The model answers all 200 rows as rows.csv records of it." in rows(check_predictions=column).notes


def test_a_file_of_decisions_and_probabilities_is_met(here: Path) -> None:
    sure = FITTED.predict_proba(ROWS)
    file = predictions(prediction=FITTED.predict(ROWS), probability_no=sure[:, 0], probability_yes=sure[:, 1])
    assert any("as predictions.csv records" in note for note in rows(check_predictions=file).notes)


@pytest.mark.parametrize("what", ["decision", "probability"])
def test_one_row_that_is_answered_otherwise_is_told_with_its_number(what: str, here: Path) -> None:
    decided, sure = FITTED.predict(ROWS), FITTED.predict_proba(ROWS)
    if what == "decision":
        decided[6] = "no" if decided[6] == "yes" else "yes"
    else:
        sure[6] = sure[6] + [1e-4, -1e-4]
    file = predictions(prediction=decided, probability_no=sure[:, 0], probability_yes=sure[:, 1])
    with pytest.raises(
        ModelError, match=r"answers 1 of 200 rows otherwise than predictions\.csv.*\(rows 7\).*--predict"
    ):
        rows(check_predictions=file)


def test_a_regression_is_held_to_its_numbers(here: Path) -> None:
    target = ROWS["a"] * 2 + 1
    fitted = LinearRegression().fit(ROWS, target)
    joblib.dump(fitted, "r.joblib")
    ROWS.assign(y=target, told=fitted.predict(ROWS), off=fitted.predict(ROWS) + 0.01).to_csv("rows.csv", index=False)
    model = auditor.load_model("r.joblib")
    assert any(
        "answers all" in n for n in auditor.load_data("rows.csv", model, target="y", check_predictions="told").notes
    )
    with pytest.raises(ModelError, match=r"answers 200 of 200 rows otherwise.*\(rows 1, 2, 3, 4, 5, \.\.\.\)"):
        auditor.load_data("rows.csv", model, target="y", check_predictions="off")


def test_what_holds_no_predictions_is_said(here: Path) -> None:
    with pytest.raises(UsageError, match="has no column 'decide'; did you mean 'decided'"):
        rows(check_predictions="decide")
    with pytest.raises(UsageError, match="has no column 'prediction'"):
        rows(check_predictions=predictions(answer=[1]))
    with pytest.raises(DataError, match="has 1 rows, and the data 200"):
        rows(check_predictions=predictions(prediction=["no"]))


def test_a_scan_is_refused_before_any_verdict(here: Path) -> None:
    scan = "scan m.joblib --data rows.csv --target y --positive yes --sensitive sex --probes group_fairness"
    met = CliRunner().invoke(app, [*scan.split(), "--check-predictions", "decided", "--out", "met"])
    assert met.exit_code in (0, 1, 3), met.output
    assert "answers all 200 rows as rows.csv records" in (here / "met" / "report.json").read_text()
    file = predictions(prediction=["no"] * N)
    refused = CliRunner().invoke(app, [*scan.split(), "--check-predictions", file, "--out", "refused"])
    assert refused.exit_code == 4 and "rows otherwise than predictions.csv" in " ".join(refused.output.split())
