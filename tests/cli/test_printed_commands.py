"""Commands that the tool prints are typed as they stand: whoever copies one is not refused for its spelling."""

from __future__ import annotations

import ast
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path

import click
import joblib
import numpy as np
import pandas as pd
import pytest
import typer
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner, Result

import cli.start
from auditor.models.saved_models import save
from auditor.report.first_page import first_page
from auditor.report.markdown import render_markdown
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.provenance_of_number import traces_of
from auditor.report.remediation import remediation_of
from auditor.run.scan_options import ScanOptions
from cli.commands import app
from cli.help_pages import leaf_commands
from cli.mitigate import complete_out
from mitigations import MITIGATIONS
from tests import ROOT
from tests.mitigations.planted_rows import biased_rows, trained
from tests.quantifiers import all_of
from tests.real.test_ordinary_files import followed
from tests.toys.ordinary import ORDINARY, Ordinary, ordinary, people

MENTION = re.compile(r"\bauditor ([a-z]+(?:-[a-z]+)*(?: [a-z]+(?:-[a-z]+)*)?)\b([^.;:)\n]*)")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]\b")
# What the tool cannot know, and a user fills in.
TO_FILL_IN = re.compile(r"\.\.\.|<|\b(?:MODEL|DATA|TRAIN|FILE|COLUMN|NAME|KEY|FOLDER)\b")
TABLES = ("rows.csv", "texts.csv")


@ordinary("model bundle, .pt")
def _bundle(folder: Path) -> Ordinary:
    rows = biased_rows(1200, 1)
    assert isinstance(rows.X, pd.DataFrame)
    rows.X.assign(y=rows.y_true).to_csv(folder / "rows.csv", index=False)
    save(trained(rows, epochs=12), folder / "model.pt")
    flags = ("--data", str(folder / "rows.csv"), "--target", "y", "--sensitive", "group")
    return Ordinary(folder / "model.pt", flags)


# Each of another format, and of a library's several endings.
FITTED_ANEW = {
    "model bundle, .pt": "fairer.pt",
    "scikit-learn pipeline of columns, joblib": "fairer.joblib",
    "scikit-learn logistic, pickle": "fairer.pkl",
    "scikit-learn logistic, skops": "fairer.skops",
    "LightGBM in a scikit-learn pipeline, joblib": "fairer.joblib",
    "XGBoost, .json": "fairer.json",
    "XGBoost, .ubj": "fairer.ubj",
    "LightGBM, .txt": "fairer.txt",
    "CatBoost, .cbm": "fairer.cbm",
    "CatBoost, .json": "fairer.json",
}
# Whose files name no columns.
UNNAMED = ("scikit-learn logistic, skops", "ONNX of scikit-learn, no ZipMap")
# What else is asked of every model of a table, and what it may answer that is no refusal.
TABLE_COMMANDS = {
    "scan": (("--stream", "--probes", "group_fairness", "--out", "out"), (0, 1, 3)),
    "explain": (("--row", "1", "--out", "out"), (0, 3)),
    "export": (("--to", "onnx", "--out", "made.onnx"), (0,)),
    "tradeoff": (
        ("--train", "train.csv", "--sweep", "constraints=demographic_parity", "--with", "deterministic=true")
        + ("--probes", "group_fairness", "--out", "out"),
        (0, 1, 3),
    ),
}
# What cannot be done with a model, and what the refusal says instead.
REFUSED = {
    ("export", "LightGBM in a scikit-learn pipeline, joblib"): "skl2onnx does not convert",
    ("export", "XGBoost, .json"): "after one-hot encoding",
    ("export", "XGBoost, .ubj"): "after one-hot encoding",
    ("export", "CatBoost, .cbm"): "after one-hot encoding",
    ("export", "CatBoost, .json"): "after one-hot encoding",
    ("export", "scikit-learn logistic, skops"): "fit the pipeline on a pandas DataFrame",
}


@cache
def commands() -> dict[str, click.Command]:
    return dict(leaf_commands(typer.main.get_command(app)))


def command_in(words: Sequence[str]) -> str:
    """The command that words type: the longest name of one that they begin with."""
    return next(name for name in (" ".join(words[:2]), words[0]) if name in commands())


def flags_of(name: str) -> set[str]:
    return {flag for parameter in commands()[name].params for flag in (*parameter.opts, *parameter.secondary_opts)}


def typed(command: str) -> list[str]:
    """The words of a command after ``auditor``, which its parser takes."""
    words = shlex.split(command)
    assert words[0] == "auditor", command
    try:
        name = command_in(words[1:])
        commands()[name].make_context(name, words[1 + len(name.split()) :])
    except click.ClickException as error:
        pytest.fail(f"{command}: {error.format_message()}")
    return words[1:]


