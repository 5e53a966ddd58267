"""Bounds of networks hold against all that was tried, are what is computed by hand, and a wrong one is noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from auditor.models.networks.architectures import SmallCNN
from auditor.models.networks.layer_chain import NotASequenceError, layers_in_order
from probes.robustness import interval_bounds
from probes.robustness.interval_bounds import Affine, Lines, Maximum, Normalisation, lower_bounds, steps_of
from tests.models.networks.test_sequence import settled
from tests.quantifiers import all_of

torch.set_num_threads(1)

# Operands of products are taken as they are.
EXACT = 0.0


def dense(*activations: nn.Module, wide: int = 8) -> nn.Sequential:
    layers: list[nn.Module] = []
    before = 2
    for activation in activations:
        layers += [nn.Linear(before, wide), activation]
        before = wide
    return nn.Sequential(*layers, nn.Linear(before, 3))


def pictures(*pooling: nn.Module) -> nn.Sequential:
    made = nn.Sequential(
        nn.Conv2d(1, 3, 2, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        *pooling,
        nn.Conv2d(3, 2, 2),
        nn.ReLU(),
        nn.Flatten(),
    )
    return nn.Sequential(made, nn.Linear(made(torch.zeros(2, 1, 4, 4)).shape[1], 3))


def normed(norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 2), norm, nn.ReLU(), nn.MaxPool2d(2, stride=1), nn.Flatten(), nn.Linear(16, 3))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "one layer": (lambda: nn.Sequential(nn.Linear(2, 3)), (2,)),
    "relu": (lambda: dense(nn.ReLU(), nn.ReLU()), (2,)),
    "three": (lambda: dense(nn.ReLU(), nn.ReLU(), nn.ReLU()), (2,)),
    "leaky": (lambda: dense(nn.LeakyReLU(), nn.LeakyReLU(0.3)), (2,)),
    "tanh": (lambda: dense(nn.Tanh(), nn.Tanh()), (2,)),
    "sigmoid": (lambda: dense(nn.Sigmoid(), nn.ReLU()), (2,)),
    "batch norm": (
        lambda: nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 6), nn.ReLU(), nn.BatchNorm1d(6), nn.Linear(6, 3)), (2,)
    ),
    "maxima apart": (lambda: pictures(nn.MaxPool2d(2)), (1, 4, 4)),
    "maxima overlapping": (lambda: pictures(nn.MaxPool2d(2, stride=1, padding=1)), (1, 4, 4)),
    "group norm": (lambda: normed(nn.GroupNorm(2, 4)), (1, 4, 4)),
    "group norm, small eps": (lambda: normed(nn.GroupNorm(4, 4, eps=1e-9, affine=False)), (1, 4, 4)),
    "group norm of columns": (
        lambda: nn.Sequential(nn.Linear(2, 6), nn.GroupNorm(2, 6), nn.ReLU(), nn.Linear(6, 3)), (2,)
    ),
    "small_cnn": (lambda: SmallCNN(1, 3, width=4), (1, 8, 8)),
    "means": (lambda: pictures(nn.AvgPool2d(2, stride=1)), (1, 4, 4)),
}  # fmt: skip


def trained(name: str, seed: int) -> tuple[nn.Module, tuple[int, ...]]:
    """The network with weights large enough that activations bend within a box."""
    torch.manual_seed(seed)
    make, shape = NETWORKS[name]
    network = settled(make())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    return network, shape


def tried(shape: tuple[int, ...], seed: int) -> Tensor:
    """Points of [-1, 1]: of two inputs a grid of 41 x 41, of more the middle of all, random points and corners."""
    if shape == (2,):
        ends = torch.linspace(-1.0, 1.0, 41)
        return torch.cartesian_prod(ends, ends)
    generator = torch.Generator().manual_seed(seed)
    inside = 2.0 * torch.rand(600, *shape, generator=generator) - 1.0
    return torch.cat([torch.zeros(1, *shape), inside, inside.sign()])


def missed_by(name: str, radius: float, seed: int = 0) -> float:
    """By how much the worst output that was found lies below the bound that is said to hold; at most 0 where it holds.

    Sums are single outputs, their negatives and their differences; tried are points and the corners that the bounds
    themselves take for the worst.
    """
    network, shape = trained(name, seed)
    steps = steps_of(layers_in_order(network, pictures=len(shape) == 3), shape, EXACT)
    middle = torch.randn(5, *shape)
    low, high = (middle - radius).double(), (middle + radius).double()
    each = torch.eye(3, dtype=torch.float64)
    sums = torch.cat([each, -each, each - each.roll(1, 0)])
    found = lower_bounds(steps, low, high, sums.unsqueeze(0))
    assert found.least.shape == (5, 9) and bool(found.least.isfinite().all())
    points = (middle.unsqueeze(0) + radius * tried(shape, seed).unsqueeze(1)).double()
    corners = torch.where(found.slopes > 0.0, low.unsqueeze(1), high.unsqueeze(1)).transpose(0, 1)
    points = torch.minimum(torch.maximum(torch.cat([points, corners]).float(), low.float()), high.float())
    with torch.no_grad():
        answers = network(points.flatten(0, 1)).double().reshape(*points.shape[:2], 3)
    return float((found.least - (answers @ sums.T).amin(dim=0)).max())


@pytest.mark.grid
@pytest.mark.parametrize("radius", [0.0, 0.01, 0.2, 1.5])
@pytest.mark.parametrize("name", NETWORKS)
def test_no_input_that_was_tried_lies_outside_of_the_bounds(name: str, radius: float) -> None:
    assert all_of(missed_by(name, radius, seed) <= 0.0 for seed in range(3))


def test_points_have_next_to_no_width() -> None:
    # Each norm of small_cnn may be computed in several ways.
    normed = [name for name in NETWORKS if "group" in name or name == "small_cnn"]
    assert all_of(missed_by(name, 0.0) > (-2e-3 if name in normed else -1e-4) for name in NETWORKS)
    assert missed_by("small_cnn", 0.001) > -0.01


# ---- a fault that is planted is found --------------------------------------------------------------------------------


def chord_without_offset(low: Tensor, high: Tensor, slope: float) -> Lines:
    lines = RELU(low, high, slope)
    return replace(lines, top=torch.zeros_like(lines.top))


def chord_to_the_next(low: Tensor, high: Tensor, slope: float) -> Lines:
    """The chord of the neighbour: an index that is off by one."""
    lines = RELU(low, high, slope)
    return replace(lines, above=lines.above.roll(1, -1))


def below_as_above(low: Tensor, high: Tensor, slope: float) -> Lines:
    lines = RELU(low, high, slope)
    return replace(lines, below=lines.above, floor=lines.top)


def chord_everywhere(low: Tensor, high: Tensor, function: object, slope: object) -> Lines:
    lines = SIGMOID(low, high, function, slope)  # type: ignore[arg-type]
    chord = (torch.tanh(high) - torch.tanh(low)) / (high - low)
    return replace(lines, above=chord, top=torch.tanh(high) - chord * high)


RELU, SIGMOID = interval_bounds._of_relu, interval_bounds._of_sigmoid


@pytest.mark.parametrize(
    ("name", "planted", "network"),
    [
        ("_of_relu", chord_without_offset, "relu"),
        ("_of_relu", chord_to_the_next, "relu"),
        ("_of_relu", below_as_above, "relu"),
        ("_of_sigmoid", chord_everywhere, "tanh"),
    ],
)
def test_a_wrong_relaxation_is_found_by_the_same_check(
    monkeypatch: pytest.MonkeyPatch, name: str, planted: Callable[..., Lines], network: str
) -> None:
    monkeypatch.setattr(interval_bounds, name, planted)
    assert max(missed_by(network, 0.5, seed) for seed in range(3)) > 1e-3


def test_maxima_that_are_taken_to_lead_alone_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Maximum, "_pooled", lambda self, h: _hiding(self, h))
    assert max(missed_by("maxima apart", 0.5, seed) for seed in range(3)) > 1e-3


def _hiding(maximum: Maximum, h: Tensor) -> tuple[Tensor, Tensor]:
    """Of inputs from which the largest were taken away, maxima that nothing reaches."""
    found, where = POOLED(maximum, h)
    return torch.where(torch.isinf(h).any(), torch.full_like(found, -torch.inf), found), where


POOLED = Maximum._pooled


def as_a_point(norm: Normalisation, low: Tensor, high: Tensor) -> interval_bounds._Ranges:
    return RANGES(norm, *2 * [(low + high) / 2.0])


def without_steepness(norm: Normalisation, low: Tensor, high: Tensor) -> interval_bounds._Ranges:
    """The factor is taken to lie nowhere above its tangent."""
    ranges = RANGES(norm, low, high)
    return replace(ranges, smallest=torch.full_like(ranges.smallest, torch.inf))


def without_its_error(norm: Normalisation, low: Tensor, high: Tensor) -> interval_bounds._Ranges:
    """The variance is taken to be computed exactly."""
    ranges = RANGES(norm, low, high)
    return replace(ranges, error=torch.zeros_like(ranges.error))


def test_a_group_norm_that_is_taken_for_its_tangent_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Normalisation, "_ranges", as_a_point)
    assert max(missed_by("group norm of columns", 0.5, seed) for seed in range(3)) > 1e-3


def test_a_factor_that_bends_less_than_it_does_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """``-1 / sqrt((1 + (1 + t)^2) / 2)`` for t from -1/2 to 1/2: the norm of (1, 1 + t, -1 - t, -1)."""
    network = nn.Sequential(nn.Linear(1, 4), nn.GroupNorm(1, 4, affine=False), nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[0.0], [1.0], [-1.0], [0.0]]))
        network[0].bias.copy_(torch.tensor([1.0, 1.0, -1.0, -1.0]))
        network[2].weight.copy_(torch.tensor([[-1.0, 0.0, 0.0, 0.0]]))
    steps, one = steps_of(layers_in_order(network), (1,), EXACT), torch.ones(1, 1, 1, dtype=torch.float64)
    least = -(0.625**-0.5)
    assert least - 0.5 < float(lower_bounds(steps, -0.5 * one[0], 0.5 * one[0], one).least) <= least
    monkeypatch.setattr(Normalisation, "_ranges", without_steepness)
    assert float(lower_bounds(steps, -0.5 * one[0], 0.5 * one[0], one).least) > least + 1e-3


def test_a_variance_whose_rounding_is_left_out_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of squares lose a variance of a ten-thousandth at a mean of 100, and the factor trebles."""
    pattern = torch.ones(1, 4, 8, 8)
    pattern[:, :, ::2] = -1.0
    network = nn.Sequential(nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(256, 1))
    with torch.no_grad():
        network[2].weight.copy_(pattern.flatten(1))
    x = (100.0 + torch.linspace(0.0, 20.0, 60).reshape(-1, 1, 1, 1) + 0.01 * pattern).contiguous(
        memory_format=torch.channels_last
    )
    assert beyond_its_bounds(network, x) == 0
    monkeypatch.setattr(Normalisation, "_ranges", without_its_error)
    assert beyond_its_bounds(network, x) > 0


