"""The kernel's sandbox: what hostile code can do in the measuring process, which is nothing."""

from __future__ import annotations

import json
import os
import pickle
import re
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from auditor.core.errors import UsageError
from auditor.data.preprocessing import fit_tabular
from auditor.judging.criterion import load_criteria
from auditor.loading.job_specs import DataSpec, Job, Limits, ModelSpec, ProbeSpec
from auditor.loading.sandbox import landlock, measuring_process, seccomp
from auditor.loading.sandbox.enter_sandbox import places_of
from auditor.models.networks.architectures import MLP
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.report.html import render_html
from auditor.report.record.audit_report import AuditReport
from auditor.run.parent_process import measure
from auditor.run.scan import scan
from auditor.run.scan_options import Configured, ScanOptions
from cli.commands import app
from probes import PROBES
from tests.run.payloads import PAYLOADS, program
from tests.warm_child import PreparedChildren, WarmChildren

CHANNELS = ("pickle", "torch file", "joblib", "numpy file", "config", "own code")
# Tests that the payloads are shared out to; one of them goes through all channels.
PARTS = 16
OWN = os.getpid()
HAS_SANDBOX = landlock.version() > 0 and seccomp.supported()
needs_sandbox = pytest.mark.skipif(
    not HAS_SANDBOX, reason="this kernel has no Landlock, or its machine's system calls are not known: nothing to enter"
)


class Fires:
    """Does what it was given when somebody unpickles it."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __reduce__(self) -> tuple[object, tuple[str, dict[str, object]]]:
        return exec, (self.source, {})


class CarelessChildren(PreparedChildren):
    """Measuring processes with a careless loader; from ``kernel(v)`` on, on a kernel with that interface and no newer.

    One process imports everything for all of them. What the interface is, each reads from a file at its start.
    """

    def __init__(self, children: WarmChildren, folder: Path) -> None:
        self._version = folder / "version"
        self.kernel(None)
        script = folder / "careless.py"
        script.write_text(
            CARELESS.format(version=str(self._version), careless=str(Path(__file__).parent / script.name))
        )
        super().__init__(children, script)

    def kernel(self, version: int | None) -> None:
        """None: the one that this is."""
        self._version.write_text("" if version is None else str(version))


CARELESS = """
import functools, pathlib, runpy
from auditor.loading.sandbox import landlock

own = landlock.version
landlock.version = functools.cache(lambda: int(pathlib.Path({version!r}).read_text() or own()))
runpy.run_path({careless!r})
"""


@pytest.fixture(scope="module")
def careless_children(
    warm_children: WarmChildren, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CarelessChildren]:
    children = CarelessChildren(warm_children, tmp_path_factory.mktemp("careless"))
    yield children
    children.end()


@pytest.fixture
def careless(careless_children: CarelessChildren, monkeypatch: pytest.MonkeyPatch) -> Iterator[CarelessChildren]:
    monkeypatch.setattr(measuring_process, "start_child", careless_children.start)
    yield careless_children
    careless_children.kernel(None)


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """Whoever connects is let in: by TCP, by a Unix socket and by an abstract one."""
    path = str(tmp_path_factory.mktemp("s") / "socket")
    mark = f"auditor-test-{os.getpid()}"
    places = [(socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_UNIX, path), (socket.AF_UNIX, f"\0{mark}")]
    servers = []
    for family, place in places:
        server = socket.socket(family)
        server.bind(place)
        server.listen(200)
        servers.append(server)
    yield {"port": servers[0].getsockname()[1], "socket": path, "mark": mark, "parent": os.getpid()}
    for server in servers:
        server.close()


class Scene:
    """Files of a test: what a job is given, and what is none of its business."""

    def __init__(self, folder: Path, listening: dict[str, object]) -> None:
        self.folder = folder
        for name in ("models", "code", "outside", "home"):
            (folder / name).mkdir(parents=True)
        self.model = folder / "models" / "model"
        self.data = folder / "data.csv"
        self.data.write_text("a,y\n1,yes\n2,no\n")
        for place in ("outside/secret-hunter2", "models/beside", "code/.env"):
            (folder / place).write_text("hunter2")
        self.targets = listening | {
            "secret": str(folder / "outside" / "secret-hunter2"),
            "beside": str(folder / "models" / "beside"),
            "hidden": str(folder / "code" / ".env"),
            "data": str(self.data),
            **{name: str(folder / name) for name in ("models", "code", "outside", "home")},
        }

    def plant(self, channel: str, body: str) -> ModelSpec:
        """A file, a folder or code of the user's with a payload in it."""
        suffixes = {"torch file": ".pt", "joblib": ".joblib", "numpy file": ".npy", "pickle": ".pkl"}
        path = self.model.with_suffix(suffixes.get(channel, ""))
        held = path / "config.json" if channel == "config" else path
        source = program(body, json.dumps(self.targets | {"model": str(held)}))
        if channel == "config":
            path.mkdir()
            held.write_text(json.dumps({"activation": f"exec({source!r}, {{}})"}))
        elif channel == "torch file":
            torch.save(Fires(source), path)
        elif channel == "joblib":
            joblib.dump(Fires(source), path)
        elif channel == "numpy file":
            np.save(path, np.array([Fires(source)], dtype=object), allow_pickle=True)
        else:
            path.write_bytes(pickle.dumps(Fires(source)))
        if channel != "own code":
            return ModelSpec(path=str(path), device="cpu", code_folder=self.targets["code"])  # type: ignore[arg-type]
        (self.folder / "code" / "own.py").write_text(
            f"exec({source!r}, {{}})\ndef predict(X):\n    return [0.5] * len(X)\npredict.classes = ['no', 'yes']\n"
        )
        return ModelSpec(predict="own:predict", device="cpu", code_folder=self.targets["code"])  # type: ignore[arg-type]

    def job(self, channel: str, body: str) -> Job:
        return Job(
            model=self.plant(channel, body),
            data=DataSpec(path=str(self.data)),
            probes=(),
            seed=0,
            limits=Limits(memory_bytes=2 << 30, seconds=20.0),
        )

    def state(self) -> dict[str, object]:
        """All that is in the folder: contents, modes, owners, times and attributes."""
        return {str(path): self._state(path) for path in sorted(self.folder.rglob("*"))}

    @staticmethod
    def _state(path: Path) -> object:
        found = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(found.st_mode) else b""
        return content, found.st_mode, found.st_uid, found.st_nlink, found.st_mtime_ns, os.listxattr(path)