def call(words: Sequence[str]) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        # Where a record's command comes from.
        patch.setattr(sys, "argv", ["auditor", *words])
        return CliRunner().invoke(app, list(words))


def printed_by(report: AuditReport) -> Iterator[str]:
    """Every command of a record's reports."""
    yield from (action.command for action in first_page(report).actions if not action.command.startswith("[["))
    yield remediation_of(report).retest
    yield from (trace.command for trace in traces_of(report) if trace.to_copy)
    yield from re.findall(r"`(auditor report [^`]*)`", render_markdown(report))


def audited(name: str, folder: Path, *more: str) -> AuditReport | None:
    """The audit of an ordinary file, with the flags that its refusal names; None where it comes to no audit."""
    file = ORDINARY[name](folder)
    rows = next((folder / table for table in TABLES if (folder / table).exists()), None)
    if rows is not None:
        (folder / "train.csv").write_bytes(rows.read_bytes())
        more = (*more, "--train", str(folder / "train.csv"))
    out = ["--format", "json", "--out", str(folder / "out")]
    path, flags = file.path, list[str]()
    for _ in range(2):
        result = call(["scan", str(path), *file.data, *more, *flags, "--probes", "group_fairness", *out])
        said = " ".join(result.output.split())
        assert set(FLAG.findall(said)) <= flags_of("scan") | {"--with"}, said
        for command in re.findall(r"`(auditor [^`]*)`", said):
            typed(command)
        if result.exit_code in (0, 1, 3):
            return AuditReport.from_json((folder / "out" / "report.json").read_bytes())
        path, flags, _ = followed(said, folder, file.path)
    return None


# ---- as they are written in the code ---------------------------------------------------------------------------------


