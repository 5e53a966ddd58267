"""Gradient masking test: a failed gradient attack means nothing if the model hides its gradients.

A decision-based attack, which needs no gradient, walks along the decision boundary towards the input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.judging.measurement import define_metrics
from auditor.statistics.rates import Proportion
from probes.probe_inputs import differentiating
from probes.robustness.perturbation_set import Ball, snapped
from probes.robustness.worst_case_search import (
    Attacked,
    Margins,
    attack,
    batches,
    in_double,
    is_large,
    search_by_asking,
)

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.models.torch_model import DifferentiableModel

# Halvings of the way to the boundary, and of a step that would cross it.
_HALVINGS = 12
_QUESTIONS = 40


@dataclass(frozen=True, eq=False)
class Outside:
    """Candidate points of a decision-based attack, and their original inputs (m, ...).

    ``flipped``: points (m, ...) to (m,) whether each is decided otherwise than its input; ``unit`` (m, ...): how far an
    input moves at a distance of 1, 0 where it may not be touched; ``limits``: the lowest and the highest inputs.
    """

    flipped: Callable[[Tensor], BoolArray]
    inputs: Tensor
    unit: Tensor
    limits: tuple[Tensor, Tensor] | None = None

    def across(self, points: Tensor) -> Tensor:
        """(m,) whether each point is decided differently."""
        import torch

        return torch.from_numpy(self.flipped(points)).to(points.device)

    def far(self, points: Tensor) -> Tensor:
        """(m,) distances, the largest over all inputs that may move."""
        return ((points - self.inputs).abs() / self.unit.masked_fill(self.unit == 0, 1.0)).flatten(1).amax(dim=1)

    def move_points(self, points: Tensor, distance: Tensor, way: Tensor) -> Tensor:
        """The points moved by (m,) distances in a direction of signs, within the limits."""
        import torch

        there = points + spread(distance, points) * self.unit * way
        return there if self.limits is None else torch.minimum(torch.maximum(there, self.limits[0]), self.limits[1])

    def at_boundary(self, points: Tensor) -> Tensor:
        """Differently decided points, moved by bisection into the smallest cube around the input."""
        import torch

        most, best = self.far(points), points
        least = torch.zeros_like(most)
        for _ in range(_HALVINGS):
            half = 0.5 * (most + least)
            reach = spread(half, points) * self.unit
            cut = torch.clamp(points, self.inputs - reach, self.inputs + reach)
            hit = self.across(cut)
            best = torch.where(spread(hit, points), cut, best)
            most, least = torch.where(hit, half, most), torch.where(hit, least, half)
        return best


def spread(values: Tensor, like: Tensor) -> Tensor:
    """(m, 1, ...) of (m,), to be broadcast against ``like`` (m, ...)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def along_the_boundary(outside: Outside, start: Tensor, *, n_rounds: int, rng: np.random.Generator) -> Tensor:
    """The differently decided points (m, ...) nearest to the inputs, from ``start``, which are all such points.

    A round asks on which side of the boundary 40 points around the nearest so far lie, moves towards the side with more
    that are decided otherwise, by a step that is halved until it does not cross back, and cuts the way to the input
    short by halvings; what comes no nearer is not kept. Some 60 questions a round and row. Source: Chen, Jordan and
    Wainwright, HopSkipJumpAttack, IEEE S&P 2020, for the largest distance.
    """
    import torch

    best = outside.at_boundary(start)
    movable = outside.unit != 0
    width = 1.0 / float(max(1, int(movable[:1].sum())) ** 0.5)
    for k in range(n_rounds):
        away = outside.far(best)
        sides, told = [], []
        for _ in range(_QUESTIONS):
            side = torch.from_numpy(rng.choice(np.array([-1.0, 1.0], np.float32), best.shape)).to(best) * movable
            sides.append(side)
            told.append(outside.across(outside.move_points(best, width * away, side)).to(best.dtype))
        answers = torch.stack(told)
        # What all sides share says nothing of a direction.
        answers = answers - answers.mean(dim=0)
        way = torch.zeros_like(best)
        for side, answer in zip(sides, answers, strict=True):
            way += spread(answer, best) * side
        step, there, done = away / (k + 1.0) ** 0.5, best, torch.zeros_like(away, dtype=torch.bool)
        for _ in range(_HALVINGS // 2):
            tried = outside.move_points(best, step, way.sign())
            hit = outside.across(tried)
            there = torch.where(spread(hit & ~done, best), tried, there)
            done, step = done | hit, step * 0.5
            if bool(done.all()):
                break
        there = outside.at_boundary(there)
        best = torch.where(spread(outside.far(there) < outside.far(best), best), there, best)
    return best


# Of rows that show a sign of masking, in honest networks, at most; and the level at which more of them is shown. Where
# all of a few units are off an honest network has no gradient: of four, at 18 % of the rows.
_HONEST, _HONEST_WITHOUT, _LEVEL = 0.02, 0.4, 1e-3
_MOST_ROWS, _MOST_LARGE = 200, 50
_QUERIES = 100
# Where the gradient is hidden there is nothing else to search by.
_QUERIES_WHEN_HIDDEN = 500
_ROUNDS = 20
# How many other rows' inputs are tried in the place of a row's own: to see whether anything changes, and to start from.
_SWAPS, _STARTS = 4, 20
_SAME_WAY = 0.9
_SAME_ANSWER = 1e-3


@dataclass(frozen=True)
class Sign:
    """A sign of masking: ``rows`` of ``n`` have it, compared with at most ``honest`` in an honest network.

    ``name``: as the report has it; ``said``: in words.
    """

    name: str
    rows: int
    n: int
    said: str
    honest: float = _HONEST

    @property
    def share(self) -> Proportion:
        """The share of the rows."""
        return Proportion(successes=self.rows, n=self.n)

    @property
    def holds(self) -> bool:
        """Whether significantly more rows have it than in an honest network, by the exact lower bound at 0.001."""
        return self.n > 0 and self.share.bounds(_LEVEL)[0] > self.honest


@dataclass(frozen=True, eq=False)
class Examined:
    """The results, with those of queries alone, and the signs of masked gradients."""

    attacked: Attacked
    signs: tuple[Sign, ...]

    @property
    def masked(self) -> str:
        """The reason why unbroken rows mean nothing, in words; "" without a sign of masking."""
        return "; ".join(f"{s.said} ({s.rows:,} of {s.n:,} rows)" for s in self.signs if s.holds)


@dataclass(frozen=True, eq=False)
class _Subject:
    """Some of the rows of an attack, and what is asked of them."""

    model: DifferentiableModel
    margins: Margins
    inputs: Tensor
    clean: IntArray
    decide: Callable[[FloatArray], IntArray]
    ball: Ball


MASKING_METRICS = define_metrics(
    """
    gradient_masking: share of the rows with such a sign; [0, 1], ideal 0; where a sign is shown, that a gradient attack
      found little says little; Athalye, Carlini and Wagner, ICML 2018
    """
)


def examine(
    model: DifferentiableModel,
    inputs: Tensor,
    clean: IntArray,
    decide: Callable[[FloatArray], IntArray],
    attacked: Attacked,
    *,
    ball: Ball,
    n_steps: int,
    rng: np.random.Generator,
) -> Examined:
    """Test at most 200 of the rows for masked gradients, and search without gradients if there are signs.

    In 50 where a row has more than 10,000 values. Arguments as of :func:`~probes.robustness.worst_case_search.attack`.
    Each sign is counted in rows, and holds where it is shown by an exact binomial bound at 0.001 that more than 2 % of
    the rows have it, of the first 40 %, which honest networks do not:

    - ``no gradient``: it is 0 or no number, though the model's answer changes with these inputs;
    - ``single precision``: in double precision it points elsewhere, by a cosine below 0.9;
    - ``full range``: the attack with the whole range to go finds nothing where another row's values flip the decision;
    - ``asking``: asking alone, 100 times, breaks what the gradient does not;
    - ``repeated``: the same row is answered differently when it is asked again.

    Where one holds, the rows that are left, and have no gradient in double precision either, are searched by asking,
    500 times a row and level, and then along the boundary from an input that is decided otherwise
    (:func:`~probes.robustness.gradient_masking.along_the_boundary`), for which decisions alone will do. That a
    transferred example fails is no sign, and that the gradient leads somewhere is none that it leads to the nearest
    place.

    Sources: Athalye, Carlini and Wagner, ICML 2018; Carlini et al., On Evaluating Adversarial Robustness, 2019.
    """
    import torch

    of_rows, of_range, of_asking, of_all = rng.spawn(4)
    picked = np.sort(
        of_rows.choice(len(clean), min(_MOST_LARGE if is_large(inputs) else _MOST_ROWS, len(clean)), replace=False)
    )
    index = torch.from_numpy(picked).to(inputs.device)
    few = _Subject(model, Margins(model, decide), inputs[index], clean[picked], decide, ball.subset(index))
    with differentiating(model):
        signs = [*_of_gradients(few, attacked.flat[picked], of_rows), _of_range(few, n_steps, of_range)]
        repeated = _of_repeating(few)
    level = _informative_level(attacked)
    size = attacked.levels[level]
    points, found = search_by_asking(
        model, few.inputs, few.clean, decide, ball=few.ball, level=size, n_queries=_QUERIES, rng=of_asking
    )
    alone = found & ~attacked.broken[level, picked]
    signs += [Sign("asking", int(alone.sum()), len(picked), "asking alone breaks what it does not"), repeated]
    examined = Examined(_with_examples(attacked, level, picked, points, found), tuple(signs))
    return _searched(examined, few, inputs, clean, ball, of_all) if examined.masked else examined


def _informative_level(attacked: Attacked) -> int:
    """The largest level at which half of the rows are left, else the smallest."""
    left = np.flatnonzero(attacked.broken.mean(axis=1) <= 0.5) if attacked.broken.size else np.zeros(1, np.int64)
    return int(left[-1]) if left.size else 0


def _searched(
    examined: Examined, few: _Subject, inputs: Tensor, clean: IntArray, ball: Ball, rng: np.random.Generator
) -> Examined:
    """With what is found at every level without the gradient, of the rows that have none in double precision either."""
    import torch

    attacked = examined.attacked
    of_asking, of_boundary = rng.spawn(2)
    for i, level in enumerate(attacked.levels):
        left = np.flatnonzero(~attacked.broken[i] & ~attacked.steep)
        index = torch.from_numpy(left).to(inputs.device)
        points, found = search_by_asking(
            few.model,
            inputs[index],
            clean[left],
            few.decide,
            ball=ball.subset(index),
            level=level,
            n_queries=_QUERIES_WHEN_HIDDEN,
            rng=of_asking,
        )
        attacked = _with_examples(attacked, i, left, points, found)
    left = np.flatnonzero(~attacked.broken[0] & ~attacked.steep)
    with differentiating(few.model):
        left, start = _starts(replace(few, inputs=inputs, clean=clean, ball=ball), attacked, left, of_boundary)
        for at in batches(inputs, np.arange(len(left))):
            rows, begun = left[at], start[torch.from_numpy(at).to(inputs.device)]
            places = torch.from_numpy(rows).to(inputs.device)
            near, here = inputs[places], ball.subset(places)
            unit = here.radius.expand_as(near)
            outside = Outside(partial(few.margins.flipped, clean=clean[rows]), near, unit, here.limits)
            points = along_the_boundary(outside, begun, n_rounds=_ROUNDS, rng=of_boundary)
            for i, level in enumerate(attacked.levels):
                low, high = here.around(near, level)
                cut = snapped(torch.clamp(points, low, high), low, ball.steps)
                attacked = _with_examples(attacked, i, rows, cut, few.margins.flipped(cut, clean[rows]))
    return replace(examined, attacked=attacked)


def _with_examples(attacked: Attacked, level: int, rows: IntArray, points: Tensor, is_broken: BoolArray) -> Attacked:
    import torch

    everywhere, at = attacked.examples.clone(), np.zeros(attacked.broken.shape[1], np.bool_)
    everywhere[torch.from_numpy(rows).to(points.device)], at[rows] = points, is_broken
    return attacked.with_found(level, at, everywhere)


def _starts(
    everyone: _Subject, attacked: Attacked, rows: IntArray, rng: np.random.Generator
) -> tuple[IntArray, Tensor]:
    """Those of the rows for which an input decided otherwise is known, and it: found before, or some other row's."""
    import torch

    inputs, clean = everyone.inputs, everyone.clean
    known, start = attacked.broken[-1].copy(), attacked.examples.clone()
    movable = _movable(everyone)
    for _ in range(_STARTS):
        left = rows[~known[rows]]
        index = torch.from_numpy(left).to(inputs.device)
        other = torch.from_numpy(rng.integers(len(clean), size=left.size)).to(inputs.device)
        for at in batches(inputs, np.arange(left.size)):
            here = torch.from_numpy(at).to(inputs.device)
            swapped = torch.where(movable[index[here]], inputs[other[here]], inputs[index[here]])
            hit = everyone.margins.flipped(swapped, clean[left[at]])
            known[left[at]] = hit
            start[index[here][torch.from_numpy(hit).to(inputs.device)]] = swapped[
                torch.from_numpy(hit).to(inputs.device)
            ]
    kept = rows[known[rows]]
    return kept, start[torch.from_numpy(kept).to(inputs.device)]


# ---- signs ---------------------------------------------------------------------------------------------------------


def _of_gradients(few: _Subject, flat: BoolArray, rng: np.random.Generator) -> list[Sign]:
    import torch

    n = len(few.clean)
    without = int((flat & _moves(few, rng)[0]).sum())
    signs = [Sign("no gradient", without, n, "it is 0 or no number", _HONEST_WITHOUT)]
    twin = in_double(few.model, few.inputs) if n else None
    if twin is None:
        return [*signs, Sign("single precision", 0, 0, "in double precision it points elsewhere")]
    doubled, movable = replace(few.margins, twin=twin), _movable(few)
    elsewhere = np.zeros(n, np.bool_)
    for at in batches(few.inputs, np.arange(n)):
        index = torch.from_numpy(at).to(few.inputs.device)
        single, double = (
            (m.ask(few.inputs[index], few.clean[at]).gradient.double() * movable[index]).flatten(1)
            for m in (few.margins, doubled)
        )
        # Of very small or very large numbers the squares are none.
        single, double = (g / g.abs().amax(dim=1, keepdim=True).clamp_min(1e-300) for g in (single, double))
        cosine = torch.nn.functional.cosine_similarity(single, double, dim=1)
        elsewhere[at] = ((cosine < _SAME_WAY) & (double != 0).any(dim=1)).cpu().numpy()
    return [*signs, Sign("single precision", int(elsewhere.sum()), n, "in double precision it points elsewhere")]


def _movable(few: _Subject) -> Tensor:
    return (few.ball.radius != 0).expand_as(few.inputs)


def _moves(few: _Subject, rng: np.random.Generator) -> tuple[BoolArray, BoolArray]:
    """(n,) whether the answer, and whether the decision, is another one with the movable inputs of some other row."""
    import torch

    moves, flips = np.zeros((2, len(few.clean)), np.bool_)
    movable = _movable(few)
    for _ in range(_SWAPS if len(few.clean) else 0):
        other = few.inputs[torch.from_numpy(rng.permutation(len(few.clean))).to(few.inputs.device)]
        swapped = torch.where(movable, other, few.inputs)
        for at in batches(few.inputs, np.arange(len(few.clean))):
            index = torch.from_numpy(at).to(few.inputs.device)
            moved = few.margins.logits(swapped[index]) != few.margins.logits(few.inputs[index])
            moves[at] |= moved.any(dim=1).cpu().numpy()
            flips[at] |= few.margins.flipped(swapped[index], few.clean[at])
    return moves, flips


def _of_range(few: _Subject, n_steps: int, rng: np.random.Generator) -> Sign:
    """Within the values that the rows have, each input may go anywhere; another row's values are such a place."""
    import torch

    known = np.flatnonzero(_moves(few, rng)[1])
    index = torch.from_numpy(known).to(few.inputs.device)
    missed = 0
    if known.size:
        low, high = few.inputs.amin(dim=0), few.inputs.amax(dim=0)
        radius = torch.where(few.ball.radius != 0, high - low, torch.zeros_like(high))
        whole = replace(few.ball, radius=radius, limits=(low, high)).subset(index)
        found = attack(
            few.model,
            few.inputs[index],
            few.clean[known],
            few.decide,
            ball=whole,
            levels=[1.0],
            n_steps=n_steps,
            rng=rng,
        )
        missed = int((~found.broken[0]).sum())
    said = "with the whole range to go it does not lead to the flips that other rows' values make"
    return Sign("full range", missed, known.size, said)


def _of_repeating(few: _Subject) -> Sign:
    import torch

    differ = np.zeros(len(few.clean), np.bool_)
    for at in batches(few.inputs, np.arange(len(few.clean))):
        index = torch.from_numpy(at).to(few.inputs.device)
        once, again = (few.margins.logits(few.inputs[index]).double() for _ in range(2))
        unlike = (once - again).abs().amax(dim=1) > _SAME_ANSWER * once.abs().amax(dim=1)
        differ[at] = unlike.cpu().numpy()
    return Sign("repeated", int(differ.sum()), len(few.clean), "the same row is answered differently when asked again")
