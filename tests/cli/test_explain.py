"""``auditor explain`` as a user runs it: every kind of model in its own process, exit codes, words, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from skops.io import dump
from typer.testing import CliRunner

from auditor.core.errors import UsageError
from auditor.judging.row_explanations import Change, ExplainedRow
from auditor.loading.rows.table_files import open_table
from auditor.models.saved_models import save
from auditor.report.html import moment
from auditor.report.reasons_page import Wording
from auditor.report.record.configuration import About, Labels
from auditor.run.job_messages import RowExplained
from auditor.run.job_results import RowsExplained
from cli.commands import app
from tests.mitigations.planted_rows import biased_rows, trained
from tests.probes.reasons.test_explain import explained, linear, people
from tests.quantifiers import all_of
from tests.toys.folders import save_bert

RUNNER = CliRunner()
FUNCTION = """
def decide(X):
    return 0.36 + 0.1 * X["income"] - 0.06 * X["debt"] + 0.03 * X["years"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("explain")
    frame = people(400)
    frame.loc[0], frame.loc[1] = [0, 4, 1, 2, 1], [4, 0, 4, 0, 0]
    frame.assign(granted=np.where(linear(frame) >= 0.5, "yes", "no")).to_csv(where / "rows.csv", index=False)
    (where / "own_rule.py").write_text(FUNCTION)
    forest = RandomForestClassifier(20, max_depth=5, random_state=0).fit(
        frame, np.where(linear(frame) >= 0.5, "yes", "no")
    )
    dump(forest, where / "forest.skops")
    homes = frame.assign(home=np.resize(["own", "rent", "rent"], 400))
    homes.to_csv(where / "homes.csv", index=False)
    encode = ColumnTransformer([("home", OneHotEncoder(), ["home"])], remainder="passthrough")
    piped = make_pipeline(encode, RandomForestClassifier(20, max_depth=6, random_state=0))
    y = np.where(linear(homes) + 0.2 * (homes["home"] == "own") >= 0.55, "yes", "no")
    dump(piped.fit(homes, y), where / "homes.skops")
    data = biased_rows(400, 3)
    data.X.assign(y=data.y_true).to_csv(where / "planted.csv", index=False)
    save(trained(data, epochs=4), where / "planted.pt")
    return where


def call(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    monkeypatch.chdir(folder)
    result = RUNNER.invoke(app, ["explain", *arguments])
    return result.exit_code, " ".join(result.output.split())


FOREST = ("forest.skops", "--data", "rows.csv", "--target", "granted", "--positive", "yes", "--sensitive", "race")
BY_RULE = ("--predict", "own_rule:decide", "--classes", "no,yes", *FOREST[1:])


def test_a_refusal_is_explained_in_the_words_of_labels(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "audit.toml"
    config.write_text(
        '[labels]\ngranted.no = "declined"\nincome = "Monthly income"\n"income.0" = "no income"\nrace = "Skin colour"\n'
    )
    out = tmp_path / "out"
    code, said = call(
        folder, monkeypatch, *FOREST, "--row", "1", "--immutable", "years", "--monotone", "debt=down", "--draws", "10",
        "--config", str(config), "--out", str(out),
    )  # fmt: skip
    assert code == 0, said
    assert "Row 1: granted: declined, unfavourable" in said and "Principal reasons for the refusal" in said
    assert (
        "1. Monthly income = no income: contributes" in said
        and "Your entry “Monthly income: no income” counted" in said
    )
    assert (
        "#" * 40 in said
        and (out / "row-1.png").read_bytes().startswith(b"\x89PNG")
        and "exact Shapley values of trees" in said
    )
    assert "Monthly income from no income to" in said and "Left as they are: years, Skin colour" in said
    record = json.loads((out / "explanation.json").read_text())
    (row,) = record["rows"]
    assert row["method"] == "shap_tree" and record["exit_code"] == 0 and not row["faithfulness"]["refused"]
    assert len(row["same"]) == 5 and all_of(set(each) == {"row", "distance"} for each in row["same"] + row["other"])
    page = (out / "explanation.html").read_text()
    assert moment(record["created"]) in page and record["created"] not in page
    assert page.count("<svg") == 1 and "contribution to the decision" in page
    assert "Monthly income = no income" in page and "<script" not in page and "default-src &#39;none&#39;" in page


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "method"),
    [
        (BY_RULE, "shap_permutation"),
        (("homes.skops", "--data", "homes.csv", "--positive", "yes", "--sensitive", "race"), "shap_permutation"),
        (
            ("planted.pt", "--data", "planted.csv", "--target", "y", "--positive", "1", "--sensitive", "group"),
            "integrated_gradients",
        ),
    ],
)
def test_any_table_model_is_explained_as_json(
    folder: Path, monkeypatch: pytest.MonkeyPatch, model: tuple[str, ...], method: str
) -> None:
    code, said = call(folder, monkeypatch, *model, "--row", "2", "--row", "1", "--draws", "6", "--json")
    found = json.loads(said)
    assert code == found["exit_code"] and code in (0, 3)
    assert [row["row"] for row in found["rows"]] == [2, 1]
    assert {row["method"] for row in found["rows"]} == {method}
    for row in found["rows"]:
        assert row["favourable"] == (row["probability"] >= 0.5)
        assert bool(row["faithfulness"]["refused"]) == (not row["reasons"])


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["xgboost", "lightgbm", "catboost", "onnx"])
def test_boosted_trees_and_onnx_are_explained(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, method = _saved(kind, folder)
    more = ("--features", "income,debt,years,noise,race") if kind == "onnx" else ()
    code, said = call(
        folder, monkeypatch, name, *more, "--data", "coded.csv", "--target", "granted", "--positive", "1", "--row", "1",
        "--row", "4", "--draws", "6", "--json",
    )  # fmt: skip
    assert code == 0, said
    for row in json.loads(said)["rows"]:
        assert row["method"] == method and row["reasons"][0]["feature"] in ("income", "debt")
        # What is typical was drawn anew each time: a value that never moves was compared with something else.
        assert row["reasons"][0]["low"] < row["reasons"][0]["high"]


@pytest.mark.slow
def test_a_folder_of_a_text_model_has_reason_words(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_bert(folder / "bert")
    texts = ["good good bad day", "bad night bad day", "good day good night", "night bad bad"]
    pd.DataFrame({"text": texts}).to_csv(folder / "texts.csv", index=False)
    code, said = call(
        folder, monkeypatch, "bert", "--data", "texts.csv", "--text", "text", "--positive", "positive", "--row", "1",
        "--row", "4", "--draws", "3", "--json",
    )  # fmt: skip
    found = json.loads(said)
    assert code in (0, 3), said
    for row in found["rows"]:
        words = texts[row["row"] - 1].split()
        assert row["kind"] == "word" and row["recourse"]["none"] and not row["same"]
        assert all_of(reason["feature"] in words for reason in row["reasons"]) if row["reasons"] else code == 3


def _saved(kind: str, folder: Path) -> tuple[str, str]:
    """A model of ``coded.csv`` of that kind, by its name, and the method that fits it."""
    X = people(400)
    X.loc[0], X.loc[3] = [0, 4, 1, 2, 1], [0, 4, 0, 2, 0]
    y = (linear(X) >= 0.5).astype(int)
    X.assign(granted=y).to_csv(folder / "coded.csv", index=False)
    if kind == "onnx":
        types = pytest.importorskip("skl2onnx.common.data_types", reason="skl2onnx is not installed")
        from skl2onnx import to_onnx

        model = LogisticRegression(max_iter=1_000).fit(X.to_numpy(np.float32), y)
        made = to_onnx(model, initial_types=[("x", types.FloatTensorType([None, 5]))], options={"zipmap": False})
        (folder / "m.onnx").write_bytes(made.SerializeToString())
        return "m.onnx", "shap_permutation"
    library = pytest.importorskip(kind, reason=f"{kind} is not installed")
    if kind == "xgboost":
        library.XGBClassifier(n_estimators=30, max_depth=3, n_jobs=1).fit(X, y).save_model(folder / "x.json")
        return "x.json", "shap_tree"
    if kind == "lightgbm":
        model = library.LGBMClassifier(n_estimators=30, verbose=-1, n_jobs=1).fit(X, y)
        model.booster_.save_model(folder / "l.txt")
        return "l.txt", "shap_tree"
    model = library.CatBoostClassifier(iterations=40, verbose=0, thread_count=1, allow_writing_files=False).fit(X, y)
    model.save_model(str(folder / "c.cbm"))
    return "c.cbm", "shap_permutation"


@pytest.mark.slow
def test_where_nothing_may_change_the_answer_is_not_settled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = "income,debt,years,noise"
    code, said = call(folder, monkeypatch, *BY_RULE, "--row", "1", "--immutable", held, "--draws", "5")
    assert code == 3 and "every feature is fixed" in said and "no recourse found (exit 3)" in said


@pytest.mark.slow
def test_a_row_is_named_by_a_value_of_a_column_that_the_model_does_not_take(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pd.read_csv(folder / "rows.csv")
    rows.assign(application_id=np.arange(103_279, 103_679)).to_csv(folder / "numbered.csv", index=False)
    more = ("numbered.csv", *FOREST[3:], "--draws", "5")
    code, said = call(
        folder, monkeypatch, "forest.skops", "--data", *more, "--where", "application_id=103281", "--row", "1", "--json"
    )
    first, second = json.loads(said)["rows"]
    assert code in (0, 3) and (first["row"], first["named_by"]) == (1, "")
    assert (second["row"], second["named_by"]) == (3, "application_id=103281")
    by_number = json.loads(call(folder, monkeypatch, *FOREST, "--draws", "5", "--row", "3", "--json")[1])["rows"][0]
    assert (second["decision"], second["probability"]) == (by_number["decision"], by_number["probability"])
    for where, words in (
        ("application_id=7", "no row of numbered.csv has this value"),
        ("race=1", "rows of numbered.csv have this value"),
        ("race=", "no row of numbered.csv has a missing value"),
        ("aplication_id=7", "did you mean 'application_id'"),
    ):
        code, said = call(folder, monkeypatch, "forest.skops", "--data", *more, "--where", where)
        assert code == 2 and words in said, said


@pytest.mark.slow
def test_an_empty_value_names_the_row_in_which_it_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pd.read_csv(folder / "rows.csv")
    rows.assign(note=np.where(rows.index == 4, "", "seen")).to_csv(folder / "noted.csv", index=False)
    code, said = call(
        folder, monkeypatch, "forest.skops", "--data", "noted.csv", *FOREST[3:], "--draws", "5",
        "--where", "note=", "--json",
    )  # fmt: skip
    (row,) = json.loads(said)["rows"]
    assert code in (0, 3) and (row["row"], row["named_by"]) == (5, "note=")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_missing_number_or_text_is_found_and_never_taken_for_a_word(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    frame = pd.DataFrame(
        {"debt": [1.5, np.nan, 0.0], "kind": ["a", "b", None], "race": [0, 1, 1], "twice": [None, 2, None]}
    )
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    table = open_table(path)
    assert (table.row_where("debt", ""), table.row_where("kind", ""), table.row_where("debt", "0")) == (2, 3, 3)
    # As the file has it, and as its readers take it.
    assert (table.row_where("debt", "NA"), table.row_where("kind", "null")) == (2, 3)
    with pytest.raises(UsageError, match="no row of"):
        table.row_where("race", "NA")
    with pytest.raises(UsageError, match=r"2 rows of .* have a missing value \(1, 3\)"):
        table.row_where("twice", "")


def test_years_are_written_without_separators_and_amounts_of_their_size_with_them() -> None:
    words = Wording(About().catalogue, Labels({}), None, None)
    assert [words.value("year_built", x) for x in (2024, 1999.0, 2024.5, 20240)] == [
        "2024",
        "1999",
        "2,024.5",
        "20,240",
    ]
    assert words.value("income", 2024) == "2,024"
    assert words.required_value(Change(feature="birth_year", now=1999, then=2001.0)) == "2001"


@pytest.mark.parametrize("value", [5809, 5809.0, 5809.25, -5809, 999999.7, 1234567, 1234567.5])
def test_numbers_from_a_thousand_have_separators_in_every_sentence(value: float) -> None:
    words = Wording(About().catalogue, Labels({"year.2024": "this year"}), None, None)
    shown = words.value("income", value)
    assert "e+" not in shown and shown.count(",") == (2 if abs(value) >= 999_999.5 else 1)
    assert float(words.required_value(Change(feature="income", now=1, then=value)).replace(",", "")) == value
    assert (words.value("year", 2024), words.value("income", 999), words.value("income", True)) == (
        "this year",
        "999",
        "True",
    )


@pytest.mark.grid
@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ((), 2, "--where COLUMN=VALUE"),
        (("--where", "17"), 2, "must look like COLUMN=VALUE"),
        (("--where", "=17"), 2, "must look like COLUMN=VALUE"),
        (("--row", "0"), 2, "rows count from 1"),
        (("--row", "401"), 2, "rows 1 to 400"),
        (("--row", "9" * 20), 2, "rows 1 to 400"),
        (("--row", "1", "--immutable", "incom"), 2, "did you mean 'income'"),
        (("--row", "1", "--monotone", "income=left"), 2, "must look like income=up"),
        (("--row", "1", "--monotone", "in,come=up"), 2, "double quotes"),
        (("--row", "1", "--reasons", "0"), 2, "--reasons 0 must be from 1"),
        (("--row", "1", "--sensitive", "raze"), 2, "did you mean 'race'"),
    ],
)
def test_wrong_usage_is_a_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], code: int, words: str
) -> None:
    found, said = call(folder, monkeypatch, *BY_RULE, *more)
    assert found == code and words in said and "Traceback" not in said, said


def test_labels_of_nothing_and_files_that_are_no_model_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "audit.toml"
    config.write_text('[labels]\nincme = "Income"\n')
    code, said = call(folder, monkeypatch, *BY_RULE, "--row", "1", "--config", str(config))
    assert code == 2 and "did you mean 'income'" in said
    code, said = call(folder, monkeypatch, "rows.csv", *FOREST[1:], "--row", "1")
    assert code == 4 and said.startswith("auditor:")
    code, said = call(folder, monkeypatch, "forest.skops", "--row", "1")
    assert code == 2 and "--data FILE" in said


def test_a_child_speaks_of_no_row_that_it_was_not_asked_about() -> None:
    row = explained(linear, people(100), 3)
    assert isinstance(row, ExplainedRow)
    done = RowsExplained()
    done.begin(["3"])
    done.take(RowExplained(row=row), _quiet)
    assert done.rows == [row]
    with pytest.raises(ValueError, match="came again"):
        done.take(RowExplained(row=row), _quiet)
    with pytest.raises(ValueError, match="not asked for"):
        done.take(RowExplained(row=row.model_copy(update={"row": 4})), _quiet)


def _quiet(stage: str) -> Any:
    return None
