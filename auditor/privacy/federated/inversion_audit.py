"""Audit of gradient inversion: three attacks on one update, and whether one reveals its image.

A client's image and ``others`` images of the same label are exchangeable: which of them is the client's is drawn by
chance. Where an update gives nothing away, so is the rank of the client's image among them by likeness to what was
drawn, whatever the attack is. A weak attack makes a p-value large, never wrong.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from auditor.core.errors import DataError, UsageError
from auditor.core.rows import FloatArray, IntArray
from auditor.privacy.federated.client_canaries import clipped

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


Verdict = Literal["gives_away", "stopped", "cannot_tell"]
Send = Callable[[Tensor, Tensor], list[Tensor]]


@dataclass(frozen=True, kw_only=True)
class Defence:
    """A client's protection of its update: clipping as a whole to ``clipping_norm``, and normal noise.

    ``noise_multiplier``: standard deviation of the noise over the clipping norm.
    """

    clipping_norm: float | None = None
    noise_multiplier: float = 0.0

    def __post_init__(self) -> None:
        if self.clipping_norm is not None and not self.clipping_norm > 0.0:
            raise UsageError(f"The clipping norm must be above 0, not {self.clipping_norm:g}.")
        if not self.noise_multiplier >= 0.0:
            raise UsageError(f"The noise multiplier must be at least 0, not {self.noise_multiplier:g}.")
        if self.noise_multiplier and self.clipping_norm is None:
            raise UsageError("Noise is counted in clipping norms: give a clipping norm with it.")

    @property
    def idle(self) -> bool:
        """Whether updates are sent unchanged."""
        return self.clipping_norm is None

    def applied(self, update: list[Tensor], generator: torch.Generator) -> list[Tensor]:
        """The update as sent, with the defence applied."""
        if self.clipping_norm is None:
            return update
        size = self.clipping_norm * self.noise_multiplier
        return [
            part + size * torch.randn(part.shape, generator=generator).to(part)
            for part in clipped(update, self.clipping_norm)
        ]


@dataclass(frozen=True, kw_only=True)
class ClientTask:
    """Input of an audit of updates: a network with logits, and possible client images.

    ``images``: (n, channels, height, width) numbers in [0, 1], as the network takes them; ``labels``: (n,) classes.
    ``send``: what a client sends for some images and labels, a tensor a trainable parameter, as your own client makes
    it; None for :class:`ClientStep` and :class:`Defence`.
    """

    module: nn.Module
    images: Tensor
    labels: Tensor
    send: Send | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or len(self.images) != len(self.labels) or not len(self.images):
            raise UsageError("The images must be (n, channels, height, width), with a label each.")
        if not bool(((self.images >= 0.0) & (self.images <= 1.0)).all()):
            raise UsageError("The images' numbers must lie in [0, 1]: let the network itself take means off and scale.")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One update: Pearson's correlation of drawn and true image; ``rank``: others at least as similar.

    ``best_other``: the likeness of the most alike of them. ``method``: the attack whose images were taken.
    """

    similarity: float
    best_other: float
    rank: int
    method: str


@dataclass(frozen=True, kw_only=True)
class InversionAudit:
    """The verdict on updates, with all its evidence.

    ``p_value``: the chance of ranks that small in sum where updates give nothing away, exact; ``plain``,
    ``plain_p_value``: the same of the same images' updates as they are before anything is done to them, which says
    whether the attack could see anything at all. None where nothing is done to them.
    """

    attempts: tuple[Attempt, ...]
    plain: tuple[Attempt, ...] | None
    others: int
    batch: int
    alpha: float
    p_value: float
    plain_p_value: float | None
    verdict: Verdict
    reason: str


