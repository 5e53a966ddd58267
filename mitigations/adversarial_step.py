"""One step of adversarial debiasing: the adversary's gradient, and the projection that keeps from helping it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.optim import Optimizer

if TYPE_CHECKING:
    from auditor.model import TorchModel
    from mitigations.adversarial_debiasing import Constraint
    from mitigations.retraining import TrainingSet


@dataclass(frozen=True)
class _Views:
    """What the adversary is shown of a batch: ``inputs`` (b, width) and, per row, whether it is shown at all (b,)."""

    inputs: Tensor
    shown: Tensor


class Adversary(nn.Module):
    """A linear head of group logits for each sensitive feature, begun at zero, and the sharpness c that they share.

    ``steps``: how many steps the predictor has taken, kept with the weights so that a resumed run knows.
    """

    def __init__(self, width: int, levels: Sequence[int]) -> None:
        super().__init__()
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


class AdversarialStep:
    """One step of predictor and adversary; ``weights`` (n, k): the rows' weights in the loss of each feature's head."""

    def __init__(
        self,
        model: TorchModel,
        rows: TrainingSet,
        optimizer: Optimizer,
        *,
        constraint: Constraint,
        alpha: float,
        quiet_steps: int,
        adversary_steps: int,
        adversary_learning_rate: float,
    ) -> None:
        self.model = model
        self.constraint = constraint
        self.alpha = alpha
        self.quiet_steps = quiet_steps
        self.adversary_steps = adversary_steps
        self.positive = rows.positive
        self.weights = balanced_weights(rows.y, rows.s, by_label=constraint != "demographic_parity")
        width = _width(model.n_outputs, constraint)
        self.adversary = Adversary(width, [len(names) for names in rows.levels]).to(rows.y.device)
        self.modules: Sequence[nn.Module] = (model.module, self.adversary)
        self.optimizers: Sequence[Optimizer] = (
            optimizer,
            torch.optim.Adam(self.adversary.parameters(), lr=adversary_learning_rate),
        )

    def __call__(self, batch: Sequence[Tensor]) -> Tensor:
        """The adversary's steps, then the predictor's; returns the predictor's loss."""
        x, y, s, weights = batch
        logits = self.model.logits(x)
        seen = logits.detach()
        for _ in range(self.adversary_steps):
            self.optimizers[1].zero_grad(set_to_none=True)
            self._adversary_loss(seen, y, s, weights).backward()  # type: ignore[no-untyped-call]
            self.optimizers[1].step()
        loss = self._predictor_loss(logits, y, weights)
        parameters = [p for p in self.model.module.parameters() if p.requires_grad]
        self.adversary.steps += 1
        gradients: Sequence[Tensor | None] = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        if int(self.adversary.steps) > self.quiet_steps and self.alpha > 0.0:
            against = torch.autograd.grad(self._adversary_loss(logits, y, s, weights), parameters, allow_unused=True)
            gradients = debiased(gradients, against, self.alpha)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizers[0].step()
        return loss.detach()

    def _predictor_loss(self, logits: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        losses = cross_entropy(logits, y, reduction="none")
        w = weights.mean(dim=1)
        return (w * losses).sum() / w.sum()

    def _adversary_loss(self, logits: Tensor, y: Tensor, s: Tensor, weights: Tensor) -> Tensor:
        adversary = self.adversary
        views = _views(logits, y, adversary.sharpness, self.constraint, self.positive)
        total = logits.new_zeros(())
        for j, head in enumerate(adversary.heads):
            weight = weights[:, j] * views.shown
            losses = cross_entropy(head(views.inputs), s[:, j], reduction="none")
            total = total + (weight * losses).sum() / weight.sum().clamp_min(1e-12)
        return total


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

    def one(g: Tensor | None, a: Tensor | None) -> Tensor | None:
        if a is None:
            return g
        correction = (share + alpha) * a
        return -correction if g is None else g - correction

    return tuple(one(g, a) for g, a in pairs)


def balanced_weights(y: Tensor, s: Tensor, *, by_label: bool) -> Tensor:
    """(n, k) weights under which every cell of group (and label) of each of k features weighs the same; mean 1."""
    columns = []
    for j in range(s.shape[1]):
        cell = s[:, j] * (int(y.max()) + 1) + y if by_label else s[:, j]
        _, place, counts = torch.unique(cell, return_inverse=True, return_counts=True)
        columns.append(len(y) / (len(counts) * counts[place].float()))
    return torch.stack(columns, dim=1)


def _width(n_outputs: int, constraint: Constraint) -> int:
    q = 1 if n_outputs == 2 else n_outputs
    if constraint != "equalized_odds":
        return q
    return 4 if n_outputs == 2 else q + q * n_outputs + n_outputs


def _views(logits: Tensor, y: Tensor, sharpness: Tensor, constraint: Constraint, positive: int | None) -> _Views:
    shown = torch.ones_like(y, dtype=logits.dtype)
    if logits.shape[1] == 2:
        q = torch.sigmoid((1.0 + sharpness.abs()) * (logits[:, 1:] - logits[:, :1]))
        label = y.unsqueeze(1).to(q.dtype)
        parts = [q, q * label, q * (1.0 - label), label]
    else:
        q = torch.softmax((1.0 + sharpness.abs()) * logits, dim=1)
        label = one_hot(y, logits.shape[1]).to(q.dtype)
        parts = [q, (q.unsqueeze(2) * label.unsqueeze(1)).flatten(1), label]
    if constraint == "equal_opportunity":
        shown = torch.eq(y, -1 if positive is None else positive).to(logits.dtype)
    return _Views(torch.cat(parts, dim=1) if constraint == "equalized_odds" else q, shown)
