"""Models saved without code: as one bundle file, or as the Hugging Face folder of a language model."""

from __future__ import annotations

import io
import os
import shutil
import stat
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from auditor.core.errors import ModelError, first_line
from auditor.core.files import write_beside
from auditor.data.preprocessing import TabularPreprocessing, TextPreprocessing
from auditor.models.audited_model import AuditedModel, Recipe
from auditor.models.detector import ClassifierDetector, enclosed_bundle
from auditor.models.format_names import BUNDLE_FORMAT
from auditor.models.language_model import AuditedLanguageModel, plain
from auditor.models.model_wrappers import MixtureModel, PreparedModel
from auditor.models.output_kind import stated_by
from auditor.models.postprocessed_folder import Layers, write_postprocessed
from auditor.models.postprocessing import PostprocessedModel
from auditor.models.torch_model import TorchModel, TorchNetwork

# Networks whose architecture a bundle names.
_OUR_OWN = (BUNDLE_FORMAT, "in memory")


def save(model: AuditedModel, path: str | Path) -> None:
    """Write a model bundle: a ``torch.save`` archive that loads with ``weights_only=True`` and contains no code.

    ``{"format": "auditor-model/1", "architecture": {"name", "args"}, "state_dict", "preprocessing", "classes",
    "training", "outputs", "threshold"}``. ``"outputs"`` is left out where nobody said what a network of your own
    returns, and confirmed by ``"outputs_stated": True`` where somebody did. With ``"task": "regression"``, and no
    classes, for a model that predicts a number, and with ``"postprocessing"`` for one whose answers are changed by
    group, ``"detector"`` for a detector's card, ``"meanings"`` for what its classes mean, ``"enclosed"`` for a
    classifier that is no network of ours, and ``"gate"`` for what stands before a model.

    What no bundle holds is written otherwise: scikit-learn's estimators and boosted trees, which were fitted anew, in
    the format of their own library, and any other model whose answers are changed by group as a folder, with the model
    below as it was. Raises ModelError for a model that can be written in no way.
    """
    if isinstance(model, PreparedModel | MixtureModel) or (
        isinstance(model, PostprocessedModel) and not goes_into_a_bundle(model)
    ):
        base = Layers.from_model(model).base
        lies = base.provenance.path is not None or (base.said is not None and base.said.predict is not None)
        write_postprocessed(model, path, base_bytes=None if lies else _file_of(base, base.endings[0]))
        return
    content = _file_of(model, Path(path).suffix)
    if content is None:
        raise ModelError(f"Only a torch model can be saved as a bundle, not {type(model).__name__}.")
    write_beside(path, content)


def goes_into_a_bundle(model: PostprocessedModel) -> bool:
    """Whether a bundle can contain the complete model: one that defines its own row encoding."""
    return isinstance(model.base, TorchModel) and isinstance(
        model.base.preprocessing, TabularPreprocessing | TextPreprocessing
    )


def _file_of(model: AuditedModel, ending: str) -> bytes | None:
    """A model as one file: its library's own, or a bundle; None where it can be neither."""
    own = model.native_file(ending)
    in_bundle = isinstance(model, ClassifierDetector) or isinstance(model.saved_parts()[0], TorchNetwork)
    if own is not None or not in_bundle:
        return own
    buffer = io.BytesIO()
    torch.save(bundle_of(model), buffer)
    return buffer.getvalue()


def bundle_of(model: AuditedModel) -> dict[str, Any]:
    """The contents that :func:`save` writes for a model.

    Raises what it raises.
    """
    if isinstance(model, ClassifierDetector) and model.base.provenance.format not in _OUR_OWN:
        return {"format": BUNDLE_FORMAT, **enclosed_bundle(model, model.base.provenance.format)}
    model, beside = model.saved_parts()
    if not isinstance(model, TorchNetwork):
        raise ModelError(f"Only a torch model can be saved as a bundle, not {type(model).__name__}.")
    bundle: dict[str, Any] = {
        "format": BUNDLE_FORMAT,
        "architecture": model.architecture or {"name": type(model.module).__name__, "args": {}},
        "state_dict": {k: v.detach().cpu().clone() for k, v in model.module.state_dict().items()},
        "preprocessing": None if model.preprocessing is None else model.preprocessing.model_dump(mode="json"),
        "classes": list(model.classes),
        "training": _recipe(model.recipe),
    }
    bundle |= _output_settings(model) if isinstance(model, TorchModel) else {"task": "regression"}
    return bundle | beside


_UNSAID = ("n_trials", "seen", "encoding", "added_epsilon", "learning_rate_from")


def _recipe(recipe: Recipe | None) -> dict[str, Any] | None:
    """The recipe as plain data; what nobody said or saw of a private training stands nowhere."""
    if recipe is None:
        return None
    return {k: v for k, v in asdict(recipe).items() if v is not None or k not in _UNSAID}


def _output_settings(model: TorchModel) -> dict[str, Any]:
    """How the network's outputs are read; nothing of what nobody said, so that it is asked where it matters."""
    if model.outputs_said is None:
        return {"threshold": model.threshold}
    # A network that says it itself needs no other word; bundles without one were written with "logits" for silence.
    word = {} if stated_by(model.module) == model.outputs_said else {"outputs_stated": True}
    return {"outputs": model.outputs_said, "threshold": model.threshold} | word


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