def audit_updates(
    task: ClientTask,
    *,
    rng: np.random.Generator,
    step: ClientStep | None = None,
    defence: Defence | None = None,
    effort: Effort | None = None,
    updates: int = 5,
    batch: int = 1,
    others: int = 99,
    alpha: float = 0.05,
) -> InversionAudit:
    """Reconstruct images from clients' updates, and rank each client's image among others of its label.

    Of each update: a label with at least ``others + 1`` images, so many of them by chance, one of those by chance as
    the client's image, ``batch - 1`` further images from the rest of all. An image's likeness is the largest Pearson
    correlation with any image of the batch that was drawn. With ranks ``r_t`` (others at least as alike, ties counted
    against), ``p = P(U_1 + ... + U_T <= r_1 + ... + r_T)``, U uniform on 0 to ``others``: exact where updates give
    nothing away beyond the label, which the attack is told.

    ``gives_away`` where ``p <= alpha``, so that harmless updates are called so with at most ``alpha``; ``stopped``
    where not, and the same attack on plain updates of the same images has ``p <= alpha``; else ``cannot_tell``: the
    attack sees nothing in plain updates either. ``stopped`` is of this attack, and a claim of privacy is for noise that
    is accounted. Raises DataError where no label has enough images, UsageError for numbers that cannot be.
    Sources: Zhu, Liu and Han, NeurIPS 2019; Geiping, Bauermeister, Droge and Moeller, NeurIPS 2020.
    """
    step, defence, effort = step or ClientStep(), defence or Defence(), effort or Effort()
    _check(task, updates=updates, batch=batch, others=others, alpha=alpha, defence=defence)
    module = copy.deepcopy(task.module).eval()
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    found, plain = [], []
    for _ in range(updates):
        chosen, own = _choose_images(task.labels.cpu().numpy(), others, batch, rng)
        held = torch.from_numpy(np.concatenate([chosen[own : own + 1], chosen[others + 1 :]]))
        images, labels = task.images[held], task.labels[held]
        gradient = step.update(module, images, labels)
        if task.send is not None:
            sent = [part.detach() for part in task.send(images, labels)]
        else:
            sent = defence.applied(gradient, generator)

        def attempt(
            update: list[Tensor], labels: Tensor = labels, candidates: IntArray = chosen, own_index: int = own
        ) -> Attempt:
            drawn = invert(
                module, update, labels, tuple(task.images.shape[1:]), step=step, effort=effort, generator=generator
            )
            alike = likeness(drawn.images, task.images[torch.from_numpy(candidates[: others + 1])])
            rest = np.delete(alike, own_index)
            return Attempt(
                similarity=float(alike[own_index]),
                best_other=float(rest.max()),
                rank=int((rest >= alike[own_index]).sum()),
                method=drawn.method,
            )

        found.append(attempt(sent))
        if task.send is not None or not defence.idle:
            plain.append(attempt(gradient))
    p_value = rank_sum_p_value([one.rank for one in found], others)
    plain_p = rank_sum_p_value([one.rank for one in plain], others) if plain else None
    verdict, reason = _verdict(found, p_value, plain_p, alpha, others)
    return InversionAudit(
        attempts=tuple(found),
        plain=tuple(plain) or None,
        others=others,
        batch=batch,
        alpha=alpha,
        p_value=p_value,
        plain_p_value=plain_p,
        verdict=verdict,
        reason=reason,
    )


def rank_sum_p_value(ranks: list[int], others: int) -> float:
    """``P(U_1 + ... + U_T <= sum of ranks)`` for U independent and uniform on 0, ..., ``others``; exact."""
    chances, one = np.ones(1), np.full(others + 1, 1.0 / (others + 1))
    for _ in ranks:
        chances = np.convolve(chances, one)
    return float(min(chances[: sum(ranks) + 1].sum(), 1.0))


def likeness(reconstructions: Tensor, images: Tensor) -> FloatArray:
    """(n,) for each image the largest Pearson correlation of its pixels with any drawn image; 0 where one is flat."""
    a, b = (x.double().reshape(len(x), -1).cpu() for x in (images, reconstructions))
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    size = a.norm(dim=1)[:, None] * b.norm(dim=1)[None, :]
    return np.asarray(torch.where(size > 0.0, a @ b.T / size.clamp(min=1e-12), 0.0).max(dim=1).values.numpy())


def _choose_images(labels: IntArray, others: int, batch: int, rng: np.random.Generator) -> tuple[IntArray, int]:
    """``others + 1`` images of one label and ``batch - 1`` of the rest, and which of the first is the client's."""
    classes, counts = np.unique(labels, return_counts=True)
    label = rng.choice(classes[counts > others])
    alike = rng.choice(np.flatnonzero(labels == label), others + 1, replace=False)
    rest = rng.choice(np.setdiff1d(np.arange(len(labels)), alike), batch - 1, replace=False)
    return np.concatenate([alike, rest]).astype(np.int64), int(rng.integers(others + 1))


def _check(task: ClientTask, *, updates: int, batch: int, others: int, alpha: float, defence: Defence) -> None:
    if updates < 1 or batch < 1 or others < 1 or not 0.0 < alpha < 1.0:
        raise UsageError("At least one update of one image among one other is needed, and an alpha between 0 and 1.")
    if task.send is not None and not defence.idle:
        raise UsageError("Clipping and noise are the client's own where it says what it sends: leave them away.")
    most = int(np.unique(task.labels.cpu().numpy(), return_counts=True)[1].max())
    if most <= others:
        raise DataError(
            f"The largest class has {most:,} images, and one is ranked among {others:,} others of its label: bring "
            "more images, or ask for fewer others."
        )
    if len(task.labels) < others + batch:
        raise DataError(f"{others + batch:,} images are needed, and there are {len(task.labels):,}.")
    if rank_sum_p_value([0] * updates, others) > alpha:
        raise UsageError(
            f"{updates} updates among {others} others cannot show anything at {alpha:g}: ask for more of either."
        )


def _verdict(
    attempts: list[Attempt], p_value: float, plain_p: float | None, alpha: float, others: int
) -> tuple[Verdict, str]:
    first = sum(one.rank == 0 for one in attempts)
    ranked = (
        f"in {first} of {len(attempts)} updates the client's own image is the most like what was drawn, of "
        f"{others + 1} "
        f"of its label (p = {p_value:.2g})"
    )
    if p_value <= alpha:
        return "gives_away", f"updates give their pictures away: {ranked}."
    if plain_p is not None and plain_p <= alpha:
        return "stopped", (
            f"the attack draws the pictures from plain updates (p = {plain_p:.2g}), and not from what is sent: "
            f"{ranked}. Other attacks may; what noise promises against all of them, its accounting says."
        )
    return "cannot_tell", (
        f"the attack did not find the pictures: {ranked}, and it does not in plain updates either, so that this says "
        "nothing. Try more steps or restarts."
    )
