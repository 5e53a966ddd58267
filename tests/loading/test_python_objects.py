"""Fitted objects in memory: audited by their own answers, in the form of rows that the caller uses, and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

import auditor
from auditor.loading.python_objects import NOTE
from auditor.loading.rows.caller_rows import CallerRows
from auditor.report.record.audit_report import AuditReport
from auditor.run.api import _FOR_COMMANDS
from auditor.run.option_parsers import ScanArguments
from auditor.run.scan_options import flags
from tests.quantifiers import all_of

QUICK = ["group_fairness", "performance"]
N = 1200


def world() -> tuple[pd.DataFrame, pd.Series[Any], pd.Series[Any]]:
    """Rows of numbers and a category under an index of their own, labels in words, and sex."""
    rng = np.random.default_rng(0)
    index = rng.permutation(N) + 7
    X = pd.DataFrame(
        {"income": rng.normal(size=N), "debt": rng.normal(size=N), "age": rng.integers(18, 80, N)}, index=index
    )
    X["job"] = pd.Categorical(rng.choice(["a", "b", "c"], N))
    sex = pd.Series(rng.choice(["f", "m"], N), index=index, name="sex")
    noise = rng.normal(size=N)
    y = np.where(X.income - X.debt + (X.job == "a") + 0.7 * (sex == "m") + noise > 0, "yes", "no")
    return X, pd.Series(y, index=index, name="approved"), sex


X, Y, SEX = world()
NUMBERS = X[["income", "debt", "age"]]


def numbers_of(report: AuditReport) -> dict[str, float]:
    """Accuracy and parity, as the report has them."""
    return {
        f.metric: f.value
        for f in report.findings
        if f.metric in ("accuracy", "demographic_parity_difference") and not f.group and f.value is not None
    }


def by_hand(predicted: Any, y: Any = Y) -> dict[str, float]:
    decided = np.asarray(predicted).ravel().astype(str)
    rates = [(decided[SEX == sex] == "yes").mean() for sex in ("f", "m")]
    return {"accuracy": (decided == np.asarray(y)).mean(), "demographic_parity_difference": abs(rates[0] - rates[1])}


def scan(model: object, rows: Any, **more: Any) -> AuditReport:
    said: dict[str, Any] = {"sensitive_features": SEX.to_numpy(), "positive": "yes", "probes": QUICK}
    return auditor.scan(model, rows, Y.to_numpy(), **(said | more))


def pipeline() -> Any:
    prepared = make_column_transformer((OneHotEncoder(), ["job"]), remainder=StandardScaler())
    return make_pipeline(prepared, LogisticRegression()).fit(X, Y)


@pytest.mark.parametrize(
    "model",
    [
        pipeline(),
        FixedThresholdClassifier(pipeline(), threshold=0.7, pos_label="yes").fit(X, Y),
        make_pipeline(make_column_transformer((OneHotEncoder(), ["job"])), LinearSVC()).fit(X, Y),
    ],
    ids=["pipeline", "threshold", "no probabilities"],
)
def test_an_estimator_is_judged_by_its_own_predict(model: Any) -> None:
    assert numbers_of(scan(model, X)) == pytest.approx(by_hand(model.predict(X)), abs=0.0)


@pytest.mark.parametrize("library", ["xgboost", "lightgbm", "catboost"])
def test_boosted_trees_in_memory_answer_as_their_library_does(library: str, tmp_path: Path) -> None:
    module = pytest.importorskip(library)
    labels = (Y == "yes").astype(int)
    model = {
        "xgboost": lambda: module.XGBClassifier(n_estimators=10, enable_categorical=True, n_jobs=1),
        "lightgbm": lambda: module.LGBMClassifier(n_estimators=10, verbose=-1, n_jobs=1),
        "catboost": lambda: module.CatBoostClassifier(
            iterations=10, verbose=0, cat_features=["job"], thread_count=1, allow_writing_files=False
        ),
    }[library]().fit(X, labels)
    said: dict[str, Any] = {"sensitive_features": SEX, "probes": QUICK}
    expected = by_hand(np.where(model.predict(X) == 1, "yes", "no"))
    assert numbers_of(auditor.scan(model, X, labels, **said)) == pytest.approx(expected, abs=0.0)
    ending = {"xgboost": "json", "lightgbm": "txt", "catboost": "cbm"}[library]
    with pytest.raises(auditor.AuditorError, match=rf"is saved as \.{ending}"):
        auditor.save(model, tmp_path / "x.joblib")
    auditor.save(model, tmp_path / f"x.{ending}")
    table = X.assign(sex=SEX, y=labels)
    from_file = auditor.scan(tmp_path / f"x.{ending}", table, target="y", sensitive="sex", probes=QUICK)
    assert numbers_of(from_file) == pytest.approx(expected, abs=0.0)


def test_the_model_is_asked_in_the_callers_form_of_rows() -> None:
    frame = make_pipeline(StandardScaler(), LogisticRegression()).fit(NUMBERS, Y)
    array = make_pipeline(StandardScaler(), LogisticRegression()).fit(NUMBERS.to_numpy(), Y)
    expected = by_hand(frame.predict(NUMBERS))
    table = pa.Table.from_pandas(NUMBERS, preserve_index=False)
    for model, rows in ((frame, NUMBERS), (array, NUMBERS.to_numpy()), (array, NUMBERS.to_numpy().tolist())):
        assert numbers_of(scan(model, rows)) == pytest.approx(expected, abs=0.0)
    asked: list[type] = []

    class Counting:
        classes_ = np.array(["no", "yes"])

        def predict(self, rows: Any) -> Any:
            asked.append(type(rows))
            return frame.predict(rows.to_pandas())

    assert numbers_of(scan(Counting(), table)) == pytest.approx(expected, abs=0.0)
    assert set(asked) == {pa.Table}
    # What takes no such table is asked with one of pandas.
    assert numbers_of(scan(frame, table.append_column("more", [list(range(N))]))) == pytest.approx(expected, abs=0.0)


def test_polars_rows_go_in_as_polars_rows() -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    rows = polars.from_pandas(NUMBERS)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, Y)
    report = scan(model, rows, sensitive_features=polars.DataFrame({"sex": SEX.to_numpy()}))
    assert numbers_of(report) == pytest.approx(by_hand(model.predict(rows)), abs=0.0)


def test_rows_come_back_as_they_were_given() -> None:
    given = X.assign(small=X.income.astype("float32"), word=X.job.astype("string")).rename(columns={"age": 3})
    held = CallerRows.from_object(given)
    pd.testing.assert_frame_equal(held.as_given(held.rows), given.reset_index(drop=True))
    few = held.rows.iloc[:5].assign(job=["a", None, "b", "c", "a"], **{"3": [1.5] * 5})
    back = held.as_given(few.astype({"job": object}))
    assert back["job"].dtype == given["job"].dtype and list(back[3]) == [1.5] * 5


@pytest.mark.parametrize(
    "groups",
    [SEX, SEX.to_frame(), {"sex": SEX.tolist()}, SEX.to_numpy(), SEX.tolist(), "sex", ["sex"]],
    ids=["Series", "DataFrame", "dict", "array", "list", "a column", "columns"],
)
def test_groups_come_in_any_form(groups: Any) -> None:
    rows, model = X.assign(sex=SEX), pipeline()
    report = auditor.scan(model, rows, Y, sensitive_features=groups, positive="yes", probes=QUICK)
    assert numbers_of(report) == pytest.approx(by_hand(model.predict(X)), abs=0.0)


def test_labels_and_groups_may_be_columns_and_a_feature_may_have_the_name_of_a_group() -> None:
    coded = NUMBERS.assign(sex=(SEX == "m").astype(int))
    model = LogisticRegression(max_iter=500).fit(coded, Y)
    expected = by_hand(model.predict(coded))
    apart = auditor.scan(model, coded, Y, sensitive_features=SEX, positive="yes", probes=QUICK)
    assert numbers_of(apart) == pytest.approx(expected, abs=0.0) and apart.data.sensitive == ("sex",)
    together = auditor.scan(
        model, coded.assign(approved=Y), target="approved", sensitive="sex", positive="yes", probes=QUICK
    )
    assert numbers_of(together) == pytest.approx(expected, abs=0.0)


def test_other_kinds_of_objects() -> None:
    labels = (Y == "yes").astype(int)
    said: dict[str, Any] = {"sensitive_features": SEX, "probes": QUICK}
    score = 1 / (1 + np.exp(NUMBERS.debt - NUMBERS.income))
    of_function = auditor.scan(
        lambda rows: 1 / (1 + np.exp(rows.debt - rows.income)), NUMBERS, labels, classes=[0, 1], **said
    )
    assert numbers_of(of_function) == pytest.approx(by_hand(np.where(score >= 0.5, "yes", "no")), abs=0.0)
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    inputs = torch.tensor(NUMBERS.to_numpy(), dtype=torch.float32)
    decided = np.where(network(inputs).argmax(1).numpy() == 1, "yes", "no")
    assert numbers_of(auditor.scan(network, inputs, labels, classes=[0, 1], **said)) == pytest.approx(by_hand(decided))
    target = NUMBERS.income * 2 + labels
    regressor = LinearRegression().fit(NUMBERS, target)
    report = auditor.scan(regressor, NUMBERS, target, sensitive_features=SEX, probes=["regression_fairness"])
    found = {f.group.get("sex"): f.value for f in report.findings if f.metric == "mean_absolute_error"}
    errors = np.abs(regressor.predict(NUMBERS) - target)
    assert found["f"] == pytest.approx(errors[SEX == "f"].mean())
    texts = [f"{'good' if yes else 'bad'} work {i % 7}" for i, yes in enumerate(labels)]
    of_texts = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, labels)
    assert numbers_of(auditor.scan(of_texts, texts, labels, **said))["accuracy"] == 1.0


class _Pipeline:
    """What transformers' pipeline of text classification is to a caller, with a lexicon for a network."""

    task = "text-classification"

    class model:
        class config:
            id2label = {0: "NEGATIVE", 1: "POSITIVE"}

    def __call__(self, texts: list[str], top_k: None = None) -> list[list[dict[str, Any]]]:
        shares = [0.9 if "good" in text else 0.2 for text in texts]
        return [[{"label": "POSITIVE", "score": p}, {"label": "NEGATIVE", "score": 1 - p}] for p in shares]


