"""``auditor mitigate`` and ``auditor compare`` as a user runs them: files written whole, errors before any work."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from auditor.data.audit_data import AuditData
from auditor.models.audited_model import AuditedModel
from auditor.models.saved_models import save
from auditor.report.comparing.compare_audits import Comparison, compare
from auditor.report.comparing.comparison_report import (
    interval_names,
    plainly,
    render_comparison_html,
    render_comparison_markdown,
)
from auditor.report.record.audit_report import AuditReport
from auditor.run.run_audit import run_audit
from cli.commands import app
from cli.compare import print_comparison
from probes.fairness.change_since_reference import Change
from probes.fairness.group_fairness import GroupFairness
from probes.performance.performance import Performance
from tests.cli.test_terminal import Terminal
from tests.mitigations.planted_rows import biased_rows, trained
from tests.quantifiers import all_of

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("mitigate")
    for name, seed, n in (("train", 1, 1200), ("test", 2, 1200)):
        rows = biased_rows(n, seed)
        assert isinstance(rows.X, pd.DataFrame)
        rows.X.assign(y=rows.y_true).to_csv(where / f"{name}.csv", index=False)
    save(trained(biased_rows(1200, 1), epochs=12), where / "old.pt")
    return where


def call(folder: Path, *arguments: str) -> tuple[int, str]:
    result = RUNNER.invoke(app, list(arguments))
    return result.exit_code, " ".join(result.output.split())


def usual(folder: Path, out: Path, *more: str) -> list[str]:
    return [
        "mitigate", "reweighing", str(folder / "old.pt"), "--out", str(out), "--train", str(folder / "train.csv"),
        "--data", str(folder / "test.csv"), "--target", "y", "--positive", "1", "--sensitive", "group",
        "--probes", "group_fairness", "--report", str(out.parent / "report"), *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_a_mitigation_is_audited_before_and_after(folder: Path, tmp_path: Path) -> None:
    bundle = str(tmp_path / "m.zip")
    code, output = call(folder, *usual(folder, tmp_path / "new.pt", "--bundle", bundle))
    assert code in (0, 1, 3) and "demographic parity difference" in output, output
    report = tmp_path / "report"
    comparison = json.loads((report / "comparison.json").read_text())
    assert comparison["made_by"][0] == "reweighing"
    metrics = {row["metric"]: row for row in comparison["rows"]}
    assert metrics["accuracy"]["paired"] and metrics["demographic_parity_difference"]["paired"]
    assert metrics["demographic_parity_difference"]["difference"] < 0.0
    # Whatever --probes says.
    useful = {row["metric"]: row["paired"] for row in comparison["usefulness"]["rows"]}
    assert useful == {
        "balanced_accuracy": True, "roc_auc": True, "expected_calibration_error": False,
        "commonest_decision_share": True,
    }  # fmt: skip
    after = AuditReport.from_json((report / "after" / "report.json").read_bytes())
    assert after.exit_code == code and comparison["conclusion"].split(".")[0] in output
    assert f"exit {code}, of the new model: " in output and " fixed. " in output
    files = [".auditor-written.json", "m.zip", "new.energy.json", "new.pt", "new.pt.predictions.csv", "report"]
    assert sorted(p.name for p in tmp_path.iterdir()) == files
    checked = json.loads(RUNNER.invoke(app, ["evidence", "verify", bundle, "--json"]).stdout)
    states = {check["name"]: check["state"] for check in checked["checks"]}
    assert {"record", "before.zip", "after.zip", "after.zip: change"} <= states.keys()
    assert "wrong" not in states.values() and checked["exit_code"] == 3, checked["checks"]
    for side in ("before", "after"):
        assert (report / side / "report.html").exists()
    again, output = call(folder, "compare", str(report / "before"), str(report / "after"), "--out", str(tmp_path / "c"))
    assert again == comparison["exit_code"] and (tmp_path / "c" / "comparison.html").exists()
    assert json.loads((tmp_path / "c" / "comparison.json").read_text())["rows"] == comparison["rows"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({1: "reweighting"}, "did you mean 'reweighing'"),
        ({6: "", 5: ""}, "add --train FILE"),
        ({4: "new.bin"}, "must end in .pt"),
        ({4: "old"}, "name another file"),
        ({-1: "--margin=2"}, "--margin must lie in [0, 1)"),
        ({6: "same"}, "--train and --data are the same file"),
    ],
)
def test_wrong_usage_is_said_before_any_work(folder: Path, tmp_path: Path, change: dict[int, str], said: str) -> None:
    arguments = usual(folder, tmp_path / "new.pt", "")
    for place, value in change.items():
        arguments[place] = (
            str(folder / {"old": "old.pt", "same": "test.csv"}[value]) if value in ("old", "same") else value
        )
    code, output = call(folder, *[a for a in arguments if a])
    assert code == 2 and said in output, output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_the_mitigation_refuses_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(folder / "train.csv")
    frame[frame.group == "a"].to_csv(tmp_path / "one.csv", index=False)
    arguments = usual(folder, tmp_path / "out" / "new.pt")
    arguments[arguments.index("--train") + 1] = str(tmp_path / "one.csv")
    code, output = call(folder, *arguments)
    assert code == 4 and "one group only" in output, output
    assert not (tmp_path / "out" / "new.pt").exists() and not list((tmp_path / "out").glob(".*"))


def test_options_are_checked_by_name(folder: Path, tmp_path: Path) -> None:
    code, output = call(folder, *usual(folder, tmp_path / "new.pt", "--with", "alpha=1"))
    assert code == 2 and "no option 'alpha'" in output
    code, output = call(folder, *usual(folder, tmp_path / "new.pt", "--with", "alpha"))
    assert code == 2 and "option=value" in output
    code, output = call(folder, "compare", str(tmp_path), str(tmp_path))
    assert code == 2 and "There is no report" in output


# Sentences of the help, which pipelines rely on.
CODES = {
    "compare": ("0 unchanged, or better and useful", "1 something now FAILs its criterion", "3 neither is shown"),
    "mitigate": ("that of the new model's audit: 0 passed", "1 something FAILs", "3 not shown", "4 refused"),
}


@pytest.mark.parametrize("name", sorted(CODES))
def test_the_help_says_what_the_exit_codes_mean(tmp_path: Path, name: str) -> None:
    code, output = call(tmp_path, name, "--help")
    assert code == 0 and all_of(words in output for words in CODES[name]) and "--margin" in output


def test_a_constant_that_was_recorded_is_compared_as_what_it_is(tmp_path: Path) -> None:
    """Two audits on disk, of a model and of one that approves everybody: exit 1, in the terminal and in every file."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.choice(2, 1_500), "sex": rng.choice(["f", "m"], 1_500)})
    y = np.where(rng.random(1_500) < 0.85, frame.x, 1 - frame.x)
    data = AuditData.from_arrays(
        frame, np.asarray(["yes", "no"])[y], classes=["yes", "no"], positive="no", sensitive_features=frame[["sex"]]
    )
    model = AuditedModel.from_callable(lambda X: 0.1 + 0.8 * X.x.to_numpy(float), classes=["yes", "no"])
    constant = AuditedModel.from_callable(lambda X: np.full(len(X), 0.8), classes=["yes", "no"])
    probes = [GroupFairness(), Performance()]
    for name, audited in (("before", model), ("after", constant)):
        more = [Change(reference=model)] if name == "after" else []
        report = run_audit(audited, data, [*probes, *more])
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(report.model_dump_json())
    both = [str(tmp_path / name) for name in ("before", "after")]
    code, output = call(tmp_path, "compare", *both, "--out", str(tmp_path / "c"))
    assert code == 1 and output.startswith("FAIL No success.") and "'no' for all 1,500 rows" in output
    assert "it approves everybody" in output and "balanced accuracy 0.8" in output
    code, output = call(tmp_path, "compare", *both, "--verbose")
    assert code == 1 and "usefulness failed" in output and "worse balanced_accuracy" in output
    written = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert written["exit_code"] == 1 and "approves everybody" in written["usefulness"]["same_answer"]
    for suffix in ("html", "md"):
        text = (tmp_path / "c" / f"comparison.{suffix}").read_text()
        assert "approves everybody" in text and "Usefulness" in text and "balanced" in text
    code, output = call(tmp_path, "compare", *both, "--margin", "-1")
    assert code == 2 and "--margin must lie in [0, 1)" in output


