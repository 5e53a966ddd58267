"""What mitigations say of how they did on real data: before they are used, and in the notes of what they make."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from auditor.loading.job_specs import DataSpec, Job, Limits, MitigationSpec, ModelSpec
from auditor.models.torch_model import TorchModel
from auditor.run.child_jobs import mitigate
from auditor.run.job_channel import Channel, Said
from auditor.run.job_messages import Repaired
from auditor.run.mitigation import Experience, experience_of
from benchmarks.mitigations import TITLES, VERDICTS, experience, write_experience
from cli.probe_tables import print_mitigations
from mitigations import MITIGATIONS
from mitigations.rows.reweighing_and_resampling import Reweighing
from mitigations.selection_guide import measured_experience
from tests import ROOT
from tests.mitigations.planted_rows import biased_rows
from tests.quantifiers import all_of, none_of

FILE = ROOT / "mitigations" / "experience.toml"
SETS = {"Adult", "COMPAS", "law school", "CPS", "HMDA"}


def test_what_was_measured_is_told_whole() -> None:
    found = Experience(
        when="1 May, 3 seeds", better=("A", "B"), worse=("C",), equal=("D",), peers=("Beside X: better on A",)
    )
    assert found.describe() == (
        "better than doing nothing on A, B; worse than doing nothing on C; neither shown on D. Beside X: better on A. "
        "1 May, 3 seeds"
    )
    warning = found.warning()
    assert warning is not None and "was worse than doing nothing on C (1 May, 3 seeds)" in warning
    costly = Experience(when="1 May", better=("A",), cost=("B",)).warning()
    assert costly is not None and "was costly in accuracy on B (1 May)" in costly
    assert Experience(when="", better=("A",), equal=("D",), refused=("E",)).warning() is None


def test_each_mitigation_of_tables_says_of_each_set_how_it_did() -> None:
    measured = measured_experience()
    assert set(measured) <= set(MITIGATIONS) and len(measured) == 12
    for name, found in measured.items():
        assert experience_of(MITIGATIONS[name]) is found
        told = [*found.better, *found.equal, *found.worse, *found.cost, *found.refused]
        assert sorted(told) == sorted(SETS), name
    untold = [kind for name, kind in MITIGATIONS.items() if name not in measured]
    assert none_of(experience_of(kind) is not None for kind in untold)


def test_what_is_read_is_what_the_file_holds() -> None:
    tables = tomllib.loads(FILE.read_text(encoding="utf-8"))
    first = measured_experience()
    assert measured_experience() is first  # read once
    assert {
        name: {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(found).items() if value}
        for name, found in measured_experience().items()
    } == tables


def test_the_file_is_read_when_somebody_asks_and_not_before() -> None:
    code = (
        "import mitigations\n"
        "from auditor.run.mitigation import experience_of\n"
        "from mitigations.selection_guide import measured_experience\n"
        "assert not measured_experience.cache_info().misses\n"
        "assert experience_of(mitigations.MITIGATIONS['fair_gan']).cost\n"
        "assert measured_experience.cache_info().misses == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def summary_of(told: Mapping[str, Experience]) -> dict[str, Any]:
    """What ``benchmarks/mitigations.py`` found where mitigations say this of themselves."""
    data = {title: key for key, title in TITLES.items()}
    found: dict[str, Any] = {
        key: {"seeds": range(4), "against_nothing": {}, "against_peers": {}} for key in data.values()
    }
    for name, each in told.items():
        for word in VERDICTS:
            for title in getattr(each, word):
                found[data[title]]["against_nothing"][name] = {"verdict": word}
        for sentence in each.peers:
            peer, _, verdicts = sentence.removeprefix("Beside ").replace("'s ", " ").partition(": ")
            for part in verdicts.split("; "):
                word, _, titles = part.partition(" on ")
                for title in titles.split(", "):
                    found[data[title]]["against_peers"][f"{name} / {peer}"] = f"{word}: 2 / 1 = 2.00"
    return found


def test_the_benchmark_writes_what_the_file_holds(tmp_path: Path) -> None:
    told = {name: found for name, found in measured_experience().items() if "4 seeds" in found.when}
    assert len(told) == 11
    written = tmp_path / "experience.toml"
    written.write_bytes(FILE.read_bytes())
    write_experience(written, experience(summary_of(told), date(2026, 11, 27)))
    assert written.read_bytes() == FILE.read_bytes()
    # A method that was run again is written anew, and the others stay.
    again = experience(summary_of({"min_diff": Experience(when="", refused=tuple(SETS))}), date(2026, 12, 1))
    write_experience(written, again)
    before, after = (tomllib.loads(file.read_text(encoding="utf-8")) for file in (FILE, written))
    assert after.pop("min_diff") == {
        "when": "equalized odds, 1 December 2026, 4 seeds",
        "refused": list(TITLES.values()),
    }
    before.pop("min_diff")
    assert after == before


def test_the_list_says_it_before_a_mitigation_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    print_mitigations(as_json=True)
    listed = {row["name"]: row["experience"] for row in json.loads(capsys.readouterr().out)}
    assert all_of(listed[name] == found.describe() for name, found in measured_experience().items())
    assert listed["dp_sgd"] == ""


def test_what_it_makes_is_noted_with_it(tmp_path: Path, model: TorchModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = biased_rows(300, 1)
    assert isinstance(rows.X, pd.DataFrame)
    rows.X.assign(y=rows.y_true).to_csv(tmp_path / "train.csv", index=False)
    bad = Experience(when="1 May, 3 seeds", worse=("C",))
    monkeypatch.setattr(Reweighing, "experience", bad)
    spec = MitigationSpec(
        name="reweighing", target="mitigations.rows.reweighing_and_resampling:Reweighing", out=str(tmp_path / "new.pt")
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
    assert isinstance(last, Repaired) and last.notes[-1] == bad.warning() and len(last.notes) >= 2
