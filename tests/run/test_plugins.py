"""Probes and mitigations of other distributions: found without an import, listed with where they come from, used only
where they are named, in the process that measures."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest

from auditor.core.errors import ConfigError, UsageError
from auditor.models.saved_models import save
from auditor.report.record.audit_report import AuditReport
from auditor.run.plugins import (
    Plugin,
    installed,
    known_probes,
    load_mitigation,
    load_probe_class,
    mitigation_class,
    probe_target,
)
from auditor.run.scan import probe_specs
from cli.scan_request import configure
from mitigations import MITIGATIONS
from probes import PROBES
from tests.mitigations.planted_rows import biased_rows, trained
from tests.toys.interpreters import interpreter

MODULE = '''
"""A package of somebody else's."""
import numpy as np
from auditor.judging.measurement import Measurement
from auditor.run.mitigation import Mitigated
from auditor.run.probe import Need
from auditor.statistics.rates import Proportion

print("imported")


class Share:
    """The share of rows that the model is unsure of. Source: none."""

    name = "unsure"
    pillar = "robustness"
    goal = "On how many rows is the model unsure?"
    citation = "none"
    methods = ("share",)
    needs = (Need.CLASSIFIER, Need.DATA)

    def __init__(self, *, sure=0.6):
        self.sure = sure

    def measure(self, model, data, rng):
        unsure = model.outputs(data.evaluation).max(axis=1) < self.sure
        estimate = Proportion(successes=int(unsure.sum()), n=len(unsure))
        return [Measurement(metric="unsure_share", estimate=estimate, n_samples=len(unsure), ideal=0.0)]


class Copies:
    """Another model with the same weights. Source: none."""

    name = "copies"
    pillar = "fairness"
    goal = "Change nothing"
    citation = "none"
    methods = ("copy",)
    stage = "in-processing"
    needs = "a bundle"

    def mitigate(self, model, data, rng, training):
        import copy
        from auditor.models.torch_model import TorchModel
        new = TorchModel(
            copy.deepcopy(model.module), classes=model.classes, preprocessing=model.preprocessing,
            architecture=model.architecture, recipe=model.recipe,
        )
        return Mitigated(model=new, notes=("Nothing was changed.",))
