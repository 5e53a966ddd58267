"""DP-SGD by Opacus: training with a bounded influence of each row, and the account of the spent budget."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from auditor.core.errors import ModelError, UsageError
from auditor.core.randomness import seeded_globals
from auditor.models.audited_model import Recipe, SpentOnEncoding
from auditor.models.torch_model import TorchModel
from auditor.privacy.accounting import Phase, least_noise, sampling_of, smallest_bound
from auditor.privacy.training.private_gradients import Mode, PrivateStep, Way, choose_way, most_rows, with_own_samplers
from auditor.privacy.training.private_layers import StandIn, put_stand_ins, weights_back
from auditor.privacy.training.training_observer import SHARE, Witness


@contextmanager
def opacus_quietly() -> Iterator[None]:
    """Context that silences Opacus' standard warnings, which the training's notes cover or which do not apply."""
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
    """The budget of a private training; ``delta`` None means ``n^-1.1`` of the n rows.

    What the recipe says was spent on learning the encoding is a part of it, composed with the steps.
    ``epsilon``: of everything that reads the rows; ``spent_before`` of it went to a mechanism of its own, with delta 0,
    and is not left for the steps. ``max_grad_norm``: the norm that each row's gradient is clipped to. ``noise_seed``:
    None draws it from the operating system and keeps it nowhere; whoever knows it can take the noise out again, so it
    is for tests.
    """

    epsilon: float
    delta: float | None = None
    max_grad_norm: float = 1.0
    noise_seed: int | None = None
    spent_before: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.epsilon) and self.epsilon > 0.0):
            raise UsageError(f"epsilon must be a positive number, not {self.epsilon!r}: smaller is more private.")
        if not (math.isfinite(self.max_grad_norm) and self.max_grad_norm > 0.0):
            raise UsageError(f"max_grad_norm must be a positive number, not {self.max_grad_norm!r}.")
        if not 0.0 <= self.spent_before < self.epsilon:
            raise UsageError(f"Of epsilon {self.epsilon:g}, {self.spent_before:g} is spent: nothing is left to train.")

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
    mode: Mode = "auto",
    weights: Tensor | None = None,
    stand_ins: bool = False,
    progress: Callable[[str], None] | None = None,
) -> tuple[TorchModel, tuple[str, ...]]:
    """DP-SGD by Opacus: Poisson sampling, per-row gradients clipped to ``max_grad_norm``, Gaussian noise, PRV account.

    ``make``: the untrained model, the same one each time; x: (n, ...) inputs, y: (n,) labels. ``mode``: how gradients
    are clipped, all ways to the same sum: ``hooks``, ``ghost``, or the one that is faster. ``weights`` (n,) multiply
    the loss of each row before it is clipped; a row's own must depend on no other row but through a private mechanism.
    ``stand_ins``: LSTM, GRU and attention are trained as layers that Opacus knows, and get their weights back.

    Returns the model, whose recipe holds what was spent, and notes that a reader must see: epsilon is that of the
    accountant over the steps really taken. Raises UsageError or ModelError before any training where it cannot be done.

    Sources: Abadi et al., CCS 2016; Gopi, Lee and Wutschitz, NeurIPS 2021 (the accountant); ghost clipping: Li, Tramer,
    Liang and Hashimoto, ICLR 2022.
    """

    def fresh() -> tuple[TorchModel, tuple[StandIn, ...]]:
        model = make(recipe)
        found: tuple[StandIn, ...] = ()
        if stand_ins:
            model.module, found = put_stand_ins(model.module)
        return model, found

    delta = budget.delta_for(len(x))
    with opacus_quietly(), seeded_globals(np.random.default_rng(seed)):
        model, replaced = fresh()
        way = choose_way(lambda: fresh()[0], x, y, mode, recipe.batch_size)
        run = PrivateRun(way=way, budget=budget, delta=delta, recipe=recipe, weights=weights, progress=progress)
        recipe = run.train(model, x, y)
    # A fresh module without Opacus' hooks takes the weights, so that later gradients are ordinary ones.
    trained = make(recipe)
    weights_back(trained.module, model.module, replaced)
    return trained, (*private_notes(recipe, budget, way), *_stand_in_notes(replaced))


@dataclass(frozen=True, kw_only=True)
class PrivateRun:
    """One DP-SGD training with all choices made: clipping ``way``, at most ``rows_at_once`` per pass."""

    way: Way
    budget: PrivacyBudget
    delta: float
    recipe: Recipe
    weights: Tensor | None = None
    rows_at_once: int | None = None
    progress: Callable[[str], None] | None = None

    def train(self, model: TorchModel, x: Tensor, y: Tensor) -> Recipe:
        """Train the model's module in place, which keeps Opacus' hooks; return the recipe with the spent budget.

        Only parameters that require gradients are trained. Raises UsageError where epsilon cannot be reached.
        """
        from opacus import PrivacyEngine
        from opacus.utils.batch_memory_manager import BatchSplittingSampler
        from torch.utils.data import DataLoader, TensorDataset

        budget, recipe = self.budget, self.recipe
        added = budget.spent_before + SHARE * budget.epsilon
        looked, alone = _looks(recipe.encoding)
        model.module.train()
        sampling, noise = _private_generators(budget.noise_seed, model.device)
        # Its history is what is accounted, by whichever accountant gives the smaller bound.
        engine = PrivacyEngine(accountant="rdp")
        learned = [p for p in model.module.parameters() if p.requires_grad]
        rows = DataLoader(TensorDataset(x, y), batch_size=recipe.batch_size, generator=sampling)
        sampling_plan = sampling_of(len(x), recipe.batch_size)
        try:
            multiplier, _ = least_noise(
                budget.epsilon - added + math.log1p(-alone),
                self.delta - alone,
                sample_rate=sampling_plan.accounted_rate,
                steps=sampling_plan.steps_per_epoch * recipe.epochs,
                other_phases=looked,
            )
        except UsageError as error:
            raise UsageError(f"--dp-epsilon {budget.epsilon:g} cannot be reached: {error}") from None
        made: tuple[Any, ...] = engine.make_private(
            module=model.module,
            optimizer=torch.optim.Adam(learned, lr=recipe.learning_rate),
            data_loader=rows,
            noise_multiplier=multiplier,
            max_grad_norm=budget.max_grad_norm,
            noise_generator=noise,
            grad_sample_mode=self.way,
        )
        private, optimizer, loader = made[0], made[1], made[-1]
        drawn: Iterable[list[int]] = loader.batch_sampler
        held = most_rows(model.module, self.way)
        at_once = min((limit for limit in (held, self.rows_at_once) if limit is not None), default=None)
        if at_once is not None and at_once < len(x):
            drawn = BatchSplittingSampler(sampler=loader.batch_sampler, max_batch_size=at_once, optimizer=optimizer)
        step = PrivateStep(model.with_module(with_own_samplers(private)), optimizer, self.way)
        witness = Witness(step.model, optimizer, self.way, step)
        secret = np.random.default_rng(None if budget.noise_seed is None else [budget.noise_seed, 2])
        watch = witness.look(x, y, epsilon=SHARE * budget.epsilon, rng=secret)
        for epoch in range(1, recipe.epochs + 1):
            loss = _one_private_epoch(step, x, y, self.weights, watch.batches(drawn))
            if self.progress is not None:
                self.progress(f"epoch {epoch} of {recipe.epochs}, loss {loss:.4f}")
        counted = [Phase(noise_multiplier=n, sample_rate=q, steps=k) for n, q, k in engine.accountant.history]
        epsilon, accountant = smallest_bound([*counted, *looked], self.delta - alone)
        return replace(
            recipe,
            epsilon=epsilon + added - math.log1p(-alone),
            added_epsilon=added,
            delta=self.delta,
            noise_multiplier=float(optimizer.noise_multiplier),
            max_grad_norm=budget.max_grad_norm,
            n_rows=len(x),
            sampler="poisson",
            accountant=accountant,
            noise_seed_known=budget.noise_seed is not None,
            seen=witness.observations(),
        )


def _looks(encoding: SpentOnEncoding | None) -> tuple[tuple[Phase, ...], float]:
    """The phase and the delta that learning the encoding spent."""
    if encoding is None:
        return (), 0.0
    phase = Phase(noise_multiplier=encoding.noise_multiplier, sample_rate=1.0, steps=encoding.looks)
    return (phase,), encoding.delta


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
    step: PrivateStep, x: Tensor, y: Tensor, weights: Tensor | None, batches: Iterable[list[int]]
) -> float:
    total, seen = torch.zeros((), device=x.device), 0
    for rows in batches:
        batch = torch.tensor(rows, dtype=torch.int64, device=x.device)
        total += step(x[batch], y[batch], None if weights is None else weights[batch])
        seen += len(rows)
    loss = float(total) / max(seen, 1)
    if not math.isfinite(loss):
        raise ModelError("The loss became infinite or NaN in training: lower the learning rate.")
    return loss


def private_notes(recipe: Recipe, budget: PrivacyBudget, way: Way) -> tuple[str, ...]:
    """Notes on a private training: its spending, and the limits of its claim."""
    seeded = (
        "The noise seed was given: whoever knows it can take the noise out again, so this model is for tests only."
        if budget.noise_seed is not None
        else "The seed of the noise was drawn from the operating system and kept nowhere, so the run cannot be "
        "repeated bit by bit."
    )
    how = "ghost clipping" if way == "ghost" else "per-row gradients by hooks"
    by = str(recipe.accountant).upper()
    return (
        f"Trained privately (DP-SGD, Opacus, {by} accountant): epsilon {recipe.epsilon:.4g} at delta "
        f"{recipe.delta:.3g}, noise multiplier {recipe.noise_multiplier:.4g}, gradients clipped to "
        f"{recipe.max_grad_norm:g} ({how}), {recipe.epochs} epochs with Poisson sampling and without early stopping.",
        f"Limits of that claim: {_encoded(recipe)}; the number of rows is taken as public, since the steps' divisor "
        "follows from it; the noise is pseudo-random, not cryptographic; trying several settings spends more than one "
        "run.",
        seeded,
    )


def _encoded(recipe: Recipe) -> str:
    if recipe.preprocessing_from == "public":
        return "bounds and levels of the encoding and the names of the classes are taken as public"
    if recipe.preprocessing_from == "private_mechanism":
        return "the columns, which of them hold numbers, and the names of the classes are taken as public"
    return "means, deviations, medians and levels of the encoding come from the training rows outside the accounting"


def _stand_in_notes(stand_ins: tuple[StandIn, ...]) -> tuple[str, ...]:
    if not stand_ins:
        return ()
    named = ", ".join(f"{s.name or 'the network'} ({s.layer} by {s.instead})" for s in stand_ins)
    return (f"Replaced while training, by layers that compute the same and gave their weights back: {named}.",)
