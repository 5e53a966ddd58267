"""The measuring process: what dies, hangs, lies or grows becomes NOT_RUN, and the other probes still answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import pandas as pd
import pytest
import skops.io as skops
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from auditor.core.errors import DataError, UsageError
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import fit_tabular
from auditor.judging.criterion import load_criteria
from auditor.judging.measurement import Copies, Outcome
from auditor.loading.job_specs import DataSpec, Job, Limits, ModelSpec, ProbeSpec
from auditor.loading.sandbox import landlock, measuring_process, seccomp
from auditor.loading.sandbox.resource_limits import OwnTime
from auditor.models.audited_model import AuditedModel
from auditor.models.networks.architectures import MLP
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.report.record.audit_report import ExitCode, ModelRecord
from auditor.run import child_jobs, parent_process
from auditor.run.job_channel import MAX_MESSAGE, MOST_LINES
from auditor.run.job_messages import Keeping, Kept
from auditor.run.job_results import Measured
from auditor.run.parent_process import _Pipe, measure
from auditor.run.predictions import AnswersHead, AnswersPart
from auditor.run.run_audit import assemble, environment
from auditor.statistics.estimate import Undefined
from probes import PROBES
from tests.quantifiers import none_of
from tests.warm_child import WarmChildren

PROBE = """
import os, signal, time
import numpy as np

class {name}:
    '''A probe for a test.'''
    name = "{name}"
    pillar = "robustness"
    goal = "To go wrong."
    citation = "none"
    methods = ()
    needs = ()
    def measure(self, model, data, rng):
        {body}
