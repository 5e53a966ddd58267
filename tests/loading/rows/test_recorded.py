"""Scans of a model's own answers: what they can tell is told as of the model itself, and nothing pretends to ask."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

import auditor
from auditor.core.errors import DataError
from auditor.data.audit_data import AuditData
from auditor.data.audit_data_parts import Recorded
from auditor.loading.job_specs import DataSpec, ModelSpec, RecordedSpec
from auditor.loading.rows.data_without_model import load_recorded
from auditor.models.recorded_model import RecordedClassifier, RecordedRegressor, RecordedWriter
from auditor.run.run_audit import run_audit
from cli.commands import app
from probes import PROBES
from tests.quantifiers import all_of, none_of

ASKS_NOTHING_ELSE = "group_fairness,adverse_impact,score_fairness,subgroup_discovery,proxy_association"
RUNNER = CliRunner()


def run(*arguments: object) -> Result:
    return RUNNER.invoke(app, [str(a) for a in arguments])


def scores(frame: pd.DataFrame) -> Any:
    """P(yes) of a model that looks at one column, and a little at the group."""
    return 1.0 / (1.0 + np.exp(-(1.5 * frame["a"] + 0.4 * (frame["sex"] == "m"))))


def table(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"a": rng.normal(size=n), "b": rng.normal(size=n), "sex": rng.choice(["f", "m"], n)})
    frame["y"] = np.where(rng.random(n) < scores(frame), "yes", "no")
    return frame


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows, the same rows with a model's answers in them, and the model."""
    folder = tmp_path_factory.mktemp("recorded")
    for name, n, seed in (("test", 900, 0), ("train", 700, 1)):
        frame = table(n, seed)
        frame.to_csv(folder / f"{name}.csv", index=False)
        answers = frame.assign(s=scores(frame))
        answers["said"] = np.where(answers["s"] >= 0.5, "yes", "no")
        answers.to_csv(folder / f"{name}_answers.csv", index=False)
    model = (
        "import numpy as np\n\n\ndef ask(X):\n    p = 1.0 / (1.0 + np.exp(-(1.5 * X['a'] + 0.4 * (X['sex'] == 'm'))))\n"
    )
    (folder / "rules.py").write_text(model + "    return np.asarray(p)\n\n\nask.classes = ['no', 'yes']\n")
    return folder


@pytest.fixture
def here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def numbers(report: dict[str, Any]) -> dict[str, Any]:
    """Every number of a record by what it is about."""
    coordinates = ("probe", "metric", "method", "sensitive", "group", "at")
    return {
        json.dumps([f[c] for c in coordinates]): (
            # The last digit depends on the order in which a database gives the rows.
            float(f"{f['value']:.12g}"),
            [end if end is None else float(f"{end:.9g}") for end in f["interval"]],
            f["n_samples"],
            f["outcome"],
        )
        for f in report["findings"]
        if f["value"] is not None
    }


ROWS = ("--target", "y", "--positive", "yes", "--sensitive", "sex", "--quiet")


@pytest.mark.slow
def test_answers_give_every_number_that_the_model_gives(here: Path) -> None:
    asked = ("--probes", ASKS_NOTHING_ELSE + ",membership_inference", "--features", "a,b,sex")
    run("scan", "--predict", "rules:ask", "--data", "test.csv", "--train", "train.csv", *asked, *ROWS, "--out", "m")
    told = run(
        "scan", "--predictions", "test_answers.csv", "--train", "train_answers.csv", "--score", "s", *asked, *ROWS,
        "--out", "p",
    )  # fmt: skip
    of_model, of_answers = numbers(report_of(here / "m")), numbers(report_of(here / "p"))
    of_model = {k: v for k, v in of_model.items() if json.loads(k)[0] != "intake"}
    assert told.exit_code == report_of(here / "m")["exit_code"], told.output
    assert len(of_answers) > 60 and of_answers == of_model
    assert "No model was asked" in report_of(here / "p")["model"]["notes"][0]


