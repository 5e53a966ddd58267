"""Model bundles: a model as one file that loads without running code."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from auditor.core.errors import ModelError
from auditor.core.files import write_beside
from auditor.data.preprocessing import TabularPreprocessing, TextPreprocessing
from auditor.models.audited_model import AuditedModel, Recipe
from auditor.models.classifier_detector import ClassifierDetector
from auditor.models.debiased_inputs import PreparedModel
from auditor.models.detector_bundle import enclosed_bundle
from auditor.models.model_mixture import MixtureModel
from auditor.models.output_kind import stated_by
from auditor.models.postprocessed_folder import Layers, write_postprocessed
from auditor.models.postprocessing import PostprocessedModel
from auditor.models.torch_model import TorchModel, TorchNetwork

BUNDLE_FORMAT = "auditor-model/1"
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
