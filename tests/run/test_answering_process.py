"""Code that comes with a model answers, and changes nothing else that is said of it."""

from __future__ import annotations

import json
import sys
import textwrap
import zipfile
from operator import getitem
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from auditor.core.errors import ModelError, UsageError
from auditor.loading.job_specs import Job, answers_apart, flag_of_code
from auditor.loading.sandbox import resource_limits
from auditor.loading.sandbox.answering_process import AnswerHead, AnsweringProcess
from auditor.loading.sandbox.enter_sandbox import places_of
from auditor.loading.sandbox.landlock import Access
from auditor.run import parent_process
from auditor.run.scan import job_of
from cli.commands import app
from cli.mitigate import mitigation_job
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
# What code did when it ran in the process that had the labels; each was worth an accuracy of 1 or a PASS.
ATTACKS = {
    "labels": """
def attack(k):
    for each in data():
        if len(each) == len(k):
            each.y_true[:] = k
""",
    "groups": """
def attack(k):
    import pandas as pd
    for each in data():
        if len(each) == len(k):
            sex = pd.Categorical(np.where(np.arange(len(k)) % 2 == 0, "F", "M"))
            object.__setattr__(each, "sensitive_features", pd.DataFrame({"sex": sex}))
""",
    "the loader": """
from dataclasses import replace
from auditor.run import child_jobs as child
old = child.load_data
def load(spec, model):
    data = old(spec, model)
    return replace(data, y_true=own(data.X))
child.load_data = load
def attack(k):
    pass
""",
    "what counts": """
from auditor.run import child_jobs as child
child.counts_of = lambda *what: None
child.parts_of = lambda model, data, head: iter(())
child.complete_record = lambda record, *what: record.model_copy(update={"sha256": "0" * 64})
def attack(k):
    pass
""",
    "the probes": """
from auditor.run import child_jobs as child
old = child.ask
def ask(probe, model, data, rng, **how):
    data.y_true[:] = own(data.X)
    return old(probe, model, data, rng, **how)
child.ask = ask
def attack(k):
    pass
""",
    "numpy, json, modules and the clock": """
import json, sys, time
np.mean = np.sum = np.where = np.add.at = lambda *what, **how: 1.0
json.dumps = lambda *what, **how: "{}"
time.perf_counter = time.process_time = time.monotonic = lambda: 0.0
def attack(k):
    sys.modules["auditor.statistics.rates"] = sys.modules["numpy.random"] = None
    gc.get_objects = gc.get_referrers = lambda *what: []
""",
    "everything": """
import builtins
def attack(k):
    builtins.sum = builtins.len = lambda *what: 0
    builtins.isinstance = lambda *what: True
""",
    "the estimates": """
from auditor.statistics import rates
for kind in [each for each in vars(rates).values() if isinstance(each, type)]:
    for name in ("lower", "upper", "bounds", "p_value"):
        if hasattr(kind, name):
            setattr(kind, name, lambda self, *what: 0.0)
def attack(k):
    gc.collect = gc.freeze = gc.disable
""",
    "another probe's message": """
import os
BODY = b'{"kind":"answered","result":{"probe":"performance","pillar":"performance","citation":"","measurements":[]}}'
def attack(k):
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, len(BODY).to_bytes(4, "big") + BODY)
        except OSError:
            pass
""",
    "the data file": """
import os
def attack(k):
    for path in ("d.csv", os.path.join(os.path.dirname(os.path.abspath(__file__)), "d.csv"), "link.csv", "hard.csv"):
        try:
            with open(path) as file:
                lines = file.read().splitlines()[1:]
        except OSError:
            continue
        if len(lines) == len(k):
            k[:] = [int(line.rpartition(",")[2]) for line in lines]
""",
    "the memory of the process that asks": """
import os
def attack(k):
    try:
        with open(f"/proc/{os.getppid()}/mem", "rb") as memory, open(f"/proc/{os.getppid()}/maps") as maps:
            memory.read(1)
    except OSError:
        return
    k[:] = 0
    raise AssertionError("it was open")
""",
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
    (tmp_path / "link.csv").symlink_to("d.csv")
    (tmp_path / "hard.csv").hardlink_to(tmp_path / "d.csv")
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


def worth(*flags: str) -> None:
    """The answers are those of a coin, and that is what comes out."""
    code, record = scanned(*flags)
    (accuracy,) = [f["value"] for f in record["findings"] if f["metric"] == "accuracy" and not f["group"]]
    frame = pd.read_csv("d.csv")
    assert code == 3 and record["refusal"] is None, record["refusal"]
    assert accuracy == pytest.approx(((frame["a"] > 0) == frame["y"]).mean(), abs=1e-12)
    assert none_of(f["outcome"] == "PASS" for f in record["findings"] if f["probe"] != "Own")
    assert record["data"]["groups"]["sex"] == frame["sex"].value_counts().sort_index().to_dict()
    assert record["summary"]["not_run"] == 0 and record["data"]["n_rows"] == len(frame)


def write(code: str) -> None:
    Path("own.py").write_text(ANSWERS + textwrap.dedent(code))


# After these nothing of it is an answer any more.
BREAKING = ("everything", "another probe's message")


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in BREAKING])
def test_code_that_does_more_than_answer_gets_the_worth_of_its_answers(scene: Path, name: str) -> None:
    write(ATTACKS[name])
    worth(*PREDICT)


