"""Language models saved as Hugging Face folders."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Any

from auditor.core.errors import ModelError, first_line
from auditor.models.language_model import AuditedLanguageModel, plain

# What lies beside the weights and is data: taken over as it stands where a model is saved like another.
_BESIDE_WEIGHTS = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "tokenizer.model", "chat_template.jinja", "generation_config.json",
)  # fmt: skip
# Files of one gigabyte are the most that the measuring process may write.
_SHARD_BYTES = "900MB"


def save_folder(model: AuditedLanguageModel, folder: str | Path, *, like: str | Path | None = None) -> None:
    """Write a language model as a plain Hugging Face folder: config.json, safetensors in shards, tokenizer.

    ``folder``: made where it is not there. ``like``: the folder that the model was made from; its tokenizer, chat
    template and generation settings are taken over as they stand, since this toolkit reads only part of them. Weights
    are float32, as they are loaded. Raises ModelError where transformers cannot write it.
    """
    from transformers.utils import logging

    out = Path(folder)
    network: Any = plain(model.module)
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        network.save_pretrained(out, max_shard_size=_SHARD_BYTES)
        model.tokenizer.save_pretrained(out)
    except (ValueError, RuntimeError, NotImplementedError) as error:
        raise ModelError(f"{type(network).__name__} cannot be saved as a folder: {first_line(error)}.") from error
    finally:
        if bars:
            logging.enable_progress_bar()
    for name in _BESIDE_WEIGHTS if like is not None else ():
        found = Path(str(like)) / name
        if found.is_file():
            shutil.copyfile(found, out / name)
    _open_to_readers(out)


def _open_to_readers(folder: Path) -> None:
    """Weights are written for their owner alone, and whoever is in the sandbox may change no mode: they are copied."""
    umask = os.umask(0)
    os.umask(umask)
    for file in [file for file in folder.iterdir() if stat.S_IMODE(file.stat().st_mode) != 0o666 & ~umask]:
        copy = file.with_name(f".{file.name}.copy")
        shutil.copyfile(file, copy)
        copy.replace(file)
