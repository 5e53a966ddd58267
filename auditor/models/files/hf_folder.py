"""Safe reading of a Hugging Face folder: files, weights, network, tokenizer and chat template, without its code.

Every file is read once and handed on as bytes or parsed data; transformers never sees the folder, so nothing that lies
beside the weights can be opened, imported or fetched because a file says so.

The WordPiece tokenizer of BERT and related models is made from its vocabulary alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from auditor.core.errors import MOST_NAMED, DamagedError, ModelError, UnsafeModelError, UnsupportedError
from auditor.models.chat import template_of, template_sha256
from auditor.models.files.model_bytes import convert_parser_errors, printable
from auditor.models.files.model_folder import Folder
from auditor.models.files.quantized_checkpoints import check_plain, packed_by, refuse_quantised, unpack_quantised
from auditor.models.files.weights import (
    LOADED_BY_TORCH,
    as_state_dict,
    load_torch_file,
)
from auditor.models.forward_passes import Spread, spread

_FILE = "chat_template.jinja"
_MOST_BYTES = 4 << 20


def read_chat_template(folder: Folder, options: Mapping[str, Any]) -> str | dict[str, str] | None:
    """The chat template of chat_template.jinja, else of ``options`` (tokenizer_config.json): one or several by name.

    Raises DamagedError where it is neither, or no UTF-8.
    """
    if folder.has(_FILE):
        with convert_parser_errors(f"The {_FILE} in {folder.name!r} cannot be read"):
            # As text is read of a file: a line's end is one character.
            text = folder.read(_FILE, _MOST_BYTES).data.decode()
            return text.replace("\r\n", "\n").replace("\r", "\n")
    said = options.get("chat_template")
    if said is None or isinstance(said, str):
        return said
    named = said if isinstance(said, list) else [said]
    pairs = [(one.get("name"), one.get("template")) for one in named if isinstance(one, dict)]
    found = {name: text for name, text in pairs if isinstance(name, str) and isinstance(text, str)}
    if len(found) != len(named):
        raise DamagedError(f"The chat_template of {folder.name!r} is neither a text nor a list of named ones.")
    return found


def template_notes(tokenizer: Any) -> tuple[str, ...]:
    """A note on the tokenizer's chat template, with its SHA-256."""
    found = template_of(tokenizer)
    return () if found is None else (f"It has a chat template, sha256 {template_sha256(found)}.",)


_SPECIAL = ("[UNK]", "[CLS]", "[SEP]", "[PAD]")


def word_pieces(text: str, options: Mapping[str, Any], folder_name: str) -> tuple[Any, tuple[str, ...]]:
    """The tokenizer of a vocabulary of one piece a line, with the marks of BERT around each text, and notes.

    Whether it lowers case is what ``options`` say of ``do_lower_case``, else what the vocabulary shows: one of lowered
    texts has no capital in it. Raises ModelError where a piece stands twice, or a mark is missing.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    pieces = text.splitlines()
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    missing = [mark for mark in _SPECIAL if mark not in vocabulary]
    if len(vocabulary) != len(pieces) or missing:
        why = f"lacks {missing[0]}" if missing else "names a piece twice"
        raise UnsupportedError(
            f"The vocab.txt in {folder_name!r} {why}, so that it is none of WordPiece: save the fast tokenizer beside "
            f"the "
            "weights with AutoTokenizer.from_pretrained(...).save_pretrained(folder)."
        )
    stated = options.get("do_lower_case")
    lower = stated if isinstance(stated, bool) else not any(p != p.lower() for p in pieces if not p.startswith("["))
    accents, chinese = options.get("strip_accents"), options.get("tokenize_chinese_chars", True)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(chinese),
        strip_accents=accents if isinstance(accents, bool) else None,
        lowercase=lower,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(mark, vocabulary[mark]) for mark in ("[CLS]", "[SEP]")],
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([mark for mark in (*_SPECIAL, "[MASK]") if mark in vocabulary])
    tokenizer.enable_padding(pad_id=vocabulary["[PAD]"], pad_token="[PAD]")
    said = "tokenizer_config.json" if isinstance(stated, bool) else "the capitals of its pieces"
    kept = "lowered" if lower else "kept"
    return tokenizer, (
        f"The tokenizer was built from vocab.txt as WordPiece; case is {kept} by what {printable(said)} says.",
    )


MAX_TOKENIZER_BYTES = 256 << 20
_MAX_SHARDS = 1000
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\.(safetensors|bin)")
_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def refuse_settings(settings: Mapping[str, Any], folder: Folder) -> None:
    """Raise UnsupportedError for unsupported config.json settings: quantised, or given in two places."""
    refuse_quantised(settings, folder)
    if settings.get("backbone") is not None:
        raise UnsupportedError(
            f"{folder.name!r} takes its backbone from another repository, which is not supported yet: audit it with "
            "--predict package.module:function."
        )


def ignored_files(folder: Folder) -> tuple[str, ...]:
    """Notes on code and weight files in the folder that were not opened."""
    names = [name for name in folder.names() if not folder.has_read(name)]
    code = [n for n in names if n.endswith((".py", ".so", ".pyc"))]
    pickles = [n for n in names if n.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack"))]
    return tuple(
        f"Not opened in the folder: {kind}, {len(found)} ({printable(found[0], 60)}"
        f"{', ...' if len(found) > 1 else ''})."
        for kind, found in (("code files", code), ("other weight files", pickles))
        if found
    )


def settings_notes(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Notes on packed weights, and on ignored keys of a config.json that would choose how transformers runs.

    Where a model was saved from is no such choice, and is written into most files.
    """
    packed = packed_by(settings)
    found = sorted(key for key in settings if _chooses(key) and key != "_name_or_path")
    if not found:
        return packed
    named = ", ".join(printable(key, 60) for key in found[:3]) + (", ..." if len(found) > 3 else "")
    return (*packed, f"Left out of config.json, since it would choose code paths of transformers: {named}.")


