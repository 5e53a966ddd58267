"""Where code of a user's runs, truth, groups and counts of a record are those of the data file, or it is refused."""

from __future__ import annotations

import json
import textwrap
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from operator import getitem
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from auditor.data.preprocessing import ImagePreprocessing, fit_tabular
from auditor.data.recounted_truth import Recount
from auditor.loading.job_specs import DataSpec, Job, Limits, ModelSpec, ProbeSpec, RecordedSpec, flag_of_code
from auditor.loading.rows.data_without_model import recount
from auditor.models.networks.architectures import MLP
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.report.record.audit_report import ModelRecord
from auditor.run import child_jobs
from auditor.run.job_messages import Loaded, Recounted
from auditor.run.job_results import Measured
from auditor.run.scan import job_of
from cli.commands import app
from cli.scan_request import configure
from probes import PROBES
from tests.quantifiers import all_of, none_of

ANSWERS = """
import gc
import numpy as np

def own(rows):
    return (rows["a"].to_numpy() > 0).astype(int)

def data():
    from auditor.data.audit_data import AuditData
    return [each for each in gc.get_objects() if type(each) is AuditData and each.y_true is not None and len(each) > 1]

def answers(rows):
    k = own(rows)
    attack(k)
    return np.eye(2)[k] * .8 + .1

answers.classes = ["0", "1"]
"""
LABELS = """
def attack(k):
    for each in data():
        if len(each) == len(k):
            each.y_true[:] = k
"""
# Each says by which word of the refusal it is found.
ATTACKS = {
    "labels": (LABELS, "labels"),
    "groups": (
        """
def attack(k):
    import pandas as pd
    for each in data():
        if len(each) == len(k):
            sex = pd.Categorical(np.where(np.arange(len(k)) % 2 == 0, "F", "M"))
            object.__setattr__(each, "sensitive_features", pd.DataFrame({"sex": sex}))
            each.__dict__.pop("_coded", None)
""",
        "groups",
    ),
    "rows left out": (
        """
from auditor.run import child_jobs as child
from auditor.loading.rows import load_rows as reading
old = child.load_data
def load(spec, model):
    data = old(spec, model)
    return data.take(own(data.X) == data.y_true)
child.load_data = load
def attack(k):
    pass
""",
        "rows",
    ),
    "labels of the loader, digests and recount patched too": (
        """
from dataclasses import replace
from auditor.run import child_jobs as child
from auditor.data import groups_digest
old = child.load_data
def load(spec, model):
    data = old(spec, model)
    return replace(data, y_true=own(data.X))
child.load_data = load
child.recount = child.recounted = None
groups_digest.GroupsDigest.hexdigest = groups_digest.NumbersDigest.hexdigest = lambda self: "0" * 64
def attack(k):
    pass
""",
        "groups",
    ),
    "the table says the truth, and the numbers do not": (
        """
from dataclasses import replace
from auditor.run import child_jobs as child
old = child.counts_of
def counts_of(model, data, **how):
    true = old(model, data, **how)
    data.y_true[:] = own(data.X)
    return true
child.counts_of = counts_of
def attack(k):
    pass
""",
        "performance",
    ),
    "a second table": (
        """
from auditor.run import child_jobs as child
old = child.counts_of
def counts_of(model, data, **how):
    return old(model, data, **how).model_copy(update={"table": (((5000, 0), (0, 5000), (0, 0)),) * 2})
child.counts_of = counts_of
def attack(k):
    pass
""",
        "labels and groups",
    ),
    "another file's digest": (
        """
from auditor.run import child_jobs as child
old = child.complete_record
child.complete_record = lambda *what: old(*what).model_copy(update={"sha256": "0" * 64})
def attack(k):
    pass
""",
        "digest",
    ),
    "another favourable label": (
        """
from auditor.run import child_jobs as child
old = child.data_record
child.data_record = lambda *what: old(*what).model_copy(update={"positive": "0"})
def attack(k):
    pass
""",
        "favourable label",
    ),
    "numbers of performance alone": (
        """
from auditor.run import child_jobs as child
old = child.ask
def ask(probe, model, data, rng, **how):
    if probe.name != "performance":
        return old(probe, model, data, rng, **how)
    true = data.y_true.copy()
    data.y_true[:] = own(data.X)
    try:
        return old(probe, model, data, rng, **how)
    finally:
        data.y_true[:] = true
child.ask = ask
def attack(k):
    pass
""",
        "performance",
    ),
    "no table": (
        """
from auditor.run import child_jobs as child
child.keep = lambda *what, **how: None
def attack(k):
    for each in data():
        if len(each) == len(k):
            each.y_true[:] = k
""",
        "group_fairness",
    ),
    "restored afterwards": (
        """
from auditor.run import child_jobs as child
old = child.counts_of
def counts_of(model, data, **how):
    true = data.y_true.copy()
    data.y_true[:] = own(data.X)
    made = old(model, data, **how)
    data.y_true[:] = true
    return made
child.counts_of = counts_of
def attack(k):
    pass
""",
        "labels and groups",
    ),
}
# Of the rows that a bundle encloses, which the others leave alone.
OF_ROWS = {
    "truth": (
        """
from auditor.run import child_jobs as child
old = child.parts_of
def parts_of(model, data, head):
    for part in old(model, data, head):
        yield part.model_copy(update={"truth": part.predicted})
child.parts_of = parts_of
def attack(k):
    pass
""",
        "labels",
    ),
    "groups": (
        """
from auditor.run import child_jobs as child
old = child.parts_of
def parts_of(model, data, head):
    for part in old(model, data, head):
        yield part.model_copy(update={"groups": tuple(reversed(part.groups))})
child.parts_of = parts_of
def attack(k):
    pass
""",
        "groups",
    ),
}