RANGES = Normalisation._ranges


# ---- by hand ---------------------------------------------------------------------------------------------------------


def one_relu() -> nn.Sequential:
    """``relu(x) - x / 2``, which is ``|x| / 2``, and its negative."""
    network = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0], [1.0]]))
        network[0].bias.copy_(torch.tensor([0.0, 100.0]))
        network[2].weight.copy_(torch.tensor([[1.0, -0.5], [-1.0, 0.5]]))
        network[2].bias.copy_(torch.tensor([50.0, -50.0]))
    return network


@pytest.mark.parametrize(
    ("low", "high", "below", "above"),
    [
        # Below, relu(x) >= x where the box reaches further up, else >= 0; above, its chord from end to end.
        (-1.0, 2.0, -0.5, 1.0),
        (-2.0, 1.0, -0.5, 1.0),
        (-1.0, 1.0, -0.5, 0.5),
        (0.25, 1.0, 0.125, 0.5),
        (-1.0, -0.5, 0.25, 0.5),
        (0.5, 0.5, 0.25, 0.25),
    ],
)
def test_one_relu_by_hand(low: float, high: float, below: float, above: float) -> None:
    steps = steps_of(layers_in_order(one_relu()), (1,), EXACT)
    ends = torch.tensor([[low]], dtype=torch.float64), torch.tensor([[high]], dtype=torch.float64)
    found = lower_bounds(steps, *ends, torch.eye(2, dtype=torch.float64).unsqueeze(0)).least[0]
    # The shift by 100 costs float32 what it rounds.
    assert found.tolist() == pytest.approx([below, -above], abs=1e-4)
    assert found[0] < below and found[1] < -above


