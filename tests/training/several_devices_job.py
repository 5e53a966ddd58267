"""Trainings that one process or several of a job run alike; run by the tests as ``SIZE=FOLDER`` for each job.

Everything is in float64, so that what differs in the last bits by the order of sums stays far below the tolerances.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from auditor.core.errors import AuditorError
from auditor.models.torch_model import TorchModel
from auditor.run.mitigation import Training
from auditor.training.multi_device import Devices, devices_of_job
from auditor.training.training_loop import PlainStep, Schedule, Step, train
from mitigations import MITIGATIONS
from mitigations.training.adversarial_step import AdversarialStep, Pressure
from mitigations.training.retraining import TrainingSet
from mitigations.training.training_steps import GroupDroStep, GroupWeights, MinDiffStep, contrasts
from tests.mitigations.planted_rows import biased_rows, trained

# Batches of 16, and a last one of 2: of three processes one has no row of it.
N, EPOCHS = 66, 4


def rows(seed: int = 5) -> TrainingSet:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(N, 4, generator=generator, dtype=torch.float64)
    s = torch.stack([torch.randint(k, (N,), generator=generator) for k in (2, 3)], dim=1)
    noise = torch.randn(N, generator=generator, dtype=torch.float64)
    y = (x[:, 0] - x[:, 1] + s[:, 0] + 0.5 * noise > 0.5).long()
    levels = (("a", "b"), ("k", "l", "m"))
    return TrainingSet(x=x, y=y, s=s, levels=levels, features=("g", "h"), positive=1, rows=np.arange(N))


def network(seed: int = 3, dropout: float = 0.0) -> TorchModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 2)).double()
    return TorchModel(module, classes=[0, 1])


@dataclass(frozen=True, eq=False)
class Made:
    """A step and the tensors that it is given."""

    step: Step
    tensors: Sequence[Tensor]
    model: TorchModel


def adam(model: TorchModel) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.module.parameters(), lr=0.02)


def plain(dropout: float = 0.0, seed: int = 3) -> Made:
    """Weighted rows and a clipped gradient."""
    model, data = network(seed, dropout), rows()
    weights = torch.linspace(0.1, 3.0, N, dtype=torch.float64)

    def loss(batch: Sequence[Tensor]) -> Tensor:
        x, y, w = batch
        return (w * cross_entropy(model.logits(x), y, reduction="none")).mean()

    return Made(PlainStep(model.module, adam(model), loss, max_grad_norm=0.5), (data.x, data.y, weights), model)


def min_diff() -> Made:
    """A loss that is no mean over rows, on rows that the step draws itself."""
    model, data = network(), rows()
    compared, _ = contrasts(data, [data.y.eq(0), data.y.eq(1)])
    step = MinDiffStep(model, adam(model), data, compared, weight=1.0, width=0.3, n_each=5, seed=3)
    return Made(step, (data.x, data.y), model)


def adversarial() -> Made:
    """Both the projection and the penalty on gaps."""
    model, data = network(), rows()
    step = AdversarialStep(
        model,
        data,
        adam(model),
        constraint="equalized_odds",
        pressure=Pressure(alpha=0.7, gap_weight=0.5, quiet_steps=5, steps=20, steps_per_epoch=5),
        adversary_steps=2,
        adversary_learning_rate=0.05,
    )
    step.adversary.double()
    return Made(step, (data.x, data.y, data.s, step.weights.double()), model)


def group_dro() -> Made:
    model, data = network(), rows()
    family = torch.tensor([0, 1]).repeat(3)
    begun = GroupWeights(family, torch.tensor([0.4, 0.6], dtype=torch.float64))
    step = GroupDroStep(model, adam(model), eta=0.3, adjustments=torch.zeros(6, dtype=torch.float64), weights=begun)
    return Made(step, (data.x, data.y, data.s[:, 0] * 3 + data.s[:, 1]), model)


STEPS: dict[str, Callable[[], Made]] = {
    "plain": plain,
    "min_diff": min_diff,
    "adversarial": adversarial,
    "group_dro": group_dro,
}


def weights(modules: Sequence[nn.Module]) -> Tensor:
    return torch.cat([v.detach().double().reshape(-1) for m in modules for v in m.state_dict().values()])


def steps(devices: Devices) -> dict[str, object]:
    """All that is trained, and the losses."""
    found: dict[str, object] = {}
    for name, make in STEPS.items():
        made = make()
        history = train(made.step, made.tensors, Schedule(epochs=EPOCHS, batch_size=16, seed=9), devices=devices)
        found[name] = weights(made.step.modules)
        found[f"{name} losses"] = torch.tensor(history.losses, dtype=torch.float64)
    return found


def others(devices: Devices, out: Path) -> dict[str, object]:
    """Dropout, early stopping, a checkpoint and what is refused; each as it is on this process."""
    found: dict[str, object] = {}
    rank = int(os.environ["RANK"])
    schedule = Schedule(epochs=EPOCHS, batch_size=16, seed=9)

    made = plain(dropout=0.5)
    train(made.step, made.tensors, schedule, devices=devices)
    found["dropout"] = weights(made.step.modules)
    falls = PlainStep(nn.Dropout(0.5), torch.optim.SGD([nn.Parameter(torch.zeros(1))]), lambda batch: batch[0])
    with devices.sharing(falls):
        found["masks"] = falls.modules[0](torch.ones(2, 64))

    # On the second process the validation says something else.
    numbers = iter([3.0, 1.0, 2.0, 2.0] if rank == 0 else [1.0, 5.0, 4.0, 0.5])
    made = plain()
    history = train(
        made.step, made.tensors, Schedule(epochs=9, batch_size=16, patience=2), validate=lambda: next(numbers),
        devices=devices,
    )  # fmt: skip
    found["stopped"] = (history.epoch, history.validations)

    said: list[str] = []
    checkpoint = out / f"checkpoint.{rank}"
    made = plain(dropout=0.5)
    train(made.step, made.tensors, Schedule(epochs=2, batch_size=16, seed=9), checkpoint=checkpoint, devices=devices)
    resumed = plain(dropout=0.5)
    train(resumed.step, resumed.tensors, schedule, checkpoint=checkpoint, progress=said.append, devices=devices)
    found["resumed"], found["said"] = weights(resumed.step.modules), said

    refused = []
    for case in (lambda: plain(seed=rank), lambda: _unlike(rank), lambda: _drifting(rank)):
        made = case()
        try:
            train(made.step, made.tensors, schedule, devices=devices)
        except AuditorError as error:
            refused.append(str(error))
    found["refused"] = refused
    return found


def _unlike(rank: int) -> Made:
    made = plain()
    return Made(made.step, (made.tensors[0] + 0.5 * rank, *made.tensors[1:]), made.model)


def _drifting(rank: int) -> Made:
    """The second process adds to its weights what no other does."""
    made = plain()

    def loss(batch: Sequence[Tensor]) -> Tensor:
        with torch.no_grad():
            next(made.model.module.parameters()).add_(0.1 * rank)
        return cross_entropy(made.model.logits(batch[0]), batch[1])

    return Made(PlainStep(made.model.module, adam(made.model), loss), made.tensors, made.model)


def mitigated(devices: Devices) -> dict[str, object]:
    """Whole mitigations, as they are called from Python."""
    data = biased_rows(600, 1)
    found: dict[str, object] = {}
    old = trained(data, epochs=6)
    for name, options in (
        ("reweighing", {}),
        ("adversarial_debiasing", {"epochs": 2}),
        ("group_dro", {}),
        ("min_diff", {}),
        ("grid_search", {"grid_size": 4}),
        ("correlation_remover", {}),
    ):
        training = Training(device=str(devices.device), devices=devices)
        new = MITIGATIONS[name](**options).mitigate(old, data, np.random.default_rng(0), training).model
        assert isinstance(new, TorchModel)
        found[f"whole {name}"] = weights([new.module])
    # Nobody can draw this one anew, so that it goes on from its own weights.
    own = old.with_module(old.module)
    own.architecture = None
    training = Training(device=str(devices.device), devices=devices)
    fine_tuning = MITIGATIONS["group_dro"](learning_rate=1e-2)
    new = fine_tuning.mitigate(own, data, np.random.default_rng(0), training).model
    assert isinstance(new, TorchModel)
    found["whole fine-tuning"] = weights([new.module])
    found["before fine-tuning"] = weights([own.module])
    return found


def rank_of(rank: int, size: int, out: Path) -> None:
    """What one process of a job finds, written to its own file."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{out}/meeting", rank=rank, world_size=size, timeout=timedelta(seconds=180)
    )
    devices = devices_of_job()
    assert devices.size == size
    found = steps(devices)
    if size == 2:
        found |= mitigated(devices) | others(devices, out)
    torch.save(found, out / f"{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def main(jobs: Sequence[tuple[int, Path]]) -> None:
    """Every process of jobs of so many, forked from this one, which has done the imports; all must end well."""
    import accelerate  # noqa: F401

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    started = []
    for size, out in jobs:
        for rank in range(size):
            pid = os.fork()
            if not pid:
                code = 1
                try:
                    rank_of(rank, size, out)
                    code = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    sys.stderr.flush()
                    os._exit(code)
            started.append(pid)
    ended = [os.waitpid(pid, 0)[1] for pid in started]
    sys.exit(int(any(ended)))


if __name__ == "__main__":
    main([(int(size), Path(out)) for size, out in (job.split("=", 1) for job in sys.argv[1:])])
