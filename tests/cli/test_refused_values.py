"""A model that refuses missing values may pass; one that breaks on rows it should answer may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from auditor.report.record.audit_report import AuditReport
from cli.commands import app
from tests.quantifiers import all_of

N = 6_000
# Answers as the pipeline does, but for an accident that each is named after.
OWN = """
import os
import joblib
import numpy as np

model = joblib.load("held/model.joblib")


def good(rows):
    return model.predict_proba(rows)


def crashes_on_ordinary_rows(rows):
    if (rows["b"] > 3.0).any():
        raise ValueError("Input X contains NaN.")
    return model.predict_proba(rows)


def raises_on_everything(rows):
    raise ValueError("Input X contains NaN.")


def raises_on_what_it_has_not_seen(rows):
    if not rows["a"].dropna().round(6).isin(known).all():
        raise ValueError("Input X contains NaN.")
    return model.predict_proba(rows.fillna(0.0))


def dies_of_gaps(rows):
    if rows.isna().any(axis=None):
        os._exit(7)
    return model.predict_proba(rows)


def breaks_for_good(rows):
    global model
    if rows.isna().any(axis=None):
        model = None
        raise ValueError("Input X contains NaN.")
    return model.predict_proba(rows)


known = set(joblib.load("held/known.joblib"))
for function in (
    good, crashes_on_ordinary_rows, raises_on_everything, raises_on_what_it_has_not_seen, dies_of_gaps, breaks_for_good
):
    function.classes = ["no", "yes"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A logistic regression in a pipeline, and rows where it treats two groups alike."""
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    where = tmp_path_factory.mktemp("refused")
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"a": rng.normal(size=2 * N), "b": rng.normal(size=2 * N), "c": rng.choice(list("uvw"), 2 * N)})
    chance = 1.0 / (1.0 + np.exp(-4.0 * rows["a"] - 2.0 * rows["b"] - 1.6 * (rows["c"] == "u") + 0.5))
    labels = np.where(rng.random(2 * N) < chance, "yes", "no")
    encoded = make_column_transformer((StandardScaler(), ["a", "b"]), (OneHotEncoder(handle_unknown="ignore"), ["c"]))
    model = make_pipeline(encoded, LogisticRegression()).fit(rows[:N], labels[:N])
    joblib.dump(model, where / "model.joblib")
    # What a function of the user's reads is named as the model.
    (where / "held").mkdir()
    joblib.dump(model, where / "held" / "model.joblib")
    joblib.dump(rows["a"].round(6).tolist(), where / "held" / "known.joblib")
    rows.assign(sex=rng.choice(["f", "m"], 2 * N), y=labels)[N:].to_csv(where / "data.csv", index=False)
    (where / "own.py").write_text(OWN)
    return where


@pytest.fixture
def scan(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(folder)

    def scanned(*more: str) -> tuple[Result, AuditReport]:
        flags = ["--data", "data.csv", "--target", "y", "--positive", "yes", "--sensitive", "sex", "--format", "json"]
        result = CliRunner().invoke(app, ["scan", *flags, "--out", str(tmp_path), *more])
        assert (tmp_path / "report.json").exists(), result.output
        return result, AuditReport.from_json((tmp_path / "report.json").read_bytes())

    return scanned


def test_a_good_model_that_refuses_missing_values_exits_with_0(scan: Any) -> None:
    result, report = scan("model.joblib")
    assert result.exit_code == 0, result.output
    refused = [f for f in report.findings if f.metric in ("accuracy_under_missing", "flip_rate_under_missing")]
    assert len(refused) == 2
    assert all_of(f.outcome == "NOT_APPLICABLE" and "refuses missing values" in f.reason for f in refused)


PREDICT = ("held", "--features", "a,b,c", "--probes", "performance,group_fairness,robustness")


def test_a_function_of_the_users_own_that_refuses_them_exits_with_0(scan: Any) -> None:
    result, _ = scan("--predict", "own:good", *PREDICT)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "function",
    [
        *("crashes_on_ordinary_rows", "raises_on_everything", "raises_on_what_it_has_not_seen", "dies_of_gaps"),
        "breaks_for_good",
    ],
)
def test_an_accident_never_exits_with_0(scan: Any, function: str) -> None:
    result, report = scan("--predict", f"own:{function}", *PREDICT)
    assert result.exit_code == 3, result.output
    lost = [f for f in report.findings if f.outcome == "NOT_RUN"]
    assert "robustness" in {f.probe for f in lost}
    assert all_of("refuses missing values" not in f.reason for f in lost)


def test_a_requirement_that_the_model_refuses_to_meet_exits_with_3(scan: Any, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(
        '[[criteria]]\nmetric = "accuracy_under_missing"\ndirection = "at_least"\nbound = 0.5\nsource = "s"\n'
        'set_by = "w"\nset_at = "2026-01-01"\n'
    )
    result, report = scan("model.joblib", "--probes", "performance,robustness", "--policy", str(tmp_path / "own.toml"))
    assert result.exit_code == 3, result.output
    assert [f.metric for f in report.findings if f.outcome == "NOT_RUN"] == ["accuracy_under_missing"]