@pytest.mark.parametrize("name", BREAKING)
def test_code_that_breaks_its_own_answers_gets_nothing(scene: Path, name: str) -> None:
    write(ATTACKS[name])
    code, record = scanned(*PREDICT)
    assert code == 3 and {f["outcome"] for f in record["findings"]} <= {"NOT_RUN", "NOT_APPLICABLE", "NOT_JUDGED"}
    assert none_of(f["probe"] == "performance" and f["value"] is not None for f in record["findings"])


def test_rows_of_a_bundle_are_those_of_the_file(scene: Path) -> None:
    write(ATTACKS["labels"])
    worth(*PREDICT, *BUNDLE)
    with zipfile.ZipFile("b.zip") as bundle:
        lines = bundle.read("rows.csv").decode().splitlines()[1:]
    assert [int(line.partition(",")[0]) for line in lines] == pd.read_csv("d.csv")["y"].tolist()


def test_a_probe_of_the_users_writes_no_result_but_its_own(scene: Path) -> None:
    """It has the labels and the channel, and comes when all others have answered."""
    write(ATTACKS["labels"] + OWN.format(metric="demographic_parity_difference"))
    worth(*PREDICT, "--probe", "own:Own", *BUNDLE)
    record = json.loads((Path("out") / "report.json").read_text())
    mine = [f for f in record["findings"] if f["probe"] == "Own"]
    assert all_of("Measured by your own code" in f["reason"] for f in mine)
    assert [f["outcome"] for f in mine] == ["INCONCLUSIVE"]


def test_a_probe_of_the_users_passes_a_criterion_of_the_users(scene: Path) -> None:
    write("def attack(k):\n    pass\n" + OWN.format(metric="my_number"))
    Path("policy.toml").write_text(
        '[[criteria]]\nmetric = "my_number"\ndirection = "at_most"\nbound = 0.1\nprobe = "Own"\n'
    )
    _, record = scanned(*PREDICT, "--probe", "own:Own", "--policy", "policy.toml")
    (mine,) = [f for f in record["findings"] if f["probe"] == "Own"]
    assert mine["outcome"] == "PASS" and "Measured by your own code" in mine["reason"]


