"""``auditor start``: what is asked, what is understood, and the configuration and the audit that come of it."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

import cli.start
from auditor.report.record.audit_report import AuditReport
from cli.commands import app
from tests.quantifiers import all_of
from tests.toys.ordinary import ORDINARY

RUNNER = CliRunner()


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A scikit-learn model beside its rows.csv of features a, b, c, labels y and groups g."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["auditor", "start"])
    return ORDINARY["scikit-learn pipeline, joblib"](tmp_path).path.name


def test_without_a_terminal_it_says_which_flags_to_give_and_they_are_taken(model: str, tmp_path: Path) -> None:
    refused = RUNNER.invoke(app, ["start", model, "rows.csv"])
    assert refused.exit_code == 2 and not (tmp_path / "audit.toml").exists()
    said = " ".join(refused.output.split())
    flags = shlex.split(said.partition("add ")[2].partition(", if")[0])
    assert {"--target", "--positive"} <= set(flags) and "(target: by name and two values" in said
    done = RUNNER.invoke(app, [model, "rows.csv", "--target", "y", "--positive", "1", "--sensitive", "g"])
    assert done.exit_code in (0, 1, 3), done.output
    written = tomllib.loads((tmp_path / "audit.toml").read_text())
    assert written["audit"]["model"] == model and written["audit"]["sensitive"] == ["g"]
    report = AuditReport.from_json((tmp_path / "audit-report" / "report.json").read_bytes())
    assert report.data.target == "y" and report.data.positive == "1"
    assert report.environment.command == "auditor scan --config audit.toml"


@pytest.mark.parametrize(
    ("columns", "target", "said"),
    [
        ({"a": [1, 2, 3], "approved": [0, 1, 1]}, "approved", "as no other: likely"),
        ({"hired": ["n", "y", "n"], "approved": [0, 1, 1]}, "hired", "as 1 more: unsure"),
        ({"p": [0, 1, 1], "q": [0, 1, 1], "a": [1, 2, 3]}, "q", "the last of 2 of two values, by no name: unsure"),
        (
            {"a": [*"uvwx"] * 10, "price": [i / 7 for i in range(40)]},
            "price",
            "by name and its numbers, as no other: likely",
        ),
        ({"a": ["u", "v", "w"]}, None, ""),
    ],
)
def test_a_guess_of_the_target_says_how_sure_it_is(columns: dict[str, Any], target: str | None, said: str) -> None:
    guess = cli.start._guess_columns(pd.DataFrame(columns))
    assert (guess.target or guess.number) == target
    assert said in guess.why_target and bool(said) == bool(guess.why_target)


def test_on_a_terminal_it_asks_shows_what_it_understood_and_opens_the_report(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(cli.start, "is_interactive", lambda: True)
    monkeypatch.setattr("typer.launch", opened.append)
    answers = ["z", "y", "1", "g", "ACME Bank", "Loans", "Recommends loans", "", "", "was refused", "was approved"]
    done = RUNNER.invoke(app, ["start", model, "rows.csv"], input="\n".join([*answers, "y", "y", ""]))
    assert done.exit_code in (0, 1, 3), done.output
    assert "There is no 'z'" in done.output and "favourable label   1" in done.output
    written = tomllib.loads((tmp_path / "audit.toml").read_text())
    assert written["organisation"] == {"name": "ACME Bank"} and written["model"] == {"name": "Loans"}
    assert written["system"] == {"purpose": "Recommends loans"} and "data" not in set(written) - {"audit"}
    assert written["labels"] == {"y.0": "was refused", "y.1": "was approved"}
    report = AuditReport.from_json((tmp_path / "audit-report" / "report.json").read_bytes())
    assert report.about is not None and report.about.organisation.name == "ACME Bank"
    assert report.about.display_labels.value("y", "1") == "was approved"
    assert opened == [str(Path("audit-report", "report.html"))]


def test_a_no_to_the_audit_leaves_the_configuration(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.start, "is_interactive", lambda: True)
    done = RUNNER.invoke(app, ["start", model, "rows.csv"], input="y\n1\n-\n" + "\n" * 7 + "n\n")
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "audit-report").exists()
    written = tomllib.loads((tmp_path / "audit.toml").read_text())
    assert set(written) == {"audit"} and "sensitive" not in written["audit"]
    assert "auditor scan --config audit.toml" in done.output


def test_an_end_of_the_answers_is_an_interrupt_and_writes_nothing(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.start, "is_interactive", lambda: True)
    done = RUNNER.invoke(app, ["start", model, "rows.csv"], input="y\n")
    assert done.exit_code == 130 and "interrupted" in done.output
    assert not (tmp_path / "audit.toml").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["start", "a", "b", "c"], "Name a model and a file of rows"),
        (["start", "http://127.0.0.1:1/v1", "rows.csv"], "auditor probes endpoint"),
        (["start", "missing.pt", "rows.csv"], "There is no model"),
        (["start", "rows.csv", "--target", "yy"], "There is no 'yy'"),
    ],
)
def test_a_wrong_start_is_one_sentence(model: str, words: list[str], says: str) -> None:
    refused = RUNNER.invoke(app, words)
    assert refused.exit_code == 2 and says in " ".join(refused.output.split()), refused.output
    assert all_of(len(line) < 400 for line in refused.output.splitlines())


def test_what_the_rows_alone_lead_to_runs_once_the_model_is_named_in_the_file(model: str, tmp_path: Path) -> None:
    done = RUNNER.invoke(app, ["start", "rows.csv", "--target", "y", "--sensitive", "g"])
    assert done.exit_code == 0 and "MODEL" not in done.output, done.output
    written = (tmp_path / "audit.toml").read_text()
    (tmp_path / "audit.toml").write_text(written.replace('# model = "model.joblib"', f'model = "{model}"'))
    typed = re.findall(r"auditor (\w+ .*audit\.toml)$", done.output, re.MULTILINE)
    assert typed == ["scan --config audit.toml", "evidence register audit.toml"]
    assert RUNNER.invoke(app, [*typed[0].split(), "--show-config"]).exit_code == 0
    assert RUNNER.invoke(app, typed[1].split()).exit_code == 0
