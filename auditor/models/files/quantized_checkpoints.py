"""Quantised checkpoints: unpacked, or refused by method name; packed numbers are never read as weights.

What a folder's config.json says of it and what its tensors are need not agree, so both are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from auditor.core.errors import ModelError, UnsupportedError
from auditor.models.files.dequantize import need, unpack
from auditor.models.files.model_bytes import MAX_FILE_BYTES, open_regular_file, printable
from auditor.models.files.model_folder import Folder
from auditor.models.files.weight_files import safetensors_header

# Of each method that is read, by transformers' name of it: whose format it is.
_READ = {
    "bitsandbytes": "bitsandbytes",
    "torchao": "torchao",
    "compressed-tensors": "compressed-tensors",
    "awq": "AWQ",
    "fp8": "FP8 in blocks",
    "mxfp4": "MXFP4",
}
# Of each that is not: the same, and what unpacks it.
_WANTS = {
    "gptq": ("GPTQ", "the package gptqmodel, and a GPU for most of its kernels"),
    "fbgemm_fp8": ("FP8 by FBGEMM", "the package fbgemm-gpu, and a GPU of compute capability 8.9 or above"),
    "quanto": ("Quanto", "the package optimum-quanto"),
    "hqq": ("HQQ", "the package hqq"),
    "eetq": ("EETQ", "the package kernels, and a GPU"),
    "aqlm": ("AQLM", "the package aqlm"),
    "vptq": ("VPTQ", "the package vptq, and a GPU"),
    "bitnet": ("BitNet", "transformers alone"),
}
# What stands beside packed weights, whichever method packed them: scales, zero points, codes of four bits.
_PACKED = re.compile(
    r"(?:^|\.)(?:(?:weight_)?scales?(?:_inv)?|weight_(?:packed|zero_point|shape|scale_inv|format|scb)|input_scale"
    r"|qweight|qzeros|g_idx|scb|codebooks?|codes|\w+_(?:blocks|scales)"
    r"|weight\.(?:absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.\w+))$",
    re.IGNORECASE,
)
_PLAIN = frozenset({"F64", "F32", "F16", "BF16"})
_INSTEAD = (
    "where that runs, save it unpacked with model.dequantize() and model.save_pretrained(other_folder), and audit that "
    "folder; or audit a GGUF file of it"
)


def method_of(settings: Mapping[str, Any], folder: Folder) -> str | None:
    """The packing method of a folder's weights by its config.json, or None if it states none.

    Raises UnsupportedError where that is not read: with what would unpack it.
    """
    said = settings.get("quantization_config")
    if said is None:
        return None
    method = _method_named(said)
    if method in _READ:
        return method
    wants = _WANTS.get(method, ("", "the library that packed it"))[1]
    raise UnsupportedError(
        f"{folder.name!r} is quantised by {_in_words(method)}, which is not read here, and needs {wants}: {_INSTEAD}."
    )


def _method_named(raw_settings: object) -> str:
    """A method by transformers' name, "" where there is none; bitsandbytes was asked for before methods had names."""
    settings = raw_settings if isinstance(raw_settings, Mapping) else {}
    named = settings.get("quant_method")
    if named is None and (settings.get("load_in_4bit") or settings.get("load_in_8bit")):
        return "bitsandbytes"
    return "" if named is None else str(named).lower()


def _in_words(method: str) -> str:
    return _READ.get(method) or _WANTS.get(method, (printable(method, 40) or "a method without a name",))[0]


def refuse_quantised(settings: Mapping[str, Any], folder: Folder) -> None:
    """Raise an error for unusable quantised weights declared in a config.json. ModelError if the files contain none,
    UnsupportedError if their format is not supported, MissingExtraError if the library for it is not installed."""
    said = settings.get("quantization_config")
    if said is None:
        return
    if not _holds_packed(folder):
        name = _in_words(_method_named(said))
        raise ModelError(
            f"The config.json in {folder.name!r} says that its weights are quantised by {name}, and its files hold "
            "plain floating-point weights: put back the config.json that was saved with them, or take "
            "quantization_config out of it if these are the weights that you use.",
            code="AUD-LOAD-WEIGHTS",
        )
    method_read = method_of(settings, folder)
    if method_read is not None:
        need(method_read)


def unpack_quantised(weights: dict[str, Tensor], settings: Mapping[str, Any], folder: Folder) -> None:
    """Replace weights that config.json declares as packed by plain numbers, by :mod:`unpacked`."""
    method = method_of(settings, folder)
    if method is not None:
        unpack(weights, method, settings["quantization_config"], folder.metadata, folder.name)


def packed_by(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The report's sentence on packed weights; empty if they were not packed."""
    said = settings.get("quantization_config")
    name = _READ.get(_method_named(said))
    if name is None:
        return ()
    return (
        f"Its weights are quantised by {name} and were unpacked to the numbers that they stand for: what rounds more "
        "than weights where it is served, such as what goes into each layer, is not in these answers.",
    )


def _holds_packed(folder: Folder) -> bool:
    """Whether any file of the folder holds what packed weights are made of; so do torch files, unseen."""
    files = [name for name in folder.names() if name.endswith(".safetensors")]
    for file in files:
        with open_regular_file(Path(folder.path) / file, "model file", MAX_FILE_BYTES) as (descriptor, size):
            with open(descriptor, "rb", closefd=False) as stream:
                start = stream.read(8)
                start += stream.read(min(int.from_bytes(start, "little"), max(size - 8, 0), 100 << 20))
        header = safetensors_header(start, printable(file), size)
        if any(
            name != "__metadata__" and (_PACKED.search(name) or _is_packed_matrix(spec))
            for name, spec in header.items()
        ):
            return True
    return not files


def _is_packed_matrix(spec: Any) -> bool:
    return isinstance(spec, dict) and spec.get("dtype") not in _PLAIN and len(spec.get("shape") or ()) > 1


def check_plain(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], folder: Folder) -> None:
    """Raise ModelError for packed weights that no config.json declares, or that were left over.

    ``expected``: the network's own. A weight of whole numbers or of eight bits means nothing without its scale, and
    what stands beside weights as their scale says that they are none.
    """
    for name, tensor in weights.items():
        own = expected.get(name)
        packed = tensor.dtype not in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
        if packed and (tensor.dim() > 1 if own is None else own.is_floating_point()):
            raise _unsaid(name, str(tensor.dtype).removeprefix("torch."), folder)
    beside = _first(name for name in weights if name not in expected and _PACKED.search(name))
    if beside is not None:
        raise _unsaid(beside, "the scales of packed weights", folder)


def _first(names: Iterable[str]) -> str | None:
    return min(names, default=None)


def _unsaid(name: str, role: str, folder: Folder) -> ModelError:
    return ModelError(
        f"The files in {folder.name!r} hold {printable(name, 100)!r} as {role}, which is how quantised weights are "
        "stored, and its config.json says nothing of it: put back the config.json that was saved with them.",
        code="AUD-LOAD-WEIGHTS",
    )
