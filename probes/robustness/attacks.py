"""The worst of a ball, as searches find it: what they find is there, and what they do not find may be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from auditor.rows import FloatArray, IntArray
from probes.inputs import differentiating, rows_at_once

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.model.torch_model import DifferentiableModel
    from probes.robustness.ball import Ball

BoolArray = npt.NDArray[np.bool_]
# Steps together reach two and a half times the radius: from any start in the ball to any point of it.
_REACH = 2.5


@dataclass(frozen=True, eq=False)
class Attacked:
    """What a search in balls around n inputs found.

    ``broken`` (n_levels, n): whether another decision was found within ``levels[i]`` of the input; it stays found at
    larger levels, whose balls hold the smaller ones. ``examples`` (n, ...): the input that was found at the least level
    that breaks the row, and the row's own input where none did.
    """

    levels: tuple[float, ...]
    broken: BoolArray
    examples: Tensor


def attack(
    model: DifferentiableModel,
    inputs: Tensor,
    clean: IntArray,
    decide: Callable[[FloatArray], IntArray],
    *,
    ball: Ball,
    levels: Sequence[float],
    n_steps: int,
    rng: np.random.Generator,
) -> Attacked:
    """Inputs near the given ones that are decided otherwise, as projected gradient descent finds them.

    inputs (n, ...) floating point; clean (n,) what is decided on them; levels ascending. ``decide``: (m, k)
    probabilities to (m,) classes. From a start drawn uniformly in the ball, ``n_steps`` steps of
    ``2.5 level radius / n_steps`` along the sign of the gradient of ``z_c - max over j != c of z_j``, c being the clean
    decision and z the logits, each brought back into the ball. An input counts as broken if any point on the way is
    decided otherwise. captum.robust.PGD keeps the last point only and draws from torch's global generator, and so is
    not used.

    Sources: Madry et al., ICLR 2018; the margin as loss: Carlini and Wagner, IEEE S&P 2017.
    """
    import torch

    start = torch.from_numpy(rng.random(inputs.shape, dtype=np.float32)).to(inputs) * 2.0 - 1.0
    broken, examples = np.zeros((len(levels), len(inputs)), np.bool_), inputs.detach().clone()
    with differentiating(model):
        for i, level in enumerate(levels):
            if i:
                broken[i] = broken[i - 1]
            for rows in _slices(inputs):
                at = np.arange(len(inputs))[rows]
                at = at[~broken[i, at]]
                if not at.size:
                    continue
                index = torch.from_numpy(at).to(inputs.device)
                own = inputs[index]
                low, high = ball.around(own, level)
                reach = (level * ball.radius).expand_as(inputs)[index]
                points, found = _descend(
                    model,
                    torch.clamp(own + start[index] * reach, low, high),
                    low,
                    high,
                    reach * (_REACH / n_steps),
                    clean[at],
                    decide,
                    n_steps,
                )
                broken[i, at] = found
                hit = torch.from_numpy(np.flatnonzero(found)).to(inputs.device)
                examples[index[hit]] = points[hit]
    return Attacked(tuple(levels), broken, examples)


def _descend(
    model: DifferentiableModel,
    points: Tensor,
    low: Tensor,
    high: Tensor,
    step: Tensor,
    clean: IntArray,
    decide: Callable[[FloatArray], IntArray],
    n_steps: int,
) -> tuple[Tensor, BoolArray]:
    """The last points (m, ...) on the way from ``points``, and (m,) whether each is decided otherwise than ``clean``.

    The way of a row ends at the first point that is.
    """
    import torch

    found = np.zeros(len(clean), np.bool_)
    reached = points.detach().clone()
    active = np.arange(len(clean))
    for k in range(n_steps + 1):
        points = points.detach().requires_grad_()
        logits = model.logits(points)
        changed = decide(torch.softmax(logits.detach().double(), dim=1).cpu().numpy()) != clean[active]
        found[active[changed]] = True
        hit = torch.from_numpy(changed).to(points.device)
        reached[torch.from_numpy(active[changed]).to(points.device)] = points.detach()[hit]
        if k == n_steps or changed.all():
            break
        classes = torch.from_numpy(clean[active]).to(points.device).unsqueeze(1)
        margin = logits.gather(1, classes).squeeze(1) - logits.scatter(1, classes, -torch.inf).amax(dim=1)
        (gradient,) = torch.autograd.grad(margin.sum(), points)
        moved = torch.clamp(points.detach() - step * gradient.sign(), low, high)
        points, low, high, step = moved[~hit], low[~hit], high[~hit], step[~hit]
        active = active[~changed]
    return reached, found


def _slices(inputs: Tensor) -> Iterator[slice]:
    size = rows_at_once(inputs)
    for i in range(0, len(inputs), size):
        yield slice(i, i + size)
