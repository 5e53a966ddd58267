"""What mitigations say of how they did on real data: before they are used, and in the notes of what they make."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from auditor.intake.specs import DataSpec, Job, Limits, MitigationSpec, ModelSpec
from auditor.model.torch_model import TorchModel
from auditor.run.child import mitigate
from auditor.run.messages import Repaired
from auditor.run.mitigation import Experience, experience_of
from auditor.run.protocol import Channel, Said
from cli.catalogue import print_mitigations
from mitigations import MITIGATIONS
from mitigations.experience import EXPERIENCE
from mitigations.rows.reweighing import Reweighing
from tests.mitigations.planted_rows import biased_rows
from tests.quantifiers import all_of, none_of

SETS = {"Adult", "COMPAS", "law school", "CPS", "HMDA"}


def test_what_was_measured_is_told_whole() -> None:
    found = Experience(
        when="1 May, 3 seeds", better=("A", "B"), worse=("C",), equal=("D",), peers=("Beside X: better on A",)
    )
    assert found.told() == (
        "better than doing nothing on A, B; worse than doing nothing on C; neither shown on D. Beside X: better on A. "
        "1 May, 3 seeds"
    )
    warning = found.warning()
    assert warning is not None and "worse than doing nothing on C (1 May, 3 seeds)" in warning
    assert Experience(when="", better=("A",), equal=("D",), refused=("E",)).warning() is None


def test_each_mitigation_of_tables_says_of_each_set_how_it_did() -> None:
    assert set(EXPERIENCE) <= set(MITIGATIONS) and len(EXPERIENCE) == 12
    for name, found in EXPERIENCE.items():
        assert experience_of(MITIGATIONS[name]) is found
        told = [*found.better, *found.equal, *found.worse, *found.refused]
        assert sorted(told) == sorted(SETS), name
    untold = [kind for name, kind in MITIGATIONS.items() if name not in EXPERIENCE]
    assert none_of(experience_of(kind) is not None for kind in untold)


def test_the_list_says_it_before_a_mitigation_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    print_mitigations(as_json=True)
    listed = {row["name"]: row["experience"] for row in json.loads(capsys.readouterr().out)}
    assert all_of(listed[name] == found.told() for name, found in EXPERIENCE.items())
    assert listed["dp_sgd"] == ""


def test_what_it_makes_is_noted_with_it(tmp_path: Path, model: TorchModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = biased_rows(300, 1)
    assert isinstance(rows.X, pd.DataFrame)
    rows.X.assign(y=rows.y_true).to_csv(tmp_path / "train.csv", index=False)
    bad = Experience(when="1 May, 3 seeds", worse=("C",))
    monkeypatch.setattr(Reweighing, "experience", bad)
    spec = MitigationSpec(
        name="reweighing", target="mitigations.rows.reweighing:Reweighing", out=str(tmp_path / "new.pt")
    )
    job = Job(
        model=ModelSpec(path=None, device="cpu"),
        data=DataSpec(path=str(tmp_path / "train.csv"), target="y", positive="1", sensitive=("group",)),
        probes=(),
        seed=0,
        limits=Limits(memory_bytes=4 << 30, seconds=120.0),
        mitigation=spec,
    )
    heard: list[Said] = []

    class Listening(Channel):
        def __init__(self) -> None:
            pass

        def send(self, message: Said) -> None:
            heard.append(message)

    mitigate(spec, model, job, Listening())
    last = heard[-1]
    assert isinstance(last, Repaired) and last.notes[-1] == bad.warning() and len(last.notes) == 2
