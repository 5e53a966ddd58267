"""Attention weights of transformers as attributions: labelled as such, and graded like any other method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import NotApplicableError
from auditor.core.rows import FloatArray
from probes.attribution.attribution_units import Attributions, Chunk, Differentiable
from probes.attribution.gradient import Effort, collected, side_of, without_gradient
from probes.probe_inputs import differentiating

if TYPE_CHECKING:
    from torch import Tensor, nn

    from probes.attribution.attribution_task import Problem


def attention_rollout(problem: Problem, rng: np.random.Generator, effort: Effort) -> Attributions:
    """Attention flow from the classifier's input position back to each token: its focus, not its conclusion.

    ``R = product over layers of (A + I) / 2``, A being the mean over heads; rows of R that the score reads are averaged
    (the first token, the last, or all, seen by which rows of the last layer the score has a gradient for). No sign, no
    class. Source: Abnar and Zuidema, ACL 2020.
    """
    return _explain("attention_rollout", problem, _rolled)


def attention_x_gradient(problem: Problem, rng: np.random.Generator, effort: Effort) -> Attributions:
    """``sum over layers, heads and queries of A * df/dA`` at each key: attention times its effect on the score.

    Values and all paths around attention are left out. Sources: Barkan et al., CIKM 2021; Chefer, Gur and Wolf, ICCV
    2021.
    """
    return _explain("attention_x_gradient", problem, _times_gradient)


def no_attention(problem: Problem) -> str:
    """The reason why there are no attention weights; empty if there are."""
    if problem.differentiable is None:
        return without_gradient(problem)
    side = problem.differentiable
    try:
        with differentiating(side.model):
            weights, _ = _weights(side, side.chunk(np.arange(min(1, len(side)))))
            _at_units(side, weights[0].new_zeros(len(weights[0]), weights[0].shape[-1]))
    except NotApplicableError as error:
        return str(error)
    return ""


def rollout(weights: list[FloatArray]) -> FloatArray:
    """(n, length, length) product of ``(A + I) / 2`` over layers, later ones from the left; A (n, heads, q, k)."""
    product: FloatArray | None = None
    for layer in weights:
        mixed = (layer.mean(axis=1) + np.eye(layer.shape[-1])) / 2.0
        mixed /= mixed.sum(axis=-1, keepdims=True)
        product = mixed if product is None else mixed @ product
    assert product is not None
    return product


def _rolled(weights: list[FloatArray], gradients: list[FloatArray]) -> FloatArray:
    read = (gradients[-1] != 0).any(axis=(1, 3))
    read |= ~read.any(axis=1, keepdims=True)
    rolled = rollout(weights)
    averaged: FloatArray = (rolled * read[:, :, None]).sum(axis=1) / read.sum(axis=1, keepdims=True)
    return averaged


def _times_gradient(weights: list[FloatArray], gradients: list[FloatArray]) -> FloatArray:
    total = np.zeros((len(weights[0]), weights[0].shape[-1]))
    for layer, gradient in zip(weights, gradients, strict=True):
        total += (layer * gradient).sum(axis=(1, 2))
    return total


def _explain(
    method: str, problem: Problem, combine: Callable[[list[FloatArray], list[FloatArray]], FloatArray]
) -> Attributions:
    import torch

    side = side_of(problem)
    values: list[FloatArray] = [np.zeros((0, problem.units.d))]
    maps: list[FloatArray] = []
    with differentiating(side.model):
        for rows, chunk in side.chunks():
            weights, gradients = _weights(side, chunk)
            found = torch.from_numpy(combine([_exact(w) for w in weights], [_exact(g) for g in gradients]))
            points = _at_units(side, found)
            if side.layer is None:
                values.append(side.reduce(points, rows))
                maps.append(side.fine(points))  # type: ignore[arg-type]
            else:
                values.append(side.at_units(points.numpy(), rows))
    heads = f"{len(weights)} layers of {weights[0].shape[1]} heads" if len(values) > 1 else ""
    return collected(method, problem, np.concatenate(values), np.concatenate(maps) if maps else None, heads)


def _exact(tensor: Tensor) -> FloatArray:
    return tensor.detach().double().cpu().numpy()


def _at_units(side: Differentiable, tokens: Tensor) -> Tensor:
    """Of attributions to a transformer's tokens (m, t): those of texts as they are, of images as points."""
    if side.layer is not None:
        if tokens.shape[1] != side.inputs.shape[1]:
            raise NotApplicableError(
                f"The network attends to {tokens.shape[1]} positions where the text has {side.inputs.shape[1]}, and "
                "nothing says which are which: use integrated_gradients or occlusion."
            )
        return tokens
    if side.channels is None:
        raise NotApplicableError("Attention is between positions of a text or an image, and a table has none.")
    height, width = side.image_shape
    # Class and distillation tokens stand before the patches.
    for before in (1, 0, 2):
        down = round(((tokens.shape[1] - before) * height / width) ** 0.5)
        if down and down * round(down * width / height) == tokens.shape[1] - before:
            across = round(down * width / height)
            patches = tokens[:, before:].reshape(-1, 1, down, across)
            import torch

            large = torch.nn.functional.interpolate(patches, size=(height, width), mode="nearest")
            return side.over_channels(large.squeeze(1) * (down * across) / (height * width))
    raise NotApplicableError(
        f"The network attends to {tokens.shape[1]} positions, which make no grid of patches: use occlusion."
    )


