"""Attacks by queries only, without gradients: the Square attack, and worst-case search around rows of any kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.core.rows import BoolArray, FloatArray, IntArray, take_rows
from probes.probe_inputs import as_frame
from probes.robustness.perturbation_set import Ball, ball_of_numbers
from probes.robustness.table_noise import as_taken, changing_columns, numbers, with_values

if TYPE_CHECKING:
    from auditor.core.rows import Rows
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

# Share of the picture that a square covers, halved after these shares of all queries.
_FIRST_SHARE = 0.8
_HALVED_AT = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


def square_attack(
    low: npt.NDArray[Any],
    high: npt.NDArray[Any],
    ask: Callable[[npt.NDArray[Any], IntArray], tuple[FloatArray, BoolArray]],
    *,
    n_queries: int,
    rng: np.random.Generator,
    start: BoolArray | None = None,
) -> tuple[npt.NDArray[Any], BoolArray]:
    """The changed rows, and whether each evades, after at most ``n_queries`` questions about each.

    low, high (n, height, width, channels) or (n, values): the least and the largest that each value may be, of any
    type. ask: rows, and which of the n they are of, to (m,) numbers that the attack lowers and (m,) whether each will
    do. It starts from vertical stripes of the one and the other (white noise where there is no width), or from the
    largest of the values where ``start``, of the shape of ``low``, is True and the least elsewhere, and then sets
    squares (stretches of values), ever smaller, to either in each channel, keeping what does not raise the number.
    Source: Andriushchenko et al., ECCV 2020, the L-infinity attack and its schedule.
    """
    shape = low.shape
    ends = [t[:, None, :, None] if t.ndim == 2 else t for t in (low, high)]
    n, height, width, channels = ends[0].shape

    def tell(is_upper: BoolArray, indices: IntArray) -> tuple[FloatArray, BoolArray]:
        rows = np.where(is_upper, ends[1][indices], ends[0][indices])
        return ask(rows.reshape(len(indices), *shape[1:]), indices)

    everyone = np.arange(n, dtype=np.int64)
    if start is None:
        start = rng.choice(np.array([False, True]), (n, 1, width, channels))
        above = np.broadcast_to(start, ends[0].shape).copy()
    else:
        above = start.reshape(ends[0].shape).copy()
    best, done = tell(above, everyone) if n else (np.empty(0), np.zeros(0, np.bool_))
    for query in range(1, n_queries):
        active = everyone[~done]
        if not active.size:
            break
        tried = above[active]
        tall, wide = _square(height, width, query / n_queries)
        # Of each row where its square begins, and what each channel is set to: one call for the draws of them all.
        below = np.tile([height - tall + 1, width - wide + 1, *[2] * channels], (active.size, 1))
        drawn = rng.integers(below)
        for row, (top, left), ups in zip(tried, drawn[:, :2].tolist(), drawn[:, 2:].astype(np.bool_), strict=True):
            row[top : top + tall, left : left + wide] = ups
        found, enough = tell(tried, active)
        better = (found <= best[active]) | enough
        above[active[better]] = tried[better]
        best[active[better]] = found[better]
        done[active] = enough
    return np.where(above, ends[1], ends[0]).reshape(shape), done


def _square(height: int, width: int, query_share: float) -> tuple[int, int]:
    """Height and width of the next square after a share of the queries was spent."""
    share = _FIRST_SHARE / 2.0 ** sum(query_share > at for at in _HALVED_AT)
    if height == 1:
        return 1, min(max(1, round(share * width)), width)
    side = min(max(1, round(math.sqrt(share * height * width))), height, width)
    return side, side


Ask = Callable[["Rows"], FloatArray]
Decide = Callable[["Rows", FloatArray], IntArray]

_FILES_AT_ONCE = 16
# Of probabilities the logarithm is taken, and 0 has none.
_LEAST = 1e-300


@dataclass(frozen=True, eq=False)
class AttackedRows:
    """The result of a search on n rows.

    ``broken`` (n_levels, n): whether a row within ``levels[i]`` is decided otherwise; it stays found at larger levels.
    ``examples``: the first such rows, as the model takes them, and the rows themselves where none was found. ``asked``
    (n,): questions about each. ``graded``: whether the answers were probabilities; else they were classes alone.
    """

    levels: tuple[float, ...]
    broken: BoolArray
    examples: Rows
    asked: IntArray
    graded: bool


@dataclass(frozen=True, eq=False)
class MovingRows:
    """Rows as a search moves them.

    ``values`` (n, d): their numbers in the columns that can change a little, or all of a file; ``ball``: how far these
    go; ``write``: numbers (m, d), and which of the n rows they are of, to rows as the model takes them. ``others``
    (m, d): numbers of rows to start from, NaN where they lend none, and ``decided`` (m,) what is decided on these.
    ``shape``: of the d numbers of a file, whose neighbours are moved together; empty for a table.
    """

    values: FloatArray
    ball: Ball
    write: Callable[[FloatArray, IntArray], Rows]
    others: FloatArray
    decided: IntArray
    shape: tuple[int, ...] = ()

    def around(self, level: float) -> tuple[FloatArray, FloatArray]:
        """(n, d) each, the least and the largest that each number may be at epsilon = ``level``."""
        import torch

        low, high = self.ball.around(torch.from_numpy(self.values), level)
        return low.numpy(), high.numpy()

    def nearest(self, clean: IntArray, most: int) -> tuple[IntArray, IntArray]:
        """(n, k <= most) the nearest rows with other decisions for each row, and (n,) their total number.

        By the largest difference over the numbers that both may change, in what epsilon counts.
        """
        radius = self.ball.radius.numpy()
        n_near = np.array([(self.decided != own).sum() for own in clean], np.int64).clip(max=most)
        found = np.zeros((len(clean), int(n_near.max(initial=0))), np.int64)
        for i, own in enumerate(clean):
            unlike = np.flatnonzero(self.decided != own)
            at = np.flatnonzero(radius[i])
            away = np.nan_to_num(np.abs(self.others[np.ix_(unlike, at)] - self.values[i, at]) / radius[i, at], nan=0.0)
            order = np.argsort(away.max(axis=1, initial=0.0), kind="stable")[: n_near[i]]
            found[i, : n_near[i]] = unlike[order]
        return found, n_near


def moving_rows(
    model: AuditedModel,
    rows: AuditData,
    sample: AuditData,
    clean: IntArray,
    row_indices: IntArray,
    fixed_columns: frozenset[str],
) -> MovingRows:
    """The sample's rows at ``row_indices``, with the whole sample, decided as ``clean``, as starting points."""
    if sample.modality != "tabular":
        return _moving_files(sample, clean, row_indices)
    columns = changing_columns(model, rows, fixed_columns)
    whole = as_frame(sample.X, model.features).reset_index(drop=True)
    own = whole.iloc[row_indices]

    def write(values: FloatArray, indices: IntArray) -> Rows:
        return as_taken(with_values(own.iloc[indices].reset_index(drop=True), columns, values), sample.X)

    everything = np.column_stack([numbers(whole[column.name]) for column in columns])
    free = np.column_stack([column.can_change(everything[:, j]) for j, column in enumerate(columns)])
    values = np.where(np.isfinite(everything[row_indices]), everything[row_indices], 0.0)
    ball = ball_of_numbers(columns, free[row_indices], whole.shape[1])
    return MovingRows(values, ball, write, np.where(free, everything, np.nan), clean)


