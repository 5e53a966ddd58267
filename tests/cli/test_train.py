"""``auditor train`` in its own process: what the user's network can do there, what is left behind, what is said."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

import cli.train
from auditor.loading.job_specs import TrainSpec
from auditor.loading.sandbox import landlock, seccomp
from auditor.models.saved_models import save
from auditor.run.job_channel import TableTrained
from auditor.training.meter import Meter, read_energy
from auditor.training.train_table import train_table
from auditor.training.training_rows import write_rows
from cli.commands import app
from tests import ROOT
from tests.quantifiers import all_of
from tests.training.test_energy import Machine

RUNNER = CliRunner()
TRAIN = ("--target", "y", "--positive", "yes", "--epochs", "2", "--hidden", "2", "--device", "cpu")
needs_sandbox = pytest.mark.skipif(
    not (landlock.version() > 0 and seccomp.supported()),
    reason="this kernel has no Landlock, or its machine's system calls are not known: nothing to enter",
)
NETWORK = """
import os, socket, subprocess, sys, time
from torch import nn

class Net(nn.Module):
    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.net = nn.Linear(n_features, n_outputs)

    def forward(self, x):
        {body}
        return self.net(x)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the command is started in, with rows of 120 persons."""
    folder = tmp_path / "here"
    folder.mkdir()
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=120).round(3), "b": rng.choice(["u", "v"], 120)})
    frame.assign(y=np.where(frame.a > 0, "yes", "no")).to_csv(folder / "d.csv", index=False)
    monkeypatch.chdir(folder)
    return folder


def run(*words: object) -> Result:
    return RUNNER.invoke(app, ["train", *map(str, words)])


def own(folder: Path, body: str) -> tuple[str, str]:
    """The flag of a network of the user's own, whose forward pass begins with a statement; the module is a new one."""
    name = f"own_{len(list(folder.glob('own_*.py')))}"
    (folder / f"{name}.py").write_text(NETWORK.format(body=body))
    return "--architecture", f"{name}:Net"


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def sentence(result: Result) -> str:
    """What the command said in the end: one sentence, without a path that the user does not know."""
    assert result.stdout == "" and result.stderr.count("\n") == 1, result.output
    assert "Traceback" not in result.stderr and not re.search(r"auditor-\w{8}|/\.\w+\.", result.stderr), result.stderr
    return result.stderr.removeprefix("auditor: ").strip()


# ---- the user's own network -----------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Whoever connects is let in."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(100)
        listening.setblocking(False)
        yield listening


def fired(folder: Path, server: socket.socket, *flags: str) -> set[str]:
    """Which of three payloads in a network did what they would do: a file outside, a connection, a program."""
    outside = folder.parent / "outside"
    outside.mkdir(exist_ok=True)
    tried = {
        "file": f"open({str(outside / 'file')!r}, 'w').write('x')",
        "connection": f"socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5).close()",
        "program": f"subprocess.run(['touch', {str(outside / 'program')!r}])",
    }
    found = set()
    for payload in tried.values():
        architecture = own(folder, f"try: {payload}\n        except OSError: print('stopped', flush=True)")
        result = run("d.csv", *TRAIN, *architecture, *flags, "--debug", "--force")
        assert result.exit_code == 0, result.output
        assert ("stopped" in result.stderr) is not bool(flags)
        try:
            server.accept()[0].close()
            found.add("connection")
        except BlockingIOError:
            pass
    return found | {path.name for path in outside.iterdir()}


@needs_sandbox
def test_what_a_network_of_ones_own_does_beyond_learning_comes_to_nothing(here: Path, server: socket.socket) -> None:
    assert fired(here, server) == set()


def test_without_the_sandbox_it_has_the_users_rights(here: Path, server: socket.socket) -> None:
    assert fired(here, server, "--allow-unsandboxed") == {"file", "connection", "program"}


@needs_sandbox
def test_it_reads_no_file_that_was_not_named(here: Path) -> None:
    (here / ".env").write_text("hunter2")
    (here.parent / "secret").write_text("hunter2")
    (here / "beside.txt").write_text("hunter2")
    for path in (here / ".env", here.parent / "secret", here / "beside.txt"):
        body = f"try: print('READ', open({str(path)!r}).read())\n        except OSError: print('stopped')"
        result = run("d.csv", *TRAIN, *own(here, body), "--debug", "--force")
        assert result.exit_code == 0 and "stopped" in result.stderr, result.output
        assert "READ hunter2" not in result.stderr


# ---- what is written ------------------------------------------------------------------------------------------------


