"""Adversarial debiasing: training with an adversary that must fail to predict the group from the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np

from auditor.core.errors import DataError, UsageError
from auditor.run.mitigation import BaseMitigation, Mitigated, Training
from mitigations.selection_guide import MeasuredExperience
from mitigations.training.retraining import AlphaSchedule, Constraint, TrainingSet, refuse_one_class, run, training_set
from mitigations.training.starting_network import Tuning, begin, recipe_for, trainable_from_somewhere

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel, Recipe
    from auditor.models.torch_model import TorchModel
    from mitigations.training.adversarial_step import AdversarialStep


_ADVERSARY_RATE = 0.05
_FEWEST_EPOCHS = 60


class AdversarialDebiasing(BaseMitigation):
    """Train a network against an adversary that predicts the group from its answers, with or without a gap penalty.

    With predictor loss L_P, adversary loss L_A and the predictor's parameters W, each step moves W along
    ``grad L_P - proj(grad L_P on grad L_A) - alpha grad L_A``: the part of the gradient that helps the adversary is
    taken away, and what hurts it is added; both gradients are one flat vector of all parameters. (The gradient-reversal
    cousin of this method leaves the projection out.) The adversary is linear, and sees

    - ``demographic_parity``: the probabilities q
    - ``equalized_odds``: ``[q, q y, q (1 - y), y]``, for more than two classes q and its products with one-hot y
    - ``equal_opportunity``: q, on rows with the favourable label only

    For two classes ``q = sigmoid((1 + |c|) z)`` with the logit z and a learned sharpness c, as in the paper. L_A is
    balanced over the cells of group and label (for demographic parity: of groups), so that a small group is worth as
    much as a large one. The adversary takes ``adversary_steps`` steps to each of the predictor's. Each sensitive
    feature has an adversary of its own, and their losses add up.

    With ``gap_weight``, L_P is cross-entropy plus gap_weight times the gap between the groups' mean scores in the batch
    (``mean_gap``), over all rows, over each label's, or over the favourable label's, as the constraint says.

    constraint: as above. adversary_learning_rate: of the adversary's own optimiser. alpha: at least 0, the weight of
    the adversary; at 0 there is none. alpha_schedule, of t counted from the end of the warm-up: ``constant``;
    ``linear``, from 0 to alpha over the rest of the steps; ``sqrt``, the paper's ``alpha sqrt(t)`` with the learning
    rate ``eta / t``, t in epochs. With the other two the learning rate falls by half a cosine to 0, since two opponents
    circle each other for ever at a constant one. gap_weight: at least 0. warm_up: share of the epochs, in [0, 1), in
    which the predictor learns undisturbed and the adversary learns from it. epochs, batch_size, learning_rate: None
    means the recipe's, but at least 60 epochs, since two networks take longer than one.

    The network is drawn anew where its architecture is one that bundles name and its recipe is known. Any other torch
    module, such as a transformers classifier, is fine-tuned from its own weights, by its recipe or without one by
    AdamW, for 4 epochs of batches of 32 at a learning rate of 5e-5. lora: rank of adapters, which are then learned with
    the head alone, at 5e-4.

    Raises ModelError for a model that cannot be trained; DataError where a sensitive feature has one group, or a
    group's rows one label, or none of the favourable one for equal opportunity; UsageError where equal opportunity has
    no favourable label.

    Source: Zhang, Lemoine and Mitchell, AIES 2018.
    """

    name = "adversarial_debiasing"
    pillar = "fairness"
    goal = "Train so that the answers do not give the group away"
    citation = "Zhang, Lemoine and Mitchell, AIES 2018"
    methods = ("demographic_parity", "equalized_odds", "equal_opportunity")
    stage = "in-processing"
    needs = "a bundle with its recipe, or a torch module; training rows with labels and groups"
    experience = MeasuredExperience()

    def __init__(
        self,
        *,
        constraint: Constraint = "equalized_odds",
        alpha: float = 1.0,
        alpha_schedule: AlphaSchedule = "constant",
        gap_weight: float = 0.0,
        warm_up: float = 0.2,
        adversary_steps: int = 3,
        adversary_learning_rate: float = _ADVERSARY_RATE,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        lora: int | None = None,
    ) -> None:
        if constraint not in get_args(Constraint):
            raise ValueError(f"constraint must be one of {', '.join(get_args(Constraint))}, not {constraint!r}")
        if alpha_schedule not in get_args(AlphaSchedule):
            raise ValueError(f"alpha_schedule must be one of {', '.join(get_args(AlphaSchedule))}")
        for name, value in (("alpha", alpha), ("gap_weight", gap_weight)):
            if not (value >= 0.0 and np.isfinite(value)):
                raise ValueError(f"{name} must be a number of at least 0, not {value!r}")
        if not 0.0 <= warm_up < 1.0:
            raise ValueError(f"warm_up must lie in [0, 1), not {warm_up!r}")
        if adversary_steps < 1:
            raise ValueError("adversary_steps must be at least 1")
        if not (adversary_learning_rate > 0.0 and np.isfinite(adversary_learning_rate)):
            raise ValueError(f"adversary_learning_rate must be a positive number, not {adversary_learning_rate!r}")
        self.constraint: Constraint = constraint
        self.alpha = alpha
        self.alpha_schedule: AlphaSchedule = alpha_schedule
        self.gap_weight = gap_weight
        self.warm_up = warm_up
        self.adversary_steps = adversary_steps
        self.adversary_learning_rate = adversary_learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.lora = lora
        self.tuning = Tuning(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, lora=lora)

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """A new model of the same architecture, trained against the adversary on the labelled rows."""
        old = trainable_from_somewhere(model)
        rows = training_set(old, data, training.device, groups=True)
        if self.constraint == "equal_opportunity":
            _check_favourable(rows)
        recipe = recipe_for(old, self.tuning, fewest_epochs=_FEWEST_EPOCHS)
        begun = begin(old, recipe, rng, training.device, lora=self.lora)
        step = self.step(begun.new, rows, recipe)
        history = run(
            step,
            (rows.x, rows.y, rows.s, step.weights),
            recipe,
            rng,
            training,
            fingerprint={"mitigation": self.name, "options": sorted(vars(self).items()), "epochs": recipe.epochs},
        )
        new = begun.finished()
        refuse_one_class(new, old, data.take(rows.rows), instead="give a smaller alpha or gap_weight")
        return Mitigated(
            model=new,
            notes=(
                f"Adversarial debiasing for {self.constraint} of {', '.join(rows.features)}: alpha {self.alpha:g} "
                f"({self.alpha_schedule}), gap weight {self.gap_weight:g}, {begun.training_text} for "
                f"{len(history.losses)} "
                f"epochs on {len(rows):,} rows, {self.adversary_steps} adversary steps to one.",
            ),
        )

    def step(self, new: TorchModel, rows: TrainingSet, recipe: Recipe) -> AdversarialStep:
        """One step of both networks, for these rows; a user's own training loop can call it."""
        from auditor.training.training_loop import optimizer_of
        from mitigations.training.adversarial_step import AdversarialStep, Pressure

        n_batches = -(-len(rows) // recipe.batch_size)
        return AdversarialStep(
            new,
            rows,
            optimizer_of(recipe, [p for p in new.module.parameters() if p.requires_grad]),
            constraint=self.constraint,
            pressure=Pressure(
                alpha=self.alpha,
                alpha_schedule=self.alpha_schedule,
                gap_weight=self.gap_weight,
                quiet_steps=int(self.warm_up * recipe.epochs * n_batches),
                steps=recipe.epochs * n_batches,
                steps_per_epoch=n_batches,
            ),
            adversary_steps=self.adversary_steps,
            adversary_learning_rate=self.adversary_learning_rate,
        )


def _check_favourable(rows: TrainingSet) -> None:
    if rows.positive is None:
        raise UsageError("Equal opportunity is about the favourable label: add --positive LABEL.")
    favourable = rows.s[rows.y == rows.positive]
    for j, (feature, names) in enumerate(zip(rows.features, rows.levels, strict=True)):
        for g, name in enumerate(names):
            if not bool((favourable[:, j] == g).any()):
                raise DataError(
                    f"No training row of {feature} = {name} has the favourable label, so its true positive rate is "
                    "unknown: merge it with another group, or add rows."
                )