def _moving_files(sample: AuditData, clean: IntArray, row_indices: IntArray) -> MovingRows:
    """Pictures (n, h, w, c) in 8 bits or recordings (n, samples) in 16: whole steps of what a file holds, and no
    transparency."""
    import torch

    X = np.asarray(sample.X)
    ends, shape = np.iinfo(X.dtype), X.shape[1:]
    reach = np.full(shape, 255.0 if len(shape) == 3 else 32768.0, np.float32)
    if len(shape) == 3:
        reach[..., 3:] = 0.0
    everything: npt.NDArray[Any] = X.reshape(len(X), -1).astype(np.float32)
    values = everything[row_indices]
    ball = Ball(
        torch.from_numpy(reach).reshape(1, -1).expand(values.shape),
        (torch.tensor(float(ends.min)), torch.tensor(float(ends.max))),
        "times the range of a pixel" if len(shape) == 3 else "of full scale",
        torch.ones(1),
        by_row=True,
    )

    def write(numbers: FloatArray, indices: IntArray) -> Rows:
        return numbers.reshape(len(indices), *shape).astype(X.dtype)

    return MovingRows(values, ball, write, everything, clean, shape)


def attack_rows(
    table: MovingRows,
    clean: IntArray,
    ask: Ask,
    decide: Decide,
    *,
    levels: Sequence[float],
    n_queries: int,
    rng: np.random.Generator,
) -> AttackedRows:
    """Nearby rows with different decisions, found by queries, for models and rows of any kind.

    clean (n,) what is decided on the rows; ask: rows to (m, k) probabilities; decide: both to (m,) classes; levels
    ascending. At each level, of the rows that are left: first the numbers of the nearest other rows that are decided
    otherwise, each cut to the ball, which is where attacks by decisions begin; then the Square attack
    (:func:`~probes.robustness.query_attacks.square_attack`) on the margin of log-probabilities, from the corner of the
    ball on the side of the one of these with the least margin. Each has half of the questions; where answers are
    classes alone, which tell Square nothing, the first has all that it finds rows for. The questions that are left
    about a row are shared by the levels that are left, and are at most ``n_queries`` in all. Of what breaks a row the
    model is asked again before it counts.

    Sources: Andriushchenko et al., ECCV 2020 (Square); Brendel, Rauber and Bethge, ICLR 2018, and Chen, Jordan and
    Wainwright, IEEE S&P 2020 (from a row that is decided otherwise, cut to the ball).
    """
    search = _Search(table, clean, ask, decide)
    near, n_near = table.nearest(clean, n_queries)
    broken, examples = np.zeros((len(levels), len(clean)), np.bool_), table.values.copy()
    for i, level in enumerate(levels):
        broken[i] = broken[i - 1] if i else False
        low, high = table.around(level)
        left = np.flatnonzero(~broken[i] & (low < high).any(axis=1))
        before = search.asked.copy()
        # One question is kept for asking again.
        share = (n_queries - 1 - int(search.asked[left].max(initial=0))) // (len(levels) - i)
        if not left.size or share < 1:
            continue
        low, high = low[left], high[left]
        points, found, start = _from_others(search, low, high, left, near[left], n_near[left], share)
        # Where no other row says which way, chance does.
        start = np.where((n_near[left] > 0)[:, None], start, rng.random(start.shape) < 0.5)
        spent = int((search.asked - before)[left].max())
        if (open_ := np.flatnonzero(~found)).size and share > spent:
            about, n = search.about(left[open_]), open_.size
            first, last = (end[open_].reshape(n, *(table.shape or end.shape[1:])) for end in (low, high))
            moved, found[open_] = square_attack(
                first, last, about, n_queries=share - spent, rng=rng, start=start[open_]
            )
            points[open_] = moved.reshape(n, -1)
        hits = np.flatnonzero(found)
        hits = hits[search.tell(points[hits], left[hits])[1]]
        broken[i, left[hits]], examples[left[hits]] = True, points[hits]
    written = table.write(examples, np.arange(len(clean), dtype=np.int64))
    return AttackedRows(tuple(levels), broken, written, search.asked, search.graded)


