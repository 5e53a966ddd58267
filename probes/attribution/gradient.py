"""Gradient methods, by captum: gradients of log-odds at encoded columns, pixels, or embedded tokens."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from auditor.core.errors import NotApplicableError
from auditor.core.randomness import seeded_globals
from auditor.core.rows import FloatArray, IntArray
from probes.attribution.attribution_units import (
    FLAT,
    Attributions,
    Chunk,
    Differentiable,
    completeness_errors,
    output_range,
    scored,
)
from probes.probe_inputs import differentiating, rows_at_once

if TYPE_CHECKING:
    from torch import Tensor

    from probes.attribution.attribution_task import Problem

# Half of what the built-in profile allows, so that the error left over by the steps alone does not decide a judgement.
STEP_TOLERANCE = 0.005
_LINE_POINTS = 32


@dataclass(frozen=True, kw_only=True)
class Effort:
    """The amount of work allowed per sample and method.

    n_steps: of a path integral, doubled up to ``max_steps`` for samples that miss completeness by more than half a per
    cent. n_noise: noisy copies, or draws along paths. noise: their standard deviation, as a share of the input's range.
    n_perturbations: scores asked for one sample by kernel_shap, shap_kernel and lime; by default 64 plus two a unit.
    n_permutations: walks through the units by shap_permutation; repeats by permutation_importance.
    """

    n_steps: int = 50
    max_steps: int = 400
    n_noise: int = 20
    noise: float = 0.15
    n_perturbations: int | None = None
    n_permutations: int = 2

    def perturbations(self, n_units: int) -> int:
        """The number of scores to request for one sample of so many units."""
        return 2 * n_units + 64 if self.n_perturbations is None else self.n_perturbations


def saliency(problem: Problem, rng: np.random.Generator, effort: Effort) -> Attributions:
    """``|df/dx|``, the Euclidean norm over a unit: the largest slope within it, without a sign.

    Source: Simonyan, Vedaldi and Zisserman, ICLR 2014 workshop.
    """
    from captum.attr import Saliency

    side = side_of(problem)

    def attribute(chunk: Chunk) -> Tensor:
        found: Tensor = Saliency(side.score).attribute(
            _leaf(chunk.end), abs=False, additional_forward_args=chunk.arguments
        )
        return found

    return _collect("saliency", problem, attribute, reduction="norm", note="the norm of the gradient over each unit")


def input_x_gradient(problem: Problem, rng: np.random.Generator, effort: Effort) -> Attributions:
    """``x df/dx``; for texts the embedding times its gradient.

    Source: Shrikumar, Greenside, Shcherbina and Kundaje, arXiv 1605.01713 (2016).
    """
    from captum.attr import InputXGradient

    side = side_of(problem)

    def attribute(chunk: Chunk) -> Tensor:
        found: Tensor = InputXGradient(side.score).attribute(_leaf(chunk.end), additional_forward_args=chunk.arguments)
        return found

    return _collect("input_x_gradient", problem, attribute)


def smooth_grad(problem: Problem, rng: np.random.Generator, effort: Effort) -> Attributions:
    """Saliency of the gradient averaged over noisy copies, ``noise`` times the input's range in standard deviation.

    Source: Smilkov, Thorat, Kim, Viegas and Wattenberg, arXiv 1706.03825 (2017).
    """
    from captum.attr import NoiseTunnel, Saliency

    side = side_of(problem)
    spread = effort.noise * _range(problem, side)
    tunnel = NoiseTunnel(Saliency(side.score))

    def attribute(chunk: Chunk) -> Tensor:
        found: Tensor = tunnel.attribute(
            _leaf(chunk.end),
            nt_type="smoothgrad",
            nt_samples=effort.n_noise,
            nt_samples_batch_size=side.copies_at_once(chunk, effort.n_noise),
            stdevs=spread,
            abs=False,
            additional_forward_args=chunk.arguments,
        )
        return found

    note = f"{effort.n_noise} noisy copies with a standard deviation of {spread:.3g}"
    with seeded_globals(rng):
        return _collect("smooth_grad", problem, attribute, reduction="norm", times=effort.n_noise, note=note)


def gradient_shap(problem: Problem, rng: np.random.Generator, effort: Effort) -> Attributions:
    """``(x - b) df/dx`` at random points between x and random baselines b, averaged: expected gradients.

    Baselines are the background rows of a table; elsewhere the one at which the paths of integrated gradients begin.
    Complete in expectation only. Sources: Lundberg and Lee, NeurIPS 2017; Erion et al., Nature Machine Intelligence
    2021.
    """
    import torch
    from captum.attr import GradientShap

    side = side_of(problem)
    table = problem.sample.modality == "tabular"
    rows = side.model.encode(problem.background.X).detach() if table else None

    def along(steps: Tensor, start: Tensor, *arguments: Tensor) -> Tensor:
        return side.score(start + steps, *arguments)

    def attribute(chunk: Chunk) -> Tensor:
        # Every sample has a start of its own, and captum draws baselines for all samples alike: as steps from the
        # start, all begin at zero.
        inside = chunk.start if rows is None else torch.zeros_like(chunk.start)
        total = torch.zeros_like(chunk.end)
        each = side.copies_at_once(chunk, effort.n_noise)
        for done in range(0, effort.n_noise, each):
            draws = min(each, effort.n_noise - done)
            found: Tensor = GradientShap(along).attribute(
                _leaf(chunk.end - inside),
                baselines=torch.zeros_like(chunk.end[:1]) if rows is None else rows,
                n_samples=draws,
                additional_forward_args=(inside, *chunk.arguments),
            )
            total += found.detach() * draws / effort.n_noise
        return total

    note = f"{effort.n_noise} draws along the paths"
    with seeded_globals(rng):
        explained = _collect("gradient_shap", problem, attribute, times=effort.n_noise, note=note)
    if rows is None:
        return explained
    base = np.empty(len(problem))
    for c in np.unique(problem.classes):
        targets = torch.full((len(rows),), int(c), device=rows.device)
        scores = scored(side.model, lambda part: rows[part], targets, len(rows), rows_at_once(rows))
        base[problem.classes == c] = scores.mean()
    words = f"baseline: {len(rows):,} encoded background rows"
    return Attributions(
        method="gradient_shap",
        values=explained.values,
        ends=lambda: (explained.outputs, base),
        units=explained.units,
        detail=f"explains {problem.units.output}; {words}; {note}",
    )


def deep_lift(problem: Problem, rng: np.random.Generator, effort: Effort) -> Attributions:
    """Differences from the baseline passed back through each nonlinearity by the rescale rule.

    The log-odds of more than two classes are no module that a rule could be for: their multipliers are the gradient
    averaged along the line between the logits, which adds up. Only modules have rules: a network that calls functions,
    recurrent layers, normalisation or attention in between breaks completeness, which is measured. Source: Shrikumar,
    Greenside and Kundaje, ICML 2017.
    """
    import torch
    from captum.attr import DeepLift
    from torch import nn

    side = side_of(problem)

    class Weighted(nn.Module):
        """A weighted sum of logits: linear, so that every rule lies within the model."""

        def __init__(self) -> None:
            super().__init__()
            self.module = side.model.module

        def forward(self, points: Tensor, weights: Tensor, *extra: Tensor) -> Tensor:
            return (side.logits(points, *extra) * weights).sum(dim=1)

    def attribute(chunk: Chunk) -> Tensor:
        with torch.no_grad():
            ends, starts = (side.logits(x, *chunk.extra) for x in (chunk.end, chunk.start))
        weights = line_multipliers(ends, starts, chunk.targets)
        with fitting("deep_lift"):
            found: Tensor = DeepLift(Weighted()).attribute(
                _leaf(chunk.end), baselines=chunk.start, additional_forward_args=(weights, *chunk.extra)
            )
        return found

    return _collect("deep_lift", problem, attribute, times=2)


def line_multipliers(ends: Tensor, starts: Tensor, targets: Tensor) -> Tensor:
    """(m, k) gradient of the log-odds averaged along the line between logits (m, k): times the difference, it sums."""
    import torch

    if ends.shape[1] == 2:
        sign = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=ends.dtype, device=ends.device)
        return sign[targets]
    nodes, weights = np.polynomial.legendre.leggauss(_LINE_POINTS)
    total = torch.zeros_like(ends)
    others = torch.zeros_like(ends).scatter(1, targets.unsqueeze(1), -torch.inf)
    for node, weight in zip(nodes, weights, strict=True):
        at = starts + (ends - starts) * (node + 1.0) / 2.0
        total -= torch.softmax(at + others, dim=1) * weight / 2.0
    return total.scatter(1, targets.unsqueeze(1), 1.0)


def integrated_gradients(problem: Problem, rng: np.random.Generator, effort: Effort) -> Attributions:
    """``(x_i - b_i) * integral over t in [0, 1] of df/dx_i(b + t (x - b))``, by Gauss-Legendre steps.

    Samples whose completeness error exceeds ``STEP_TOLERANCE`` are integrated again with twice the steps, up to
    ``max_steps``. Source: Sundararajan, Taly and Yan, ICML 2017.
    """
    side = side_of(problem)
    outputs, base = side.ends
    n = len(side)
    values = np.zeros((n, problem.units.d))
    fine: FloatArray | None = None
    steps = np.zeros(n, np.int64)
    if output_range(outputs, base):
        steps[:] = effort.n_steps
        values, fine = _integrate(side, np.arange(n), effort.n_steps)
        while True:
            errors = completeness_errors(values.sum(axis=1), outputs, base)
            again = np.flatnonzero((errors > STEP_TOLERANCE) & (steps < effort.max_steps))
            if not again.size:
                break
            count = min(2 * int(steps[again].max()), effort.max_steps)
            values[again], finer = _integrate(side, again, count)
            if fine is not None and finer is not None:
                fine[again] = finer
            steps[again] = count
    used = [f"{k} steps for {int((steps == k).sum())} samples" for k in np.unique(steps).tolist() if k]
    return collected("integrated_gradients", problem, values, fine, "; ".join(used))


def _integrate(side: Differentiable, rows: IntArray, n_steps: int) -> tuple[FloatArray, FloatArray | None]:
    from captum.attr import IntegratedGradients

    explainer = IntegratedGradients(side.score)
    explainer.gradient_func = _gradients

    def attribute(chunk: Chunk) -> Tensor:
        found: Tensor = explainer.attribute(
            chunk.end,
            baselines=chunk.start,
            additional_forward_args=chunk.arguments,
            n_steps=n_steps,
            method="gausslegendre",
            internal_batch_size=side.rows_at_once,
        )
        return found

    return by_chunks(side, attribute, rows=rows)


def _gradients(
    forward_fn: Callable[..., Tensor],
    inputs: tuple[Tensor, ...],
    target_ind: object = None,
    additional_forward_args: tuple[Tensor, ...] = (),
) -> tuple[Tensor, ...]:
    """captum's gradients by one backward pass from the sum, which is the same, since no score depends on another point.

    captum passes every score back by itself, which for small networks takes longer than the network.
    """
    import torch

    with torch.enable_grad():
        total = forward_fn(*inputs, *additional_forward_args).sum()
    return torch.autograd.grad(total, inputs)


def side_of(problem: Problem) -> Differentiable:
    """The differentiable side; NotApplicableError with the reason if there is none."""
    if problem.differentiable is None:
        raise NotApplicableError(f"Gradient methods need a model that can be differentiated: {problem.why_not}")
    return problem.differentiable


def without_gradient(problem: Problem) -> str:
    """The reason why a task is not differentiable; empty if it is."""
    return "" if problem.differentiable is not None else problem.why_not


def flat(problem: Problem) -> str:
    """The reason why gradients are useless for a varying score: 0 at all tested points; empty otherwise."""
    return FLAT if side_of(problem).flat else ""


def by_chunks(
    side: Differentiable,
    attribute: Callable[[Chunk], Tensor],
    *,
    reduction: Literal["sum", "norm"] = "sum",
    times: int = 1,
    rows: IntArray | None = None,
) -> tuple[FloatArray, FloatArray | None]:
    """(n, d) attributions of all or some samples, and per pixel where they are images, in pieces that fit memory."""
    values: list[FloatArray] = [np.zeros((0, side.present.shape[1]))]
    maps: list[FloatArray] = []
    with differentiating(side.model):
        for some, chunk in side.chunks(rows, times=times):
            found = attribute(chunk)
            values.append(side.reduce(found, some, reduction))
            fine = side.fine(found, reduction)
            if fine is not None:
                maps.append(fine)
    return np.concatenate(values), np.concatenate(maps) if maps else None


def _collect(
    method: str,
    problem: Problem,
    attribute: Callable[[Chunk], Tensor],
    *,
    reduction: Literal["sum", "norm"] = "sum",
    times: int = 1,
    note: str = "",
) -> Attributions:
    values, fine = by_chunks(side_of(problem), attribute, reduction=reduction, times=times)
    return collected(method, problem, values, fine, note)


def collected(method: str, problem: Problem, values: FloatArray, fine: FloatArray | None, note: str) -> Attributions:
    """Attributions with the scores of the samples and of their paths' starts."""
    side = side_of(problem)
    words = [f"explains {problem.units.output}", f"baseline: {side.baseline}"]
    return Attributions(
        method=method,
        values=values,
        ends=lambda: side.ends,
        units=unit_names(problem),
        detail="; ".join([*words, *([note] if note else [])]),
        fine=fine,
    )


def unit_names(problem: Problem) -> tuple[str, ...]:
    """Names that are the same for all samples; empty for texts."""
    return problem.units.names[0] if problem.units.n and problem.units.kind in ("feature", "patch") else ()


def _leaf(points: Tensor) -> Tensor:
    """Points that captum need not make differentiable, of which it would warn."""
    return points.detach().clone().requires_grad_()


def _range(problem: Problem, side: Differentiable) -> float:
    """The input's range: of a table's columns over the samples, else of a sample over its elements; averaged."""
    points = side.inputs if side.layer is None else side.chunk(np.arange(min(len(side), 64))).end
    flat = points.reshape(len(points), -1)
    axis = 0 if problem.sample.modality == "tabular" else 1
    return float((flat.amax(dim=axis) - flat.amin(dim=axis)).mean())


@contextmanager
def fitting(method: str) -> Iterator[None]:
    """Context that silences captum's messages, and turns its network errors into advice."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"(?s)Setting (forward, )?backward hooks")
            yield
    except (RuntimeError, AssertionError, AttributeError, IndexError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise NotApplicableError(
            f"{method} has no rule for how this network is built ({first}): ask for integrated_gradients."
        ) from error
