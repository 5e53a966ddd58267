"""The gate lets nothing pass but a pass, and the action's steps do what they say."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from auditor.data.audit_data import AuditData
from auditor.evidence.history.entries import AuditEntry
from auditor.judging.criterion import Criterion
from auditor.models.audited_model import AuditedModel
from auditor.report.markdown import render_markdown
from auditor.report.record.audit_report import AuditReport, ModelRecord
from auditor.run.run_audit import run_audit
from cli.commands import app
from cli.help_pages import leaf_commands
from cli.history import open_ledger
from probes.fairness.group_fairness import GroupFairness
from tests import ROOT
from tests.quantifiers import all_of
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
    code = f"import sys; from cli.pipeline_gate import gate_reports; assert not {heavy} & set(sys.modules)"
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
    env |= {"BASELINE": "", "ACCEPTED": "", "HISTORY": "", "RUNNER_TEMP": str(tmp_path)}
    done = step("Gate", env, tmp_path)
    assert done.returncode == CODES[kind], done.stderr
    assert (tmp_path / "output").read_text() == f"code={CODES[kind]}\n"
    assert f"exit {CODES[kind]}" in (tmp_path / "auditor-gate.txt").read_text() and "exit" in done.stdout
    if kind == "open":
        assert step("Gate", env | {"ALLOW": "fairness"}, tmp_path).returncode == 0
    assert step("Gate", env | {"BASELINE": str(folder / kind)}, tmp_path).returncode in (0, CODES[kind])


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


def test_each_foreign_step_of_the_action_has_a_version_and_its_inputs_are_used() -> None:
    text = (ROOT / "action.yml").read_text()
    action = yaml.safe_load(text)
    foreign = [step["uses"] for step in action["runs"]["steps"] if "uses" in step]
    assert {each.partition("@")[0] for each in foreign} == {
        "actions/cache", "actions/upload-artifact", "github/codeql-action/upload-sarif",
    }  # fmt: skip
    assert all_of(re.fullmatch(r"[\w/-]+@v\d+", each) for each in foreign)
    assert all_of(f"inputs.{name}" in text for name in action["inputs"])
    (comment,) = [step for step in action["runs"]["steps"] if step["name"] == "Comment"]
    assert "pull_request" in comment["if"] and "--edit-last" in comment["run"]


def test_what_the_page_on_pipelines_has_to_paste_can_be_pasted() -> None:
    page = (ROOT / "docs" / "ci.md").read_text()
    blocks = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    workflow, gitlab, hook = blocks
    assert {"name", True, "permissions", "jobs"} == set(workflow)
    (job,) = workflow["jobs"].values()
    given = next(step["with"] for step in job["steps"] if "auditor" in step.get("uses", ""))
    assert set(given) <= set(yaml.safe_load((ROOT / "action.yml").read_text())["inputs"])
    commands = dict(leaf_commands(get_command(app)))
    typed = [line for line in gitlab["audit"]["script"] if line.startswith("auditor ")]
    assert len(typed) == 2
    for line in typed:
        words = shlex.split(line.partition(" || ")[0])
        commands[words[1]].make_context(words[1], words[2:])
    (known,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert [each["id"] for each in hook["repos"][0]["hooks"]] == [known["id"]]


# ---- a team with a past ----------------------------------------------------------------------------------------------


def with_gap(gap: float, *, n: int = 6000, seed: int = 0, bound: float = 0.10) -> AuditReport:
    """An audit of a model with this gap in selection between two groups."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(2, n)
    X = np.column_stack([rng.random(n), sex])
    model = AuditedModel.from_callable(lambda x: (x[:, 0] < 0.3 + gap * x[:, 1]).astype(float), classes=["0", "1"])
    data = AuditData.from_arrays(
        X, rng.choice(2, n), classes=["0", "1"], positive="1", sensitive_features={"sex": np.asarray(["f", "m"])[sex]}
    )
    return run_audit(model, data, [GroupFairness()], [criterion("demographic_parity_difference", "at_most", bound)])


