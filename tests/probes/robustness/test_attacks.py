"""Attacks against every point of a grid, against closed forms, and against what only one of their steps can find."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from auditor.models.networks.architectures import MLP
from auditor.models.torch_model import TorchModel
from probes.robustness.gradient_masking import Outside, along_the_boundary
from probes.robustness.perturbation_set import Ball
from probes.robustness.worst_case_search import Attacked, Margins, attack, descend, in_double, search_by_asking
from tests.quantifiers import all_of

torch.set_num_threads(1)


def decide(probabilities: Any) -> Any:
    return probabilities.argmax(axis=1)


def asked(module: nn.Module, n_classes: int) -> TorchModel:
    return TorchModel(module.eval(), classes=[str(i) for i in range(n_classes)])


def attacked(model: TorchModel, x: Tensor, levels: list[float], ball: Ball | None = None, seed: int = 0) -> Attacked:
    clean = decide(model.answer(x).detach().numpy())
    found = ball or Ball(torch.ones(1))
    return attack(model, x, clean, decide, ball=found, levels=levels, n_steps=20, rng=np.random.default_rng(seed))


def wild(seed: int, n_classes: int) -> nn.Module:
    """A small network with many kinks in the ball around any point."""
    torch.manual_seed(seed)
    net = MLP(3, [12, 12], n_classes)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(2.0)
    return net


@pytest.mark.grid
@pytest.mark.parametrize("n_classes", [2, 4])
def test_hardly_a_row_that_any_point_of_a_grid_breaks_is_missed(n_classes: int) -> None:
    """21 points along each of three axes, ends and corners among them: 9,261 in every ball."""
    grid = torch.tensor(list(itertools.product(np.linspace(-1.0, 1.0, 21), repeat=3)), dtype=torch.float32)
    n_grid, missed, rows = 0, 0, 0
    for seed in range(4):
        model = asked(wild(seed, n_classes), n_classes)
        x = torch.from_numpy(np.random.default_rng(seed).standard_normal((40, 3)).astype(np.float32))
        found = attacked(model, x, [0.15, 0.4])
        for i, level in enumerate(found.levels):
            with torch.no_grad():
                there = model.answer((x[:, None] + level * grid[None]).reshape(-1, 3)).argmax(dim=1).reshape(40, -1)
                own = model.answer(x).argmax(dim=1, keepdim=True)
            exists = (there != own).any(dim=1).numpy()
            n_grid, rows = n_grid + int(exists.sum()), rows + 40
            missed += int((exists & ~found.broken[i]).sum())
    assert 0.2 * rows < n_grid < 0.9 * rows
    assert missed <= 0.005 * rows, (missed, n_grid, rows)


def test_examples_lie_within_the_least_level_that_breaks_and_levels_are_nested() -> None:
    model = asked(wild(1, 3), 3)
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((60, 3)).astype(np.float32))
    radius, limits = torch.tensor([1.0, 0.5, 0.0]), (torch.tensor(-1.5), torch.tensor(1.0))
    found = attacked(model, x, [0.1, 0.2, 0.5], Ball(radius, limits))
    assert (found.broken[1:] >= found.broken[:-1]).all() and 0.1 < found.broken[-1].mean() < 1.0
    away = (found.examples - x).abs()
    for row in np.flatnonzero(found.broken[-1]):
        level = found.levels[int(found.broken[:, row].argmax())]
        assert (away[row] <= level * radius + 1e-6).all()
    assert (away[:, 2] == 0).all()
    low, high = torch.minimum(x, limits[0]), torch.maximum(x, limits[1])
    assert ((found.examples >= low - 1e-6) & (found.examples <= high + 1e-6)).all()
    again = decide(model.answer(found.examples).detach().numpy()) != decide(model.answer(x).detach().numpy())
    np.testing.assert_array_equal(again, found.broken[-1])


class Plateau(nn.Module):
    """The next class is near and out of reach; a further one lies within."""

    def forward(self, x: Tensor) -> Tensor:
        level = 0.0 * x[:, :1]
        return torch.cat([level, level - 0.5, 4.0 * x[:, :1] - 2.0], dim=1)


def test_a_class_that_is_not_the_nearest_is_tried_too() -> None:
    model, x = asked(Plateau(), 3), torch.zeros(5, 2)
    margins, clean = Margins(model, decide), np.zeros(5, np.int64)
    low, high = x - 1.0, x + 1.0
    assert not descend(margins, x, low, high, clean, 20)[2].any()
    assert descend(margins, x, low, high, clean, 20, torch.full((5,), 2))[2].all()
    assert attacked(model, x, [1.0]).broken.all() and not attacked(model, x, [0.4]).broken.any()


class Ridge(nn.Module):
    """A narrow way down: a step as wide as the ball jumps over it, again and again."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([0.05 + 5.0 * (x[:, 0] - 0.31).abs() - 0.2 * x[:, 1], torch.zeros(len(x))], dim=1)


def test_steps_halve_where_wide_ones_jump_over() -> None:
    """Only within 0.03 of 0.31, at the very end of the other axis, is anything decided otherwise."""
    model, x = asked(Ridge(), 2), torch.zeros(20, 2)
    assert attacked(model, x, [1.0]).broken.all() and not attacked(model, x, [0.2]).broken.any()