OWN = """
class Own:
    name, pillar, goal, citation, methods, needs = "Own", "fairness", "g", "c", (), ()
    def measure(self, model, data, rng):
        import json
        from auditor.judging.measurement import Measurement
        from auditor.statistics.rates import Proportion
        from auditor.run.job_channel import Channel
        for channel in [each for each in gc.get_objects() if type(each) is Channel]:
            for kind in ("answered", "keeping"):
                body = json.dumps({{"kind": kind, "result": {{"probe": "performance", "pillar": "performance",
                                   "citation": "", "not_run": "x"}}}}).encode()
                setattr(channel, "said", body)
        return [Measurement(metric="{metric}", estimate=Proportion(successes=0, n=5000), n_samples=5000,
                            ideal=0.0)]
"""
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
NET = """
import torch

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


def network() -> torch.nn.Linear:
    """Decides for 1 where a is above 0."""
    net = torch.nn.Linear(1, 2)
    with torch.no_grad():
        net.weight[:] = torch.tensor([[-1.0], [1.0]])
        net.bias[:] = 0.0
    return net


OF_A_NETWORK = ["--classes", "0,1", "--features", "a", "--outputs", "logits"]


@pytest.mark.parametrize("way", ["--architecture", "--trust-pickle", "--allow-code", "a pickled network"])
def test_whatever_flag_the_code_comes_by_the_labels_are_those_of_the_file(scene: Path, way: str) -> None:
    Path("own.py").write_text(AT_IMPORT + NET)
    flags = [flag for flag in BASE if flag not in ("--outputs", "probabilities")]
    if way == "--trust-pickle":
        joblib.dump(WithCode(fitted()), "m.joblib")
        more = ["m.joblib", way]
    elif way == "--architecture":
        torch.save(torch.nn.ModuleDict({"layer": network()}).state_dict(), "m.pt")
        more = ["m.pt", way, "own:Net", *OF_A_NETWORK]
    elif way == "--allow-code":
        with pytest.warns(DeprecationWarning):
            torch.jit.save(torch.jit.trace(network(), torch.zeros(2, 1)), "m.pt")
        more = ["m.pt", way, *OF_A_NETWORK]
    else:
        torch.save(network(), "m.pt")
        more = ["m.pt", "--trust-pickle", *OF_A_NETWORK]
    result = CliRunner().invoke(app, [*flags, *more])
    record = json.loads((Path("out") / "report.json").read_text())
    (accuracy,) = [f["value"] for f in record["findings"] if f["metric"] == "accuracy" and not f["group"]]
    assert 0.4 < accuracy < 0.6 and result.exit_code in (1, 3)
    assert all_of("process of its own" in " ".join(record["model"][part]) for part in ["notes"])


FLAGS: dict[str, dict[str, object]] = {
    "--predict": {"predict": "own:answers"},
    "--generate": {"generate": "own:answers"},
    "--architecture": {"model": "m", "architecture": "own:Net"},
    "--allow-code": {"model": "m", "allow_code": True},
    "--trust-pickle": {"model": "m", "trust_pickle": True},
    "--decoder": {"model": "m", "decoder": ["own:decode"], "probes": "marking"},
    "--embedder": {"model": "m", "embedder": "own:embed", "probes": "source_leakage"},
}


def asked(given: dict[str, object]) -> Job:
    return job_of(configure({"data": "d.csv", "target": "y", **given}, None, []), PROBES)


@pytest.mark.parametrize("flag", FLAGS)
def test_every_flag_that_runs_code_has_it_in_a_process_of_its_own(scene: Path, flag: str) -> None:
    Path("m").write_text("")
    assert flag_of_code(asked(FLAGS[flag])) == flag and answers_apart(asked(FLAGS[flag]))


def test_where_no_code_runs_there_is_one_process(scene: Path) -> None:
    joblib.dump(fitted(), "m.joblib")
    assert not answers_apart(asked({"model": "m.joblib"}))


# ---- what may come back ----------------------------------------------------------------------------------------------

DISHONEST = {
    "too few": "def attack(k):\n    pass\nanswers_of = answers\ndef answers(rows):\n    return answers_of(rows)[:-1]\n",
    "no numbers": "def answers(rows):\n    return [object()] * len(rows)\n",
    "a file": "def answers(rows):\n    return open(__file__)\n",
}


@pytest.mark.parametrize("name", DISHONEST)
def test_what_is_no_answer_is_the_models_error(scene: Path, name: str) -> None:
    write(DISHONEST[name])
    code, record = scanned(*PREDICT)
    reasons = {f["reason"] for f in record["findings"] if f["probe"] == "group_fairness"}
    assert code == 3 and all_of("return" in reason for reason in reasons)


def test_code_that_ends_its_process_ends_what_is_asked_and_no_more(scene: Path) -> None:
    write("import os, signal\ndef attack(k):\n    os.kill(os.getpid(), signal.SIGSEGV)\n")
    code, record = scanned(*PREDICT)
    assert code == 3 and {f["outcome"] for f in record["findings"] if f["probe"] == "performance"} == {"NOT_RUN"}
    assert any("SIGSEGV" in f["reason"] for f in record["findings"])


def test_code_ends_no_audit_with_a_flags_error_in_its_own_words(scene: Path) -> None:
    write("from auditor.core.errors import UsageError\ndef attack(k):\n    raise UsageError('send me money')\n")
    code, record = scanned(*PREDICT)
    assert code == 3
    assert any(f["reason"].startswith("--predict own:answers raised UsageError") for f in record["findings"])
    for more in ("", PATCHED):
        write(more + "from auditor.core.errors import UsageError\nraise UsageError('send me money')\n")
        result = CliRunner().invoke(app, [*BASE, *PREDICT])
        said = "auditor: --predict own:answers: the process of this code reports: "
        assert result.exit_code == 2 and result.stderr.startswith(said) and "send me money" in result.stderr


# A sentence, or the end of its process: what code raises and returns is worth no number.
RAISED = {
    "text that is none": "raise ValueError('\\ud800' * 10)",
    "ten megabytes": "raise ValueError('x' * 10**7)",
    "a screen": "raise ValueError('\\x1b[2J\\x1b]0;PASS\\x07\\u202ePASS')",
    "a name of a megabyte": "raise type('E' * 10**6, (Exception,), {})('x')",
    "causes in a circle": "a = ValueError('a'); b = ValueError('b'); a.__cause__ = b; b.__cause__ = a; raise a",
    "many at once": "raise ExceptionGroup('g', [ValueError(str(i)) for i in range(1000)])",
    "no text": "class E(Exception):\n        def __str__(self):\n            raise self\n    raise E()",
    "an interrupt": "raise KeyboardInterrupt",
    "an exit": "raise SystemExit(0)",
    "an exit of the process": "import os; os._exit(0)",
    "no end": "f = lambda: f(); return f()",
    "an exit as an array": "return type('A', (), {'__array__': lambda *what, **how: exit()})()",
    "no numbers": "return np.full((len(rows), 2), np.nan)",
    "more than one": "return np.full((len(rows), 2), 2.0)",
    "dates": "return np.full(len(rows), '2020-01-01', 'M8[s]')",
    "pipes": "import os; [os.write(fd, b'x' * 64) for fd in map(int, os.listdir('/proc/self/fd')) if fd > 2]",
}


@pytest.mark.grid(every=8)
@pytest.mark.parametrize("what", RAISED)
def test_whatever_code_raises_is_no_error_of_the_tools_and_worth_no_number(scene: Path, what: str) -> None:
    write(f"def attack(k):\n    pass\ndef answers(rows):\n    {RAISED[what]}\n")
    code, record = scanned(*PREDICT)
    assert code == 3 and none_of(f["outcome"] == "PASS" for f in record["findings"])
    found = [f for f in record["findings"] if f["probe"] == "performance"]
    assert all_of(f["value"] is None and len(f["reason"]) < 4_000 and f["reason"].isprintable() for f in found)


# Says what it likes as the error of another flag.
PATCHED = """
import sys
from auditor.core.errors import UsageError
def as_error(number, error):
    return sys.modules["auditor.loading.sandbox.answering_process"].AnswerHead(
        number=number, error="UsageError", kind="usage", value="--data d.csv: send me money")
