"""The action, the GitLab job and the hook as a pipeline runs them: exit codes, summary, comment, SARIF and JUnit."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from auditor.report.markdown import render_markdown
from auditor.report.record.audit_report import AuditReport
from tests import ROOT
from tests.cli.test_gate import CODES, audited
from tests.quantifiers import all_of


class Job:
    """The action in a job: inputs put in, conditions asked, each ``run`` by bash, and commands of others recorded.

    pip and gh are stand-ins that note their words; a step that uses another action is noted by its inputs.
    """

    def __init__(self, where: Path, event: str = "pull_request", **inputs: str) -> None:
        self.where, self.event, self.foreign = where, event, dict[str, dict[str, str]]()
        self.action = yaml.safe_load((ROOT / "action.yml").read_text())
        self.inputs = {name: each["default"] for name, each in self.action["inputs"].items()} | inputs
        (where / "bin").mkdir()
        (where / "temp").mkdir()
        python = f'if [ "$2" = pip ]; then echo "$@" >> "$NOTED"; else exec {shlex.quote(sys.executable)} "$@"; fi'
        for name, text in (("python", python), ("pip", 'echo "$@" >> "$NOTED"'), ("gh", 'echo "$@" >> "$NOTED"')):
            (where / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
            (where / "bin" / name).chmod(0o755)
        folders = (where / "bin", Path(sys.executable).parent, os.environ["PATH"])
        self.env = os.environ | {
            "PATH": os.pathsep.join(map(str, folders)),
            "NOTED": str(where / "noted"),
            "RUNNER_TEMP": str(where / "temp"),
            "GITHUB_OUTPUT": str(where / "output"),
            "GITHUB_STEP_SUMMARY": str(where / "summary.md"),
            "GITHUB_REPOSITORY": "team/models",
            "GITHUB_ACTION_PATH": str(ROOT),
        }

    def substitute(self, text: str) -> str:
        known = {f"inputs.{name}": value for name, value in self.inputs.items()}
        known |= {"github.token": "t", "github.event.pull_request.number": "7", "runner.temp": self.env["RUNNER_TEMP"]}
        known |= {"runner.os": "Linux", "github.action_ref || github.sha": "v0"}
        return re.sub(r"\$\{\{ (.+?) \}\}", lambda found: known[found[1]], str(text))

    def holds(self, condition: str, *, failed: bool) -> bool:
        record = f"{(self.where / self.inputs['out'] / 'report.json').is_file() or ''}"
        known = {"always()": "True", "github.event_name": repr(self.event)}
        known |= {"hashFiles(format('{0}/report.json', inputs.out))": repr(record), "&&": "and", "||": "or"}
        known |= {f"inputs.{name}": repr(value) for name, value in self.inputs.items()}
        asks_always = "always()" in condition
        for name, value in known.items():
            condition = condition.replace(name, value)
        return (asks_always or not failed) and bool(eval(condition))

    def run(self) -> int:
        """The exit code of the first step that failed, or 0."""
        code = 0
        for step in self.action["runs"]["steps"]:
            if not self.holds(step.get("if", "True"), failed=code != 0):
                continue
            if "uses" in step:
                self.foreign[step["name"]] = {k: self.substitute(v) for k, v in step["with"].items()}
                continue
            env = self.env | {name: self.substitute(value) for name, value in step.get("env", {}).items()}
            done = self.bash(step["run"], env)
            code = code or done.returncode
        return code

    def bash(self, text: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text]
        return subprocess.run(words, env=env or self.env, cwd=self.where, capture_output=True, text=True)

    @property
    def noted(self) -> list[str]:
        return (self.where / "noted").read_text().splitlines()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("recorded")
    for kind in CODES:
        (where / kind).mkdir()
        (where / kind / "report.json").write_text(audited(kind).to_json())
    return where


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file that favours one group, and its rows in a file with a blank and a command in its name."""
    where = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=3000), "sex": rng.choice(["f", "m"], 3000)})
    y = np.where(frame.a + (frame.sex == "m") + rng.normal(size=3000) > 0.5, "yes", "no")
    fitted = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["sex"]), remainder="passthrough"), LogisticRegression()
    )
    joblib.dump(fitted.fit(frame, y), where / "model.joblib")
    frame.assign(y=y).to_csv(where / "my $(touch ran) rows.csv", index=False)
    return where


