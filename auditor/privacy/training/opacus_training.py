"""DP-SGD by Opacus, of networks and transformers folders: bounded influence of each row, and the spent budget.

What is observed of the training for its record tells nothing about any single row.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from auditor.core.errors import DataError, ModelError, UsageError
from auditor.core.randomness import seeded_globals
from auditor.data.audit_data import AuditData
from auditor.models.audited_model import Provenance, Recipe, SeenInTraining, SpentOnEncoding
from auditor.models.networks.low_rank_adapters import Lora, adapted, check_adaptable, merge_adapters
from auditor.models.output_kind import as_logits
from auditor.models.torch_model import TorchModel
from auditor.privacy.accounting import Phase, least_noise, sampling_of, smallest_bound
from auditor.privacy.loop_watch import LoopWatch, step_sensitivity
from auditor.privacy.observe_opacus import Movement, try_gradients
from auditor.privacy.released_noise import SLACK
from auditor.privacy.training.private_gradients import (
    LayerOutputs,
    Mode,
    PrivateStep,
    StandIn,
    Way,
    choose_way,
    most_rows,
    put_stand_ins,
    weights_back,
    with_own_samplers,
)

# Of epsilon, for the count of rows whose gradients are clipped; rows that it is a count of.
SHARE, COUNTED_ROWS = 0.02, 512
_DRAWN_ROWS, _LEFT_OUT = 12, 4
_AT_ONCE = 64


class Witness:
    """Observer of one Opacus training from before its first step; ``observations()`` returns its observations.

    What would be learned from the training rows is asked of rows drawn at random instead, of the same shape: whether
    per-row gradients are those of the rows, and how far one row moves a step. Raises ModelError, before any training,
    where they are not, or where one moves it by more than the clipping norm.
    """

    def __init__(self, model: TorchModel, optimizer: Any, way: Way, step: Callable[[Tensor, Tensor], object]) -> None:
        self._model, self._optimizer, self._way = model, optimizer, way
        self._private: nn.Module = model.module
        self._step = step
        self._clipped = 0.0

    def look(self, x: Tensor, y: Tensor, *, epsilon: float, rng: np.random.Generator) -> LoopWatch:
        """Make the observations before the first step; the count of clipped rows of x, y costs ``epsilon``.

        ``rng``: secret, as the noise of the steps is.
        """
        drawn = random_rows(self._private, x, _DRAWN_ROWS), torch.arange(_DRAWN_ROWS, device=y.device) % 2
        if self._way == "hooks":
            # Of ghost clipping, choose_way has held the norms against those of hooks.
            trial = try_gradients(
                self._private, lambda raw, labels: _losses(self._model, raw, labels), *drawn, max_grad_norm=1.0
            )
            if trial.wrong_gradient or trial.wrong_batch:
                raise ModelError(
                    f"The parameter {(trial.wrong_gradient + trial.wrong_batch)[0]!r} gets other gradients for a row "
                    "than the row's own, so clipping bounds nothing: use each layer once a row, on that row alone."
                )
        moved = step_sensitivity(self._optimizer, self._step, *drawn, module=self._private, n_rows=_LEFT_OUT)
        if moved.exceeds or moved.why_not:
            why = moved.why_not or f"one row moves a step by {moved.largest:.3g} clipping norms"
            raise ModelError(f"A step of this network is not private: {why}. Leave out what mixes rows.")
        self._sensitivity = min(moved.largest, 1.0 + SLACK)
        n = min(len(x), COUNTED_ROWS)
        share = -np.expm1(-epsilon)
        noise = int(rng.geometric(share)) - int(rng.geometric(share))
        self._clipped = min(max((self._n_clipped(x[:n], y[:n]) + noise) / n, 0.0), 1.0)
        self._movement, self._watch = Movement(self._private), LoopWatch(self._private, self._optimizer)
        return self._watch

    def observations(self) -> SeenInTraining:
        """The observations after the last step; the optimizer is restored."""
        told = self._watch.observations()
        self._watch.detach()
        still = tuple(name.removeprefix("_module.") for name in self._movement.not_moving())
        return SeenInTraining(
            clipped_share=self._clipped,
            step_sensitivity=self._sensitivity,
            draws=told["draws"],
            steps_taken=told["steps_taken"],
            noise_draws=told["noise_draws"],
            repeated_draws=told["repeated_draws"],
            moved_outside_steps=told["moved_outside_steps"],
            not_moving=still,
        )

    def _n_clipped(self, x: Tensor, y: Tensor) -> int:
        """Rows whose gradients are longer than the norm, at the start of the training."""
        layers, found = LayerOutputs(self._private) if self._way == "ghost" else None, 0
        parameters: list[Any] = [p for p in self._private.parameters() if p.requires_grad]
        for start in range(0, len(x), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            losses = cross_entropy(self._model.logits(x[some]), y[some], reduction="none")
            if layers is not None:
                layers.pass_back(losses.mean())
                norms = self._private.get_norm_sample()  # type: ignore[operator]
            else:
                losses.mean().backward()  # type: ignore[no-untyped-call]
                norms = torch.stack([p.grad_sample.flatten(1).norm(dim=1) for p in parameters]).norm(dim=0)
            found += int((norms > float(self._optimizer.max_grad_norm)).sum())
            self._optimizer.zero_grad(set_to_none=True)
            for p in parameters:
                p.grad_sample = p.grad = None
        return found


def random_rows(module: nn.Module, like: Tensor, n: int) -> Tensor:
    """(n, ...) random rows with the shape of ``like`` and no information about it: normal numbers, or ids."""
    shape, generator = (n, *like.shape[1:]), torch.Generator().manual_seed(0)
    if like.is_floating_point():
        return torch.randn(shape, generator=generator).to(like)
    # The first embedding is that of the ids; 0 is often padding, which is looked away from.
    size = next((m.num_embeddings for m in module.modules() if isinstance(m, nn.Embedding)), 2)
    return torch.randint(min(1, size - 1), size, shape, generator=generator).to(like)


def _losses(model: TorchModel, raw: Tensor, labels: Tensor) -> Tensor:
    raw = raw.unsqueeze(1) if raw.ndim == 1 else raw
    return cross_entropy(as_logits(raw, model.output_kind), labels, reduction="none")


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
    """DP-SGD by Opacus: Poisson sampling, per-row gradients clipped to ``max_grad_norm``, Gaussian noise.

    ``make``: the untrained model, the same one each time; x: (n, ...) inputs, y: (n,) labels. ``mode``: how gradients
    are clipped, all ways to the same sum: ``hooks``, ``ghost``, or the one that is faster. ``weights`` (n,) multiply
    the loss of each row before it is clipped; a row's own must depend on no other row but through a private mechanism.
    ``stand_ins``: LSTM, GRU and attention are trained as layers that Opacus knows, and get their weights back.

    Returns the model, whose recipe holds what was spent, and notes that a reader must see: epsilon is the smallest
    bound of the accountants over the steps really taken. Raises UsageError or ModelError before any training where it
    cannot be done.

    Sources: Abadi et al., CCS 2016; ghost clipping: Li, Tramer, Liang and Hashimoto, ICLR 2022.
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
