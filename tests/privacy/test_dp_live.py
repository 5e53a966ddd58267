"""The linter on live Opacus set-ups: right ones are silent, wrong ones are caught, and looking changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from opacus import PrivacyEngine
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from auditor.core.errors import UsageError
from auditor.privacy.loop_watch import LoopWatch
from auditor.privacy.observe_opacus import Movement, lint_setup, observe, sampler_of, try_gradients
from auditor.privacy.run_record import statistics_keepers
from tests.quantifiers import all_of, none_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:Secure RNG turned off"),
    pytest.mark.filterwarnings("ignore:Full backward hook is firing"),
    pytest.mark.filterwarnings("ignore:PrivacyEngine detected new dataset object"),
    pytest.mark.filterwarnings("ignore:Optimal order is the"),
]
N, WIDTH = 600, 8
TOLD = {
    "n_trials": 1, "preprocessing": "none", "claimed_epsilon": 8.0, "delta": 1e-4, "noise_seed_known": False,
    "virtual_steps": "none", "accumulated_batches": 1,
}  # fmt: skip


def per_row(logits: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, labels, reduction="none")


def data(n: int = N) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(n, WIDTH, generator=generator), torch.arange(n) % 2)


def batch(n: int = 40) -> tuple[Tensor, Tensor]:
    x, y = data(n).tensors
    return x * torch.linspace(0.1, 20.0, n).unsqueeze(1), y


def private(net: nn.Module, loader: DataLoader[Any] | None = None, lr: float = 0.1, **more: Any) -> Any:
    engine = PrivacyEngine(accountant="prv")
    trained = [p for p in net.parameters() if p.requires_grad]
    made = engine.make_private(
        module=net,
        optimizer=torch.optim.SGD(trained, lr=lr),
        data_loader=loader or DataLoader(data(), batch_size=60),
        noise_multiplier=2.0,
        max_grad_norm=1.0,
        **more,
    )
    return (*made, engine)


def plain_net() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 2))


def step(module: Any, optimizer: Any, loader: Any) -> None:
    for inputs, labels in loader:
        optimizer.zero_grad()
        per_row(module(inputs), labels).mean().backward()
        optimizer.step()


def codes(*setup: Any, **more: Any) -> list[str]:
    return [problem.code for problem in lint_setup(*setup, **{"told": TOLD} | more).problems]


def test_a_right_setup_is_silent_before_and_after_training_and_is_left_alone() -> None:
    module, optimizer, loader, engine = private(plain_net())
    module.eval()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    state = torch.get_rng_state()
    result = lint_setup(module, optimizer, loader, engine.accountant, loss=per_row, batch=batch(), told=TOLD)
    assert result.problems == ()
    assert torch.equal(state, torch.get_rng_state()) and none_of(m.training for m in module.modules())
    assert all_of(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert all_of(p.grad is None and p.grad_sample is None for p in optimizer.params)
    module.train()
    watch = LoopWatch(module, optimizer)
    step(module, optimizer, watch.batches(loader))
    watch.detach()
    told = TOLD | {"batch_size": 60} | watch.observations()
    after = lint_setup(module, optimizer, loader, engine.accountant, loss=per_row, batch=batch(), told=told)
    assert after.problems == () and after.not_recorded == ()


def test_poisson_sampling_switched_off_is_caught() -> None:
    loader = DataLoader(data(), batch_size=60, shuffle=True)
    module, optimizer, loader, engine = private(plain_net(), loader, poisson_sampling=False)
    assert codes(module, optimizer, loader, engine.accountant) == ["sampler_not_poisson"]
    assert sampler_of(DataLoader(data(), batch_size=60)) == "in_order"


def test_opacus_813_weighted_sampler() -> None:
    # The reproduction in Opacus 813, smaller: 32 draws an epoch in batches of 4, of 6,000 rows.
    weights = torch.ones(6000)
    before: DataLoader[Any] = DataLoader(data(6000), batch_size=4, sampler=WeightedRandomSampler(weights, 32))
    module, optimizer, loader, engine = private(plain_net(), before)
    # The rate is 1/8 and 750 rows are expected in a step, where 4 were meant.
    assert loader.sample_rate == 1 / 8 and optimizer.expected_batch_size == 750
    found = lint_setup(module, optimizer, loader, engine.accountant, loader_before=before, told=TOLD).problems
    assert [problem.code for problem in found] == ["weighted_sampler", "batch_not_as_intended"]
    assert "188" in found[1].why
    # Without the sampler's replacement by Poisson the weights stay, and so does the fault.
    module, optimizer, loader, engine = private(plain_net(), before, poisson_sampling=False)
    assert "weighted_sampler" in codes(module, optimizer, loader, engine.accountant)


class LoRA(nn.Module):
    """A frozen layer with a low-rank change; ``how`` it is computed decides what Opacus sees."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.base = nn.Linear(WIDTH, WIDTH)
        for p in self.base.parameters():
            p.requires_grad = False
        self.lora_A, self.lora_B = nn.Linear(WIDTH, 2, bias=False), nn.Linear(2, WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, 2)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "merged":  # around the layers, so that Opacus' hooks never run
            low = x @ self.lora_A.weight.T @ self.lora_B.weight.T
        elif self.how == "permuted":  # rows change places between the two layers
            low = self.lora_B(self.lora_A(x).flip(0)).flip(0)
        else:
            low = self.lora_B(self.lora_A(x))
        return self.head(torch.relu(self.base(x) + low))


