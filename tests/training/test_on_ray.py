"""One worker here, two of Ray's, and two of which one is killed half-way: the same report, in all that it says."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

import auditor
from auditor.core.errors import UsageError
from auditor.data.preprocessing import fit_tabular
from auditor.models.audited_model import Recipe
from auditor.models.networks.architectures import MLP
from auditor.models.torch_model import TorchModel
from auditor.training import task_distribution as module
from auditor.training.task_distribution import ConnectedProcess, on_ray
from auditor.training.task_executor import Tasks
from tests.training.test_elsewhere import digest_of, rows_and_model, swept

pytestmark = [
    pytest.mark.slow,
    # Sockets that Ray leaves to the collector, and processes that it starts in ways of its own.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]
N, MODELS = 1_200, 128


@pytest.fixture(scope="module")
def cluster() -> Iterator[ConnectedProcess]:
    """Two local workers of one thread each."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'responsible-auditor[ray]'")
    with on_ray(cores=2) as ray:
        yield ray


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model bundle with its training and other rows, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(N, 8)), columns=list("abcdefgh"))
    labels = np.where(frame["a"] + rng.normal(size=N) > 0, "yes", "no")
    frame.assign(y=labels)[: N // 2].to_csv(tmp_path / "train.csv", index=False)
    frame.assign(y=labels)[N // 2 :].to_csv(tmp_path / "test.csv", index=False)
    preprocessing = fit_tabular(frame[: N // 2])
    args = {"n_features": preprocessing.width, "hidden": [32], "n_outputs": 2}
    model = TorchModel(
        MLP(**args),
        classes=["no", "yes"],
        preprocessing=preprocessing,
        architecture={"name": "mlp", "args": args},
        recipe=Recipe(epochs=24, batch_size=32),
    )
    auditor.save(model, tmp_path / "model.pt")
    return tmp_path


def report_of(folder: Path, **options: Any) -> dict[str, Any]:
    """What a scan from paths says, in the sandbox and all, but for when, how long and for how much energy."""
    report = auditor.scan(
        folder / "model.pt",
        folder / "test.csv",
        train=folder / "train.csv",
        target="y",
        probes="membership_inference",
        probe_options={"membership_inference": {"methods": "bavaria", "n_shadows": MODELS}},
        **options,
    )
    said: dict[str, Any] = json.loads(report.to_json())
    for name in ("created", "duration_s", "energy"):
        said.pop(name, None)
    said["environment"].pop("command", None)
    return said


def kill_one(folder: Path, killed: list[tuple[int, int]], finished_as: str = "task-*") -> None:
    """Kills a worker at its work once a task is finished, which is a file of that name; notes it, and how many were."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not killed:
        finished = len(list(folder.rglob(finished_as)))
        if finished:
            for process in psutil.Process().children(recursive=True):
                try:
                    if process.cmdline()[:1] == ["ray::do"]:
                        os.kill(process.pid, signal.SIGKILL)
                        killed.append((process.pid, finished))
                        return
                except (psutil.Error, ProcessLookupError):
                    continue
        time.sleep(0.005)


def test_the_report_is_the_same_from_one_worker_two_of_ray_and_a_run_with_one_killed(
    cluster: ConnectedProcess, audited: Path
) -> None:
    here = report_of(audited)
    by_ray = report_of(audited, executor="ray")
    killed: list[tuple[int, int]] = []
    killer = threading.Thread(target=kill_one, args=(audited / "cache", killed))
    killer.start()
    outlived = report_of(audited, executor="ray")
    killer.join()
    said = json.dumps(here)
    assert '"attack_auc"' in said and f"{MODELS} shadow models" in said
    assert by_ray == here
    # It was at its work: of four stacks not all were finished.
    assert killed and 0 < killed[0][1] < MODELS // 32
    assert outlived == here
    # Nothing is left behind where the run ended well.
    assert list((audited / "cache").rglob("task-*")) == []


@contextmanager
def killing(folder: Path, finished_as: str, of: int) -> Iterator[None]:
    """Inside, a worker is killed half-way: at its work, when some of the tasks were finished and not all."""
    killed: list[tuple[int, int]] = []
    killer = threading.Thread(target=kill_one, args=(folder, killed, finished_as))
    killer.start()
    yield
    killer.join()
    assert killed and 0 < killed[0][1] < of


def test_a_sweep_is_the_same_from_one_worker_two_of_ray_and_with_one_killed(
    cluster: ConnectedProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder, alphas = rows_and_model(tmp_path / "rows"), "0,0.25,0.5,1"
    here = swept(folder, tmp_path / "here", alphas=alphas)
    by_ray = swept(folder, tmp_path / "ray", "--executor", "ray", alphas=alphas)
    assert by_ray.exit_code == here.exit_code and by_ray.stdout.count("made elsewhere") == 4, by_ray.output
    with killing(tmp_path / "outlived", "model.pt", of=4):
        outlived = swept(folder, tmp_path / "outlived", "--executor", "ray", alphas=alphas)
    assert outlived.exit_code == here.exit_code and outlived.stdout.count("made elsewhere") == 4, outlived.output
    assert "raylet" not in outlived.output
    assert digest_of(tmp_path / "here") == digest_of(tmp_path / "ray") == digest_of(tmp_path / "outlived")


def test_more_threads_than_cores_and_a_task_that_fails_are_one_sentence(cluster: ConnectedProcess) -> None:
    with pytest.raises(UsageError, match="computes with 64 threads, and the cluster has 2 cores: set OMP_NUM_THREADS"):
        list(cluster.results(Tasks("stack", b"", (b"",), threads=64)))
    with pytest.raises(UsageError, match=r"no task of this version.*What is finished is kept: run the same command"):
        list(cluster.results(Tasks("stack", b"", (b"",))))


def test_what_ray_says_of_itself_is_one_sentence(cluster: ConnectedProcess) -> None:
    ray = pytest.importorskip("ray")
    kinds = ray.exceptions
    for error, words in (
        (kinds.ObjectStoreFullError("x"), "object store is full: start the cluster with a larger"),
        (kinds.OutOfMemoryError("x"), "ran out of memory"),
        (kinds.WorkerCrashedError(), "worker or node was lost 4 times over one task"),
    ):
        said = module._error_text(ray, error)
        assert words in said and said.endswith(module.AGAIN) and "\n" not in said