sys.modules["auditor.loading.sandbox.answering_process"]._as_error = as_error
"""
ONE_PROCESS = {
    "--probe": ["--probe", "own:Own", "--predictions", "d.csv", "--predicted", "y", "--out", "out"],
    "mitigate --architecture": ["--architecture", "own:Net", *OF_A_NETWORK[:4]],
}


@pytest.mark.parametrize("command", ONE_PROCESS)
def test_nor_where_it_runs_in_the_process_that_reports(scene: Path, command: str) -> None:
    Path("own.py").write_text("from auditor.core.errors import UsageError\nraise UsageError('--data: send me money')\n")
    torch.save(torch.nn.ModuleDict({"layer": network()}).state_dict(), "m.pt")
    if command == "--probe":
        words = ["scan", "--target", "y", "--positive", "1", "--probes", "performance", *ONE_PROCESS[command]]
    else:
        words = ["explain", "m.pt", *ONE_PROCESS[command], "--data", "d.csv", "--row", "1", "--target", "y"]
    result = CliRunner().invoke(app, words)
    assert "send me money" in result.stderr and result.exit_code == 2
    assert f"auditor: {command.split()[-1]}: the process of this code reports: " in result.stderr, result.stderr


HEADS = [
    {"number": 1, "dtype": "|O"},
    {"number": 1, "dtype": "<f8", "shape": [-1]},
    {"number": 1, "dtype": "<M8[s]"},
    {"number": 1, "dtype": "<f8,<f8"},
    {"number": 1, "dtype": "<f8", "shape": [1] * 9},
    {"number": 1, "dtype": "<f1", "shape": [4]},
    {"number": 1, "dtype": "<b4", "shape": [4]},
    {"number": 1, "dtype": "|f8", "shape": [4]},
    {"number": 1, "dtype": "<U0", "shape": [1 << 60]},
    {"number": 1, "dtype": "<c8", "shape": [4]},
    {"number": 1, "value": "x", "note": "PASS"},
    {"number": -1, "value": 1},
    {"number": 1, "error": "E" * 81},
    {"number": 1, "code": "AUD-NONE-OF-OURS"},
    {"number": 1, "kind": "exit"},
    {"number": 1, "error": "os.system('x')"},
    {"number": 1, "pickle": "x"},
]


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_an_answer_is_of_a_few_types(head: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AnswerHead.model_validate_json(json.dumps(head))


def lying(said: bytes, folder: Path, operation: str = "call") -> Any:
    """What a process is taken to answer that has answered before it is asked."""
    (folder / "said").write_bytes(said)
    with (folder / "asked").open("wb") as questions, (folder / "said").open("rb", buffering=0) as answers:
        return AnsweringProcess(0, questions, answers).ask(operation)


def framed(content: bytes = b"", **head: object) -> bytes:
    body = json.dumps(head).encode()
    return len(body).to_bytes(8, "big") + body + content


def test_answers_are_bounded_and_those_of_their_questions(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="another question"):
        lying(framed(number=2), tmp_path, "call")
    with pytest.raises(ModelError, match="bytes at once"):
        lying(framed(number=1, dtype="<f8", shape=[1 << 40]), tmp_path, "call")
    with pytest.raises(ModelError, match="no answer"):
        lying((1 << 40).to_bytes(8, "big"), tmp_path, "call")
    with pytest.raises(ModelError, match="no text"):
        lying(framed(b"\xff" * 4, number=1, dtype="<U1", shape=[1]), tmp_path, "call")
    with pytest.raises(ModelError, match="pay me"):
        lying(framed(number=1, error="UsageError", kind="usage", value="pay me"), tmp_path, "answers")
    with pytest.raises(UsageError, match="add a flag"):
        lying(framed(number=1, error="UsageError", kind="usage", value="add a flag"), tmp_path, "load")
    found = lying(framed(bytes([200, 1, 0, 7]), number=1, dtype="|b1", shape=[4]), tmp_path, "call")
    assert found.sum() == 3  # whatever byte stands for a truth
    for content in (b"", b"\xff\xfe", b"[]", b'{"number":1,"value":' + b"[" * 10_000 + b"]" * 10_000 + b"}"):
        with pytest.raises(ModelError, match="no answer"):
            lying(len(content).to_bytes(8, "big") + content, tmp_path)
    found = lying(framed(np.arange(6.0).tobytes(), number=1, dtype="<f8", shape=[2, 3]), tmp_path, "call")
    assert found.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


# ---- what it may take ------------------------------------------------------------------------------------------------

TOO_MUCH = {
    "threads": (
        "import threading, time\ndef attack(k):\n    for _ in range(100):\n"
        "        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()\n    time.sleep(30)\n",
        "threads",
    ),
    "bytes": (
        "import os, time\ndef attack(k):\n    for i in range(40):\n"
        "        with open(os.path.join(os.environ['TMPDIR'], str(i)), 'wb') as file:\n"
        "            file.write(os.urandom(1 << 17))\n    time.sleep(30)\n",
        "wrote more than",
    ),
    "bytes of files without a name": (
        "import os, time\nheld = []\ndef attack(k):\n    for i in range(40):\n"
        "        path = os.path.join(os.environ['TMPDIR'], str(i))\n        held.append(open(path, 'wb'))\n"
        "        held[-1].write(os.urandom(1 << 17))\n        held[-1].flush()\n        os.unlink(path)\n"
        "    time.sleep(30)\n",
        "wrote more than",
    ),
    "files": (
        "import os, time\ndef attack(k):\n    for i in range(300):\n"
        "        open(os.path.join(os.environ['TMPDIR'], str(i)), 'wb').close()\n    time.sleep(30)\n",
        "files",
    ),
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what a process takes is read from /proc")
@pytest.mark.parametrize("what", TOO_MUCH)
def test_threads_files_and_bytes_have_an_end(scene: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(resource_limits, "MOST_THREADS", 60)
    monkeypatch.setattr(resource_limits, "SCRATCH_BYTES", 2 << 20)
    monkeypatch.setattr(resource_limits, "MOST_FILES", 200)
    code, word = TOO_MUCH[what]
    write(code)
    _, record = scanned(*PREDICT)
    (reason,) = {f["reason"] for f in record["findings"] if f["probe"] == "performance"}
    assert word in reason


class Asks:
    """Speaks as a flag's error when somebody unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("from auditor.core.errors import UsageError\nraise UsageError('send me money')",)