@pytest.mark.slow
def test_what_would_have_to_ask_says_so_and_nothing_dies(here: Path) -> None:
    """Every probe there is, over answers alone: each answers from them or is NOT_APPLICABLE."""
    result = run("scan", "--predictions", "test_answers.csv", "--score", "s", *ROWS, "--out", "p")
    findings = report_of(here / "p")["findings"]
    assert {f["probe"] for f in findings} == {*PROBES, "intake"}
    assert none_of(f["outcome"] == "NOT_RUN" for f in findings), result.output
    spoke = {f["probe"] for f in findings if f["value"] is not None}
    assert spoke >= set(ASKS_NOTHING_ELSE.split(","))
    silent = {f["probe"]: f["reason"] for f in findings if f["probe"] not in spoke}
    for probe in ("counterfactual_fairness", "feature_attribution", "robustness"):
        assert "only its predictions are here" in silent[probe]


def test_decisions_alone_answer_what_decisions_can(here: Path) -> None:
    both = ("--probes", "group_fairness,score_fairness", *ROWS)
    run("scan", "--predictions", "test_answers.csv", "--score", "s", *both, "--out", "p")
    run("scan", "--predictions", "test_answers.csv", "--predicted", "said", *both, "--out", "d")
    of_scores, of_decisions = numbers(report_of(here / "p")), numbers(report_of(here / "d"))
    assert {json.loads(key)[0] for key in of_decisions} == {"group_fairness", "performance"}
    of_groups = {key: number for key, number in of_decisions.items() if json.loads(key)[0] == "group_fairness"}
    assert all_of(of_scores[key] == number for key, number in of_groups.items())
    reasons = {f["probe"]: f["reason"] for f in report_of(here / "d")["findings"] if f["value"] is None}
    assert "add --score COLUMN" in reasons["score_fairness"]


def test_recorded_decisions_go_before_the_threshold() -> None:
    model = RecordedClassifier(classes=["no", "yes"], features=[])
    recorded = Recorded(scores=np.asarray([[0.1, 0.9], [0.7, 0.3]]), decisions=np.asarray([0, 1]))
    rows = AuditData(X=pd.DataFrame(index=range(2)), classes=("no", "yes"), positive=1, recorded=recorded)
    assert model.decisions(rows).tolist() == [0, 1]
    alone = Recorded(scores=recorded.scores)
    rows = AuditData(X=pd.DataFrame(index=range(2)), classes=("no", "yes"), positive=1, recorded=alone)
    assert model.decisions(rows).tolist() == [1, 0]
    strict = RecordedClassifier(classes=["no", "yes"], features=[], threshold=0.95)
    assert strict.decisions(rows).tolist() == [0, 0]


@pytest.mark.grid
@pytest.mark.parametrize("name", list(PROBES))
def test_no_probe_dies_of_answers_alone(name: str) -> None:
    """In the process, where an error of any kind would be NOT_RUN, for each kind of recorded model."""
    rng = np.random.default_rng(0)
    n = 60
    X = pd.DataFrame({"a": rng.normal(size=n), "b": rng.normal(size=n)})
    groups = pd.DataFrame({"sex": rng.choice(["f", "m"], n)})
    p = rng.random(n)
    member = np.arange(n) % 2 == 0
    for recorded in (
        Recorded(scores=np.column_stack([1 - p, p])),
        Recorded(decisions=(p > 0.5).astype(np.int64)),
        Recorded(losses=p),
    ):
        classifier = RecordedClassifier(classes=["0", "1"], features=["a", "b"])
        rows = AuditData(
            X=X, y_true=rng.integers(0, 2, n), classes=("0", "1"), positive=1, sensitive_features=groups,
            is_member=member, recorded=recorded,
        )  # fmt: skip
        check(run_audit(classifier, rows, [made(name)], []).findings)
    regressor = RecordedRegressor(features=["a", "b"])
    rows = AuditData(X=X, target_values=rng.random(n), sensitive_features=groups, recorded=Recorded(numbers=p))
    check(run_audit(regressor, rows, [made(name)], []).findings)
    texts = Recorded(texts=np.asarray([f"text {i}" for i in range(n)], object))
    rows = AuditData(X=X, sensitive_features=groups, recorded=texts)
    check(run_audit(RecordedWriter(), rows, [made(name)], []).findings)


