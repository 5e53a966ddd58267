"""What one row can do to a step: at most the clipping norm where the step is private, and more where it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from auditor.core.errors import UsageError
from auditor.privacy.loop_watch import TakeStep, plain_step, step_sensitivity
from auditor.privacy.released_noise import SLACK, Sensitivity
from tests.privacy.test_dp_canaries import per_row, setup

pytestmark = [
    pytest.mark.filterwarnings("ignore:Secure RNG turned off"),  # Opacus says so of every engine
    pytest.mark.filterwarnings("ignore:Full backward hook is firing"),  # inputs are data and need no gradient
]


def measured(change: Callable[[Any, Any], TakeStep | None] | None = None, reduction: str = "mean") -> Sensitivity:
    module, optimizer, _, _, x, y = setup(1.0, reduction=reduction)
    step = None if change is None else change(module, optimizer)
    return step_sensitivity(optimizer, step or plain_step(module, optimizer, per_row), x[:24], y[:24], module=module)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_one_row_moves_the_sum_of_a_private_step_by_the_norm_and_no_more(reduction: str) -> None:
    found = measured(reduction=reduction)
    assert not found.exceeds and 0.99 < found.largest <= 1.0 + SLACK and found.why_not == ""


def test_everything_is_as_it_was_afterwards() -> None:
    module, optimizer, _, engine, x, y = setup(1.0)
    before = [p.detach().clone() for p in module.parameters()]
    own, everybody = optimizer.generator.get_state(), torch.get_rng_state()
    history = list(engine.accountant.history)
    module.eval()
    step_sensitivity(optimizer, plain_step(module, optimizer, per_row), x[:4], y[:4], module=module)
    assert torch.equal(own, optimizer.generator.get_state()) and torch.equal(everybody, torch.get_rng_state())
    for p, was in zip(module.parameters(), before, strict=True):
        assert torch.equal(p, was) and p.grad is None and p.grad_sample is None
    assert engine.accountant.history == history and not module.training and optimizer.noise_multiplier == 1.0
    # And the next step is an ordinary one.
    module.train()
    plain_step(module, optimizer, per_row)(x[:4], y[:4])
    assert engine.accountant.history != history
    assert not torch.equal(next(iter(module.parameters())), before[0])


def without_clipping(module: Any, optimizer: Any) -> None:
    def add_up() -> None:
        for p in optimizer.params:
            p.summed_grad = optimizer._get_flat_grad_sample(p).sum(dim=0)

    optimizer.clip_and_accumulate = add_up


def clipped_after_the_mean(module: Any, optimizer: Any) -> None:
    def add_up() -> None:
        means = [optimizer._get_flat_grad_sample(p).mean(dim=0) for p in optimizer.params]
        factor = min(1.0, 1.0 / float(torch.stack([m.square().sum() for m in means]).sum().sqrt()))
        for p, mean in zip(optimizer.params, means, strict=True):
            p.summed_grad = mean * factor * 24.0

    optimizer.clip_and_accumulate = add_up


def each_layer_to_the_whole_norm(module: Any, optimizer: Any) -> None:
    def add_up() -> None:
        for p in optimizer.params:
            rows = optimizer._get_flat_grad_sample(p)
            norms = rows.reshape(len(rows), -1).norm(dim=1)
            p.summed_grad = torch.einsum("i,i...", (1.0 / (norms + 1e-6)).clamp(max=1.0), rows)

    optimizer.clip_and_accumulate = add_up


def divided_by_the_batch(module: Any, optimizer: Any) -> TakeStep:
    take = plain_step(module, optimizer, per_row)

    def step(inputs: Tensor, targets: Tensor) -> None:
        optimizer.expected_batch_size = len(inputs)
        take(inputs, targets)

    return step


def rows_of_a_batch_mixed(module: Any, optimizer: Any) -> TakeStep:
    def standardised(inputs: Tensor, targets: Tensor) -> None:
        plain_step(module, optimizer, per_row)((inputs - inputs.mean(0)) / inputs.std(0), targets)

    return standardised


def weights_of_the_batch(module: Any, optimizer: Any) -> TakeStep:
    """Class weights taken from the batch, after which clipping still binds, and rows are repeated."""

    def step(inputs: Tensor, targets: Tensor) -> None:
        rare = targets == (0 if (targets == 0).sum() < (targets == 1).sum() else 1)
        again = torch.cat([torch.arange(len(targets)), torch.nonzero(rare).flatten()])
        plain_step(module, optimizer, per_row)(inputs[again], targets[again])

    return step


@pytest.mark.parametrize(
    ("change", "least"),
    [
        (without_clipping, 10.0),
        (clipped_after_the_mean, 1.5),
        (each_layer_to_the_whole_norm, 1.5),
        (divided_by_the_batch, 1.05),
        (rows_of_a_batch_mixed, 1.05),
        (weights_of_the_batch, 1.9),
    ],
)
def test_a_step_that_is_not_private_is_found_out(change: Any, least: float) -> None:
    found = measured(change)
    assert found.exceeds and found.largest > least


def test_an_optimizer_of_ones_own_is_measured_too() -> None:
    net = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    x, y = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 2

    def step(clip: float) -> TakeStep:
        def take(inputs: Tensor, targets: Tensor) -> None:
            total = [torch.zeros_like(p) for p in net.parameters()]
            for i in range(len(inputs)):
                grads = torch.autograd.grad(per_row(net(inputs[i : i + 1]), targets[i : i + 1]).sum(), net.parameters())
                norm = torch.stack([g.square().sum() for g in grads]).sum().sqrt()
                for t, g in zip(total, grads, strict=True):
                    t += g / torch.clamp(norm / clip, min=1.0)
            for p, t in zip(net.parameters(), total, strict=True):
                p.grad = (t + torch.randn_like(t)) / 10.0
            optimizer.step()

        return take

    found = [step_sensitivity(optimizer, step(c), x, y, module=net, max_grad_norm=1.0, scale=10.0) for c in (1.0, 2.0)]
    assert not found[0].exceeds and 0.99 < found[0].largest and found[1].largest == pytest.approx(2.0, rel=0.02)


def test_dropout_is_off_and_other_randomness_is_no_accusation() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.drop = nn.Linear(16, 8), nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.drop(self.first(x))

    from opacus import PrivacyEngine
    from torch.utils.data import DataLoader, TensorDataset

    x, y = torch.randn(64, 16, generator=torch.Generator().manual_seed(1)), torch.arange(64) % 8

    def made(net: nn.Module) -> Sensitivity:
        module, optimizer, _ = PrivacyEngine().make_private(
            module=net,
            optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
            data_loader=DataLoader(TensorDataset(x, y), batch_size=16),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
        )
        return step_sensitivity(optimizer, plain_step(module, optimizer, per_row), x[:12], y[:12], module=module)

    assert not made(Noisy()).exceeds and made(Noisy()).why_not == ""

    class Functional(Noisy):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(self.first(x), 0.5, training=self.training)

    class InAttention(nn.Module):
        """Dropped out by a module without parameters, as attention does it."""

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(x, 0.5, training=self.training)

    attentive = made(nn.Sequential(nn.Linear(16, 8), InAttention(), nn.Linear(8, 8)))
    assert not attentive.exceeds and attentive.why_not == "" and attentive.largest > 0.9
    functional = made(Functional())
    assert functional.why_not == "" and functional.largest > 0.9

    class Random(nn.Module):
        """What holds anything of its own is left as it is trained."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(x, 0.5, training=self.training) * self.scale

    found = made(nn.Sequential(nn.Linear(16, 8), Random(), nn.Linear(8, 8)))
    assert not found.exceeds and "when they are asked again" in found.why_not and found.n_rows == 0


