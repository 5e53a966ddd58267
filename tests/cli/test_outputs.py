"""A network that ends in a sigmoid, by the command: a gap of 0.23 once was a PASS of 0 through three loaders."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from auditor.data.preprocessing import NumericColumn, TabularPreprocessing
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.report.record.audit_report import AuditReport
from cli.commands import app

NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self, n_features=3, n_outputs=1, end="sigmoid"):
        super().__init__()
        self.last = torch.nn.Linear(n_features, n_outputs)
        self.end = end

    def forward(self, x):
        z = self.last(x)
        return torch.sigmoid(z) if self.end == "sigmoid" else torch.softmax(z, dim=1) if self.end == "softmax" else z
"""
ROWS = ("--target", "y", "--positive", "yes", "--sensitive", "sex", "--probes", "group-fairness")
NAMED = ("--classes", "no,yes", "--features", "a,b,c")
OWN = ("--architecture", "outputs_net:Net")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Rows of which one sex is favoured more often, and the code of a network that does so."""
    rng = np.random.default_rng(0)
    n = 4000
    frame = pd.DataFrame(rng.normal(size=(n, 3)), columns=list("abc"))
    frame["sex"] = np.where(rng.random(n) < 0.5, "f", "m")
    frame["a"] += 0.6 * (frame["sex"] == "m")
    frame["y"] = np.where(frame["a"] + rng.normal(size=n) > 0, "yes", "no")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "outputs_net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    sys.modules.pop("outputs_net", None)


def write(name: str) -> None:
    """The network, with the logit 2a, in a file of a loader's."""
    namespace: dict[str, Any] = {}
    exec(NET, namespace)
    network = namespace["Net"]().eval()
    with torch.no_grad():
        network.last.weight.copy_(torch.tensor([[2.0, 0.0, 0.0]]))
        network.last.bias.fill_(0.0)
    if name in ("bundle.pt", "old.pt"):
        columns = tuple(NumericColumn(name=c, mean=0.0, scale=1.0) for c in "abc")
        named = {"name": "Net", "args": {}}
        preprocessing = TabularPreprocessing(columns=columns)
        save(TorchModel(network, classes=["no", "yes"], preprocessing=preprocessing, architecture=named), name)
        # As bundles were written before, where silence was "logits".
        as_before = {"outputs": "logits"} if name == "old.pt" else {}
        torch.save(torch.load(name, weights_only=True) | as_before, name)
    elif name == "weights.pt":
        torch.save(network.state_dict(), name)
    elif name == "program.pt":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.trace(network, torch.zeros(2, 3)).save(name)  # type: ignore[no-untyped-call]
    else:
        rows = torch.export.Dim("rows", min=1)
        torch.export.save(torch.export.export(network, (torch.zeros(2, 3),), dynamic_shapes=({0: rows},)), name)


LOADERS = {
    "bundle": ("bundle.pt", *OWN),
    "bundle of before": ("old.pt", *OWN),
    "weights": ("weights.pt", *OWN, *NAMED),
    "TorchScript": ("program.pt", "--allow-code", *NAMED),
    "torch.export": ("program.pt2", "--allow-code", *NAMED),
}


def scan(*arguments: str) -> tuple[int, str, AuditReport]:
    result = CliRunner().invoke(app, ["scan", *arguments, "--data", "rows.csv", *ROWS, "--out", "out"])
    return (
        result.exit_code,
        " ".join(result.output.split()),
        AuditReport.from_json(Path("out/report.json").read_bytes()),
    )


