"""``auditor scan-data`` and ``auditor.scan_data``: rows audited before there is a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

import auditor
from auditor.models.format_names import NO_MODEL
from cli.commands import app
from probes import PROBES
from tests.quantifiers import all_of, none_of
from tests.toys.benchmark_files import metadata_of

ROWS = ("train.csv", "--target", "approved", "--sensitive", "sex")


def applicants(n: int, seed: int, *, copies: int = 0) -> pd.DataFrame:
    """Rows without a fault; ``copies`` of them once more, with the other label."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({"income": rng.normal(size=n), "debt": rng.normal(size=n)})
    rows["sex"] = rng.choice(["female", "male"], n)
    rows["approved"] = np.where(rows.income - rows.debt + rng.normal(size=n) > 0, "yes", "no")
    again = rows.head(copies)
    return pd.concat([rows, again.assign(approved=again.approved.map({"yes": "no", "no": "yes"}))], ignore_index=True)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    applicants(400, 0, copies=20).to_csv("train.csv", index=False)
    applicants(200, 1).to_csv("test.csv", index=False)
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def record() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("audit-report/report.json").read_text(encoding="utf-8"))
    return found


def test_copies_with_another_label_fail_without_a_model(here: Path) -> None:
    result = run("scan-data", *ROWS, "--probes", "label_conflicts", "--copies-are-real")
    found = record()
    judged = [f for f in found["findings"] if f["outcome"] == "FAIL"]
    assert result.exit_code == found["exit_code"] == 1, result.output
    assert [(f["metric"], f["at"]) for f in judged] == [("label_conflict_rate", {"copies": "exact"})]
    assert judged[0]["value"] == pytest.approx(40 / 420)
    assert found["model"]["format"] == NO_MODEL and found["data"]["n_rows"] == 420


def test_with_test_rows_the_training_rows_are_audited(here: Path) -> None:
    run("scan-data", *ROWS, "--test", "test.csv", "--probes", "label_conflicts")
    found = record()
    assert (found["data"]["n_rows"], found["data"]["n_train_rows"]) == (200, 420)
    rates = [f["value"] for f in found["findings"] if f["metric"] == "label_conflict_rate"]
    assert rates[0] == pytest.approx(40 / 420)


@pytest.mark.parametrize("with_test", [False, True])
def test_a_column_of_addresses_is_personal_data_though_it_is_no_feature(with_test: bool, here: Path) -> None:
    for name, seed in (("train.csv", 2), ("test.csv", 3)):
        rows = applicants(400, seed)
        rows.assign(email=[f"anna.meier{i}@gmail.com" for i in range(400)]).to_csv(name, index=False)
    more = ["--test", "test.csv"] if with_test else []
    result = run("scan-data", *ROWS, *more, "--probes", "personal_data,data_leakage")
    found = {(f["metric"], f["at"].get("kind")): f for f in record()["findings"] if f["metric"]}
    assert result.exit_code == 1 and found["recognised_rate", "email"]["value"] == 1.0
    assert found["recognised_rate", "any"]["outcome"] == "FAIL"
    # Each row is like no other only by what names it, which tells nobody a label.
    assert found["strongest_feature_auc", None]["value"] < 0.95


@pytest.mark.parametrize(("name", "outcome"), [("mobilePhone", "FAIL"), ("customer_id", "PASS")])
def test_telephone_numbers_that_were_read_as_numbers_are_personal_data(name: str, outcome: str, here: Path) -> None:
    numbers = np.random.default_rng(5).permutation(9_000_000)[:400] + 4_915_110_000_000
    rows = applicants(400, 2).assign(**{name: numbers}, note="paid")
    rows.to_csv("train.csv", index=False)
    run("scan-data", *ROWS, "--probes", "personal_data")
    found = {(f["metric"], f["at"].get("kind")): f for f in record()["findings"] if f["metric"]}
    assert found["recognised_rate", "any"]["outcome"] == outcome
    shown = json.dumps(found["recognised_rate", "any"])
    assert none_of(str(number) in shown for number in numbers)


def test_what_needs_a_model_is_counted_and_asks_for_no_flag(here: Path) -> None:
    run("scan-data", *ROWS)
    findings = {f["probe"]: f for f in record()["findings"]}
    apart = {"label_conflicts", "proxy_association", "data_documentation", "intake"}
    assert set(findings) >= set(PROBES)
    of_models = [f for name, f in findings.items() if name in PROBES and f["outcome"] == "NOT_APPLICABLE"]
    assert all_of(f["other_kind"] for f in of_models if f["probe"] not in apart)
    assert {"group_fairness", "performance", "membership_inference", "dp_claim"} <= {f["probe"] for f in of_models}
    loaded = next(f for f in record()["findings"] if f["probe"] == "intake")
    assert loaded["reason"].startswith("There is no model yet") and "loaded by" not in loaded["reason"]


def test_a_scan_without_a_model_names_the_command_for_rows(here: Path) -> None:
    result = run("scan", "--data", "train.csv")
    assert result.exit_code == 2 and "auditor scan-data" in result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train.csv", "--test", "./train.csv"), "--test"),
        (("absent.csv",), "absent.csv"),
        (("train.csv", "--target", "aproved"), "approved"),
        (("train.csv", "--target", "income"), "--target"),
        ((".",), "pictures"),
        (("train.csv", "--test", "."), "folders"),
    ],
)
def test_wrong_usage_is_one_sentence(words: tuple[str, ...], said: str, here: Path) -> None:
    result = run("scan-data", *words)
    assert result.exit_code in (2, 4) and said in result.output, result.output