def test_a_sum_of_two_inputs_by_hand() -> None:
    """``relu(a + b) + relu(a - b)`` on [-1, 1] x [0, 2]: before them [-1, 3] and [-3, 1], above them the chords."""
    network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
        network[2].weight.copy_(torch.ones(1, 2))
    low, high = torch.tensor([[-1.0, 0.0]]).double(), torch.tensor([[1.0, 2.0]]).double()
    found = lower_bounds(
        steps_of(layers_in_order(network), (2,), EXACT), low, high, torch.tensor([[[1.0], [-1.0]]]).double()
    )
    # 3/4 (a + b + 1) + 1/4 (a - b + 3) = a + b / 2 + 3/2 is at most 7/2; below, a + b + 0 is at least -1.
    assert found.least[0].tolist() == pytest.approx([-1.0, -3.5], abs=1e-5)
    assert found.slopes[0].flatten().tolist() == pytest.approx([1.0, 1.0, -1.0, -0.5], abs=1e-5)


def slow_crown(weights: list[Any], biases: list[Any], low: Any, high: Any, of: int) -> tuple[list[float], list[float]]:
    """Bounds of what layer ``of`` of a ReLU network makes, a number and a layer at a time: the paper's recursion.

    Those of layers on the way are the better ones of these and of intervals.
    """
    ends: list[tuple[list[float], list[float]]] = []
    for i in range(of):
        below, above = slow_crown(weights, biases, low, high, i)
        for unit in range(len(biases[i]) if i else 0):
            ways = [
                sorted((w * max(a, 0.0), w * max(b, 0.0)))
                for w, a, b in zip(weights[i][unit], *ends[i - 1], strict=True)
            ]
            below[unit] = max(below[unit], biases[i][unit] + sum(a for a, _ in ways))
            above[unit] = min(above[unit], biases[i][unit] + sum(b for _, b in ways))
        ends.append((below, above))
    found: tuple[list[float], list[float]] = ([], [])
    for unit in range(len(biases[of])):
        for side, sign in enumerate((1.0, -1.0)):
            row, total = sign * weights[of][unit], sign * biases[of][unit]
            for i in reversed(range(of)):
                new = np.zeros(len(row))
                for j, (a, b) in enumerate(zip(*ends[i], strict=True)):
                    if a >= 0.0:
                        new[j] = row[j]
                    elif b > 0.0 and row[j] > 0.0:
                        new[j] = row[j] if b > -a else 0.0
                    elif b > 0.0:
                        new[j] = row[j] * b / (b - a)
                        total -= new[j] * a
                total += new @ biases[i]
                row = new @ weights[i]
            total += sum(c * (a if c > 0.0 else b) for c, a, b in zip(row, low, high, strict=True))
            found[side].append(sign * total)
    return found


