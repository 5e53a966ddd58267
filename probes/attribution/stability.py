"""How far an explanation moves with its input, and how far it is off where several units go at once: captum's metrics.

Sensitivity-max and infidelity: Yeh, Hsieh, Suggala, Inouye and Ravikumar, "On the (in)fidelity and sensitivity of
explanations", NeurIPS 2019.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from auditor.arrays import FloatArray
from auditor.randomness import seeded_globals
from probes.attribution.gradient import Effort
from probes.attribution.methods import explain
from probes.attribution.problem import Problem
from probes.attribution.units import Units

if TYPE_CHECKING:
    from torch import Tensor

N_PERTURBATIONS = 10
# Of the input's range: what nobody would call another input.
RADIUS = 0.02
# Methods that need nothing of a sample but its point and its class.
_OF_POINTS = frozenset({"integrated_gradients", "input_x_gradient", "saliency", "smooth_grad", "deep_lift"})


def infidelity(units: Units, values: FloatArray, rng: np.random.Generator) -> FloatArray:
    """(n,) ``E[(I . a - (f(x) - f(x without I)))^2]`` over random sets I of units, in squared spans of these scores.

    Attributions are first scaled by the best factor for each sample, since many methods have no scale; 0 is ideal and a
    game that is no sum of its units has none. NaN where the scores do not move.
    """
    import torch
    from captum.metrics import infidelity as of_captum

    asked: list[FloatArray] = []

    def forward(keep: Tensor, rows: Tensor) -> Tensor:
        found = units.score(rows.numpy(), keep.numpy() > 0.5)
        asked.append(found)
        return torch.from_numpy(found)

    def perturb(keep: Tensor) -> tuple[Tensor, Tensor]:
        there = keep.numpy() > 0.5
        gone = there & (rng.random(there.shape) < rng.random((len(there), 1)))
        return torch.from_numpy(gone.astype(np.float64)), torch.from_numpy((there & ~gone).astype(np.float64))

    found = of_captum(
        forward,
        perturb,
        torch.from_numpy(units.present.astype(np.float64)),
        torch.from_numpy(np.asarray(values, np.float64)),
        additional_forward_args=(torch.arange(units.n),),
        n_perturb_samples=N_PERTURBATIONS,
        normalize=True,
    ).numpy()
    scores = np.concatenate([part.reshape(units.n, -1) for part in asked], axis=1)
    span = np.ptp(scores, axis=1)
    usable = span > 1e-6 * max(1.0, float(np.abs(scores).max(initial=0.0)))
    return np.asarray(np.where(usable, found / np.where(usable, span, 1.0) ** 2, np.nan), np.float64)


def sensitivity_max(method: str, problem: Problem, rng: np.random.Generator, effort: Effort) -> FloatArray | None:
    """(n,) the largest ``||a(x + e) - a(x)|| / ||a(x)||`` over 10 draws of noise of up to 2 % of the input's range.

    None where the method is not of points (perturbation methods, whole tokens of a text).
    """
    side = problem.differentiable
    if side is None or side.layer is not None or side.begin is None or method not in _OF_POINTS:
        return None
    import torch
    from captum.metrics import sensitivity_max as of_captum

    width = float(side.inputs.max() - side.inputs.min())

    def of_points(given: Tensor | tuple[Tensor, ...]) -> tuple[Tensor]:
        points = given if isinstance(given, torch.Tensor) else given[0]
        times = len(points) // len(side)
        index = torch.arange(len(side)).repeat_interleave(times)
        begin = side.begin
        assert begin is not None
        asked = replace(
            side,
            inputs=points,
            targets=side.targets[index],
            begin=begin[index] if len(begin) == len(side) and len(begin) > 1 else begin,
            present=side.present[index.numpy()],
        )
        values = explain(method, replace(problem, differentiable=asked), rng, effort).values
        return (torch.from_numpy(np.ascontiguousarray(values)),)

    with seeded_globals(rng):
        found: Tensor = of_captum(
            of_points, side.inputs, perturb_radius=RADIUS * width, n_perturb_samples=N_PERTURBATIONS
        )
    return np.asarray(found.double().numpy())
