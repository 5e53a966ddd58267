"""Clipped gradients, both ways, against a loop over single rows; which way is chosen; rows cut into passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from opacus import PrivacyEngine
from opacus.grad_sample.embedding_norm_sample import compute_embedding_norm_sample
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from auditor.core.errors import ModelError, UsageError
from auditor.models.audited_model import Recipe
from auditor.models.networks.architectures import MLP, BiLSTMText, SmallCNN, TransformerEncoder
from auditor.models.torch_model import TorchModel
from auditor.privacy.training.opacus_training import PrivacyBudget, PrivateRun, opacus_quietly, train_privately
from auditor.privacy.training.private_gradients import (
    PrivateStep,
    Way,
    choose_way,
    embedding_norms,
    most_rows,
    put_stand_ins,
    with_own_samplers,
)
from tests.quantifiers import all_of

NORM = 0.3


class Meaned(nn.Module):
    """The mean of word vectors, of which index 0 is padding that stays zero."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 5, padding_idx=0)
        self.output = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(self.words(x).mean(dim=1))
        return logits


class Twice(nn.Module):
    """One layer used twice for each row."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 600)
        self.again = nn.Linear(600, 600)
        self.output = nn.Linear(600, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(self.again(torch.relu(self.again(self.first(x)))))
        return logits


class FourDimensions(nn.Module):
    """A linear layer on (n, a, b, c), of whose norm Opacus' ghost clipping finds nothing and says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(3, 4000)
        self.output = nn.Linear(4000, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(self.wide(x).mean(dim=(1, 2)))
        return logits


def words(n: int, length: int = 6) -> Tensor:
    """Indices with repeats in a row and padding at the end."""
    x = torch.randint(1, 30, (n, length), generator=torch.Generator().manual_seed(1))
    x[:, 1] = x[:, 0]
    x[::2, -2:] = 0
    return x


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "mlp": (lambda: MLP(5, [7, 6], 2), numbers(12, 5)),
    "meaned": (Meaned, words(12)),
    "bilstm": (lambda: BiLSTMText(30, 2, embedding_dim=4, hidden_size=3, dense=5), words(12)),
    "transformer": (lambda: TransformerEncoder(30, 2, 6, d_model=8, n_heads=2, n_layers=2), words(12)),
    "cnn": (lambda: SmallCNN(1, 2, width=4), numbers(12, 1, 8, 8)),
}