def coin_flips(folder: Path, n: int = 1200) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"a": rng.normal(size=n).round(4), "sex": rng.choice(["F", "M"], n), "y": rng.integers(2, size=n)}
    )
    frame.to_csv(folder / "d.csv", index=False)
    return frame


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    coin_flips(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


BASE = [
    "scan", "--data", "d.csv", "--target", "y", "--sensitive", "sex", "--positive", "1", "--outputs", "probabilities",
    "--probes", "group-fairness", "--out", "out", "--json",
]  # fmt: skip
PREDICT = ["--predict", "own:answers", "--classes", "0,1"]
BUNDLE = ["--bundle", "b.zip", "--include-rows"]


def scanned(*flags: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(app, [*BASE, *flags])
    assert (Path("out") / "report.json").exists(), result.output
    return result.exit_code, json.loads((Path("out") / "report.json").read_text())


def refused_for(flags: list[str], word: str) -> None:
    code, record = scanned(*flags)
    assert code == 4, record["summary"]
    assert record["refusal"]["reason_code"] == "AUD-DATA-RECOUNT" and word in record["refusal"]["reason"]
    assert record["findings"] == [] and record["data"]["n_rows"] is None


def write(code: str) -> None:
    Path("own.py").write_text(ANSWERS + textwrap.dedent(code))


@pytest.mark.parametrize("with_bundle", [True, False])
def test_labels_that_the_code_sets_to_its_own_answers_refuse_the_audit(scene: Path, with_bundle: bool) -> None:
    write(LABELS)
    refused_for([*PREDICT, *(BUNDLE if with_bundle else [])], "labels")
    if with_bundle:
        with zipfile.ZipFile("b.zip") as bundle:
            assert "rows.csv" not in bundle.namelist()


@pytest.mark.parametrize("name", ATTACKS)
def test_code_that_rewrites_what_is_known_of_the_rows_refuses_the_audit(scene: Path, name: str) -> None:
    code, word = ATTACKS[name]
    write(code)
    refused_for(PREDICT, word)


@pytest.mark.parametrize("name", OF_ROWS)
def test_rows_of_a_bundle_are_those_of_the_file(scene: Path, name: str) -> None:
    code, word = OF_ROWS[name]
    write(code)
    refused_for([*PREDICT, *BUNDLE], word)


@pytest.mark.parametrize("more", [[], ["--bundle", "b.zip"], BUNDLE])
def test_code_that_only_answers_is_audited(scene: Path, more: list[str]) -> None:
    write("def attack(k):\n    pass\n")
    code, record = scanned(*PREDICT, *more)
    (accuracy,) = [f["value"] for f in record["findings"] if f["metric"] == "accuracy" and not f["group"]]
    assert code == 3 and record["refusal"] is None and 0.4 < accuracy < 0.6


# What any code can do as soon as it is imported or unpickled.
AT_IMPORT = """
import sys
from dataclasses import replace
child = sys.modules["auditor.run.child_jobs"]
old = child.load_data

def load(*what):
    data = old(*what)
    return replace(data, y_true=(data.X["a"].to_numpy() > 0).astype(int))

child.load_data = load
"""
OWN = """
import torch

class Own:
    name, pillar, goal, citation, methods, needs = "Own", "robustness", "g", "c", (), ()
    def measure(self, model, data, rng):
        return []

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 2)
    def forward(self, x):
        return self.layer(x)
"""


class Exec:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (AT_IMPORT, {})


class WithCode:
    """A model whose pickle runs code beside it."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __reduce__(self) -> tuple[Any, ...]:
        return getitem, ([Exec(), self.model], 1)


def fitted() -> LogisticRegression:
    X = pd.DataFrame({"a": np.random.default_rng(1).normal(size=200)})
    return LogisticRegression().fit(X, (X["a"] > 0).astype(int))


@pytest.mark.parametrize("way", ["--probe", "--architecture", "--trust-pickle"])
def test_whatever_flag_the_code_comes_by_its_labels_are_not_those_of_the_file(scene: Path, way: str) -> None:
    Path("own.py").write_text(AT_IMPORT + OWN)
    if way == "--probe":
        joblib.dump(fitted(), "m.joblib")
        flags = ["m.joblib", way, "own:Own"]
    elif way == "--trust-pickle":
        joblib.dump(WithCode(fitted()), "m.joblib")
        flags = ["m.joblib", way]
    else:
        torch.save(torch.nn.ModuleDict({"layer": torch.nn.Linear(1, 2)}).state_dict(), "m.pt")
        flags = ["m.pt", way, "own:Net", "--classes", "0,1", "--features", "a"]
        flags += ["--outputs", "logits"]
    refused_for(flags, "labels")


FLAGS: dict[str, dict[str, object]] = {
    "--predict": {"predict": "own:answers"},
    "--generate": {"generate": "own:answers"},
    "--architecture": {"model": "m", "architecture": "own:Net"},
    "--allow-code": {"model": "m", "allow_code": True},
    "--trust-pickle": {"model": "m", "trust_pickle": True},
    "--decoder": {"model": "m", "decoder": ["own:decode"]},
    "--embedder": {"model": "m", "embedder": "own:embed"},
    "--probe": {"model": "m", "probe": ["own:Own"]},
}


@pytest.mark.parametrize("flag", FLAGS)
def test_every_flag_that_runs_code_has_the_rows_recounted_before(scene: Path, flag: str) -> None:
    Path("m").write_text("")
    configured = configure({"data": "d.csv", "target": "y", **FLAGS[flag]}, None, [])
    assert flag_of_code(job_of(configured, PROBES)) in (flag, "--probe")


def test_nothing_is_recounted_where_no_code_runs(scene: Path) -> None:
    joblib.dump(fitted(), "m.joblib")
    configured = configure({"data": "d.csv", "target": "y", "model": "m.joblib"}, None, [])
    assert flag_of_code(job_of(configured, PROBES)) is None
    said = honest(scene, ModelSpec(path=str(scene / "m.joblib")), held=False, target="y")
    assert none_of(isinstance(message, Recounted) for message in said)


# ---- honest code is never refused, however labels and groups are spelled ---------------------------------------------


class Heard:
    def __init__(self) -> None:
        self.said: list[Any] = []

    def send(self, message: Any) -> None:
        self.said.append(message)


def answers(rows: Any) -> Any:
    return np.tile([0.4, 0.6], (len(rows), 1))


def numbers(rows: Any) -> Any:
    return np.arange(len(rows)) % 7 * 0.5


PREDICTS = ModelSpec(predict="tests.run.test_recounting:answers", classes=("0", "1"), outputs="probabilities")
FAIR = ProbeSpec(name="group_fairness", target="probes.fairness.group_fairness:GroupFairness")
WORTH = ProbeSpec(name="performance", target="probes.performance.performance:Performance")
IMPACT = ProbeSpec(name="adverse_impact", target="probes.fairness.adverse_impact:AdverseImpact")


def honest(folder: Path, model: ModelSpec, *, held: bool = True, path: str = "d.csv", **columns: Any) -> list[Any]:
    """What a child says of an honest model, none of which may be refused."""
    job = Job(
        model=model,
        data=DataSpec(path=str(folder / path), **columns),
        probes=(WORTH, FAIR, IMPACT) if columns.get("sensitive") else (WORTH,),
        seed=0,
        limits=Limits(memory_bytes=1 << 30, seconds=60.0),
        evidence=None if columns.get("stream") else "rows",
    )
    channel = Heard()
    child_jobs.run(job, channel)  # type: ignore[arg-type]
    done = Measured(keeps=True, keeps_members=True, held=job.data if held else None)
    done.begin(spec.name for spec in job.probes)
    for message in channel.said:
        done.take(message, lambda words: None)
    done.hold(job.probes, PROBES)
    assert done.refusal is None, done.refusal.reason
    return channel.said


def rows(**more: Any) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = 200
    columns = {"a": rng.normal(size=n).round(3), "y": rng.integers(2, size=n), "g": rng.choice(["u", "v", "w"], n)}
    return pd.DataFrame({**columns, **{name: value(rng, n) for name, value in more.items()}})


def holes(values: Any) -> Any:
    return [None if i % 9 == 0 else value for i, value in enumerate(values)]


SPELLED: dict[str, Callable[[Any, int], Any]] = {
    "padded": lambda rng, n: rng.choice(["007", "7", "12"], n),
    "fractions": lambda rng, n: rng.choice([0.5, 1.0, 2.25], n),
    "fractions of different lengths": lambda rng, n: rng.choice(["0.50", "0.5", "1.0"], n),
    "truths": lambda rng, n: rng.choice([True, False], n),
    "with holes": lambda rng, n: holes(rng.choice(["u", "v"], n)),
    "numbers with holes": lambda rng, n: holes(rng.integers(3, size=n).tolist()),
    "called missing": lambda rng, n: rng.choice(["(missing)", "u", "NA"], n),
    "days": lambda rng, n: rng.choice(["2020-01-01", "2021-05-06"], n),
    "one": lambda rng, n: ["x"] * n,
}


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("spelling", SPELLED)
def test_groups_in_any_spelling_are_recounted_as_they_were_counted(tmp_path: Path, spelling: str, ending: str) -> None:
    frame = rows(s=SPELLED[spelling])
    kept(frame, tmp_path / f"d.{ending}")
    said = honest(tmp_path, PREDICTS, path=f"d.{ending}", target="y", sensitive=("s", "g"))
    assert isinstance(said[0], Recounted) and not said[0].recount.why_not


def kept(frame: pd.DataFrame, path: Path) -> None:
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_json(path, orient="records", lines=True)


LABELLED: dict[str, Callable[[Any, int], Any]] = {
    "holes": lambda rng, n: holes(rng.integers(2, size=n).tolist()),
    "truths": lambda rng, n: rng.choice(["true", "False"], n),
    "fractions": lambda rng, n: rng.choice(["1.0", "0"], n),
}


@pytest.mark.parametrize("spelling", LABELLED)
def test_labels_in_any_spelling_are_recounted_as_they_were_counted(tmp_path: Path, spelling: str) -> None:
    kept(rows(y=LABELLED[spelling]), tmp_path / "d.csv")
    classes = ("False", "True") if spelling == "truths" else ("0", "1")
    honest(tmp_path, replace(PREDICTS, classes=classes), target="y", sensitive=("g",))


OTHERS: dict[str, Mapping[str, Any]] = {
    "no target": {"sensitive": ("g",)},
    "nothing named": {},
    "bins": {"target": "y", "sensitive": ("a", "g"), "bins": ("a=-1,0,1",)},
    "quantiles": {"target": "y", "sensitive": ("a",), "bins": ("a=quantiles:4",)},
    "each value": {"target": "y", "sensitive": ("z",), "bins": ("z=values",)},
    "a cluster and a weight": {"target": "y", "sensitive": ("g",), "cluster": "c", "weight": "w"},
    "training rows": {"target": "y", "sensitive": ("g",), "train": "t.csv"},
    "a file of groups": {"target": "y", "sensitive": ("s",), "sensitive_file": "s.csv", "join_on": "id"},
    "a feature list": {"target": "y", "sensitive": ("g",), "features": ("a", "g")},
    "the target as a group": {"target": "y", "sensitive": ("y", "g")},
    "a group among no features": {"target": "y", "sensitive": ("g",), "features": ("a",)},
}


@pytest.mark.parametrize("what", OTHERS)
def test_rows_of_every_kind_are_recounted_as_they_were_counted(tmp_path: Path, what: str) -> None:
    more = {
        "c": lambda rng, n: rng.integers(40, size=n),
        "w": lambda rng, n: rng.random(n),
        "id": lambda rng, n: np.arange(n),
    }
    frame = rows(**more, z=lambda rng, n: rng.integers(8, size=n))
    kept(frame, tmp_path / "d.csv")
    kept(frame[50:].assign(a=0.123), tmp_path / "t.csv")
    kept(pd.DataFrame({"id": np.arange(10, 220), "s": ["p", "q", "r"] * 70}), tmp_path / "s.csv")
    files = {name: str(tmp_path / OTHERS[what][name]) for name in ("train", "sensitive_file") if name in OTHERS[what]}
    honest(tmp_path, PREDICTS, **{**OTHERS[what], **files})


@pytest.mark.parametrize("n_values", [5, 20_000])
def test_true_numbers_are_recounted_as_they_were_read(tmp_path: Path, n_values: int) -> None:
    n = max(200, n_values)
    frame = pd.DataFrame(
        {"a": np.arange(n) % 10, "y": np.arange(n) % n_values * 0.1 + 1e-7, "g": ["u", "v"] * (n // 2)}
    )
    frame.loc[3, "y"] = np.nan
    kept(frame, tmp_path / "d.csv")
    model = ModelSpec(predict="tests.run.test_recounting:numbers", task="regression")
    said = honest(tmp_path, model, target="y", sensitive=("g",))
    assert said[0].recount.n_without == 1


def test_rows_that_stream_by_are_recounted_in_parts(tmp_path: Path) -> None:
    frame = rows(s=lambda rng, n: rng.integers(3, size=n))
    preprocessing = fit_tabular(frame[["a", "g", "s"]])
    args = {"n_features": preprocessing.width, "hidden": [4], "n_outputs": 2}
    net = MLP(preprocessing.width, [4], 2)
    architecture = {"name": "mlp", "args": args}
    save(TorchModel(net, classes=["0", "1"], preprocessing=preprocessing, architecture=architecture), tmp_path / "m.pt")
    kept(frame, tmp_path / "d.csv")
    for stream in (True, False):
        model = ModelSpec(path=str(tmp_path / "m.pt"), allow_code=True)
        honest(tmp_path, model, target="y", sensitive=("s", "g"), stream=stream)


def test_a_models_own_answers_are_recounted_beside_a_probe_of_the_users(tmp_path: Path) -> None:
    kept(rows(p=lambda rng, n: rng.random(n)), tmp_path / "d.csv")
    for columns in ({"score": ("p",)}, {"loss": "p"}):
        spec = RecordedSpec(**columns)
        honest(tmp_path, ModelSpec(code_folder=str(tmp_path)), recorded=spec, target="y", sensitive=("g",))


@pytest.mark.parametrize("broken", [False, True])
def test_files_of_a_folder_are_recounted_by_the_sub_folders(
    tmp_path: Path, broken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    model = TorchModel(
        net, classes=["real", "fake"], preprocessing=ImagePreprocessing(size=(8, 8)), outputs="logits"
    )  # fmt: skip
    monkeypatch.setattr(child_jobs, "load_model", lambda *what, **how: model)
    rng = np.random.default_rng(0)
    for i in range(12):
        place = tmp_path / "d" / ("fakes" if i % 3 else "real")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(255, size=(8, 8, 3), dtype=np.uint8)).save(place / f"{i}.png")
    if broken:
        (tmp_path / "d" / "real" / "0.png").write_bytes(b"nothing")
    names = [file.relative_to(tmp_path / "d").as_posix() for file in (tmp_path / "d").rglob("*.png")]
    kept(pd.DataFrame({"file": names, "g": [name[-5] for name in names]}), tmp_path / "s.csv")
    said = honest(
        tmp_path, replace(PREDICTS, classes=("real", "fake")), path="d",
        sensitive=("g",), sensitive_file=str(tmp_path / "s.csv"), join_on="file",
    )  # fmt: skip
    assert said[0].recount.n == 12 and said[0].recount.folder


def test_what_cannot_be_recounted_is_refused(tmp_path: Path) -> None:
    done = Measured(held=DataSpec(path="d.csv"))
    done.take(Recounted(recount=Recount(why_not="it is on fire")), print)
    done.hold([], {})
    assert done.refusal is not None
    silent = Measured(held=DataSpec(path="d.csv"))
    with pytest.raises(ValueError, match="before the recount"):
        silent.take(Loaded(model=ModelRecord(), device="cpu"), print)
    with pytest.raises(ValueError, match="nobody asked for"):
        Measured().take(Recounted(recount=Recount()), print)


def test_the_first_recount_holds(tmp_path: Path) -> None:
    kept(rows(), tmp_path / "d.csv")
    spec = DataSpec(path=str(tmp_path / "d.csv"), target="y", sensitive=("g",))
    first = recount(spec)
    done = Measured(held=spec)
    done.take(Recounted(recount=first), print)
    with pytest.raises(ValueError, match="came again"):
        done.take(Recounted(recount=first.model_copy(update={"n": 3})), print)
    assert all_of(sum(n for *_, n in reading.cells) == first.n == 200 for reading in first.readings)