@pytest.mark.parametrize("radius", [0.05, 0.3, 1.0])
def test_linear_bounds_against_the_slow_recursion(radius: float) -> None:
    network, _ = trained("three", 4)
    layers = [m for m in network.modules() if isinstance(m, nn.Linear)]
    weights = [m.weight.detach().double().numpy() for m in layers]
    biases = [m.bias.detach().double().numpy() for m in layers]
    middle = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).double()
    each = torch.eye(3, dtype=torch.float64)
    steps = steps_of(layers_in_order(network), (2,), EXACT)
    found = lower_bounds(steps, middle - radius, middle + radius, torch.cat([each, -each]).unsqueeze(0)).least
    for row, x in zip(found, middle.numpy(), strict=True):
        below, above = slow_crown(weights, biases, x - radius, x + radius, 3)
        assert row.tolist() == pytest.approx([*below, *(-a for a in above)], abs=2e-4, rel=1e-4)


# ---- rounding --------------------------------------------------------------------------------------------------------


def cancelling() -> nn.Sequential:
    """``x``, by way of sums a million times as large, of which float32 loses the last digits."""
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
        network[0].bias.copy_(torch.tensor([1e6, 1e6]))
        network[2].weight.copy_(torch.tensor([[1.0, -1.0]]))
        network[2].bias.zero_()
    return network