def test_the_first_ten_lines_say_what_came_of_it_what_next_and_where_the_report_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of two audits and of a mitigation between them, on 80 columns; every number only when it is asked for."""
    found = traded(0.3)
    monkeypatch.setenv("COLUMNS", "80")
    for comparison in (found, replace(found, made_by=("reweighing",))):
        short, whole = Terminal(), Terminal()
        for out, verbose in ((short, False), (whole, True)):
            monkeypatch.setattr(sys, "stdout", out)
            print_comparison(comparison, ["c/comparison.json", "c/comparison.html"], verbose=verbose)
        lines = re.sub(r"\x1b\[\d*m", "", short.getvalue()).splitlines()
        first = " ".join(" ".join(lines[:10]).split())
        assert plainly(found, found.fixed) in first and "No success." in first and "auditor mitigate " in first
        assert "c/comparison.html" in first and any(line.startswith("exit ") for line in lines[:12])
        commands = [line for line in lines if line.strip().startswith("auditor ")]
        assert all_of(len(line.rstrip()) <= 80 or line in commands for line in lines) and len(lines) < 40
        assert "_" not in short.getvalue().replace("auditor_", "") and len(whole.getvalue().splitlines()) > len(lines)


def traded(costs: float) -> Comparison:
    """A model that favours one group against one that does not and errs more, by ``costs`` of the rows."""
    rng = np.random.default_rng(0)
    n = 6_000
    sex = np.arange(n) % 2
    y = (rng.random(n) < 0.3 + 0.4 * sex).astype(int)
    wrong = np.where(rng.random(n) < 0.05, 1 - y, y)
    fair = np.where(rng.random(n) < costs, rng.random(n) < 0.5, np.where((sex == 0) & (rng.random(n) < 0.3), 1, wrong))
    frame = pd.DataFrame({"before": wrong, "after": fair})
    data = AuditData.from_arrays(
        frame, y, classes=[0, 1], sensitive_features=pd.DataFrame({"sex": np.where(sex, "m", "f")})
    )
    old, new = (
        AuditedModel.from_callable(lambda X, name=name: 0.1 + 0.8 * X[name].to_numpy(float), classes=[0, 1])
        for name in ("before", "after")
    )
    probes = [GroupFairness(), Performance()]
    return compare(run_audit(old, data, probes), run_audit(new, data, [*probes, Change(reference=old)]))


def test_what_a_smaller_gap_costs_is_said_with_the_margin_that_accepts_it() -> None:
    found = traded(0.3)
    assert found.exit_code == 1 and "balanced_accuracy is shown to have fallen by more than 0.02" in found.conclusion
    assert found.trade.startswith(
        "The trade: demographic_parity_difference (by=sex) from 0.360 to 0.115, for 0.205 of balanced"
    )
    needed = float(re.findall(r"--margin ([\d.]+) accepts it", found.trade)[0])
    for margin, standing in ((needed, "kept"), (needed - 0.02, "failed")):
        other = compare(found.before, found.after, margin=margin)
        assert (other.usefulness.standing == "kept") == (standing == "kept")
    assert "accepts it" not in compare(found.before, found.after, margin=needed).trade
    page, text = render_comparison_html(found), render_comparison_markdown(found)
    # Each table says at which level its differences are bounded, and the margin is the one that usefulness judges by.
    own = [1 - 2 * 0.75 * 0.05 / len(found.rows), 1 - 2 * 0.25 * 0.05 / len(found.usefulness.rows)]
    assert list(found.levels) == pytest.approx(own) and found.levels[0] != found.levels[1]
    for name in interval_names(found):
        assert name in page and name in text
    assert next(row for row in found.costs if row.metric == "accuracy") is found.usefulness.worth
    assert page.count('<figure class="figure">') == 1 and "The trade: " in page and "The trade: " in text
    assert "fixed" in page and plainly(found, found.fixed) in text
    # What lies along the axis is read whole.
    assert ">change of demographic parity difference<" in page
    alike = compare(found.before, found.before)
    assert alike.trade == "" and "<figure" not in render_comparison_html(alike)


def test_what_is_fixed_and_what_still_fails_is_counted() -> None:
    found = traded(0.3)
    worse = "Failing now, and not before: equalized_odds_difference, by sex."
    assert found.fixed == f"0 of 1 fixed. 1 no longer shown to fail. {worse}"
    same = compare(found.before, found.before)
    assert same.fixed == "0 of 1 fixed. Still failing: demographic_parity_difference, by sex."
    passed = found.before.model_copy(
        update={"findings": tuple(f for f in found.before.findings if f.outcome.value != "FAIL")}
    )
    assert compare(passed, passed).fixed == "Nothing failed before. Nothing fails now."


def test_a_sweep_refuses_rows_that_are_not_independent_before_any_work(folder: Path, tmp_path: Path) -> None:
    arguments = ["tradeoff", *usual(folder, tmp_path / "out")[1:], "--sweep", "epochs=1,2", "--cluster", "group"]
    report = arguments.index("--report")
    code, output = call(folder, *arguments[:report], *arguments[report + 2 :])
    assert code == 2 and "leave --cluster and --weight out" in output, output
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_sends_folders_to_what_makes_models_of_them(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    code, output = call(
        folder, "tradeoff", "reject_option", str(tmp_path / "model"), "--sweep", "width=0.1", "--train",
        str(folder / "train.csv"), "--data", str(folder / "test.csv"), "--target", "y", "--sensitive", "group",
        "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert code == 2 and "make one of each value with auditor mitigate" in output, output