@pytest.mark.slow
def test_the_action_in_a_job_installs_audits_summarises_uploads_fails_and_comments(small: Path, tmp_path: Path) -> None:
    where = Path(shutil.copytree(small, tmp_path / "job"))
    arguments = "--data 'my $(touch ran) rows.csv' --target y --positive yes --sensitive sex --probes group_fairness"
    job = Job(where, model="model.joblib", arguments=arguments, sarif="true")
    assert job.run() == 1 and (where / "output").read_text() == "code=1\n" and not (where / "ran").exists()
    installed, commented = job.noted
    assert installed.endswith(str(ROOT)) and commented.startswith("pr comment 7 --repo team/models")
    body = Path(shlex.split(commented)[-1]).read_text()
    assert "sex = f" in body and "exit 1" in body and body.count("```") == 2
    report = AuditReport.from_json((where / "audit-report" / "report.json").read_bytes())
    assert (where / "summary.md").read_text() == render_markdown(report)
    sarif = json.loads(Path(job.foreign["Code scanning"]["sarif_file"]).read_text())
    assert sarif["version"] == "2.1.0" and sarif["runs"][0]["results"]
    assert set(job.foreign) == {"Cache", "Keep the report", "Code scanning"}


@pytest.mark.slow
def test_the_action_does_not_hold_an_older_report_to_the_gate_where_the_scan_was_refused(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder / "pass", tmp_path / "audit-report")
    job = Job(tmp_path, model="no.joblib", arguments="--data no.csv")
    assert job.run() == 2 and not (tmp_path / "output").exists() and "comment" not in "".join(job.noted)


def test_without_a_model_the_action_holds_the_report_to_the_gate_and_comments_on_no_push(
    folder: Path, tmp_path: Path
) -> None:
    job = Job(tmp_path, event="push", out=str(folder / "pass"), package="auditor-9.whl", artifact="")
    assert job.run() == 0 and set(job.foreign) == {"Cache"}
    (installed,) = job.noted
    assert installed.endswith("auditor-9.whl") and (tmp_path / "output").read_text() == "code=0\n"


@pytest.mark.parametrize(("log", "subject"), [("", ["my $(touch ran) model.pt"]), ("my $(touch ran) log.eval", None)])
def test_the_action_scans_a_log_in_place_of_a_model(log: str, subject: list[str] | None, tmp_path: Path) -> None:
    job = Job(
        tmp_path, event="push", model="my $(touch ran) model.pt", log=log, arguments="--score 'exact match' --seed 1"
    )
    # A scan that could not tell is for the gate to judge, which lets it pass here.
    stub = (
        '#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "$word"; done >> "$NOTED"\n[ "$1" = scan ] && exit 3\nexit 0\n'
    )
    (tmp_path / "bin" / "auditor").write_text(stub)
    (tmp_path / "bin" / "auditor").chmod(0o755)
    assert job.run() == 0 and not (tmp_path / "ran").exists()
    given = ["--score", "exact match", "--seed", "1", "--out", "audit-report"]
    assert job.noted[1:] == ["scan", *(subject or ["--log", log]), *given, "gate", "audit-report"]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["fail", "no rows"])
def test_the_lines_of_the_gitlab_job_give_its_exit_code_and_its_junit_file(
    small: Path, folder: Path, tmp_path: Path, case: str
) -> None:
    where = Path(shutil.copytree(small, tmp_path / "job"))
    # Of an earlier run, and not of this model.
    shutil.copytree(folder / "pass", where / "audit-report")
    page = (ROOT / "docs" / "ci.md").read_text()
    gitlab = next(block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "junit" in block)
    audit = yaml.safe_load(gitlab)["audit"]
    rows = "my $(touch ran) rows.csv" if case == "fail" else "none.csv"
    config = (
        f'[audit]\ndata = "{rows}"\ntarget = "y"\npositive = "yes"\nsensitive = ["sex"]\nprobes = ["group_fairness"]\n'
    )
    (where / "audit.toml").write_text(config)
    job = Job(where)
    lines = [
        line.replace("model.pt", "model.joblib").replace(" --baseline audits/main", "") for line in audit["script"]
    ]
    done = job.bash("\n".join(lines), job.env | {"AUDITOR_PACKAGE": "auditor"})
    assert done.returncode == {"fail": 1, "no rows": 2}[case], done.stderr
    assert (where / audit["artifacts"]["reports"]["junit"]).is_file() == (case == "fail")
    assert job.noted == ["install --quiet auditor"]


def test_the_hook_runs_by_the_standard_library_alone(folder: Path, tmp_path: Path) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    shutil.copy(ROOT / hook["entry"], tmp_path / "gate.py")
    reports = {kind: str(folder / kind / "report.json") for kind in CODES}
    assert all_of(re.search(hook["files"], path) for path in reports.values()) and hook["language"] == "script"
    for kind, path in reports.items():
        done = subprocess.run([tmp_path / "gate.py", path], env={"PATH": os.defpath}, capture_output=True, text=True)
        assert done.returncode == CODES[kind], done.stderr
