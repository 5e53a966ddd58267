"""The training loop: equal to the plain loop written out, the same after an interruption, and no trace left behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from auditor.core.errors import ModelError, UsageError
from auditor.training.training_loop import History, PlainStep, Schedule, train

N = 70


def rows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(N, 4, generator=generator)
    return x, (x[:, 0] - x[:, 1] + 0.3 * torch.randn(N, generator=generator) > 0).long()


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))


def step_on(module: nn.Module, rate: float = 0.05) -> PlainStep:
    def loss(batch: Sequence[Tensor]) -> Tensor:
        return nn.functional.cross_entropy(module(batch[0]), batch[1])

    return PlainStep(module, torch.optim.Adam(module.parameters(), lr=rate), loss)


def weights(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


def test_without_dropout_it_is_the_loop_written_out() -> None:
    x, y = rows()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        ours, plain = (nn.Linear(4, 2) for _ in range(2))
    plain.load_state_dict(ours.state_dict())
    history = train(step_on(ours), (x, y), Schedule(epochs=3, batch_size=16, seed=9))
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.05)
    generator = torch.Generator().manual_seed(9)
    losses = []
    for _ in range(3):
        total = 0.0
        for batch in torch.randperm(N, generator=generator).split(16):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(plain(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(batch)
        losses.append(total / N)
    assert torch.equal(weights(ours), weights(plain))
    assert history.losses == pytest.approx(losses, rel=1e-6)
    assert (history.epoch, history.validations, ours.training) == (3, (), False)


@pytest.mark.parametrize("stopped_after", [1, 2, 4])
def test_an_interrupted_run_comes_to_the_same_weights(tmp_path: Path, stopped_after: int) -> None:
    x, y = rows()
    whole = network()
    expected = train(step_on(whole), (x, y), Schedule(epochs=5, batch_size=16))
    checkpoint = tmp_path / "run.ckpt"
    train(step_on(network()), (x, y), Schedule(epochs=stopped_after, batch_size=16), checkpoint=checkpoint)
    resumed = network()
    history = train(step_on(resumed), (x, y), Schedule(epochs=5, batch_size=16), checkpoint=checkpoint)
    assert torch.equal(weights(whole), weights(resumed))
    assert history == expected


def test_early_stopping_ends_with_the_best_weights(tmp_path: Path) -> None:
    module = network()
    numbers = iter([3.0, 1.0, 2.0, 2.0, 2.0, 0.0])
    seen: list[Tensor] = []

    def validate() -> float:
        assert not module.training
        seen.append(weights(module))
        return next(numbers)

    history = train(step_on(module), rows(), Schedule(epochs=50, batch_size=16, patience=3), validate=validate)
    assert history.epoch == 2 and history.validations == (3.0, 1.0, 2.0, 2.0, 2.0)
    assert torch.equal(weights(module), seen[1])


def test_a_resumed_search_remembers_its_best(tmp_path: Path) -> None:
    def run(module: nn.Module, epochs: int, numbers: list[float], checkpoint: Path | None) -> History:
        left = iter(numbers)
        schedule = Schedule(epochs=epochs, batch_size=16, patience=2)
        return train(step_on(module), rows(), schedule, validate=lambda: next(left), checkpoint=checkpoint)

    whole, resumed = network(), network()
    expected = run(whole, 9, [1.0, 2.0, 3.0], None)
    run(network(), 1, [1.0], tmp_path / "c")
    assert run(resumed, 9, [2.0, 3.0], tmp_path / "c") == expected
    assert torch.equal(weights(whole), weights(resumed))


def test_global_generators_do_not_move_and_the_seed_decides() -> None:
    before = torch.get_rng_state()
    modules = [network() for _ in range(3)]
    for module, seed in zip(modules, (1, 1, 2), strict=True):
        train(step_on(module), rows(), Schedule(epochs=2, batch_size=16, seed=seed))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights(modules[0]), weights(modules[1]))
    assert not torch.equal(weights(modules[0]), weights(modules[2]))


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    x, y = rows()
    with pytest.raises(UsageError, match="no rows"):
        train(step_on(network()), (x[:0], y[:0]), Schedule(epochs=1, batch_size=4))
    with pytest.raises(UsageError, match="at least 1"):
        train(step_on(network()), (x, y), Schedule(epochs=0, batch_size=4))
    with pytest.raises(ModelError, match="infinite or NaN"):
        train(step_on(network()), (x * float("inf"), y), Schedule(epochs=1, batch_size=4))
    checkpoint = tmp_path / "c"
    train(step_on(network()), (x, y), Schedule(epochs=1, batch_size=4), checkpoint=checkpoint, fingerprint={"a": 1})
    with pytest.raises(UsageError, match="another run"):
        train(step_on(network()), (x, y), Schedule(epochs=1, batch_size=4), checkpoint=checkpoint, fingerprint={"a": 2})
    checkpoint.write_bytes(b"rubbish")
    with pytest.raises(UsageError, match="no checkpoint"):
        train(step_on(network()), (x, y), Schedule(epochs=1, batch_size=4), checkpoint=checkpoint)
