"""Quantised checkpoints: unpacked, or refused by method name; packed numbers are never read as weights.

What a folder's config.json says of it and what its tensors are need not agree, so both are looked at.

Packed weights are converted to plain numbers, by the library that packed them if it is needed. A network of plain
weights is loaded, checked, moved and asked like any other, on every device. Kernels that compute with packed weights
are not: some fetch themselves from a hub, most want one kind of card.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from auditor.core.errors import DamagedError, MissingExtraError, ModelError, UnsupportedError
from auditor.models.files.model_bytes import MAX_FILE_BYTES, convert_parser_errors, open_regular_file, printable
from auditor.models.files.model_folder import Folder
from auditor.models.files.weight_files import safetensors_header

Weights = dict[str, Tensor]
Said = Mapping[str, Any]
# What a state of bitsandbytes is made of beside its packed weight.
_STATES = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")


def unpack(weights: Weights, method: str, settings: Said, metadata: Mapping[str, str], file_name: str) -> None:
    """Replace packed weights by plain numbers, one after another, and remove their auxiliary tensors.

    ``method``: one of METHODS. ``settings``: the quantization_config. ``metadata``: of the safetensors files. Raises
    MissingExtraError without the library, ModelError where it cannot be done; nothing is taken for what it is not.
    """
    need(method)
    with (
        convert_parser_errors(f"The packed weights in {file_name!r} cannot be unpacked"),
        warnings.catch_warnings(),
        torch.no_grad(),
    ):
        # Of kernels that are not used, and of versions to come.
        warnings.simplefilter("ignore")
        METHODS[method](weights, settings, metadata)


def need(method: str) -> None:
    """Raise MissingExtraError if the library for unpacking is not installed."""
    package, extra = _LIBRARIES.get(method, ("", ""))
    if package and importlib.util.find_spec(package) is None:
        raise MissingExtraError(
            f"Unpacking weights of the method {method!r} needs {package.replace('_', '-')}: "
            f"pip install 'responsible-auditor[{extra}]'."
        )


def _bitsandbytes(weights: Weights, settings: Said, metadata: Mapping[str, str]) -> None:
    """8 bits: a scale a row (Dettmers et al. 2022); 4 bits: a code book and a scale a block (Dettmers et al. 2023).

    The library's own kernel for CPUs takes a block for part of one row, which it need not be.
    """
    for name in [name for name in weights if name.endswith(".SCB")]:
        stem = name.removesuffix("SCB")
        packed, scales = weights.get(f"{stem}weight"), weights.pop(name)
        order = weights.pop(f"{stem}weight_format", None)
        if packed is None or packed.dtype != torch.int8 or packed.dim() != 2 or scales.numel() != packed.shape[0]:
            raise DamagedError(f"{printable(name, 100)!r} are no scales of rows of whole numbers beside it.")
        if order is not None and int(order) != 0:
            raise UnsupportedError(f"{printable(stem, 100)!r} lies in another order than by rows: save it anew.")
        weights[f"{stem}weight"] = packed.float() * (scales.float().reshape(-1, 1) / 127)
    for name in [name for name in weights if ".quant_state.bitsandbytes__" in name]:
        weight = name.partition(".quant_state.")[0]
        state = json.loads(bytes(weights.pop(name).to(torch.uint8).tolist()))
        absmax, codes, nested, nested_codes = (weights.pop(f"{weight}.{part}", None) for part in _STATES)
        if nested is not None and absmax is not None:
            scales = _by_codes(absmax, nested_codes, nested, state["nested_blocksize"], absmax.numel(), weight)
            absmax = scales + float(state["nested_offset"])
        # Two codes a byte, the first in its upper half.
        held = weights[weight].contiguous().view(torch.uint8).flatten()
        numbers = torch.stack([held >> 4, held & 15], dim=1).flatten()
        shape = [int(n) for n in state["shape"]]
        plain = _by_codes(numbers, codes, absmax, state["blocksize"], math.prod(shape), weight)
        weights[weight] = plain.reshape(shape)


def _by_codes(numbers: Tensor, codes: Tensor | None, scales: Tensor | None, block: object, n: int, name: str) -> Tensor:
    """(n,) numbers by their codes, each times the scale of its block. Raises DamagedError where sizes do not fit."""
    fits = isinstance(block, int) and block > 0 and n <= len(numbers) <= n + 1 and not numbers.is_floating_point()
    # A CPU's own order of them has rows and columns.
    if not fits or codes is None or scales is None or scales.shape != (-(-n // int(str(block))),):
        raise DamagedError(
            f"the scales of {printable(name, 100)!r} are not of its size; a model that was saved after it had computed "
            "on a CPU may hold such: quantise and save it anew."
        )
    found = codes.float()[numbers[:n].long()]
    return found * scales.float()[torch.arange(n) // int(str(block))]


def _torchao(weights: Weights, settings: Said, metadata: Mapping[str, str]) -> None:
    from torchao.prototype.safetensors.safetensors_support import unflatten_tensor_state_dict

    for name, described in metadata.items():
        stem, dot, last = name.rpartition(".")
        kind = _object(described) if dot else {}
        if not kind or kind.get("_type") == "Tensor":
            continue
        _plain_kinds(kind)
        keys = [f"{stem}._{last}_{part}" for part in kind.get("_tensor_data_names") or ()]
        absent = [key for key in keys if key not in weights]
        if absent or not keys:
            raise DamagedError(f"{printable((absent or [name])[0], 100)!r} is not there.")
        packed, _ = unflatten_tensor_state_dict(
            {key: weights.pop(key) for key in keys},
            {name: described, "tensor_names": json.dumps([name])},
        )
        weights[name] = packed[name].dequantize().float().contiguous()


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _plain_kinds(value: object) -> None:
    """torchao takes whatever torch has under the name that stands for a number format."""
    if isinstance(value, list):
        for item in value:
            _plain_kinds(item)
    elif isinstance(value, dict):
        named = value.get("_data")
        if value.get("_type") == "torch.dtype" and not isinstance(getattr(torch, str(named), None), torch.dtype):
            raise DamagedError(f"{printable(named, 40)!r} is no number format.")
        _plain_kinds(list(value.values()))


def _compressed_tensors(weights: Weights, settings: Said, metadata: Mapping[str, str]) -> None:
    from compressed_tensors.quantization import QuantizationConfig

    sparse = settings.get("sparsity_config")
    dense = not sparse or (isinstance(sparse, Mapping) and sparse.get("format") == "dense")
    if not dense or settings.get("transform_config"):
        raise UnsupportedError("its weights are sparse or transformed as well, which is not read: save it dense.")
    _decompress(weights, QuantizationConfig.model_validate(dict(settings)))


def _decompress(weights: Weights, config: Any) -> None:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.utils.match import match_name

    modules: dict[str, dict[str, Tensor]] = {}
    for name in [*weights]:
        module, _, last = name.rpartition(".")
        if last.startswith(("weight", "input_", "output_")):
            modules.setdefault(module, {})[last] = weights[name]
    schemes = list(config.config_groups.values())
    for module, parts in modules.items():
        if "weight_packed" not in parts and "weight_scale" not in parts:
            continue
        # A group names its modules, by a pattern too, or their class: whoever is named is named first.
        named = next((s for s in schemes if any(match_name(module, target) for target in s.targets)), None)
        of_class = [s for s in schemes if any(isinstance(getattr(nn, t, None), type) for t in s.targets)]
        if named is None and len(of_class) > 1:
            raise UnsupportedError(
                f"several groups of its configuration name classes, and which of them {printable(module, 100)!r} is of "
                "is not known: save it with groups that name their modules."
            )
        scheme = next(iter(of_class), None) if named is None else named
        if scheme is None:
            raise DamagedError(f"no group of its configuration names {printable(module, 100)!r}.")
        _check_packed(parts, scheme.weights.num_bits, module)
        kind = BaseCompressor.get_value_from_registry(scheme.format or config.format)
        plain = kind.decompress(parts, scheme)["weight"]
        for last in parts:
            del weights[f"{module}.{last}"]
        weights[f"{module}.weight"] = plain.float().contiguous()


def _check_packed(parts: Mapping[str, Tensor], bits: int, module: str) -> None:
    """That a claimed shape takes the memory that the packed numbers fill: of 32-bit words it is known to a word."""
    packed, shape = parts.get("weight_packed"), parts.get("weight_shape")
    if packed is None or shape is None:
        return
    sizes = [max(int(n), 0) for n in shape.reshape(-1)[:4].tolist()]
    claimed = math.prod(sizes)
    if claimed * bits > 8 * packed.numel() * packed.element_size():
        raise DamagedError(f"{printable(module, 100)!r} claims {claimed:,} numbers and holds fewer.")
    words = [*sizes[:-1], *(-(-n // (32 // bits)) for n in sizes[-1:])]
    if packed.dtype == torch.int32 and list(packed.shape) != words:
        raise DamagedError(f"{printable(module, 100)!r} claims {claimed:,} numbers of {bits} bits and holds others.")


def _awq(weights: Weights, settings: Said, metadata: Mapping[str, str]) -> None:
    """Packed by AutoAWQ, read as what compressed-tensors makes of it (Lin et al. 2024)."""
    from compressed_tensors.entrypoints.convert.converters import AutoAWQConverter

    if (
        settings.get("bits", 4) != 4
        or settings.get("version", "gemm") != "gemm"
        or settings.get("backend", "auto") == "llm-awq"
    ):
        raise UnsupportedError("only AWQ of 4 bits in the order 'gemm' is read: save it so, or unpacked.")
    converter = AutoAWQConverter.from_autoawq_config(dict(settings))
    converter.process(weights)
    _decompress(weights, converter.update_config(None))


def _fp8(weights: Weights, settings: Said, metadata: Mapping[str, str]) -> None:
    """Eight-bit floating-point numbers times the scale of their block, or of all of a weight (DeepSeek-AI 2024)."""
    size = settings.get("weight_block_size") or (1 << 40, 1 << 40)
    if len(size) != 2 or any(not isinstance(n, int) or n < 1 for n in size):
        raise DamagedError(f"its weight_block_size is {printable(size, 40)}.")
    for name in [name for name in weights if name.endswith(".weight_scale_inv")]:
        stem = name.removesuffix("weight_scale_inv")
        packed, scales = weights.get(f"{stem}weight"), weights.pop(name)
        weights.pop(f"{stem}activation_scale", None)
        if packed is None or packed.dim() != 2 or packed.dtype not in (torch.float8_e4m3fn, torch.float8_e5m2):
            raise DamagedError(f"{printable(name, 100)!r} is no scale of eight-bit floating-point numbers beside it.")
        if not scales.is_floating_point() or scales.element_size() < 2:
            raise UnsupportedError(f"{printable(name, 100)!r} are powers of two, which are not read.")
        grid = tuple(-(-n // block) for n, block in zip(packed.shape, size, strict=True))
        if scales.numel() != math.prod(grid):
            n = math.prod(grid)
            raise DamagedError(f"{printable(name, 100)!r} has {scales.numel():,} scales for {n:,} blocks.")
        rows, columns = (torch.arange(n) // block for n, block in zip(packed.shape, size, strict=True))
        weights[f"{stem}weight"] = packed.float() * scales.float().reshape(grid)[rows][:, columns]


def _mxfp4(weights: Weights, settings: Said, metadata: Mapping[str, str]) -> None:
    """Four-bit floating-point numbers, 32 with one power of two (Open Compute Project 2023)."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    for name in [name for name in weights if name.endswith("_blocks")]:
        stem = name.removesuffix("_blocks")
        packed, scales = weights.pop(name), weights.pop(f"{stem}_scales", None)
        if (
            scales is None
            or packed.dtype != torch.uint8
            or scales.dtype != torch.uint8
            or packed.shape[:-1] != scales.shape
        ):
            raise DamagedError(f"{printable(name, 100)!r} has no scale for every block beside it.")
        weights[stem] = convert_moe_packed_tensors(packed, scales, dtype=torch.float32).contiguous()


METHODS: dict[str, Callable[[Weights, Said, Mapping[str, str]], None]] = {
    "bitsandbytes": _bitsandbytes,
    "torchao": _torchao,
    "compressed-tensors": _compressed_tensors,
    "awq": _awq,
    "fp8": _fp8,
    "mxfp4": _mxfp4,
}
# The package that unpacks, and the extra that brings it.
_LIBRARIES = {
    "torchao": ("torchao", "quantize"),
    "compressed-tensors": ("compressed_tensors", "compressed-tensors"),
    "awq": ("compressed_tensors", "compressed-tensors"),
}


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
