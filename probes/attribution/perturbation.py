"""Perturbation methods, by captum: score changes after removal of units, for any predictor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.rows import BoolArray, FloatArray, IntArray
from probes.attribution.attribution_units import Attributions
from probes.attribution.gradient import Effort, collected, side_of, unit_names
from probes.coalitions import Score, asked_once

if TYPE_CHECKING:
    from torch import Tensor

    from probes.attribution.attribution_task import Problem

# LIME's own width for texts and images, of a cosine distance that runs from 0 to 1.
_KERNEL_WIDTH = 0.25
# The weight that captum gives the two coalitions which a Shapley value must fit exactly.
_CERTAIN = 1e6
ASKED_AT_ONCE = 1 << 15
_WINDOW = 2


def occlusion(problem: Problem, rng: np.random.Generator, effort: Effort) -> Attributions:
    """``f(x) - f(x without unit i)``; for images a window of 2 x 2 patches slides, and a patch gets its windows' mean.

    Windows may reach over the border, so that every patch lies in four of them.

    Source: Zeiler and Fergus, ECCV 2014; for texts Li, Monroe and Jurafsky, arXiv 1612.08220 (2016).
    """
    import torch
    from captum.attr import FeatureAblation, Occlusion

    units = problem.units
    grid = patch_grid(problem)
    if grid is None:
        values = _ablate(FeatureAblation, units.score, units.n, units.d)
        return played("occlusion", problem, values, "")
    window = (min(_WINDOW, grid[0]), min(_WINDOW, grid[1]))
    down, across = window[0] - 1, window[1] - 1

    def forward(keep: Tensor, rows: Tensor) -> Tensor:
        flat = keep[:, down:, across:][:, : grid[0], : grid[1]].reshape(len(keep), -1).numpy() > 0.5
        return torch.from_numpy(units.score(rows.numpy(), flat))

    rows = torch.arange(units.n)
    per_eval = max(1, ASKED_AT_ONCE // max(units.n, 1))
    found = Occlusion(forward).attribute(
        torch.ones(units.n, grid[0] + 2 * down, grid[1] + 2 * across, dtype=torch.float64),
        sliding_window_shapes=window,
        strides=1,
        baselines=0,
        additional_forward_args=(rows,),
        perturbations_per_eval=per_eval,
    )
    values = found[:, down:, across:][:, : grid[0], : grid[1]].reshape(units.n, -1).numpy()
    return played("occlusion", problem, values, f"a window of {window[0]} x {window[1]} patches")


def feature_ablation(problem: Problem, rng: np.random.Generator, effort: Effort) -> Attributions:
    """``f(x) - f(x with unit i at the baseline)``, where the paths of integrated gradients begin.

    Source: captum's FeatureAblation; the idea is of Zeiler and Fergus, ECCV 2014.
    """
    from captum.attr import FeatureAblation

    side = side_of(problem)
    values = _ablate(FeatureAblation, side.mixed, problem.units.n, problem.units.d)
    return collected("feature_ablation", problem, values * problem.units.present, None, "")


def kernel_shap(problem: Problem, rng: np.random.Generator, effort: Effort) -> Attributions:
    """Shapley values of the units by captum's weighted regression over random coalitions; the sum is exact.

    A coalition's size k of d units has probability in proportion to ``(d - 1) / (k (d - k))``; the empty and the whole
    one weigh a million times as much. Source: Lundberg and Lee, NeurIPS 2017.
    """

    def draws(d: int) -> tuple[BoolArray, FloatArray]:
        n = max(effort.perturbations(d), 4) - 2
        sizes = np.arange(1, d)
        chance = 1.0 / (sizes * (d - sizes))
        order = rng.random((n, d)).argsort(axis=1).argsort(axis=1)
        keep = order < rng.choice(sizes, size=n, p=chance / chance.sum())[:, None]
        ends = np.stack([np.ones(d, bool), np.zeros(d, bool)])
        return np.concatenate([ends, keep]), np.append([_CERTAIN, _CERTAIN], np.ones(n))

    values = each_sample(problem, _regression(0.0, draws))
    return played(
        "kernel_shap", problem, values, f"{effort.perturbations(problem.units.d)} coalitions a sample at most"
    )


def lime(problem: Problem, rng: np.random.Generator, effort: Effort) -> Attributions:
    """Coefficients of a ridge regression of the score on kept units, near the whole sample.

    Units are kept or not by fair coins; weight ``exp(-D^2 / (2 * 0.25^2))`` by cosine distance D from the whole; ridge
    penalty 1. Source: Ribeiro, Singh and Guestrin, KDD 2016.
    """

    def draws(d: int) -> tuple[BoolArray, FloatArray]:
        keep = rng.random((effort.perturbations(d), d)) < 0.5
        distance = 1.0 - np.sqrt(keep.mean(axis=1))
        return keep, np.exp(-(distance**2) / (2.0 * _KERNEL_WIDTH**2))

    values = each_sample(problem, _regression(1.0, draws))
    return played("lime", problem, values, f"{effort.perturbations(problem.units.d)} perturbations a sample at most")


class Linear:
    """Weighted ridge regression with an intercept, with captum's interface for LimeBase."""

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty
        self.coefficients = np.empty(0)

    def fit(self, loader: Any) -> None:
        """Fit on all of a loader's rows at once: captum's own models fetch them one by one."""
        X, y, w = (t.double().numpy() for t in loader.dataset.tensors)
        root = np.sqrt(w / w.sum())
        X, y = X - root**2 @ X, y - root**2 @ y
        if self.penalty:
            gram = (X * w[:, None]).T @ X + self.penalty * np.eye(X.shape[1])
            self.coefficients = np.linalg.solve(gram, X.T @ (w * y))
        else:
            self.coefficients = np.linalg.lstsq(X * root[:, None], y * root, rcond=None)[0]

    def representation(self) -> Tensor:
        """(1, d) coefficients."""
        import torch

        return torch.from_numpy(self.coefficients[None, :])