def fired(job: Job) -> bool:
    """Whether the payload did what it was made for; that it was run at all is asserted."""
    said = measure(job, {}).log
    assert "TRIED" in said, said
    return "FIRED" in said


def planted(folder: Path, listening: dict[str, object], names: Sequence[str]) -> Iterator[tuple[str, Scene, Job]]:
    """A scene and a job for each of these payloads, by one channel after another."""
    for i, name in enumerate(PAYLOADS):
        if name in names:
            scene = Scene(folder / str(i), listening)
            yield name, scene, scene.job(CHANNELS[i % len(CHANNELS)], PAYLOADS[name])


@pytest.mark.grid(every=3)
@needs_sandbox
@pytest.mark.usefixtures("careless")
@pytest.mark.parametrize("part", range(PARTS))
def test_a_careless_loader_fires_none_of_the_payloads(tmp_path: Path, listening: dict[str, object], part: int) -> None:
    assert len(PAYLOADS) >= 200
    for name, scene, job in planted(tmp_path, listening, list(PAYLOADS)[part::PARTS]):
        before = scene.state()
        assert not fired(job), name
        assert scene.state() == before, name


# Stopped even where the sandbox is left out: whoever leaves the group could outlive the scan, and of calls that are
# newer than this tool nobody has looked at what they do.
NEVER = {
    "programs: a session of its own",
    "programs: a group of its own",
    "kernel: an attribute by the newer call",
}


@pytest.mark.slow
@needs_sandbox
@pytest.mark.usefixtures("careless")
def test_without_the_sandbox_the_payloads_do_fire(tmp_path: Path, listening: dict[str, object]) -> None:
    def fire(names: Sequence[str], folder: Path) -> set[str]:
        jobs = planted(folder, listening, names)
        return {name for name, _, job in jobs if fired(replace(job, allow_unsandboxed=True))}

    loud = fire(list(PAYLOADS), tmp_path / "once")
    # What races with the threads of the process that it is in may lose once.
    loud |= fire([name for name in PAYLOADS if name not in loud | NEVER], tmp_path / "again")
    assert not loud & NEVER
    # Who is not root may do less of what the kernel's part of them asks for.
    assert len(loud) >= (len(PAYLOADS) - len(NEVER) if os.getuid() == 0 else 200), set(PAYLOADS) - loud


