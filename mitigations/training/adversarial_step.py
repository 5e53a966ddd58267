"""One step of adversarial debiasing: the adversary's gradient, and the projection against helping it.

The gap between groups' mean scores may be a penalty beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.optim import Optimizer

from auditor.training.multi_device import Summing, as_they_are
from mitigations.training.retraining import AlphaSchedule, Constraint, TrainingSet

if TYPE_CHECKING:
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
