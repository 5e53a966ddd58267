"""Per-row gradients, clipped and summed, by Opacus, and temporary replacements of layers that have none.

Opacus' samplers of ``torch.nn.Embedding`` are replaced by two that leave the padding row out, as torch does, and take
a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout

from auditor.core.errors import ModelError, UsageError, first_line
from auditor.core.randomness import seeded_globals
from auditor.models.torch_model import TorchModel

if TYPE_CHECKING:
    from opacus.optimizers import DPOptimizer


class RowwiseAttention(nn.Module):
    """``torch.nn.MultiheadAttention`` with ``batch_first=True``, the same function of the same weights.

    Opacus' own stand-in, ``opacus.layers.DPMultiheadAttention``, mixes heads with positions where ``batch_first`` is
    set (opacus 1.6.0), so that weights trained in it fit no other network.
    """

    def __init__(self, like: nn.MultiheadAttention) -> None:
        super().__init__()
        self.n_heads = like.num_heads
        self.p = like.dropout
        # torch's encoder layers read these of their attention.
        self.batch_first = True
        self._qkv_same_embed_dim = False
        self.in_proj_weight = self.in_proj_bias = None
        width, biased = like.embed_dim, like.in_proj_bias is not None
        self.query, self.key, self.value = (nn.Linear(width, width, bias=biased) for _ in range(3))
        self.out_proj = nn.Linear(width, width, bias=biased)
        self.load_plain(like)

    def load_plain(self, like: nn.MultiheadAttention) -> None:
        """Copy the weights of torch's layer."""
        parts = (self.query, self.key, self.value)
        with torch.no_grad():
            for part, weight in zip(parts, like.in_proj_weight.chunk(3), strict=True):
                part.weight.copy_(weight)
            if like.in_proj_bias is not None:
                for part, bias in zip(parts, like.in_proj_bias.chunk(3), strict=True):
                    part.bias.copy_(bias)
        self.out_proj.load_state_dict(like.out_proj.state_dict())

    def plain_weights(self) -> dict[str, Tensor]:
        """The weights under the names of torch's layer."""
        parts = (self.query, self.key, self.value)
        found = {"in_proj_weight": torch.cat([part.weight.detach() for part in parts])}
        if self.query.bias is not None:
            found["in_proj_bias"] = torch.cat([part.bias.detach() for part in parts])
        return found | {f"out_proj.{k}": v for k, v in self.out_proj.state_dict().items()}

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """(n, t, d) queries over (n, s, d) keys and values: (n, t, d), and weights (n, t, s) on request."""
        q, k, v = (
            part(states).view(*states.shape[:2], self.n_heads, -1).transpose(1, 2)
            for part, states in ((self.query, query), (self.key, key), (self.value, value))
        )
        scores = q @ k.transpose(2, 3) * q.shape[3] ** -0.5
        if attn_mask is not None:
            scores = _masked(
                scores, attn_mask if attn_mask.ndim == 2 else attn_mask.view(len(q), self.n_heads, *attn_mask.shape[1:])
            )
        if key_padding_mask is not None:
            scores = _masked(scores, key_padding_mask[:, None, None, :])
        weights = torch.softmax(scores, dim=3)
        weights = dropout(weights, self.p, self.training)
        mixed = (weights @ v).transpose(1, 2).flatten(2)
        if not need_weights:
            return self.out_proj(mixed), None
        return self.out_proj(mixed), weights.mean(dim=1) if average_attn_weights else weights


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores (n, heads, t, s) under a mask that broadcasts to them: true is left out, a number is added."""
    return scores.masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else scores + mask.to(scores.dtype)


_INSTEAD = {
    "BatchNorm1d": "torch.nn.GroupNorm",
    "BatchNorm2d": "torch.nn.GroupNorm",
    "BatchNorm3d": "torch.nn.GroupNorm",
    "SyncBatchNorm": "torch.nn.GroupNorm",
    "InstanceNorm1d": "the same layer with track_running_stats=False",
    "InstanceNorm2d": "the same layer with track_running_stats=False",
    "InstanceNorm3d": "the same layer with track_running_stats=False",
    "LSTM": "opacus.layers.DPLSTM",
    "GRU": "opacus.layers.DPGRU",
    "RNN": "opacus.layers.DPRNN",
    "MultiheadAttention": "the same layer with batch_first=True, or linear layers",
}


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """A temporary replacement of a layer: its path ("" for the module itself), the original, the replacement."""

    name: str
    layer: str
    instead: str


def put_stand_ins(module: nn.Module) -> tuple[nn.Module, tuple[StandIn, ...]]:
    """The module with unsupported layers replaced in place by equivalent ones.

    LSTM and GRU by the fixers of ``opacus.validators``, attention with ``batch_first=True`` by linear layers; each has
    the weights of what it stands for. A norm over the batch has no such stand-in, and stays. Returns the module,
    another one where the layer was the whole of it, and what was replaced.
    """
    found = []
    for name, layer in list(module.named_modules()):
        instead = _stand_in(layer)
        if instead is None:
            continue
        first = next(layer.parameters())
        instead = instead.to(first.device, first.dtype).train(layer.training)
        found.append(StandIn(name=name, layer=type(layer).__name__, instead=type(instead).__name__))
        if name:
            module.set_submodule(name, instead)
        else:
            module = instead
    return module, tuple(found)


def weights_back(plain: nn.Module, trained_module: nn.Module, stand_ins: tuple[StandIn, ...]) -> None:
    """Load the weights of a trained module with replacement layers into the original one.

    Raises ModelError where they differ.
    """

    replaced = tuple(f"{s.name}." if s.name else "" for s in stand_ins)
    weights = plain.state_dict()
    weights |= {k: v for k, v in trained_module.state_dict().items() if not (stand_ins and k.startswith(replaced))}
    try:
        plain.load_state_dict(weights)
        for stand_in in stand_ins:
            layer = trained_module.get_submodule(stand_in.name)
            own = layer.plain_weights() if isinstance(layer, RowwiseAttention) else layer.state_dict()
            plain.get_submodule(stand_in.name).load_state_dict(own)
    except (RuntimeError, AttributeError) as error:
        raise ModelError(f"The trained weights do not fit the network they began from: {str(error)[:200]}.") from error


def refuse_layers(module: nn.Module) -> None:
    """Raise ModelError for a layer that Opacus does not support, with its replacement."""
    from opacus.validators import ModuleValidator

    for name, layer in module.named_modules():
        kind = type(layer).__name__
        trainable = any(p.requires_grad for p in layer.parameters(recurse=False))
        validator = ModuleValidator.VALIDATORS.get(type(layer))
        if isinstance(layer, nn.Embedding) and trainable and (layer.max_norm is not None or layer.scale_grad_by_freq):
            raise ModelError(
                f"DP-SGD cannot train the layer {name!r} (Embedding): max_norm changes its weights outside the "
                "noise, and scale_grad_by_freq makes a row's gradient depend on other rows. Leave both out."
            )
        refused = (validator is not None and bool(validator(layer))) or (kind in ("GRU", "RNN") and trainable)
        if refused or (trainable and any(True for _ in layer.buffers(recurse=False))):
            instead = _INSTEAD.get(kind, "a layer without buffers")
            raise ModelError(f"DP-SGD cannot train the layer {name or kind!r} ({kind}): replace it by {instead}.")


def _stand_in(layer: nn.Module) -> nn.Module | None:
    """A layer that computes the same function and can be trained; None where none is needed or there is none."""
    from opacus.validators import ModuleValidator

    if not any(p.requires_grad for p in layer.parameters()):
        return None
    if type(layer) is nn.MultiheadAttention:
        plain = layer._qkv_same_embed_dim and layer.bias_k is None and not layer.add_zero_attn
        return RowwiseAttention(layer) if plain and layer.batch_first else None
    if type(layer) in (nn.LSTM, nn.GRU) and not layer.proj_size:
        made: nn.Module = ModuleValidator.FIXERS[type(layer)](layer)
        return made
    return None


Mode = Literal["auto", "hooks", "ghost"]
Way = Literal["hooks", "ghost"]
# Per-row numbers of linear and embedding layers from which two backward passes cost less than writing them down.
_GHOST_FROM = 1 << 19
_HELD_NUMBERS = 1 << 28
_SAME_NORM = 1e-3


class PrivateStep:
    """One DP-SGD step on sampled rows: sum of clipped gradients, noise, optimizer step.

    ``model``: around the module that Opacus wrapped; ``optimizer``: Opacus' own around torch's.
    """

    def __init__(self, model: TorchModel, optimizer: DPOptimizer, way: Way) -> None:
        self.model = model
        self.optimizer = optimizer
        self.way = way
        self._layers = LayerOutputs(model.module) if way == "ghost" else None

    def __call__(self, x: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        """Takes the step and returns the sum of the losses, detached; ``weights`` (n,) multiply each row's own loss."""
        self.optimizer.zero_grad(set_to_none=True)
        if len(x):
            losses = cross_entropy(self.model.logits(x), y, reduction="none")
            losses = losses if weights is None else losses * weights
            self._backward(losses)
        else:
            losses = torch.zeros(0, device=x.device)
            self._no_rows()
        self.optimizer.step()
        return losses.detach().sum()

    def _backward(self, losses: Tensor) -> None:
        if self._layers is None:
            losses.mean().backward()  # type: ignore[no-untyped-call]
            return
        private: Any = self.model.module
        self._layers.pass_back(losses.mean())
        factors = private.get_clipping_coef()
        private.disable_hooks()
        (factors * losses).sum().backward()
        private.enable_hooks()

    def _no_rows(self) -> None:
        """An empty draw is a noisy step too, and a network need not be able to take no rows."""
        parameters: Sequence[Any] = self.optimizer.params
        for p in parameters:
            p.grad = torch.zeros_like(p)
            if self.way == "hooks":
                p.grad_sample = p.new_zeros((0, *p.shape))


