"""Training of a torch classifier from a table: one loop, fully seeded, with DP-SGD on request."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from auditor.core.errors import DataError, ModelError, UsageError, did_you_mean, first_line
from auditor.core.randomness import seeded_globals
from auditor.core.rows import IntArray
from auditor.data.audit_data import favourable
from auditor.data.preprocessing import TabularPreprocessing
from auditor.loading.job_specs import TrainSpec
from auditor.loading.user_code import import_object, keywords_of
from auditor.models.audited_model import Recipe, SpentOnEncoding
from auditor.models.networks.architectures import ARCHITECTURES
from auditor.models.torch_context import resolve_device
from auditor.models.torch_model import TorchModel
from auditor.privacy.training.opacus_training import PrivacyBudget, train_privately
from auditor.privacy.training.private_encoding import encoding_notes, learn_encoding
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.rank_estimates import area_under_curve
from auditor.statistics.rates import Proportion
from auditor.training import training_loop
from auditor.training.multi_device import Devices
from auditor.training.training_rows import (
    LabelledRows,
    WeightedShare,
    encode_rows,
    fit_preprocessing,
    grouped_split,
    read_rows,
    stratified_split,
)

VALIDATION_SHARE = 0.15
FEWEST_VALIDATION_ROWS = 20
PATIENCE = 10
# The second had the largest area under the curve of 0.001 to 0.02, on mortgages and on convictions at epsilon 1 and 8.
LEARNING_RATE, PRIVATE_LEARNING_RATE = 1e-3, 1e-2
# Noise is added once a step, so that it weighs less in larger batches: on wages, convictions, mortgages and health
# insurance at epsilon 1 none was better than a sixth to a sixteenth of the rows, and 128 rows were the worst.
BATCH_SIZE, PRIVATE_BATCHES, LARGEST_PRIVATE_BATCH = 128, 16, 2048
# Of epsilon: a fifth takes 2 % more noise in the steps, since Gaussian mechanisms add up by squares.
ENCODING_SHARE = 0.2

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainedModel:
    """A trained model, its training and held-out rows, and its performance on the latter.

    ``train``, ``test``: the rows, unencoded, with the target and every other column that is kept. ``train_rows``,
    ``test_rows``: their positions in the file, ascending. ``accuracy``, ``auc`` (binary only): on the test rows.
    ``majority_share``: accuracy on the test rows of always guessing the commonest training class; both are weighted
    where the training was. ``notes``: what was done that a reader must know. ``recognised``: which columns were not
    learned from by their looks, and what would change that.
    """

    model: TorchModel
    train: pd.DataFrame
    test: pd.DataFrame
    train_rows: IntArray
    test_rows: IntArray
    left_out: tuple[str, ...]
    accuracy: Proportion | WeightedShare
    auc: AnyEstimate | None
    majority_share: float
    notes: tuple[str, ...]
    recognised: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Learned:
    """Encoded rows to learn from: x (n, width), y (n,), weights w (n,) of mean 1, groups (n,) that stay together."""

    x: Tensor
    y: Tensor
    w: Tensor | None
    groups: IntArray | None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.x, self.y) if self.w is None else (self.x, self.y, self.w)

    def take(self, rows: IntArray) -> _Learned:
        index = torch.from_numpy(rows)
        w = None if self.w is None else self.w[index]
        return _Learned(self.x[index], self.y[index], w, None if self.groups is None else self.groups[rows])


@dataclass(frozen=True)
class _Seeds:
    """Independent seeds of the parts of one training run."""

    split: int
    initialisation: int
    batches: int

    @classmethod
    def from_seed(cls, seed: int) -> _Seeds:
        return cls(*(int(s) for s in np.random.SeedSequence(seed).generate_state(3, np.uint64)))


def train_table(spec: TrainSpec, progress: Progress | None = None, *, devices: Devices | None = None) -> TrainedModel:
    """Train a classifier on a table and measure it on the held-out rows.

    The labelled rows are split by class, and by ``group_column`` where one is named; the encoding is fitted on the
    training rows; Adam minimises the cross-entropy, each row's by its ``weight`` over their mean where one is named.
    Without ``dp_epsilon`` the number of epochs is chosen by early stopping on 15 % of the training rows, and the model
    is then trained anew, from the same start, on all of them for that number of epochs, so that every training row is
    equally a member (Goodfellow et al., Deep Learning, 2016, algorithm 7.2). With it, by DP-SGD for exactly ``epochs``.
    The caller's random states of torch, numpy and random are left as they were; the same seed gives the same weights.
    ``devices``: those of a job of several processes, from ``auditor.training.multi_device.devices_of_job()``, in the
    place of the device of ``spec``; each makes the same model, and one of them should save it.

    Raises UsageError, DataError or ModelError before training where something asked for cannot be done.
    """
    _check(spec)
    if devices is not None and devices.size > 1 and spec.dp_epsilon is not None:
        raise UsageError(
            "Private training is for one device: start one process, without torchrun or accelerate launch."
        )
    say = progress if progress is not None and (devices is None or devices.is_main) else _silent
    device = torch.device(resolve_device(spec.device)) if devices is None else devices.device
    say("reading the table")
    table = read_rows(spec)
    seeds = _Seeds.from_seed(spec.seed)
    train, test = _split_rows(table.y, table.groups, spec.test_share, np.random.default_rng(seeds.split))
    X = table.frame[list(table.features)]
    preprocessing, came_from, learned, said = _encoding(spec, table, X.iloc[train])
    rows = _learned(table, train, test, encode_rows(preprocessing, X.iloc[train]), device)
    recipe = Recipe(
        learning_rate=_learning_rate(spec),
        epochs=spec.epochs,
        batch_size=min(_batch_size(spec, len(rows.x)), len(rows.x)),
        seed=spec.seed,
        weight=spec.weight,
        group_column=spec.group_column,
        preprocessing_from=came_from,
        n_trials=spec.dp_trials,
        encoding=learned,
        learning_rate_from=None if spec.dp_epsilon is None else "default" if spec.learning_rate is None else "given",
    )
    make = _Factory(spec, preprocessing, table.classes, device, seeds.initialisation)
    _try_forward(make(recipe), rows.x)
    if spec.dp_epsilon is None:
        model, how = _fit_with_early_stopping(make, rows, recipe, seeds, say, devices)
    else:
        budget = PrivacyBudget(
            epsilon=spec.dp_epsilon,
            delta=spec.dp_delta,
            max_grad_norm=spec.max_grad_norm,
            noise_seed=spec.dp_noise_seed,
        )
        model, told = train_privately(
            make, rows.x, rows.y, recipe, budget, seed=make.seed, progress=lambda words: say(f"{words} (private)")
        )
        how = (*said, *told, *_of_persons(table.groups, train, spec.group_column))
    model.module.eval()
    return _evaluate(model, table, train, test, spec, how)


def _encoding(
    spec: TrainSpec, table: LabelledRows, X: pd.DataFrame
) -> tuple[TabularPreprocessing, str, SpentOnEncoding | None, tuple[str, ...]]:
    """The encoding, what it was learned from, what that spent of the budget, and what a reader must know of it."""
    if spec.schema is not None:
        return spec.schema.preprocessing(table.features), "public", None, ()
    share = ENCODING_SHARE if spec.dp_encoding_share is None else spec.dp_encoding_share
    if spec.dp_epsilon is None or share == 0.0:
        return fit_preprocessing(X), "training_rows", None, ()
    delta = PrivacyBudget(epsilon=spec.dp_epsilon, delta=spec.dp_delta).delta_for(len(X))
    rng = np.random.default_rng(None if spec.dp_noise_seed is None else [spec.dp_noise_seed, 3])
    try:
        found = learn_encoding(X, epsilon=share * spec.dp_epsilon, delta=delta, rng=rng)
    except UsageError as error:
        raise UsageError(f"--dp-epsilon {spec.dp_epsilon:g} cannot be reached: {error}") from None
    return found.preprocessing, "private_mechanism", found.spent, encoding_notes(found, share * spec.dp_epsilon)


def _evaluate(
    model: TorchModel,
    table: LabelledRows,
    train: IntArray,
    test: IntArray,
    spec: TrainSpec,
    method_notes: tuple[str, ...],
) -> TrainedModel:
    """What was trained on the rows ``train``, and how well it does on the rows ``test``."""
    positive = favourable(spec.positive, table.classes)
    held = table.frame.iloc[test].reset_index(drop=True)
    probabilities = model.predict_part(held[list(table.features)])
    y_test = table.y[test]
    commonest = int(np.bincount(table.y[train], None if table.weights is None else table.weights[train]).argmax())
    correct = np.asarray(model.decide(probabilities, positive) == y_test)
    weights = np.ones(len(test)) if table.weights is None else table.weights[test]
    apart = "" if spec.group_column is None else f", and none of {spec.group_column!r} in both"
    split = (
        f"{len(train):,} training and {len(test):,} test rows, drawn by class with seed {spec.seed} "
        f"(test share {spec.test_share:g}){apart}."
    )
    return TrainedModel(
        model=model,
        train=table.frame.iloc[train].reset_index(drop=True),
        test=held,
        train_rows=table.rows[train],
        test_rows=table.rows[test],
        left_out=table.left_out,
        accuracy=(
            Proportion(successes=int(correct.sum()), n=len(test))
            if table.weights is None
            else WeightedShare.from_rows(correct, weights)
        ),
        auc=_auc(probabilities, y_test, 1 if positive is None else positive) if len(table.classes) == 2 else None,
        majority_share=float((y_test == commonest) @ weights / weights.sum()),
        notes=(*table.notes, split, *method_notes, *_state_outputs(model)),
        recognised=table.recognised,
    )


def _split_rows(
    y: IntArray, groups: IntArray | None, share: float, rng: np.random.Generator
) -> tuple[IntArray, IntArray]:
    return stratified_split(y, share, rng) if groups is None else grouped_split(y, groups, share, rng)


def _learned(
    table: LabelledRows, train: IntArray, test: IntArray, encoded: np.ndarray[Any, Any], device: torch.device
) -> _Learned:
    w = None
    if table.weights is not None:
        if not (table.weights[train].any() and table.weights[test].any()):
            raise DataError("The weight is 0 in every row of a half of the rows: give another --seed or --test-share.")
        weights = table.weights[train]
        w = torch.from_numpy((weights / weights.mean()).astype(np.float32)).to(device)
    groups = None if table.groups is None else table.groups[train]
    return _Learned(torch.from_numpy(encoded).to(device), torch.from_numpy(table.y[train]).to(device), w, groups)


def _of_persons(groups: IntArray | None, train: IntArray, name: str | None) -> tuple[str, ...]:
    """What a private training promises where somebody stands in several rows."""
    if groups is None or (most := int(np.unique(groups[train], return_counts=True)[1].max())) == 1:
        return ()
    return (f"Epsilon is that of one row, and up to {most:,} rows are of one {name!r}: it is no epsilon of persons.",)


def _auc(probabilities: np.ndarray[Any, np.dtype[np.float64]], y: IntArray, positive: int) -> AnyEstimate:
    scores = probabilities[:, positive]
    return area_under_curve(positives=scores[y == positive], negatives=scores[y != positive])


def _learning_rate(spec: TrainSpec) -> float:
    """What is asked for, else a default that was chosen on other data, so that it spends nothing of these."""
    if spec.learning_rate is not None:
        return spec.learning_rate
    return LEARNING_RATE if spec.dp_epsilon is None else PRIVATE_LEARNING_RATE


def _batch_size(spec: TrainSpec, n: int) -> int:
    """What is asked for, else a default; in private it grows with the rows, whose number is public."""
    if spec.batch_size is not None:
        return spec.batch_size
    return BATCH_SIZE if spec.dp_epsilon is None else min(max(n // PRIVATE_BATCHES, BATCH_SIZE), LARGEST_PRIVATE_BATCH)


def _silent(_: str) -> None:
    """Says nothing."""


def _check(spec: TrainSpec) -> None:
    if not 0.0 < spec.test_share < 1.0:
        raise UsageError(f"--test-share must lie between 0 and 1, not {spec.test_share:g}.")
    for flag, number in (("--epochs", spec.epochs), ("--batch-size", _batch_size(spec, 1))):
        if number < 1:
            raise UsageError(f"{flag} must be at least 1, not {number}.")
    rate = _learning_rate(spec)
    if not (math.isfinite(rate) and rate > 0):
        raise UsageError(f"--learning-rate must be a positive number, not {rate:g}.")
    if spec.dp_trials is not None and spec.dp_trials < 1:
        raise UsageError(f"--dp-trials counts this training too, so it is at least 1, not {spec.dp_trials}.")
    if any(units < 1 for units in spec.hidden):
        raise UsageError("--hidden must be positive numbers, such as 64,32.")
    if spec.seed < 0:
        raise UsageError(f"--seed must be 0 or more, not {spec.seed}.")
    if spec.weight is not None and spec.dp_epsilon is not None:
        raise UsageError("Private training clips all rows alike, without weights: leave --weight or --dp-epsilon out.")
    if spec.dp_epsilon is None:
        private = (spec.dp_delta, spec.dp_noise_seed, spec.dp_trials, spec.dp_encoding_share)
        if any(option is not None for option in private):
            raise UsageError(
                "--dp-delta, --dp-noise-seed, --dp-trials and --dp-encoding-share say how to train privately: add "
                "--dp-epsilon E."
            )
        return
    _check_encoding_share(spec)
    if not (math.isfinite(spec.dp_epsilon) and spec.dp_epsilon > 0):
        raise UsageError(f"--dp-epsilon must be a positive number, not {spec.dp_epsilon:g}.")
    if not (math.isfinite(spec.max_grad_norm) and spec.max_grad_norm > 0):
        raise UsageError(f"--max-grad-norm must be a positive number, not {spec.max_grad_norm:g}.")


def _check_encoding_share(spec: TrainSpec) -> None:
    share = spec.dp_encoding_share
    if share is not None and not 0.0 <= share < 1.0:
        raise UsageError(f"--dp-encoding-share must be at least 0 and below 1, not {share:g}.")
    if share and spec.schema is not None:
        raise UsageError("--schema says how to encode, so nothing is to be learned: leave --dp-encoding-share out.")


# ---- the network ---------------------------------------------------------------------------------------------------


def _seeded(seed: int) -> AbstractContextManager[None]:
    """The global generators that initialisation, dropout and the user's own layers draw from, lent for a block."""
    return seeded_globals(np.random.default_rng(seed))