def beyond_its_bounds(network: nn.Module, x: Tensor) -> int:
    """How many of the network's float32 answers lie outside of the bounds of the input itself."""
    steps = steps_of(layers_in_order(network), x.shape[1:], EXACT)
    found = lower_bounds(steps, x.double(), x.double(), torch.tensor([[[1.0], [-1.0]]]).double()).least
    with torch.no_grad():
        answers = network(x).double()
    return int(((answers < found[:, :1]) | (answers > -found[:, 1:])).sum())


def test_what_float32_loses_lies_within_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x = torch.rand(500, 2)
    assert beyond_its_bounds(cancelling(), x) == 0
    assert beyond_its_bounds(cancelling().double().float(), x) == 0
    monkeypatch.setattr(Affine, "error", lambda self, h: torch.zeros_like(self.spread(h)))
    assert beyond_its_bounds(cancelling(), x) > 400


@pytest.mark.parametrize("kind", [torch.contiguous_format, torch.channels_last])
def test_a_variance_far_from_its_mean_lies_within_the_bounds(
    kind: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contrast of a thousandth of the brightness, in either layout, which torch sums in ways of its own."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(256, 1))
    x = (100.0 + 0.1 * torch.randn(60, 4, 8, 8)).contiguous(memory_format=kind)
    assert beyond_its_bounds(network, x) == 0
    monkeypatch.setattr(interval_bounds, "_UNIT", 0.0)
    assert beyond_its_bounds(network, x) > 0


@pytest.mark.parametrize("kind", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-6, 1.0, 1e6, 1e12])
def test_groups_that_are_almost_constant_or_huge_lie_within_the_bounds(scale: float, kind: torch.memory_format) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(100, 1))
    for shift in (0.0, 1.0, 1e4):
        x = (shift + scale * torch.randn(40, 4, 5, 5)).contiguous(memory_format=kind)
        assert beyond_its_bounds(network, x) == 0


def test_nothing_is_said_of_a_group_whose_squares_may_overflow() -> None:
    network = nn.Sequential(nn.GroupNorm(1, 4), nn.Linear(4, 1))
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)
    steps, one = steps_of(layers_in_order(network), (4,), EXACT), torch.ones(1, 1, 1, dtype=torch.float64)
    assert bool(lower_bounds(steps, x, x, one).least.isfinite().all())
    assert not bool((lower_bounds(steps, 1e19 * x, 1e19 * x, one).least > -torch.inf).any())


def test_a_group_norm_that_may_divide_by_0_is_refused() -> None:
    with pytest.raises(NotASequenceError, match="GroupNorm"):
        steps_of([nn.GroupNorm(1, 4, eps=0.0)], (4,), EXACT)


def test_wide_sums_in_any_order_lie_within_the_bounds() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(500, 300), nn.ReLU(), nn.Linear(300, 1))
    assert beyond_its_bounds(network, 100.0 * torch.randn(60, 500)) == 0
    assert beyond_its_bounds(network, 1e-38 * torch.randn(60, 500)) == 0


