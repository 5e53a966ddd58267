"""The network that training begins from: the same architecture drawn anew, or else a copy of the model's own."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from auditor.errors import ModelError
from mitigations.training.retraining import check_unweighted, is_program, trainable, untrained

if TYPE_CHECKING:
    from auditor.model.audited_model import AuditedModel, Recipe
    from auditor.model.torch_model import TorchModel

FINE_TUNING_EPOCHS = 4
FINE_TUNING_BATCH = 32
FINE_TUNING_RATE = 5e-5


def is_known(model: TorchModel) -> bool:
    """Whether the model's architecture is one that can be drawn anew."""
    from auditor.networks.architectures import ARCHITECTURES

    return (model.architecture or {}).get("name") in ARCHITECTURES


def trainable_from_somewhere(model: AuditedModel) -> TorchModel:
    """The model as one that can be trained anew or fine-tuned; raises ModelError where neither can be, and says why."""
    from auditor.model.torch_model import TorchModel

    if not isinstance(model, TorchModel) or model.frozen_mode or is_program(model) or is_known(model):
        return trainable(model)
    check_unweighted(model)
    if not any(p.requires_grad for p in model.module.parameters()):
        raise ModelError(
            f"No parameter of the network {type(model.module).__name__} can be trained: load it with its gradients "
            "(requires_grad_()), or use a post-processing mitigation."
        )
    if model.output_kind == "probabilities":
        raise ModelError(
            f"The network {type(model.module).__name__} returns probabilities, whose logarithms train badly: give one "
            "that returns logits, or use a post-processing mitigation."
        )
    return model


def recipe_for(
    model: TorchModel, *, epochs: int | None, batch_size: int | None, learning_rate: float | None, fewest_epochs: int
) -> Recipe:
    """What is asked for, else what the model's recipe says (of epochs at least ``fewest_epochs``).

    A model without a recipe is fine-tuned by AdamW, for 4 epochs of batches of 32 at a learning rate of 5e-5.
    """
    from auditor.model.audited_model import Recipe

    known = model.recipe
    base = known or Recipe(
        optimizer="adamw",
        epochs=FINE_TUNING_EPOCHS,
        batch_size=FINE_TUNING_BATCH,
        learning_rate=FINE_TUNING_RATE,
    )
    least = base.epochs if known is None or not is_known(model) else max(base.epochs, fewest_epochs)
    return replace(
        base,
        epochs=epochs or least,
        batch_size=batch_size or base.batch_size,
        learning_rate=learning_rate or base.learning_rate,
    )


def starting_network(model: TorchModel, rng: np.random.Generator, device: str, recipe: Recipe) -> TorchModel:
    """A new model to train, on the device: untrained where the architecture is known, else a copy with its weights."""
    if is_known(model):
        return untrained(model, rng, device, recipe)
    import torch

    new = model.with_module(copy.deepcopy(model.module))
    new.module.to(device)
    new.device = torch.device(device)
    new.recipe = recipe
    return new
