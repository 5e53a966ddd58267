"""DP-SGD: the network retrained with a bounded influence of each training row.

Rows may be reweighed by privately released counts: a row's weight leaks only what the privacy budget covers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd

from auditor.core.errors import UsageError
from auditor.core.rows import FloatArray, IntArray
from auditor.run.mitigation import BaseMitigation, Mitigated, Training
from auditor.run.option_parsers import check_choice, check_positive
from mitigations.training.retraining import TrainingSet, refuse_several_devices, trainable, training_set, untrained

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel, Recipe
    from auditor.models.torch_model import TorchModel
    from auditor.privacy.training.opacus_training import PrivacyBudget


@dataclass(frozen=True, eq=False, kw_only=True)
class PrivateWeights:
    """``weights`` (n,) of the rows, and ``epsilon``, spent on the released counts behind them (delta is 0)."""

    weights: FloatArray
    epsilon: float


def private_weights(
    y: IntArray, s: IntArray, epsilon: float, rng: np.random.Generator, *, n_classes: int
) -> PrivateWeights:
    """``N(s) N(y) / (N N(s, y))`` of labels y (n,) and sensitive features s (n, k), from noisy counts N(s, y).

    One row more or less changes one count by one, so noise with ``P(k)`` in proportion to ``exp(-epsilon |k|)`` on each
    count is ``epsilon``-differentially private; counts below 1 are taken as 1, and N, N(s) and N(y) are sums of the
    noisy counts. Which combinations of groups there are is taken as known. ``rng`` must be secret.

    Sources: Kamiran and Calders, Knowledge and Information Systems 33 (2012); Dwork, McSherry, Nissim and Smith, TCC
    2006; Ghosh, Roughgarden and Sundararajan, SIAM J. Computing 41 (2012).
    """
    _, group = np.unique(s, axis=0, return_inverse=True)
    counts = np.zeros((int(group.max()) + 1, n_classes), np.int64)
    np.add.at(counts, (group, y), 1)
    noisy = np.maximum(noisy_counts(counts, epsilon, rng), 1).astype(np.float64)
    expected = noisy.sum(axis=1, keepdims=True) * noisy.sum(axis=0, keepdims=True) / noisy.sum()
    weights: FloatArray = (expected / noisy)[group, y]
    return PrivateWeights(weights=weights, epsilon=epsilon)


def noisy_counts(counts: IntArray, epsilon: float, rng: np.random.Generator) -> IntArray:
    """The counts with noise on each: ``P(k) = (1 - q) / (1 + q) q^|k|``, with ``q = exp(-epsilon)``.

    Whole numbers, since the low bits of a real number can tell what its noise should hide (Mironov, CCS 2012).
    """
    share = -np.expm1(-epsilon)
    noise: IntArray = rng.geometric(share, counts.shape) - rng.geometric(share, counts.shape)
    return counts + noise


Mode = Literal["auto", "hooks", "ghost"]
Weights = Literal["none", "reweighing"]

_LARGEST_BATCH = 1024
_BATCHES = 32
_FEWEST_EPOCHS = 20
_LEARNING_RATE = 2e-3
_FINE_TUNING_EPOCHS = 10
_FINE_TUNING_RATE = 5e-4
# What the counts of a few groups need: at a share of 5 % of epsilon 1 their noise has a standard deviation of 28 rows.
_SHARE_OF_WEIGHTS = 0.05


class DpSgd(BaseMitigation):
    """Retrain the same network by DP-SGD: ``(epsilon, delta)``-differentially private for its rows.

    Of two data sets that differ in one row, trained models M and M' obey ``P(M in A) <= exp(epsilon) P(M' in A) +
    delta`` for every set A of weights. Rows are drawn by Poisson sampling, each row's gradient is clipped to
    ``max_grad_norm``, Gaussian noise is added to their sum, and the steps are accounted for (RDP). The linter of
    ``auditor dp lint`` reads the record of every run, and its problems stand in the notes.

    epsilon: target, above 0; the epsilon really spent is at most this. delta: in (0, 1/n), None means ``n^-1.1`` of the
    n rows. max_grad_norm: a small one makes the model too sure of itself, since hard rows are clipped and easy ones are
    not (on Adult at epsilon 1 the log-loss is 0.46 at norm 1 and 0.32 at norm 10, of 0.31 without privacy, accuracy
    being the same within a point). epochs, batch_size, learning_rate: None means 20 at least, n / 32 up to 1,024 or
    the recipe's where that is larger, and 0.002: noise is added once a step, so that private training wants fewer and
    larger steps than other training. noise_seed: makes the noise repeatable, for tests; whoever knows it can take the
    noise out again. Without it two runs differ, whatever ``rng``.

    A classifier of a Hugging Face folder is trained on from its own weights, which are taken as public: all of them, or
    with ``lora``, a rank, low-rank adapters and its head; 10 epochs at 0.0005 by default.

    mode: how gradients are clipped, all ways to the same sum. ``hooks`` holds every row's gradient; ``ghost`` holds
    none and passes backward twice (Li et al., ICLR 2022), which is 8 times as fast on Adult in batches of 1,024;
    ``auto`` takes ghost clipping where it knows the layers and is worth its second pass. LSTM, GRU and attention are
    replaced while training by layers that compute the same; a norm over the batch has none and is refused.

    weights: ``reweighing`` multiplies each row's loss, before it is clipped, by the weight that makes label and group
    independent; its counts are released by a private mechanism of their own, for 5 % of epsilon. Other methods are not
    offered together with this one: what a penalty between groups (min_diff), an adversary or group weights (group_dro)
    ask of a row depends on the other rows of its batch, so that clipping the row does not bound what one row can do;
    and what resampling or counterfactual rows add would have to be paid for as well.

    A new model that decides the same for every training row is not refused, as the other mitigations refuse it: that
    would tell of the rows what epsilon does not cover. The audit of other rows says it.

    The encoding (means, levels) stays that of the old model and is not covered. Interrupted runs begin anew.

    Raises ModelError for a model that cannot be trained anew and for a layer that DP-SGD cannot train, naming what
    to replace it by; UsageError where delta is not below 1/n or epsilon cannot be reached; DataError where weights
    are asked for and a group has rows of one label only.

    Sources: Abadi et al., CCS 2016; Mironov, Talwar and Zhang, arXiv:1908.10530 (2019).
    """

    name = "dp_sgd"
    pillar = "privacy"
    goal = "Train so that no single training row can be read from the model"
    citation = "Abadi et al., CCS 2016"
    methods = ("dp_sgd", "ghost_clipping")
    stage = "in-processing"
    needs = "a bundle with its recipe, or a text classifier of transformers; training rows with labels"

    def __init__(
        self,
        *,
        epsilon: float = 3.0,
        delta: float | None = None,
        max_grad_norm: float = 5.0,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        noise_seed: int | None = None,
        mode: Mode = "auto",
        weights: Weights = "none",
        lora: int | None = None,
    ) -> None:
        for name, value in (("epsilon", epsilon), ("max_grad_norm", max_grad_norm), ("learning_rate", learning_rate)):
            if value is not None:
                check_positive(name, value)
        if delta is not None and not 0.0 < delta < 1.0:
            raise ValueError(f"delta must lie in (0, 1), and below one over the training rows, not {delta!r}")
        if (epochs is not None and epochs < 1) or (batch_size is not None and batch_size < 1):
            raise ValueError("epochs and batch_size must be at least 1")
        if noise_seed is not None and noise_seed < 0:
            raise ValueError(f"noise_seed must be 0 or more, not {noise_seed!r}")
        if lora is not None and lora < 1:
            raise ValueError(f"lora is a rank of at least 1, not {lora!r}")
        check_choice("mode", mode, Mode)
        if weights not in get_args(Weights):
            raise ValueError(
                f"weights must be none or reweighing, not {weights!r}: other methods make a row's gradient depend on "
                "other rows, so that clipping it bounds nothing"
            )
        self.epsilon = epsilon
        self.delta = delta
        self.max_grad_norm = max_grad_norm
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.noise_seed = noise_seed
        self.mode: Mode = mode
        self.weights: Weights = weights
        self.lora = lora

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """A new model of the same architecture, trained privately on the labelled rows."""
        from auditor.models.networks.low_rank_adapters import pretrained
        from auditor.models.torch_model import TorchModel
        from auditor.privacy.training.opacus_training import PrivacyBudget, train_privately

        # Each process would draw rows and noise of its own.
        refuse_several_devices(training, self.name)
        # A classifier of pictures has position embeddings and a class token of its own, which have no gradient by row.
        if isinstance(model, TorchModel) and pretrained(model.module) not in (None, model.module):
            return self._fine_tuned(model, data, rng, training)
        if self.lora is not None:
            raise UsageError("lora is for text classifiers of transformers, which are fine-tuned: leave it out.")
        # The command trains from tables alone.
        old = trainable(
            model,
            "train a network privately from the rows, with auditor train --dp-epsilon EPSILON"
            if isinstance(data.X, pd.DataFrame)
            else "train it privately where it was made, with Opacus",
        )
        assert old.recipe is not None
        rows = training_set(old, data, training.device, groups=self.weights != "none")
        if self.delta is not None and self.delta >= 1.0 / len(rows):
            raise UsageError(
                f"delta must lie below 1/{len(rows):,}, one over the training rows, not {self.delta:g}: a larger one "
                "allows a mechanism that publishes whole rows."
            )
        _refuse_checkpoint(training)
        budget = PrivacyBudget(
            epsilon=self.epsilon, delta=self.delta, max_grad_norm=self.max_grad_norm, noise_seed=self.noise_seed
        )
        budget, weights, weighed = self._weights(rows, budget, old.n_outputs)
        start = int(rng.integers(2**62))

        def make(recipe: Recipe) -> TorchModel:
            return untrained(old, np.random.default_rng(start), training.device, recipe)

        new, notes = train_privately(
            make,
            rows.x,
            rows.y,
            self._recipe(old.recipe, len(rows)),
            budget,
            seed=int(rng.integers(2**62)),
            mode=self.mode,
            weights=weights,
            stand_ins=True,
            progress=training.progress,
        )
        new.module.eval()
        return Mitigated(model=new, notes=(*notes, *weighed, *_linted(new)))

    def _fine_tuned(
        self, model: TorchModel, data: AuditData, rng: np.random.Generator, training: Training
    ) -> Mitigated:
        """A text classifier of transformers trained on from its own weights."""
        from auditor.models.audited_model import Recipe
        from auditor.models.networks.low_rank_adapters import Lora
        from auditor.privacy.training.opacus_training import PrivacyBudget, fine_tune_privately

        if self.weights != "none":
            raise UsageError("weights=reweighing is for models that are trained anew: leave it out for a folder.")
        _refuse_checkpoint(training)
        n = 0 if data.y_true is None else int((data.y_true >= 0).sum())
        recipe = Recipe(
            optimizer="adam",
            epochs=self.epochs or _FINE_TUNING_EPOCHS,
            batch_size=self.batch_size or max(1, min(n // _BATCHES, _LARGEST_BATCH)),
            learning_rate=self.learning_rate or _FINE_TUNING_RATE,
        )
        new, notes = fine_tune_privately(
            model,
            data,
            recipe,
            PrivacyBudget(
                epsilon=self.epsilon, delta=self.delta, max_grad_norm=self.max_grad_norm, noise_seed=self.noise_seed
            ),
            seed=int(rng.integers(2**62)),
            lora=None if self.lora is None else Lora(rank=self.lora),
            mode=self.mode,
            progress=training.progress,
        )
        return Mitigated(model=new, notes=(*notes, *_linted(new)))

    def _weights(
        self, rows: TrainingSet, budget: PrivacyBudget, n_classes: int
    ) -> tuple[PrivacyBudget, Tensor | None, tuple[str, ...]]:
        """What is left of the budget, the weights (n,) or None, and what a reader must know of them."""
        if self.weights == "none":
            return budget, None, ()
        import torch

        # Drawn from the operating system: the release of the counts is as secret as the noise of the steps.
        secret = np.random.default_rng(None if self.noise_seed is None else [self.noise_seed, 1])
        spent = _SHARE_OF_WEIGHTS * self.epsilon
        made = private_weights(rows.y.cpu().numpy(), rows.s.cpu().numpy(), spent, secret, n_classes=n_classes)
        note = (
            f"Rows weighted by label and {' and '.join(rows.features)}, from {made.weights.min():.3f} to "
            f"{made.weights.max():.3f}: the counts were released by the geometric mechanism for epsilon "
            f"{made.epsilon:.3g} of the {self.epsilon:g}, by simple composition. The names of the groups are taken as "
            "known."
        )
        weights = torch.from_numpy(made.weights.astype(np.float32)).to(rows.x.device)
        return replace(budget, spent_before=made.epsilon), weights, (note,)

    def _recipe(self, old: Recipe, n: int) -> Recipe:
        return replace(
            old,
            epochs=self.epochs or max(old.epochs, _FEWEST_EPOCHS),
            batch_size=min(self.batch_size or max(old.batch_size, min(n // _BATCHES, _LARGEST_BATCH)), n),
            learning_rate=self.learning_rate or _LEARNING_RATE,
            optimizer="adam",
            momentum=0.0,
            weight_decay=0.0,
            learning_rate_from=None,
        )


def _refuse_checkpoint(training: Training) -> None:
    if training.checkpoint is not None:
        raise UsageError(
            "dp_sgd writes no checkpoint, since one would hold the state of the noise: leave --checkpoint out."
        )


def _linted(model: TorchModel) -> tuple[str, ...]:
    """What the linter finds in the record of the run, or that it found nothing."""
    from auditor.privacy.dp_linter import lint
    from auditor.privacy.run_record import run_of_model

    result = lint(run_of_model(model, "the new model"))
    found = tuple(f"dp-lint: {p.code} ({p.severity}): {p.what}" for p in result.problems)
    untold = len(result.not_recorded) + len(result.cannot_tell)
    checked = f"dp-lint: {len(result.clean)} checks found nothing, {untold} had nothing to go by."
    return (*found, checked)