"""
FAIR = ProbeSpec(name="group_fairness", target="probes.fairness.group_fairness:GroupFairness")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    n = 400
    frame = pd.DataFrame({"a": rng.normal(size=n), "c": rng.choice(list("uvw"), n)})
    preprocessing = fit_tabular(frame)
    torch.manual_seed(0)
    args = {"n_features": preprocessing.width, "hidden": [4], "n_outputs": 2}
    module = MLP(preprocessing.width, [4], 2)
    save(
        TorchModel(
            module, classes=["no", "yes"], preprocessing=preprocessing, architecture={"name": "mlp", "args": args}
        ),
        tmp_path / "model.pt",
    )
    frame["y"], frame["sex"] = rng.choice(["yes", "no"], n), rng.choice(["f", "m"], n)
    frame.to_csv(tmp_path / "data.csv", index=False)
    return tmp_path


def job(files: Path, *probes: ProbeSpec, seconds: float = 60.0, memory: int = 4 << 30, **data: object) -> Job:
    columns = {"target": "y", "positive": "yes", "sensitive": ("sex",)} | data
    return Job(
        model=ModelSpec(path=str(files / "model.pt"), device="cpu", code_folder=str(files)),
        data=DataSpec(path=str(files / "data.csv"), **columns),  # type: ignore[arg-type]
        probes=probes,
        seed=0,
        limits=Limits(memory_bytes=memory, seconds=seconds),
    )


def own(files: Path, name: str, body: str) -> ProbeSpec:
    (files / f"probe_{name}.py").write_text(PROBE.format(name=name, body=textwrap.indent(body, " " * 8).strip()))
    return ProbeSpec(name=name, target=f"probe_{name}:{name}", own=True)


def reasons(measured: Measured) -> dict[str, str]:
    return {result.probe: result.not_run for result in measured.results}


@pytest.mark.grid
@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("Raises", "raise RuntimeError('the sky fell')", "RuntimeError: the sky fell"),
        ("Killed", "os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("Crashes", "os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("Exits", "os._exit(7)", "code 7"),
        ("Hangs", "time.sleep(1000)", "longer than 5 s"),
        ("Silent", "return []", ""),
    ],
)
def test_a_probe_that_goes_wrong_is_not_run_and_the_others_answer(files: Path, name: str, body: str, said: str) -> None:
    measured = measure(job(files, own(files, name, body), FAIR, seconds=5.0 if name == "Hangs" else 60.0), {})
    assert said in reasons(measured)[name]
    assert [r.probe for r in measured.results] == ["intake", name, "group_fairness"]
    fair = measured.results[2]
    assert fair.measurements and not fair.not_run
    report = assemble(
        measured.results,
        load_criteria(),
        model=measured.model or ModelRecord(),
        data=measured.data,  # type: ignore[arg-type]
        environment=environment(device="cpu", seed=0),
    )
    assert [f.outcome for f in report.findings if f.probe == name] == [Outcome.NOT_RUN]
    assert report.exit_code == ExitCode.INCONCLUSIVE


def test_two_bad_probes_cost_two_children_beside_the_first(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    start = measuring_process.start_child
    monkeypatch.setattr(
        measuring_process,
        "start_child",
        lambda *a: started.append(1) or start(*a),  # type: ignore[func-returns-value]
    )
    bad = [own(files, n, "os.kill(os.getpid(), signal.SIGKILL)") for n in ("First", "Second")]
    measured = measure(job(files, bad[0], FAIR, bad[1]), {})
    assert [r.probe for r in measured.results] == ["intake", "First", "group_fairness", "Second"]
    assert [bool(r.not_run) for r in measured.results] == [False, True, False, True]
    # The first asks what comes with the tool, and nothing of the user's runs in it.
    assert len(started) == 3


@pytest.mark.real_child
def test_memory_beyond_the_limit_is_not_run(files: Path) -> None:
    hog = own(files, "Hog", "x = np.ones(1 << 30)\nreturn [x]")
    measured = measure(job(files, hog, FAIR, memory=2 << 30), {})
    assert "emory" in reasons(measured)["Hog"]
    assert measured.results[2].measurements


@pytest.mark.real_child
def test_the_child_sees_no_secrets_and_works_in_its_scratch(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("PYTHONPATH", str(files))
    tell = own(
        files, "Tell", "raise RuntimeError(f\"{os.environ.get('AWS_SECRET_ACCESS_KEY')} {os.getcwd()} {os.listdir()}\")"
    )
    said = reasons(measure(job(files, tell), {}))["Tell"]
    assert "hunter2" not in said and str(Path.cwd()) not in said and said.endswith("[]")


@pytest.mark.parametrize(
    ("column", "flag"),
    [({"target": "Y"}, "'y'"), ({"sensitive": ("sexx",)}, "'sex'"), ({"target": "nothing"}, "It has: a, c, y, sex")],
)
def test_an_unknown_column_is_a_usage_error_with_the_nearest_name(
    files: Path, column: dict[str, object], flag: str
) -> None:
    with pytest.raises(UsageError, match="no column") as caught:
        measure(job(files, FAIR, **column), {})
    assert flag in str(caught.value)


@pytest.mark.real_child
def test_a_refused_model_is_a_refusal_with_its_reason(files: Path) -> None:
    (files / "model.pt").write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    measured = measure(job(files, FAIR), {})
    assert measured.refusal is not None and measured.refusal.code == "model_refused"
    assert "system" in measured.refusal.reason
    assert measured.results == []


def test_what_nobody_needs_is_given_back_again_once_all_is_imported(files: Path) -> None:
    says = own(files, "collects", "import gc; raise RuntimeError(f'{gc.isenabled()}, {gc.get_freeze_count() > 0}')")
    assert "True, True" in reasons(measure(job(files, says), {}))["collects"]


@pytest.mark.slow
@pytest.mark.real_child
def test_what_opens_a_pipeline_is_imported_in_the_sandbox(files: Path) -> None:
    """Other measuring processes of tests were forked from one that had imported it."""
    rows = pd.read_csv(files / "data.csv")
    skops.dump(make_pipeline(StandardScaler(), LogisticRegression()).fit(rows[["a"]], rows.y), files / "own.skops")
    asked = replace(job(files, FAIR), model=ModelSpec(path=str(files / "own.skops"), device="cpu"))
    measured = measure(asked, {})
    assert measured.sandbox is not None and measured.sandbox.is_confined == (
        landlock.version() > 0 and seccomp.supported()
    )
    assert measured.results[1].probe == "group_fairness" and measured.results[1].measurements


@pytest.mark.parametrize(
    "also", [(), (ProbeSpec(name="robustness", target="probes.robustness.robustness:Robustness"),)]
)
def test_copies_are_seen_in_rows_that_stream_by_and_in_rows_in_memory(files: Path, also: tuple[ProbeSpec, ...]) -> None:
    rows = pd.read_csv(files / "data.csv")
    pd.concat([rows] * 12).to_csv(files / "data.csv", index=False)
    measured = measure(job(files, FAIR, *also), {})
    (fair,) = [result for result in measured.results if result.probe == "group_fairness"]
    expected = Copies(n=4800, copies=4400, combinations=4800, divisor=12)
    assert fair.copies == expected
    assert measured.data is not None and measured.data.copies == expected
    (file,) = [result for result in measured.results if result.probe == "intake"]
    assert file.copies is None


def test_streamed_counts_equal_rows_in_memory(files: Path) -> None:
    alone = measure(job(files, FAIR), {})
    beside = measure(job(files, FAIR, own(files, "Other", "return []")), {})
    assert alone.results[1].measurements == beside.results[1].measurements
    assert alone.data == beside.data


def test_a_probe_of_rows_whose_sample_is_none_stops_with_the_reason() -> None:
    model = AuditedModel.from_callable(lambda X: X["a"], classes=("no", "yes"), features=("a",))
    rows = AuditData(X=pd.DataFrame({"a": [0.2, 0.7]}), classes=("no", "yes"))
    streamed: Any = SimpleNamespace(sample=Undefined(reason="too many are copies"))
    with pytest.raises(DataError, match="robustness looks at the rows themselves, and too many are copies"):
        child_jobs._measure_counts(PROBES["robustness"](), model, rows, SimpleNamespace(), streamed)  # type: ignore[arg-type]


def test_a_streamed_audit_says_of_every_probe_what_it_can(files: Path) -> None:
    """What needs the rows answers of those that were kept, as in memory, and the bundle holds the table."""
    never = {"detector_performance", "marking", "model_inversion"}
    lacking = {
        "change": "add --reference MODEL",
        "derived": "add --reference MODEL",
        "poisoning": "add --set poisoning.trigger",
        "attribute_inference": "add --set attribute_inference.attribute=COLUMN",
    }
    others = ("robustness", "bbq", "dp_claim", "membership_inference", *never, *lacking)
    probes = [
        ProbeSpec(name=name, target=f"{kind.__module__}:{kind.__qualname__}")
        for name, kind in PROBES.items()
        if name in ("performance", "score_fairness", "adverse_impact", *others)
    ]
    asked = job(files, FAIR, *probes, stream=True)
    measured = measure(replace(asked, evidence="scores"), {})
    told = {r.probe for r in measured.results if r.measurements and not r.not_run}
    assert told == {"intake", "group_fairness", "performance", "score_fairness", "adverse_impact", "robustness"}
    assert none_of(r.not_run for r in measured.results)
    in_memory = measure(job(files, FAIR, *(each for each in probes if each.name == "robustness")), {})
    found, expected = (
        [r.measurements for r in each.results if r.probe == "robustness"] for each in (measured, in_memory)
    )
    assert found == expected and found[0]
    absent = {r.probe: r.not_applicable for r in measured.results}
    assert {name for name, how in lacking.items() if how in absent[name]} == set(lacking), absent
    assert "a language model" in next(r.not_applicable for r in measured.results if r.probe == "bbq")
    assert never <= {r.probe for r in measured.results if r.other_kind and r.not_applicable}
    assert "training data" in next(r.not_applicable for r in measured.results if r.probe == "membership_inference")
    assert next(r for r in measured.results if r.probe == "dp_claim").not_applicable
    assert measured.rows is None and measured.counts is not None and measured.counts.counts().n == 400
    assert measured.data is not None and "--stream" in measured.data.notes[-1]
    report = assemble(
        measured.results,
        load_criteria(),
        model=measured.model or ModelRecord(),
        data=measured.data,
        environment=environment(device="cpu", seed=0),
    )
    assert report.exit_code in (ExitCode.INCONCLUSIVE, ExitCode.FAILED)
    with pytest.raises(UsageError, match="--stream: --cluster needs all rows at once"):
        measure(replace(asked, data=replace(asked.data, cluster="c")), {})  # type: ignore[type-var]


@pytest.mark.real_child
def test_same_seed_same_results(files: Path, warm_children: WarmChildren, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process that started as a user's does, and of a fork of another: of other hashes and other addresses."""

    def strip(m: Measured) -> object:
        return [(r.probe, r.measurements, r.not_run) for r in m.results]

    first = measure(job(files, FAIR), {})
    if sys.platform == "linux":
        monkeypatch.setattr(measuring_process, "start_child", warm_children.start)
    assert first.results[1].measurements and strip(measure(job(files, FAIR), {})) == strip(first)


