"""Croissant and the datasheet: what they state is what the audit found, and mlcroissant finds no error in it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import auditor
from auditor.data.audit_data import AuditData
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.report_formats import render
from probes.performance.data_documentation import DataDocumentation
from tests.quantifiers import all_of
from tests.report.test_formats import nasty_report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("private")
    rng = np.random.default_rng(0)
    for name, n in (("train.csv", 400), ("test.csv", 200)):
        frame = pd.DataFrame(
            {"income": rng.normal(size=n), "debt": rng.normal(size=n), "sex": rng.choice(["f", "m"], n)}
        )
        frame["income"] = frame.income.where((frame.sex == "m") | (rng.random(n) < 0.7))
        frame.assign(approved=rng.choice(["yes", "no"], n)).to_csv(made / name, index=False)
    return made


@pytest.fixture(scope="module")
def report(folder: Path) -> AuditReport:
    return auditor.scan_data(
        str(folder / "train.csv"),
        test=str(folder / "test.csv"),
        target="approved",
        sensitive=["sex"],
        probes=["representation", "data_leakage", "proxy_association"],
    )


def card(report: AuditReport) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(render(report, "croissant"))
    return found


def test_files_are_named_with_their_digests_and_without_their_folder(report: AuditReport, folder: Path) -> None:
    files = {each["name"]: each for each in card(report)["distribution"]}
    assert set(files) == {"train.csv", "test.csv"}
    for name, n in (("train.csv", 400), ("test.csv", 200)):
        assert files[name]["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
        assert files[name]["description"].endswith(f"{n} rows")
    assert all_of("private" not in render(report, name).decode() for name in ("croissant", "datasheet"))


def test_fields_are_the_columns_that_were_named(report: AuditReport, folder: Path) -> None:
    known = set(pd.read_csv(folder / "train.csv").columns)
    sets = card(report)["recordSet"]
    named = {field["source"]["extract"]["column"] for each in sets for field in each["field"]}
    assert named == {"approved", "sex"} <= known
    ids = [each["@id"] for own in sets for each in (own, *own["field"])]
    assert len(ids) == len(set(ids)) == 6


def test_what_was_found_is_stated_and_nothing_else(report: AuditReport) -> None:
    found = card(report)
    failed = next(f for f in report.findings if f.metric == "missing_rate_difference" and f.outcome.value == "FAIL")
    assert f"{failed.value:.3g}"[:4] in found["rai:dataCollectionMissingData"]
    assert "FAIL: missing_rate_difference by sex" in found["rai:dataCollectionMissingData"]
    assert not {"license", "citeAs", "datePublished", "rai:dataCollection"} & set(found)
    sheet = render(report, "datasheet").decode()
    sections = ["Motivation", "Composition", "Collection", "Uses", "Distribution", "Maintenance"]
    assert all_of(f"\n## {title}\n" in sheet for title in sections)
    assert "- Training rows: `train.csv`, 400," in sheet and "FAIL: missing" in sheet
    biases = sheet.partition("### Differences between groups")[2].partition("###")[0]
    proxies = [f for f in report.findings if f.metric == "proxy_auc" and f.value is not None]
    assert proxies and biases.count("NOT JUDGED: proxy\\_auc") == len(proxies) <= len(found["rai:dataBiases"])
    assert "smallest" not in biases


def test_what_is_written_is_read_as_true_and_a_doctored_one_as_untrue(
    report: AuditReport, folder: Path, tmp_path: Path
) -> None:
    """Of both files, and of the groups where they were counted."""
    frame = pd.read_csv(folder / "test.csv")
    stated = json.dumps(card(report))
    count = f'"value": {int((frame.sex == "f").sum())}, '
    assert count in stated and '"value": 400, ' in stated
    for name, doctored in ((None, stated), ("groups", stated.replace(count, '"value": 3, '))):
        path = tmp_path / "card.json"
        path.write_text(doctored, encoding="utf-8")
        for file in ("train.csv", "test.csv"):
            rows = pd.read_csv(folder / file)
            data = AuditData.from_arrays(rows, classes=("no", "yes"), sensitive_features=rows[["sex"]])
            model: Any = None
            found = DataDocumentation(croissant=str(path)).measure(
                model, replace(data, table=str(folder / file)), np.random.default_rng(0)
            )
            own = {m.at["about"]: m.estimate.value for m in found if m.metric == "contradicted_statements"}
            wrong = {name} if file == "test.csv" else {None}
            assert own == {
                about: float(about in wrong)
                for about in ("rows", "columns", "file", *(["groups"] if file == "test.csv" else []))
            }


@pytest.mark.parametrize("which", ["plain", "nasty"])
def test_mlcroissant_finds_no_error(which: str, report: AuditReport, tmp_path: Path) -> None:
    """Its pins are not ours, so it is asked where it is installed in an environment of its own."""
    program = shutil.which("mlcroissant")
    if program is None:
        pytest.skip("mlcroissant is not on the PATH")
    path = tmp_path / "card.json"
    path.write_bytes(render(report if which == "plain" else nasty_report(), "croissant"))
    done = subprocess.run([program, "validate", "--jsonld", str(path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "error(s)" not in done.stderr and "Done." in done.stderr, done.stderr