def _regression(
    penalty: float, draws: Callable[[int], tuple[BoolArray, FloatArray]]
) -> Callable[[Callable[[Tensor], Tensor], int], FloatArray]:
    """Explains one sample by captum's LimeBase: a linear model of the score on drawn and weighted coalitions.

    The draws are made at once: captum's own generators take half a millisecond for each.
    """
    import torch
    from captum.attr import LimeBase

    def explain(forward: Callable[[Tensor], Tensor], d: int) -> FloatArray:
        keep, weights = draws(d)
        coalitions = torch.from_numpy(keep.astype(np.float32)).unsqueeze(1)

        def one_by_one(whole: Tensor, **options: object) -> Iterator[Tensor]:
            yield from coalitions

        nearness = iter(torch.from_numpy(weights.astype(np.float32)).unsqueeze(1))
        method = LimeBase(
            forward,
            Linear(penalty),
            similarity_func=lambda whole, asked, coalition, **options: next(nearness),
            perturb_func=one_by_one,
            perturb_interpretable_space=True,
            from_interp_rep_transform=lambda coalition, whole, **options: coalition,
            to_interp_rep_transform=None,
        )
        found = method.attribute(torch.ones(1, d), n_samples=len(keep), perturbations_per_eval=len(keep))
        return np.asarray(found.reshape(-1).double().numpy())

    return explain


def patch_grid(problem: Problem) -> tuple[int, int] | None:
    """Rows and columns of patches; None if units are not patches."""
    if problem.units.kind != "patch" or not problem.units.n:
        return None
    last = problem.units.names[0][-1].replace(",", "").split()
    return int(last[1]), int(last[3])


def each_sample(problem: Problem, explain: Callable[[Callable[[Tensor], Tensor], int], FloatArray]) -> FloatArray:
    """(n, d) of methods that fit one model a sample: ``explain(forward, n_present)`` over its present units alone."""
    import torch

    units = problem.units
    values = np.zeros((units.n, units.d))
    for i in range(units.n):
        there = np.flatnonzero(units.present[i])
        ask = asked_once(units.score)

        def among(keep: BoolArray, i: int = i, columns: IntArray = there, ask: Score = ask) -> FloatArray:
            whole = np.zeros((len(keep), units.d), bool)
            whole[:, columns] = keep
            return ask(np.full(len(keep), i), whole)

        def forward(keep: Tensor, among: Callable[[BoolArray], FloatArray] = among) -> Tensor:
            return torch.from_numpy(among(keep.numpy() > 0.5))

        if len(there) == 1:
            values[i, there] = -np.diff(among(np.asarray([[True], [False]])))
        elif len(there):
            values[i, there] = explain(forward, len(there))
    return values


def _ablate(method: Any, score: Callable[[IntArray, BoolArray], FloatArray], n: int, d: int) -> FloatArray:
    """(n, d) drop of a score without each unit, one after another."""
    import torch

    def forward(keep: Tensor, rows: Tensor) -> Tensor:
        return torch.from_numpy(score(rows.numpy(), keep.numpy() > 0.5))

    if not n or not d:
        return np.zeros((n, d))
    found = method(forward).attribute(
        torch.ones(n, d, dtype=torch.float64),
        baselines=0,
        additional_forward_args=(torch.arange(n),),
        perturbations_per_eval=max(1, ASKED_AT_ONCE // n),
    )
    return np.asarray(found.numpy())


def played(method: str, problem: Problem, values: FloatArray, note: str) -> Attributions:
    """Attributions with the scores of whole samples and of samples without any unit."""
    units = problem.units
    outputs, base = (units.score(np.arange(units.n), np.full((units.n, units.d), keep)) for keep in (True, False))
    words = [f"explains {units.output}", f"in place of a unit: {units.infill}"]
    return Attributions(
        method=method,
        values=values * units.present,
        ends=lambda: (outputs, base),
        units=unit_names(problem),
        detail="; ".join([*words, *([note] if note else [])]),
    )
