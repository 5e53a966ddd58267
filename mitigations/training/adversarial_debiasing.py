"""Adversarial debiasing: training with an adversary that must fail to predict the group from the answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.optim import Optimizer

from auditor.core.errors import DataError, UsageError
from auditor.run.mitigation import BaseMitigation, Mitigated, Training
from auditor.training.multi_device import Summing, as_they_are
from mitigations.selection_guide import MeasuredExperience
from mitigations.training.retraining import AlphaSchedule, Constraint, TrainingSet, refuse_one_class, run, training_set
from mitigations.training.training_steps import Tuning, begin, recipe_for, trainable_from_somewhere

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel, Recipe
    from auditor.models.torch_model import TorchModel


def mean_gap(q: Tensor, y: Tensor, s: Tensor, constraint: Constraint, positive: int | None) -> Tensor:
    """The distance between groups' mean scores in a batch, a differentiable scalar of at least 0.

    ``|mean q of the group - mean q of all other rows|``, averaged over the groups that have rows and others to compare
    with, and summed over columns of q, over sensitive features, and over parts of the rows: all rows
    (``demographic_parity``), each label's (``equalized_odds``) or the favourable label's (``equal_opportunity``). Of
    two groups it is the gap between their means. A part with fewer than two groups adds nothing.

    q: (b, c) scores. y: (b,) labels. s: (b, k) groups of each of k features.
    """
    if constraint == "demographic_parity":
        part, n_parts = torch.zeros_like(y), 1
    elif constraint == "equalized_odds":
        part, n_parts = y, int(y.max()) + 1
    else:
        # The second part is not looked at: these rows are not to be compared.
        part, n_parts = y.ne(-1 if positive is None else positive).long(), 2
    total = q.new_zeros(())
    for j in range(s.shape[1]):
        n_groups = int(s[:, j].max()) + 1
        cell = s[:, j] * n_parts + part
        sums = q.new_zeros(n_groups * n_parts, q.shape[1]).index_add(0, cell, q).view(n_groups, n_parts, -1)
        counts = torch.bincount(cell, minlength=n_groups * n_parts).view(n_groups, n_parts, 1).to(q.dtype)
        others = counts.sum(dim=0) - counts
        gap = (sums / counts.clamp_min(1) - (sums.sum(dim=0) - sums) / others.clamp_min(1)).abs()
        compared = (counts > 0) & (others > 0)
        gaps = (gap * compared).sum(dim=0) / compared.sum(dim=0).clamp_min(1)
        total = total + (gaps[:1] if constraint == "equal_opportunity" else gaps).sum()
    return total


@dataclass(frozen=True, kw_only=True)
class Pressure:
    """The strength and schedule of the adversary; the first three are options of AdversarialDebiasing.

    ``quiet_steps``: the predictor's first steps, which nothing disturbs. ``steps``: all of its steps.
    ``steps_per_epoch``: what the schedule ``sqrt`` counts time in.
    """

    alpha: float
    alpha_schedule: AlphaSchedule = "constant"
    gap_weight: float = 0.0
    quiet_steps: int = 0
    steps: int = 1
    steps_per_epoch: int = 1

    def quiet(self, step: int) -> bool:
        """Whether the predictor's step, counted from 1, is one of the first, undisturbed ones."""
        return step <= self.quiet_steps

    def alpha_at(self, step: int) -> float:
        """The adversary's weight at this step."""
        if self.quiet(step):
            return 0.0
        if self.alpha_schedule == "linear":
            return self.alpha * self._progress(step + 1)
        if self.alpha_schedule == "sqrt":
            return self.alpha * math.sqrt(self._epoch(step))
        return self.alpha

    def rate_at(self, step: int) -> float:
        """The learning rate's factor at this step: 1 while quiet, then decreasing."""
        if self.quiet(step):
            return 1.0
        if self.alpha_schedule == "sqrt":
            return 1.0 / self._epoch(step)
        return 0.5 * (1.0 + math.cos(math.pi * self._progress(step)))

    def _progress(self, step: int) -> float:
        return min(1.0, (step - 1 - self.quiet_steps) / max(1, self.steps - self.quiet_steps))

    def _epoch(self, step: int) -> int:
        return 1 + (step - 1 - self.quiet_steps) // self.steps_per_epoch


