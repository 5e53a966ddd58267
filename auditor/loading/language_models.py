"""Language models: Hugging Face folders of transformers' own causal and masked classes, and GGUF files.

A folder goes through the same checks as a classifier's: safetensors only, no code, no climbing shard paths, every
weight present. A GGUF file is read by transformers, which sees a folder that holds nothing else.
It computes in the dtype of its files, in float32, or in the one that a flag names.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from auditor.core.errors import MissingExtraError, ModelError, UnsupportedError
from auditor.core.files import sha256_of
from auditor.loading.finish_loading import provenance_in, provenance_of
from auditor.loading.job_specs import ModelSpec
from auditor.models.encoder_decoder import FAMILIES, AuditedEncoderDecoder
from auditor.models.files.hf_folder import (
    build_network,
    ignored_files,
    quiet_and_offline,
    read_tokenizer,
    read_weights,
    refuse_settings,
    settings_notes,
    template_notes,
)
from auditor.models.files.model_bytes import Source, convert_parser_errors, printable
from auditor.models.files.model_folder import Folder, open_model_folder
from auditor.models.files.weight_files import check_gguf
from auditor.models.forward_passes import told_spread
from auditor.models.language_model import AuditedLanguageModel
from auditor.models.text_scores import Objective

Asked = Literal["auto", "bfloat16", "float16", "float32"]
COMPUTED = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def name_of(dtype: torch.dtype) -> str:
    """The name of a number format, such as ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


def stored_in(weights: Mapping[str, Tensor]) -> torch.dtype:
    """The dtype of most of a model's floating-point weights, which config.json may state wrongly.

    float32 where there are none.
    """
    sizes: dict[torch.dtype, int] = {}
    for tensor in weights.values():
        # Numbers of one byte are packed ones, which nothing is computed in.
        if tensor.is_floating_point() and tensor.element_size() > 1:
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.numel()
    return max(sizes, key=lambda dtype: (sizes[dtype], dtype.itemsize), default=torch.float32)


def computed_in(dtype_option: Asked, device: str, stored: torch.dtype) -> torch.dtype:
    """The number format to compute in.

    ``auto`` is float32 on a CPU: it holds float16 and bfloat16 exactly, where computing in bfloat16 itself moves the
    difference of two texts by tenths of a nat and takes longer. On a GPU it is what the files hold, float32 where that
    is none of the three.
    """
    if dtype_option != "auto":
        return COMPUTED[dtype_option]
    if torch.device(device).type == "cpu" or stored not in COMPUTED.values():
        return torch.float32
    return stored


def dtype_sentence(
    computed: torch.dtype, stored: torch.dtype, dtype_option: Asked, *, has_packed_weights: bool = False
) -> str:
    """The report's sentence on the compute dtype, its origin, and the dtype of the files.

    ``has_packed_weights``: they hold packed weights too.
    """
    by = "" if dtype_option == "auto" else ", as --dtype says"
    same = stored == computed
    exact = "" if same or computed.itemsize <= stored.itemsize else ", which it holds exactly"
    files = "its files, but for packed weights," if has_packed_weights else "its files"
    held = f"as {files} are" if same else f"and {files} hold {name_of(stored)}{exact}"
    less = computed.itemsize < 4
    more = " Sums are in float32 or better; computed in float32 it may answer otherwise." if less else ""
    return f"Computed in {name_of(computed)}{by}, {held}.{more}"


GGUF_FORMAT = "GGUF"


def is_language_model(path: str) -> bool:
    """Whether a folder's config.json names a language model of transformers: causal, masked, or one like T5.

    Raises ModelError where config.json is no JSON object, UnsafeModelError where it names code to run.
    """
    folder = Folder(path)
    return folder.has("config.json") and _objective(folder.json("config.json")) is not None