_Pipeline.__module__ = "transformers.pipelines.text_classification"


def test_a_pipeline_of_texts_answers_by_its_own_labels() -> None:
    texts = [f"{'good' if i % 3 else 'poor'} work {i}" for i in range(300)]
    labels = ["POSITIVE" if i % 3 or i % 5 == 0 else "NEGATIVE" for i in range(300)]
    report = auditor.scan(_Pipeline(), texts, labels, positive="POSITIVE", probes=["performance"])
    right = np.mean([("good" in text) == (label == "POSITIVE") for text, label in zip(texts, labels, strict=True)])
    assert next(f.value for f in report.findings if f.metric == "accuracy" and not f.group) == pytest.approx(right)


def test_training_rows_come_as_a_pair() -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(NUMBERS[:600], Y[:600])
    report = auditor.scan(
        model, NUMBERS[600:], Y[600:], positive="yes", train=(NUMBERS[:600], Y[:600]), probes=["membership_inference"]
    )
    assert report.data.n_train_rows == 600 and any(f.value is not None for f in report.findings)


def test_the_report_says_that_an_object_was_not_confined() -> None:
    report = scan(pipeline(), X)
    assert NOTE in report.model.notes and report.model.loaded_by == "the caller, as sklearn.Pipeline"
    assert report.environment.sandbox is None and "no sandbox confined it" in report.to_html()