def test_opacus_820_lora_that_is_right_is_silent_and_moves() -> None:
    module, optimizer, loader, engine = private(LoRA("layers"))
    assert codes(module, optimizer, loader, engine.accountant, loss=per_row, batch=batch()) == []
    watch = Movement(module)
    step(module, optimizer, loader)
    assert watch.not_moving() == ()


def test_opacus_820_lora_parameters_that_get_no_gradient() -> None:
    module, optimizer, loader, engine = private(LoRA("merged"))
    found = lint_setup(module, optimizer, loader, engine.accountant, loss=per_row, batch=batch(), told=TOLD).problems
    assert [problem.code for problem in found] == ["parameters_not_moving"]
    assert "lora_A.weight, lora_B.weight" in found[0].what


def test_opacus_820_lora_parameters_that_move_wrongly() -> None:
    module, optimizer, loader, engine = private(LoRA("permuted"))
    found = lint_setup(module, optimizer, loader, engine.accountant, loss=per_row, batch=batch(), told=TOLD).problems
    assert [problem.code for problem in found] == ["sensitivity_above_norm", "wrong_gradients"]
    assert "lora_B.weight" in found[1].what and "head" not in found[1].what


def test_opacus_820_lora_parameters_that_the_optimizer_does_not_hold() -> None:
    net = LoRA("layers")
    engine = PrivacyEngine(accountant="prv")
    module, optimizer, loader = engine.make_private(
        module=net,
        optimizer=torch.optim.SGD(net.head.parameters(), lr=0.1),
        data_loader=DataLoader(data(), batch_size=60),
        noise_multiplier=2.0,
        max_grad_norm=1.0,
    )
    assert codes(module, optimizer, loader, engine.accountant) == ["parameters_not_moving"]
    watch = Movement(module)
    step_once = iter(loader)
    inputs, labels = next(step_once)
    optimizer.zero_grad()
    per_row(module(inputs), labels).mean().backward()
    optimizer.step()
    assert watch.not_moving() == ("_module.lora_A.weight", "_module.lora_B.weight")


class Positions(nn.Module):
    """A tiny transformer's embeddings; ``expanded``: position ids of one row a row of the batch."""

    def __init__(self, expanded: bool) -> None:
        super().__init__()
        self.tokens, self.positions, self.out = nn.Embedding(10, 4), nn.Embedding(5, 4), nn.Linear(4, 2)
        self.expanded = expanded

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(5).unsqueeze(0)
        places = places.expand(len(ids), -1) if self.expanded else places
        return self.out((self.tokens(ids) + self.positions(places)).mean(dim=1))


@pytest.mark.parametrize("expanded", [False, True])
def test_position_embeddings_of_the_wrong_batch_size(expanded: bool) -> None:
    ids, labels = torch.arange(200).reshape(40, 5) % 10, torch.arange(40) % 2
    loader: DataLoader[Any] = DataLoader(TensorDataset(ids, labels), batch_size=4)
    module, optimizer, loader, engine = private(Positions(expanded), loader)
    found = lint_setup(module, optimizer, loader, engine.accountant, loss=per_row, batch=(ids[:6], labels[:6]))
    named = [(problem.code, "positions.weight" in problem.what) for problem in found.problems]
    assert named == ([] if expanded else [("wrong_batch_dimension", True)])


