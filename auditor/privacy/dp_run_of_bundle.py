"""The private training run that a model bundle records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from auditor.core.errors import ModelError
from auditor.privacy.layer_classes import layer_names, statistics_keepers
from auditor.privacy.run_record import RunRecord, run_of_recipe

if TYPE_CHECKING:
    from auditor.models.audited_model import AuditedModel


def run_of_model(model: AuditedModel, name: str) -> RunRecord:
    """The private run that the model's recipe records. Raises ModelError where it records none."""
    from auditor.models.torch_model import TorchModel

    recipe = model.recipe if isinstance(model, TorchModel) else None
    if not isinstance(model, TorchModel) or recipe is None:
        raise ModelError(f"{name!r} does not say how it was trained: lint a run record, RUN.json, instead.")
    record = run_of_recipe(recipe, layer_names(model.module), statistics_keepers(model.module))
    if record is None:
        raise ModelError(f"{name!r} was not trained privately, by its own recipe: there is no claim to lint.")
    return record
