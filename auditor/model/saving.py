"""Model bundles: a model as one file that loads without running code."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from auditor.errors import ModelError
from auditor.files import write_beside
from auditor.model.audited_model import AuditedModel, Recipe
from auditor.model.outputs import stated_by
from auditor.model.torch_model import TorchModel, TorchNetwork

BUNDLE_FORMAT = "auditor-model/1"


def save(model: AuditedModel, path: str | Path) -> None:
    """Writes a model bundle: a ``torch.save`` archive that loads with ``weights_only=True`` and holds no code.

    ``{"format": "auditor-model/1", "architecture": {"name", "args"}, "state_dict", "preprocessing", "classes",
    "training", "outputs", "threshold"}``. ``"outputs"`` is left out where nobody said what a network of your own
    returns, and confirmed by ``"outputs_stated": True`` where somebody did. With ``"task": "regression"``, and no
    classes, for a model that predicts a number, and with ``"postprocessing"`` for one whose answers are changed by
    group, ``"detector"`` for a detector's card and ``"gate"`` for what stands before a model. Raises ModelError for a
    model that is not a torch module.
    """
    buffer = io.BytesIO()
    torch.save(bundle_of(model), buffer)
    write_beside(path, buffer.getvalue())


def bundle_of(model: AuditedModel) -> dict[str, Any]:
    """What :func:`save` writes of a model, before it is written. Raises what it raises."""
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
    bundle |= _reading(model) if isinstance(model, TorchModel) else {"task": "regression"}
    return bundle | beside


def _recipe(recipe: Recipe | None) -> dict[str, Any] | None:
    """The recipe as plain data; what nobody said or saw of a private training stands nowhere."""
    if recipe is None:
        return None
    return {k: v for k, v in asdict(recipe).items() if v is not None or k not in ("n_trials", "seen")}


def _reading(model: TorchModel) -> dict[str, Any]:
    """How the network's outputs are read; nothing of what nobody said, so that it is asked where it matters."""
    if model.outputs_said is None:
        return {"threshold": model.threshold}
    # A network that says it itself needs no other word; bundles without one were written with "logits" for silence.
    word = {} if stated_by(model.module) == model.outputs_said else {"outputs_stated": True}
    return {"outputs": model.outputs_said, "threshold": model.threshold} | word
