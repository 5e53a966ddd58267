"""Reweighing: training rows weighted so that label and group are independent in what is learned from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from auditor.finding.measurement import Pillar
from auditor.rows import FloatArray, IntArray
from auditor.run.mitigation import Experience, Mitigated, Stage, Training
from mitigations.experience import EXPERIENCE
from mitigations.training.one_class import refuse_one_class
from mitigations.training.retraining import run, trainable, training_set, untrained

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.data.audit_data import AuditData
    from auditor.model.audited_model import AuditedModel


class Reweighing:
    """Trains the same network anew on rows weighted by ``w(s, y) = P(s) P(y) / P(s, y)``.

    s is the row's combination of sensitive features. Weighted so, label and group are independent in the training
    rows; the weights average 1. Nothing is promised of the decisions: the audit tells.

    Raises ModelError for a model that cannot be trained anew, DataError where a group has rows of one label only.

    Source: Kamiran and Calders, Knowledge and Information Systems 33 (2012).
    """

    name: ClassVar[str] = "reweighing"
    pillar: ClassVar[Pillar] = "fairness"
    goal: ClassVar[str] = "Make label and group independent in what is learned from"
    citation: ClassVar[str] = "Kamiran and Calders, Knowledge and Information Systems 33 (2012)"
    methods: ClassVar[tuple[str, ...]] = ("reweighing",)
    stage: ClassVar[Stage] = "pre-processing"
    needs: ClassVar[str] = "a bundle with its recipe; training rows with labels and sensitive features"
    experience: ClassVar[Experience | None] = EXPERIENCE.get("reweighing")

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """A new model of the same architecture, by the same recipe, on the weighted rows."""
        import torch
        from torch.nn.functional import cross_entropy

        from auditor.training.loop import PlainStep, optimizer_of

        old = trainable(model)
        assert old.recipe is not None
        rows = training_set(old, data, training.device, groups=True)
        weights = reweighing_weights(rows.y.cpu().numpy(), rows.s.cpu().numpy())
        new = untrained(old, rng, training.device, old.recipe)
        w = torch.from_numpy(weights.astype(np.float32)).to(rows.x.device)

        def loss(batch: Sequence[Tensor]) -> Tensor:
            x, y, weight = batch
            return (weight * cross_entropy(new.logits(x), y, reduction="none")).mean()

        step = PlainStep(new.module, optimizer_of(old.recipe, list(new.module.parameters())), loss)
        run(step, (rows.x, rows.y, w), old.recipe, rng, training, fingerprint={"mitigation": self.name})
        refuse_one_class(new, old, data.take(rows.rows), instead="train the old model for more epochs")
        return Mitigated(
            model=new,
            notes=(f"Weights of {len(rows):,} training rows from {weights.min():.3f} to {weights.max():.3f}, mean 1.",),
        )


def reweighing_weights(y: IntArray, s: IntArray) -> FloatArray:
    """(n,) ``P(s) P(y) / P(s, y)`` of labels y (n,) and sensitive features s (n, k), taken together; mean 1."""
    _, group = np.unique(s, axis=0, return_inverse=True)
    joint = np.zeros((int(group.max()) + 1, int(y.max()) + 1))
    np.add.at(joint, (group, y), 1.0)
    expected = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True) / len(y)
    weights: FloatArray = (expected / np.maximum(joint, 1.0))[group, y]
    return weights