@pytest.mark.grid(every=6)
@pytest.mark.slow
@needs_sandbox
@pytest.mark.parametrize("version", range(1, 7))
def test_on_an_older_kernel_they_fire_as_little(
    tmp_path: Path, listening: dict[str, object], careless: CarelessChildren, version: int
) -> None:
    careless.kernel(version)
    for name, scene, job in planted(tmp_path, listening, list(PAYLOADS)[version::6]):
        before = scene.state()
        assert not fired(job), name
        assert scene.state() == before, name


LEAVES_A_PROCESS = """
r, w = os.pipe()
if os.fork() == 0:
    try:
        os.setsid()
    except OSError:
        pass
    if os.fork() == 0:
        print("SURVIVOR", os.getpid(), "END", flush=True)
        os.write(w, b"x")
        time.sleep(60)
    os._exit(0)
os.read(r, 1)
"""


@pytest.mark.skipif(not seccomp.supported(), reason="this machine's system calls are not known")
@pytest.mark.usefixtures("careless")
def test_no_process_outlives_the_scan_even_without_the_sandbox(tmp_path: Path, listening: dict[str, object]) -> None:
    job = Scene(tmp_path, listening).job("pickle", LEAVES_A_PROCESS)
    said = measure(replace(job, allow_unsandboxed=True), {}).log
    survivor = int(said.partition("SURVIVOR ")[2].partition(" END")[0])
    for _ in range(100):
        if not is_alive(survivor):
            return
        time.sleep(0.05)
    pytest.fail("a process outlived the scan")


def fitted(path: Path) -> Path:
    """A model that is data, and is loaded before a probe of the user's is."""
    joblib.dump(LogisticRegression().fit(pd.DataFrame({"a": [1.0, 2.0]}), ["yes", "no"]), path)
    return path


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@needs_sandbox
@pytest.mark.usefixtures("careless")
def test_a_scan_says_which_layers_were_on(tmp_path: Path, listening: dict[str, object]) -> None:
    job = Scene(tmp_path, listening).job("pickle", "pass")
    state = measure(job, {}).sandbox
    assert state is not None and state.is_confined and state.landlock == landlock.version() and state.seccomp
    assert state.describe() == f"Landlock {landlock.version()} and seccomp"
    without = measure(replace(job, allow_unsandboxed=True), {}).sandbox
    assert (
        without is not None and not without.is_confined and "none: --allow-unsandboxed was given" in without.describe()
    )


@pytest.fixture(scope="module")
def bare_children(warm_children: WarmChildren, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmChildren]:
    """Measuring processes on a kernel without Landlock, with the loader that there is."""
    script = tmp_path_factory.mktemp("bare") / "bare.py"
    script.write_text("from auditor.loading.sandbox import landlock\nlandlock.version = lambda: 0\n")
    children = PreparedChildren(warm_children, script)
    yield children
    children.end()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measuring processes of tests are forked on Linux")
@pytest.mark.parametrize(
    "flag", ["--predict", "--trust-pickle", "--allow-code", "--architecture", "--probe", "--decoder"]
)
def test_without_a_sandbox_what_runs_code_is_refused(
    tmp_path: Path,
    listening: dict[str, object],
    bare_children: WarmChildren,
    monkeypatch: pytest.MonkeyPatch,
    flag: str,
) -> None:
    monkeypatch.setattr(measuring_process, "start_child", bare_children.start)
    scene = Scene(tmp_path, listening)
    own = scene.job("own code", "fired()")
    model = {
        "--predict": own.model,
        "--trust-pickle": replace(scene.plant("pickle", "fired()"), trust_pickle=True),
        "--allow-code": replace(scene.plant("pickle", "fired()"), allow_code=True),
        "--architecture": replace(scene.plant("pickle", "fired()"), architecture="own:Net"),
        "--probe": replace(own.model, predict=None, path=str(fitted(scene.model.with_suffix(".joblib")))),
        "--decoder": scene.plant("pickle", "fired()"),
    }[flag]
    if flag == "--decoder":
        own = replace(own, probes=(ProbeSpec(name="marking", target="", options={"decoder": ["own:finds"]}),))
    if flag == "--probe":
        own = replace(own, probes=(ProbeSpec(name="Own", target="own:Own", own=True),))
    with pytest.raises(UsageError, match=f"^{flag} runs code.*no Landlock.*--allow-unsandboxed"):
        measure(replace(own, model=model), {})
    if flag in ("--predict", "--trust-pickle"):
        assert fired(replace(own, model=model, allow_unsandboxed=True))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measuring processes of tests are forked on Linux")
