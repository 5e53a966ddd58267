"""The table of attribution methods, their applicability to a task, and their execution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from auditor.core.errors import NotApplicableError, did_you_mean
from probes.attribution import attention, grad_cam, gradient, perturbation, shapley
from probes.attribution.attribution_task import Problem
from probes.attribution.explanation import Attributions
from probes.attribution.gradient import Effort

Family = Literal["gradient", "perturbation", "shapley", "attention"]
Scope = Literal["sample", "global"]
Modality = Literal["tabular", "text", "image"]
ALL: tuple[Modality, ...] = ("tabular", "text", "image")


def _nothing(problem: Problem) -> str:
    return ""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A published attribution method.

    completes: whether its attributions are meant to sum to the score minus the baseline's. note: what it really is,
    where its name promises more. signed: whether its sign tells what speaks for the score from what speaks against it;
    else sizes alone have a meaning. scope: of each sample, or one attribution for all of them. run: computes it. lacks:
    why a question of its modality cannot be answered by it, empty where it can. of_slopes: whether it reads nothing but
    the score's gradient with respect to the input, so that a score that jumps tells it nothing.
    """

    name: str
    family: Family
    modalities: tuple[Modality, ...]
    citation: str
    completes: bool
    note: str = ""
    signed: bool = True
    scope: Scope = "sample"
    run: Callable[[Problem, np.random.Generator, Effort], Attributions]
    lacks: Callable[[Problem], str]
    of_slopes: bool = False


METHODS: dict[str, Method] = {
    m.name: m
    for m in (
        Method(
            name="integrated_gradients",
            family="gradient",
            modalities=ALL,
            citation="Sundararajan, Taly and Yan, ICML 2017",
            completes=True,
            run=gradient.integrated_gradients,
            lacks=gradient.without_gradient,
            of_slopes=True,
        ),
        Method(
            name="deep_lift",
            family="gradient",
            modalities=ALL,
            citation="Shrikumar, Greenside and Kundaje, ICML 2017",
            completes=True,
            note="rules exist for modules only; recurrent layers, normalisation and attention break completeness",
            run=gradient.deep_lift,
            lacks=gradient.without_gradient,
        ),
        Method(
            name="gradient_shap",
            family="gradient",
            modalities=ALL,
            citation="Lundberg and Lee, NeurIPS 2017; Erion et al., Nature Machine Intelligence 2021",
            completes=False,
            note="complete in expectation over its random draws only",
            run=gradient.gradient_shap,
            lacks=gradient.without_gradient,
            of_slopes=True,
        ),
        Method(
            name="input_x_gradient",
            family="gradient",
            modalities=ALL,
            citation="Shrikumar, Greenside, Shcherbina and Kundaje, 2016",
            completes=False,
            run=gradient.input_x_gradient,
            lacks=gradient.without_gradient,
            of_slopes=True,
        ),
        Method(
            name="saliency",
            family="gradient",
            modalities=ALL,
            citation="Simonyan, Vedaldi and Zisserman, ICLR 2014 workshop",
            completes=False,
            signed=False,
            note="unsigned: how strongly the score reacts to small changes, not which way",
            run=gradient.saliency,
            lacks=gradient.without_gradient,
            of_slopes=True,
        ),
        Method(
            name="smooth_grad",
            family="gradient",
            modalities=ALL,
            citation="Smilkov, Thorat, Kim, Viegas and Wattenberg, 2017",
            completes=False,
            signed=False,
            note="unsigned: how strongly the score reacts to changes, not which way",
            run=gradient.smooth_grad,
            lacks=gradient.without_gradient,
            of_slopes=True,
        ),
        Method(
            name="occlusion",
            family="perturbation",
            modalities=ALL,
            citation="Zeiler and Fergus, ECCV 2014",
            completes=False,
            run=perturbation.occlusion,
            lacks=_nothing,
        ),
        Method(
            name="feature_ablation",
            family="perturbation",
            modalities=ALL,
            citation="captum, FeatureAblation",
            completes=False,
            note="occlusion by the baseline of the gradient methods",
            run=perturbation.feature_ablation,
            lacks=gradient.without_gradient,
        ),
        Method(
            name="kernel_shap",
            family="perturbation",
            modalities=ALL,
            citation="Lundberg and Lee, NeurIPS 2017",
            completes=True,
            note="Shapley values estimated from random coalitions; the sum is exact, the shares are not",
            run=perturbation.kernel_shap,
            lacks=_nothing,
        ),
        Method(
            name="lime",
            family="perturbation",
            modalities=ALL,
            citation="Ribeiro, Singh and Guestrin, KDD 2016",
            completes=False,
            run=perturbation.lime,
            lacks=_nothing,
        ),
        Method(
            name="shap_linear",
            family="shapley",
            modalities=("tabular",),
            citation="Lundberg and Lee, NeurIPS 2017; Strumbelj and Kononenko, KAIS 41 (2014)",
            completes=True,
            run=shapley.linear,
            lacks=shapley.not_linear,
        ),
        Method(
            name="shap_tree",
            family="shapley",
            modalities=("tabular",),
            citation="Lundberg et al., Nature Machine Intelligence 2020",
            completes=True,
            run=shapley.tree,
            lacks=shapley.not_tree,
        ),
        Method(
            name="shap_permutation",
            family="shapley",
            modalities=ALL,
            citation="Strumbelj and Kononenko, KAIS 41 (2014)",
            completes=True,
            run=shapley.permutation,
            lacks=_nothing,
        ),
        Method(
            name="shap_kernel",
            family="shapley",
            modalities=ALL,
            citation="Lundberg and Lee, NeurIPS 2017",
            completes=True,
            note="exact where it may ask for all coalitions; the sum is exact always",
            run=shapley.kernel,
            lacks=_nothing,
        ),
        Method(
            name="grad_cam",
            family="gradient",
            modalities=("image",),
            citation="Selvaraju et al., ICCV 2017",
            completes=False,
            signed=False,
            note="coarse, and without negative evidence",
            run=grad_cam.grad_cam,
            lacks=grad_cam.no_maps,
        ),
        Method(
            name="guided_grad_cam",
            family="gradient",
            modalities=("image",),
            citation="Selvaraju et al., ICCV 2017",
            completes=False,
            note="guided backpropagation partly restores the image whatever the parameters are",
            run=grad_cam.guided_grad_cam,
            lacks=grad_cam.no_guide,
        ),
        Method(
            name="attention_rollout",
            family="attention",
            modalities=("text", "image"),
            citation="Abnar and Zuidema, ACL 2020",
            completes=False,
            signed=False,
            note="where attention looks, not what the model concludes: no sign and no class",
            run=attention.attention_rollout,
            lacks=attention.no_attention,
        ),
        Method(
            name="attention_x_gradient",
            family="attention",
            modalities=("text", "image"),
            citation="Barkan et al., CIKM 2021; Chefer, Gur and Wolf, ICCV 2021",
            completes=False,
            note="attention weighted by its effect on the score; values and paths around attention are left out",
            run=attention.attention_x_gradient,
            lacks=attention.no_attention,
        ),
        Method(
            name="permutation_importance",
            family="perturbation",
            modalities=("tabular",),
            citation="Breiman, Machine Learning 45 (2001)",
            completes=False,
            signed=False,
            note="one attribution for all samples: what the model's fit loses without a feature",
            scope="global",
            run=shapley.permutation_importance,
            lacks=shapley.no_labels,
        ),
    )
}


