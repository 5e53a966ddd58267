"""Adversarial attacks in a perturbation set, and the decision margins and gradients that guide them.

The attack is projected gradient descent with momentum and step halving when progress stops.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.rows import BoolArray, FloatArray, IntArray
from probes.probe_inputs import differentiating, rows_at_once
from probes.robustness.perturbation_set import snapped
from probes.robustness.query_attacks import square_attack

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.models.torch_model import DifferentiableModel
    from probes.robustness.perturbation_set import Ball

_MOST_DOUBLED = 100_000_000


@dataclass(frozen=True, eq=False)
class Asked:
    """A model's answers on m points: (m,) different decisions, margins, and their gradients (m, ...).

    The gradient is 0 where the model has none: its output rests on no input, or is no number.
    """

    flipped: BoolArray
    margin: Tensor
    gradient: Tensor


@dataclass(frozen=True, eq=False)
class Margins:
    """A model in an attack's form: ``z_c - z_t`` of logits z, with the decided class c and the target class t.

    ``decide``: (m, k) probabilities to (m,) classes. ``twin``: the same model in double precision, by which gradients
    are taken, or None; what is decided is always the model's own answer.
    """

    model: DifferentiableModel
    decide: Callable[[FloatArray], IntArray]
    twin: DifferentiableModel | None = None

    def ask(self, points: Tensor, clean: IntArray, targets: Tensor | None = None) -> Asked:
        """The answers on points (m, ...) with clean decisions (m,); ``targets`` (m,) classes, by default the
        nearest."""
        import torch

        taken = points.detach() if self.twin is None else points.detach().double()
        taken = taken.clone().requires_grad_()
        logits = (self.twin or self.model).logits(taken)
        own = torch.from_numpy(clean).to(points.device).unsqueeze(1)
        margin = margin_of(logits, own, targets)
        gradient = torch.zeros_like(taken)
        if margin.requires_grad:
            found = torch.autograd.grad(margin.sum(), taken, allow_unused=True)[0]
            gradient = gradient if found is None else torch.nan_to_num(found, 0.0, 0.0, 0.0)
        answered = logits.detach() if self.twin is None else self.logits(points)
        return Asked(self.otherwise(answered, clean), margin.detach(), gradient)

    def logits(self, points: Tensor) -> Tensor:
        """(m, k) the model's logits at points (m, ...)."""
        import torch

        with torch.no_grad():
            return self.model.logits(points.detach())

    def flipped(self, points: Tensor, clean: IntArray) -> BoolArray:
        """(m,) whether the model decides points (m, ...) differently."""
        return self.otherwise(self.logits(points), clean)

    def otherwise(self, logits: Tensor, clean: IntArray) -> BoolArray:
        """(m,) whether logits (m, k) decide differently; NaN decides nothing."""
        sure = probabilities(logits)
        return np.asarray((self.decide(sure) != clean) & np.isfinite(sure).all(axis=1), np.bool_)


def margin_of(logits: Tensor, decisions: Tensor, targets: Tensor | None = None) -> Tensor:
    """(m,) ``z_own - z_wanted``, by default the largest other; own (m, 1), wanted (m,)."""
    import torch

    mine = logits.gather(1, decisions).squeeze(1)
    if targets is not None:
        return mine - logits.gather(1, targets.unsqueeze(1)).squeeze(1)
    return mine - logits.scatter(1, decisions, -torch.inf).amax(dim=1)


def probabilities(logits: Tensor) -> FloatArray:
    """(m, k) in double precision."""
    import torch

    return torch.softmax(logits.detach().double(), dim=1).cpu().numpy()


def in_double(model: DifferentiableModel, like: Tensor) -> DifferentiableModel | None:
    """The model with a double-precision copy of its module; None if it cannot be copied or run so.

    None too for more than 100 million parameters, of which a second and wider copy may not fit.
    """
    import torch

    if sum(p.numel() for p in model.module.parameters()) > _MOST_DOUBLED:
        return None
    try:
        module = copy.deepcopy(model.module).double()
        twin = copy.copy(model)
        twin.module = module
        with torch.no_grad():
            answered = twin.logits(like[:1].double())
    except Exception:  # whatever a foreign module raises says that it does not run in double precision
        return None
    return twin if answered.dtype == torch.float64 else None


# Of Croce and Hein: how much of a step is new, the first check and how the time between checks shrinks, in shares of
# all steps, and the share of steps that must help for the step to stay.
_NEW = 0.75
_FIRST, _SHORTER, _LEAST = 0.22, 0.03, 0.06
_HELPFUL = 0.75


