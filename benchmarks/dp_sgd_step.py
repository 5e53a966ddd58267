"""One step of DP-SGD on a batch that is drawn already, against Opacus' own fastest mode for the same network.

Two networks: an MLP on 1,024 rows of 105 numbers, as DP-SGD draws them from Adult, and a transformer encoder on 128
texts of 32 words. Ours is the step that training takes, in the way that it chooses by itself. The peer is what
``PrivacyEngine.make_private`` returns, in the mode that was fastest in a first round (hooks, functorch, expanded
weights, ghost), with its own samplers; a mode that fails on a network is named. Both take the rows out of the same
tensors, and their clipped sums must agree to 1e-4 of the largest, which is checked, not assumed. Opacus cannot train
torch's attention at all, so both train the network with our attention of linear layers in its place.

ratio = peer seconds / our seconds, median of interleaved pairs, of the network for which it is smaller; ``cpu_ratio``,
of processor times, is what to look at where other work shares the machine.
"""

from __future__ import annotations

import copy
import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from auditor.core.errors import first_line
from auditor.models.networks.architectures import MLP, TransformerEncoder
from auditor.models.torch_model import TorchModel
from auditor.privacy.training.opacus_training import opacus_quietly
from auditor.privacy.training.private_gradients import PrivateStep, choose_way, put_stand_ins, with_own_samplers
from benchmarks.common import emit
from benchmarks.integrated_gradients import timed

BAR, NORM, NOISE = 0.95, 1.0, 1.0
MODES = ("hooks", "functorch", "ew", "ghost")


@dataclass(frozen=True)
class Case:
    """One network without hooks, rows of which a batch is taken, and how many steps are timed together."""

    module: nn.Module
    x: Tensor
    y: Tensor
    batch: Tensor
    pairs: int


@dataclass(frozen=True)
class Stepper:
    """A step that can be taken again and again; ``sums`` are the clipped sums of the last one."""

    step: Callable[[], object]
    parameters: list[Any]

    def sums(self) -> list[Tensor]:
        """The clipped sums, by parameter."""
        return [p.summed_grad.detach().clone() for p in self.parameters]


def table() -> Case:
    """105 numbers, hidden layers of 64 and 32."""
    torch.manual_seed(0)
    rows, size = 20_000, 1_024
    x, y = torch.randn(rows, 105), torch.randint(0, 2, (rows,))
    return Case(MLP(105, [64, 32], 2), x, y, torch.randperm(rows)[:size], pairs=40)


def text() -> Case:
    """5,000 words, width 64, two layers of four heads."""
    torch.manual_seed(0)
    rows, size, length = 4_000, 128, 32
    x, y = torch.randint(1, 5_000, (rows, length)), torch.randint(0, 2, (rows,))
    x[::3, length // 2 :] = 0
    module, _ = put_stand_ins(TransformerEncoder(5_000, 2, length))
    return Case(module, x, y, torch.randperm(rows)[:size], pairs=12)


def _private(case: Case, mode: str) -> tuple[Any, ...]:
    from opacus import PrivacyEngine

    module = copy.deepcopy(case.module).train()
    made: tuple[Any, ...] = PrivacyEngine().make_private(
        module=module,
        optimizer=torch.optim.Adam(module.parameters(), lr=1e-3),
        criterion=nn.CrossEntropyLoss(),
        data_loader=DataLoader(TensorDataset(case.x, case.y), batch_size=len(case.batch)),
        noise_multiplier=NOISE,
        max_grad_norm=NORM,
        grad_sample_mode=mode,
    )
    return made


def ours(case: Case) -> tuple[Stepper, str]:
    """Our step, and the way it chose."""
    way = choose_way(
        lambda: TorchModel(copy.deepcopy(case.module), classes=[0, 1]), case.x, case.y, "auto", len(case.batch)
    )
    made = _private(case, way)
    step = PrivateStep(TorchModel(with_own_samplers(made[0]), classes=[0, 1]), made[1], way)
    return Stepper(lambda: step(case.x[case.batch], case.y[case.batch]), made[1].params), way


def peer(case: Case, mode: str) -> Stepper:
    """The step of Opacus' own documentation."""
    made = _private(case, mode)
    module, optimizer = made[0], made[1]
    criterion = made[2] if mode == "ghost" else nn.CrossEntropyLoss()

    def step() -> None:
        optimizer.zero_grad()
        criterion(module(case.x[case.batch]), case.y[case.batch]).backward()
        optimizer.step()

    return Stepper(step, optimizer.params)


def compared(case: Case) -> dict[str, object]:
    """Medians over interleaved pairs, against the peer's fastest mode by processor time."""
    mine, way = ours(case)
    mine.step()
    sums = mine.sums()
    tried: dict[str, float] = {}
    steppers: dict[str, Stepper] = {}
    cannot: dict[str, str] = {}
    for mode in MODES:
        try:
            stepper = peer(case, mode)
            stepper.step()
        except Exception as error:  # a mode that does not know a layer
            cannot[f"peer_{mode}"] = f"cannot: {first_line(error)[:80]}"
            continue
        largest = max(float(s.abs().max()) for s in sums)
        apart = max(float((a - b).abs().max()) for a, b in zip(sums, stepper.sums(), strict=True)) / largest
        if apart > 1e-4:
            raise SystemExit(f"The clipped sums of {mode} and ours ({way}) differ by {apart:.2g} of the largest.")
        stepper.step()
        tried[mode] = statistics.median(timed(stepper.step)[1] for _ in range(5))
        steppers[mode] = stepper
    best = min(tried, key=lambda mode: tried[mode])
    pairs = [(timed(mine.step), timed(steppers[best].step)) for _ in range(case.pairs)]
    return {
        "ours": statistics.median(o for (o, _), _ in pairs),
        "peer": statistics.median(p for _, (p, _) in pairs),
        "ratio": statistics.median(p / o for (o, _), (p, _) in pairs),
        "cpu_ratio": statistics.median(p / o for (_, o), (_, p) in pairs),
        "our_way": way,
        "peer_mode": best,
        **{f"peer_{mode}": f"{1e3 * found:.4g} ms" for mode, found in tried.items()},
        **cannot,
    }


def main() -> None:
    """Runs the comparison and prints it."""
    with opacus_quietly():
        # functorch's remark on autocast, which is off.
        warnings.filterwarnings("ignore", message="In CPU autocast")
        found: dict[str, dict[str, Any]] = {name: compared(make()) for name, make in (("mlp", table), ("text", text))}
    worst = min(found.values(), key=lambda f: f["ratio"])
    emit(
        "dp_sgd_step", ours=worst["ours"], peer=worst["peer"], ratio=worst["ratio"], bar=BAR,
        threads=torch.get_num_threads(), cpu_ratio=round(min(f["cpu_ratio"] for f in found.values()), 3),
        **{name: {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in f.items()}
           for name, f in found.items()},
    )  # fmt: skip


if __name__ == "__main__":
    main()