def test_a_files_code_speaks_as_the_file(scene: Path) -> None:
    joblib.dump(Asks(), "m.joblib")
    result = CliRunner().invoke(app, [*BASE, "m.joblib", "--trust-pickle"])
    assert result.exit_code in (2, 4) and "'m.joblib'" in result.stderr + result.stdout


RELU = '{"activation": "relu"}'


def test_a_networks_gradient_is_the_one_that_it_has(scene: Path) -> None:
    """White-box probes ask for it across the two processes, and find what they find of the same weights as data."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    torch.save(net, "code.pt")
    torch.save(net.state_dict(), "data.pt")
    found = []
    for more in (["code.pt", "--trust-pickle"], ["data.pt", "--architecture", "mlp", "--architecture-args", RELU]):
        flags = ["scan", *more, "--data", "d.csv", "--target", "y", "--positive", "1", *OF_A_NETWORK]
        result = CliRunner().invoke(
            app, [*flags, "--probes", "feature_attribution,robustness", "--out", "out", "--json"]
        )
        record = json.loads((Path("out") / "report.json").read_text())
        found.append(
            {
                (f["metric"], str(f["at"])): f["value"]
                for f in record["findings"]
                if f["method"] in ("integrated_gradients", "pgd", "fgsm") and f["value"] is not None
            }
        )
        assert result.exit_code in (0, 1, 3), result.output
        closed = "Its layers are closed to the audit" in " ".join(record["model"]["notes"])
        certified = [f for f in record["findings"] if f["method"] == "certificate"]
        assert closed is (more[0] == "code.pt") and closed is any("user's own code" in f["detail"] for f in certified)
    shared = set(found[0]) & set(found[1])
    assert len(shared) > 5
    assert all_of(
        found[0][key] == pytest.approx(found[1][key], abs=1e-6) for key in shared - {("gradient_masking", "None")}
    )


def test_a_signer_cannot_say_that_the_tool_measured_what_code_did(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("def attack(k):\n    pass\n" + OWN.format(metric="demographic_parity_difference"))
    flags = [*PREDICT, "--probe", "own:Own", "--bundle", "b.zip"]
    scanned(*flags)
    with zipfile.ZipFile("b.zip") as bundle:
        stored = json.loads(bundle.read("results.json"))
    assert [result["by_code"] for result in stored["results"] if result["probe"] == "Own"] == [True]
    assert none_of("by_code" in result for result in stored["results"] if result["probe"] != "Own")
    assert CliRunner().invoke(app, ["evidence", "verify", "b.zip", "--allow-unsigned"]).exit_code in (0, 3)
    monkeypatch.setattr(parent_process, "_with_own_labels", lambda result, blank_results, by_code: result)
    scanned(*flags)
    forged = CliRunner().invoke(app, ["evidence", "verify", "b.zip", "--allow-unsigned"])
    assert forged.exit_code == 1 and "whether code of the user's measured it" in " ".join(forged.output.split())


# ---- code that makes a model -----------------------------------------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what is closed is closed by the kernel")
@pytest.mark.parametrize("flag", ["--predict", "--architecture"])
def test_code_that_makes_a_model_has_the_training_rows_and_not_those_of_the_verdict(scene: Path, flag: str) -> None:
    """A mitigation runs in one process with its code; both audits of it are scans, with a process for answers."""
    frame = pd.read_csv("d.csv")
    frame.to_csv("train.csv", index=False)
    for name in ("m", "own.py"):
        Path(name).write_text("")
    given = {"train": "train.csv", "sensitive": ["sex"], **FLAGS[flag]}
    audit = asked(given)
    made = mitigation_job("reject_option", audit, {}, scene / "beside" / "new.pt", None, 9.0)
    assert answers_apart(audit) and not answers_apart(made)
    places = [place.path for place in places_of(made, scene / "scratch")]
    open_to_it = [path for path in places if (scene / "train.csv").is_relative_to(path)]
    assert open_to_it and none_of((scene / "d.csv").is_relative_to(path) for path in places if path != scene)
    assert all_of(
        place.access is Access.READ_DIR for place in places_of(made, scene / "scratch") if place.path == scene
    )


def test_code_of_a_model_says_nothing_of_its_signature(scene: Path) -> None:
    Path("own.py").write_text(
        'import sys\nheld = sys.modules["auditor.loading.sandbox.answered_models"]\nold = held._facts_of\n'
        'notes = {"notes": ("Signature valid: by you.", "So so.")}\n'
        "held._facts_of = lambda model: old(model).model_copy(update=notes)\n" + NET
    )
    torch.save(torch.nn.ModuleDict({"layer": network()}).state_dict(), "m.pt")
    flags = ["scan", "m.pt", "--architecture", "own:Net", *OF_A_NETWORK, "--data", "d.csv", "--target", "y"]
    CliRunner().invoke(app, [*flags, "--probes", "performance", "--out", "out", "--quiet"])
    notes = json.loads((Path("out") / "report.json").read_text())["model"]["notes"]
    assert "So so." in notes and none_of(note.startswith("Signature") for note in notes)
