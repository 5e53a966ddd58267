"""The public API: what ``import auditor`` gives, and that it gives what the command gives."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import auditor
from auditor.data.preprocessing import fit_tabular
from auditor.judging.criterion import Criterion
from auditor.judging.measurement import Outcome
from auditor.models.networks.architectures import MLP
from auditor.report.record.audit_report import AuditReport
from auditor.run.scan import model_spec
from auditor.run.scan_options import ScanOptions, flags
from tests import ROOT
from tests.quantifiers import all_of

PROBES = "group_fairness,score_fairness"
ROWS: dict[str, Any] = {"target": "y", "positive": "1", "sensitive": ["sex"]}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("public_api")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2))
    frame = pd.DataFrame(x, columns=["a", "b"])
    frame["sex"] = rng.choice(["f", "m"], 600)
    frame["y"] = (x[:, 0] + rng.normal(size=600) > 0).astype(int)
    frame.to_csv(folder / "data.csv", index=False)
    torch.manual_seed(0)
    args = {"n_features": 2, "n_outputs": 2, "hidden": [4]}
    model = auditor.TorchModel(
        MLP(**args),
        classes=[0, 1],
        preprocessing=fit_tabular(frame[["a", "b"]]),
        architecture={"name": "mlp", "args": args},
    )
    auditor.save(model, folder / "model.pt")
    return folder


def numbers(report: AuditReport) -> str:
    """All of a record but when it was made, how long it took, where things lie and how the model was loaded."""
    said = json.loads(report.to_json())
    return json.dumps([said["findings"], said["figures"], said["family"], said["criteria"], said["exit_code"]])


def test_the_public_api_is_light_a_probe_comes_alone_and_every_name_opens() -> None:
    code = """
import sys, auditor
heavy = {"torch", "pandas", "numpy", "scipy", "pydantic", "probes", "cli"} & set(sys.modules)
assert not heavy, heavy
assert dir(auditor) == sorted(auditor.__all__) and len(auditor.__all__) == len(set(auditor.__all__))
import probes.fairness.proxies
assert "probes.table" not in sys.modules, "whoever imports one probe imports all"
for name in auditor.__all__:
    assert getattr(auditor, name) is not None and getattr(auditor, name) is getattr(auditor, name), name
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 20 <= len(auditor.__all__) <= 31
    with pytest.raises(AttributeError, match="no attribute 'scna'"):
        auditor.scna  # type: ignore[attr-defined] # noqa: B018


def test_a_model_of_pictures_is_saved_by_public_names_alone(tmp_path: Path) -> None:
    wanted = auditor.ImagePreprocessing(size=(4, 4), mean=(0.1,), std=(0.2,))
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    auditor.save(auditor.TorchModel(module, classes=["a", "b"], preprocessing=wanted), tmp_path / "m.pt")
    kept = torch.load(tmp_path / "m.pt", weights_only=True)
    assert auditor.ImagePreprocessing.model_validate(kept["preprocessing"]) == wanted


def test_the_version_is_the_distributions() -> None:
    assert auditor.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_a_scan_in_python_is_the_commands_scan(files: Path) -> None:
    command = ["scan", "model.pt", "--data", "data.csv", "--target", "y", "--positive", "1", "--sensitive", "sex"]
    done = subprocess.run(
        [sys.executable, "-m", "auditor", *command, "--probes", PROBES, "--quiet"], cwd=files, check=False
    )
    commands = AuditReport.from_json((files / "audit-report" / "report.json").read_bytes())
    of_paths = auditor.scan(files / "model.pt", files / "data.csv", probes=PROBES, **ROWS)
    assert done.returncode == of_paths.exit_code == commands.exit_code
    assert numbers(of_paths) == numbers(commands)
    of_a_frame = auditor.scan(str(files / "model.pt"), pd.read_csv(files / "data.csv"), probes=PROBES, **ROWS)
    assert numbers(of_a_frame) == numbers(commands)
    assert of_a_frame.data.path is None and of_paths.data.path == str(files / "data.csv")


def test_objects_give_the_same_findings_as_their_files(files: Path) -> None:
    of_paths = auditor.scan(files / "model.pt", files / "data.csv", probes=PROBES, **ROWS)
    model = auditor.load_model(files / "model.pt")
    data = auditor.load_data(files / "data.csv", model, **ROWS)
    assert numbers(auditor.scan(model, data, probes=PROBES)) == numbers(of_paths)
    assert numbers(auditor.scan(model, pd.read_csv(files / "data.csv"), probes=PROBES, **ROWS)) == numbers(of_paths)