@dataclass(frozen=True, eq=False)
class AdversarysBatch:
    """The adversary's inputs from a batch beside the scores, and its targets.

    ``parts``: (b, m, 1) which rows count in each of m copies of the scores: all, and for equalized odds each label's.
    ``label``: (b, l) what it sees of the label. ``groups``: (b, n_groups) one-hot, for each feature. ``shares``: (b, k)
    the rows' weights in each feature's loss, 0 for rows that are not shown, summing to 1 where there are any.
    """

    parts: Tensor
    label: Tensor
    groups: Sequence[Tensor]
    shares: Tensor

    def of_scores(self, q: Tensor) -> Tensor:
        """(b, m c) the part of the input that is linear in scores q (b, c)."""
        return (self.parts * q.unsqueeze(1)).flatten(1)

    def inputs(self, q: Tensor) -> Tensor:
        """(b, m c + l) the complete input."""
        return torch.cat([self.of_scores(q), self.label], dim=1)


class Adversary(nn.Module):
    """A linear head of group logits for each sensitive feature, begun at zero, and the sharpness c that they share.

    ``steps``: how many steps the predictor has taken, kept with the weights so that a resumed run knows.
    """

    def __init__(
        self, n_classes: int, levels: Sequence[int], constraint: Constraint, positive: int | None = None
    ) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.constraint = constraint
        self.positive = positive
        width = 1 if n_classes == 2 else n_classes
        if constraint == "equalized_odds":
            width = 4 if n_classes == 2 else width * (1 + n_classes) + n_classes
        self.heads = nn.ModuleList()
        for n in levels:
            # Begun at zero, so that nothing is drawn from the global generator.
            head = nn.utils.skip_init(nn.Linear, width, n)  # type: ignore[no-untyped-call]
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
            self.heads.append(head)
        # Not 0, where the gradient of |c| is 0 and c would stay.
        self.sharpness = nn.Parameter(torch.ones(()))
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def batch(self, y: Tensor, s: Tensor, weights: Tensor, dtype: torch.dtype) -> AdversarysBatch:
        """A batch as input of the heads. y: (b,). s: (b, k). weights: (b, k).

        y: (b,). s: (b, k). weights: (b, k).
        """
        whole = torch.ones(len(y), 1, dtype=dtype, device=y.device)
        if self.constraint == "equal_opportunity":
            weights = weights * y.eq(-1 if self.positive is None else self.positive).unsqueeze(1)
        parts, label = whole, whole[:, :0]
        if self.constraint == "equalized_odds":
            labels = one_hot(y, self.n_classes).to(dtype)
            label = labels if self.n_classes > 2 else labels[:, 1:]
            parts = torch.cat([whole, labels if self.n_classes > 2 else labels.flip(1)], dim=1)
        return AdversarysBatch(
            parts=parts.unsqueeze(2),
            label=label,
            groups=[one_hot(s[:, j], head.out_features).to(dtype) for j, head in enumerate(self.heads)],  # type: ignore[arg-type]
            shares=(weights / weights.sum(dim=0).clamp_min(1e-12)).to(dtype),
        )

    def loss(self, logits: Tensor, batch: AdversarysBatch) -> Tensor:
        """The heads' summed cross-entropy, each a weighted mean over its rows.

        logits: (b, n_classes) of the predictor.
        """
        inputs = batch.inputs(scores(logits, 1.0 + self.sharpness.abs()))
        total = logits.new_zeros(())
        for j, head in enumerate(self.heads):
            total = total + (batch.shares[:, j] * cross_entropy(head(inputs), batch.groups[j], reduction="none")).sum()
        return total

    @torch.no_grad()
    def backward(self, logits: Tensor, batch: AdversarysBatch) -> None:
        """Set the gradients of the loss for the adversary's own parameters, in closed form.

        The heads are linear, and their gradients are sooner written down than found, three times to each step of the
        predictor.
        """
        q = scores(logits, 1.0 + self.sharpness.abs())
        if logits.shape[1] == 2:
            slope = q * (1.0 - q) * (logits[:, 1:] - logits[:, :1])
        else:
            slope = q * (logits - (q * logits).sum(dim=1, keepdim=True))
        inputs, change = batch.inputs(q), batch.of_scores(slope)
        of_c = logits.new_zeros(())
        for j, head in enumerate(self.heads):
            wrong = (torch.softmax(head(inputs), dim=1) - batch.groups[j]) * batch.shares[:, j : j + 1]
            head.weight.grad = wrong.T @ inputs
            head.bias.grad = wrong.sum(dim=0)
            # The inputs after those are the label's alone, and do not change with c.
            reading = head.weight[:, : change.shape[1]]  # type: ignore[index]
            of_c += (wrong * nn.functional.linear(change, reading)).sum()
        self.sharpness.grad = of_c * self.sharpness.sign()


