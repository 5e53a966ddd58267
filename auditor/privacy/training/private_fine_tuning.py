"""DP-SGD for a transformers classifier loaded from a folder: all weights, or LoRA adapters and the head."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from auditor.core.errors import DataError, ModelError, UsageError
from auditor.core.randomness import seeded_globals
from auditor.data.audit_data import AuditData
from auditor.models.audited_model import Provenance, Recipe
from auditor.models.networks.low_rank_adapters import Lora, adapted, check_adaptable, merge_adapters
from auditor.models.torch_model import TorchModel
from auditor.privacy.training.opacus_training import PrivacyBudget, PrivateRun, opacus_quietly, private_notes
from auditor.privacy.training.private_gradients import Mode, choose_way

_NOT_COVERED = (
    "Limits of that claim: the weights it began from are taken as public, and so is its tokenizer: whatever they were "
    "learned from is not protected; the noise is pseudo-random, not cryptographic; trying several settings spends more "
    "than one run."
)


def fine_tune_privately(
    model: TorchModel,
    data: AuditData,
    recipe: Recipe,
    budget: PrivacyBudget,
    *,
    seed: int,
    lora: Lora | None = None,
    mode: Mode = "auto",
    rows_at_once: int = 32,
    progress: Callable[[str], None] | None = None,
) -> tuple[TorchModel, tuple[str, ...]]:
    """A new model, trained on from the model's own weights by DP-SGD on the labelled rows; adapters are merged in.

    Unlike :func:`auditor.privacy.training.opacus_training.train_privately` nothing is drawn anew, so the old weights
    must be public with regard to these rows. An embedding that is asked once for the whole batch, as position
    embeddings are, is asked once a row, without which its gradient would not be clipped by row. Frozen parameters stay
    frozen. ``rows_at_once`` in one pass; logical batches are the recipe's, drawn by Poisson sampling.

    Returns the model, whose recipe holds what was spent, and notes. Raises MissingExtraError without peft where
    ``lora`` is given; UsageError, DataError or ModelError before any training where it cannot be done.

    Sources: Abadi et al., CCS 2016; Li, Tramer, Liang and Hashimoto, ICLR 2022; Yu et al., ICLR 2022.
    """
    plain = _network_holder(model, lora)
    x, y = _rows(model, data)
    if rows_at_once < 1:
        raise UsageError(f"rows_at_once must be at least 1, not {rows_at_once}.")
    delta = budget.delta_for(len(x))
    recipe = replace(
        recipe, batch_size=min(recipe.batch_size, len(x)), optimizer="adam", momentum=0.0, weight_decay=0.0
    )

    def fresh() -> nn.Module:
        module = copy.deepcopy(plain).train()
        for p in module.parameters():
            p.grad = None
        return module if lora is None else adapted(module, lora, model.n_outputs)

    with opacus_quietly(), seeded_globals(np.random.default_rng(seed)):
        trained = fresh()
        start = copy.deepcopy(trained)
        with _once_a_row(trained):
            way = choose_way(lambda: model.with_module(_trial(start)), x, y, mode, recipe.batch_size)
            run = PrivateRun(
                way=way, budget=budget, delta=delta, recipe=recipe, rows_at_once=rows_at_once, progress=progress
            )
            recipe = run.train(model.with_module(trained), x, y)
    # A copy without Opacus' hooks takes the weights.
    start.load_state_dict(trained.state_dict())
    new = model.with_module(start if lora is None else merge_adapters(start, plain))
    new.module.eval()
    new.recipe = recipe
    # Not the file that the old one was read from.
    new.provenance = Provenance(path=model.provenance.path, notes=("Trained on from the model at this path.",))
    first, _, seeded = private_notes(recipe, budget, way)
    n_learned = sum(p.numel() for p in trained.parameters() if p.requires_grad)
    n_all = sum(p.numel() for p in new.module.parameters())
    how = "" if lora is None else f" LoRA of rank {lora.rank} (peft), merged into the weights afterwards, and the head."
    return new, (first, f"{n_learned:,} parameters were trained, of a network of {n_all:,}.{how}", _NOT_COVERED, seeded)


def _trial(start: nn.Module) -> nn.Module:
    """A copy for a trial of gradients; its hooks end with it."""
    module = copy.deepcopy(start)
    _ask_once_a_row(module)
    return module


# ---- embeddings that are asked once for all rows ---------------------------------------------------------------------


@contextmanager
def _once_a_row(module: nn.Module) -> Iterator[None]:
    handles = _ask_once_a_row(module)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _ask_once_a_row(module: nn.Module) -> list[torch.utils.hooks.RemovableHandle]:
    """Indices (1, ...) given to an embedding are repeated for each row of the batch, which gives the same sums."""
    rows = [0]

    def count(_: nn.Module, args: tuple[Any, ...]) -> None:
        rows[0] = len(args[0])

    def repeat(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        (ids, *others) = args
        if isinstance(ids, Tensor) and ids.ndim > 1 and len(ids) == 1 and rows[0] > 1:
            return (ids.expand(rows[0], *ids.shape[1:]), *others)
        return None

    handles = [module.register_forward_pre_hook(count)]
    return handles + [m.register_forward_pre_hook(repeat) for m in module.modules() if isinstance(m, nn.Embedding)]


# ---- what is needed --------------------------------------------------------------------------------------------------


def _network_holder(model: TorchModel, lora: Lora | None) -> nn.Module:
    from transformers import PreTrainedModel

    if not isinstance(model, TorchModel) or not isinstance(getattr(model.module, "network", None), PreTrainedModel):
        raise ModelError(
            "Private fine-tuning is for text classifiers that were loaded from a Hugging Face folder "
            "(auditor.load_model); a bundle is trained privately with the mitigation dp_sgd."
        )
    if lora is None:
        return model.module
    check_adaptable(model.module, model.n_outputs)
    return model.module


def _rows(model: TorchModel, data: AuditData) -> tuple[Tensor, Tensor]:
    if data.y_true is None:
        raise UsageError("Training needs true labels: give the data y_true.")
    rows = np.flatnonzero(data.y_true >= 0)
    labelled = data.take(rows.astype(np.int64))
    assert labelled.y_true is not None
    if len(np.unique(labelled.y_true)) < 2:
        raise DataError("The training rows hold one class only: there is nothing to tell apart.")
    return model.encode(labelled.X), torch.from_numpy(labelled.y_true).to(model.device)