def _weights(side: Differentiable, chunk: Chunk) -> tuple[list[Tensor], list[Tensor]]:
    """Attention weights (m, heads, q, k) of each layer, and the gradient of the score with respect to them."""
    import torch

    with attentions(side.model.module) as seen:
        score = side.score(chunk.end.detach().clone().requires_grad_(), *chunk.arguments)
    usable = [w for w in seen if w.requires_grad]
    if not usable or len({w.shape for w in usable}) != 1:
        raise NotApplicableError(
            "The network shows no attention weights of one size in every layer (torch.nn.MultiheadAttention, or "
            "transformers' own classes with attn_implementation = eager): use integrated_gradients or occlusion."
        )
    # MultiheadAttention hands out a view of the weights that it goes on with; the gradient is known for the latter.
    sources = [w._base if w._base is not None else w for w in usable]
    found = torch.autograd.grad(score.sum(), sources, allow_unused=True)
    gradients = [torch.zeros_like(w) if g is None else g.reshape(w.shape) for w, g in zip(usable, found, strict=True)]
    return usable, gradients


@contextmanager
def attentions(module: nn.Module) -> Iterator[list[Tensor]]:
    """Context with the attention weights (n, heads, queries, keys) of each layer, in order, with their graph.

    transformers' networks run with eager attention inside, since the other kinds keep no weights; all is as it was
    afterwards.
    """
    import torch
    from torch import nn

    seen: list[Tensor] = []

    def ask(own: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, options | {"need_weights": True, "average_attn_weights": False}

    def watch(own: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, tuple) or len(output) < 2 or not isinstance(output[1], torch.Tensor):
            return
        weights = output[1]
        square = weights.ndim == 4 and weights.shape[2] == weights.shape[3] and weights.is_floating_point()
        # A block hands on the weights of the attention within it.
        if square and not any(weights is w for w in seen):
            seen.append(weights)

    hooks: list[Any] = []
    for part in module.modules():
        if isinstance(part, nn.MultiheadAttention):
            hooks.append(part.register_forward_pre_hook(ask, with_kwargs=True))
        hooks.append(part.register_forward_hook(watch))
    try:
        with _eager(module):
            yield seen
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _eager(module: nn.Module) -> Iterator[None]:
    """Eager attention in transformers' networks inside."""
    network: Any = next((m for m in module.modules() if hasattr(m, "set_attn_implementation")), None)
    before = None if network is None else getattr(network.config, "_attn_implementation", None)
    if before in (None, "eager"):
        yield
        return
    network.set_attn_implementation("eager")
    try:
        yield
    finally:
        network.set_attn_implementation(before)
