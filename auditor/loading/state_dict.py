"""Bare weights from a torch archive or a safetensors file, loaded into a network that the user names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from auditor.core.errors import ModelError
from auditor.loading.finish_loading import provenance_of, torch_model
from auditor.loading.infer_architecture import build_inferred, is_complete, line_to_copy
from auditor.loading.job_specs import ModelSpec
from auditor.loading.model_bundle import build_known, build_own
from auditor.loading.refusal_advice import WEIGHTS_KEYS, flags_unsaid
from auditor.models.audited_model import AuditedModel
from auditor.models.files.model_bytes import Source, printable
from auditor.models.files.weights import as_state_dict
from auditor.models.networks.architectures import ARCHITECTURES
from auditor.models.networks.layer_chain import Layer
from auditor.models.networks.layer_shapes import describe_layers, layers_of

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