def made(name: str) -> Any:
    from tests.toys.models import scorer

    options: dict[str, Any] = {"scorer": scorer()} if name == "generated_text" else {}
    if name in ("crows_pairs", "stereoset", "winobias", "winogender", "bbq", "misfire", "bold", "honest"):
        return PROBES[name]()
    return PROBES[name](**options)


def check(findings: Any) -> None:
    assert none_of(f.outcome == "NOT_RUN" for f in findings), [f.reason for f in findings if f.outcome == "NOT_RUN"]


def test_a_regression_by_its_numbers(here: Path) -> None:
    frame = pd.read_csv("test.csv").assign(
        true=lambda t: 3 * t["a"], guess=lambda t: 3 * t["a"] + 0.5 * (t["sex"] == "m")
    )
    frame.to_parquet("r.parquet")
    result = run(
        "scan", "--predictions", "r.parquet", "--predicted", "guess", "--target", "true", "--task", "regression",
        "--sensitive", "sex", "--probes", "regression_fairness,group_fairness", "--quiet", "--out", "r",
    )  # fmt: skip
    found = {(f["metric"], json.dumps(f["group"])): f["value"] for f in report_of(here / "r")["findings"]}
    assert found[("mean_absolute_error", json.dumps({"sex": "m"}))] == pytest.approx(0.5), result.output
    assert found[("mean_absolute_error", json.dumps({"sex": "f"}))] == pytest.approx(0.0, abs=1e-12)


def load(
    frame: pd.DataFrame, tmp_path: Path, recorded: RecordedSpec, model: ModelSpec | None = None, **data: Any
) -> Any:
    frame.to_csv(tmp_path / "f.csv", index=False)
    return load_recorded(model or ModelSpec(), DataSpec(path=str(tmp_path / "f.csv"), recorded=recorded, **data))


def test_several_classes_by_one_score_each(tmp_path: Path) -> None:
    frame = pd.DataFrame({"y": ["a", "c", "b"], "pc": [0.1, 0.8, 0.2], "pa": [0.7, 0.1, 0.2], "pb": [0.2, 0.1, 0.6]})
    model, data = load(frame, tmp_path, RecordedSpec(score=("a=pa", "b=pb", "c=pc")), target="y", positive="a")
    assert model.classes == ("a", "b", "c") and data.y_true.tolist() == [0, 2, 1] and list(data.X.columns) == []
    assert model.outputs(data)[1].tolist() == [0.1, 0.1, 0.8] and model.decisions(data).tolist() == [0, 2, 1]


def test_the_favourable_label_is_whose_score_it_is(tmp_path: Path) -> None:
    frame = pd.DataFrame({"deny": ["yes", "no", "no"], "s": [0.2, 0.9, 0.4]})
    model, data = load(frame, tmp_path, RecordedSpec(score=("s",)), target="deny", positive="no")
    assert model.classes == ("yes", "no") and model.outputs(data)[:, data.positive].tolist() == [0.2, 0.9, 0.4]
    named, data = load(
        frame, tmp_path, RecordedSpec(score=("s",)), ModelSpec(classes=("no", "yes")), target="deny", positive="no"
    )
    assert named.classes == ("no", "yes") and named.outputs(data)[:, 0].tolist() == [0.2, 0.9, 0.4]
    plain, data = load(frame.assign(deny=[1, 0, 1]), tmp_path, RecordedSpec(score=("s",)), target="deny")
    assert plain.classes == ("0", "1") and plain.outputs(data)[:, 1].tolist() == [0.2, 0.9, 0.4]


