"""``auditor export`` as a user runs it: what is written and when nothing is, and the audit of what was written."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from auditor.models.saved_models import save
from cli.commands import app
from tests.loading.exporting.planted import bundle, converted, rows, ruled, sold

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
RUNNER = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("export")
    save(bundle(threshold=0.35), where / "plain.pt")
    save(ruled("maps", 0.35), where / "fair.pt")
    for name, spelled in (("rows", False), ("spelled", True)):
        X = rows(500, spelled=spelled)
        # A column of text, whose numbers a reader without the encoding must not take for some.
        X.assign(y=["yes", "no"] * 250).to_csv(where / f"{name}.csv", index=False)
    return where


def call(*arguments: object) -> tuple[int, str]:
    result = RUNNER.invoke(app, ["export", *map(str, arguments)])
    return result.exit_code, " ".join(result.output.split())


def test_a_checked_export_says_so_and_keeps_what_it_was_checked_on(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    given = (folder / "fair.pt", "--to", "onnx", "--data", folder / "rows.csv", "--positive", "no", "--out", out)
    code, said = call(*given)
    assert code == 0 and "checked 500 rows: every decision is the model's" in said, said
    record: dict[str, Any] = json.loads((tmp_path / "m.onnx.export.json").read_text())
    assert record["format"] == "auditor-export/1" and record["positive"] == "no"
    assert (record["rows"], record["differing_decisions"]) == (500, 0)
    assert 0.0 <= record["largest_probability_difference"] < 1e-6
    for part, path in (("source", folder / "fair.pt"), ("artifact", out), ("data", folder / "rows.csv")):
        assert record[part] == {"path": str(path), "sha256": sha256(path.read_bytes()).hexdigest()}
    assert {"python", "torch", "onnx", "onnxruntime", "responsible-auditor"} <= set(record["versions"])
    # Its own earlier output may be replaced, another's may not.
    assert call(*given)[0] == 0
    out.write_bytes(b"mine")
    code, said = call(*given)
    assert code == 2 and "is not what auditor wrote there" in said and out.read_bytes() == b"mine"


def test_an_export_without_rows_is_written_and_not_checked(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    code, said = call(folder / "plain.pt", "--to", "onnx", "--positive", "yes", "--out", out)
    assert code == 3 and "NOT CHECKED" in said and out.exists()
    record = json.loads((tmp_path / "m.onnx.export.json").read_text())
    assert record["rows"] is record["differing_decisions"] is record["data"] is None


def test_the_model_that_was_read_is_never_written_over(folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    assert call(folder / "plain.pt", "--to", "onnx", "--positive", "yes", "--out", model)[0] == 3
    was = model.read_bytes()
    code, said = call(model, "--to", "onnx", "--positive", "yes", "--out", model, "--force")
    assert code == 2 and "which this command reads" in said
    code, said = call(model, "--to", "onnx", "--positive", "yes")
    assert code == 3 and "m-2.onnx" in said, said
    assert model.read_bytes() == was and (tmp_path / "m-2.onnx").exists()


def test_a_decision_that_differs_refuses_the_file_and_names_its_rows(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "m.skops"
    data = folder / "spelled.csv"
    code, said = call(folder / "plain.pt", "--to", "sklearn", "--data", data, "--positive", "yes", "--out", out)
    assert code == 1 and "nothing was written: " in said and "of 500 decisions" in said
    X = pd.read_csv(data, dtype={"job code": str})
    first = int(said.split("in row ")[1].split(",")[0])
    assert X["job code"][first - 1] in ("10.0", "TRUE", "true", "2.000")
    assert not out.exists() and [p.name for p in tmp_path.rglob("*")] == []


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--to", "pmml"), 2, "--to 'pmml' must be one of onnx, torch, sklearn"),
        (("--to", "onnx", "--out", "m.pt2"), 2, "must end in .onnx"),
        (("--to", "onnx"), 2, "favourable label against 0.35: add --positive yes or --positive no"),
        (("--to", "onnx", "--positive", "maybe"), 2, "--positive 'maybe' is none of the model's classes"),
        (("--to", "onnx", "--data", "absent.csv"), 2, "There is no data file at 'absent.csv'"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    more: tuple[str, ...], code: int, said: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.pt").write_bytes((folder / "plain.pt").read_bytes())
    found, output = call("plain.pt", *more)
    assert found == code and said in output, output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain.pt"]


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize(
    ("to", "model"), [("onnx", "fair"), ("onnx", "plain"), ("torch", "fair"), ("sklearn", "plain")]
)
def test_the_audit_of_the_file_is_that_of_the_bundle(to: str, model: str, folder: Path, tmp_path: Path) -> None:
    place = {"onnx": "m.onnx", "torch": "m.pt2", "sklearn": "m.skops"}[to]
    data = ("--data", folder / "rows.csv")
    code, said = call(folder / f"{model}.pt", "--to", to, *data, "--positive", "no", "--out", tmp_path / place)
    assert code == 0, said
    found = []
    for path, more in ((folder / f"{model}.pt", ()), (tmp_path / place, ("--allow-code",) if to == "torch" else ())):
        out = tmp_path / f"report-{path.name}"
        given = ["scan", path, *data, "--target", "y", "--positive", "no", "--sensitive", "sex", *more]
        RUNNER.invoke(app, [*map(str, given), "--probes", "group_fairness", "--out", str(out), "--quiet"])
        report = json.loads((out / "report.json").read_text())
        found.append([f for f in report["findings"] if f["probe"] == "group_fairness"])
    assert len(found[0]) > 5 and found[0] == found[1]


@pytest.mark.slow
def test_a_pipeline_in_an_onnx_file_is_mitigated_and_exported_as_one_file(tmp_path: Path) -> None:
    X = sold(1500)
    converted(tmp_path / "m.onnx", 18, zipmap=True, matrix=False)
    y = ["yes" if a / 20 + g + (s == "f") > 4.0 else "no" for a, g, s in X.itertuples(index=False)]
    X.assign(y=y).to_csv(tmp_path / "rows.csv", index=False)
    rows_given = ["--data", str(tmp_path / "rows.csv"), "--target", "y", "--positive", "yes", "--sensitive", "sex"]
    given = ["mitigate", "threshold_optimizer", str(tmp_path / "m.onnx"), "--with", "deterministic=true"]
    given += ["--out", str(tmp_path / "fair"), "--train", str(tmp_path / "train.csv"), *rows_given]
    X.iloc[::-1].assign(y=y[::-1]).head(1000).to_csv(tmp_path / "train.csv", index=False)
    made = RUNNER.invoke(app, [*given, "--probes", "group_fairness", "--report", str(tmp_path / "report"), "--quiet"])
    assert made.exit_code in (0, 1, 3) and (tmp_path / "fair").is_dir(), made.output
    out = tmp_path / "fair.onnx"
    code, said = call(tmp_path / "fair", "--to", "onnx", "--data", tmp_path / "rows.csv", "--out", out)
    assert code == 0 and "1,500 rows: every decision is the model's" in said, said
    record = json.loads((tmp_path / "fair.onnx.export.json").read_text())
    assert record["source"]["path"] == str(tmp_path / "fair") and len(record["source"]["sha256"]) == 64