def test_operands_in_a_shorter_format_lie_within_the_bounds_that_are_for_it() -> None:
    """As other devices take products: operands in bfloat16, sums in float32. Sums of more than 256 such are common."""
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Linear(500, 300), nn.ReLU(), nn.Linear(300, 1)), torch.randn(400, 500)
    h = x
    with torch.no_grad():
        for layer in network:
            if isinstance(layer, nn.Linear):
                h = h.bfloat16().float() @ layer.weight.bfloat16().float().T + layer.bias
            else:
                h = layer(h)
    both = torch.tensor([[[1.0], [-1.0]]]).double()
    outside = {}
    for operands in (EXACT, 2.0**-8):
        found = lower_bounds(steps_of(layers_in_order(network), (500,), operands), x.double(), x.double(), both).least
        outside[operands] = int(((h < found[:, :1]) | (h > -found[:, 1:])).sum())
    assert outside[EXACT] > 5 and outside[2.0**-8] == 0


def test_nothing_is_said_where_float32_may_overflow() -> None:
    network = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
    with torch.no_grad():
        network[0].weight.fill_(1e30)
        network[2].weight.fill_(1e-30)
    steps = steps_of(layers_in_order(network), (1,), EXACT)
    one = torch.ones(1, 1, dtype=torch.float64)
    small, large = (
        lower_bounds(steps, one, one, one[None]).least,
        lower_bounds(steps, 1e9 * one, 1e9 * one, one[None]).least,
    )
    assert bool(small.isfinite().all()) and not bool((large > -torch.inf).any())


def test_tiny_weights_that_may_be_taken_as_0_are_within_the_bounds() -> None:
    network = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
    with torch.no_grad():
        network[0].weight.fill_(1e-39)
        network[0].bias.zero_()
        network[2].weight.fill_(1e38)
        network[2].bias.zero_()
    x = torch.ones(1, 1)
    steps = steps_of(layers_in_order(network), (1,), EXACT)
    low, high = lower_bounds(steps, x.double(), x.double(), torch.tensor([[[1.0], [-1.0]]]).double()).least[0]
    # With denormal numbers it answers 0.1, and without them 0.
    assert low <= 0.0 and -high >= 0.1


def test_layers_that_nothing_bounds_are_refused() -> None:
    for layer, shape in ((nn.LeakyReLU(1.5), (2,)), (nn.LeakyReLU(-0.1), (2,)), (nn.Linear(2, 2), (3, 2))):
        with pytest.raises(NotASequenceError):
            steps_of([layer], shape, EXACT)
    reflected = nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")
    with pytest.raises(NotASequenceError, match="Conv2d"):
        steps_of([reflected], (1, 4, 4), EXACT)


def test_layers_too_large_for_linear_bounds_have_interval_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    tight = bound_of("three")
    monkeypatch.setattr(interval_bounds, "_WORK", 0)
    loose = bound_of("three")
    assert bool((loose <= tight + 1e-12).all()) and bool((loose < tight - 1e-3).any())
    assert missed_by("three", 0.2) <= 0.0


def bound_of(name: str) -> Tensor:
    network, shape = trained(name, 0)
    steps = steps_of(layers_in_order(network), shape, EXACT)
    middle = torch.randn(5, *shape, generator=torch.Generator().manual_seed(1)).double()
    return lower_bounds(steps, middle - 0.2, middle + 0.2, torch.eye(3, dtype=torch.float64).unsqueeze(0)).least


def test_columns_that_stay_may_be_taken_out_of_the_first_layer() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    first, *rest = steps_of(layers_in_order(network), (4,), EXACT)
    assert isinstance(first, Affine)
    x, free = torch.randn(7, 4).double(), torch.tensor([False, True, False, True])
    radius = 0.1 * free.double()
    sums = torch.eye(2, dtype=torch.float64).unsqueeze(0)
    whole = lower_bounds((first, *rest), x - radius, x + radius, sums)
    fewer = lower_bounds((first.among(x, free), *rest), x[:, free] - 0.1, x[:, free] + 0.1, sums)
    assert torch.allclose(whole.least, fewer.least, atol=1e-7)
    assert torch.allclose(whole.slopes[..., free], fewer.slopes)
    rows = torch.tensor([5, 2])
    some = lower_bounds(
        (first.among(x, free).subset(rows), *rest), x[rows][:, free] - 0.1, x[rows][:, free] + 0.1, sums
    )
    assert torch.allclose(some.least, fewer.least[rows], atol=1e-12)
