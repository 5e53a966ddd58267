"""LoRA adapters on the base model that a flag names: low-rank changes of its weights, as data."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from auditor.core.errors import DamagedError, ModelError, UnsafeModelError, UnsupportedError, UsageError
from auditor.loading.huggingface_folders import OneLabel, TextClassifier
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import AuditedModel
from auditor.models.files.model_bytes import printable
from auditor.models.files.model_folder import Folder

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
# What an adapter's configuration may say; whatever else is set changes the arithmetic in a way that is not known here.
_KNOWN = frozenset(
    {
        "alpha_pattern",
        "auto_mapping",
        "base_model_name_or_path",
        "bias",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "lora_dropout",
        "megatron_core",
        "modules_to_save",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "rank_pattern",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
        "use_rslora",
    }
)


def is_adapter(path: str) -> bool:
    """Whether a folder contains an adapter without its own model."""
    folder = Folder(path)
    return folder.has(_CONFIG) and not folder.has("config.json")


def adapted(path: str, spec: ModelSpec, base: AuditedModel) -> AuditedModel:
    """The base model with the adapter's changes in its weights.

    ``W + (alpha / r) B A`` for each changed matrix, ``alpha / sqrt(r)`` where the file says rslora (Hu et al. 2021,
    Kalajdzievski 2023); what the adapter saved whole replaces the base's own. Raises ModelError where the adapter is of
    another kind or another model, UnsafeModelError where it names code.
    """
    folder = Folder(path, memory_map=spec.mapped)
    settings = folder.json(_CONFIG)
    _check(settings, folder)
    if not folder.has(_WEIGHTS):
        raise ModelError(
            f"{folder.name!r} holds no {_WEIGHTS}: save it with model.save_pretrained(folder, "
            "safe_serialization=True).",
            code="AUD-LOAD-INCOMPLETE",
        )
    weights = folder.tensors(_WEIGHTS)
    network = _network(base)
    changed = _add(network, weights, settings, folder.name)
    provenance = base.provenance
    digest = hashlib.sha256(f"{folder.sha256} adapter\n{provenance.sha256} base\n".encode()).hexdigest()
    base.provenance = replace(
        provenance,
        path=path,
        sha256=digest,
        format="LoRA adapter",
        loaded_by=f"{provenance.loaded_by}, the adapter's low-rank changes added",
        size_bytes=folder.size_bytes + (provenance.size_bytes or 0),
        notes=(
            *provenance.notes,
            *_other_base(settings, spec),
            f"LoRA adapter of {changed} matrices on the base {printable(provenance.path, 80)}, "
            f"sha256 {printable(provenance.sha256, 64)}.",
        ),
    )
    return base


def _other_base(settings: Mapping[str, Any], spec: ModelSpec) -> tuple[str, ...]:
    """A note where the adapter names another base than --base does: shapes may fit, and no file says more."""
    named = settings.get("base_model_name_or_path")
    ends = [Path(text).name.lower() for text in (named, spec.base) if isinstance(text, str)]
    if len(ends) < 2 or not ends[0] or ends[0] == ends[1]:
        return ()
    return (
        f"The adapter says that it was trained on {printable(named, 80)!r}: that --base is the same model is the word "
        "of whoever named it.",
    )


def base_spec(path: str, spec: ModelSpec) -> ModelSpec:
    """The flags of the base model. Raises UsageError where none is named, or it is an adapter itself."""
    folder = Folder(path)
    if spec.base is None:
        named = folder.json(_CONFIG).get("base_model_name_or_path")
        of = f" of {printable(named, 80)!r}" if isinstance(named, str) and named else ""
        raise UsageError(
            f"{folder.name!r} is an adapter{of} without its model: name the model's folder with --base FOLDER."
        )
    if not Path(spec.base).is_dir() or is_adapter(spec.base):
        raise UsageError("--base must name the folder of the model that the adapter was trained on.")
    return replace(spec, path=spec.base, base=None)


def _check(settings: Mapping[str, Any], folder: Folder) -> None:
    mapping = settings.get("auto_mapping")
    library = mapping.get("parent_library", "") if isinstance(mapping, dict) else mapping
    if mapping is not None and not str(library).startswith("transformers.models."):
        raise UnsafeModelError(
            f"{_CONFIG!r} in {folder.name!r} names code to import ({printable(library, 80)}); code that comes with a "
            "model is never run. Audit it with --predict package.module:function."
        )
    merge = "merge it yourself with model.merge_and_unload(), save that and name its folder"
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise UnsupportedError(
            f"{folder.name!r} is an adapter of the kind {printable(kind, 40)}, and LoRA is read: {merge}."
        )
    other = [key for key, value in settings.items() if key not in _KNOWN and value]
    other += ["bias"] if settings.get("bias", "none") != "none" else []
    if other:
        raise UnsupportedError(
            f"{folder.name!r} is a LoRA adapter with {printable(other[0], 40)}, which is not read: {merge}."
        )


def _network(base: AuditedModel) -> nn.Module:
    module = getattr(base, "module", None)
    if not isinstance(module, nn.Module):
        raise ModelError("--base must name a Hugging Face folder with a network in it.", code="AUD-LOAD-INCOMPLETE")
    while isinstance(module, TextClassifier | OneLabel):
        module = module.network
    return module


def _add(network: nn.Module, weights: Mapping[str, Tensor], settings: Mapping[str, Any], adapter_name: str) -> int:
    """Adds every change; how many matrices it was. Every tensor of the file has a place, or it is an error."""
    pairs: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        place = name.removeprefix(_PREFIX)
        stem, _, part = place.removesuffix(".weight").rpartition(".")
        if part in ("lora_A", "lora_B") and place.endswith(".weight"):
            pairs.setdefault(stem, {})[part] = tensor
        else:
            whole[place.replace(".modules_to_save.", ".")] = tensor
    known = dict(network.named_parameters())
    # Of a layer of embeddings peft saves what the base had there too.
    of_base = {name: whole.pop(name) for name in [*whole] if name.endswith(".base_layer.weight")}
    for name, tensor in of_base.items():
        own = known.get(name.replace(".base_layer.", "."))
        there = None if own is None or own.shape != tensor.shape else own.cpu().float()
        if there is None or not torch.allclose(there, tensor.float(), 1e-2, 1e-3):
            raise ModelError(
                f"The adapter {adapter_name!r} holds its base's {printable(name, 100)!r}, and that of --base is "
                f"another: name "
                "the model that it was trained on.",
                code="AUD-LOAD-WEIGHTS",
            )
    for name, tensor in whole.items():
        if name not in known or known[name].shape != tensor.shape:
            raise ModelError(
                f"The adapter {adapter_name!r} holds {printable(name, 100)!r}, which its base does not have so.",
                code="AUD-LOAD-WEIGHTS",
            )
    changes = {name: _change(network, name, pair, settings, adapter_name) for name, pair in pairs.items()}
    if not changes and not whole:
        raise DamagedError(f"The adapter {adapter_name!r} changes nothing.")
    with torch.no_grad():
        for name, change in changes.items():
            changed = network.get_parameter(f"{name}.weight")
            changed.add_(change.to(changed.device))
        for name, tensor in whole.items():
            known[name].copy_(tensor)
    return len(changes) + len(whole)


def _change(
    network: nn.Module, name: str, pair: Mapping[str, Tensor], settings: Mapping[str, Any], adapter_name: str
) -> Tensor:
    from transformers.pytorch_utils import Conv1D

    try:
        module = network.get_submodule(name)
    except AttributeError:
        module = None
    if not isinstance(module, (nn.Linear, Conv1D)) or len(pair) != 2:
        raise ModelError(
            f"The adapter {adapter_name!r} changes {printable(name, 100)!r}, which its base does not have so: is "
            f"--base the "
            "model that it was trained on?",
            code="AUD-LOAD-WEIGHTS",
        )
    low, high = pair["lora_A"].double(), pair["lora_B"].double()
    turned = isinstance(module, Conv1D)
    shape = module.weight.shape[::-1] if turned else module.weight.shape
    if low.dim() != 2 or high.dim() != 2 or high.shape[1] != low.shape[0] or (high.shape[0], low.shape[1]) != shape:
        raise ModelError(
            f"The adapter {adapter_name!r} changes {printable(name, 100)!r} by matrices of another shape.",
            code="AUD-LOAD-WEIGHTS",
        )
    rank = _of_layer(settings, "rank_pattern", name, settings.get("r"), adapter_name)
    alpha = _of_layer(settings, "alpha_pattern", name, settings.get("lora_alpha"), adapter_name)
    if rank != low.shape[0]:
        raise ModelError(
            f"The adapter {adapter_name!r} says rank {rank:g} of {printable(name, 100)!r}, which has {low.shape[0]}.",
            code="AUD-LOAD-WEIGHTS",
        )
    scale = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    change = scale * (high @ low)
    return (change.T if turned else change).to(module.weight.dtype)


def _of_layer(settings: Mapping[str, Any], pattern: str, name: str, default: object, adapter_name: str) -> float:
    """The number that holds for a layer: its own where the pattern names it, else that of all."""
    found = default
    for key, value in (settings.get(pattern) or {}).items():
        if not all(c.isalnum() or c in "._" for c in str(key)):
            raise DamagedError(
                f"The adapter {adapter_name!r} has a {pattern} that is no plain name: {printable(key, 60)}."
            )
        if name == key or name.endswith(f".{key}"):
            found = value
    if not isinstance(found, (int, float)) or isinstance(found, bool) or not 0 < found < 1e6:
        raise DamagedError(f"The adapter {adapter_name!r} has no sane rank or lora_alpha.")
    return float(found)