def made(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().double().train()


def wrapped(module: nn.Module) -> TorchModel:
    return TorchModel(module, classes=[0, 1])


def labels(n: int) -> Tensor:
    return torch.arange(n) % 2


def slow_sum(module: nn.Module, x: Tensor, y: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """The sum over rows of each row's gradient, scaled to a norm of at most NORM, row by row."""
    total = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
    for i in range(len(x)):
        loss = weights[i] * nn.functional.cross_entropy(module(x[i : i + 1]), y[i : i + 1])
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        for (name, _), g in zip(module.named_parameters(), gradients, strict=True):
            total[name] += g * min(1.0, NORM / (float(norm) + 1e-6))
    return total


def private_sum(module: nn.Module, x: Tensor, y: Tensor, weights: Tensor, way: Way) -> dict[str, Tensor]:
    """What one step without noise adds up, by parameter."""
    names = [name for name, _ in module.named_parameters()]
    with opacus_quietly():
        out: tuple[Any, ...] = PrivacyEngine().make_private(
            module=module,
            optimizer=torch.optim.SGD(module.parameters(), lr=0.0),
            data_loader=DataLoader(TensorDataset(x, y), batch_size=len(x)),
            noise_multiplier=0.0,
            max_grad_norm=NORM,
            grad_sample_mode=way,
        )
        PrivateStep(wrapped(with_own_samplers(out[0])), out[1], way)(x, y, weights)
    return dict(zip(names, (p.summed_grad.detach() for p in out[1].params), strict=True))


@pytest.mark.parametrize("way", ["hooks", "ghost"])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_the_clipped_sum_is_that_of_a_loop_over_rows(name: str, way: Way) -> None:
    make, x = NETWORKS[name]
    weights = torch.linspace(0.2, 3.0, len(x), dtype=torch.float64)
    module, _ = put_stand_ins(made(make))
    expected = slow_sum(module, x, labels(len(x)), weights)
    norms = torch.cat([g.flatten() for g in expected.values()])
    assert norms.abs().sum() > 0.0
    found = private_sum(module, x, labels(len(x)), weights, way)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-7, atol=1e-9, msg=f"{key} by {way}")


def test_norms_of_embeddings_are_opacus_own_but_for_the_padding() -> None:
    ids, backprops = words(9), numbers(9, 6, 5)
    plain = nn.Embedding(30, 5).double()
    (theirs,) = compute_embedding_norm_sample(plain, [ids], backprops).values()
    (ours,) = embedding_norms(plain, [ids], backprops).values()
    torch.testing.assert_close(ours, theirs)
    padded = nn.Embedding(30, 5, padding_idx=0).double()
    (ours,) = embedding_norms(padded, [ids], backprops).values()
    (loop,) = compute_embedding_norm_sample(plain, [ids], backprops * (ids != 0).unsqueeze(-1)).values()
    torch.testing.assert_close(ours, loop)
    assert (ours < theirs - 1e-6).any()


def test_the_way_that_is_chosen() -> None:
    def way(make: Callable[[], nn.Module], x: Tensor, mode: Any, batch_size: int) -> Way:
        with opacus_quietly():
            return choose_way(lambda: wrapped(made(make)), x, labels(len(x)), mode, batch_size)

    mlp, x = (lambda: MLP(5, [64], 2)), numbers(12, 5)
    assert way(mlp, x, "auto", 4096) == "ghost" and way(mlp, x, "auto", 16) == "hooks"
    assert way(mlp, x, "hooks", 4096) == "hooks" and way(mlp, x, "ghost", 16) == "ghost"
    # Most of the network in layers whose gradients ghost clipping would write down all the same.
    assert way(lambda: SmallCNN(1, 2), numbers(12, 1, 8, 8), "auto", 1024) == "hooks"
    for odd, rows in ((Twice, numbers(12, 4)), (FourDimensions, numbers(12, 2, 2, 3))):
        assert way(odd, rows, "auto", 4096) == "hooks"
        with pytest.raises(ModelError, match="Ghost clipping cannot train.*mode=hooks"):
            way(odd, rows, "ghost", 4096)
    with pytest.raises(UsageError, match="auto, hooks, ghost"):
        way(mlp, x, "functorch", 16)


@pytest.mark.parametrize("way", ["hooks", "ghost"])
def test_a_batch_in_several_passes_is_one_step(way: Way) -> None:
    x, y = numbers(60, 5), labels(60)
    recipe = Recipe(epochs=3, batch_size=20, learning_rate=0.05)
    budget = PrivacyBudget(epsilon=5.0, max_grad_norm=NORM, noise_seed=3)
    ends, spent = [], []
    for at_once in (None, 4):
        model = wrapped(made(lambda: MLP(5, [7], 2)))
        with opacus_quietly():
            run = PrivateRun(way=way, budget=budget, delta=1e-3, recipe=recipe, rows_at_once=at_once)
            spent.append(run.train(model, x, y))
        ends.append({k: v.detach().clone() for k, v in model.module.state_dict().items()})
    assert spent[0] == spent[1]
    start = made(lambda: MLP(5, [7], 2)).state_dict()
    for key, value in ends[0].items():
        torch.testing.assert_close(ends[1][key], value, rtol=1e-6, atol=1e-8)
        assert not torch.equal(value, start[key])


@pytest.mark.parametrize("way", ["hooks", "ghost"])
def test_empty_draws_are_noisy_steps_that_are_counted(way: Way) -> None:
    x, y = numbers(40, 5).float(), labels(40)

    def make(recipe: Recipe) -> TorchModel:
        module = made(lambda: MLP(5, [7], 2)).float()
        return TorchModel(module, classes=[0, 1], recipe=recipe)

    recipe = Recipe(epochs=2, batch_size=1)
    steps: list[int] = []
    before = PrivateStep.__call__

    def counting(self: PrivateStep, x: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        parameters = [p.detach().clone() for p in self.optimizer.params]
        loss = before(self, x, y, weights)
        steps.append(len(x))
        assert all_of(not torch.equal(p, q) for p, q in zip(parameters, self.optimizer.params, strict=True))
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PrivateStep, "__call__", counting)
        budget = PrivacyBudget(epsilon=50.0, noise_seed=0)
        trained, _ = train_privately(make, x, y, recipe, budget, seed=0, mode=way)
    assert len(steps) == 80 and 15 < steps.count(0) < 45
    assert trained.recipe is not None and trained.recipe.epsilon is not None
    assert all_of(torch.isfinite(w).all() for w in trained.module.state_dict().values())


def test_hooks_hold_no_more_than_a_gibibyte() -> None:
    wide = nn.Linear(1000, 1000)
    assert most_rows(wide, "ghost") is None
    rows = most_rows(wide, "hooks")
    assert rows is not None and rows * sum(p.numel() for p in wide.parameters()) * 4 <= 1 << 30


def test_the_same_seeds_give_the_same_model_in_any_order_of_ways() -> None:
    """Both ways add the same noise to the same sums, so that they end alike up to rounding."""
    x, y = numbers(64, 5), labels(64)
    recipe = Recipe(epochs=4, batch_size=16, learning_rate=0.02)
    ends = []
    ways: tuple[Way, ...] = ("hooks", "ghost")
    for way in ways:
        model = wrapped(made(lambda: MLP(5, [7], 2)))
        budget = PrivacyBudget(epsilon=3.0, max_grad_norm=NORM, noise_seed=1)
        with opacus_quietly():
            PrivateRun(way=way, budget=budget, delta=1e-3, recipe=recipe).train(model, x, y)
        ends.append(np.concatenate([v.detach().numpy().ravel() for v in model.module.parameters()]))
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-5, atol=1e-7)