def test_the_model_of_an_audit_toml_is_left_out(here: Path) -> None:
    Path("audit.toml").write_text("[audit]\nmodel = 'absent.joblib'\ntarget = 'approved'\n", encoding="utf-8")
    assert run("scan-data", "train.csv", "--probes", "label_conflicts").exit_code == 1
    assert record()["data"]["target"] == "approved"


def test_bounds_of_ones_own_replace_the_profile(here: Path) -> None:
    Path("own.toml").write_text(
        "[[criteria]]\nmetric = 'label_conflict_rate'\nat = { copies = 'exact' }\ndirection = 'at_most'\nbound = 0.5\n"
        "set_by = 'Ann'\nset_at = '2026-12-02'\nsource = 'none'\n",
        encoding="utf-8",
    )
    words = (*ROWS, "--probes", "label_conflicts", "--copies-are-real")
    assert run("scan-data", *words, "--policy", "own.toml").exit_code == 0


def test_evidence_of_rows_is_verified_and_entered(here: Path) -> None:
    words = (*ROWS, "--probes", "label_conflicts", "--bundle", "audit.zip", "--history", "--db", "h.db")
    assert run("scan-data", *words).exit_code == 1
    checked = run("evidence", "verify", "audit.zip")
    assert checked.exit_code in (0, 3), checked.output
    again = run("evidence", "reproduce", "audit.zip")
    assert again.exit_code == 0, again.output
    assert "FAIL" in run("history", "--db", "h.db").output


def test_untrue_metadata_fail_and_the_evidence_of_it_is_verified(here: Path) -> None:
    Path("metadata.json").write_text(json.dumps(metadata_of(399, ("income", "height"))), encoding="utf-8")
    words = ("--croissant", "metadata.json", "--probes", "data_documentation", "--bundle", "audit.zip")
    assert run("scan-data", *ROWS, *words).exit_code == 1
    failed = {f["at"]["about"]: f["detail"] for f in record()["findings"] if f["outcome"] == "FAIL"}
    assert failed == {
        "rows": "states 399 rows, and there are 420",
        "columns": "states a column height, and there is none",
    }
    assert run("evidence", "verify", "audit.zip").exit_code in (0, 3)
    assert run("scan-data", *ROWS, "--croissant", "absent.json").exit_code == 2


def test_python_answers_as_the_command_does(here: Path) -> None:
    run("scan-data", *ROWS, "--test", "test.csv", "--probes", "label_conflicts,proxy_association")
    told = [(f["metric"], f["outcome"], f["value"]) for f in record()["findings"] if f["metric"]]
    report = auditor.scan_data(
        pd.read_csv("train.csv"),
        test=pd.read_csv("test.csv"),
        target="approved",
        sensitive=["sex"],
        probes=["label_conflicts", "proxy_association"],
    )
    assert [(f.metric, f.outcome.value, f.value) for f in report.findings if f.metric] == told and told
    assert report.data.path is report.data.train_path is None


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders of pictures: four of the training pictures are in both classes, and three of the test pictures are
    training pictures that were compressed."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    groups = []
    cats: list[Image.Image] = []
    for part, n in (("train", 12), ("test", 8)):
        for label in ("cat", "dog"):
            folder = tmp_path / part / label
            folder.mkdir(parents=True)
            for i in range(n):
                own = Image.fromarray(rng.integers(0, 255, (6, 6, 3)).astype(np.uint8)).resize((80, 80))
                copied = {("train", "dog"): i if i < 4 else None, ("test", "cat"): i + 5 if i < 3 else None}
                place = copied.get((part, label))
                own = own if place is None else cats[place]
                cats += [own] * (part == "train" and label == "cat")
                name = f"{part}{i}.{'jpg' if part == 'test' else 'png'}"
                own.save(folder / name, quality=85)
                groups.append((f"{label}/{name}", "f" if i % 3 else "m"))
    pd.DataFrame(groups, columns=["file", "sex"]).to_csv("groups.csv", index=False)
    return tmp_path


def test_copies_of_pictures_are_found_within_and_across_folders_by_group(pictures: Path) -> None:
    words = ("--test", "test", "--sensitive", "sex", "--sensitive-file", "groups.csv", "--join-on", "file")
    result = run("scan-data", "train", *words)
    found = [f for f in record()["findings"] if f["metric"]]

    def value(metric: str, copies: str = "", group: dict[str, str] | None = None) -> float:
        own = [f for f in found if f["metric"] == metric and f["at"].get("copies", "") == copies]
        return float(next(f["value"] for f in own if f["group"] == (group or {})))

    assert result.exit_code == 1, result.output
    assert value("label_conflict_rate", "exact") == pytest.approx(8 / 24)
    assert value("duplicate_rate", "similar") == pytest.approx(8 / 24)
    assert value("overlap_rate", "exact") == 0.0
    assert value("overlap_rate", "similar") == pytest.approx(3 / 16)
    # Of the three, the first is of group m, which has three files in each class.
    assert value("overlap_rate", "similar", {"sex": "m"}) == pytest.approx(1 / 6)
    assert value("group_share", "", {"sex": "m"}) == pytest.approx(8 / 24)
    lost = [f for f in record()["findings"] if f["outcome"] == "NOT_RUN"]
    assert lost == []