def test_losses_alone_give_membership_and_nothing_else(here: Path) -> None:
    rng = np.random.default_rng(3)
    pd.DataFrame({"loss": rng.exponential(1.0, 1_500)}).to_csv("out.csv", index=False)
    pd.DataFrame({"loss": rng.exponential(0.4, 1_500)}).to_csv("in.csv", index=False)
    result = run(
        "scan", "--predictions", "out.csv", "--train", "in.csv", "--loss", "loss", "--probes",
        "membership_inference,group_fairness", "--quiet", "--out", "l",
    )  # fmt: skip
    assert result.exit_code == 1, result.output
    found = [f for f in report_of(here / "l")["findings"] if f["metric"] == "attack_auc"]
    judged = {f["method"]: f["outcome"] for f in found}
    assert judged == {
        None: "FAIL", "loss_threshold": "NOT_JUDGED", "loss_threshold_per_class": "NOT_JUDGED",
        "quantile_regression": "NOT_APPLICABLE",
    }  # fmt: skip
    # P(an exponential of mean 0.4 is the smaller one) = 1 / (1 + 0.4).
    assert found[0]["value"] == pytest.approx(1 / 1.4, abs=0.03)


def test_a_detector_by_its_scores(here: Path) -> None:
    rng = np.random.default_rng(4)
    kind = np.where(np.arange(600) % 2 == 0, "real", "fake")
    frame = pd.DataFrame({"file": [f"{i}.png" for i in range(600)], "kind": kind})
    frame["generator"] = np.where(kind == "real", "", np.where(np.arange(600) % 4 == 1, "gan", "diffusion"))
    frame["s"] = np.clip(rng.beta(2, 5, 600) + 0.4 * (kind == "fake"), 0.0, 1.0)
    frame.to_csv("d.csv", index=False)
    run(
        "scan", "--predictions", "d.csv", "--score", "s", "--target", "kind", "--positive", "fake", "--sensitive",
        "generator", "--probes", "detector_performance,trivial_cues", "--quiet", "--out", "d",
    )  # fmt: skip
    findings = report_of(here / "d")["findings"]
    from sklearn.metrics import roc_auc_score

    overall = next(f for f in findings if f["metric"] == "auc" and not f["group"] and not f["at"])
    assert overall["value"] == pytest.approx(roc_auc_score(kind == "fake", frame["s"]))
    assert {f["probe"]: f["outcome"] for f in findings}["trivial_cues"] == "NOT_APPLICABLE"


def test_texts_that_a_model_wrote(here: Path) -> None:
    pytest.importorskip("vaderSentiment", reason="the default scorer is not installed")
    frame = pd.DataFrame(
        {"about": ["a", "b"] * 300, "text": ["What a lovely day", "A horrible, terrible person"] * 300}
    )
    frame.to_csv("texts.csv", index=False)
    run("scan", "--predictions", "texts.csv", "--generated", "text", "--sensitive", "about", "--quiet", "--out", "t")
    found = {f["metric"]: f for f in report_of(here / "t")["findings"]}
    assert found["worst_text_score_gap"]["value"] > 0.5 and found["worst_text_score_gap"]["interval"][0] > 0.4
    assert found["pii_rate"]["value"] == 0.0
    assert none_of(f["outcome"] == "NOT_RUN" for f in report_of(here / "t")["findings"])