class _Factory:
    """Makes the untrained model, the same one each time it is called."""

    def __init__(
        self,
        spec: TrainSpec,
        preprocessing: TabularPreprocessing,
        classes: tuple[str, ...],
        device: torch.device,
        seed: int,
    ) -> None:
        self.preprocessing = preprocessing
        self.classes = classes
        self.device = device
        self.seed = seed
        self.kind, self.args = _architecture(spec, preprocessing.width, len(classes))
        self.name = spec.architecture

    def __call__(self, recipe: Recipe) -> TorchModel:
        with _seeded(self.seed):
            try:
                module = self.kind(**self.args)
            except Exception as error:  # whatever the user's own code raises
                raise UsageError(
                    f"{self.name} cannot be made with the arguments {self.args}: {first_line(error)}. "
                    "Correct --architecture-args."
                ) from error
        if not isinstance(module, nn.Module):
            raise UsageError(f"--architecture {self.name} makes a {type(module).__name__}, not a torch.nn.Module.")
        if not any(p.requires_grad for p in module.parameters()):
            raise ModelError(f"--architecture {self.name} has no parameter that could be trained.")
        return TorchModel(
            module,
            classes=self.classes,
            preprocessing=self.preprocessing,
            device=self.device,
            architecture={"name": self.name, "args": dict(self.args)},
            recipe=recipe,
        )


