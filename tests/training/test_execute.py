"""Tasks are pure: whoever does them, in what order and how often, what comes out is the same, or one sentence."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from auditor.core.errors import MissingExtraError, ModelError, UsageError
from auditor.core.rows import FloatArray
from auditor.models.audited_model import Recipe
from auditor.models.networks.architectures import Architecture
from auditor.training import stack_tasks, task_distribution
from auditor.training.ensembles import random_halves, train_together
from auditor.training.stack_tasks import ALONE, StackTask, received_logits, sent_tasks
from auditor.training.task_distribution import ThroughParent, _Handing, chosen_executor
from auditor.training.task_executor import Executor, Kept, Tasks, do, folder_of_tasks, tasks_by
from tests import ROOT
from tests.training.in_this_process import InThisProcess

NARROW = Architecture("mlp", {"n_features": 6, "hidden": [8], "n_outputs": 3})
DROPPING = Architecture("mlp", {"n_features": 6, "hidden": [8], "n_outputs": 3, "dropout": 0.3})
RECIPE = Recipe(epochs=2, batch_size=16, learning_rate=1e-2)


def eight(executor: Executor | None, make: Any = NARROW, recipe: Recipe = RECIPE, **more: Any) -> FloatArray:
    """Logits of eight models in stacks of two, trained by the executor."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(60, 6)).astype(np.float32))
    members = random_halves(8, 60, rng)
    with tasks_by(executor):
        return train_together(
            make, x, x[:, :3].argmax(dim=1), members, seeds=range(8), recipe=recipe, most_together=2, **more
        ).kept


class Backwards:
    """Does the last task first, and notes how many it did."""

    def __init__(self) -> None:
        self.n = 0

    def results(self, tasks: Tasks) -> Iterator[tuple[int, bytes]]:
        for i in reversed(range(len(tasks.each))):
            self.n += 1
            yield i, do(tasks.kind, tasks.shared, tasks.each[i])


class Dies(Backwards):
    """Loses its cluster after two tasks, or so many."""

    def __init__(self, after: int = 2) -> None:
        super().__init__()
        self.after = after

    def results(self, tasks: Tasks) -> Iterator[tuple[int, bytes]]:
        for result in super().results(tasks):
            yield result
            if self.n == self.after:
                raise UsageError("A node was lost.")


@pytest.mark.parametrize("make", [NARROW, DROPPING], ids=["linear", "dropout, one stack's draws"])
@pytest.mark.parametrize("stacked", [True, False], ids=["stacks", "one by one"])
def test_the_models_are_the_same_to_the_last_bit(make: Architecture, stacked: bool) -> None:
    here = eight(None, make, stacked=stacked)
    asked = Backwards()
    assert eight(asked, make, stacked=stacked).tobytes() == here.tobytes()
    assert asked.n == (4 if stacked else 8)
    assert eight(InThisProcess(), make, stacked=stacked).tobytes() == here.tobytes()


def test_what_is_more_than_data_stays_in_the_process() -> None:
    """A function of the user's, or of a file that is not trusted, is never sent."""
    asked = Backwards()
    own = eight(asked, lambda: NARROW())
    assert asked.n == 0 and own.tobytes() == eight(None).tobytes()


def test_another_seed_row_or_recipe_is_another_task() -> None:
    rng = np.random.default_rng(0)
    x, members = torch.from_numpy(rng.normal(size=(20, 6))), random_halves(2, 20, rng)
    task = StackTask(NARROW, x, torch.arange(20) % 3, members, (0, 1), RECIPE, "logits", None)
    others = [
        replace(task, seeds=(0, 2)),
        replace(task, x=x + 1e-9),
        replace(task, members=~members),
        replace(task, recipe=replace(RECIPE, epochs=3)),
        replace(task, make=DROPPING),
    ]
    sent = [sent_tasks(each, [range(2)], ALONE) for each in (task, *others)]
    assert len({(each.shared, *each.each) for each in sent if each is not None}) == len(others) + 1