def descend(
    margins: Margins,
    start: Tensor,
    low: Tensor,
    high: Tensor,
    clean: IntArray,
    n_steps: int,
    targets: Tensor | None = None,
    *,
    whole: Tensor | None = None,
) -> tuple[Tensor, Tensor, BoolArray]:
    """The best points (m, ...) of a descent from ``start``, their margins (m,), and (m,) whether it succeeded.

    Within ``low`` and ``high`` (m, ...), along the sign of the margin's gradient, the first step as wide as the ball,
    with momentum; a row's step halves, and it goes back to its best point, at checks where too few steps helped. The
    way of a row ends at the first point that is decided otherwise. ``targets``: as of
    :meth:`~probes.robustness.worst_case_search.Margins.ask`. ``whole``: the steps of
    :func:`~probes.robustness.perturbation_set.snapped`; the model is asked about whole values alone, and its gradient
    there moves the fractions behind them. Source: Croce and Hein, ICML 2020 (Auto-PGD), with the margin as loss
    (Carlini and Wagner, IEEE S&P 2017).
    """
    import torch

    found = np.zeros(len(clean), np.bool_)
    reached = snapped(start.detach(), low, whole).clone()
    active = np.arange(len(clean))
    points = start.detach().clone()
    before = points
    step = high - low
    best, at_best, way = torch.full((len(clean),), torch.inf), snapped(points, low, whole), torch.zeros_like(points)
    best = best.to(points.device)
    least, helped = best.clone(), torch.zeros_like(best)
    halved, best_then = torch.ones_like(best, dtype=torch.bool), best.clone()
    shape = (-1, *[1] * (points.ndim - 1))
    check, since, interval = max(1, int(_FIRST * n_steps)), 0, max(1, int(_FIRST * n_steps))
    for k in range(n_steps + 1):
        here = snapped(points, low, whole)
        asked = margins.ask(here, clean[active], targets)
        margin = asked.margin.to(best.dtype)
        better = margin < best
        gradient = asked.gradient.sign().to(points.dtype)
        nearest = better | torch.from_numpy(asked.flipped).to(better.device)
        at_best = torch.where(nearest.reshape(shape), here, at_best)
        way = torch.where(better.reshape(shape), gradient, way)
        best = torch.where(better, margin, best)
        helped = helped + better
        rows = torch.from_numpy(active).to(points.device)
        reached[rows], least[rows] = at_best, best
        found[active[asked.flipped]] = True
        if k == n_steps or asked.flipped.all():
            break
        if asked.flipped.any():
            kept = torch.from_numpy(~asked.flipped).to(points.device)
            active = active[~asked.flipped]
            points, before, low, high, step, at_best, way, gradient = (
                t[kept] for t in (points, before, low, high, step, at_best, way, gradient)
            )
            best, helped, halved, best_then = (t[kept] for t in (best, helped, halved, best_then))
            targets = None if targets is None else targets[kept]
        since += 1
        if since == check and k:
            stuck = (helped < _HELPFUL * since) | (~halved & (best_then <= best))
            back = stuck.reshape(shape)
            step = torch.where(back, step * 0.5, step)
            points, gradient = torch.where(back, at_best, points), torch.where(back, way, gradient)
            before = torch.where(back, at_best, before)
            halved, best_then, helped, since = stuck, best.clone(), torch.zeros_like(helped), 0
            interval = max(interval - int(_SHORTER * n_steps), max(1, int(_LEAST * n_steps)))
            check = interval
        aim = torch.clamp(points - step * gradient, low, high)
        new = _NEW if k else 1.0
        moved = torch.clamp(points + new * (aim - points) + (1.0 - new) * (points - before), low, high)
        before, points = points, moved
    return reached, least, found


# A row of more values than that takes a thousand times as long as one of a table.
_LARGE = 10_000


@dataclass(frozen=True)
class Effort:
    """Numbers of other classes, of restarts (minimum and additional), and a multiplier of the steps."""

    targets: int
    fewest_tries: int
    promising: int
    longer: int


_TABLE, _SMALL, _BIG = Effort(9, 9, 2, 3), Effort(9, 3, 2, 3), Effort(2, 1, 1, 2)