def test_what_cannot_be_measured_is_said() -> None:
    module, optimizer, _, _, x, y = setup(1.0)
    step = plain_step(module, optimizer, per_row)
    with pytest.raises(UsageError, match="at least two rows"):
        step_sensitivity(optimizer, step, x[:1], y[:1], module=module)
    none = step_sensitivity(optimizer, lambda a, b: None, x[:4], y[:4], module=module)
    assert not none.exceeds and "took none on these rows" in none.why_not
    small = step_sensitivity(optimizer, lambda a, b: step(a[:0], b), x[:4], y[:4], module=module)
    assert not small.exceeds and "the step raised" in small.why_not
    # A gradient that is no number bounds nothing.
    broken = x[:4].clone()
    broken[0] = float("nan")
    assert step_sensitivity(optimizer, step, broken, y[:4], module=module).exceeds


def test_honest_steps_are_not_accused() -> None:
    """60 trainings' first steps, of other networks, norms, batch sizes and noises."""
    rng = np.random.default_rng(0)
    for seed in range(60):
        module, optimizer, _, _, x, y = setup(float(rng.uniform(0.3, 5.0)), seed, hidden=int(rng.integers(2, 60)))
        n = int(rng.integers(2, 20))
        step = plain_step(module, optimizer, per_row)
        assert not step_sensitivity(optimizer, step, x[:n], y[:n], module=module, n_rows=3).exceeds
