"""The gate lets nothing pass but a pass, and the action's steps do what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from auditor.data.audit_data import AuditData
from auditor.judging.criterion import Criterion
from auditor.models.audited_model import AuditedModel
from auditor.report.markdown import render_markdown
from auditor.report.record.audit_report import AuditReport
from auditor.run.run_audit import run_audit
from cli.commands import app
from probes.fairness.group_fairness import GroupFairness
from tests import ROOT
from tests.toys.models import criterion

BOUND = [criterion("demographic_parity_difference", "at_most", 0.10)]
CODES = {"pass": 0, "fail": 1, "open": 3, "unjudged": 3}


def audited(kind: str) -> AuditReport:
    rng = np.random.default_rng(0)
    n = 200 if kind == "open" else 6000
    sex = rng.choice(2, n)
    X = np.column_stack([rng.random(n), sex])
    gap = 0.5 if kind == "fail" else 0.0
    model = AuditedModel.from_callable(lambda x: (x[:, 0] < 0.3 + gap * x[:, 1]).astype(float), classes=["0", "1"])
    data = AuditData.from_arrays(
        X, rng.choice(2, n), classes=["0", "1"], positive="1", sensitive_features={"sex": np.asarray(["f", "m"])[sex]}
    )
    criteria: list[Criterion] = [] if kind == "unjudged" else BOUND
    return run_audit(model, data, [GroupFairness()], criteria)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("gate")
    for kind in CODES:
        (where / kind).mkdir()
        (where / kind / "report.json").write_text(audited(kind).to_json())
    return where


def gate(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["gate", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.mark.parametrize("kind", CODES)
def test_the_exit_code_is_that_of_the_findings(folder: Path, kind: str) -> None:
    code, said = gate(folder / kind)
    assert code == CODES[kind] == audited(kind).exit_code and f"exit {code}" in said


def test_what_could_not_be_told_is_let_through_only_where_asked(folder: Path) -> None:
    assert gate(folder / "open")[0] == 3
    code, said = gate(folder / "open", "--allow-inconclusive", "fairness")
    assert code == 0 and "allowed" in said
    assert gate(folder / "unjudged", "--allow-inconclusive", "fairness")[0] == 3
    assert gate(folder / "fail", "--allow-inconclusive", "fairness")[0] == 1


def test_of_several_the_gravest_decides(folder: Path) -> None:
    assert gate(folder / "pass", folder / "open")[0] == 3
    assert gate(folder / "open", folder / "fail", folder / "pass")[0] == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"exit_code": 0}, 4),
        ({"allow_inconclusive": True}, 1),
        ({"summary": None}, 4),
        ({"refusal": {"code": "model", "reason": "no"}}, 4),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(
    folder: Path, tmp_path: Path, change: dict[str, object], code: int
) -> None:
    record = json.loads((folder / "fail" / "report.json").read_text())
    if "summary" in change:
        change = {"summary": record["summary"] | {"fail": 0, "pass": 99}}
    (tmp_path / "report.json").write_text(json.dumps(record | change))
    found, said = gate(tmp_path)
    assert found == code
    assert ("contradicts itself" in said) == (code == 4)


def test_a_verdict_that_its_interval_does_not_carry_is_refused(folder: Path, tmp_path: Path) -> None:
    record = json.loads((folder / "fail" / "report.json").read_text())
    for finding in record["findings"]:
        if finding["outcome"] == "FAIL":
            finding["outcome"] = "PASS"
            record["summary"]["fail"] -= 1
            record["summary"]["pass"] += 1
    (tmp_path / "report.json").write_text(json.dumps(record | {"exit_code": 0}))
    found, said = gate(tmp_path)
    assert found == 4 and "its interval says otherwise" in " ".join(said.split())


# ---- a requirement with two sides ------------------------------------------------------------------------------------

WITHIN = [criterion("selection_rate", "within", (0.4, 0.6), group={"sex": "f"})]


def selecting(rate: float, n: int = 6000) -> AuditReport:
    """An audit of a model that selects this share of either sex, held to a share within [0.4, 0.6]."""
    rng = np.random.default_rng(1)
    X = np.column_stack([rng.random(n), rng.choice(2, n)])
    model = AuditedModel.from_callable(lambda x: (x[:, 0] < rate).astype(float), classes=["0", "1"])
    sex = np.where(X[:, 1] > 0, "f", "m")
    data = AuditData.from_arrays(X, rng.choice(2, n), classes=["0", "1"], positive="1", sensitive_features={"sex": sex})
    return run_audit(model, data, [GroupFairness()], WITHIN)


@pytest.mark.parametrize(
    ("rate", "n", "outcome", "code"),
    [(0.5, 6000, "PASS", 0), (0.3, 6000, "FAIL", 1), (0.7, 6000, "FAIL", 1), (0.5, 60, "INCONCLUSIVE", 3)],
    ids=["inside", "below", "above", "too few rows"],
)
def test_a_requirement_with_two_sides_passes_between_them_alone(
    tmp_path: Path, rate: float, n: int, outcome: str, code: int
) -> None:
    report = selecting(rate, n)
    (judged,) = (f for f in report.findings if f.criterion is not None)
    assert judged.outcome == outcome and judged.criterion is not None and judged.criterion.required == (0.4, 0.6)
    (tmp_path / "report.json").write_text(report.to_json())
    found, said = gate(tmp_path)
    assert found == code and f"exit {code}" in said
    assert gate(tmp_path, "--allow-inconclusive", "fairness")[0] == (0 if code == 3 else code)


@pytest.mark.grid
@pytest.mark.parametrize(
    ("interval", "passes", "fails"),
    [
        ([0.4, 0.6], True, False),
        ([0.45, 0.55], True, False),
        ([0.39, 0.55], False, False),
        ([0.45, 0.61], False, False),
        ([0.3, 0.7], False, False),
        ([0.1, 0.39], False, True),
        ([0.61, 0.9], False, True),
        ([0.1, 0.4], False, False),
        ([0.6, 0.9], False, False),
        ([None, 0.39], False, True),
        ([0.61, None], False, True),
        ([None, 0.55], False, False),
        ([0.45, None], False, False),
        ([None, None], False, False),
    ],
)
def test_a_verdict_between_two_sides_is_what_its_interval_says(
    tmp_path: Path, interval: list[float | None], passes: bool, fails: bool
) -> None:
    record = json.loads(selecting(0.5).to_json())
    (judged,) = (f for f in record["findings"] if f["criterion"] is not None)
    judged |= {"interval": interval, "value": next((end for end in interval if end is not None), 0.5)}
    for outcome, holds in (("PASS", passes), ("FAIL", fails), ("INCONCLUSIVE", not fails)):
        counts = {name: int(name == outcome.lower()) for name in ("pass", "fail", "inconclusive")}
        code = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}[outcome]
        judged["outcome"] = outcome
        (tmp_path / "report.json").write_text(
            json.dumps(record | {"summary": record["summary"] | counts, "exit_code": code})
        )
        found, said = gate(tmp_path)
        assert found == (code if holds else 4)
        assert ("its interval says otherwise" in " ".join(said.split())) is not holds


def test_what_is_no_report_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    code, said = gate(tmp_path)
    assert code == 2 and "not a report" in said and "Traceback" not in said
    assert gate(tmp_path / "absent")[0] == 2


def test_the_gate_needs_no_torch(folder: Path) -> None:
    heavy = "{'torch', 'pandas', 'sklearn'}"
    code = f"import sys; from cli.recorded_audits import gate_reports; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# ---- the action ----------------------------------------------------------------------------------------------------


def step(name: str, env: dict[str, str], where: Path) -> subprocess.CompletedProcess[str]:
    """One step of the action as GitHub would run it."""
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    (found,) = [s for s in action["runs"]["steps"] if s["name"] == name]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", found["run"]],
        env={**os.environ, "PATH": path, **env},
        cwd=where,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("kind", CODES)
def test_the_action_fails_where_the_audit_is_no_pass(folder: Path, tmp_path: Path, kind: str) -> None:
    env = {"OUT": str(folder / kind), "ALLOW": "", "GITHUB_OUTPUT": str(tmp_path / "output")}
    done = step("Gate", env, tmp_path)
    assert done.returncode == CODES[kind], done.stderr
    assert (tmp_path / "output").read_text() == f"code={CODES[kind]}\n"
    if kind == "open":
        assert step("Gate", env | {"ALLOW": "fairness"}, tmp_path).returncode == 0


@pytest.mark.parametrize("kind", ["fail", "open"])
def test_the_action_posts_the_report_in_markdown_as_the_jobs_summary(folder: Path, tmp_path: Path, kind: str) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("# before\n")
    env = {"OUT": str(folder / kind), "GITHUB_STEP_SUMMARY": str(summary), "RUNNER_TEMP": str(tmp_path)}
    done = step("Summary", env, tmp_path)
    assert done.returncode == 0, done.stderr
    report = AuditReport.from_json((folder / kind / "report.json").read_bytes())
    assert summary.read_text() == "# before\n" + render_markdown(report)
    assert f"Exit code {report.exit_code}." in summary.read_text()


def test_without_a_report_the_summary_is_left_alone(tmp_path: Path) -> None:
    env = {"OUT": str(tmp_path), "GITHUB_STEP_SUMMARY": str(tmp_path / "s.md"), "RUNNER_TEMP": str(tmp_path)}
    assert step("Summary", env, tmp_path).returncode == 0 and not (tmp_path / "s.md").exists()


def test_the_actions_arguments_are_split_and_not_run(tmp_path: Path) -> None:
    """With a command of the same name in front of ours that prints what it was given."""
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "auditor"
    fake.write_text("#!/bin/sh\nprintf '<%s>' \"$@\"\nexit ${FAKE_CODE}\n")
    fake.chmod(0o755)

    def run(arguments: str, code: int) -> subprocess.CompletedProcess[str]:
        action = yaml.safe_load((ROOT / "action.yml").read_text())
        (found,) = [s for s in action["runs"]["steps"] if s["name"] == "Audit"]
        env = {
            "MODEL": "m.pt",
            "ARGUMENTS": arguments,
            "OUT": "out",
            "FAKE_CODE": str(code),
            "RUNNER_TEMP": str(tmp_path),
        }
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", found["run"]],
            env={**os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", **env},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    done = run("--data 'my rows.csv' --target $(touch pwned)", 1)
    assert done.stdout == "<scan><m.pt><--data><my rows.csv><--target><$(touch><pwned)><--out><out>"
    assert done.returncode == 0 and not (tmp_path / "pwned").exists()
    assert run("", 3).stdout == "<scan><m.pt><--out><out>"
    assert run("--target y\n", 0).stdout == "<scan><m.pt><--target><y><--out><out>"
    broken = run("--target 'y --sensitive sex", 0)
    assert broken.returncode == 1 and "auditor" not in broken.stdout
    assert [run("", code).returncode for code in (0, 1, 3, 4, 2, 70)] == [0, 0, 0, 0, 2, 70]


def test_the_hook_names_a_command_that_exists() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["entry"] == "auditor gate" and hook["language"] == "python"
    assert {"id", "name", "entry", "language", "files"} <= set(hook)


def test_outcomes_and_bounds_that_were_renamed_contradict_the_record(tmp_path: Path) -> None:
    record = json.loads(audited("fail").to_json())
    judged = next(i for i, f in enumerate(record["findings"]) if f["outcome"] == "FAIL")
    looser = {**record["findings"][judged]["criterion"], "bound": 0.9}
    for change, says in (
        ({"outcome": "NOT_JUDGED"}, "was judged, since it has a p-value"),
        ({"outcome": "NOT_APPLICABLE"}, "was judged, since it has a p-value"),
        ({"outcome": "PASS", "criterion": looser}, "none of the record's"),
    ):
        forged = json.loads(json.dumps(record))
        forged["findings"][judged].update(change)
        forged["summary"] = {key: 0 for key in forged["summary"]} | counted(forged)
        for code in (0, 3):
            (tmp_path / "report.json").write_text(json.dumps(forged | {"exit_code": code}))
            found, said = gate(tmp_path)
            assert found == 4, (change, said)
            if "contradicts itself: its findings come to" not in " ".join(said.split()):
                assert says in " ".join(said.split())
                break
        else:
            raise AssertionError("neither exit code is that of the forged findings")


def counted(record: dict[str, Any]) -> dict[str, int]:
    """Outcomes of a record as its summary names them."""
    found: dict[str, int] = {}
    for finding in record["findings"]:
        name = finding["outcome"].lower()
        found[name] = found.get(name, 0) + 1
    return found
