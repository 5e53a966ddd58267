"""Start and end of every training mitigation: a network, new or with its weights, or adapters.

A mitigation adds its rows or its loss; how the network is drawn, what of it is learned, at which rate, and what is
written at the end are the same for all.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import ModelError, UsageError
from auditor.run.option_parsers import check_positive
from mitigations.selection_guide import instead, is_known, why_untrainable
from mitigations.training.retraining import check_classifier, untrained

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from auditor.models.audited_model import AuditedModel, Recipe
    from auditor.models.torch_model import TorchModel
    from auditor.training.training_loop import Step
    from mitigations.training.training_steps import Taken

FINE_TUNING_EPOCHS = 4
FINE_TUNING_BATCH = 32
FINE_TUNING_RATE = 5e-5
# Adapters begin at nothing and are few, and learn nothing at the rate of a whole network.
LORA_RATE = 5e-4


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Requested training settings; None means the value of :func:`recipe_for`.

    ``lora``: the rank of adapters.
    """

    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    lora: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value!r}")
        if self.learning_rate is not None:
            check_positive("learning_rate", self.learning_rate)
        if self.lora is not None and self.lora < 1:
            raise ValueError(f"lora is a rank of at least 1, not {self.lora!r}")


@dataclass(frozen=True, eq=False)
class Begun:
    """A network that is about to be trained.

    ``new``: the model around it. ``anew``: whether it is drawn anew, and not the old one's copy.
    """

    old: TorchModel
    new: TorchModel
    recipe: Recipe
    anew: bool
    lora: int | None

    def optimizer(self, *, but: Sequence[Tensor] = ()) -> Optimizer:
        """The recipe's optimizer of all that is learned, but for some parameters."""
        from auditor.training.training_loop import optimizer_of

        left = {id(p) for p in but}
        return optimizer_of(
            self.recipe, [p for p in self.new.module.parameters() if p.requires_grad and id(p) not in left]
        )

    def step(self, step: Taken, n_rows: int) -> Step:
        """The step unchanged for a new network; else with a rate that decays to zero by the end."""
        from mitigations.training.training_steps import FineTuningStep

        if self.anew:
            return step
        return FineTuningStep(step, self.recipe.epochs * -(-n_rows // self.recipe.batch_size))

    def finished(self) -> TorchModel:
        """The trained model with merged adapters; it no longer equals its file."""
        from auditor.models.audited_model import Provenance
        from auditor.models.networks.low_rank_adapters import merge_adapters

        if self.lora is not None:
            self.new.module = merge_adapters(self.new.module, self.old.module)
        self.new.module.eval()
        if not self.anew:
            path = self.old.provenance.path
            notes = ("Trained on from the model at this path.",) if path else ()
            self.new.provenance = Provenance(path=path, notes=notes)
        return self.new

    @property
    def training_text(self) -> str:
        """The training method, in words."""
        if self.anew:
            return "trained anew"
        if self.lora is None:
            return "fine-tuned from its own weights"
        return f"fine-tuned from its own weights by LoRA of rank {self.lora} (peft), merged afterwards, and its head"


def begin(
    old: TorchModel,
    recipe: Recipe,
    rng: np.random.Generator,
    device: str,
    *,
    lora: int | None = None,
    own_weights: bool = False,
) -> Begun:
    """A network to train on the device: untrained if architecture and recipe are known, else with its weights.

    lora: learn adapters of that rank and the head alone. own_weights: whether to begin from those in any case. Raises
    UsageError for adapters of a network that is drawn anew, MissingExtraError or ModelError where it can have none.
    """
    import torch

    from auditor.core.randomness import seeded_globals
    from auditor.models.networks.low_rank_adapters import Lora, adapted

    anew = drawn_anew(old) and not own_weights
    if anew:
        if lora is not None:
            raise UsageError("lora is for networks that are fine-tuned, and this one is drawn anew: leave it out.")
        return Begun(old, untrained(old, rng, device, recipe), recipe, anew=True, lora=None)
    new = old.with_module(copy.deepcopy(old.module))
    if lora is not None:
        with seeded_globals(rng):
            new.module = adapted(new.module, Lora(rank=lora), old.n_outputs)
    new.module.to(device)
    new.device = torch.device(device)
    new.recipe = recipe
    return Begun(old, new, recipe, anew=False, lora=lora)


def drawn_anew(model: TorchModel) -> bool:
    """Whether the default is training from new weights: the architecture and recipe are known."""
    return is_known(model) and model.recipe is not None


def trainable_from_somewhere(model: AuditedModel) -> TorchModel:
    """The model as one that can be retrained or fine-tuned; ModelError with the reason if it cannot."""
    from auditor.models.torch_model import TorchModel

    check_classifier(model)
    why = why_untrainable(model)
    if why is not None or not isinstance(model, TorchModel):
        raise ModelError(f"{why}: {instead(model)}.")
    return model


def recipe_for(model: TorchModel, tuning: Tuning, *, fewest_epochs: int = 1) -> Recipe:
    """The requested recipe, else the model's own (at least ``fewest_epochs`` epochs for new weights).

    A model without a recipe is fine-tuned by AdamW, for 4 epochs of batches of 32 at a learning rate of 5e-5, of
    adapters 5e-4. What the old recipe claims of privacy is left out: training on the same rows again ends it.
    """
    from auditor.models.audited_model import Recipe

    known = model.recipe
    if known is None:
        rate = FINE_TUNING_RATE if tuning.lora is None else LORA_RATE
        base = Recipe(optimizer="adamw", epochs=FINE_TUNING_EPOCHS, batch_size=FINE_TUNING_BATCH, learning_rate=rate)
    else:
        names = [field.name for field in fields(Recipe)]
        # Those from epsilon on are a private training's.
        private: dict[str, Any] = dict.fromkeys(names[names.index("epsilon") :])
        base = replace(known, **private)
    least = max(base.epochs, fewest_epochs) if drawn_anew(model) else base.epochs
    return replace(
        base,
        epochs=tuning.epochs or least,
        batch_size=tuning.batch_size or base.batch_size,
        learning_rate=tuning.learning_rate or base.learning_rate,
    )
