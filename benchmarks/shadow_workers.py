"""64 shadow models, one at a time of Ray's workers of one thread against two, and what a task costs beside its models.

MLPs 50-64-64-2 in stacks of 4 on halves of 4,000 rows, 10 epochs, batches of 128. ``ratio`` is the wall time with one
worker over that with two, medians of interleaved pairs, on a cluster that is running: starting it is told apart. Both
need two cores that are free, which the load before it began says (``cores_were_free``): elsewhere it is no measurement.

What other work does not change is processor time. ``most_by_processor_time`` bounds the ratio on two free cores: of a
task w goes into its models, c into opening and packing them there, and d is taken by this process and by Ray itself;
one worker takes at least w + c a task and two cores at best (w + c + d) / 2, so that the ratio is at most
2 (w + c) / (w + c + d). A task that trains next to nothing is what shows c + d; ``starting_processor_seconds`` is Ray's
and its workers' start, once. Beside them the bytes of what all tasks share, of a task and of a result, and the
seconds of one model and epoch by the million rows: what docs/devices.md multiplies. That the models are the same is
checked.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from auditor.models.audited_model import Recipe
from auditor.models.networks.architectures import Architecture
from auditor.training.ensembles import random_halves, train_together
from auditor.training.stack_tasks import ALONE, StackTask, done, sent_tasks
from auditor.training.task_distribution import on_ray
from auditor.training.task_executor import Executor, Tasks, tasks_by
from benchmarks.common import emit

MODELS, TOGETHER, POOL, FEATURES, PAIRS, BAR = 64, 4, 4_000, 50, 3, 1.7
RECIPE = Recipe(optimizer="sgd", learning_rate=0.05, momentum=0.9, epochs=10, batch_size=128)
MAKE = Architecture("mlp", {"n_features": FEATURES, "hidden": [64, 64], "n_outputs": 2})


class OneAtATime:
    """The same cluster, each task taking both of its cores: one worker computes, on one thread."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def results(self, tasks: Tasks) -> Iterator[tuple[int, bytes]]:
        """As the executor's."""
        yield from self._executor.results(replace(tasks, threads=2))


def of_ray(*, workers: bool) -> float:
    """Processor seconds so far of the workers that this process's cluster has, or of the cluster itself."""
    parents: dict[int, int] = {}
    taken: dict[int, float] = {}
    names: dict[int, bytes] = {}
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            fields = (each / "stat").read_text().rpartition(")")[2].split()
            parents[int(each.name)] = int(fields[1])
            taken[int(each.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            names[int(each.name)] = (each / "cmdline").read_bytes()
    own = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in own} - own:
        own |= more
    own.discard(os.getpid())
    return sum(taken[pid] for pid in own if pid in names and names[pid].startswith(b"ray::") == workers)


def main() -> None:
    """Runs the comparison and prints it."""
    load_before = os.getloadavg()[0]
    torch.set_num_threads(1)
    # Ray's workers give way to whatever else runs, and the ratio would be one of others' work.
    os.environ.setdefault("RAY_worker_niceness", "0")
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(POOL, FEATURES)).astype(np.float32))
    y = (x[:, :5].sum(dim=1) > 0).long()
    members = random_halves(MODELS, POOL, rng)

    def train(executor: Executor | None, recipe: Recipe = RECIPE) -> np.ndarray:
        with tasks_by(executor):
            return train_together(
                MAKE, x, y, members, seeds=range(MODELS), recipe=recipe, most_together=TOGETHER, stacked=True
            ).kept

    started = time.perf_counter()
    with on_ray(cores=2) as two:
        started = time.perf_counter() - started
        # Both workers are there once each has had a task, and have imported what a task needs.
        train(two, replace(RECIPE, epochs=1, batch_size=POOL))
        starting = of_ray(workers=True) + of_ray(workers=False)
        one = OneAtATime(two)
        here = time.process_time()
        said = train(None)
        here = time.process_time() - here
        of_workers, beside = of_ray(workers=True), of_ray(workers=False) + time.process_time()
        if said.tobytes() != train(two).tobytes():
            raise SystemExit("Ray's models are not those of this process.")
        n_tasks = MODELS / TOGETHER
        of_workers = (of_ray(workers=True) - of_workers) / n_tasks
        beside = (of_ray(workers=False) + time.process_time() - beside) / n_tasks
        times: dict[str, list[float]] = {"one": [], "two": []}
        for _ in range(int(os.environ.get("PAIRS", PAIRS))):
            for name, executor in (("one", one), ("two", two)):
                began = time.perf_counter()
                train(executor)
                times[name].append(time.perf_counter() - began)
                print(f"{name} at a time: {times[name][-1]:.1f} s, load {os.getloadavg()[0]:.1f}", flush=True)
        began = time.perf_counter()
        train(one, replace(RECIPE, epochs=1, batch_size=POOL))
        of_a_task = (time.perf_counter() - began) / (MODELS / TOGETHER)
    task = StackTask(MAKE, x, y, members, tuple(range(MODELS)), RECIPE, "logits", None)
    sent = sent_tasks(task, [range(1)], ALONE)
    if sent is None:
        raise SystemExit("The task is more than data.")
    median = {name: statistics.median(found) for name, found in times.items()}
    emit(
        "shadow_workers", ours=median["two"], peer=median["one"], bar=BAR, threads=1,
        ratio=round(statistics.median(b / a for a, b in zip(times["two"], times["one"], strict=True)), 2),
        ratios=[round(b / a, 2) for a, b in zip(times["two"], times["one"], strict=True)],
        cores_were_free=load_before < 1.0, load_before=round(load_before, 1),
        most_by_processor_time=round(2 * of_workers / (of_workers + beside), 2),
        processor_seconds_of_a_task={
            "its models, in one process": round(here / n_tasks, 4), "in the worker": round(of_workers, 4),
            "beside it": round(beside, 4),
        },
        starting_processor_seconds=round(starting, 1),
        here_processor_seconds=round(here, 2), start_seconds=round(started, 1),
        seconds_of_an_empty_task=round(of_a_task, 3),
        bytes_shared=len(sent.shared), bytes_of_a_task=len(sent.each[0]),
        bytes_of_a_result=len(done(sent.shared, sent.each[0])),
        processor_seconds_of_a_model_epoch_and_million_rows=round(
            here / MODELS / RECIPE.epochs / (POOL / 2) * 1e6, 3
        ),
        load=round(os.getloadavg()[0], 1),
    )  # fmt: skip


if __name__ == "__main__":
    main()