@pytest.mark.parametrize(
    ("before", "after", "code", "says"),
    [
        ({"gap": 0.3}, {"gap": 0.3}, 0, "as in the baseline: FAIL"),
        ({"gap": 0.3}, {"gap": 0.3, "seed": 5}, 0, "as in the baseline: FAIL"),
        ({"gap": 0.3}, {"gap": 0.5}, 1, "got worse"),
        ({"gap": 0.0}, {"gap": 0.3}, 1, ""),
        ({"gap": 0.0}, {"gap": 0.0, "n": 150}, 3, "new: INCONCLUSIVE"),
        ({"gap": 0.3, "n": 150}, {"gap": 0.1, "n": 150}, 0, "was FAIL in the baseline: INCONCLUSIVE"),
        ({"gap": 0.0, "bound": 0.3}, {"gap": 0.12, "bound": 0.3}, 0, "worse, and within its limit"),
        ({"gap": 0.3}, {"gap": 0.0}, 0, "nothing got worse"),
    ],
    ids=["as it was", "other rows", "worse", "a new FAIL", "open now", "open before", "worse within", "better"],
)
def test_with_a_baseline_only_what_is_new_or_worse_counts(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any], code: int, says: str
) -> None:
    for name, what in (("main", before), ("new", after)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(with_gap(**what).to_json())
    found, said = gate(tmp_path / "new", "--baseline", tmp_path / "main")
    assert found == code and f"gate exit {code}" in said and says in " ".join(said.split()), said
    # One exit code is printed, and it is the command's.
    assert re.findall(r"^(?:gate )?exit (\d)", said, re.MULTILINE) == [str(code)]


def test_what_the_baseline_was_judged_by_cannot_be_left_out(tmp_path: Path) -> None:
    for name, bound in (("main", 0.10), ("new", 0.9)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(with_gap(0.0, bound=bound).to_json())
    found, said = gate(tmp_path / "new", "--baseline", tmp_path / "main")
    assert found == 3 and "left out: the baseline was judged by demographic_parity_difference" in " ".join(said.split())


def test_an_unchanged_model_passes_compare(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(with_gap(0.3).to_json())
    done = CliRunner().invoke(app, ["compare", str(tmp_path), str(tmp_path)])
    assert done.exit_code == 0 and "Unchanged." in done.output


def test_only_acceptances_that_are_signed_unexpired_and_not_exceeded_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, gap in (("now", 0.3), ("later", 0.6)):
        Path(name).mkdir()
        (Path(name) / "report.json").write_text(
            with_gap(gap).model_copy(update={"model": ModelRecord(path="m.pt", format="bundle")}).to_json()
        )
    runner = CliRunner()
    for key in ("officer", "other"):
        assert runner.invoke(app, ["evidence", "keygen", key]).exit_code == 0
    said = ["--by", "Ann", "--role", "risk officer", "--decision", "accept"]
    finding = ["--finding", "demographic_parity_difference=0.4", "--expires"]

    def sign_off(db: str, until: str, *key: str) -> None:
        # The audit is in the history by its own sign-off.
        done = runner.invoke(app, ["history", "sign-off", "now", *said, *finding, until, "--db", db, *key])
        assert done.exit_code == 0, done.output

    ledger = open_ledger("audit.db", create=True)
    for db in ("audit.db", "unsigned.db"):
        ledger = open_ledger(db, create=True)
        ledger.append(
            "audit", AuditEntry.from_report(AuditReport.from_json(Path("now/report.json").read_bytes()), None)
        )
        ledger.close()
    sign_off("audit.db", "2099-01-31", "--sign", "officer")
    sign_off("unsigned.db", "2099-01-31")
    asked = ("--accepted", "officer.pub", "--db", "audit.db")
    code, text = gate("now", *asked)
    assert code == 0 and "accepted up to 0.4 by Ann until 2099-01-31" in " ".join(text.split())
    assert gate("now")[0] == 1
    assert gate("now", "--accepted", "other.pub", "--db", "audit.db")[0] == 1
    assert gate("now", "--accepted", "officer.pub", "--db", "unsigned.db")[0] == 1
    code, text = gate("later", *asked)
    assert code == 1 and "Worse than accepted" in text
    assert gate("now", "--db", "audit.db")[0] == 2
    monkeypatch.setattr("cli.history.datetime", Later)
    code, text = gate("now", *asked)
    assert code == 1 and "EXPIRED acceptance" in text


class Later(datetime):
    """A clock that is past every acceptance."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Later:
        return cls(2199, 1, 1, tzinfo=tz)


# ---- a gate that needs Python alone ----------------------------------------------------------------------------------


def alone(*arguments: object) -> tuple[int, str]:
    """The gate as the pre-commit hook runs it: no package of ours or anybody's can be imported."""
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["language"] == "script" and os.access(ROOT / hook["entry"], os.X_OK)
    command = [sys.executable, "-I", "-S", ROOT / hook["entry"], *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize("kind", CODES)
def test_the_gate_that_needs_python_alone_agrees_with_the_other(folder: Path, kind: str) -> None:
    assert alone(folder / kind)[0] == alone(folder / kind / "report.json")[0] == gate(folder / kind)[0] == CODES[kind]
    assert alone(folder / kind, folder / "fail")[0] == gate(folder / kind, folder / "fail")[0] == 1


def test_the_gate_that_needs_python_alone_refuses_what_contradicts_itself(folder: Path, tmp_path: Path) -> None:
    record = json.loads((folder / "fail" / "report.json").read_text())
    place = tmp_path / "report.json"
    for change in ({"exit_code": 0}, {"exit_code": 3}, {"exit_code": 7}, {"findings": []}, {"findings": [1]}):
        place.write_text(json.dumps(record | change))
        assert alone(place)[0] == 4, change
    (tmp_path / "open").mkdir()
    open_ = json.loads((folder / "open" / "report.json").read_text())
    (tmp_path / "open" / "report.json").write_text(json.dumps(open_ | {"exit_code": 0}))
    assert alone(tmp_path / "open")[0] == 4
    assert alone(tmp_path / "absent")[0] == 4 and alone()[0] == 2 and alone("--help")[0] == 0
    place.write_text(json.dumps(record | {"refusal": {"code": "model", "reason": "no"}}))
    assert alone(place, folder / "fail")[0] == 4
    done = subprocess.run(
        [sys.executable, "-m", "auditor.gate", str(folder / "pass")], capture_output=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0


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