def test_the_files_are_those_of_a_training_in_ones_own_process(here: Path) -> None:
    assert run("d.csv", *TRAIN, "--out", "m.pt").exit_code == 0
    spec = TrainSpec(data="d.csv", target="y", positive="yes", epochs=2, hidden=(2,), device="cpu")
    trained = train_table(spec)
    save(trained.model, "in_process.pt")
    write_rows("in_process.csv", "d.csv", trained.train_rows, trained.left_out)
    assert (here / "m.pt").read_bytes() == (here / "in_process.pt").read_bytes()
    assert (here / "m.train.csv").read_bytes() == (here / "in_process.csv").read_bytes()
    umask = os.umask(0)
    os.umask(umask)
    assert all_of((here / name).stat().st_mode & 0o777 == 0o666 & ~umask for name in ("m.pt", "m.train.csv"))


def test_what_a_training_took_lies_beside_its_model(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(here.parent / "powercap", {"intel-rapl:0": "package-0"})

    class Here(Meter):
        def __init__(self, device: str) -> None:
            super().__init__(device, machine.root)

    made = cli.train._run_training
    trainings: list[float] = []

    def making(*given: Any, **named: Any) -> TableTrained:
        began = sum(os.times()[:4])
        trained = made(*given, **named)
        trainings.append(sum(os.times()[:4]) - began)
        machine.set("intel-rapl:0", 3_500_000)
        return trained

    monkeypatch.setattr(cli.train, "_run_training", making)
    monkeypatch.setattr("auditor.training.meter.Meter", Here)
    began = sum(os.times()[:4])
    result = run("d.csv", *TRAIN, "--out", "m.pt")
    whole = sum(os.times()[:4]) - began
    assert "took      3.50 J by RAPL intel-rapl:0 (package-0)" in result.stdout, result.output
    content = json.loads((here / "m.energy.json").read_text())
    assert content["model_sha256"] == hashlib.sha256((here / "m.pt").read_bytes()).hexdigest()
    energy = read_energy(here / "m.pt")
    assert energy is not None and energy.of == "training" and energy.joules == 3.5
    # The training process's own time is in it; both are told to the thousandth.
    assert 0 < trainings[0] <= energy.cpu_s + 0.001 and energy.cpu_s <= whole + 0.001
    # Two epochs of 84 rows and the 36 held back, through 3 x 2 and 2 x 2 weights.
    assert energy.flops == (2 * 84 + 36) * 2 * (3 * 2 + 2 * 2) and energy.flops_by == "counted"
    # Of other bytes nothing is said, nor by a file that is none.
    kept = (here / "m.pt").read_bytes()
    (here / "m.pt").write_bytes(kept + b"x")
    assert read_energy(here / "m.pt") is None
    (here / "m.pt").write_bytes(kept)
    assert read_energy(here / "m.pt") == energy
    (here / "m.energy.json").write_text("{}")
    assert read_energy(here / "m.pt") is None


def test_places_need_not_lie_in_one_folder_nor_be_there(here: Path) -> None:
    places = ("new/deep/m.pt", "rows/a.parquet", "../b.tsv")
    result = run("d.csv", *TRAIN, "--out", places[0], "--train-out", places[1], "--test-out", places[2])
    assert (
        result.exit_code == 0
        and f"wrote     {', '.join(places)}, new/deep/m.predictions.csv, new/deep/m.energy.json" in result.stdout
    )
    assert len(pd.read_parquet("rows/a.parquet")) == 84 and len(pd.read_csv("../b.tsv", sep="\t")) == 36
    assert not [name for name in contents(here.parent) if re.search(r"/\.(?!auditor-written)", f"/{name}")]


FAILING = {
    "dies": ("os._exit(7)", (), 4, r"The training did not end well: The measuring process .* with code 7\."),
    "raises": ("raise KeyError(1)", (), 4, r"Net cannot take an input of shape \(2, 3\): 1\."),
    "diverges": ("", ("--architecture", "mlp", "--learning-rate", "1e30"), 4, "lower the learning rate"),
    "no model": (
        "sys.modules['auditor.run.table_training'].save = print", (), 4, "did not write all of its files"
    ),
    "no file": (
        "sys.modules['auditor.run.table_training'].save = lambda model, path: os.mkdir(path)", (), 4, "all of its files"
    ),
    "no label": ("", ("--positive", "maybe"), 2, "none of the model's classes"),
}  # fmt: skip


@pytest.mark.grid
@pytest.mark.parametrize("how", FAILING)
def test_a_training_that_fails_leaves_everything_as_it_was(here: Path, how: str) -> None:
    assert run("d.csv", *TRAIN, "--out", "m.pt").exit_code == 0
    body, flags, code, said = FAILING[how]
    architecture = own(here, body or "pass")
    before = contents(here)
    for out in ("m.pt", "new/m.pt"):
        result = run("d.csv", *TRAIN, *architecture, "--seed", "1", "--out", out, *flags)
        assert result.exit_code == code and re.search(said, sentence(result)), result.output
        assert contents(here) == before


@pytest.mark.slow
def test_an_interrupted_training_leaves_everything_as_it_was(here: Path) -> None:
    assert run("d.csv", *TRAIN, "--out", "m.pt").exit_code == 0
    architecture = own(here, "time.sleep(600)")
    before = contents(here)
    command = [sys.executable, "-m", "auditor", "train", "d.csv", *TRAIN, *architecture, "--out", "m.pt"]
    training = subprocess.Popen(
        command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
        # Whoever started the tests may have had interrupts ignored, which is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        children = Path(f"/proc/{training.pid}/task/{training.pid}/children")
        deadline = time.monotonic() + 60
        while not children.read_text().strip() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1.0)
        training.send_signal(signal.SIGINT)
        _, said = training.communicate(timeout=60)
    finally:
        training.kill()
    assert training.returncode == 130 and "nothing half-written is left behind" in " ".join(said.split()), said
    assert contents(here) == before


# ---- what is said ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "flags", "code", "said"),
    [
        ("nowhere.csv", (), 2, "There is no data file at 'nowhere.csv'."),
        ("./d.cvs", (), 2, "There is no data file at './d.cvs'; did you mean 'd.csv'?"),
        (".", (), 2, "The data file '.' is not a regular file."),
        ("d.csv", ("--learning-rate", "nan"), 2, "--learning-rate must be a positive number, not nan."),
        ("d.csv", ("--dp-epsilon", "inf"), 2, "--dp-epsilon must be a positive number, not inf."),
        ("d.csv", ("--dp-epsilon", "1", "--dp-delta", "nan"), 2, "one over the training rows"),
        ("d.csv", ("--device", "toaster"), 2, "--device 'toaster' is no device: use auto, cpu or cuda."),
        ("d.csv", ("--architecture", "no_such:Net"), 2, "--architecture no_such:Net: there is no module 'no_such' in"),
        ("d.csv", ("--out", "d.csv/m.pt"), 2, "Cannot write 'd.csv/m.train.csv': File exists."),
    ],
)
def test_errors_name_what_was_typed(here: Path, data: str, flags: tuple[str, ...], code: int, said: str) -> None:
    result = run(data, *TRAIN, *flags)
    assert result.exit_code == code and said in sentence(result), result.output
    assert sorted(os.listdir(here)) == ["d.csv"]


