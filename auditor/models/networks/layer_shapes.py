"""Layer types of bare weights, inferred from names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from auditor.models.networks.layer_chain import Layer

_MAX_LAYERS = 256


def layers_of(weights: Mapping[str, Tensor], *, in_order: bool) -> list[Layer] | None:
    """Linear layers, convolutions and batch norms that fit in sequence, or None if they do not.

    ``in_order``: whether the file keeps the order in which the layers were made. One that sorts them by name does not:
    there, two layers of one shape must be told apart by a number.
    """
    names = [name.rpartition(".")[0] for name in weights]
    stems = list(dict.fromkeys(names))
    if not 0 < len(stems) <= _MAX_LAYERS:
        return None
    if not in_order:
        stems = sorted(stems, key=lambda name: [(int(p), "") if p.isdigit() else (-1, p) for p in _parts(name)])
    layers = [_layer(stem, weights) for stem in stems]
    if not all(layers):
        return None
    found = [layer for layer in layers if layer is not None]
    return found if _fit(found) and (in_order or _told_apart(found)) else None


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"(\d+)", name) if part]


def _layer(stem: str, weights: Mapping[str, Tensor]) -> Layer | None:
    parts = {name.rpartition(".")[2]: tensor for name, tensor in weights.items() if name.rpartition(".")[0] == stem}
    weight, bias = parts.get("weight"), parts.get("bias")
    if weight is None or (bias is not None and tuple(bias.shape) != (weight.shape[0],)):
        return None
    norm = {"running_mean", "running_var"} <= set(parts)
    if norm and weight.dim() == 1 and bias is not None and set(parts) <= _NORM_PARTS:
        return Layer(stem, "batchnorm", len(weight), len(weight))
    if not set(parts) <= {"weight", "bias"}:
        return None
    if weight.dim() == 2:
        return Layer(stem, "linear", weight.shape[1], weight.shape[0], bias is not None)
    if weight.dim() == 4:
        kernel = (weight.shape[2], weight.shape[3])
        return Layer(stem, "conv", weight.shape[1], weight.shape[0], bias is not None, kernel)
    return None


_NORM_PARTS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


def _fit(layers: list[Layer]) -> bool:
    for before, after in zip(layers, layers[1:], strict=False):
        whole = after.taken % before.made == 0 if before.made else False
        # A picture that is laid out as one row has several numbers for each of its channels.
        spread = after.kind == "linear" and before.kind != "linear" and any(one.kind == "conv" for one in layers)
        if (before.kind == "linear" and after.kind == "conv") or not (before.made == after.taken or (spread and whole)):
            return False
    return layers[-1].kind == "linear"


def _told_apart(layers: list[Layer]) -> bool:
    seen: dict[tuple[str, int, int], Layer] = {}
    for layer in layers:
        other = seen.setdefault((layer.kind, layer.taken, layer.made), layer)
        if re.sub(r"\d+", "#", other.name) != re.sub(r"\d+", "#", layer.name):
            return False
    return True


def describe_layers(layers: list[Layer]) -> str:
    """The layers as a phrase."""
    words = {"linear": "linear", "conv": "convolution", "batchnorm": "batch norm"}
    return ", ".join(
        f"{words[one.kind]} {one.made}" if one.kind == "batchnorm" else f"{words[one.kind]} {one.taken} -> {one.made}"
        for one in layers[:12]
    ) + (", ..." if len(layers) > 12 else "")
