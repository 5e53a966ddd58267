"""Stability of an explanation under input noise, and infidelity when several units change: captum's metrics.

Sensitivity-max and infidelity: Yeh, Hsieh, Suggala, Inouye and Ravikumar, "On the (in)fidelity and sensitivity of
explanations", NeurIPS 2019. What is not of points is asked again about rows with noise in them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.randomness import seeded_globals
from auditor.core.rows import FloatArray
from probes.attribution.attribution_task import Problem
from probes.attribution.attribution_units import Units
from probes.attribution.gradient import Effort
from probes.attribution.methods import METHODS, explain

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.core.rows import Rows
    from auditor.data.audit_data import AuditData

N_PERTURBATIONS = 10
# Draws of noise in the rows themselves, where a question has to be put anew for each.
N_NOISY = 3
# Of the input's range: what nobody would call another input.
RADIUS = 0.02
_VALUES_AT_ONCE = 1 << 24
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


@dataclass(frozen=True, eq=False, kw_only=True)
class Stability:
    """``values`` (n,): sensitivity of each sample's explanation, NaN if it is 0 throughout; ``noise``: in words."""

    values: FloatArray
    noise: str


def stability(method: str, problem: Problem, rng: np.random.Generator, effort: Effort) -> Stability | None:
    """The largest ``||a(x + e) - a(x)|| / ||a(x)||`` over draws of small noise e, for any method of any modality.

    Points, such as encoded columns, pixels or embedded tokens, get captum's noise: see :func:`sensitivity_max`. For
    methods that are not of points the rows get it: see :func:`noisy`; texts, whose words have moved then, are compared
    by the sums over equal words. None for a method of all samples at once, and where the question is of these only.
    """
    values = sensitivity_max(method, problem, rng, effort)
    if values is not None:
        what = {"tabular": "encoded columns", "text": "embedded tokens", "image": "pixels"}[problem.sample.modality]
        return Stability(
            values=values, noise=f"noise of up to {RADIUS:.0%} of the range of {what}, {N_PERTURBATIONS} draws"
        )
    if problem.again is None or METHODS[method].scope == "global":
        return None
    seed = int(rng.integers(2**62))

    def measure_sample(sample: AuditData) -> list[dict[object, float]]:
        # The same draws each time, so that what differs is due to the input.
        own = np.random.default_rng(seed)
        assert problem.again is not None
        return _by_name(problem.again(sample, own), method, own, effort)

    plain = measure_sample(problem.sample)
    moved = [measure_sample(noisy(problem.sample, rng)) for _ in range(N_NOISY)]
    found = [max(_distance(a, b) for b in others) for a, *others in zip(plain, *moved, strict=True)]
    return Stability(values=np.asarray(found, np.float64), noise=f"{_NOISE[problem.sample.modality]}, {N_NOISY} draws")


_NOISE = {
    "tabular": f"noise of up to {RADIUS:.0%} of the range of each column of numbers",
    "text": "two neighbouring words exchanged",
    "image": f"noise of up to {RADIUS:.0%} of the brightness",
}


def _by_name(problem: Problem, method: str, rng: np.random.Generator, effort: Effort) -> list[dict[object, float]]:
    """Each sample's attributions by feature or patch, or summed over equal words."""
    values, units = explain(method, problem, rng, effort).values, problem.units
    if units.kind in ("feature", "patch"):
        return [dict(enumerate(row)) for row in values.tolist()]
    found: list[dict[object, float]] = []
    for row, names, there in zip(values.tolist(), units.names, units.present.tolist(), strict=True):
        sums: dict[object, float] = {}
        for value, name, is_there in zip(row, names, there, strict=True):
            if is_there:
                sums[name] = sums.get(name, 0.0) + value
        found.append(sums)
    return found


def _distance(a: dict[object, float], b: dict[object, float]) -> float:
    own = np.sqrt(sum(v * v for v in a.values()))
    apart = np.sqrt(sum((a.get(k, 0.0) - b.get(k, 0.0)) ** 2 for k in a.keys() | b.keys()))
    return float(apart / own) if own else float("nan")