def test_without_a_sandbox_what_is_data_goes_on_and_the_record_says_so(
    tmp_path: Path, bare_children: WarmChildren, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring_process, "start_child", bare_children.start)
    torch.manual_seed(0)
    args = {"n_features": 1, "hidden": [2], "n_outputs": 2}
    module = MLP(1, [2], 2)
    preprocessing = fit_tabular(pd.DataFrame({"a": [1.0, 2.0]}))
    save(
        TorchModel(
            module, classes=["no", "yes"], preprocessing=preprocessing, architecture={"name": "mlp", "args": args}
        ),
        tmp_path / "model.pt",
    )
    (tmp_path / "data.csv").write_text("a,y,sex\n" + "1,yes,f\n2,no,m\n" * 30)
    options = ScanOptions.from_values({"model": str(tmp_path / "model.pt"), "data": str(tmp_path / "data.csv"),
        "target": "y", "positive": "yes",
                              "sensitive": "sex", "probes": "group_fairness", "device": "cpu"})  # fmt: skip
    report = scan(Configured(options, {}, tuple(load_criteria())), PROBES).report
    assert report.refusal is None and report.findings
    state = report.environment.sandbox
    assert state is not None and not state.is_confined and state.landlock == 0
    assert state.describe().startswith("none, seccomp alone: this kernel has no Landlock")
    assert "none, seccomp alone: this kernel has no Landlock" in render_html(report)
    again = AuditReport.from_json(report.to_json())
    assert again == report


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measuring processes of tests are forked on Linux")
def test_without_a_sandbox_a_network_of_ones_own_is_not_trained_and_the_built_in_one_is(
    tmp_path: Path, bare_children: WarmChildren, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring_process, "start_child", bare_children.start)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.csv").write_text("a,y\n" + "1,yes\n2,no\n" * 30)
    (tmp_path / "own.py").write_text("import torch\n\ndef net():\n    return torch.nn.Linear(1, 2)\n")
    words = ["train", "d.csv", "--target", "y", "--epochs", "1", "--device", "cpu"]
    refused = CliRunner().invoke(app, [*words, "--architecture", "own:net"])
    assert refused.exit_code == 2 and refused.stderr.startswith("auditor: --architecture runs code, and there is no")
    assert "add --allow-unsandboxed" in refused.stderr and sorted(os.listdir()) == ["d.csv", "own.py"]
    assert CliRunner().invoke(app, words).exit_code == 0
    allowed = CliRunner().invoke(app, [*words, "--architecture", "own:net", "--allow-unsandboxed"])
    assert allowed.exit_code == 0 and "trained   own:net" in allowed.stdout, allowed.output


