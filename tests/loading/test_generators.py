"""Anything that turns text into text, as a model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from auditor.core.errors import ModelError, NotApplicableError, UsageError
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.loading.user_functions import FunctionWriter
from auditor.models.capabilities import scorer_of, writer_of
from auditor.models.generation import Sampling
from auditor.run.scan import scan
from auditor.run.scan_options import Configured, ScanOptions
from probes import PROBES

_CODE = """
def shout(text):
    return " " + text.upper()[:20] + "."

def number(text):
    return 7

def fails(text):
    raise PermissionError("no network")
"""


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("shouting", None)


def spec(folder: Path, name: str) -> ModelSpec:
    (folder / "shouting.py").write_text(_CODE)
    return ModelSpec(generate=f"shouting:{name}", code_folder=str(folder))


def test_a_function_is_a_model_that_writes_and_nothing_else(tmp_path: Path) -> None:
    model = load_model(spec(tmp_path, "shout"))
    assert isinstance(model, FunctionWriter) and model.kind == "language_model"
    writer = writer_of(model)
    said = writer.continued(["the cat. sat"], 2, Sampling(until="sentence"), np.random.default_rng(0))
    assert said == [[" THE CAT."] * 2]
    assert [reply.text for reply in writer.replies([["a", "b", "c"]], 4)] == [" A\n\nB\n\nC."]
    assert model.provenance.loaded_by == "the user's own shouting:shout" and model.provenance.sha256
    with pytest.raises(NotApplicableError, match="a function that turns text into text gives texts, and nothing else"):
        scorer_of(model)
    with pytest.raises(NotApplicableError, match="leave --chat on out"):
        writer_of(model, "on")


def test_what_returns_no_text_or_raises_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="returned a int: it takes one text and returns one"):
        writer_of(load_model(spec(tmp_path, "number"))).replies([["a"]], 4)
    with pytest.raises(ModelError, match="raised PermissionError: no network.*need --allow-unsandboxed"):
        writer_of(load_model(spec(tmp_path, "fails"))).replies([["a"]], 4)
    with pytest.raises(UsageError, match="the module has no 'shou'; did you mean 'shout'"):
        load_model(spec(tmp_path, "shou"))


def test_a_scan_of_a_function_runs_it_where_it_may_do_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec(tmp_path, "shout")
    monkeypatch.chdir(tmp_path)
    asked = ScanOptions.from_values({"generate": "shouting:shout", "probes": "stereotype,extraction"})
    report = scan(Configured(asked, {}, ()), PROBES).report
    reasons = {f.probe: f.reason for f in report.findings}
    assert "gives texts, and nothing else" in reasons["stereotype"]
    assert report.model.loaded_by == "the user's own shouting:shout"
    both = ScanOptions.from_values({"generate": "shouting:shout", "model": "http://127.0.0.1:9/v1", "model_name": "x"})
    with pytest.raises(UsageError, match=r"says how a file is loaded|leave one of them out"):
        scan(Configured(both, {}, ()), PROBES)
