"""``scan --show-config``: what is in force, and who says so."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from auditor.judging.criterion import load_criteria
from auditor.run.scan_options import flags
from cli.commands import app
from tests.quantifiers import all_of

CONFIG = """
[audit]
target = "y"
seed = 3
policy = "gdpr"
sign = "key"
db = "postgresql://ann:se/cret@h/name?password=mumble"

[probes.group_fairness]
intersections = false
min_rows = 20

[model]
id = "m-1"

[labels]
sex = "Sex"
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUDITOR_DB", raising=False)
    Path("audit.toml").write_text(CONFIG)
    return tmp_path


def shown(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["scan", "--show-config", "--json", *arguments])
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.output)
    return told


def by_key(told: dict[str, Any]) -> dict[str, tuple[Any, str]]:
    return {each["key"]: (each["value"], each["source"]) for each in told["settings"]}


def test_each_setting_says_where_it_came_from() -> None:
    told = shown("--config", "audit.toml", "--seed", "5", "--set", "group_fairness.min-rows=10")
    settings, digest = by_key(told), hashlib.sha256(Path("audit.toml").read_bytes()).hexdigest()
    own = f"audit.toml (given, SHA-256 {digest})"
    assert set(settings) >= {flag.key(name) for name, flag in flags().items()}
    assert settings["target"] == ("y", own) and settings["model.id"] == ("m-1", own)
    assert settings["seed"] == (5, "command line") and settings["json"] == (True, "command line")
    assert settings["error_rate"] == (0.05, "default") and settings["multiplicity"] == ("holm", "default")
    assert settings["probes.group_fairness.intersections"] == (False, own)
    assert settings["probes.group_fairness.min_rows"] == (10, "command line")
    assert settings["labels"] == ({"sex": "Sex"}, own)
    criteria = [each for each in told["settings"] if each["key"].startswith("criteria.")]
    assert len(criteria) == len(load_criteria())
    assert all_of("auditor-default-3 (shipped, SHA-256 " in each["source"] for each in criteria)
    assert [(f["path"], f["role"], f["origin"]) for f in told["files"]] == [
        ("audit.toml", "configuration", "given"),
        ("gdpr", "rule pack", "shipped"),
        ("auditor-default-3", "criteria", "shipped"),
    ]
    assert told["files"][0]["sha256"] == digest and "min_rows" not in str(told["files"][0]["keys"])


def test_no_password_is_shown_and_a_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    said = json.dumps(shown("--config", "audit.toml", "--data", "mysql://bob:hidden@h/rows?token=shut"))
    for secret in ("se/cret", "cret", "mumble", "hidden", "shut", "ann", "bob"):
        assert secret not in said
    Path("audit.toml").unlink()
    monkeypatch.setenv("AUDITOR_DB", "postgresql://ann:secret@h/d")
    assert by_key(shown())["db"] == ("postgresql://h/d", "$AUDITOR_DB")
    monkeypatch.delenv("AUDITOR_DB")
    assert by_key(shown())["db"] == ("audit-history.db", "default")


def test_nothing_is_run_written_or_connected_to(here: Path) -> None:
    (here / "evil.py").write_text("open('ran', 'w')\n")
    Path("audit.toml").write_text('[audit]\npredict = "evil:f"\nbundle = "b.zip"\nhistory = true\ndata = "none.csv"\n')
    before = sorted(here.iterdir())
    result = CliRunner().invoke(app, ["scan", "--show-config", "--config", "audit.toml"])
    assert result.exit_code == 0, result.output
    assert sorted(here.iterdir()) == before
    lines = result.output.splitlines()
    assert lines[0] == "setting\tvalue\tfrom"
    assert any(line.startswith("predict\tevil:f\taudit.toml (given, SHA-256 ") for line in lines)
    # What is only found is refused here as anywhere.
    assert CliRunner().invoke(app, ["scan", "--show-config"]).exit_code == 2


def test_a_reader_sees_first_what_somebody_said(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("audit.toml").write_text('[audit]\ndata = "none.csv"\nseed = 0\n[labels]\nsex = "\\u202egnp"\n')
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout", shown)
    app(["scan", "model.pt", "--show-config"], standalone_mode=False)
    lines = shown.getvalue().splitlines()
    assert lines[0] == "command line" and lines[1] == "  model = model.pt"
    assert lines[3].startswith("audit.toml (found, SHA-256 ") and lines[4] == "  data = none.csv"
    end = lines.index("default")
    said = " ".join(" ".join(lines[end:]).split())
    assert "lang = en" in said and "not set: " in said
    assert "\u202e" not in shown.getvalue() and "gnp" in shown.getvalue()
    # A screen, but for the criteria of the profile, which are named one by one.
    criteria = load_criteria()
    assert len(lines) < 26 + len(criteria) / 2 and "criteria: roc_auc at least 0.5;" in shown.getvalue()


def test_names_of_strangers_stay_inert() -> None:
    Path("audit.toml").write_text('[model]\nname = "\\u202egnp\\u001b[31m\\tx"\n')
    said = CliRunner().invoke(app, ["scan", "--show-config"]).output
    assert "\u202e" not in said and "\x1b" not in said and "gnp" in said