def _chooses(key: str) -> bool:
    """Whether a key of a config.json may choose code paths and repositories: private ones, and those of kernels."""
    return key.startswith("_") or key in ("attn_implementation", "experts_implementation")


# ---- weights and network ---------------------------------------------------------------------------------------------


def read_weights(folder: Folder) -> dict[str, Tensor]:
    """All weights, from safetensors files if present, else from torch files of plain weights.

    Raises UnsafeModelError where a torch file would run code, or shards lie elsewhere.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        if folder.has(name):
            return _weights_of(folder, name)
        if folder.has(f"{name}.index.json"):
            return _shards(folder, f"{name}.index.json")
    pickled = [n for n in folder.names() if n.endswith((".bin", ".bin.index.json", ".pt", ".pth", ".ckpt"))]
    if pickled:
        raise UnsafeModelError(
            f"{folder.name!r} has its weights in {printable(pickled[0], 60)!r} only, a pickle, which runs code when "
            "it is loaded. If you trust it, load it once yourself and save it with "
            "model.save_pretrained(folder, safe_serialization=True)."
        )
    raise ModelError(
        f"{folder.name!r} holds no model.safetensors: save the model with model.save_pretrained(folder).",
        code="AUD-LOAD-INCOMPLETE",
    )


def _weights_of(folder: Folder, name: str) -> dict[str, Tensor]:
    if name.endswith(".safetensors"):
        return folder.tensors(name)
    folder.loaded_by = LOADED_BY_TORCH
    return as_state_dict(load_torch_file(folder.read(name)), f"{folder.name}/{name}")


def _shards(folder: Folder, index_name: str) -> dict[str, Tensor]:
    index = folder.json(index_name).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise DamagedError(f"The shard index of {folder.name!r} names no weights.")
    ending = ".safetensors" if ".safetensors" in index_name else ".bin"
    for file in index.values():
        if not isinstance(file, str) or not _SHARD.fullmatch(file) or not file.endswith(ending):
            raise UnsafeModelError(
                f"The shard index of {folder.name!r} points to {printable(file, 80)!r}: shards must be {ending} "
                "files that lie in the folder itself."
            )
    files = sorted(set(index.values()))
    if len(files) > _MAX_SHARDS:
        raise DamagedError(f"The shard index of {folder.name!r} names {len(files):,} files.")
    missing = [file for file in files if not folder.has(file)]
    if missing:
        raise ModelError(
            f"{folder.name!r} lacks the shard {missing[0]!r}: the download is incomplete.", code="AUD-LOAD-INCOMPLETE"
        )
    weights: dict[str, Tensor] = {}
    for file in files:
        shard = _weights_of(folder, file)
        wanted = {name for name, where in index.items() if where == file}
        if wanted != set(shard):
            raise ModelError(
                f"The shard {file!r} in {folder.name!r} does not hold the weights that the index says.",
                code="AUD-LOAD-WEIGHTS",
            )
        weights |= shard
    return weights


# Networks that take the samples of sound themselves; all others take spectrograms of their own making.
OF_SAMPLES = frozenset({"wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "data2vec-audio", "sew", "sew-d"})


def build_network(
    family: str,
    name: str,
    settings: Mapping[str, Any],
    weights: dict[str, Tensor],
    folder: Folder,
    dtype: torch.dtype = torch.float32,
    spread_by: Spread | None = None,
) -> tuple[nn.Module, Any]:
    """The network with its weights as numbers of ``dtype``, and its configuration.

    ``spread_by``: how it is spread over all cards; else it is on the CPU. Every weight must be in the file: none is
    left to chance.
    """
    import transformers

    unpack_quantised(weights, settings, folder)
    _check_layers(settings, len(weights), folder)
    # The dtype is ours, and the weights are plain by now.
    ours = ("dtype", "torch_dtype", "quantization_config")
    chosen = {k: v for k, v in settings.items() if not _chooses(k) and k not in ours}
    with convert_parser_errors(f"{folder.name!r} cannot be loaded by transformers"):
        config = transformers.AutoConfig.for_model(**chosen)
        kind = getattr(transformers, name)
        with torch.device("meta"):
            sketch = kind(config)
        claimed = sum(t.numel() for t in (*sketch.parameters(), *sketch.buffers()))
        held = sum(t.numel() for t in weights.values())
        if claimed > 2 * held + (1 << 20):
            raise ModelError(
                f"The config.json in {folder.name!r} asks for {claimed:,} weights, and the files hold {held:,}.",
                code="AUD-LOAD-WEIGHTS",
            )
        check_plain(weights, sketch.state_dict(), folder)
        for weight, tensor in weights.items():
            # One at a time, and each lets go of what it was stored as.
            if tensor.is_floating_point() and tensor.dtype != dtype:
                weights[weight] = tensor.to(dtype)
        network, info = kind.from_pretrained(
            None,
            config=config,
            state_dict=weights,
            output_loading_info=True,
            dtype=dtype,
            # They are refused below, each with its shapes; transformers' own error names none.
            ignore_mismatched_sizes=True,
            device_map=None if spread_by is None else spread(sketch, spread_by, dtype),
        )
    if info["mismatched_keys"]:
        raise ModelError(_other_shapes(sorted(info["mismatched_keys"], key=str), folder), code="AUD-LOAD-WEIGHTS")
    if info["missing_keys"]:
        first = min(map(str, info["missing_keys"]))
        raise ModelError(
            f"The weights in {folder.name!r} lack {printable(first, 100)!r}, which {name} needs.",
            code="AUD-LOAD-WEIGHTS",
        )
    return network, network.config


def _other_shapes(mismatches: Sequence[tuple[str, Sequence[int], Sequence[int]]], folder: Folder) -> str:
    shown = [
        f"{printable(key, 100)} is {tuple(in_file)} in the files and {tuple(by_config)} by the configuration"
        for key, in_file, by_config in mismatches[:MOST_NAMED]
    ]
    more = f"; and {len(mismatches) - MOST_NAMED:,} more" if len(mismatches) > MOST_NAMED else ""
    return (
        f"The weights in {folder.name!r} have other shapes than its config.json says: {'; '.join(shown)}{more}. Put "
        "back the config.json that was saved with them."
    )


def _check_layers(settings: object, n_weights: int, folder: Folder) -> None:
    """Building a layer takes time even without memory, and each has weights of its own."""
    stack = [settings]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            stack.extend(v for v in item.values() if isinstance(v, (dict, list)))
            for key, value in item.items():
                depth = value if isinstance(value, list) else [value]
                numbers = [n for n in depth if isinstance(n, (int, float)) and not isinstance(n, bool)]
                if re.search(r"layer|depth|block|n_hidden", str(key)) and any(n > max(n_weights, 64) for n in numbers):
                    raise ModelError(
                        f"The config.json in {folder.name!r} asks for more layers ({printable(key, 40)}) than "
                        "the files have weights.",
                        code="AUD-LOAD-WEIGHTS",
                    )


@contextmanager
def quiet_and_offline() -> Iterator[None]:
    """Context without network access, progress bars or reports of transformers; settings are restored afterwards."""
    import huggingface_hub.constants
    from transformers.utils import logging

    offline, level = huggingface_hub.constants.HF_HUB_OFFLINE, logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = offline
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


# ---- tokenizer -------------------------------------------------------------------------------------------------------


def tokenizer_backend(folder: Folder, options: Mapping[str, Any]) -> tuple[Any, tuple[str, ...]]:
    """The folder's tokenizer by its tokenizer.json, else by the vocab.txt of WordPiece, and notes.

    ``options``: what tokenizer_config.json says. Raises ModelError where there is neither.
    """
    import tokenizers

    if folder.has("tokenizer.json"):
        source = folder.read("tokenizer.json", MAX_TOKENIZER_BYTES)
        with convert_parser_errors(f"The tokenizer.json in {folder.name!r} cannot be read"):
            return tokenizers.Tokenizer.from_str(source.data.decode()), ()
    if folder.has("vocab.txt"):
        source = folder.read("vocab.txt", MAX_TOKENIZER_BYTES)
        with convert_parser_errors(f"The vocab.txt in {folder.name!r} cannot be read"):
            return word_pieces(source.data.decode(), options, folder.name)
    raise ModelError(
        f"{folder.name!r} holds no tokenizer.json: save the fast tokenizer beside the weights with "
        "AutoTokenizer.from_pretrained(...).save_pretrained(folder).",
        code="AUD-LOAD-INCOMPLETE",
    )


def read_tokenizer(folder: Folder) -> Any:
    """The folder's fast tokenizer with its chat template and the special tokens that its vocabulary knows."""
    import transformers

    options: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        options |= folder.json(name) if folder.has(name) else {}
    backend, _ = tokenizer_backend(folder, options)
    template = read_chat_template(folder, options)
    with convert_parser_errors(f"The tokenizer in {folder.name!r} cannot be used"):
        special = {}
        for key in _SPECIAL_TOKENS:
            named = options.get(key)
            token = named.get("content") if isinstance(named, dict) else named
            if isinstance(token, str) and backend.token_to_id(token) is not None:
                special[key] = token
        return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **special)
