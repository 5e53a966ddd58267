"""Training recipes for models like the audited one: its own architecture and recipe, or a stated surrogate."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from auditor.core.errors import NotApplicableError
from auditor.core.randomness import seeded_globals
from auditor.core.rows import Rows
from auditor.models.audited_model import AuditedModel, Recipe
from auditor.models.networks.architectures import ARCHITECTURES, Architecture
from auditor.models.output_kind import Outputs, as_logits
from auditor.models.torch_model import TorchModel
from auditor.training.stack_tasks import Seeds, outputs_of
from auditor.training.training_loop import PlainStep, Schedule, optimizer_of
from auditor.training.training_loop import train as run_loop
from auditor.training.training_rows import why_not_trained_alike

if TYPE_CHECKING:
    from auditor.data.preprocessing import TabularPreprocessing

SURROGATE_HIDDEN = (64, 32)
SURROGATE_RECIPE = Recipe()
# What most networks of transformers were is in no folder: the weights that they started from.
_TUNED = "from a random start where the target may have been tuned from weights that are not here"


@dataclass(frozen=True, eq=False, kw_only=True)
class Blueprint:
    """The parts for training similar models: ``make`` an untrained one, ``encode`` raw rows, train by ``recipe``.

    ``described``: what is known of the audited model and what is assumed, in words for the report. ``known``: whether
    architecture and recipe are the audited model's own.
    """

    make: Callable[[], nn.Module]
    encode: Callable[[Rows], Tensor]
    recipe: Recipe
    outputs: Outputs
    described: str
    known: bool

    def logits(self, module: nn.Module, x: Tensor) -> Tensor:
        """(n, n_classes) logits of a module that was made here, at encoded rows (n, ...)."""
        return as_logits(outputs_of(module(x)), self.outputs)

    def train(self, x: Tensor, y: Tensor, *, seed: int) -> nn.Module:
        """A module of this kind that learned encoded rows x (n, ...) and labels y (n,), in evaluation mode.

        All epochs of the recipe, by cross-entropy. Raises ModelError where the loss becomes infinite or NaN.
        """
        seeds = Seeds.from_seed(seed)
        with seeded_globals(np.random.default_rng(seeds.initialisation)):
            module = self.make().to(x.device)
        step = PlainStep(
            module,
            optimizer_of(self.recipe, [p for p in module.parameters() if p.requires_grad]),
            lambda batch: nn.functional.cross_entropy(self.logits(module, batch[0]), batch[1]),
        )
        schedule = Schedule(
            epochs=self.recipe.epochs, batch_size=min(self.recipe.batch_size, len(x)), seed=seeds.batches
        )
        run_loop(step, [x, y], schedule)
        return module


def blueprint_of(model: AuditedModel, X: Rows) -> Blueprint:
    """The model's own architecture and recipe if known, else a surrogate's, named by ``described``.

    X: rows of the kind the model takes, on which the encoding of a surrogate is fitted. Architectures of the table are
    made anew, and networks of transformers by their configuration; a module of another class is copied and every
    layer's ``reset_parameters`` called, which is trusted only where each parameter belongs to a layer that has one.
    All start at random, whatever the audited one was tuned from. Surrogates: for tables an MLP of 64 and 32 units, for
    images a small convolutional network, both with the default recipe. Raises NotApplicableError for texts without an
    encoding, and for a model that was trained with weights, which the rows do not bring.
    """
    if why := why_not_trained_alike(model):
        raise NotApplicableError(f"{why[0].upper()}{why[1:]}.")
    recipe = getattr(model, "recipe", None)
    how = "its own recipe" if recipe is not None else "the default recipe, its own being unknown"
    recipe = recipe or SURROGATE_RECIPE
    if isinstance(model, TorchModel) and not model.frozen_mode:
        make, name = _module_maker(model)
        if make is not None:
            return Blueprint(
                make=make,
                encode=model.encode,
                recipe=recipe,
                outputs=model.output_kind,
                described=f"the target's own architecture ({name}) trained by {how} ({_recipe_text(recipe)})",
                known=model.recipe is not None and _TUNED not in name,
            )
    make, encode, name = _surrogate(model, X)
    return Blueprint(
        make=make,
        encode=encode,
        recipe=recipe,
        outputs="logits",
        described=f"a surrogate architecture, the target's being unknown: {name}, "
        f"trained by {how} ({_recipe_text(recipe)})",
        known=False,
    )


def _recipe_text(recipe: Recipe) -> str:
    words = f"{recipe.optimizer}, learning rate {recipe.learning_rate:g}, {recipe.epochs} epochs, batches of "
    words += f"{recipe.batch_size}"
    return words + ("; without its DP-SGD" if recipe.epsilon is not None else "")


def _module_maker(model: TorchModel) -> tuple[Callable[[], nn.Module] | None, str]:
    """What makes the model's module anew, untrained, or None; and its name."""
    named = model.architecture or {}
    name = str(named.get("name", type(model.module).__name__))
    if name in ARCHITECTURES:
        return Architecture(name, dict(named.get("args", {}))), name
    module = model.module
    if (anew := _of_transformers(module)) is not None:
        return anew, f"{type(getattr(module, 'network', module)).__name__}, {_TUNED}"
    bare = [
        name
        for layer in module.modules()
        if not callable(getattr(layer, "reset_parameters", None))
        for name, _ in layer.named_parameters(recurse=False)
    ]
    if bare or not any(p.requires_grad for p in module.parameters()):
        return None, name

    def make() -> nn.Module:
        fresh = copy.deepcopy(module)
        for layer in fresh.modules():
            reset = getattr(layer, "reset_parameters", None)
            if callable(reset):
                reset()
        return fresh

    return make, name