def _from_others(
    search: _Search,
    low: FloatArray,
    high: FloatArray,
    rows: IntArray,
    near: IntArray,
    n_near: IntArray,
    most: int,
) -> tuple[FloatArray, BoolArray, BoolArray]:
    """Of other rows' numbers cut to the ball, (m, k) by their places: the best (m, d), whether it is decided otherwise,
    and which of its numbers go up. At most ``most`` are tried, and half of that where answers are probabilities."""
    values = search.table.values[rows]
    best, found, least = values.copy(), np.zeros(len(rows), np.bool_), np.full(len(rows), np.inf)
    up = np.zeros(values.shape, np.bool_)
    for nth in range(min(near.shape[1], most)):
        left = np.flatnonzero(~found & (nth < n_near))
        if not left.size or (search.graded and nth >= max(most // 2, 1)):
            break
        theirs = search.table.others[near[left, nth]]
        theirs = np.where(np.isfinite(theirs), theirs, values[left])
        tried = np.clip(theirs, low[left], high[left])
        margins, found[left] = search.tell(tried, rows[left])
        better = found[left] | (margins < least[left])
        at = left[better]
        best[at], up[at], least[at] = tried[better], (theirs > values[left])[better], margins[better]
    return best, found, up


class _Search:
    """The questions asked of a model about rows of a table."""

    def __init__(self, table: MovingRows, clean: IntArray, ask: Ask, decide: Decide) -> None:
        self.table, self.clean, self.ask, self.decide = table, clean, ask, decide
        self.asked = np.zeros(len(clean), np.int64)
        self.graded = False

    def about(self, rows: IntArray) -> Callable[[FloatArray, IntArray], tuple[FloatArray, BoolArray]]:
        """What :meth:`tell` tells of some of the rows, by their places in ``rows``."""
        return lambda points, which: self.tell(points, rows[which])

    def tell(self, points: FloatArray, indices: IntArray) -> tuple[FloatArray, BoolArray]:
        """(m,) margins of points, the log-probability of the clean decision less the largest other, and (m,) whether
        each is decided otherwise."""
        if not len(indices):
            return np.empty(0), np.zeros(0, np.bool_)
        self.asked[indices] += 1
        rows = self.table.write(points, indices)
        at_once = _FILES_AT_ONCE if self.table.shape else len(indices)
        parts = range(0, len(indices), at_once)
        sure = np.concatenate([self.ask(take_rows(rows, slice(i, i + at_once))) for i in parts])
        self.graded |= bool(((sure > 0.0) & (sure < 1.0)).any())
        own = np.arange(len(indices)), self.clean[indices]
        logs = np.log(np.maximum(sure, _LEAST))
        mine = logs[own]
        logs[own] = -np.inf
        return mine - logs.max(axis=1), np.asarray(self.decide(rows, sure) != self.clean[indices], np.bool_)