def test_batch_norm_is_caught_by_name_and_by_its_gradients() -> None:
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    net = nn.Sequential(nn.Linear(WIDTH, 6), nn.BatchNorm1d(6, affine=False), nn.Linear(6, 2))
    module = GradSampleModule(net)
    optimizer = DPOptimizer(
        torch.optim.SGD(net.parameters(), lr=0.1), noise_multiplier=2.0, max_grad_norm=1.0, expected_batch_size=60
    )
    *_, loader, engine = private(plain_net())
    running = net[1].running_mean.clone()  # type: ignore[union-attr, operator]
    found = codes(module, optimizer, loader, engine.accountant, loss=per_row, batch=batch())
    assert found == ["sensitivity_above_norm", "cross_example_layers", "wrong_gradients"]
    assert torch.equal(running, net[1].running_mean)  # type: ignore[arg-type]


class Whitener(nn.Module):
    """A relative of batch normalisation that its name does not tell."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(6))
        self.register_buffer("running_var", torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.running_mean) / self.running_var  # type: ignore[no-any-return, operator]


@pytest.mark.parametrize(
    ("layer", "keeps"),
    [
        (Whitener(), True),
        (nn.InstanceNorm1d(6, track_running_stats=True), True),
        (nn.InstanceNorm1d(6), False),
        (nn.GroupNorm(2, 6, affine=False), False),
    ],
)
def test_running_statistics_are_seen_in_the_buffers(layer: nn.Module, keeps: bool) -> None:
    net = nn.Sequential(nn.Linear(WIDTH, 6), layer)
    assert statistics_keepers(net) == ((type(layer).__name__,) if keeps else ())
    module, optimizer, loader, engine = private(plain_net())
    module._module.append(layer)
    found = codes(module, optimizer, loader, engine.accountant)
    assert found == (["cross_example_layers"] if keeps else [])


def test_a_large_batch_is_cut_by_the_memory_manager_and_seen_as_such() -> None:
    module, optimizer, loader, engine = private(plain_net())
    told = {k: v for k, v in TOLD.items() if k != "virtual_steps"}
    with BatchMemoryManager(data_loader=loader, max_physical_batch_size=16, optimizer=optimizer) as cut:
        run = observe(module, optimizer, cut, engine.accountant, told=told)
        assert (run.virtual_steps, run.sampler) == ("batch_memory_manager", "poisson")
        assert codes(module, optimizer, cut, engine.accountant, told=told) == []


def test_accumulated_batches_are_seen_in_the_gradients() -> None:
    loader = DataLoader(data(), batch_size=60, shuffle=True)
    module, optimizer, loader, engine = private(plain_net(), loader, poisson_sampling=False)
    for _, (inputs, labels) in zip(range(3), loader, strict=False):
        per_row(module(inputs), labels).mean().backward()
    told = {k: v for k, v in TOLD.items() if k != "accumulated_batches"}
    assert "gradient_accumulation" in codes(module, optimizer, loader, engine.accountant, told=told)


def test_a_collate_function_that_drops_empty_batches_is_caught() -> None:
    module, optimizer, loader, engine = private(plain_net())
    own: DataLoader[Any] = DataLoader(data(), batch_sampler=loader.batch_sampler)
    assert codes(module, optimizer, own, engine.accountant) == ["empty_batches_dropped"]


def test_an_accountant_that_counts_another_rate_or_noise_is_caught() -> None:
    module, optimizer, loader, engine = private(plain_net())
    engine.accountant.history = [(2.0, 0.05, 10)]
    assert codes(module, optimizer, loader, engine.accountant) == ["sample_rate_too_low"]
    engine.accountant.history = [(4.0, 0.1, 10)]
    assert codes(module, optimizer, loader, engine.accountant) == ["noise_below_accounting"]
    optimizer.noise_multiplier = 0.0
    engine.accountant.history = []
    assert codes(module, optimizer, loader, engine.accountant) == ["no_noise"]


def test_clipping_that_never_or_always_binds_is_said() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)  # some starts leave a row without any gradient
        module, optimizer, loader, engine = private(plain_net())
    for norm, code in ((1e6, "clipping_never_binds"), (1e-6, "clipping_always_binds")):
        optimizer.max_grad_norm = norm
        assert codes(module, optimizer, loader, engine.accountant, loss=per_row, batch=batch()) == [code]


def test_the_wrong_objects_are_refused() -> None:
    module, optimizer, loader, engine = private(plain_net())
    with pytest.raises(UsageError, match="without clipping or noise"):
        lint_setup(module, optimizer.original_optimizer, loader)
    with pytest.raises(UsageError, match="per-row gradients"):
        try_gradients(plain_net(), per_row, *batch(), max_grad_norm=1.0)
    with pytest.raises(UsageError, match="two rows"):
        try_gradients(module, per_row, *batch(1), max_grad_norm=1.0)
