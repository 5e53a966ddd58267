"""Faults of private training, one by one in real Opacus loops: each is found, and correct loops are not accused."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from opacus import PrivacyEngine
from opacus.data_loader import DPDataLoader
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from auditor.privacy.accounting import noise_for, privacy_spent
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
    draws_factor: float = 1.0
    shows_loader: bool = True
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
        if self.draws_factor != 1.0:
            loader = DPDataLoader(TensorDataset(x, y), sample_rate=self.draws_factor * rate)
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
            loader=loader if self.shows_loader else None,
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


def clip_of_the_sum(module: Any, optimizer: Any) -> None:
    def clip() -> None:
        sums = [optimizer._get_flat_grad_sample(p).sum(dim=0) for p in optimizer.params]
        length = torch.stack([s.norm() for s in sums]).norm()
        factor = (optimizer.max_grad_norm / (length + 1e-6)).clamp(max=1.0)
        for p, summed in zip(optimizer.params, sums, strict=True):
            p.summed_grad = summed * factor

    optimizer.clip_and_accumulate = clip


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
    "a smaller rate counted": ({"rate_factor": 0.5}, {"sample_rate_too_low", "audit: sample_rate_too_low"}),
    "a smaller rate counted, and no loader shown": (
        {"rate_factor": 0.5, "shows_loader": False}, {"sample_rate_too_low", "audit: sample_rate_too_low"}
    ),
    "rows drawn twice as often as counted": (
        {"draws_factor": 2.0}, {"sample_rate_too_low", "audit: sample_rate_too_low", "audit: more_rows_than_accounted"}
    ),
    "rows drawn twice as often as told": (
        {"draws_factor": 2.0, "shows_loader": False}, {"sample_rate_too_low", "audit: more_rows_than_accounted"}
    ),
    "the sum clipped instead of the rows": ({"spoil": clip_of_the_sum}, {"unclipped_sums", "audit: unclipped_sums"}),
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
    own = {f"audit: {code}" for code in audited.problems}
    return found | own | {name for name, is_so in said.items() if is_so}


# What an optimizer and the loader of the run do not show, and a loop that is watched, or the loader before, does.
OF_THE_LOOP = {
    "rows drawn by weight",
    "small batches left out",
    "two steps a batch",
    "each batch once more",
    "a head trained without noise first",
}


@pytest.mark.grid
@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_found(name: str) -> None:
    change, wanted = FAULTS[name]
    linted, audited = Loop(**change).run()
    found = found_in(linted, audited)
    assert wanted <= found, (name, found, audited.reason)
    assert (bool(linted.breaks), audited.verdict) != (False, "consistent")
    if name not in OF_THE_LOOP:
        assert audited.verdict != "consistent", audited.reason


def test_there_are_20_faults_and_each_is_found_where_it_is_looked_for() -> None:
    assert len(FAULTS) >= 20


@pytest.mark.grid
@pytest.mark.parametrize("block", range(5))
def test_correct_loops_are_not_accused(block: int) -> None:
    for seed in range(6 * block, 6 * block + 6):
        linted, audited = Loop(seed=seed).run()
        assert found_in(linted, audited) == set(), (seed, audited.reason, linted.problems)
        assert audited.verdict == "consistent"


def test_the_noise_is_what_epsilon_1_asks_for() -> None:
    assert NOISE == pytest.approx(
        noise_for(1.0, DELTA, sample_rate=BATCH / ROWS, steps=STEPS, accountant="prv"), rel=1e-6
    )


# ---- honest runs -----------------------------------------------------------------------------------------------------


MODELS: dict[str, Callable[[], nn.Module]] = {
    "dense": lambda: nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 2)),
    "normalised": lambda: nn.Sequential(
        nn.Linear(8, 16), nn.LayerNorm(16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 2)
    ),
}
HONEST: dict[str, dict[str, Any]] = {
    "as in the documentation": {},
    "rows that no batch size divides": {"rows": 317},
    "few rows": {"rows": 90, "batch": 30},
    "batches of six": {"batch": 6, "epochs": 1},
    "all rows at once": {"batch": ROWS, "epochs": 20},
    "half of the rows at once": {"batch": ROWS // 2, "epochs": 8},
    "a small norm": {"norm": 0.05},
    "a large norm": {"norm": 20.0},
    "losses summed": {"reduction": "sum"},
    "Adam": {"optimizer": lambda held: torch.optim.Adam(held, lr=0.01)},
    "momentum": {"optimizer": lambda held: torch.optim.SGD(held, lr=0.05, momentum=0.9)},
    "weight decay": {"optimizer": lambda held: torch.optim.SGD(held, lr=0.05, weight_decay=0.1)},
    "the accountant of Renyi": {"accountant": "rdp"},
    "logical batches in parts": {"most": 16},
    "no reference": {"reference": False},
    "no loader shown": {"shows_loader": False},
    "batch over rows for a rate": {"rows": 317, "shows_loader": False, "rate": BATCH / 317},
    "less noise counted than added": {"counted": {"noise": 0.9}},
    "a larger rate counted": {"counted": {"rate": 1.05}},
    "noise that grows": {"noise_growth": 1.02},
}  # fmt: skip


def honest(
    seed: int,
    model: str,
    *,
    rows: int = ROWS,
    batch: int = BATCH,
    epochs: int = EPOCHS,
    norm: float = 1.0,
    reduction: str = "mean",
    optimizer: Callable[[Any], Any] = lambda held: torch.optim.SGD(held, lr=0.05),
    accountant: str = "prv",
    most: int = 0,
    reference: bool = True,
    shows_loader: bool = True,
    rate: float | None = None,
    counted: dict[str, float] | None = None,
    noise_growth: float = 1.0,
) -> AuditResult:
    """A correct private training, and its audit by what its own accountant counts."""
    x, y = (part[:rows] for part in _data(seed))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = MODELS[model]()
    engine = PrivacyEngine(accountant=accountant)
    module, private, loader = engine.make_private(
        module=net,
        optimizer=optimizer(net.parameters()),
        data_loader=DataLoader(TensorDataset(x, y), batch_size=batch),
        noise_multiplier=NOISE,
        max_grad_norm=norm,
        loss_reduction=reduction,
        noise_generator=torch.Generator().manual_seed(seed + 1),
    )
    told = rate or loader.sample_rate
    if counted:
        less, more = counted.get("noise", 1.0), counted.get("rate", 1.0)
        private.attach_step_hook(
            lambda o: engine.accountant.step(noise_multiplier=less * NOISE, sample_rate=more * loader.sample_rate)
        )
    by = ReferenceGradient(module, per_row, x, y, optimizer=private, sample_rate=told) if reference else None
    audit = DPAudit(
        private,
        100,
        sample_rate=told,
        rng=np.random.default_rng(seed),
        expected_gradient=by,
        accountant=engine.accountant,
        loader=loader if shows_loader else None,
    )
    for _ in range(epochs):
        with contextlib.ExitStack() as stack:
            parts = loader
            if most:
                held = BatchMemoryManager(data_loader=loader, max_physical_batch_size=most, optimizer=private)
                parts = stack.enter_context(held)
            for a, b in parts:
                private.zero_grad()
                getattr(per_row(module(a), b), reduction)().backward()
                private.step()
        private.noise_multiplier *= noise_growth
    audit.detach()
    accounting = audit.accounting()
    assert accounting is not None
    spent = privacy_spent(accounting, DELTA, "prv").epsilon
    assert spent is not None
    return audit_claim(
        audit.scores(),
        claimed_epsilon=spent,
        delta=DELTA,
        rng=np.random.default_rng(seed),
        accounting=accounting,
        factors=(),
        # Of 120 runs at 95 % some may be accused by chance.
        confidence=0.99,
    )


@pytest.mark.grid
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", HONEST)
def test_no_honest_run_is_accused(kind: str, seed: int, model: str) -> None:
    # Opacus draws rows from the global generator.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = honest(seed, model, **HONEST[kind])
    assert found.problems == () and found.verdict in ("consistent", "cannot_tell"), (found.problems, found.reason)
    if kind in ("as in the documentation", "Adam", "no loader shown"):
        assert found.verdict == "consistent", found.reason
