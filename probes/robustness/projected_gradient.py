"""Projected gradient descent with momentum and step halving when progress stops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from auditor.core.rows import IntArray
from probes.robustness.decision_margins import BoolArray, Margins
from probes.robustness.perturbation_set import snapped

if TYPE_CHECKING:
    from torch import Tensor

# Of Croce and Hein: how much of a step is new, the first check and how the time between checks shrinks, in shares of
# all steps, and the share of steps that must help for the step to stay.
_NEW = 0.75
_FIRST, _SHORTER, _LEAST = 0.22, 0.03, 0.06
_HELPFUL = 0.75


def descend(
    margins: Margins,
    start: Tensor,
    low: Tensor,
    high: Tensor,
    clean: IntArray,
    n_steps: int,
    targets: Tensor | None = None,
    *,
    whole: Tensor | None = None,
) -> tuple[Tensor, Tensor, BoolArray]:
    """The best points (m, ...) of a descent from ``start``, their margins (m,), and (m,) whether it succeeded.

    Within ``low`` and ``high`` (m, ...), along the sign of the margin's gradient, the first step as wide as the ball,
    with momentum; a row's step halves, and it goes back to its best point, at checks where too few steps helped. The
    way of a row ends at the first point that is decided otherwise. ``targets``: as of
    :meth:`~probes.robustness.decision_margins.Margins.ask`. ``whole``: the steps of
    :func:`~probes.robustness.perturbation_set.snapped`; the model is asked about whole values alone, and its gradient
    there moves the fractions behind them. Source: Croce and Hein, ICML 2020 (Auto-PGD), with the margin as loss
    (Carlini and Wagner, IEEE S&P 2017).
    """
    import torch

    found = np.zeros(len(clean), np.bool_)
    reached = snapped(start.detach(), low, whole).clone()
    active = np.arange(len(clean))
    points = start.detach().clone()
    before = points
    step = high - low
    best, at_best, way = torch.full((len(clean),), torch.inf), snapped(points, low, whole), torch.zeros_like(points)
    best = best.to(points.device)
    least, helped = best.clone(), torch.zeros_like(best)
    halved, best_then = torch.ones_like(best, dtype=torch.bool), best.clone()
    shape = (-1, *[1] * (points.ndim - 1))
    check, since, interval = max(1, int(_FIRST * n_steps)), 0, max(1, int(_FIRST * n_steps))
    for k in range(n_steps + 1):
        here = snapped(points, low, whole)
        asked = margins.ask(here, clean[active], targets)
        margin = asked.margin.to(best.dtype)
        better = margin < best
        gradient = asked.gradient.sign().to(points.dtype)
        nearest = better | torch.from_numpy(asked.flipped).to(better.device)
        at_best = torch.where(nearest.reshape(shape), here, at_best)
        way = torch.where(better.reshape(shape), gradient, way)
        best = torch.where(better, margin, best)
        helped = helped + better
        rows = torch.from_numpy(active).to(points.device)
        reached[rows], least[rows] = at_best, best
        found[active[asked.flipped]] = True
        if k == n_steps or asked.flipped.all():
            break
        if asked.flipped.any():
            kept = torch.from_numpy(~asked.flipped).to(points.device)
            active = active[~asked.flipped]
            points, before, low, high, step, at_best, way, gradient = (
                t[kept] for t in (points, before, low, high, step, at_best, way, gradient)
            )
            best, helped, halved, best_then = (t[kept] for t in (best, helped, halved, best_then))
            targets = None if targets is None else targets[kept]
        since += 1
        if since == check and k:
            stuck = (helped < _HELPFUL * since) | (~halved & (best_then <= best))
            back = stuck.reshape(shape)
            step = torch.where(back, step * 0.5, step)
            points, gradient = torch.where(back, at_best, points), torch.where(back, way, gradient)
            before = torch.where(back, at_best, before)
            halved, best_then, helped, since = stuck, best.clone(), torch.zeros_like(helped), 0
            interval = max(interval - int(_SHORTER * n_steps), max(1, int(_LEAST * n_steps)))
            check = interval
        aim = torch.clamp(points - step * gradient, low, high)
        new = _NEW if k else 1.0
        moved = torch.clamp(points + new * (aim - points) + (1.0 - new) * (points - before), low, high)
        before, points = points, moved
    return reached, least, found
