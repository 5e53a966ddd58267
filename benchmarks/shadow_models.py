"""64 shadow models trained together, against training them one by one with the Adversarial Robustness Toolbox.

MLPs 50-64-64-2, 2,000 rows each out of a pool of 4,000, 5 epochs, batches of 128, SGD with momentum, one thread for
all. ``ratio`` is the toolbox's processor seconds over ours, which say more than wall time where other processes run;
the wall's are printed too. Beside it the usual loop in PyTorch, a ``DataLoader`` over a ``TensorDataset``, held to the
same bar, and a loop that slices tensors, which nobody writes and which has no bar. At the speed of the matrix products
alone the ratio would be 23. Ours includes making the models and their logits on all 4,000 rows; the others only train.
That ours are the models a loop gives is checked, not assumed: in float64 and with the same seeds, to 1e-4.
"""

from __future__ import annotations

import os
import statistics
import time

import numpy as np
import torch
from torch import nn

from auditor.core.randomness import seeded_globals
from auditor.models.audited_model import Recipe
from auditor.models.networks.architectures import MLP
from auditor.training.ensembles import random_halves, train_together
from auditor.training.stack_tasks import Seeds
from benchmarks.common import emit, seconds

MODELS, POOL, FEATURES, PAIRS, BAR = 64, 4_000, 50, 5, 9.0
RECIPE = Recipe(optimizer="sgd", learning_rate=0.05, momentum=0.9, epochs=5, batch_size=128)


def make() -> nn.Module:
    """An untrained model."""
    return MLP(FEATURES, [64, 64], 2)


def sgd(module: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that all use."""
    return torch.optim.SGD(module.parameters(), lr=RECIPE.learning_rate, momentum=RECIPE.momentum)


def main() -> None:
    """Runs the comparison and prints it."""
    from art.estimators.classification import PyTorchClassifier
    from torch.utils.data import DataLoader, TensorDataset

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    x_all = rng.normal(size=(POOL, FEATURES)).astype(np.float32)
    y_all = (x_all[:, :5].sum(axis=1) + rng.normal(size=POOL) > 0).astype(np.int64)
    x, y = torch.from_numpy(x_all), torch.from_numpy(y_all)
    members = random_halves(MODELS, POOL, rng)
    rows = [np.flatnonzero(own) for own in members]

    def ours() -> None:
        train_together(make, x, y, members, seeds=range(MODELS), recipe=RECIPE)

    def toolbox() -> None:
        for own in rows:
            module = make()
            art = PyTorchClassifier(
                module, nn.CrossEntropyLoss(), (FEATURES,), 2, optimizer=sgd(module), device_type="cpu"
            )
            art.fit(x_all[own], y_all[own], batch_size=RECIPE.batch_size, nb_epochs=RECIPE.epochs)

    def loop() -> None:
        for own in rows:
            module, data = make(), TensorDataset(x[own], y[own])
            optimizer = sgd(module)
            for _ in range(RECIPE.epochs):
                for inputs, labels in DataLoader(data, batch_size=RECIPE.batch_size, shuffle=True):
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(module(inputs), labels).backward()
                    optimizer.step()

    def sliced() -> None:
        for i, own in enumerate(rows):
            _train_alone(x, y, own, i)

    check(x.double(), y, members[:4])
    ours()
    times: dict[str, list[float]] = {"art": [], "loop": [], "sliced": [], "ours": []}
    cpu: dict[str, list[float]] = {name: [] for name in times}
    for _ in range(PAIRS):
        for name, work in (("art", toolbox), ("loop", loop), ("sliced", sliced), ("ours", ours)):
            started = time.process_time()
            times[name].append(seconds(work))
            cpu[name].append(time.process_time() - started)

    def ratio(peer: str, of: dict[str, list[float]]) -> float:
        return round(statistics.median(b / a for a, b in zip(of["ours"], of[peer], strict=True)), 2)

    median = {name: statistics.median(found) for name, found in cpu.items()}
    emit(
        "shadow_models", ours=median["ours"], peer=median["art"], ratio=ratio("art", cpu), bar=BAR, threads=1,
        plain_loop_seconds=round(median["loop"], 2), plain_loop_ratio=ratio("loop", cpu),
        sliced_loop_seconds=round(median["sliced"], 2), sliced_loop_ratio=ratio("sliced", cpu),
        wall_seconds={name: round(statistics.median(found), 2) for name, found in times.items()},
        wall_ratios={name: ratio(name, times) for name in ("art", "loop", "sliced")},
        load=round(os.getloadavg()[0], 1),
    )  # fmt: skip


def _train_alone(x: torch.Tensor, y: torch.Tensor, own: np.ndarray, seed: int) -> nn.Module:
    """One model by slicing tensors, from the seeds that training together gives it."""
    seeds = Seeds.from_seed(seed)
    with seeded_globals(np.random.default_rng(seeds.initialisation)):
        module = make().to(x.dtype)
    optimizer = sgd(module)
    generator = torch.Generator().manual_seed(seeds.batches)
    learned = torch.from_numpy(own)
    for _ in range(RECIPE.epochs):
        for batch in torch.split(learned[torch.randperm(len(own), generator=generator)], RECIPE.batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(x[batch]), y[batch]).backward()
            optimizer.step()
    return module


def check(x: torch.Tensor, y: torch.Tensor, members: np.ndarray) -> None:
    """Stops where the models trained together are not those trained alone."""
    together = train_together(lambda: make().double(), x, y, members, seeds=range(len(members)), recipe=RECIPE).kept
    alone = np.stack([_train_alone(x, y, np.flatnonzero(own), i)(x).detach().numpy() for i, own in enumerate(members)])
    apart = float(np.abs(together - alone).max())
    if apart > 1e-4:
        raise SystemExit(f"The models trained together and alone differ by {apart:.2g}.")


if __name__ == "__main__":
    main()