@dataclass(frozen=True, eq=False)
class Attacked:
    """The result of a search in perturbation sets of n inputs.

    ``broken`` (n_levels, n): whether another decision was found within ``levels[i]`` of the input; it stays found at
    larger levels, whose balls hold the smaller ones. ``examples`` (n, ...): the input that was found at the least level
    that breaks the row, and the row's own input where none did. ``flat`` (n,): whether the model has no gradient at the
    input, in its own precision; ``steep`` (n,): whether it has one there in double precision, all False unless asked.
    """

    levels: tuple[float, ...]
    broken: BoolArray
    examples: Tensor
    flat: BoolArray
    steep: BoolArray

    def with_found(self, level: int, is_broken: BoolArray, points: Tensor) -> Attacked:
        """The combined results of this search and of another one of ``points`` (n, ...) at that level's index."""
        import torch

        broken = self.broken.copy()
        broken[level:] |= is_broken
        new = torch.from_numpy(is_broken & ~self.broken[level]).to(points.device)
        examples = torch.where(new.reshape(-1, *[1] * (points.ndim - 1)), points, self.examples)
        return Attacked(self.levels, broken, examples, self.flat, self.steep)


def attack(
    model: DifferentiableModel,
    inputs: Tensor,
    clean: IntArray,
    decide: Callable[[FloatArray], IntArray],
    *,
    ball: Ball,
    levels: Sequence[float],
    n_steps: int,
    rng: np.random.Generator,
) -> Attacked:
    """Nearby inputs with different decisions, found by gradients.

    inputs (n, ...) floating point; clean (n,) what is decided on them; levels ascending. ``decide``: (m, k)
    probabilities to (m,) classes. At each level, of the rows that are left: a descent of ``n_steps`` steps
    (:func:`~probes.robustness.worst_case_search.descend`) of the margin to the nearest other class, from a point drawn
    uniformly in the ball, or from where the level before ended; then one to each of the other classes whose logits come
    next, 9 at most, from the input, and where they are few again from points drawn in the ball; then from the nearest
    point so far, with three times the steps, to the two classes that came nearest. Rows of more than 10,000 values take
    less: two other classes, and one again with twice the steps. Where the model has no gradient at the input, that of a
    copy in double precision is taken. What is found is asked of the model again before it counts. captum.robust.PGD
    keeps the last point only and draws from torch's global generator, and so is not used.

    Sources: Madry et al., ICLR 2018; Croce and Hein, ICML 2020 (targeted Auto-PGD).
    """
    import torch

    low, high = ball.around(inputs, levels[0])
    nearest = low + uniform(inputs, rng) * (high - low)
    broken, examples = np.zeros((len(levels), len(inputs)), np.bool_), inputs.detach().clone()
    with differentiating(model):
        own = Margins(model, decide)
        flat = _flat(own, inputs, clean, ball)
        twin = in_double(model, inputs) if flat.any() else None
        steep = np.zeros(len(inputs), np.bool_)
        if twin is not None:
            doubled = Margins(model, decide, twin)
            places = torch.from_numpy(np.flatnonzero(flat)).to(inputs.device)
            steep[flat] = ~_flat(doubled, inputs[places], clean[flat], ball.subset(places))
        for i, level in enumerate(levels):
            broken[i] = broken[i - 1] if i else False
            for used, rows in ((own, ~steep), (doubled if steep.any() else own, steep)):
                for at in batches(inputs, np.flatnonzero(rows & ~broken[i])):
                    index = torch.from_numpy(at).to(inputs.device)
                    within = ball.subset(index).around(inputs[index], level)
                    points, found = _all_ways(
                        used, inputs[index], nearest[index], within, ball.steps, clean[at], n_steps, rng
                    )
                    nearest[index] = points
                    found &= own.flipped(points, clean[at])
                    broken[i, at] = found
                    hit = torch.from_numpy(found).to(inputs.device)
                    examples[index[hit]] = points[hit]
    return Attacked(tuple(levels), broken, examples, flat, steep)


def _all_ways(
    margins: Margins,
    inputs: Tensor,
    nearest: Tensor,
    within: tuple[Tensor, Tensor],
    whole: Tensor | None,
    clean: IntArray,
    n_steps: int,
    rng: np.random.Generator,
) -> tuple[Tensor, BoolArray]:
    """To the nearest other class, to each other one, and longer to those that came nearest: points, and (m,) found."""
    import torch

    low, high = within
    reached, margin, found = descend(margins, nearest, low, high, clean, n_steps, whole=whole)
    order = margins.logits(inputs)
    order = order.scatter(1, torch.from_numpy(clean).to(order.device).unsqueeze(1), -torch.inf)
    effort = _effort(inputs)
    ranked = order.topk(min(order.shape[1] - 1, effort.targets), dim=1).indices
    left_by = torch.full(ranked.shape, torch.inf, dtype=margin.dtype, device=margin.device)

    def try_to(row_indices: IntArray, target_classes: Tensor, column: Tensor, start: Tensor, steps: int) -> None:
        index = torch.from_numpy(row_indices).to(inputs.device)
        points, nearer, more = descend(
            margins, start[index], low[index], high[index], clean[row_indices], steps, target_classes, whole=whole
        )
        left_by[index, column] = torch.minimum(left_by[index, column], nearer)
        closer = torch.from_numpy(more).to(inputs.device) | (nearer < margin[index])
        reached[index[closer]], margin[index[closer]] = points[closer], nearer[closer]
        found[row_indices] = more

    n_targets = ranked.shape[1]
    for nth in range(max(n_targets, effort.fewest_tries)):
        left = np.flatnonzero(~found)
        if left.size:
            index = torch.from_numpy(left).to(inputs.device)
            column = torch.full_like(index, nth % n_targets)
            start = inputs if nth < n_targets else low + uniform(inputs, rng) * (high - low)
            try_to(left, ranked[index, column], column, start, n_steps)
    for nth in range(min(effort.promising, n_targets)):
        left = np.flatnonzero(~found)
        if left.size:
            index = torch.from_numpy(left).to(inputs.device)
            column = left_by[index].topk(nth + 1, dim=1, largest=False).indices[:, nth]
            try_to(left, ranked[index, column], column, reached, effort.longer * n_steps)
    return reached, found


