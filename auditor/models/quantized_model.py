"""A copy of a network with linear layers quantised by torchao."""

from __future__ import annotations

import copy
import importlib.util
import logging
from typing import Any, Literal

import torch
from torch import nn

from auditor.core.errors import MissingExtraError, NotApplicableError
from auditor.models.audited_model import AuditedModel
from auditor.models.language_model import AuditedLanguageModel
from auditor.models.torch_model import TorchModel

Bits = Literal["int8", "int4"]
# Weights that share one scale: a row of the matrix at 8 bits, so many neighbours of a row at 4.
_GROUP = 32


def quantized(model: AuditedModel, bits: Bits) -> tuple[AuditedModel, str]:
    """The model with the weights of its linear layers in ``bits``, and a description of the change.

    Weights alone are rounded, to the nearest of 256 or 16 levels with one scale a row or a group of 32; arithmetic
    stays in the number format that the model has. The last layer of a language model stays as it is, as usual, and so
    does the model given. Raises MissingExtraError without torchao, NotApplicableError for a model that is no
    classifier or language model of torch, or has no linear layer to quantise.
    """
    if not isinstance(model, (TorchModel, AuditedLanguageModel)):
        raise NotApplicableError("Needs a network of torch to quantise: this model has no layers that can be reached.")
    if importlib.util.find_spec("torchao") is None:
        raise MissingExtraError("Quantising needs torchao: pip install 'responsible-auditor[quantize]'.")
    network = copy.deepcopy(model.module)
    head = network.get_output_embeddings() if isinstance(model, AuditedLanguageModel) else None  # type: ignore[operator]
    layers = {
        name: module
        for name, module in network.named_modules()
        if type(module) is nn.Linear and module is not head and (bits == "int8" or not module.in_features % _GROUP)
    }
    if not layers:
        raise NotApplicableError(
            f"Has no linear layer that {bits} could be made of"
            + (f" (its inputs must be a multiple of {_GROUP})." if bits == "int4" else ".")
        )
    held = sum(layer.weight.numel() for layer in layers.values())
    of = sum(p.numel() for p in network.parameters())
    _quantise(network, bits, set(layers))
    other: AuditedModel
    if isinstance(model, TorchModel):
        other = model.with_module(network)
    else:
        other = copy.copy(model)
        other.module = network
    return other, f"weights of {len(layers):,} linear layers in {bits} by torchao, {held / of:.0%} of all"


def _quantise(network: nn.Module, bits: Bits, names: set[str]) -> None:
    logger, level = logging.getLogger("torchao"), logging.getLogger("torchao").level
    # It tells of the kernels for other machines that it cannot load.
    logger.setLevel(logging.CRITICAL)
    try:
        from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, quantize_
        from torchao.quantization.granularity import PerGroup

        config: Any = (
            Int8WeightOnlyConfig()
            if bits == "int8"
            else IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(_GROUP))  # type: ignore[attr-defined]
        )
        quantize_(network, config, filter_fn=lambda module, name: name in names)
    finally:
        logger.setLevel(level)


def in_other_format(model: AuditedLanguageModel) -> tuple[AuditedLanguageModel, str]:
    """The same weights in bfloat16, or in float32 where they are in bfloat16 already, and which of the two."""
    before = next(model.module.parameters()).dtype
    kind = torch.float32 if before == torch.bfloat16 else torch.bfloat16
    other = copy.copy(model)
    other.module = copy.deepcopy(model.module).to(kind)
    return other, str(kind).removeprefix("torch.")
