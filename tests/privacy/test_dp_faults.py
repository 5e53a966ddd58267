"""Faults of private training, one by one in real Opacus loops: each is found, and correct loops are not accused."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from opacus import PrivacyEngine
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from auditor.privacy.accounting import noise_for
from auditor.privacy.canaries import DPAudit, ReferenceGradient
from auditor.privacy.dp_audit_scores import AuditResult, audit_claim
from auditor.privacy.dp_linter import LintResult
from auditor.privacy.loop_watch import LoopWatch
from auditor.privacy.observe_opacus import lint_setup
from tests.privacy.test_dp_canaries import per_row
from tests.privacy.test_step_sensitivity import (
    clipped_after_the_mean,
    each_layer_to_the_whole_norm,
    without_clipping,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Secure RNG turned off"),  # Opacus says so of every engine
    pytest.mark.filterwarnings("ignore:Full backward hook is firing"),  # inputs are data and need no gradient
    pytest.mark.filterwarnings("ignore:Sampler .* is not"),
]
ROWS, BATCH, EPOCHS, DELTA = 320, 40, 4, 1e-3
STEPS = EPOCHS * ROWS // BATCH
# What the accountant asks for at epsilon 1: see test_the_noise_is_what_epsilon_1_asks_for.
NOISE = 2.100856412348989


@dataclass
class Loop:
    """A private loop, and where it can be spoiled."""

    seed: int = 0
    noise: float = NOISE
    counted_noise: float = NOISE
    rate_factor: float = 1.0
    network: Callable[[], nn.Module] = lambda: nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 2))
    loader: Callable[[TensorDataset], DataLoader[Any]] | None = None
    poisson: bool = True
    spoil: Callable[[Any, Any], None] = lambda module, optimizer: None
    before: Callable[[Any], None] = lambda module: None
    rows: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda x, y: (x, y)
    skip_below: int = 0
    steps_a_batch: int = 1
    accumulate: int = 1
    same_batch_again: bool = False
    uncounted: int = 0
    own_divisor: bool = False
    held: Callable[[nn.Module], list[nn.Parameter]] = field(default=lambda net: list(net.parameters()))

    def run(self) -> tuple[LintResult, AuditResult]:
        """Watches, audits and lints it, as its owner would."""
        x, y = _data(self.seed)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            net = self.network()
        engine = PrivacyEngine(accountant="prv")
        given = (self.loader or (lambda rows: DataLoader(rows, batch_size=BATCH)))(TensorDataset(x, y))
        module, optimizer, loader = engine.make_private(
            module=net,
            optimizer=torch.optim.SGD(self.held(net), lr=0.05),
            data_loader=given,
            noise_multiplier=self.noise,
            max_grad_norm=1.0,
            poisson_sampling=self.poisson,
            noise_generator=torch.Generator().manual_seed(self.seed + 1),
        )
        rate = getattr(loader, "sample_rate", BATCH / ROWS)
        left = itertools.count()

        def count(_: Any) -> None:
            if next(left) >= self.uncounted:
                engine.accountant.step(noise_multiplier=self.counted_noise, sample_rate=rate * self.rate_factor)

        optimizer.attach_step_hook(count)
        self.spoil(module, optimizer)
        watch = LoopWatch(module, optimizer)
        reference = ReferenceGradient(module, per_row, x, y, optimizer=optimizer, sample_rate=rate)
        audit = DPAudit(
            optimizer,
            100,
            sample_rate=rate,
            rng=np.random.default_rng(self.seed),
            expected_gradient=reference,
            accountant=engine.accountant,
            step=lambda a, b: self.step(module, optimizer, a, b),
        )
        self.before(module)
        for _ in range(EPOCHS):
            for drawn in watch.batches(self._again(loader)):
                self.step(module, optimizer, *drawn)
        told = watch.observations() | {"claimed_epsilon": 1.0, "delta": DELTA, "n_trials": 1, "preprocessing": "none"}
        watch.detach()
        audit.detach()
        audited = audit_claim(
            audit.scores(),
            claimed_epsilon=1.0,
            delta=DELTA,
            rng=np.random.default_rng(self.seed),
            accounting=audit.accounting(),
            factors=(),
        )
        linted = lint_setup(
            module,
            optimizer,
            loader,
            engine.accountant,
            loader_before=given,
            loss=per_row,
            batch=(x[:48], y[:48]),
            step=lambda a, b: self.step(module, optimizer, a, b),
            told=told,
        )
        return linted, audited

    def step(self, module: Any, optimizer: Any, x: Tensor, y: Tensor) -> None:
        if len(x) < self.skip_below:
            return
        x, y = self.rows(x, y)
        # Opacus adds up parts of one size only.
        whole = len(x) // self.accumulate * self.accumulate
        x, y = x[:whole], y[:whole]
        for _ in range(self.steps_a_batch):
            optimizer.zero_grad()
            for part in range(self.accumulate):
                some = slice(part * len(x) // self.accumulate, (part + 1) * len(x) // self.accumulate)
                per_row(module(x[some]), y[some]).mean().backward()
            if self.own_divisor:
                optimizer.expected_batch_size = max(len(x), 1)
            optimizer.step()

    def _again(self, loader: Any) -> Iterator[Any]:
        for drawn in loader:
            yield drawn
            if self.same_batch_again:
                yield drawn


def _data(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(ROWS, 8, generator=generator)
    return x, (x[:, 0] + 0.3 * torch.randn(ROWS, generator=generator) > 0).long()


# ---- faults ----------------------------------------------------------------------------------------------------------


def noise_of_one_draw(module: Any, optimizer: Any) -> None:
    add, state = optimizer.add_noise, optimizer.generator.get_state()

    def again() -> None:
        optimizer.generator.set_state(state)
        add()

    optimizer.add_noise = again


def no_noise_in_the_head(module: Any, optimizer: Any) -> None:
    add = optimizer.add_noise

    def but_one() -> None:
        add()
        optimizer.params[-1].grad = optimizer.params[-1].summed_grad.clone()

    optimizer.add_noise = but_one


def noise_taken_off_again(module: Any, optimizer: Any) -> None:
    def plain(*_: Any) -> None:
        for p in optimizer.params:
            p.grad = p.summed_grad.reshape(p.shape) / optimizer.expected_batch_size

    optimizer.original_optimizer.register_step_pre_hook(plain)


class OfTheBatch(nn.Module):
    """Batch normalisation by another name, without anything to remember."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(dim=0)) / (x.std(dim=0) + 0.1) if len(x) > 1 else x


