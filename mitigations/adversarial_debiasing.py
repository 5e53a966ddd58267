"""Adversarial debiasing: a network trained so that an adversary cannot tell the group from its answers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import numpy as np

from auditor.errors import UsageError
from auditor.finding import Pillar
from auditor.mitigation import Mitigated, Stage, Training
from mitigations.retraining import TrainingSet, run, trainable, training_set, untrained

if TYPE_CHECKING:
    from auditor.data import AuditData
    from auditor.model import AuditedModel, Recipe, TorchModel
    from mitigations.adversarial_step import AdversarialStep

Constraint = Literal["demographic_parity", "equalized_odds", "equal_opportunity"]
_ADVERSARY_RATE = 0.05
_FEWEST_EPOCHS = 60


class AdversarialDebiasing:
    """Trains the same network anew against an adversary that predicts the group from the network's answers.

    With predictor loss L_P, adversary loss L_A and the predictor's parameters W, each step moves W along
    ``grad L_P - proj(grad L_P on grad L_A) - alpha grad L_A``: the part of the gradient that helps the adversary is
    taken away, and what hurts it is added; both gradients are one flat vector of all parameters. (The gradient-reversal
    cousin of this method leaves the projection out.) The adversary is linear, and sees

    - ``demographic_parity``: the probabilities q
    - ``equalized_odds``: ``[q, q y, q (1 - y), y]``, for more than two classes q and its products with one-hot y
    - ``equal_opportunity``: q, on rows with the favourable label only

    For two classes ``q = sigmoid((1 + |c|) z)`` with the logit z and a learned sharpness c, as in the paper. Both
    losses are balanced over the cells of group and label (for demographic parity: of groups), so that a small group is
    worth as much as a large one. The adversary takes ``adversary_steps`` steps to each of the predictor's. Each
    sensitive feature has an adversary of its own, and their losses add up.

    constraint: as above. alpha: at least 0, the weight of the adversary. warm_up: share of the epochs, in [0, 1), in
    which the predictor learns undisturbed and the adversary learns from it. epochs: None means those of the recipe, 60
    at least, since two networks take longer than one. The other settings are the recipe's.

    Raises ModelError for a model that cannot be trained anew; DataError where a sensitive feature has one group, or a
    group's rows one label; UsageError where equal opportunity has no favourable label.

    Source: Zhang, Lemoine and Mitchell, AIES 2018.
    """

    name: ClassVar[str] = "adversarial_debiasing"
    pillar: ClassVar[Pillar] = "fairness"
    goal: ClassVar[str] = "Train so that the answers do not give the group away"
    citation: ClassVar[str] = "Zhang, Lemoine and Mitchell, AIES 2018"
    methods: ClassVar[tuple[str, ...]] = ("demographic_parity", "equalized_odds", "equal_opportunity")
    stage: ClassVar[Stage] = "in-processing"
    needs: ClassVar[str] = "a bundle with its recipe; training rows with labels and sensitive features"

    def __init__(
        self,
        *,
        constraint: Constraint = "equalized_odds",
        alpha: float = 1.0,
        warm_up: float = 0.2,
        adversary_steps: int = 3,
        adversary_learning_rate: float = _ADVERSARY_RATE,
        epochs: int | None = None,
    ) -> None:
        if constraint not in get_args(Constraint):
            raise ValueError(f"constraint must be one of {', '.join(get_args(Constraint))}, not {constraint!r}")
        if not (alpha >= 0.0 and np.isfinite(alpha)):
            raise ValueError(f"alpha must be a number of at least 0, not {alpha!r}")
        if not 0.0 <= warm_up < 1.0:
            raise ValueError(f"warm_up must lie in [0, 1), not {warm_up!r}")
        if adversary_steps < 1 or (epochs is not None and epochs < 1):
            raise ValueError("adversary_steps and epochs must be at least 1")
        if not adversary_learning_rate > 0.0:
            raise ValueError(f"adversary_learning_rate must be positive, not {adversary_learning_rate!r}")
        self.constraint: Constraint = constraint
        self.alpha = alpha
        self.warm_up = warm_up
        self.adversary_steps = adversary_steps
        self.adversary_learning_rate = adversary_learning_rate
        self.epochs = epochs

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """A new model of the same architecture, trained against the adversary on the labelled rows."""
        old = trainable(model)
        assert old.recipe is not None
        rows = training_set(old, data, training.device, groups=True)
        if self.constraint == "equal_opportunity" and rows.positive is None:
            raise UsageError("Equal opportunity is about the favourable label: add --positive LABEL.")
        epochs = self.epochs or max(old.recipe.epochs, _FEWEST_EPOCHS)
        recipe = replace(old.recipe, epochs=epochs)
        new = untrained(old, rng, training.device, recipe)
        step = self.step(new, rows, recipe)
        history = run(
            step,
            (rows.x, rows.y, rows.s, step.weights),
            recipe,
            rng,
            training,
            fingerprint={"mitigation": self.name, "options": sorted(vars(self).items())},
        )
        return Mitigated(
            model=new,
            notes=(
                f"Adversarial debiasing for {self.constraint} of {', '.join(rows.features)}: alpha {self.alpha:g}, "
                f"{len(history.losses)} epochs on {len(rows):,} rows, {self.adversary_steps} adversary steps to one.",
            ),
        )

    def step(self, new: TorchModel, rows: TrainingSet, recipe: Recipe) -> AdversarialStep:
        """One step of both networks, for these rows; a training loop of one's own can call it."""
        from auditor.loop import optimizer_of
        from mitigations.adversarial_step import AdversarialStep

        n_batches = -(-len(rows) // recipe.batch_size)
        return AdversarialStep(
            new,
            rows,
            optimizer_of(recipe, list(new.module.parameters())),
            constraint=self.constraint,
            alpha=self.alpha,
            quiet_steps=int(self.warm_up * recipe.epochs * n_batches),
            adversary_steps=self.adversary_steps,
            adversary_learning_rate=self.adversary_learning_rate,
        )