class AdversarialStep:
    """One step of predictor and adversary; ``weights`` (n, k): the rows' weights in each feature's head's loss."""

    def __init__(
        self,
        model: TorchModel,
        rows: TrainingSet,
        optimizer: Optimizer,
        *,
        constraint: Constraint,
        pressure: Pressure,
        adversary_steps: int,
        adversary_learning_rate: float,
    ) -> None:
        self.model = model
        self.constraint = constraint
        self.pressure = pressure
        self.adversary_steps = adversary_steps
        self.positive = rows.positive
        self.weights = balanced_weights(rows.y, rows.s, by_label=constraint != "demographic_parity")
        levels = [len(names) for names in rows.levels]
        self.adversary = Adversary(model.n_outputs, levels, constraint, rows.positive).to(rows.y.device)
        self.modules: Sequence[nn.Module] = (model.module, self.adversary)
        self.optimizers: Sequence[Optimizer] = (
            optimizer,
            torch.optim.Adam(self.adversary.parameters(), lr=adversary_learning_rate, fused=True),
        )
        self.summed: Summing = as_they_are
        self._rates = [group["lr"] for group in optimizer.param_groups]

    def __call__(self, batch: Sequence[Tensor]) -> Tensor:
        """The adversary's steps, then the predictor's; returns the predictor's loss, without any penalty."""
        x, y, s, weights = batch
        pressure = self.pressure
        self.adversary.steps += 1
        step = int(self.adversary.steps)
        alpha = pressure.alpha_at(step)
        for group, rate in zip(self.optimizers[0].param_groups, self._rates, strict=True):
            group["lr"] = rate * pressure.rate_at(step)
        logits = self.model.logits(x)
        shown = self.adversary.batch(y, s, weights, logits.dtype)
        if pressure.alpha > 0.0:
            seen = logits.detach()
            for _ in range(self.adversary_steps):
                self.adversary.backward(seen, shown)
                self.optimizers[1].step()
        loss = wanted = cross_entropy(logits, y)
        if pressure.gap_weight > 0.0 and not pressure.quiet(step):
            q = scores(logits, 1.0)
            wanted = loss + pressure.gap_weight * mean_gap(q, y, s, self.constraint, self.positive)
        parameters = [p for p in self.model.module.parameters() if p.requires_grad]
        own = torch.autograd.grad(wanted, parameters, retain_graph=alpha > 0.0, allow_unused=True)
        against: tuple[Tensor | None, ...] = ()
        if alpha > 0.0:
            against = torch.autograd.grad(self.adversary.loss(logits, shown), parameters, allow_unused=True)
        # Before the projection, which is not linear in them.
        gradients = self.summed([*own, *against])
        if alpha > 0.0:
            gradients = debiased(gradients[: len(own)], gradients[len(own) :], alpha)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizers[0].step()
        return loss.detach()


def debiased(
    gradients: Sequence[Tensor | None], against: Sequence[Tensor | None], alpha: float
) -> tuple[Tensor | None, ...]:
    """``g - proj(g on a) - alpha a`` of the predictor's gradient g and the adversary's a, each one flat vector.

    A parameter that one of the losses does not reach has zeros there. Where a is zero there is nothing to project on.
    """
    pairs = list(zip(gradients, against, strict=True))
    inner = sum((g * a).sum() for g, a in pairs if g is not None and a is not None)
    square = sum(a.square().sum() for _, a in pairs if a is not None)
    share = inner / torch.as_tensor(square).clamp_min(torch.finfo(torch.float32).tiny) if pairs else 0.0

    def correct_gradient(g: Tensor | None, a: Tensor | None) -> Tensor | None:
        if a is None:
            return g
        correction = (share + alpha) * a
        return -correction if g is None else g - correction

    return tuple(correct_gradient(g, a) for g, a in pairs)


def balanced_weights(y: Tensor, s: Tensor, *, by_label: bool) -> Tensor:
    """(n, k) weights under which every cell of group (and label) of each of k features weighs the same; mean 1."""
    columns = []
    for j in range(s.shape[1]):
        cell = s[:, j] * (int(y.max()) + 1) + y if by_label else s[:, j]
        _, place, counts = torch.unique(cell, return_inverse=True, return_counts=True)
        columns.append(len(y) / (len(counts) * counts[place].float()))
    return torch.stack(columns, dim=1)


def scores(logits: Tensor, sharpness: Tensor | float) -> Tensor:
    """(b, 1) ``sigmoid(sharpness z)`` of two classes with the logit z, else (b, n_classes) the softmax likewise."""
    if logits.shape[1] == 2:
        return torch.sigmoid(sharpness * (logits[:, 1:] - logits[:, :1]))
    return torch.softmax(sharpness * logits, dim=1)


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