def pipe_with(content: bytes) -> _Pipe:
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    pipe = _Pipe(reader, Measured().read_message)
    pipe.read()
    os.close(reader)
    return pipe


@pytest.mark.parametrize(
    "content",
    [
        (MAX_MESSAGE + 1).to_bytes(4, "big"),
        (4).to_bytes(4, "big") + b"null",
        (16).to_bytes(4, "big") + b'{"kind":"bogus"}',
        (33).to_bytes(4, "big") + b'{"kind":"done","more":"unasked"} ',
        (2).to_bytes(4, "big") + b"\xff\xfe",
        (33).to_bytes(4, "big") + b'{"kind":"refused","kind":"asked"}',
        (32).to_bytes(4, "big") + b'{"kind":"refused","code":"data"}',
    ],
)
def test_what_is_no_message_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        pipe_with(content).message()


def test_half_a_message_is_waited_for() -> None:
    assert pipe_with((16).to_bytes(4, "big") + b'{"kind"').message() is None


FORGERS = {
    "a probe nobody asked for": "send({'kind':'asking','probe':'nobody'})",
    "the same question again, to be given more time": "send({'kind':'asking','probe':'Forger'})",
    "rubbish": "os.write(fd, b'\\x00\\x00\\x00\\x05hello')",
    "an oversized message": "os.write(fd, b'\\xff\\xff\\xff\\xff')",
}


