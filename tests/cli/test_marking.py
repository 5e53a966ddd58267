"""A folder of a generator's files on the command line: what is said of it, and what of it is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.commands import app
from tests.toys import marked

CRITERIA = """
[[criteria]]
metric = "marked_share"
probe = "marking"
direction = "at_least"
bound = 0.5

[[criteria]]
metric = "false_detection_rate"
probe = "marking"
direction = "at_most"
bound = 0.2
"""
DECODER = """
from io import BytesIO
import numpy as np
import PIL.Image

def finds(content):
    grey = np.asarray(PIL.Image.open(BytesIO(content)).convert("L"), float)
    half = grey.shape[1] // 2
    return bool(grey[:, :half].mean() - grey[:, half:].mean() > 30.0)
"""


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "need.toml").write_text(CRITERIA)
    (tmp_path / "own.py").write_text(DECODER)
    return tmp_path


def test_outputs_that_are_marked_pass_and_a_file_that_is_none_is_named(here: Path) -> None:
    marked.outputs(here / "outputs", 40, unmarked=60)
    arguments = ("scan", "--predictions", "outputs", "--decoder", "own:finds", "--policy", "need.toml")
    result = run(*arguments, "--set", "marking.n_samples=2", "--bundle", "audit.zip")
    assert result.exit_code == 0, result.output
    assert "NOTHING DISAGREES" in run("evidence", "verify", "audit.zip").output
    assert "any skill" not in result.output
    report = json.loads((here / "audit-report" / "report.json").read_text())
    found = {f["metric"]: f for f in report["findings"] if f["probe"] == "marking"}
    assert found["marked_share"]["outcome"] == "PASS" and found["marked_share"]["value"] == 1.0
    assert report["model"]["format"] == "a generator's files" and report["data"]["n_rows"] == 100
    (here / "outputs" / "fake" / "notes\x1b[31m.txt").write_text("no picture")
    result = run(*arguments, "--set", "marking.n_samples=2")
    assert result.exit_code == 3 and "1 file or row could not be read" in result.output and "\x1b" not in result.output


@pytest.mark.parametrize("flag", ["--target", "--score", "--sensitive"])
def test_what_is_said_of_a_table_is_refused_of_a_folder(flag: str, here: Path) -> None:
    marked.outputs(here / "outputs", 2)
    result = run("scan", "--predictions", "outputs", flag, "x")
    assert result.exit_code == 2 and f"not a table: {flag} says nothing of it" in " ".join(result.output.split())


def test_a_decoder_that_is_not_there_is_said(here: Path) -> None:
    marked.outputs(here / "outputs", 2)
    result = run("scan", "--predictions", "outputs", "--decoder", "nowhere:finds")
    assert result.exit_code == 3 and "there is no module 'nowhere'" in " ".join(result.output.split())
