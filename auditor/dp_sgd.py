"""DP-SGD by Opacus: training that no single row can move by much, with the account of what was spent."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from auditor.errors import ModelError, UsageError, first_line
from auditor.model import Recipe, TorchModel
from auditor.randomness import seeded_globals

_PRIVATE_LAYERS = {
    "BatchNorm1d": "torch.nn.GroupNorm",
    "BatchNorm2d": "torch.nn.GroupNorm",
    "BatchNorm3d": "torch.nn.GroupNorm",
    "SyncBatchNorm": "torch.nn.GroupNorm",
    "InstanceNorm1d": "the same layer with track_running_stats=False",
    "InstanceNorm2d": "the same layer with track_running_stats=False",
    "InstanceNorm3d": "the same layer with track_running_stats=False",
    "LSTM": "opacus.layers.DPLSTM",
    "GRU": "opacus.layers.DPGRU",
    "RNN": "opacus.layers.DPRNN",
    "MultiheadAttention": "opacus.layers.DPMultiheadAttention",
}


@contextmanager
def opacus_quietly() -> Iterator[None]:
    """Opacus' standing remarks silenced, each because the notes of the training say it or it says nothing of ours."""
    with warnings.catch_warnings():
        # Said in the notes: the noise is pseudo-random.
        warnings.filterwarnings("ignore", message="Secure RNG turned off")
        # The first layer's input needs no gradient, which is always so where the input is data.
        warnings.filterwarnings("ignore", message="Full backward hook is firing when gradients are computed")
        # The bound that RDP gives is valid at the largest order too, only less tight.
        warnings.filterwarnings("ignore", message="Optimal order is the (largest|smallest) alpha")
        yield


@dataclass(frozen=True, kw_only=True)
class PrivacyBudget:
    """What a private training may spend and how: ``delta`` None means ``n^-1.1`` of the n rows.

    ``max_grad_norm``: the norm that each row's gradient is clipped to. ``noise_seed``: None draws it from the operating
    system and keeps it nowhere; whoever knows it can take the noise out again, so it is for tests.
    """

    epsilon: float
    delta: float | None = None
    max_grad_norm: float = 1.0
    noise_seed: int | None = None

    def delta_for(self, n: int) -> float:
        """The delta for n rows. Raises UsageError where it is not below 1/n."""
        delta = n**-1.1 if self.delta is None else self.delta
        if not 0.0 < delta < 1.0 / n:
            raise UsageError(f"--dp-delta must lie between 0 and 1/{n:,}, one over the training rows, not {delta:g}.")
        return delta


def train_privately(
    make: Callable[[Recipe], TorchModel],
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    budget: PrivacyBudget,
    *,
    seed: int,
    progress: Callable[[str], None] | None = None,
) -> tuple[TorchModel, tuple[str, ...]]:
    """DP-SGD by Opacus: Poisson sampling, per-row gradients clipped to ``max_grad_norm``, Gaussian noise, RDP account.

    ``make``: the untrained model, the same one each time; x: (n, ...) inputs, y: (n,) labels. Returns the model, whose
    recipe holds what was spent, and notes that a reader must see: epsilon is that of the accountant over the steps
    really taken. Raises UsageError or ModelError before any training where it cannot be done.

    Sources: Abadi et al., CCS 2016; Mironov, Talwar and Zhang, arXiv:1908.10530 (2019).
    """
    from opacus import PrivacyEngine
    from torch.utils.data import DataLoader, TensorDataset

    delta = budget.delta_for(len(x))
    model = make(recipe)
    model.module.train()
    sampling, noise = _private_generators(budget.noise_seed, model.device)
    with opacus_quietly(), seeded_globals(np.random.default_rng(seed)):
        _refuse_layers(make(recipe), x, y)
        engine = PrivacyEngine(accountant="rdp")
        optimizer = torch.optim.Adam(model.module.parameters(), lr=recipe.learning_rate)
        try:
            private, optimizer, loader = engine.make_private_with_epsilon(
                module=model.module,
                optimizer=optimizer,
                data_loader=DataLoader(TensorDataset(x, y), batch_size=recipe.batch_size, generator=sampling),
                target_epsilon=budget.epsilon,
                target_delta=delta,
                epochs=recipe.epochs,
                max_grad_norm=budget.max_grad_norm,
                noise_generator=noise,
            )
        except ValueError as error:
            raise UsageError(f"--dp-epsilon {budget.epsilon:g} cannot be reached: {error}") from None
        noisy = TorchModel(private, classes=model.classes, device=model.device)
        for epoch in range(1, recipe.epochs + 1):
            loss = _one_private_epoch(noisy, x, y, loader.batch_sampler, optimizer)
            if progress is not None:
                progress(f"epoch {epoch} of {recipe.epochs}, loss {loss:.4f}")
        spent = float(engine.get_epsilon(delta))
    recipe = replace(
        recipe,
        epsilon=spent,
        delta=delta,
        noise_multiplier=float(optimizer.noise_multiplier),
        max_grad_norm=budget.max_grad_norm,
        n_rows=len(x),
        sampler="poisson",
        accountant="rdp",
        noise_seed_known=budget.noise_seed is not None,
    )
    # A fresh module without Opacus' hooks takes the weights, so that later gradients are ordinary ones.
    trained = make(recipe)
    trained.module.load_state_dict(model.module.state_dict())
    return trained, _private_notes(recipe, budget)


