"""A transformers classifier written as a folder for ``auditor scan`` and transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from auditor.core.errors import ModelError, UsageError
from auditor.core.files import write_beside
from auditor.models.torch_model import TorchModel

RUN_FILE = "dp-run.json"
_TEXT_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_IMAGE_FILES = ("preprocessor_config.json",)


def save_classifier(model: TorchModel, folder: str | Path, *, beside: str | Path | None = None) -> None:
    """Write config and weights (safetensors), tokenizer or image settings, and the record of a private run.

    The settings are copied from the folder that the model was loaded from, or from ``beside``. The record is
    ``dp-run.json``, for ``auditor dp lint``. Raises ModelError for a model that is no classifier of transformers,
    UsageError where the folder is not empty or the settings are not there.
    """
    from transformers import PreTrainedModel

    from auditor.models.files.hf_folder import quiet_and_offline
    from auditor.privacy.run_record import run_of_recipe, write_run

    network: Any = getattr(model.module, "network", model.module)
    if not isinstance(network, PreTrainedModel):
        raise ModelError("Only a classifier of transformers is written as a folder: save others with auditor.save.")
    names = _TEXT_FILES if network is not model.module else _IMAGE_FILES
    source = beside or model.provenance.path
    if source is None or not (Path(source) / names[0]).is_file():
        raise UsageError(f"There is no {names[0]} in {str(source)!r}: name the folder that holds it with beside.")
    where = Path(folder)
    if where.exists() and any(where.iterdir()):
        raise UsageError(f"{str(where)!r} is not empty: name a new folder, so that nothing old stays beside the model.")
    where.mkdir(parents=True, exist_ok=True)
    with quiet_and_offline():
        network.save_pretrained(where)
    for name in names:
        if (Path(source) / name).is_file():
            shutil.copyfile(Path(source) / name, where / name)
    _name_classes(where / "config.json", model.classes)
    layers = tuple(type(layer).__name__ for layer in model.module.modules())
    record = None if model.recipe is None else run_of_recipe(model.recipe, layers)
    if record is not None:
        write_run(record, where / RUN_FILE)


def _name_classes(config: Path, classes: tuple[str, ...]) -> None:
    """The model's class names, which the caller may have given it when it was loaded."""
    settings = json.loads(config.read_text())
    settings["id2label"] = {str(i): name for i, name in enumerate(classes)}
    settings["label2id"] = {name: i for i, name in enumerate(classes)}
    write_beside(config, json.dumps(settings, indent=2).encode())
