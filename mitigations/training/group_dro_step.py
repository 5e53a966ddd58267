"""One step of group DRO: update of the group weights towards the worst group, then of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from auditor.training.multi_device import Summing, as_they_are
from auditor.training.training_loop import sum_gradients

if TYPE_CHECKING:
    from auditor.models.torch_model import TorchModel


class GroupWeights(nn.Module):
    """The weights q (groups,), summing to 1; a module, so that checkpoints contain them.

    ``family``: (groups,) which groups share a sum that stays, and ``sums``: (families,) those, summing to 1; the groups
    of one begin with equal weights.
    """

    def __init__(self, family: Tensor, sums: Tensor) -> None:
        super().__init__()
        self.family = family
        self.sums = sums
        self.q: Tensor
        self.register_buffer("q", scaled(torch.ones(len(family), dtype=sums.dtype, device=sums.device), family, sums))


class GroupDroStep:
    """A training step of group DRO; ``adjustments`` (groups,): added to each group's loss in weight updates.

    ``weights``: of groups, to begin with.
    """

    def __init__(
        self, model: TorchModel, optimizer: Optimizer, *, eta: float, adjustments: Tensor, weights: GroupWeights
    ) -> None:
        self.model = model
        self.eta = eta
        self.adjustments = adjustments
        self.weights = weights
        self.modules: Sequence[nn.Module] = (model.module, self.weights)
        self.optimizers: Sequence[Optimizer] = (optimizer,)
        self.summed: Summing = as_they_are

    def __call__(self, batch: Sequence[Tensor]) -> Tensor:
        """Moves the weights, then the network; returns the batch's weighted loss."""
        x, y, group = batch
        losses = cross_entropy(self.model.logits(x), y, reduction="none")
        means, present = group_means(losses, group, len(self.adjustments))
        raised = update_weights(self.weights.q, means.detach() + self.adjustments, present, self.eta)
        self.weights.q = scaled(raised, self.weights.family, self.weights.sums)
        loss = (self.weights.q * means).sum()
        self.optimizers[0].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        sum_gradients(self.model.module, self.summed)
        self.optimizers[0].step()
        return loss.detach()


def group_means(losses: Tensor, group: Tensor, n_groups: int) -> tuple[Tensor, Tensor]:
    """(groups,) mean loss of each group in the batch, 0 without rows, and whether it has rows."""
    counts = torch.bincount(group, minlength=n_groups)
    sums = losses.new_zeros(n_groups).index_add(0, group, losses)
    return sums / counts.clamp_min(1), counts > 0


def update_weights(q: Tensor, losses: Tensor, present: Tensor, eta: float) -> Tensor:
    """``q exp(eta loss)``, not scaled yet; unchanged for a group without rows in the batch."""
    return q * torch.exp(eta * torch.where(present, losses, torch.zeros_like(losses)))


def scaled(q: Tensor, family: Tensor, sums: Tensor) -> Tensor:
    """Weights (groups,) scaled to the ``sums`` (families,) of each family."""
    now = torch.zeros_like(sums).index_add(0, family, q)
    return q * (sums / now)[family]
