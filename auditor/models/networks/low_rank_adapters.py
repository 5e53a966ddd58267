"""Low-rank adapters (LoRA) in any torch module except its head, and their merging into the weights."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from auditor.core.errors import MissingExtraError, ModelError, UsageError


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters ``W x + (alpha / rank) B A x`` on every linear layer but the head's, A drawn and B zero.

    The head is trained in full: of a classifier of transformers all that lies outside its base model, of any other
    module the last linear layer with as many outputs as it gives. All else stays as it is, and so does what is frozen.
    Source: Hu et al., ICLR 2022.
    """

    rank: int = 8
    alpha: float = 16.0

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0.0:
            raise UsageError(f"LoRA needs a rank of at least 1 and an alpha above 0, not {self.rank} and {self.alpha}.")


def pretrained(module: nn.Module) -> Any | None:
    """The transformers classifier that a module is, or contains as ``network``; None if there is none."""
    # A module can only be of a package that is imported, and this one takes seconds to import.
    transformers = sys.modules.get("transformers")
    if transformers is None:
        return None
    for found in (module, getattr(module, "network", None)):
        if isinstance(found, transformers.PreTrainedModel):
            return found
    return None


def check_adaptable(module: nn.Module, n_outputs: int) -> None:
    """Raise MissingExtraError without peft, ModelError if the module has no linear layer below a head."""
    if importlib.util.find_spec("peft") is None:
        raise MissingExtraError("LoRA needs peft: pip install 'responsible-auditor[tuning]'.")
    if not head(module, n_outputs) or not adaptable(module, n_outputs):
        raise ModelError(
            f"{type(pretrained(module) or module).__name__} has no linear layer below a head, so LoRA has nothing to "
            "adapt: train all its weights, without lora."
        )


def adapted(module: nn.Module, lora: Lora, n_outputs: int) -> nn.Module:
    """The module with adapters, changed in place; only adapters and head are trained.

    A is drawn from torch's global generator. Raises as :func:`check_adaptable` does.
    """
    check_adaptable(module, n_outputs)
    learned = [p for p in head(module, n_outputs) if p.requires_grad]
    new: nn.Module = with_adapters(module, lora, adaptable(module, n_outputs))
    for p in learned:
        p.requires_grad_(True)
    return new.train()


def with_adapters(module: nn.Module, lora: Lora, layers: Sequence[str]) -> Any:
    """The module with adapters (peft) on these layers, changed in place; only the adapters are trained."""
    import peft

    settings = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        # A pattern is matched whole; names in a list would also match any layer whose own name ends in them.
        target_modules="|".join(re.escape(name) for name in layers),
        bias="none",
        fan_in_fan_out=any(type(m).__name__ == "Conv1D" for m in module.modules()),
    )
    return peft.LoraModel(module, settings, "default")


def merge_adapters(trained_module: nn.Module, plain: nn.Module) -> nn.Module:
    """The module with adapters added to the weights; frozen parameters are those of ``plain``, the original."""
    holder: Any = trained_module
    module: nn.Module = holder.merge_and_unload()
    frozen = {name for name, p in plain.named_parameters() if not p.requires_grad}
    for name, p in module.named_parameters():
        p.requires_grad_(name not in frozen)
    return module


def head(module: nn.Module, n_outputs: int) -> list[nn.Parameter]:
    """The parameters of the head; empty if they cannot be identified."""
    network = pretrained(module)
    if network is not None:
        base = {id(p) for p in network.base_model.parameters()}
        return [p for p in network.parameters() if id(p) not in base]
    last = _last(module, n_outputs)
    return [] if last is None else list(last.parameters())


def adaptable(module: nn.Module, n_outputs: int) -> list[str]:
    """Names of the linear layers below the head, but for those that are frozen."""
    network = pretrained(module)
    if network is not None:
        inside = {id(m) for m in network.base_model.modules()}
    else:
        last = _last(module, n_outputs)
        inside = {id(m) for m in module.modules() if m is not last}
    layers: list[tuple[str, Any]] = [(name, m) for name, m in module.named_modules() if id(m) in inside]
    return [name for name, layer in layers if is_linear(layer) and layer.weight.requires_grad]


def is_linear(module: nn.Module) -> bool:
    """Whether a layer can have an adapter: torch attention's layers, which are never called, cannot."""
    return type(module) is nn.Linear or type(module).__name__ == "Conv1D"


def _last(module: nn.Module, n_outputs: int) -> nn.Linear | None:
    outputs = (1, n_outputs) if n_outputs == 2 else (n_outputs,)
    found = [m for m in module.modules() if type(m) is nn.Linear and m.out_features in outputs]
    return found[-1] if found else None
