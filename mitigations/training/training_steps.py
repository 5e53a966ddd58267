"""Training steps of group DRO, of MinDiff, and of fine-tuning with a learning rate that decays to zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from auditor.core.rows import IntArray
from auditor.training.multi_device import Summing, as_they_are
from auditor.training.training_loop import mixed_precision, sum_gradients

if TYPE_CHECKING:
    from auditor.models.torch_model import TorchModel
    from mitigations.training.retraining import TrainingSet


class Taken(Protocol):
    """A step in the loop's form, on one device or several."""

    modules: Sequence[nn.Module]
    optimizers: Sequence[Optimizer]
    summed: Summing

    def __call__(self, batch: Sequence[Tensor]) -> Tensor: ...


class FineTuningStep:
    """A wrapper of ``step``; the rates of step t of ``n_steps`` are ``(1 - t / n_steps)`` times its own.

    A network that is to stay close to what it was, and to answer many sentences alike, ends nearer to both than at a
    constant rate.
    """

    def __init__(self, step: Taken, n_steps: int) -> None:
        self.step = step
        self.n_steps = n_steps
        self.optimizers: Sequence[Optimizer] = step.optimizers
        self._full = [[float(group["lr"]) for group in optimizer.param_groups] for optimizer in step.optimizers]
        self._count = _Count()
        self.modules: Sequence[nn.Module] = (*step.modules, self._count)

    @property
    def summed(self) -> Summing:
        """The summing method of the inner step."""
        return self.step.summed

    @summed.setter
    def summed(self, summed: Summing) -> None:
        self.step.summed = summed

    def __call__(self, batch: Sequence[Tensor]) -> Tensor:
        """One step."""
        left = max(1.0 - int(self._count.steps) / self.n_steps, 0.0)
        for optimizer, rates in zip(self.optimizers, self._full, strict=True):
            for group, full in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = full * left
        self._count.steps += 1
        return self.step(batch)


class _Count(nn.Module):
    """The steps taken, kept with the weights so that a resumed run knows."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))


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


FEWEST_ROWS = 2


@dataclass(frozen=True, eq=False)
class Contrast:
    """Positions of a group's training rows, ``own`` (m,), and of the ``others`` (n,) for comparison."""

    own: IntArray
    others: IntArray


def contrasts(rows: TrainingSet, parts: Sequence[Tensor]) -> tuple[list[Contrast], list[str]]:
    """Each group against all others in each part (masks (n,) of rows), and the ones with too few rows.

    Of two groups, the second says nothing that the first has not said. An unbiased distance takes two rows a side.
    """
    s = rows.s.cpu().numpy()
    found, small = [], []
    for part in parts:
        held = part.cpu().numpy()
        for j, (feature, names) in enumerate(zip(rows.features, rows.levels, strict=True)):
            for code in range(1 if len(names) == 2 else len(names)):
                own, others = (np.flatnonzero(held & side) for side in (s[:, j] == code, s[:, j] != code))
                if min(len(own), len(others)) < FEWEST_ROWS:
                    small.append(f"{feature} = {names[code]}")
                else:
                    found.append(Contrast(own.astype(np.int64), others.astype(np.int64)))
    return found, small


class Drawn(nn.Module):
    """The number of steps with drawn rows; a module, so that resumed and uninterrupted runs draw the same."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))


class MinDiffStep:
    """A step that minimises ``cross-entropy + weight penalty`` over the network's parameters; a batch is (x, y).

    The penalty is taken on rows of its own: of each side of each contrast ``n_each`` rows (or as many as there are),
    drawn anew at every step without replacement, so that a small group is in every step and no row is compared with
    itself. ``seed`` decides the draws, which are the same on all devices of a job.
    """

    def __init__(
        self,
        model: TorchModel,
        optimizer: Optimizer,
        rows: TrainingSet,
        compared: Sequence[Contrast],
        *,
        weight: float,
        width: float,
        n_each: int,
        seed: int,
    ) -> None:
        self.model = model
        self.rows = rows
        self.compared = compared
        self.weight = weight
        self.width = width
        self.n_each = n_each
        self.seed = seed
        self.drawn = Drawn().to(rows.x.device)
        self.modules: Sequence[nn.Module] = (model.module, self.drawn)
        self.optimizers: Sequence[Optimizer] = (optimizer,)
        self.summed: Summing = as_they_are

    def __call__(self, batch: Sequence[Tensor]) -> Tensor:
        """One step of the optimizer; returns the loss with its penalty."""
        x, y = batch
        sides = self._draw() if self.weight else []
        places = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *sides])).to(x.device)
        self.optimizers[0].zero_grad(set_to_none=True)
        with mixed_precision(x.device):
            logits = self.model.logits(torch.cat([x, self.rows.x[places]]))
            loss = cross_entropy(logits[: len(y)], y)
            scores = torch.softmax(logits[len(y) :].float(), dim=1)[:, 1:]
            loss = loss + self.weight * penalty(torch.split(scores, [len(side) for side in sides]), self.width)
        loss.backward()  # type: ignore[no-untyped-call]
        sum_gradients(self.model.module, self.summed)
        self.optimizers[0].step()
        return loss.detach()

    def _draw(self) -> list[IntArray]:
        """Places of the rows drawn: a group's and the others', contrast by contrast."""
        rng = np.random.default_rng([self.seed, int(self.drawn.steps)])
        self.drawn.steps += 1
        return [
            side[rng.choice(len(side), min(self.n_each, len(side)), replace=False)]
            for contrast in self.compared
            for side in (contrast.own, contrast.others)
        ]


def penalty(sides: Sequence[Tensor], width: float) -> Tensor:
    """The sum of ``MMD^2`` over pairs of samples: ``sides`` alternates a group's scores (m, c) and the others'."""
    total = torch.zeros(())
    for own, others in zip(sides[::2], sides[1::2], strict=True):
        total = total.to(own) + mmd2(own, others, width)
    return total


def mmd2(p: Tensor, q: Tensor, width: float) -> Tensor:
    """The U-statistic of ``MMD^2`` between samples p (m, c) and q (n, c) with a Gaussian kernel, m and n at least 2.

    ``mean over i != j of k(p_i, p_j) + mean over i != j of k(q_i, q_j) - 2 mean k(p_i, q_j)``: its expectation is the
    distance of the distributions, so that it is below 0 about as often as above where they are equal. (With i = j among
    the pairs the expectation is larger by ``(1 - E k) / m`` and so on, which is least for constant scores, whatever the
    groups.) Source: Gretton et al., JMLR 13 (2012), lemma 6.
    """
    both = torch.cat([p, q])
    # Not torch.cdist, whose gradient at distance 0 is that of a square root.
    squares = (both.unsqueeze(1) - both.unsqueeze(0)).square().sum(dim=2)
    kernel = torch.exp(-squares / (2.0 * width * width))
    m, n = len(p), len(q)
    within = (kernel[:m, :m].sum() - m) / (m * (m - 1)) + (kernel[m:, m:].sum() - n) / (n * (n - 1))
    return within - 2.0 * kernel[:m, m:].mean()
