"""Group DRO: training for the worst group instead of the average row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from auditor.finding.measurement import Pillar
from auditor.run.mitigation import Experience, Mitigated, Stage, Training
from mitigations.experience import EXPERIENCE
from mitigations.training.one_class import refuse_one_class
from mitigations.training.retraining import run, trainable, training_set, untrained

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.model.audited_model import AuditedModel


class GroupDro:
    """Trains the same network anew to minimise the largest mean loss of any group, by the paper's online algorithm.

    With L_g the mean loss of group g in the batch, each step first moves the groups' weights, ``q_g <- q_g exp(eta
    (L_g + C / sqrt(n_g)))``, scaled to sum 1, then takes a gradient step on ``sum_g q_g L_g``. Groups are the cells of
    all sensitive features and the label (without ``by_label``: of the features alone); n_g are their training rows.
    Every batch has the same expected share of each group. The paper finds that strong regularisation is needed where
    the network can fit every row: give ``weight_decay``.

    Beyond the paper: with ``keep_labels`` weights move between the groups of one label only, and the weights of each
    label sum to its share of the rows, so that it is ``sum_y P(y) max_g L_(g,y)`` that is minimised. Over all cells at
    once the worst is most often a rare label, whatever the group, and the network is trained for balanced accuracy at
    the price of accuracy, which is no matter of groups.

    eta: step size of the weights, above 0. adjustment: C, at least 0. weight_decay: None means the recipe's.

    Raises ModelError for a model that cannot be trained anew, DataError where a group has one label.

    Source: Sagawa, Koh, Hashimoto and Liang, ICLR 2020, algorithm 1.
    """

    name: ClassVar[str] = "group_dro"
    pillar: ClassVar[Pillar] = "fairness"
    goal: ClassVar[str] = "Train for the worst group instead of the average row"
    citation: ClassVar[str] = "Sagawa, Koh, Hashimoto and Liang, ICLR 2020"
    methods: ClassVar[tuple[str, ...]] = ("group_dro",)
    stage: ClassVar[Stage] = "in-processing"
    needs: ClassVar[str] = "a bundle with its recipe; training rows with labels and sensitive features"
    experience: ClassVar[Experience | None] = EXPERIENCE.get("group_dro")

    def __init__(
        self,
        *,
        eta: float = 0.01,
        adjustment: float = 0.0,
        by_label: bool = True,
        keep_labels: bool = True,
        weight_decay: float | None = None,
        epochs: int | None = None,
    ) -> None:
        if not (eta > 0.0 and np.isfinite(eta)):
            raise ValueError(f"eta must be a positive number, not {eta!r}")
        if not (adjustment >= 0.0 and np.isfinite(adjustment)):
            raise ValueError(f"adjustment must be a number of at least 0, not {adjustment!r}")
        for name, value in (("by_label", by_label), ("keep_labels", keep_labels)):
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be true or false, not {value!r}")
        if weight_decay is not None and not (weight_decay >= 0.0 and np.isfinite(weight_decay)):
            raise ValueError(f"weight_decay must be a number of at least 0, not {weight_decay!r}")
        if epochs is not None and epochs < 1:
            raise ValueError("epochs must be at least 1")
        self.eta = eta
        self.adjustment = adjustment
        self.by_label = by_label
        self.keep_labels = keep_labels
        self.weight_decay = weight_decay
        self.epochs = epochs

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """A new model of the same architecture, trained for its worst group."""
        import torch

        from auditor.training.loop import optimizer_of
        from mitigations.training.group_dro_step import GroupDroStep, GroupWeights

        old = trainable(model)
        assert old.recipe is not None
        rows = training_set(old, data, training.device, groups=True)
        decay = old.recipe.weight_decay if self.weight_decay is None else self.weight_decay
        recipe = replace(old.recipe, epochs=self.epochs or old.recipe.epochs, weight_decay=decay)
        columns = torch.column_stack([rows.s, rows.y]) if self.by_label else rows.s
        cells, group, n_g = torch.unique(columns, dim=0, return_inverse=True, return_counts=True)
        kept = self.by_label and self.keep_labels
        family = torch.unique(cells[:, -1], return_inverse=True)[1] if kept else torch.zeros_like(cells[:, 0])
        held = torch.bincount(family, weights=n_g.float())
        new = untrained(old, rng, training.device, recipe)
        step = GroupDroStep(
            new,
            optimizer_of(recipe, list(new.module.parameters())),
            eta=self.eta,
            adjustments=self.adjustment / n_g.float().sqrt(),
            weights=GroupWeights(family, held / held.sum()),
        )
        prints: dict[str, object] = {"mitigation": self.name, "options": sorted(vars(self).items())}
        run(step, (rows.x, rows.y, group), recipe, rng, training, fingerprint=prints)
        refuse_one_class(new, old, data.take(rows.rows), instead="give a smaller --with eta, or more epochs")
        q = step.weights.q.cpu().numpy()
        names = [self._name(cell, rows.levels, old.classes) for cell in cells.tolist()]
        heaviest: Sequence[int] = np.argsort(-q)[:5].tolist()
        said = ", ".join(f"{names[i]}: {q[i]:.3f} ({int(n_g[i]):,} rows)" for i in heaviest)
        return Mitigated(model=new, notes=(f"Group DRO over {len(q)} groups; final weights, heaviest first: {said}.",))

    def _name(self, cell: list[int], levels: tuple[tuple[str, ...], ...], classes: tuple[str, ...]) -> str:
        words = [names[code] for names, code in zip(levels, cell, strict=False)]
        return " x ".join([*words, f"label {classes[cell[-1]]}"] if self.by_label else words)
