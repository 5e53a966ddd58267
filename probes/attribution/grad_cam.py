"""Methods for a convolutional layer: Grad-CAM and guided Grad-CAM, by captum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import NotApplicableError
from probes.attribution.differentiable import Chunk, Differentiable
from probes.attribution.explanation import Attributions
from probes.attribution.gradient import Effort, by_chunks, collected, fitting, side_of, without_gradient
from probes.probe_inputs import differentiating

if TYPE_CHECKING:
    from torch import Tensor, nn

    from probes.attribution.attribution_task import Problem

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
