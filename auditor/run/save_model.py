"""Writing of a mitigated model by its kind: a bundle, a file of its own library, or a folder."""

from __future__ import annotations

from pathlib import Path

from auditor.core.errors import ModelError, UsageError
from auditor.models.audited_model import AuditedModel
from auditor.models.debiased_inputs import PreparedModel
from auditor.models.language_folder import save_folder
from auditor.models.language_model import AuditedLanguageModel
from auditor.models.model_mixture import MixtureModel
from auditor.models.postprocessing import PostprocessedModel
from auditor.models.save_bundle import goes_into_a_bundle, save
from auditor.models.torch_model import TorchModel
from auditor.training.huggingface_folder import save_classifier


def check_ending(model: AuditedModel, out: str) -> None:
    """Raise UsageError if a file's extension does not fit this kind of model."""
    if Path(out).suffix not in model.endings:
        raise UsageError(
            f"--out {Path(out).name!r} must end in {' or '.join(model.endings)}: the new model is written "
            f"{'as a bundle' if '.pt' in model.endings else 'in the format of its own library'}."
        )


def write_made(model: AuditedModel, out: str, folder: str | None) -> None:
    """Write a new model to ``out``; ``folder``: the old model's Hugging Face folder, if any.

    Raises UsageError for a name that does not fit what is written, ModelError for what cannot be written.
    """
    if isinstance(model, AuditedLanguageModel):
        save_folder(model, out, like=folder)
    elif isinstance(model, PostprocessedModel | PreparedModel | MixtureModel):
        if isinstance(model, PostprocessedModel) and goes_into_a_bundle(model):
            check_ending(model, out)
        save(model, out)
    elif folder is not None and isinstance(model, TorchModel):
        save_classifier(model, out, beside=folder)
    elif folder is not None:
        raise ModelError(
            "A Hugging Face folder has no place for what was put around the model: give a model bundle, or use the "
            "mitigation in Python."
        )
    else:
        check_ending(model, out)
        save(model, out)