def test_what_came_near_in_few_steps_is_tried_for_longer() -> None:
    """Six steps are too few to halve them often enough, eighteen from the nearest point are not."""
    model, x, clean = asked(Ridge(), 2), torch.zeros(40, 2), np.zeros(40, np.int64)
    alone = descend(Margins(model, decide), x, x - 1.0, x + 1.0, clean, 6)[2]
    how: dict[str, Any] = {"ball": Ball(torch.ones(1)), "levels": [1.0], "n_steps": 6, "rng": np.random.default_rng(0)}
    assert not alone.any() and attack(model, x, clean, decide, **how).broken.mean() > 0.9


def test_a_copy_in_double_precision_is_a_copy() -> None:
    module = MLP(3, [4], 2)
    model = asked(module, 2)
    twin = in_double(model, torch.zeros(1, 3))
    assert twin is not None and twin.module is not module
    assert all_of(p.dtype == torch.float64 for p in twin.module.parameters())
    assert all_of(p.dtype == torch.float32 for p in module.parameters()) and model.module is module

    class Stubborn(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ torch.ones(3, 2)

    assert in_double(asked(Stubborn(), 2), torch.zeros(1, 3)) is None


def linear(weights: list[float]) -> TorchModel:
    module = nn.Linear(len(weights), 2)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([weights, [-w for w in weights]]))
        module.bias.zero_()
    return asked(module, 2)


def test_along_the_boundary_the_closed_form_of_a_linear_model_is_approached_by_decisions_alone() -> None:
    """The distance is ``|w x| / sum |w_i| r_i`` over what may move; a start lies several times as far."""
    weights, unit = np.array([1.0, -2.0, 0.5, 3.0, 1.0]), np.array([1.0, 1.0, 2.0, 0.5, 0.0])
    x = np.random.default_rng(0).standard_normal((30, 5)).astype(np.float32)
    model, inputs = linear(weights.tolist()), torch.from_numpy(x)
    clean = decide(model.answer(inputs).detach().numpy())
    # Far over to the other side, along what may move.
    start = inputs.clone()
    start[:, :4] -= torch.from_numpy(np.sign(x @ weights)[:, None] * np.sign(weights[:4]) * [1, 4, 1, 4]).float() * 3.0
    margins = Margins(model, decide)
    assert margins.flipped(start, clean).all()
    units = torch.from_numpy(unit).float().expand_as(inputs)
    outside = Outside(lambda points: margins.flipped(points, clean), inputs, units)
    points = along_the_boundary(outside, start, n_rounds=30, rng=np.random.default_rng(1))
    assert margins.flipped(points, clean).all()
    closest = np.abs(x @ weights) / (np.abs(weights) * unit).sum()
    reached = outside.far(points).numpy()
    assert (reached >= closest * (1.0 - 1e-4)).all() and np.median(reached / closest) < 1.1
    assert np.median(outside.far(start).numpy() / closest) > 5.0
    assert (points[:, 4] == inputs[:, 4]).all()


def test_asking_alone_comes_near_the_closed_form_within_its_ball() -> None:
    weights = np.array([1.0, -2.0, 0.5, 3.0])
    x = np.random.default_rng(0).standard_normal((80, 4)).astype(np.float32)
    model, inputs = linear(weights.tolist()), torch.from_numpy(x)
    clean = decide(model.answer(inputs).detach().numpy())
    ball = Ball(torch.tensor([1.0, 1.0, 1.0, 0.0]))
    points, found = search_by_asking(
        model, inputs, clean, decide, ball=ball, level=0.5, n_queries=60, rng=np.random.default_rng(0)
    )
    within = np.abs(x @ weights) < 0.5 * np.abs(weights[:3]).sum()
    np.testing.assert_array_equal(found, within)
    assert ((points - inputs).abs() <= 0.5 * ball.radius + 1e-6).all()
    nothing, none = search_by_asking(
        model, inputs[:0], clean[:0], decide, ball=ball, level=0.5, n_queries=60, rng=np.random.default_rng(0)
    )
    assert nothing.shape == (0, 4) and none.shape == (0,)


class Broken(nn.Module):
    """No number beyond half a unit, and never another decision."""

    def forward(self, x: Tensor) -> Tensor:
        gone = torch.where(x[:, 0].abs() > 0.5, torch.nan, 0.0)
        return torch.stack([gone, 1.0 + gone + x[:, 0]], dim=1)


def test_what_is_no_number_is_no_other_decision() -> None:
    model, x = asked(Broken(), 2), torch.zeros(30, 2)
    clean = np.ones(30, np.int64)
    found = attack(
        model, x, clean, decide, ball=Ball(torch.ones(1)), levels=[1.0], n_steps=5, rng=np.random.default_rng(0)
    )
    _, by_asking = search_by_asking(
        model, x, clean, decide, ball=Ball(torch.ones(1)), level=1.0, n_queries=20, rng=np.random.default_rng(0)
    )
    assert decide(model.answer(x + 0.9).numpy())[0] == 0 and not found.broken.any() and not by_asking.any()