def noisy(sample: AuditData, rng: np.random.Generator) -> AuditData:
    """The rows with noise that does not change their meaning for a reader.

    Tables: each column of numbers moves by up to 2 % of its range, uniformly, and stays within it; whole numbers stay
    whole, levels and missing values as they are. Images: by up to 2 % of the largest brightness. Texts: two
    neighbouring words change places.
    """
    if sample.modality == "tabular":
        return replace(sample, X=_noisy_table(sample, rng))
    if sample.modality == "text":
        return replace(sample, X=np.asarray([_exchanged(str(t), rng) for t in sample.X], object))
    pixels = np.asarray(sample.X)
    top = 255.0 if pixels.dtype == np.uint8 else float(pixels.max(initial=0.0))
    moved = np.clip(pixels + rng.uniform(-RADIUS, RADIUS, pixels.shape) * top, pixels.min(initial=0), top)
    return replace(sample, X=(moved.round() if pixels.dtype == np.uint8 else moved).astype(pixels.dtype))


def _noisy_table(sample: AuditData, rng: np.random.Generator) -> Rows:
    import pandas as pd

    from probes.probe_inputs import as_frame

    frame = as_frame(sample.X)
    moving = [i for i, kind in enumerate(frame.dtypes) if kind.kind in "iuf" and not frame.iloc[:, i].isna().all()]
    numbers = frame.iloc[:, moving].to_numpy(np.float64)
    low, high = np.nanmin(numbers, axis=0, initial=np.inf), np.nanmax(numbers, axis=0, initial=-np.inf)
    # One column after another, as they stand.
    numbers = numbers + rng.uniform(-RADIUS, RADIUS, numbers.shape[::-1]).T * (high - low)
    kept = np.clip(numbers, low, high)
    whole = [frame.dtypes.iloc[i].kind in "iu" for i in moving]
    kept[:, whole] = kept[:, whole].round()
    columns = {i: frame.iloc[:, i] for i in range(frame.shape[1])}
    columns |= {i: pd.Series(kept[:, j], frame.index).astype(frame.dtypes.iloc[i]) for j, i in enumerate(moving)}
    frame = pd.DataFrame(columns).set_axis(frame.columns, axis=1)
    return frame if hasattr(sample.X, "columns") else frame.to_numpy()


def _exchanged(text: str, rng: np.random.Generator) -> str:
    words = text.split(" ")
    if len(words) < 2:
        return text
    i = int(rng.integers(len(words) - 1))
    words[i], words[i + 1] = words[i + 1], words[i]
    return " ".join(words)


def sensitivity_max(method: str, problem: Problem, rng: np.random.Generator, effort: Effort) -> FloatArray | None:
    """(n,) the largest ``||a(x + e) - a(x)|| / ||a(x)||`` over 10 draws of noise of up to 2 % of the points' range.

    The points of a text are its embedded tokens. None where the method is not of points.
    """
    side = problem.differentiable
    if side is None or method not in _OF_POINTS:
        return None
    import torch
    from captum.metrics import sensitivity_max as of_captum

    own = side.points
    width = float(own.max() - own.min())

    def of_points(tensors: Tensor | tuple[Tensor, ...]) -> tuple[Tensor]:
        points = tensors if isinstance(tensors, torch.Tensor) else tensors[0]
        times = len(points) // len(side)
        index = torch.arange(len(side)).repeat_interleave(times)
        places = side.places
        begin = side.begin
        if side.layer is None:
            assert begin is not None
            inputs, shift = points, None
            begin = begin[index] if len(begin) == len(side) and len(begin) > 1 else begin
        else:
            inputs, shift, places = side.inputs[index], points - own[index], places[index.numpy()]
        asked = replace(
            side,
            inputs=inputs,
            targets=side.targets[index],
            begin=begin,
            held=None if side.held is None else side.held[index],
            places=places,
            present=side.present[index.numpy()],
            shift=shift,
        )
        values = explain(method, replace(problem, differentiable=asked), rng, effort).values
        return (torch.from_numpy(np.ascontiguousarray(values)),)

    n, fitting = len(side), _VALUES_AT_ONCE // max(own[:1].numel(), 1)
    with seeded_globals(rng):
        found: Tensor = of_captum(
            of_points,
            own,
            perturb_radius=RADIUS * width,
            n_perturb_samples=N_PERTURBATIONS,
            max_examples_per_batch=min(max(fitting, n), n * N_PERTURBATIONS),
        )
    return np.asarray(found.double().numpy())
