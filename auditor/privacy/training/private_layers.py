"""Temporary replacements of layers that DP-SGD cannot train, and the transfer of their weights back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from auditor.core.errors import ModelError

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
    from auditor.privacy.training.private_attention import RowwiseAttention

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

    from auditor.privacy.training.private_attention import RowwiseAttention

    if not any(p.requires_grad for p in layer.parameters()):
        return None
    if type(layer) is nn.MultiheadAttention:
        plain = layer._qkv_same_embed_dim and layer.bias_k is None and not layer.add_zero_attn
        return RowwiseAttention(layer) if plain and layer.batch_first else None
    if type(layer) in (nn.LSTM, nn.GRU) and not layer.proj_size:
        made: nn.Module = ModuleValidator.FIXERS[type(layer)](layer)
        return made
    return None
