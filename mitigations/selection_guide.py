"""Guide to the choice of a mitigation: those for each kind of model, and measured results on five data sets.

As ``benchmarks/mitigations.py`` measured it and wrote it into ``experience.toml``; ``benchmarks/RESULTS.md`` has the
numbers. CPS is the Current Population Survey of 2004.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from auditor.run.mitigation import Experience, Mitigation

if TYPE_CHECKING:
    from auditor.models.audited_model import AuditedModel
    from auditor.models.torch_model import TorchModel


def instead(model: AuditedModel) -> str:
    """Advice if a mitigation does not support this model, as the end of a sentence with one that does."""
    from auditor.models.postprocessing import PostprocessedModel, why_not

    if model.kind == "language_model":
        if getattr(model, "objective", None) == "causal":
            return "use preference_tuning, which is for causal language models"
        return "no mitigation takes a masked language model yet, so give a causal one to preference_tuning"
    if model.kind != "classifier":
        return f"no mitigation takes a {model.kind.replace('_', ' ')} yet, so give a classifier"
    if is_estimator(model):
        more = ", or threshold_optimizer, which asks for its scores alone" if model.n_outputs == 2 else ""
        return f"use balanced_resampling, which fits an estimator anew with its own hyperparameters{more}"
    if why_untrainable(model) is None:
        return "use reweighing, which trains any torch network, from its own weights where it has to"
    if not why_not(model):
        return "use threshold_optimizer, a post-processing mitigation, which asks for its scores alone"
    if isinstance(model, PostprocessedModel):
        return "give the model below its rules, which was post-processed"
    return "no mitigation takes it as it is, so give a torch module that can be trained, or an estimator"


def is_estimator(model: AuditedModel) -> bool:
    """Whether it is a scikit-learn estimator or boosted trees, which can be refitted."""
    return model.fits_anew


def why_untrainable(model: AuditedModel) -> str | None:
    """The reason why a model can neither be retrained nor fine-tuned, as a clause; None if it can."""
    from auditor.models.torch_model import TorchModel
    from auditor.training.training_rows import why_not_trained_alike

    if not isinstance(model, TorchModel) or model.frozen_mode or is_program(model):
        return "Training needs a torch module, and this model only predicts"
    if why := why_not_trained_alike(model):
        return f"{why[0].upper()}{why[1:]} (train it without --weight)"
    if is_known(model):
        return None
    name = type(model.module).__name__
    if not any(p.requires_grad for p in model.module.parameters()):
        return f"No parameter of the network {name} can be trained (where they are only frozen, requires_grad_() helps)"
    if model.output_kind == "probabilities":
        return f"The network {name} returns probabilities, whose logarithms train badly (one with logits trains)"
    return None


def is_known(model: TorchModel) -> bool:
    """Whether the model's architecture can be built with new random weights."""
    from auditor.models.networks.architectures import ARCHITECTURES

    return (model.architecture or {}).get("name") in ARCHITECTURES


def is_program(model: TorchModel) -> bool:
    """Whether the module contains a TorchScript program, whose weights no optimizer should change."""
    import torch

    return any(isinstance(m, torch.jit.ScriptModule) for m in model.module.modules())


@cache
def measured_experience() -> Mapping[str, Experience]:
    """The benchmark results of each mitigation, by its name."""
    text = (files("mitigations") / "experience.toml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, Experience]).validate_python(tomllib.loads(text))


class MeasuredExperience:
    """The attribute ``experience`` of a benchmarked mitigation; its file is read on first use."""

    def __get__(self, instance: Mitigation | None, owner: type[Mitigation]) -> Experience | None:
        return measured_experience().get(owner.name)