def test_rows_that_a_kind_of_file_cannot_hold_are_refused_by_its_own_name(here: Path) -> None:
    frame = pd.DataFrame({"a": [*range(40)], "b": [b"\xff"] * 40, "y": ["u", "v"] * 20})
    frame.to_parquet("d.parquet")
    result = run("d.parquet", "--target", "y", "--features", "a", "--epochs", "1", "--train-out", "rows.csv")
    assert result.exit_code != 0 and sorted(os.listdir(here)) == ["d.csv", "d.parquet"]
    assert "d.parquet" in sentence(result)


def test_debug_shows_the_traceback_of_the_process(here: Path) -> None:
    result = run("d.csv", *TRAIN, *own(here, "raise KeyError('deep down')"), "--debug")
    assert result.exit_code == 4 and "in forward" in result.stderr and "KeyError: 'deep down'" in result.stderr
    usage = run("d.csv", *TRAIN, "--features", "aa", "--debug")
    assert usage.exit_code == 2 and "in read_rows" in usage.stderr


def test_a_table_whose_name_is_no_utf_8_is_trained_on(here: Path) -> None:
    os.rename("d.csv", b"d\xff.csv")
    result = RUNNER.invoke(app, ["train", os.fsdecode(b"d\xff.csv"), *TRAIN, "--out", "m.pt"])
    assert result.exit_code == 0 and "trained   mlp on d" in result.stdout, result.output


def test_a_link_to_a_table_is_what_it_is_called(here: Path) -> None:
    (here / "blob").write_bytes((here / "d.csv").read_bytes())
    (here / "link.csv").symlink_to("blob")
    assert run("link.csv", *TRAIN, "--out", "m.pt").exit_code == 0


# ---- the command's own process --------------------------------------------------------------------------------------


def test_what_the_command_imports_holds_no_torch_and_no_numpy() -> None:
    tree = ast.parse((ROOT / "cli" / "train.py").read_text(encoding="utf-8"))
    typing = {id(each) for node in ast.walk(tree) if isinstance(node, ast.If) for each in ast.walk(node)}
    late = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and id(n) not in typing}
    assert "auditor.run.parent_process" in late
    names = ", ".join(sorted(name for name in late if name))
    code = f"import sys, {names}; sys.exit(bool({{'torch', 'numpy'}} & {{*sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


@pytest.mark.slow
@pytest.mark.real_child
def test_the_process_of_a_training_from_end_to_end_imports_no_torch(here: Path) -> None:
    words = json.dumps(["train", str(here / "d.csv"), *TRAIN, "--out", str(here / "m.pt")])
    code = (
        f"import sys\nfrom cli.commands import app\ntry:\n    app({words})\n"
        "except SystemExit as end:\n    sys.exit(end.code or 'torch' in sys.modules or 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "accuracy  " in done.stdout, done.stderr