def _effort(inputs: Tensor) -> Effort:
    if is_large(inputs):
        return _BIG
    return _TABLE if inputs.ndim == 2 else _SMALL


def is_large(inputs: Tensor) -> bool:
    """Whether a row has so many values that the number of queries must be limited."""
    return inputs[:1].numel() > _LARGE


def uniform(like: Tensor, rng: np.random.Generator) -> Tensor:
    """Numbers in [0, 1) of a tensor's shape."""
    import torch

    return torch.from_numpy(rng.random(like.shape, dtype=np.float32)).to(like)


def _flat(margins: Margins, inputs: Tensor, clean: IntArray, ball: Ball) -> BoolArray:
    """(n,) whether the margin has no gradient at the input, in none of the directions that it may be moved in."""
    movable = (ball.radius != 0).expand_as(inputs)
    parts = []
    for at in batches(inputs, np.arange(len(inputs))):
        few = slice(int(at[0]), int(at[-1]) + 1)
        gradient = margins.ask(inputs[few], clean[few]).gradient
        parts.append(((gradient == 0) | ~movable[few]).flatten(1).all(dim=1).cpu().numpy())
    return np.concatenate(parts) if parts else np.zeros(0, np.bool_)


def search_by_asking(
    model: DifferentiableModel,
    inputs: Tensor,
    clean: IntArray,
    decide: Callable[[FloatArray], IntArray],
    *,
    ball: Ball,
    level: float,
    n_queries: int,
    rng: np.random.Generator,
) -> tuple[Tensor, BoolArray]:
    """Points (n, ...) within ``level`` of the inputs, and (n,) whether each is decided differently.

    Found without gradients: the Square attack (:func:`~probes.robustness.query_attacks.square_attack`) on the margin of
    log-probabilities, of at most ``n_queries`` questions a row.
    """
    import torch

    margins = Margins(model, decide)
    low, high = ball.around(inputs, level)
    picture = inputs.ndim == 4
    ends = [(t.permute(0, 2, 3, 1) if picture else t.flatten(1)).cpu().numpy() for t in (low, high)]

    def encoded(rows: FloatArray) -> Tensor:
        given = torch.from_numpy(np.ascontiguousarray(rows)).to(inputs)
        return given.permute(0, 3, 1, 2) if picture else given.reshape(-1, *inputs.shape[1:])

    def ask(rows: FloatArray, indices: IntArray) -> tuple[FloatArray, BoolArray]:
        scores, changed = np.empty(len(rows)), np.empty(len(rows), np.bool_)
        for at in batches(inputs, np.arange(len(rows))):
            logits, own = margins.logits(encoded(rows[at])), clean[indices[at]]
            sure = torch.log_softmax(logits.double(), dim=1)
            scores[at] = margin_of(sure, torch.from_numpy(own).to(sure.device).unsqueeze(1)).cpu().numpy()
            changed[at] = margins.otherwise(logits, own)
        return scores, changed

    with differentiating(model), torch.no_grad():
        rows, _ = square_attack(ends[0], ends[1], ask, n_queries=n_queries, rng=rng)
        points = encoded(rows)
        found = [margins.flipped(points[at], clean[at]) for at in batches(inputs, np.arange(len(inputs)))]
    return points, np.concatenate(found) if found else np.zeros(0, np.bool_)


def batches(inputs: Tensor, rows: IntArray) -> Iterator[IntArray]:
    """The rows in parts that can be differentiated at once."""
    size = rows_at_once(inputs)
    for i in range(0, len(rows), size):
        yield rows[i : i + size]