def test_criteria_and_options_of_probes_are_taken(files: Path) -> None:
    model = auditor.load_model(files / "model.pt")
    loose = Criterion(
        metric="demographic_parity_difference", direction="at_most", bound=0.9, source="test", set_by="me", set_at=""
    )
    report = auditor.scan(
        model,
        files / "data.csv",
        probes=["group-fairness"],
        criteria=[loose],
        probe_options={"group-fairness": {"intersections": False}},
        **ROWS,
    )
    assert [c.bound for c in report.criteria] == [0.9]
    # The network was never trained: that it lies within the bound says nothing of it.
    (gap,) = [f for f in report.findings if f.criterion is not None]
    assert gap.p_pass is not None and gap.p_pass < 0.05 and gap.vacuous and report.exit_code == 3
    with pytest.raises(auditor.AuditorError, match="did you mean 'intersections'"):
        auditor.scan(model, files / "data.csv", probe_options={"group_fairness": {"intersection": False}}, **ROWS)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"traget": "y"}, "scan has no option 'traget'; did you mean 'target'?"),
        ({"out": "here"}, "out= is for the command alone"),
        ({"registration": "r.json"}, "registration= is for the command alone"),
        ({"threshold": 2}, "threshold=2"),
        ({"target": "Y"}, "did you mean 'y'"),
        ({"probes": "group_fairnes"}, "did you mean 'group_fairness'"),
        ({"probes": []}, "it names no probe: leave it out"),
        ({"probes": ""}, "it names no probe: leave it out"),
        ({"probes": [auditor.PROBES["group_fairness"]()]}, "is asked by auditor.run_audit"),
        ({"probe_options": {"group_fairness.intersections": False}}, "takes options by probe"),
        ({"probe_options": ["x"]}, "takes options by probe"),
        ({"train": 3}, "Rows are a path, a DataFrame or auditor.AuditData, and this is a int"),
    ],
)
@pytest.mark.parametrize("in_memory", [False, True])
def test_what_is_wrong_is_said_in_a_sentence(options: dict[str, Any], said: str, in_memory: bool, files: Path) -> None:
    model: Any = auditor.load_model(files / "model.pt") if in_memory else files / "model.pt"
    with pytest.raises(auditor.AuditorError, match=said.replace("?", r"\?")):
        auditor.scan(model, files / "data.csv", **options)


def test_models_and_rows_that_do_not_go_together_are_refused(files: Path) -> None:
    model = auditor.load_model(files / "model.pt")
    data = auditor.load_data(files / "data.csv", model, **ROWS)
    with pytest.raises(auditor.AuditorError, match="AuditData goes with a model in memory"):
        auditor.scan(files / "model.pt", data)
    for said in ({"threshold": 0.9}, {"device": "cuda"}, {"max_seconds": 1.0}, {"probe": ["mine:Mine"]}):
        with pytest.raises(auditor.AuditorError, match="this one is here already"):
            auditor.scan(model, data, **said)
    for about in ({"target": "y"}, {"classes": ["0", "1"]}, {"features": ["a"]}, {"train": files / "data.csv"}):
        with pytest.raises(auditor.AuditorError, match="AuditData says that itself"):
            auditor.scan(model, data, **about)
    twice = pd.read_csv(files / "data.csv").rename(columns={"b": "a"})
    with pytest.raises(auditor.AuditorError, match="The DataFrame holds what a table in a file cannot"):
        auditor.scan(model, twice)
    with pytest.raises(auditor.AuditorError, match="takes the path of a model, and this is a NoneType"):
        auditor.load_model(None)  # type: ignore[arg-type]
    with pytest.raises(auditor.AuditorError, match=r"wrap it with auditor.TorchModel\(module"):
        auditor.scan(torch.nn.Linear(2, 2))  # type: ignore[arg-type]
    with pytest.raises(auditor.AuditorError, match="There is no model at"):
        auditor.scan(files / "modle.pt")


def test_rows_in_memory_go_with_an_earlier_model_to_compare_with(files: Path) -> None:
    model = auditor.load_model(files / "model.pt")
    data = auditor.load_data(files / "data.csv", model, **ROWS)
    report = auditor.scan(model, data, probes="change", reference=str(files / "model.pt"))
    assert report.findings and all_of(finding.outcome is not Outcome.NOT_RUN for finding in report.findings)
    with pytest.raises(auditor.AuditorError, match="load_data has no option .reference."):
        auditor.load_data(files / "data.csv", model, reference=str(files / "model.pt"))


def test_a_refused_file_makes_a_report_that_says_so(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    report = auditor.scan(tmp_path / "whole.pt")
    assert report.exit_code == 4 and report.refusal is not None
    assert "'weights.pt'" in report.refusal.reason and "--trust-pickle" in report.refusal.reason
    assert "Exit code 4" in report._repr_html_()
    # A script that reads the columns of an audit must not fall over one of which nothing came.
    assert report.to_frame().empty and {"outcome", "metric", "value", "low", "high"} <= set(report.to_frame().columns)


def test_a_report_shows_itself_and_is_a_table(files: Path) -> None:
    report = auditor.scan(files / "model.pt", files / "data.csv", probes=PROBES, **ROWS)
    frame = report.to_frame()
    assert list(frame["id"]) == [f.id for f in report.findings]
    assert set(frame["outcome"]) == {f.outcome.value for f in report.findings}
    judged = frame[frame.required.notna()]
    assert len(judged) and (judged.low <= judged.value).all() and (judged.value <= judged.high).all()
    shown = report._repr_html_()
    assert f"Exit code {report.exit_code}" in shown
    for outcome, n in frame.outcome.value_counts().items():
        assert f"{n} {outcome}" in shown
    assert shown.count("<tr>") == 1 + len(judged) + int((frame.outcome == "NOT_RUN").sum())
    hostile = report.model_copy(
        update={"findings": (report.findings[0].model_copy(update={"outcome": Outcome.NOT_RUN, "reason": "<s>"}),)}
    )
    assert "&lt;s&gt;" in hostile._repr_html_() and "<s>" not in hostile._repr_html_()


def test_every_option_has_words_and_the_model_spec_takes_what_it_needs() -> None:
    assert len(flags()) > 40
    for name, flag in flags().items():
        assert flag.help.endswith(".")
        if name not in ("device", "task", "multiplicity"):
            assert flag.help[0].isupper()
    with pytest.raises(auditor.AuditorError, match="There is no model"):
        model_spec(ScanOptions(model="/nowhere/model.pt"))
