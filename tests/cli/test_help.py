"""The help: one screen for the tool, whole sentences at every width, examples that the parser takes."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from auditor.run import __version__
from auditor.run.scan_options import flags
from cli.commands import FUNCTIONS, app
from cli.help_pages import EXAMPLES, OPTION_PANELS, PANELS, Group, leaf_commands
from tests import ROOT
from tests.quantifiers import all_of, none_of

RUNNER = CliRunner()
FORMER = (
    "version", "mitigations", "publish", "examples", "new-probe", "detect-train", "detect-calibrate", "dp-budget",
    "dp-audit", "dp-lint", "gradient-inversion", "keygen", "verify", "reproduce", "register", "policies", "dossier",
    "signoff", "site", "findings", "due", "endpoint", "init",
)  # fmt: skip


def said(*words: str, columns: int = 80) -> str:
    result = RUNNER.invoke(app, [*words], env={"COLUMNS": str(columns), "TERMINAL_WIDTH": str(columns)})
    assert result.exit_code == 0, result.output
    return result.output


@cache
def commands() -> dict[str, Any]:
    return dict(leaf_commands(typer.main.get_command(app)))


def test_the_help_of_the_tool_fits_one_screen() -> None:
    lines = said("--help").splitlines()
    assert len(lines) <= 24 and all_of(len(line) <= 80 for line in lines)
    root: Any = typer.main.get_command(app)
    assert list(root.commands) == [*root.commands] and len(root.commands) <= 17
    assert {name for own in PANELS.values() for name in own} == set(root.commands)
    assert all_of(words.endswith(".") and words[0].isupper() for own in PANELS.values() for words in own.values())
    assert said("-h") == said("--help")
    assert said("--version") == f"auditor {__version__}\n"


@pytest.mark.parametrize("columns", [80, 120])
def test_no_help_is_cut_or_wider_than_its_terminal(columns: int) -> None:
    env = os.environ | {"COLUMNS": str(columns)}
    code = """if True:
        import contextlib
        import typer
        from cli.commands import app
        from cli.help_pages import leaf_commands
        for words in ["", "dp", "evidence", *(name for name, _ in leaf_commands(typer.main.get_command(app)))]:
            for flag in ("-h", "--help-all"):
                if words in ("", "dp", "evidence") and flag != "-h":
                    continue
                with contextlib.suppress(SystemExit):
                    app([*words.split(), flag], prog_name="auditor")
        """
    text = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    lines = text.splitlines()
    assert len(lines) > 500
    assert [line for line in lines if len(line) > columns] == []
    assert none_of(re.search(r"\w\.\.\.$", line) for line in lines if not line.startswith("Usage: "))
    assert "\\[" not in text and "Traceback" not in text
    assert (max(map(len, lines)) > 100) == (columns == 120)


def test_each_command_has_an_example_that_its_parser_takes() -> None:
    assert set(EXAMPLES) == set(FUNCTIONS) == set(commands())
    for name, example in EXAMPLES.items():
        words = shlex.split(example)
        assert words[: 1 + len(name.split())] == ["auditor", *name.split()]
        commands()[name].make_context(name, words[1 + len(name.split()) :])
        assert example in " ".join(said(*name.split(), "--help").replace("\\\n", "").split())


def test_a_scan_shows_the_dozen_most_used_options_and_the_rest_on_request() -> None:
    short, whole = said("scan", "--help"), said("scan", "--help-all")
    assert len(re.findall(r"^  --", short, re.MULTILINE)) <= 14
    assert all_of(f"\n  --{flag} " in short for flag in ("data", "target", "positive", "sensitive", "policy", "out"))
    offered = [option for parameter in commands()["scan"].params for option in parameter.opts[:1] if option != "--help"]
    assert len(offered) > 80 and all_of(re.search(rf"^  {option}\b", whole, re.MULTILINE) for option in offered[1:])
    panels = [name for names in OPTION_PANELS.values() for name in names]
    assert len(panels) == len(set(panels))
    known = {*flags(), *(parameter.name for command in commands().values() for parameter in command.params)}
    assert set(panels) <= known


def test_a_wrong_name_is_answered_once_with_the_nearest() -> None:
    for words, near in ((["scna"], "scan"), (["dp", "adit"], "audit"), (["evidence", "verfy"], "verify")):
        result = RUNNER.invoke(app, words)
        assert result.exit_code == 2
        assert result.output.lower().count("did you mean") == 1 and repr(near) in result.output


def test_a_group_with_a_command_of_its_own_lists_the_others() -> None:
    groups: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    own = {name: group for name, group in groups.items() if isinstance(group, Group) and group.own is not None}
    assert set(own) == {"report", "mitigate", "history", "policy", "detect", "probes"}
    for name, group in own.items():
        text = said(name, "--help")
        assert all_of(re.search(rf"^  {each} ", text, re.MULTILINE) for each in group.commands)
    result = RUNNER.invoke(app, ["report", "nowhere"])
    assert result.exit_code == 2 and "nowhere" in result.output
    assert "Usage: auditor report [OPTIONS]" in RUNNER.invoke(app, ["report"]).output


def test_completion_names_the_commands() -> None:
    env = os.environ | {"_AUDITOR_COMPLETE": "complete_bash", "COMP_WORDS": "auditor mi", "COMP_CWORD": "1"}
    code = "import sys; sys.argv = ['auditor']; from auditor.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["mitigate"], done.stderr
    assert "--install-completion" in said("--help")


def test_nothing_prints_a_former_name_of_a_command() -> None:
    files = [
        path
        for top in ("auditor", "probes", "mitigations", "cli", "docs", "demo", "examples", "benchmarks", ".github")
        for path in (ROOT / top).rglob("*")
        if path.suffix in (".py", ".md", ".toml", ".j2", ".yml", ".yaml", ".html")
    ]
    files += [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile", "action.yml")]
    former = re.compile(rf"\bauditor (?:{'|'.join(FORMER)})(?![\w/-])")
    assert len(files) > 300
    assert [f"{path}: {found[0]}" for path in files if (found := former.search(path.read_text("utf-8")))] == []


def test_one_probe_is_shown_with_its_metrics_their_limits_and_its_options() -> None:
    (shown,) = json.loads(said("probes", "group_fairness", "--json"))
    gap = next(each for each in shown["metrics"] if each["metric"] == "demographic_parity_difference")
    assert shown["name"] == gap["probe"] == "group_fairness" and gap["limit"] == "at most 0.1"
    text = said("probes", "membership_inference")
    assert "attack_auc" in text and "--set membership_inference." in text and ":class:" not in text


def test_a_metric_leads_to_the_probes_that_measure_it_and_to_nothing_else_of_them() -> None:
    text = said("probes", "attack_auc")
    assert "  membership_inference\n" in text and "  lm_membership\n" in text
    assert "--set" not in text and "true_positive_rate" not in text and "group_fairness" not in text


@pytest.mark.parametrize(
    ("word", "near"), [("group_fairnes", "group_fairness"), ("endpiont", "endpoint"), ("zzz", "auditor probes")]
)
def test_a_name_of_no_probe_is_refused_with_the_nearest(word: str, near: str) -> None:
    result = RUNNER.invoke(app, ["probes", word])
    assert result.exit_code == 2 and near in result.output


@pytest.mark.parametrize(
    ("words", "near"),
    [
        ("scan --favourable", "did you mean '--positive'?"),
        ("scan --favorable", "did you mean '--positive'?"),
        ("scan --label", "did you mean '--target'?"),
        ("scan --protected", "did you mean '--sensitive'?"),
        ("scan --sensitive-features", "did you mean '--sensitive'?"),
        ("scan --traget", "did you mean '--target'?"),
        ("mitigate --protected-attributes", "did you mean '--sensitive'?"),
        ("train --sensitive", "--sensitive is an option of auditor scan,"),
        ("train --protected", "--sensitive is an option of auditor scan,"),
        ("gate --target", "--target is an option of auditor scan,"),
        ("compare --policy", "--policy is an option of auditor scan,"),
        ("dp lint --zzz", ": see auditor dp lint --help."),
    ],
)
def test_an_unknown_option_is_answered_with_what_it_is_called_here_or_with_whose_it_is(words: str, near: str) -> None:
    result = RUNNER.invoke(app, [*words.split(), "x"])
    assert result.exit_code == 2 and near in result.output and "Possible options" not in result.output