'''
ENTRY_POINTS = {"auditor.probes": {"un-sure": "far_away:Share"}, "auditor.mitigations": {"copies": "far_away:Copies"}}
EntryPoints = Mapping[str, Mapping[str, str]]


def bring(site: Path, name: str, points: EntryPoints, version: str = "0.3", **modules: str) -> None:
    """An installed distribution, as pip leaves it: its modules, and a dist-info folder that names entry points."""
    site.mkdir(exist_ok=True)
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"[{group}]\n" + "".join(f"{n} = {t}\n" for n, t in own.items()) for group, own in points.items()]
    (folder / "entry_points.txt").write_text("\n".join(lines))
    for module, text in modules.items():
        (site / f"{module}.py").write_text(text)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path, to install into."""
    where = tmp_path / "site"
    where.mkdir()
    monkeypatch.syspath_prepend(str(where))
    return where


# ---- finding them --------------------------------------------------------------------------------------------------


def test_they_are_found_and_nothing_is_imported(site: Path) -> None:
    bring(site, "far-away", ENTRY_POINTS, far_away="raise RuntimeError('imported')")
    assert installed("auditor.probes", PROBES) == (
        Plugin(name="un_sure", target="far_away:Share", distribution="far-away", version="0.3"),
    )
    assert [p.source for p in installed("auditor.mitigations", MITIGATIONS)] == ["far-away 0.3"]
    assert probe_target("un_sure", PROBES, known_probes(PROBES)) == "far_away:Share"
    assert "far_away" not in sys.modules


def test_without_any_there_are_none(tmp_path: Path) -> None:
    assert installed("auditor.probes", PROBES) == ()
    with pytest.raises(UsageError, match=r"There is no probe 'group_fairnes'; did you mean 'group_fairness'\?"):
        probe_target("group_fairnes", PROBES, {})


def test_a_built_in_name_cannot_be_taken(site: Path) -> None:
    bring(site, "far-away", {"auditor.probes": {"group-fairness": "far_away:Share"}})
    (plugin,) = installed("auditor.probes", PROBES)
    assert plugin.refused == (
        "far-away 0.3 brings a probe 'group_fairness', which is the name of a built-in one: it is left out until it is "
        "renamed there."
    )
    target = probe_target("group_fairness", PROBES, known_probes(PROBES))
    assert target == "probes.fairness.group_fairness:GroupFairness"


def test_a_name_of_two_distributions_is_nobodys(site: Path) -> None:
    bring(site, "far-away", ENTRY_POINTS)
    bring(site, "near-by", {"auditor.probes": {"un_sure": "near_by:Share"}}, version="2.0")
    assert {p.refused for p in installed("auditor.probes", PROBES)} == {
        "far-away 0.3 and near-by 2.0 bring a probe 'un_sure': uninstall one, or rename it there."
    }
    with pytest.raises(UsageError, match="far-away 0.3 and near-by 2.0"):
        probe_target("un_sure", PROBES, known_probes(PROBES))


def test_one_distribution_may_not_name_two_alike(site: Path) -> None:
    bring(site, "far-away", {"auditor.probes": {"un_sure": "a:A", "un-sure": "a:B"}})
    assert {p.refused for p in installed("auditor.probes", PROBES)} == {
        "far-away 0.3 twice brings a probe 'un_sure': uninstall one, or rename it there."
    }


@pytest.mark.parametrize(("name", "target"), [("1st", "a:A"), ("a b", "a:A"), ("un_sure", "a"), ("un_sure", "a:A[x]")])
def test_what_is_no_name_and_no_class_is_refused(site: Path, name: str, target: str) -> None:
    bring(site, "far-away", {"auditor.probes": {name: target}})
    (plugin,) = installed("auditor.probes", PROBES)
    assert plugin.refused.startswith("far-away 0.3 ")


def test_the_first_of_two_copies_is_the_one_that_counts(site: Path, tmp_path: Path) -> None:
    bring(site, "far-away", ENTRY_POINTS)
    bring(tmp_path / "second", "Far-Away", ENTRY_POINTS, version="0.1")
    sys.path.append(str(tmp_path / "second"))
    assert [p.version for p in installed("auditor.probes", PROBES)] == ["0.3"]


def test_a_distribution_in_the_working_folder_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bring(tmp_path, "far-away", ENTRY_POINTS, far_away=MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), *sys.path])
    assert installed("auditor.probes", PROBES) == ()


def test_a_scan_that_names_none_asks_what_this_toolkit_brings(site: Path) -> None:
    bring(site, "far-away", ENTRY_POINTS)
    assert [spec.name for spec in probe_specs(configure({"model": "a.pt"}, None, []), PROBES)] == list(PROBES)
    named = {"model": "a.pt", "probes": "un-sure,change"}
    assert [spec.target for spec in probe_specs(configure(named, None, []), PROBES)] == [
        "far_away:Share", "probes.fairness.change_since_reference:Change",
    ]  # fmt: skip


# ---- importing them ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import not_there", "'m:A' cannot be imported: No module named 'not_there'."),
        ("", "'m:A' cannot be imported: module 'm' has no attribute 'A'."),
        ("raise ValueError('no luck')", "'m:A' cannot be imported: ValueError: no luck."),
        ("raise SystemExit(3)", "'m:A' cannot be imported: SystemExit: 3."),
        ("A = 1", "'m:A' is no probe: it is no class."),
        ("class A: pass", "'m:A' is no probe: it has no method measure."),
        ("class A:\n name = 'a'\n def measure(self): ...", "'m:A' is no probe: its class attribute 'goal' is no text."),
        (MODULE.replace('"robustness"', '"justice"').replace("Share", "A"), "its class attribute 'pillar' is none of"),
        (MODULE.replace("(Need.CLASSIFIER, Need.DATA)", "('data',)").replace("Share", "A"), "no tuple of Need"),
        (MODULE.replace('("share",)', '"share"').replace("Share", "A"), "'methods' is no tuple of texts"),
    ],
)
def test_what_is_no_probe_is_said_in_a_sentence(
    site: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    (site / "m.py").write_text(source)
    monkeypatch.delitem(sys.modules, "m", raising=False)
    with pytest.raises(UsageError) as caught:
        load_probe_class("m:A")
    assert said in str(caught.value) and "\n" not in str(caught.value)
    monkeypatch.delitem(sys.modules, "m", raising=False)


def test_a_class_is_called_what_it_is_installed_as(site: Path) -> None:
    bring(site, "far-away", ENTRY_POINTS, far_off=MODULE)
    assert load_probe_class("far_off:Share", "unsure").goal == "On how many rows is the model unsure?"
    with pytest.raises(ConfigError, match="installed as 'un_sure' and calls itself 'unsure': give it one name"):
        load_probe_class("far_off:Share", "un_sure")
    with pytest.raises(ConfigError, match="'far_off:Share' is no mitigation: it has no method mitigate"):
        load_mitigation("far_off:Share")
    assert mitigation_class("reweighing", MITIGATIONS) is MITIGATIONS["reweighing"]
    with pytest.raises(UsageError, match="did you mean 'reweighing'"):
        mitigation_class("reweighting", MITIGATIONS)


# ---- from end to end, installed beside this toolkit ----------------------------------------------------------------


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has this toolkit and two other distributions, one of which is broken."""
    where = tmp_path_factory.mktemp("installed")
    python, packages = interpreter(where)
    points = {**ENTRY_POINTS, "auditor.probes": {"unsure": "far_away:Share"}}
    bring(packages, "far-away", points, far_away=MODULE)
    bring(packages, "broken", {"auditor.probes": {"broken-probe": "broken:Probe"}}, broken="import nowhere")
    return python


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("scanned")
    for name, seed in (("train", 1), ("test", 2)):
        rows = biased_rows(300, seed)
        assert isinstance(rows.X, pd.DataFrame)
        rows.X.assign(y=rows.y_true).to_csv(where / f"{name}.csv", index=False)
    save(trained(biased_rows(300, 1), epochs=2), where / "old.pt")
    return where


def call(python: Path, folder: Path, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [python, "-c", "from cli.commands import app; app()", *arguments], cwd=folder, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


ROWS = ("--data", "test.csv", "--target", "y", "--positive", "1", "--sensitive", "group")


def test_the_list_says_where_each_comes_from(python: Path, folder: Path) -> None:
    code, output, _ = call(python, folder, "probes", "--json")
    rows = {row["name"]: row for row in json.loads(output)}
    assert code == 0 and set(rows) == {*PROBES, "unsure", "broken_probe"}
    assert rows["group_fairness"]["distribution"] == "responsible-auditor"
    unsure, broken = rows["unsure"], rows["broken_probe"]
    assert (unsure["distribution"], unsure["version"], unsure["error"]) == ("far-away", "0.3", "")
    assert unsure["goal"] == "On how many rows is the model unsure?"
    assert broken["error"] == "Probe 'broken:Probe' cannot be imported: No module named 'nowhere'."
    code, output, _ = call(python, folder, "mitigate", "list")
    assert code == 0 and output.splitlines()[-1].startswith("copies\tfairness\tcopy\tChange nothing\ta bundle\tnone")


@pytest.mark.slow
def test_a_scan_asks_it_where_it_is_named(python: Path, folder: Path) -> None:
    named = ("--probes", "group_fairness,unsure", "--set", "unsure.sure=0.7")
    code, output, errors = call(python, folder, "scan", "old.pt", *ROWS, *named)
    assert code in (0, 1, 3), output + errors
    report = AuditReport.from_json((folder / "audit-report/report.json").read_bytes())
    (found,) = [f for f in report.findings if f.probe == "unsure"]
    assert found.metric == "unsure_share" and found.pillar == "robustness" and found.n_samples == 300
    assert {f.probe for f in report.findings} == {"intake", "performance", "group_fairness", "unsure"}


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize(
    ("named", "said"),
    [
        (("--probes", "broken-probe"), "Probe 'broken:Probe' cannot be imported: No module named 'nowhere'."),
        (("--probes", "unshure"), "did you mean 'unsure'?"),
        (("--probes", "unsure", "--set", "unsure.shure=1"), "has no option 'shure'; did you mean 'sure'?"),
    ],
)
def test_what_cannot_be_asked_is_wrong_usage(python: Path, folder: Path, named: tuple[str, ...], said: str) -> None:
    code, _, errors = call(python, folder, "scan", "old.pt", *ROWS, *named)
    assert code == 2 and said in " ".join(errors.split()) and "Traceback" not in errors


@pytest.mark.slow
def test_a_mitigation_of_another_distribution_makes_a_model(python: Path, folder: Path) -> None:
    arguments = ("mitigate", "copies", "old.pt", "--out", "new.pt", "--train", "train.csv", *ROWS)
    code, output, errors = call(python, folder, *arguments, "--probes", "group_fairness,change", "--report", "mended")
    assert code == 3 and "note      Nothing was changed." in output, output + errors
    assert (folder / "new.pt").exists() and (folder / "mended/comparison.html").exists()
