"""Gradient inversion of one update: the strongest of three attacks, chosen without access to the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from auditor.core.errors import UsageError

# Of the first layer's rows, those whose share in the update is largest are tried.
_ROWS_TRIED = 8
_START_NOISE = 0.1
# An update that is sent so many times shorter than it should be was clipped.
_CLIPPED = 1.5


@dataclass(frozen=True, kw_only=True)
class ClientStep:
    """A client's update: steps of plain SGD on the mean cross-entropy of its images, all in one batch.

    The update is the sum of its gradients: what the weights move by, over the learning rate; with one step, the
    gradient.
    """

    local_steps: int = 1
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        if self.local_steps < 1 or not self.learning_rate > 0.0:
            raise UsageError("A client takes at least one local step, at a learning rate above 0.")

    def update(self, module: nn.Module, images: Tensor, labels: Tensor, *, graph: bool = False) -> list[Tensor]:
        """One tensor per trainable parameter; differentiable in the images if ``graph``."""
        now = {n: p.detach().requires_grad_() for n, p in module.named_parameters() if p.requires_grad}
        total = [torch.zeros_like(p) for p in now.values()]
        for _ in range(self.local_steps):
            loss = nn.functional.cross_entropy(functional_call(module, now, (images,)), labels)
            gradients = torch.autograd.grad(loss, list(now.values()), create_graph=graph)
            total = [t + g for t, g in zip(total, gradients, strict=True)]
            now = {n: p - self.learning_rate * g for (n, p), g in zip(now.items(), gradients, strict=True)}
            if not graph:
                now = {n: p.detach().requires_grad_() for n, p in now.items()}
        return total if graph else [t.detach() for t in total]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """Attack effort: ``steps`` of descent for each of ``restarts``, weight of the images' total variation."""

    steps: int = 200
    restarts: int = 1
    smoothness: float = 1e-3

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1 or not self.smoothness >= 0.0:
            raise UsageError("Descent takes at least one step from one start, and a smoothness that is not negative.")


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """(b, channels, height, width) reconstructed images in [0, 1], the attack, and the cosine distance of updates.

    ``method`` ``start``: nothing came nearer than the random images that descent began at.
    """

    images: Tensor
    method: str
    distance: float


def invert(
    module: nn.Module,
    target_update: Sequence[Tensor],
    labels: Tensor,
    shape: tuple[int, ...],
    *,
    step: ClientStep,
    effort: Effort,
    generator: torch.Generator,
) -> Drawn:
    """Images (b, *shape) with an update similar to the sent one; the labels are assumed known.

    ``first_layer``: of a fully connected first layer the gradient of a weight row over that of its bias is the input
    itself (Phong et al. 2018). ``cosine``: signed Adam on the cosine distance of the updates and the images' total
    variation (Geiping et al. 2020). ``l2``: L-BFGS on their squared distance (Zhu, Liu and
    Han 2019), where clipping made the sent one shorter at the length of the update of what ``cosine`` drew. Of all that
    were drawn those whose update lies nearest to the one sent by cosine are returned, so that the choice looks at
    nothing but the update.
    """
    found = [("first_layer", images) for images in _by_first_layer(module, target_update, len(labels), shape)]
    for _ in range(effort.restarts):
        start = 0.5 + _START_NOISE * torch.randn((len(labels), *shape), generator=generator).to(target_update[0].device)
        # Where descent leads to no finite image, what it began at is what was drawn.
        found.append(("start", start))
        found.append(("cosine", _by_cosine(module, target_update, labels, start, step, effort)))
        longer = _length(step.update(module, found[-1][1], labels)) / max(_length(target_update), 1e-12)
        whole = [part * longer for part in target_update] if longer > _CLIPPED else target_update
        found.append(("l2", _by_squares(module, whole, labels, start, step, effort)))
    drawn = [
        Drawn(images=images, method=method, distance=_distance(step.update(module, images, labels), target_update))
        for method, images in found
        if bool(torch.isfinite(images).all())
    ]
    return min(drawn, key=lambda one: one.distance if one.distance == one.distance else 2.0)


def _cosine_distance(update: Sequence[Tensor], target_update: Sequence[Tensor]) -> Tensor:
    dot = torch.stack([(a * b).sum() for a, b in zip(update, target_update, strict=True)]).sum()
    a, b = (torch.stack([part.square().sum() for part in parts]).sum() for parts in (update, target_update))
    return 1.0 - dot / (a * b).clamp(min=1e-24).sqrt()


def _distance(update: Sequence[Tensor], target_update: Sequence[Tensor]) -> float:
    return float(_cosine_distance(update, target_update))


def _length(update: Sequence[Tensor]) -> float:
    return float(torch.stack([part.square().sum() for part in update]).sum().sqrt())


def _variation(images: Tensor) -> Tensor:
    return images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()


def _by_cosine(
    module: nn.Module, target_update: Sequence[Tensor], labels: Tensor, start: Tensor, step: ClientStep, effort: Effort
) -> Tensor:
    images = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([images], lr=0.1)
    slower = [int(effort.steps * share) for share in (3 / 8, 5 / 8, 7 / 8)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, slower, gamma=0.1)
    for _ in range(effort.steps):
        loss = _cosine_distance(step.update(module, images, labels, graph=True), target_update)
        (gradient,) = torch.autograd.grad(loss + effort.smoothness * _variation(images), [images])
        images.grad = gradient.sign()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            images.clamp_(0.0, 1.0)
    return images.detach()


def _by_squares(
    module: nn.Module, target_update: Sequence[Tensor], labels: Tensor, start: Tensor, step: ClientStep, effort: Effort
) -> Tensor:
    images = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([images], max_iter=effort.steps, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        update = step.update(module, images, labels, graph=True)
        found = torch.stack([(a - b).square().sum() for a, b in zip(update, target_update, strict=True)]).sum()
        (images.grad,) = torch.autograd.grad(found, [images])
        return found

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return images.detach().clamp(0.0, 1.0)


def _by_first_layer(module: nn.Module, target_update: Sequence[Tensor], n: int, shape: tuple[int, ...]) -> list[Tensor]:
    """Batches of n images, of the rows of the first layer that answer for most of the update."""
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    first = next((m for m in module.modules() if list(m.parameters(recurse=False))), None)
    pixels = int(torch.Size(shape).numel())
    if not isinstance(first, nn.Linear) or first.in_features != pixels or first.bias is None or len(names) < 2:
        return []
    if target_update[0].shape != first.weight.shape or target_update[1].shape != first.bias.shape:
        return []
    weights, biases = target_update[0], target_update[1]
    rows = torch.argsort(biases.abs(), descending=True)
    images = (weights / biases.where(biases != 0.0, torch.ones_like(biases))[:, None]).clamp(0.0, 1.0)
    images = images.reshape(len(biases), *shape)
    found = [images[rows[i : i + n]] for i in range(0, _ROWS_TRIED * n, n)]
    return [batch for batch in found if len(batch) == n]