@pytest.mark.grid
@pytest.mark.parametrize(
    ("loader", "more"),
    [
        *((loader, ()) for loader in LOADERS),
        ("bundle", ("--bundle", "kept.zip")),
        ("bundle", ("--threshold", "0.4")),
        ("weights", ("--threshold", "0.4")),
    ],
)
def test_the_scan_is_refused_with_the_question_and_the_answer_ends_in_an_audit(
    here: Path, loader: str, more: tuple[str, ...]
) -> None:
    write(LOADERS[loader][0])
    code, output, report = scan(*LOADERS[loader], *more)
    assert code == report.exit_code == 4
    assert report.refusal is not None and report.refusal.code == "model_refused"
    for said in (report.refusal.reason, output):
        assert "between 0.001226 and 0.9996" in said and "over 4,000 rows" in said
        assert "--outputs probabilities or --outputs logits" in said
    assert {f.probe for f in report.findings} <= {"intake"}
    code, output, report = scan(*LOADERS[loader], *more, "--outputs", "probabilities")
    frame = pd.read_csv("rows.csv")
    threshold = 0.4 if more[:1] == ("--threshold",) else 0.5
    chosen = 1 / (1 + np.exp(-2 * frame["a"].to_numpy(np.float32).astype(np.float64))) >= threshold
    rates = pd.Series(chosen).groupby(frame["sex"]).mean()
    found = next(f for f in report.findings if f.metric == "demographic_parity_difference")
    assert code == report.exit_code == 1 and found.outcome == "FAIL"
    assert found.value == pytest.approx(rates.max() - rates.min(), abs=1e-9)


def test_the_other_answer_is_taken_as_well(here: Path) -> None:
    write("weights.pt")
    code, _, report = scan(*LOADERS["weights"], "--outputs", "logits")
    found = next(f for f in report.findings if f.metric == "demographic_parity_difference")
    # As a logit, what lies in [0, 1] is never below one half: everybody is chosen.
    assert report.refusal is None and found.value == 0.0


def test_numbers_that_are_no_probabilities_are_refused_where_it_is_said(here: Path) -> None:
    write("weights.pt")
    arguments = (*LOADERS["weights"], "--architecture-args", '{"end": "nothing"}')
    code, output, report = scan(*arguments, "--outputs", "probabilities")
    assert code == 4 and report.refusal is not None
    assert "said to be probabilities" in output and "which are none" in output and "--outputs logits" in output
    code, _, report = scan(*arguments)
    assert code == 1 and report.refusal is None


@pytest.mark.parametrize(("end", "stated"), [("softmax", False), ("nothing", True)])
def test_training_states_what_was_trained_unless_the_network_ends_otherwise(here: Path, end: str, stated: bool) -> None:
    made = CliRunner().invoke(
        app,
        ["train", "rows.csv", "--target", "y", "--positive", "yes", "--features", "a,b,c", "--out", "trained.pt",
         *OWN, "--architecture-args", f'{{"end": "{end}"}}', "--epochs", "3"],
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    bundle = torch.load("trained.pt", weights_only=True)
    assert (bundle.get("outputs"), bundle.get("outputs_stated")) == (("logits", True) if stated else (None, None))
    asked = "will ask for --outputs" in " ".join(made.output.split())
    code, output, report = scan("trained.pt", *OWN)
    assert asked == (not stated) == (report.refusal is not None)


@pytest.mark.parametrize("place", ["MODEL", "--data", "--predictions", "--out"])
def test_a_name_that_is_not_utf_8_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The record could not name it, and JSON holds no such text."""
    monkeypatch.chdir(tmp_path)
    odd = os.fsdecode(b"o\xff.csv")
    for name in ("d.csv", *([odd] if place != "--out" else [])):
        Path(name).write_text("a,y,p\n" + "1,0,1\n2,1,0\n" * 20)
    words = {"MODEL": [odd, "--data", "d.csv"], "--data": ["d.csv", "--data", odd]}.get(place, [])
    answers = ["--predicted", "p", "--out", odd if place == "--out" else "out"]
    words = words or ["--predictions", odd if place == "--predictions" else "d.csv", *answers]
    # The log of an audit holds the command line.
    monkeypatch.setattr(sys, "argv", ["auditor", "scan", *words])
    result = CliRunner().invoke(app, ["scan", *words, "--target", "y", "--quiet"])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("auditor: A path or a name") and "UTF-8" in result.stderr, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