@pytest.mark.grid
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["model.pt", "--predictions", "test_answers.csv", "--score", "s"], "leave MODEL out"),
        (["--predictions", "test_answers.csv", "--data", "test.csv", "--score", "s"], "leave --data out"),
        (["--predictions", "test_answers.csv", "--target", "y"], "--score COLUMN or --predicted COLUMN"),
        (["model.pt", "--score", "s"], "add --predictions FILE"),
        (["--predictions", "test_answers.csv", "--score", "z", "--target", "y"], "no column 'z'"),
        (["--predictions", "test_answers.csv", "--score", "s", "--target", "y"], "name it with --positive"),
        (["--predictions", "test_answers.csv", "--score", "s", "--score", "a"], "scan once for each"),
        (["--predictions", "test_answers.csv", "--score", "yes=s"], "once for every class"),
        (["--predictions", "test_answers.csv", "--predicted", "s", "--target", "y"], "--task regression"),
        (["--predictions", "test_answers.csv", "--score", "s", "--task", "regression"], "use --predicted COLUMN"),
        (["--predictions", "test_answers.csv", "--generated", "y", "--target", "y"], "no --target"),
        (["--predictions", "absent.csv", "--score", "s"], "There is no data file"),
        (["--predictions", "sqlite:///rows.db", "--score", "s"], "--query FILE"),
        (["--predictions", "test_answers.csv", "--score", "s", "--query", "q.sql"], "--data postgresql://"),
    ],
)
def test_what_contradicts_itself_is_one_sentence(here: Path, arguments: list[str], says: str) -> None:
    result = run("scan", *arguments)
    assert result.exit_code == 2 and says in " ".join(result.output.split()), result.output
    assert "Traceback" not in result.output and len(result.output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ([0.2, 1.4, 0.1], "runs from 0.1 to 1.4"),
        ([0.2, None, 0.1], "empty in 1 rows"),
        ([0.2, float("inf"), 0.1], "empty in 1 rows"),
    ],
)
def test_scores_that_are_none_are_refused(tmp_path: Path, column: list[float | None], says: str) -> None:
    frame = pd.DataFrame({"y": [0, 1, 1], "s": column})
    with pytest.raises(DataError, match=says):
        load(frame, tmp_path, RecordedSpec(score=("s",)), target="y")


def test_scores_that_do_not_add_up_are_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"y": ["a", "b"], "pa": [0.5, 0.5], "pb": [0.5, 0.6]})
    with pytest.raises(DataError, match="1 rows.*do not add up to 1"):
        load(frame, tmp_path, RecordedSpec(score=("a=pa", "b=pb")), target="y")


def test_rows_apart_by_their_scores_alone_are_no_copies(tmp_path: Path) -> None:
    """Without features, equal labels would make nearly every row a copy of another."""
    frame = pd.DataFrame({"y": [0, 1] * 50, "s": np.linspace(0.01, 0.99, 100)})
    _, data = load(frame, tmp_path, RecordedSpec(score=("s",)), target="y")
    assert len(set(data.keys.tolist())) == 100
    _, data = load(frame.assign(s=0.5), tmp_path, RecordedSpec(score=("s",)), target="y")
    assert len(set(data.keys.tolist())) == 2


def test_the_public_api_takes_a_frame() -> None:
    frame = table(400, 5)
    frame["s"] = scores(frame)
    report = auditor.scan(
        None, predictions=frame, score="s", target="y", positive="yes", sensitive=["sex"], probes=["group_fairness"]
    )
    assert report.data.n_rows == 400 and report.data.path is None
    assert any(f.metric == "demographic_parity_difference" and f.value is not None for f in report.findings)


# ---- out of a database ---------------------------------------------------------------------------------------------


@pytest.fixture
def database(here: Path) -> Path:
    pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed")
    with sqlite3.connect("rows.db") as connection:
        pd.read_csv("test_answers.csv").to_sql("answers", connection, index=False)
    Path("q.sql").write_text("SELECT y, s, sex FROM answers -- 100 % of :them\n")
    return here


def test_rows_of_a_query_are_the_rows_of_the_file(database: Path) -> None:
    asked = ("--score", "s", "--probes", "group_fairness", *ROWS)
    result = run("scan", "--predictions", "sqlite:///rows.db", "--query", "q.sql", *asked, "--out", "q")
    run("scan", "--predictions", "test_answers.csv", *asked, "--out", "p")
    queried, filed = report_of(database / "q"), report_of(database / "p")
    assert numbers(queried) == numbers(filed), result.output
    assert queried["data"]["path"] == "sqlite:///rows.db"
    assert "q.sql (sha256" in queried["data"]["notes"][-1] and not list(database.glob("**/rows.parquet"))