def _architecture(spec: TrainSpec, n_features: int, n_outputs: int) -> tuple[Callable[..., nn.Module], dict[str, Any]]:
    """What makes the module and its arguments; the sizes are passed where the signature takes them."""
    sizes = {"n_features": n_features, "n_outputs": n_outputs}
    if spec.architecture == "mlp":
        return ARCHITECTURES["mlp"], {"hidden": list(spec.hidden), **spec.architecture_args, **sizes}
    if ":" not in spec.architecture:
        near = did_you_mean(spec.architecture, ["mlp"])
        raise UsageError(
            f"--architecture {spec.architecture!r} must be mlp, or package.module:Class of your own{near or '.'}"
        )
    kind = import_object(spec.architecture, spec.code_folder, "--architecture")
    return kind, keywords_of(kind, sizes, spec.architecture_args)


def _state_outputs(model: TorchModel) -> tuple[str, ...]:
    """States that the network returns logits, as which it was trained, where its outputs on the test rows agree; else a
    note: a network that ends in a softmax was trained as if it did not."""
    if model.outputs_said is None and not model.in_question:
        model.outputs_said = "logits"
    if model.outputs_said is not None:
        return ()
    return (
        f"The outputs of {type(model.module).__name__} on the test rows leave open whether they are logits, as which "
        "they were trained, or probabilities: an audit of the bundle will ask for --outputs. A network that is trained "
        "here ends without a softmax or sigmoid of its own.",
    )