def test_what_is_finished_is_kept_and_taken_up(tmp_path: Path) -> None:
    kept = Kept(Dies(), tmp_path)
    with pytest.raises(UsageError, match="A node was lost"):
        eight(kept)
    left = sorted(tmp_path.glob("task-*"))
    assert len(left) == 2
    # One that was cut off.
    left[0].write_bytes(left[0].read_bytes()[:-1])
    asked = Backwards()
    again = Kept(asked, tmp_path)
    assert eight(again).tobytes() == eight(None).tobytes()
    assert asked.n == 3
    assert eight(again).tobytes() == eight(None).tobytes() and asked.n == 3
    again.forget()
    assert list(tmp_path.glob("task-*")) == []


def test_a_refusal_is_a_result_and_says_what_it_says_here() -> None:
    recipe = replace(RECIPE, learning_rate=1e30, optimizer="sgd")
    said = []
    for executor in (None, InThisProcess()):
        with pytest.raises(ModelError, match="infinite or NaN") as error:
            eight(executor, recipe=recipe)
        said.append(str(error.value))
    assert said[0] == said[1]


def test_a_worker_with_another_torch_trains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    task = StackTask(
        NARROW,
        torch.zeros(4, 6),
        torch.zeros(4, dtype=torch.int64),
        np.ones((1, 4), bool),
        (0,),
        RECIPE,
        "logits",
        None,
    )
    sent = sent_tasks(task, [range(1)], ALONE)
    assert sent is not None
    monkeypatch.setattr(stack_tasks, "versions", lambda: {"torch": "1.0"})
    with pytest.raises(UsageError, match=r"A worker has torch 1\.0 and .*: install the same version on both"):
        do("stack", sent.shared, sent.each[0])
    for bad in (b"", b"\0" * 8, sent.shared[:40], sent.each[0]):
        with pytest.raises(UsageError, match="no task of this version"):
            do("stack", bad, sent.each[0])
    with pytest.raises(ModelError, match="lost"):
        received_logits(stack_tasks.refusal_result(ModelError("lost")))


# ---- through the parent --------------------------------------------------------------------------------------------


def handed(executor: Executor, folder: Path) -> tuple[FloatArray, str]:
    """What the child's side gets, and what the parent's says failed."""
    handing = _Handing(executor, folder)
    handing.start()
    try:
        return eight(ThroughParent(folder)), handing.failed
    finally:
        handing.end()


def test_a_process_without_a_network_gets_the_same_through_its_parent(tmp_path: Path) -> None:
    asked = Backwards()
    found, failed = handed(asked, tmp_path)
    assert found.tobytes() == eight(None).tobytes() and asked.n == 4 and failed == ""
    assert list(tmp_path.glob("*-result-*")) == []


def test_what_becomes_of_a_lost_cluster_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^A node was lost\.$"):
        handed(Dies(), tmp_path)


class Busy:
    """Never ends."""

    def __init__(self) -> None:
        self.asked, self.let_go = threading.Event(), threading.Event()

    def results(self, tasks: Tasks) -> Iterator[tuple[int, bytes]]:
        self.asked.set()
        self.let_go.wait(timeout=60)
        yield 0, b""


def test_a_child_that_died_leaves_nobody_waiting_for_a_busy_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_distribution, "_LONGEST_GOODBYE", 0.1)
    for name in ("0-shared", "0-task-0"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "0-asked").write_text('{"kind":"stack","n":1,"threads":1}')
    busy = Busy()
    handing = _Handing(busy, tmp_path)
    handing.start()
    assert busy.asked.wait(timeout=20)
    handing.end()
    assert handing.is_alive()
    busy.let_go.set()
    handing.join(timeout=20)
    assert not handing.is_alive() and not (tmp_path / "0-result-0").exists() and not (tmp_path / "failed").exists()


@pytest.mark.parametrize(
    "hostile",
    [
        '{"kind":"os:system","n":1,"threads":1}', '{"kind":"point","n":1,"threads":1}',
        '{"kind":"stack","n":1000000000,"threads":1}', "{", None,
    ],
)  # fmt: skip
def test_a_hostile_child_gets_nothing_done(hostile: str | None, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine")
    folder = tmp_path / "tasks"
    folder.mkdir()
    if hostile is None:
        (folder / "0-shared").symlink_to(secret)
        hostile = '{"kind":"stack","n":1,"threads":1}'
    (folder / "0-asked").write_text(hostile)
    asked = Backwards()
    handing = _Handing(asked, folder)
    handing.start()
    handing.join(timeout=20)
    handing.end()
    assert asked.n == 0 and handing.failed.endswith(".") and "mine" not in (folder / "failed").read_text()


# ---- without Ray ---------------------------------------------------------------------------------------------------


def test_an_address_without_ray_and_ray_that_is_not_installed_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"--address names a Ray cluster: add --executor ray\."):
        with chosen_executor("local", "head:6379"):
            raise AssertionError
    with chosen_executor("local", None) as none:
        assert none is None
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'responsible-auditor\[ray\]'"):
        with chosen_executor("ray", None):
            raise AssertionError


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9"])
def test_nobody_at_the_address_is_found_out_before_ray_tries(address: str) -> None:
    with pytest.raises(UsageError, match="nobody answers at '.*127.0.0.1:9'"):
        task_distribution._reach(address)