@pytest.mark.parametrize("statement", ["DELETE FROM answers", "DROP TABLE answers", "UPDATE answers SET y = 'no'"])
def test_nothing_is_written_into_a_database(database: Path, statement: str) -> None:
    before = Path("rows.db").read_bytes()
    Path("w.sql").write_text(statement)
    result = run("scan", "--predictions", "sqlite:///rows.db", "--query", "w.sql", "--score", "s", *ROWS)
    assert result.exit_code == 2 and "readonly" in result.output and Path("rows.db").read_bytes() == before


@pytest.mark.parametrize(
    ("url", "query", "says"),
    [
        ("oracle://u:geheim@h/x", "SELECT 1", "export the rows to a Parquet file"),
        ("postgresql://u:geheim@127.0.0.1:1/x", "SELECT 1", "does not answer"),
        ("sqlite:///absent.db", "SELECT 1", "There is no database"),
        ("sqlite:///rows.db", "SELEC 1", "syntax error"),
        ("sqlite:///rows.db", "", "is empty"),
        ("sqlite:///rows.db", "SELECT y, y FROM answers", "rename one with AS"),
        ("sqlite:///rows.db", "SELECT y FROM answers WHERE 1 = 0", "finds no rows"),
        ("sqlite:///rows.db", "SELECT x'00ff' AS y", "holds bytes"),
    ],
)
def test_a_query_that_fails_is_one_sentence(database: Path, url: str, query: str, says: str) -> None:
    Path("w.sql").write_text(query)
    result = run("scan", "--predictions", url, "--query", "w.sql", "--score", "s")
    assert result.exit_code in (2, 4) and says in " ".join(result.output.split()), result.output
    assert "geheim" not in result.output and "Traceback" not in result.output


def test_passwords_stay_out_of_words() -> None:
    pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed")
    from auditor.loading.rows.sql import printable_url

    assert printable_url("postgresql://ann:geheim@host/db?password=geheim") == "postgresql://host/db"
    assert printable_url("ann:geheim, no url") == "The --data that was given"


@pytest.mark.slow
def test_a_postgresql_is_read_and_not_written(postgres: str, here: Path) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(postgres)
    answers = pd.read_csv("test_answers.csv")
    answers.to_sql("answers", engine, index=False)
    Path("q.sql").write_text("SELECT y, s::numeric AS s, sex, now() AS at FROM answers")
    asked = ("--score", "s", "--features", "sex", "--probes", "group_fairness", *ROWS)
    result = run("scan", "--predictions", postgres, "--query", "q.sql", *asked, "--out", "q")
    run("scan", "--predictions", "test_answers.csv", *asked, "--out", "p")
    assert numbers(report_of(here / "q")) == numbers(report_of(here / "p")), result.output
    Path("w.sql").write_text("WITH gone AS (DELETE FROM answers RETURNING *) SELECT * FROM gone")
    refused = run("scan", "--predictions", postgres, "--query", "w.sql", *asked)
    assert refused.exit_code == 2 and "read-only" in refused.output
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM answers").scalar() == len(answers)
    engine.dispose()


def test_texts_that_differ_are_no_copies_although_each_stands_once(tmp_path: Path) -> None:
    """A column of short texts looks like one that numbers the rows, without which all of a group are alike."""
    path = tmp_path / "texts.csv"
    path.write_text("about,text\n" + "".join(f"{('nurse', 'pilot')[i % 2]},A kind one ({i})\n" for i in range(3000)))
    spec = DataSpec(path=str(path), sensitive=("about",), recorded=RecordedSpec(generated="text"))
    _, data = load_recorded(ModelSpec(), spec)
    assert data.copies is not None and data.copies.copies == 0
    assert not [note for note in data.notes if "copies" in note]
    path.write_text("about,text\n" + "nurse,A kind one\npilot,Another\n" * 1500)
    assert (load_recorded(ModelSpec(), spec)[1].copies or data.copies).copies == 2998