@pytest.mark.parametrize("how", FORGERS)
def test_a_child_turned_hostile_cannot_forge_an_answer(files: Path, how: str) -> None:
    body = f"""
import json, sys
fd = int(sys.argv[1])
def send(message):
    body = json.dumps(message).encode()
    os.write(fd, len(body).to_bytes(4, "big") + body)
{FORGERS[how]}
result = {{"probe": "group_fairness", "pillar": "fairness", "citation": "", "measurements": []}}
send({{"kind": "answered", "result": result}})
os._exit(0)
"""
    measured = measure(job(files, own(files, "Forger", body.strip()), FAIR), {})
    by_name = {r.probe: r for r in measured.results}
    assert by_name["Forger"].not_run
    assert by_name["group_fairness"].measurements


def test_answers_that_nobody_asked_for_are_refused() -> None:
    keeping = Keeping(head=AnswersHead(kind="regressor", n=1), counts=None)
    kept = Kept(part=AnswersPart(truth=(None,), predicted=(0.0,), scores=((),), groups=((),)))
    for message in (keeping, kept):
        with pytest.raises(ValueError, match="nobody asked for"):
            Measured().take(message, print)
    asked = Measured(keeps=True)
    asked.take(keeping, print)
    asked.take(kept, print)
    assert asked.answers() is not None


