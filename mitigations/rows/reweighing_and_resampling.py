"""Reweighing and balanced resampling: weights or draws of training rows by group and label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from auditor.core.rows import FloatArray, IntArray
from auditor.run.mitigation import Mitigated, Training
from auditor.run.option_parsers import check_choice
from mitigations.selection_guide import MeasuredExperience
from mitigations.training.fairlearn_reductions import NetworkOrEstimator, only_for_networks, refit
from mitigations.training.retraining import labelled_rows, refuse_one_class, run, training_set
from mitigations.training.starting_network import Tuning, begin, recipe_for, trainable_from_somewhere

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel


class Reweighing(NetworkOrEstimator):
    """Train the network on rows weighted by ``w(s, y) = P(s) P(y) / P(s, y)``.

    s is the row's combination of sensitive features. Weighted so, label and group are independent in the training
    rows; the weights average 1. Nothing is promised of the decisions: the audit tells.

    A bundle's own network is drawn anew and trained by its recipe; any other torch module, such as a transformers
    classifier, is fine-tuned from its own weights: epochs, batch_size, learning_rate: None means the recipe's, and
    without one 4, 32 and 5e-5. lora: rank of adapters, which are then learned with the head alone, at 5e-4.

    An estimator of scikit-learn, or boosted trees, is fitted anew by ``sample_weight``, and written in the format of
    its own library. hyperparameters: those that are to be otherwise than they were, as the library names them.

    Raises ModelError for a model that cannot be trained, DataError where a group has rows of one label only.

    Source: Kamiran and Calders, Knowledge and Information Systems 33 (2012).
    """

    name = "reweighing"
    pillar = "fairness"
    goal = "Make label and group independent in what is learned from"
    citation = "Kamiran and Calders, Knowledge and Information Systems 33 (2012)"
    methods = ("reweighing",)
    stage = "pre-processing"
    needs = "a torch module, an estimator or boosted trees; training rows with labels and groups"
    experience = MeasuredExperience()

    def __init__(
        self,
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        lora: int | None = None,
        hyperparameters: dict[str, Any] | None = None,
    ) -> None:
        self.hyperparameters = hyperparameters
        self.tuning = Tuning(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, lora=lora)

    def _fit_estimator(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> Mitigated:
        only_for_networks(**vars(self.tuning))
        rows = labelled_rows(data, groups=True)
        weights = reweighing_weights(rows.y, rows.s)
        found = refit(model, rows, rng, weights=weights, hyperparameters=self.hyperparameters)
        return Mitigated(model=found.model, notes=(_weights_text(weights), *found.notes))

    def _train_network(
        self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training
    ) -> Mitigated:
        import torch
        from torch.nn.functional import cross_entropy

        from auditor.training.training_loop import PlainStep

        old = trainable_from_somewhere(model)
        rows = training_set(old, data, training.device, groups=True)
        weights = reweighing_weights(rows.y.cpu().numpy(), rows.s.cpu().numpy())
        begun = begin(old, recipe_for(old, self.tuning), rng, training.device, lora=self.tuning.lora)
        w = torch.from_numpy(weights.astype(np.float32)).to(rows.x.device)

        def loss(batch: Sequence[Tensor]) -> Tensor:
            x, y, weight = batch
            return (weight * cross_entropy(begun.new.logits(x), y, reduction="none")).mean()

        step = begun.step(PlainStep(begun.new.module, begun.optimizer(), loss), len(rows))
        prints: dict[str, object] = {"mitigation": self.name, "tuning": repr(self.tuning)}
        run(step, (rows.x, rows.y, w), begun.recipe, rng, training, fingerprint=prints)
        new = begun.finished()
        refuse_one_class(new, old, data.take(rows.rows), instead="give more epochs")
        return Mitigated(
            model=new,
            notes=(_weights_text(weights), f"The network was {begun.training_text}, {begun.recipe.epochs} epochs."),
        )


def _weights_text(weights: FloatArray) -> str:
    return f"Weights of {len(weights):,} training rows from {weights.min():.3f} to {weights.max():.3f}, mean 1."


def reweighing_weights(y: IntArray, s: IntArray) -> FloatArray:
    """(n,) ``P(s) P(y) / P(s, y)`` of labels y (n,) and sensitive features s (n, k) jointly; mean 1."""
    _, group = np.unique(s, axis=0, return_inverse=True)
    joint = np.zeros((int(group.max()) + 1, int(y.max()) + 1))
    np.add.at(joint, (group, y), 1.0)
    expected = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True) / len(y)
    weights: FloatArray = (expected / np.maximum(joint, 1.0))[group, y]
    return weights


Method = Literal["uniform_sampling", "balanced"]


class BalancedResampling(NetworkOrEstimator):
    """Train the network on rows resampled by cell of group s and label y, n rows in all.

    - ``uniform_sampling``: cell (s, y) gets ``n P(s) P(y)`` rows, so that label and group are independent, the shares
      of either staying as they are
    - ``balanced``: every cell gets ``n / number of cells`` rows, so that the favourable label is as frequent as any

    A cell that has more rows than it gets loses some, drawn without replacement; one that has fewer gets all of its own
    and copies of some. s is the combination of all sensitive features. Copies make memorisation easier: the privacy
    probes of the audit tell.

    method: as above. A bundle's own network is drawn anew and trained by its recipe; any other torch module, such as a
    transformers classifier, is fine-tuned from its own weights: epochs, batch_size, learning_rate: None means the
    recipe's, and without one 4, 32 and 5e-5. lora: rank of adapters, which are then learned with the head alone, at
    5e-4.

    An estimator of scikit-learn, or boosted trees, is fitted anew on the rows drawn, and written in the format of its
    own library. hyperparameters: those that are to be otherwise than they were, as the library names them.

    Raises ModelError for a model that cannot be trained, DataError where a group has one label.

    Source: Kamiran and Calders, Knowledge and Information Systems 33 (2012), section 5.3 (uniform sampling).
    """

    name = "balanced_resampling"
    pillar = "fairness"
    goal = "Learn from as many rows of each label in every group as there should be"
    citation = "Kamiran and Calders, Knowledge and Information Systems 33 (2012)"
    methods = get_args(Method)
    stage = "pre-processing"
    needs = "a torch module, an estimator or boosted trees; training rows with labels and groups"
    experience = MeasuredExperience()

    def __init__(
        self,
        *,
        method: Method = "uniform_sampling",
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        lora: int | None = None,
        hyperparameters: dict[str, Any] | None = None,
    ) -> None:
        check_choice("method", method, Method)
        self.method: Method = method
        self.hyperparameters = hyperparameters
        self.tuning = Tuning(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, lora=lora)

    def _fit_estimator(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> Mitigated:
        only_for_networks(**vars(self.tuning))
        rows = labelled_rows(data, groups=True)
        drawn = resampled(rows.y, rows.s, self.method, rng)
        found = refit(model, rows, rng, places=drawn, hyperparameters=self.hyperparameters)
        return Mitigated(model=found.model, notes=(self._resampling_text(drawn, len(rows)), *found.notes))

    def _resampling_text(self, row_indices: IntArray, n: int) -> str:
        return (
            f"Resampled ({self.method}): {len(np.unique(row_indices)):,} of {n:,} rows were learned from, some of them "
            f"up to "
            f"{int(np.bincount(row_indices).max())} times."
        )

    def _train_network(
        self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training
    ) -> Mitigated:
        from torch.nn.functional import cross_entropy

        from auditor.training.training_loop import PlainStep

        old = trainable_from_somewhere(model)
        rows = training_set(old, data, training.device, groups=True)
        y, s = rows.y.cpu().numpy(), rows.s.cpu().numpy()
        drawn = resampled(y, s, self.method, rng)
        again = rows.take(drawn)
        begun = begin(old, recipe_for(old, self.tuning), rng, training.device, lora=self.tuning.lora)

        def loss(batch: Sequence[Tensor]) -> Tensor:
            return cross_entropy(begun.new.logits(batch[0]), batch[1])

        step = begun.step(PlainStep(begun.new.module, begun.optimizer(), loss), len(again))
        prints: dict[str, object] = {"mitigation": self.name, "method": self.method, "tuning": repr(self.tuning)}
        run(step, (again.x, again.y), begun.recipe, rng, training, fingerprint=prints)
        new = begun.finished()
        refuse_one_class(new, old, data.take(rows.rows), instead="give more epochs")
        said = f"The network was {begun.training_text}, {begun.recipe.epochs} epochs."
        return Mitigated(model=new, notes=(self._resampling_text(drawn, len(rows)), said))


def target_cell_sizes(y: IntArray, s: IntArray, method: Method) -> tuple[IntArray, FloatArray, IntArray]:
    """(n,) cell of each row, (cells,) target rows of each cell, and (cells,) present rows."""
    cells, code = np.unique(np.column_stack([s, y]), axis=0, return_inverse=True)
    code = code.reshape(-1).astype(np.int64)
    has = np.bincount(code).astype(np.int64)
    if method == "balanced":
        return code, np.full(len(has), len(y) / len(has)), has
    _, group = np.unique(cells[:, :-1], axis=0, return_inverse=True)
    _, label = np.unique(cells[:, -1], return_inverse=True)
    of_group = np.bincount(group.reshape(-1), weights=has)[group.reshape(-1)]
    of_label = np.bincount(label, weights=has)[label]
    return code, of_group * of_label / len(y), has


def resampled(y: IntArray, s: IntArray, method: Method, rng: np.random.Generator) -> IntArray:
    """Positions of the rows drawn, of labels y (n,) and sensitive features s (n, k); n up to rounding by cell."""
    code, should, has = target_cell_sizes(y, s, method)
    drawn = []
    for cell, (target, n) in enumerate(zip(np.maximum(np.rint(should).astype(int), 1), has, strict=True)):
        own = np.flatnonzero(code == cell)
        copies, rest = divmod(int(target), int(n))
        drawn += [np.tile(own, copies), rng.choice(own, rest, replace=False)]
    return np.sort(np.concatenate(drawn)).astype(np.int64)