@pytest.mark.parametrize(
    ("model", "rows", "more", "said"),
    [
        (object(), X, {}, "A object is no model that can be audited: give a path, a fitted estimator"),
        (
            LogisticRegression(),
            NUMBERS,
            {},
            "refused the rows: This LogisticRegression instance is not fitted yet",
        ),
        (torch.nn.Linear(3, 2), NUMBERS, {}, r"add classes=\[...\] in the order of its outputs"),
        (lambda rows: rows, NUMBERS, {}, r"has no classes_: add classes=\[...\]"),
        (
            pipeline(),
            X,
            {"positive": None},
            "Which label is favourable.*Add positive='no' or positive='yes'",
        ),
        (pipeline(), X, {"positive": "maybe"}, "none of the model's classes"),
        (pipeline(), X, {"target": "approved"}, "y= and target= both say what is true"),
        (pipeline(), X, {"sensitive_features": "sexx"}, "The rows have no column 'sexx'"),
        (
            pipeline(),
            X,
            {"sensitive_features": np.array(["f"] * 5)},
            "There are 1,200 rows, and 5 values of 'sensitive_feature'",
        ),
        (pipeline(), X, {"sensitive_features": SEX[::-1]}, "in another order, by its index"),
        (pipeline(), X, {"train": X}, r"is the pair \(X_train, y_train\)"),
        (pipeline(), X, {"device": "cuda"}, "this one is here already"),
        (pipeline(), 3, {}, "Rows are a table of pandas, polars or Arrow, an array, a list of texts, a path or"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(model: Any, rows: Any, more: dict[str, Any], said: str) -> None:
    with pytest.raises(auditor.AuditorError, match=said):
        scan(model, rows, **more)


def test_a_pipeline_is_saved_by_its_own_library_or_the_error_says_how(tmp_path: Path) -> None:
    model = pipeline()
    for name in ("x.joblib", "x.pkl", "x.skops"):
        auditor.save(model, tmp_path / name)
        read = auditor.load_model(tmp_path / name)
        assert read.provenance.path == str(tmp_path / name) and read.classes == ("no", "yes")
    for wrong, said in (
        ((model, "x.pt"), "is saved as .skops or .joblib or .pkl"),
        ((torch.nn.Linear(3, 2), "x.pt"), r"auditor.save\(auditor.TorchModel\(module, classes=\[...\]\), '.*x.pt'\)"),
        ((3, "x.joblib"), "A int is no model that can be saved"),
    ):
        with pytest.raises(auditor.AuditorError, match=said):
            auditor.save(wrong[0], tmp_path / wrong[1])


def test_the_signature_names_every_option_and_the_docstring_too() -> None:
    named = {"model", "target", "positive", "sensitive", "train", "probes", "seed", "error_rate"}
    assert set(get_type_hints(ScanArguments)) == set(flags()) - _FOR_COMMANDS - named
    explained = auditor.scan.__doc__ or ""
    assert all_of(f"``{name}``" in explained for name in get_type_hints(ScanArguments))


def test_a_report_saves_and_shows_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = scan(pipeline(), X)
    assert {f.outcome.value for f in report.failures} <= {"FAIL"} and report.failures == tuple(
        f for f in report.findings if f.outcome.value == "FAIL"
    )
    for name in ("r.html", "r.json", "r.md", "r.csv", "r.junit.xml", "r.model-card.md"):
        report.save(tmp_path / name)
    assert AuditReport.from_json((tmp_path / "r.json").read_text()) == report
    assert (tmp_path / "r.html").read_text() == report.to_html()
    assert (tmp_path / "r.junit.xml").read_text().startswith("<?xml")
    with pytest.raises(auditor.AuditorError, match=r"'.*r.doc' has none of .html, .json, .md, .pdf"):
        report.save(tmp_path / "r.doc")
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open_new_tab", opened.append)
    report.show()
    assert Path(opened[0].removeprefix("file://")).read_text() == report.to_html()
    names = dir(report)
    assert {"failures", "save", "show", "to_html", "to_frame", "findings", "exit_code"} <= set(names)
    assert [name for name in names if name.startswith(("model_dump", "_"))] == []