class Merged(nn.Module):
    """Adapters that are multiplied into one weight, so that they get no gradients of their own (opacus#820)."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 2))
        self.a, self.b = nn.Linear(8, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x)  # type: ignore[no-any-return]


def head_first(module: Any) -> None:
    with torch.no_grad():
        for p in list(module.parameters())[-2:]:
            p.add_(0.1)


def by_weight(rows: TensorDataset) -> DataLoader[Any]:
    weights = torch.linspace(0.1, 3.0, ROWS)
    return DataLoader(rows, batch_size=BATCH, sampler=WeightedRandomSampler(weights.tolist(), ROWS))


FAULTS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "no noise, and as much counted": ({"noise": 0.0}, {"no_noise", "noise"}),
    "half the noise, and all of it counted": ({"noise": 0.5 * NOISE}, {"noise_below_accounting", "noise"}),
    "the same noise at every step": ({"spoil": noise_of_one_draw}, {"noise"}),
    "no noise in one layer": ({"spoil": no_noise_in_the_head}, {"noise"}),
    "noise taken off before the step": ({"spoil": noise_taken_off_again}, {"changed"}),
    "no clipping": ({"spoil": without_clipping}, {"sensitivity_above_norm", "sensitivity"}),
    "clipping after the mean": ({"spoil": clipped_after_the_mean}, {"sensitivity_above_norm", "sensitivity"}),
    "each layer clipped to the whole norm": (
        {"spoil": each_layer_to_the_whole_norm}, {"sensitivity_above_norm", "sensitivity"}
    ),
    "divided by the batch's own size": ({"own_divisor": True}, {"sensitivity_above_norm", "sensitivity"}),
    "a row of the batch twice": (
        {"rows": lambda x, y: (torch.cat([x, x[:1]]), torch.cat([y, y[:1]]))}, {"sensitivity_above_norm", "sensitivity"}
    ),
    "rows mixed before the model": (
        {"rows": lambda x, y: ((x - x.mean(0)) / (x.std(0) + 0.1) if len(x) > 1 else x, y)},
        {"sensitivity_above_norm", "sensitivity"},
    ),
    "rows mixed in the model": (
        {"network": lambda: nn.Sequential(nn.Linear(8, 24), OfTheBatch(), nn.ReLU(), nn.Linear(24, 2))},
        {"sensitivity_above_norm", "wrong_gradients", "sensitivity"},
    ),
    "shuffled batches": (
        {"poisson": False, "loader": lambda rows: DataLoader(rows, batch_size=BATCH, shuffle=True)},
        {"sampler_not_poisson"},
    ),
    "rows drawn by weight": ({"loader": by_weight}, {"weighted_sampler"}),
    "small batches left out": ({"skip_below": BATCH - 4}, {"draws_without_step"}),
    "two steps a batch": ({"steps_a_batch": 2}, {"steps_without_draw"}),
    "each batch once more": ({"same_batch_again": True}, {"steps_without_draw"}),
    "a head trained without noise first": ({"before": head_first}, {"moved_outside_steps"}),
    "adapters without gradients": (
        {"network": Merged, "held": lambda net: list(net.base.parameters())}, {"parameters_not_moving"}
    ),
    "batches accumulated that count as one": (
        {"accumulate": 2, "poisson": False, "loader": lambda rows: DataLoader(rows, batch_size=BATCH, shuffle=True)},
        {"gradient_accumulation"},
    ),
    "the first steps not counted": ({"uncounted": 8}, {"steps_not_counted", "steps"}),
    "a smaller rate counted": ({"rate_factor": 0.5}, {"sample_rate_too_low"}),
}  # fmt: skip


def found_in(linted: LintResult, audited: AuditResult) -> set[str]:
    """What both say is wrong, by the linter's codes and the audit's reasons."""
    found = {problem.code for problem in linted.problems if problem.severity == "breaks"}
    said = {
        "noise": audited.noise is not None and bool(audited.noise.refuted),
        "sensitivity": "clipping norms" in audited.reason,
        "steps": "does not count" in audited.reason,
        "changed": "changed after its noise" in audited.reason or (
            audited.verdict == "contradicted" and audited.noise is not None and not audited.noise.refuted
        ),
    }  # fmt: skip
    return found | {name for name, is_so in said.items() if is_so}


@pytest.mark.grid
@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_found(name: str) -> None:
    change, wanted = FAULTS[name]
    linted, audited = Loop(**change).run()
    found = found_in(linted, audited)
    assert wanted <= found, (name, found, audited.reason)
    assert (bool(linted.breaks), audited.verdict) != (False, "consistent")


def test_there_are_20_faults_and_each_is_found_where_it_is_looked_for() -> None:
    assert len(FAULTS) >= 20


def test_correct_loops_are_not_accused() -> None:
    for seed in range(30):
        linted, audited = Loop(seed=seed).run()
        assert found_in(linted, audited) == set(), (seed, audited.reason, linted.problems)
        assert audited.verdict == "consistent"


def test_the_noise_is_what_epsilon_1_asks_for() -> None:
    assert NOISE == pytest.approx(
        noise_for(1.0, DELTA, sample_rate=BATCH / ROWS, steps=STEPS, accountant="prv"), rel=1e-6
    )