def load_language_folder(path: str, spec: ModelSpec) -> AuditedLanguageModel:
    """The language model of a Hugging Face folder. Raises UnsafeModelError for code and pickles, else ModelError."""
    folder, settings = open_model_folder(path, memory_map=spec.mapped)
    found = _objective(settings)
    if found is None:
        raise UnsupportedError(
            f"{folder.name!r} is none of transformers' own causal or masked language models: see the architectures in "
            "its config.json."
        )
    refuse_settings(settings, folder)
    objective, name = found
    weights = read_weights(folder)
    stored = stored_in(weights)
    dtype = computed_in(spec.dtype, spec.device, stored)
    # There is nothing to spread over but cards.
    spread_by = spec.device_map if torch.device(spec.device).type == "cuda" else None
    with quiet_and_offline():
        network, _ = build_network("text", name, settings, weights, folder, dtype, spread_by)
        tokenizer = read_tokenizer(folder)
    packed = settings.get("quantization_config") is not None
    of_files = (*ignored_files(folder), *settings_notes(settings), *template_notes(tokenizer))
    where = () if spec.device_map is None else (told_spread(spec.device_map, _parts(network), spec.device),)
    provenance = provenance_in(
        folder, name, (dtype_sentence(dtype, stored, spec.dtype, has_packed_weights=packed), *where, *of_files)
    )
    if objective == "seq2seq":
        return _sized(AuditedEncoderDecoder(network, tokenizer, device=spec.device, provenance=provenance))
    return _sized(
        AuditedLanguageModel(network, tokenizer, objective=objective, device=spec.device, provenance=provenance)
    )


def _sized(model: AuditedLanguageModel) -> AuditedLanguageModel:
    """On a card, where it follows free memory and moves last digits, the size of a batch is a note of the report."""
    if model.device.type == "cuda":
        note = f"Up to {model.batch_tokens:,} tokens were computed at once."
        model.provenance = replace(model.provenance, notes=(*model.provenance.notes, note))
    return model


def _parts(network: nn.Module) -> Mapping[str, int | str] | None:
    return getattr(network, "hf_device_map", None)


def _objective(settings: Mapping[str, Any]) -> tuple[Objective, str] | None:
    """(objective, name of transformers' class), by exact name from transformers' own tables, or None."""
    from transformers.models.auto import modeling_auto

    kind, listed = settings.get("model_type"), settings.get("architectures")
    name = listed[0] if isinstance(listed, list) and listed else None
    if not isinstance(kind, str) or not isinstance(name, str):
        return None
    if modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind) == name:
        return "causal", name
    if modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES.get(kind) == name:
        return "masked", name
    if kind in FAMILIES and modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.get(kind) == name:
        return "seq2seq", name
    return None


def load_gguf(source: Source, spec: ModelSpec) -> AuditedLanguageModel:
    """The causal model of a GGUF file, dequantised by transformers, to float32 unless a flag selects otherwise.

    Raises MissingExtraError without the packages that read it, ModelError where it cannot be used.
    """
    check_gguf(source)
    absent = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if absent:
        raise MissingExtraError(
            f"Reading a GGUF file needs {' and '.join(absent)}: pip install 'responsible-auditor[gguf]'."
        )
    if b"general.architecture" in source.data and b"tokenizer.ggml.model" not in source.data:
        raise ModelError(
            f"{source.name!r} holds weights and no tokenizer, so that no text can be given to it: convert it again "
            "with its tokenizer, as llama.cpp's convert_hf_to_gguf.py does, or audit the folder that it was made of.",
            code="AUD-LOAD-INCOMPLETE",
        )
    import transformers

    dtype = computed_in(spec.dtype, spec.device, torch.float32)
    file = "model.gguf"
    with (
        tempfile.TemporaryDirectory() as folder,
        quiet_and_offline(),
        convert_parser_errors(f"{source.name!r} cannot be read as a GGUF file"),
    ):
        # transformers looks for other files beside the one it is given; here there are none.
        (Path(folder) / file).symlink_to(Path(source.path).resolve())
        where: dict[str, Any] = {"gguf_file": file, "local_files_only": True, "trust_remote_code": False}
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **where)
        network, info = transformers.AutoModelForCausalLM.from_pretrained(
            folder, **where, dtype=dtype, output_loading_info=True
        )
    if info["missing_keys"]:
        raise ModelError(
            f"{source.name!r} lacks {printable(sorted(info['missing_keys'])[0], 100)!r}, which "
            f"{type(network).__name__} needs.",
            code="AUD-LOAD-WEIGHTS",
        )
    if sha256_of(Path(source.path)) != source.sha256:
        raise ModelError(
            f"{source.name!r} changed while it was read: try again when it is complete.", code="AUD-LOAD-INCOMPLETE"
        )
    return AuditedLanguageModel(
        network,
        tokenizer,
        objective="causal",
        device=spec.device,
        provenance=provenance_of(
            source,
            GGUF_FORMAT,
            f"transformers.{type(network).__name__} with gguf_file=, dequantised to {name_of(dtype)}",
        ),
    )