def test_what_is_installed_to_be_edited_may_be_read(
    tmp_path: Path, listening: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As setuptools leaves it: a finder, in whose module stands where it lies."""
    module = ModuleType("__editable___theirs_finder")
    module.MAPPING = {"theirs": "/elsewhere/theirs"}  # type: ignore[attr-defined]
    finder = type("_EditableFinder", (), {"__module__": module.__name__, "find_spec": lambda *parts: None})
    job = Scene(tmp_path, listening).job("pickle", "pass")
    place = landlock.Place(Path("/elsewhere/theirs"), landlock.READ)
    assert place not in places_of(job, tmp_path)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, finder])
    assert place in places_of(job, tmp_path)


def test_what_a_benchmark_is_read_with_may_be_read_and_nothing_else_beside_it(
    tmp_path: Path, listening: dict[str, object]
) -> None:
    names = ("all_sentences.tsv", "occupations-stats.tsv", "additional_metadata.csv", ".env")
    paths = [tmp_path / "given" / name for name in names]
    paths[0].parent.mkdir()
    for path in paths:
        path.write_text("x")
    job = Scene(tmp_path, listening).job("pickle", "pass")
    spec = ProbeSpec(name="any", target="any", options={"pair_benchmarks": {"winogender": str(paths[0])}})
    places = {place.path for place in places_of(replace(job, probes=(spec,)), tmp_path)}
    assert [path in places for path in paths] == [True, True, False, False]
    paths[1].unlink()
    paths[1].symlink_to(paths[3])
    assert paths[1] not in {place.path for place in places_of(replace(job, probes=(spec,)), tmp_path)}


def test_what_enters_the_sandbox_has_one_thread_and_no_numpy() -> None:
    code = (
        "import os, sys, auditor.run.child_start, auditor.privacy.dp_record_of_bundle\n"
        "print(len(os.listdir('/proc/self/task')), {'numpy', 'torch', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "set()"]


# ---- the filter of system calls, on either machine -----------------------------------------------------------------


def answer_of(program: list[bytes], number: int, architecture: int, *arguments: int) -> int:
    """What a BPF program says of a call: an interpreter of the five instructions that it is made of."""
    data = struct.pack("=iIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    at = loaded = 0
    while True:
        code, then, other, operand = struct.unpack("=HBBI", program[at])
        at += 1
        if code == 0x06:
            return operand
        if code == 0x20:
            loaded = int.from_bytes(data[operand : operand + 4], "little")
        elif code == 0x54:
            loaded &= operand
        else:
            assert code in (0x15, 0x35)
            at += then if (loaded == operand if code == 0x15 else loaded >= operand) else other


ALLOWED, EPERM, ENOSYS, KILLED = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_says_of_every_call_what_its_table_says(machine: str) -> None:
    place, architecture, _ = seccomp._ARCHITECTURES[machine]
    checked = tuple(seccomp._checked(with_devices=False))
    denied = seccomp._STAYING | seccomp._DENIED
    program = seccomp._program(place, architecture, denied, seccomp._ABSENT, checked)
    assert len(program) < 4096
    here = {numbers[place] for numbers in denied.values()} - {None}
    absent = {numbers[place] for numbers in seccomp._ABSENT.values()}
    looked_at = {rule.numbers[place] for rule in checked}
    for number in range(seccomp._LAST + 1):
        if number not in looked_at:
            expected = EPERM if number in here else ENOSYS if number in absent else ALLOWED
            assert answer_of(program, number, architecture) == expected, number
    assert answer_of(program, seccomp._LAST + 1, architecture) == ENOSYS
    assert answer_of(program, 0x40000000 + 1, architecture) == ENOSYS
    assert answer_of(program, 0, architecture ^ 1) == KILLED


@pytest.mark.grid(every=3)
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize(
    ("call", "arguments", "expected"),
    [
        ("kill", (OWN, 9), ALLOWED),
        ("kill", (OWN + 1, 9), EPERM),
        ("kill", (2**64 - 1, 9), EPERM),
        ("tgkill", (OWN, 77, 9), ALLOWED),
        ("tgkill", (OWN + 1, 77, 9), EPERM),
        ("prlimit64", (0, 4), ALLOWED),
        ("prlimit64", (OWN + 1, 4), EPERM),
        ("clone", (0x3D0F00,), ALLOWED),
        ("clone", (17,), EPERM),
        ("openat", (0, 0, os.O_RDONLY), ALLOWED),
        ("openat", (0, 0, os.O_WRONLY | os.O_TRUNC), ALLOWED),
        ("openat", (0, 0, os.O_RDONLY | os.O_TRUNC), EPERM),
        ("prctl", (15,), ALLOWED),
        ("prctl", (1,), EPERM),
        ("fcntl", (3, 2), ALLOWED),
        ("fcntl", (3, 8), EPERM),
        ("fcntl", (3, 15), EPERM),
        ("ioctl", (3, 0x5401), ALLOWED),
        ("ioctl", (3, 0x40086602), EPERM),
    ],
)
def test_a_call_is_denied_by_its_arguments(machine: str, call: str, arguments: tuple[int, ...], expected: int) -> None:
    numbers = {
        "kill": (62, 129), "tgkill": (234, 131), "prlimit64": (302, 261), "clone": (56, 220), "openat": (257, 56),
        "prctl": (157, 167), "fcntl": (72, 25), "ioctl": (16, 29),
    }  # fmt: skip
    place, architecture, _ = seccomp._ARCHITECTURES[machine]
    checked = tuple(seccomp._checked(with_devices=False))
    program = seccomp._program(place, architecture, seccomp._DENIED, seccomp._ABSENT, checked)
    assert answer_of(program, numbers[call][place], architecture, *arguments) == expected


@pytest.mark.parametrize(
    ("place", "header"),
    [(0, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), (1, "/usr/include/asm-generic/unistd.h")],
)
def test_the_numbers_are_those_of_the_kernels_own_headers(place: int, header: str) -> None:
    if not Path(header).exists():
        pytest.skip(f"there is no {header} here")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(header).read_text())
    known = {name: int(number) for name, number in found}
    tables = (seccomp._STAYING, seccomp._DENIED, seccomp._ABSENT)
    own = {name: numbers[place] for table in tables for name, numbers in table.items()}
    assert own == {name: known.get(name) for name in own}