def _private_generators(noise_seed: int | None, device: torch.device) -> tuple[torch.Generator, torch.Generator]:
    """Generators of the Poisson sampling (on the CPU) and of the noise (on the device).

    Both are secret unless a seed is given: the guarantee holds against those who know neither draw.
    """
    seeds = np.random.SeedSequence(noise_seed).generate_state(2, np.uint64)
    return (
        torch.Generator().manual_seed(int(seeds[0])),
        torch.Generator(device=device).manual_seed(int(seeds[1])),
    )


def _one_private_epoch(
    noisy: TorchModel, x: Tensor, y: Tensor, sampler: Iterator[list[int]], optimizer: torch.optim.Optimizer
) -> float:
    total, seen = 0.0, 0
    for drawn in sampler:
        batch = torch.tensor(drawn, dtype=torch.int64, device=x.device)
        optimizer.zero_grad(set_to_none=True)
        losses = nn.functional.cross_entropy(noisy.logits(x[batch]), y[batch], reduction="none")
        # Opacus scales per-row gradients up by the size of the batch, as for a mean; an empty draw is a noisy step too.
        (losses.sum() / max(len(drawn), 1)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += float(losses.detach().sum())
        seen += len(drawn)
    loss = total / max(seen, 1)
    if not math.isfinite(loss):
        raise ModelError("The loss became infinite or NaN in training: lower --learning-rate.")
    return loss


def _refuse_layers(model: TorchModel, x: Tensor, y: Tensor) -> None:
    """Raises ModelError for a layer whose per-row gradient Opacus cannot take; ``model`` is used up by the trial."""
    from opacus import GradSampleModule
    from opacus.validators import ModuleValidator

    model.module.train()
    for name, layer in model.module.named_modules():
        kind = type(layer).__name__
        trainable = any(p.requires_grad for p in layer.parameters(recurse=False))
        validator = ModuleValidator.VALIDATORS.get(type(layer))
        refused = (validator is not None and bool(validator(layer))) or kind in ("GRU", "RNN")
        if refused or (trainable and any(True for _ in layer.buffers(recurse=False))):
            instead = _PRIVATE_LAYERS.get(kind, "a layer without buffers")
            raise ModelError(f"DP-SGD cannot train the layer {name or kind!r} ({kind}): replace it by {instead}.")
    few, labels = x[:3], y[:3]
    trial = TorchModel(GradSampleModule(model.module), classes=model.classes, device=model.device)
    try:
        nn.functional.cross_entropy(trial.logits(few), labels).backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever Opacus and functorch raise on a layer they do not know
        raise ModelError(
            f"Opacus cannot take per-row gradients of {type(model.module).__name__}: {first_line(error)}. "
            "Build it of the layers of torch.nn and opacus.layers."
        ) from error
    for name, parameter in model.module.named_parameters():
        gradient = getattr(parameter, "grad_sample", None)
        if parameter.requires_grad and (gradient is None or len(gradient) != len(few)):
            raise ModelError(
                f"The parameter {name!r} gets no gradient of its own for each row, so clipping could not protect any: "
                "use it once a row, inside a layer of torch.nn, or freeze it with requires_grad=False."
            )


def _private_notes(recipe: Recipe, budget: PrivacyBudget) -> tuple[str, ...]:
    seeded = (
        "The noise seed was given: whoever knows it can take the noise out again, so this model is for tests only."
        if budget.noise_seed is not None
        else "The seed of the noise was drawn from the operating system and kept nowhere, so the run cannot be "
        "repeated bit by bit."
    )
    return (
        f"Trained privately (DP-SGD, Opacus, RDP accountant): epsilon {recipe.epsilon:.4g} at delta "
        f"{recipe.delta:.3g}, noise multiplier {recipe.noise_multiplier:.4g}, gradients clipped to "
        f"{recipe.max_grad_norm:g}, {recipe.epochs} epochs with Poisson sampling and without early stopping.",
        "Limits of that claim: means, deviations, medians and levels of the encoding come from the training rows "
        "outside the accounting; the noise is pseudo-random, not cryptographic; trying several settings spends more "
        "than one run.",
        seeded,
    )
