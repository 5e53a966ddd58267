"""Randomised smoothing: an L2 certificate of another model, the majority vote over noisy copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import scipy

from auditor.core.errors import NotApplicableError
from auditor.core.rows import FloatArray, IntArray
from auditor.judging.measurement import Measurement, define_metrics
from auditor.statistics.attack_estimates import AtLeast
from auditor.statistics.intervals import clopper_pearson
from probes.probe_inputs import differentiable, differentiating, rows_at_once

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.models.torch_model import DifferentiableModel
    from probes.robustness.perturbation_set import Ball

METHOD = "smoothing"
# Copies that name the class, and further ones that count how often it is decided.
_NAMED_BY, _COUNTED_IN = 100, 1_000
# How often the certificate of one row may be wrong.
_LEVEL = 1e-3
_OTHER = (
    "It is about another model, the one that decides by the majority of noisy copies, so no requirement of this model "
    "rests on it."
)


def radii(counts: IntArray, *, n: int, sigma: float, alpha: float) -> FloatArray:
    """(n_rows,) the L2 radius of a constant majority decision: ``sigma Phi^-1(p)``, 0 if not significant.

    ``counts``: in how many of n noisy copies of a row, with noise of ``sigma`` in every direction, its class was
    decided, the class being fixed beforehand; ``p`` is the Clopper-Pearson lower bound of that share at ``alpha``,
    above 0.5. Each is wrong with probability at most ``alpha``. Source: Cohen, Rosenfeld and Kolter, ICML 2019.
    """
    low = clopper_pearson(counts, n=n, alpha=alpha)[0]
    return np.where(low > 0.5, sigma * scipy.special.ndtri(np.maximum(low, 0.5)), 0.0)


SMOOTHING_METRICS = define_metrics(
    """
    smoothed_certified_accuracy: P(decision of the smoothed model = y at every input within the radius), a lower bound;
      [0, 1], ideal 1; at 0.6 six of ten rows are proved to be decided rightly whatever happens within the radius, by
      the smoothed model and not by this one; Cohen, Rosenfeld and Kolter, ICML 2019
    """
)


def smoothed(
    model: AuditedModel,
    sample: AuditData,
    ball_around: Callable[[AuditedModel, AuditData, Tensor], Ball],
    levels: Sequence[float],
    sigma: float,
    rng: np.random.Generator,
) -> list[Measurement]:
    """``smoothed_certified_accuracy`` at each radius: rows that the smoothed model decides rightly for certain.

    The smoothed model decides as this one does of most copies of a row, with Gaussian noise of ``sigma`` times the
    ball's ``radius`` on every input that may move; the radius is in L2, counted in the same unit. Shown, and never
    judged.
    ``ball_around``: the ball around the sample's inputs. Raises NotApplicableError for a model without gradients.
    """
    own, y = differentiable(model), sample.y_true
    if own is None or y is None:
        raise NotApplicableError("smoothing is for a torch network and rows with true labels.")
    inputs = own.encode(sample.X)
    ball = ball_around(model, sample, inputs)
    decide = partial(model.decide, positive=sample.positive)
    named, counts = _majority_counts(own, inputs, decide, sigma * ball.radius.expand_as(inputs), rng)
    reach = radii(counts, n=_COUNTED_IN, sigma=sigma, alpha=_LEVEL)
    labelled, right = y >= 0, named == y
    detail = (
        f"of another model: the majority of copies with Gaussian noise of sigma = {sigma:g} {ball.unit}; certified in "
        f"L2, each row's certificate is wrong with probability at most {_LEVEL:g}"
    )
    return [
        Measurement(
            metric="smoothed_certified_accuracy",
            method=METHOD,
            estimate=AtLeast(successes=int((right & labelled & (reach >= level)).sum()), n=int(labelled.sum())),
            n_samples=int(labelled.sum()),
            ideal=1.0,
            at={"radius": level},
            detail=detail,
            too_few=_OTHER,
        )
        for level in levels
    ]


def _majority_counts(
    differentiable_model: DifferentiableModel,
    inputs: Tensor,
    decide: Callable[[FloatArray], IntArray],
    noise: Tensor,
    rng: np.random.Generator,
) -> tuple[IntArray, IntArray]:
    """(n,) the class that most of the first copies of each row are decided as, and how many of the others are."""
    import torch

    from auditor.models.torch_context import without_gradients

    named, counts = np.zeros(len(inputs), np.int64), np.zeros(len(inputs), np.int64)
    size = rows_at_once(inputs)
    with differentiating(differentiable_model), without_gradients():
        for i in range(len(inputs)):
            decisions = []
            for begin in range(0, _NAMED_BY + _COUNTED_IN, size):
                m = min(size, _NAMED_BY + _COUNTED_IN - begin)
                z = torch.from_numpy(rng.standard_normal((m, *inputs.shape[1:]), dtype=np.float32)).to(inputs)
                logits = differentiable_model.logits(inputs[i : i + 1] + noise[i : i + 1] * z)
                decisions.append(decide(torch.softmax(logits.double(), dim=1).cpu().numpy()))
            all_ = np.concatenate(decisions)
            named[i] = np.bincount(all_[:_NAMED_BY]).argmax()
            counts[i] = (all_[_NAMED_BY:] == named[i]).sum()
    return named, counts