class LayerOutputs:
    """The outputs of the layers that are trained, for the first pass of ghost clipping.

    Opacus' hooks take the norms from the gradients of the layers' outputs. Where only those are asked for, torch leaves
    out the gradients of the weights, which Opacus' own first pass computes and throws away.
    """

    def __init__(self, private: nn.Module) -> None:
        self._outputs: list[Tensor] = []
        for layer in private.modules():
            if any(p.requires_grad for p in layer.parameters(recurse=False)):
                layer.register_forward_hook(self._keep)

    def pass_back(self, loss: Tensor) -> None:
        """Pass back to the outputs of the last forward pass, and forget them; the graph is kept for a second pass."""
        outputs, self._outputs = self._outputs, []
        torch.autograd.grad(loss, outputs, retain_graph=True, allow_unused=True)

    def _keep(self, _: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            self._outputs.append(output)


def most_rows(module: nn.Module, way: Way) -> int | None:
    """Most rows per pass with hooks for at most 1 GiB of gradients; ghost clipping stores none."""
    if way == "ghost":
        return None
    n_parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return max(_HELD_NUMBERS // max(n_parameters, 1), 1)


def with_own_samplers(private: nn.Module) -> nn.Module:
    """A module that Opacus wrapped, with the samplers of this module for its embeddings; other modules keep Opacus'."""
    module: Any = private
    module.GRAD_SAMPLERS = {**module.GRAD_SAMPLERS, nn.Embedding: embedding_gradients}
    if hasattr(module, "NORM_SAMPLERS"):
        module.NORM_SAMPLERS = {**module.NORM_SAMPLERS, nn.Embedding: embedding_norms}
    return private


# ---- embeddings ----------------------------------------------------------------------------------------------------


def embedding_gradients(layer: nn.Embedding, activations: Sequence[Tensor], backprops: Tensor) -> dict[Tensor, Tensor]:
    """Opacus' (n, n_embeddings, width) gradients of ids (n, ...), but none for the padding, which torch never moves."""
    from opacus.grad_sample.embedding import compute_embedding_grad_sample

    found: dict[Tensor, Tensor] = compute_embedding_grad_sample(layer, activations, backprops)
    if layer.padding_idx is not None and layer.weight in found:
        found[layer.weight][:, layer.padding_idx] = 0.0
    return found


def embedding_norms(layer: nn.Embedding, activations: Sequence[Tensor], backprops: Tensor) -> dict[Tensor, Tensor]:
    """(n,) norms of the gradients of ids (n, ...): gradients of one id in one row are added before they are squared."""
    n = len(activations[0])
    ids = activations[0].reshape(n, -1)
    gradients = backprops.reshape(n * ids.shape[1], -1)
    if layer.padding_idx is not None:
        gradients = gradients.masked_fill(ids.reshape(-1, 1) == layer.padding_idx, 0.0)
    # One number for each id of each row, so that one sort finds those that stand more than once.
    keys = ids + layer.num_embeddings * torch.arange(n, device=ids.device).unsqueeze(1)
    distinct, place = torch.unique(keys.flatten(), return_inverse=True)
    sums = gradients.new_zeros(len(distinct), gradients.shape[1]).index_add_(0, place, gradients)
    squares = gradients.new_zeros(n).index_add_(0, distinct // layer.num_embeddings, sums.square().sum(dim=1))
    return {layer.weight: squares.sqrt()}


# ---- which way -----------------------------------------------------------------------------------------------------


def choose_way(fresh: Callable[[], TorchModel], x: Tensor, y: Tensor, mode: Mode, batch_size: int) -> Way:
    """The clipping method: ``auto`` uses ghost clipping if supported and faster despite its second backward pass.

    ``fresh`` makes the model to be trained, for trials on three rows. Raises ModelError for a model whose per-row
    gradients Opacus cannot take, and where ghost clipping is asked for and finds other norms than hooks do; UsageError
    for another mode.
    """
    if mode not in get_args(Mode):
        raise UsageError(f"mode must be one of {', '.join(get_args(Mode))}, not {mode!r}.")
    norms = _norms_by_hooks(fresh(), x, y)
    if mode == "hooks" or (mode == "auto" and batch_size * _wide(fresh().module) < _GHOST_FROM):
        return "hooks"
    why = _why_not_ghost(fresh(), x[: len(norms)], y[: len(norms)], norms)
    if why is None:
        return "ghost"
    if mode == "ghost":
        raise ModelError(f"Ghost clipping cannot train this network: {why}. Use mode=hooks.")
    return "hooks"


def _wide(module: nn.Module) -> int:
    """Trainable parameters of the layers whose gradients ghost clipping need not write down."""
    layers = [m for m in module.modules() if type(m) in (nn.Linear, nn.Embedding)]
    return sum(p.numel() for m in layers for p in m.parameters(recurse=False) if p.requires_grad)


def _losses(module: nn.Module, like: TorchModel, x: Tensor, y: Tensor) -> Tensor:
    """(n,) losses under a wrapped module, dropout being drawn alike each time."""
    with seeded_globals(np.random.default_rng(0)):
        return cross_entropy(like.with_module(module).logits(x), y, reduction="none")


def _norms_by_hooks(model: TorchModel, x: Tensor, y: Tensor) -> Tensor:
    """(n,) norms of the first three rows' gradients. Raises ModelError where a row has none of its own."""
    from opacus import GradSampleModule

    refuse_layers(model.module.train())
    parameters: list[tuple[str, Any]] = [(n, p) for n, p in model.module.named_parameters() if p.requires_grad]
    if not parameters:
        raise ModelError("Every parameter of the network is frozen: there is nothing to train.")
    norms = torch.empty(0)
    try:
        private = with_own_samplers(GradSampleModule(model.module))
    except NotImplementedError as error:
        raise ModelError(f"Opacus cannot take per-row gradients: {first_line(error)}.") from error
    # Of two numbers of rows, since a gradient for each position of a text may be taken for one for each row.
    for n in sorted({min(len(x), 2), min(len(x), 3)}):
        for _, p in parameters:
            p.grad_sample = None
        try:
            _losses(private, model, x[:n], y[:n]).mean().backward()  # type: ignore[no-untyped-call]
        except Exception as error:  # whatever Opacus and functorch raise on a layer they do not know
            raise ModelError(
                f"Opacus cannot take per-row gradients of {type(model.module).__name__}: {first_line(error)}. "
                "Build it of the layers of torch.nn and opacus.layers."
            ) from error
        for name, p in parameters:
            if p.grad_sample is None or len(p.grad_sample) != n:
                raise ModelError(
                    f"The parameter {name!r} gets no gradient of its own for each row, so clipping could not protect "
                    "any: use it once a row, inside a layer of torch.nn, or freeze it with requires_grad=False."
                )
        norms = torch.stack([p.grad_sample.flatten(1).norm(dim=1) for _, p in parameters]).norm(dim=0)
    return norms


def _why_not_ghost(model: TorchModel, x: Tensor, y: Tensor, norms: Tensor) -> str | None:
    """Why ghost clipping must not be used, or None where it finds the norms that hooks found."""
    from opacus.grad_sample import GradSampleModuleFastGradientClipping

    module = model.module.train()
    try:
        private = with_own_samplers(GradSampleModuleFastGradientClipping(module))
        layers = LayerOutputs(private)
        layers.pass_back(_losses(private, model, x, y).mean())
        found: Tensor = private.get_norm_sample()  # type: ignore[operator]
    except Exception as error:  # whatever Opacus raises on a network it does not know
        return first_line(error)
    if found.shape != norms.shape or not torch.allclose(found, norms, rtol=_SAME_NORM, atol=1e-6):
        return "its norms of rows' gradients differ from those of the gradients themselves"
    return None
