"""Bare weights from a torch archive or a safetensors file, loaded into a network that the user names.

Without a name, the architecture is inferred from the weights' shapes; missing facts are requested, never guessed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields

import torch
from torch import Tensor, nn

from auditor.core.errors import ModelError, UsageError, did_you_mean
from auditor.data.preprocessing import ImagePreprocessing
from auditor.loading.finish_loading import provenance_of, torch_model
from auditor.loading.job_specs import ModelSpec, flags_unsaid
from auditor.loading.model_bundle import build_known, build_own
from auditor.models.audited_model import AuditedModel
from auditor.models.files.model_bytes import Source, printable
from auditor.models.files.weight_files import WEIGHTS_KEYS
from auditor.models.files.weights import as_state_dict, plain_floats
from auditor.models.networks.architectures import ARCHITECTURES
from auditor.models.networks.layer_chain import ACTIVATIONS, Between, Chain, Layer, describe_layers, layers_of

_MAX_SIDE = 8192
_CHOICES = {"activation": tuple(ACTIVATIONS), "batchnorm": ("before", "after"), "head": ("flatten", "mean")}
_NUMBERS = {
    "size": "the pictures' width in pixels",
    "mean": "a number, or one for each channel, of pixels in [0, 1]",
    "std": "a number above 0, or one for each channel, of pixels in [0, 1]",
}


def is_complete(layers: list[Layer]) -> bool:
    """Whether shapes determine everything: a single linear layer has nothing after it.

    Without a bias it may be an embedding.
    """
    return [(layer.kind, layer.bias) for layer in layers] == [("linear", True)]


def missing_arguments(layers: list[Layer]) -> dict[str, str | int]:
    """The facts about these layers that shapes do not determine, each with the commonest value."""
    asked: dict[str, str | int] = {} if [layer.kind for layer in layers] == ["linear"] else {"activation": "relu"}
    if any(layer.kind == "batchnorm" for layer in layers):
        asked["batchnorm"] = "before"
    if any(layer.kind == "conv" for layer in layers):
        kernel = next(layer.kernel[0] for layer in layers if layer.kind == "conv")
        asked |= {"padding": kernel // 2, "stride": 1, "pool": 2, "head": "flatten"}
        widths = [(a.made, b.taken) for a, b in zip(layers, layers[1:], strict=False) if b.kind == "linear"]
        if widths and widths[0][0] == widths[0][1]:
            asked["head"] = "mean"
        asked |= {"size": _side(layers), "mean": 0, "std": 1}
    return asked


def _side(layers: list[Layer]) -> int:
    """How wide a picture would be, in pixels, with the commonest of all else; where anything goes, a common width."""
    spread = next(((a.made, b.taken) for a, b in zip(layers, layers[1:], strict=False) if b.kind == "linear"), None)
    left = 0 if spread is None else math.isqrt(spread[1] // spread[0])
    halved = sum(layer.kind == "conv" for layer in layers)
    fits = spread is not None and 1 < left and left * left * spread[0] == spread[1] and left << halved <= _MAX_SIDE
    return left << halved if fits else 224


def line_to_copy(layers: list[Layer]) -> str:
    """The flags for the facts that shapes do not determine."""
    name = "cnn" if any(layer.kind == "conv" for layer in layers) else "mlp"
    return f"--architecture {name} --architecture-args '{json.dumps(missing_arguments(layers))}'"


def _is_one(key: str, value: object, channels: int) -> bool:
    """Whether an argument is one of its choices, or a number such as it takes."""
    if key in _CHOICES:
        return value in _CHOICES[key]
    if key in ("mean", "std"):
        values = value if isinstance(value, list) else [value]
        numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v)]
        return len(numbers) == len(values) in (1, channels) and (key == "mean" or min(numbers) > 0)
    least, most = (1, _MAX_SIDE) if key == "size" else (0, 64)
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _pictures(args: Mapping[str, object], channels: int) -> ImagePreprocessing | None:
    """How pictures come to the network, where it takes any."""
    if "size" not in args:
        return None
    of: dict[str, tuple[float, ...]] = {}
    for key in ("mean", "std"):
        value = args[key]
        values = value if isinstance(value, list) else [value]
        of[key] = tuple(map(float, values)) * (channels if len(values) == 1 else 1)
    side = int(str(args["size"]))
    return ImagePreprocessing(size=(side, side), mean=of["mean"], std=of["std"])


def build_inferred(
    layers: list[Layer], weights: Mapping[str, Tensor], args: Mapping[str, object]
) -> tuple[nn.Module, ImagePreprocessing | None, tuple[str, ...]]:
    """The network of these layers with the parts between them from ``args``, its image preprocessing if it takes
    images, and notes on the inferred facts.

    Raises UsageError where an argument is missing, unknown or none of its choices.
    """
    asked = missing_arguments(layers)
    for key, value in args.items():
        if key not in asked:
            near = did_you_mean(key, asked) or f": it takes {', '.join(asked) or 'none'}"
            raise UsageError(
                f"--architecture-args has {printable(key, 40)!r}, which these weights leave no room for{near}."
            )
        if not _is_one(key, value, layers[0].taken):
            allowed = ", ".join(_CHOICES[key]) if key in _CHOICES else _NUMBERS.get(key, "a whole number")
            raise UsageError(f"--architecture-args: {key} must be {allowed}, not {printable(value, 40)!r}.")
    missing = [key for key in asked if key not in args]
    if missing:
        raise UsageError(
            f"The weights ({describe_layers(layers)}) do not say their {', '.join(missing)}: for the commonest, give "
            f"{line_to_copy(layers)}."
        )
    known = {field.name for field in fields(Between)}
    between = Between(**{key: value for key, value in args.items() if key in known})  # type: ignore[arg-type]
    with torch.device("meta"):
        module = Chain(layers, between)
    copies, notes = plain_floats(weights)
    module.load_state_dict(
        {
            f"layers.{i}.{part}": copies[f"{layer.name}.{part}" if layer.name else part]
            for i, layer in enumerate(layers)
            for part in module.layers[i].state_dict()
            if (f"{layer.name}.{part}" if layer.name else part) in copies
        },
        assign=True,
        strict=not any(layer.kind == "batchnorm" for layer in layers),
    )
    said = ", ".join(f"{key} {value}" for key, value in args.items())
    between_said = f"; that it has {said} was said, and nothing in the file confirms it" if said else ""
    return (
        module.eval(),
        _pictures(args, layers[0].taken),
        (
            f"The network was inferred from the shapes of its weights, one after the other: {describe_layers(layers)}"
            f"{between_said}.",
            *notes,
        ),
    )


# What wrappers put before every name: data parallelism, torch.compile.
_PREFIXES = ("module.", "_orig_mod.")


def load_state_dict(
    loaded: object,
    source: Source,
    spec: ModelSpec,
    *,
    format: str,
    loaded_by: str,
    provenance_notes: tuple[str, ...] = (),
) -> AuditedModel:
    """A model of ``--architecture`` with these weights. Raises ModelError where none is named or they do not fit."""
    nested, notes = _unwrapped(loaded)
    weights, more = _without_prefix(as_state_dict(nested, source.name))
    layers = layers_of(weights, in_order=format != "safetensors")
    if layers is not None and _left_to_shapes(spec, layers):
        module, preprocessing, built = build_inferred(layers, weights, spec.architecture_args)
        provenance = provenance_of(source, format, loaded_by, (*provenance_notes, *notes, *more, *built))
        model = torch_model(module, spec, provenance, preprocessing=preprocessing)
        model.n_columns = layers[0].taken if preprocessing is None else None
        return model
    if spec.architecture is None and layers is not None:
        flags = flags_unsaid(spec, of_a_table=all(layer.kind != "conv" for layer in layers))
        raise ModelError(
            f"{source.name!r} holds weights only, of {describe_layers(layers)}, and shapes do not say what lies "
            f"between: for "
            f"the commonest, add {line_to_copy(layers)}{flags}; else name its class with --architecture "
            "package.module:Class and its arguments with --architecture-args JSON.",
            code="AUD-LOAD-ARCHITECTURE",
        )
    if spec.architecture is None:
        names = ", ".join(printable(n, 60) for n in list(weights)[:3])
        folder = " If it belongs to a Hugging Face folder, give the folder." if format == "safetensors" else ""
        raise ModelError(
            f"{source.name!r} holds weights only ({names}{', ...' if len(weights) > 3 else ''}), not the network "
            "that they belong to: name its class with --architecture package.module:Class and its arguments with "
            f"--architecture-args JSON, or use one of {', '.join(ARCHITECTURES)}.{folder}",
            code="AUD-LOAD-ARCHITECTURE",
        )
    module, built = _build(spec, weights, source.name)
    return torch_model(
        module,
        spec,
        provenance_of(source, format, loaded_by, (*provenance_notes, *notes, *more, *built)),
        architecture={"name": spec.architecture, "args": dict(spec.architecture_args)},
    )


def _left_to_shapes(spec: ModelSpec, layers: list[Layer]) -> bool:
    """Whether the flags name no network of ours or of the user's, but at most what shapes cannot say."""
    if spec.architecture is None:
        return is_complete(layers)
    if spec.architecture == "cnn":
        return True
    # The arguments of the network of that name in the table of architectures are all numbers.
    return spec.architecture == "mlp" and "n_features" not in spec.architecture_args


def _build(spec: ModelSpec, weights: Mapping[str, Tensor], file_name: str) -> tuple[nn.Module, tuple[str, ...]]:
    if spec.architecture in ARCHITECTURES:
        return build_known(spec.architecture, spec.architecture_args, weights, file_name)
    return build_own(spec, {}, weights, file_name)


def _unwrapped(loaded: object) -> tuple[object, tuple[str, ...]]:
    if isinstance(loaded, Mapping):
        for key in WEIGHTS_KEYS:
            inner = loaded.get(key)
            if isinstance(inner, Mapping) and inner and all(isinstance(v, Tensor) for v in inner.values()):
                return inner, (f"The weights were found under {key!r} of a training checkpoint.",)
    return loaded, ()


def _without_prefix(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    notes: list[str] = []
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): t for name, t in weights.items()}
            notes.append(f"The prefix {prefix!r} was taken off the names of the weights.")
    return weights, tuple(notes)
