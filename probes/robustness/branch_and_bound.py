"""Branch and bound: undecided boxes are split until every part is decided or the limit is reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from auditor.core.rows import BoolArray


@dataclass(frozen=True, eq=False)
class BoxBounds:
    """Bounds of m boxes (m, d): the ``least`` possible margin (m,), the gain ``worth`` (m, d) of a split along each
    input, and a point ``at`` (m, d) of the box with a probably small margin."""

    least: Tensor
    worth: Tensor
    at: Tensor


@dataclass(frozen=True, eq=False)
class Decided:
    """Results for n rows: whether the whole box was ``proved`` (n,), whether a point with another decision was found,
    ``broken`` (n,), and that point, ``examples`` (n, d).

    Of rows with neither nothing is known.
    """

    proved: BoolArray
    broken: BoolArray
    examples: Tensor


def decide(
    low: Tensor,
    high: Tensor,
    bound: Callable[[Tensor, Tensor, Tensor], BoxBounds],
    breaks: Callable[[Tensor, Tensor], BoolArray],
    *,
    most: int,
    whole: Tensor | None = None,
) -> Decided:
    """Branch and bound over the inputs of n boxes, low and high (n, d).

    ``bound(rows, low, high)``: of m boxes, each a part of the box of its row; ``breaks(rows, points)``: (m,) whether
    the model itself decides the point otherwise. A box whose least margin lies above 0 is proved. Of any other the
    likely point is tried, and it is cut in the middle of the input whose cut is worth most. A row is proved once all of
    its boxes are, and is given up before it has more than ``most`` of them: a number of boxes and not of seconds, so
    that the answer is the same on every machine. All rows go forward together, since many boxes are bounded at a time.
    ``whole`` (d,): of inputs that stand for whole numbers, counted from the row's ``low``, the size of one, else 0. A
    box is cut between two of them, and what lies between is in neither part.
    """
    n = len(low)
    first = low, high
    broken, given_up, spent, examples = np.zeros(n, np.bool_), np.zeros(n, np.bool_), np.zeros(n, np.int64), low.clone()
    rows = torch.arange(n)
    while len(rows):
        spent += np.bincount(rows.numpy(), minlength=n)
        found = bound(rows, low, high)
        # A margin that is no number proves nothing.
        open_ = ~(found.least > 0.0)
        rows, low, high, worth, at = rows[open_], low[open_], high[open_], found.worth[open_], found.at[open_]
        hit = breaks(rows, at)
        broken[rows.numpy()[hit]] = True
        examples[rows[torch.from_numpy(hit)]] = at[torch.from_numpy(hit)]
        ends, starts, stuck = _split_points(low, high, (first[0][rows], first[1][rows]), whole)
        axis = torch.where(stuck, -torch.inf, worth).argmax(dim=1, keepdim=True)
        given_up[rows[stuck.gather(1, axis).squeeze(1)].numpy()] = True
        given_up |= spent + 2 * np.bincount(rows.numpy(), minlength=n) > most
        on = torch.from_numpy(~(given_up | broken)[rows.numpy()])
        rows, low, high, axis = rows[on], low[on], high[on], axis[on]
        end, start = ends[on].gather(1, axis), starts[on].gather(1, axis)
        low, high = torch.cat([low, low.scatter(1, axis, start)]), torch.cat([high.scatter(1, axis, end), high])
        rows = torch.cat([rows, rows])
    return Decided(~(given_up | broken), broken, examples)


def _split_points(
    low: Tensor, high: Tensor, first: tuple[Tensor, Tensor], whole: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Where the lower part of each box ends and the upper one starts, by each input, and whether no cut makes it less.

    All (m, d); ``first``: the box that each is a part of.
    """
    middle = (low + high) / 2.0
    stuck = (middle <= low) | (middle >= high)
    if whole is None:
        return middle, middle, stuck
    size = torch.where(whole > 0, whole.to(low), 1.0)
    # Whole numbers are encoded in float32, so that each lies a little beside its place.
    room = 1e-3 * size + 2.0**-20 * torch.maximum(first[0].abs(), first[1].abs())
    counted = (whole > 0) & (room < 0.1 * size)
    lowest, highest = (torch.round((end - first[0]) / size) for end in (low, high))
    below = torch.floor((lowest + highest) / 2.0)
    ends = torch.where(counted, first[0] + below * size + room, middle)
    starts = torch.where(counted, first[0] + (below + 1.0) * size - room, middle)
    return ends, starts, torch.where(counted, lowest >= highest, stuck)