@pytest.mark.parametrize("address", ["head", "http://head:1", "head:none", "", "[", "://"])
def test_what_is_no_address_is_said(address: str) -> None:
    with pytest.raises(UsageError, match=r"must look like host:6379, ray://host:10001 or auto\."):
        task_distribution._reach(address)


def test_finished_tasks_wait_where_only_this_user_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = folder_of_tasks()
    assert folder.is_relative_to(tmp_path) and folder.stat().st_mode & 0o077 == 0
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    with pytest.raises(UsageError, match="Set XDG_CACHE_HOME"):
        folder_of_tasks()


class _RayError(Exception):
    pass


def _kind(name: str, base: type[Exception] = _RayError) -> type[Exception]:
    return type(name, (base,), {})


class FakeRay:
    """What of Ray is called, on one core after another: ``fails`` what is asked for after ``after`` results.

    ``alone``: from then on nothing ends, and no node is left.
    """

    exceptions = SimpleNamespace(
        RayError=_RayError,
        **{
            name: _kind(name)
            for name in (
                "ObjectStoreFullError", "OutOfDiskError", "OutOfMemoryError", "WorkerCrashedError", "NodeDiedError",
                "LocalRayletDiedError", "RayTaskError", "RaySystemError",
            )
        },
    )  # fmt: skip

    def __init__(self, error: Exception | None = None, *, after: int = 2, alone: bool = False) -> None:
        self.error, self.after, self.alone = error, after, alone
        self.n = 0
        self.cancelled: list[Any] = []

    @property
    def failing(self) -> bool:
        return self.n >= self.after

    def cluster_resources(self) -> dict[str, float]:
        return {"object_store_memory": 1e9} if self.alone and self.failing else {"CPU": 2.0}

    def remote(self, **_: Any) -> Any:
        return lambda function: SimpleNamespace(remote=lambda *given: given)

    def put(self, value: Any) -> Any:
        return value

    def wait(self, waiting: list[Any], *, num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        assert num_returns == 1 and timeout > 0.0, "nobody waits for ever"
        return ([], waiting) if self.alone and self.failing else (waiting[:1], waiting[1:])

    def get(self, reference: Any) -> bytes:
        if self.error is not None and self.failing:
            raise self.error
        self.n += 1
        return do(*reference)

    def cancel(self, reference: Any, *, force: bool) -> None:
        self.cancelled.append(reference)


def _raised(name: str, cause: Exception | None = None) -> Exception:
    error: Exception = getattr(FakeRay.exceptions, name)("a long\nmessage of Ray's")
    error.cause = cause  # type: ignore[attr-defined]
    return error


@pytest.mark.grid
@pytest.mark.parametrize(
    ("ray", "said"),
    [
        (FakeRay(_raised("ObjectStoreFullError")), r"object store is full: start the cluster with a larger --object-"),
        (FakeRay(_raised("OutOfDiskError")), r"object store is full"),
        (FakeRay(_raised("OutOfMemoryError")), r"worker ran out of memory: give the nodes more"),
        (FakeRay(_raised("RayTaskError", MemoryError())), r"worker ran out of memory: give the nodes more"),
        (FakeRay(_raised("WorkerCrashedError")), r"lost 4 times over one task \(WorkerCrashedError\)"),
        (FakeRay(_raised("NodeDiedError")), r"lost 4 times over one task \(NodeDiedError\)"),
        (FakeRay(_raised("RayTaskError", ValueError("odd"))), r"A task failed on a Ray worker: ValueError: odd"),
        (FakeRay(_raised("RaySystemError")), r"Ray failed: RaySystemError: a long\."),
        (FakeRay(ConnectionError("reset")), r"The connection to Ray was lost: ConnectionError: reset"),
        (FakeRay(alone=True), r"Nodes of the Ray cluster were lost, and of 2 cores 0 are left"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_cluster_that_fails_half_way_is_one_sentence_and_what_is_finished_is_kept(
    ray: FakeRay, said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said) as told:
        eight(Kept(task_distribution.RayExecutor(ray), tmp_path))
    text = str(told.value)
    assert text.endswith("What is finished is kept: run the same command again to go on from there.")
    assert "\n" not in text and len(list(tmp_path.glob("task-*"))) == 2 and ray.cancelled
    asked = Backwards()
    assert eight(Kept(asked, tmp_path)).tobytes() == eight(None).tobytes() and asked.n == 2


class InThread:
    """A process that is a thread, connected to a fake."""

    def __init__(self, words: list[str], *, pass_fds: tuple[int], **_: Any) -> None:
        self._theirs = Connection(os.dup(pass_fds[0]))
        self._thread = threading.Thread(target=self._run, args=(json.loads(words[-1]),), daemon=True)
        self._thread.start()

    def _run(self, given: dict[str, Any]) -> None:
        with self._theirs:
            task_distribution.serve(self._theirs, **given)

    def terminate(self) -> None:
        """A thread ends by itself."""

    def wait(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)


def clustered(monkeypatch: pytest.MonkeyPatch, *rays: FakeRay) -> None:
    """Lets each connection be to the next of these."""
    left = list(rays)
    monkeypatch.setattr(task_distribution, "find_spec", lambda name: name)
    monkeypatch.setattr(task_distribution.subprocess, "Popen", InThread)
    monkeypatch.setattr(
        task_distribution, "connected", lambda *given: nullcontext(task_distribution.RayExecutor(left.pop(0)))
    )


def test_another_process_is_connected_and_one_call_leaves_nothing_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay()
    clustered(monkeypatch, ray)
    here = eight(None)
    with task_distribution.on_ray() as outer, task_distribution.on_ray() as cluster:
        assert cluster is outer, "it is connected once"
        assert eight(cluster).tobytes() == here.tobytes() and ray.n == 4
        x = torch.zeros(4, 6)
        task = StackTask(
            NARROW, x, torch.zeros(4, dtype=torch.int64), np.ones((9, 4), bool), tuple(range(9)), RECIPE, "logits", None
        )
        sent = sent_tasks(task, [range(i, i + 1) for i in range(9)], ALONE)
        assert sent is not None
        taken = cluster.results(sent)
        assert next(taken)[0] == 0
        taken.close()  # type: ignore[attr-defined]
        assert ray.cancelled and ray.n < 13
        assert eight(cluster).tobytes() == here.tobytes()
        with pytest.raises(UsageError, match="no task of this version"):
            list(cluster.results(Tasks("stack", b"", (b"",))))
        assert eight(cluster).tobytes() == here.tobytes()
    assert not task_distribution._open


def test_a_process_that_ray_ends_is_one_sentence_and_what_is_finished_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ends(FakeRay):
        def get(self, reference: Any) -> bytes:
            if self.failing:
                raise EOFError
            return super().get(reference)

    clustered(monkeypatch, Ends())
    with task_distribution.on_ray() as cluster:
        for _ in range(2):
            with pytest.raises(UsageError, match="head, or its node on this machine, is gone. What is finished is kep"):
                eight(Kept(cluster, tmp_path))
    assert len(list(tmp_path.glob("task-*"))) == 2


def test_a_cluster_that_does_not_begin_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    clustered(monkeypatch)

    def refuses(*_: object) -> Any:
        raise UsageError("--executor ray: Ray could not be started here.")

    monkeypatch.setattr(task_distribution, "connected", refuses)
    with pytest.raises(UsageError, match=r"^--executor ray: Ray could not be started here\.$"):
        with task_distribution.on_ray():
            raise AssertionError
    assert not task_distribution._open


def test_no_module_but_one_knows_ray() -> None:
    files = [file for top in ("auditor", "probes", "mitigations", "cli") for file in (ROOT / top).rglob("*.py")]
    assert [f.name for f in files if "import ray" in f.read_text(encoding="utf-8")] == ["task_distribution.py"]