def mentions() -> Iterator[tuple[str, str, list[str]]]:
    """(where, the command, the flags behind it up to the end of the clause) of every text that the tool may print."""
    for folder in ("auditor", "probes", "mitigations", "cli"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = [p.value if isinstance(p, ast.Constant) else "{}" for p in node.values]
                    yield from _in_text(path, "".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield from _in_text(path, node.value)
        for path in sorted((ROOT / folder).rglob("*.toml")):
            yield from chain.from_iterable(_in_text(path, text) for text in _texts(tomllib.loads(path.read_text())))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        yield from chain.from_iterable(map(_texts, value.values() if isinstance(value, dict) else value))


def _in_text(path: Path, text: str) -> Iterator[tuple[str, str, list[str]]]:
    for each in re.split(r"(?=\bauditor [a-z])", text):
        for words, rest in MENTION.findall(each):
            name = next((name for name in (words, words.split()[0]) if name in commands()), None)
            if name is not None:
                yield f"{path.relative_to(ROOT)}: {each.strip()[:100]}", name, FLAG.findall(rest)


def test_every_flag_of_a_command_that_the_tool_names_is_one_of_that_command() -> None:
    found = list(mentions())
    assert len(found) > 60
    wrong = [(where, flag) for where, name, flags in found for flag in flags if flag not in flags_of(name)]
    assert wrong == []


# ---- as a user copies them -------------------------------------------------------------------------------------------


@pytest.mark.grid
@pytest.mark.parametrize("name", sorted(ORDINARY))
def test_every_command_that_an_audit_prints_is_taken(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    report = audited(name, tmp_path)
    if report is None:
        return
    printed = dict.fromkeys(command for command in printed_by(report) if command)
    assert all_of(typed(command) and not TO_FILL_IN.search(command) for command in printed)
    repairs = [command for command in printed if command.startswith("auditor mitigate ")]
    assert [shlex.split(command)[-1] for command in repairs] == [FITTED_ANEW[name]] if name in FITTED_ANEW else True
    for command in printed:
        if command.startswith(("auditor mitigate list", "auditor start", "auditor report")):
            monkeypatch.chdir(tmp_path / "out")
            # ``start`` ends as the scan that it runs.
            ends = (0, 1, 3) if command.startswith("auditor start") else (0,)
            assert call(typed(command)).exit_code in ends, command
            monkeypatch.chdir(tmp_path)


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FITTED_ANEW))
def test_the_repair_of_the_first_page_writes_what_was_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    report = audited(name, tmp_path)
    assert report is not None
    (repair,) = (command for command in printed_by(report) if command.startswith("auditor mitigate "))
    # The ending of what was read is that of what is written, said or not.
    bare = repair.replace(f" --out {FITTED_ANEW[name]}", "")
    assert bare != repair
    for command in (repair, bare) if name == "model bundle, .pt" else (bare,):
        result = call(typed(command))
        made = tmp_path / FITTED_ANEW[name]
        after = AuditReport.from_json((tmp_path / "audit-report" / "after" / "report.json").read_bytes())
        assert after.model.format == report.model.format and made.is_file()
        assert result.exit_code == after.exit_code and f"exit {after.exit_code}, of the new" in result.output
    for command in re.findall(r"`(auditor [^`]*)`", " ".join(result.output.split())):
        typed(command)
    columns = ["--features", "a,b,c"] if name in UNNAMED else []
    asked = [
        "scan",
        str(made),
        *ORDINARY[name](tmp_path).data,
        *columns,
        "--probes",
        "group_fairness",
        "--out",
        "again",
    ]
    checked = call([*asked, "--check-predictions", f"{made.name}.predictions.csv", "--format", "json"])
    assert checked.exit_code in (0, 1, 3), checked.output
    record = AuditReport.from_json((tmp_path / "again" / "report.json").read_bytes())
    assert sum(f"as {made.name}.predictions.csv records of it" in note for note in record.data.notes) == 1
    if made.suffix in (".joblib", ".pkl"):
        own = joblib.load(made)
        assert isinstance(own, BaseEstimator) and len(own.predict(people()[list(own.feature_names_in_)]))


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(TABLE_COMMANDS))
@pytest.mark.parametrize("name", sorted({*FITTED_ANEW, "ONNX of scikit-learn, no ZipMap"}))
def test_every_table_model_is_taken_by_every_command_or_what_works_is_named(
    name: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = ORDINARY[name](tmp_path)
    rows = tmp_path / "rows.csv"
    (tmp_path / "train.csv").write_bytes(rows.read_bytes() + rows.read_bytes().split(b"\n", 1)[1])
    more, codes = TABLE_COMMANDS[command]
    data = list(file.data[:2]) if command == "export" else list(file.data)
    named = (
        ["--features", "a,b,c"] if name in ("scikit-learn logistic, skops", "ONNX of scikit-learn, no ZipMap") else []
    )
    words = [command, *(["threshold_optimizer"] if command == "tradeoff" else []), str(file.path), *data, *more]
    result = call([*words, *named])
    said = " ".join(result.output.split())
    # A library whose own decisions may be others says what to add, which is taken here too.
    if "add --threshold 0.5" in said:
        result = call([*words, *named, "--threshold", "0.5"])
        said = " ".join(result.output.split())
    if (command, name) in REFUSED:
        assert result.exit_code == 4 and REFUSED[command, name] in said, said
    else:
        assert result.exit_code in codes, said
    for printed in re.findall(r"`(auditor [^`]*)`", said):
        typed(printed)
    record = tmp_path / "out" / "report.json"
    if record.exists():
        for printed in filter(None, printed_by(AuditReport.from_json(record.read_bytes()))):
            typed(printed)


@pytest.mark.slow
def test_what_train_compare_and_gate_print_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _bundle(tmp_path)
    trained_anew = call(["train", "rows.csv", "--target", "y", "--positive", "1", "--out", "fairer.pt"])
    assert trained_anew.exit_code == 0, trained_anew.output
    (following,) = re.findall(r"auditor scan [^\n]*", trained_anew.output)
    first, again = (
        call([*typed(following), "--sensitive", "group", "--probes", "group_fairness", "--out", out])
        for out in ("first", "again")
    )
    assert {first.exit_code, again.exit_code} <= {0, 1, 3}, first.output
    compared = call(["compare", "first", "again", "--out", "comparison"])
    gated = call(["gate", "again", "--baseline", "first"])
    assert compared.exit_code in (0, 1, 3) and gated.exit_code in (0, 1, 3), gated.output
    for result in (trained_anew, first, compared, gated):
        for command in re.findall(r"^ *(?:\w+ +)?(auditor [a-z][^\n]*)|`(auditor [^`]*)`", result.output, re.MULTILINE):
            typed(command[0] or command[1])
    (repair,) = {line.strip() for line in gated.output.splitlines() if line.strip().startswith("auditor mitigate ")}
    assert shlex.split(repair)[-1] == "fairer-2.pt"
    assert call([*typed(repair), "--probes", "change"]).exit_code in (0, 1, 3) and Path("fairer-2.pt").is_file()


def test_a_wrong_ending_is_told_with_the_right_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = ORDINARY["scikit-learn pipeline, joblib"](tmp_path)
    (tmp_path / "train.csv").write_bytes((tmp_path / "rows.csv").read_bytes())
    asked = ["mitigate", "reweighing", str(file.path), *file.data, "--train", "train.csv", "--out"]
    unknown = call([*asked, "fairer.bin"])
    assert unknown.exit_code == 2 and "say --out fairer.joblib." in " ".join(unknown.output.split()), unknown.output
    other = call([*asked, "fairer.pt"])
    assert other.exit_code == 2 and "must end in .skops or .joblib or .pkl" in " ".join(other.output.split())
    rule = call(["mitigate", "threshold_optimizer", *asked[2:], "fairer.joblib"])
    assert rule.exit_code == 2 and "must be a folder" in rule.output and "say --out fairer." in rule.output


@pytest.mark.parametrize(
    ("mitigation", "model", "said", "expected"),
    [
        ("reweighing", "m.joblib", None, "fairer.joblib"),
        ("reweighing", "m.ubj", "new", "new.ubj"),
        ("reweighing", "m.txt", "new.txt", "new.txt"),
        ("threshold_optimizer", "m.cbm", None, "fairer"),
        ("threshold_optimizer", "m.pt", None, "fairer.pt"),
        ("exponentiated_gradient", "m.joblib", "new", "new"),
    ],
)
def test_the_ending_is_that_of_the_model_that_was_read(
    mitigation: str, model: str, said: str | None, expected: str
) -> None:
    out = complete_out(None if said is None else Path(said), MITIGATIONS[mitigation], Path(model))
    assert out == Path(expected)


def test_what_is_said_of_copies_can_be_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = ORDINARY["scikit-learn pipeline, joblib"](tmp_path)
    rows = pd.concat([pd.read_csv("rows.csv")] * 3).assign(person=np.tile(np.arange(len(people())), 3))
    for name, columns in (("rows", ["person"]), ("persons", [])):
        rows.drop(columns=columns).to_csv(f"{name}.csv", index=False)
        rows.drop(columns=columns).assign(a=rows["a"] + 0.01).to_csv(f"{name}.train.csv", index=False)
    asked = ["mitigate", "reweighing", str(file.path), "--target", "y", "--sensitive", "g", "--probes", "change"]
    said = {}
    for name, data, more in (
        ("bare", "rows", []),
        ("copies", "rows", ["--copies-are-real"]),
        ("persons", "persons", ["--cluster", "person"]),
    ):
        files = ["--data", f"{data}.csv", "--train", f"{data}.train.csv", "--out", f"{name}.joblib", "--report", name]
        result = call([*asked, *files, *more])
        assert result.exit_code in (0, 1, 3), result.output
        said[name] = " ".join(result.output.split())
    assert "say --copies-are-real" in said["bare"] and "--cluster COLUMN" in said["bare"]
    assert "exact copies" not in said["copies"] + said["persons"]
    named = set(FLAG.findall(said["bare"])) - {"--verbose"}  # of the terminal
    assert named and all_of(named <= flags_of(command) for command in ("mitigate", "tradeoff", "scan"))


def test_which_label_is_favourable_is_asked_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ORDINARY["scikit-learn pipeline, joblib"](tmp_path)
    rows = pd.read_csv("rows.csv").assign(y=np.where(people()["y"] == 1, "yes, granted", "no"))
    rows.to_csv("words.csv", index=False)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows[["a", "b", "c"]], rows["y"])
    joblib.dump(model, "words.joblib")
    asked = ["scan", "words.joblib", "--data", "words.csv", "--target", "y", "--sensitive", "g"]
    asked += ["--probes", "group_fairness", "--format", "json", "--out", "out"]
    refused = call(asked)
    said = " ".join(refused.output.split())
    assert refused.exit_code == 2 and "Add --positive no or --positive 'yes, granted'." in said, said
    assert not Path("out", "report.json").exists()
    # What is asked of nobody's favour needs none.
    assert call([word if word != "group_fairness" else "performance" for word in asked]).exit_code in (0, 1, 3)
    with monkeypatch.context() as patch:
        answers = iter(["perhaps", "yes, granted"])
        patch.setattr(typer, "prompt", lambda *_, **__: next(answers))
        options = cli.start.with_positive(ScanOptions(data="words.csv", target="y", sensitive=("g",)))
        assert options.positive == "yes, granted"
    for same in ({"target": "y", "data": "rows.csv"}, {"target": None, "data": "words.csv"}):
        assert cli.start.with_positive(ScanOptions(sensitive=("g",), **same)).positive is None  # type: ignore[arg-type]


OWN = """
import joblib

model = joblib.load("model.joblib")


def predict(rows):
    return model.predict_proba(rows)


def late(rows):
    return joblib.load("model.joblib").predict_proba(rows)


predict.classes = late.classes = ["0", "1"]
"""


@pytest.mark.parametrize("function", ["predict", "late"])
def test_code_of_the_users_own_finds_what_is_named_as_the_model_where_the_command_was_started(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = ORDINARY["scikit-learn pipeline, joblib"](tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    asked = ["scan", "model.joblib", "--predict", f"own:{function}", *file.data, "--features", "a,b,c"]
    asked += ["--probes", "group_fairness"]
    result = call([*asked, "--format", "json", "--out", "out"])
    assert result.exit_code == 3, result.output
    report = AuditReport.from_json((tmp_path / "out" / "report.json").read_bytes())
    assert "NOT_RUN" not in {finding.outcome for finding in report.findings}
