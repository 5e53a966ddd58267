"""The table of attribution methods, their applicability to a task, and their execution.

The methods for a convolutional layer, Grad-CAM and guided Grad-CAM, are here too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from auditor.core.errors import NotApplicableError, did_you_mean
from probes.attribution import attention, gradient, perturbation, shapley
from probes.attribution.attribution_task import Problem
from probes.attribution.attribution_units import Attributions, Chunk, Differentiable
from probes.attribution.gradient import Effort, by_chunks, collected, fitting, side_of, without_gradient
from probes.probe_inputs import differentiating

if TYPE_CHECKING:
    from torch import Tensor, nn

_FEWEST_CONVOLUTIONS = 2


def grad_cam(problem: Problem, rng: np.random.Generator, effort: Effort) -> Attributions:
    """``relu(sum_k mean_xy(df/dA_k) A_k)`` of the last convolution's maps A, resized to the image.

    A is what the network makes of the last convolution before the size changes: its normalisation and activation are
    part of it. Coarse by its nature, without negative evidence, and on another scale than the score. Source: Selvaraju
    et al., ICCV 2017.
    """
    side = side_of(problem)
    layer, name = _last_layer(side)

    def attribute(chunk: Chunk) -> Tensor:
        return _map(side, layer, chunk)

    values, fine = by_chunks(side, attribute)
    return collected("grad_cam", problem, values, fine, f"maps of the layer {name}")


def guided_grad_cam(problem: Problem, rng: np.random.Generator, effort: Effort) -> Attributions:
    """Grad-CAM times guided backpropagation, which lets through positive gradients only.

    Guided backpropagation partly restores the image whatever the parameters are (Adebayo et al., NeurIPS 2018; Nie,
    Zhang and Patel, ICML 2018). Source: Selvaraju et al., ICCV 2017.
    """
    import torch
    from captum.attr import GuidedBackprop
    from torch import nn

    side = side_of(problem)
    layer, name = _last_layer(side)

    class Scored(nn.Module):
        """The score as a module, which guided backpropagation needs to find the activations."""

        def __init__(self) -> None:
            super().__init__()
            self.module = side.model.module

        def forward(self, points: Tensor, *arguments: Tensor) -> Tensor:
            return side.score(points, *arguments)

    guided = GuidedBackprop(Scored())

    def attribute(chunk: Chunk) -> Tensor:
        # The map first: guided backpropagation's hooks must not bend its gradients.
        coarse = _map(side, layer, chunk)
        with fitting("guided_grad_cam"):
            fine: Tensor = guided.attribute(
                chunk.end.detach().clone().requires_grad_(), additional_forward_args=chunk.arguments
            )
        return torch.as_tensor(fine * coarse)

    values, fine = by_chunks(side, attribute)
    return collected("guided_grad_cam", problem, values, fine, f"maps of the layer {name}")


def no_maps(problem: Problem) -> str:
    """The reason why there is no convolutional layer; empty if there is one."""
    if problem.differentiable is None:
        return without_gradient(problem)
    try:
        _last_layer(problem.differentiable)
    except NotApplicableError as error:
        return str(error)
    return ""


def no_guide(problem: Problem) -> str:
    """The reason why guidance is impossible: no ReLU module."""
    from torch import nn

    reason = no_maps(problem)
    if not reason and problem.differentiable is not None:
        if not any(isinstance(m, nn.ReLU) for m in problem.differentiable.model.module.modules()):
            return "guided backpropagation changes modules torch.nn.ReLU, and the network has none: use grad_cam"
    return reason


def _map(side: Differentiable, layer: nn.Module, chunk: Chunk) -> Tensor:
    """(m, ...) Grad-CAM as large as the points, the same in each channel, its sum over channels being the map's."""
    from captum.attr import LayerAttribution, LayerGradCam

    with fitting("grad_cam"):
        coarse: Tensor = LayerGradCam(side.score, layer).attribute(
            chunk.end.detach().clone().requires_grad_(),
            additional_forward_args=chunk.arguments,
            relu_attributions=True,
            attr_dim_summation=True,
        )
    height, width = side.image_shape
    large: Tensor = LayerAttribution.interpolate(coarse.detach(), (height, width), interpolate_mode="bilinear")
    return side.over_channels(large.squeeze(1))


def _last_layer(side: Differentiable) -> tuple[nn.Module, str]:
    """The last module whose output has the size of the last convolution's, so with its normalisation and activation."""
    import torch
    from torch import nn

    seen: list[tuple[str, nn.Module, tuple[int, ...]]] = []
    names = {m: name for name, m in side.model.module.named_modules()}

    def watch(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
            seen.append((names[module], module, tuple(output.shape[1:])))

    # A convolution that pads by a module of its own is no leaf, and is still the one to look at.
    leaves = [m for m in side.model.module.modules() if isinstance(m, nn.Conv2d) or not any(True for _ in m.children())]
    hooks = [m.register_forward_hook(watch) for m in leaves]
    try:
        with differentiating(side.model), torch.no_grad():
            chunk = side.chunk(np.arange(1))
            side.score(chunk.end, *chunk.arguments)
    finally:
        for hook in hooks:
            hook.remove()
    convolutions = [i for i, (_, module, _) in enumerate(seen) if isinstance(module, nn.Conv2d)]
    if len(convolutions) < _FEWEST_CONVOLUTIONS:
        raise NotApplicableError(
            f"Grad-CAM looks at the last of at least {_FEWEST_CONVOLUTIONS} convolutions (torch.nn.Conv2d) with maps, "
            f"and the network has {len(convolutions)}: use integrated_gradients or occlusion."
        )
    shape = seen[convolutions[-1]][2]
    name, module, _ = next(s for s in reversed(seen) if s[2] == shape)
    return module, name


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
            run=partial(shapley.of_final, shapley.shap_linear),
            lacks=partial(shapley.lacks_final, shapley.is_linear, "logistic regression"),
        ),
        Method(
            name="shap_tree",
            family="shapley",
            modalities=("tabular",),
            citation="Lundberg et al., Nature Machine Intelligence 2020",
            completes=True,
            run=partial(shapley.of_final, shapley.shap_tree),
            lacks=partial(shapley.lacks_final, shapley.is_tree, "forest, or boosted trees of two classes,"),
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
            run=grad_cam,
            lacks=no_maps,
        ),
        Method(
            name="guided_grad_cam",
            family="gradient",
            modalities=("image",),
            citation="Selvaraju et al., ICCV 2017",
            completes=False,
            note="guided backpropagation partly restores the image whatever the parameters are",
            run=guided_grad_cam,
            lacks=no_guide,
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
