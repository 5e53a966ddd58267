"""Group DRO: optimisation of the worst group instead of the average row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from auditor.run.mitigation import BaseMitigation, Mitigated, Training
from auditor.run.option_parsers import check_not_negative, check_positive
from mitigations.selection_guide import MeasuredExperience
from mitigations.training.retraining import refuse_one_class, run, training_set
from mitigations.training.starting_network import Tuning, begin, recipe_for, trainable_from_somewhere

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel


class GroupDro(BaseMitigation):
    """Train the network to minimise the largest mean loss of any group, by the paper's online algorithm.

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

    A bundle's own network is drawn anew and trained by its recipe; any other torch module, such as a transformers
    classifier, is fine-tuned from its own weights: epochs, batch_size, learning_rate: None means the recipe's, and
    without one 4, 32 and 5e-5. lora: rank of adapters, which are then learned with the head alone, at 5e-4.

    Raises ModelError for a model that cannot be trained, DataError where a group has one label.

    Source: Sagawa, Koh, Hashimoto and Liang, ICLR 2020, algorithm 1.
    """

    name = "group_dro"
    pillar = "fairness"
    goal = "Train for the worst group instead of the average row"
    citation = "Sagawa, Koh, Hashimoto and Liang, ICLR 2020"
    methods = ("group_dro",)
    stage = "in-processing"
    needs = "a bundle with its recipe, or a torch module; training rows with labels and groups"
    experience = MeasuredExperience()

    def __init__(
        self,
        *,
        eta: float = 0.01,
        adjustment: float = 0.0,
        by_label: bool = True,
        keep_labels: bool = True,
        weight_decay: float | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        lora: int | None = None,
    ) -> None:
        check_positive("eta", eta)
        check_not_negative("adjustment", adjustment)
        for name, value in (("by_label", by_label), ("keep_labels", keep_labels)):
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be true or false, not {value!r}")
        if weight_decay is not None and not (weight_decay >= 0.0 and np.isfinite(weight_decay)):
            raise ValueError(f"weight_decay must be a number of at least 0, not {weight_decay!r}")
        self.eta = eta
        self.adjustment = adjustment
        self.by_label = by_label
        self.keep_labels = keep_labels
        self.weight_decay = weight_decay
        self.tuning = Tuning(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, lora=lora)

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """A new model of the same architecture, trained for its worst group."""
        import torch

        from mitigations.training.training_steps import GroupDroStep, GroupWeights

        old = trainable_from_somewhere(model)
        rows = training_set(old, data, training.device, groups=True)
        recipe = recipe_for(old, self.tuning)
        if self.weight_decay is not None:
            recipe = replace(recipe, weight_decay=self.weight_decay)
        columns = torch.column_stack([rows.s, rows.y]) if self.by_label else rows.s
        cells, group, n_g = torch.unique(columns, dim=0, return_inverse=True, return_counts=True)
        kept = self.by_label and self.keep_labels
        family = torch.unique(cells[:, -1], return_inverse=True)[1] if kept else torch.zeros_like(cells[:, 0])
        held = torch.bincount(family, weights=n_g.float())
        begun = begin(old, recipe, rng, training.device, lora=self.tuning.lora)
        step = GroupDroStep(
            begun.new,
            begun.optimizer(),
            eta=self.eta,
            adjustments=self.adjustment / n_g.float().sqrt(),
            weights=GroupWeights(family, held / held.sum()),
        )
        prints: dict[str, object] = {"mitigation": self.name, "options": sorted(vars(self).items())}
        run(begun.step(step, len(rows)), (rows.x, rows.y, group), recipe, rng, training, fingerprint=prints)
        new = begun.finished()
        refuse_one_class(new, old, data.take(rows.rows), instead="give a smaller --with eta, or more epochs")
        q = step.weights.q.cpu().numpy()
        names = [self._name(cell, rows.levels, old.classes) for cell in cells.tolist()]
        heaviest: Sequence[int] = np.argsort(-q)[:5].tolist()
        said = ", ".join(f"{names[i]}: {q[i]:.3f} ({int(n_g[i]):,} rows)" for i in heaviest)
        return Mitigated(model=new, notes=(f"Group DRO over {len(q)} groups; final weights, heaviest first: {said}.",))

    def _name(self, cell: list[int], levels: tuple[tuple[str, ...], ...], classes: tuple[str, ...]) -> str:
        words = [names[code] for names, code in zip(levels, cell, strict=False)]
        return " x ".join([*words, f"label {classes[cell[-1]]}"] if self.by_label else words)