def method_named(name: str) -> Method:
    """The method of that name; ValueError names the nearest known one."""
    if name not in METHODS:
        raise ValueError(f"There is no attribution method {name!r}{did_you_mean(name, METHODS)}.")
    return METHODS[name]


def applicable(problem: Problem, scope: Scope = "sample") -> tuple[str, ...]:
    """Names of the methods that can answer a question, in the table's order."""
    return tuple(m.name for m in METHODS.values() if m.scope == scope and not why_not(m.name, problem))


def why_not(method: str, problem: Problem) -> str:
    """The reason why a method cannot solve a task, or would be useless, with alternatives; empty if it can."""
    return _impossible(method, problem) or (gradient.flat(problem) if METHODS[method].of_slopes else "")


def _impossible(method: str, problem: Problem) -> str:
    known = method_named(method)
    modality = problem.sample.modality
    if not len(problem):
        return "there are no rows to explain"
    if modality not in known.modalities:
        readable = {"tabular": "tables", "text": "texts", "image": "images"}
        return (
            f"it is for {' and '.join(readable[m] for m in known.modalities)} only, and these are {readable[modality]}"
        )
    return known.lacks(problem)


def explain(method: str, problem: Problem, rng: np.random.Generator, effort: Effort | None = None) -> Attributions:
    """The attributions of one method; NotApplicableError with the reason if it does not support the task.

    A method that draws takes its randomness from ``rng``. ``effort``: steps and draws for one sample.
    """
    reason = _impossible(method, problem)
    if reason:
        raise NotApplicableError(f"{method} does not apply: {reason.rstrip('.')}.")
    return method_named(method).run(problem, rng, effort or Effort())