def _try_forward(model: TorchModel, x: Tensor) -> None:
    """Two rows through the untrained module, so that a network of the wrong shape is refused before any training."""
    few = x[:2]
    with torch.no_grad(), model.evaluating(), _seeded(0):
        try:
            model.logits(few)
        except ModelError:
            raise
        except Exception as error:  # whatever the user's own code raises
            raise ModelError(
                f"{type(model.module).__name__} cannot take an input of shape {tuple(few.shape)}: {first_line(error)}."
            ) from error


# ---- the loop ------------------------------------------------------------------------------------------------------


def _fit_with_early_stopping(
    make: _Factory, rows: _Learned, recipe: Recipe, seeds: _Seeds, say: Progress, devices: Devices | None
) -> tuple[TorchModel, tuple[str, ...]]:
    rng = np.random.default_rng([seeds.split, 1])
    fit, validation = _split_rows(rows.y.cpu().numpy(), rows.groups, VALIDATION_SHARE, rng)
    epochs = recipe.epochs
    went_through = Counter[tuple[Any, ...]]()
    if len(validation) < FEWEST_VALIDATION_ROWS:
        note = f"Trained for {epochs} epochs; the rows are too few for early stopping."
    else:
        searching = make(recipe)
        held = rows.take(validation)
        epochs = training_loop.train(
            _cross_entropy_step(searching, recipe),
            rows.take(fit).tensors,
            training_loop.Schedule(epochs=epochs, batch_size=recipe.batch_size, seed=seeds.batches, patience=PATIENCE),
            validate=lambda: float(_cross_entropy(searching, held.tensors)),
            progress=lambda words: say(f"early stopping: {words}"),
            devices=devices,
        ).epoch
        went_through = searching.forwarded
        note = (
            f"Trained for {epochs} of at most {recipe.epochs} epochs: chosen by early stopping on {len(validation):,} "
            f"of the training rows (patience {PATIENCE}), then trained anew on all {len(rows.x):,}."
        )
    recipe = replace(recipe, epochs=epochs)
    model = make(recipe)
    # One shape: what went through the other while it searched is part of what the training takes.
    model.forwarded += went_through
    schedule = training_loop.Schedule(epochs=epochs, batch_size=recipe.batch_size, seed=seeds.batches)
    training_loop.train(_cross_entropy_step(model, recipe), rows.tensors, schedule, progress=say, devices=devices)
    return model, (note,)


def _cross_entropy_step(model: TorchModel, recipe: Recipe) -> training_loop.PlainStep:
    optimizer = torch.optim.Adam(model.module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    return training_loop.PlainStep(model.module, optimizer, lambda batch: _cross_entropy(model, batch))


def _cross_entropy(model: TorchModel, batch: Sequence[Tensor]) -> Tensor:
    """The mean over the rows, each by its weight where there is a third tensor of them."""
    if len(batch) == 2:
        return nn.functional.cross_entropy(model.logits(batch[0]), batch[1])
    x, y, w = batch
    return (w * nn.functional.cross_entropy(model.logits(x), y, reduction="none")).mean()
