"""DP-SGD: the network trained anew so that no single row of the training data can have moved it by much."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from auditor.errors import UsageError
from auditor.finding import Pillar
from auditor.mitigation import Mitigated, Stage, Training
from mitigations.retraining import trainable, training_set, untrained

if TYPE_CHECKING:
    from auditor.data import AuditData
    from auditor.model import AuditedModel, Recipe, TorchModel

_LARGEST_BATCH = 1024
_BATCHES = 32
_FEWEST_EPOCHS = 20
_LEARNING_RATE = 2e-3


class DpSgd:
    """Trains the same network anew by DP-SGD: ``(epsilon, delta)``-differentially private with regard to its rows.

    Of two data sets that differ in one row, trained models M and M' obey ``P(M in A) <= exp(epsilon) P(M' in A) +
    delta`` for every set A of weights. Rows are drawn by Poisson sampling, each row's gradient is clipped to
    ``max_grad_norm``, Gaussian noise is added to their sum, and the steps are accounted for (RDP). The linter of
    ``auditor dp-lint`` reads the record of every run, and its problems stand in the notes.

    epsilon: target, above 0; the epsilon really spent is at most this. delta: in (0, 1/n), None means ``n^-1.1`` of the
    n rows. max_grad_norm: a small one makes the model too sure of itself, since hard rows are clipped and easy ones are
    not (on Adult at epsilon 1 the log-loss is 0.46 at norm 1 and 0.32 at norm 10, of 0.31 without privacy, accuracy
    being the same within a point). epochs, batch_size, learning_rate: None means 20 at least, n / 32 up to 1,024 or
    the recipe's where that is larger, and 0.002: noise is added once a step, so that private training wants fewer and
    larger steps than other training. noise_seed: makes the noise
    repeatable, for tests; whoever knows it can take the noise out again. Without it two runs differ, whatever ``rng``.

    The encoding (means, levels) stays that of the old model and is not covered. Interrupted runs begin anew.

    Raises ModelError for a model that cannot be trained anew and for a layer that DP-SGD cannot train, naming what
    to replace it by; UsageError where delta is not below 1/n or epsilon cannot be reached.

    Sources: Abadi et al., CCS 2016; Mironov, Talwar and Zhang, arXiv:1908.10530 (2019).
    """

    name: ClassVar[str] = "dp_sgd"
    pillar: ClassVar[Pillar] = "privacy"
    goal: ClassVar[str] = "Train so that no single training row can be read from the model"
    citation: ClassVar[str] = "Abadi et al., CCS 2016"
    methods: ClassVar[tuple[str, ...]] = ("dp_sgd",)
    stage: ClassVar[Stage] = "in-processing"
    needs: ClassVar[str] = "a bundle with its recipe; training rows with labels"

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
    ) -> None:
        for name, value in (("epsilon", epsilon), ("max_grad_norm", max_grad_norm), ("learning_rate", learning_rate)):
            if value is not None and not (value > 0.0 and np.isfinite(value)):
                raise ValueError(f"{name} must be a positive number, not {value!r}")
        if delta is not None and not 0.0 < delta < 1.0:
            raise ValueError(f"delta must lie in (0, 1), and below one over the training rows, not {delta!r}")
        if (epochs is not None and epochs < 1) or (batch_size is not None and batch_size < 1):
            raise ValueError("epochs and batch_size must be at least 1")
        self.epsilon = epsilon
        self.delta = delta
        self.max_grad_norm = max_grad_norm
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.noise_seed = noise_seed

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """A new model of the same architecture, trained privately on the labelled rows."""
        from auditor.dp_sgd import PrivacyBudget, train_privately

        old = trainable(model)
        assert old.recipe is not None
        rows = training_set(old, data, training.device, groups=False)
        if self.delta is not None and self.delta >= 1.0 / len(rows):
            raise UsageError(
                f"delta must lie below 1/{len(rows):,}, one over the training rows, not {self.delta:g}: a larger one "
                "allows a mechanism that publishes whole rows."
            )
        if training.checkpoint is not None:
            raise UsageError(
                "dp_sgd writes no checkpoint, since one would hold the state of the noise: leave --checkpoint out."
            )
        budget = PrivacyBudget(
            epsilon=self.epsilon, delta=self.delta, max_grad_norm=self.max_grad_norm, noise_seed=self.noise_seed
        )
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
            progress=training.progress,
        )
        new.module.eval()
        return Mitigated(model=new, notes=(*notes, *_linted(new)))

    def _recipe(self, old: Recipe, n: int) -> Recipe:
        return replace(
            old,
            epochs=self.epochs or max(old.epochs, _FEWEST_EPOCHS),
            batch_size=min(self.batch_size or max(old.batch_size, min(n // _BATCHES, _LARGEST_BATCH)), n),
            learning_rate=self.learning_rate or _LEARNING_RATE,
            optimizer="adam",
            momentum=0.0,
            weight_decay=0.0,
        )


def _linted(model: TorchModel) -> tuple[str, ...]:
    """What the linter finds in the record of the run, or that it found nothing."""
    from auditor.privacy.bundle_record import run_of_model
    from auditor.privacy.dp_linter import lint

    result = lint(run_of_model(model, "the new model"))
    found = tuple(f"dp-lint: {p.code} ({p.severity}): {p.what}" for p in result.problems)
    checked = f"dp-lint: {len(result.clean)} checks found nothing, {len(result.not_recorded)} had nothing to go by."
    return (*found, checked)