def _of_transformers(module: nn.Module) -> Callable[[], nn.Module] | None:
    """What makes a network of transformers anew, by its configuration and with its own start, or None for others."""
    network: Any = getattr(module, "network", module)
    if not any(base.__module__ == "transformers.modeling_utils" for base in type(network).__mro__):
        return None

    def make() -> nn.Module:
        fresh = type(network)(copy.deepcopy(network.config))
        if network is module:
            return fresh  # type: ignore[no-any-return]
        around = copy.copy(module)
        around._modules = dict(module._modules) | {"network": fresh}
        return around

    return make


def _surrogate(model: AuditedModel, X: Rows) -> tuple[Callable[[], nn.Module], Callable[[Rows], Tensor], str]:
    n_outputs = model.n_outputs
    if not isinstance(X, pd.DataFrame) and X.dtype == object:
        raise NotApplicableError(
            "Shadow models of a text classifier need its encoding: save it as a bundle (auditor.save)."
        )
    if not isinstance(X, pd.DataFrame) and X.ndim == 4:
        channels = X.shape[3]
        return (
            Architecture("small_cnn", {"channels": channels, "n_outputs": n_outputs}),
            lambda rows: torch.from_numpy(np.asarray(rows, np.float32) / 255.0).permute(0, 3, 1, 2).contiguous(),
            "small_cnn",
        )
    preprocessing = _encoding(X)
    width = preprocessing.width
    return (
        Architecture("mlp", {"n_features": width, "hidden": list(SURROGATE_HIDDEN), "n_outputs": n_outputs}),
        lambda rows: torch.from_numpy(preprocessing.encode(_frame(rows))),
        f"mlp of {' and '.join(map(str, SURROGATE_HIDDEN))} units",
    )


def _encoding(X: Rows) -> TabularPreprocessing:
    from auditor.data.preprocessing import fit_tabular

    return fit_tabular(_frame(X))


def _frame(X: Rows) -> pd.DataFrame:
    return X if isinstance(X, pd.DataFrame) else pd.DataFrame(X, columns=[str(i) for i in range(X.shape[1])])