def test_what_a_child_says_has_an_end(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = """
import json, sys
fd = int(sys.argv[1])
body = json.dumps({"kind": "working", "words": "x" * 400}).encode()
for _ in range(100_000):
    os.write(fd, len(body).to_bytes(4, "big") + body)
os._exit(0)
"""
    monkeypatch.setattr(parent_process, "MOST_SAID", 8 << 20)
    stages: list[str] = []
    measured = measure(job(files, own(files, "Talks", body.strip()), FAIR), {}, on_stage=stages.append)
    assert reasons(measured)["Talks"] == "It said more than 8 MiB, which no measuring process has to say."
    assert {r.probe: r for r in measured.results}["group_fairness"].measurements
    assert stages.count("x" * 400) == MOST_LINES


def test_parts_of_answers_buy_no_time(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row at a time, for as long as a process claims to have rows, would keep its parent for ever."""
    drips = """
import json, os, sys, time
def send(message):
    body = json.dumps(message).encode()
    os.write(int(sys.argv[1]), len(body).to_bytes(4, "big") + body)
sys.stdin.read()
send({"kind": "keeping", "head": {"kind": "regressor", "n": 1_000_000}, "counts": None})
while True:
    send({"kind": "kept", "part": {"truth": [None], "predicted": [0], "scores": [[]], "groups": [[]]}})
    time.sleep(0.05)
"""

    def start(writer: int, log: IO[bytes], scratch: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", drips, str(writer)],
            stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=scratch, pass_fds=(writer,), start_new_session=True,
        )  # fmt: skip

    monkeypatch.setattr(measuring_process, "start_child", start)
    asked = job(files, FAIR)
    measured = measure(replace(asked, evidence="scores", limits=replace(asked.limits, seconds=1.0)), {})
    assert measured.rows is not None and not measured.rows.whole and measured.rows.content.size > 20
    assert measured.refusal is not None and "longer than 1 s" in measured.refusal.reason


@pytest.mark.real_child
def test_a_grandchild_dies_with_its_parent_and_hides_nothing(files: Path) -> None:
    body = """
if os.fork() == 0:
    open(os.path.join(os.path.dirname(__file__), 'pid'), 'w').write(str(os.getpid()))
    time.sleep(600)
while not os.path.exists(os.path.join(os.path.dirname(__file__), 'pid')):
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGSEGV)
"""
    # In the sandbox there is no grandchild, and no file that it could write.
    measured = measure(replace(job(files, own(files, "Forks", body.strip())), allow_unsandboxed=True), {})
    assert "SIGSEGV" in reasons(measured)["Forks"]
    grandchild = int((files / "pid").read_text())
    for _ in range(100):
        try:
            os.kill(grandchild, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the grandchild outlived its parent")


def test_two_probes_of_one_name_are_refused(files: Path) -> None:
    with pytest.raises(UsageError, match="one name"):
        measure(job(files, FAIR, FAIR), {})


def test_an_interrupted_parent_leaves_no_child(files: Path) -> None:
    spec = own(files, "Sleeps", "time.sleep(60)")
    code = f"""
from auditor.run.parent_process import measure
from auditor.loading.job_specs import *
measure(Job(model=ModelSpec(path={str(files / "model.pt")!r}, code_folder={str(files)!r}),
            data=DataSpec(path={str(files / "data.csv")!r}),
            probes=(ProbeSpec(name="Sleeps", target={spec.target!r}, own=True),),
            seed=0, limits=Limits(memory_bytes=4 << 30, seconds=60)), {{}}, on_stage=lambda s: print(s, flush=True))
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout is not None
    while (stage := parent.stdout.readline().strip()) != "Sleeps":
        assert stage != ""
    child = int(Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text())
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the child outlived its parent")


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel does not say who waited")
def test_time_that_others_had_the_processor_is_none_of_a_process() -> None:
    """Four that compute on one core get a quarter of it each; one that sleeps has no excuse."""
    one = f"import os, time; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}}); print(flush=True)"
    bodies = [f"{one}\nwhile True: pass"] * 4 + [f"{one}\ntime.sleep(60)"]
    children = [subprocess.Popen([sys.executable, "-Ic", body], stdout=subprocess.PIPE) for body in bodies]
    try:
        for child in children:
            assert child.stdout is not None and child.stdout.readline()
        times = [OwnTime(child.pid) for child in children]
        time.sleep(1.2)
        assert [taken.is_over(0.9) for taken in times] == [False, False, False, False, True]
        assert [taken.is_over(0.02) for taken in times] == [True] * 5
        times[-1].pause(60.0)
        assert not times[-1].is_over(0.9)
    finally:
        for child in children:
            child.kill()
            child.communicate()
