"""A decision-based attack: walks along the decision boundary towards the input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from probes.robustness.decision_margins import BoolArray

if TYPE_CHECKING:
    from torch import Tensor

# Halvings of the way to the boundary, and of a step that would cross it.
_HALVINGS = 12
_QUESTIONS = 40


@dataclass(frozen=True, eq=False)
class Outside:
    """Candidate points of a decision-based attack, and their original inputs (m, ...).

    ``flipped``: points (m, ...) to (m,) whether each is decided otherwise than its input; ``unit`` (m, ...): how far an
    input moves at a distance of 1, 0 where it may not be touched; ``limits``: the lowest and the highest inputs.
    """

    flipped: Callable[[Tensor], BoolArray]
    inputs: Tensor
    unit: Tensor
    limits: tuple[Tensor, Tensor] | None = None

    def across(self, points: Tensor) -> Tensor:
        """(m,) whether each point is decided differently."""
        import torch

        return torch.from_numpy(self.flipped(points)).to(points.device)

    def far(self, points: Tensor) -> Tensor:
        """(m,) distances, the largest over all inputs that may move."""
        return ((points - self.inputs).abs() / self.unit.masked_fill(self.unit == 0, 1.0)).flatten(1).amax(dim=1)

    def move_points(self, points: Tensor, distance: Tensor, way: Tensor) -> Tensor:
        """The points moved by (m,) distances in a direction of signs, within the limits."""
        import torch

        there = points + spread(distance, points) * self.unit * way
        return there if self.limits is None else torch.minimum(torch.maximum(there, self.limits[0]), self.limits[1])

    def at_boundary(self, points: Tensor) -> Tensor:
        """Differently decided points, moved by bisection into the smallest cube around the input."""
        import torch

        most, best = self.far(points), points
        least = torch.zeros_like(most)
        for _ in range(_HALVINGS):
            half = 0.5 * (most + least)
            reach = spread(half, points) * self.unit
            cut = torch.clamp(points, self.inputs - reach, self.inputs + reach)
            hit = self.across(cut)
            best = torch.where(spread(hit, points), cut, best)
            most, least = torch.where(hit, half, most), torch.where(hit, least, half)
        return best


def spread(values: Tensor, like: Tensor) -> Tensor:
    """(m, 1, ...) of (m,), to be broadcast against ``like`` (m, ...)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def along_the_boundary(outside: Outside, start: Tensor, *, n_rounds: int, rng: np.random.Generator) -> Tensor:
    """The differently decided points (m, ...) nearest to the inputs, from ``start``, which are all such points.

    A round asks on which side of the boundary 40 points around the nearest so far lie, moves towards the side with more
    that are decided otherwise, by a step that is halved until it does not cross back, and cuts the way to the input
    short by halvings; what comes no nearer is not kept. Some 60 questions a round and row. Source: Chen, Jordan and
    Wainwright, HopSkipJumpAttack, IEEE S&P 2020, for the largest distance.
    """
    import torch

    best = outside.at_boundary(start)
    movable = outside.unit != 0
    width = 1.0 / float(max(1, int(movable[:1].sum())) ** 0.5)
    for k in range(n_rounds):
        away = outside.far(best)
        sides, told = [], []
        for _ in range(_QUESTIONS):
            side = torch.from_numpy(rng.choice(np.array([-1.0, 1.0], np.float32), best.shape)).to(best) * movable
            sides.append(side)
            told.append(outside.across(outside.move_points(best, width * away, side)).to(best.dtype))
        answers = torch.stack(told)
        # What all sides share says nothing of a direction.
        answers = answers - answers.mean(dim=0)
        way = torch.zeros_like(best)
        for side, answer in zip(sides, answers, strict=True):
            way += spread(answer, best) * side
        step, there, done = away / (k + 1.0) ** 0.5, best, torch.zeros_like(away, dtype=torch.bool)
        for _ in range(_HALVINGS // 2):
            tried = outside.move_points(best, step, way.sign())
            hit = outside.across(tried)
            there = torch.where(spread(hit & ~done, best), tried, there)
            done, step = done | hit, step * 0.5
            if bool(done.all()):
                break
        there = outside.at_boundary(there)
        best = torch.where(spread(outside.far(there) < outside.far(best), best), there, best)
    return best
